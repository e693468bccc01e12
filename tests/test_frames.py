"""Every frame of a client is masked, however its bytes are cut."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from bad_wire import CLOSE, PING, TEXT, Wire, frame
from sockets import running

from exchange.gateway import server
from exchange.gateway.frames import MaskedSocket, Masks
from exchange.gateway.session import CLOSE_INTERNAL
from exchange.messages.wire import Instruments


def drawn(chance: random.Random) -> tuple[bytes, bool]:
    """Some frames of any length in a row, and whether all of them are masked."""
    frames, masked = [], True
    for _ in range(chance.randrange(1, 6)):
        one = frame(TEXT, bytes(chance.choice([0, 1, 125, 126, 127, 300, 65_535, 65_536])))
        if chance.random() < 0.15:
            masked = False
            head = {126: 4, 127: 10}.get(one[1] & 0x7F, 2)
            one = one[:1] + bytes([one[1] & 0x7F]) + one[2:head] + one[head + 4 :]
        frames.append(one)
    return b"".join(frames), masked


@pytest.mark.parametrize("seed", range(40))
def test_it_is_seen_wherever_the_bytes_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        data, masked = drawn(chance)
        masks, at, seen = Masks(), 0, True
        while at < len(data) and seen:
            step = chance.choice([1, 2, 3, 7, 9, 10, 130, 133, 5_000, 70_000])
            seen = masks.are_on(data[at : at + step])
            at += step
        assert seen == masked


@pytest.mark.parametrize("length", [1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_frame_may_say_that_it_has_no_end(length: int) -> None:
    masks = Masks()
    assert masks.are_on(b"\x81\xff" + length.to_bytes(8) + bytes(5))
    assert masks.are_on(b"\x81\x02{}")  # of the same frame


async def test_what_comes_with_the_handshake_is_looked_at_too(tmp_path: Path) -> None:
    beat = json.dumps({"op": "heartbeat"}).encode()
    async with running(tmp_path) as house:
        port = int(house.url.rpartition(":")[2])
        bare, good = await Wire.open(port), await Wire.open(port)
        assert b"101" in await bare.shake(early=b"\x81\x02{}")
        assert await bare.close_code() == 1002
        assert b"101" in await good.shake(early=frame(TEXT, beat))
        assert b"heartbeat" in await asyncio.wait_for(good.reader.read(200), 20)
        good.writer.close()


async def test_who_is_closed_may_answer_before_the_connection_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SILENT_SECONDS", 0.05)
    async with running(tmp_path) as house:
        peer = await Wire.open(int(house.url.rpartition(":")[2]))
        await peer.shake()
        head = await asyncio.wait_for(peer.reader.readexactly(4), 20)
        assert (head[0] & 0x0F, int.from_bytes(head[2:])) == (CLOSE, server.CLOSE_IDLE)
        await peer.reader.readexactly(head[1] - 2)
        with pytest.raises(TimeoutError):  # else what it had sent would cut off what it was told
            await asyncio.wait_for(peer.reader.read(1), 0.2)
        await peer.send(frame(TEXT, b"{}") + frame(CLOSE, head[2:]))
        assert await asyncio.wait_for(peer.reader.read(1), 20) == b""
        peer.writer.close()


async def test_a_message_is_taken_without_a_turn_of_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come, the reader waits once: for what is no message."""
    waits, receive = [], MaskedSocket.receive

    async def counted(self: MaskedSocket) -> object:
        waits.append(self)
        return await receive(self)

    monkeypatch.setattr(MaskedSocket, "receive", counted)
    async with running(tmp_path) as house:
        socket = await house.connect()
        for _ in range(50):
            assert (await house.say(socket, {"op": "heartbeat"}))[0]["type"] == "heartbeat"
    assert len(waits) == 1


def asking(request_id: str) -> bytes:
    """A frame that asks for the instruments."""
    return frame(TEXT, json.dumps({"op": "instruments", "request_id": request_id}).encode())


async def test_messages_keep_their_order_around_a_ping_and_none_is_heard_behind_a_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str | None] = []
    async with running(tmp_path) as house:
        note = house.venue.hub.queries.instruments

        def noted(sequence: int, request_id: str | None = None) -> Instruments:
            heard.append(request_id)
            return note(sequence, request_id)

        monkeypatch.setattr(house.venue.hub.queries, "instruments", noted)
        peer = await Wire.open(int(house.url.rpartition(":")[2]))
        await peer.shake()
        said = [asking(str(number)) for number in range(6)]
        pings = [frame(PING), frame(PING), frame(CLOSE)]
        mixed = [one for pair in zip(said[::2], said[1::2], pings, strict=True) for one in pair]
        await peer.send(b"".join(mixed) + asking("late"))
        assert await peer.close_code() == 1000
    assert heard == [*map(str, range(6))]


async def test_an_error_of_the_gateways_own_ends_the_connection_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(sequence: int, request_id: str | None = None) -> Instruments:
        raise ZeroDivisionError("on purpose")

    async with running(tmp_path) as house:
        monkeypatch.setattr(house.venue.hub.queries, "instruments", failing)
        bad, good = await house.connect(), await house.connect()
        await bad.send_str('{"op": "instruments", "request_id": "fail"}')
        assert (await bad.receive(timeout=20)).data == CLOSE_INTERNAL
        assert (await house.say(good, {"op": "heartbeat"}))[0]["type"] == "heartbeat"
        async with asyncio.timeout(20):
            while "on purpose" not in caplog.text:
                await asyncio.sleep(0.01)
