"""The pictures of the documentation: the manipulation curve, and fixings beside raw medians."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benches.index_manipulation import CHOSEN, Point
from benches.index_panel import Panel, equal_median
from exchange.cli.plot import library

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAMILIES: Final = {
    "equal votes on levels": ("mean", "trimmed_10", "trimmed_25", "median", "screened_mean"),
    "chained, capped a day": ("chained", "chained_5", "chained_3", "chained_1"),
    "anchored, clipped": (
        "anchored_mean", "anchored_10", "anchored_5", "anchored_3", "anchored_2", "anchored_1",
    ),
}  # fmt: skip
UNCAPPED: Final = {"chained": "without cap or clip", "anchored_mean": ""}  # one point, two names
COLOURS: Final = ("#b2182b", "#777777", "#2166ac")
CREDIT: Final = "Prices by gpurentalprices.com, CC BY 4.0; index and medians computed here"


def curve(points: Sequence[Point], folder: Path) -> Path:
    """Draw how far one provider can move the index against its delay, in two markets."""
    pyplot = library()
    figure, axes = pyplot.subplots(1, 2, figsize=(9.5, 4.4), sharey=True)
    titles = ("whole market on one day", "each provider on its own day of thirty")
    for place, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        _draw_curve(axis, points, place)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("days behind the market")
    axes[0].set_ylabel("one of nine can move the month by (%)")
    axes[1].legend(frameon=False, fontsize=9)
    return _save(figure, folder / "index-manipulation.svg")


def _draw_curve(axis: "Axes", points: Sequence[Point], place: int) -> None:
    by_name = {point.name: point for point in points}
    for (family, names), colour in zip(FAMILIES.items(), COLOURS, strict=True):
        chosen = [by_name[name] for name in names]
        behind = [point.follow[place] for point in chosen]
        moved = [100 * point.moved.any_way for point in chosen]
        line = "" if family.startswith("equal") else "-"
        axis.plot(behind, moved, f"o{line}", color=colour, label=family, markersize=4)
        for point, x, y in zip(chosen, behind, moved, strict=True):
            name = point.name.replace("chained_", "").replace("anchored_", "").replace("_", " ")
            text = f"{name} %" if name.isdigit() else UNCAPPED.get(point.name, name)
            axis.annotate(text, (x, y), fontsize=7, xytext=(4, 3), textcoords="offset points")
    best = by_name[CHOSEN]
    axis.plot(
        best.follow[place], 100 * best.moved.any_way, "o", markersize=12, fillstyle="none",
        color="black",
    )  # fmt: skip
    axis.set_yscale("log")
    axis.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    axis.set_ylim(0.1, 20)
    axis.minorticks_off()


def fixings(panels: Sequence[Panel], folder: Path) -> Path:
    """Draw every index beside the raw median of the same providers' quotes."""
    pyplot = library()
    figure, axes = pyplot.subplots(2, 2, figsize=(9.5, 6), sharex=True)
    for axis, panel in zip(axes.flat, panels, strict=True):
        known = [not np.isnan(of_day).all() for of_day in panel.votes]
        days = [day for day, is_known in zip(panel.days, known, strict=True) if is_known]
        axis.plot(
            days, equal_median(panel.votes[known]), color=COLOURS[1], lw=1, label="raw median"
        )
        axis.plot(panel.days, panel.fixings, color=COLOURS[2], lw=2, label=panel.code)
        axis.legend(frameon=False, fontsize=9)
        axis.set_ylabel("$ per GPU-hour")
        axis.set_ylim(0.8 * np.nanmin(panel.fixings), 1.2 * np.nanmax(panel.fixings))
    figure.autofmt_xdate()
    figure.text(0.01, 0.005, CREDIT, fontsize=7, color="#555555")
    return _save(figure, folder / "index-fixings.svg")


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    return path
