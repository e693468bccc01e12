"""The margin model: filtered historical simulation, in floats, to propose parameters.

Of log changes r_t with an exponentially weighted volatility s_t, every move over the margin period
is scaled by s_now / s_t, and the margin is the loss of a given rank among them
(``rules.historical``). Periods overlap, since histories are short. Only the resulting integers
enter a log.
"""

from collections.abc import Sequence
from math import atanh, ceil, sqrt, tanh
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exchange.clearing.margin import rules

Floats: TypeAlias = NDArray[np.float64]

DECAY: Final = 0.97  # weight of yesterday's variance
SCALE_MOST: Final = 3.0  # largest factor by which a move is scaled up or down
ONE_SIDED_95: Final = 1.6449  # standard normal quantile
_RANGE: Final = 10 * rules.BP  # cap on a loss: a larger move is an error of the series


def changes(levels: Sequence[int]) -> Floats:
    """Return the log changes of consecutive levels."""
    moves: Floats = np.diff(np.log(np.array(levels, dtype=np.float64)))
    return moves


def volatility(moves: Floats) -> Floats:
    """Return the volatility known before each move and, as the last value, the current one.

    It starts at the root mean square of all moves and never falls below half of it, so that a quiet
    period does not count as riskless.
    """
    squared = moves**2
    whole = float(squared.mean())
    ages = np.arange(len(moves))
    recent = np.convolve(squared, (1 - DECAY) * DECAY**ages)[: len(moves)]
    variance = np.concatenate(([whole], recent + whole * DECAY ** (ages + 1)))
    found: Floats = np.sqrt(np.maximum(variance, whole / 4))
    return found


def over(moves: Floats, steps: int) -> Floats:
    """Return the moves over every period of ``steps`` consecutive changes; periods overlap."""
    total = np.concatenate(([0.0], np.cumsum(moves)))
    return np.asarray(total[steps:] - total[:-steps])


def filtered(moves: Floats, steps: int) -> Floats:
    """Return every period's move, scaled to the current volatility."""
    known, count = volatility(moves), len(moves) - steps + 1
    if known[-1] == 0.0:
        return np.zeros(count)
    scale: Floats = np.clip(known[-1] / known[:count], 1 / SCALE_MOST, SCALE_MOST)
    return over(moves, steps) * scale


def losses_bp(moves: Floats, *, long: bool) -> list[int]:
    """Return a position's losses from log moves, at 1e-4 of its value, rounded up.

    Gains are negative; losses are capped at ten times the value.
    """
    ratio = np.expm1(moves)
    return [min(ceil(loss * rules.BP), _RANGE) for loss in (-ratio if long else ratio).tolist()]


def scan_bp(moves: Floats, confidence_bp: int) -> int:
    """Return the margin of moves for the worse side, at 1e-4 of the value; ValueError without
    moves."""
    return max(
        rules.historical(losses_bp(moves, long=side), confidence_bp) for side in (True, False)
    )


def correlation(a: Floats, b: Floats, steps: int) -> tuple[float, float]:
    """Return the correlation of two series' moves over ``steps``, and a lower bound of it.

    The bound is one-sided at 95 %, by Fisher's transformation, at least 0; the number of periods is
    that of periods without overlap. (0, 0) for constant series or three periods or fewer.
    """
    x, y = over(a, steps), over(b, steps)
    periods = len(a) // steps
    if periods <= 3 or not x.std() or not y.std():
        return 0.0, 0.0
    found = float(np.corrcoef(x, y)[0, 1])
    middle = atanh(min(max(found, -0.999999), 0.999999))
    return found, max(0.0, tanh(middle - ONE_SIDED_95 / sqrt(periods - 3)))


def credit_percent(least: float) -> int:
    """Return the credit on two scans for a correlation of at least ``least``, in whole percent,
    rounded down.

    The best hedge of one series by the other leaves sqrt(1 - correlation**2) of the risk.
    """
    return int(rules.PERCENT * (1 - sqrt(1 - least * least)))
