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

from sortedcontainers import SortedDict

from exchange.marketdata.depth import BUY, SELL
from exchange.marketdata.instruments import Instrument
from exchange.marketdata.stream import Row, maker_of
from exchange.messages import EventFlag, EventKind, TradingState
from exchange.messages.wire_market import CHECKSUM_LEVELS

MARKET_RANKS: Final = -(1 << 52)
_AUCTION: Final = int(EventFlag.AUCTION)
_DUPLICATE: Final = int(EventFlag.DUPLICATE)
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

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self.sides: tuple[SortedDict[int, Level], SortedDict[int, Level]] = (
            SortedDict(),
            SortedDict(),
        )
        self.stands: dict[int, Stand] = {}  # by order id
        self.given = [1, MARKET_RANKS]  # the next ranks: at a limit, at the market
        self.watched = False
        self._before: dict[Stand, int] = {}  # lots

    def __len__(self) -> int:
        return len(self.stands)

    def apply(self, row: Row) -> None:
        """Take one event of a kind that moves depth in."""
        kind, flags = row[2], row[3]
        if flags & _DUPLICATE:
            return
        if kind == _ACCEPTED:
            if row[10]:
                self._join(row, flags & _MARKET != 0 and self._instrument.state in _COLLECTING)
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
                self._join(row, False)
        elif kind == _REPLACED:
            self._replace(row)
        elif kind == _DORMANT and row[7] in self.stands:
            self._set(row[7], 0)

    def _replace(self, row: Row) -> None:
        if row[3] & _RESTING:
            if row[4] == _KEPT:
                self._set(row[7], row[10])
                return
            self._set(row[7], 0)
        if row[10]:
            self._join(row, False)

    def _join(self, row: Row, at_market: bool) -> None:
        """An order goes to the back of its price."""
        side = SELL if row[3] & _SELL else BUY
        rank = self.given[at_market]
        self.given[at_market] = rank + 1
        self.stand(row[7], (rank, side, row[8]), row[10])
        if self.watched:
            self._before.setdefault((rank, side, row[8]), 0)

    def stand(self, order_id: int, stand: Stand, lots: int) -> None:
        """Put an order where it stands."""
        rank, side, price = stand
        self.stands[order_id] = stand
        level = self.sides[side].get(price)
        if level is None:
            self.sides[side][price] = {rank: lots}
        else:
            level[rank] = lots

    def _take(self, order_id: int, lots: int) -> None:
        rank, side, price = self.stands[order_id]
        self._set(order_id, self.sides[side][price][rank] - lots)

    def _leave_at_most(self, order_id: int, lots: int) -> None:
        """An auction takes first what is not shown: no more is shown than is left."""
        rank, side, price = self.stands[order_id]
        if lots < self.sides[side][price][rank]:
            self._set(order_id, lots)

    def _set(self, order_id: int, lots: int) -> None:
        """Give an order other lots; none: it leaves."""
        stand = rank, side, price = self.stands[order_id]
        level = self.sides[side][price]
        if self.watched:
            self._before.setdefault(stand, level[rank])
        if lots:
            level[rank] = lots
            return
        del self.stands[order_id], level[rank]
        if not level:
            del self.sides[side][price]

    def changes(self) -> tuple[list[Entry], list[Entry]]:
        """Return what changed since the last call, by rank: (rank, price, lots now) per side."""
        changed: tuple[list[Entry], list[Entry]] = ([], [])
        for (rank, side, price), old in self._before.items():
            lots = self.sides[side].get(price, {}).get(rank, 0)
            if lots != old:
                changed[side].append((rank, price, lots))
        self._before.clear()
        for entries in changed:
            entries.sort()
        return changed

    def entries(self, side: int) -> Iterator[Entry]:
        """Yield a side's orders in the order in which they would trade."""
        levels = self.sides[side]
        for price in reversed(levels) if side == BUY else levels:
            for rank, lots in sorted(levels[price].items()):
                yield rank, price, lots

    def orders(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield every order: id, rank, side, price in ticks, lots."""
        for order_id, (rank, side, price) in self.stands.items():
            yield order_id, rank, side, price, self.sides[side][price][rank]

    def count(self, side: int, price: int) -> int:
        """Return how many orders stand at a price."""
        return len(self.sides[side].get(price, ()))

    def checksum(self) -> int:
        """Return the CRC32 of the best ten orders of the bids, then of the asks, each as <qqq."""
        best = (islice(self.entries(side), CHECKSUM_LEVELS) for side in (BUY, SELL))
        return crc32(b"".join(_ENTRY.pack(*entry) for entries in best for entry in entries))
