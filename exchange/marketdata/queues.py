"""The orders of one instrument's book with their ranks, built from events alone.

A rank gives an order's place: within a side and price the lower one trades first. Ranks are
numbered per book, and an order gets a new one whenever it goes to the back. So a rank says nothing
of an order's owner, and an iceberg's next part or a replaced order looks like a new order. Market
orders in an auction, which trade before all others, are numbered from ``MARKET_RANKS`` up, below
zero.

Invariants: the lots of a level's orders add up to the level's in ``depth.Depth``; no order shows
zero lots between batches.
"""

import struct
from array import array
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from exchange.marketdata.book import Order, order_at
from exchange.marketdata.depth import BUY, SELL, SHOWN, Depth
from exchange.marketdata.instruments import Instrument
from exchange.marketdata.stream import Row, maker_of
from exchange.messages import EventFlag, EventKind, Limit, TradingState
from exchange.messages.wire_market import CHECKSUM_LEVELS

MARKET_RANKS: Final = -(1 << 52)
_AUCTION: Final = int(EventFlag.AUCTION)
_MARKET: Final = int(EventFlag.MARKET)
_RESTING: Final = int(EventFlag.RESTING)
_SELL: Final = int(EventFlag.SELL)
_ACCEPTED: Final = int(EventKind.ORDER_ACCEPTED)
_TRADE: Final = int(EventKind.TRADE)
_CANCELLED: Final = int(EventKind.ORDER_CANCELLED)
_REDUCED: Final = int(EventKind.ORDER_REDUCED)
_REPLACED: Final = int(EventKind.ORDER_REPLACED)
_DORMANT: Final = int(EventKind.ORDER_DORMANT)
_EXECUTED: Final = int(EventKind.ORDER_EXECUTED)
_RETURNED: Final = int(EventKind.ORDER_RETURNED)
_ELECTED: Final = int(EventKind.ORDER_ELECTED)
_REFILLED: Final = int(EventKind.ORDER_REFILLED)
_COLLECTING: Final = frozenset((TradingState.PRE_OPEN, TradingState.AUCTION))
_KEPT: Final = 1  # ``reason`` of ORDER_REPLACED: the order keeps its place

Entry = tuple[int, int, int]  # rank, price in ticks, lots
_Queue = dict[int, Order]  # by order id, in rank order
_Places = tuple[
    dict[int, _Queue], dict[int, _Queue], dict[int, _Queue], dict[int, _Queue]
]  # by price: bids and asks at a limit, bids and asks at the market
_AT_MARKET: Final = 2
ENTRY: Final = struct.Struct("<qqq")  # an Entry


class Queues:
    """The orders of both sides by price and rank, and, while ``watched``, the recent changes."""

    def __init__(self, instrument: Instrument, depth: Depth) -> None:
        """``depth`` is that of the same book; the orders refer to its levels."""
        self._instrument = instrument
        self.depth = depth
        self._orders: dict[int, Order] = {}  # by id, in the order of their ranks within each price
        self.next_rank, self.next_market_rank = 1, MARKET_RANKS
        self.watched = False
        # Only while watched:
        self._queues = _nobody()
        self._noted: list[Order] = []  # changed orders, in the order of their first change

    def __len__(self) -> int:
        return len(self._orders)

    def apply(self, row: Row) -> None:
        """Apply one event that may change depth, to the depth first."""
        if not self.depth.apply(row):
            return
        kind, flags = row[2], row[3]
        if kind == _ACCEPTED:
            if row[10]:
                collects = flags & _MARKET and self._instrument.state in _COLLECTING
                self._join(row, bool(collects))
        elif kind == _TRADE:
            if flags & _AUCTION:
                self._leave_at_most(row[7], row[10])
                self._leave_at_most(row[11], maker_of(row[12])[1])
            else:
                self._take(row[11], row[9])
        elif kind in (_CANCELLED, _REDUCED):
            if flags & _RESTING:
                self._take(row[7], row[9] - row[14])
        elif kind == _EXECUTED:
            if flags & _RESTING:
                self._take(row[7], row[9])
        elif kind in (_RETURNED, _ELECTED, _REFILLED):
            if row[10]:
                self._join(row, False)
        elif kind == _REPLACED:
            self._replace(row)
        elif kind == _DORMANT and row[7] in self._orders:
            self._take(row[7], row[10])

    def _replace(self, row: Row) -> None:
        resting = row[3] & _RESTING
        if resting:
            shown = row[14] & SHOWN
            self._take(row[7], shown - row[10] if row[4] == _KEPT else shown)
        if row[10] and not (resting and row[4] == _KEPT):
            self._join(row, False)

    def _join(self, row: Row, at_market: bool) -> None:
        """Add an order at the back of its price."""
        if at_market:
            rank = self.next_market_rank
            self.next_market_rank = rank + 1
        else:
            rank = self.next_rank
            self.next_rank = rank + 1
        assert self.depth.moved is not None, "an order that shows lots has a level"
        self._put(row[7], order_at(self.depth.moved, rank, row[10]))

    def stand(self, order_id: int, side: int, price: int, rank: int, lots: int) -> None:
        """Add an order with a given rank, at an existing level."""
        self._put(order_id, order_at(self.depth.levels[side][price], rank, lots))

    def _put(self, order_id: int, order: Order) -> None:
        self._orders[order_id] = order
        order.level.orders += 1
        if self.watched:
            _line_up(self._queues, order_id, order)
            order.noted = True
            self._noted.append(order)

    def _leave_at_most(self, order_id: int, lots: int) -> None:
        """Limit what an order shows to what is left of it: an auction fills hidden lots first."""
        beyond = self._orders[order_id].lots - lots
        if beyond > 0:
            self._take(order_id, beyond)

    def _take(self, order_id: int, lots: int) -> None:
        """Remove lots from what an order shows, and the order if none are left."""
        order = self._orders[order_id]
        if self.watched and not order.noted:
            order.noted, order.before = True, order.lots
            self._noted.append(order)
        order.lots -= lots
        if order.lots:
            return
        del self._orders[order_id]
        order.level.orders -= 1
        if self.watched:
            queues = self._queues[_place(order)]
            queue = queues[order.level.price]
            del queue[order_id]
            if not queue:
                del queues[order.level.price]

    def watch(self, watched: bool) -> None:
        """Start or stop recording changes and keeping the orders sorted by price."""
        if watched != self.watched:
            self.watched = watched
            self._queues = self._lined_up() if watched else _nobody()
            self.changes()  # discarded

    def _lined_up(self) -> _Places:
        places = _nobody()
        for order_id, order in self._orders.items():
            _line_up(places, order_id, order)
        return places

    def changes(self) -> tuple[list[Entry], list[Entry]]:
        """Return the changes since the last call: (rank, price, lots now) per side, by rank."""
        changed: tuple[list[Entry], list[Entry]] = ([], [])
        for order in self._noted:
            order.noted = False
            if order.lots != order.before:
                changed[order.level.side].append((order.rank, order.level.price, order.lots))
        self._noted.clear()
        for entries in changed:
            entries.sort()
        return changed

    def packed(self, side: int, count: int = Limit.BOOK_ORDERS) -> bytes:
        """Return a side's first ``count`` orders in trading order, packed as ``ENTRY``."""
        places = self._queues if self.watched else self._lined_up()
        at_market, at_limit = places[side + _AT_MARKET], places[side]
        prices = self.depth.prices(side)
        numbers = array("q", bytes(ENTRY.size * min(count, len(self._orders))))
        cells, end = memoryview(numbers), 0
        for price in reversed(prices) if side == BUY else prices:
            for queue in (at_market.get(price), at_limit.get(price)):
                if queue is not None:
                    end = _pack(price, queue, cells, end)
            if end == len(cells):
                break
        return cells[:end].tobytes()

    def entries(self, side: int) -> list[Entry]:
        """Return a side's orders in trading order."""
        return list(ENTRY.iter_unpack(self.packed(side)))

    def orders(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield every order's arguments for ``stand``, in the order of their ranks."""
        for order_id, order in self._orders.items():
            yield order_id, order.level.side, order.level.price, order.rank, order.lots

    def count(self, side: int, price: int) -> int:
        """Return the number of orders at a price, which must have a level."""
        level = self.depth.levels[side][price]
        return level.orders

    def checksum(self) -> int:
        """Return the CRC32 of the first ten orders of the bids, then of the asks, each as <qqq."""
        return crc32(self.packed(BUY, CHECKSUM_LEVELS) + self.packed(SELL, CHECKSUM_LEVELS))


def _pack(price: int, queue: _Queue, cells: memoryview, end: int) -> int:
    """Pack the orders of a price from cell ``end`` on, as far as they fit; return the new end."""
    for order in queue.values():
        if end == len(cells):
            break
        cells[end] = order.rank
        cells[end + 1] = price
        cells[end + 2] = order.lots
        end += 3
    return end


def _nobody() -> _Places:
    return {}, {}, {}, {}


def _place(order: Order) -> int:
    return order.level.side + _AT_MARKET if order.rank < 0 else order.level.side


def _line_up(places: _Places, order_id: int, order: Order) -> None:
    """Add an order behind those of its price."""
    queues = places[_place(order)]
    queue = queues.get(order.level.price)
    if queue is None:
        queue = queues[order.level.price] = {}
    queue[order_id] = order
