"""The state of a physical contract until its positions are gone: ages of longs, and notices.

Shorts that have not tendered their whole units by the last notice pay the penalty of a failed
delivery to the longs that no tender reached.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UnsetType

from contracts.grades.delivery import invoice_cents
from contracts.grades.table import FactorTable
from contracts.spec import PAR_FACTOR
from exchange.clearing.delivery.assignment import aged
from exchange.clearing.delivery.terms import Terms
from exchange.clearing.matters import At, Due, Ruling
from exchange.clearing.moves import MICROS_A_CENT, ask, take
from exchange.clearing.novation import Position
from exchange.clearing.sharing import share
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State

PERCENT: Final = 100
FACTOR_MOST: Final = 2 * PAR_FACTOR  # of any rules


class Factors(msgspec.Struct):
    """A published table: its version, (factor, fixed goodput) at 1e-4 by site, and the grade's
    delivery unit in lots, 1 if the table does not say."""

    version: int
    sites: dict[str, tuple[int, int]]
    unit: int = 1


def factors_of(table: FactorTable) -> Factors:
    """Return what clearing keeps of a table. ValueError if it has a site whose invoice or true-up
    would have no meaning."""
    sites = {
        f"{row.provider}/{row.facility}": (row.factor_e4, row.fixed_e4)
        for row in table.rows
        if row.factor_e4 is not None
    }
    for site, (factor, fixed) in sites.items():
        if not (0 < factor <= FACTOR_MOST and 0 < fixed <= PAR_FACTOR):
            raise ValueError(
                f"{site}: factor {factor} or goodput {fixed}, at 1e-4, is out of range"
            )
    unit = table.delivery_unit_lots
    return Factors(table.version, sites, 1 if isinstance(unit, UnsetType) else unit)


class Notice(msgspec.Struct, frozen=True):
    """An accepted tender; ``_e4`` is at 1e-4."""

    account: int
    lots: int
    grade: str
    provider: str
    facility: str
    factor_e4: int
    fixed_e4: int
    factor_version: int
    unit: int  # lots; the tender and each of its deliveries are multiples of it


class Expiry(msgspec.Struct):
    """One listed physical contract until its positions are gone."""

    terms: Terms
    longs: dict[int, list[tuple[int, int]]] = {}  # (date, lots) by account
    notices: list[Notice] = []
    assigned: bool = False
    expired: bool = False
    untendered: dict[int, int] = {}  # lots by short
    unassigned: dict[int, int] = {}  # lots of whole units by long, which no tender reached


def age(expiry: Expiry, number: int, at: At, state: "State") -> None:
    """Update the dates of all longs to the current positions."""
    for account, position in sorted(state.positions.of_instrument(number).items()):
        if position.net > 0 or account in expiry.longs:
            held = aged(expiry.longs.get(account, ()), position.net, at.business_date)
            if held:
                expiry.longs[account] = held
            else:
                expiry.longs.pop(account, None)


def hand_over(expiry: Expiry, account: int, to: int) -> None:
    """Move the long lots of ``account``, with their dates, and its notices to account ``to``."""
    if account in expiry.longs:
        held = [*expiry.longs.get(to, ()), *expiry.longs.pop(account)]
        expiry.longs[to] = sorted(held)
    expiry.notices = [
        msgspec.structs.replace(one, account=to) if one.account == account else one
        for one in expiry.notices
    ]


def tenders(expiry: Expiry, positions: Mapping[int, Position]) -> tuple[list[int], dict[int, int]]:
    """Return the lots of every notice, and the lots of whole units short without notice by account.

    An account that bought back after its notice delivers what it is still short, in whole units of
    the notice's grade.
    """
    unit, tendered = expiry.terms.unit, []
    short = {account: max(0, -held.net) for account, held in sorted(positions.items())}
    for notice in expiry.notices:
        there = short.get(notice.account, 0) // notice.unit * notice.unit
        lots = min(notice.lots, there)
        short[notice.account] = short.get(notice.account, 0) - lots
        tendered.append(lots)
    return tendered, {a: lots // unit * unit for a, lots in short.items() if lots >= unit}


def penalties(number: int, expiry: Expiry, price: int, state: "State") -> list[Ruling]:
    """Charge shorts for the lots not tendered and pay the longs without a delivery, by lots.

    ``price`` is in millionths of a dollar per GPU-hour. Returns the ruling, if there are both.
    """
    if not expiry.untendered or not expiry.unassigned:
        return []
    terms, total = expiry.terms, 0
    for account, lots in expiry.untendered.items():
        cents = (
            invoice_cents(price_micros=price, hours=terms.hours, lots=lots)
            * terms.penalty_percent // PERCENT
        )  # fmt: skip
        total += cents
        id = f"penalty {number} of {account}"
        ask(state, *take(id, account, cents * MICROS_A_CENT))
    ask(state, Due(f"penalty {number} out", "withdraw", HOUSE_ACCOUNT, total * MICROS_A_CENT))
    shares = share(total, expiry.unassigned)
    for account, cents in shares.items():
        ask(state, Due(f"penalty {number} to {account}", "deposit", account, cents * MICROS_A_CENT))
    paid = {str(account): cents for account, cents in shares.items()}
    return [Ruling("assignment", "penalties", {"instrument": number, "paid": paid})]
