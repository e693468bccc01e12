"""What the market's process and its gateways' share: frames, a copy of the stream, refusals."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import venue as market
from recorded import BUSY, LOGON, deposits, everything, record, running, say, until
from venue import RICH, THIRD, Venue, enter

from exchange.app.gateway_link import HEAD, AnyMessage, Hello, KeysGone, TurnedBack, Wire
from exchange.gateway.decode import Refused
from exchange.gateway.session import Stage
from exchange.journal import stream, tape
from exchange.journal.copy import Copy
from exchange.journal.errors import DiskFull, JournalError, NoSuchPosition
from exchange.journal.tape import Position
from exchange.messages import COMMAND_BYTES, CommandKind, Reason, wire
from exchange.sequencer import Sequencer


class _End:
    """Keeps all that it is given."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def heard(self, wire: Wire, message: Any) -> None:
        self.given.append(message)

    def put(self, wire: Wire, source: int, record: bytes, ingress: int, text: str | None) -> None:
        self.given.append((source, record, ingress, text))

    def lost(self, wire: Wire) -> None:
        self.given.append("lost")


class _Sent(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: Any) -> None:
        self.data += data


async def test_frames_survive_any_cut_and_leave_in_order_in_one_write() -> None:
    sent, end = _Sent(), _End()
    sender, rng = Wire(_End()), random.Random(7)
    sender.connection_made(sent)
    said: list[Any] = []
    for number in range(60):
        if number % 3:
            text = None if number % 2 else f"id-{number}" * (number % 5)
            put = (rng.getrandbits(64), rng.randbytes(COMMAND_BYTES), rng.getrandbits(63), text)
            sender.put(*put)
            said.append(put)
        else:
            back = TurnedBack(rng.randbytes(64), "é", 700)
            said.append(Hello(number) if number % 2 else back)
            sender.say(said[-1])
    assert sent.data == b""  # until the turn ends
    await asyncio.sleep(0)
    for most in (1, 7, 64, 1_000, len(sent.data)):
        end.given.clear()
        receiver, at = Wire(end), 0
        while at < len(sent.data):
            size = rng.randint(1, most)
            receiver.data_received(sent.data[at : at + size])
            at += size
        assert end.given == said


async def test_a_frame_beyond_the_limit_is_no_frame() -> None:
    with pytest.raises(JournalError, match="4294967295 bytes"):
        Wire(_End()).data_received(HEAD.pack(0, 0xFFFF_FFFF, 0, 0))


def test_messages_are_told_apart_by_name() -> None:
    decode = msgspec.msgpack.Decoder(AnyMessage).decode
    assert decode(msgspec.msgpack.encode(KeysGone())) == KeysGone()


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[Sequencer, Path, asyncio.TaskGroup]]:
    """A market whose stream is served at a path; tasks that end with it."""
    path = directory / "s"
    async with asyncio.TaskGroup() as tasks, running(directory) as sequencer:
        server = await stream.serve(sequencer.tape, path)
        try:
            yield sequencer, path, tasks
        finally:
            server.close()


async def take(copy: Copy, got: list[bytes]) -> None:
    """Follow, and keep what comes."""
    async for released in copy.follow():
        got.append(released.events)


async def test_a_copy_reads_and_follows_as_the_tape_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tape, "RECENT_RECORDS", 4)
    await asyncio.to_thread(record, tmp_path, BUSY)
    async with served(tmp_path) as (sequencer, path, tasks):
        await until(lambda: sequencer.tape.last[0] == 2)
        known, got = sequencer.tape, list[bytes]()
        copy = Copy(tmp_path, path, known.standing, known.exchange_id)
        slow = Copy(tmp_path, path, known.standing, known.exchange_id)
        ends = known.last
        tasks.create_task(take(copy, got))
        for number in range(20):
            await say(sequencer, deposits(1, 5_000 + number))
        await until(lambda: copy.last == known.last)
        assert b"".join(got) == everything(copy) == everything(known)
        assert copy.standing == known.standing
        assert len(copy._recent) == 4
        # One that lags knows what another was told, and gives it in its own time.
        assert list(slow.read(*known.last)) == list(slow.read(*ends)) == []
        beyond = (known.last[0], known.last[1] + 1, 0)
        for wrong in (beyond, (known.last[0], known.last[1], 9)):
            with pytest.raises(NoSuchPosition):
                list(slow.read(*wrong))
        middle: Position = (ends[0], ends[1] + 5, 0)
        assert list(copy.read(*middle)) == list(known.read(*middle)) != []


async def test_a_copy_keeps_what_a_full_disk_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tape, "RECENT_RECORDS", 4)
    async with served(tmp_path) as (sequencer, path, tasks):
        await say(sequencer, deposits(1, 1))
        known = sequencer.tape
        copy = Copy(tmp_path, path, known.standing, known.exchange_id)
        tasks.create_task(take(copy, []))

        def refuse(data: bytes, at: int) -> None:
            raise DiskFull("no room")

        with monkeypatch.context() as disk:
            disk.setattr(known, "_write", refuse)
            for _ in range(9):
                await say(sequencer, [LOGON])  # is taken all the same
            await until(lambda: copy.last == known.last)
            assert known.holds and len(copy._recent) > 4
            assert everything(copy) == everything(known)
        assert known.write_held()
        await say(sequencer, [LOGON])
        await until(lambda: copy.last == known.last)
        assert len(copy._recent) == 4 and everything(copy) == everything(known)


venue = market.venue  # a fixture


async def test_what_another_process_refuses_is_answered_here(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    hub, sent = venue.hub, []
    put = hub._submit
    hub.put = hub._submit = lambda source, record, **more: sent.append((source, record, more))
    trader.receive(json.dumps(enter("o", quantity="1")), 1)
    ((source, record, more),) = sent
    assert venue.heard(trader) == []
    assert source == RICH
    hub.turned_back(record, more["text"], Refused(Reason.QUEUE_FULL))
    (told,) = venue.heard(trader)
    assert isinstance(told, wire.Rejected)
    assert (told.name, told.op, told.client_order_id) == ("QUEUE_FULL", "enter", "o")
    assert told.retryable and told.retry_after_ms == 1
    sent.clear()
    hub.disconnect(trader)  # its LOGOFF is refused, and must not be lost
    ((source, record, _),) = sent
    assert source == RICH and record[0] == CommandKind.LOGOFF
    hub.turned_back(record, None, Refused(Reason.QUEUE_FULL))
    hub._submit = put
    hub.retry()
    await venue.settle()
    again = await venue.trader(RICH)
    assert again.stage is Stage.READY


async def test_a_kill_of_the_account_that_is_turned_back_is_answered(venue: Venue) -> None:
    trader, stranger = await venue.trader(RICH), await venue.trader(THIRD)
    hub, sent = venue.hub, []
    hub.put = lambda source, record, **more: sent.append((record, more["text"]))
    for scope in ("session", "account"):
        kill = {"op": "kill", "request_id": scope, "scope": scope}
        trader.receive(json.dumps(kill), 1)
        hub.turned_back(*sent.pop(), Refused(Reason.QUEUE_FULL))
        (told,) = venue.heard(trader)
        assert isinstance(told, wire.Rejected)
        assert (told.name, told.op, told.request_id) == ("QUEUE_FULL", "kill", scope)
    assert venue.heard(stranger) == [] and not hub._owed
