"""The async client: sockets, tasks and time around ``clients.session``.

    async with AsyncClient("ws://localhost:8000", key_id, secret) as client:
        outcome = await client.enter("H100Z26", "buy", 2, "2.650")

The first connection must succeed. After that a broken connection is made again until ``close``: the
client logs on, receives what it missed, subscribes to its channels again and repeats unanswered
requests under the same ids. Every event is delivered once.
"""

import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar, overload

from clients.backoff import Backoff
from clients.book import Book, QueueBook, TopBook
from clients.decimals import Number, PriceScale
from clients.errors import (
    ConnectionLost,
    NotConnected,
    OutcomeUnknown,
    ProtocolError,
    ValueRefused,
    refusal,
)
from clients.events import EventStream
from clients.feed import Feed
from clients.keys import Key
from clients.link import Link
from clients.portfolio import Margin, Order, margin_of
from clients.requests import Requests
from clients.rest import AsyncRest
from clients.session import Session
from clients.strip import Strip
from clients.transport import Connect, Transport, websocket_url
from exchange.messages.rest import StatementReport
from exchange.messages.wire import (
    Accepted,
    AccountReport,
    AnyCommand,
    AnyRequest,
    AnyResponse,
    CancelAfter,
    CancelAfterSet,
    Cancelled,
    Enter,
    InstrumentData,
    Instruments,
    InstrumentState,
    ListInstruments,
    Orders,
    OrderStatus,
    Position,
    Preview,
    Previewed,
    QueryAccount,
    QueryOrder,
    QueryOrders,
    Reduced,
    Rejected,
    Replace,
    Replaced,
    SideText,
    Subscribe,
    Subscribed,
    TimeInForceText,
    Unsubscribe,
    Unsubscribed,
)
from exchange.messages.wire_mass import (
    Killed,
    MassCancelled,
    Protection,
    Quote,
    Quoted,
)

EnterOutcome: TypeAlias = Accepted | Rejected
BatchOutcome: TypeAlias = AnyResponse | OutcomeUnknown

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 0.5  # between two checks of the server's silence
_Answer = TypeVar("_Answer", bound=AnyResponse)
_One = TypeVar("_One", bound=AnyResponse)
_Other = TypeVar("_Other", bound=AnyResponse)
_P = ParamSpec("_P")


@overload
def _sent(
    build: Callable[Concatenate[Requests, _P], AnyCommand], one: type[_One], /
) -> Callable[Concatenate["AsyncClient", _P], Coroutine[Any, Any, _One | Rejected]]: ...
@overload
def _sent(
    build: Callable[Concatenate[Requests, _P], AnyCommand], one: type[_One], other: type[_Other], /
) -> Callable[Concatenate["AsyncClient", _P], Coroutine[Any, Any, _One | _Other | Rejected]]: ...
def _sent(
    build: Callable[..., AnyCommand], /, *kinds: type
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Turn a method that builds a command into one that sends it and returns its answer or
    reject."""

    @wraps(build)
    async def send(client: "AsyncClient", /, *args: Any, **kwargs: Any) -> Any:
        request = build(client.build, *args, **kwargs)
        answer = await client._link.ask(request)
        if isinstance(answer, (*kinds, Rejected)):
            return answer
        raise _astray(request, answer)

    return send


class AsyncClient:
    """One account's client; without a key, one of public data only."""

    def __init__(
        self,
        url: str,
        key: Key | str = "",
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
        connect: Connect = Transport.open,
    ) -> None:
        """``key`` is a ``Key``, or the id of one with ``secret``; without it only public data.

        ``after`` is the ``position`` at which an earlier client of this account stopped: the
        reports since then are delivered first. With ``cancel_on_disconnect`` the exchange cancels
        the session's orders ``grace_ms`` after a disconnect, unless the client has reconnected.
        ``connect`` opens each connection: a WebSocket, or that of a simulation.
        """
        self.url = websocket_url(url)
        self._session = Session(
            key,
            secret,
            started_ns=clock_ns(),
            cancel_on_disconnect=cancel_on_disconnect,
            grace_ms=grace_ms,
            after=after,
        )
        self._build = Requests(self._session.feed, self._session.portfolio, self._session.next_id)
        #: History, statements and keys over HTTP. It connects on first use.
        self.rest = AsyncRest(url, self._session.key or "", clock_ns=clock_ns, chance=chance)
        self._is_known = False
        self._link = Link(
            self.url,
            self._session,
            connect=connect,
            msgpack=msgpack,
            answer_s=answer_s,
            backoff=backoff if backoff is not None else Backoff(),
            clock_ns=clock_ns,
            chance=chance,
        )

    # --- what the client knows ---

    @property
    def is_ready(self) -> bool:
        """Whether a request can be sent now, with instruments, positions and orders known.

        Never before ``connect`` is done; a broken connection makes it false until it is made again.
        """
        return self._is_known and self._link.is_ready

    @property
    def account(self) -> int | None:
        """The key's account, None before the first logon."""
        return self._session.account

    @property
    def session(self) -> int:
        """The number of the engine's session, to which the orders that this client enters belong:
        for ``mass_cancel(session=…)`` beside other clients of the account. 0 before the first
        logon, and for a key that may only read. A reconnect begins another session, unless
        ``cancel_on_disconnect`` kept the first for its grace."""
        return self._session.session_id

    @property
    def position(self) -> Position | None:
        """The last report received: pass it as ``after`` to a later client, which then gets all
        later ones. Take it after ``close``, and read the streams to their end: they may still hold
        events up to it."""
        return self._session.position

    @property
    def instruments(self) -> dict[str, InstrumentData]:
        """Listed instruments by code."""
        return self._session.feed.instruments

    @property
    def states(self) -> dict[str, InstrumentState]:
        """Last state of each instrument whose state channel is subscribed."""
        return self._session.feed.states

    @property
    def orders(self) -> dict[str, Order]:
        """The account's working orders by client order id, as of the last report."""
        return self._session.portfolio.orders

    @property
    def positions(self) -> dict[str, int]:
        """Net lots by instrument, as of the last report; flat instruments are absent."""
        return self._session.portfolio.positions

    @property
    def feed(self) -> Feed:
        """All subscribed public data: books by channel, statistics, settlement prices and the
        like."""
        return self._session.feed

    def book(self, instrument: str, cut: str = "") -> Book:
        """The local book, live while its ``depth`` channel is subscribed.

        ``cut`` is the rest of that channel's name, such as ``top10.100ms``; ``queue`` and ``top``
        take it as well. Raises ValueRefused if the instrument is not listed.
        """
        return self._session.feed.book(instrument, cut)

    def queue(self, instrument: str, cut: str = "") -> QueueBook:
        """Every order of the book with its rank, live while its ``queue`` channel is subscribed."""
        return self._session.feed.queue(instrument, cut)

    def top(self, instrument: str, cut: str = "") -> TopBook:
        """The best level of each side, live while its ``top`` channel is subscribed."""
        return self._session.feed.top(instrument, cut)

    def scale(self, instrument: str) -> PriceScale:
        """Converts ticks to and from text for a listed instrument. KeyError if it is not listed."""
        return self._session.feed.scales[instrument]

    def price_text(self, instrument: str, ticks: int) -> str:
        """Return a price in ticks as dollars per GPU-hour."""
        return self.scale(instrument).text(ticks)

    def next_id(self) -> str:
        """Return an id for an order or request that was never used before."""
        return self._session.next_id()

    @property
    def build(self) -> Requests:
        """Builds requests without sending them, for ``send_batch`` and ``preview``."""
        return self._build

    def events(self) -> EventStream:
        """Return a stream of everything that arrives from now on: reports, public data,
        connections.

        Depth messages are delivered after the local book has applied them.
        """
        return self._link.events()

    # --- connecting ---

    async def __aenter__(self) -> "AsyncClient":
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect, log on, and query instruments, positions and working orders. ``async with`` does
        it.

        Raises ConnectionLost, LogonRefused, OutcomeUnknown; the client is closed then. A second
        call is NotConnected, and changes nothing.
        """
        self._link.check_unused()
        try:
            await self._link.open()
            await self._learn()
        except BaseException:
            await self.close()
            raise

    async def _learn(self) -> None:
        """Make the first queries. ConnectionLost if the connection broke before one of them."""
        try:
            await self.refresh()
        except NotConnected as down:
            raise ConnectionLost(f"before all was known: {down}") from down
        self._is_known = True

    async def close(self) -> None:
        """Disconnect for good; may be repeated. Streams end."""
        try:
            await self._link.close()
        finally:
            await self.rest.close()

    # --- requests: each sends what ``build`` makes of the same arguments, and returns the answer or
    # the reject. Each raises what ``build`` does, NotConnected and OutcomeUnknown. ---

    enter = _sent(Requests.enter, Accepted)
    cancel = _sent(Requests.cancel, Cancelled)
    reduce = _sent(Requests.reduce, Reduced, Cancelled)
    replace = _sent(Requests.replace, Replaced, Cancelled)
    mass_cancel = _sent(Requests.mass_cancel, MassCancelled)
    kill = _sent(Requests.kill, Killed)
    quote = _sent(Requests.quote, Quoted)
    protect = _sent(Requests.protect, Protection)

    async def send_batch(self, requests: Sequence[AnyCommand]) -> list[BatchOutcome]:
        """Send many commands, made by ``build``, in as few frames as possible; return each outcome.

        Each command succeeds or fails by itself. OutcomeUnknown is the outcome of one without an
        answer: send it again. Raises NotConnected, TooMany, and ValueRefused if an id is pending
        for another command.
        """
        return await self._link.ask_many(requests)

    async def preview(self, order: Enter | Replace | Quote) -> Previewed:
        """Return what an order or quote made by ``build`` would do if it were sent now. Nothing
        changes.

        Raises RequestRefused, NotConnected, OutcomeUnknown.
        """
        request = Preview(request_id=self._session.next_id(), order=order)
        return await self._query(request, Previewed)

    async def cancel_after(self, timeout_ms: int) -> CancelAfterSet:
        """Have the exchange cancel this session's orders unless this is called again within
        ``timeout_ms``; 0 turns that off. Raises as ``preview`` does."""
        request = CancelAfter(request_id=self._session.next_id(), timeout_ms=timeout_ms)
        return await self._query(request, CancelAfterSet)

    async def subscribe(self, *channels: str) -> None:
        """Subscribe to public channels: ``top.CODE``, ``depth.CODE``, ``queue.CODE``,
        ``trades.CODE``, ``state.CODE``, ``statistics.CODE``, ``settlements``, ``fixings``,
        ``factors``, and their limited, grouped or conflated forms. Raises RequestRefused,
        NotConnected, OutcomeUnknown."""
        if not self._session.feed.can_show(channels):  # listed since the last query
            await self.query_instruments()
        request = Subscribe(request_id=self._session.next_id(), channels=list(channels))
        await self._query(request, Subscribed)

    async def unsubscribe(self, *channels: str) -> None:
        """End subscriptions. Raises as ``subscribe`` does."""
        request = Unsubscribe(request_id=self._session.next_id(), channels=list(channels))
        await self._query(request, Unsubscribed)

    async def query_account(self) -> AccountReport:
        """Return cash, requirement and positions as of the answer's sequence."""
        return await self._query(QueryAccount(request_id=self._session.next_id()), AccountReport)

    async def query_orders(self) -> Orders:
        """Return the account's working orders as of the answer's sequence."""
        return await self._query(QueryOrders(request_id=self._session.next_id()), Orders)

    async def query_order(
        self, client_order_id: str | None = None, *, order_id: str | None = None
    ) -> OrderStatus:
        """Return the state of one order, by one of its ids, as of the answer's sequence.

        If the order is still on its way, the answer waits for it up to a second; after that the
        state is ``unknown``, and the order may still arrive. Raises RequestRefused.
        """
        request = QueryOrder(
            request_id=self._session.next_id(), client_order_id=client_order_id, order_id=order_id
        )
        return await self._query(request, OrderStatus)

    async def query_instruments(self) -> Instruments:
        """Return every listed instrument."""
        request = ListInstruments(request_id=self._session.next_id())
        return await self._query(request, Instruments)

    async def margin(self) -> Margin:
        """Return the account's money: cash, what orders and positions require, and what is free."""
        return margin_of(await self.query_account())

    async def statement(self, date: int = 0) -> StatementReport:
        """Return the statement of a business date (yyyymmdd), or of all time.

        It comes over HTTP, as clearing has booked it. Raises as ``clients.rest`` does.
        """
        return await self.rest.statement(date)

    async def enter_strip(
        self,
        strip: Strip,
        side: SideText,
        prices: Mapping[str, Number | None] | None = None,
        *,
        strip_id: str | None = None,
        time_in_force: TimeInForceText | None = None,
    ) -> dict[str, BatchOutcome]:
        """Enter all months of a strip in one frame; return the outcomes by instrument.

        One order per leg, of its lots, at its price in ``prices``; a market order if that is None,
        or there are no ``prices``. Called again with the same ``strip_id`` it is a retry: each
        order is entered once. Raises as ``send_batch`` does, and ValueRefused if ``prices`` lack a
        leg: a month that was forgotten must not trade at any price.
        """
        known = strip_id if strip_id is not None else self.next_id()
        legs = [leg for leg in strip.legs if leg.lots]
        missing = [leg.instrument for leg in legs if leg.instrument not in (prices or {})]
        if prices is not None and missing:
            raise ValueRefused(f"no price for {', '.join(missing)}")
        orders = [
            self._build.enter(
                leg.instrument,
                side,
                leg.lots,
                (prices or {}).get(leg.instrument),
                client_order_id=f"{known}.{leg.instrument}",
                time_in_force=time_in_force,
            )
            for leg in legs
        ]
        outcomes = await self.send_batch(orders)
        return {leg.instrument: outcome for leg, outcome in zip(legs, outcomes, strict=True)}

    async def refresh(self) -> None:
        """Query instruments and, with a key, positions and working orders."""
        await self.query_instruments()
        if self._session.key is not None:
            await self.query_account()
            await self.query_orders()

    async def _query(self, request: AnyRequest, kind: type[_Answer]) -> _Answer:
        answer = await self._link.ask(request)
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, Rejected):
            raise refusal(answer)
        raise _astray(request, answer)


def _astray(request: AnyRequest, answer: AnyResponse) -> ProtocolError:
    return ProtocolError(f"{type(answer).__name__} does not answer {type(request).__name__}")
