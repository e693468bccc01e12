"""Recent orders and trades for the dialect's queries, kept from released events.

The native WebSocket has no queries for past trades; its clients keep the reports. Deribit's clients
query them. This is a bounded projection of the stream: the newest orders and trades, from at most
``HISTORY_COMMANDS`` commands before the gateway's start, and older orders that still work.

Invariant: each batch is applied right after the hub has applied it, so the blotter knows every
order and trade in the reports that are still to be sent.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from exchange.gateway.accounts import Order
from exchange.gateway.dialects.deribit.instruments import mark_by
from exchange.gateway.hub import Hub
from exchange.marketdata.happenings import Corrections, executed_of, trade_of
from exchange.marketdata.stream import Released, Row, maker_of, signed
from exchange.messages import (
    EVENT,
    INDEX_BITS,
    CancelReason,
    EventFlag,
    EventKind,
    OrderFeature,
    TimeInForce,
)
from exchange.messages.wire import Execution, PublicTrade

HISTORY_COMMANDS: Final = 200_000  # commands read back at the start
TRADES_KEPT: Final = 1_000  # per instrument, and per account
ENDED_KEPT: Final = 100_000  # ended orders of all accounts
SEEN_SECONDS: Final = 1.0  # longest wait for an order that only another gateway knows
WAITERS: Final = 1_000  # callers that may wait so
OPEN, FILLED, CANCELLED, UNTRIGGERED = "open", "filled", "cancelled", "untriggered"
_T = TypeVar("_T", PublicTrade, Execution)
_DUPLICATE: Final = int(EventFlag.DUPLICATE)
_SELL: Final = int(EventFlag.SELL)
_REPRICED: Final = 2  # reason of an ORDER_REPLACED made by an auction, not by a request


class Ticket(msgspec.Struct, gc=False):
    """One order: its terms, its state, and the times of its entry and last change."""

    id: int
    account: int
    instrument: int
    text: str
    sell: bool
    price: int  # ticks
    quantity: int
    tif: int
    market: bool
    priced: bool  # has a limit price: of market orders those that rest
    post_only: bool
    reduce_only: bool
    stop: bool
    display: int  # displayed lots of an iceberg, else 0
    created: int  # log time in ns, as the next
    updated: int
    leaves: int
    filled: int = 0
    value: int = 0  # sum of ticks x lots of the fills
    trigger: int = 0  # stop price in ticks
    state: str = OPEN
    waits: bool = False  # a stop that was not elected, also if it ended
    replaced: bool = False
    why: str = ""  # name of the CancelReason
    early: bool = False  # entered before the history: only the accounts' fields are known


class Shown(NamedTuple, Generic[_T]):
    """A public trade, or an account's side of one, with the fields that Deribit adds."""

    trade: _T
    direction: int  # tick direction: 0 up, 1 level after up, 2 down, 3 level after down
    mark: int  # mark at that time, in micro-dollars
    leg_fees: int = 0  # fees paid for its legs, in micro-dollars; its own report has none then


Print: TypeAlias = Shown[PublicTrade]
Fill: TypeAlias = Shown[Execution]


class Blotter:
    """The newest orders and trades. Call ``read_back``, then ``take`` with every batch."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._instruments = hub.feed.instruments
        self.orders: dict[int, Ticket] = {}
        self.prints: defaultdict[int, deque[Print]] = defaultdict(lambda: deque(maxlen=TRADES_KEPT))
        self.fills: defaultdict[int, deque[Fill]] = defaultdict(lambda: deque(maxlen=TRADES_KEPT))
        self.last: dict[int, int] = {}  # price of the last trade in ticks, by instrument
        self.listed: dict[int, int] = {}  # log time of the listing, by instrument
        self.on_listing: set[Callable[[], None]] = set()  # called after a batch with listings
        self.revalued = 0  # counts what changes the worth or margin of positions: marks, rates
        self._marks: dict[int, int] = {}  # by instrument, from the events taken
        self._corrections = Corrections()
        self._awaited: dict[int, list[asyncio.Future[None]]] = {}  # by id of an unknown order
        self._waiters = 0
        self._ended: deque[Ticket] = deque()
        # By account and instrument, in the order of their ends.
        self.ended: defaultdict[int, defaultdict[int, deque[Ticket]]] = defaultdict(
            lambda: defaultdict(deque)
        )
        self._kinds: dict[int, Callable[[Row, int, str | None], None]] = {
            EventKind.ORDER_ACCEPTED: self._accept,
            EventKind.TRADE: self._trade,
            EventKind.LEG_TRADE: self._charge,
            EventKind.ORDER_EXECUTED: self._execute,
            EventKind.ORDER_CANCELLED: self._cancel,
            EventKind.ORDER_REDUCED: self._reduce,
            EventKind.ORDER_REPLACED: self._replace,
            EventKind.ORDER_WAITING: self._wait,
            EventKind.ORDER_ELECTED: self._elect,
            EventKind.INSTRUMENT_LISTED: self._list,
            EventKind.MARKED: self._mark,
            EventKind.INSTRUMENT_SETTLED: self._mark,
            EventKind.INSTRUMENT_EXPIRED: self._mark,
            EventKind.RISK_CHANGED: self._revalue,
            EventKind.TRADE_BUSTED: self._correct,
            EventKind.TRADE_ADJUSTED: self._correct,
            EventKind.LEG_BUSTED: self._correct,
            EventKind.LEG_ADJUSTED: self._correct,
        }

    def read_back(self) -> None:
        """Take the batches released before, up to the hub's sequence."""
        for released in self._hub.read_back(HISTORY_COMMANDS):
            self.take(released)
        self.take_over()

    def take_over(self) -> None:
        """Add what was before the batches taken and is still so: working orders, from the accounts,
        and the last price of an instrument that has traded on this business day."""
        for number, day in self._hub.feed.statistics.days.items():
            if day.last is not None:
                self.last.setdefault(number, day.last)
        for account in self._hub.accounts.by_id.values():
            for order in account.orders.values():
                if order.id not in self.orders:
                    self.orders[order.id] = _ticket_of(order)

    def take(self, released: Released) -> None:
        """Apply one released batch."""
        texts = dict(released.texts)
        kinds, listed = self._kinds, len(self.listed)
        for row in EVENT.iter_unpack(released.events):
            apply = kinds.get(row[2])
            if apply is not None and not row[3] & _DUPLICATE:
                apply(row, released.stamp, texts.get(row[0]))
        if len(self.listed) > listed:
            for tell in list(self.on_listing):
                tell()
        for order_id in self._awaited.keys() & self.orders.keys():
            for told in self._awaited.pop(order_id):
                if not told.done():  # its caller may have left
                    told.set_result(None)

    async def seen(self, order_id: int) -> None:
        """Wait until an order is known, at most ``SEEN_SECONDS``; not at all if it is, or if
        ``WAITERS`` wait already."""
        if order_id in self.orders or self._waiters >= WAITERS:
            return
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._awaited.setdefault(order_id, [])
        waiting.append(told)
        self._waiters += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(SEEN_SECONDS):
                    await told
        finally:
            self._waiters -= 1
            waiting.remove(told)
            if not waiting and self._awaited.get(order_id) is waiting:
                del self._awaited[order_id]

    def working(self, account: int) -> list[Ticket]:
        """Return an account's working orders, the oldest first."""
        known = self._hub.accounts.by_id.get(account)
        found = () if known is None else (self.orders.get(number) for number in known.orders)
        return [ticket for ticket in found if ticket is not None]

    # Events

    def _accept(self, row: Row, stamp: int, text: str | None) -> None:
        flags, terms = row[3], row[14]
        features = terms >> 16 & 0xFF
        ticket = Ticket(
            id=row[7],
            account=row[6],
            instrument=row[5],
            text=self._hub.accounts.text_of(row[7]) or text or "",
            sell=bool(flags & _SELL),
            price=row[8],
            quantity=row[9],
            tif=terms & 0xFF,
            market=bool(flags & EventFlag.MARKET),
            priced=not flags & EventFlag.MARKET or bool(row[8] or row[10]),
            post_only=bool(flags & EventFlag.POST_ONLY),
            reduce_only=bool(features & OrderFeature.REDUCE_ONLY),
            stop=bool(features & OrderFeature.STOP),
            display=terms >> 32 if features & OrderFeature.ICEBERG else 0,
            created=stamp,
            updated=stamp,
            leaves=row[9],
        )
        self.orders[ticket.id] = ticket

    def _trade(self, row: Row, stamp: int, text: str | None) -> None:
        shown = self._show(trade_of(self._instruments.by_id[row[5]], row, stamp), row)
        self.last[row[5]] = row[8]
        maker_account, maker_leaves = maker_of(row[12])
        reports = self._hub.reports
        taken = reports.kinds[EventKind.TRADE](row, stamp, text)
        made = reports.made(row, stamp)
        for order, account, leaves, report in (
            (row[7], row[6], row[10], taken),
            (row[11], maker_account, maker_leaves, made),
        ):
            assert isinstance(report, Execution)
            self.fills[account].append(Shown(report, shown.direction, shown.mark))
            self._fill(order, row[8], row[9], leaves, stamp)

    def _execute(self, row: Row, stamp: int, text: str | None) -> None:
        report = self._hub.reports.kinds[EventKind.ORDER_EXECUTED](row, stamp, text)
        assert isinstance(report, Execution)
        shown = self._show(executed_of(self._instruments.by_id[row[5]], row, stamp), row)
        self.fills[row[6]].append(Shown(report, shown.direction, shown.mark))
        self._fill(row[7], row[8], row[9], row[10], stamp)

    def _charge(self, row: Row, stamp: int, text: str | None) -> None:
        """Add the fees of a leg to the trade that it belongs to, for the orders of both sides."""
        match = str(row[0] << INDEX_BITS | row[10])
        for account, order, cash in ((row[6], row[7], row[13]), (row[12], row[11], row[14])):
            fills = self.fills[account]
            place = len(fills) - 1
            while cash and place >= 0 and fills[place].trade.sequence == row[0]:
                found = fills[place]
                if (found.trade.match_number, found.trade.order_id) == (match, str(order)):
                    fills[place] = found._replace(leg_fees=found.leg_fees - cash)
                    break
                place -= 1

    def _fill(self, order: int, price: int, lots: int, leaves: int, stamp: int) -> None:
        ticket = self.orders.get(order)
        if ticket is None:
            return
        ticket.filled += lots
        ticket.value += price * lots
        ticket.leaves, ticket.updated = leaves, stamp
        if not leaves:
            self._end(ticket, FILLED)

    def _show(self, trade: PublicTrade, row: Row) -> Print:
        number, price = row[5], row[8]
        prints = self.prints[number]
        before = prints[-1].direction if prints else 1
        last = self.last.get(number, price)
        direction = (1 if before < 2 else 3) if price == last else 0 if price > last else 2
        mark = mark_by(self._instruments.by_id[number], self._instruments, self._marks)
        shown = Shown(trade, direction, mark)
        prints.append(shown)
        return shown

    def _cancel(self, row: Row, stamp: int, text: str | None) -> None:
        ticket = self.orders.get(row[7])
        if ticket is not None:
            ticket.leaves, ticket.updated = 0, stamp
            ticket.why = CancelReason(row[4]).name
            self._end(ticket, CANCELLED)

    def _reduce(self, row: Row, stamp: int, text: str | None) -> None:
        ticket = self.orders.get(row[7])
        if ticket is not None:
            ticket.quantity -= row[9]
            ticket.leaves, ticket.updated = row[10], stamp

    def _replace(self, row: Row, stamp: int, text: str | None) -> None:
        ticket = self.orders.get(row[7])
        if ticket is not None:
            ticket.price, ticket.quantity = row[8], row[9]
            ticket.leaves = row[9] - ticket.filled
            ticket.updated = stamp
            ticket.replaced |= row[4] != _REPRICED

    def _wait(self, row: Row, stamp: int, text: str | None) -> None:
        ticket = self.orders.get(row[7])
        if ticket is not None:
            ticket.state, ticket.trigger, ticket.waits = UNTRIGGERED, row[14], True

    def _elect(self, row: Row, stamp: int, text: str | None) -> None:
        ticket = self.orders.get(row[7])
        if ticket is not None:
            ticket.state, ticket.price, ticket.updated = OPEN, row[8], stamp
            ticket.waits, ticket.priced = False, True

    def _list(self, row: Row, stamp: int, text: str | None) -> None:
        self.listed[row[5]] = stamp
        self._mark(row, stamp, text)

    def _mark(self, row: Row, stamp: int, text: str | None) -> None:
        self._marks[row[5]] = row[8]
        self._revalue(row, stamp, text)

    def _revalue(self, row: Row, stamp: int, text: str | None) -> None:
        self.revalued += 1

    def _correct(self, row: Row, stamp: int, text: str | None) -> None:
        """Remove a busted trade, or show an adjusted one with its new price.

        A trade at an implied price is corrected leg by leg. In its combination's book, for which
        the correction states no price, it is then removed as well.
        """
        if not self._corrections.is_told(row):
            return
        of_leg = row[2] in (EventKind.LEG_BUSTED, EventKind.LEG_ADJUSTED)
        match = str(row[7] - (row[4] & 0xFF if of_leg else 0))  # match number of the whole trade
        instrument = self._instruments.by_id[row[5]]
        unit = instrument.tick_scale if of_leg else 1
        price, before = row[8] // unit, signed(row[11]) // unit
        busted = row[2] in (EventKind.TRADE_BUSTED, EventKind.LEG_BUSTED)
        now = None if busted else (instrument.code, instrument.price_text(price))
        books = [row[5], *(self._instruments.combinations.get(row[5], ()) if of_leg else ())]
        for number in books:
            if number in self.prints:
                _correct_kept(self.prints[number], match, now)
        for account in {row[6], row[12]}:
            for fill in _correct_kept(self.fills[account], match, now):
                ticket = self.orders.get(int(fill.order_id))
                if ticket is not None:
                    ticket.value += (price - before) * int(fill.quantity)

    def _end(self, ticket: Ticket, state: str) -> None:
        ticket.state = state
        self._ended.append(ticket)
        self.ended[ticket.account][ticket.instrument].append(ticket)
        if len(self._ended) > ENDED_KEPT:
            oldest = self._ended.popleft()
            self.ended[oldest.account][oldest.instrument].popleft()
            if self.orders.get(oldest.id) is oldest:
                del self.orders[oldest.id]


def kept_at(
    kept: deque[Shown[_T]], sequence: int, index: int
) -> Iterator[Shown[_T]]:  # fmt: skip
    """Return the entries of one event, by binary search."""

    def place(shown: Shown[_T]) -> tuple[int, int]:
        return shown.trade.sequence, shown.trade.index

    first = bisect_left(kept, (sequence, index), key=place)
    return islice(kept, first, bisect_right(kept, (sequence, index), key=place))


def _correct_kept(
    kept: deque[Shown[_T]], match: str, now: tuple[str, str] | None
) -> list[_T]:  # fmt: skip
    """Correct the entries of a trade; return those that stay.

    ``now`` is (instrument code, new price): entries in that instrument get the price, all others
    are deleted, as are all if ``now`` is None.
    """
    staying = []
    for place in reversed(range(len(kept))):
        shown = kept[place]
        if shown.trade.match_number != match:
            continue
        if now is None or shown.trade.instrument != now[0]:
            del kept[place]
            continue
        trade = replace(shown.trade, price=now[1])
        kept[place] = shown._replace(trade=trade)
        staying.append(trade)
    return staying


def _ticket_of(order: Order) -> Ticket:
    return Ticket(
        id=order.id,
        account=order.account,
        instrument=order.instrument,
        text=order.text,
        sell=order.sell,
        price=order.price,
        quantity=order.quantity,
        tif=order.tif,
        market=False,  # not known: it rests at a limit
        priced=True,
        post_only=False,
        reduce_only=False,
        stop=order.waiting,
        display=0,
        created=0,
        updated=0,
        leaves=order.leaves,
        filled=order.quantity - order.leaves,
        state=UNTRIGGERED if order.waiting else OPEN,
        waits=order.waiting,
        early=True,
    )


def tif_name(tif: int) -> str:
    """Return a time in force as Deribit names it, with similar names for those it does not have."""
    return _TIFS.get(tif, TimeInForce(tif).name.lower())


_TIFS: Final[dict[int, str]] = {
    TimeInForce.GTC: "good_til_cancelled",
    TimeInForce.DAY: "good_til_day",
    TimeInForce.IOC: "immediate_or_cancel",
    TimeInForce.FOK: "fill_or_kill",
    TimeInForce.GTD: "good_til_date",
    TimeInForce.GFA: "good_for_auction",
}
