"""The pictures of docs/concepts/normalization.md."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from benches.mlperf import Verdict
from benches.normalization_faults import UNITS, Array, deliveries
from benches.normalization_prices import HYPERSCALERS, Quote
from exchange.cli.plot import library

BLUE: Final = "#2166ac"
RED: Final = "#b2182b"
GREY: Final = "#777777"


def _save(figure: Any, path: Path, credit: str) -> None:
    figure.text(0.01, 0.005, credit, fontsize=7, color=GREY)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, metadata={"Date": None})


def forecast(found: Verdict, folder: Path) -> None:
    """Draw predicted against published GPU-minutes of the last round."""
    figure, axis = library().subplots(figsize=(6.4, 4.6))
    published = found.new.y / np.log(10)
    foretold = (found.new.y + found.off) / np.log(10)
    for chosen, colour, label in (
        (found.known, BLUE, "class seen before"), (~found.known, RED, "class new in 5.1"),
    ):  # fmt: skip
        axis.plot(published[chosen], foretold[chosen], "o", color=colour, label=label,
                  markersize=3.5, alpha=0.6)  # fmt: skip
    ends = [published.min(), published.max()]
    axis.plot(ends, ends, color=GREY, linewidth=1)
    axis.set_xlabel("published GPU-minutes, round 5.1 (log10)")
    axis.set_ylabel("foretold from rounds 3.1 to 5.0 (log10)")
    axis.legend(frameon=False)
    _save(figure, folder / "normalization-forecast.svg",
          "Computed from published MLPerf results, not verified by MLCommons")  # fmt: skip


def months(there: Array, folder: Path) -> None:
    """Draw the delivered share of a month by size of the delivery unit."""
    figure, axis = library().subplots(figsize=(6.4, 4.0))
    for (unit, nodes), colour in zip(UNITS.items(), (RED, GREY, BLUE), strict=True):
        shares = np.sort(deliveries(there, nodes))
        ranks = np.arange(1, len(shares) + 1) / len(shares)
        axis.plot(shares, ranks, color=colour, label=unit)
    axis.axvline(0.975 * 0.995, color=GREY, linewidth=1, linestyle=":")
    axis.axvline(0.975 * 0.85, color=GREY, linewidth=1, linestyle="--")
    axis.set_xlim(0.7, 1.005)
    axis.set_xlabel("share of the month delivered (dotted: true-up below, dashed: failure below)")
    axis.set_ylabel("share of deliveries at or below")
    axis.legend(frameon=False)
    _save(figure, folder / "normalization-months.svg",
          "Trace: stepfun-ai/InfiniteHBD-Trace, Apache-2.0; 400 servers, 330 days")  # fmt: skip


def prices(found: list[Quote], work_sd: float, folder: Path) -> None:
    """Draw prices by GPU, with the factor's bounds and the benchmark's spread."""
    figure, axis = library().subplots(figsize=(6.4, 4.0))
    names = sorted({quote.gpu for quote in found})
    for place, gpu in enumerate(names):
        axis.fill_between([place - 0.35, place + 0.35], 0.80, 1.10, color=BLUE, alpha=0.12)
        axis.fill_between([place - 0.35, place + 0.35], np.exp(-work_sd), np.exp(work_sd),
                          color=BLUE, alpha=0.5)  # fmt: skip
        for quote in found:
            if quote.gpu == gpu:
                large = quote.provider in HYPERSCALERS
                axis.plot(place, np.exp(quote.away), "o", color=RED if large else GREY,
                          markersize=4)  # fmt: skip
    axis.set_xticks(range(len(names)), names)
    axis.set_yscale("log")
    axis.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    axis.minorticks_off()
    axis.set_ylabel("on-demand price over the providers' median")
    axis.set_title("dark: ± one sd of benchmark work; light: bounds of a factor; red: hyperscalers",
                   fontsize=8)  # fmt: skip
    _save(figure, folder / "normalization-prices.svg",
          "Prices by gpurentalprices.com, CC BY 4.0; medians computed here")  # fmt: skip
