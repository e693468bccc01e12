"""How well GPU-minutes of published MLPerf training results can be predicted from earlier rounds.

Computed from published MLPerf results, not verified by MLCommons. The target is the log of
accelerator-minutes to train. The model is a Gaussian process with a Student-t likelihood. It has a
level per benchmark, a slope in the log of cluster size per benchmark and architecture, and effects
of GPU class (around the inverse of its dense peak), of class within benchmark, of software progress
from round to round, and of the submitter. ``CHOSEN`` holds the prior standard deviation of each.

``CHOSEN`` was found by ``search`` on rounds 3.1 to 5.0 alone: each of 4.0, 4.1 and 5.0 predicted
from those before it. Round 5.1 was not used to choose anything; ``verdict`` predicts it.
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FILE: Final = "mlperf_training.csv"
ROUNDS: Final = ("3.1", "4.0", "4.1", "5.0")
LAST: Final = "5.1"
OTHERS_LEAST: Final = 3
_TIMES: Final = {"3.1": 0.0, "4.0": 1.0, "4.1": 2.0, "5.0": 3.0, "5.1": 4.0}
_RENAMED: Final = {"gnn": "rgat", "ssd": "retinanet"}  # one benchmark under two names
_REFERENCE_TFLOPS: Final = 989.4
# Dense bf16 TFLOP/s from the data sheets, rounded: the mean of a class's effect.
PEAKS: Final = {
    "A100-PCIe": 312, "A100-SXM": 312, "H100-SXM": 989.4, "H100-PCIe": 756, "H100-NVL": 835,
    "H200-SXM": 989.4, "H200-NVL": 835, "B200-SXM": 2250, "GB200-NVL72": 2500, "MI300X": 1307,
    "MI325X": 1307, "L40S": 362, "L40": 181, "NVIDIA A30": 165, "NVIDIA L4": 121, "TPU-v5p": 459,
    "TPU-trillium": 918, "TPU-v5e": 197, "Intel Gaudi2": 432, "NVIDIA RTX A5000": 111,
    "Intel(R) Gaudi(R) 2 AI Accelerator": 432, "NVIDIA GeForce RTX 4090": 165, "NVIDIA A10G": 70,
    "AMD Radeon RX 7900 XTX": 123, "B300-SXM": 2250, "GB300-NVL72": 2500, "MI355X": 2516,
    "MI350X": 2300, "NVIDIA RTX Pro 6000 SE PCIe 96GB": 504,
}  # fmt: skip
_ARCHITECTURES: Final = {
    "B200-SXM": "blackwell", "GB200-NVL72": "blackwell", "B300-SXM": "blackwell",
    "GB300-NVL72": "blackwell", "H100-SXM": "hopper", "H200-SXM": "hopper", "H100-PCIe": "hopper",
    "H100-NVL": "hopper", "H200-NVL": "hopper", "MI300X": "cdna", "MI325X": "cdna",
    "MI350X": "cdna", "MI355X": "cdna",
}  # fmt: skip

Array = NDArray[Any]
# Standard deviations of the effects in log GPU-minutes; ``length`` is of log cluster size, ``tail``
# the degrees of freedom of the noise.
CHOSEN: Final[Mapping[str, float]] = {
    "level": 3.0, "slope": 0.33, "slope_benchmark": 0.156, "slope_architecture": 0.146,
    "class": 0.913, "class_benchmark": 0.204, "architecture_benchmark": 0.091, "peak": 0.3,
    "peak_benchmark": 0.209, "drift": 0.03, "drift_benchmark": 0.07, "drift_architecture": 0.009,
    "round_benchmark": 0.015, "curve": 0.117, "length": 2.04, "submitter": 0.011,
    "class_size": 0.14, "noise": 0.036, "tail": 3.334,
}  # fmt: skip
START: Final[Mapping[str, float]] = {
    "level": 3.0, "slope": 0.3, "slope_benchmark": 0.15, "slope_architecture": 0.1,
    "class": 0.3, "class_benchmark": 0.15, "architecture_benchmark": 0.15, "peak": 0.3,
    "peak_benchmark": 0.15, "drift": 0.03, "drift_benchmark": 0.07, "drift_architecture": 0.02,
    "round_benchmark": 0.02, "curve": 0.15, "length": 1.5, "submitter": 0.02,
    "class_size": 0.1, "noise": 0.05, "tail": 3.0,
}  # fmt: skip
_FIXED: Final = {"level", "peak", "drift"}
_MEAN: Final = 7.0
_REWEIGHTS: Final = 3


@dataclass(frozen=True)
class Results:
    """Results as columns, one entry per result."""

    y: Array  # log accelerator-minutes
    size: Array  # log of accelerators over eight
    peak: Array  # log of the class's peak over the H100's
    time: Array  # rounds since 3.1
    round: Array
    benchmark: Array
    gpu: Array
    architecture: Array
    submitter: Array

    def only(self, chosen: Array) -> "Results":
        return Results(**{name: column[chosen] for name, column in vars(self).items()})

    def __len__(self) -> int:
        return len(self.y)


def load(folder: Path) -> Results:
    """Return closed-division results of rounds 3.1 to 5.1 with time and size, of classes with a
    peak."""
    with (folder / FILE).open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["division"] == "closed"
            and row["round"] in _TIMES
            and row["gpu"] in PEAKS
            and float(row["accel_minutes"] or 0) > 0
            and float(row["acc_total"] or 0) > 0
        ]
    return Results(
        y=np.log([float(row["accel_minutes"]) for row in rows]),
        size=np.log([float(row["acc_total"]) / 8 for row in rows]),
        peak=np.log([PEAKS[row["gpu"]] / _REFERENCE_TFLOPS for row in rows]),
        time=np.array([_TIMES[row["round"]] for row in rows]),
        round=np.array([row["round"] for row in rows]),
        benchmark=np.array([_RENAMED.get(row["benchmark"], row["benchmark"]) for row in rows]),
        gpu=np.array([row["gpu"] for row in rows]),
        architecture=np.array([_ARCHITECTURES.get(row["gpu"], "other") for row in rows]),
        submitter=np.array([row["submitter"] for row in rows]),
    )


def _kernel(a: Results, b: Results, scale: Mapping[str, float]) -> Array:
    """Return the covariance of two sets of results: the sum of the effects they share."""

    def same(name: str) -> Array:
        return np.asarray(getattr(a, name)[:, None] == getattr(b, name)[None, :], dtype=float)

    benchmark, gpu, architecture = same("benchmark"), same("gpu"), same("architecture")
    sizes, times = np.outer(a.size, b.size), np.outer(a.time, b.time)
    peaks = np.outer(a.peak, b.peak)
    apart = a.size[:, None] - b.size[None, :]
    parts = {
        "level": benchmark,
        "slope": sizes,
        "slope_benchmark": benchmark * sizes,
        "slope_architecture": architecture * sizes,
        "class": gpu,
        "class_benchmark": gpu * benchmark,
        "architecture_benchmark": architecture * benchmark,
        "peak": peaks,
        "peak_benchmark": benchmark * peaks,
        "drift": times,
        "drift_benchmark": benchmark * times,
        "drift_architecture": architecture * times,
        "round_benchmark": benchmark * same("round"),
        "curve": benchmark * np.exp(-0.5 * (apart / scale["length"]) ** 2),
        "submitter": same("submitter"),
        "class_size": gpu * benchmark * np.exp(-0.5 * apart**2),
    }
    return np.asarray(sum(scale[name] ** 2 * part for name, part in parts.items()))


def foretell(seen: Results, new: Results, scale: Mapping[str, float] = CHOSEN) -> Array:
    """Predict the log accelerator-minutes of new results from those seen."""
    inside, across = _kernel(seen, seen, scale), _kernel(new, seen, scale)
    rest = seen.y - (_MEAN - seen.peak)
    weight, solved = np.ones(len(seen)), rest
    for _ in range(_REWEIGHTS):  # Student-t likelihood: outliers lose weight
        solved = np.linalg.solve(inside + np.diag(scale["noise"] ** 2 / weight), rest)
        left = rest - inside @ solved
        weight = (scale["tail"] + 1) / (scale["tail"] + (left / scale["noise"]) ** 2)
    return np.asarray(_MEAN - new.peak + across @ solved)


def _least_squares(seen: Results, new: Results, columns: Callable[[Results], Array]) -> Array:
    found = np.linalg.lstsq(columns(seen), seen.y, rcond=None)[0]
    return np.asarray(columns(new) @ found)


def baselines(seen: Results, new: Results) -> Iterator[tuple[str, Array]]:
    """Yield simpler forecasts, each with a level per benchmark."""
    benchmarks, classes = np.unique(seen.benchmark), np.unique(seen.gpu)

    def levels(r: Results) -> Array:
        return np.asarray(r.benchmark[:, None] == benchmarks[None, :], dtype=float)

    def class_and_size(r: Results) -> Array:
        gpus = (r.gpu[:, None] == classes[None, :]).astype(float)
        return np.hstack([levels(r), gpus, levels(r) * r.size[:, None]])

    def moved(r: Results) -> Results:
        return Results(**{**vars(r), "y": r.y + r.peak})

    def sizes(r: Results) -> Array:
        return np.hstack([levels(r), levels(r) * r.size[:, None]])

    yield "no_factor", _least_squares(seen, new, levels)
    yield "peak", _least_squares(moved(seen), new, levels) - new.peak
    yield "peak_and_size", _least_squares(moved(seen), new, sizes) - new.peak
    yield "class_and_size", _least_squares(seen, new, class_and_size)


def split(results: Results, round_: str) -> tuple[Results, Results, Array]:
    """Return the results before a round, its results of known benchmarks, and whose class is
    known."""
    before = [r for r in (*ROUNDS, LAST) if _TIMES[r] < _TIMES[round_]]
    seen = results.only(np.isin(results.round, before))
    new = results.only(
        (results.round == round_) & np.isin(results.benchmark, np.unique(seen.benchmark))
    )
    return seen, new, np.isin(new.gpu, np.unique(seen.gpu))


def errors(off: Array) -> tuple[float, float]:
    """Return the root mean square and the median of absolute log errors."""
    return float(np.sqrt(np.mean(off**2))), float(np.median(np.abs(off)))


def validate(results: Results, scale: Mapping[str, float]) -> list[tuple[float, float, float]]:
    """Return per round 4.0 to 5.0: RMS and median for known classes, RMS of all."""
    scores = []
    for round_ in ROUNDS[1:]:
        seen, new, known = split(results, round_)
        off = foretell(seen, new, scale) - new.y
        scores.append((*errors(off[known]), errors(off)[0]))
    return scores


def search(results: Results, seed: int, tries: int) -> tuple[float, dict[str, float]]:
    """Return the least cost and the scales that predict rounds 4.0 to 5.0 best, kept near
    ``START``."""
    inside = results.only(np.isin(results.round, ROUNDS))  # the last round is excluded
    rng = np.random.default_rng(seed)
    free = [name for name in START if name not in _FIXED]

    def cost(scale: Mapping[str, float]) -> float:
        mean = np.mean(validate(inside, scale), axis=0)
        far = sum(math.log(scale[name] / START[name]) ** 2 for name in free)
        return float(mean[0] + mean[1] + 0.3 * mean[2] + 0.0004 * far)

    best, least = dict(START), cost(START)
    for _ in range(tries):
        moved = dict(best)
        for name in rng.choice(free, 2, replace=False):
            moved[name] *= math.exp(rng.normal() * 0.5)
        found = cost(moved)
        if found < least:
            best, least = moved, found
    return least, best


@dataclass(frozen=True)
class Verdict:
    """The forecast of the last round: (RMS, median) by model, and the model's errors."""

    scores: dict[str, tuple[float, float]]
    new: Results
    off: Array
    known: Array


def verdict(results: Results) -> Verdict:
    """Predict the last round from all earlier ones; baselines for known classes and benchmarks
    only."""
    seen, new, known = split(results, LAST)
    off = foretell(seen, new) - new.y
    scores = {name: errors((forecast - new.y)[known]) for name, forecast in baselines(seen, new)}
    scores["model"] = errors(off[known])
    scores["model_any_class"] = errors(off)
    return Verdict(scores, new, off, known)


def work_spread(results: Results, others: int = OTHERS_LEAST) -> tuple[int, float, float]:
    """Return how far results at eight accelerators lie from the median of their group, in log
    minutes.

    A group has the same round, benchmark and class; groups with fewer than ``others`` other results
    are left out. Returns the number of results, the standard deviation, and a robust one (1.4826
    times the median distance).
    """
    groups: dict[tuple[str, str, str], list[float]] = {}
    for place in np.flatnonzero(results.size == 0):
        key = (results.round[place], results.benchmark[place], results.gpu[place])
        groups.setdefault(key, []).append(float(results.y[place]))
    away = [y - median(group) for group in groups.values() if len(group) > others for y in group]
    return len(away), float(np.std(away)), 1.4826 * float(np.median(np.abs(away)))


def persistence(results: Results, others: int = OTHERS_LEAST) -> tuple[int, float, float]:
    """Return whether submitters' own factors persist from one round to the next.

    A submitter's factor in a round is the median, over its results, of the log of its GPU-minutes
    over the median of others' in the same round, benchmark, class and size, where there are at
    least ``others`` others. Returns the number of pairs, their correlation, and the standard
    deviation.
    """
    keys = list(
        zip(results.round, results.benchmark, results.gpu, results.size.round(6), strict=True)
    )
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    factors: dict[str, dict[float, list[float]]] = {}
    for place, key in enumerate(keys):
        own = results.submitter[place]
        peers = [results.y[n] for n in groups[key] if results.submitter[n] != own]
        if len(peers) >= others:
            rounds = factors.setdefault(own, {})
            value = float(results.y[place] - median(peers))
            rounds.setdefault(float(results.time[place]), []).append(value)
    pairs = [
        (median(first), median(second))
        for rounds in factors.values()
        for (before, first), (after, second) in pairwise(sorted(rounds.items()))
        if after - before == 1
    ]
    values = np.array(pairs)
    correlation = float(np.corrcoef(values[:, 0], values[:, 1])[0, 1])
    return len(pairs), correlation, float(np.std(values, ddof=1))


def by_group(labels: Sequence[str], off: Array) -> list[tuple[str, int, float, float]]:
    """Return (group, results, RMS, median) of errors, the largest group first."""
    names = sorted(set(labels), key=lambda name: (-list(labels).count(name), name))
    where = np.array(labels)
    return [(name, int((where == name).sum()), *errors(off[where == name])) for name in names]


def worst_submitter(found: Verdict) -> tuple[str, float]:
    """Return the submitter whose removal lowers the error most, and that error; none is
    excluded."""
    off, names = found.off[found.known], found.new.submitter[found.known]
    without = {str(name): errors(off[names != name])[0] for name in np.unique(names)}
    worst = min(without, key=lambda name: without[name])
    return worst, without[worst]
