"""The margin model: what prices did, filtered to the volatility of today. Floats, which propose.

Filtered historical simulation. Of log changes r_t with an exponentially weighted volatility s_t,
every move over the margin period is scaled by s_now / s_t, and the margin is the loss of a rank
among them (``rules.historical``). Periods overlap: a history is too short to waste its days.
Nothing of this enters a log but the integers that come out.
"""

from collections.abc import Sequence
from math import atanh, ceil, sqrt, tanh
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exchange.clearing.margin import rules

Floats: TypeAlias = NDArray[np.float64]

DECAY: Final = 0.97  # weight of yesterday's variance
SCALE_MOST: Final = 3.0  # no move is scaled up or down further
ONE_SIDED_95: Final = 1.6449  # standard normal quantile
_RANGE: Final = 10 * rules.BP  # a rise that is charged: beyond it the series is broken


def changes(levels: Sequence[int]) -> Floats:
    """Log changes of consecutive levels."""
    moves: Floats = np.diff(np.log(np.array(levels, dtype=np.float64)))
    return moves


def volatility(moves: Floats) -> Floats:
    """The volatility known before each move, and one more: the volatility of now.

    Begins at the standard deviation of all of them, and never falls below half of it: what was
    quiet for a while is not taken for riskless.
    """
    squared = moves**2
    whole = float(squared.mean())
    ages = np.arange(len(moves))
    recent = np.convolve(squared, (1 - DECAY) * DECAY**ages)[: len(moves)]
    variance = np.concatenate(([whole], recent + whole * DECAY ** (ages + 1)))
    found: Floats = np.sqrt(np.maximum(variance, whole / 4))
    return found


def over(moves: Floats, steps: int) -> Floats:
    """Moves over every period of ``steps`` consecutive changes, overlapping."""
    total = np.concatenate(([0.0], np.cumsum(moves)))
    return np.asarray(total[steps:] - total[:-steps])


def filtered(moves: Floats, steps: int) -> Floats:
    """Every period's move, scaled to the volatility of now."""
    known, count = volatility(moves), len(moves) - steps + 1
    if known[-1] == 0.0:
        return np.zeros(count)
    scale: Floats = np.clip(known[-1] / known[:count], 1 / SCALE_MOST, SCALE_MOST)
    return over(moves, steps) * scale


def losses_bp(moves: Floats, *, long: bool) -> list[int]:
    """What log moves cost a position, at 1e-4 of its value, rounded up; gains are negative."""
    ratio = np.expm1(moves)
    return [min(ceil(loss * rules.BP), _RANGE) for loss in (-ratio if long else ratio).tolist()]


def scan_bp(moves: Floats, confidence_bp: int) -> int:
    """The margin of moves for the worse of the two sides, at 1e-4 of the value."""
    return max(
        rules.historical(losses_bp(moves, long=side), confidence_bp) for side in (True, False)
    )


def correlation(a: Floats, b: Floats, steps: int) -> tuple[float, float]:
    """Correlation of two series' moves over ``steps``, and what it surely is at least.

    The bound is one-sided at 95 %, by Fisher's transformation; of overlapping periods only as many
    count as would fit side by side. Series that do not move, or too few periods: (0, 0).
    """
    x, y = over(a, steps), over(b, steps)
    periods = len(a) // steps
    if periods <= 3 or not x.std() or not y.std():
        return 0.0, 0.0
    found = float(np.corrcoef(x, y)[0, 1])
    middle = atanh(min(max(found, -0.999999), 0.999999))
    return found, max(0.0, tanh(middle - ONE_SIDED_95 / sqrt(periods - 3)))


def credit_percent(least: float) -> int:
    """What a correlation of at least ``least`` may spare of two scans: whole percent, down.

    The best hedge of one by the other leaves sqrt(1 - correlation**2) of the risk.
    """
    return int(rules.PERCENT * (1 - sqrt(1 - least * least)))
