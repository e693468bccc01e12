"""The orders of one instrument's book, each at its place: built from events alone.

A place is an order's rank: within a side and price the lower number trades first. It counts the
places taken in this book and is given anew whenever an order goes to the back, so that it says
nothing of whose order it is, and an iceberg's next part, or an order that was replaced, stands
there as any new order does. Orders at the market, which an auction serves before all others, are
numbered from ``MARKET_RANKS`` up, below zero.

Invariants: the lots of a level's orders are the level's in ``depth.Depth``; no order shows zero
lots between batches.
"""

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final
from zlib import crc32

from exchange.marketdata.depth import BUY, SELL, SHOWN, Depth
from exchange.marketdata.instruments import Instrument
from exchange.marketdata.stream import Row, maker_of
from exchange.messages import EventFlag, EventKind, TradingState
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
_COMING: Final = frozenset(
    map(int, (EventKind.ORDER_RETURNED, EventKind.ORDER_ELECTED, EventKind.ORDER_REFILLED))
)
_COLLECTING: Final = frozenset((TradingState.PRE_OPEN, TradingState.AUCTION))
_KEPT: Final = 1  # ``reason`` of ORDER_REPLACED: the place is kept
_ENTRY: Final = struct.Struct("<qqq")  # rank, price in ticks, quantity in lots

Entry = tuple[int, int, int]  # rank, price in ticks, lots
Stand = tuple[int, int, int]  # rank, side, price in ticks
Level = dict[int, int]  # lots by rank


class Queues:
    """Both sides' orders by price and rank, and, once ``watched``, which of them changed lately."""

    def __init__(self, instrument: Instrument, depth: Depth) -> None:
        """``depth`` is the same book's, which knows the order of its prices."""
        self._instrument = instrument
        self._depth = depth
        self._levels: tuple[dict[int, Level], dict[int, Level]] = ({}, {})  # by side and price
        self.stands: dict[int, Stand] = {}  # by order id
        self.given = [1, MARKET_RANKS]  # the next ranks: at a limit, at the market
        self.watched = False
        self._before: dict[Stand, int] = {}  # lots

    def __len__(self) -> int:
        return len(self.stands)

    def apply(self, row: Row) -> None:
        """Take in one event that moved depth, right after ``Depth`` did."""
        kind, flags = row[2], row[3]
        if kind == _ACCEPTED:
            if row[10]:
                collects = flags & _MARKET and self._instrument.state in _COLLECTING
                self._join(row, 1 if collects else 0)
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
        elif kind in _COMING:
            if row[10]:
                self._join(row, 0)
        elif kind == _REPLACED:
            self._replace(row)
        elif kind == _DORMANT and row[7] in self.stands:
            self._take(row[7], row[10])

    def _replace(self, row: Row) -> None:
        resting = row[3] & _RESTING
        if resting:
            shown = row[14] & SHOWN
            self._take(row[7], shown - row[10] if row[4] == _KEPT else shown)
        if row[10] and not (resting and row[4] == _KEPT):
            self._join(row, 0)

    def _join(self, row: Row, at_market: int) -> None:
        """An order goes to the back of its price."""
        side, price = SELL if row[3] & _SELL else BUY, row[8]
        rank = self.given[at_market]
        self.given[at_market] = rank + 1
        self.stand(row[7], (rank, side, price), row[10])

    def stand(self, order_id: int, stand: Stand, lots: int) -> None:
        """Put an order where it stands."""
        rank, side, price = self.stands[order_id] = stand
        levels = self._levels[side]
        if price in levels:
            levels[price][rank] = lots
        else:
            levels[price] = {rank: lots}
        if self.watched:
            self._before.setdefault(stand, 0)

    def _leave_at_most(self, order_id: int, lots: int) -> None:
        """An auction takes first what is not shown: no more is shown than is left."""
        rank, side, price = self.stands[order_id]
        beyond = self._levels[side][price][rank] - lots
        if beyond > 0:
            self._take(order_id, beyond)

    def _take(self, order_id: int, lots: int) -> None:
        """Take lots off what an order shows; it leaves with the last."""
        stand = rank, side, price = self.stands[order_id]
        level = self._levels[side][price]
        old = level[rank]
        if self.watched:
            self._before.setdefault(stand, old)
        if old != lots:
            level[rank] = old - lots
            return
        del self.stands[order_id], level[rank]
        if not level:
            del self._levels[side][price]

    def changes(self) -> tuple[list[Entry], list[Entry]]:
        """Return what changed since the last call, by rank: (rank, price, lots now) per side."""
        changed: tuple[list[Entry], list[Entry]] = ([], [])
        for (rank, side, price), old in self._before.items():
            lots = self._levels[side].get(price, {}).get(rank, 0)
            if lots != old:
                changed[side].append((rank, price, lots))
        self._before.clear()
        for entries in changed:
            entries.sort()
        return changed

    def entries(self, side: int) -> Iterator[Entry]:
        """Yield a side's orders in the order in which they would trade."""
        prices, levels = self._depth.sides[side], self._levels[side]
        for price in reversed(prices) if side == BUY else prices:
            for rank, lots in sorted(levels[price].items()):
                yield rank, price, lots

    def orders(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield every order: id, rank, side, price in ticks, lots."""
        for order_id, (rank, side, price) in self.stands.items():
            yield order_id, rank, side, price, self._levels[side][price][rank]

    def count(self, side: int, price: int) -> int:
        """Return how many orders stand at a price."""
        return len(self._levels[side].get(price, ()))

    def checksum(self) -> int:
        """Return the CRC32 of the best ten orders of the bids, then of the asks, each as <qqq."""
        best = (islice(self.entries(side), CHECKSUM_LEVELS) for side in (BUY, SELL))
        return crc32(b"".join(_ENTRY.pack(*entry) for entries in best for entry in entries))
