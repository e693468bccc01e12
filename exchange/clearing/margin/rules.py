"""Margin's small rules, each one line of arithmetic that an auditor can redo. Integers only.

Money is micro-dollars or any other minor unit, as long as one call uses one unit; ``bp`` is 1e-4.
Whatever does not divide is rounded up, to the larger margin, unless a function says otherwise.
"""

from collections.abc import Iterable
from math import isqrt
from typing import Final

BP: Final = 10_000
PERCENT: Final = 100
LIMIT_KNEE: Final = 50_000  # lots of open interest up to which a tenth may be held by one


def up(numerator: int, denominator: int) -> int:
    """The quotient, rounded up."""
    return -(-numerator // denominator)


def rank(count: int, confidence_bp: int) -> int:
    """Which loss of ``count`` is the margin: the k-th largest, k = count x (1 - confidence), up."""
    return up(count * (BP - confidence_bp), BP)


def historical(losses: Iterable[int], confidence_bp: int) -> int:
    """The ``rank``-th largest of the losses, and never below zero. ValueError without losses."""
    ordered = sorted(losses, reverse=True)
    if not ordered:
        raise ValueError("no losses to take a margin from")
    return max(0, ordered[max(1, rank(len(ordered), confidence_bp)) - 1])


def stressed(model: int, stress: int, stress_percent: int) -> int:
    """The model's figure with a share of the weight on stressed observations."""
    return up(model * (PERCENT - stress_percent) + stress * stress_percent, PERCENT)


def floored(model: int, *floors: int) -> int:
    """The model's figure, and no less than any floor."""
    return max(model, *floors)


def buffered(model: int, before: int | None, buffer_bp: int, rebuild_bp: int = 0) -> int:
    """What is charged when the model says ``model`` and ``before`` was charged last.

    The buffer is filled in quiet times and used up when the model rises, so that a jump of the
    model inside it moves nothing; it is filled again by at most ``rebuild_bp`` of the model.
    """
    full = up(model * (BP + buffer_bp), BP)
    if before is None:
        return full
    return max(model, min(full, before + model * rebuild_bp // BP))


def concentration(margin: int, lots: int, daily_volume: int, participation_percent: int) -> int:
    """Added for a position that takes longer than a day to close without moving the market.

    margin x (sqrt(max(1, d)) - 1) with d = lots / (daily volume x participation), exact, then
    rounded up: the loss grows with the square root of the days that the close-out takes.
    """
    a_day = daily_volume * participation_percent
    if lots * PERCENT <= a_day or not margin:
        return 0
    squared = up(margin * margin * lots * PERCENT, a_day)
    return 1 + isqrt(squared - 1) - margin


def spread_credit(scan: int, used: int, delta: int, percent: int) -> int:
    """Taken off one side's scan for the ``used`` lots of ``delta`` that offset another product's.

    Rounded down, and never more than the scan.
    """
    return min(scan, scan * used * percent // (delta * PERCENT)) if delta else 0


def requirement(scan: int, calendar: int = 0, delivery: int = 0, credit: int = 0) -> int:
    """The sum of the parts; a credit never makes it negative."""
    return max(0, scan + calendar + delivery - credit)


def delivery_charge(outright: int, rate: int, in_spreads: int = 0, spread_rate: int = 0) -> int:
    """Charged on lots of the spot month, outright and in calendar spreads."""
    return outright * rate + in_spreads * spread_rate


def position_limit(open_interest: int) -> int:
    """Lots that one may hold outside the spot month: rounded down, of the open interest a tenth
    up to LIMIT_KNEE and a fortieth beyond."""
    return (min(open_interest, LIMIT_KNEE) * 4 + max(0, open_interest - LIMIT_KNEE)) // 40


def spot_limit(deliverable: int) -> int:
    """Lots that one may hold in the spot month: a quarter of the deliverable supply, down."""
    return deliverable // 4
