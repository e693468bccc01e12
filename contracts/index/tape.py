"""The tape: an append-only, hash-chained record of captures, anchor tables and fixings.

An entry is one JSON line: ``[number, recorded_ns, previous, entry, hash]``. ``recorded_ns`` is when
the entry became known and never decreases; a fixing's ``date`` is the day it is for. Both times are
kept, so that a revision stands beside the fixing it revises and any earlier view can be queried
(``known_ns``). Entries are never changed or removed; a tape with a broken chain is refused with the
number of the line.
"""

from collections.abc import Iterator
from datetime import date
from typing import Final, TypeAlias

import msgspec

from contracts.index.anchors import AnchorTable
from contracts.index.fixing import Fixing
from contracts.index.methodology import digest
from contracts.refusals import UNREADABLE

ENTRY_BYTES_MAX: Final = 4 << 20
FOREVER_NS: Final = (1 << 63) - 1


class Capture(msgspec.Struct, frozen=True, tag="capture", kw_only=True):
    """One use of an observation file: its hash, its rejected rows, and the feeds by day."""

    file_hash: str
    indices: tuple[str, ...]  # codes of the indices fixed from it
    observations: int
    rejected: dict[str, int]  # screen -> count
    prints: dict[str, dict[str, str]]  # day -> provider -> fingerprint of its whole feed


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
        self._head = ""
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
        return Tape.decode(b"".join(line + b"\n" for line in self._lines[:entries]))

    @property
    def head(self) -> str:
        """Hash of the last entry, which covers all before it; empty for an empty tape."""
        return self._head

    @property
    def recorded_ns(self) -> int:
        """When the last entry became known, in ns; 0 for an empty tape."""
        return self._entries[-1].recorded_ns if self._entries else 0

    def hash_of(self, fixing: Fixing) -> str:
        """Return the hash of the entry that holds this fixing object; LookupError if none does."""
        for recorded, line in zip(self._entries, self._lines, strict=True):
            if recorded.entry is fixing:
                return _decode_line(line)[4]
        raise LookupError(f"{fixing.index} {fixing.date} is not on this tape")

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Recorded]:
        return iter(self._entries)

    def append(self, entry: Entry, recorded_ns: int) -> Recorded:
        """Append an entry. Raises TapeError if it does not follow from the tape (an earlier time, a
        wrong revision, a month that has its table) or is longer than ``ENTRY_BYTES_MAX``."""
        raw = msgspec.json.encode(entry)
        number = len(self._entries) + 1
        own = _hash(number, recorded_ns, self._head, raw)
        line = msgspec.json.encode((number, recorded_ns, self._head, msgspec.Raw(raw), own))
        if len(line) > ENTRY_BYTES_MAX:
            said = f"the entry would have {len(line)} bytes, more than {ENTRY_BYTES_MAX}"
            raise TapeError(f"{said}: fix fewer days at a time")
        return self._take(line)

    def _take(self, line: bytes) -> Recorded:
        number, recorded_ns, previous, raw, own = _decode_line(line)
        if number != len(self._entries) + 1 or previous != self._head:
            raise TapeError("does not follow the one before it")
        if own != _hash(number, recorded_ns, previous, bytes(raw)):
            raise TapeError("its hash is not of what it says")
        if recorded_ns < self.recorded_ns:
            raise TapeError("became known before the entry before it")
        recorded = Recorded(number, recorded_ns, _decode_entry(raw))
        match recorded.entry:
            case Fixing():
                self._take_fixing(recorded, recorded.entry)
            case AnchorTable():
                self._take_table(recorded.entry)
        self._entries.append(recorded)
        self._lines.append(line)
        self._head = own
        return recorded

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


def _hash(number: int, recorded_ns: int, previous: str, raw: bytes) -> str:
    return digest(f"{number} {recorded_ns} {previous}".encode(), raw).hex()
