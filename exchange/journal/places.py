"""Where things are in the log: its segments, and a sparse index to find a frame quickly.

A mark is the (first sequence, stamp, offset) of a frame; an index has one about every MARK_BYTES of
its segment. The index is a cache: it is written when a segment is full, rebuilt from the frames'
headers where it is missing or wrong, and never trusted without a look at the frame it points to.
"""

import errno
import logging
import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct as Layout
from typing import Final

import msgspec
from zlib_ng.zlib_ng import crc32

from exchange.journal.archive import ARCHIVED_SUFFIX, open_archived
from exchange.journal.archive import SUFFIX as ARCHIVED_END
from exchange.journal.errors import JournalError
from exchange.journal.frame import HEADER_BYTES, Opening, peek
from exchange.journal.storage import File, LocalStorage, Storage, only_zeros, read_whole

LOG_NAME: Final = "log"
EXCHANGE_ID_NAME: Final = "exchange.id"  # beside the log: whose it is, in hexadecimal
INDEX_NAME: Final = "index"
SUFFIX: Final = ".hbl"
INDEX_SUFFIX: Final = ".hbx"
DIGITS: Final = 20
MARK_BYTES: Final = 1 << 20  # a search reads the frame headers of this much of the log
_INDEX: Final = Layout("<8sQII")  # magic, first sequence, marks, CRC-32 of the marks
_MAGIC: Final = b"HBINDEX1"
_MARK: Final = Layout("<QQQ")
_log = logging.getLogger(__name__)

Mark = tuple[int, int, int]  # first sequence, stamp, offset of a frame


class NotInLog(JournalError):
    """The log has no such sequence, or nothing of that time.

    ``offset`` is where the frames of the segment that was searched end, 0 if none was searched.
    """

    def __init__(self, text: str, offset: int = 0) -> None:
        super().__init__(text)
        self.offset = offset


class Elsewhere(NotInLog):
    """The segment of the sequence is missing although a later one is there: as a rule it was
    archived in another directory. An error only for a caller that has to read it."""


def storage_of(place: Path | Storage) -> Storage:
    """Return the storage at a path, or the given storage itself."""
    return LocalStorage(place) if isinstance(place, Path) else place


class Segment(msgspec.Struct, frozen=True):
    """A segment file of the log; ``first`` is the first sequence of its first frame."""

    name: str
    first: int
    archived: bool = False

    @property
    def index_name(self) -> str:
        """Name of its index file."""
        return f"{INDEX_NAME}/{self.first:0{DIGITS}}{INDEX_SUFFIX}"


def segment_name(first_sequence: int) -> str:
    """Return the file name of the segment that starts at ``first_sequence``."""
    return f"{LOG_NAME}/{first_sequence:0{DIGITS}}{SUFFIX}"


def list_segments(storage: Storage) -> list[Segment]:
    """Return the segments by first sequence; empty if there is no log yet.

    Where a crash left both a segment and its archive, the segment is returned.
    """
    found: dict[int, Segment] = {}
    for name in storage.list(LOG_NAME):
        stem, _, suffix = name.partition("/")[2].partition(".")
        archived = suffix == ARCHIVED_SUFFIX
        if not (len(stem) == DIGITS and stem.isdecimal() and (archived or f".{suffix}" == SUFFIX)):
            continue
        first = int(stem)
        if not (archived and first in found):
            found[first] = Segment(name, first, archived)
    return [found[first] for first in sorted(found)]


def open_segment(storage: Storage, segment: Segment) -> File:
    """Open a segment for reading, archived or not, even if it was archived or restored meanwhile.

    Raises DamagedArchive; FileNotFoundError if it is gone.
    """
    plain = segment_name(segment.first)
    for name in _forms(segment):
        with suppress(FileNotFoundError):
            return open_archived(storage, name) if name != plain else storage.open(name)
    gone = str(storage.where(segment.name))
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), gone)


def _forms(segment: Segment) -> tuple[str, str, str]:
    """Return the names to try: the one that was listed; then, since it may have been archived or
    restored meanwhile, the plain one and the archive's."""
    plain = segment_name(segment.first)
    return segment.name, plain, f"{plain}{ARCHIVED_END}"


def segment_bytes(storage: Storage, segment: Segment) -> int:
    """Return the segment's size in bytes in its present form, compressed if archived; 0 if gone."""
    for name in _forms(segment):
        with suppress(FileNotFoundError):
            return storage.size(name)
    return 0


def exchange_of(storage: Storage) -> bytes | None:
    """Return the exchange id in the first frame header found in the log; None for an empty log."""
    for segment in list_segments(storage):
        file = open_segment(storage, segment)
        head = peek(read_whole(file, HEADER_BYTES), 0)
        file.close()
        if head is not None:
            return head.exchange_id
    return None


class Marks:
    """Collects the marks of one segment as its frames are read or written."""

    def __init__(self, marks: list[Mark] | None = None) -> None:
        self.marks = marks or []

    def note(self, first_sequence: int, stamp: int, offset: int) -> None:
        """Add a mark for this frame if the last mark is at least MARK_BYTES before it."""
        if not self.marks or offset - self.marks[-1][2] >= MARK_BYTES:
            self.marks.append((first_sequence, stamp, offset))


def write_index(storage: Storage, segment: Segment, marks: list[Mark]) -> None:
    """Write a full segment's index. A failure is only logged: the index can be rebuilt."""
    body = b"".join(_MARK.pack(*mark) for mark in marks)
    try:
        storage.replace(
            segment.index_name,
            _INDEX.pack(_MAGIC, segment.first, len(marks), crc32(body)) + body,
        )
    except OSError as error:
        _log.warning("no index of %s: %s", storage.where(segment.name), error)


def read_index(storage: Storage, segment: Segment) -> list[Mark] | None:
    """Return the marks of a segment's index; None if it is missing or damaged."""
    try:
        data = storage.read(segment.index_name)
    except FileNotFoundError:
        return None
    if len(data) < _INDEX.size:
        return None
    magic, first, count, crc = _INDEX.unpack_from(data)
    body = data[_INDEX.size :]
    if (magic, first, len(body), crc) != (_MAGIC, segment.first, count * _MARK.size, crc32(body)):
        return None
    marks = [(a, b, c) for a, b, c in _MARK.iter_unpack(body)]
    return marks or None


def headers(file: File, offset: int) -> Iterator[tuple[int, Opening]]:
    """Yield (offset, header) of the frames from ``offset`` on, up to the end or the first bytes
    that are no header.

    Where frames are large only their headers are read. Nothing but magic and format is checked.
    """
    block, base = b"", 0
    while True:
        if not base <= offset <= base + len(block) - HEADER_BYTES:
            block, base = read_whole(file, 64 * HEADER_BYTES, offset), offset
        head = peek(block, offset - base)
        if head is None:
            return
        yield offset, head
        offset += head.length


def make_index(storage: Storage, segment: Segment) -> list[Mark]:
    """Return a segment's marks from its frames' headers."""
    made = Marks()
    file = open_segment(storage, segment)
    try:
        for offset, head in headers(file, 0):
            made.note(head.first_sequence, head.stamp, offset)
    finally:
        file.close()
    return made.marks


class Place(msgspec.Struct, frozen=True):
    """A frame's place: bytes ``offset`` to ``end`` of ``segment``; its sequences and its stamp."""

    segment: Segment
    offset: int
    end: int
    first_sequence: int
    last_sequence: int
    stamp: int
    previous_hash: bytes


def find_sequence(place: Path | Storage, sequence: int) -> Place:
    """Return the place of the frame that holds ``sequence``. Raises NotInLog, Elsewhere."""
    storage = storage_of(place)
    segments = list_segments(storage)
    at, end = bisect_right([segment.first for segment in segments], sequence) - 1, 0
    if at < 0:
        kind = Elsewhere if segments else NotInLog
        raise kind(f"sequence {sequence} is before the log's first")
    for found in _from_mark(storage, segments[at], 0, sequence):
        if found.last_sequence >= sequence:
            return found
        end = found.end
    text = f"sequence {sequence} is not in {storage.where(segments[at].name)}"
    followed = segments[at] is not segments[-1]
    kind = Elsewhere if followed and _ends_at(storage, segments[at], end) else NotInLog
    raise kind(text, end)


def _ends_at(storage: Storage, segment: Segment, offset: int) -> bool:
    """Whether nothing but zeros follows ``offset`` in a segment; otherwise it is damaged there."""
    file = open_segment(storage, segment)
    try:
        return file.end >= offset and only_zeros(file, offset)
    finally:
        file.close()


def find_time(place: Path | Storage, stamp: int) -> Place:
    """Return the place of the first frame stamped at or after ``stamp`` (ns). Raises NotInLog."""
    storage = storage_of(place)
    segments = list_segments(storage)
    low, high = 0, len(segments)
    while low < high:  # the first segment whose first frame has that stamp or a later one
        middle = (low + high) // 2
        found = next(_from_mark(storage, segments[middle], 1, 0), None)
        if found is None or found.stamp >= stamp:
            high = middle
        else:
            low = middle + 1
    for segment in segments[max(0, low - 1) :]:
        for found in _from_mark(storage, segment, 1, stamp):
            if found.stamp >= stamp:
                return found
    raise NotInLog(f"nothing was stamped at {stamp} or later")


def _from_mark(storage: Storage, segment: Segment, field: int, value: int) -> Iterator[Place]:
    """Yield the places of a segment's frames from the last mark before ``value`` on.

    ``field`` is what the value is: 0 a sequence, 1 a stamp.
    """
    file = open_segment(storage, segment)
    try:
        marks = read_index(storage, segment)
        if marks is None or not _points_at(file, marks):
            marks = make_index(storage, segment)
        # Frames of equal stamp may precede the mark of that stamp: begin at the mark below.
        below = [mark[field] for mark in marks]
        at = (bisect_right(below, value) if field == 0 else _first_not_below(below, value)) - 1
        for offset, head in headers(file, marks[max(at, 0)][2] if marks else 0):
            yield Place(
                segment,
                offset,
                offset + head.length,
                head.first_sequence,
                head.last_sequence,
                head.stamp,
                head.previous_hash,
            )
    finally:
        file.close()


def _first_not_below(values: list[int], value: int) -> int:
    return next((at for at, one in enumerate(values) if one >= value), len(values))


def _points_at(file: File, marks: list[Mark]) -> bool:
    """Whether the first mark is at the segment's start and the last one points to a frame that fits
    it; if not, the segment was cut or rewritten and its index is stale."""
    first, stamp, offset = marks[-1]
    if marks[0][2]:
        return False
    head = peek(read_whole(file, HEADER_BYTES, offset), 0)
    return head is not None and (head.first_sequence, head.stamp) == (first, stamp)
