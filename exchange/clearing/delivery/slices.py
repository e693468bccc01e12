"""A delivery month in slices: each UTC day is paid for against the hours that were attested.

Money is cents here, hours are GPU-seconds. An invoice is price x hours x lots x factor, rounded
once, half to even (contracts.grades.delivery). It is cut into its days by largest remainder, the
earlier day first; of a day as much is payable as was available of it, floored, and the rest goes
back to the buyer. Weeks are days 1 to 7, 8 to 14 and so on.

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
    """One day's delivery against payment: hours to the buyer, cents to the seller, both or none."""

    day: int  # of the month, from 1
    attested_s: int
    payable: int
    returned: int


def sliced(invoice: int, days: int) -> list[int]:
    """An invoice by its days."""
    return list(share(invoice, dict.fromkeys(range(days), DAY_HOURS)).values())


def settle_day(day: int, cents: int, attested_s: int, lots: int) -> Slice:
    """A day's slice of ``cents`` against GPU-seconds attested, at most all of the day's."""
    whole = lots * DAY_S
    assert 0 <= attested_s <= whole, f"{attested_s} of {whole} seconds"
    payable = cents * attested_s // whole
    return Slice(day, attested_s, payable, cents - payable)


def week_of(day: int) -> int:
    """The week of a day of the month, from 0."""
    return (day - 1) // WEEK_DAYS


def week_days(week: int, days: int) -> range:
    """The days of a week of a month that has so many."""
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
    """The month's true-up on what was attested; hours that were not available cost nothing twice.

    ``lost_s``: GPU-seconds within the attested ones that the seller lost. Billed on whole
    attested GPU-hours. A month in which nothing was attested has failed.
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

    dearer: int  # what the hours cost now above what was agreed
    penalty: int


def buy_in(
    *, price_micros: int, fixing_micros: int, hours: int, lots: int, factor_e4: int,
    penalty_percent: int,
) -> BuyIn:  # fmt: skip
    """Hours that were not delivered, bought at the next fixing: the difference and a penalty.

    Cheaper hours are the buyer's luck: the difference is never below zero.
    """
    dearer = max(0, fixing_micros - price_micros)
    value = Fraction(price_micros * penalty_percent, PERCENT)
    return BuyIn(
        invoice_cents(price_micros=dearer, hours=hours, lots=lots, factor_e4=factor_e4),
        invoice_cents(price_micros=value, hours=hours, lots=lots, factor_e4=factor_e4),
    )
