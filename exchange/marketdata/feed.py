"""The public feed: turns released batches into the messages of the channels.

``apply`` takes a batch and returns the messages of the ``wanted`` channels, each built once, in
this order: trades and other events, changed depth and pictures, states, and last the marks that
close the channels of events. A snapshot is made in the same stream, between two batches, so that
the next message follows it without a gap. Channels: docs/reference/wire.md.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from exchange.marketdata.depth import MOVING_KINDS, Depth
from exchange.marketdata.happenings import (
    TRADE_CORRECTIONS,
    Corrections,
    correction_of,
    executed_of,
    is_agreed,
    trade_of,
    transfer_of,
)
from exchange.marketdata.instruments import Instrument, Instruments, Window, micros_text
from exchange.marketdata.levels import level_texts
from exchange.marketdata.picture import PICTURED, Name, Picture, Sides, parse
from exchange.marketdata.pictures import Queue, is_pictured, picture_of
from exchange.marketdata.prints import CHANNELS, PRINTED_KINDS, Prints
from exchange.marketdata.queues import Queues
from exchange.marketdata.statistics import COUNTED_KINDS, Statistics
from exchange.marketdata.stream import Row
from exchange.messages import Breaker, EventKind
from exchange.messages.wire import (
    AuctionResult,
    BreakerData,
    IndicativePrice,
    Response,
)
from exchange.messages.wire_market import (
    ChannelMark,
    DepthDelta,
    DepthSnapshot,
    InstrumentState,
    mark_parts,
    text_checksum,
)

DEPTH, TRADES, STATE = range(3)  # indexes into Instrument.channels
_MS: Final = 1_000_000
_TRADE: Final = int(EventKind.TRADE)
_EXECUTED: Final = int(EventKind.ORDER_EXECUTED)
_MOVING: Final = bytes(kind in MOVING_KINDS for kind in range(256))  # by kind
_TRANSFERRED: Final = int(EventKind.LOTS_TRANSFERRED)
_AUCTIONS: Final[dict[int, type[IndicativePrice] | type[AuctionResult]]] = {
    EventKind.AUCTION_INDICATED: IndicativePrice,
    EventKind.AUCTION_UNCROSSED: AuctionResult,
}
_PRICING: Final = frozenset(
    map(int, (EventKind.MARKED, EventKind.INSTRUMENT_SETTLED, EventKind.INSTRUMENT_EXPIRED))
)  # they change a mark, and with it the marks of combinations
_DAY_OPENED: Final = int(EventKind.DAY_OPENED)  # every state contains the business date
_HAPPENING: Final = frozenset({_TRANSFERRED, *TRADE_CORRECTIONS, *map(int, _AUCTIONS)})

Told = list[tuple[str, Response]]


class _Batch:
    """Collects the messages of one batch, and the marks that close its channels of events."""

    def __init__(self, wanted: Container[str], marked: dict[str, int]) -> None:
        self.wanted = wanted
        self.out: Told = []
        self._marked = marked
        self._open: dict[str, tuple[int, int, int]] = {}  # previous sequence, count, checksum

    def notes(self, channel: str, sequence: int) -> bool:
        """Record that the channel had an event; return whether the channel is wanted."""
        wanted = channel in self.wanted
        if wanted and channel not in self._open:
            self._open[channel] = (self._marked.get(channel, 0), 0, 0)
        self._marked[channel] = sequence
        return wanted

    def say(self, channel: str, message: Response) -> None:
        """Add a message to a channel for which ``notes`` returned True."""
        self.out.append((channel, message))
        previous, count, checksum = self._open[channel]
        checksum = text_checksum(mark_parts(message), checksum)
        self._open[channel] = (previous, count + 1, checksum)

    def close(self, time: int) -> Told:
        """Return all messages, the marks last."""
        for channel, (previous, count, checksum) in self._open.items():
            mark = ChannelMark(
                channel=channel,
                sequence=self._marked[channel],
                previous_sequence=previous,
                time=time,
                count=count,
                checksum=checksum,
            )
            self.out.append((channel, mark))
        return self.out


class Feed:
    """The public view of all instruments as of the last batch, and the messages that describe
    it."""

    def __init__(self) -> None:
        self.instruments = Instruments()
        self.depths: dict[int, Depth] = {}
        self.queues: dict[int, Queues] = {}
        self.statistics = Statistics(self.instruments)
        self.prints = Prints(self.instruments)
        self.corrections = Corrections()
        self.time = 0  # stamp of the last batch
        self.sent: dict[int, int] = {}  # sequence of the last delta, by instrument
        self.marked: dict[str, int] = {}  # sequence of the last event, by channel
        self.pictures: dict[str, Picture] = {}  # of the subscribed channels
        self._pictures: dict[int, list[Picture]] = {}  # the same, by instrument

    def apply(
        self, rows: list[Row], stamp: int, texts: Mapping[int, str], wanted: Container[str]
    ) -> Told:
        """Apply one batch; return (channel, message) for the ``wanted`` channels, in order."""
        self.time = stamp
        batch = _Batch(wanted, self.marked)
        moved: dict[int, Queues] = {}
        counted: dict[int, None] = {}  # instruments whose statistics may have changed
        stated: dict[int, int] = {}  # instrument id -> sequence of its last change of state
        queues, last = self.queues, -1
        for row in rows:
            kind, number = row[2], row[5]
            if _MOVING[kind]:
                if number != last:  # consecutive rows are mostly of the same book
                    queue = moved[number] = queues[number]
                    last = number
                queue.apply(row)
                if kind == _TRADE:
                    self.statistics.trade(row)
                    counted[number] = None
                if kind in (_TRADE, _EXECUTED):
                    self._traded(row, stamp, batch)
                continue
            if kind in COUNTED_KINDS:
                counted.update(dict.fromkeys(self.statistics.apply(row)))
            if kind in _HAPPENING:
                self._happen(row, stamp, batch)
            changed = self.learn(row, stamp, texts.get(row[0]), batch)
            if kind == _DAY_OPENED:
                stated.update(dict.fromkeys(self.instruments.by_id, row[0]))
            if changed is not None:
                stated[changed.id] = row[0]
                if kind in _PRICING:
                    stated.update(dict.fromkeys(self.instruments.priced(number), row[0]))
        self._show(moved, counted, batch)
        for number, sequence in stated.items():
            instrument = self.instruments.by_id[number]
            channel = instrument.channels[STATE]
            # After an auction's messages of the batch, so that a channel's sequences never fall
            sequence = max(sequence, self.marked.get(channel, 0))
            if batch.notes(channel, sequence):
                batch.say(channel, self._state(instrument, sequence))
        return batch.close(stamp)

    def learn(
        self, row: Row, stamp: int, text: str | None, batch: _Batch | None = None
    ) -> Instrument | None:
        """Apply an event's effect on instruments and publications; return the instrument that it
        changed, if any. A history without trades and orders needs only this, in order."""
        changed = self.instruments.apply(row, text)
        if changed is not None and changed.id not in self.depths:
            depth = self.depths[changed.id] = Depth()
            self.queues[changed.id] = Queues(changed, depth)
        if row[2] in PRINTED_KINDS:
            told = self.prints.apply(row, stamp, text)
            if told is not None and batch is not None and batch.notes(told[0], row[0]):
                batch.say(*told)
        return changed

    def _traded(self, row: Row, stamp: int, batch: _Batch) -> None:
        """Add the message of a trade."""
        instrument = self.instruments.by_id[row[5]]
        channel = instrument.channels[TRADES]
        if batch.notes(channel, row[0]):
            made = trade_of if row[2] == _TRADE else executed_of
            batch.say(channel, made(instrument, row, stamp))

    def _happen(self, row: Row, stamp: int, batch: _Batch) -> None:
        """Add the message of a rare event: a correction, lots moved off the book, an auction."""
        kind = row[2]
        if kind == _TRANSFERRED and not is_agreed(row):
            return
        if kind in TRADE_CORRECTIONS and not self.corrections.is_told(row):
            return
        instrument = self.instruments.by_id[row[5]]
        channel = instrument.channels[STATE if kind in _AUCTIONS else TRADES]
        if not batch.notes(channel, row[0]):
            return
        if kind in _AUCTIONS:
            batch.say(channel, self._auction(instrument, row))
        elif kind == _TRANSFERRED:
            batch.say(channel, transfer_of(instrument, row, stamp))
        else:
            batch.say(channel, correction_of(instrument, row, stamp))

    def _show(self, moved: dict[int, Queues], counted: Iterable[int], batch: _Batch) -> None:
        """Add the changed levels, and the pictures that are sent after every batch."""
        for number, queue in moved.items():
            levels, entries = queue.depth.changes(), queue.changes()
            self._delta(number, queue.depth, levels, batch)
            for picture in self._pictures.get(number, ()):
                if not picture.counts:
                    picture.note(levels, entries)
                    if not picture.period:
                        self._look(picture, batch.out)
        for number in counted:
            for picture in self._pictures.get(number, ()):
                if picture.counts and not picture.period:
                    self._look(picture, batch.out)

    def _look(self, picture: Picture, out: Told) -> None:
        told = picture.tell()
        if told is not None:
            out.append((picture.channel, told))

    def tick(self, look: int) -> Told:
        """Return the messages of the conflated channels that are due; ``look`` counts the ticks."""
        out: Told = []
        for picture in self.pictures.values():
            if picture.period and look % picture.period == 0:
                self._look(picture, out)
        return out

    # Channels

    def named(self, channel: str) -> Name:
        """Parse a channel's name. KeyError if there is no such channel."""
        if channel in CHANNELS:
            return Name(channel, "")
        name = parse(channel)
        if name.kind not in PICTURED and name.kind not in _KINDS:
            raise KeyError(channel)
        self.instruments.by_code[name.code]
        return name

    def pictured(self, channel: str) -> bool:
        """Whether a channel's messages may be dropped if a snapshot follows."""
        return channel.partition(".")[0] in PICTURED

    def join(self, channel: str) -> None:
        """Maintain a channel's picture from now on, if it needs one. KeyError as ``named``."""
        name = self.named(channel)
        if is_pictured(name) and channel not in self.pictures:
            picture = picture_of(channel, name, self)
            self.pictures[channel] = picture
            self._pictures.setdefault(picture.instrument.id, []).append(picture)
            self._watch(picture.instrument.id)

    def leave(self, channel: str) -> None:
        """Drop a channel's picture: it has no subscriber left."""
        picture = self.pictures.pop(channel, None)
        if picture is not None:
            self._pictures[picture.instrument.id].remove(picture)
            self._watch(picture.instrument.id)

    def _watch(self, number: int) -> None:
        """Have the queue record changes while a subscribed channel needs them."""
        queues = self.queues[number]
        queues.watch(any(isinstance(one, Queue) for one in self._pictures[number]))

    def snapshot(self, channel: str, sequence: int) -> Sequence[Response]:
        """Return what a new subscriber is sent first: the channel's present content. KeyError as
        ``named``.

        ``sequence`` is that of the last released command; a state carries it.
        """
        name = self.named(channel)
        if is_pictured(name):
            picture = self.pictures.get(channel) or picture_of(channel, name, self)
            return picture.snapshot()
        if name.kind == "depth":
            return [self._snapshot(self.instruments.by_code[name.code])]
        told: list[Response] = []
        if name.kind == "state":
            told.append(self._state(self.instruments.by_code[name.code], sequence))
        elif name.kind in CHANNELS:
            told += self.prints.latest(channel)
        return [*told, self._mark(channel)]

    def heartbeat(self, channel: str) -> Response:
        """Return a message that proves a channel alive: without news, or with the pending
        changes."""
        picture = self.pictures.get(channel)
        if picture is not None:
            return picture.tell() or picture.heartbeat()
        kind, _, code = channel.partition(".")
        if kind != "depth":
            return self._mark(channel)
        instrument = self.instruments.by_code[code]
        sequence = self.sent.get(instrument.id, 0)
        return DepthDelta(
            instrument=code,
            sequence=sequence,
            previous_sequence=sequence,
            time=self.time,
            checksum=self.depths[instrument.id].checksum(),
        )

    def _mark(self, channel: str) -> ChannelMark:
        sequence = self.marked.get(channel, 0)
        return ChannelMark(
            channel=channel, sequence=sequence, previous_sequence=sequence, time=self.time
        )

    def _delta(self, number: int, depth: Depth, levels: Sides, batch: _Batch) -> None:
        bids, asks = levels
        if not bids and not asks:
            return
        previous, self.sent[number] = self.sent.get(number, 0), depth.sequence
        instrument = self.instruments.by_id[number]
        channel = instrument.channels[DEPTH]
        if channel not in batch.wanted:
            return
        delta = DepthDelta(
            instrument=instrument.code,
            sequence=depth.sequence,
            previous_sequence=previous,
            time=self.time,
            checksum=depth.checksum(),
            bids=level_texts(instrument, bids),
            asks=level_texts(instrument, asks),
        )
        batch.out.append((channel, delta))

    def _snapshot(self, instrument: Instrument) -> DepthSnapshot:
        depth = self.depths[instrument.id]
        return DepthSnapshot(
            instrument=instrument.code,
            sequence=self.sent.get(instrument.id, 0),
            time=self.time,
            bids=level_texts(instrument, depth.bids()),
            asks=level_texts(instrument, depth.asks()),
            checksum=depth.checksum(),
        )

    def _state(self, instrument: Instrument, sequence: int) -> InstrumentState:
        settlement = instrument.settlement_price
        band = instrument.protections.band
        return InstrumentState(
            instrument=instrument.code,
            sequence=sequence,
            time=self.time,
            state=instrument.state.name,
            cause=instrument.cause.name,
            low_limit=instrument.price_text(instrument.low_ticks),
            high_limit=instrument.price_text(instrument.high_ticks),
            mark=micros_text(self.instruments.mark(instrument)),
            settlement_price=None if settlement is None else micros_text(settlement),
            business_date=self.instruments.business_date,
            resumes=instrument.resumes or None,
            band=instrument.price_text(band) if band else None,
            circuit_breaker=_breaker(instrument, Breaker.CIRCUIT),
            velocity=_breaker(instrument, Breaker.VELOCITY),
        )

    def _auction(self, instrument: Instrument, row: Row) -> Response:
        return _AUCTIONS[row[2]](
            instrument=instrument.code,
            sequence=row[0],
            index=row[1],
            time=self.time,
            quantity=str(row[13]),
            surplus=str(row[14]),
            price=instrument.price_text(row[8]) if row[10] else None,
        )


_KINDS: Final = frozenset({"trades", "state"})  # channels of an instrument that have no picture


def _breaker(instrument: Instrument, which: Breaker) -> BreakerData | None:
    window = instrument.breakers.get(which, Window())
    if not window.variation:
        return None
    return BreakerData(
        variation=instrument.price_text(window.variation),
        span_ms=window.span_ns // _MS,
        halt_ms=window.halt_ns // _MS,
        product=window.product,
    )
