"""Public channels as connections meet them: joining, going on, limits, heartbeats, slow readers.

Budget: 15 seconds.
"""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import msgspec
import pytest
import venue as market
from msgspec.structs import astuple
from sockets import running
from test_marketdata import order
from venue import CODE, OTHER, RICH, THIRD, Venue, enter, reject

from clients.aio import AsyncClient
from exchange.gateway import channels as channels_room
from exchange.gateway import session as session_room
from exchange.gateway.session import Session
from exchange.messages import COMMAND, Command, CommandKind, Side, TradingState, wire

BOOKS = [f"{kind}.{CODE}" for kind in ("top", "depth", "queue")]
Named = wire.TopOfBook | wire.QueueDelta | wire.InstrumentStatistics | wire.ChannelMark
ALL = [*BOOKS, f"statistics.{CODE}", f"trades.{CODE}", f"state.{CODE}"]


venue = market.venue  # a fixture


def join(*channels: str, **fields: Any) -> dict[str, Any]:
    return {"op": "subscribe", "request_id": "s", "channels": list(channels), **fields}


def types(told: list[Any]) -> list[str]:
    return [str(type(one).__struct_config__.tag) for one in told]


async def trade(venue: Venue, makers: Session, taker: Session, number: int) -> None:
    """A resting order, and one that takes half of it."""
    await venue.say(makers, enter(f"m{number}", price="2.650"))
    await venue.say(taker, enter(f"t{number}", side="sell", quantity="5", time_in_force="IOC"))


def undated(told: list[Any]) -> list[Any]:
    """What channels said, without the heartbeats."""
    return [one for one in told if one.sequence != getattr(one, "previous_sequence", None)]


async def test_one_who_comes_back_goes_on_where_it_was(venue: Venue) -> None:
    one, two = await venue.trader(RICH), await venue.trader(THIRD)
    stayed, left = venue.connect(), venue.connect()
    for session in (stayed, left):
        told = await venue.say(session, join(*ALL))
        assert types(told) == [
            "subscribed", "top", "depth_snapshot", "queue_snapshot", "statistics", "mark",
            "state", "mark",
        ]  # fmt: skip
    await trade(venue, one, two, 1)
    seen = venue.heard(left)[-1].sequence  # type: ignore[union-attr]
    venue.heard(stayed)
    venue.hub.disconnect(left)
    await trade(venue, one, two, 2)
    await trade(venue, one, two, 3)
    back = venue.connect()
    answer, *missed = await venue.say(back, join(*ALL, after=seen))
    assert isinstance(answer, wire.Subscribed) and answer.resumed == ALL
    answer, first = await venue.say(venue.connect(), join(f"top.{CODE}.1s", after=seen))
    assert isinstance(answer, wire.Subscribed) and not answer.resumed
    assert isinstance(first, wire.TopOfBook)
    same = sorted(map(repr, undated(venue.heard(stayed))))
    assert sorted(map(repr, undated(missed))) == same and len(same) == 18
    await trade(venue, one, two, 4)
    assert venue.heard(back) == venue.heard(stayed)


async def test_what_is_no_longer_remembered_comes_as_a_snapshot(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels_room, "RESUME_MESSAGES", 3)
    one, two = await venue.trader(RICH), await venue.trader(THIRD)
    public = venue.connect()
    await venue.say(public, join(*BOOKS, f"state.{CODE}"))
    seen = venue.hub.sequence
    for number in range(3):
        await trade(venue, one, two, number)
    venue.heard(public)
    answer, *told = await venue.say(public, join(*BOOKS, f"state.{CODE}", after=seen))
    assert isinstance(answer, wire.Subscribed) and answer.resumed == [f"state.{CODE}"]
    assert types(told) == ["top", "depth_snapshot", "queue_snapshot", "mark"]


async def test_a_channel_without_members_is_followed_for_a_while(venue: Venue) -> None:
    public, trader = venue.connect(), await venue.trader(RICH)
    await venue.say(public, join(f"queue.{CODE}"))
    seen = venue.hub.sequence
    venue.hub.disconnect(public)
    await venue.say(trader, enter("a"))
    for beats, resumed in ((1, [f"queue.{CODE}"]), (channels_room.LINGER_BEATS, [])):
        for _ in range(beats):
            venue.hub.beat()
        back = venue.connect()
        (answer, *_) = await venue.say(back, join(f"queue.{CODE}", after=seen))
        assert isinstance(answer, wire.Subscribed) and answer.resumed == resumed
        venue.hub.disconnect(back)
    for _ in range(channels_room.LINGER_BEATS):
        venue.hub.beat()
    assert venue.hub.feed.pictures == {} and not venue.hub.feed.queues[0].watched


@pytest.mark.parametrize("after", [-1, 1 << 40])
async def test_nobody_goes_on_from_what_is_not_released(venue: Venue, after: int) -> None:
    public = venue.connect()
    told = await reject(venue, public, join(*ALL, after=after))
    assert (told.name, told.field, told.observed) == ("NOT_FOUND", "after", str(after))
    assert not public.channels


async def test_limits_of_channels_have_names(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    public, trader = venue.connect(), await venue.trader(RICH)
    for number in range(7):
        await venue.say(trader, enter(f"o{number}", price=f"2.6{number}0"))
    monkeypatch.setattr(channels_room, "PICTURES", 2)
    told = await reject(venue, public, join(*BOOKS, f"statistics.{CODE}"))
    assert (told.name, told.limit, told.observed) == ("SUBSCRIPTIONS_FULL", "2", "3")
    assert not public.channels and venue.hub.feed.pictures == {}
    monkeypatch.setattr(channels_room, "QUEUE_ORDERS", 6)
    told = await reject(venue, public, join(f"queue.{CODE}"))
    assert (told.name, told.limit, told.observed) == ("QUEUE_TOO_LONG", "6", "7")
    monkeypatch.setattr(channels_room, "QUEUE_ORDERS", 7)
    assert types(await venue.say(public, join(f"queue.{CODE}"))) == ["subscribed", "queue_snapshot"]


async def test_every_channel_has_a_heartbeat_with_its_last_sequence(venue: Venue) -> None:
    public, one, two = venue.connect(), await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(public, join(*ALL, "settlements", "fixings", "factors"))
    await trade(venue, one, two, 1)
    last: dict[str, int] = {}
    for told in venue.heard(public):
        if isinstance(told, wire.DepthDelta):
            last[f"depth.{CODE}"] = told.sequence
        elif isinstance(told, Named):
            last[told.channel] = told.sequence
    venue.hub.beat()
    *beats, heartbeat = venue.heard(public)
    assert isinstance(heartbeat, wire.Heartbeat) and len(beats) == len(public.channels)
    for beat in beats:
        name = getattr(beat, "channel", None) or f"depth.{CODE}"
        assert beat.sequence == beat.previous_sequence  # type: ignore[union-attr]
        expected = last.get(name, venue.hub.feed.marked.get(name, 0))
        assert beat.sequence == expected  # type: ignore[union-attr]


async def test_a_channels_sequences_never_fall(venue: Venue) -> None:
    """An auction that begins and is indicated in one batch: who goes on after it has all of it."""
    public, state = venue.connect(), f"state.{CODE}"
    await venue.say(public, join(state))
    begun = market.state(0, TradingState.AUCTION)
    for command in (begun, Command(kind=CommandKind.INDICATE, instrument=0)):
        venue.submit(0, COMMAND.pack(*astuple(command)))
    await venue.settle()
    told = venue.heard(public)
    assert types(told) == ["indicative", "state", "mark"]
    sequences = [one.sequence for one in told]  # type: ignore[union-attr]
    assert sequences == [venue.hub.sequence] * 3
    answer, *missed = await venue.say(venue.connect(), join(state, after=sequences[-1]))
    assert isinstance(answer, wire.Subscribed) and answer.resumed == [state]
    assert types(missed) == ["mark"]


async def test_a_message_is_encoded_once_for_all(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [0, 0]

    def counted(codec: int) -> Any:
        def encode(message: object) -> bytes:
            counts[codec] += 1
            return session_room.ENCODERS[codec](message)

        return encode

    trader = await venue.trader(RICH)
    publics = [venue.connect(codec) for codec in (0, 1) for _ in range(5)]
    for public in publics:
        await venue.say(public, join(*BOOKS))
    monkeypatch.setattr(channels_room, "ENCODERS", (counted(0), counted(1)))
    await venue.say(trader, enter("a"))
    assert counts == [3, 3]
    assert all(types(venue.heard(public)) == ["depth", "top", "queue"] for public in publics)


async def test_conflated_channels_speak_in_their_period(venue: Venue) -> None:
    public, trader = venue.connect(), await venue.trader(RICH)
    names = [f"depth.{CODE}.100ms", f"top.{CODE}.100ms", f"queue.{CODE}.1s"]
    await venue.say(public, join(*names))
    await venue.say(trader, enter("a"), enter("b", price="2.640"))
    assert venue.heard(public) == []
    venue.hub.tick()
    assert types(venue.heard(public)) == ["depth", "top"]
    for _ in range(8):
        venue.hub.tick()
    assert venue.heard(public) == []
    venue.hub.tick()
    (queue,) = venue.heard(public)
    assert isinstance(queue, wire.QueueDelta)
    assert queue.bids == [(1, "2.650", "10"), (2, "2.640", "10")]


async def test_a_day_in_figures(venue: Venue) -> None:
    """Three trades by hand: 5 lots at 2.650, 5 at 2.640, 2 at 2.660; the second is then busted."""
    public, one, two = venue.connect(), await venue.trader(RICH), await venue.trader(THIRD)
    _, first, _ = await venue.say(public, join(f"statistics.{CODE}", f"trades.{CODE}"))
    assert isinstance(first, wire.InstrumentStatistics)
    assert (first.volume, first.reference, first.open) == ("0", "2.650000", None)
    for number, (price, lots) in enumerate((("2.650", "5"), ("2.640", "5"), ("2.660", "2"))):
        await venue.say(one, enter(f"m{number}", price=price, quantity=lots))
        await venue.say(two, enter(f"t{number}", side="sell", price=price, quantity=lots))
    heard = venue.heard(public)
    _, middle, _ = (int(one.match_number) for one in heard if isinstance(one, wire.PublicTrade))
    told = [one for one in heard if isinstance(one, wire.InstrumentStatistics)][-1]
    assert (told.open, told.high, told.low, told.last) == ("2.650", "2.660", "2.640", "2.660")
    assert (told.trades, told.volume, told.open_interest) == (3, "12", "12")
    ticks = 5 * 2_650 + 5 * 2_640 + 2 * 2_660
    assert told.notional == f"{ticks * market.HOURS // 1000}.{ticks * market.HOURS % 1000:03}000"
    assert told.vwap == f"{ticks / 12_000:.6f}"
    assert told.business_date == market.DAY and told.checksum == told.proof()
    await venue.order(
        Command(
            kind=CommandKind.BUST, side=Side.SELL, account=THIRD, session=RICH, price=2_640,
            quantity=5, target_lo=middle, target_hi=(-300_000 * 5) & ((1 << 64) - 1),
            key_lo=(-150_000 * 5) & ((1 << 64) - 1),
        )
    )  # fmt: skip
    (told,) = (o for o in venue.heard(public) if isinstance(o, wire.InstrumentStatistics))
    assert (told.low, told.volume, told.trades, told.open_interest) == ("2.650", "7", 2, "7")


async def test_prints_come_to_all_and_the_latest_to_who_joins(venue: Venue) -> None:
    public = venue.connect()
    await venue.say(public, join("settlements", "fixings", "factors"))
    settle = Command(kind=CommandKind.SETTLE, instrument=1, price=2_700_000, quantity=1)
    await venue.order(settle)
    fixing = {"operation": "record_fixing", "index": "HX", "date": 20261120, "revision": 0,
              "state": "FIXED", "price": "2.651", "inputs_hash": "ab"}  # fmt: skip
    row = {"provider": "a", "facility": "b", "state": "DELIVERABLE", "factor_e4": 9_876}
    table = {"grade": "H100", "expiry": "2026-12", "version": 2, "rows": [row]}
    factors = {"operation": "record_factors", "digest": "cd", "table": json.dumps(table)}
    for number, text in enumerate((fixing, {**fixing, "revision": 1}, factors, {"a": 1}), 1):
        record = Command(kind=CommandKind.RECORD, key_lo=number)
        await venue.order(record, json.dumps(text))
    forged = Command(kind=CommandKind.RECORD, account=RICH, key_lo=99)  # not the house's
    await venue.order(forged, json.dumps(fixing))
    live = venue.heard(public)
    assert types(live) == ["settlement", "mark", "fixing", "mark", "fixing", "mark", "factors",
                           "mark"]  # fmt: skip
    settled, revised, published = live[0], live[4], live[6]
    assert isinstance(settled, wire.SettlementPrice) and settled.instrument == OTHER
    assert (settled.kind, settled.price, settled.cycle) == ("daily", "2.700000", 1)
    assert isinstance(revised, wire.IndexFixing) and revised.revision == 1
    assert isinstance(published, wire.FactorsPublished)
    assert published.rows[0].factor == "0.9876"
    _, *told = await venue.say(venue.connect(), join("settlements", "fixings", "factors"))
    assert [one for one in told if not isinstance(one, wire.ChannelMark)] == [
        settled, revised, published,
    ]  # fmt: skip


async def test_a_stalled_reader_is_conflated_then_evicted_and_others_do_not_feel_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real socket that nobody reads from, and a client beside it that misses nothing."""
    monkeypatch.setattr(session_room, "STALE_BYTES", 1 << 14)
    monkeypatch.setattr(session_room, "BACKLOG_BYTES", 1 << 17)

    def narrow(address: aiohttp.AddrInfoType) -> socket.socket:
        made = socket.socket(address[0], address[1])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        return made

    async with running(tmp_path) as house:
        connector = aiohttp.TCPConnector(socket_factory=narrow)
        async with (
            aiohttp.ClientSession(connector=connector, read_bufsize=4_096) as raw,
            raw.ws_connect(f"{house.url}/ws") as stalled,
        ):
            client = AsyncClient(f"{house.url}/ws")
            (link,) = house.gateway._links
            assert isinstance(link._socket, aiohttp.web.WebSocketResponse)
            writer = link._socket._writer
            assert writer is not None and writer.transport is not None
            out = writer.transport.get_extra_info("socket")
            out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)  # else it takes megabytes
            session = link.session
            await stalled.send_str(json.dumps(join(*ALL)))
            await client.connect()
            await client.subscribe(*ALL)
            conflated = trades = 0
            for number in range(400):
                lots = [order(1_000 * number + n + 1, Side.BUY, 2_650, 1) for n in range(40)]
                lots.append(order(1_000 * number + 900, Side.SELL, 2_650, 40, THIRD))
                for command in lots:
                    house.venue.submit(0, packed(command))
                trades += 40
                await house.venue.settle()
                conflated += bool(session.stale)
                if session.closing is not None:
                    break
            assert conflated > 0 and session.closing == (4008, "slow reader")
            async with asyncio.timeout(10):
                while client.feed.statistics[CODE].trades < trades:
                    await asyncio.sleep(0.01)
            queue, book, top = client.queue(CODE), client.book(CODE), client.top(CODE)
            assert queue.is_live and book.is_live and top.is_live
            assert book.bids() == [level[:2] for level in queue.bid_levels()]
            assert queue.repairs + book.repairs + top.repairs == 0
            assert client.feed.marks[f"trades.{CODE}"].repairs == 0
            await client.close()


def packed(command: Command) -> bytes:
    """The bytes of a command."""
    return COMMAND.pack(*msgspec.structs.astuple(command))
