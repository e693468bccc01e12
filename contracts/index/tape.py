"""The tape: an append-only, hash-chained record of captures, anchor tables and fixings.

An entry is one JSON line: ``[number, recorded_ns, previous, entry, hash]``. ``recorded_ns`` is when
the entry became known and never decreases; a fixing's ``date`` is the day it is for. Both times are
kept, so that a revision stands beside the fixing it revises and any earlier view can be queried
(``known_ns``). Entries are never changed or removed; a tape with a broken chain is refused with the
number of the line.
"""

from collections.abc import Iterator
from datetime import date
from itertools import islice
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from contracts.index.anchors import AnchorTable
from contracts.index.fixing import Fixing
from contracts.index.methodology import digest
from contracts.refusals import UNREADABLE

ENTRY_BYTES_MAX: Final = 4 << 20
FOREVER_NS: Final = (1 << 63) - 1


class Capture(msgspec.Struct, frozen=True, tag="capture", kw_only=True):
    """One use of an observation file: its hash, its rejected rows, and the feeds by day."""

    file_hash: str
    # Codes of the indices fixed from it
    indices: Annotated[tuple[str, ...], Meta(min_length=1)]
    observations: int
    rejected: dict[str, int]  # screen -> count
    # Day -> provider -> fingerprint of its whole feed
    prints: Annotated[dict[str, dict[str, str]], Meta(min_length=1)]


Entry: TypeAlias = Capture | AnchorTable | Fixing


class Recorded(msgspec.Struct, frozen=True):
    """An entry with its number, from 1, and when it became known."""

    number: int
    recorded_ns: int
    entry: Entry


class TapeError(ValueError):
    """The tape is damaged, or an entry does not follow from the tape."""


_decode_line = msgspec.json.Decoder(tuple[int, int, str, msgspec.Raw, str]).decode
_decode_entry = msgspec.json.Decoder(Entry).decode


class Tape:
    """A tape in memory: fixings by index and day, anchor tables by index."""

    def __init__(self) -> None:
        self._entries: list[Recorded] = []
        self._lines: list[bytes] = []
        self._hashes: list[str] = []
        self._fixings: dict[str, dict[date, list[tuple[int, Fixing]]]] = {}
        self._tables: dict[str, list[AnchorTable]] = {}

    @classmethod
    def decode(cls, content: bytes) -> "Tape":
        """Return the tape of a file's content; TapeError with the first faulty line."""
        tape = cls()
        if content and not content.endswith(b"\n"):
            raise TapeError("the last line of the tape has no end: it was cut short")
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                if len(line) > ENTRY_BYTES_MAX:
                    raise TapeError(f"longer than {ENTRY_BYTES_MAX} bytes")
                tape._take(line)
            except (*UNREADABLE, TapeError) as error:
                raise TapeError(f"line {number} of the tape: {error}") from error
        return tape

    def encode(self) -> bytes:
        """Return the content of the tape's file."""
        return b"".join(line + b"\n" for line in self._lines)

    def prefix(self, entries: int) -> "Tape":
        """Return the tape as it was with its first ``entries`` entries."""
        tape = Tape()
        for recorded, line, own in islice(
            zip(self._entries, self._lines, self._hashes, strict=True), entries
        ):
            tape._keep(recorded, line, own)  # checked when it came onto this tape
        return tape

    @property
    def head(self) -> str:
        """Hash of the last entry, which covers all before it; empty for an empty tape."""
        return self.head_at(len(self))

    def head_at(self, entries: int) -> str:
        """Hash of the last of the first ``entries`` entries; empty for none."""
        return self._hashes[entries - 1] if entries else ""

    @property
    def recorded_ns(self) -> int:
        """When the last entry became known, in ns; 0 for an empty tape."""
        return self._entries[-1].recorded_ns if self._entries else 0

    def hash_of(self, fixing: Fixing) -> str:
        """Return the hash of the entry that holds this fixing object; LookupError if none does."""
        for recorded, own in zip(self._entries, self._hashes, strict=True):
            if recorded.entry is fixing:
                return own
        raise LookupError(f"{fixing.index} {fixing.date} is not on this tape")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, place: int) -> Recorded:
        return self._entries[place]

    def __iter__(self) -> Iterator[Recorded]:
        return iter(self._entries)

    def append(self, entry: Entry, recorded_ns: int) -> Recorded:
        """Append an entry. Raises TapeError if it does not follow from the tape (an earlier time, a
        wrong revision, a month that has its table) or is longer than ``ENTRY_BYTES_MAX``."""
        raw = msgspec.json.encode(entry)
        number = len(self._entries) + 1
        own = _hash(number, recorded_ns, self.head, raw)
        line = msgspec.json.encode((number, recorded_ns, self.head, msgspec.Raw(raw), own))
        if len(line) > ENTRY_BYTES_MAX:
            said = f"the entry would have {len(line)} bytes, more than {ENTRY_BYTES_MAX}"
            raise TapeError(f"{said}: fix fewer days at a time")
        try:
            return self._take(line)
        except msgspec.ValidationError as error:
            raise TapeError(f"the entry is not one of a tape: {error}") from error

    def _take(self, line: bytes) -> Recorded:
        number, recorded_ns, previous, raw, own = _decode_line(line)
        if number != len(self._entries) + 1 or previous != self.head:
            raise TapeError("does not follow the one before it")
        if own != _hash(number, recorded_ns, previous, bytes(raw)):
            raise TapeError("its hash is not of what it says")
        if recorded_ns < self.recorded_ns:
            raise TapeError("became known before the entry before it")
        if recorded_ns > FOREVER_NS:
            raise TapeError("became known after the end of time")
        recorded = Recorded(number, recorded_ns, _decode_entry(raw))
        if isinstance(recorded.entry, Capture):
            _check_prints(recorded.entry)
        self._keep(recorded, line, own)
        return recorded

    def _keep(self, recorded: Recorded, line: bytes, own: str) -> None:
        match recorded.entry:
            case Fixing():
                self._take_fixing(recorded, recorded.entry)
            case AnchorTable():
                self._take_table(recorded.entry)
        self._entries.append(recorded)
        self._lines.append(line)
        self._hashes.append(own)

    def _take_fixing(self, recorded: Recorded, fixing: Fixing) -> None:
        days = self._fixings.setdefault(fixing.index, {})
        known = days.setdefault(fixing.date, [])
        if fixing.revision != len(known):
            raise TapeError(f"{fixing.index} {fixing.date} has {len(known)} revisions")
        known.append((recorded.recorded_ns, fixing))

    def _take_table(self, table: AnchorTable) -> None:
        tables = self._tables.setdefault(table.index, [])
        if tables and table.month <= tables[-1].month:
            raise TapeError(f"{table.index} has its anchors for {table.month}: they are frozen")
        tables.append(table)

    def captures(self) -> Iterator[Capture]:
        """Iterate over the captures, in order."""
        return (r.entry for r in self._entries if isinstance(r.entry, Capture))

    def table(self, index: str, day: date) -> AnchorTable | None:
        """Return the anchor table that applies on a day; None if its month has none by that day."""
        month = f"{day.year:04d}-{day.month:02d}"
        for table in reversed(self._tables.get(index, [])):
            if table.month == month:
                return table if table.first_day <= day else None
        return None

    def tables(self, index: str) -> list[AnchorTable]:
        """Return the anchor tables of an index, in order."""
        return list(self._tables.get(index, []))

    def days(self, index: str) -> list[date]:
        """Return the days that have a fixing, published or withheld, in order."""
        return sorted(self._fixings.get(index, {}))

    def fixing(self, index: str, day: date, known_ns: int = FOREVER_NS) -> Fixing | None:
        """Return the latest revision of a day that was known at ``known_ns``; None if none was."""
        found = None
        for recorded_ns, fixing in self._fixings.get(index, {}).get(day, []):
            if recorded_ns <= known_ns:
                found = fixing
        return found

    def revisions(self, index: str, day: date) -> list[tuple[int, Fixing]]:
        """Return (when it became known in ns, fixing) of every revision of a day, in order."""
        return list(self._fixings.get(index, {}).get(day, []))


def _check_prints(capture: Capture) -> None:
    """Raise TapeError unless the days are dates and the fingerprints hexadecimal."""
    try:
        for text, found in capture.prints.items():
            if f"{date.fromisoformat(text)}" != text:
                raise ValueError(f"{text!a} is no day")
            for print_ in found.values():
                bytes.fromhex(print_)
    except ValueError as error:
        raise TapeError(f"not a capture: {error}") from error


def _hash(number: int, recorded_ns: int, previous: str, raw: bytes) -> str:
    return digest(f"{number} {recorded_ns} {previous}".encode(), raw).hex()
