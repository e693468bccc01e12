"""The backtests of the margin model, on the real history and on synthetic series.

The daily history is too short for a test at 99 %, which would have almost no power. The real
history is therefore tested at 95 %, by hours and days; synthetic series of ten years, with
clustered volatility and fat tails, test the model at 99 % with enough power.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from contracts.history import History
from exchange.clearing.margin import model, rules
from exchange.clearing.margin.backtest import (
    LEVEL,
    Margin,
    Verdict,
    exceedances,
    filtered_margin,
    plain_margin,
    steepest,
    synthetic,
    verdict,
)
from exchange.clearing.margin.calibrate import BUFFER_BP, REBUILD_BP, STRESS_PERCENT

HOURS_BP: Final = 9_500
HOURS_WINDOW: Final = 250
DAYS_BP: Final = 9_500
DAYS_WINDOW: Final = 20
MADE_BP: Final = 9_900
MADE_WINDOW: Final = 500
MADE_DAYS: Final = MADE_WINDOW + 2_500  # of which ten years are tested
_SIDES: Final = {"long": True, "short": False}


def run(
    history: History,
    seeds: int,
    advance: Callable[[int, int], object],
    *,
    made_days: int = MADE_DAYS,
) -> Iterator[Verdict]:
    """Yield every backtest, in order; of ``seeds`` synthetic series with both models.

    ``advance(done, total)`` is called after each.
    """
    hours = {name: model.changes(s.levels) for name, s in sorted(history.hourly.products.items())}
    days = {name: model.changes(s.levels) for name, s in sorted(history.daily.products.items())}
    total, done = 2 * (len(hours) + len(days) + seeds), 0

    def one(name: str, moves: model.Floats, margin: Margin, window: int, bp: int,
            long: bool) -> Verdict:  # fmt: skip
        nonlocal done
        found = verdict(name, exceedances(moves, margin, window, long=long), bp)
        done += 1
        advance(done, total)
        return found

    for panel, step, bp, window in (
        (hours, "hours", HOURS_BP, HOURS_WINDOW),
        (days, "days", DAYS_BP, DAYS_WINDOW),
    ):
        for name, moves in panel.items():
            for side, long in _SIDES.items():
                margin = filtered_margin(bp, long=long)
                label = f"{name} {step} {bp // 100} % {side}"
                yield one(label, moves, margin, window, bp, long)
    for seed in range(seeds):
        moves = synthetic(seed, made_days)
        for name, make in (("filtered", filtered_margin), ("plain", plain_margin)):
            margin = make(MADE_BP, long=True)
            label = f"made up {seed} {MADE_BP // 100} % {name}"
            yield one(label, moves, margin, MADE_WINDOW, MADE_BP, True)


class Swing(NamedTuple):
    """The steepest rise of a margin: the largest ratio over ``days`` days."""

    name: str
    days: int
    steepest: float


def procyclicality(seed: int = 0, *, made_days: int = MADE_DAYS) -> list[Swing]:
    """Return how stress and buffer reduce the swings of a synthetic series' margin.

    ``model`` is the filtered margin alone; ``stressed`` has ``STRESS_PERCENT`` of its weight on the
    largest loss known so far; ``charged`` has the buffer as well. Each has its steepest rise over a
    week and a month of trading days (5 and 21).
    """
    moves = synthetic(seed, made_days)
    margin = filtered_margin(MADE_BP, long=True)
    losses = model.losses_bp(moves, long=True)
    rows: dict[str, list[int]] = {"model": [], "stressed": [], "charged": []}
    for at in range(MADE_WINDOW, len(moves)):
        bare = margin(moves[at - MADE_WINDOW : at])
        stress = rules.stressed(bare, max(losses[:at]), STRESS_PERCENT)
        before = rows["charged"][-1] if rows["charged"] else None
        rows["model"].append(bare)
        rows["stressed"].append(stress)
        rows["charged"].append(rules.buffered(stress, before, BUFFER_BP, REBUILD_BP))
    return [
        Swing(name, days, steepest(row, days)) for days in (5, 21) for name, row in rows.items()
    ]


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """Return a summary of the synthetic series, one line per model. Each test rejects even a
    correct model one time in twenty."""
    lines = []
    for name in ("filtered", "plain"):
        rows = [v for v in verdicts if v.name.endswith(name)]
        if rows:
            beyond, expected = sum(v.exceedances for v in rows), sum(v.expected for v in rows)
            rejected = [sum(p < LEVEL for p in column) for column in zip(
                *((v.coverage_p, v.independence_p, v.both_p) for v in rows), strict=True
            )]  # fmt: skip
            lines.append(
                f"made up, {name}: {beyond} beyond, {expected:.0f} expected; of {len(rows)} series"
                f" coverage rejects {rejected[0]}, independence {rejected[1]}, both {rejected[2]}"
            )
    return lines
