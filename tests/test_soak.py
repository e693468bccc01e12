"""The soak's judgement: what is flat passes, what leaks does not, and too little is no answer."""

from collections.abc import Callable

import pytest

from benches.soak import WARM_ORDERS, Sample, Trend, judge


def samples(
    memory: Callable[[int], float], descriptors: Callable[[int], int], rate: int = 2_000
) -> list[Sample]:
    return [
        Sample(float(second), memory(second), descriptors(second), second * rate)
        for second in range(1, 301)
    ]


def test_a_market_that_stays_as_large_as_it_was_passes() -> None:
    """It grows until every table is full, and breathes."""
    warm = WARM_ORDERS // 2_000
    rows, faults = judge(samples(lambda s: 150 + min(s, warm) + s % 7, lambda s: 18 + s % 3))
    assert faults == []
    figures = {one.name: one.value for one in rows}
    assert figures["soak.orders"] == 600_000 and abs(figures["soak.resident.growth"]) < 1


@pytest.mark.parametrize(
    ("memory", "descriptors", "rate", "fault"),
    [
        (lambda s: 150 + s / 10, lambda s: 18, 2_000, "memory grew"),
        (lambda s: 150, lambda s: 18 + s // 20, 2_000, "descriptors rose"),
        (lambda s: 150, lambda s: 18, 10, "too few"),
    ],
)
def test_what_grows_is_named(
    memory: Callable[[int], float], descriptors: Callable[[int], int], rate: int, fault: str
) -> None:
    _, faults = judge(samples(memory, descriptors, rate))
    assert [fault in one for one in faults] == [True]


def test_a_trend_is_a_line_through_the_middle() -> None:
    trend = Trend.of([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)])
    assert (trend.start, trend.slope) == (1.0, 2.0)
