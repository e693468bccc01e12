"""The margin model and its backtest: against slow loops, published tables and made-up series."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import history, prices, registry
from exchange.clearing.margin import backtest, calibrate, model, rules, study
from exchange.clearing.margin.model import Floats
from exchange.clearing.margin.parameters import MarginParameters

MOVES = st.lists(st.floats(-0.5, 0.5, allow_nan=False), min_size=10, max_size=60)


# The filter, the periods, the correlation.


@settings(max_examples=30, deadline=None)
@given(moves=MOVES)
def test_volatility_is_the_recursion(moves: list[float]) -> None:
    whole = sum(m * m for m in moves) / len(moves)
    variance, slow = whole, [math.sqrt(whole)]
    for move in moves:
        variance = model.DECAY * variance + (1 - model.DECAY) * move * move
        slow.append(math.sqrt(max(variance, whole / 4)))
    assert model.volatility(np.array(moves)) == pytest.approx(slow, rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(moves=MOVES, steps=st.integers(1, 8))
def test_periods_overlap_and_are_scaled_to_now(moves: list[float], steps: int) -> None:
    known = model.volatility(np.array(moves))
    slow = []
    for at in range(len(moves) - steps + 1):
        scale = known[-1] / known[at] if known[at] else 0.0
        slow.append(sum(moves[at : at + steps]) * min(max(scale, 1 / 3), 3))
    assert model.filtered(np.array(moves), steps) == pytest.approx(slow, rel=1e-9, abs=1e-9)


def test_a_series_that_never_moves_has_no_risk_of_its_own() -> None:
    still = np.zeros(50)
    assert model.scan_bp(model.filtered(still, 7), 9_900) == 0
    assert model.correlation(still, np.ones(50), 7) == (0.0, 0.0)


def test_losses_of_both_sides_are_rounded_up() -> None:
    moves = np.log([0.90005, 1.10005, 1.0])
    assert model.losses_bp(moves, long=True) == [1_000, -1_000, 0]
    assert model.losses_bp(moves, long=False) == [-999, 1_001, 0]


@pytest.mark.parametrize(("common", "credit"), [(0.0, range(1)), (3.0, range(60, 80))])
def test_credits_follow_measured_correlation(common: float, credit: range) -> None:
    """Two long series that share most of their moves earn a credit, two of their own none."""
    draw = np.random.default_rng(5)
    shared, a, b = draw.normal(size=(3, 3_500))
    found, least = model.correlation(common * shared + a, common * shared + b, 7)
    assert found == pytest.approx(common**2 / (1 + common**2), abs=0.1)
    assert least < max(found, 0.01)
    percent = model.credit_percent(least)
    assert percent in credit or (common and 40 <= percent <= 60)


def test_no_pair_of_generations_earns_a_credit_today() -> None:
    result = calibrated()
    assert len(result.pairs) == 6
    assert [pair.percent for pair in result.pairs] == [0] * 6
    assert result.parameters.offsets == ()


# Calibration.


def calibrated(
    before: MarginParameters | None = None,
    known: history.History | None = None,
    sizes: Mapping[str, int] | None = None,
) -> calibrate.Calibration:
    """By the shipped history and terms; ``sizes`` are other contract sizes, by product."""
    found = registry.load()
    specs = {name: found.spec(name, date(2026, 12, 1)) for name in found.products}
    for name, size in (sizes or {}).items():
        specs[name] = msgspec.structs.replace(specs[name], contract_size=size)
    return calibrate.calibrate(
        specs, known or history.load(), history.shipped(), effective=20261201, before=before
    )


def moving_as(product: str, *others: str) -> history.History:
    """The shipped history, with others that move day by day as a product does."""
    shipped = history.load()
    daily = shipped.daily.products
    products = daily | dict.fromkeys(others, daily[product])
    panel = msgspec.structs.replace(shipped.daily, products=products)
    return msgspec.structs.replace(shipped, daily=panel)


def test_no_credit_is_given_for_lots_of_unknown_value() -> None:
    """GB200 has no price level, and a physical product the history of the cash one."""
    result = calibrated(known=moving_as("B200", "GB200", "H200", "B200P"))
    credits = {(pair.a, pair.b): pair.percent for pair in result.pairs}
    assert credits["B200", "H200"] > 90 and credits["B200", "GB200"] == 0
    assert not any("B200P" in pair for pair in credits)
    assert [(one.a, one.b) for one in result.parameters.offsets] == [("B200", "H200")]


@pytest.mark.parametrize("size", [1, 8])
def test_an_offset_is_of_lots_of_the_same_risk(size: int) -> None:
    """Of eight GPUs a lot, against a lot of one."""
    result = calibrated(known=moving_as("B200", "H200"), sizes={"H200": size})
    (offset,) = result.parameters.offsets
    scans = {p.product: p.charged_bp for p in result.proposals}
    risk = {"B200": 6_690 * scans["B200"], "H200": size * 4_470 * scans["H200"]}
    one, other = risk["B200"] * offset.ratio_a, risk["H200"] * offset.ratio_b
    assert one == pytest.approx(other, rel=0.07), offset


def test_the_inputs_hash_covers_the_levels_that_offsets_are_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, table = calibrated().parameters.inputs_hash, prices.table()
    dearer = msgspec.structs.replace(table.levels.products["H100"], level_ticks=9_000)
    levels = msgspec.structs.replace(
        table.levels, products=table.levels.products | {"H100": dearer}
    )
    monkeypatch.setattr(prices, "table", lambda: msgspec.structs.replace(table, levels=levels))
    assert calibrated().parameters.inputs_hash != before


def test_what_is_proposed_is_made_of_its_parts() -> None:
    result = calibrated()
    for p in result.proposals:
        assert p.blended_bp == rules.stressed(max(p.plain_bp, p.filtered_bp), p.stress_bp, 25)
        assert p.model_bp == max(p.blended_bp, p.floor_bp)
        assert p.charged_bp == rules.up(p.model_bp * 12_500, 10_000)
        assert result.parameters.of(p.product).scan_bp(0) == p.charged_bp
    by_name = {p.product: p for p in result.proposals}
    assert by_name["GB200"].source == ""  # no history: no less than any that has one
    assert by_name["GB200"].blended_bp >= max(p.blended_bp for p in result.proposals)


def test_the_same_inputs_give_the_same_version() -> None:
    assert calibrated().parameters == calibrated().parameters
    later = calibrated(before=calibrated().parameters).parameters
    assert (later.version, later.inputs_hash) != (1, calibrated().parameters.inputs_hash)
    assert later.version == 2
    assert later.products == calibrated().parameters.products  # nothing moved: nothing is charged


def test_a_wilder_history_uses_the_buffer_before_it_raises_the_charge() -> None:
    """H200's margin after a fall of its price, with the version before in force."""
    quiet = calibrated()
    charged = quiet.parameters.of("H200").scan_bp(0)
    again = rules.buffered(rules.up(charged * 9, 10), charged, calibrate.BUFFER_BP)
    assert again == charged
    assert rules.buffered(2 * charged, charged, calibrate.BUFFER_BP) == 2 * charged


# The tests of a backtest.


@pytest.mark.parametrize(
    ("count", "rate", "accepted"),
    [  # Kupiec (1995): numbers of failures at which the test does not reject, at 5 %
        (255, 0.01, range(0, 7)),
        (510, 0.01, range(2, 11)),
        (1_000, 0.01, range(5, 17)),
        (255, 0.05, range(7, 21)),
        (510, 0.05, range(17, 36)),
        (1_000, 0.05, range(38, 65)),
    ],
)
def test_coverage_rejects_where_the_published_table_does(
    count: int, rate: float, accepted: range
) -> None:
    bp = round(10_000 * (1 - rate))
    kept = [
        hits
        for hits in range(0, 100)
        if backtest.verdict("", spread(count, hits), bp).coverage_p >= backtest.LEVEL
    ]
    # The table's edges are open intervals of rounded statistics: one may stand beside it.
    assert abs(kept[0] - accepted[0]) <= 1 and abs(kept[-1] - accepted[-1]) <= 1


def spread(count: int, hits: int) -> list[bool]:
    """So many exceedances, evenly."""
    return [(n + 1) * hits // count > n * hits // count for n in range(count)]


def test_independence_sees_exceedances_that_follow_each_other() -> None:
    apart = spread(500, 25)
    together = [False] * 200 + [True] * 25 + [False] * 275
    assert backtest.verdict("", apart, 9_500).independence_p > 0.05
    assert backtest.verdict("", together, 9_500).independence_p < 1e-6
    assert backtest.verdict("", [False] * 50, 9_500).independence_p == 1.0
    assert backtest.verdict("", [True] * 50, 9_500).independence_p == 1.0


@pytest.mark.parametrize(("count", "low", "high"), [(26, 0.15, 0.4), (406, 0.95, 1.0)])
def test_power_is_what_a_simulation_finds(count: int, low: float, high: float) -> None:
    exact = backtest.power(count, 0.05, 0.10)
    assert low < exact < high
    draw, rejected = random.Random(8), 0
    for _ in range(400):
        hits = sum(draw.random() < 0.10 for _ in range(count))
        statistic = backtest.kupiec(count, hits, 0.05)
        rejected += math.erfc(math.sqrt(statistic / 2)) < backtest.LEVEL
    assert rejected / 400 == pytest.approx(exact, abs=0.07)


def test_a_margin_knows_only_what_was_before() -> None:
    """Exceedances do not change when the future does."""
    moves = backtest.synthetic(4, 400)
    other = moves.copy()
    other[300:] *= 9
    margin = backtest.filtered_margin(9_500, long=True)
    rows = [backtest.exceedances(x, margin, 100, long=True) for x in (moves, other)]
    assert rows[0][:200] == rows[1][:200] and rows[0] != rows[1]


def test_the_model_keeps_its_promise_on_hours_of_real_prices() -> None:
    verdicts = list(study.run(history.load(), 0, lambda done, total: None))
    assert len(verdicts) == 16
    hours = [v for v in verdicts if " hours " in v.name]
    assert len(hours) == 8
    assert all(v.passed and v.power > 0.95 for v in hours)
    days = [v for v in verdicts if " days " in v.name]
    assert all(v.power < 0.5 for v in days)  # and say nothing, however they come out


def test_the_model_keeps_its_promise_where_the_volatility_is_clustered() -> None:
    """At 99 % over made-up series: the share beyond is the promised one, within three sigma."""
    done: list[tuple[int, int]] = []
    rows = list(study.run(history.load(), 2, lambda *step: done.append(step), made_days=1_100))
    assert done[-1] == (20, 20)
    made = [v for v in rows if v.name.endswith("filtered")]
    beyond, expected = sum(v.exceedances for v in made), sum(v.expected for v in made)
    assert expected == pytest.approx(12) and abs(beyond - expected) < 3 * math.sqrt(expected)
    first, second = study.summary(rows)
    assert f"{beyond} beyond, 12 expected" in first and "plain" in second


def test_a_model_that_asks_too_little_is_found_out() -> None:
    moves = backtest.synthetic(11, 1_300)
    half: Callable[[Floats], int] = lambda known: (  # noqa: E731
        backtest.plain_margin(9_900, long=True)(known) // 2
    )
    row = backtest.exceedances(moves, half, 500, long=True)
    assert backtest.verdict("half", row, 9_900).coverage_p < 1e-6


# Anti-procyclicality.


def five_sigma(moves: Floats) -> Floats:
    """The series with one more day: a fall of five of its present sigmas."""
    return np.append(moves, -5 * model.volatility(moves)[-1])


def charge(rows: Sequence[Floats], buffer_bp: int) -> list[int]:
    charged: list[int] = []
    for known in rows:
        asked = model.scan_bp(model.filtered(known, 1), 9_900)
        charged.append(rules.buffered(asked, charged[-1] if charged else None, buffer_bp))
    return charged


def test_after_a_five_sigma_day_the_buffer_takes_the_jump() -> None:
    """The model jumps; what is charged stays while the buffer lasts, and follows it without."""
    calm = np.random.default_rng(2).normal(0, 0.01, 500)
    rows = [calm, five_sigma(calm)]
    bare, buffered = charge(rows, 0), charge(rows, calibrate.BUFFER_BP)
    jump = bare[1] / bare[0]
    assert jump > 1.1
    assert bare[1] < buffered[0] == buffered[1]


def test_stress_and_buffer_take_the_edge_off_the_swings() -> None:
    swings = {(s.name, s.days): s.steepest for s in study.procyclicality(0, made_days=900)}
    for days in (5, 21):
        assert swings["charged", days] < swings["stressed", days] < swings["model", days]
    assert backtest.steepest([100, 90, 80], 1) == 1.0
    assert backtest.steepest([100, 110, 121], 2) == 1.21


def test_the_figures_of_the_page_are_the_models() -> None:
    """docs/concepts/margin.md: what is charged and why, correlations, and the backtests' counts."""
    page = (Path(__file__).parents[1] / "docs/concepts/margin.md").read_text()
    result = calibrated()
    for p in result.proposals:
        if p.source == p.product:
            shown = (p.filtered_bp, p.plain_bp, p.stress_bp, p.blended_bp)
            cells = " | ".join(f"{bp / 100:.2f} %" for bp in shown)
            row = f"| {p.product} | {cells} | {p.floor_bp // 100} % | {p.charged_bp / 100:.2f} % |"
            assert row in page
    measured = {(pair.a, pair.b): pair.correlation for pair in result.pairs}
    found = [measured["B200", "H100"], measured["H100", "H200"], measured["B200", "H200"]]
    assert [f"{one:.2f}" for one in found] == ["0.41", "0.16", "-0.11"]
    rows = list(study.run(history.load(), 0, lambda done, total: None))
    for step in ("hours", "days"):
        ours = [v for v in rows if f" {step} " in v.name]
        beyond, expected = sum(v.exceedances for v in ours), sum(v.expected for v in ours)
        assert f"| 95 % | {beyond} | {expected:.0f} | none of 8 | {ours[0].power:.2f} each" in page
    charged = {p.product: p.charged_bp for p in result.proposals}
    for panel, steps, count in ((history.load().daily, 7, "160"), (history.load().hourly, 168, "")):
        weeks = beyond = 0
        for name, series in panel.products.items():
            moves = model.over(model.changes(series.levels), steps)
            sides = (model.losses_bp(moves, long=side) for side in (True, False))
            worst = [max(both) for both in zip(*sides, strict=True)]
            weeks += len(worst)
            beyond += sum(loss > charged[name] for loss in worst)
        told = f"each of the {count}" if count else f"{beyond:,} of {weeks:,} such weeks"
        assert told in page and (not count or (beyond, f"{weeks}") == (0, count))
