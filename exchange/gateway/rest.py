"""The HTTP API: a table of routes and their handlers.

Every request is checked in the same order: rate limit, signature, right, query. Answers from memory
are given at once. Answers from disk are read in a thread, in bounded pages, for a bounded number of
waiting requests, so that the event loop is never blocked.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from functools import partial
from secrets import token_hex
from typing import Any, Final, NamedTuple, Protocol, TypeVar, get_args

import msgspec
from aiohttp import web

from contracts import registry
from exchange.gateway import archive
from exchange.gateway.access import Key, is_loopback
from exchange.gateway.accounts import Order
from exchange.gateway.archive import CandleRow
from exchange.gateway.corrections import CORRECTIONS
from exchange.gateway.decode import Refused, explain
from exchange.gateway.http import Flood, admit, answer_refused, json_answer
from exchange.gateway.hub import Hub
from exchange.gateway.previews import PREVIEWS_A_SECOND
from exchange.gateway.resume import reports_of
from exchange.gateway.seats import KEY_CONNECTIONS
from exchange.marketdata.happenings import (
    TRADE_CORRECTIONS,
    Corrections,
    correction_of,
    executed_of,
    is_agreed,
    trade_of,
    transfer_of,
)
from exchange.marketdata.instruments import Instrument, decimal_text
from exchange.marketdata.stream import Row
from exchange.messages import INDEX_BITS, EventKind, Limit, Reason, rest, wire
from exchange.messages.access import COSTS, GatewayReason, Right
from exchange.messages.dates import date_of

PREFIX: Final = "/api/v1"
REQUESTS_A_SECOND: Final = 100  # per address
LOOPBACK_REQUESTS_A_SECOND: Final = 2_000
READS: Final = 16  # requests that may wait for the disk
ADDRESS_READS: Final = 4
ANSWER_SECONDS: Final = 5.0  # longest wait for the release of an answer's state
NANOSECONDS_PER_MS: Final = 1_000_000
MICRO_DIGITS: Final = 6
_TRADE: Final = int(EventKind.TRADE)
_RECORDED: Final = int(EventKind.RECORDED)
_TRANSFERRED: Final = int(EventKind.LOTS_TRANSFERRED)
_PUBLIC: Final[dict[int, Callable[[Instrument, Row, int], rest.PublicRow]]] = {
    _TRADE: trade_of,
    int(EventKind.ORDER_EXECUTED): executed_of,
    **dict.fromkeys(TRADE_CORRECTIONS, correction_of),
    _TRANSFERRED: transfer_of,
}
_FILLS: Final = frozenset({_TRADE, int(EventKind.LEG_TRADE), int(EventKind.ORDER_EXECUTED)})
_FILL_TYPES: Final = (wire.Execution, wire.LegTraded, wire.Corrected)
Q = TypeVar("Q", bound=rest.Query)
T = TypeVar("T")


class Books(Protocol):
    """Reads clearing's books; called in a thread. Raises TimeoutError if it takes too long."""

    def candles(
        self, instrument: int, seconds: int, start: int, most: int
    ) -> tuple[Sequence[CandleRow], int | None]:
        """Return candles, and where the next page begins."""
        ...

    def prices(
        self, instrument: int | None, dates: tuple[int, int], after: int, most: int
    ) -> Sequence[tuple[int, int, int, int, int]]:
        """Return (number, instrument, business date, cycle, price in clearing units) of each."""
        ...

    def statement(self, account: int, date: int | None) -> rest.StatementReport:
        """Return an account's statement. KeyError if clearing does not know the account."""
        ...


class Asked(NamedTuple):
    """An admitted request."""

    query: Any  # of the route's ``query`` type
    key: Key | None
    address: str
    named: str  # the variable part of the path; empty if it has none


class Route(NamedTuple):
    """A path, its requirements and its answer. The OpenAPI document is made from these."""

    path: str
    right: Right
    query: type[rest.Query]
    answer: type
    handler: Callable[["Rest", Asked], Awaitable[Any]]
    summary: str


def requests_allowed(address: str) -> int:
    """Return how many requests a second an address may make. This machine's own may make more,
    since many programs share it."""
    return LOOPBACK_REQUESTS_A_SECOND if is_loopback(address) else REQUESTS_A_SECOND


class Rest:
    """Answers all routes from a hub. ``close`` ends its thread."""

    def __init__(self, hub: Hub, stream: archive.Stream, books: Books) -> None:
        self._hub = hub
        self._stream = stream
        self._books = books
        self._contracts = registry.load()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reads")
        self._reads: Counter[str] = Counter()  # requests waiting for the disk, by address
        self._flood = Flood()

    def add_routes(self, application: web.Application) -> None:
        """Add all routes to an application."""
        for route in ROUTES:
            application.router.add_get(route.path, self._handler(route), allow_head=False)

    def close(self) -> None:
        """Wait for the current reads to end."""
        self._thread.shutdown()

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            try:
                asked = await self._admit(route, request)
                return json_answer(wire.encode_json(await route.handler(self, asked)))
            except Refused as refused:
                if self._hub.metrics is not None:
                    self._hub.metrics.rejected(refused.reason)
                return answer_refused(refused)

        return serve

    def count(self, address: str) -> None:
        """Count a request of an address; raises Refused above its limit."""
        self._flood.count(address, requests_allowed(address))

    async def _admit(self, route: Route, request: web.Request) -> Asked:
        address, key = request.remote or "", None
        self.count(address)
        if route.right:
            key = admit(request, await request.read(), self._hub.keys, self._hub.now_ms())
            if not key.may(route.right):
                raise Refused(Reason.SCOPE, None, f"the key's scope is {key.scope}")
        query = read_query(request, route.query)
        return Asked(query, key, address, next(iter(request.match_info.values()), ""))

    async def _read(self, address: str, work: Callable[[], T]) -> T:
        """Run a function that reads from disk in the thread; raises Refused if too many wait."""
        reads = self._reads
        for most, now in ((ADDRESS_READS, reads[address]), (READS, reads.total())):
            if now >= most:
                full = GatewayReason.REQUESTS_FULL
                raise Refused(full, None, "waiting for the disk", limit=str(most))
        reads[address] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError as error:
            raise Refused(GatewayReason.REQUESTS_FULL, None, f"{error}: ask for less") from None
        finally:
            reads[address] -= 1
            if not reads[address]:
                del reads[address]

    def _instrument(self, code: str) -> Instrument:
        return self._hub.recorder.instrument(code, "code")

    # From memory

    async def contracts(self, asked: Asked) -> rest.Contracts:
        number = self._hub.feed.instruments.business_date
        now = datetime.fromtimestamp(self._hub.now_ms() // 1_000, UTC)
        on = date_of(number) if number else now.date()
        return rest.Contracts(contracts=list(products(self._contracts, on)))

    async def instruments(self, asked: Asked) -> wire.Instruments:
        every = asked.query.state == "all"
        return self._hub.queries.instruments(self._hub.sequence, every=every)

    async def account(self, asked: Asked) -> wire.AccountReport:
        return self._hub.queries.account(self._account(asked), self._hub.sequence, "")

    async def positions(self, asked: Asked) -> rest.Positions:
        told = await self.account(asked)
        return rest.Positions(sequence=told.sequence, time=told.time, positions=told.positions)

    async def orders(self, asked: Asked) -> wire.Orders:
        return self._hub.queries.orders(self._account(asked), self._hub.sequence, "")

    async def keys(self, asked: Asked) -> rest.KeyReports:
        return rest.KeyReports(
            keys=[
                rest.KeyReport(
                    key_id=key.key_id,
                    scope=key.scope,
                    algorithm=key.algorithm,
                    addresses=list(key.addresses),
                    expires_ms=key.expires_ms,
                )
                for key in self._hub.keys.of_account(self._account(asked))
            ]
        )

    def _account(self, asked: Asked) -> int:
        assert asked.key is not None, "the route needs a right"
        if asked.key.account not in self._hub.accounts.by_id:
            raise Refused(Reason.UNKNOWN_ACCOUNT)
        return asked.key.account

    async def costs(self, asked: Asked) -> rest.Costs:
        tags = (str(kind.__struct_config__.tag) for kind in get_args(wire.AnyRequest))
        return rest.Costs(
            tokens={op: COSTS.get(op, 0) for op in sorted(tags)},
            frame_bytes=Limit.FRAME_BYTES,
            frame_commands=wire.BATCH_REQUESTS,
            requests_a_second=REQUESTS_A_SECOND,
            previews_a_second=PREVIEWS_A_SECOND,
            connections=KEY_CONNECTIONS,
        )

    async def order(self, asked: Asked) -> wire.OrderStatus:
        named = wire.QueryOrder(request_id="", client_order_id=asked.query.client_order_id)
        return await self._status(asked, named)

    async def order_by_id(self, asked: Asked) -> wire.OrderStatus:
        return await self._status(asked, wire.QueryOrder(request_id="", order_id=asked.named))

    async def _status(self, asked: Asked, request: wire.QueryOrder) -> wire.OrderStatus:
        account, hub = self._account(asked), self._hub
        told: asyncio.Future[Order | None] = asyncio.Future()
        hub.lookups.ask(request, account, hub.now_ms(), partial(_tell, told))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                order = await told  # normally the hub's clock ends the wait earlier
        except TimeoutError:
            order = None
        return hub.queries.order(order, hub.sequence, "")

    async def preview(self, asked: Asked) -> wire.Previewed:
        account, query = self._account(asked), asked.query
        named = {name: getattr(query, name) for name in query.__struct_fields__}
        order = wire.Enter(client_order_id=f"preview.{token_hex(8)}", **named)
        told: asyncio.Future[wire.Previewed | Refused] = asyncio.Future()
        request = wire.Preview(request_id="", order=order)
        self._hub.previews.ask(request, account, 0, partial(_tell, told))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await told
        except TimeoutError:
            raise Refused(GatewayReason.REQUESTS_FULL, None, "waiting for the log") from None
        if isinstance(answer, Refused):
            raise answer
        return answer

    # From disk

    async def trades(self, asked: Asked) -> rest.Trades:
        instrument = self._instrument(asked.named)
        found = await self._scan(asked, trades_of(instrument.id))
        return rest.Trades(
            trades=[_PUBLIC[row[2]](instrument, row, stamp) for row, stamp, _ in found.rows],
            next=archive.cursor_text(found.next),
        )

    async def fills(self, asked: Asked) -> rest.Fills:
        told, more = await self._reports(asked, _FILLS | CORRECTIONS)
        fills = [report for report in told if isinstance(report, _FILL_TYPES)]
        return rest.Fills(fills=fills, next=more)

    async def events(self, asked: Asked) -> rest.Events:
        kinds = self._hub.reports.kinds.keys() | {_TRANSFERRED, _RECORDED}
        told, more = await self._reports(asked, kinds)
        return rest.Events(events=told, next=more)

    async def _reports(self, asked: Asked, kinds: Set[int]) -> tuple[list[Any], str | None]:
        """Return a page of the account's reports of some kinds of events, and the next cursor."""
        account, reports = self._account(asked), self._hub.reports
        found = await self._scan(
            asked, lambda row: row[2] in kinds and account in archive.parties(row)
        )
        told = [
            report
            for row, stamp, text in found.rows
            for report in reports_of(row, account, reports, stamp, text)
        ]
        return told, archive.cursor_text(found.next)

    async def _scan(self, asked: Asked, select: archive.Select) -> archive.Found:
        query: rest.OfHistory = asked.query
        after = archive.place_of(query.after, self._hub.epochs) if query.after else None
        try:
            return await self._read(
                asked.address, lambda: archive.scan(self._stream, query, after, select)
            )
        except self._hub.no_such_position as error:
            raise Refused(Reason.NOT_FOUND, "after", str(error)) from None

    async def candle_rows(
        self, address: str, instrument: Instrument, seconds: int, start_ms: int, most: int
    ) -> tuple[Sequence[CandleRow], int | None]:
        """Return an instrument's candles, and where the next page begins; raises Refused.

        They come from clearing's books or, for a combination, whose trades are booked by leg, from
        the released stream."""
        wanted = instrument.id, seconds, start_ms * NANOSECONDS_PER_MS, most
        if instrument.legs:
            return await self._read(address, lambda: archive.candles(self._stream, *wanted))
        return await self._read(address, lambda: self._books.candles(*wanted))

    async def candles(self, asked: Asked) -> rest.Candles:
        instrument, query = self._instrument(asked.named), asked.query
        rows, more = await self.candle_rows(
            asked.address, instrument, rest.INTERVALS[query.interval], query.from_ms, query.limit
        )
        price = instrument.price_text
        return rest.Candles(
            interval=query.interval,
            candles=[
                rest.Candle(
                    start_ms=begun // NANOSECONDS_PER_MS,
                    open=price(first),
                    high=price(high),
                    low=price(low),
                    close=price(last),
                    volume=str(volume),
                    trades=trades,
                )
                for begun, first, high, low, last, volume, trades in rows
            ],
            next=None if more is None else more // NANOSECONDS_PER_MS,
        )

    async def settlement_prices(self, asked: Asked) -> rest.SettlementPrices:
        query: rest.OfPrices = asked.query
        one = self._instrument(query.code).id if query.code else None
        after = _number(*map(int, query.after.split("."))) if query.after else 0
        rows = await self._read(
            asked.address,
            lambda: self._books.prices(one, (query.from_date, query.to_date), after, query.limit),
        )
        by_id = self._hub.feed.instruments.by_id
        return rest.SettlementPrices(
            prices=[
                rest.SettlementPrice(
                    instrument=by_id[number].code,
                    business_date=day,
                    cycle=cycle,
                    price=decimal_text(price, MICRO_DIGITS),
                )
                for _, number, day, cycle, price in rows
            ],
            next=_entry_cursor(rows[-1][0]) if len(rows) == query.limit else None,
        )

    async def statement(self, asked: Asked) -> rest.StatementReport:
        account, day = self._account(asked), asked.query.date or None
        if day is not None and not _is_day(day):
            raise Refused(Reason.NOT_FOUND, "date", "no such day", observed=str(day))
        try:
            return await self._read(asked.address, lambda: self._books.statement(account, day))
        except KeyError:
            told = "clearing has booked nothing of it yet"
            raise Refused(Reason.NOT_FOUND, None, told) from None


def trades_of(number: int) -> archive.Select:
    """Return a filter for an instrument's trades, their corrections and its off-book transfers. It
    must be given the events in order."""
    corrections = Corrections()

    def select(row: Row) -> bool:
        if row[2] in TRADE_CORRECTIONS:
            return corrections.is_told(row) and row[5] == number
        told = row[5] == number and row[2] in _PUBLIC
        return told and (row[2] != _TRANSFERRED or is_agreed(row))

    return select


def _tell(told: asyncio.Future[T], answer: T) -> None:
    """Set a future's result, unless its wait has ended."""
    if not told.done():
        told.set_result(answer)


def products(contracts: registry.Registry, on: date) -> Iterator[rest.Product]:
    """Yield each product's terms in force on a day."""
    for product in contracts.products:
        try:
            terms = contracts.spec(product, on)
        except registry.UnknownContractError:
            continue
        fields = rest.Product.__struct_fields__
        named: dict[str, Any] = {name: getattr(terms, name, "") for name in fields}
        yield rest.Product(**{**named, "code": product, "effective": str(terms.effective)})


def read_query(request: web.Request, kind: type[Q]) -> Q:
    """Return a request's query; raises Refused."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise Refused(Reason.DUPLICATE_FIELD, ascii(name[:40])[1:-1])
        given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise explain(error, kind) from None


def _is_day(number: int) -> bool:
    """Whether a number, yyyymmdd, is a date."""
    try:
        date_of(number)
    except ValueError:
        return False
    return True


def _number(epoch: int, sequence: int, index: int) -> int:
    """Return the number of a ledger entry, which is that of its event."""
    return sequence << INDEX_BITS | index


def _entry_cursor(number: int) -> str:
    return f"0.{number >> INDEX_BITS}.{number & (1 << INDEX_BITS) - 1}"


ROUTES: Final = (
    Route(f"{PREFIX}/contracts", Right.PUBLIC, rest.Query, rest.Contracts, Rest.contracts,
          "The products and their terms"),
    Route(f"{PREFIX}/instruments", Right.PUBLIC, rest.OfInstruments, wire.Instruments,
          Rest.instruments, "The listed instruments"),
    Route(f"{PREFIX}/trades/{{code}}", Right.PUBLIC, rest.OfHistory, rest.Trades, Rest.trades,
          "An instrument's trades"),
    Route(f"{PREFIX}/candles/{{code}}", Right.PUBLIC, rest.OfCandles, rest.Candles, Rest.candles,
          "An instrument's candles"),
    Route(f"{PREFIX}/settlement-prices", Right.PUBLIC, rest.OfPrices, rest.SettlementPrices,
          Rest.settlement_prices, "Settlement prices"),
    Route(f"{PREFIX}/costs", Right.PUBLIC, rest.Query, rest.Costs, Rest.costs,
          "What requests cost"),
    Route(f"{PREFIX}/account", Right.READ, rest.Query, wire.AccountReport, Rest.account,
          "The account's cash, margin and positions"),
    Route(f"{PREFIX}/positions", Right.READ, rest.Query, rest.Positions, Rest.positions,
          "The account's positions"),
    Route(f"{PREFIX}/orders", Right.READ, rest.Query, wire.Orders, Rest.orders,
          "The account's working orders"),
    Route(f"{PREFIX}/order", Right.READ, rest.OfOrder, wire.OrderStatus, Rest.order,
          "What is known of one order, by the client's id"),
    Route(f"{PREFIX}/order/{{order_id}}", Right.READ, rest.Query, wire.OrderStatus,
          Rest.order_by_id, "What is known of one order"),
    Route(f"{PREFIX}/fills", Right.READ, rest.OfHistory, rest.Fills, Rest.fills,
          "The account's executions"),
    Route(f"{PREFIX}/statement", Right.READ, rest.OfStatement, rest.StatementReport, Rest.statement,
          "The account's statement"),
    Route(f"{PREFIX}/events", Right.READ, rest.OfHistory, rest.Events, Rest.events,
          "The account's reports"),
    Route(f"{PREFIX}/preview", Right.READ, rest.OfPreview, wire.Previewed, Rest.preview,
          "What an order would do"),
    Route(f"{PREFIX}/keys", Right.READ, rest.Query, rest.KeyReports, Rest.keys,
          "The account's keys"),
)  # fmt: skip
