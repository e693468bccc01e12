"""Pages of history from the released stream, for HTTP queries.

A page is scanned in a thread, from the tape alone, and built on the event loop, which owns the
state of the reports. No state is kept between two pages: a cursor names the last event scanned.
"""

import time
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final, NamedTuple, Protocol, TypeAlias

from exchange.gateway.corrections import CORRECTIONS, TRANSFERRED
from exchange.gateway.resume import Epochs, Place
from exchange.marketdata.stream import Released, Row, maker_of
from exchange.messages import EVENT, EventKind
from exchange.messages.rest import OfHistory
from exchange.messages.wire import Position

SCAN_EVENTS: Final = 65_536  # events scanned for one page, to the end of their batch
NANOSECONDS_PER_MS: Final = 1_000_000
_TRADE: Final = int(EventKind.TRADE)
_KIND: Final = 12  # offset of the kind byte in an event
READ_SECONDS: Final = 5.0  # longest time to compute candles
# Start in ns; open, high, low, close in ticks; lots, trades.
CandleRow: TypeAlias = tuple[int, int, int, int, int, int, int]
Select = Callable[[Row], bool]


class Stream(Protocol):
    """The released stream, after an event or from a stamp on; may be read in any thread."""

    def read(self, epoch: int, sequence: int, index: int) -> Iterator[Released]: ...
    def since(self, stamp: int) -> Iterator[Released]: ...


class Found(NamedTuple):
    """A page: (event, its batch's stamp, the text of its command), and the next page's place,
    None at the end."""

    rows: list[tuple[Row, int, str | None]]
    next: Place | None


def cursor_text(place: Place | None) -> str | None:
    """Return a place as the cursor that clients see."""
    return None if place is None else ".".join(map(str, place))


def place_of(cursor: str, epochs: Epochs) -> Place:
    """Return the place of a well-formed cursor."""
    epoch, sequence, index = map(int, cursor.split("."))
    return epochs.place(Position(epoch, sequence, index))


def parties(row: Row) -> tuple[int, ...]:
    """Return the accounts that an event concerns: both of a trade, correction or transfer."""
    if row[2] == _TRADE:
        return row[6], maker_of(row[12])[0]
    if row[2] == TRANSFERRED:
        return row[6], row[7]
    return (row[6], row[12]) if row[2] in CORRECTIONS else (row[6],)


def scan(stream: Stream, query: OfHistory, after: Place | None, select: Select) -> Found:
    """Return the selected events of the query's period, and the next page's place.

    Raises what ``stream.read`` does for an invalid place.
    """
    until = query.to_ms * NANOSECONDS_PER_MS
    start = query.from_ms * NANOSECONDS_PER_MS
    records = _records(stream, start, after)
    rows: list[tuple[Row, int, str | None]] = []
    seen = 0
    for released in records:
        if released.stamp >= until:
            break
        texts = dict(released.texts)
        for row in EVENT.iter_unpack(released.events):
            if select(row):
                rows.append((row, released.stamp, texts.get(row[0])))
                if len(rows) == query.limit:
                    return Found(rows, (released.epoch, row[0], row[1]))
        seen += len(released.events)
        if seen >= SCAN_EVENTS * EVENT.size:
            return Found(rows, (released.epoch, row[0], row[1]))
    return Found(rows, None)


def _records(stream: Stream, start: int, after: Place | None) -> Iterator[Released]:
    """Return the batches from a stamp on and, if a place is given, after it."""
    if after is None:
        return stream.since(start)
    records = stream.read(*after)
    first = next(records, None)
    if first is None or first.stamp >= start:
        return iter(()) if first is None else chain((first,), records)
    return stream.since(start)  # skips the batches between the place and the start


def candles(
    stream: Stream, instrument: int, seconds: int, start: int, most: int
) -> tuple[list[CandleRow], int | None]:
    """Return the candles of up to ``most`` intervals from the first trade on, and the stamp to
    continue from, None at the end.

    For combinations, whose trades are booked in their legs; other instruments' candles come from
    clearing. ``start`` is in ns. Raises TimeoutError after ``READ_SECONDS``.
    """
    length, deadline = seconds * 1_000_000_000, time.monotonic() + READ_SECONDS
    made: dict[int, CandleRow] = {}
    for released in stream.since(start // length * length):
        if time.monotonic() > deadline:
            raise TimeoutError(f"more than {READ_SECONDS} seconds of reading")
        kinds = released.events[_KIND :: EVENT.size]
        if _TRADE not in kinds:
            continue
        begun = released.stamp // length * length
        if made and begun >= next(iter(made)) + most * length:
            return list(made.values()), begun
        for number, kind in enumerate(kinds):
            row = EVENT.unpack_from(released.events, number * EVENT.size)
            if kind == _TRADE and row[5] == instrument:
                made[begun] = _traded(made.get(begun), begun, row[8], row[9])
    return list(made.values()), None


def _traded(candle: CandleRow | None, begun: int, price: int, lots: int) -> CandleRow:
    """Return a candle with one more trade in it."""
    if candle is None:
        return begun, price, price, price, price, lots, 1
    _, first, high, low, _, volume, trades = candle
    return begun, first, max(high, price), min(low, price), price, volume + lots, trades + 1
