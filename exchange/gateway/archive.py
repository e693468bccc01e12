"""Pages of the released stream: what a bounded part of it holds for one who asks.

A page is scanned in a thread, on the tape alone, and built on the loop, where the reports' state
is. Nothing here keeps a place between two pages: a cursor names the last event that was looked at.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from exchange.gateway.resume import Epochs, Place
from exchange.marketdata.stream import Released, Row
from exchange.messages import EVENT
from exchange.messages.rest import OfHistory
from exchange.messages.wire import Position

SCAN_EVENTS: Final = 65_536  # of one page; more begin the next
NANOSECONDS_PER_MS: Final = 1_000_000
Select = Callable[[Row], bool]


class Stream(Protocol):
    """The released stream, from an event or a time on; may be read in any thread."""

    def read(self, epoch: int, sequence: int, index: int) -> Iterator[Released]: ...
    def since(self, stamp: int) -> Iterator[Released]: ...


class Found(NamedTuple):
    """What a page holds: events with their batch's stamp, and where to go on."""

    rows: list[tuple[Row, int]]
    next: Place | None


def cursor_text(place: Place | None) -> str | None:
    """Return a cursor as clients see it."""
    return None if place is None else ".".join(map(str, place))


def place_of(cursor: str, epochs: Epochs) -> Place:
    """Return the place that a well-formed cursor names."""
    epoch, sequence, index = map(int, cursor.split("."))
    return epochs.place(Position(epoch, sequence, index))


def scan(stream: Stream, query: OfHistory, after: Place | None, select: Select) -> Found:
    """Return the events of the query's stretch that are selected, and the next page's place.

    Raises what ``stream.read`` does for a place that is none.
    """
    until = query.to_ms * NANOSECONDS_PER_MS
    start = query.from_ms * NANOSECONDS_PER_MS
    records = stream.since(start) if after is None else stream.read(*after)
    rows: list[tuple[Row, int]] = []
    seen = 0
    for released in records:
        if released.stamp >= until:
            break
        if released.stamp < start:
            continue
        for row in EVENT.iter_unpack(released.events):
            if select(row):
                rows.append((row, released.stamp))
                if len(rows) == query.limit:
                    return Found(rows, (released.epoch, row[0], row[1]))
        seen += len(released.events)
        if seen >= SCAN_EVENTS * EVENT.size:
            return Found(rows, (released.epoch, row[0], row[1]))
    return Found(rows, None)
