"""Recomputes the figures of contracts/data/prices_2026.toml from the price panels they come from.

``python tests/figures.py FOLDER`` prints them as the table has them. Exact fractions throughout:
the figures are integers rounded once, half to even. The panels themselves are not in the project.
"""

import csv
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from statistics import mean, median
from typing import Final

TICKS_PER_DOLLAR: Final = 1000
RATIO_ONE: Final = 10_000
POINTS: Final = 48

LEVEL_PANEL: Final = "gpurentalprices_ccby.csv"
LEVEL_SERIES: Final = {
    "A100": "a100-sxm-80",
    "B200": "b200",
    "H100": "h100-sxm",
    "H200": "h200",
    "MI300": "mi300x",
}
# From the day on which the last large group of providers joined to the panel's end.
LEVEL_FROM: Final = date(2026, 7, 20)
LEVEL_TO: Final = date(2026, 8, 22)

PATH_PANEL: Final = "gpu_prices_intraday_primeintellect.csv"
PATH_SERIES: Final = {
    "A100": "A100_80GB_SXM4",
    "B200": "B200_180GB_",
    "H100": "H100_80GB_SXM5",
    "H200": "H200_141GB_",
}
# The whole days that were captured half-hourly.
PATH_FROM: Final = date(2025, 10, 26)
PATH_TO: Final = date(2025, 11, 15)


def days(first: date, last: date) -> Iterator[date]:
    """Every day from the first to the last, both included."""
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


def provider_medians(panel: Path, gpu: str) -> dict[str, Fraction]:
    """Median on-demand price of each provider that quoted afresh on every day of the window.

    A row read on another day than its own is carried forward, and dropped. Of rows that repeat a
    provider's day the lowest counts: it is what a buyer would have paid.
    """
    quotes: dict[str, dict[str, Fraction]] = defaultdict(dict)
    with panel.open(newline="") as file:
        for row in csv.DictReader(file):
            fresh = row["fetched_at"][:10] == row["date"]
            inside = LEVEL_FROM.isoformat() <= row["date"] <= LEVEL_TO.isoformat()
            if row["gpu"] == gpu and row["kind"] == "on-demand" and fresh and inside:
                price = Fraction(row["usd_hr"])
                of_provider = quotes[row["provider"]]
                of_provider[row["date"]] = min(price, of_provider.get(row["date"], price))
    window = len(list(days(LEVEL_FROM, LEVEL_TO)))
    return {
        provider: median(by_day.values())
        for provider, by_day in quotes.items()
        if len(by_day) == window
    }


def level(panel: Path, gpu: str) -> tuple[int, int]:
    """Median over the providers' medians in ticks, and how many providers there are."""
    medians = provider_medians(panel, gpu)
    return round(median(medians.values()) * TICKS_PER_DOLLAR), len(medians)


def path(panel: Path, gpu: str) -> list[int]:
    """The mean day: at each half hour, UTC, the mean over the days of price / the day's median.

    The price at a moment is the median of the last capture at or before it: the captures
    are irregular, so they are resampled by time.
    """
    with panel.open(newline="") as file:
        captures = sorted(
            (datetime.fromisoformat(row["timestamp"]), Fraction(row["median"]))
            for row in csv.DictReader(file)
            if row["gpu"] == gpu
        )
    stamps = [stamp for stamp, _ in captures]
    ratios: list[list[Fraction]] = [[] for _ in range(POINTS)]
    for day in days(PATH_FROM, PATH_TO):
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        moments = (midnight + timedelta(days=1) * n / POINTS for n in range(POINTS))
        prices = [captures[bisect_right(stamps, moment) - 1][1] for moment in moments]
        middle = median(prices)
        for point, price in zip(ratios, prices, strict=True):
            point.append(price / middle)
    return [round(mean(point) * RATIO_ONE) for point in ratios]


def main(folder: Path) -> None:
    """Print the figures in the form of the table."""
    levels = {product: level(folder / LEVEL_PANEL, gpu) for product, gpu in LEVEL_SERIES.items()}
    for product, (ticks, providers) in levels.items():
        print(f"{product} = {ticks}  # {LEVEL_SERIES[product]}, {providers} providers")
    for product, gpu in PATH_SERIES.items():
        points = path(folder / PATH_PANEL, gpu)
        print(f"{product} = [  # {gpu}")
        for row in range(0, POINTS, 12):
            print("    " + " ".join(f"{point}," for point in points[row : row + 12]))
        print("]")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
