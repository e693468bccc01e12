"""Backtests: whether the model's margin would have covered the moves that followed.

A step's margin is computed from earlier steps only. An exceedance is a loss beyond it. The series
of exceedances has three tests, each at 5 %:

    coverage      Kupiec: their number is as promised (likelihood ratio, 1 degree of freedom)
    independence  Christoffersen: one does not make the next more likely (1 degree)
    both          their sum (2 degrees)

The power of the coverage test is given as well: the probability that it rejects a model whose true
rate is twice the promised one. Passing a test with little power proves little.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import erfc, exp, lgamma, log, sqrt
from typing import Final, NamedTuple

import numpy as np

from exchange.clearing.margin import model, rules
from exchange.clearing.margin.model import Floats

LEVEL: Final = 0.05  # of every test
WRONG: Final = 2  # multiple of the promised rate for which the power is computed

Margin = Callable[[Floats], int]  # known moves -> margin in bp for the tested side


class Verdict(NamedTuple):
    """One backtest. ``_p``: the probability of a result at least as bad if the model is right."""

    name: str
    observations: int
    exceedances: int
    expected: float
    coverage_p: float
    independence_p: float
    both_p: float
    power: float  # of the coverage test, for WRONG times the promised rate

    @property
    def passed(self) -> bool:
        """Whether none of the tests rejects at LEVEL."""
        return min(self.coverage_p, self.independence_p, self.both_p) >= LEVEL


def filtered_margin(confidence_bp: int, *, long: bool) -> Margin:
    """Return the margin of the filtered model over one step, for one side."""
    return lambda known: rules.historical(
        model.losses_bp(model.filtered(known, 1), long=long), confidence_bp
    )


def plain_margin(confidence_bp: int, *, long: bool) -> Margin:
    """Return the margin of plain historical simulation, without filtering, for comparison."""
    return lambda known: rules.historical(model.losses_bp(known, long=long), confidence_bp)


def exceedances(moves: Floats, margin: Margin, window: int, *, long: bool) -> list[bool]:
    """Return for every move after the first ``window`` whether its loss was beyond the margin
    computed from the ``window`` moves before it."""
    loss = model.losses_bp(moves, long=long)
    return [loss[at] > margin(moves[at - window : at]) for at in range(window, len(moves))]


def verdict(name: str, row: Sequence[bool], confidence_bp: int) -> Verdict:
    """Return the results of the three tests on a series of exceedances."""
    rate = 1 - confidence_bp / rules.BP
    count, hits = len(row), sum(row)
    coverage = kupiec(count, hits, rate)
    independence = christoffersen(row)
    return Verdict(
        name=name,
        observations=count,
        exceedances=hits,
        expected=count * rate,
        coverage_p=erfc(sqrt(coverage / 2)),
        independence_p=erfc(sqrt(independence / 2)),
        both_p=exp(-(coverage + independence) / 2),
        power=power(count, rate, WRONG * rate),
    )


def _likelihood(misses: int, hits: int, rate: float) -> float:
    """Log likelihood of the counts at a rate; a count of zero contributes nothing."""
    return (misses * log(1 - rate) if misses else 0.0) + (hits * log(rate) if hits else 0.0)


def kupiec(count: int, hits: int, rate: float) -> float:
    """Return the likelihood ratio of the observed rate against the promised one."""
    if not count:
        return 0.0
    seen = _likelihood(count - hits, hits, hits / count)
    return max(0.0, 2 * (seen - _likelihood(count - hits, hits, rate)))


def christoffersen(row: Sequence[bool]) -> float:
    """Return the likelihood ratio of dependence on the previous step against independence."""
    pairs = list(pairwise(row))
    n = {key: sum(pair == key for pair in pairs) for key in
         ((False, False), (False, True), (True, False), (True, True))}  # fmt: skip
    calm, struck = n[False, False] + n[False, True], n[True, False] + n[True, True]
    if not calm or not struck:
        return 0.0
    hits = n[False, True] + n[True, True]
    chained = _likelihood(n[False, False], n[False, True], n[False, True] / calm)
    chained += _likelihood(n[True, False], n[True, True], n[True, True] / struck)
    return max(0.0, 2 * (chained - _likelihood(len(pairs) - hits, hits, hits / len(pairs))))


def power(count: int, promised: float, true: float) -> float:
    """Return the exact probability that the coverage test rejects at LEVEL if the rate is
    ``true``."""
    rejected = 0.0
    for hits in range(count + 1):
        if erfc(sqrt(kupiec(count, hits, promised) / 2)) < LEVEL:
            ways = lgamma(count + 1) - lgamma(hits + 1) - lgamma(count - hits + 1)
            rejected += exp(ways + _likelihood(count - hits, hits, true))
    return min(1.0, rejected)


def synthetic(seed: int, count: int) -> Floats:
    """Return a synthetic daily series of log moves: a GARCH(1,1) with Student's t of five degrees
    of freedom, with clustered volatility and fat tails, about 2 % a day in the long run."""
    draw = np.random.default_rng(seed)
    shocks = draw.standard_t(5, count) / sqrt(5 / 3)  # of variance 1
    alpha, beta, long_run = 0.08, 0.90, 0.02**2
    variance, moves = long_run, np.empty(count)
    for at in range(count):
        moves[at] = sqrt(variance) * shocks[at]
        variance = long_run * (1 - alpha - beta) + alpha * moves[at] ** 2 + beta * variance
    return moves


def steepest(charged: Sequence[int], steps: int) -> float:
    """Return the largest rise over ``steps`` as a ratio; 1.0 if the series never rose."""
    rises = (after / before for before, after in zip(charged, charged[steps:], strict=False))
    return max(1.0, *rises) if len(charged) > steps else 1.0
