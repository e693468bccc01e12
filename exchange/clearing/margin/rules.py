"""The arithmetic rules of margin, in integers, each simple enough for an auditor to repeat.

Money is in micro-dollars, or any one unit per call; ``bp`` is 1e-4. Divisions round up, to the
larger margin, unless a function says otherwise.
"""

from collections.abc import Iterable
from math import isqrt
from typing import Final

BP: Final = 10_000
PERCENT: Final = 100
LIMIT_KNEE: Final = 50_000  # lots of open interest of which one holder may have a tenth


def up(numerator: int, denominator: int) -> int:
    """Return the quotient, rounded up."""
    return -(-numerator // denominator)


def rank(count: int, confidence_bp: int) -> int:
    """Return k = count x (1 - confidence), rounded up: the k-th largest loss is the margin."""
    return up(count * (BP - confidence_bp), BP)


def historical(losses: Iterable[int], confidence_bp: int) -> int:
    """Return the ``rank``-th largest of the losses, at least zero. ValueError without losses."""
    ordered = sorted(losses, reverse=True)
    if not ordered:
        raise ValueError("no losses to take a margin from")
    return max(0, ordered[max(1, rank(len(ordered), confidence_bp)) - 1])


def stressed(model: int, stress: int, stress_percent: int) -> int:
    """Return the weighted mean of the model's and the stressed figure."""
    return up(model * (PERCENT - stress_percent) + stress * stress_percent, PERCENT)


def floored(model: int, *floors: int) -> int:
    """Return the model's figure, but no less than any floor."""
    return max(model, *floors)


def buffered(model: int, before: int | None, buffer_bp: int, rebuild_bp: int = 0) -> int:
    """Return the charge for the model's figure, if ``before`` was charged last, None for none.

    The charge includes a buffer above the model's figure. When the model rises the buffer is used
    up first, so that a rise within it changes no charge. It is rebuilt by at most ``rebuild_bp`` of
    the model per call.
    """
    full = up(model * (BP + buffer_bp), BP)
    if before is None:
        return full
    return max(model, min(full, before + model * rebuild_bp // BP))


def concentration(margin: int, lots: int, daily_volume: int, participation_percent: int) -> int:
    """Return the add-on for a position that takes longer than a day to close.

    It is margin x (sqrt(max(1, d)) - 1) with d = lots / (daily volume x participation), rounded up:
    the loss grows with the square root of the days that the close-out takes.
    """
    a_day = daily_volume * participation_percent
    if lots * PERCENT <= a_day or not margin:
        return 0
    squared = up(margin * margin * lots * PERCENT, a_day)
    return 1 + isqrt(squared - 1) - margin


def spread_credit(scan: int, used: int, delta: int, percent: int) -> int:
    """Return the credit on one side's scan for the ``used`` of ``delta`` lots that offset another
    product's. Rounded down, and never more than the scan."""
    return min(scan, scan * used * percent // (delta * PERCENT)) if delta else 0


def position_limit(open_interest: int) -> int:
    """Return the position limit in lots outside the spot month, rounded down: a tenth of the open
    interest up to LIMIT_KNEE and a fortieth of the rest."""
    return (min(open_interest, LIMIT_KNEE) * 4 + max(0, open_interest - LIMIT_KNEE)) // 40


def spot_limit(deliverable: int) -> int:
    """Return the position limit in lots in the spot month: a quarter of the deliverable supply,
    rounded down."""
    return deliverable // 4
