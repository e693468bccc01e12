"""The public feed: channels ``depth.CODE``, ``trades.CODE`` and ``state.CODE``.

``apply`` takes a released batch in and returns the messages of the channels that somebody
wants, each built once. Depth is sent once per batch and instrument, as the levels that differ.
A snapshot is made in band, between two batches, so the next delta follows it without a gap.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Final, Literal

from exchange.marketdata.depth import MOVING_KINDS, Depth
from exchange.marketdata.instruments import Instrument, Instruments, Window, micros_text
from exchange.marketdata.stream import Row
from exchange.messages import INDEX_BITS, Breaker, EventFlag, EventKind, TransferKind
from exchange.messages.wire import (
    AuctionResult,
    BreakerData,
    DepthDelta,
    DepthSnapshot,
    IndicativePrice,
    InstrumentState,
    Level,
    PublicCorrection,
    PublicTrade,
    PublicTransfer,
    Response,
)

DEPTH, TRADES, STATE = range(3)  # places in Instrument.channels
_MS: Final = 1_000_000
_TRADE: Final = int(EventKind.TRADE)
_SELL: Final = int(EventFlag.SELL)
_AUCTION: Final = int(EventFlag.AUCTION)
_TRANSFERRED: Final = int(EventKind.LOTS_TRANSFERRED)
_DUPLICATE: Final = int(EventFlag.DUPLICATE)
_AGREED: Final[dict[int, Literal["give_up", "block", "efp"]]] = {
    int(TransferKind.GIVE_UP): "give_up",
    int(TransferKind.BLOCK): "block",
    int(TransferKind.EFP): "efp",
}  # what is told to all; who is ported from whom is not
_CORRECTIONS: Final = frozenset(map(int, (EventKind.TRADE_BUSTED, EventKind.TRADE_ADJUSTED)))
_AUCTIONS: Final[dict[int, type[IndicativePrice] | type[AuctionResult]]] = {
    EventKind.AUCTION_INDICATED: IndicativePrice,
    EventKind.AUCTION_UNCROSSED: AuctionResult,
}


class Feed:
    """Instruments and their depth as of the last batch, and the messages that tell of them."""

    def __init__(self) -> None:
        self.instruments = Instruments()
        self.depths: dict[int, Depth] = {}
        self.time = 0  # stamp of the last batch
        self.sent: dict[int, int] = {}  # sequence of the last delta, by instrument

    def apply(
        self, rows: Sequence[Row], stamp: int, texts: Mapping[int, str], wanted: Container[str]
    ) -> list[tuple[str, Response]]:
        """Take one batch in; return (channel, message) for the ``wanted`` channels, in order."""
        self.time = stamp
        out: list[tuple[str, Response]] = []
        moved: dict[int, Depth] = {}
        stated: dict[int, int] = {}  # instrument id -> sequence of its last change
        for row in rows:
            kind = row[2]
            if kind in MOVING_KINDS:
                depth = self.depths[row[5]]
                if depth.apply(row):
                    moved[row[5]] = depth
                if kind == _TRADE:
                    instrument = self.instruments.by_id[row[5]]
                    channel = instrument.channels[TRADES]
                    if channel in wanted:
                        out.append((channel, trade_of(instrument, row, stamp)))
                continue
            if kind == _TRANSFERRED and is_agreed(row):
                instrument = self.instruments.by_id[row[5]]
                if instrument.channels[TRADES] in wanted:
                    out.append((instrument.channels[TRADES], transfer_of(instrument, row, stamp)))
            if kind in _CORRECTIONS:
                instrument = self.instruments.by_id[row[5]]
                if instrument.channels[TRADES] in wanted:
                    out.append((instrument.channels[TRADES], correction_of(instrument, row, stamp)))
            if kind in _AUCTIONS:
                instrument = self.instruments.by_id[row[5]]
                if instrument.channels[STATE] in wanted:
                    out.append((instrument.channels[STATE], self._auction(instrument, row)))
            changed = self.instruments.apply(row, texts.get(row[0]))
            if changed is not None:
                self.depths.setdefault(changed.id, Depth())
                stated[changed.id] = row[0]
        for number, depth in moved.items():
            self._delta(number, depth, wanted, out)
        for number, sequence in stated.items():
            instrument = self.instruments.by_id[number]
            if instrument.channels[STATE] in wanted:
                out.append((instrument.channels[STATE], self._state(instrument, sequence)))
        return out

    def snapshot(self, channel: str, sequence: int) -> Response | None:
        """Return what a new subscriber gets first, or None for a trades channel.

        Raises KeyError for a channel that does not exist. ``sequence`` is that of the last
        released command, which a state is true for.
        """
        kind, _, code = channel.partition(".")
        instrument = self.instruments.by_code[code]
        place = ("depth", "trades", "state").index(kind) if kind in _KINDS else -1
        if place < 0:
            raise KeyError(channel)
        if place == DEPTH:
            return self._snapshot(instrument)
        return self._state(instrument, sequence) if place == STATE else None

    def heartbeat(self, channel: str) -> Response | None:
        """Return the empty delta that proves a depth channel alive; None for other channels."""
        kind, _, code = channel.partition(".")
        if kind != "depth":
            return None
        instrument = self.instruments.by_code[code]
        sequence = self.sent.get(instrument.id, 0)
        return DepthDelta(
            instrument=code,
            sequence=sequence,
            previous_sequence=sequence,
            time=self.time,
            checksum=self.depths[instrument.id].checksum(),
        )

    def _delta(
        self, number: int, depth: Depth, wanted: Container[str], out: list[tuple[str, Response]]
    ) -> None:
        bids, asks = depth.changes()
        if not bids and not asks:
            return
        previous, self.sent[number] = self.sent.get(number, 0), depth.sequence
        instrument = self.instruments.by_id[number]
        channel = instrument.channels[DEPTH]
        if channel not in wanted:
            return
        delta = DepthDelta(
            instrument=instrument.code,
            sequence=depth.sequence,
            previous_sequence=previous,
            time=self.time,
            checksum=depth.checksum(),
            bids=_levels(instrument, bids),
            asks=_levels(instrument, asks),
        )
        out.append((channel, delta))

    def _snapshot(self, instrument: Instrument) -> DepthSnapshot:
        depth = self.depths[instrument.id]
        return DepthSnapshot(
            instrument=instrument.code,
            sequence=self.sent.get(instrument.id, 0),
            time=self.time,
            bids=_levels(instrument, depth.bids()),
            asks=_levels(instrument, depth.asks()),
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


_KINDS: Final = frozenset({"depth", "trades", "state"})


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


def _levels(instrument: Instrument, levels: list[tuple[int, int]]) -> list[Level]:
    return [(instrument.price_text(price), str(lots)) for price, lots in levels]


def trade_of(instrument: Instrument, row: Row, time: int) -> PublicTrade:
    """Return the public message of a TRADE."""
    return PublicTrade(
        instrument=instrument.code,
        sequence=row[0],
        index=row[1],
        time=time,
        match_number=str(row[0] << INDEX_BITS | row[1]),
        price=instrument.price_text(row[8]),
        quantity=str(row[9]),
        aggressor=None if row[3] & _AUCTION else "sell" if row[3] & _SELL else "buy",
    )


def correction_of(instrument: Instrument, row: Row, time: int) -> PublicCorrection:
    """Return the public message of what busts or adjusts a trade."""
    return PublicCorrection(
        instrument=instrument.code,
        sequence=row[0],
        index=row[1],
        time=time,
        kind="bust" if row[2] == EventKind.TRADE_BUSTED else "adjustment",
        match_number=str(row[7]),
        price=instrument.price_text(row[8]),
        quantity=str(row[9]),
    )


def is_agreed(row: Row) -> bool:
    """Whether a LOTS_TRANSFERRED is for the public: two sides agreed on it, and it is no repeat."""
    return row[4] in _AGREED and not row[3] & _DUPLICATE


def transfer_of(instrument: Instrument, row: Row, time: int) -> PublicTransfer:
    """Return the public message of lots that changed hands off the book."""
    return PublicTransfer(
        instrument=instrument.code,
        sequence=row[0],
        index=row[1],
        time=time,
        kind=_AGREED[row[4]],
        price=micros_text(row[8]),
        quantity=str(row[9]),
    )
