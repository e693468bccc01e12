"""The loop: fair, bounded, in order, and silent until the disk has spoken."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from oracle import Oracle
from recorded import (
    NOON,
    SECOND,
    Clock,
    crashed_copy,
    deposit,
    deposits,
    open_sequencer,
    read_log,
    record,
    record_of,
    say,
    until,
)

from exchange.engine import Engine
from exchange.journal import stream
from exchange.journal.errors import Diverged, JournalError, NoSuchPosition, SyncFailed
from exchange.journal.frame import digest, unpack_notes
from exchange.journal.reader import LogReader
from exchange.journal.replay import Engine as AnyEngine
from exchange.journal.tape import START, Position, Released, Tape
from exchange.messages import (
    EVENT,
    EVENT_BYTES,
    EVENT_FIELDS,
    CommandFlag,
    CommandKind,
    EventKind,
    Limit,
    Reason,
    TradingState,
)
from exchange.sequencer import SOURCE_COMMANDS, Closed, QueueFull, Sequencer, replay

FIRST = "log/00000000000000000001.hbl"
FIRST_SESSION = 1 << 16 | 1  # generation 1, slot 1
EVENT_AT = {name: at for at, name in enumerate(EVENT_FIELDS)}


LOGON = record_of(CommandKind.LOGON, flags=CommandFlag.CANCEL_ON_DISCONNECT, quantity=1_000)


def opened(account: int) -> bytes:
    return record_of(
        CommandKind.OPEN_ACCOUNT, account=account, instrument=account, session=account, tif=1,
        quantity=100, target_hi=1,
    )  # fmt: skip


def entered(account: int, side: int, price: int, quantity: int, key: int) -> bytes:
    return record_of(
        CommandKind.ENTER, account=account, side=side, price=price, quantity=quantity, key_lo=key
    )


# A market whose commands give one to five events each.
BUSY = [
    [record_of(CommandKind.OPEN_DAY, quantity=20261123), opened(1), opened(2)],
    [
        record_of(
            CommandKind.LIST, price=2_500_000, quantity=744, session=1_000, account=1, operator=1,
            target_lo=1_000, target_hi=4_000,
        ),
        record_of(CommandKind.SET_RISK, price=1_000, quantity=10_000, session=500),
        record_of(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS),
    ],
    [record_of(CommandKind.DEPOSIT, account=a, price=1 << 50, key_lo=a) for a in (1, 2)],
    [LOGON, *(entered(1, 1, 2_500 + step, 5, 10 + step) for step in range(4))],
    [entered(2, 0, 2_510, 18, 30), entered(2, 0, 2_400, 1, 31)],
    [record_of(CommandKind.CHECKPOINT)],
    [record_of(CommandKind.CANCEL, account=2, side=2, flags=8, target_lo=31, key_lo=32)],
]  # fmt: skip


@pytest.fixture(params=[Engine, Oracle], ids=["engine", "oracle"])
def make_engine(request: pytest.FixtureRequest) -> Callable[[], AnyEngine]:
    factory: Callable[[], AnyEngine] = request.param
    return factory


@asynccontextmanager
async def running(
    directory: Path, engine: AnyEngine | None = None, **options: object
) -> AsyncIterator[Sequencer]:
    """A sequencer that runs inside the block and is closed after it."""
    sequencer = open_sequencer(directory, engine, **options)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sequencer.run())
        yield sequencer
        await sequencer.close()


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


def events_of(released: Released) -> list[dict[str, int]]:
    rows = EVENT.iter_unpack(released.events)
    return [dict(zip(EVENT_FIELDS, row, strict=True)) for row in rows]


def everything(tape: Tape, after: Position = START) -> bytes:
    return b"".join(released.events for released in tape.read(*after))


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
    assert seen[-1][0] == seen[-1][1] == (tmp_path / FIRST).stat().st_size


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


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market that said something in two epochs."""
    directory = tmp_path_factory.mktemp("spoken")
    record(directory, BUSY)
    record(directory, [deposits(3, 900)])
    return directory


async def test_the_stream_resumes_after_any_event(spoken: Path, tmp_path: Path) -> None:
    directory = crashed_copy(spoken, tmp_path / "copy")
    async with running(directory) as sequencer:
        await until(lambda: sequencer.tape.last[0] == 3)
        tape = sequencer.tape
        records = list(tape.read(*START))
        whole = b"".join(record.events for record in records)
        texts = [text for record in records for text in record.texts]
        seen = 0
        for released in records:
            for event in events_of(released):
                position = (released.epoch, event["sequence"], event["index"])
                seen += EVENT_BYTES
                rest = list(tape.read(*position))
                assert b"".join(part.events for part in rest) == whole[seen:]
                if rest:
                    head = events_of(rest[0])[0]
                    assert rest[0].first_sequence == head["sequence"]
                    later = [text for text in texts if text[0] >= head["sequence"]]
                    assert [text for part in rest for text in part.texts] == later
        assert tape.last == position


async def test_a_position_of_another_history_is_refused(spoken: Path, tmp_path: Path) -> None:
    directory = crashed_copy(spoken, tmp_path / "copy")
    async with running(directory) as sequencer:
        epoch, sequence, index = sequencer.tape.last
        for wrong in (
            (epoch, sequence + 1, 0),
            (epoch, sequence, index + 1),
            (epoch + 1, sequence, index),
            (2, 1, 0),
            (0, 1, 0),
            (1, 0, 0),
        ):
            with pytest.raises(NoSuchPosition) as caught:
                list(sequencer.tape.read(*wrong))
            assert caught.value.position == wrong


async def test_followers_see_all_wherever_they_stand(tmp_path: Path) -> None:
    """At the end from memory, far behind from disk, and the same either way."""

    async def collect(after: Position) -> bytes:
        return b"".join([r.events async for r in sequencer.tape.follow(after)])

    async with asyncio.TaskGroup() as tasks:
        async with running(tmp_path) as sequencer:
            early = tasks.create_task(collect(START))
            for number in range(200):  # more than the records kept in memory
                await say(sequencer, deposits(2, 10 * number))
            late = tasks.create_task(collect(START))
            middle = tasks.create_task(collect((1, 201, 0)))
            await say(sequencer, deposits(1, 5_000))
        whole = everything(sequencer.tape)
    assert early.result() == late.result() == whole
    assert middle.result() == whole[201 * EVENT_BYTES :]


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "another", "zeros"])
def test_the_tape_is_rebuilt_from_the_log(spoken: Path, tmp_path: Path, damage: str) -> None:
    directory = crashed_copy(spoken, tmp_path / "copy")
    said = (spoken / "tape/released.hbt").read_bytes()
    path = directory / "tape/released.hbt"
    path.parent.mkdir()
    broken = bytearray(said)
    broken[len(said) // 2] ^= 4
    content = {
        "missing": b"",
        "cut": said[:-7],
        "flipped": bytes(broken),
        "another": bytes(32) + said[32:],
        "zeros": said + bytes(500),
    }
    path.write_bytes(content[damage])

    async def session() -> None:
        await open_sequencer(directory).close()

    asyncio.run(session())
    assert path.read_bytes()[: len(said)] == said


async def test_another_process_may_follow_by_socket(spoken: Path, tmp_path: Path) -> None:
    directory, path = crashed_copy(spoken, tmp_path / "copy"), tmp_path / "s"
    async with running(directory) as sequencer:
        await until(lambda: sequencer.tape.last[0] == 3)
        server = await stream.serve(sequencer.tape, path)
        assert path.stat().st_mode & 0o777 == 0o600
        whole = everything(sequencer.tape)

        async def collect(after: Position) -> bytes:
            return b"".join([r.events async for r in stream.subscribe(path, after)])

        async with asyncio.TaskGroup() as tasks:
            every = tasks.create_task(collect(START))
            inside = tasks.create_task(collect((1, 1, 0)))
            with pytest.raises(NoSuchPosition, match="released are 1 to"):
                await collect((3, 10_000, 0))
            with pytest.raises(JournalError, match="exchange"):
                async for _ in stream.subscribe(path, exchange_id=bytes(16)):
                    pass
            await say(sequencer, deposits(2, 8_000))
            whole = everything(sequencer.tape)
            sequencer.tape.close()
        server.close()
    assert (every.result(), inside.result()) == (whole, whole[EVENT_BYTES:])


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
