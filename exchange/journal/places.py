"""Where things are in the log: segments, and a sparse index to get near any frame of one.

A mark is the (first sequence, stamp, offset) of a frame; an index has one about every MARK_BYTES of
its segment. It is a cache: written when a segment is full, made again from the frames' headers
where it is missing or wrong, and never believed without looking at the frame it points to.
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
INDEX_NAME: Final = "index"
SUFFIX: Final = ".hbl"
INDEX_SUFFIX: Final = ".hbx"
DIGITS: Final = 20
MARK_BYTES: Final = 1 << 20  # a seek reads no more headers than lie in this much of the log
_INDEX: Final = Layout("<8sQII")  # magic, first sequence, marks, CRC-32 of the marks
_MAGIC: Final = b"HBINDEX1"
_MARK: Final = Layout("<QQQ")
_log = logging.getLogger(__name__)

Mark = tuple[int, int, int]  # first sequence, stamp, offset of a frame


class NotInLog(JournalError):
    """The log has no such sequence, or nothing of that time.

    ``offset`` is where the frames of the segment looked at end, if one was.
    """

    def __init__(self, text: str, offset: int = 0) -> None:
        super().__init__(text)
        self.offset = offset


class Elsewhere(NotInLog):
    """A later segment is there and that of the sequence is not: it was archived elsewhere, as a
    rule. Only who reads it can miss it.
    """


def storage_of(place: Path | Storage) -> Storage:
    """Return the storage at a path, or the storage itself."""
    return LocalStorage(place) if isinstance(place, Path) else place


class Segment(msgspec.Struct, frozen=True):
    """A file of the log that begins with the frame of ``first``."""

    name: str
    first: int
    archived: bool = False

    @property
    def index_name(self) -> str:
        """Name of its index."""
        return f"{INDEX_NAME}/{self.first:0{DIGITS}}{INDEX_SUFFIX}"


def segment_name(first_sequence: int) -> str:
    """Return the file name of the segment that starts at ``first_sequence``."""
    return f"{LOG_NAME}/{first_sequence:0{DIGITS}}{SUFFIX}"


def list_segments(storage: Storage) -> list[Segment]:
    """Return the segments by first sequence; none if there is no log yet.

    Where a segment and its archived form are both there (a crash left them), the segment counts.
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
    """Open a segment for reading, archived or not, also since it was listed.

    Raises DamagedArchive; FileNotFoundError where it is gone.
    """
    plain = segment_name(segment.first)
    for name in _forms(segment):
        with suppress(FileNotFoundError):
            return open_archived(storage, name) if name != plain else storage.open(name)
    gone = str(storage.where(segment.name))
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), gone)


def _forms(segment: Segment) -> tuple[str, str, str]:
    """The name that was listed; then, should it be another's by now, the plain and the archived."""
    plain = segment_name(segment.first)
    return segment.name, plain, f"{plain}{ARCHIVED_END}"


def segment_bytes(storage: Storage, segment: Segment) -> int:
    """Return how many bytes a segment has where it lies, in the form that it has now; 0 if gone."""
    for name in _forms(segment):
        with suppress(FileNotFoundError):
            return storage.size(name)
    return 0


def exchange_of(storage: Storage) -> bytes | None:
    """Return the exchange id in the log's first frame that is there; None for an empty log."""
    for segment in list_segments(storage):
        file = open_segment(storage, segment)
        head = peek(read_whole(file, HEADER_BYTES), 0)
        file.close()
        if head is not None:
            return head.exchange_id
    return None


class Marks:
    """The marks of one segment, taken as its frames go by."""

    def __init__(self, marks: list[Mark] | None = None) -> None:
        self.marks = marks or []

    def note(self, first_sequence: int, stamp: int, offset: int) -> None:
        """Take a mark of this frame, if the last one is far enough behind."""
        if not self.marks or offset - self.marks[-1][2] >= MARK_BYTES:
            self.marks.append((first_sequence, stamp, offset))


def write_index(storage: Storage, segment: Segment, marks: list[Mark]) -> None:
    """Write a full segment's index. One that cannot be written is logged and made again later."""
    body = b"".join(_MARK.pack(*mark) for mark in marks)
    try:
        storage.replace(
            segment.index_name,
            _INDEX.pack(_MAGIC, segment.first, len(marks), crc32(body)) + body,
        )
    except OSError as error:
        _log.warning("no index of %s: %s", storage.where(segment.name), error)


def read_index(storage: Storage, segment: Segment) -> list[Mark] | None:
    """Return the marks of a segment's index; None if there is none that can be used."""
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
    """Yield (offset, header) of the frames from ``offset`` on, to the end or the first doubt.

    Reads the headers' bytes alone, as long as they stand far apart; checks no more than the magic.
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


def make_index(storage: Storage, segment: Segment, marks: Marks | None = None) -> list[Mark]:
    """Return a segment's marks from its frames' headers, going on behind ``marks``."""
    made = marks or Marks()
    file = open_segment(storage, segment)
    try:
        start = made.marks[-1][2] if made.marks else 0
        for offset, head in headers(file, start):
            made.note(head.first_sequence, head.stamp, offset)
    finally:
        file.close()
    return made.marks


class Place(msgspec.Struct, frozen=True):
    """A frame's place: bytes ``offset`` to ``end`` of ``segment``, its sequences, its stamp."""

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
    """Whether a segment has nothing behind ``offset``: else it is damaged there."""
    file = open_segment(storage, segment)
    try:
        return file.end >= offset and only_zeros(file, offset)
    finally:
        file.close()


def find_time(place: Path | Storage, stamp: int) -> Place:
    """Return the place of the first frame stamped at or after ``stamp``. Raises NotInLog."""
    storage = storage_of(place)
    segments = list_segments(storage)
    low, high = 0, len(segments)
    while low < high:  # the first segment whose first frame is as late as that
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
    """Yield the places of a segment's frames from the last mark below ``value`` on.

    ``field`` says of what the value is: 0 the sequence, 1 the stamp.
    """
    file = open_segment(storage, segment)
    try:
        marks = read_index(storage, segment)
        if marks is None or not _points_at(file, marks):
            marks = make_index(storage, segment)
        # Equal stamps may stand before a mark of that stamp: begin at the one below.
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
    """Whether the marks begin at the start, and the last one is of a frame: a segment cut or
    written anew betrays its index.
    """
    first, stamp, offset = marks[-1]
    if marks[0][2]:
        return False
    head = peek(read_whole(file, HEADER_BYTES, offset), 0)
    return head is not None and (head.first_sequence, head.stamp) == (first, stamp)
