"""Minimum-variance hedge ratios, each with how much of the exposure it hedges.

The ratio is the slope of the least-squares line of the exposure's price changes over those of the
hedge. R2 is the share of their variance that the hedge takes away; what is left is the residual. A
ratio without a high R2 is a bet on two prices, not a hedge: read both together.
"""

import itertools
import math
import random
import statistics
from collections.abc import Sequence

import msgspec

from clients.errors import ValueRefused

CHANGES_MIN = 8
WEAK_R2 = 0.8  # below this a hedge is usually not accepted as one
DRAWS = 1_000
DIGITS = 12  # of a price, beyond which a difference is rounding and no change
_TWO_SIDED = 40  # parts of which the outer two lie outside a 95 % interval

Price = float | None


class HedgeRatio(msgspec.Struct, frozen=True):
    """``ratio``: hours of the hedge, sold against an hour of the exposure, that leave the least
    variance, with a 95 % interval from ``low`` to ``high``.

    ``r2_ahead`` is what the ratio of the first half of the changes took away in the second half;
    negative: the hedge added variance. ``residual`` is the standard deviation of a change that is
    left, in dollars per hour; as a fraction of the price if the ratio is of relative changes.
    """

    ratio: float
    low: float
    high: float
    r2: float
    r2_ahead: float
    residual: float
    changes: int

    @property
    def is_weak(self) -> bool:
        """Whether R2 is below ``WEAK_R2``, in the sample or ahead."""
        return min(self.r2, self.r2_ahead) < WEAK_R2

    def lots(self, hours: int, hours_per_lot: int, factor: float = 1.0) -> int:
        """Return the lots against ``hours`` of exposure, to the nearest. ``factor`` is the
        conversion factor of what is delivered, 1 for the grade itself. ValueRefused if a lot would
        have no hours, or a figure is no number."""
        if not (hours_per_lot > 0 and 0 < factor < math.inf):
            raise ValueRefused(f"a lot of {hours_per_lot} hours at a factor of {factor} is none")
        if not abs(hours) < math.inf:
            raise ValueRefused(f"{hours} hours cannot be hedged")
        return round(self.ratio * hours / (hours_per_lot * factor))


def hedge_ratio(
    exposure: Sequence[Price], hedge: Sequence[Price], *, relative: bool = False, seed: int = 0
) -> HedgeRatio:
    """Return the hedge ratio of two series of prices at the same times, in dollars per hour.

    None is a price that is not known, and is not filled: a change is used if both prices are known
    at both of its ends. ``relative`` compares logarithms, for goods of different price levels, and
    states the ratio at the last prices. The interval is a block bootstrap's, the same for the same
    ``seed``. ValueRefused if the series differ in length, a price is not finite (or not positive,
    if ``relative``), fewer than ``CHANGES_MIN`` changes are known, or a price never moves, or
    always by the same, or that of the hedge does so in the first half of the changes.
    """
    if len(exposure) != len(hedge):
        raise ValueRefused(f"{len(exposure)} prices of the exposure, {len(hedge)} of the hedge")
    rows = [
        None if ours is None or theirs is None else (_read(ours, relative), _read(theirs, relative))
        for ours, theirs in zip(exposure, hedge, strict=True)
    ]
    known = [(before, now) for before, now in itertools.pairwise(rows) if before and now]
    if len(known) < CHANGES_MIN:
        raise ValueRefused(f"{len(known)} changes are known; {CHANGES_MIN} at least are needed")
    ours, theirs = (_changes([(a[side], b[side]) for a, b in known], relative) for side in (0, 1))
    moves = list(zip(theirs, ours, strict=True))
    half = len(moves) // 2
    slope, early = _slope(moves), _slope(moves[:half])
    if slope is None or len(set(ours)) == 1:
        raise ValueRefused(
            "the prices do not move, or always by the same: no ratio follows from them"
        )
    if early is None:
        raise ValueRefused(
            f"the hedge's prices do not move in the first {half} of {len(moves)} changes, or always"
            " by the same: nothing says what a ratio does ahead"
        )
    r2 = statistics.correlation(*zip(*moves, strict=True)) ** 2
    spread = statistics.stdev(ours)
    low, high = _interval(moves, seed)
    scale = _scale(rows) if relative else 1.0
    return HedgeRatio(
        ratio=slope * scale,
        low=low * scale,
        high=high * scale,
        r2=r2,
        r2_ahead=_taken_away(moves[half:], early),
        residual=spread * math.sqrt(max(0.0, 1 - r2)),
        changes=len(moves),
    )


Moves = Sequence[tuple[float, float]]  # of the hedge, of the exposure


def _read(price: float, relative: bool) -> float:
    value = float(price)
    if not math.isfinite(value) or (relative and value <= 0):
        raise ValueRefused(f"{price!r} is no price" + (" with a logarithm" if relative else ""))
    return math.log(value) if relative else value


def _changes(pairs: Sequence[tuple[float, float]], relative: bool) -> list[float]:
    """Each pair's change less that of the first, without the rounding of the prices: steps that
    were the same are 0. Neither a slope nor a variance depends on what is taken off."""
    largest = max(1.0 if relative else 0.0, *(abs(value) for pair in pairs for value in pair))
    places = DIGITS - math.ceil(math.log10(largest)) if largest else DIGITS
    first = pairs[0][1] - pairs[0][0]
    return [round(now - before - first, places) for before, now in pairs]


def _scale(rows: Sequence[tuple[float, float] | None]) -> float:
    """The last known price of the exposure over that of the hedge, from their logarithms."""
    ours, theirs = next(row for row in reversed(rows) if row is not None)
    return math.exp(ours - theirs)


def _slope(moves: Moves) -> float | None:
    """None if the hedge does not move."""
    try:
        return statistics.linear_regression(*zip(*moves, strict=True)).slope
    except statistics.StatisticsError:
        return None


def _taken_away(moves: Moves, ratio: float) -> float:
    """The share of the variance of the exposure's changes that a given ratio takes away."""
    whole = statistics.pvariance(ours for _, ours in moves)
    left = statistics.pvariance(ours - ratio * theirs for theirs, ours in moves)
    return 1 - left / whole if whole else 0.0


def _interval(moves: Moves, seed: int) -> tuple[float, float]:
    """95 % of the slopes of samples of whole blocks, since neighbouring changes are not
    independent.

    The sums of a block are differences of running sums, so that a year of hours takes seconds. The
    sums are of integers: a sample in which the hedge does not move has a variance of exactly 0.
    """
    draw, count = random.Random(seed), len(moves)
    length = max(2, round(count ** (1 / 3)))
    blocks = -(-count // length)
    sizes = [length] * (blocks - 1) + [count - (blocks - 1) * length]
    (theirs, one), (ours, another) = (
        _integers([a for a, _ in moves]),
        _integers([b for _, b in moves]),
    )
    rows = [(x, y, x * x, x * y) for x, y in zip(theirs, ours, strict=True)] * 2  # around the end
    running = [list(itertools.accumulate(column, initial=0)) for column in zip(*rows, strict=True)]
    slopes = []
    for _ in range(DRAWS):
        starts = [draw.randrange(count) for _ in range(blocks)]
        x, y, xx, xy = (
            sum(sums[start + size] - sums[start] for start, size in zip(starts, sizes, strict=True))
            for sums in running
        )
        variance = count * xx - x * x
        if variance:
            slopes.append((count * xy - x * y) * one / (variance * another))
    parts = statistics.quantiles(slopes, n=_TWO_SIDED, method="inclusive")
    return parts[0], parts[-1]


def _integers(values: Sequence[float]) -> tuple[list[int], int]:
    """Return the values as integers, exactly, and what 1 is then: every float is a whole number of
    some power of two."""
    ratios = [value.as_integer_ratio() for value in values]
    one = max(below for _, below in ratios)
    return [above * (one // below) for above, below in ratios], one
