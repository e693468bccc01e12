"""Conversion factors from measured runs: robust, shrunk towards par, continuous.

    CF = 1 + soft(exp(w_M ln(M/M_par) + w_G ln(G/G_par)) - 1)        integer at 1e-4, half to even

M   median over nodes of each node's median MFU: specially prepared or broken nodes move it little
    while they are fewer than half.
G   pooled: 1 - the seller's lost time / all time; a drawn run that was not made counts as wholly
    lost. A median would hide downtime, since most nodes lose nothing in most months.
w_M = max(0, 1 - (z s / x)^2), x = ln(M/M_par), s^2 = standard error^2 + transient_sd^2, z the
    two-sided normal quantile of the rules' confidence: a difference within z s is treated as par,
    a much larger one counts almost fully.
w_G = D / (D + exposure_node_days), D the measured node-days: faults are rare, so few days are
    little evidence.
soft reduces a difference from par by ``soft_threshold``, to no less than zero.

The estimates use floats; the results are integers, which nothing downstream computes again.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import NormalDist, fmean, median
from typing import Final

import msgspec

from contracts.grades import Grade, Rules
from contracts.grades.eligibility import faults
from contracts.grades.measure import Run
from contracts.grades.roster import Entry, Roster, draw
from contracts.spec import PAR_FACTOR

# Standard error of the median over that of the mean, for normal values.
MEDIAN_EFFICIENCY: Final = math.sqrt(math.pi / 2)
_MAD_TO_SD: Final = 1.4826
_DAY_NS: Final = 86_400 * 10**9
_E6: Final = 1_000_000


class FactorRow(msgspec.Struct, frozen=True, kw_only=True):
    """One site's factor and its inputs. A site whose ``factor_e4`` is None may not deliver."""

    provider: str
    facility: str
    fabric: str
    state: str  # DELIVERABLE, OUT_OF_BOUNDS, THIN, INELIGIBLE
    reasons: tuple[str, ...]
    factor_e4: int | None
    delivered_e4: int  # G as measured
    fixed_e4: int  # G shrunk towards par: used for the factor and as the reference of the true-up
    mfu_e6: int
    mfu_low_e6: (
        int | None
    )  # confidence interval, at the rules' confidence; None if there are too few nodes
    mfu_high_e6: int | None
    weight_mfu_e4: int
    weight_delivered_e4: int
    nodes: int
    runs: int
    absent: int  # drawn runs that were not made


def rows(runs: Sequence[Run], roster: Roster, grade: Grade, rules: Rules) -> tuple[FactorRow, ...]:
    """Return a row for every site of the roster, sorted by provider and facility."""
    by_site: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        by_site[run.provider, run.facility].append(run)
    drawn = draw(roster, rules)
    return tuple(
        _row(site, by_site[site.place], len(drawn[site.place]) * rules.runs_drawn, grade, rules)
        for site in sorted(roster.sites, key=lambda site: site.place)
    )


def _row(site: Entry, runs: list[Run], drawn: int, grade: Grade, rules: Rules) -> FactorRow:
    reasons = tuple(fault.reason.name for fault in faults(site, grade))
    nodes: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        nodes[run.node].append(math.log(max(run.mfu_e6, 1) / _E6))
    level, error, low, high = centre(list(nodes.values()), rules)
    away = level - math.log(grade.par_mfu_e4 / PAR_FACTOR)
    weight_mfu = belief(away, error, rules)
    delivered, days = pooled(runs, drawn)
    weight_delivered = days / (days + rules.exposure_node_days)
    believed = par = grade.par_delivered_e4 / PAR_FACTOR
    if delivered > 0:
        believed = par * (delivered / par) ** weight_delivered
    state, factor = "DELIVERABLE", None
    if reasons:
        state = "INELIGIBLE"
    elif len(nodes) < rules.nodes_least or len(runs) * PAR_FACTOR < drawn * rules.runs_least_e4:
        state = "THIN"
    else:
        ratio = math.exp(weight_mfu * away) * believed / par
        factor = soft_factor(ratio, rules.soft_threshold_e4)
        if not rules.factor_low_e4 <= factor <= rules.factor_high_e4:
            state, factor = "OUT_OF_BOUNDS", None
    return FactorRow(
        provider=site.provider,
        facility=site.facility,
        fabric=site.fabric,
        state=state,
        reasons=reasons,
        factor_e4=factor,
        delivered_e4=round(delivered * PAR_FACTOR),
        fixed_e4=round(believed * PAR_FACTOR),
        mfu_e6=round(math.exp(level) * _E6) if nodes else 0,
        mfu_low_e6=None if low is None else round(math.exp(low) * _E6),
        mfu_high_e6=None if high is None else round(math.exp(high) * _E6),
        weight_mfu_e4=round(weight_mfu * PAR_FACTOR),
        weight_delivered_e4=round(weight_delivered * PAR_FACTOR),
        nodes=len(nodes),
        runs=len(runs),
        absent=drawn - len(runs),
    )


def centre(
    nodes: Sequence[Sequence[float]], rules: Rules
) -> tuple[float, float, float | None, float | None]:
    """Return the median of the nodes' medians, its standard error, and its confidence interval.

    ``nodes`` holds the logarithms of each node's MFUs. The interval is between order statistics, so
    it holds for any distribution; None and None if there are too few nodes. Without a node the
    level is 0 and the error infinite.
    """
    if not nodes:
        return 0.0, math.inf, None, None
    middles = sorted(median(values) for values in nodes)
    level = median(middles)
    spread = _MAD_TO_SD * median(abs(value - level) for value in middles)
    least = rules.run_sd_e4 / PAR_FACTOR / math.sqrt(fmean(len(values) for values in nodes))
    error = MEDIAN_EFFICIENCY * max(spread, least) / math.sqrt(len(middles))
    outside = order_outside(len(middles), rules.confidence_e4 / PAR_FACTOR)
    if outside is None:
        return level, error, None, None
    return level, error, middles[outside], middles[-1 - outside]


def order_outside(count: int, confidence: float) -> int | None:
    """Return how many values at each end lie outside the median's confidence interval; None if even
    the whole range has too little confidence.

    The median lies between the k-th smallest and k-th largest of n values with probability
    1 - 2 P(B < k), B binomial with n trials of probability one half.
    """
    tail, best = 0.0, None
    for outside in range(count // 2):
        tail += math.comb(count, outside) / 2**count
        if 1 - 2 * tail < confidence:
            break
        best = outside
    return best


def belief(away: float, error: float, rules: Rules) -> float:
    """Return the weight w_M of a log difference ``away`` from par: 0 to 1, continuous."""
    limit = NormalDist().inv_cdf((1 + rules.confidence_e4 / PAR_FACTOR) / 2)
    limit *= math.hypot(error, rules.transient_sd_e4 / PAR_FACTOR)
    return 1 - (limit / away) ** 2 if abs(away) > limit else 0.0


def pooled(runs: Sequence[Run], drawn: int) -> tuple[float, float]:
    """Return the delivered share of all time, and the node-days measured.

    Each of the ``drawn`` runs that was not made counts as one of average length, wholly lost.
    """
    elapsed = sum(run.elapsed_ns for run in runs)
    if not elapsed:
        return 0.0, 0.0
    lost = sum(run.seller_ns for run in runs)
    absent = elapsed / len(runs) * (drawn - len(runs))
    return (elapsed - lost) / (elapsed + absent), (elapsed + absent) / _DAY_NS


def soft_factor(ratio: float, threshold_e4: int) -> int:
    """Return the factor (1e-4, half to even) of a ratio to par, moved to par by the threshold."""
    away = (ratio - 1) * PAR_FACTOR
    kept = max(abs(away) - threshold_e4, 0.0)
    return PAR_FACTOR + round(math.copysign(kept, away))
