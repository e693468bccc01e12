"""``hourbook replay`` and ``hourbook log``, by their exit codes and their output.

They run in this process, but where a terminal or a missing package is at stake. Budget: 15 seconds.
"""

import asyncio
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from command import hourbook, result, run
from history_market import DAYS, Script, two_days
from recorded import NOON, SECOND, Clock, open_sequencer, say
from served import CHECKOUT, COMMAND
from test_history_divergence import NoPostOnly, rechained

from exchange.cli.replay import SLOWEST, _player
from exchange.gateway.decode import ORDER, digest
from exchange.history import walk
from exchange.history.picture import Picture
from exchange.history.table import COLUMNS, SCHEMA
from exchange.journal.reader import LogReader
from exchange.messages import Side

CLIENT_ID = "quote-118"


def both(*arguments: object, code: int) -> str:
    """Run a command; all that it says."""
    done = run(*arguments)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = two_days(batches=60)
    script.batches[12:12] = [[_named_order(script)]]
    return script.write(tmp_path_factory.mktemp("cli") / "market")


def _named_order(script: Script) -> tuple[bytes, str | None]:
    """An order whose client order id is known in clear; far from the market."""
    key = digest(CLIENT_ID, ORDER)
    low, high = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
    return script.enter(5, Side.BUY, 2_100, 1, key_lo=low, key_hi=high)


def test_replay_stops_at_a_sequence_or_a_time_and_shows_what_was(market: Path) -> None:
    told = result("replay", market, "--until", 200, "--book", "H100Z26", "--account", 2)
    assert told["last_sequence"] == 200
    (book,), (account,) = told["books"], told["accounts"]
    assert book["instrument"] == "H100Z26" and book["bids"] and book["asks"]
    assert account["positions"][0]["instrument"] in ("H100Z26", "H200Z26")
    by_time = result("replay", market, "--until", told["time"])
    assert by_time["last_sequence"] >= 200
    assert by_time["time"] == told["time"]
    page = hourbook("replay", market, "--until", 200, "--book", "H100Z26", "--account", 2)
    assert "H100Z26  CONTINUOUS  mark 2.500000" in page
    assert "working buy" in page
    assert "listed are: H100Z26" in hourbook("replay", market, "--book", "H100Q99", code=1)
    assert "not open" in hourbook("replay", market, "--account", 99, code=1)
    assert "neither" in hourbook("replay", market, "--until", "noon", code=2)


def test_a_time_that_is_printed_names_what_it_is_printed_with(tmp_path: Path) -> None:
    """Stamps are nanoseconds, and times are printed in milliseconds."""
    script = two_days(batches=10)
    market = tmp_path / "market"

    async def session() -> None:
        clock = Clock()
        sequencer = open_sequencer(market, clock=clock, sync=lambda handle: None)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sequencer.run())
            for number, batch in enumerate(script.batches):
                clock.now = NOON + number * SECOND // 4 + 123_456_789
                await say(sequencer, [record for record, _ in batch])
            await sequencer.close()

    asyncio.run(session())
    first, *_ = hourbook("log", "grep", market, "--kind", "trade", "--json").splitlines()
    trade = json.loads(first)
    assert trade["time"].endswith((".123Z", ".373Z", ".623Z", ".873Z"))
    found = hourbook("log", "grep", market, "--from", trade["time"], "--until", trade["time"])
    assert f"#{trade['sequence']}." in found
    told = result("replay", market, "--until", trade["time"])
    assert (told["time"], told["last_sequence"] >= trade["sequence"]) == (trade["time"], True)
    exact = trade["time"].replace("Z", "455Z")  # a microsecond before
    assert result("replay", market, "--until", exact)["last_sequence"] < trade["sequence"]


def test_replay_is_paced(market: Path) -> None:
    """Half a minute of market at a hundred times the speed; every event is printed once."""
    started = time.monotonic()
    said = hourbook("replay", market, "--speed", "100x", "--until", 300)
    seconds = time.monotonic() - started
    last = walk.replay(market, until=300)
    span = (last.replayer.stamp - 1_800_000_000 * walk.NS) / walk.NS / 100
    assert seconds >= span > 0.1
    assert said.count("  #") == last.replayer.events
    assert "write real" in hourbook("replay", market, "--speed", "fast", code=2)


def test_a_pause_longer_than_a_system_can_sleep_is_slept_in_parts(
    market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day at a millionth of its speed is more than two thousand years."""

    class Slept(Exception):
        pass

    def sleep(seconds: float) -> None:
        assert 0 < seconds <= 86_400
        raise Slept

    monkeypatch.setattr(time, "sleep", sleep)
    play = _player(SLOWEST, Picture(), as_json=False)
    (chunk, *_) = LogReader(market).chunks()
    play(chunk[0], b"")
    late = msgspec.structs.replace(chunk[0].opening, stamp=chunk[0].opening.stamp + 86_400 * 10**9)
    with pytest.raises(Slept):
        play(msgspec.structs.replace(chunk[0], opening=late), b"")


def test_replay_exports_the_same_rows_to_both_formats(market: Path, tmp_path: Path) -> None:
    hourbook("replay", market, "--export", tmp_path / "log.jsonl")
    hourbook("replay", market, "--export", tmp_path / "log.parquet")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "log.parquet")
    assert table.column_names == [column.name for column in COLUMNS]
    assert table.schema.metadata[b"hourbook.export.schema"] == str(SCHEMA).encode()
    rows = [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]
    assert rows == lines
    replayed = walk.replay(market).replayer
    assert len(lines) == replayed.commands + replayed.events
    assert not list(tmp_path.glob("*.part"))
    assert ".jsonl" in hourbook("replay", market, "--export", tmp_path / "log.xml", code=2)


def test_an_export_ends_where_it_is_told_to_within_a_batch_too(
    market: Path, tmp_path: Path
) -> None:
    frames = [frame for frame, _ in walk.batches(market) if frame.opening.count > 2]
    until = frames[-1].opening.first_sequence + 1
    for name in ("log.jsonl", "log.parquet"):
        hourbook("replay", market, "--until", until, "--export", tmp_path / name)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    replayed = walk.replay(market, until=until).replayer
    assert len(lines) == replayed.commands + replayed.events
    commands = [line for line in lines if line["record"] == "command"]
    assert [line["sequence"] for line in commands] == list(range(1, until + 1))
    assert commands[-1]["ingress_ns"] == commands[-1]["time_ns"] - 1_500_000
    hourbook("log", "audit", market, tmp_path / "trail.csv", "--until", until)
    with open(tmp_path / "trail.csv", newline="") as file:
        assert sum(row["direction"] == "IN" for row in csv.DictReader(file)) == until


def test_replay_without_pyarrow_says_what_to_install(market: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None; from exchange.cli.root import main;"
        f" sys.argv = ['hourbook', 'replay', {str(market)!r}, '--export',"
        f" {str(tmp_path / 'log.parquet')!r}]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "hourbook[export]" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_verify_explains_another_rule_and_an_edited_log(tmp_path: Path) -> None:
    market = two_days(2, batches=60).write(tmp_path / "rule", NoPostOnly())
    assert "--verify" in hourbook("replay", market, code=1)
    hourbook("replay", market, "--export", tmp_path / "rows.jsonl", code=1)
    assert not list(tmp_path.glob("rows*")), "rows that the log does not hold are no export"
    said = both("replay", market, "--verify", code=1)
    assert "the first command that differs is #" in said
    assert "recorded: ORDER_ACCEPTED" in said
    assert "this build: ORDER_ACCEPTED" in said  # the same but for its post-only flag
    assert "flags of event 0: recorded " in said
    assert "does not reproduce the log" in said
    edited = shutil.copytree(two_days(batches=60).write(tmp_path / "right"), tmp_path / "edited")
    rechained(edited, 150, 24)
    told = json.loads(both("replay", edited, "--verify", "--json", code=1).splitlines()[0])
    assert told["verified"] is False
    assert told["explanation"]["sequence"] == 150


def test_a_log_without_a_command_is_not_verified(market: Path, tmp_path: Path) -> None:
    """One that was emptied, with all that would say so, agrees with everything."""
    emptied = shutil.copytree(market, tmp_path / "emptied")
    shutil.rmtree(emptied / "log")
    (emptied / "log").mkdir()
    assert "log cut short" in hourbook("replay", emptied, "--verify", code=3)
    (emptied / "head").unlink()
    said = both("replay", emptied, "--verify", "--json", code=1)
    assert json.loads(said.splitlines()[0])["verified"] is False
    assert "there is nothing to verify" in said
    hourbook("replay", emptied)


def test_why_tells_by_id_and_by_client_id(market: Path, tmp_path: Path) -> None:
    told = result("log", "why", market, "--account", 5, "--client-id", CLIENT_ID)
    assert told["state"] != "rejected"
    assert told["steps"][0]["command"].startswith("ENTER by account 5: buy 1 H100Z26 at 2.100")
    assert told == result("log", "why", market, told["order_id"])
    assert "no order 77" in hourbook("log", "why", market, 77, code=1)
    assert "order_id" in hourbook("log", "why", market, 1 << 64, code=2)
    missing = hourbook("log", "why", market, "--account", 4, "--client-id", CLIENT_ID, code=1)
    assert f"no order {CLIENT_ID} of 4" in missing
    assert "--client-id" in hourbook("log", "why", market, "--account", 5, code=2)
    for half in (("--account", 4), ("--client-id", CLIENT_ID)):  # it would not be looked at
        assert "name the order by" in hourbook(
            "log", "why", market, told["order_id"], *half, code=2
        )
    assert "data directory" in hourbook("log", "why", tmp_path / "no", 77, code=3)


def test_why_and_grep_agree(market: Path) -> None:
    found = hourbook("log", "grep", market, "--kind", "TRADE", "--limit", 1, "--json").splitlines()
    trade = json.loads(found[0])
    assert json.loads(found[-1])["counts"]["TRADE"] > 20
    order_id = int(trade["what"].split("resting order ")[1].split(" ")[0])
    told = result("log", "why", market, order_id)
    assert trade["sequence"] in [step["sequence"] for step in told["steps"]]
    assert told["executed"] > 0
    page = hourbook("log", "why", market, order_id)
    assert page.startswith(f"order {order_id} of account {told['account']}")
    narrow = hourbook("log", "grep", market, "--account", told["account"], "--from",
                      trade["sequence"], "--until", trade["time"], "--kind", "trade")  # fmt: skip
    assert f"#{trade['sequence']}." in narrow
    assert "no kind or reason" in hourbook("log", "grep", market, "--reason", "bad", code=2)
    for option in ("--from", "--until"):  # a date, or a sequence of eight digits
        told = hourbook("log", "grep", market, option, 20261122, code=2)
        assert "20261122 may be a date: write 2026-11-22, or '#20261122'" in told
        assert "neither" in hourbook("log", "grep", market, option, "never", code=2)
    for until in ("#20261122", 20261342):
        assert f"#{trade['sequence']}." in hourbook("log", "grep", market, "--until", until)
    assert "found  0" in hourbook("log", "grep", market, "--from", "#20261122")
    assert "and " in hourbook("log", "grep", market, "--limit", 0)


def test_diff_finds_nothing_in_a_copy_and_names_what_differs(market: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(market, tmp_path / "copy")
    assert "the same" in hourbook("log", "diff", market, copy)
    other = two_days(seed=2, batches=60).write(tmp_path / "other")
    said = both("log", "diff", market, other, code=1)
    assert "the first difference is at #" in said
    assert "the logs differ" in said


def test_what_if_says_that_nobody_reacts(market: Path) -> None:
    told = result("log", "what-if", market, "--margin", "*=400", "--without", 3)
    assert told["orders_rejected"] > 0 and told["orders_taken_out"] > 0
    page = hourbook("log", "what-if", market, "--limits", "H100*=1", "--position-limit", "*=20")
    assert "reactions are not simulated" in page
    assert "profit in USD" in page
    assert "change something" in hourbook("log", "what-if", market, code=2)
    assert "CODE=WHOLE" in hourbook("log", "what-if", market, "--margin", "x", code=2)
    for slip in ("--margin", "H1OO*=150"), ("--position-limit", "NOPE=1"), ("--without", 99):
        told = hourbook("log", "what-if", market, "--margin", "*=400", *slip, code=1)
        assert str(slip[1]).partition("=")[0] in told


def test_what_goes_into_a_pipe_comes_out_of_it(market: Path, tmp_path: Path) -> None:
    asked = {"a.csv": ("log", "audit", market), "b.jsonl": ("replay", market, "--export")}
    for name, ask in asked.items():
        hourbook(*ask, file := tmp_path / f"file-{name}")
        os.mkfifo(pipe := tmp_path / name)
        came = tmp_path / f"came-{name}"
        with open(came, "wb") as out, subprocess.Popen(["cat", pipe], stdout=out) as reader:
            try:
                hourbook(*ask, pipe)
                assert pipe.is_fifo() and reader.wait(timeout=10) == 0
            finally:
                reader.kill()
        assert came.read_bytes() == file.read_bytes()


def test_reports_are_written_and_agree(market: Path, tmp_path: Path) -> None:
    told = result("log", "audit", market, tmp_path / "trail.csv")
    assert told["rows"] > 500
    hourbook("log", "bulletin", market, "--date", DAYS[0], "--csv", tmp_path / "day.csv")
    script = [sys.executable, "-I", str(CHECKOUT / "docs/verify_audit.py")]
    files = [str(tmp_path / "trail.csv"), str(tmp_path / "day.csv")]
    done = subprocess.run([*script, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"business date {DAYS[1]}" in hourbook("log", "bulletin", market)
    large = result("log", "large-traders", market, "--lots", 1, "--date", DAYS[0])
    day = result("log", "bulletin", market, "--date", DAYS[0])
    interest = {row["instrument"]: row["open_interest"] for row in day["rows"]}
    for code, lots in interest.items():
        assert sum(row["long"] for row in large["rows"] if row["instrument"] == code) == lots
    hourbook("log", "large-traders", market, "--csv", tmp_path / "large.csv")
    with open(tmp_path / "large.csv", newline="") as file:
        assert next(csv.reader(file))[:2] == ["business_date", "instrument"]
    few = ("large-traders", market, "--date", DAYS[0], "--lots", 1_000_000)
    for empty in (few, ("surveillance", market, "--pattern", "stuffing")):
        heads = tmp_path / "heads.csv"
        hourbook("log", *empty, "--csv", heads)
        assert "instrument,account,member," in heads.read_text()
    assert "it has" in hourbook("log", "bulletin", market, "--date", 20300101, code=1)


def test_results_go_to_their_file_while_a_bar_is_on_the_terminal(market: Path) -> None:
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, "log", "grep", str(market), "--limit", "5"],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
            check=True,
        )
        assert b"searching" in os.read(ours, 65_536)
        assert done.stdout == hourbook("log", "grep", market, "--limit", 5).encode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_progress_shows_on_a_terminal(market: Path) -> None:
    ours, theirs = os.openpty()
    try:
        subprocess.run(
            [*COMMAND, "log", "grep", str(market), "--limit", "0"],
            cwd=CHECKOUT,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
            check=True,
        )
        assert b"searching" in os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)
