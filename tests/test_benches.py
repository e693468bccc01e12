"""The benches run, check what they measure and print rows of one shape; no timing is judged.

Budget: 60 seconds.
"""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from benches import (
    abuse,
    access,
    auction,
    batches,
    contracts,
    core,
    end_of_day,
    features,
    feed,
    implied,
    instructions,
    journal,
    ledger,
    path,
    questions,
    replay,
    rivals,
    stages,
)
from benches.core import Subject, floor_table, flow_rows, given_subjects, own_subjects
from benches.memory import measure
from benches.rows import Row, publish, row
from benches.workloads import workload
from exchange.engine import Engine
from exchange.messages import COMMAND_BYTES, EVENT, EventKind
from exchange.sim.flow import START_NS, prepare

# An event that tells that a feature was used, once for each use.
SHOWN = {
    "stop": EventKind.ORDER_WAITING,
    "stop_limit": EventKind.ORDER_WAITING,
    "elected": EventKind.ORDER_ELECTED,
    "refill": EventKind.ORDER_REFILLED,
    "self_trade": EventKind.ORDER_CANCELLED,
    "group": EventKind.ORDER_CANCELLED,
    "mass_cancel": EventKind.MASS_CANCELLED,
    "mass_quote": EventKind.QUOTED,
    "spread_trade": EventKind.LEG_TRADE,
    "auction": EventKind.TRADE,
}
FIELDS = ["name", "value", "unit", "ratio", "ratio_to"]
RIVAL = """#!{python}
import asyncio
import json
print(json.dumps({{"ns_per_command": 50.0, "trades": {trades}, "resting": {resting}}}))
"""


def rival(folder: Path, trades: int, resting: int) -> Path:
    program = folder / "rival"
    program.write_text(RIVAL.format(python=sys.executable, trades=trades, resting=resting))
    program.chmod(0o755)
    return program


def test_rows_are_one_json_object_each(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("single.batch", 12.3456789, "ns/command", 3.0, "single.floor"), row("a", 1, "us")]
    publish(rows, as_json=True, record=False)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(one) for one in printed] == [FIELDS, FIELDS]
    assert printed[0]["value"] == 12.3457
    assert printed[0]["ratio"] == 4.115
    assert (printed[1]["ratio"], printed[1]["ratio_to"]) == (None, None)


def test_core_times_a_flow_and_an_external_rival(tmp_path: Path) -> None:
    (subject,) = own_subjects(tmp_path, ["single"], 500)
    assert subject.expected is not None
    program = rival(tmp_path, int(str(subject.expected["trades"])), 0)
    with pytest.raises(RuntimeError, match="rival has resting 0, not"):
        core.rounds(subject, 1, program)
    program = rival(
        tmp_path, int(str(subject.expected["trades"])), int(str(subject.expected["resting"]))
    )
    (one,) = core.rounds(subject, 1, program)
    assert one.rival == 50.0
    assert one.batch > 0


def test_core_refuses_a_wrong_total(tmp_path: Path) -> None:
    (subject,) = own_subjects(tmp_path, ["xc"], 300)
    wrong = Subject(subject.name, subject.path, subject.skip, {"trades": -1})
    with pytest.raises(RuntimeError, match="xc: the core has trades"):
        core.rounds(wrong, 1, None)


def test_given_flows_bring_their_totals(tmp_path: Path) -> None:
    drawn = workload("single", 300)
    (tmp_path / "mine.bin").write_bytes(drawn.raw)
    facts = {"prefill": drawn.prefill, "trades": drawn.expected.trades, "seed": 1}
    (tmp_path / "mine.json").write_text(json.dumps(facts))
    (tmp_path / "bare.bin").write_bytes(drawn.raw)
    bare, mine = given_subjects(tmp_path)
    assert (bare.skip, bare.expected) == (0, None)
    assert (mine.skip, mine.expected) == (drawn.prefill, {"trades": drawn.expected.trades})


def test_a_rival_that_prints_no_result(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="true printed no result"):
        rivals.run_external(Path("/bin/true"), tmp_path, 0)
    with pytest.raises(RuntimeError, match="false failed"):
        rivals.run_external(Path("/bin/false"), tmp_path, 0)


def test_a_curve_is_timed_with_and_without_implied_prices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(implied, "COMMANDS", 4_000)
    monkeypatch.setattr(implied, "ROUNDS", 1)
    assert [one.name for one in implied.timed_rows()] == [
        f"implied.{mode}.time" for mode in implied.MODES
    ]
    assert implied.implied_trades(implied.flow_of("on")) > 0


@pytest.mark.parametrize("package", rivals.PACKAGES)
def test_a_package_makes_the_right_trades(package: str) -> None:
    pytest.importorskip(package.replace("-", "_"), reason="the bench extra is not installed")
    drawn = workload("single", 200)
    assert rivals.time_package(package, drawn.raw, drawn.prefill) > 0


def test_the_registry_is_timed_against_its_toml() -> None:
    parsed, loaded, listed = contracts.registry_rows(rounds=1)
    assert (parsed.ratio, loaded.ratio_to, listed.ratio_to) == (None, parsed.name, parsed.name)


def test_replay_holds_and_is_compared_with_the_core() -> None:
    core_row, replay_row = replay.replay_rows("single", 500, 1)
    assert (core_row.unit, replay_row.ratio_to) == ("commands/s", core_row.name)


def test_the_journal_syncs_as_often_as_bare_appends(tmp_path: Path) -> None:
    records = journal.commands_of(300)
    rows = list(journal.append_rows(tmp_path, records, 64, 300, rounds=1))
    assert [one.ratio_to for one in rows if one.ratio] == [
        f"journal.64_a_batch.{to}" for to in ("bare", "bare_ahead", "bare")
    ]
    assert rows[-1].ratio == 1.0
    commands, syncs = asyncio.run(journal.group_commit(tmp_path, records))
    assert commands == 300 > 10 * syncs


def test_the_ledger_writes_what_raw_sqlite_writes(tmp_path: Path) -> None:
    ours, raw, _ = ledger.time_round(tmp_path, size=7, count=50, number=0)
    assert ours > 0 < raw


def test_a_day_ends_and_clearing_agrees_with_the_engine(tmp_path: Path) -> None:
    rows = list(end_of_day.rows(20, 6, tmp_path))
    assert [one.unit for one in rows] == [*["MiB peak"] * 3, *["positions/s"] * 5]


def test_questions_are_compared_with_the_replay() -> None:
    rows = list(questions.question_rows("single", 400, 1, list(questions.QUESTIONS)))
    assert [one.name for one in rows[1:]] == [f"single.{name}" for name in questions.QUESTIONS]
    assert {one.ratio_to for one in rows[1:]} == {rows[0].name}


def test_path_reaches_every_order() -> None:
    rows = list(path.path_rows(requests=80, rounds=1, connections=2))
    names = [one.name for one in rows if one.ratio is not None]
    assert [name for name in names if not name.endswith(".cpu")] == [
        "path.mixed.rate",
        "path.apart.mixed.rate",
        "path.kept.mixed.rate",
        "path.trades.rate",
        "path.apart.trades.rate",
        "path.kept.trades.rate",
        "path.round_trip",
        "path.apart.round_trip",
        "path.kept.round_trip",
    ]


def test_memory_counts_resting_orders() -> None:
    per_order = measure(orders=2_000, instruments=10)
    assert per_order["accounted"] > 64  # an order alone is as much


def test_floor_table_covers_the_resting_orders() -> None:
    assert len(floor_table(0)) * 8 == core.TABLE_BYTES_MIN
    assert len(floor_table(40_000)) * 8 == 1 << 22


def test_every_ratio_says_to_what(tmp_path: Path) -> None:
    (subject,) = own_subjects(tmp_path, ["single"], 300)
    rows: list[Row] = [one for one in flow_rows(subject, 1, None, count_instructions=False)]
    assert all((one.ratio is None) == (one.ratio_to is None) for one in rows)


def test_batches_send_the_same_three_ways() -> None:
    requests = [f"r{number}" for number in range(120)]
    single, pipelined, frames = (batches.frames_of(requests, way) for way in batches.WAYS)
    assert single == [[request] for request in requests]
    assert [len(turn) for turn in pipelined] == [50, 50, 20]
    assert [turn[0] for turn in frames] == [f"[{','.join(turn)}]" for turn in pipelined]


def test_batches_print_what_they_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CONNECTIONS", (1,))
    rows = list(batches.batch_rows(200, 1))
    names = [one.name for one in rows if not one.name.endswith(".cpu")]
    assert names == [f"batches.1.{way}" for way in batches.WAYS]
    assert all(one.value > 0 for one in rows if not one.name.endswith(".cpu"))


def test_access_compares_with_its_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        "GATEWAYS": (1,),
        "REQUESTS": 160,
        "TURNS": 1,
        "OFFERED_SECONDS": 0.2,
        "SLOW_SUBSCRIBERS": 2,
    }
    for name, value in few.items():
        monkeypatch.setattr(access, name, value)
    rows = {one.name: one for one in access.access_rows(1, ("orders", "slow"))}
    order = rows["access.orders.gateways_1.rate"]
    assert order.ratio is not None and order.ratio_to == "access.orders.gateways_1.echo_rate"
    assert rows["access.slow_reader.p99"].ratio_to == "access.slow_reader.p99.alone"


def test_stages_count_what_a_request_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, so that what makes the path of an order longer is seen however busy a machine is."""
    monkeypatch.setattr(stages, "BATCHES", 2)
    rows = {one.name: one.value for one in access.access_rows(1, ("stages",))}
    calls = {stage: rows[f"access.stages.{stage}.calls"] for stage in stages.STAGES}
    most = {"receive": 2, "match": 1, "release": 2, "take": 1}
    assert all(0 < calls[stage] <= most[stage] for stage in most), calls


def test_abuse_compares_what_must_not_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abuse, "LOGONS", 3)
    monkeypatch.setattr(abuse, "ORDERS", 20)
    unknown, *flooded = abuse.abuse_rows(1)
    assert unknown.name == "abuse.unknown_key" and unknown.ratio_to == "a bad signature"
    assert [one.name for one in flooded] == [
        f"abuse.flood.{name}" for name in ("p50.alone", "p50", "p99.alone", "p99")
    ]


def test_feed_times_every_channel() -> None:
    rows = list(feed.feed_rows(400, 1))
    assert [one.name for one in rows] == [
        *(f"feed.{way}" for way in ("bare", "all", *feed.CHANNELS)),
        *(f"feed.snapshot.{what}" for what in ("whole", "begin", "part")),
    ]
    assert [one.name for one in rows if not one.ratio] == ["feed.bare", "feed.snapshot.whole"]


@pytest.mark.parametrize("name", SHOWN)
def test_a_feature_is_used_as_often_as_it_is_said_to_be(name: str) -> None:
    built = features.FEATURES[name].build()
    engine, sequence, shown = Engine(), 1, 0
    for batch in (*built.ready, *built.counted):
        if batch is built.counted[0]:
            shown = 0
        events = engine.apply(batch, sequence, START_NS)
        sequence += len(batch) // COMMAND_BYTES
        shown += sum(event[2] == SHOWN[name] for event in EVENT.iter_unpack(events))
    assert shown >= built.uses > 500


def test_features_bring_what_they_are_compared_with() -> None:
    assert features.wanted(["market_to_limit"]) == ["plain", "take", "market", "market_to_limit"]
    costs = [features.Cost("plain", 300.0, 300.0), features.Cost("curve", 310.0, 10.0)]
    rows = list(features.rows(costs))
    assert [(one.ratio, one.ratio_to) for one in rows] == [(None, None), (1.033, "features.plain")]
    assert features.table(costs).splitlines()[-1].endswith("| a command of the flow | +10 |")


def test_instructions_are_counted_without_what_comes_before() -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    drawn = workload("single", 200)
    flow = prepare(drawn.raw, drawn.prefill)
    found = instructions.count(flow.setup + flow.prefix, flow.timed)
    assert 100 < found.instructions / 200 < 2_000
    assert (found.first_misses, found.last_misses) == (0, 0)


def test_an_auction_trades_and_is_timed_against_a_sort() -> None:
    orders, prices = auction.crossed(500, spread=20.0)
    traded, sort, trades = auction.uncrossed(orders, prices)
    assert traded > 0 < sort
    assert trades > 100
