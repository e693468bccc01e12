"""How little of the dispersion of providers' prices a conversion factor explains.

Prices: gpurentalprices.com, CC BY 4.0: on-demand quotes fetched on their own day, each provider's
median over the panel. Factors: computed from published MLPerf results, not verified by MLCommons,
for the few clouds in both: the median over its results of GPU-minutes over its peers'.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from benches.rows import Row, row

PRICES: Final = "gpurentalprices_ccby.csv"
FACTORS: Final = "mlperf_cloud_factor.csv"
GPUS: Final = ("a100-sxm-80", "h100", "h100-sxm", "h200", "b200")
DAYS_LEAST: Final = 20
PROVIDERS: Final = {  # the panel's name of a cloud in the results
    "Azure": "azure", "Google": "gcp", "Lambda": "lambda", "Nebius": "nebius",
    "Verda": "datacrunch", "CoreWeave + IBM + NVIDIA": "coreweave",
}  # fmt: skip
HYPERSCALERS: Final = frozenset({"aws", "azure", "gcp"})


@dataclass(frozen=True)
class Quote:
    """One provider's price of one GPU; ``away`` is its log distance from all providers' median."""

    gpu: str
    provider: str
    price: float
    away: float


def quotes(folder: Path) -> list[Quote]:
    """Return the median on-demand price of each provider and GPU quoted on enough days."""
    days: dict[tuple[str, str], list[float]] = defaultdict(list)
    with (folder / PRICES).open(newline="") as file:
        for line in csv.DictReader(file):
            fresh = line["fetched_at"][:10] == line["date"]
            if line["gpu"] in GPUS and line["kind"] == "on-demand" and fresh:
                days[line["gpu"], line["provider"]].append(float(line["usd_hr"]))
    found: list[Quote] = []
    for gpu in GPUS:
        prices = {p: median(v) for (g, p), v in days.items() if g == gpu and len(v) >= DAYS_LEAST}
        middle = median(math.log(price) for price in prices.values())
        found += [Quote(gpu, p, price, math.log(price) - middle) for p, price in prices.items()]
    return found


def factors(folder: Path) -> dict[str, float]:
    """Return the log of work per GPU-minute against peers, by panel name, of clouds with
    results."""
    seen: dict[str, list[float]] = defaultdict(list)
    with (folder / FACTORS).open(newline="") as file:
        for line in csv.DictReader(file):
            if line["cloud"] in PROVIDERS and line["vs_peer_median"]:
                # The column is own minutes over peers' minutes: above one is worse.
                seen[PROVIDERS[line["cloud"]]].append(-math.log(float(line["vs_peer_median"])))
    return {provider: median(values) for provider, values in seen.items()}


def spread(found: list[Quote]) -> float:
    """Return the standard deviation of log prices around the median of the same GPU."""
    return float(np.sqrt(np.mean([quote.away**2 for quote in found])))


def rows(folder: Path, work_sd: float, robust_sd: float) -> Iterator[Row]:
    """Yield the rows of the panel; the two deviations are those of work per GPU-minute (log)."""
    found, known = quotes(folder), factors(folder)
    yield row("prices.spread", 100 * spread(found), "sd of log price x 100")
    small = [quote for quote in found if quote.provider not in HYPERSCALERS]
    yield row("prices.spread_without_hyperscalers", 100 * spread(small), "sd of log price x 100")
    for name, sd in (("most_explained", work_sd), ("usually_explained", robust_sd)):
        for whose, group in (("", found), ("_without_hyperscalers", small)):
            share = (sd / spread(group)) ** 2
            yield row(f"prices.{name}{whose}", 100 * share, "% of variance")
    matched = [quote for quote in found if quote.provider in known]
    away = np.array([quote.away for quote in matched])
    work = np.array([known[quote.provider] for quote in matched])
    yield row("prices.matched_quotes", len(matched), "quotes")
    correlation = float(np.corrcoef(away, work)[0, 1])
    yield row("prices.matched_correlation", correlation, "log price with log work")
    yield row("prices.matched_spread", 100 * float(np.std(away)), "sd of log price x 100")
    yield row(
        "prices.matched_spread_normalized",
        100 * float(np.std(away - work)),
        "sd of log price x 100",
    )
