"""What a client keeps and gives up over broken connections and settlements, without I/O."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from test_clients import CODE, NOW, accepted, enter, execution, logged_on, ready, refusal

from clients import errors, link
from clients.aio import AsyncClient
from clients.backoff import Backoff
from clients.marks import Missed
from clients.session import PENDING_MAX, Session, State
from clients.transport import Transport, _alone
from exchange.messages import Reason, wire
from exchange.messages.access import AnyReason, GatewayReason
from exchange.messages.wire_market import mark_parts, text_checksum

DEPTH, TRADES, STATE, QUEUE = (f"{kind}.{CODE}" for kind in ("depth", "trades", "state", "queue"))


def beat(session: Session, sequence: int) -> list[wire.AnyRequest]:
    return session.receive(wire.Heartbeat(epoch=1, sequence=sequence, time=0), NOW).send


def again(session: Session, sequence: int) -> list[wire.AnyRequest]:
    """Connect again and log on; return what is sent then."""
    session.connected(NOW)
    return session.receive(logged_on(sequence), NOW).send


def joined(session: Session, *channels: str) -> None:
    answer = wire.Subscribed(request_id="s", channels=list(channels))
    session.receive(answer, NOW)


def subscribes(sent: list[wire.AnyRequest]) -> list[wire.Subscribe]:
    return [one for one in sent if isinstance(one, wire.Subscribe)]


# --- channels ---


def test_channels_go_on_from_where_all_of_them_were() -> None:
    """What a heartbeat says counts once the channels are joined again and have said what came."""
    session = ready()
    joined(session, TRADES, STATE)
    beat(session, 20)
    session.lost()
    session.connected(NOW)
    beat(session, 90)  # before the logon is answered
    (rejoin,) = subscribes(session.receive(logged_on(90), NOW).send)
    assert rejoin.after == 20
    beat(session, 95)  # before the channels are joined
    session.lost()
    (rejoin,) = subscribes(again(session, 99))
    assert rejoin.after == 20
    answer = wire.Subscribed(
        request_id=rejoin.request_id, channels=rejoin.channels, resumed=rejoin.channels
    )
    session.receive(answer, NOW)
    trade = wire.PublicTrade(instrument=CODE, sequence=98, index=0, time=0, match_number="1",
                             price="2.650", quantity="1", aggressor="buy")  # fmt: skip
    session.receive(trade, NOW)
    mark = wire.ChannelMark(channel=TRADES, sequence=98, previous_sequence=20, time=0, count=1,
                            checksum=text_checksum(mark_parts(trade), 0))  # fmt: skip
    assert not isinstance(session.receive(mark, NOW).event, Missed)
    session.lost()  # and what the other channel missed had not come
    (rejoin,) = subscribes(sent := again(session, 99))
    assert rejoin.after == 20 and isinstance(sent[sent.index(rejoin) + 1], wire.Ping)
    session.receive(wire.Subscribed(request_id=rejoin.request_id, channels=rejoin.channels), NOW)
    beat(session, 99)
    session.lost()
    (rejoin,) = subscribes(again(session, 100))
    assert rejoin.after == 99


def test_a_channel_that_cannot_be_joined_again_takes_no_other_along() -> None:
    session = ready()
    names = sorted((TRADES, STATE, "settlements", "fixings", QUEUE))
    joined(session, *names)
    beat(session, 20)
    session.lost()
    asked = subscribes(again(session, 30))
    joins, refused = set(), 0
    while asked:
        one = asked.pop()
        if QUEUE not in one.channels:
            session.receive(wire.Subscribed(request_id=one.request_id, channels=one.channels), NOW)
            joins |= {(name, one.after) for name in one.channels}
            continue
        no = wire.Rejected(
            number=724, name="QUEUE_TOO_LONG", field="channels", request_id=one.request_id
        )
        received = session.receive(no, NOW)
        assert received.event is no
        asked += subscribes(received.send)
        refused += 1
    assert joins == {(name, 20) for name in names if name != QUEUE}
    assert session.feed.channels == set(names) - {QUEUE} and refused <= 4


def test_channels_refused_for_now_are_asked_for_with_the_next_heartbeat() -> None:
    session = ready()
    joined(session, TRADES)
    beat(session, 20)
    session.lost()
    (rejoin,) = subscribes(again(session, 30))
    no = wire.Rejected(number=1, name="REQUESTS_FULL", retryable=True, request_id=rejoin.request_id)
    assert session.receive(no, NOW).send == []
    (later,) = subscribes(beat(session, 31))
    assert (later.channels, later.after) == ([TRADES], 20)
    assert session.feed.channels == {TRADES}


def test_leaving_channels_is_done_when_the_connection_is_gone() -> None:
    session = ready()
    joined(session, DEPTH, TRADES)
    asked = session.ask(wire.Unsubscribe(request_id="u", channels=[TRADES]))
    never = session.ask(wire.Unsubscribe(request_id="v", channels=[STATE]))
    assert session.sends(asked) and session.sends(never)
    assert session.lost() == [wire.Unsubscribed(request_id="u", channels=[TRADES])]
    sent = again(session, 9)
    assert [one.channels for one in subscribes(sent)] == [[DEPTH]]
    assert asked.request not in sent and never.request in sent


# --- requests ---


def test_what_nobody_waits_for_is_forgotten_with_the_next_logon() -> None:
    session = ready()
    for number in range(PENDING_MAX):
        late = session.ask(enter(f"o{number}"))
        assert session.sends(late)
        late.awaited = 0
    with pytest.raises(errors.TooMany):
        session.ask(enter("one more"))
    session.lost()
    again(session, 9)
    assert session.pending == {}
    assert session.sends(session.ask(enter("one more")))


@pytest.mark.parametrize("reason", [GatewayReason.CONNECTIONS_FULL, Reason.SESSIONS_FULL])
def test_a_full_house_ends_only_who_was_never_in(reason: AnyReason) -> None:
    first, session = Session("key", "secret", started_ns=NOW), ready()
    session.lost()
    for one, retries in ((first, False), (session, True)):
        one.connected(NOW)
        with pytest.raises(errors.LogonRefused) as refused:
            one.receive(refusal(reason.name, reason), NOW)
        assert refused.value.retryable is retries


# --- the account ---


def test_a_retry_of_an_order_changes_nothing_of_what_it_has_become() -> None:
    session = ready()
    session.receive(accepted(6), NOW)
    session.receive(
        wire.Replaced(
            sequence=7, index=0, time=0, order_id="7", client_order_id="a", instrument=CODE,
            side="buy", price="2.660", quantity="12", leaves_quantity="12", priority_kept=False,
        ),
        NOW,
    )  # fmt: skip
    session.receive(execution(8, leaves=8), NOW)
    session.receive(accepted(9, leaves_quantity="8", duplicate=True), NOW)
    order = session.portfolio.orders["a"]
    assert (order.price, order.quantity, order.leaves_quantity) == ("2.660", 12, 8)


def settled(sequence: int, position: int = 4) -> wire.Settled:
    return wire.Settled(
        sequence=sequence, index=0, time=0, instrument=CODE, position=str(position),
        settlement_price="2.650000", variation="0.000000", cash="1.000000",
    )  # fmt: skip


def account(request_id: str, sequence: int, net: int) -> wire.AccountReport:
    held = wire.PositionReport(
        instrument=CODE, net=str(net), working_buy="0", working_sell="0", hold="0", unrealized="0"
    )
    return wire.AccountReport(
        request_id=request_id, account=1, sequence=sequence, time=0, cash="1", required="0",
        free="1", open_orders=0, positions=[held] if net else [],
    )  # fmt: skip


def asked_account(sent: list[wire.AnyRequest]) -> list[str]:
    return [one.request_id for one in sent if isinstance(one, wire.QueryAccount)]


def test_a_settlement_may_be_the_last_so_the_account_is_asked() -> None:
    session = ready()
    assert session.receive(settled(6), NOW).send == []  # nothing held
    session.receive(execution(7), NOW)
    (first,) = asked_account(session.receive(settled(8), NOW).send)
    assert session.receive(settled(9), NOW).send == []  # one question at a time
    (second,) = asked_account(session.receive(account(first, 8, 4), NOW).send)
    assert session.portfolio.positions == {CODE: 4}
    no = wire.Rejected(number=1, name="REQUESTS_FULL", retryable=True, request_id=second)
    assert session.receive(no, NOW).send == []
    (third,) = asked_account(beat(session, 10))
    session.lost()
    (fourth,) = asked_account(again(session, 11))
    assert len({first, second, third, fourth}) == 4
    assert session.receive(account(fourth, 11, 0), NOW).send == []
    assert session.portfolio.positions == {} and session.state is State.READY
    assert asked_account(beat(session, 12)) == []


# --- what nobody waits for ---


class Clogged:
    """Connections to an exchange that lists an instrument and says nothing else; the first takes
    nothing once it is ``clogged``, until it breaks."""

    close_reason = "broken"

    def __init__(self) -> None:
        self.sent: list[list[object]] = []  # by connection
        self.clogged = False
        self.late = False  # who waits for room hears of the end when there is another connection
        self._frames = asyncio.Queue[list[wire.AnyResponse]]()
        self._broken = asyncio.Event()

    async def connect(self, url: str, *, msgpack: bool) -> "Clogged":
        self.sent.append([])
        return self if len(self.sent) == 1 else Again(self)

    async def send(self, request: wire.AnyRequest | list[wire.AnyCommand]) -> None:
        self.sent[0].append(request)
        await self.take(request)

    async def take(self, request: wire.AnyRequest | list[wire.AnyCommand]) -> None:
        if isinstance(request, wire.ListInstruments):
            listed = wire.InstrumentData(code=CODE, product="H100", expiry="2026-12",
                                         multiplier=744, tick="0.001", decimals=3)  # fmt: skip
            self._frames.put_nowait([wire.Instruments(sequence=1, instruments=[listed],
                                                      request_id=request.request_id)])  # fmt: skip
        elif self.clogged and len(self.sent) == 1:
            await self._broken.wait()
            if not self.late:
                raise errors.ConnectionLost("broken")
            while len(self.sent) == 1:
                await asyncio.sleep(0)

    async def frames(self) -> AsyncIterator[list[wire.AnyResponse]]:
        first = len(self.sent) == 1
        while not (first and self._broken.is_set()):
            yield await self._frames.get()

    def answer(self, *messages: wire.AnyResponse) -> None:
        self._frames.put_nowait([*messages])

    def cut(self) -> None:
        self._broken.set()
        self._frames.put_nowait([])

    async def close(self) -> None:
        self.cut()


class Again(Clogged):
    """The second connection."""

    def __init__(self, first: Clogged) -> None:
        super().__init__()
        self.sent = first.sent

    async def send(self, request: wire.AnyRequest | list[wire.AnyCommand]) -> None:
        self.sent[1].append(request)
        await self.take(request)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_request_that_could_not_be_sent_is_given_up_in_time(
    many: bool, cancelled: bool
) -> None:
    """What waits for room in a connection that takes nothing is waited for as an answer is; who
    gave it up, or was cancelled, finds nothing of it entered on the next connection."""
    clogged = Clogged()
    client = AsyncClient(
        "ws://nowhere", backoff=Backoff(first_s=0.001), connect=clogged.connect, answer_s=30
    )
    await client.connect()
    clogged.clogged = True
    client._link._answer_s = 30 if cancelled else 0.05
    orders = [client.build.enter(CODE, "buy", 1, "2.650") for _ in range(250)]

    async def ask() -> object:
        return await (client.send_batch(orders) if many else client.enter(CODE, "buy", 1, "2.65"))

    asking = asyncio.create_task(ask())
    if cancelled:
        await asyncio.wait([asking], timeout=0.02)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    elif many:
        unknown = await asyncio.wait_for(asking, 20)
        assert isinstance(unknown, list) and len(unknown) == 250
        assert all(isinstance(one, errors.OutcomeUnknown) for one in unknown)
    else:
        with pytest.raises(errors.OutcomeUnknown):
            await asyncio.wait_for(asking, 20)
    assert any(isinstance(one, wire.Enter | list) for one in clogged.sent[0])
    clogged.cut()
    async with asyncio.timeout(20):
        while len(clogged.sent) < 2 or not client.is_ready:
            await asyncio.sleep(0.001)
    assert not any(isinstance(one, wire.Enter | list) for one in clogged.sent[1])
    await client.close()


@pytest.mark.parametrize("breaks", [False, True])
async def test_the_rest_of_a_batch_is_sent_once(breaks: bool) -> None:
    """What found no room in time is sent by the retry, and what was left when the connection broke
    on the next one, as all of the batch: in no other way, and not before it is ready."""
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", backoff=Backoff(first_s=0.001), connect=clogged.connect)
    await client.connect()
    clogged.clogged = clogged.late = True
    client._link._answer_s = 20 if breaks else 0.05
    orders = [client.build.enter(CODE, "buy", 1, "2.650") for _ in range(250)]
    asking = asyncio.create_task(client.send_batch(orders))
    if breaks:
        await asyncio.sleep(0.02)
        clogged.cut()
        async with asyncio.timeout(20):
            while len(clogged.sent) < 2 or not client.is_ready:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert not asking.done()
    else:
        assert all(isinstance(one, errors.OutcomeUnknown) for one in await asking)
        clogged.clogged = False
        await client.send_batch(orders)
    frames = [one if isinstance(one, list) else [one] for one in clogged.sent[-1]]
    sent = [one for frame in frames for one in frame if isinstance(one, wire.Enter)]
    assert sent == orders
    await client.close()
    await asyncio.wait([asking])


async def test_a_first_connection_that_breaks_at_once_is_lost() -> None:
    """Also between the logon and the first query, when no connection stands."""

    class Gone(Clogged):
        async def frames(self) -> AsyncIterator[list[wire.AnyResponse]]:
            await asyncio.sleep(0)  # it is ready
            for _ in ():
                yield []

    client = AsyncClient("ws://nowhere", backoff=Backoff(first_s=1), connect=Gone().connect)
    with pytest.raises(errors.ConnectionLost):
        await client.connect()


async def test_a_full_connection_to_a_dead_exchange_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "WATCH_SECONDS", 0.02)
    clogged = Clogged()
    client = AsyncClient("ws://nowhere", backoff=Backoff(first_s=0.001), connect=clogged.connect)
    await client.connect()
    clogged.clogged = True  # not even a Ping finds room
    client._session._beat_ns = 25_000_000
    async with asyncio.timeout(5):
        while len(clogged.sent) == 1:
            await asyncio.sleep(0.001)
    assert any(isinstance(one, wire.Ping) for one in clogged.sent[0])
    await client.close()


async def test_who_waits_for_room_is_not_cancelled_with_another() -> None:
    """aiohttp has all senders wait for one future, which a timeout of one of them cancels."""

    async def silent(request: web.Request) -> web.WebSocketResponse:
        await (socket := web.WebSocketResponse()).prepare(request)
        await over.wait()  # reads nothing
        assert request.transport is not None
        request.transport.abort()
        return socket

    over, application = asyncio.Event(), web.Application()
    application.router.add_get("/ws", silent)
    async with TestServer(application) as server:
        transport = await Transport.open(str(server.make_url("/ws")), msgpack=False)
        batch: list[wire.AnyCommand] = [enter(f"o{n}") for n in range(5_000)]  # a long frame

        async def fill() -> None:
            while True:
                await transport.send(batch)

        others = [asyncio.create_task(fill()) for _ in range(2)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await fill()
        ended, _ = await asyncio.wait(others, timeout=0.1)
        over.set()
        assert not ended
        await transport.close()
        told = await asyncio.gather(*others, return_exceptions=True)
        assert [type(one) for one in told] == [errors.ConnectionLost] * 2


async def test_a_future_that_many_wait_for_ends_with_none_of_them() -> None:
    """What aiohttp's senders share, and its own pongs await beside them. Fails where Python comes
    to mark a future that is awaited in another way."""
    room = asyncio.get_running_loop().create_future()

    async def wait(alone: bool) -> None:
        async def sending() -> None:
            await room

        await (_alone(sending()) if alone else sending())

    waiting = [asyncio.create_task(wait(number != 5)) for number in range(10)]
    await asyncio.sleep(0)
    for one in waiting[::2]:
        one.cancel()
    await asyncio.wait(waiting[::2])
    assert [one.cancelled() for one in waiting] == [True, False] * 5 and not room.done()
    room.set_result(None)
    assert await asyncio.gather(*waiting[1::2]) == [None] * 5
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        unmarked = asyncio.get_running_loop().create_future()
        for _ in range(2):  # why the mark must be taken back
            unmarked.__await__().send(None)
