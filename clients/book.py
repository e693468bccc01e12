"""The client's copy of one instrument's depth, and the proof that it is the exchange's.

A book is WAITING until a snapshot comes, then LIVE. A delta must follow the last message
(``previous_sequence``) and leave the book with the delta's checksum; one that does not makes the
book STALE. A stale book shows no levels, ignores deltas, and asks (the answer ``REPAIR``) to be
subscribed again: the snapshot that comes in band makes it LIVE. A message that only repeats what
is known is ignored. Prices are ticks, quantities lots.
"""

from collections.abc import Iterable
from enum import Enum
from itertools import islice
from struct import Struct as Layout
from typing import Final
from zlib import crc32

from sortedcontainers import SortedDict

from clients.decimals import PriceScale, read_quantity
from clients.errors import BadChecksum, Corrupt, Gap
from exchange.messages.wire import CHECKSUM_LEVELS, DepthDelta, DepthSnapshot, Level

_LEVEL: Final = Layout("<qq")


class BookState(Enum):
    """Whether the levels can be trusted."""

    WAITING = "waiting"
    LIVE = "live"
    STALE = "stale"


class Step(Enum):
    """What a message did to the book."""

    APPLIED = "applied"
    IGNORED = "ignored"
    REPAIR = "repair"  # the book is stale: subscribe again


class Book:
    """One instrument's bids and asks."""

    def __init__(self, instrument: str, scale: PriceScale) -> None:
        self.instrument = instrument
        self.scale = scale
        self.state = BookState.WAITING
        self.sequence = 0  # of the last message applied
        self.fault: Corrupt | None = None  # why the book is or last was stale
        self.repairs = 0  # snapshots that ended a stale state
        self._bids: SortedDict[int, int] = SortedDict()
        self._asks: SortedDict[int, int] = SortedDict()

    def __repr__(self) -> str:
        return f"<Book {self.instrument} {self.state.value} at {self.sequence}>"

    @property
    def is_live(self) -> bool:
        """Whether the levels are the exchange's as of ``sequence``."""
        return self.state is BookState.LIVE

    def bids(self, count: int | None = None) -> list[tuple[int, int]]:
        """The best ``count`` bids (None: all) as (price_ticks, lots), highest first."""
        return [(price, self._bids[price]) for price in islice(reversed(self._bids), count)]

    def asks(self, count: int | None = None) -> list[tuple[int, int]]:
        """The best ``count`` asks (None: all) as (price_ticks, lots), lowest first."""
        return list(islice(self._asks.items(), count))

    @property
    def best_bid(self) -> tuple[int, int] | None:
        """The highest bid as (price_ticks, lots)."""
        return self._bids.peekitem(-1) if self._bids else None

    @property
    def best_ask(self) -> tuple[int, int] | None:
        """The lowest ask as (price_ticks, lots)."""
        return self._asks.peekitem(0) if self._asks else None

    def checksum(self) -> int:
        """CRC32 of the best ten bids, then the best ten asks, each (ticks, lots) as <i64."""
        best = self.bids(CHECKSUM_LEVELS) + self.asks(CHECKSUM_LEVELS)
        return crc32(b"".join(_LEVEL.pack(price, lots) for price, lots in best))

    def apply(self, message: DepthSnapshot | DepthDelta) -> Step:
        """Take one message of the depth channel in. ProtocolError if a price is unreadable."""
        if isinstance(message, DepthSnapshot):
            return self._start(message)
        if not self.is_live or message.sequence < self.sequence:
            return Step.IGNORED
        if message.previous_sequence != self.sequence and message.sequence != self.sequence:
            return self._spoil(Gap(self._channel, self.sequence, message.previous_sequence))
        if message.sequence != self.sequence:
            self._change(self._bids, message.bids)
            self._change(self._asks, message.asks)
            self.sequence = message.sequence
        return self._verify(message.checksum)

    def forget(self) -> None:
        """The connection is gone: wait for a new snapshot."""
        self._clear()
        self.state = BookState.WAITING
        self.sequence = 0

    @property
    def _channel(self) -> str:
        return f"depth.{self.instrument}"

    def _start(self, snapshot: DepthSnapshot) -> Step:
        if self.is_live and snapshot.sequence < self.sequence:
            return Step.IGNORED
        was_stale = self.state is BookState.STALE
        self._clear()
        self._change(self._bids, snapshot.bids)
        self._change(self._asks, snapshot.asks)
        self.sequence = snapshot.sequence
        self.state = BookState.LIVE
        step = self._verify(snapshot.checksum)
        if was_stale and step is Step.APPLIED:
            self.repairs += 1
        return step

    def _change(self, side: "SortedDict[int, int]", levels: Iterable[Level]) -> None:
        for price_text, quantity_text in levels:
            price, lots = self.scale.read(price_text), read_quantity(quantity_text)
            if lots:
                side[price] = lots
            else:
                side.pop(price, None)

    def _verify(self, checksum: int) -> Step:
        if self.checksum() != checksum:
            return self._spoil(BadChecksum(self._channel, self.sequence))
        return Step.APPLIED

    def _spoil(self, fault: Corrupt) -> Step:
        self._clear()
        self.state = BookState.STALE
        self.fault = fault
        return Step.REPAIR

    def _clear(self) -> None:
        self._bids.clear()
        self._asks.clear()
