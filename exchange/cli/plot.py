"""Plots of the margin model, with matplotlib if it is installed."""

from collections.abc import Sequence
from datetime import timedelta
from math import expm1
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from exchange.clearing.margin import backtest as tests
from exchange.clearing.margin import model, study

if TYPE_CHECKING:
    from contracts.history import History
    from exchange.clearing.margin.calibrate import Calibration

_RED, _GREY, _BLUE, _LIGHT = "#b2182b", "#777777", "#2166ac", "#9ecae1"
_PARTS: Final = (
    ("filtered_bp", "filtered weeks, 99 %", _LIGHT),
    ("stress_bp", "stress: largest weeks of offers", _RED),
    ("floor_bp", "floor: one daily limit move", _GREY),
    ("charged_bp", "charged, with the buffer", _BLUE),
)


def library() -> Any:
    """Return matplotlib's pyplot, set up for reproducible files; ImportError without it."""
    import matplotlib  # noqa: PLC0415 - imported only for plots

    matplotlib.use("svg")
    matplotlib.rcParams.update({
        "svg.hashsalt": "hourbook", "svg.fonttype": "none", "font.family": "sans-serif",
        "axes.spines.top": False, "axes.spines.right": False, "font.size": 10,
    })  # fmt: skip
    from matplotlib import pyplot  # noqa: PLC0415

    return pyplot


def calibration(found: "Calibration", history: "History", path: Path) -> None:
    """Plot the components of each product's scan range, and the history behind it."""
    figure, (bars, daily, hourly) = library().subplots(
        1, 3, figsize=(13, 4.2), width_ratios=(1.5, 1, 1)
    )
    shown = [p for p in found.proposals if p.source == p.product] or list(found.proposals)
    for place, (name, label, colour) in enumerate(_PARTS):
        at = [n + 0.2 * (place - 1.5) for n in range(len(shown))]
        bars.bar(at, [getattr(p, name) / 100 for p in shown], 0.18, label=label, color=colour)
    bars.set_xticks(range(len(shown)), [p.product for p in shown])
    bars.set_ylabel("% of a lot's value")
    bars.set_title("scan range", fontsize=10)
    bars.set_ylim(0, 1.4 * max(max(p[3:]) for p in shown) / 100)
    bars.legend(frameon=False, fontsize=8)
    days = [
        history.daily.first_day + timedelta(days=n)
        for n in range(len(next(iter(history.daily.products.values())).levels))
    ]
    for name, series in sorted(history.daily.products.items()):
        daily.plot(days, [level / series.levels[0] for level in series.levels], label=name, lw=1)
    daily.set_title("on-demand prices, days", fontsize=10)
    daily.legend(frameon=False, fontsize=8)
    daily.tick_params("x", rotation=30)
    for name, series in sorted(history.hourly.products.items()):
        hourly.plot([level / series.levels[0] for level in series.levels], label=name, lw=0.8)
    hourly.set_title("a marketplace's offers, hours", fontsize=10)
    hourly.legend(frameon=False, fontsize=8)
    _save(figure, history, path)


def backtest(history: "History", path: Path) -> None:
    """Plot every hour's move against the margin computed from the hours before it."""
    names = sorted(history.hourly.products)
    figure, axes = library().subplots(len(names), 1, figsize=(10, 2 * len(names)), sharex=True)
    window = study.HOURS_WINDOW
    for axis, name in zip(axes if len(names) > 1 else [axes], names, strict=True):
        moves = model.changes(history.hourly.products[name].levels)
        steps = range(window, len(moves))
        for long, colour in ((True, _BLUE), (False, _RED)):
            margin = tests.filtered_margin(study.HOURS_BP, long=long)
            lines = [margin(moves[at - window : at]) / 100 for at in steps]
            sign = -1 if long else 1
            axis.step(steps, [sign * line for line in lines], color=colour, lw=0.8, where="mid")
            beyond = _beyond(moves, margin, long)
            axis.plot(beyond, [_percent(moves[at]) for at in beyond], "o", color=colour, ms=3)
        axis.plot(steps, [_percent(moves[at]) for at in steps], color=_GREY, lw=0.5)
        axis.set_ylabel(f"{name}, %")
    axes_last = axes[-1] if len(names) > 1 else axes
    axes_last.set_xlabel("hour; lines: margin of a long (below) and a short at 95 %, dots: beyond")
    _save(figure, history, path)


def _percent(move: float) -> float:
    return 100 * expm1(move)


def _beyond(moves: Any, margin: tests.Margin, long: bool) -> Sequence[int]:
    row = tests.exceedances(moves, margin, study.HOURS_WINDOW, long=long)
    return [study.HOURS_WINDOW + n for n, hit in enumerate(row) if hit]


def _save(figure: Any, history: "History", path: Path) -> None:
    credit = f"{history.daily.attribution}. {history.hourly.attribution}"
    figure.text(0.01, 0.005, credit, fontsize=7, color="#555555")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    library().close(figure)
