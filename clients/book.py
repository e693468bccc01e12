"""The client's copies of one instrument's book, and the proof that they are the exchange's.

``Book`` has levels (``depth``, whole or cut), ``QueueBook`` every order at its rank (``queue``),
``TopBook`` the best level of each side (``top``). Prices are ticks, quantities lots.
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
    """Both sides as lots by key. A key begins with the price, of bids with its negative, so that
    the best is first."""

    def __init__(self, instrument: str, scale: PriceScale, channel: str) -> None:
        super().__init__(channel, instrument)
        self.scale = scale
        self._bids: SortedDict[_Key, int] = SortedDict()
        self._asks: SortedDict[_Key, int] = SortedDict()

    def _first(
        self, side: "SortedDict[_Key, int]", count: int | None
    ) -> Iterator[tuple[_Key, int]]:
        """The first ``count`` (None: all) of a side; none unless the copy is live."""
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
        """The best ``count`` bids (None: all) as (price_ticks, lots), highest first."""
        return [(-price, lots) for price, lots in self._first(self._bids, count)]

    def asks(self, count: int | None = None) -> list[tuple[int, int]]:
        """The best ``count`` asks (None: all) as (price_ticks, lots), lowest first."""
        return list(self._first(self._asks, count))

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
        return _crc(_LEVEL, self.bids(CHECKSUM_LEVELS) + self.asks(CHECKSUM_LEVELS))

    def apply(self, message: DepthSnapshot | DepthDelta) -> Step:
        """Take one message of the depth channel in. ProtocolError if a price is unreadable."""
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
    """One instrument's orders, each at its rank: within a price the lower number trades first."""

    def __init__(self, instrument: str, scale: PriceScale, channel: str = "") -> None:
        super().__init__(instrument, scale, channel or f"queue.{instrument}")
        self._part = 1  # of a snapshot, that comes next
        self._of = 0  # the sequence of that snapshot

    def bids(self, count: int | None = None) -> list[tuple[int, int, int]]:
        """The first ``count`` bids (None: all) as (rank, price_ticks, lots), in order."""
        return [(rank, -price, lots) for (price, rank), lots in self._first(self._bids, count)]

    def asks(self, count: int | None = None) -> list[tuple[int, int, int]]:
        """The first ``count`` asks (None: all) as (rank, price_ticks, lots), in order."""
        return [(rank, price, lots) for (price, rank), lots in self._first(self._asks, count)]

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
        return _crc(_ORDER, self.bids(CHECKSUM_LEVELS) + self.asks(CHECKSUM_LEVELS))

    def apply(self, message: QueueSnapshot | QueueDelta) -> Step:
        """Take one message of the queue channel in. ProtocolError if a price is unreadable."""
        if isinstance(message, QueueDelta):
            return self._follow(message, lambda: self._change(message))
        return self._start(message)

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


def _crc(entry: Layout, entries: Iterable[tuple[int, ...]]) -> int:
    return crc32(b"".join(entry.pack(*one) for one in entries))


def _levels(orders: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    made = []
    for price, group in groupby(orders, key=lambda order: order[1]):
        lots = [order[2] for order in group]
        made.append((price, sum(lots), len(lots)))
    return made
