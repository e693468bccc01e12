"""Pictures of the best level, of every order and of the day; and the picture of each channel."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from exchange.marketdata.depth import BUY, SELL
from exchange.marketdata.instruments import micros_text
from exchange.marketdata.levels import Full, Window
from exchange.marketdata.picture import Levels, Name, Picture, Sides, Source
from exchange.marketdata.queues import ENTRY, Entry, Queues
from exchange.messages.wire_base import Response
from exchange.messages.wire_market import (
    SNAPSHOT_ORDERS,
    InstrumentStatistics,
    QueueDelta,
    QueueEntry,
    QueueSnapshot,
    TopLevel,
    TopOfBook,
    proven,
)


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
        if not self._is_news(self.depth.sequence):
            return None
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


class Queue(Picture):
    """Every order with its rank."""

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        super().__init__(channel, name, source)
        self._queue = source.queues[self.instrument.id]
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
            bids=entry_texts(bids, self.instrument.price_text),
            asks=entry_texts(asks, self.instrument.price_text),
        )

    def snapshot(self) -> Sequence[Response]:
        """Return the present queue, in as many messages as it needs."""
        return _Parts(self, self._queue)


class _Parts(Sequence[Response]):
    """A snapshot of a queue in messages of at most ``SNAPSHOT_ORDERS``, each built on access; an
    empty book has one message."""

    def __init__(self, picture: Queue, queue: Queues) -> None:
        self._text = picture.instrument.price_text
        self._bids, self._asks = queue.packed(BUY), queue.packed(SELL)
        self._part_bytes = SNAPSHOT_ORDERS * ENTRY.size
        self._parts = max(1, -(-len(queue) // SNAPSHOT_ORDERS))
        self._fields: dict[str, Any] = {
            "channel": picture.channel,
            "instrument": picture.instrument.code,
            "sequence": picture.depth.sequence,
            "time": picture.source.time,
            "parts": self._parts,
            "checksum": queue.checksum(),
        }

    def __len__(self) -> int:
        return self._parts

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._parts:
            raise IndexError(index)
        start, above = index * self._part_bytes, len(self._bids)
        end = start + self._part_bytes
        bids = self._bids[start:end]
        asks = self._asks[max(0, start - above) : max(0, end - above)]
        return QueueSnapshot(
            part=index + 1,
            bids=entry_texts(ENTRY.iter_unpack(bids), self._text),
            asks=entry_texts(ENTRY.iter_unpack(asks), self._text),
            **self._fields,
        )


def entry_texts(entries: Iterable[Entry], text: Callable[[int], str]) -> list[QueueEntry]:
    """Return orders in their wire form."""
    return [(rank, text(price), str(lots)) for rank, price, lots in entries]


class Figures(Picture):
    """The statistics of the current business day."""

    counts = True

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        super().__init__(channel, name, source)
        self._told = self._look()
        self.sequence = self._seen = self._changed

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
            "open_interest": str(statistics.open_interest.get(instrument.id, 0)),
            "reference": micros_text(source.instruments.reference(instrument)),
        }

    def tell(self) -> Response | None:
        if not self._is_news(self._changed):
            return None
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


_KINDS: Final[dict[str, type[Picture]]] = {"top": Top, "queue": Queue, "statistics": Figures}


def is_pictured(name: Name) -> bool:
    """Whether a channel has a picture; full depth that is not conflated needs none."""
    return name.kind in _KINDS or (name.kind == "depth" and (name.top or name.period) > 0)


def picture_of(channel: str, name: Name, source: Source) -> Picture:
    """Return a new picture for a channel that has one."""
    if name.kind != "depth":
        return _KINDS[name.kind](channel, name, source)
    return Window(channel, name, source) if name.top else Full(channel, name, source)
