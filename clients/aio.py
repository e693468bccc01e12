"""The async client: a thin shell of sockets, tasks and time around ``clients.session``.

    async with AsyncClient("ws://localhost:8000", key_id, secret) as client:
        outcome = await client.enter("H100Z26", "buy", 2, "2.650")

The first connection must succeed. After that a broken one is made again until ``close``: the
client logs on, gets what it missed, joins its channels and repeats what was not answered, under
the same ids. Every event is delivered once.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from clients.backoff import Backoff
from clients.book import Book
from clients.decimals import Number
from clients.errors import (
    ConnectionLost,
    HourbookError,
    LogonRefused,
    NotConnected,
    OutcomeUnknown,
    ProtocolError,
    RequestRefused,
)
from clients.events import AnyEvent, Connected, Disconnected, EventStream
from clients.portfolio import Order
from clients.requests import Requests
from clients.session import Health, Key, Pending, Session, State
from clients.transport import Transport, websocket_url
from exchange.messages.wire import (
    Accepted,
    AccountReport,
    AnyRequest,
    AnyResponse,
    Cancelled,
    InstrumentData,
    Instruments,
    InstrumentState,
    ListInstruments,
    LoggedOn,
    Orders,
    Ping,
    Position,
    QueryAccount,
    QueryOrders,
    Reduced,
    Rejected,
    Replaced,
    SelfTradeText,
    SideText,
    Subscribe,
    Subscribed,
    TimeInForceText,
    Unsubscribe,
    Unsubscribed,
)

EnterOutcome: TypeAlias = Accepted | Rejected
CancelOutcome: TypeAlias = Cancelled | Rejected
ReduceOutcome: TypeAlias = Reduced | Cancelled | Rejected
ReplaceOutcome: TypeAlias = Replaced | Cancelled | Rejected

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 0.5  # how often the server's silence is judged
_Answer = TypeVar("_Answer", bound=AnyResponse)


class AsyncClient:
    """One account's client, or without a key one of public data only."""

    def __init__(
        self,
        url: str,
        key_id: str = "",
        secret: str = "",
        *,
        msgpack: bool = False,
        cancel_on_disconnect: bool = False,
        grace_ms: int = 0,
        after: Position | None = None,
        answer_s: float = ANSWER_SECONDS,
        backoff: Backoff | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``after`` is the ``position`` at which an earlier client of this account stopped: what
        came since is delivered first. ``grace_ms`` is how long the exchange waits for a
        reconnect before it cancels, with ``cancel_on_disconnect``, the session's orders.
        """
        self.url = websocket_url(url)
        self._session = Session(
            key_id,
            secret,
            started_ns=clock_ns(),
            cancel_on_disconnect=cancel_on_disconnect,
            grace_ms=grace_ms,
            after=after,
        )
        self._build = Requests(self._session.feed, self._session.portfolio, self._session.next_id)
        self._has_key = bool(key_id)
        self._msgpack, self._answer_s = msgpack, answer_s
        self._backoff = backoff if backoff is not None else Backoff()
        self._clock_ns, self._chance = clock_ns, chance
        self._transport: Transport | None = None
        self._ready = asyncio.Event()
        self._was_ready = False
        self._running: asyncio.Task[None] | None = None
        self._failure: HourbookError | None = None
        self._answers: dict[Key, asyncio.Future[AnyResponse]] = {}
        self._streams: list[EventStream] = []

    # --- what the client knows ---

    @property
    def is_ready(self) -> bool:
        """Whether a request can be sent now."""
        return self._ready.is_set()

    @property
    def account(self) -> int | None:
        """The key's account, None before the first logon."""
        return self._session.account

    @property
    def position(self) -> Position | None:
        """The last report seen: give it as ``after`` to a later client to miss nothing."""
        return self._session.position

    @property
    def instruments(self) -> dict[str, InstrumentData]:
        """Listed instruments by code."""
        return self._session.feed.instruments

    @property
    def states(self) -> dict[str, InstrumentState]:
        """Last state of each instrument whose state channel is joined."""
        return self._session.feed.states

    @property
    def orders(self) -> dict[str, Order]:
        """The account's working orders by client order id, as of the last report."""
        return self._session.portfolio.orders

    @property
    def positions(self) -> dict[str, int]:
        """Net lots by instrument, as of the last report; flat instruments are absent."""
        return self._session.portfolio.positions

    def book(self, instrument: str) -> Book:
        """The local book, live while its ``depth`` channel is joined."""
        return self._session.feed.book(instrument)

    def price_text(self, instrument: str, ticks: int) -> str:
        """A price in ticks as dollars per GPU-hour."""
        return self._session.feed.scales[instrument].text(ticks)

    def events(self) -> EventStream:
        """Everything that arrives from now on, in order: reports, public data, connections.

        Depth arrives here after the local book has taken it in.
        """
        stream = EventStream(self._forget)
        if self._failure is not None or (self._running is not None and self._running.done()):
            stream.end(self._failure)
        else:
            self._streams.append(stream)
        return stream

    def _forget(self, stream: EventStream) -> None:
        with contextlib.suppress(ValueError):
            self._streams.remove(stream)

    # --- connecting ---

    async def __aenter__(self) -> "AsyncClient":
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect, log on, and learn instruments, positions and working orders.

        Raises ConnectionLost, LogonRefused, OutcomeUnknown.
        """
        if self._running is not None:
            raise NotConnected("a client connects once; make another one")
        self._running = asyncio.create_task(self._run())
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, self._running}, return_when=asyncio.FIRST_COMPLETED)
            if self._failure is not None:
                raise self._failure
            await self.refresh()
        except BaseException:
            await self.close()
            raise
        finally:
            ready.cancel()

    async def close(self) -> None:
        """Disconnect for good; harmless to repeat. Streams end."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        self._finish(self._failure)

    def _finish(self, failure: HourbookError | None) -> None:
        self._failure = failure
        self._ready.clear()
        for stream in self._streams:
            stream.end(failure)
        self._streams.clear()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(failure or ConnectionLost("the client was closed"))
                future.exception()  # seen, even if nobody waits for this answer any more
        self._answers.clear()

    async def _run(self) -> None:
        """Keep a connection up until cancelled or refused for good."""
        attempt = 0
        while True:
            try:
                await self._stay_connected()
            except LogonRefused as error:
                if not error.retryable:
                    return self._finish(error)
            except ConnectionLost as error:
                if not self._was_ready:
                    return self._finish(error)
            if self._ready.is_set():
                attempt = 0
                self._ready.clear()
            await asyncio.sleep(self._backoff.seconds(attempt, self._chance))
            attempt += 1

    async def _stay_connected(self) -> None:
        """One connection, from its opening to its end. Raises LogonRefused, ConnectionLost."""
        transport = await Transport.open(self.url, msgpack=self._msgpack, timeout_s=CONNECT_SECONDS)
        self._transport = transport
        watch = asyncio.create_task(self._watch(transport))
        reason = "the client was closed"
        try:
            await self._send(transport, self._session.connected(self._clock_ns()))
            if self._session.state is State.READY:
                self._announce()
            async for frame in transport.frames():
                await self._take(transport, frame)
            reason = transport.close_reason
        except (ConnectionLost, ProtocolError) as error:
            reason = str(error)
        finally:
            self._transport = None
            self._session.lost()
            watch.cancel()
            await transport.close()
            if self._ready.is_set():
                self._deliver(Disconnected(reason))
        if not self._was_ready:
            raise ConnectionLost(f"before the logon was answered: {reason}")

    def _announce(self) -> None:
        self._was_ready = True
        self._ready.set()
        self._deliver(Connected(self._session.account, self._session.session_id))

    async def _watch(self, transport: Transport) -> None:
        """Ask a quiet server for a heartbeat; close the connection to a dead one."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            health = self._session.health(self._clock_ns())
            if health is Health.DEAD:
                return await transport.close()
            if health is Health.QUIET:
                with contextlib.suppress(ConnectionLost):  # the reader sees it too
                    await transport.send(Ping())

    async def _take(self, transport: Transport, frame: list[AnyResponse]) -> None:
        """Take in all messages of one frame before anybody is told or anything is sent."""
        now_ns = self._clock_ns()
        send: list[AnyRequest] = []
        for message in frame:
            received = self._session.receive(message, now_ns)
            send.extend(received.send)
            if isinstance(message, LoggedOn):
                self._announce()
            elif received.event is not None:
                self._deliver(received.event)
            if received.answered is not None:
                future = self._answers.pop(received.answered, None)
                if future is not None and not future.done():
                    future.set_result(message)
        await self._send(transport, send)

    async def _send(self, transport: Transport, requests: list[AnyRequest]) -> None:
        for request in requests:
            await transport.send(request)

    def _deliver(self, event: AnyEvent) -> None:
        for stream in tuple(self._streams):
            stream.put(event)

    # --- requests ---

    async def enter(
        self,
        instrument: str,
        side: SideText,
        quantity: Number,
        price: Number | None = None,
        *,
        client_order_id: str | None = None,
        time_in_force: TimeInForceText | None = None,
        post_only: bool = False,
        self_trade: SelfTradeText = "cancel_newest",
        manual: bool = False,
    ) -> EnterOutcome:
        """Enter a limit order, or without a price a market order.

        Prices are strings or Decimals in dollars, or ints of ticks; quantities whole lots. Called
        again with the same ``client_order_id`` and fields it is a retry: one order exists.
        Raises ValueRefused, NotConnected, OutcomeUnknown.
        """
        request = self._build.enter(
            instrument,
            side,
            quantity,
            price,
            client_order_id=client_order_id,
            time_in_force=time_in_force,
            post_only=post_only,
            self_trade=self_trade,
            manual=manual,
        )
        answer = await self._ask(request)
        if isinstance(answer, Accepted | Rejected):
            return answer
        raise _astray(request, answer)

    async def cancel(
        self,
        client_order_id: str | None = None,
        *,
        order_id: str | None = None,
        request_id: str | None = None,
    ) -> CancelOutcome:
        """Cancel an order by one of its ids. Raises as ``enter`` does."""
        request = self._build.cancel(client_order_id, order_id=order_id, request_id=request_id)
        answer = await self._ask(request)
        if isinstance(answer, Cancelled | Rejected):
            return answer
        raise _astray(request, answer)

    async def reduce(
        self,
        client_order_id: str | None = None,
        *,
        quantity: Number,
        order_id: str | None = None,
        request_id: str | None = None,
    ) -> ReduceOutcome:
        """Take lots off an order, which keeps its place. Raises as ``enter`` does."""
        request = self._build.reduce(
            client_order_id, quantity=quantity, order_id=order_id, request_id=request_id
        )
        answer = await self._ask(request)
        if isinstance(answer, Reduced | Cancelled | Rejected):
            return answer
        raise _astray(request, answer)

    async def replace(
        self,
        client_order_id: str | None = None,
        *,
        quantity: Number,
        price: Number,
        order_id: str | None = None,
        post_only: bool = False,
        request_id: str | None = None,
    ) -> ReplaceOutcome:
        """Give an order a new price and total quantity (executed lots included).

        At the same price and no larger it keeps its place. Raises as ``enter`` does.
        """
        request = self._build.replace(
            client_order_id,
            quantity=quantity,
            price=price,
            order_id=order_id,
            post_only=post_only,
            request_id=request_id,
        )
        answer = await self._ask(request)
        if isinstance(answer, Replaced | Cancelled | Rejected):
            return answer
        raise _astray(request, answer)

    async def subscribe(self, *channels: str) -> None:
        """Join ``depth.CODE``, ``trades.CODE`` or ``state.CODE``. Raises RequestRefused."""
        request = Subscribe(request_id=self._session.next_id(), channels=list(channels))
        await self._query(request, Subscribed)

    async def unsubscribe(self, *channels: str) -> None:
        """Leave channels. Raises RequestRefused."""
        request = Unsubscribe(request_id=self._session.next_id(), channels=list(channels))
        await self._query(request, Unsubscribed)

    async def query_account(self) -> AccountReport:
        """Cash, requirement and positions as of the answer's sequence."""
        return await self._query(QueryAccount(request_id=self._session.next_id()), AccountReport)

    async def query_orders(self) -> Orders:
        """The account's working orders as of the answer's sequence."""
        return await self._query(QueryOrders(request_id=self._session.next_id()), Orders)

    async def query_instruments(self) -> Instruments:
        """Every listed instrument."""
        request = ListInstruments(request_id=self._session.next_id())
        return await self._query(request, Instruments)

    async def refresh(self) -> None:
        """Learn instruments and, with a key, positions and working orders from the exchange."""
        await self.query_instruments()
        if self._has_key:
            await self.query_account()
            await self.query_orders()

    async def _query(self, request: AnyRequest, kind: type[_Answer]) -> _Answer:
        answer = await self._ask(request)
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, Rejected):
            raise RequestRefused(answer.name, answer.detail or "")
        raise _astray(request, answer)

    async def _ask(self, request: AnyRequest) -> AnyResponse:
        """Send a request and wait for its answer. Raises NotConnected, OutcomeUnknown."""
        if self._failure is not None:
            raise self._failure
        pending = self._session.ask(request, self._clock_ns())
        future = self._answers.get(pending.key)
        if future is None:
            future = self._answers[pending.key] = asyncio.get_running_loop().create_future()
        if self._transport is not None:
            with contextlib.suppress(ConnectionLost):  # it is sent again on the next connection
                await self._transport.send(request)
        return await self._wait(pending, future)

    async def _wait(self, pending: Pending, future: asyncio.Future[AnyResponse]) -> AnyResponse:
        try:
            async with asyncio.timeout(self._answer_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise OutcomeUnknown(pending.key[1]) from None
        finally:
            pending.awaited = False


def _astray(request: AnyRequest, answer: AnyResponse) -> ProtocolError:
    return ProtocolError(f"{type(answer).__name__} does not answer {type(request).__name__}")
