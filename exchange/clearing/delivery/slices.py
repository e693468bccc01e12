"""The daily slices of a delivery's invoice: each UTC day is paid for by its attested hours.

Money is in cents, use in GPU-seconds. An invoice is price x hours x lots x factor, rounded once,
half to even (contracts.grades.delivery). It is divided over the month's days by largest remainder,
the earlier day first. Of a day's slice the share that was available is payable, rounded down; the
rest returns to the buyer. Weeks are days 1 to 7, 8 to 14 and so on.

    sum of slices = invoice        payable + returned = slice        paid + returned = invoice
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from contracts.grades import Rules
from contracts.grades.delivery import TrueUp, invoice_cents, true_up
from exchange.clearing.sharing import share

HOUR_S: Final = 3_600
DAY_HOURS: Final = 24
DAY_S: Final = DAY_HOURS * HOUR_S
WEEK_DAYS: Final = 7
PERCENT: Final = 100


class Slice(NamedTuple):
    """One day: GPU-seconds to the buyer, and cents payable to the seller and returned."""

    day: int  # of the month, from 1
    attested_s: int
    payable: int
    returned: int


def sliced(invoice: int, days: int) -> list[int]:
    """Return an invoice's slices in cents, by day."""
    return list(share(invoice, dict.fromkeys(range(days), DAY_HOURS)).values())


def settle_day(day: int, cents: int, attested_s: int, lots: int) -> Slice:
    """Divide a day's slice of ``cents`` by its attested GPU-seconds, of all ``lots`` at most."""
    whole = lots * DAY_S
    assert 0 <= attested_s <= whole, f"{attested_s} of {whole} seconds"
    payable = cents * attested_s // whole
    return Slice(day, attested_s, payable, cents - payable)


def week_of(day: int) -> int:
    """Return the week of a day of the month, from 0."""
    return (day - 1) // WEEK_DAYS


def week_days(week: int, days: int) -> range:
    """Return the days of a week, in a month of ``days`` days."""
    first = week * WEEK_DAYS + 1
    return range(first, min(first + WEEK_DAYS, days + 1))


def quality(
    slices: Sequence[Slice],
    lost_s: int,
    *,
    price_micros: int,
    factor_e4: int,
    fixed_e4: int,
    rules: Rules,
) -> TrueUp:
    """Return the month's true-up on the attested hours.

    Hours that were not available were returned already and do not count again. ``lost_s`` is the
    GPU-seconds of the attested ones that the seller lost. The price applies to whole attested
    GPU-hours. A month without attested hours has failed.
    """
    attested = sum(one.attested_s for one in slices)
    if not attested:
        return TrueUp(failed=True, realized_e6=0, shortfall_e6=0, cents=0)
    return true_up(
        price_micros=price_micros,
        hours=attested // HOUR_S,
        lots=1,
        factor_e4=factor_e4,
        fixed_e4=fixed_e4,
        lost_ns=lost_s,
        elapsed_ns=attested,
        rules=rules,
    )


class BuyIn(NamedTuple):
    """What a seller that failed owes the buyer, in cents."""

    dearer: int  # cost of the hours now above the agreed price
    penalty: int


def buy_in(
    *, price_micros: int, fixing_micros: int, hours: int, lots: int, factor_e4: int,
    penalty_percent: int,
) -> BuyIn:  # fmt: skip
    """Return the price difference to the next fixing, and the penalty, of hours not delivered.

    The difference is never below zero: if the hours are cheaper now, the buyer keeps the gain.
    """
    dearer = max(0, fixing_micros - price_micros)
    value = Fraction(price_micros * penalty_percent, PERCENT)
    return BuyIn(
        invoice_cents(price_micros=dearer, hours=hours, lots=lots, factor_e4=factor_e4),
        invoice_cents(price_micros=value, hours=hours, lots=lots, factor_e4=factor_e4),
    )
