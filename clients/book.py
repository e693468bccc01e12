"""The client's copies of one instrument's book, and the proof that they are the exchange's.

``Book`` has levels (``depth``, whole or cut), ``QueueBook`` every order at its rank (``queue``),
``TopBook`` the best level of each side (``top``). Prices are ticks, quantities lots.
"""

from collections.abc import Iterable
from itertools import groupby, islice
from struct import Struct as Layout
from typing import Final
from zlib import crc32

from sortedcontainers import SortedDict

from clients.decimals import PriceScale, read_quantity
from clients.errors import Gap
from clients.local import BookState as BookState
from clients.local import Local
from clients.local import Step as Step
from exchange.messages.wire import (
    CHECKSUM_LEVELS,
    DepthDelta,
    DepthSnapshot,
    Level,
    QueueDelta,
    QueueSnapshot,
    TopOfBook,
)
from exchange.messages.wire_market import QueueEntry, TopLevel

_LEVEL: Final = Layout("<qq")
_ENTRY: Final = Layout("<qqq")


class Book(Local):
    """One instrument's bids and asks."""

    def __init__(self, instrument: str, scale: PriceScale, channel: str = "") -> None:
        super().__init__(channel or f"depth.{instrument}", instrument)
        self.scale = scale
        self._bids: SortedDict[int, int] = SortedDict()
        self._asks: SortedDict[int, int] = SortedDict()

    def bids(self, count: int | None = None) -> list[tuple[int, int]]:
        """The best ``count`` bids (None: all) as (price_ticks, lots), highest first."""
        if not self.is_live:
            return []
        return [(price, self._bids[price]) for price in islice(reversed(self._bids), count)]

    def asks(self, count: int | None = None) -> list[tuple[int, int]]:
        """The best ``count`` asks (None: all) as (price_ticks, lots), lowest first."""
        return list(islice(self._asks.items(), count)) if self.is_live else []

    @property
    def best_bid(self) -> tuple[int, int] | None:
        """The highest bid as (price_ticks, lots)."""
        return next(iter(self.bids(1)), None)

    @property
    def best_ask(self) -> tuple[int, int] | None:
        """The lowest ask as (price_ticks, lots)."""
        return next(iter(self.asks(1)), None)

    def checksum(self) -> int:
        """CRC32 of the best ten bids, then the best ten asks, each (ticks, lots) as <i64."""
        best = self.bids(CHECKSUM_LEVELS) + self.asks(CHECKSUM_LEVELS)
        return crc32(b"".join(_LEVEL.pack(price, lots) for price, lots in best))

    def apply(self, message: DepthSnapshot | DepthDelta) -> Step:
        """Take one message of the depth channel in. ProtocolError if a price is unreadable."""
        if isinstance(message, DepthSnapshot):
            if self.is_live and message.sequence < self.sequence:
                return Step.IGNORED
            self._begin()
            self._change(message)
            return self._complete(message.sequence, message.checksum)
        step = self._misplaced(message.previous_sequence, message.sequence)
        if step is not None:
            return step
        if message.sequence != self.sequence:
            self._change(message)
            self.sequence = message.sequence
        return self._verify(message.checksum)

    def _change(self, message: DepthSnapshot | DepthDelta) -> None:
        for side, levels in ((self._bids, message.bids), (self._asks, message.asks)):
            self._set(side, levels)

    def _set(self, side: "SortedDict[int, int]", levels: Iterable[Level]) -> None:
        for price_text, quantity_text in levels:
            price, lots = self.scale.read(price_text), read_quantity(quantity_text)
            if lots:
                side[price] = lots
            else:
                side.pop(price, None)

    def _clear(self) -> None:
        self._bids.clear()
        self._asks.clear()


class QueueBook(Local):
    """One instrument's orders, each at its rank: within a price the lower number trades first."""

    def __init__(self, instrument: str, scale: PriceScale, channel: str = "") -> None:
        super().__init__(channel or f"queue.{instrument}", instrument)
        self.scale = scale
        # lots by (price, best first, and rank)
        self._bids: SortedDict[tuple[int, int], int] = SortedDict()
        self._asks: SortedDict[tuple[int, int], int] = SortedDict()
        self._part = 1  # of a snapshot, that comes next
        self._of = 0  # the sequence of that snapshot

    def bids(self, count: int | None = None) -> list[tuple[int, int, int]]:
        """The first ``count`` bids (None: all) as (rank, price_ticks, lots), in order."""
        found = islice(self._bids.items(), count if self.is_live else 0)
        return [(rank, -price, lots) for (price, rank), lots in found]

    def asks(self, count: int | None = None) -> list[tuple[int, int, int]]:
        """The first ``count`` asks (None: all) as (rank, price_ticks, lots), in order."""
        found = islice(self._asks.items(), count if self.is_live else 0)
        return [(rank, price, lots) for (price, rank), lots in found]

    def bid_levels(self) -> list[tuple[int, int, int]]:
        """The bids by price as (price_ticks, lots, orders), highest first."""
        return _levels(self.bids())

    def ask_levels(self) -> list[tuple[int, int, int]]:
        """The asks by price as (price_ticks, lots, orders), lowest first."""
        return _levels(self.asks())

    def lots_ahead(self, side: str, rank: int) -> int:
        """Lots at the same price that trade before the order of that rank. KeyError: no such."""
        orders = self.bids() if side == "buy" else self.asks()
        prices = {known: at for known, at, _ in orders}
        price = prices[rank]
        return sum(lots for other, at, lots in orders if at == price and other < rank)

    def checksum(self) -> int:
        """CRC32 of the first ten bids, then the first ten asks, each as three <i64."""
        first = self.bids(CHECKSUM_LEVELS) + self.asks(CHECKSUM_LEVELS)
        return crc32(b"".join(_ENTRY.pack(*entry) for entry in first))

    def apply(self, message: QueueSnapshot | QueueDelta) -> Step:
        """Take one message of the queue channel in. ProtocolError if a price is unreadable."""
        if isinstance(message, QueueSnapshot):
            return self._start(message)
        step = self._misplaced(message.previous_sequence, message.sequence)
        if step is not None:
            return step
        if message.sequence != self.sequence:
            self._change(message)
            self.sequence = message.sequence
        return self._verify(message.checksum)

    def _start(self, snapshot: QueueSnapshot) -> Step:
        """Take one part of a snapshot in; the last one makes the copy live."""
        if self.is_live and snapshot.sequence < self.sequence:
            return Step.IGNORED
        if snapshot.part == 1:
            self._begin()
            self.state, self._part, self._of = BookState.WAITING, 1, snapshot.sequence
        if (snapshot.part, snapshot.sequence) != (self._part, self._of):
            return self._spoil(Gap(self.channel, self._of, snapshot.sequence))
        self._change(snapshot)
        self._part += 1
        if snapshot.part < snapshot.parts:
            return Step.APPLIED
        return self._complete(snapshot.sequence, snapshot.checksum)

    def _change(self, message: QueueSnapshot | QueueDelta) -> None:
        self._set(self._bids, message.bids, -1)
        self._set(self._asks, message.asks, 1)

    def _set(
        self, side: "SortedDict[tuple[int, int], int]", entries: Iterable[QueueEntry], sign: int
    ) -> None:
        for rank, price_text, quantity_text in entries:
            key, lots = (sign * self.scale.read(price_text), rank), read_quantity(quantity_text)
            if lots:
                side[key] = lots
            else:
                side.pop(key, None)

    def _clear(self) -> None:
        self._bids.clear()
        self._asks.clear()


class TopBook(Local):
    """The best level of each side as (price_ticks, lots, orders)."""

    def __init__(self, instrument: str, scale: PriceScale, channel: str = "") -> None:
        super().__init__(channel or f"top.{instrument}", instrument)
        self.scale = scale
        self._message: TopOfBook | None = None

    @property
    def bid(self) -> tuple[int, int, int] | None:
        """The highest bid."""
        return self._read(self._message.bid) if self._message and self.is_live else None

    @property
    def ask(self) -> tuple[int, int, int] | None:
        """The lowest ask."""
        return self._read(self._message.ask) if self._message and self.is_live else None

    def _read(self, level: TopLevel | None) -> tuple[int, int, int] | None:
        if level is None:
            return None
        price, quantity, orders = level
        return self.scale.read(price), read_quantity(quantity), orders

    def checksum(self) -> int:
        """What the last message's figures prove."""
        return self._message.proof() if self._message else 0

    def apply(self, message: TopOfBook) -> Step:
        """Take one message in. Each is whole, so that none can be missed for long."""
        if message.sequence < self.sequence:
            return Step.IGNORED
        self._begin()
        self._message = message
        return self._complete(message.sequence, message.checksum)

    def _clear(self) -> None:
        self._message = None


def _levels(orders: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    made = []
    for price, group in groupby(orders, key=lambda order: order[1]):
        lots = [order[2] for order in group]
        made.append((price, sum(lots), len(lots)))
    return made
