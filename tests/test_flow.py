"""Raw order flow through the engine: totals and the digest of its fills, never a timing."""

import json
import subprocess
import sys
from pathlib import Path
from struct import Struct

import pytest
from oracle import Oracle

from benches.workloads import PROFILES, RAW, workload
from exchange.messages import COMMAND, COMMAND_FIELDS, CommandFlag, CommandKind
from exchange.sim import flow
from exchange.sim.flow_records import Tally, scan

NEW, CANCEL, REDUCE, REPLACE, IOC, MARKET = range(1, 7)
EMPTY_DIGEST = "cbf29ce484222325"
TOTALS = ("n", "trades", "volume", "notional", "rejects", "resting", "resting_qty", "fills_fnv64")
# ../shared/flow/README.md, "Expected results with --commands 200000"; multi takes 3 GB to draw
PUBLISHED = {
    "single": (201_000, 43_191, 566_775, 5_752_183_633, 764, 973, 24_907, "e045ef6348346e26"),
    "xc": (201_000, 10_575, 142_514, 1_436_182_545, 1_618, 996, 27_105, "5c1fd0e58b7145b5"),
    "deep": (240_000, 16_123, 208_538, 2_085_377_642, 503, 38_960, 983_228, "46766eef158e8e63"),
    "sweep": (202_000, 95_976, 2_435_289, 48_799_325_560, 377, 1_993, 50_925, "fcafd1e890687065"),
}


def raw(*records: tuple[int, int, int, int, int, int, int]) -> bytes:
    return b"".join(RAW.pack(*record) for record in records)


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "flow.bin"
    path.write_bytes(data)
    return path


def totals(result: flow.Totals) -> tuple[int | str, ...]:
    return tuple(getattr(result, name) for name in TOTALS)


def commands(data: bytes) -> list[dict[str, int]]:
    batches = flow.prepare(data).timed
    rows = COMMAND.iter_unpack(b"".join(batches))
    return [dict(zip(COMMAND_FIELDS, row, strict=True)) for row in rows]


@pytest.mark.parametrize("name", PROFILES)
def test_engine_reaches_what_the_workload_expects(name: str, tmp_path: Path) -> None:
    drawn = workload(name, 20_000)
    result = flow.run(saved(tmp_path, drawn.raw), drawn.prefill)
    assert totals(result) == totals(drawn.expected)


@pytest.mark.parametrize("name", ["single", "xc", "sweep"])
def test_oracle_reaches_what_the_workload_expects(name: str, tmp_path: Path) -> None:
    drawn = workload(name, 1_500)
    result = flow.run(saved(tmp_path, drawn.raw), drawn.prefill, new_engine=Oracle)
    assert totals(result) == totals(drawn.expected)


def test_totals_do_not_depend_on_skip_or_batch(tmp_path: Path) -> None:
    drawn = workload("single", 3_000)
    path = saved(tmp_path, drawn.raw)
    seen = {totals(flow.run(path, skip, batch_commands=b)) for skip, b in ((0, 1), (7, 64))}
    assert seen == {totals(drawn.expected)}


def test_one_trade_has_the_published_digest(tmp_path: Path) -> None:
    path = saved(tmp_path, raw((NEW, 1, 0, 5, 100, 1, 0), (NEW, 0, 0, 5, 100, 2, 0)))
    assert totals(flow.run(path)) == (2, 1, 5, 500, 0, 0, 0, "141e110ee7d78327")


def test_rejects_and_no_trade(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        raw(
            (NEW, 0, 0, 5, 100, 1, 0),
            (REDUCE, 0, 0, 2, 0, 1, 0),
            (CANCEL, 0, 0, 0, 0, 9, 0),
            (REPLACE, 0, 0, 3, 101, 9, 10),
            (CANCEL, 0, 0, 0, 0, 10, 0),
            (MARKET, 0, 0, 3, 0, 11, 0),
        ),
    )
    assert totals(flow.run(path)) == (6, 0, 0, 0, 3, 1, 3, EMPTY_DIGEST)


def test_a_chain_of_replaces_stays_in_one_account() -> None:
    made = commands(
        raw(
            (NEW, 1, 0, 5, 100, 70, 0),
            (REPLACE, 1, 0, 4, 101, 70, 200),
            (REDUCE, 1, 0, 1, 0, 200, 0),
            (REPLACE, 1, 0, 4, 102, 200, 301),
            (CANCEL, 1, 0, 0, 0, 301, 0),
        )
    )
    assert {command["account"] for command in made} == {65 + 70 % 64}
    assert {command["session"] for command in made} == {1 << 16 | 65 + 70 % 64}
    assert [command["kind"] for command in made] == [
        CommandKind.ENTER,
        CommandKind.REPLACE,
        CommandKind.REDUCE,
        CommandKind.REPLACE,
        CommandKind.CANCEL,
    ]
    assert made[1]["flags"] == CommandFlag.BY_CLIENT_ID | CommandFlag.NEW_ID
    assert (made[1]["target_lo"], made[1]["key_lo"]) == (70, 200)


def test_price_limits_are_scanned_by_symbol() -> None:
    data = raw((NEW, 0, 2, 5, 4_000, 1, 0), (IOC, 1, 2, 9, 4_600, 2, 0), (MARKET, 1, 0, 7, 0, 3, 0))
    assert scan(data) == [(1, 1, 1, 7), (1, 1, 1, 1), (4_000, 4_600, 200, 9)]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ((0, 0, 0, 1, 1, 1, 0), "kind 0"),
        ((7, 0, 0, 1, 1, 1, 0), "kind 7"),
        ((NEW, 2, 0, 1, 1, 1, 0), "side 2"),
        ((NEW, 0, 0, 1, 1, 0, 0), "an order id is 0"),
        ((REPLACE, 0, 0, 1, 1, 1, 0), "an order id is 0"),
        ((NEW, 0, 0, 1, 0, 1, 0), "price 0"),
        ((IOC, 0, 0, 1, 1 << 48, 1, 0), "price 281474976710656"),
        ((MARKET, 0, 0, 0, 0, 1, 0), "quantity 0"),
        ((NEW, 0, 0, 1 << 31, 1, 1, 0), "quantity 2147483648"),
    ],
)
def test_a_bad_record_is_named(record: tuple[int, int, int, int, int, int, int], why: str) -> None:
    with pytest.raises(ValueError, match=f"record 1: {why}"):
        flow.prepare(raw((NEW, 0, 0, 1, 1, 5, 0), record))


def test_bad_files_are_refused(tmp_path: Path) -> None:
    one = raw((NEW, 0, 0, 1, 1, 5, 0))
    with pytest.raises(ValueError, match="whole number of 32-byte records"):
        flow.prepare(one[:-1])
    with pytest.raises(ValueError, match="cannot skip 1 of 1"):
        flow.prepare(one, skip=1)
    with pytest.raises(ValueError, match="there is no command in it"):
        flow.prepare(b"")
    with pytest.raises(ValueError, match=r"sequence \d+: an order id was used twice"):
        flow.run(saved(tmp_path, one * 2))


def test_a_workload_is_the_same_bytes_every_time() -> None:
    again = [workload("xc", 500).raw for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != workload("xc", 500, seed=1).raw


def test_an_empty_tally() -> None:
    tally = Tally(8)
    tally.feed(b"")
    assert f"{tally.digest:016x}" == EMPTY_DIGEST
    assert (tally.trades, tally.resting, tally.surprise) == (0, 0, None)


def test_the_real_hour(shared: Path) -> None:
    path = shared / "flow" / "aapl_20120621_hour.bin"
    facts = json.loads(path.with_suffix(".json").read_text())
    assert totals(flow.run(path)) == tuple(facts[name] for name in TOTALS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_flows(name: str, shared: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.bin"
    maker = [sys.executable, str(shared / "flow" / "gen.py"), name, str(path)]
    subprocess.run([*maker, "--commands", "200000"], check=True, capture_output=True)
    facts = json.loads(path.with_suffix(".json").read_text())
    assert totals(flow.run(path, facts["prefill"])) == PUBLISHED[name]


def test_record_layouts() -> None:
    assert RAW.size == 32
    assert Struct("<QQqII").size == 32
