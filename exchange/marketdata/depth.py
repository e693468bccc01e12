"""Depth of one instrument, built from events alone.

The rule is that of docs/reference/engine.md: an accepted, replaced, returned, elected or refilled
order adds its ``leaves`` at its price, which are the lots it shows; trades, and cancels and
reductions of resting orders, take theirs off, but for the lots that nobody saw. What an auction's
trades took off a level is said level by level.
A repeated answer (DUPLICATE) changes nothing. Between the events of one command the depth may
be crossed for a moment, so it is read between batches only.

Invariants: no level holds zero or less between batches; the book is not crossed but while orders
are collected for an auction.
"""

import struct
from collections.abc import Callable
from itertools import islice
from typing import Any, Final
from zlib import crc32

from sortedcontainers import SortedDict

from exchange.marketdata.stream import Row
from exchange.messages import EventFlag, EventKind
from exchange.messages.wire import CHECKSUM_LEVELS

BUY: Final = 0
SELL: Final = 1
# Plain integers: an enumeration's own operators cost more than all else done per event.
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
SHOWN: Final = (1 << 32) - 1  # of a replaced order's `b`; above it what was not
_LEVEL_TAKEN: Final = int(EventKind.LEVEL_TAKEN)
# All that may move depth.
MOVING_KINDS: Final = frozenset(
    (_ACCEPTED, _TRADE, _CANCELLED, _REDUCED, _REPLACED, _DORMANT, _RETURNED, _ELECTED, _REFILLED,
     _LEVEL_TAKEN, _EXECUTED)
)  # fmt: skip
_LEVEL: Final = struct.Struct("<qq")  # price in ticks, quantity in lots
# Of a price that has its place among the sorted already.
_replace: Final[Callable[[Any, int, int], None]] = dict.__setitem__


class Depth:
    """Levels of both sides, price in ticks to quantity in lots, and what changed lately."""

    def __init__(self) -> None:
        self.sides: tuple[SortedDict[int, int], SortedDict[int, int]] = (SortedDict(), SortedDict())
        self.sequence = 0  # of the last event that changed a level
        self._before: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def apply(self, row: Row) -> bool:
        """Take one event in; return whether it is of a kind that moves depth."""
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
            # an auction's trades have no incoming side: LEVEL_TAKEN says what they took
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
        levels, before = self.sides[side], self._before[side]
        old: int = levels.get(price, 0)
        if price not in before:
            before[price] = old
        new = old + lots
        if new and old:
            _replace(levels, price, new)
        elif new:
            levels[price] = new
        else:
            del levels[price]

    def changes(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return what changed since the last call: (price, quantity now) per side, best first."""
        changed = []
        for side in (BUY, SELL):
            levels, before = self.sides[side], self._before[side]
            net = ((price, levels.get(price, 0)) for price, old in before.items()
                   if levels.get(price, 0) != old)  # fmt: skip
            changed.append(sorted(net, reverse=side == BUY))
            before.clear()
        return changed[BUY], changed[SELL]

    def bids(self, count: int | None = None) -> list[tuple[int, int]]:
        """Return the best ``count`` bids (None: all), highest first."""
        levels = self.sides[BUY]
        return [(price, levels[price]) for price in islice(reversed(levels), count)]

    def asks(self, count: int | None = None) -> list[tuple[int, int]]:
        """Return the best ``count`` asks (None: all), lowest first."""
        return list(islice(self.sides[SELL].items(), count))

    def checksum(self) -> int:
        """Return the CRC32 of the best ten bids, then the best ten asks, as pairs of <i64."""
        best = self.bids(CHECKSUM_LEVELS) + self.asks(CHECKSUM_LEVELS)
        return crc32(b"".join(_LEVEL.pack(price, lots) for price, lots in best))
