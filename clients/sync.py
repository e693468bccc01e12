"""The client for programs without an event loop: ``clients.aio`` in its own thread.

    with Client("ws://localhost:8000", key_id, secret) as client:
        outcome = client.enter("H100Z26", "buy", 2, "2.650")

Every call waits for its answer and raises what the async one raises. ``orders``, ``positions`` and
``depth`` are read in the loop's thread, so each is of one moment.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, TypeVar

from clients.aio import AsyncClient
from clients.book import BookState
from clients.decimals import PriceScale
from clients.errors import NotConnected
from clients.events import AnyEvent, EventStream
from clients.feed import States
from clients.keys import Key
from clients.loop import Blocking, blocking
from clients.portfolio import Order
from clients.requests import Requests
from clients.rest import Rest
from exchange.messages.wire import (
    FactorsPublished,
    IndexFixing,
    InstrumentData,
    InstrumentState,
    InstrumentStatistics,
    Position,
    SettlementPrice,
)

Levels = list[tuple[int, int]]  # (price_ticks, lots), best first
Orders = list[tuple[int, int, int]]  # (rank, price_ticks, lots), in trading order
Best = tuple[int, int, int] | None  # (price_ticks, lots, orders)
_R = TypeVar("_R")


class Client(Blocking[AsyncClient]):
    """One account's client. The options are those of ``AsyncClient``."""

    enter = blocking(AsyncClient.enter)
    cancel = blocking(AsyncClient.cancel)
    reduce = blocking(AsyncClient.reduce)
    replace = blocking(AsyncClient.replace)
    mass_cancel = blocking(AsyncClient.mass_cancel)
    kill = blocking(AsyncClient.kill)
    quote = blocking(AsyncClient.quote)
    protect = blocking(AsyncClient.protect)
    send_batch = blocking(AsyncClient.send_batch)
    preview = blocking(AsyncClient.preview)
    cancel_after = blocking(AsyncClient.cancel_after)
    subscribe = blocking(AsyncClient.subscribe)
    unsubscribe = blocking(AsyncClient.unsubscribe)
    query_account = blocking(AsyncClient.query_account)
    query_orders = blocking(AsyncClient.query_orders)
    query_order = blocking(AsyncClient.query_order)
    query_instruments = blocking(AsyncClient.query_instruments)
    refresh = blocking(AsyncClient.refresh)
    margin = blocking(AsyncClient.margin)
    statement = blocking(AsyncClient.statement)
    enter_strip = blocking(AsyncClient.enter_strip)

    def __init__(self, url: str, key: Key | str = "", secret: str = "", **options: Any) -> None:
        super().__init__(lambda: AsyncClient(url, key, secret, **options))
        #: History, statements and keys over HTTP. It connects on first use.
        self.rest = Rest._within(self.loop, self.asynchronous.rest)

    def __enter__(self) -> "Client":
        self.connect()
        return self

    def connect(self) -> None:
        """Connect and log on; ``with`` does it. Raises as ``AsyncClient.connect``; the client is
        closed then, except by a second call."""
        self._read(lambda client: client._link.check_unused())
        try:
            self.wait(self.asynchronous.connect())
        except BaseException:
            self.loop.stop()
            raise

    def price_text(self, instrument: str, ticks: int) -> str:
        """Return a price in ticks as dollars per GPU-hour. KeyError if the instrument is not
        listed."""
        return self.asynchronous.price_text(instrument, ticks)

    def scale(self, instrument: str) -> PriceScale:
        """Converts ticks to and from text for a listed instrument. KeyError if it is not listed."""
        return self.asynchronous.scale(instrument)

    @property
    def is_ready(self) -> bool:
        """Whether a request can be sent now; see ``AsyncClient.is_ready``."""
        try:
            return self._read(lambda client: client.is_ready)
        except NotConnected:  # closed
            return False

    @property
    def account(self) -> int | None:
        """The key's account, None before the first logon."""
        return self._read(lambda client: client.account)

    @property
    def session(self) -> int:
        """The number of the engine's session; see ``AsyncClient.session``."""
        return self._read(lambda client: client.session)

    def next_id(self) -> str:
        """Return an id for an order or request that was never used before."""
        return self._read(lambda client: client.next_id())

    @property
    def build(self) -> Requests:
        """Builds requests without sending them, for ``send_batch`` and ``preview``."""
        return self.asynchronous.build

    @property
    def position(self) -> Position | None:
        """The last report received, also after ``close``; see ``AsyncClient.position``."""
        try:
            return self._read(lambda client: client.position)
        except NotConnected:  # closed: it stays what it was
            return self.asynchronous.position

    @property
    def instruments(self) -> dict[str, InstrumentData]:
        """Listed instruments by code."""
        return self._read(lambda client: dict(client.instruments))

    @property
    def states(self) -> dict[str, InstrumentState]:
        """Last state of each instrument whose state channel is subscribed."""
        return self._read(lambda client: States(client.states))

    @property
    def statistics(self) -> dict[str, InstrumentStatistics]:
        """The business day of each instrument whose statistics channel is subscribed."""
        return self._read(lambda client: dict(client.feed.statistics))

    @property
    def settlements(self) -> dict[str, SettlementPrice]:
        """The last settlement price by instrument, while the channel ``settlements`` is
        subscribed."""
        return self._read(lambda client: dict(client.feed.settlements))

    @property
    def fixings(self) -> dict[str, IndexFixing]:
        """The last fixing by index, while the channel ``fixings`` is subscribed."""
        return self._read(lambda client: dict(client.feed.fixings))

    @property
    def factors(self) -> dict[tuple[str, str], FactorsPublished]:
        """The last factor table by grade and expiry, while the channel ``factors`` is
        subscribed."""
        return self._read(lambda client: dict(client.feed.factors))

    @property
    def orders(self) -> dict[str, Order]:
        """The account's working orders by client order id."""
        return self._read(lambda client: deepcopy(client.orders))

    @property
    def positions(self) -> dict[str, int]:
        """Net lots by instrument."""
        return self._read(lambda client: dict(client.positions))

    def depth(self, instrument: str, count: int | None = None) -> tuple[Levels, Levels] | None:
        """Return the best bids and asks of the local book; None if the book is not live."""

        def read(client: AsyncClient) -> tuple[Levels, Levels] | None:
            book = client.book(instrument)
            if book.state is not BookState.LIVE:
                return None
            return book.bids(count), book.asks(count)

        return self._read(read)

    def queue(self, instrument: str, count: int | None = None) -> tuple[Orders, Orders] | None:
        """Return the first bids and asks of the local queue as (rank, price_ticks, lots); None if
        it is not live."""

        def read(client: AsyncClient) -> tuple[Orders, Orders] | None:
            queue = client.queue(instrument)
            return (queue.bids(count), queue.asks(count)) if queue.is_live else None

        return self._read(read)

    def top(self, instrument: str) -> tuple[Best, Best] | None:
        """Return the best bid and ask as (price_ticks, lots, orders), None for an empty side; None
        if the local copy is not live."""

        def read(client: AsyncClient) -> tuple[Best, Best] | None:
            top = client.top(instrument)
            return (top.bid, top.ask) if top.is_live else None

        return self._read(read)

    @contextlib.contextmanager
    def events(self) -> Iterator["Events"]:
        """Yield an iterator over everything that arrives while the block runs."""
        stream = self._read(lambda client: client.events())
        try:
            yield Events(self, stream)
        finally:
            with contextlib.suppress(NotConnected):  # closed, by whichever thread: it has ended
                self._read(lambda _: stream.close())

    def _read(self, look: Callable[[AsyncClient], _R]) -> _R:
        async def read() -> _R:
            return look(self.asynchronous)

        return self.wait(read())


class Events:
    """An iterator over events; ``next_within`` waits only for a given time."""

    def __init__(self, client: Blocking[Any], stream: EventStream) -> None:
        self._client = client
        self._stream = stream

    def __iter__(self) -> "Events":
        return self

    def __next__(self) -> AnyEvent:
        event = self._take(None)
        if event is None:
            raise StopIteration
        return event

    def next_within(self, seconds: float) -> AnyEvent | None:
        """Return the next event; None if none comes in time, or a closed client has none left."""
        return self._take(seconds)

    def _take(self, seconds: float | None) -> AnyEvent | None:
        async def take() -> AnyEvent | None:
            try:
                async with asyncio.timeout(seconds):
                    return await anext(self._stream)
            except (TimeoutError, StopAsyncIteration):
                return None

        try:
            return self._client.wait(take())
        except NotConnected:  # it was closed: events that had arrived remain
            return self._stream.left()
