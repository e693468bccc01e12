"""HTTP requests: contracts, history, statements, account and keys.

    async with AsyncRest("http://localhost:8000", Key.from_file("key.json")) as rest:
        async for trade in rest.trades("H100Z26"):
            ...

``Rest`` is the same for programs without an event loop. A history is an iterator that fetches its
pages by itself; another one can continue from its ``after`` at any later time. Every request is a
GET, so one that got no answer, or was sent too soon, is repeated with a new signature.
"""

import asyncio
import random
import time
from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from clients.backoff import Backoff
from clients.decimals import Number, checked_decimal, quantity_text
from clients.errors import (
    ConnectionLost,
    NotConnected,
    ProtocolError,
    RequestRefused,
    ValueRefused,
    refusal,
)
from clients.keys import Key, key_of
from clients.loop import Blocking, LoopThread, blocking
from clients.pages import BlockingPages, Pages
from clients.transport import http_url
from exchange.messages.access import signed_request
from exchange.messages.rest import (
    MS_MAX,
    PAGE_MOST,
    Candle,
    Candles,
    Contracts,
    Costs,
    Events,
    Fills,
    KeyReport,
    KeyReports,
    Positions,
    Product,
    PublicRow,
    Report,
    SettlementPrice,
    SettlementPrices,
    StatementReport,
    Trades,
)
from exchange.messages.wire import (
    AccountReport,
    Corrected,
    Execution,
    InstrumentData,
    Instruments,
    LegTraded,
    Orders,
    OrderStatus,
    Previewed,
    Rejected,
    SideText,
    TimeInForceText,
)

PREFIX: Final = "/api/v1"
ATTEMPTS: Final = 5  # per request
ANSWER_SECONDS: Final = 10.0
ANSWER_BYTES_MAX: Final = 1 << 26  # larger than any answer of a market
AGAIN: Final = frozenset({"NONCE"})  # refusals that a new signature avoids
IntervalText: TypeAlias = Literal["1m", "5m", "1h", "1d"]
Fill: TypeAlias = Execution | LegTraded | Corrected
# The epoch of a cursor behind a report: the sequence determines it, so any upper bound will do.
ANY_EPOCH: Final = 9_999_999_999
_A = TypeVar("_A")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class AsyncRest:
    """One account's client; without a key, one of public data only. Every method raises
    RequestRefused, ConnectionLost and ProtocolError."""

    def __init__(
        self,
        url: str,
        key: Key | str = "",
        secret: str = "",
        *,
        backoff: Backoff | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``url`` is any address of the market, ``ws://`` or ``http://``."""
        self.url = http_url(url)
        self._key = key_of(key, secret)
        self._backoff = backoff if backoff is not None else Backoff()
        self._clock_ns, self._chance = clock_ns, chance
        self._http: aiohttp.ClientSession | None = None
        # Signed requests are sent one after the other, so that nonces rise
        self._turn = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> "AsyncRest":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect for good; may be repeated."""
        self._closed = True
        if self._http is not None:
            await self._http.close()

    # --- the market ---

    async def contracts(self) -> list[Product]:
        """Return the products with their terms in force."""
        return (await self._get("/contracts", Contracts)).contracts

    async def instruments(self, state: Literal["live", "all"] = "live") -> list[InstrumentData]:
        """Return the listed instruments; with ``all``, the expired ones as well."""
        asked = "" if state == "live" else state
        return (await self._get("/instruments", Instruments, state=asked)).instruments

    async def costs(self) -> Costs:
        """Return the tokens that each request costs, and the limits on requests."""
        return await self._get("/costs", Costs)

    def trades(
        self,
        instrument: str,
        *,
        from_ms: int = 0,
        to_ms: int = MS_MAX,
        after: str = "",
        limit: int = PAGE_MOST,
    ) -> Pages[PublicRow]:
        """Return an instrument's trades, their corrections, and lots moved off the book."""
        query = {"from_ms": from_ms, "to_ms": to_ms, "limit": limit}

        async def turn(after: str) -> tuple[list[PublicRow], str | None]:
            told = await self._get(f"/trades/{_part(instrument)}", Trades, after=after, **query)
            return told.trades, told.next

        return Pages(turn, after, _behind)

    def candles(
        self,
        instrument: str,
        interval: IntervalText = "1h",
        *,
        from_ms: int = 0,
        limit: int = PAGE_MOST,
    ) -> Pages[Candle]:
        """Return an instrument's candles, of trades as printed: busted ones are included.

        Intervals without a trade have none. The cursor is a time in milliseconds.
        """

        async def turn(after: str) -> tuple[list[Candle], str | None]:
            told = await self._get(
                f"/candles/{_part(instrument)}",
                Candles,
                interval=interval,
                from_ms=after,
                limit=limit,
            )
            return told.candles, None if told.next is None else str(told.next)

        return Pages(turn, str(from_ms), lambda candle: str(candle.start_ms))

    def settlement_prices(
        self,
        instrument: str = "",
        *,
        from_date: int = 0,
        to_date: int = 0,
        after: str = "",
        limit: int = PAGE_MOST,
    ) -> Pages[SettlementPrice]:
        """Return settlement prices of one instrument or all, by business date (yyyymmdd)."""
        query: dict[str, str | int] = {
            "code": instrument,
            "from_date": from_date or "",
            "to_date": to_date or "",
            "limit": limit,
        }

        async def turn(after: str) -> tuple[list[SettlementPrice], str | None]:
            told = await self._get("/settlement-prices", SettlementPrices, after=after, **query)
            return told.prices, told.next

        return Pages(turn, after)

    # --- the account ---

    async def account(self) -> AccountReport:
        """Return cash, margin and positions."""
        return await self._get("/account", AccountReport)

    async def positions(self) -> Positions:
        """Return the positions alone."""
        return await self._get("/positions", Positions)

    async def preview(
        self,
        instrument: str,
        side: SideText,
        quantity: Number,
        price: str | Decimal | None = None,
        *,
        time_in_force: TimeInForceText | None = None,
        expires_ms: int | None = None,
        post_only: bool = False,
        reduce_only: bool = False,
    ) -> Previewed:
        """Return what an order would do if it were sent now, a market order without a price; a key
        that may only read is enough. Nothing changes.

        Prices are strings or Decimals in dollars; quantities whole lots. ValueRefused for anything
        else.
        """
        if isinstance(price, int):
            raise ValueRefused(f"{price} ticks: the tick is not known here; write dollars as text")
        flags = {"post_only": post_only, "reduce_only": reduce_only}
        return await self._get(
            "/preview",
            Previewed,
            instrument=instrument,
            side=side,
            quantity=quantity_text(quantity),
            type="market" if price is None else "limit",
            price="" if price is None else f"{checked_decimal(price, 'price'):f}",
            time_in_force=time_in_force or "",
            expires_ms="" if expires_ms is None else expires_ms,
            **{name: "true" for name, is_set in flags.items() if is_set},
        )

    async def orders(self) -> Orders:
        """Return the working orders."""
        return await self._get("/orders", Orders)

    async def order(
        self, client_order_id: str | None = None, *, order_id: str | None = None
    ) -> OrderStatus:
        """Return the state of one order, by one of its ids, working or recently ended.

        If the order is still on its way, the answer waits for it up to a second; after that the
        state is ``unknown``, and the order may still arrive. ValueError unless exactly one id is
        given.
        """
        if (client_order_id is None) == (order_id is None):
            raise ValueError("name the order by exactly one of its ids")
        if client_order_id is not None:
            return await self._get("/order", OrderStatus, client_order_id=client_order_id)
        return await self._get(f"/order/{_part(order_id)}", OrderStatus)

    def fills(
        self, *, from_ms: int = 0, to_ms: int = MS_MAX, after: str = "", limit: int = PAGE_MOST
    ) -> Pages[Fill]:
        """Return executions, leg trades and corrections, as they were reported."""
        query = {"from_ms": from_ms, "to_ms": to_ms, "limit": limit}

        async def turn(after: str) -> tuple[list[Fill], str | None]:
            told = await self._get("/fills", Fills, after=after, **query)
            return told.fills, told.next

        return Pages(turn, after, _behind)

    def events(
        self, *, from_ms: int = 0, to_ms: int = MS_MAX, after: str = "", limit: int = PAGE_MOST
    ) -> Pages[Report]:
        """Return every report of the account, as its connections received them; none is missing."""
        query = {"from_ms": from_ms, "to_ms": to_ms, "limit": limit}

        async def turn(after: str) -> tuple[list[Report], str | None]:
            told = await self._get("/events", Events, after=after, **query)
            return told.events, told.next

        return Pages(turn, after, _behind)

    async def statement(self, date: int = 0) -> StatementReport:
        """Return the statement of a business date (yyyymmdd), or of all time."""
        return await self._get("/statement", StatementReport, date=date or "")

    async def keys(self) -> list[KeyReport]:
        """Return the account's keys, without anything secret."""
        return (await self._get("/keys", KeyReports)).keys

    # --- one request ---

    async def _get(self, path: str, kind: type[_A], **query: str | int) -> _A:
        """Repeat a request until there is an answer or a final refusal, at most ``ATTEMPTS``
        times."""
        said = _readable(urlencode, {name: value for name, value in query.items() if value != ""})
        target = f"{PREFIX}{path}?{said}" if said else f"{PREFIX}{path}"
        attempt = 0
        while True:
            wait_ms = 0
            try:
                return _read(*await self._ask(target), kind)
            except ConnectionLost:
                if attempt + 1 == ATTEMPTS:
                    raise
            except RequestRefused as refused:
                again = refused.retryable or refused.reason in AGAIN
                if not again or attempt + 1 == ATTEMPTS:
                    raise
                wait_ms = refused.retry_after_ms or 0
            await asyncio.sleep(max(wait_ms / 1000, self._backoff.seconds(attempt, self._chance)))
            attempt += 1

    async def _ask(self, target: str) -> tuple[int, bytes]:
        if self._key is None:
            return await self._send(target, {})
        async with self._turn:
            return await self._send(target, signed_headers(self._key, target, self._clock_ns()))

    async def _send(self, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._closed:
            raise NotConnected("the client is closed")
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            self._http = aiohttp.ClientSession(timeout=timeout)
        try:
            # The target is sent as it was signed: another spelling would be a bad signature, and
            # five of those lock the key. Redirects are not followed: what is signed for one market
            # must not be sent elsewhere.
            address = URL(self.url + target, encoded=True)
            async with self._http.get(address, headers=headers, allow_redirects=False) as answer:
                body = bytearray()
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > ANSWER_BYTES_MAX:
                        raise ProtocolError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
                return answer.status, bytes(body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ConnectionLost(f"no answer from {self.url}: {error}") from error


def signed_headers(key: Key, target: str, now_ns: int) -> dict[str, str]:
    """Return the headers that sign a GET."""
    timestamp_ms, nonce = now_ns // 1_000_000, key.next_nonce(now_ns)
    text = signed_request(timestamp_ms, nonce, key.key_id, "GET", target, b"")
    return {
        "Hourbook-Key": key.key_id,
        "Hourbook-Timestamp": str(timestamp_ms),
        "Hourbook-Nonce": str(nonce),
        "Hourbook-Signature": key.sign(text),
    }


def _part(text: str | None) -> str:
    """Return text as one part of a path."""
    return _readable(lambda: quote(str(text), safe=""))


def _readable(encode: Callable[_P, str], *args: _P.args, **kwargs: _P.kwargs) -> str:
    """Return text as it is sent. ValueRefused for a lone surrogate, which no text can have."""
    try:
        return encode(*args, **kwargs)
    except UnicodeEncodeError as error:
        raise ValueRefused(f"text that cannot be sent: {error}") from None


def _behind(item: PublicRow | Report) -> str:
    return f"{ANY_EPOCH}.{item.sequence}.{item.index}"


def _read(status: int, body: bytes, kind: type[_A]) -> _A:
    try:
        if status == 200:
            return msgspec.json.decode(body, type=kind)
        refused = msgspec.json.decode(body, type=Rejected)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"status {status}: unreadable answer: {error}") from error
    raise refusal(refused)


def _iterating(
    method: Callable[Concatenate[AsyncRest, _P], Pages[_T]],
) -> Callable[Concatenate["Rest", _P], BlockingPages[_T]]:
    """Return the async method with its pages as a blocking iterator."""

    @wraps(method)
    def call(rest: "Rest", /, *args: _P.args, **kwargs: _P.kwargs) -> BlockingPages[_T]:
        return BlockingPages(rest.loop, method(rest.asynchronous, *args, **kwargs))

    return call


class Rest(Blocking[AsyncRest]):
    """``AsyncRest`` for programs without an event loop, with the same options."""

    contracts = blocking(AsyncRest.contracts)
    instruments = blocking(AsyncRest.instruments)
    trades = _iterating(AsyncRest.trades)
    candles = _iterating(AsyncRest.candles)
    settlement_prices = _iterating(AsyncRest.settlement_prices)
    account = blocking(AsyncRest.account)
    positions = blocking(AsyncRest.positions)
    preview = blocking(AsyncRest.preview)
    orders = blocking(AsyncRest.orders)
    order = blocking(AsyncRest.order)
    fills = _iterating(AsyncRest.fills)
    events = _iterating(AsyncRest.events)
    costs = blocking(AsyncRest.costs)
    statement = blocking(AsyncRest.statement)
    keys = blocking(AsyncRest.keys)

    def __init__(self, url: str, key: Key | str = "", secret: str = "", **options: Any) -> None:
        super().__init__(lambda: AsyncRest(url, key, secret, **options))

    @classmethod
    def _within(cls, loop: LoopThread, asynchronous: AsyncRest) -> "Rest":
        """Return the blocking side of one that another client has in its loop."""
        made = cls.__new__(cls)
        Blocking.__init__(made, lambda: asynchronous, loop)
        return made

    def __enter__(self) -> "Rest":
        return self
