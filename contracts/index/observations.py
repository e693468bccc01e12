"""Reads a CSV file of price observations; rejects each invalid one with a reason.

A file that is not of the documented form is refused whole (RefusedFile). A well-formed but invalid
observation is rejected alone, with its line, so that one seller's faulty data cannot suppress the
others'. ``now_ns`` is only compared with observed times.

The numbers of refusals and screens are frozen, in the index's band 2200 to 2299. What to do about
each: docs/reference/index-methodology.md.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from enum import IntEnum
from typing import Final, NamedTuple

from contracts.index.methodology import Methodology, digest

FILE_BYTES_MAX: Final = 256 << 20
ROWS_MAX: Final = 2_000_000
FIELD_CHARS_MAX: Final = 512
PRICE_MICROS_MAX: Final = 10**12  # $1,000,000 an hour: above any real price, sums stay small
AHEAD_NS: Final = 300 * 10**9  # tolerated lead of an observation over the clock
NS_OF_DAY: Final = 86_400 * 10**9
REQUIRED: Final = ("provider", "gpu", "kind", "usd_hr", "fetched_at")
EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
OPTIONAL: Final = ("date", "currency", "vram_gb", "source_url", "region")

_PRICE: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,20})?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MICRO: Final = Decimal("0.000001")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FileRefusal(IntEnum):
    """Why a file was refused whole, in the order of checks; REPLAYED is checked by ``run``."""

    FILE_TOO_LARGE = 2201
    REPLAYED = 2202  # this file was used for these days before
    NOT_TEXT = 2203  # not UTF-8, or with a NUL
    HEADER = 2204  # a column is missing, unknown or duplicated
    ROW_FORM = 2205  # a row with another number of fields than the header, a field too long
    ROWS = 2206  # too many rows
    EMPTY = 2207  # no row at all


class Screen(IntEnum):
    """The outcome of an observation. Screens of one group are checked in this order, but for the
    date column, whose fault is TIME and is checked after FUTURE."""

    ACCEPTED = 0
    # Rejected when read: invalid for every index.
    TIME = 2211  # not a time with a zone, before 1970, or not a date
    FUTURE = 2212  # later than the clock
    PRICE = 2213  # not a plain decimal number; NaN, infinity and exponents are refused
    NONPOSITIVE = 2214
    PRICE_RANGE = 2215
    CURRENCY = 2216
    UNKNOWN_PROVIDER = 2217  # so its tier is unknown
    UNKNOWN_CLASS = 2218
    UNKNOWN_KIND = 2219
    DUPLICATE = 2220  # equal to an earlier row in all fields that are used
    # Screened out of one index and day.
    OTHER_GOOD = 2231  # not in the index's schedule
    OTHER_VENUE = 2232
    CARRIED = 2233  # observed on another day than its date column says
    OUTSIDE_WINDOW = 2234
    ADMINISTERED = 2235  # a fixed ratio of another price of the same seller
    STALE = 2236  # the provider's whole feed has not changed for too long
    # Screened out of the day's votes.
    NO_ANCHOR = 2241  # provider and series have no anchor in the month's table
    OUTLIER = 2242


class RefusedFile(ValueError):
    """The file was refused whole."""

    def __init__(self, refusal: FileRefusal, limit: object = "", observed: object = "") -> None:
        self.refusal = refusal
        self.limit, self.observed = limit, observed
        facts = f" (limit {limit}, seen {observed})" if limit != "" else ""
        super().__init__(f"{refusal.name} ({int(refusal)}): the file was refused whole{facts}")


class Observation(NamedTuple):
    """One observed price: millionths of a dollar per GPU-hour, nanoseconds since the epoch."""

    day: int  # proleptic ordinal of the stated date, by default the day of observation
    provider: str
    gpu: str
    kind: str
    price_micros: int
    observed_ns: int
    place: str  # distinguishes configurations of one seller: memory and region


class Rejected(NamedTuple):
    """A rejected observation: its line in the file, the reason, and the offending value."""

    line: int
    screen: Screen
    value: str


class Batch(NamedTuple):
    """The content of a file: its digest, the observations and the rejected rows."""

    file_hash: bytes
    observations: list[Observation]
    rejected: list[Rejected]

    @property
    def days(self) -> list[date]:
        """The days of the observations, in order."""
        return [date.fromordinal(day) for day in sorted({o.day for o in self.observations})]


def read(content: bytes, *, now_ns: int, methodology: Methodology) -> Batch:
    """Return the observations of a CSV file; RefusedFile if it is not of the documented form.

    ``now_ns`` is the clock: observations more than ``AHEAD_NS`` later are rejected.
    """
    if len(content) > FILE_BYTES_MAX:
        raise RefusedFile(FileRefusal.FILE_TOO_LARGE, FILE_BYTES_MAX, len(content))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedFile(FileRefusal.NOT_TEXT, "UTF-8", f"byte {error.start}") from error
    if "\0" in text:
        raise RefusedFile(FileRefusal.NOT_TEXT, "no NUL", "NUL")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        reader = _Reader(now_ns, methodology, _columns(next(rows, [])))
        for row in rows:
            reader.take(row, rows.line_num)
    except csv.Error as error:
        raise RefusedFile(FileRefusal.ROW_FORM, "CSV", f"line {rows.line_num}: {error}") from error
    if not reader.observations and not reader.rejected:
        raise RefusedFile(FileRefusal.EMPTY)
    return Batch(digest(content), reader.observations, reader.rejected)


def _columns(header: list[str]) -> dict[str, int]:
    columns = {name: place for place, name in enumerate(header)}
    known = {*REQUIRED, *OPTIONAL}
    if len(columns) < len(header) or not set(REQUIRED) <= columns.keys() <= known:
        wanted = f"{', '.join(REQUIRED)}; optional {', '.join(OPTIONAL)}"
        raise RefusedFile(FileRefusal.HEADER, wanted, ascii(",".join(header))[:200])
    return columns


class _Reader:
    """Reads rows one by one. Texts repeat often, so parsed values are cached."""

    def __init__(self, now_ns: int, methodology: Methodology, columns: dict[str, int]) -> None:
        self.observations: list[Observation] = []
        self.rejected: list[Rejected] = []
        self._methodology = methodology
        self._latest_ns = now_ns + AHEAD_NS
        self._width = len(columns)
        self._provider, self._gpu, self._kind, self._price, self._time = (
            columns[name] for name in REQUIRED
        )
        self._date = columns.get("date")
        self._currency = columns.get("currency")
        self._places = [columns[name] for name in ("vram_gb", "region") if name in columns]
        self._prices: dict[str, int | Screen] = {}
        self._times: dict[str, int | Screen] = {}
        self._dates: dict[str, int | None] = {}
        self._seen: set[Observation] = set()

    def take(self, row: list[str], line: int) -> None:
        """Take one row as an observation or a rejected one; RefusedFile ROW_FORM or ROWS."""
        if len(row) != self._width or len(max(row, key=len, default="")) > FIELD_CHARS_MAX:
            raise RefusedFile(FileRefusal.ROW_FORM, f"{self._width} fields", f"line {line}")
        if len(self.observations) + len(self.rejected) >= ROWS_MAX:
            raise RefusedFile(FileRefusal.ROWS, ROWS_MAX, f"more by line {line}")
        screen, value = self._screen(row)
        if screen is not Screen.ACCEPTED:
            self.rejected.append(Rejected(line, screen, value[:FIELD_CHARS_MAX]))

    def _screen(self, row: list[str]) -> tuple[Screen, str]:
        moment = self._moment(row[self._time])
        if isinstance(moment, Screen):
            return moment, row[self._time]
        day: int | None = moment // NS_OF_DAY + EPOCH_DAY
        if self._date is not None:
            day = self._day(row[self._date])
            if day is None:
                return Screen.TIME, row[self._date]
        price = self._micros(row[self._price])
        if isinstance(price, Screen):
            return price, row[self._price]
        if self._currency is not None and row[self._currency] != "USD":
            return Screen.CURRENCY, row[self._currency]
        provider, gpu, kind = row[self._provider], row[self._gpu], row[self._kind]
        methodology = self._methodology
        if provider not in methodology.providers:
            return Screen.UNKNOWN_PROVIDER, provider
        if gpu not in methodology.gpus:
            return Screen.UNKNOWN_CLASS, gpu
        if kind not in methodology.kinds:
            return Screen.UNKNOWN_KIND, kind
        place = "/".join(row[column] for column in self._places)
        assert day is not None
        seen = Observation(day, provider, gpu, kind, price, moment, place)
        if seen in self._seen:
            return Screen.DUPLICATE, provider
        self._seen.add(seen)
        self.observations.append(seen)
        return Screen.ACCEPTED, ""

    def _moment(self, text: str) -> int | Screen:
        known = self._times.get(text)
        if known is None:
            known = self._times[text] = _moment(text, self._latest_ns)
        return known

    def _day(self, text: str) -> int | None:
        if text not in self._dates:
            self._dates[text] = _ordinal(text)
        return self._dates[text]

    def _micros(self, text: str) -> int | Screen:
        known = self._prices.get(text)
        if known is None:
            known = self._prices[text] = _micros(text)
        return known


def _ordinal(text: str) -> int | None:
    try:
        return date.fromisoformat(text).toordinal() if _DATE.fullmatch(text) else None
    except ValueError:
        return None


def _moment(text: str, latest_ns: int) -> int | Screen:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return Screen.TIME
    if moment.tzinfo is None:
        return Screen.TIME
    since = moment - _EPOCH
    if since.days < 0:
        return Screen.TIME
    nanos = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
    return Screen.FUTURE if nanos > latest_ns else nanos


def _micros(text: str) -> int | Screen:
    """Millionths of a dollar, rounded once, half to even: some sellers print sixteen digits."""
    if not _PRICE.fullmatch(text):
        return Screen.PRICE
    micros = int(Decimal(text).quantize(_MICRO, ROUND_HALF_EVEN).scaleb(6))
    if micros <= 0:
        return Screen.NONPOSITIVE
    return Screen.PRICE_RANGE if micros > PRICE_MICROS_MAX else micros


ByDay = dict[int, list[Observation]]


def by_day(observations: Sequence[Observation]) -> ByDay:
    """Return the observations by ``day``."""
    days: ByDay = {}
    for seen in observations:
        days.setdefault(seen.day, []).append(seen)
    return days


def fresh(seen: Observation) -> bool:
    """Whether an observation was made on its stated day, UTC."""
    return seen.observed_ns // NS_OF_DAY + EPOCH_DAY == seen.day


def fingerprints(observations: Sequence[Observation]) -> dict[str, bytes]:
    """Return a digest of each provider's fresh observations of a day: goods and prices, no times.

    A feed that repeats every price to the last digit for days is more likely dead than a market
    without changes; see ``Screen.STALE``.
    """
    feeds: dict[str, list[tuple[str, str, str, int]]] = {}
    for seen in observations:
        if fresh(seen):
            row = (seen.gpu, seen.kind, seen.place, seen.price_micros)
            feeds.setdefault(seen.provider, []).append(row)
    return {
        provider: digest(repr(sorted(rows)).encode("ascii", "backslashreplace"))
        for provider, rows in sorted(feeds.items())
    }


def administered(observations: Sequence[Observation], least: int = 3) -> set[tuple[str, str]]:
    """Return the (provider, kind) pairs priced at a fixed ratio of the seller's dearer kind.

    These have the same ratio, to four digits, for at least ``least`` goods of a day: such prices
    come from a formula, not from a market.
    """
    kinds: dict[tuple[str, str, str], dict[str, int]] = {}
    for seen in observations:
        if fresh(seen):
            prices = kinds.setdefault((seen.provider, seen.gpu, seen.place), {})
            known = prices.get(seen.kind, seen.price_micros)
            prices[seen.kind] = min(known, seen.price_micros)
    ratios: Counter[tuple[str, str, str, int]] = Counter()
    for (provider, _, _), prices in kinds.items():
        for cheap, dear in _pairs(prices):
            ratio = prices[cheap] * 10_000 // prices[dear]
            ratios[provider, cheap, dear, ratio] += 1
    return {(provider, cheap) for (provider, cheap, _, _), n in ratios.items() if n >= least}


def _pairs(prices: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for cheap, low in prices.items():
        yield from ((cheap, dear) for dear, high in prices.items() if low < high)
