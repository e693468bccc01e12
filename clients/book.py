"""The client's copies of an instrument's book, verified against the exchange's checksums.

``Book`` has levels (``depth``, full or limited), ``QueueBook`` every order with its rank
(``queue``), ``TopBook`` the best level of each side (``top``). Prices are ticks, quantities lots.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from struct import Struct as Layout
from typing import Final, Generic, TypeVar
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
    QueueDelta,
    QueueSnapshot,
    TopOfBook,
)
from exchange.messages.wire_market import TopLevel

_LEVEL: Final = Layout("<qq")
_ORDER: Final = Layout("<qqq")
_Key = TypeVar("_Key", int, tuple[int, int])  # price; price and rank


class _Sides(Local, Generic[_Key]):
    """Both sides as lots by key. A key begins with the price, negated for bids, so that the best is
    first."""

    def __init__(self, instrument: str, scale: PriceScale, channel: str) -> None:
        super().__init__(channel, instrument)
        self.scale = scale
        self._bids: SortedDict[_Key, int] = SortedDict()
        self._asks: SortedDict[_Key, int] = SortedDict()

    def _first(
        self, side: "SortedDict[_Key, int]", count: int | None
    ) -> Iterator[tuple[_Key, int]]:
        """Return a side's first ``count`` entries (None: all); none unless the copy is live."""
        return islice(side.items(), count if self.is_live else 0)

    def _put(self, side: "SortedDict[_Key, int]", key: _Key, quantity: str) -> None:
        lots = read_quantity(quantity)
        if lots:
            side[key] = lots
        else:
            side.pop(key, None)

    def _clear(self) -> None:
        self._bids.clear()
        self._asks.clear()


class Book(_Sides[int]):
    """One instrument's bids and asks."""

    def __init__(self, instrument: str, scale: PriceScale, channel: str = "") -> None:
        super().__init__(instrument, scale, channel or f"depth.{instrument}")

    def bids(self, count: int | None = None) -> list[tuple[int, int]]:
        """Return the best ``count`` bids (None: all) as (price_ticks, lots), highest first."""
        return [(-price, lots) for price, lots in self._first(self._bids, count)]

    def asks(self, count: int | None = None) -> list[tuple[int, int]]:
        """Return the best ``count`` asks (None: all) as (price_ticks, lots), lowest first."""
        return list(self._first(self._asks, count))

    @property
    def best_bid(self) -> tuple[int, int] | None:
        """The highest bid as (price_ticks, lots); None if there is none."""
        return next(iter(self.bids(1)), None)

    @property
    def best_ask(self) -> tuple[int, int] | None:
        """The lowest ask as (price_ticks, lots); None if there is none."""
        return next(iter(self.asks(1)), None)

    def checksum(self) -> int:
        """Return the CRC32 of the best ten bids, then the best ten asks, each (ticks, lots) as
        <i64."""
        return _crc(_LEVEL, self.bids(CHECKSUM_LEVELS) + self.asks(CHECKSUM_LEVELS))

    def apply(self, message: DepthSnapshot | DepthDelta) -> Step:
        """Apply one message of the depth channel. ProtocolError if a price is unreadable."""
        if isinstance(message, DepthDelta):
            return self._follow(message, lambda: self._change(message))
        if self.is_live and message.sequence < self.sequence:
            return Step.IGNORED
        self._begin()
        self._change(message)
        return self._complete(message.sequence, message.checksum)

    def _change(self, message: DepthSnapshot | DepthDelta) -> None:
        for price, quantity in message.bids:
            self._put(self._bids, -self.scale.read(price), quantity)
        for price, quantity in message.asks:
            self._put(self._asks, self.scale.read(price), quantity)


class QueueBook(_Sides[tuple[int, int]]):
    """One instrument's orders with their ranks: within a price the lower rank trades first."""

    def __init__(self, instrument: str, scale: PriceScale, channel: str = "") -> None:
        super().__init__(instrument, scale, channel or f"queue.{instrument}")
        self._part = 1  # the next part of a snapshot
        self._of = 0  # sequence of that snapshot

    def bids(self, count: int | None = None) -> list[tuple[int, int, int]]:
        """Return the first ``count`` bids (None: all) as (rank, price_ticks, lots), in trading
        order."""
        return [(rank, -price, lots) for (price, rank), lots in self._first(self._bids, count)]

    def asks(self, count: int | None = None) -> list[tuple[int, int, int]]:
        """Return the first ``count`` asks (None: all) as (rank, price_ticks, lots), in trading
        order."""
        return [(rank, price, lots) for (price, rank), lots in self._first(self._asks, count)]

    def bid_levels(self) -> list[tuple[int, int, int]]:
        """Return the bids by price as (price_ticks, lots, orders), highest first."""
        return _levels(self.bids())

    def ask_levels(self) -> list[tuple[int, int, int]]:
        """Return the asks by price as (price_ticks, lots, orders), lowest first."""
        return _levels(self.asks())

    def lots_ahead(self, side: str, rank: int) -> int:
        """Return the lots at the same price that trade before the order of that rank. KeyError if
        there is no such order."""
        orders = self.bids() if side == "buy" else self.asks()
        prices = {known: at for known, at, _ in orders}
        price = prices[rank]
        return sum(lots for other, at, lots in orders if at == price and other < rank)

    def checksum(self) -> int:
        """Return the CRC32 of the first ten bids, then the first ten asks, each as three <i64."""
        return _crc(_ORDER, self.bids(CHECKSUM_LEVELS) + self.asks(CHECKSUM_LEVELS))

    def apply(self, message: QueueSnapshot | QueueDelta) -> Step:
        """Apply one message of the queue channel. ProtocolError if a price is unreadable."""
        if isinstance(message, QueueDelta):
            return self._follow(message, lambda: self._change(message))
        return self._start(message)

    def _start(self, snapshot: QueueSnapshot) -> Step:
        """Apply one part of a snapshot; the last one makes the copy live."""
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
        for rank, price, quantity in message.bids:
            self._put(self._bids, (-self.scale.read(price), rank), quantity)
        for rank, price, quantity in message.asks:
            self._put(self._asks, (self.scale.read(price), rank), quantity)


class TopBook(Local):
    """The best level of each side as (price_ticks, lots, orders)."""

    def __init__(self, instrument: str, scale: PriceScale, channel: str = "") -> None:
        super().__init__(channel or f"top.{instrument}", instrument)
        self.scale = scale
        self._message: TopOfBook | None = None

    @property
    def bid(self) -> tuple[int, int, int] | None:
        """The highest bid; None if there is none, or the copy is not live."""
        return self._read(self._message.bid) if self._message and self.is_live else None

    @property
    def ask(self) -> tuple[int, int, int] | None:
        """The lowest ask; None if there is none, or the copy is not live."""
        return self._read(self._message.ask) if self._message and self.is_live else None

    def _read(self, level: TopLevel | None) -> tuple[int, int, int] | None:
        if level is None:
            return None
        price, quantity, orders = level
        return self.scale.read(price), read_quantity(quantity), orders

    def checksum(self) -> int:
        """Return the checksum of the last message's figures."""
        return self._message.proof() if self._message else 0

    def apply(self, message: TopOfBook) -> Step:
        """Apply one message. Each is complete by itself, so a missed one is soon made up for."""
        if self.is_live and message.sequence < self.sequence:
            return Step.IGNORED
        self._begin()
        self._message = message
        return self._complete(message.sequence, message.checksum)

    def _clear(self) -> None:
        self._message = None


def _crc(entry: Layout, entries: Iterable[tuple[int, ...]]) -> int:
    return crc32(b"".join(entry.pack(*one) for one in entries))


def _levels(orders: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    made = []
    for price, group in groupby(orders, key=lambda order: order[1]):
        lots = [order[2] for order in group]
        made.append((price, sum(lots), len(lots)))
    return made
