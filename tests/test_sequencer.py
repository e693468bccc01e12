"""The loop: fair, bounded, in order, and silent until the disk has spoken."""

import asyncio
import errno
import os
import random
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oracle import Oracle
from recorded import (
    BUSY,
    EXCHANGE_ID,
    FIRST_SEGMENT,
    LOGON,
    NOON,
    SECOND,
    Clock,
    crashed_copy,
    deposit,
    deposits,
    events_of,
    everything,
    open_sequencer,
    read_log,
    record,
    record_of,
    running,
    say,
    until,
)

from exchange.engine import Engine
from exchange.intake import Item
from exchange.journal.errors import Diverged, SyncFailed, WriteFailed
from exchange.journal.frame import digest, unpack_notes
from exchange.journal.heads import read_heads
from exchange.journal.reader import LogReader
from exchange.journal.replay import Engine as AnyEngine
from exchange.journal.syncer import Done
from exchange.journal.tape import START, Tape
from exchange.messages import (
    EVENT,
    EVENT_BYTES,
    EVENT_FIELDS,
    CommandKind,
    EventKind,
    Limit,
    Reason,
)
from exchange.sequencer import SOURCE_COMMANDS, Closed, QueueFull, replay

HEX = EXCHANGE_ID.hex()
CHECKOUT = Path(__file__).parents[1]
FIRST_SESSION = 1 << 16 | 1  # generation 1, slot 1
EVENT_AT = {name: at for at, name in enumerate(EVENT_FIELDS)}


@pytest.fixture(params=[Engine, Oracle], ids=["engine", "oracle"])
def make_engine(request: pytest.FixtureRequest) -> Callable[[], AnyEngine]:
    factory: Callable[[], AnyEngine] = request.param
    return factory


class Gate:
    """A real sync that waits until it is let through."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.waiting = 0
        self.done = 0

    def __call__(self, handle: int) -> None:
        self.waiting += 1
        assert self._open.wait(10)
        os.fdatasync(handle)
        self.done += 1

    def let(self) -> None:
        self._open.set()


def kinds(tape: Tape) -> list[int]:
    return [event["kind"] for released in tape.read(*START) for event in events_of(released)]


def frames_of(directory: Path) -> list[int]:
    """Commands per frame."""
    return [frame.opening.count for chunk in LogReader(directory).chunks() for frame in chunk]


async def test_nothing_is_released_before_it_is_durable(
    tmp_path: Path, make_engine: Callable[[], AnyEngine]
) -> None:
    """While the first batch syncs the second is written and matched, and both stay silent."""
    gate, engine = Gate(), make_engine()
    async with running(tmp_path, engine, sync=gate) as sequencer:
        for command in deposits(3):
            sequencer.submit(1, command)
        await until(lambda: gate.waiting == 1)
        for command in deposits(2, 100):
            sequencer.submit(1, command)
        await until(lambda: frames_of(tmp_path) == [3, 2])
        assert engine.counts()["accounts"] and sequencer.tape.last == START
        assert (sequencer.durable_upto, everything(sequencer.tape)) == (0, b"")
        for command in deposits(4, 200):
            sequencer.submit(1, command)
        for _ in range(20):
            await asyncio.sleep(0)
        assert frames_of(tmp_path) == [3, 2]  # one batch ahead, no more
        gate.let()
        await until(lambda: sequencer.durable_upto == 9)
        assert frames_of(tmp_path) == [3, 2, 4]
        sequences = [e["sequence"] for r in sequencer.tape.read(*START) for e in events_of(r)]
        assert sequences == sorted(sequences) and set(sequences) == set(range(1, 10))
    marks = [f.opening.durable_upto for chunk in LogReader(tmp_path).chunks() for f in chunk]
    assert marks == [0, 0, 3]


class ByHand:
    """A syncer whose disk is ready when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Done] = []

    def begin(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        self.begun.append(done)

    def stop(self) -> None:
        """Nothing to end."""


async def test_the_disk_goes_on_before_followers_have_their_turn(tmp_path: Path) -> None:
    disk = ByHand()
    sequencer, begun = open_sequencer(tmp_path, syncer=lambda sync: disk), disk.begun
    run = asyncio.create_task(sequencer.run())
    sequencer.submit(1, deposit(1))
    await until(lambda: len(begun) == 1)
    sequencer.submit(1, deposit(2))
    await until(lambda: sequencer.sequence == 2)
    assert len(begun) == 1, "one sync at a time"
    begun[0](None)
    assert len(begun) == 2 and sequencer.tape.last[1] == sequencer.durable_upto == 1
    begun[1](None)
    assert len(begun) == 2 and sequencer.durable_upto == 2
    await sequencer.close()
    await run


async def test_a_failed_sync_stops_the_market(tmp_path: Path) -> None:
    """Not retried, nothing released, and what was on its way is judged at the next start."""
    broken = [False]

    def sync(handle: int) -> None:
        if broken[0]:
            raise OSError(errno.EIO, "the disk is gone")
        os.fdatasync(handle)

    sequencer = open_sequencer(tmp_path, sync=sync)
    run = asyncio.create_task(sequencer.run())
    await say(sequencer, deposits(2))
    broken[0] = True
    for command in deposits(2, 50):
        sequencer.submit(1, command)
    with pytest.raises(SyncFailed, match="the disk is gone"):
        await run
    broken[0] = False
    assert sequencer.tape.last[1] == sequencer.durable_upto == 2
    with pytest.raises(Closed):
        sequencer.submit(1, deposit(99))
    assert [released.last_sequence async for released in sequencer.tape.follow()] == [2]
    await sequencer.close()
    assert not (tmp_path / "head").exists()
    async with running(tmp_path) as again:
        assert again.recovered.last_sequence == 4


@pytest.mark.parametrize("step", ["sync", "truncate"])
async def test_a_close_that_fails_ends_the_stream_and_gives_the_directory_back(
    tmp_path: Path, step: str
) -> None:
    """Nobody waits for a stream that never ends; nothing is signed or noted of the last state."""
    sequencer = open_sequencer(tmp_path, heads=tmp_path / "heads")
    run = asyncio.create_task(sequencer.run())
    await say(sequencer, deposits(2))

    async def follow() -> list[int]:
        return [released.last_sequence async for released in sequencer.tape.follow()]

    follower = asyncio.create_task(follow())

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequencer._journal._file, step, refuse)
        with pytest.raises((SyncFailed, WriteFailed), match="the disk is gone"):
            await sequencer.close()
    await run
    assert await asyncio.wait_for(follower, 10) == [2]
    await sequencer.close()
    assert not (tmp_path / "head").exists() and read_heads(tmp_path / "heads", HEX) == []
    async with running(tmp_path) as again:
        assert again.recovered.last_sequence == 2


@pytest.mark.parametrize("said", [3, 40, 170])
def test_a_killed_market_has_all_it_said(tmp_path: Path, said: int) -> None:
    """SIGKILL at any moment: every sequence that got out is in the log, which then goes on."""
    code = (
        "import asyncio, sys; from pathlib import Path; import recorded\n"
        "async def main():\n"
        "    async with recorded.running(Path(sys.argv[1])) as sequencer:\n"
        "        for key in range(1, 100_000):\n"
        "            await recorded.say(sequencer, recorded.deposits(key % 5 + 1, key * 10))\n"
        "            print(*sequencer.tape.last, flush=True)\n"
        "asyncio.run(main())"
    )
    paths = os.pathsep.join(map(str, (CHECKOUT, CHECKOUT / "tests")))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
    ) as market:  # fmt: skip
        assert market.stdout is not None
        lines = [market.stdout.readline() for _ in range(said)]
        market.kill()
        lines += market.stdout.readlines()
    last = int(lines[-1].split()[1])
    before = (tmp_path / "tape/released.hbt").read_bytes()
    assert read_log(tmp_path).last_sequence >= last
    record(tmp_path, [deposits(1)])
    report = replay(tmp_path, Engine)
    assert (report.divergence, report.epoch) == (None, 2)
    assert (tmp_path / "tape/released.hbt").read_bytes().startswith(before)


async def test_a_cancelled_run_is_finished_by_close(tmp_path: Path) -> None:
    """Nothing that was taken is dropped: it is written, synced and released before the end."""
    gate = Gate()
    sequencer = open_sequencer(tmp_path, sync=gate)
    run = asyncio.create_task(sequencer.run())
    for first_key in (1, 50, 90):
        for command in deposits(2, first_key):
            sequencer.submit(1, command)
        await asyncio.sleep(0)
    await until(lambda: gate.waiting == 1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    gate.let()
    await sequencer.close()
    assert sequencer.durable_upto == sequencer.tape.last[1] == 6
    assert read_log(tmp_path).durable_upto == 6


async def test_full_queues_have_a_name_and_a_number(tmp_path: Path) -> None:
    sequencer = open_sequencer(tmp_path)
    command = deposit(1)
    for _ in range(SOURCE_COMMANDS):
        sequencer.submit(0, command)
    with pytest.raises(QueueFull) as caught:
        sequencer.submit(0, command)
    assert (caught.value.limit, caught.value.observed) == (SOURCE_COMMANDS, SOURCE_COMMANDS)
    for source in range(1, Limit.QUEUE_COMMANDS // SOURCE_COMMANDS):
        for _ in range(SOURCE_COMMANDS):
            sequencer.submit(source, command)
    with pytest.raises(QueueFull) as caught:
        sequencer.submit(99, command)
    assert caught.value.reason == Reason.QUEUE_FULL
    assert (caught.value.limit, caught.value.observed) == (Limit.QUEUE_COMMANDS,) * 2
    await sequencer.close()
    assert sequencer.queued == 0
    assert read_log(tmp_path).last_sequence == Limit.QUEUE_COMMANDS
    assert set(frames_of(tmp_path)) == {Limit.BATCH_COMMANDS}


async def test_sources_take_turns(tmp_path: Path) -> None:
    sequencer = open_sequencer(tmp_path)
    for source, size in ((1, 5), (2, 1), (3, 3)):
        for number in range(size):
            sequencer.submit(source, deposit(source * 10 + number), text=f"{source}.{number}")
    await sequencer.close()
    taken = [text for released in sequencer.tape.read(*START) for _, text in released.texts]
    assert taken == ["1.0", "2.0", "3.0", "1.1", "3.1", "1.2", "3.2", "1.3", "1.4"]


async def test_a_record_of_another_length_is_the_callers_error(tmp_path: Path) -> None:
    sequencer = open_sequencer(tmp_path)
    with pytest.raises(ValueError, match="64 bytes, not 63"):
        sequencer.submit(1, bytes(63))
    await sequencer.close()
    await sequencer.close()
    with pytest.raises(Closed):
        sequencer.submit(1, deposit(1))


async def test_a_restart_by_replay_is_the_same_market(
    tmp_path: Path, make_engine: Callable[[], AnyEngine]
) -> None:
    engine = make_engine()
    async with running(tmp_path, engine, clock=Clock()) as sequencer:
        for batch in BUSY:
            await say(sequencer, batch, text="busy")
    said = (tmp_path / "tape/released.hbt").read_bytes()
    report = replay(tmp_path, make_engine)
    assert report.state_hash == digest(engine.state_bytes())
    assert (report.divergence, report.tail_dropped) == (None, None)
    assert (report.commands, report.frames) == (sum(map(len, BUSY)), len(BUSY))
    assert report.events * EVENT_BYTES == len(everything(sequencer.tape))

    again = make_engine()
    async with running(tmp_path, again, clock=Clock(NOON - SECOND)) as sequencer:
        await until(lambda: sequencer.durable_upto == report.commands + 1)
        *_, last = sequencer.tape.read(*START)
        assert (sequencer.epoch, last.epoch, last.stamp) == (2, 2, NOON)  # time never falls
        recovered = events_of(last)[0]
        assert (recovered["kind"], recovered["quantity"]) == (EventKind.RECOVERED, 2)
        assert EventKind.STATE_CHANGED in [event["kind"] for event in events_of(last)]
    assert (tmp_path / "tape/released.hbt").read_bytes().startswith(said)
    assert replay(tmp_path, make_engine).state_hash == digest(again.state_bytes())
    assert replay(tmp_path, make_engine, until=report.commands).state_hash == report.state_hash


def test_the_oracle_replays_the_engines_log(tmp_path: Path) -> None:
    """Every batch's events are the same bytes. The state's are each one's own: no notes here."""
    told = [batch for batch in BUSY if record_of(CommandKind.CHECKPOINT) not in batch]
    record(tmp_path / "closed", told)
    log = crashed_copy(tmp_path / "closed", tmp_path / "log")
    record(log, [deposits(2, 500)])
    (log / "head").unlink()
    report = replay(log, Oracle)
    assert report.divergence is None
    assert report.frames == len(told) + 2


def test_replay_stops_at_any_sequence(tmp_path: Path) -> None:
    record(tmp_path, BUSY)
    commands = [command for batch in BUSY for command in batch]
    seen: list[tuple[int, int]] = []
    for sequence in range(len(commands) + 1):
        report = replay(tmp_path, Engine, sequence, lambda *done: seen.append(done))
        assert report.last_sequence == sequence
    assert seen[-1][0] == seen[-1][1] == (tmp_path / FIRST_SEGMENT).stat().st_size


async def test_an_empty_market_begins_without_a_recovery(tmp_path: Path) -> None:
    for _ in range(2):
        async with running(tmp_path) as sequencer:
            assert (sequencer.epoch, sequencer.recovered.frames) == (1, 0)
    async with running(tmp_path) as sequencer:
        await say(sequencer, deposits(1))
        assert kinds(sequencer.tape) == [EventKind.DEPOSITED]


async def test_a_grace_timer_fires_while_nobody_speaks(
    tmp_path: Path, make_engine: Callable[[], AnyEngine]
) -> None:
    """Its deadline is journalled as ADVANCE_TIME, alone in its batch, on the moved clock."""
    clock = Clock()
    async with running(tmp_path, make_engine(), clock=clock) as sequencer:
        await say(sequencer, [LOGON])
        await say(sequencer, [record_of(CommandKind.LOGOFF, session=FIRST_SESSION)])
        assert kinds(sequencer.tape) == [EventKind.SESSION_OPENED, EventKind.SESSION_LOST]
        clock.now += SECOND - 1
        sequencer.wake()
        for _ in range(10):
            await asyncio.sleep(0)
        assert sequencer.durable_upto == 2
        clock.now += 1
        sequencer.wake()
        await until(lambda: sequencer.durable_upto == 3)
        *_, last = sequencer.tape.read(*START)
        assert last.stamp == NOON + SECOND
        found = [event["kind"] for event in events_of(last)]
        assert found == [EventKind.SESSION_ENDED, EventKind.TIME_ADVANCED]


async def test_a_grace_timer_needs_no_one_to_move_the_clock(tmp_path: Path) -> None:
    async with running(tmp_path) as sequencer:
        await say(sequencer, [record_of(CommandKind.LOGON, flags=32, quantity=20)])
        await say(sequencer, [record_of(CommandKind.LOGOFF, session=FIRST_SESSION)])
        await until(lambda: sequencer.durable_upto == 3)
        assert EventKind.SESSION_ENDED in kinds(sequencer.tape)


async def test_a_due_timer_goes_before_the_commands_of_its_stamp(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock=clock) as sequencer:
        await say(sequencer, [LOGON])
        await say(sequencer, [record_of(CommandKind.LOGOFF, session=FIRST_SESSION)])
        clock.now += SECOND
        sequencer.submit(1, deposit(1), text="after")
        await until(lambda: sequencer.durable_upto == 4)
        *_, last = sequencer.tape.read(*START)
        assert (last.count, last.texts) == (2, [(4, "after")])
        found = [event["kind"] for event in events_of(last)]
        assert found == [EventKind.SESSION_ENDED, EventKind.TIME_ADVANCED, EventKind.DEPOSITED]


async def test_time_never_falls(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock=clock) as sequencer:
        for now in (NOON, NOON - SECOND, NOON + 1):
            clock.now = now
            await say(sequencer, [deposit(now)])
        assert [r.stamp for r in sequencer.tape.read(*START)] == [NOON, NOON, NOON + 1]


async def test_a_checkpoint_leaves_the_states_hash_in_the_next_frame(
    tmp_path: Path, make_engine: Callable[[], AnyEngine]
) -> None:
    engine = make_engine()
    async with running(tmp_path, engine) as sequencer:
        await say(sequencer, [*deposits(2), record_of(CommandKind.CHECKPOINT)])
        expected = digest(engine.state_bytes())
        await say(sequencer, deposits(1, 70))
        await say(sequencer, deposits(1, 71))
    (chunk,) = LogReader(tmp_path).chunks()
    notes = [unpack_notes(frame.notes) for frame in chunk]
    assert notes[0] is None and notes[2] is None and notes[1] is not None
    assert (notes[1].sequence, notes[1].state_hash) == (3, expected)
    assert replay(tmp_path, make_engine).divergence is None


class Forgetful:
    """An engine that says the same as the real one and remembers something else."""

    def __init__(self) -> None:
        engine: AnyEngine = Engine()
        self.apply, self.counts = engine.apply, engine.counts
        self.next_deadline = engine.next_deadline
        self._engine = engine

    def state_bytes(self) -> bytes:
        return self._engine.state_bytes()[:-1]


@pytest.mark.parametrize(
    ("batches", "last"),
    [([[record_of(CommandKind.CHECKPOINT)], deposits(2)], 1), ([deposits(2)], 2)],
    ids=["at a checkpoint", "after a clean close"],
)
def test_another_state_is_a_divergence(
    tmp_path: Path, batches: list[list[bytes]], last: int
) -> None:
    record(tmp_path, batches)
    found = replay(tmp_path, Forgetful).divergence
    assert isinstance(found, Diverged)
    assert (found.what, found.first_sequence, found.last_sequence) == ("state", 1, last)


def test_the_busy_market_says_many_things() -> None:
    """The fixture keeps its worth: several events in one command, in one batch."""
    engine = Engine()
    sequence, most = 1, 0
    for batch in BUSY:
        events = engine.apply(b"".join(batch), sequence, NOON)
        most = max(most, *(row[EVENT_AT["index"]] for row in EVENT.iter_unpack(events)))
        assert all(row[2] != EventKind.REJECTED for row in EVENT.iter_unpack(events))
        sequence += len(batch)
    assert most >= 3


@pytest.mark.parametrize("seed", range(5))
async def test_sources_take_turns_however_much_of_them_a_batch_takes(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against queues in a ring: the next gives one command and goes to its end if it has more.
    What belongs together goes before them, whole if the batch has room for it."""
    chance = random.Random(seed)
    most = chance.choice([3, 7, 20])
    monkeypatch.setattr("exchange.sequencer.BATCH_COMMANDS", most)
    sequencer, ring = open_sequencer(tmp_path), deque[tuple[int, deque[str]]]()
    groups: deque[list[str]] = deque()
    expected: list[str] = []
    found: list[str] = []

    def next_batch(count: int) -> Iterator[str]:
        left = most
        while groups and (left == most or len(groups[0]) <= left):
            group = groups.popleft()
            yield from group[:left]
            if group[left:]:
                groups.appendleft(group[left:])
            count, left = count - len(group[:left]), max(left - len(group), 0)
        for _ in range(count):
            source, queue = ring.popleft()
            yield queue.popleft()
            if queue:
                ring.append((source, queue))

    submitted = 0
    while submitted < 300:
        source, text = chance.choice([1, 1, 1, 2, 3, 4, 5]), f"c{submitted}"
        if chance.random() < 0.1:
            group = [f"{text}.{place}" for place in range(chance.randint(1, most + 3))]
            sequencer.submit_all(together(submitted, group))
            groups.append(group)
            submitted += len(group)
            continue
        submitted += 1
        sequencer.submit(source, deposit(submitted), text=text)
        queue = next((waiting for one, waiting in ring if one == source), None)
        if queue is None:
            ring.append((source, queue := deque()))
        queue.append(text)
        if chance.random() < 0.2:
            written = sequencer._write_next()
            assert written is not None, "some wait"
            batch = sequencer._match(written)
            sequencer.tape.append(batch.released, batch.texts)
            found += [text for _, text in batch.released.texts]
            expected += next_batch(batch.released.count)
    assert found == expected and len(found) > 100
    assert sequencer.queued == submitted - len(found)
    await sequencer.close()


def together(first: int, texts: list[str]) -> list[Item]:
    """Deposits that belong together, each with a key and a text of its own."""
    return [(deposit(key), 0, text) for key, text in enumerate(texts, first)]


async def test_what_belongs_together_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    """Whatever waits before it, it is one frame, which a crash leaves whole or takes whole."""
    sequencer = open_sequencer(tmp_path)
    pair = together(1, ["pair 1", "pair 2"])
    for number in range(int(Limit.QUEUE_COMMANDS) - 3):
        sequencer.submit(number // SOURCE_COMMANDS, deposit(number + 10))
    sequencer.submit_all(pair)
    with pytest.raises(QueueFull) as caught:
        sequencer.submit_all(pair)
    assert caught.value.limit - caught.value.observed == 1
    sequencer.submit(99, deposit(9))
    assert sequencer.queued == Limit.QUEUE_COMMANDS
    await sequencer.close()
    texts = [released.texts for released in sequencer.tape.read(*START) if released.texts]
    assert texts == [[(1, "pair 1"), (2, "pair 2")]]
    with pytest.raises(Closed):
        sequencer.submit_all(pair)
