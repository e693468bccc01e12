"""Hedge ratios against NumPy, on series whose ratio is known, and on real list prices."""

import csv
import math
import random
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.errors import ValueRefused
from clients.hedging import CHANGES_MIN, HedgeRatio, hedge_ratio


def series(seed: int, count: int, ratio: float, noise: float) -> tuple[list[float], list[float]]:
    """Prices that follow others with a ratio and noise of their own."""
    draw = random.Random(seed)
    ours, theirs = [3.0], [2.5]
    for _ in range(count):
        move = draw.gauss(0, 0.03)
        theirs.append(theirs[-1] + move)
        ours.append(ours[-1] + ratio * move + draw.gauss(0, noise))
    return ours, theirs


@settings(max_examples=24, deadline=None)
@given(st.integers(0, 1 << 20), st.integers(CHANGES_MIN, 60), st.floats(-2, 2), st.booleans())
def test_it_is_the_least_squares_line(seed: int, count: int, ratio: float, relative: bool) -> None:
    ours, theirs = series(seed, count, ratio, 0.01)
    if relative and min(*ours, *theirs) <= 0:
        return
    found = hedge_ratio(ours, theirs, relative=relative)
    read = np.log if relative else np.asarray
    y, x = np.diff(read(ours)), np.diff(read(theirs))
    slope, _ = np.polyfit(x, y, 1)
    scale = ours[-1] / theirs[-1] if relative else 1
    assert found.ratio == pytest.approx(slope * scale, rel=1e-6, abs=1e-9)
    assert found.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, rel=1e-6, abs=1e-9)
    left = y - slope * x
    assert found.residual == pytest.approx(left.std(ddof=1), rel=1e-6, abs=1e-9)
    half = count // 2
    early, _ = np.polyfit(x[:half], y[:half], 1)
    ahead = 1 - np.var(y[half:] - early * x[half:]) / np.var(y[half:])
    assert found.r2_ahead == pytest.approx(ahead, rel=1e-6, abs=1e-9)
    assert found.changes == count


def test_the_interval_mostly_has_the_ratio_and_repeats() -> None:
    """The 95 % of a bootstrap of few changes are somewhat fewer."""
    found = [hedge_ratio(*series(seed, 40, 0.7, 0.02)) for seed in range(30)]
    assert sum(one.low <= 0.7 <= one.high for one in found) >= 24
    assert all(one.low < one.ratio < one.high for one in found)
    assert hedge_ratio(*series(1, 40, 0.7, 0.02)) == found[1]
    other = hedge_ratio(*series(1, 40, 0.7, 0.02), seed=1)
    assert (other.ratio, other.low) != (found[1].ratio, found[1].low) and other.r2 == found[1].r2


def test_the_interval_is_that_of_samples_which_are_not_fitted_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand fits of a year of hours took 23 seconds, in which a bot says nothing."""
    ours, theirs = series(5, 100, 0.7, 0.02)
    fits: list[int] = []
    fit = statistics.linear_regression

    def counted(x: list[float], y: list[float]) -> object:
        fits.append(len(x))
        return fit(x, y)

    monkeypatch.setattr(statistics, "linear_regression", counted)
    found = hedge_ratio(ours, theirs, seed=3)
    assert len(fits) < 10
    draw, count, length = random.Random(3), 100, 5
    moves = np.diff(np.array([theirs, ours]))
    slopes = []
    for _ in range(1_000):
        starts = np.array([draw.randrange(count) for _ in range(count // length)])
        places = (starts[:, None] + np.arange(length)).ravel() % count
        x, y = moves[:, places]
        slopes.append(np.polyfit(x, y, 1)[0])
    assert np.quantile(slopes, [0.025, 0.975]) == pytest.approx([found.low, found.high], rel=1e-9)


def test_what_is_not_known_is_not_filled() -> None:
    ours, theirs = series(3, 30, 0.9, 0.002)
    gap = [None if at in (0, 7, 8, 20) else price for at, price in enumerate(ours)]
    short = hedge_ratio(gap, [None if at == 25 else price for at, price in enumerate(theirs)])
    assert short.changes == 30 - 1 - 3 - 2 - 2
    assert short.ratio == pytest.approx(0.9, abs=0.05)
    assert not short.is_weak
    assert hedge_ratio([*ours, None], [*theirs, 9.9]) == hedge_ratio(ours, theirs)


def test_a_hedge_of_nothing_is_weak() -> None:
    ours, _ = series(1, 40, 1, 0.01)
    _, theirs = series(2, 40, 1, 0.01)
    found = hedge_ratio(ours, theirs)
    assert found.is_weak and found.r2 < 0.2
    followed = hedge_ratio(theirs, theirs)
    assert (followed.r2, followed.r2_ahead, followed.residual) == pytest.approx((1, 1, 0), abs=1e-6)
    assert (followed.low, followed.ratio, followed.high) == pytest.approx((1, 1, 1))


def test_a_ratio_is_of_no_unit() -> None:
    ours, theirs = series(5, 30, 0.9, 0.01)
    found = hedge_ratio(ours, theirs)
    for unit in (1e-9, 1e9):
        other = hedge_ratio(ours, [unit * price for price in theirs])
        assert other.ratio * unit == pytest.approx(found.ratio)
        assert (other.r2, other.r2_ahead) == pytest.approx((found.r2, found.r2_ahead))


def test_lots_are_to_the_nearest() -> None:
    found = HedgeRatio(0.9, 0.8, 1.0, 0.9, 0.9, 0.01, 30)
    assert found.lots(100_000, 744) == 121  # 120.97
    assert found.lots(100_000, 672, factor=0.95) == 141  # 140.98
    assert found.lots(-100_000, 744) == -121
    for hours, factor in ((0, 1.0), (744, 0.0)):
        with pytest.raises(ValueRefused):
            found.lots(1, hours, factor)


# Each step is a cent less or a tenth more, to the rounding of a float.
FALLING = [2.5 - 0.01 * week for week in range(14)]
GROWING = [1.1**week for week in range(14)]
MOVING = [2.50, 2.47, 2.52, 2.49, 2.44, 2.41, 2.50, 2.38, 2.39, 2.36, 2.30, 2.31, 2.28, 2.25]


@pytest.mark.parametrize(
    ("ours", "theirs", "relative", "said"),
    [
        (MOVING, FALLING, False, "or always by the same"),
        (FALLING, MOVING, False, "or always by the same"),
        (MOVING, FALLING[:8] + MOVING[:6], False, "first 6 of 13 changes, or always by the same"),
        ([1e6 * price for price in MOVING], [1e-6 * price for price in FALLING], False, "the same"),
        (MOVING, GROWING, True, "or always by the same"),
        (GROWING, MOVING, True, "or always by the same"),
        ([1.0] * 10, [1.0] * 9, False, "10 prices of the exposure, 9 of the hedge"),
        ([1.0, 2.0] * 4, [1.0, 2.0] * 4, False, "7 changes are known; 8 at least are needed"),
        ([1.0, 2.0] * 5, [1.0] * 10, False, "do not move"),
        ([1.0] * 10, [1.0, 2.0] * 5, False, "do not move"),
        ([1.0] * 5 + [2.0] * 5, [1.0] * 6 + [2.0] * 4, False, "do not move in the first 4 of 9"),
        ([1.0, 2.0] * 4 + [float("nan")] * 2, [1.0, 2.0] * 5, False, "nan is no price"),
        ([1.0, 2.0] * 5, [float("inf"), 2.0] * 5, False, "inf is no price"),
        ([1.0, 0.0] * 5, [1.0, 2.0] * 5, True, "0.0 is no price with a logarithm"),
    ],
)  # fmt: skip
def test_what_has_no_ratio_is_refused(
    ours: list[float], theirs: list[float], relative: bool, said: str
) -> None:
    with pytest.raises(ValueRefused, match=said):
        hedge_ratio(ours, theirs, relative=relative)


@pytest.mark.parametrize(
    ("hours", "hours_per_lot", "factor"),
    [(1, 0, 1.0), (1, 744, 0.0), (1, 744, math.nan), (1, 744, math.inf), (math.nan, 744, 1.0),
     (math.inf, 744, 1.0), (1, math.nan, 1.0)],
)  # fmt: skip
def test_lots_of_what_is_no_number_are_refused(
    hours: int, hours_per_lot: int, factor: float
) -> None:
    found = hedge_ratio(MOVING, [1.01 * price for price in MOVING])
    with pytest.raises(ValueRefused):
        found.lots(hours, hours_per_lot, factor)


@pytest.mark.parametrize(("gpu", "correlation"), [("H200", 0.66), ("A100", 0.57), ("B200", 0.11)])
def test_the_published_weakness_between_generations(
    gpu: str, correlation: float, shared: Path
) -> None:
    """Monthly list prices of other classes hedged by the H100's."""
    cards = shared / "data/ratecard_median_monthly_2023_2026.csv"
    known = {
        (row["gpu"], row["month"]): float(row["ratecard_median_usd_per_gpu_hour"])
        for row in csv.DictReader(cards.read_text().splitlines())
    }
    months = [f"{year}-{month:02}" for year in range(2023, 2027) for month in range(1, 13)]
    found = hedge_ratio(
        [known.get((gpu, month)) for month in months],
        [known.get(("H100", month)) for month in months],
        relative=True,
    )
    assert found.r2**0.5 == pytest.approx(correlation, abs=0.005)
    assert found.is_weak
