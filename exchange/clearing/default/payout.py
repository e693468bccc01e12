"""Payments of a default's layers, and the accounts of fund and capital in the book of transfers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from exchange.clearing.default.waterfall import Waterfall
from exchange.clearing.delivery import dvp
from exchange.clearing.matters import At, Due
from exchange.clearing.members.registry import Registry
from exchange.clearing.moves import ask, take
from exchange.clearing.sharing import share
from exchange.clearing.transfers import Account
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State

OUTSIDE: Final = "outside"  # the owner's money before it is paid in
CAPITAL: Final = "capital"


def pay_layers(
    id: str,
    member: int,
    cash: Mapping[int, int],
    found: Waterfall[int],
    at: At,
    state: "State",
) -> None:
    """Request the payments of all layers into the estate's accounts that owe, up to zero.

    ``cash`` is the micro-dollars of each of the estate's accounts; positive cash pays first for
    those that owe. ``id`` begins the id of each movement.
    """
    short = {account: -held for account, held in cash.items() if held < 0}
    has = {account: held for account, held in cash.items() if held > 0}
    registry = state.matters.get(Registry)
    funds = {member: found.defaulter_fund, **found.survivors_fund}
    sources = {fund_of(who): amount for who, amount in funds.items()}
    sources[CAPITAL] = found.own_capital
    for source, amount in sources.items():
        if amount:
            move(state, f"{id} {source}", source, dvp.MARKET, amount, at)
    into = sum(sources.values())
    charged: list[tuple[int, int, str]] = []
    for who, amount in found.assessments.items():
        charged.append((registry.own(who, state)[0], amount, "assessment"))
    charged += [(account, cut, "haircut") for account, cut in found.haircuts.items()]
    netted = share(min(sum(has.values()), sum(short.values())), has)
    charged += [(account, amount, "estate") for account, amount in netted.items()]
    for account, amount, why in charged:
        ask(state, *take(f"{id} {why} {account}", account, amount))
    through = sum(amount for _, amount, _ in charged)
    ask(state, Due(f"{id} out", "withdraw", HOUSE_ACCOUNT, through))
    paid = share(into + through, short)
    assert sum(short.values()) == into + through + found.uncovered, "what is short is covered"
    for account, amount in paid.items():
        ask(state, Due(f"{id} in {account}", "deposit", account, amount))


def fund_of(member: int) -> str:
    """Return the name of a member's account of the fund."""
    return f"fund/{member}"


def open_fund(state: "State", member: int) -> None:
    """Open a member's account of the fund, which cannot be overdrawn."""
    state.book.open(Account(dvp.MARKET))
    state.book.open(Account(fund_of(member), "USD", "debits"))


def move(state: "State", id: str, debit: str, credit: str, amount: int, at: At) -> None:
    """Make one of clearing's own transfers; AssertionError if the book refuses it."""
    state.book.open(Account(dvp.MARKET))
    outcome = dvp.move(state.book, id, debit, credit, amount, at.stamp)
    assert not outcome, f"{id}: {outcome!r}"


def named(amounts: dict[int, int]) -> dict[str, int]:
    """Return the amounts other than zero with text keys, as in the facts of a ruling."""
    return {str(who): amount for who, amount in amounts.items() if amount}
