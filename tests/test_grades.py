"""Deliverable grades: terms, draw, factors, published tables, true-ups, eligibility."""

import math
import random
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import attested
import msgspec
import pytest
from attested import EXPIRY, SECOND, roster, rules, site
from hypothesis import given
from hypothesis import strategies as st

from contracts import calendar as calendars
from contracts import grades, registry
from contracts.calendar import Month
from contracts.calendar import load as calendar
from contracts.grades import Grade, Rules, factors, measure, table
from contracts.grades import roster as rosters
from contracts.grades.factors import centre, order_outside, soft_factor
from contracts.grades.measure import Run
from contracts.grades.roster import Roster
from contracts.grades.schedule import schedule
from contracts.refusals import Refusal, Refused

HOUR = 3600 * SECOND
DAY = 24 * HOUR
NODE = "H100-NODE"


def grade() -> Grade:
    return grades.load().grade(NODE)


# The file


def file_text() -> str:
    return (Path(grades.__file__).parents[1] / "data" / "grades.toml").read_text()


def test_the_shipped_grades() -> None:
    loaded = grades.load()
    assert {g.product for g in loaded.grades.values()} == {
        "A100", "H100", "H200", "B200", "GB200", "MI300",
    }  # fmt: skip
    assert loaded.grade("GB200-RACK").delivery_unit_lots == 72
    assert loaded.grade("H100-C64").delivery_unit_lots == 64
    assert not loaded.jurisdiction.enabled
    assert rules().factor_low_e4 == 8_000
    assert rules().factor_high_e4 == 11_000


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('factor_low = "0.8000"', 'factor_low = "1.2000"', "factor_low"),
        ('factor_low = "0.8000"', 'factor_low = "nan"', "matching regex"),
        ('factor_low = "0.8000"', "factor_low = 0.8", "Expected `str`"),
        ("nodes_least = 4", "nodes_least = 9", "nodes_drawn"),
        ("publish_days = 10", "publish_days = 8", "before the freeze"),
        ('confidence = "0.9500"', 'confidence = "1.0000"', "confidence"),
        ('failure_floor = "0.8500"', 'failure_floor = "1.0000"', "failure_floor"),
        ('first_expiry = "2026-01"', 'first_expiry = "2026-13"', "month"),
        ("[grades.A100-NODE]", "[grades.A100-NODE]\nnote = 1", "unknown field"),
        ('gpu_class = "A100-SXM"', 'gpu_class = "A100-PCIE"', "UNKNOWN_GPU"),
        ('gpu_class = "A100-SXM"', 'gpu_class = "H100-SXM"', "not delivered on"),
        ('precision = "bf16"', 'precision = "bf16-sparse"', "SPARSE_PEAK"),
        ("delivery_unit_lots = 72", "delivery_unit_lots = 8", "whole domains"),
        ('par_mfu = "0.4500"', 'par_mfu = "1.4500"', "pars"),
        ("enabled = false", 'enabled = "no"', "Expected `bool`"),
        ('version = "1"\nmodel', 'version = "2"\nmodel', "no \\[\\[benchmarks"),
        ("tokens_per_gpu = 32_768", "tokens_per_gpu = 0", ">= 1"),
        ('regions = ["any"]', "regions = []", "grades.'A100-NODE': .* length >= 1"),
    ],
)
def test_a_file_of_grades_with_one_fault_is_refused_whole(old: str, new: str, what: str) -> None:
    text = file_text()
    assert old in text
    with pytest.raises(ValueError, match=what):
        grades.read(text.replace(old, new, 1).encode())


def test_a_grade_is_delivered_in_whole_units() -> None:
    grade().check_lots(16)
    for lots in (0, -8, 4, 9):
        with pytest.raises(Refused) as caught:
            grade().check_lots(lots)
        assert caught.value.reason is Refusal.DELIVERY_UNIT


def test_what_froze_at_listing_is_one_digest() -> None:
    same = grades.frozen_terms(rules(), grade())
    assert same == grades.frozen_terms(rules(), grade())
    for changed in (
        msgspec.structs.replace(grade(), par_mfu_e4=4_001),
        msgspec.structs.replace(grade(), delivery_unit_lots=16),
    ):
        assert grades.frozen_terms(rules(), changed) != same
    assert grades.frozen_terms(msgspec.structs.replace(rules(), nodes_drawn=9), grade()) != same


# The schedule


@given(st.integers(0, 12 * 14))
def test_the_schedule_of_every_month(number: int) -> None:
    month = Month(2026, 1).plus(number)
    days = schedule(month, rules())
    assert days.published < days.dispute_last < days.frozen < days.delivery_first
    for day in (days.published, days.dispute_last, days.frozen):
        assert calendar().is_business_day(day)

    def business_days(first: date, last: date) -> int:
        return sum(
            calendar().is_business_day(first + timedelta(n)) for n in range((last - first).days)
        )

    assert business_days(days.published, days.delivery_first) == 10
    assert business_days(days.frozen, days.delivery_first) == 5
    assert business_days(days.published, days.dispute_last) == 3
    start, end = days.window_ns
    assert end - start == 30 * DAY


def test_the_schedule_of_december() -> None:
    days = schedule(EXPIRY, rules())
    assert (days.published, days.dispute_last, days.frozen) == (
        date(2026, 11, 16), date(2026, 11, 19), date(2026, 11, 23),
    )  # fmt: skip


@pytest.mark.parametrize("told", ["2026-11-12", "2026-09-01"])
def test_a_holiday_that_came_late_draws_no_other_hours(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs of the hours drawn before it would all be of hours not drawn; one that was known
    before the window counts."""
    made = roster(site("alpha"))
    hour, known = attested.hour_of(made, "alpha-00"), schedule(EXPIRY, rules())
    file = (Path(calendars.__file__).parent / "data" / calendars.FILE_NAME).read_text()
    row = f'[[US.holiday]]\nname = "Mourning"\nclosed = ["market"]\nannounced = {told}\n'
    read, faults = calendars.read_calendars("f", f"{file}\n{row}dates = [2026-11-20]".encode())
    assert not faults
    monkeypatch.setattr(calendars, "_shipped", lambda: read)
    late = told > "2026-10-02"
    assert (schedule(EXPIRY, rules()) == known) == late
    assert (attested.hour_of(made, "alpha-00") == hour) == late


# The draw


def test_the_fixing_draws_and_nobody_else() -> None:
    made = roster(site("alpha", 40), site("beta", 5))
    drawn = rosters.draw(made, rules())
    assert [len(names) for names in drawn.values()] == [8, 5]
    assert drawn == rosters.draw(made, rules())
    another = rosters.draw(msgspec.structs.replace(made, fixing="0f" * 32), rules())
    assert another["alpha", "one"] != drawn["alpha", "one"]
    # Other nodes on the roster do not change a node's lot: only how many come before it.
    larger = rosters.draw(roster(site("alpha", 60), site("beta", 5)), rules())
    kept = [name for name in larger["alpha", "one"] if name in drawn["alpha", "one"]]
    assert kept == [name for name in drawn["alpha", "one"] if name in kept]


def test_the_fixing_draws_the_hours_too() -> None:
    made = roster(site("alpha"))
    node = rosters.draw(made, rules())["alpha", "one"][0]
    first = rosters.hours(made, made.sites[0], node, rules())
    start, end = schedule(EXPIRY, rules()).window_ns
    assert len(set(first)) == 3
    assert all(start <= at < end and (at - start) % HOUR == 0 for at in first)
    another = msgspec.structs.replace(made, fixing="0f" * 32)
    assert rosters.hours(another, another.sites[0], node, rules()) != first


def test_every_node_is_drawn_as_often_as_any_other() -> None:
    counts: dict[str, int] = {}
    for number in range(600):
        made = roster(site("alpha", 20), fixing=f"{number:064x}")
        for name in rosters.draw(made, rules())["alpha", "one"]:
            counts[name] = counts.get(name, 0) + 1
    assert len(counts) == 20
    assert all(abs(count - 240) < 5 * math.sqrt(600 * 0.4 * 0.6) for count in counts.values())


# The estimate


def runs(values: dict[str, list[float]], *, days: float = 1.0, lost: float = 0.0) -> list[Run]:
    """Runs of provider alpha by node: MFU of each, so long, with so much of it lost."""
    elapsed = round(days * DAY)
    return [
        Run(provider="alpha", facility="one", node=node, digest=f"{node}{n}", from_ns=n * elapsed,
            to_ns=(n + 1) * elapsed, elapsed_ns=elapsed, seller_ns=round(lost * elapsed),
            mfu_e6=round(mfu * 1_000_000))
        for node, mfus in values.items()
        for n, mfu in enumerate(mfus)
    ]  # fmt: skip


def drawn_nodes(made: Roster) -> tuple[str, ...]:
    return rosters.draw(made, rules())["alpha", "one"]


def row(
    mfus: list[float], *, lost: float = 0.025, days: float = 1.0, **terms: Any
) -> factors.FactorRow:
    """The factor of a site whose drawn nodes ran three times each at these levels."""
    made = roster(site("alpha", 10, **terms))
    named = dict(zip(drawn_nodes(made), ([mfu] * 3 for mfu in mfus), strict=False))
    (found,) = factors.rows(runs(named, days=days, lost=lost), made, grade(), rules())
    return found


def test_par_is_one() -> None:
    found = row([0.4] * 8)
    assert (found.state, found.factor_e4, found.fixed_e4) == ("DELIVERABLE", 10_000, 9_750)
    assert (found.nodes, found.runs, found.absent) == (8, 24, 0)


@pytest.mark.parametrize("level", [0.38, 0.385, 0.395, 0.405, 0.415, 0.42])
def test_a_small_difference_is_par(level: float) -> None:
    assert row([level] * 8).factor_e4 == 10_000


def test_a_large_difference_counts_nearly_whole() -> None:
    slow, fast = row([0.34] * 8), row([0.45] * 8)  # 15 % slower, 12.5 % faster
    assert slow.factor_e4 is not None
    assert fast.factor_e4 is not None
    assert 8_500 < slow.factor_e4 < 9_100
    assert 10_700 < fast.factor_e4 < 11_000
    assert slow.weight_mfu_e4 > 8_000


def test_the_factor_has_no_cliff() -> None:
    """A ten-thousandth more MFU never moves the factor by more than two ten-thousandths of it."""
    levels = [0.33 + n * 0.00004 for n in range(3_000)]
    found = [row([level] * 8).factor_e4 for level in levels[::25]]
    made = [f for f in found if f is not None]
    assert made == sorted(made)
    assert max(b - a for a, b in pairwise(made)) <= 25 * 3


@given(st.floats(0.5, 1.5))
def test_the_soft_threshold_is_zero_at_its_edge(ratio: float) -> None:
    factor = soft_factor(ratio, 200)
    if abs(ratio - 1) <= 0.02:
        assert factor == 10_000
    else:
        wanted = 10_000 * (ratio - math.copysign(0.02, ratio - 1))
        assert abs(factor - wanted) <= 0.5 + 1e-6


def test_half_goes_to_even() -> None:
    assert soft_factor(1 + 0.02005, 200) in (10_000, 10_001)
    exact = Fraction(24_690, 10_000)
    assert round(exact) == 2  # Python's round is the rule


def test_fewer_than_half_of_the_nodes_move_the_factor_little() -> None:
    honest = row([0.35, 0.351, 0.349, 0.352, 0.348, 0.35, 0.351, 0.349])
    prepared = row([0.35, 0.351, 0.349, 0.352, 0.348, 0.60, 0.62, 0.65])
    assert honest.factor_e4 is not None
    assert prepared.factor_e4 is not None
    assert abs(prepared.factor_e4 - honest.factor_e4) < 400
    broken = row([0.40] * 5 + [0.05] * 3)
    assert broken.factor_e4 == 10_000


def test_noise_is_taken_for_par() -> None:
    chance = random.Random(3)
    away = 0
    for _ in range(200):
        level = row([0.4 * math.exp(chance.gauss(0, 0.045)) for _ in range(8)]).factor_e4
        away += level != 10_000
    assert away <= 10  # of 200 sites that are at par, all but a few are found there


def test_thin_evidence_is_no_factor() -> None:
    found = row([0.4] * 3)
    assert (found.state, found.factor_e4, found.absent) == ("THIN", None, 15)
    made = roster(site("alpha"))
    named = {name: [0.4] * (3 if n < 5 else 1) for n, name in enumerate(drawn_nodes(made))}
    (picked,) = factors.rows(runs(named), made, grade(), rules())
    assert (picked.nodes, picked.runs, picked.state) == (8, 18, "DELIVERABLE")
    named[drawn_nodes(made)[0]] = [0.4]
    (picked,) = factors.rows(runs(named), made, grade(), rules())
    assert (picked.nodes, picked.runs, picked.state) == (8, 16, "THIN")
    none = row([])
    assert (none.state, none.nodes, none.delivered_e4) == ("THIN", 0, 0)


def test_a_node_that_stays_away_delivered_nothing() -> None:
    found = row([0.4] * 6, days=30.0)
    assert found.absent == 6
    assert found.delivered_e4 == round(10_000 * 0.975 * 6 / 8)
    assert found.factor_e4 is not None
    assert found.factor_e4 < 10_000


def test_few_days_without_a_fault_say_little() -> None:
    short, long = row([0.4] * 8, lost=0.0, days=0.05), row([0.4] * 8, lost=0.0, days=30.0)
    assert short.fixed_e4 == 9_750
    assert 9_750 < long.fixed_e4 < 9_850
    assert short.factor_e4 == long.factor_e4 == 10_000


def test_outside_the_bounds_nothing_is_deliverable() -> None:
    assert (row([0.29] * 8).state, row([0.29] * 8).factor_e4) == ("OUT_OF_BOUNDS", None)
    assert row([0.48] * 8).state == "OUT_OF_BOUNDS"


def test_a_site_that_may_not_deliver_says_why() -> None:
    found = row([0.4] * 8, fabric="ethernet", tenancy="shared")
    assert (found.state, found.reasons) == ("INELIGIBLE", ("FABRIC", "TENANCY"))


@pytest.mark.parametrize("count", [6, 8, 9, 15, 40])
def test_the_interval_covers_as_stated(count: int) -> None:
    chance = random.Random(count)
    inside = 0
    for _ in range(1_500):
        values = [[chance.lognormvariate(0, 0.3)] for _ in range(count)]
        _, _, low, high = centre(values, rules())
        assert low is not None
        assert high is not None
        inside += low <= 1.0 <= high
    assert inside / 1_500 > 0.95 - 0.02


def test_too_few_nodes_for_an_interval() -> None:
    assert [order_outside(n, 0.95) for n in (0, 1, 5, 6, 8, 9)] == [None, None, None, 0, 0, 1]


# Measured runs and published tables


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Roster, list[Path]]:
    """Two sites, alpha at par and beta 15 % slower, each drawn node with three logs."""
    folder = tmp_path_factory.mktemp("logs")
    made = roster(site("alpha"), site("beta"))
    paths = []
    for (provider, _), names in rosters.draw(made, rules()).items():
        for name in names:
            for number in range(3):
                level = 0.40 if provider == "alpha" else 0.34
                at = attested.hour_of(made, name, number)
                log = attested.run(name, level, provider=provider, at=at)
                paths.append(attested.write(folder / f"{name}-{number}.jsonl", log))
    return made, paths


NOW = attested.window_start() + 31 * DAY


def tabled(made: Roster, paths: list[Path], **options: Any) -> table.FactorTable:
    found = measure.measure(paths, made, grade(), rules(), now_ns=NOW)
    return table.make(made, found, grade(), rules(), **options)


def test_the_same_inputs_make_the_same_table(measured: tuple[Roster, list[Path]]) -> None:
    made, paths = measured
    first = tabled(made, paths)
    assert first.rows[0].factor_e4 == 10_000
    slow = first.rows[1].factor_e4
    assert slow is not None
    assert 8_500 < slow < 9_100
    assert tabled(made, list(reversed(paths))).digest == first.digest
    assert tabled(made, paths[:-1]).digest != first.digest
    signed = table.sign(first, attested.key_of("exchange"))
    assert signed.digest == first.digest
    content = msgspec.json.encode(signed)
    assert table.read(content, key=attested.key_of("exchange").public) == signed
    assert signed.factor_of("beta", "one", version=1) == slow
    assert signed.fixed_of("beta", "one") == first.rows[1].fixed_e4


def reason_of(action: Callable[[], object]) -> Refusal:
    with pytest.raises(Refused) as caught:
        action()
    return caught.value.reason


def test_a_table_that_was_touched_is_refused(measured: tuple[Roster, list[Path]]) -> None:
    key = attested.key_of("exchange")
    signed = table.sign(tabled(*measured), key)
    better = msgspec.structs.replace(signed.rows[1], factor_e4=10_900)
    touched = msgspec.structs.replace(signed, rows=(signed.rows[0], better))
    assert reason_of(lambda: table.read(msgspec.json.encode(touched))) is Refusal.WRONG_KEY
    content = msgspec.json.encode(signed)
    another = attested.key_of("another").public
    assert reason_of(lambda: table.read(content, key=another)) is Refusal.WRONG_KEY
    draft = msgspec.json.encode(tabled(*measured))
    assert reason_of(lambda: table.read(draft)) is Refusal.UNSIGNED
    unitless = msgspec.structs.replace(signed, delivery_unit_lots=msgspec.UNSET)
    older = msgspec.structs.replace(signed, schema=1)  # which has no unit
    assert reason_of(lambda: table.read(msgspec.json.encode(unitless))) is Refusal.VERSION
    assert reason_of(lambda: table.read(msgspec.json.encode(older))) is Refusal.VERSION
    assert reason_of(lambda: table.read(b"{")) is Refusal.SYNTAX
    assert reason_of(lambda: table.read(b"\xff" * 9)) is Refusal.SYNTAX
    assert reason_of(lambda: table.read(b" " * (table.TABLE_BYTES_MAX + 1))) is Refusal.TOO_LARGE
    assert reason_of(lambda: signed.factor_of("beta", "one", version=2)) is Refusal.FACTOR_VERSION
    assert reason_of(lambda: signed.factor_of("gamma", "one", version=1)) is Refusal.FACTOR_BOUNDS


def test_when_a_table_may_be_published(measured: tuple[Roster, list[Path]]) -> None:
    made, paths = measured
    first = tabled(made, paths)
    second = tabled(made, paths[:-1], before=first, dispute="beta: node 9 was in repair")
    days = first.schedule
    terms = (rules(), grade())

    def check(found: table.FactorTable, before: table.FactorTable | None, today: date) -> None:
        table.check_publication(found, before, *terms, today)

    check(first, None, days.published)
    check(second, first, days.dispute_last)
    early, late = days.published - timedelta(1), days.dispute_last + timedelta(1)
    assert reason_of(lambda: check(first, None, early)) is Refusal.CLOCK_FUTURE
    assert reason_of(lambda: check(first, None, days.frozen)) is Refusal.FROZEN
    assert reason_of(lambda: check(second, first, days.frozen)) is Refusal.FROZEN
    assert reason_of(lambda: check(second, first, late)) is Refusal.DISPUTE_CLOSED
    assert reason_of(lambda: check(second, None, days.published)) is Refusal.FACTOR_VERSION
    assert reason_of(lambda: check(first, first, days.published)) is Refusal.FACTOR_VERSION
    quiet = tabled(made, paths, before=first)
    assert reason_of(lambda: check(quiet, first, days.published)) is Refusal.DISPUTE_CLOSED
    other = msgspec.structs.replace(grade(), par_mfu_e4=3_900)
    softer = table.make(
        made, measure.measure(paths, made, grade(), rules(), now_ns=NOW), other, rules()
    )
    assert reason_of(lambda: check(softer, None, days.published)) is Refusal.RULES_CHANGED
    wide = msgspec.structs.replace(first.rows[0], factor_e4=11_001)
    broken = msgspec.structs.replace(first, rows=(wide,))
    assert reason_of(lambda: check(broken, None, days.published)) is Refusal.FACTOR_BOUNDS


def test_one_bad_log_refuses_all(measured: tuple[Roster, list[Path]], tmp_path: Path) -> None:
    made, paths = measured
    copy = tmp_path / "copy.jsonl"
    shutil.copy(paths[0], copy)
    with pytest.raises(ValueError, match="REPLAYED") as caught:
        measure.measure([*paths, copy], made, grade(), rules(), now_ns=NOW)
    assert len(str(caught.value).splitlines()) == 1


def test_the_rosters_gpus_are_gathered_once_for_all_logs(
    measured: tuple[Roster, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A roster may pledge a million GPUs, and a table rests on thousands of logs."""
    made, paths = measured
    gathered, gather = [], measure._pledged

    def counted(of: Roster) -> dict[str, str]:
        gathered.append(of)
        return gather(of)

    monkeypatch.setattr(measure, "_pledged", counted)
    assert len(measure.measure(paths, made, grade(), rules(), now_ns=NOW)) == len(paths) == 48
    assert gathered == [made]


def test_no_month_beyond_those_that_keep_their_rules_is_listed() -> None:
    """Before a month ends the one after next may be a physical product's front."""
    for month in range(1, 13):
        on = Month(2026, month).last_day
        furthest = max(one.expiry for one in registry.load().listing(on))
        assert furthest == str(grades.listed_through(on))


def test_rules_may_only_change_for_expiries_not_listed() -> None:
    text = file_text()
    later = text[text.index("\n[[rules]]") : text.index("# What a benchmark")]
    later = later.replace("version = 1", "version = 2").replace('"2026-01"', '"2028-03"')
    both = grades.read(text.replace("# A grade.", f"{later}\n# A grade.").encode())
    assert [both.rules_of(month).version for month in (Month(2028, 2), Month(2028, 3))] == [1, 2]
    for listed in ("2028-02", "2026-06"):
        sooner = text.replace("# A grade.", f"{later.replace('2028-03', listed)}\n# A grade.")
        with pytest.raises(ValueError, match="listed by then"):
            grades.read(sooner.encode())
    with pytest.raises(ValueError, match="later expiries"):
        grades.read(
            text.replace(
                "# A grade.", f"{later.replace('2028-03', '2026-01')}\n# A grade."
            ).encode()
        )
    assert reason_of(lambda: both.grade("H100-NODE", Month(2025, 12))) is Refusal.UNKNOWN_GRADE
    old: Rules = both.rules_of(Month(2026, 6))
    assert old == rules()
    assert reason_of(lambda: both.rules_of(Month(2025, 1))) is Refusal.RULES_CHANGED
