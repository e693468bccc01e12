"""A disk that is full: nothing lost, cancels answered, orders refused by name, and back again.

On file systems of a few megabytes that are really full. The log's reserve is made small for it; the
rules are the same.
"""

import asyncio
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import fill, remount, small_disk
from live import CODE, QUICK, Live, clock_ns, until
from recorded import (
    Clock,
    deposit,
    deposits,
    entered,
    open_sequencer,
    read_log,
    record,
    record_of,
    running,
    say,
)
from recorded import until as soon

from clients.aio import AsyncClient
from clients.keys import Key
from clients.rest import AsyncRest
from exchange.engine import Engine
from exchange.gateway import access, auth
from exchange.gateway.access import Proof, sign
from exchange.journal import room, tape
from exchange.journal.errors import DiskFull, JournalStopped, ReadOnlyDirectory, WriteFailed
from exchange.journal.memory import MemoryStorage
from exchange.journal.room import COMMAND_COST, FRAME_COST, admits
from exchange.journal.tapecheck import check_tape
from exchange.messages import CommandKind, Limit, Reason, wire
from exchange.sequencer import LogFull, Sequencer, replay

RESERVE = 1 << 18
REAL_RESERVE, REAL_STEP = room.RESERVE_BYTES, room.STEP_BYTES
CANCEL = record_of(CommandKind.CANCEL, account=1, side=2, flags=8, target_lo=1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "3m") as place:
        yield place


@pytest.fixture(autouse=True)
def modest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RESERVE_BYTES", RESERVE)
    monkeypatch.setattr(room, "STEP_BYTES", 2 * RESERVE)
    monkeypatch.setattr("exchange.sequencer.LOOK_SECONDS", 0.01)


async def full(sequencer: Sequencer, disk: Path) -> Path:
    """Fill the disk and trade on until the log has met its end. Returns what to delete."""
    ballast = fill(disk)
    for number in range(200):
        if sequencer.full:
            return ballast
        await say(sequencer, deposits(100, 1_000 + 100 * number))
    raise AssertionError("a full disk went unnoticed")


@pytest.mark.parametrize("beside", [True, False], ids=["with the tape", "the log alone"])
async def test_orders_are_refused_and_cancels_answered_until_there_is_room(
    disk: Path, tmp_path: Path, beside: bool
) -> None:
    if not beside:
        (tmp_path / "tape").mkdir()
        (disk / "market").mkdir()
        (disk / "market/tape").symlink_to(tmp_path / "tape")
    async with running(disk / "market", clock=Clock()) as sequencer:
        await say(sequencer, deposits(3))
        ballast = await full(sequencer, disk)
        assert sequencer._journal.full or beside
        for command in (entered(1, 0, 2_500, 1, 9), deposit(77), record_of(CommandKind.RECORD)):
            with pytest.raises(LogFull) as caught:
                sequencer.submit(1, command)
            assert caught.value.reason == Reason.LOG_FULL
            assert caught.value.observed > 0 and caught.value.limit == REAL_RESERVE
        before = sequencer.durable_upto
        await say(sequencer, [CANCEL] * 50)  # of nothing: the engine's answer is in the log
        assert sequencer.durable_upto == before + 50
        ballast.unlink()
        await soon(lambda: not sequencer.full)
        await say(sequencer, deposits(3, 90_000))
        said = sequencer.tape.last[1]
    report = replay(disk / "market", Engine)
    assert (report.divergence, report.last_sequence) == (None, said)
    assert (disk / "market/tape/released.hbt").stat().st_size == sequencer.tape.end


async def test_what_was_taken_before_still_fits(disk: Path) -> None:
    """A queue as full as it may be when the disk turns out to be full; then it is closed so."""
    wanted = int(Limit.QUEUE_COMMANDS) // 40
    assert wanted * COMMAND_COST < RESERVE  # the same share of the queue as of the reserve
    async with running(disk / "market", clock=Clock()) as sequencer:
        fill(disk)
        for number in range(wanted):
            sequencer.submit(1, deposit(number + 1), text="a-client-order-id-of-36-characters-x")
        await soon(lambda: sequencer.durable_upto == wanted)
        assert not sequencer.queued and sequencer._batch is None
    assert read_log(disk / "market").last_sequence == wanted


async def test_the_reserve_ends_in_a_reject_and_never_in_a_loss(disk: Path) -> None:
    """Cancels one by one until not even they have room; all that were taken are in the log."""
    async with running(disk / "market", clock=Clock()) as sequencer:
        await full(sequencer, disk)
        taken = 0
        with pytest.raises(LogFull):
            while True:
                sequencer.submit(1, CANCEL)
                taken += 1
                await soon(lambda: not sequencer.queued)
        assert taken > 300
        with pytest.raises(LogFull):
            sequencer.submit(1, record_of(CommandKind.LOGON))
    last = read_log(disk / "market").last_sequence
    assert last == sequencer.durable_upto == sequencer.tape.last[1]


def test_the_less_urgent_leave_room_for_the_more_urgent() -> None:
    needed = COMMAND_COST + 2 * FRAME_COST
    for kind in CommandKind:
        least = next((at for at in (0.0, 0.25, 0.5, 9.0) if admits(kind, needed + int(
            at * RESERVE), 0)), None)  # fmt: skip
        expected = {"CANCEL": 0.0, "REDUCE": 0.0, "MASS_CANCEL": 0.0, "KILL": 0.0, "RESUME": 0.0,
                    "SET_STATE": 0.0, "SET_MODE": 0.0, "SET_ACCOUNT": 0.0,
                    "LOGOFF": 0.25, "LOGON": 0.5}  # fmt: skip
        assert least == expected.get(kind.name), kind
    assert not admits(CommandKind.CANCEL, needed - 1, 0)
    assert not admits(CommandKind.CANCEL, needed, 1)


def test_the_figures_of_the_reserve_hold() -> None:
    """Whatever the queue may hold fits, with the frames around it, in what is set aside."""
    frames = (Limit.QUEUE_COMMANDS // Limit.BATCH_COMMANDS + 2) * FRAME_COST
    assert Limit.QUEUE_COMMANDS * COMMAND_COST + frames < REAL_RESERVE <= REAL_STEP // 2


def test_a_start_on_a_full_disk(disk: Path) -> None:
    """With room for cancels it starts, and refuses orders; without, it says what to do."""

    async def session() -> None:
        async with running(disk / "market", clock=Clock()) as sequencer:
            if not sequencer.recovered.last_sequence:
                await say(sequencer, deposits(3))
            assert sequencer.full == (disk / "ballast").exists()

    asyncio.run(session())
    ballast = fill(disk)
    with pytest.raises(DiskFull, match="free some space"):
        open_sequencer(disk / "market")
    os.truncate(ballast, ballast.stat().st_size - RESERVE // 2)
    asyncio.run(session())
    assert read_log(disk / "market").last_sequence == 4  # and RECOVERED
    ballast.unlink()
    asyncio.run(session())


async def test_a_start_after_a_kill_on_a_full_disk(disk: Path) -> None:
    """The log is ahead of the tape, whose rest is held again; cancels are served."""
    killed = open_sequencer(disk / "market", clock=Clock())
    run = asyncio.create_task(killed.run())
    await say(killed, deposits(3))
    ballast = await full(killed, disk)
    await say(killed, [CANCEL] * 50)
    assert killed.tape.holds
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    killed._syncer.stop()
    killed._lock.close()
    said = [one.last_sequence for one in killed.tape.read(*tape.START)]
    async with running(disk / "market", clock=Clock()) as sequencer:
        assert sequencer.full and sequencer.tape.holds
        with pytest.raises(LogFull):
            sequencer.submit(1, deposit(90_000))
        await say(sequencer, [CANCEL] * 3)
        assert [one.last_sequence for one in sequencer.tape.read(*tape.START)][: len(said)] == said
        ballast.unlink()
        await soon(lambda: not sequencer.full)
        await say(sequencer, deposits(2, 90_000))
    assert (disk / "market/tape/released.hbt").stat().st_size == sequencer.tape.end
    assert replay(disk / "market", Engine).divergence is None
    assert check_tape(disk / "market").last_sequence == sequencer.tape.last[1]


class Due:
    """An engine whose timer is due once the test says so."""

    def __init__(self) -> None:
        self._engine, self.due = Engine(), 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def next_deadline(self) -> int:
        return self.due


async def test_a_due_timer_does_not_make_a_full_market_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes with the next batch, and one that waits for room is looked after once a while."""
    monkeypatch.setattr("exchange.sequencer.LOOK_SECONDS", 0.1)
    storage, engine, looks = MemoryStorage(1 << 19), Due(), 0
    sequencer = open_sequencer(tmp_path, engine, storage=storage, clock=Clock())
    run, look = asyncio.create_task(sequencer.run()), sequencer._journal.look_for_room

    def looked() -> None:
        nonlocal looks
        looks += 1
        look()

    await say(sequencer, deposits(3))
    storage.capacity = sum(one.space for one in storage._files.values())
    sequencer._journal.look_for_room = looked  # type: ignore[method-assign]
    for number in range(3_000):
        sequencer.submit(1, deposit(100 + number), text="x" * 200)
    await soon(lambda: sequencer._batch is not None)
    engine.due = 1
    sequencer.wake()
    before, loop = looks, asyncio.get_running_loop()
    begun = loop.time()
    await soon(lambda: looks - before > 2)
    assert looks - before < 2 + 20 * (loop.time() - begun)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_a_segment_goes_on_where_there_is_no_room_for_another(disk: Path) -> None:
    async with running(disk / "market", clock=Clock(), segment_bytes=40_000) as sequencer:
        fill(disk)
        for number in range(15):
            await say(sequencer, deposits(100, 1 + 100 * number))
            if sequencer.full:
                break
        names = sorted(path.name for path in (disk / "market/log").iterdir())
        assert len(names) == 1 and (disk / "market/log" / names[0]).stat().st_size > 40_000
        (disk / "ballast").unlink()
        await soon(lambda: not sequencer.full)
        sequencer._journal._roll_at = 0
        await say(sequencer, deposits(5, 50_000))
        assert len(list((disk / "market/log").iterdir())) == 2
    assert replay(disk / "market", Engine).divergence is None


async def test_a_directory_that_turns_read_only_when_the_log_rolls(disk: Path) -> None:
    """A clean stop by name, and nothing that was told is missing afterwards."""
    sequencer = open_sequencer(disk / "market", clock=Clock(), segment_bytes=4_000)
    run = asyncio.create_task(sequencer.run())
    await say(sequencer, deposits(60))
    told = sequencer.tape.last[1]

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))  # as a disk that was remounted; its open files write on

    storage = sequencer._journal._storage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "open", refuse)
        for command in deposits(2, 500):
            sequencer.submit(1, command)
        with pytest.raises(WriteFailed, match="Read-only"):
            await run
    await sequencer.close()
    assert replay(disk / "market", Engine).last_sequence == told
    async with running(disk / "market", clock=Clock()) as again:
        assert again.recovered.last_sequence == told


def test_a_read_only_directory_is_read_and_not_served(disk: Path) -> None:
    record(disk / "market", [deposits(3)])
    gc.collect()  # a tape's file stays open for those behind, until nobody has it
    remount(disk, read_only=True)
    try:
        with pytest.raises(ReadOnlyDirectory, match="remount it for writing"):
            open_sequencer(disk / "market")
        assert replay(disk / "market", Engine).last_sequence == 3
    finally:
        remount(disk, read_only=False)


async def test_the_tape_holds_what_its_disk_does_not_take(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log on one disk, the tape on a full one: followers miss nothing, and it is bounded."""
    (tmp_path / "log").mkdir()
    (disk / "market").mkdir()
    (disk / "market/log").symlink_to(tmp_path / "log")
    async with running(disk / "market", clock=Clock()) as sequencer:
        await say(sequencer, deposits(3))
        ballast = fill(disk)
        for number in range(20):
            await say(sequencer, deposits(50, 100 * (number + 1)))
            if sequencer.tape.holds:
                break
        assert sequencer.tape.holds and sequencer.full
        sequencer.tape._recent.clear()
        *_, last = sequencer.tape.read(*tape.START)
        assert last.last_sequence == sequencer.tape.last[1]
        ballast.unlink()
        await soon(lambda: not sequencer.full)
        assert not sequencer.tape.holds
    said = disk / "market/tape/released.hbt"
    assert said.stat().st_size == sequencer.tape.end


async def test_what_the_tape_holds_is_bounded(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tape, "HELD_BYTES_MAX", 1_000)
    (tmp_path / "log").mkdir()
    (disk / "market").mkdir()
    (disk / "market/log").symlink_to(tmp_path / "log")
    sequencer = open_sequencer(disk / "market", clock=Clock())
    run = asyncio.create_task(sequencer.run())
    await say(sequencer, deposits(3))
    fill(disk)
    for command in deposits(200, 100):
        sequencer.submit(1, command)
    with pytest.raises(JournalStopped, match="1000 bytes are held"):
        await run
    assert sequencer.tape.last[1] == 3
    await sequencer.close()


async def test_a_whole_market_lives_through_it(tmp_path: Path) -> None:
    """Clients over WebSockets, the ledger and the keys on the same disk as the log."""
    with small_disk(tmp_path / "disk", "12m") as disk:
        async with asyncio.timeout(60), Live.open(disk / "market") as live:
            client = await live.client(1)
            await client.subscribe(f"state.{CODE}")
            state, scale = client.states[CODE], client.scale(CODE)
            low = scale.read(state.low_limit)
            assert isinstance(await client.enter(CODE, "buy", 1, low), wire.Accepted)
            mine = await client.enter(CODE, "buy", 2, low, client_order_id="mine")
            assert isinstance(mine, wire.Accepted)
            ballast = fill(disk)
            refused = None
            for number in range(20_000):
                outcome = await client.enter(CODE, "buy", 1, low + number % 50)
                if isinstance(outcome, wire.Rejected):
                    refused = outcome
                    break
                await client.cancel(order_id=outcome.order_id)
            assert refused is not None and refused.name == "LOG_FULL"
            assert refused.retryable and refused.retry_after_ms == 1_000
            cancelled = await client.cancel("mine")
            assert isinstance(cancelled, wire.Cancelled)
            ballast.unlink()
            await until(lambda: not live.market.sequencer.full)
            assert isinstance(await client.enter(CODE, "buy", 3, low), wire.Accepted)
            clearing, last = live.market.clearing, live.market.tape.last[1]
            await until(lambda: clearing.position[1] >= last)
            assert not clearing.divergences
        assert replay(disk / "market", Engine).divergence is None


async def test_who_was_away_logs_on_to_a_full_market_and_cancels(tmp_path: Path) -> None:
    """Every logon spends a nonce, which is written beside the log."""
    with small_disk(tmp_path / "disk", "24m") as disk:
        async with asyncio.timeout(60), Live.open(disk / "market") as live:
            key = await live.fund(1)
            options: dict[str, Any] = {"backoff": QUICK, "clock_ns": clock_ns}
            async with AsyncClient(live.addresses.ws, *key, **options) as client:
                await client.subscribe(f"state.{CODE}")
                low = client.scale(CODE).read(client.states[CODE].low_limit)
                told = await client.enter(CODE, "buy", 1, low, client_order_id="mine")
                assert isinstance(told, wire.Accepted)
                ballast = fill(disk)
                while isinstance(told, wire.Accepted):
                    told = await client.enter(CODE, "buy", 1, low)
                assert isinstance(told, wire.Rejected) and told.name == "LOG_FULL"
            fill(disk)  # whatever was let go of since
            cancelled = []
            for _ in range(auth.CHECKPOINT_PAGES + 20):
                async with AsyncClient(live.addresses.ws, *key, **options) as client:
                    cancelled.append(isinstance(await client.cancel("mine"), wire.Cancelled))
            assert cancelled == [True] + [False] * (len(cancelled) - 1)
            async with AsyncRest(live.addresses.http, Key.hmac(*key), clock_ns=clock_ns) as rest:
                assert "mine" not in {one.client_order_id for one in (await rest.orders()).orders}
            ballast.unlink()
            await until(lambda: not live.market.sequencer.full)


def test_a_logon_that_finds_no_room_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "PLENTY_BYTES", 1 << 60)  # as after a start with little room
    with small_disk(tmp_path / "disk", "1m") as disk:
        key_id, secret = auth.create_key(disk, 1, "trade")
        keys = auth.Keys(disk)
        ballast = fill(disk)

        def check(nonce: int) -> object:
            text = b"said"
            return keys.check(Proof(key_id, text, sign(secret, text), 0, nonce), 0)

        assert check(1) is Reason.LOG_FULL
        ballast.unlink()
        assert isinstance(check(1), access.Key), "the nonce was not spent"
        fill(disk)
        for nonce in range(2, 50):  # in the room that the log of the file has by now
            assert isinstance(check(nonce), access.Key)
        assert check(49) is Reason.NONCE
