"""Bounded queries of the journal, from a thread of its own beside the store's writer.

Every query is limited in rows or in seconds. SQLite works without the interpreter's lock.
"""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from exchange.clearing.ledger import EntryKind

NANOSECONDS: Final = 1_000_000_000
READ_SECONDS: Final = 5.0
INSTRUCTIONS: Final = 100_000  # of SQLite's machine between two looks at the clock

_FIRST: Final = "select number, stamp from journal where number >= ? order by number limit 1"
_CANDLES: Final = f"""
    with spans as (
        select stamp / ?1 as span, min(number) as first, max(number) as last, max(price) as high,
               min(price) as low, sum(quantity) as volume, count(*) as trades
        from journal where number >= ?2 and number < ?3 and instrument = ?4
            and kind = {EntryKind.TRADE:d}
        group by span)
    select span, a.price, high, low, b.price, volume, trades from spans
    join journal a on a.number = first join journal b on b.number = last order by span"""
PRICES: Final = f"""
    select number, instrument, business_date, quantity, price from journal
    where number > ?1 and kind in ({EntryKind.SETTLEMENT:d}, {EntryKind.EXPIRY:d})
    and business_date between ?2 and ?3 and (?4 is null or instrument = ?4)
    order by number limit ?5"""  # by an index that has these kinds alone


class Candle(NamedTuple):
    """One interval's trades; prices in ticks, ``start`` in nanoseconds."""

    start: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int


class Price(NamedTuple):
    """One settlement: ``number`` is that of its entry, the price is in clearing units."""

    number: int
    instrument: int
    business_date: int
    cycle: int
    price: int


class Reading:
    """Queries of the journal, by pages. Each opens the file anew, since the writer may replace
    it."""

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"

    def candles(
        self, instrument: int, seconds: int, start: int, most: int
    ) -> tuple[list[Candle], int | None]:
        """Return the candles of ``most`` intervals from that of the stamp ``start`` on, in order,
        and the stamp of the next page, None at the end of the journal. Raises TimeoutError."""
        length = seconds * NANOSECONDS
        with self._open() as database:
            first = _first_at(database, start // length * length)
            begun = max(start, _stamp_of(database, first)) // length * length
            end = begun + most * length
            last = _first_at(database, end)
            rows = _fetch(database, _CANDLES, (length, first, last, instrument))
            more = database.execute(_FIRST, (last,)).fetchone() is not None
        return [Candle(span * length, *rest) for span, *rest in rows], end if more else None

    def prices(
        self, instrument: int | None, dates: tuple[int, int], after: int, most: int
    ) -> list[Price]:
        """Return the settlements from one business date to another, both included, after the entry
        ``after``. Raises TimeoutError.
        """
        with self._open() as database:
            rows = _fetch(database, PRICES, (after, *dates, instrument, most))
        return [Price(*row) for row in rows]

    def _open(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self._uri, uri=True))


def _fetch(database: sqlite3.Connection, query: str, values: tuple[object, ...]) -> list[Any]:
    """Return all rows of a query. TimeoutError if it takes more than READ_SECONDS."""
    end = time.monotonic() + READ_SECONDS
    database.set_progress_handler(lambda: time.monotonic() > end, INSTRUCTIONS)
    try:
        return database.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        if time.monotonic() > end:
            raise TimeoutError(f"more than {READ_SECONDS} seconds of reading") from error
        raise


def _stamp_of(database: sqlite3.Connection, number: int) -> int:
    """Return the stamp of the first entry from a number on; 0 if there is none."""
    found = database.execute(_FIRST, (number,)).fetchone()
    return found[1] if found else 0


def _first_at(database: sqlite3.Connection, stamp: int) -> int:
    """Return the number of the first entry at or after a stamp, by bisection: both increase
    together."""
    (top,) = database.execute("select coalesce(max(number), 0) + 1 from journal").fetchone()
    low, high = 0, top
    while low < high:
        middle = (low + high) // 2
        number, found = database.execute(_FIRST, (middle,)).fetchone() or (top, stamp)
        if found < stamp:
            low = number + 1
        else:
            high = middle
    return low
