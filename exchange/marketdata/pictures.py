"""What a channel shows of an instrument, as of the last time that it told: cut, grouped, conflated.

A picture is made when somebody joins its channel and asked to ``tell`` what is new: after every
batch, or, of a conflated channel, at every look of its period. Its deltas have absolute figures,
so that one may be applied to any state between the two sequences that it names.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final, NamedTuple, Protocol
from zlib import crc32

from exchange.marketdata.depth import BUY, SELL, Depth
from exchange.marketdata.instruments import Instrument, Instruments, micros_text
from exchange.marketdata.queues import Entry, Queues
from exchange.marketdata.statistics import Statistics
from exchange.messages.wire_base import Level, Response
from exchange.messages.wire_market import (
    CHECKSUM_LEVELS,
    DEPTH_GROUPS,
    DEPTH_TOPS,
    GROUP_LEVELS,
    PERIODS,
    SNAPSHOT_ORDERS,
    DepthDelta,
    DepthSnapshot,
    InstrumentStatistics,
    QueueDelta,
    QueueEntry,
    QueueSnapshot,
    TopLevel,
    TopOfBook,
    proven,
)

_LEVEL: Final = struct.Struct("<qq")
_TOPS: Final = {f"top{count}": count for count in DEPTH_TOPS}
_GROUPS: Final = {f"by{ticks}": ticks for ticks in DEPTH_GROUPS}

Levels = list[tuple[int, int]]  # price in ticks, lots
Sides = tuple[Levels, Levels]


class Name(NamedTuple):
    """A channel's name, taken apart: ``kind.CODE``, then how it is cut, then its period."""

    kind: str
    code: str
    top: int = 0  # best levels; 0: all
    group: int = 1  # ticks of one level
    period: int = 0  # in looks; 0: after every batch


def parse(channel: str) -> Name:
    """Take a channel's name apart. KeyError for one that no channel can have."""
    kind, *parts = channel.split(".")
    top, group, period = 0, 1, 0
    if parts and parts[-1] in PERIODS and kind in PICTURED:
        period = PERIODS[parts.pop()]
    if parts and kind == "depth":
        if parts[-1] in _TOPS:
            top = _TOPS[parts.pop()]
        elif parts[-1] in _GROUPS:
            top, group = GROUP_LEVELS, _GROUPS[parts.pop()]
    return Name(kind, ".".join(parts), top, group, period)


class Source(Protocol):
    """What pictures are made of."""

    time: int
    depths: dict[int, Depth]
    queues: dict[int, Queues]
    instruments: Instruments
    statistics: Statistics


class Picture:
    """One channel's picture of one instrument. ``sequence`` is that of its last message."""

    counts: ClassVar[bool] = False  # figures of the day rather than orders

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        self.channel = channel
        self.period = name.period
        self.instrument: Instrument = source.instruments.by_code[name.code]
        self.depth = source.depths[self.instrument.id]
        self.source = source
        self.sequence = self.depth.sequence

    def note(self, levels: Sides, entries: tuple[list[Entry], list[Entry]]) -> None:
        """Take in what a batch changed: levels and orders as they are now."""

    def tell(self) -> Response | None:
        """Return what is new since the last time; None if nothing is."""
        raise NotImplementedError

    def snapshot(self) -> list[Response]:
        """Return all of it, as of the last time that it told."""
        raise NotImplementedError

    def heartbeat(self) -> Response:
        """Return the message without news that proves the channel alive."""
        raise NotImplementedError

    def _advance(self, sequence: int) -> int:
        """Take the next message's sequence; return the one before it."""
        previous, self.sequence = self.sequence, sequence
        return previous


class Top(Picture):
    """The best level of both sides."""

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        super().__init__(channel, name, source)
        self._queue = source.queues[self.instrument.id]
        self._told = self._look()

    def _look(self) -> tuple[TopLevel | None, TopLevel | None]:
        return self._level(BUY, self.depth.bids(1)), self._level(SELL, self.depth.asks(1))

    def _level(self, side: int, best: Levels) -> TopLevel | None:
        if not best:
            return None
        ((price, lots),) = best
        return self.instrument.price_text(price), str(lots), self._queue.count(side, price)

    def tell(self) -> Response | None:
        seen = self._look()
        if seen == self._told:
            return None
        self._told = seen
        return self._message(self._advance(self.depth.sequence))

    def snapshot(self) -> list[Response]:
        return [self.heartbeat()]

    def heartbeat(self) -> Response:
        return self._message(self.sequence)

    def _message(self, previous: int) -> TopOfBook:
        bid, ask = self._told
        made = TopOfBook(
            channel=self.channel,
            instrument=self.instrument.code,
            sequence=self.sequence,
            previous_sequence=previous,
            time=self.source.time,
            checksum=0,
            bid=bid,
            ask=ask,
        )
        return proven(made)


class _Levels(Picture):
    """What the pictures of depth have in common: messages of levels."""

    def now(self) -> Sides:
        """Return the levels as they are told now."""
        raise NotImplementedError

    def snapshot(self) -> list[Response]:
        bids, asks = self.now()
        made = DepthSnapshot(
            instrument=self.instrument.code,
            sequence=self.sequence,
            time=self.source.time,
            bids=level_texts(self.instrument, bids),
            asks=level_texts(self.instrument, asks),
            checksum=_checksum(bids, asks),
            channel=self.channel,
        )
        return [made]

    def heartbeat(self) -> Response:
        return self.delta(self.sequence, ([], []), self.now())

    def delta(self, previous: int, changed: Sides, now: Sides) -> DepthDelta:
        """Return the message of changed levels."""
        return DepthDelta(
            instrument=self.instrument.code,
            sequence=self.sequence,
            previous_sequence=previous,
            time=self.source.time,
            checksum=_checksum(*now),
            bids=level_texts(self.instrument, changed[BUY]),
            asks=level_texts(self.instrument, changed[SELL]),
            channel=self.channel,
        )


class Window(_Levels):
    """The best levels of both sides, of some ticks each."""

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        super().__init__(channel, name, source)
        self._top, self._group = name.top, name.group
        self._told = self._look()

    def now(self) -> Sides:
        return self._told

    def _look(self) -> Sides:
        if self._group == 1:
            return self.depth.bids(self._top), self.depth.asks(self._top)
        return self._grouped(BUY), self._grouped(SELL)

    def _grouped(self, side: int) -> Levels:
        """Bids count at the multiple of the group below them, asks at the one above."""
        levels, group = self.depth.sides[side], self._group
        made: Levels = []
        for price in reversed(levels) if side == BUY else levels:
            at = price // group * group if side == BUY else -(-price // group) * group
            if made and made[-1][0] == at:
                made[-1] = at, made[-1][1] + levels[price]
            elif len(made) < self._top:
                made.append((at, levels[price]))
            else:
                break
        return made

    def tell(self) -> Response | None:
        seen = self._look()
        if seen == self._told:
            return None
        changed = tuple(_difference(*pair) for pair in zip(self._told, seen, strict=True))
        self._told = seen
        return self.delta(self._advance(self.depth.sequence), (changed[BUY], changed[SELL]), seen)


class Full(_Levels):
    """All of the depth, told now and then."""

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        super().__init__(channel, name, source)
        self._pending: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def now(self) -> Sides:
        return self.depth.bids(), self.depth.asks()

    def note(self, levels: Sides, entries: tuple[list[Entry], list[Entry]]) -> None:
        for pending, changed in zip(self._pending, levels, strict=True):
            pending.update(changed)

    def tell(self) -> Response | None:
        bids, asks = (sorted(pending.items()) for pending in self._pending)
        if not bids and not asks:
            return None
        for pending in self._pending:
            pending.clear()
        best = self.depth.bids(CHECKSUM_LEVELS), self.depth.asks(CHECKSUM_LEVELS)
        return self.delta(self._advance(self.depth.sequence), (bids[::-1], asks), best)

    def snapshot(self) -> list[Response]:
        """Return the depth of now, which is somewhere between two deltas."""
        told, self.sequence = self.sequence, self.depth.sequence
        made = super().snapshot()
        self.sequence = told
        return made

    def heartbeat(self) -> Response:
        best = self.depth.bids(CHECKSUM_LEVELS), self.depth.asks(CHECKSUM_LEVELS)
        return self.delta(self.sequence, ([], []), best)


class Queue(Picture):
    """Every order at its place."""

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        super().__init__(channel, name, source)
        self._queue = source.queues[self.instrument.id]
        self._queue.watched = True
        self._pending: tuple[dict[int, Entry], dict[int, Entry]] = ({}, {})

    def note(self, levels: Sides, entries: tuple[list[Entry], list[Entry]]) -> None:
        for pending, changed in zip(self._pending, entries, strict=True):
            pending.update((entry[0], entry) for entry in changed)

    def tell(self) -> Response | None:
        bids, asks = (sorted(pending.values()) for pending in self._pending)
        if not bids and not asks:
            return None
        for pending in self._pending:
            pending.clear()
        return self._delta(self._advance(self.depth.sequence), bids, asks)

    def heartbeat(self) -> Response:
        return self._delta(self.sequence, [], [])

    def _delta(self, previous: int, bids: list[Entry], asks: list[Entry]) -> QueueDelta:
        return QueueDelta(
            channel=self.channel,
            instrument=self.instrument.code,
            sequence=self.sequence,
            previous_sequence=previous,
            time=self.source.time,
            checksum=self._queue.checksum(),
            bids=self._texts(bids),
            asks=self._texts(asks),
        )

    def _texts(self, entries: Iterable[Entry]) -> list[QueueEntry]:
        text = self.instrument.price_text
        return [(rank, text(price), str(lots)) for rank, price, lots in entries]

    def snapshot(self) -> list[Response]:
        """Return the queue of now, in as many messages as it needs."""
        parts = list(self._parts())
        checksum = self._queue.checksum()
        return [
            QueueSnapshot(
                channel=self.channel,
                instrument=self.instrument.code,
                sequence=self.depth.sequence,
                time=self.source.time,
                part=number,
                parts=len(parts),
                bids=self._texts(bids),
                asks=self._texts(asks),
                checksum=checksum,
            )
            for number, (bids, asks) in enumerate(parts, 1)
        ]

    def _parts(self) -> Iterator[tuple[list[Entry], list[Entry]]]:
        """Yield the orders in runs of ``SNAPSHOT_ORDERS`` at most; an empty book gives one."""
        bids, asks = list(self._queue.entries(BUY)), list(self._queue.entries(SELL))
        for start in range(0, max(1, len(bids) + len(asks)), SNAPSHOT_ORDERS):
            end = start + SNAPSHOT_ORDERS
            yield bids[start:end], asks[max(0, start - len(bids)) : max(0, end - len(bids))]


class Figures(Picture):
    """The business day so far."""

    counts = True

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        super().__init__(channel, name, source)
        self._told = self._look()
        self.sequence = self._changed

    @property
    def _changed(self) -> int:
        return self.source.statistics.sequences.get(self.instrument.id, 0)

    def _look(self) -> dict[str, Any]:
        source, instrument = self.source, self.instrument
        statistics, text = source.statistics, instrument.price_text
        day = statistics.days[instrument.id]
        traded = [price for price, lots in day.lots.items() if lots > 0]
        vwap = statistics.vwap(instrument)
        return {
            "business_date": source.instruments.business_date,
            "open": None if day.open is None else text(day.open),
            "high": text(max(traded)) if traded else None,
            "low": text(min(traded)) if traded else None,
            "last": None if day.last is None else text(day.last),
            "trades": day.trades,
            "volume": str(day.volume),
            "notional": micros_text(day.tick_lots * instrument.tick_value),
            "vwap": None if vwap is None else micros_text(vwap),
            "open_interest": str(statistics.open_interest[instrument.id]),
            "reference": micros_text(statistics.reference(instrument)),
        }

    def tell(self) -> Response | None:
        seen = self._look()
        if seen == self._told:
            return None
        self._told = seen
        return self._message(self._advance(self._changed))

    def snapshot(self) -> list[Response]:
        return [self.heartbeat()]

    def heartbeat(self) -> Response:
        return self._message(self.sequence)

    def _message(self, previous: int) -> InstrumentStatistics:
        made = InstrumentStatistics(
            channel=self.channel,
            instrument=self.instrument.code,
            sequence=self.sequence,
            previous_sequence=previous,
            time=self.source.time,
            checksum=0,
            **self._told,
        )
        return proven(made)


def _difference(told: Levels, seen: Levels) -> Levels:
    """Return the levels that are other than they were told; none are left of one that is gone."""
    before, now = dict(told), dict(seen)
    gone = [(price, 0) for price in before if price not in now]
    return [level for level in seen if before.get(level[0]) != level[1]] + gone


def _checksum(bids: Levels, asks: Levels) -> int:
    """Return what ``Depth.checksum`` does, of a picture's own levels."""
    best = bids[:CHECKSUM_LEVELS] + asks[:CHECKSUM_LEVELS]
    return crc32(b"".join(_LEVEL.pack(price, lots) for price, lots in best))


def level_texts(instrument: Instrument, levels: Levels) -> list[Level]:
    """Return levels as the wire has them."""
    return [(instrument.price_text(price), str(lots)) for price, lots in levels]


_KINDS: Final[dict[str, type[Picture]]] = {"top": Top, "queue": Queue, "statistics": Figures}
PICTURED: Final = frozenset({"depth", *_KINDS})


def is_pictured(name: Name) -> bool:
    """Whether a channel has a picture of its own: raw depth that is not cut needs none."""
    return name.kind in _KINDS or (name.kind == "depth" and (name.top or name.period) > 0)


def picture_of(channel: str, name: Name, source: Source) -> Picture:
    """Return the picture of a channel that has one."""
    if name.kind != "depth":
        return _KINDS[name.kind](channel, name, source)
    return Window(channel, name, source) if name.top else Full(channel, name, source)
