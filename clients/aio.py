"""The async client: a thin shell of sockets, tasks and time around ``clients.session``.

    async with AsyncClient("ws://localhost:8000", key_id, secret) as client:
        outcome = await client.enter("H100Z26", "buy", 2, "2.650")

The first connection must succeed. After that a broken one is made again until ``close``: the
client logs on, gets what it missed, joins its channels and repeats what was not answered, under
the same ids. Every event is delivered once.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

from clients.backoff import Backoff
from clients.book import Book, QueueBook, TopBook
from clients.decimals import Number, PriceScale
from clients.errors import (
    OutcomeUnknown,
    ProtocolError,
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
    SelfTradeText,
    SideText,
    Subscribe,
    Subscribed,
    TimeInForceText,
    Unsubscribe,
    Unsubscribed,
)
from exchange.messages.wire_mass import (
    Killed,
    KillText,
    MassCancelled,
    Protection,
    Quote,
    Quoted,
    QuoteTimeText,
)

EnterOutcome: TypeAlias = Accepted | Rejected
CancelOutcome: TypeAlias = Cancelled | Rejected
ReduceOutcome: TypeAlias = Reduced | Cancelled | Rejected
ReplaceOutcome: TypeAlias = Replaced | Cancelled | Rejected
MassCancelOutcome: TypeAlias = MassCancelled | Rejected
KillOutcome: TypeAlias = Killed | Rejected
QuoteOutcome: TypeAlias = Quoted | Rejected
ProtectOutcome: TypeAlias = Protection | Rejected
BatchOutcome: TypeAlias = AnyResponse | OutcomeUnknown

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 0.5  # how often the server's silence is judged
_Answer = TypeVar("_Answer", bound=AnyResponse)


class AsyncClient:
    """One account's client, or without a key one of public data only."""

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
        """``key`` is a ``Key``, or the id of one with ``secret``; none: public data only.

        ``after`` is the ``position`` at which an earlier client of this account stopped: what
        came since is delivered first. ``grace_ms`` is how long the exchange waits for a
        reconnect before it cancels, with ``cancel_on_disconnect``, the session's orders.
        ``connect`` opens each connection: a WebSocket, unless a simulation brings its own.
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
        #: What is asked over HTTP: history, statements, keys. It connects when it is used.
        self.rest = AsyncRest(url, self._session.key or "", clock_ns=clock_ns, chance=chance)
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
        """Whether a request can be sent now."""
        return self._link.is_ready

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

    @property
    def feed(self) -> Feed:
        """All public data that was joined: books of each channel, statistics, prints."""
        return self._session.feed

    def book(self, instrument: str, cut: str = "") -> Book:
        """The local book, live while its ``depth`` channel is joined; ``cut`` is the rest of that
        channel's name, ``top10.100ms`` for one. ``queue`` and ``top`` are likewise."""
        return self._session.feed.book(instrument, cut)

    def queue(self, instrument: str, cut: str = "") -> QueueBook:
        """Every order of the book at its rank, live while its ``queue`` channel is joined."""
        return self._session.feed.queue(instrument, cut)

    def top(self, instrument: str, cut: str = "") -> TopBook:
        """The best level of each side, live while its ``top`` channel is joined."""
        return self._session.feed.top(instrument, cut)

    def scale(self, instrument: str) -> PriceScale:
        """Ticks to and from text for a listed instrument. KeyError if it is not listed."""
        return self._session.feed.scales[instrument]

    def price_text(self, instrument: str, ticks: int) -> str:
        """A price in ticks as dollars per GPU-hour."""
        return self.scale(instrument).text(ticks)

    def next_id(self) -> str:
        """A client order id or request id never used before."""
        return self._session.next_id()

    @property
    def build(self) -> Requests:
        """Makes requests without sending them, for ``send_batch`` and ``preview``."""
        return self._build

    def events(self) -> EventStream:
        """Everything that arrives from now on, in order: reports, public data, connections.

        Depth arrives here after the local book has taken it in.
        """
        return self._link.events()

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
        try:
            await self._link.open()
            await self.refresh()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect for good; harmless to repeat. Streams end."""
        await self._link.close()
        await self.rest.close()

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
        expires_ms: int | None = None,
        minimum_quantity: Number | None = None,
        protection: Number | None = None,
        stop_price: Number | None = None,
        display_quantity: Number | None = None,
        reduce_only: bool = False,
        group_with: str | None = None,
        valid_until_ms: int | None = None,
    ) -> EnterOutcome:
        """Enter a limit order, or without a price a market order.

        Prices are strings or Decimals in dollars, or ints of ticks; quantities whole lots. Called
        again with the same ``client_order_id`` and fields it is a retry: one order exists.
        With ``GTD`` goes ``expires_ms``, milliseconds since the epoch. ``minimum_quantity`` must
        trade at once, or all is cancelled. A market order with a time in force that rests takes
        the best opposite price for its limit; ``protection`` puts the limit that far beyond it.
        ``stop_price`` makes it a stop: it waits for a trade at that price or through it.
        ``display_quantity`` makes it an iceberg, which shows that many lots at a time.
        ``reduce_only`` orders give way when there is less to reduce. With ``group_with``, another
        order's id, a trade of one of the two cancels the other. After ``valid_until_ms`` the
        exchange drops it: LATE. Raises ValueRefused, NotConnected, OutcomeUnknown.
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
            expires_ms=expires_ms,
            minimum_quantity=minimum_quantity,
            protection=protection,
            stop_price=stop_price,
            display_quantity=display_quantity,
            reduce_only=reduce_only,
            group_with=group_with,
            valid_until_ms=valid_until_ms,
        )
        answer = await self._link.ask(request)
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
        answer = await self._link.ask(request)
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
        answer = await self._link.ask(request)
        if isinstance(answer, Reduced | Cancelled | Rejected):
            return answer
        raise _astray(request, answer)

    async def replace(
        self,
        client_order_id: str | None = None,
        *,
        quantity: Number,
        price: Number,
        instrument: str = "",
        order_id: str | None = None,
        post_only: bool = False,
        request_id: str | None = None,
    ) -> ReplaceOutcome:
        """Give an order a new price and total quantity (executed lots included).

        At the same price and no larger it keeps its place. ``instrument`` is needed only for an
        order whose acceptance this client has not seen. Raises as ``enter`` does.
        """
        request = self._build.replace(
            client_order_id,
            quantity=quantity,
            price=price,
            instrument=instrument,
            order_id=order_id,
            post_only=post_only,
            request_id=request_id,
        )
        answer = await self._link.ask(request)
        if isinstance(answer, Replaced | Cancelled | Rejected):
            return answer
        raise _astray(request, answer)

    async def mass_cancel(
        self,
        *,
        instrument: str | None = None,
        product: str | None = None,
        side: SideText | None = None,
        session: int | None = None,
        request_id: str | None = None,
    ) -> MassCancelOutcome:
        """Cancel all of the account's orders, or those that every choice given means, at once.

        A report of each follows the answer. Raises as ``enter`` does.
        """
        request = self._build.mass_cancel(
            instrument=instrument,
            product=product,
            side=side,
            session=session,
            request_id=request_id,
        )
        answer = await self._link.ask(request)
        if isinstance(answer, MassCancelled | Rejected):
            return answer
        raise _astray(request, answer)

    async def kill(
        self, scope: KillText = "session", *, request_id: str | None = None
    ) -> KillOutcome:
        """Throw the kill switch of this session or of the account: orders are cancelled, and only
        an operator lets it trade again. Raises as ``enter`` does."""
        request = self._build.kill(scope, request_id=request_id)
        answer = await self._link.ask(request)
        if isinstance(answer, Killed | Rejected):
            return answer
        raise _astray(request, answer)

    async def quote(
        self,
        instrument: str,
        *,
        bid: tuple[Number, Number] | None = None,
        ask: tuple[Number, Number] | None = None,
        time_in_force: QuoteTimeText = "DAY",
        request_id: str | None = None,
    ) -> QuoteOutcome:
        """Say both sides of the quote in an instrument, each (price, quantity) or None for none.

        A side that is as it was keeps its place. It never takes. Raises as ``enter`` does.
        """
        request = self._build.quote(
            instrument, bid=bid, ask=ask, time_in_force=time_in_force, request_id=request_id
        )
        answer = await self._link.ask(request)
        if isinstance(answer, Quoted | Rejected):
            return answer
        raise _astray(request, answer)

    async def protect(
        self, product: str, quantity: Number, window_ms: int, *, request_id: str | None = None
    ) -> ProtectOutcome:
        """Bound the lots that the quotes in a product may trade within a window; 0 and 0: not.

        Once they have, quotes are refused until this is called again. Raises as ``enter`` does.
        """
        request = self._build.protect(product, quantity, window_ms, request_id=request_id)
        answer = await self._link.ask(request)
        if isinstance(answer, Protection | Rejected):
            return answer
        raise _astray(request, answer)

    async def send_batch(self, requests: Sequence[AnyCommand]) -> list[BatchOutcome]:
        """Send many commands, made by ``build``, in as few frames as may be; the outcome of each.

        A bad one spoils itself alone. OutcomeUnknown stands where no answer came: send that one
        again. Raises NotConnected, TooMany, and ValueRefused if an id is pending otherwise.
        """
        return await self._link.ask_many(requests)

    async def preview(self, order: Enter | Replace | Quote) -> Previewed:
        """What an order or quote made by ``build`` would do if it were sent now; nothing happens.

        Raises RequestRefused, NotConnected, OutcomeUnknown.
        """
        request = Preview(request_id=self._session.next_id(), order=order)
        return await self._query(request, Previewed)

    async def cancel_after(self, timeout_ms: int) -> CancelAfterSet:
        """Have the exchange cancel this session's orders unless this is called again in time;
        0 takes that back. Raises as ``preview`` does.
        """
        request = CancelAfter(request_id=self._session.next_id(), timeout_ms=timeout_ms)
        return await self._query(request, CancelAfterSet)

    async def subscribe(self, *channels: str) -> None:
        """Join public channels: ``top.CODE``, ``depth.CODE``, ``queue.CODE``, ``trades.CODE``,
        ``state.CODE``, ``statistics.CODE``, ``settlements``, ``fixings``, ``factors``, and cuts of
        them. Raises RequestRefused."""
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

    async def query_order(
        self, client_order_id: str | None = None, *, order_id: str | None = None
    ) -> OrderStatus:
        """What is known of one order, by one of its ids, as of the answer's sequence.

        One that is under way is waited for, a second at most: it is ``unknown`` then, which is
        neither a reject nor the promise of one. Raises RequestRefused.
        """
        request = QueryOrder(
            request_id=self._session.next_id(), client_order_id=client_order_id, order_id=order_id
        )
        return await self._query(request, OrderStatus)

    async def query_instruments(self) -> Instruments:
        """Every listed instrument."""
        request = ListInstruments(request_id=self._session.next_id())
        return await self._query(request, Instruments)

    async def margin(self) -> Margin:
        """The account's money: what it has, what its orders and positions hold, what is free."""
        return margin_of(await self.query_account())

    async def statement(self, date: int = 0) -> StatementReport:
        """The statement of a business date (yyyymmdd), or of the account's whole life.

        It comes over HTTP, as clearing has booked it. Raises as ``clients.rest`` does.
        """
        return await self.rest.statement(date)

    async def enter_strip(
        self,
        strip: Strip,
        side: SideText,
        prices: Mapping[str, Number] | None = None,
        *,
        strip_id: str | None = None,
        time_in_force: TimeInForceText | None = None,
    ) -> dict[str, BatchOutcome]:
        """Enter all months of a strip in one frame: an order of each leg's lots at its price in
        ``prices``, at the market for one that is not named. The outcome of each, by instrument.

        Called again with the same ``strip_id`` it is a retry: each order exists once.
        Raises as ``send_batch`` does.
        """
        known = strip_id if strip_id is not None else self.next_id()
        legs = [leg for leg in strip.legs if leg.lots]
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
        """Learn instruments and, with a key, positions and working orders from the exchange."""
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
