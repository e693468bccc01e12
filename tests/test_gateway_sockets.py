"""The gateway over real WebSockets: handshake, framing, order entry, eviction, HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from sockets import ORIGIN, House, Socket, hear, running
from venue import RICH, THIRD, enter

from exchange.gateway import server
from exchange.messages import Limit, wire


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with running(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("protocol", [None, wire.JSON_PROTOCOL, wire.MSGPACK_PROTOCOL])
async def test_an_order_over_a_socket(house: House, protocol: str | None) -> None:
    socket = await house.trader(RICH, *([protocol] if protocol else []))
    assert socket.protocol == protocol and not socket.compress
    (accepted,) = await house.say(socket, enter("a"))
    assert (accepted["type"], accepted["client_order_id"]) == ("accepted", "a")
    (beat,) = await house.say(socket, {"op": "heartbeat"})
    assert beat["sequence"] == house.venue.hub.sequence


async def test_many_orders_in_flight_come_back_in_order(house: House) -> None:
    socket = await house.trader(RICH)
    for number in range(200):
        await socket.send_str(json.dumps(enter(f"o{number}", quantity="1")))
    ids: list[str] = []
    frames = 0
    while len(ids) < 200:
        ids += [message["client_order_id"] for message in await hear(socket)]
        frames += 1
    assert ids == [f"o{number}" for number in range(200)]
    assert frames < 200


async def test_a_closed_socket_is_logged_off(house: House) -> None:
    socket = await house.trader(RICH)
    await socket.close()
    async with asyncio.timeout(10):
        while house.venue.hub.sessions:
            await asyncio.sleep(0.001)
    await house.venue.settle()
    assert house.venue.engine.counts()["sessions"] == 0
    assert house.venue.hub.sessions == {}


async def test_browsers_need_a_known_origin_b16(house: House) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await house.connect(headers={"Origin": "https://evil.example"})
    assert refused.value.status == 403
    known = await house.connect(headers={"Origin": ORIGIN})
    assert (await house.say(known, {"op": "heartbeat"}))[0]["type"] == "heartbeat"


async def test_the_size_of_a_frame_b21(house: House) -> None:
    socket = await house.connect()
    told = await house.say(socket, "x" * Limit.FRAME_BYTES)
    assert told[0]["name"] == "SYNTAX"
    closed = await house.say(socket, "x" * (Limit.FRAME_BYTES + 1))
    assert closed.type is aiohttp.WSMsgType.CLOSE and closed.data == 1009


async def test_abuse_closes_the_socket_with_a_reason(house: House) -> None:
    socket = await house.connect()
    for _ in range(5):
        await socket.send_str(json.dumps({**house.venue.logon(RICH), "signature": "no"}))
    answers: list[str] = []
    while True:
        told = await hear(socket)
        if isinstance(told, aiohttp.WSMessage):
            break
        answers += [message["name"] for message in told]
    assert answers == ["BAD_SIGNATURE"] * 5
    assert (told.data, told.extra) == (1008, "too many refused logons")


async def test_a_reader_that_stops_is_evicted_and_others_are_not_b30(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.1)
    _, trader = await house.trader(THIRD), await house.trader(RICH)
    session = house.venue.hub.sessions[1]
    for _ in range(300):  # far more than socket buffers and the backlog hold together
        house.venue.hub.turn += 1  # as each batch does that is told
        session.push(b'"' + b"x" * (1 << 18) + b'"')
        session.wake()
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while session.number in house.venue.hub.sessions:
            await asyncio.sleep(0.01)
    assert session.closing == (4008, "slow reader")
    assert session.number not in house.venue.hub.sessions
    assert (await house.say(trader, enter("a")))[0]["type"] == "accepted"


async def test_health_over_http(house: House) -> None:
    async with house.client.get(f"{house.url}/api/v1/health") as answer:
        health = await answer.json()
    assert health["sequence"] == house.venue.hub.sequence
    async with house.client.post(f"{house.url}/api/v1/health") as answer:
        assert answer.status == 405
    async with house.client.head(f"{house.url}/ws") as answer:
        assert answer.status == 405, "only GET makes a WebSocket"


async def test_a_gateway_that_stops_says_so(house: House) -> None:
    socket = await house.connect()
    closing = asyncio.create_task(house.gateway.close())
    closed = await hear(socket)
    assert (closed.data, closed.extra) == (1001, "the gateway is stopping")
    await closing


async def fill(house: House, maker: Socket, taker: Socket) -> int:
    """Have more reports for a taker that reads none than its socket takes; forty orders a round."""
    (link,) = [k for k in house.gateway._links if k.session.number == 2]
    held = 0
    for number in range(400):  # nobody reads the taker's reports meanwhile
        await maker.send_str(json.dumps(enter(f"m{number}", quantity="40")))
        for lot in range(40):
            order = enter(f"t{number}-{lot}", side="sell", quantity="1", time_in_force="IOC")
            await taker.send_str(json.dumps(order))
        await hear(maker)
        await house.venue.settle()
        held += link._begun is not None or link.session.sending_bytes > 0
        if held:
            break
    assert held, "the socket took everything"
    return number + 1


async def test_a_frame_that_the_socket_does_not_take_whole_is_finished_by_the_writer(
    house: House,
) -> None:
    """A reader that pauses gets every report in order once it reads on."""
    maker, taker = await house.trader(RICH), await house.trader(THIRD)
    rounds = await fill(house, maker, taker)
    wanted = [f"t{n}-{lot}" for n in range(rounds) for lot in range(40)]
    got: list[str] = []
    while len(got) < len(wanted):
        got += [r["client_order_id"] for r in await hear(taker) if r["type"] == "accepted"]
    assert got == wanted


async def test_a_reader_that_is_cut_off_while_it_is_waited_for_is_no_error(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    maker, taker = await house.trader(RICH), await house.trader(THIRD)
    await fill(house, maker, taker)
    connection = taker._response.connection
    assert connection is not None and connection.transport is not None
    connection.transport.abort()
    async with asyncio.timeout(10):
        while len(house.gateway._links) > 1:
            await asyncio.sleep(0.01)
    assert not [entry for entry in caplog.records if entry.exc_info]


async def test_a_draining_gateway_takes_no_order_and_nobody_new(house: House) -> None:
    trader = await house.trader(RICH)
    assert (await house.say(trader, enter("before")))[0]["type"] == "accepted"
    house.venue.hub.drain()
    (told,) = await house.say(trader, enter("after"))
    assert (told["name"], told["client_order_id"], told["retryable"]) == (
        "QUEUE_FULL", "after", True,
    )  # fmt: skip
    (orders,) = await house.say(trader, {"op": "orders", "request_id": "o"})
    assert [order["client_order_id"] for order in orders["orders"]] == ["before"]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await house.connect()
    assert refused.value.status == 503
