"""Depth of one instrument, built from events alone.

Rule (docs/reference/engine.md): an accepted, replaced, returned, elected or refilled order adds its
``leaves``, the lots it shows, at its price; trades, and cancels and reductions of resting orders,
remove theirs, except for lots that were hidden. What an auction's trades remove is given level by
level (LEVEL_TAKEN).

A repeated answer (DUPLICATE) changes nothing. Between the events of one command the depth may be
crossed, so it is read only between batches, after ``changes``.

Invariants between batches: no level holds zero lots or less; the book is not crossed, except while
orders are collected for an auction.
"""

import struct
from itertools import chain, islice
from typing import Final
from zlib import crc32

from sortedcontainers import SortedList

from exchange.marketdata.book import Level
from exchange.marketdata.stream import Row
from exchange.messages import EventFlag, EventKind
from exchange.messages.wire import CHECKSUM_LEVELS

BUY: Final = 0
SELL: Final = 1
# Plain integers: an enumeration's operators cost more than all other work per event.
_AUCTION: Final = int(EventFlag.AUCTION)
_DUPLICATE: Final = int(EventFlag.DUPLICATE)
_RESTING: Final = int(EventFlag.RESTING)
_SELL: Final = int(EventFlag.SELL)
_ACCEPTED: Final = int(EventKind.ORDER_ACCEPTED)
_TRADE: Final = int(EventKind.TRADE)
_CANCELLED: Final = int(EventKind.ORDER_CANCELLED)
_REDUCED: Final = int(EventKind.ORDER_REDUCED)
_REPLACED: Final = int(EventKind.ORDER_REPLACED)
_DORMANT: Final = int(EventKind.ORDER_DORMANT)
_RETURNED: Final = int(EventKind.ORDER_RETURNED)
_ELECTED: Final = int(EventKind.ORDER_ELECTED)
_REFILLED: Final = int(EventKind.ORDER_REFILLED)
_EXECUTED: Final = int(EventKind.ORDER_EXECUTED)  # with an implied price
# Low bits of a replaced order's `b`: the lots shown; above them the hidden ones
SHOWN: Final = (1 << 32) - 1
UNSORTED_PRICES: Final = 1_024  # changed prices that are held back before they are sorted in
_LEVEL_TAKEN: Final = int(EventKind.LEVEL_TAKEN)
# All kinds that may change depth.
MOVING_KINDS: Final = frozenset(
    (_ACCEPTED, _TRADE, _CANCELLED, _REDUCED, _REPLACED, _DORMANT, _RETURNED, _ELECTED, _REFILLED,
     _LEVEL_TAKEN, _EXECUTED)
)  # fmt: skip


class Depth:
    """Levels of both sides by price in ticks, and the recent changes."""

    def __init__(self) -> None:
        self.levels: tuple[dict[int, Level], dict[int, Level]] = ({}, {})
        self.moved: Level | None = None  # the level that the last event changed
        self.sequence = 0  # of the last event that changed a level
        self._noted: list[Level] = []  # changed levels, in the order of their first change
        self._prices: tuple[SortedList[int], SortedList[int]] = (SortedList(), SortedList())
        # Prices that came or went since they were last sorted in, and whether each was there then.
        self._unsorted: tuple[dict[int, bool], dict[int, bool]] = ({}, {})

    def apply(self, row: Row) -> bool:
        """Apply one event; return whether its kind may change depth."""
        kind, flags = row[2], row[3]
        if flags & _DUPLICATE:
            return False
        sell = 1 if flags & _SELL else 0
        if kind == _ACCEPTED:
            lots = row[10]
        elif kind in (_CANCELLED, _REDUCED):
            lots = row[14] - row[9] if flags & _RESTING else 0
        elif kind == _EXECUTED:
            lots = -row[9] if flags & _RESTING else 0
        elif kind == _TRADE:
            # an auction's trades have no aggressor; LEVEL_TAKEN says what they removed
            sell, lots = 1 - sell, 0 if flags & _AUCTION else -row[9]
        elif kind == _LEVEL_TAKEN:
            lots = -row[13]
        elif kind in (_RETURNED, _ELECTED, _REFILLED):
            lots = row[10]
        elif kind == _REPLACED:
            if flags & _RESTING:
                self._add(sell, row[13], -(row[14] & SHOWN))
            lots = row[10]
        elif kind == _DORMANT:
            lots = -row[10]
        else:
            return False
        if lots:
            self._add(sell, row[8], lots)
        self.sequence = row[0]
        return True

    def _add(self, side: int, price: int, lots: int) -> None:
        levels = self.levels[side]
        level = levels.get(price)
        if level is None:
            level = levels[price] = Level(side, price)
        if not level.noted:
            level.noted, level.before = True, level.lots
            self._noted.append(level)
        level.lots += lots
        self.moved = level

    def changes(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return the changes since the last call: (price in ticks, lots now) per side, best
        first."""
        changed: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        for level in self._noted:
            level.noted, side = False, level.side
            if not level.lots:
                del self.levels[side][level.price]
            if level.lots != level.before:
                changed[side].append((level.price, level.lots))
                if not level.before or not level.lots:
                    self._unsorted[side].setdefault(level.price, level.before != 0)
        self._noted.clear()
        for side in (BUY, SELL):
            if len(self._unsorted[side]) > UNSORTED_PRICES:
                self.prices(side)
        changed[BUY].sort(reverse=True)
        changed[SELL].sort()
        return changed

    def prices(self, side: int) -> SortedList[int]:
        """Return the prices of a side's levels, lowest first."""
        levels, prices, unsorted = self.levels[side], self._prices[side], self._unsorted[side]
        for price, known in unsorted.items():
            if known and price not in levels:
                prices.remove(price)
            elif not known and price in levels:
                prices.add(price)
        unsorted.clear()
        return prices

    def fill(self, sequence: int, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
        """Start from the given levels, as they were after event ``sequence``."""
        self.sequence = sequence
        for side, levels in ((BUY, bids), (SELL, asks)):
            for price, lots in levels:
                self._add(side, price, lots)
        self.changes()

    def lots(self, side: int, price: int) -> int:
        """Return the lots at a price, which must have a level."""
        level = self.levels[side][price]
        return level.lots

    def bids(self, count: int | None = None) -> list[tuple[int, int]]:
        """Return the best ``count`` bids (None: all), highest first."""
        best = islice(reversed(self.prices(BUY)), count)
        return [(price, self.lots(BUY, price)) for price in best]

    def asks(self, count: int | None = None) -> list[tuple[int, int]]:
        """Return the best ``count`` asks (None: all), lowest first."""
        return [(price, self.lots(SELL, price)) for price in islice(self.prices(SELL), count)]

    def checksum(self) -> int:
        """Return the CRC32 of the best ten bids, then the best ten asks, as pairs of <i64."""
        return levels_checksum(self.bids(CHECKSUM_LEVELS), self.asks(CHECKSUM_LEVELS))


def levels_checksum(bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> int:
    """Return what ``Depth.checksum`` does, for the given levels."""
    numbers = list(chain.from_iterable(bids[:CHECKSUM_LEVELS] + asks[:CHECKSUM_LEVELS]))
    return crc32(struct.pack(f"<{len(numbers)}q", *numbers))
