"""Faults by number: of the log, the disk, the order of things, and recovery from them.

``faults.FAULTS`` says for every number where its test is. Budget: 10 seconds.
"""

import asyncio
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import aiohttp
import pytest
import recorded
from faults import FAULTS
from live import CODE, Live, until
from recorded import (
    BUSY,
    EXCHANGE_ID,
    FIRST_SEGMENT,
    LOGON,
    NOON,
    SECOND,
    SIZES,
    Clock,
    Syncing,
    append,
    crashed_copy,
    deposit,
    deposits,
    events_of,
    frame_bounds,
    journal_at,
    log_in_memory,
    open_sequencer,
    read_log,
    record,
    record_of,
    running,
    say,
)
from served import COMMAND
from test_sequencer import Gate
from typer.testing import CliRunner

from exchange.app import alarms, capacity
from exchange.cli.root import app
from exchange.engine import Engine
from exchange.journal.errors import (
    BrokenChain,
    DamagedLog,
    DirectoryLocked,
    JournalStopped,
    SyncFailed,
    WriteFailed,
)
from exchange.journal.frame import digest
from exchange.journal.reader import LogReader
from exchange.journal.replay import Replayer
from exchange.journal.storage import LocalFile, LocalStorage
from exchange.journal.tape import START
from exchange.messages import CommandKind, Limit, wire
from exchange.sequencer import Closed, replay

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent


def test_every_fault_has_its_test_or_its_reason() -> None:
    assert list(FAULTS) == [f"F{number:02}" for number in range(1, 54)]
    for fault, entry in FAULTS.items():
        for place in (entry,) if isinstance(entry, str) else entry:
            if place.startswith("not: "):
                assert len(place) > 20, fault
                continue
            file, _, name = place.partition("::")
            source = (TESTS / f"{file}.py").read_text()
            assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), (fault, place)


def test_the_faults_are_those_of_the_vectors(shared: Path) -> None:
    cases = json.loads((shared / "vectors/faults.json").read_text())["cases"]
    assert [case["id"] for case in cases] == list(FAULTS)


def test_a_test_with_a_number_is_in_the_table() -> None:
    named = re.findall(r"^(?:async )?def (test_(f\d\d)_\w+)", Path(__file__).read_text(), re.M)
    for name, fault in named:
        entry = FAULTS[fault.upper()]
        assert f"test_faults::{name}" in ((entry,) if isinstance(entry, str) else entry)


market, log = recorded.market, recorded.log  # fixtures


def test_f01_a_log_cut_at_every_byte_replays_to_its_last_whole_frame(tmp_path: Path) -> None:
    record(tmp_path, BUSY)
    data = (tmp_path / FIRST_SEGMENT).read_bytes()
    bounds = frame_bounds(tmp_path)
    hashes, sequence, engine = [digest(Engine().state_bytes())], 1, Engine()
    for chunk in LogReader(tmp_path).chunks():
        for frame in chunk:
            engine.apply(frame.commands, sequence, frame.opening.stamp)
            hashes.append(digest(engine.state_bytes()))
            sequence = frame.last_sequence + 1
    frames = [frame for chunk in LogReader(tmp_path).chunks() for frame in chunk]
    near = {end + step for _, end in bounds for step in (-1, 0, 1)}
    for size in range(len(data) + 1):
        whole = sum(1 for _, end in bounds if end <= size)
        reader = LogReader(log_in_memory(data[:size]))
        if size in near:  # an engine for every byte would be the same engine a thousand times
            replayer = Replayer(Engine(), reader)
            replayer.run()
            assert (replayer.frames, replayer.state_hash()) == (whole, hashes[whole])
        else:
            assert [frame for chunk in reader.chunks() for frame in chunk] == frames[:whole]
        reader.finish()


@pytest.mark.parametrize("seed", range(8))
def test_f03_random_bytes_in_the_last_sector(
    log: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Above the durable mark the last frame goes, with a reason in the log; below, no start."""
    path, (start, end) = log / FIRST_SEGMENT, frame_bounds(log)[-1]
    data, draw = bytearray(path.read_bytes()), Random(seed)
    sector = max(start, len(data) - 512)
    data[sector:] = draw.randbytes(len(data) - sector)
    path.write_bytes(data)
    asyncio.run(open_sequencer(log).close())
    assert re.search(rf"dropped a torn tail: {end - start} bytes of .* \(\w", caplog.text)
    assert read_log(log).last_sequence == sum(SIZES[:-1]) + 1  # and RECOVERED
    path.write_bytes(data)  # again, with the head of the close that followed
    shutil.rmtree(log / "tape")
    with pytest.raises(DamagedLog, match="durable up to"):
        open_sequencer(log)


def test_f04_a_flipped_bit_early_in_the_log(market: Path, log: Path) -> None:
    """A start and every tool that verifies name the place and both values; nothing is skipped."""
    path, (start, _) = log / FIRST_SEGMENT, frame_bounds(log)[1]
    data = bytearray(path.read_bytes())
    data[start + 230] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedLog) as caught:
        open_sequencer(log)
    error = caught.value
    assert (error.path, error.offset, error.sequence) == (path, start, 2)
    assert error.expected != error.found and error.expected in str(error)
    for arguments in (["replay", str(log), "--verify"], ["log", "grep", str(log)]):
        answer = CliRunner().invoke(app, arguments)
        assert isinstance(answer.exception, DamagedLog)
        assert answer.exception.offset == start
    assert path.read_bytes() == data


@pytest.mark.parametrize("order", [(0, 2, 3, 4, 5), (0, 1, 1, 2, 3, 4, 5), (0, 2, 1, 3, 4, 5)])
def test_f05_a_frame_removed_doubled_or_swapped(log: Path, order: tuple[int, ...]) -> None:
    path, bounds = log / FIRST_SEGMENT, frame_bounds(log)
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole[slice(*bounds[at])] for at in order))
    with pytest.raises(BrokenChain, match="first sequence: expected"):
        open_sequencer(log)


@pytest.mark.parametrize("zeros", [1, 511, 4_096, 1 << 20])
def test_f06_a_tail_of_zeros_is_the_end(log: Path, zeros: int) -> None:
    with (log / FIRST_SEGMENT).open("ab") as file:
        file.write(bytes(zeros))
    record(log, [deposits(2, 900)])
    report = replay(log, Engine)
    assert (report.last_sequence, report.tail_dropped) == (sum(SIZES) + 3, None)


class OneBadSync:
    """A disk that fails one sync and then works, as disks do."""

    def __init__(self) -> None:
        self.fail = False
        self.after = 0

    def __call__(self, handle: int) -> None:
        if self.fail:
            self.fail = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(handle)
        self.after += 1


async def test_f07_a_sync_that_fails_once_is_the_end_of_the_process(tmp_path: Path) -> None:
    """No acknowledgement for what was not synced, though a second sync would have succeeded."""
    disk = OneBadSync()
    sequencer = open_sequencer(tmp_path, sync=disk)
    run = asyncio.create_task(sequencer.run())
    await say(sequencer, deposits(2))
    told = sequencer.tape.last
    disk.fail, disk.after = True, 0
    for command in deposits(2, 50):
        sequencer.submit(1, command)
    with pytest.raises(SyncFailed, match="mend the disk"):
        await run
    with pytest.raises(Closed):
        sequencer.submit(1, deposit(99))
    with pytest.raises(JournalStopped, match="stopped before"):
        sequencer._journal.sync()
    await sequencer.close()
    assert (sequencer.tape.last, disk.after) == (told, 0)
    assert not (tmp_path / "head").exists()


SERVE = """
import os, sys
from pathlib import Path
from exchange.cli.root import main
from exchange.journal.storage import LocalFile
sync, bad = LocalFile.sync, Path(sys.argv[3]) / "bad"
def once(file):
    if bad.exists():
        bad.unlink()
        raise OSError(5, os.strerror(5))
    sync(file)
LocalFile.sync, LocalFile.handle = once, -1
sys.argv[:] = ["hourbook", *sys.argv[1:]]
main()
"""


def test_f07_the_process_ends_by_itself_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """Served as operators do: exit code 3, the reason on stderr, no answer before a sync."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    serve = [sys.executable, "-c", SERVE, "serve", "--data", str(tmp_path), "--port", "0"]
    deposit_command = [*COMMAND, "admin", "deposit", "1", "1000", "--data", str(tmp_path)]
    with subprocess.Popen(
        serve, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stdout.readline().startswith("{")
        (tmp_path / "bad").touch()
        asked = subprocess.run(
            deposit_command, cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        _, said = server.communicate(timeout=60)
    assert (server.returncode, asked.returncode != 0) == (3, True)
    assert "SyncFailed" in said or "mend the disk, then start again" in said
    assert not (tmp_path / "bad").exists()
    again = subprocess.run(deposit_command, cwd=CHECKOUT, capture_output=True, check=False)
    assert again.returncode == 0
    assert replay(tmp_path, Engine).divergence is None


class FillsUp(LocalStorage):
    """A file system that gives no room ahead, and is full in the middle of a write."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.left = 1 << 30

    def open(self, name: str, *, write: bool = False) -> LocalFile:
        file = super().open(name, write=write)

        def pwrite(data: memoryview, at: int) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            size = os.pwrite(file._handle, data[: self.left], at)
            self.left -= size
            return size

        file._pwrite = pwrite  # type: ignore[method-assign]
        return file


async def test_f08_a_disk_that_fills_in_the_middle_of_a_frame(tmp_path: Path) -> None:
    """What was written of the frame is cut off; its commands wait, and are told when it is."""
    storage = FillsUp(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exchange.sequencer.LOOK_SECONDS", 0.01)
        async with running(tmp_path, storage=storage) as sequencer:
            await say(sequencer, deposits(2))
            storage.left = 150
            for command in deposits(3, 50):
                sequencer.submit(1, command)
            await until(lambda: sequencer.full)
            assert storage.left == 0 and sequencer.durable_upto == 2
            found = read_log(tmp_path)
            assert (found.last_sequence, found.tail_dropped) == (2, None)
            storage.left = 1 << 30
            await until(lambda: sequencer.durable_upto == 5)
            await say(sequencer, deposits(1, 90))
    assert replay(tmp_path, Engine).last_sequence == 6


async def test_f08_a_stop_while_the_disk_is_full_leaves_what_was_not_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = FillsUp(tmp_path)
    async with running(tmp_path, storage=storage) as sequencer:
        await say(sequencer, deposits(2))
        storage.left = 150
        for command in deposits(3, 50):
            sequencer.submit(1, command)
        await until(lambda: sequencer.full)
        storage.left = 0
        await sequencer.close()
        storage.left = 1 << 30
    assert "3 commands were not taken, and not answered" in caplog.text
    assert read_log(tmp_path).last_sequence == 2


class Stutters(LocalStorage):
    """Every write is of five bytes at most."""

    def open(self, name: str, *, write: bool = False) -> LocalFile:
        file = super().open(name, write=write)

        def pwrite(data: memoryview, at: int) -> int:
            return os.pwrite(file._handle, data[:5], at)

        file._pwrite = pwrite  # type: ignore[method-assign]
        return file


def test_f09_short_writes_and_interrupted_calls_are_completed(log: Path, tmp_path: Path) -> None:
    """Signals under way: Python repeats the call. Short: we do. Failed: nothing of it stays."""
    twin = crashed_copy(log, tmp_path / "twin")
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for storage in (LocalStorage(log), Stutters(twin)):
            journal = journal_at(storage, read_log(storage))
            for number in range(50):
                append(journal, deposits(7, 1_000 + 10 * number))
                journal.sync()
            journal.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert (log / FIRST_SEGMENT).read_bytes() == (twin / FIRST_SEGMENT).read_bytes()
    assert read_log(log).last_sequence == sum(SIZES) + 350


async def test_f10_a_sync_that_stalls_holds_up_acknowledgements_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Orders wait, bounded; heartbeats, public data and HTTP go on; an alarm says what it is."""
    for place in (alarms, sys.modules["exchange.app.market"]):
        monkeypatch.setattr(place, "STALL_SECONDS_MAX", 0.2)
    gate = Gate()
    gate.let()
    storage = Syncing(tmp_path / "market", lambda handle: gate(handle))
    async with Live.open(tmp_path / "market", storage=storage) as live:
        client = await live.client(1)
        await client.subscribe(f"state.{CODE}")
        low = client.scale(CODE).read(client.states[CODE].low_limit)
        assert isinstance(await client.enter(CODE, "buy", 1, low), wire.Accepted)
        gate = Gate()
        waiting = asyncio.create_task(client.enter(CODE, "buy", 1, low))
        await until(lambda: gate.waiting == 1)
        watch = live.market
        watch.alarms.look()
        async with aiohttp.ClientSession() as http:
            await asyncio.sleep(0.3)
            async with http.get(live.addresses.http.replace("/api/v1", "/ready")) as answer:
                told = await answer.json()
                assert answer.status == 503 and not told["checks"]["disk_answers"]
            async with http.get(live.addresses.http + "/health") as answer:
                assert answer.status == 200
        assert isinstance(await client.query_account(), wire.AccountReport)
        assert not waiting.done()
        assert "sync" in watch.alarms.look()
        assert "no order is acknowledged" in caplog.text
        gate.let()
        assert isinstance(await waiting, wire.Accepted)
        assert watch.alarms.look() == {}


def test_f11_a_directory_that_turns_read_only_as_the_log_rolls(log: Path) -> None:
    """The roll is refused by name before anything of the next frame is anywhere."""
    storage = LocalStorage(log)
    journal = journal_at(storage, read_log(storage))
    journal._roll_at = 0

    def refuse(name: str, *, write: bool = False) -> LocalFile:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)

    storage.open = refuse  # type: ignore[method-assign]
    with pytest.raises(WriteFailed, match="Read-only"):
        append(journal, deposits(3, 900))
    with pytest.raises(JournalStopped):
        journal.sync()
    journal.abandon()
    assert read_log(log).last_sequence == sum(SIZES)


def test_f15_a_second_writer_fails_on_the_lock(market: Path) -> None:
    lock = LocalStorage(market).lock()
    try:
        with pytest.raises(DirectoryLocked, match=f"process {os.getpid()}.*stop it first"):
            open_sequencer(market)
    finally:
        lock.close()


REPLAY = """
import sys; from pathlib import Path
from exchange.engine import Engine
from exchange.journal.frame import digest
from exchange.journal.reader import LogReader
from exchange.journal.replay import Replayer
said = []
replayer = Replayer(Engine(), LogReader(Path(sys.argv[1])))
replayer.run(on_batch=lambda frame, events: said.append(events))
print(digest(b"".join(said)).hex(), replayer.state_hash().hex(), flush=True)
"""


def test_f17_hash_seed_time_zone_and_locale_change_nothing() -> None:
    golden = CHECKOUT / "tests/golden/schema1-rules1-random"
    expected = json.loads((golden / "expected.json").read_text())
    for settings in (
        {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "4242", "TZ": "America/New_York", "LC_ALL": "C.UTF-8"},
    ):
        done = subprocess.run(
            [sys.executable, "-c", REPLAY, str(golden)],
            env={**os.environ, **settings, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.split() == [expected["events_hash"], expected["state_hash"]]


async def test_f18_a_clock_that_jumps_moves_no_order(tmp_path: Path) -> None:
    """Back a day, a second repeated, standing still, an hour ahead: only logged time counts."""
    clock = Clock()
    jumps = (0, -86_400, 0, 1, 1, 1, 0, 3_600, -3_600, 0, 3_601)
    async with running(tmp_path, clock=clock) as sequencer:
        await say(sequencer, [LOGON])
        await say(
            sequencer, [record_of(CommandKind.LOGOFF, session=1 << 16 | 1)]
        )  # a second's grace
        clock.now = NOON - 86_400 * SECOND
        await say(sequencer, deposits(1, 5))
        said = [e["kind"] for r in sequencer.tape.read(*START) for e in events_of(r)]
        assert len(said) == 3, "the grace time has not passed in the log"
        for number, seconds in enumerate(jumps):
            clock.now = NOON + seconds * SECOND
            await say(sequencer, deposits(1, 10 + number))
        records = list(sequencer.tape.read(*START))
    stamps = [released.stamp for released in records]
    assert stamps == sorted(stamps) and stamps[-1] == NOON + 3_601 * SECOND
    sequences = [event["sequence"] for released in records for event in events_of(released)]
    assert sequences == sorted(sequences) and set(sequences) == set(range(1, sequences[-1] + 1))
    assert replay(tmp_path, Engine).divergence is None


def test_f20_a_replay_stopped_anywhere_has_the_live_hash(tmp_path: Path) -> None:
    live, engine, sequence = [], Engine(), 0
    for batch in BUSY:
        for command in batch:
            sequence += 1
            engine.apply(command, sequence, NOON)
            live.append(digest(engine.state_bytes()))
    record(tmp_path, BUSY, clock=Clock())
    for at, expected in enumerate(live, 1):
        assert replay(tmp_path, Engine, at).state_hash == expected


def test_f47_a_copy_of_the_directory_is_the_same_market(market: Path, tmp_path: Path) -> None:
    copy = tmp_path / "another" / "place"
    shutil.copytree(market, copy)
    assert replay(copy, Engine).state_hash == replay(market, Engine).state_hash
    record(copy, [deposits(1, 950)])
    assert read_log(copy, EXCHANGE_ID).epoch == 2


@pytest.fixture
def usage(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """What the disk says of itself: used and free, in percent."""
    told = [50, 50]
    kind = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: kind(100, *told))
    yield told


async def test_f50_a_disk_nearly_full_raises_an_alarm(
    tmp_path: Path, usage: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as sequencer:
        watch = alarms.Alarms(tmp_path, sequencer)
        usage[:] = [94, 6]
        assert watch.look() == {}
        usage[:] = [95, 5]
        assert list(watch.look()) == list(watch.look()) == ["disk"]
        assert caplog.text.count("95% full: archive old segments") == 1
        usage[:] = [90, 10]
        assert watch.look() == {} and "alarm over" in caplog.text


async def test_a_disk_that_states_no_sizes_raises_no_alarm(tmp_path: Path) -> None:
    """As /proc states none: to divide by them would stop the market."""
    async with running(tmp_path) as sequencer:
        watch = alarms.Alarms(Path("/proc"), sequencer)
        assert watch.disk_used() == 0 and watch.look() == {}


async def test_a_clock_behind_the_log_raises_an_alarm(
    tmp_path: Path, usage: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Set back by a minute: the log's time stands still, and with it all that is timed."""
    usage[:], now = [0, 100], [1_000 * 10**9]
    async with running(tmp_path, clock=lambda: now[0]) as sequencer:
        watch = alarms.Alarms(tmp_path, sequencer)
        await say(sequencer, deposits(1))
        now[0] -= 1_999_000_000
        assert watch.look() == {} and sequencer.clock_behind_seconds == 1.999
        now[0] -= 60 * 10**9
        await say(sequencer, deposits(1, 9))
        assert sequencer.stamp == 1_000 * 10**9
        assert list(watch.look()) == list(watch.look()) == ["clock"]
        assert caplog.text.count("the clock is 62 seconds behind the log") == 1
        now[0] += 62 * 10**9
        assert watch.look() == {} and sequencer.clock_behind_seconds == 0


async def test_an_engine_nearly_full_raises_an_alarm(
    tmp_path: Path, usage: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    usage[:] = [0, 100]
    most = int(Limit.POSITIONS)
    taken = {"positions": capacity.Taken("positions", most * 8 // 10, most)}
    async with running(tmp_path) as sequencer:
        stubborn = {"fund 1 20": "rejected"}
        watch = alarms.Alarms(tmp_path, sequencer, lambda: taken, lambda: stubborn)
        assert watch.look() == {
            "dues": "what clearing asks for stays refused, 1 in all, fund 1 20 first: rejected"
        }
        stubborn.clear()
        taken["positions"] = capacity.Taken("positions", most * 8 // 10 + 1, most)
        assert list(watch.look()) == list(watch.look()) == ["positions"]
    assert caplog.text.count("838,861 of 1,048,576 position records are taken") == 1
    assert caplog.text.count("expire what is due") == 1
