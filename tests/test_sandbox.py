"""The sandbox: the same seed gives the same bytes, faults are met and mended, days are replayed.

Budget: 45 seconds.
"""

import asyncio
import contextlib
import http.client
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pyarrow
import pytest
import today
from aiohttp import WSMsgType
from pyarrow import parquet
from served import CHECKOUT, COMMAND
from typer.testing import CliRunner

from clients import errors
from clients.aio import AsyncClient
from clients.book import BookState
from clients.bots import options, recorder
from clients.events import Connected
from clients.keys import Key
from clients.rest import Rest
from clients.sync import Client
from exchange.app.requests import Auction, Halt, Indicate, Resume
from exchange.cli.output import Failure
from exchange.cli.root import app
from exchange.engine import Engine
from exchange.gateway.auth import create_key
from exchange.gateway.faults import KINDS, Order, Rates, Trouble, without_changes
from exchange.journal.replay import replay
from exchange.messages import wire
from exchange.sim import storm
from exchange.sim.recorded import Tape, TapeRefused
from exchange.sim.sandbox import VISITOR, VirtualSandbox
from exchange.sim.trader import encoded_report, is_report

CODE = "H100Z26"
TAKER = "taker H100Z26 H100F27 --orders 6 --seconds 1"
ALL = Rates(drop=15, delay=30, duplicate=60, gap=60, delay_ms=300)


def run(*arguments: str | Path, **environment: str) -> str:
    """Run ``hourbook sandbox`` in a process of its own; its stdout."""
    done = subprocess.run(
        [*COMMAND, "sandbox", *map(str, arguments)], cwd=CHECKOUT, capture_output=True, text=True,
        check=False, timeout=60, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def virtual_run(*arguments: str | Path, **environment: str) -> Any:
    return json.loads(run("--clock", "virtual", "--json", *arguments, **environment))


def refused(*arguments: str | Path) -> tuple[str, int]:
    """What the command says when it fails, and its exit code."""
    done = CliRunner().invoke(app, ["sandbox", *map(str, arguments)])
    if isinstance(done.exception, Failure):
        return str(done.exception), int(done.exception.code)
    return done.output, done.exit_code


async def until(condition: Callable[[], bool]) -> None:
    """Wait, in virtual time, until a callable is true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.1)


def test_the_same_seed_gives_the_same_log_in_another_process(tmp_path: Path) -> None:
    same = ("--bot", TAKER, "--faults", "drop=10,duplicate=50,gap=50")
    first = virtual_run(*same, "--data", tmp_path / "a", PYTHONHASHSEED="1", TZ="UTC")
    again = virtual_run(*same, "--data", tmp_path / "b", PYTHONHASHSEED="2", TZ="Asia/Kolkata")
    assert first == again
    logs = [sorted((tmp_path / name / "log").iterdir()) for name in "ab"]
    assert [p.read_bytes() for p in logs[0]] == [p.read_bytes() for p in logs[1]]
    said, code = refused("--data", tmp_path / "a")
    assert code == 2 and "there is a market" in said


def test_what_it_leaves_is_a_market_that_replays(tmp_path: Path) -> None:
    report = VirtualSandbox(tmp_path / "1", seed=1).run(options.load(TAKER))
    replayed = replay(tmp_path / "1", Engine)
    assert replayed.state_hash.hex() == report.state_hash
    other = VirtualSandbox(tmp_path / "2", seed=2).run(options.load(TAKER))
    assert other.log_hash != report.log_hash


@pytest.mark.parametrize("seed", range(2))
def test_under_every_fault_nothing_is_lost_or_doubled(tmp_path: Path, seed: int) -> None:
    """A bot trades while frames are lost, doubled and late; what it was told is then held against
    what one gets who asks for all of it, over a connection without faults."""
    box = VirtualSandbox(tmp_path, seed=seed, rates=ALL)
    told: list[bytes] = []
    truth: list[bytes] = []

    async def gather(client: AsyncClient, into: list[bytes]) -> None:
        async for event in client.events():
            if is_report(event):
                into.append(encoded_report(event))

    async def bot(client: AsyncClient, stop: asyncio.Event) -> None:
        before = client.position
        assert before is not None
        gathering = asyncio.create_task(gather(client, told))
        await asyncio.sleep(0)
        quote = options.load("maker H100Z26 H100F27 --half-spread 0")
        taking = options.load("taker H100Z26 H100F27 --seconds 0.5")
        await asyncio.gather(quote(client, stop), taking(client, stop))
        with contextlib.suppress(errors.NotConnected, errors.OutcomeUnknown):
            await client.refresh()
        market = box.market
        assert market is not None
        key = Key.hmac(*create_key(box.directory, VISITOR, "read"))
        newcomer = AsyncClient("ws://sandbox", key, after=before, clock_ns=box.clock_ns,
                               connect=partial(box.dial, "newcomer"))  # fmt: skip
        late = asyncio.create_task(gather(newcomer, truth))
        await asyncio.sleep(0)
        async with newcomer:
            await until(lambda: client.positions == newcomer.positions)
            await until(lambda: client.orders == newcomer.orders == {})
            await until(lambda: client.position == newcomer.position)
        await late
        await until(lambda: client.book(CODE).state is BookState.LIVE)
        gathering.cancel()

    report = box.run(bot, 30)
    assert told == truth and len(told) > 40
    assert all(report.faults[kind] for kind in KINDS)


def test_a_frame_without_its_changes() -> None:
    messages: list[wire.AnyResponse] = [
        wire.Heartbeat(epoch=1, sequence=9, time=0),
        wire.DepthDelta(
            instrument=CODE, sequence=9, previous_sequence=7, time=0, checksum=1, bids=[], asks=[]
        ),
        wire.DepthDelta(
            instrument=CODE, sequence=9, previous_sequence=9, time=0, checksum=1, bids=[], asks=[]
        ),
    ]
    for coding, kind in ((msgspec.json, WSMsgType.TEXT), (msgspec.msgpack, WSMsgType.BINARY)):
        kept = without_changes(coding.encode(messages), kind)
        assert coding.decode(kept, type=list[wire.AnyResponse]) == [messages[0], messages[2]]
        assert without_changes(coding.encode(messages[:1]), kind) == coding.encode(messages[:1])
        assert without_changes(coding.encode(messages[1:2]), kind) == b""


@pytest.fixture
def visit() -> Iterator[dict[str, Any]]:
    """A served sandbox: what it says when it is ready."""
    command = [*COMMAND, "sandbox", "--port", "0"]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=30)
    assert json.loads(said)["stopped"]


def demand(url: str, kind: str) -> Any:
    """Demand a fault as the command line does; what the relay answers."""
    done = CliRunner().invoke(app, ["sandbox", "--fault", kind, "--url", url, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def upgrade_from(origin: str, url: str) -> int:
    """The status that a browser's WebSocket gets."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": origin}  # fmt: skip
    connection.request("GET", "/ws", headers=headers)
    with contextlib.closing(connection):
        return connection.getresponse().status


def test_a_served_sandbox_gives_faults_on_demand(visit: dict[str, Any]) -> None:
    key, url, code = Key.from_file(visit["key_file"]), visit["http"], today.code()
    with Client(visit["ws"], key) as client, client.events() as events:
        client.subscribe(f"depth.{code}")
        depth = client.depth(code)
        assert depth is not None and all(depth), "it is ready once there is a bid and an ask"
        for kind in KINDS:
            demand(url, kind)
        seen: set[type] = set()
        book = client.asynchronous.book(code)
        while not (book.repairs and book.is_live and Connected in seen):
            event = events.next_within(10)
            assert event is not None, "the makers go on"
            seen.add(type(event))
        assert client.depth(code) is not None
        assert client.statement().deposits == "5000000.000000"  # HTTP goes through it, signed
    with Rest(url) as public:
        assert public.contracts()
    assert upgrade_from("https://elsewhere.example", url) == 403  # as the market itself answers
    assert demand(url, "gap")["met"] == {"drop": 1, "delay": 1, "duplicate": 1, "gap": 1}


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["--clock", "virtual"], "runs a --bot", 2),
        (["--bot", "maker"], "runs a --bot", 2),
        (["--clock", "virtual", "--bot", "nobody"], "no bot is called nobody", 2),
        (["--clock", "virtual", "--bot", "../x"], "no bot is called ../x", 2),
        (["--clock", "virtual", "--bot", "none.py"], "no such file", 2),
        (["--clock", "virtual", "--bot", "json"], "has no bot", 2),
        (["--clock", "virtual", "--bot", "maker --what"], "unrecognized", 2),
        (["--clock", "virtual", "--bot", "maker 'H100Z26"], "No closing quotation", 2),
        (["--clock", "virtual", "--bot", "maker --lots 0"], "no whole number from 1", 2),
        (["--clock", "virtual", "--bot", "hedger --months -1"], "no whole number from 1", 2),
        (["--clock", "virtual", "--bot", "hedger --worst-price nan"], "no number", 2),
        (["--clock", "virtual", "--bot", f"taker {CODE} --seconds 0"], "'0' is not above zero", 2),
        (["--port", "70000"], "65535", 2),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1, port 8000 (--host, --port)", 3),
        (["--host", "a..b"], "cannot listen on a..b, port 8000 (--host, --port)", 3),
        (["--tape", "day.parquet"], "with --clock virtual", 2),
        (["--faults", "rain=5"], "rain", 2),
        (["--faults", "gap=5000"], "1000", 2),
        (["--fault", "gap", "--url", "http://127.0.0.1:9"], "no sandbox answers", 3),
        (["--fault", "gap", "--url", "http://127.0.0.1:x"], "no sandbox answers", 3),
        (["--clock", "virtual", "--bot", "spreads GOLD"], "GOLD is no listed spread", 1),
        (["--clock", "virtual", "--bot", "maker", "--tape", "none"], "no recorded tape", 2),
        (["--clock", "virtual", "--bot", "maker", "--product", "GOLD"], "GOLD has no months", 1),
    ],
)
def test_a_command_that_makes_no_sense_says_why(arguments: list[str], said: str, code: int) -> None:
    told, ended = refused(*arguments)
    assert said in told and ended == code


def test_a_directory_that_holds_anything_stays_as_it_is(tmp_path: Path) -> None:
    """A key file there may be the only copy of a real market's secret."""
    key = tmp_path / "box" / "key.json"
    key.parent.mkdir()
    key.write_text("the key of another market")
    for how in (("--port", "0", "--seconds", "1"), ("--clock", "virtual", "--bot", TAKER)):
        said, code = refused("--data", key.parent, *how)
        assert "holds key.json; a sandbox begins with an empty directory" in said and code == 2
        said, code = refused("--data", key, *how)
        assert "is no directory" in said and code == 2
    assert [path.read_text() for path in key.parent.iterdir()] == ["the key of another market"]


def test_a_product_named_twice_is_quoted_once(tmp_path: Path) -> None:
    short = ("--seconds", "2", "--bot", "taker H100Z26 --orders 1")
    once, twice = (virtual_run(*short, *["--product", "H100"] * times) for times in (1, 2))
    assert once == twice


async def test_only_demanded_delays_have_the_demands_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def send(frame: bytes, kind: WSMsgType) -> None:
        """Take it."""

    monkeypatch.setattr(asyncio, "sleep", sleep)
    trouble = Trouble(Random(1), Rates(delay=1000, delay_ms=3_000))
    for order in (
        Order(fault="delay", count=2, delay_ms=50),
        Order(fault="gap", delay_ms=70),
        Order(fault="delay"),
        Order(fault="delay", delay_ms=0),
    ):
        trouble.order(order)
    for _ in range(6):
        await trouble.carry(b"[]", WSMsgType.TEXT, send, lambda: None)
    assert slept == [0.05, 0.05, 3, 0, 3, 3]
    trouble.order(Order(fault="delay", count=10_000, delay_ms=1))
    trouble.order(Order(fault="delay", count=10_000, delay_ms=2))
    assert trouble.told.waiting["delay"] == 10_000
    trouble.end()
    await trouble.carry(b"[]", WSMsgType.TEXT, send, lambda: None)
    assert len(slept) == 6


def test_a_bot_that_does_not_stop_is_named(tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(
        "import asyncio\nasync def bot(client, chosen, stop):\n    await asyncio.sleep(3600)\n"
    )
    (tmp_path / "closes.py").write_text(
        "async def bot(client, chosen, stop):\n    await client.close()\n"
    )
    (tmp_path / "late.py").write_text(
        "async def bot(client, chosen, stop):\n    raise TimeoutError\n"
    )
    (tmp_path / "spins.py").write_text(
        "import asyncio\nasync def bot(client, chosen, stop):\n"
        "    while not stop.is_set():\n        await asyncio.sleep(0)\n"
    )
    for name, why in (
        ("deaf", "after it was asked to stop"),
        ("closes", "NotConnected: the bot's client had no connection"),
        ("late", "the run ended with TimeoutError"),
        ("spins", "Stuck: time stands still at 1."),
    ):
        run = ("--clock", "virtual", "--seconds", "1", "--bot", tmp_path / f"{name}.py")
        said, code = refused(*run)
        assert code == 1 and why in said


def test_a_run_that_is_terminated_leaves_nothing_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as short:  # as memory's is, for sockets
        memory = Path(short)
        monkeypatch.setattr(storm, "memory_folder", lambda: memory)
        terminate(tmp_path, memory)


def terminate(tmp_path: Path, memory: Path) -> None:
    (tmp_path / "kills.py").write_text(
        "import os, pathlib, signal\nasync def bot(client, chosen, stop):\n"
        f"    assert list(pathlib.Path({str(memory)!r}).iterdir())\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    said, code = refused("--clock", "virtual", "--bot", tmp_path / "kills.py")
    assert code == 130 and not said.strip()
    assert not list(memory.iterdir())


def test_a_run_has_an_end_in_time_and_not_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of a few products takes more steps than any storm."""
    monkeypatch.setattr("exchange.sim.loop.STEPS_MAX", 1_000)
    monkeypatch.setattr("exchange.sim.loop.STILL_STEPS_MAX", 5_000)
    box = VirtualSandbox(tmp_path)
    box.run(options.load(f"taker {CODE}"), 20)
    assert box.loop.steps > 5_000


def test_there_is_no_http_in_virtual_time(tmp_path: Path) -> None:
    async def bot(client: AsyncClient, stop: asyncio.Event) -> None:
        with pytest.raises(errors.ConnectionLost):
            await client.statement()

    VirtualSandbox(tmp_path).run(bot, 10)


# --- recorded days ---

RECORDED = (CODE, "H100F27", "H100Z26-H100F27", "H100PZ26")


def recorded(folder: Path, *, seconds: int = 12) -> Path:
    """A short day of the seeded makers, recorded."""
    path = folder / "day.parquet"
    record = options.load(f"recorder {' '.join(RECORDED)} --file {path}")
    VirtualSandbox(folder / "recorded", seed=5).run(record, seconds)
    return path


def trades(path: Path) -> list[tuple[str, str, str, str | None]]:
    found = [row.message for row in recorder.read(path)]
    return [(m.instrument, m.price, m.quantity, m.aggressor)
            for m in found if isinstance(m, wire.PublicTrade)]  # fmt: skip


Levels = dict[tuple[str, str, str], str]


def books(path: Path, moments: list[int]) -> list[Levels]:
    """Every level of a recording at each moment, those that are empty left out."""
    levels: Levels = {}
    found: list[Levels] = []
    for row in recorder.read(path):
        while len(found) < len(moments) and row.received_ns > moments[len(found)]:
            found.append(dict(levels))
        message = row.message
        if isinstance(message, wire.DepthSnapshot):
            levels = {k: v for k, v in levels.items() if k[0] != message.instrument}
        if isinstance(message, wire.DepthSnapshot | wire.DepthDelta):
            for side, changed in (("buy", message.bids), ("sell", message.asks)):
                for price, quantity in changed:
                    levels[message.instrument, side, price] = quantity
        levels = {place: quantity for place, quantity in levels.items() if quantity != "0"}
    return found + [dict(levels)] * (len(moments) - len(found))


def quiet_moments(path: Path) -> list[int]:
    """Moments of a recording at which nothing had changed for a tenth of a second."""
    times = [row.received_ns for row in recorder.read(path)]
    return [here + 100_000_000 for here, there in pairwise(times) if there - here > 150_000_000][1:]


def test_a_tape_replayed_and_recorded_again_has_the_same_trades_and_books(tmp_path: Path) -> None:
    first, second = recorded(tmp_path), tmp_path / "again.parquet"
    record = options.load(f"recorder {' '.join(RECORDED)} --file {second}")
    VirtualSandbox(tmp_path / "replayed", seed=6, tape=Tape.load(first)).run(record)
    assert trades(second) == trades(first) != []
    moments = quiet_moments(first)
    assert len(moments) > 5
    assert books(second, moments) == books(first, moments)


def test_a_bot_meets_the_recorded_day_as_if_it_had_been_there(tmp_path: Path) -> None:
    tape = Tape.load(recorded(tmp_path))
    report = VirtualSandbox(tmp_path / "a", tape=tape).run(options.load(TAKER))
    again = VirtualSandbox(tmp_path / "b", tape=tape).run(options.load(TAKER))
    assert report == again and report.positions
    other = VirtualSandbox(tmp_path / "c", tape=tape).run(options.load(f"{TAKER} --seed 4"))
    assert other.log_hash != report.log_hash


def test_a_halt_on_the_tape_is_a_halt(tmp_path: Path) -> None:
    path = tmp_path / "day.parquet"
    box = VirtualSandbox(tmp_path / "recorded")

    async def record(client: AsyncClient, stop: asyncio.Event) -> None:
        with pytest.raises(errors.ValueRefused, match=f"'H100Z27'; there is .*{CODE}"):
            await recorder.run(client, ["H100Z27"], path, stop=stop)
        recording = asyncio.create_task(recorder.run(client, [CODE], path, stop=stop))
        market = box.market
        assert market is not None
        for request in (Halt(code=CODE), Resume(code=CODE)):
            await asyncio.sleep(5)
            await market.operations.perform(request)
        await recording

    box.run(record, 15)
    seen: list[str] = []

    async def watch(client: AsyncClient, stop: asyncio.Event) -> None:
        events = client.events()
        await client.subscribe(f"state.{CODE}")
        await stop.wait()
        while events._events:
            event = await anext(events)
            if isinstance(event, wire.InstrumentState) and [event.state] != seen[-1:]:
                seen.append(event.state)

    VirtualSandbox(tmp_path / "replayed", tape=Tape.load(path)).run(watch)
    assert seen == ["CONTINUOUS", "HALTED", "CONTINUOUS"]


def test_an_auction_is_on_the_tape(tmp_path: Path) -> None:
    path = tmp_path / "day.parquet"
    box = VirtualSandbox(tmp_path / "recorded")

    async def record(client: AsyncClient, stop: asyncio.Event) -> None:
        recording = asyncio.create_task(recorder.run(client, [CODE], path, stop=stop))
        market = box.market
        assert market is not None
        for request in (Auction(code=CODE), Indicate(code=CODE), Resume(code=CODE)):
            await asyncio.sleep(2)
            await market.operations.perform(request)
        await recording

    box.run(record, 10)
    rows = [row.message for row in recorder.read(path)]
    told = [type(message) for message in rows]
    assert (told.count(wire.IndicativePrice), told.count(wire.AuctionResult)) == (1, 1)
    states = [message.state for message in rows if isinstance(message, wire.InstrumentState)]
    assert states[-2:] == ["AUCTION", "CONTINUOUS"]
    replayed = VirtualSandbox(tmp_path / "replayed", tape=Tape.load(path))
    assert replayed.run(options.load(TAKER)).commands


def test_a_tape_that_the_market_refuses_says_what(tmp_path: Path) -> None:
    path = recorded(tmp_path, seconds=3)
    tape = Tape.load(path)
    level = wire.DepthDelta(
        instrument=CODE, sequence=1 << 40, previous_sequence=0, time=0, checksum=0,
        bids=[("0.001", "5")], asks=[],
    )  # fmt: skip
    rows = [*recorder.read(path), recorder.Recorded(tape.last_ns, level)]
    spoilt = Tape(lambda: iter(rows), tape.first_ns, tape.last_ns)
    with pytest.raises(TapeRefused, match="PRICE_LIMIT"):
        VirtualSandbox(tmp_path / "replayed", tape=spoilt).run(options.load("maker H100Z26"))
    stray = msgspec.structs.replace(level, instrument="A100Z26")
    rows[-1] = recorder.Recorded(tape.last_ns, stray)
    with pytest.raises(errors.ValueRefused, match="messages of A100Z26, and no state"):
        VirtualSandbox(tmp_path / "stray", tape=spoilt).run(options.load("maker H100Z26"))


def test_what_is_no_tape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no parquet")
    with recorder.writing(tmp_path / "empty"):
        pass
    for name in ("text", "empty", "none"):
        with pytest.raises(errors.ValueRefused, match=name):
            Tape.load(tmp_path / name)
    for name, received, text, why in (
        ("later", 1, '{"type":"of a later version"}', "later, row 2: no message"),
        ("cut", 1, '{"type":', "cut, row 2: no message"),
        ("timeless", None, None, "timeless is no recorded tape: a row has no received_ns"),
    ):
        with recorder.writing(tmp_path / name) as write:
            write([(1, *[None] * 7), (received, *[None] * 6, text)])
        with pytest.raises(errors.ValueRefused, match=why):
            Tape.load(tmp_path / name)
    for name, columns in (("narrow", ["message"]), ("wordy", ["received_ns", "message"])):
        table = pyarrow.table({column: ["1"] for column in columns})
        known = {recorder.SCHEMA_NAME: str(recorder.SCHEMA)}
        parquet.write_table(table.replace_schema_metadata(known), tmp_path / name)
        with pytest.raises(errors.ValueRefused, match="received_ns is int64, not"):
            Tape.load(tmp_path / name)
    with pytest.raises(ZeroDivisionError), recorder.writing(tmp_path / "broken"):
        raise ZeroDivisionError
    assert not (tmp_path / "broken").exists() and not list(tmp_path.glob("*.part"))


def test_a_tape_that_cannot_be_written_is_named_before_anything_is_recorded(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # as a device: no file is put in its place
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path, said in (
        (tmp_path, "is a directory"), (tmp_path / "no" / "x", "No such file"), (pipe, "lseek")
    ):  # fmt: skip
        with pytest.raises(errors.ValueRefused, match=said), recorder.writing(path):
            raise AssertionError("nothing may be recorded")
    os.close(reader)
    assert pipe.is_fifo() and not list(tmp_path.parent.rglob("*.part"))
