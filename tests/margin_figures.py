"""Recomputes contracts/data/margin_history.toml from the price panels it comes from.

``python tests/margin_figures.py FOLDER`` prints its series. The panels are not in the project.
"""

import csv
import math
import sys
from bisect import bisect_right
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

from figures import LEVEL_PANEL, LEVEL_SERIES, PATH_PANEL, PATH_SERIES, days

ONE: Final = 1_000_000
# Of MI300 one provider alone quoted at first, of GB200 no second one ever.
DAILY_SERIES: Final = {p: gpu for p, gpu in LEVEL_SERIES.items() if p != "MI300"}
DAILY_FROM: Final = date(2026, 7, 7)
DAILY_TO: Final = date(2026, 8, 22)
HOUR: Final = timedelta(hours=1)
HOURLY_FROM: Final = datetime(2025, 10, 19, 22, tzinfo=UTC)
HOURLY_TO: Final = datetime(2025, 11, 16, 6, tzinfo=UTC)


def daily(panel: Path, gpu: str) -> tuple[list[int], int]:
    """Each day's level at 1e-6 of the first day's, and the fewest providers of any change.

    A day's log change is the mean over the providers that quoted on-demand prices afresh on it and
    on the day before, so no provider that comes or goes makes one. A row read on another day than
    its own is dropped; of rows that repeat a provider's day the lowest counts.
    """
    quotes: dict[str, dict[str, float]] = defaultdict(dict)
    window = [day.isoformat() for day in days(DAILY_FROM, DAILY_TO)]
    with panel.open(newline="") as file:
        for row in csv.DictReader(file):
            fresh = row["fetched_at"][:10] == row["date"]
            if row["gpu"] == gpu and row["kind"] == "on-demand" and fresh:
                price, seen = float(row["usd_hr"]), quotes[row["provider"]]
                seen[row["date"]] = min(price, seen.get(row["date"], price))
    log, levels, fewest = 0.0, [ONE], len(quotes)
    for before, day in pairwise(window):
        both = [seen for seen in quotes.values() if before in seen and day in seen]
        changes = [math.log(seen[day] / seen[before]) for seen in both]
        log += math.fsum(changes) / len(changes)
        levels.append(round(ONE * math.exp(log)))
        fewest = min(fewest, len(changes))
    return levels, fewest


def hourly(panel: Path, gpu: str) -> list[int]:
    """The median offer in cents at every full hour: of the last capture at or before it."""
    with panel.open(newline="") as file:
        captures = sorted(
            (datetime.fromisoformat(row["timestamp"]), round(100 * float(row["median"])))
            for row in csv.DictReader(file)
            if row["gpu"] == gpu
        )
    stamps = [stamp for stamp, _ in captures]
    hours = (HOURLY_TO - HOURLY_FROM) // HOUR
    moments = (HOURLY_FROM + n * HOUR for n in range(hours + 1))
    return [captures[bisect_right(stamps, moment) - 1][1] for moment in moments]


def series(folder: Path) -> tuple[dict[str, tuple[list[int], int]], dict[str, list[int]]]:
    """All daily and all hourly series by product."""
    return (
        {p: daily(folder / LEVEL_PANEL, gpu) for p, gpu in DAILY_SERIES.items()},
        {p: hourly(folder / PATH_PANEL, gpu) for p, gpu in PATH_SERIES.items()},
    )


def _block(numbers: list[int], width: int) -> str:
    rows = [numbers[at : at + width] for at in range(0, len(numbers), width)]
    return "\n".join("    " + " ".join(f"{n}," for n in row) for row in rows)


def main(folder: Path) -> None:
    """Print the series in the form of the file."""
    of_days, of_hours = series(folder)
    for product, (levels, providers) in of_days.items():
        print(f'[daily.products.{product}]\nseries = "{LEVEL_SERIES[product]}"')
        print(f"providers = {providers}\nlevels = [\n{_block(levels, 10)}\n]\n")
    for product, cents in of_hours.items():
        print(f'[hourly.products.{product}]\nseries = "{PATH_SERIES[product]}"')
        print(f"levels = [\n{_block(cents, 18)}\n]\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
