"""Compresses closed segments, and reads compressed ones as if they were plain.

An archived segment is ``log/FIRST.hbl.gz``: the segment's bytes in one gzip member, so that any
machine can unpack it without this software. It is verified before the original is removed. It may
stay beside the log, where the reader uses it in place of the segment, or lie in another directory
until it is restored.
"""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import msgspec

from exchange.journal.errors import JournalError, WrongExchange
from exchange.journal.frame import BadFrame, NewerFrame, decode, digest, peek
from exchange.journal.storage import Storage, read_whole

ARCHIVED_SUFFIX: Final = "hbl.gz"
SUFFIX: Final = ".gz"
LEVEL: Final = 6  # 6.2 to 1 on order flow; zstd 9 gave 6.5, lzma 10 in fifteen times the time
SEGMENT_BYTES_MAX: Final = 1 << 30  # of one unpacked segment, held in memory while it is read
_GZIP: Final = 31  # zlib's window bits for a gzip header and trailer


class DamagedArchive(JournalError):
    """An archived segment that cannot be unpacked, or unpacks to other bytes."""


class NotArchivable(JournalError):
    """The segment may not be archived, or the requested archive holds none."""


class Archived(msgspec.Struct, frozen=True):
    """One segment that was archived: its name, its sequences, its size before and after."""

    name: str
    first_sequence: int
    last_sequence: int
    size: int
    archived_size: int


class ExpandedFile:
    """An archived segment opened for reading: unpacked whole, in memory. Nothing can be written to
    it."""

    def __init__(self, data: bytes) -> None:
        """Hold the unpacked bytes."""
        self._data = memoryview(data)

    @property
    def end(self) -> int:
        """Size of the segment in bytes."""
        return len(self._data)

    @property
    def room(self) -> int:
        """Always 0: nothing can be appended."""
        return 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Copy the bytes from ``offset`` on into ``buffer``; return how many."""
        found = self._data[offset : offset + len(buffer)]
        buffer[: len(found)] = found
        return len(found)

    def append(self, data: bytes) -> None:
        """Not supported."""
        raise AssertionError("an archived segment is closed")

    @property
    def handle(self) -> int:
        """Always -1: there is no file descriptor."""
        return -1

    def reserve(self, room: int) -> None:
        """Not supported."""
        raise AssertionError("an archived segment is closed")

    def renew(self, offset: int) -> None:
        """Not supported."""
        raise AssertionError("an archived segment is closed")

    def truncate(self, end: int) -> None:
        """Not supported."""
        raise AssertionError("an archived segment is closed")

    def sync(self) -> None:
        """Do nothing: nothing was written."""

    def close(self) -> None:
        """Do nothing: no file is open."""


def pack(data: bytes) -> bytes:
    """Return ``data`` as one gzip member. Equal input gives equal output."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(data) + packer.flush()


def unpack(data: bytes, name: str) -> bytes:
    """Return the bytes that ``pack`` was given. Raises DamagedArchive; ``name`` is used in its
    text."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        found = unpacker.decompress(data, SEGMENT_BYTES_MAX)
    except zlib.error as error:
        raise DamagedArchive(f"{name}: {error}: restore it from a copy") from error
    if not unpacker.eof or unpacker.unused_data:
        raise DamagedArchive(f"{name}: not one whole gzip member: restore it from a copy")
    return found


def open_archived(storage: Storage, name: str) -> ExpandedFile:
    """Open an archived segment for reading. Raises DamagedArchive."""
    return ExpandedFile(unpack(storage.read(name), str(storage.where(name))))


def archive_segment(
    storage: Storage, name: str, first: int, last: int, to: Storage | None = None
) -> Archived:
    """Archive one closed segment, in ``to`` if given, and remove the original.

    The original is removed only after its frames were found whole and to run from ``first`` to
    ``last``, and the archive, read back from its place, unpacked to the same bytes. An existing
    archive of other content is not overwritten. Raises NotArchivable, DamagedArchive.
    """
    file = storage.open(name)
    data = read_whole(file, storage.size(name))
    file.close()
    check_frames(data, first, last, str(storage.where(name)))
    place, packed, target = to or storage, pack(data), name + SUFFIX
    where, own = place.where(target), digest(data)
    with suppress(FileNotFoundError):
        if digest(unpack(place.read(target), str(where))) != own:
            raise NotArchivable(
                f"{where} holds another segment: name a directory of this log alone"
            )
    place.replace(target, packed)
    if digest(unpack(place.read(target), str(where))) != own:
        raise DamagedArchive(f"{where} does not unpack to the segment; the segment was kept")
    storage.remove(name)
    return Archived(name, first, last, len(data), len(packed))


def restore_segment(
    storage: Storage, name: str, origin: Storage, exchange_id: bytes | None = None
) -> int:
    """Write an archived segment of ``origin`` back as a plain segment; return its size in bytes.

    ``name`` is the archive's name; ``exchange_id`` the log's, None for an empty log. The archive is
    removed only if it lies in the log itself. Raises DamagedArchive, NotArchivable, WrongExchange.
    """
    where = origin.where(name)
    data = unpack(origin.read(name), str(where))
    first = int(name.partition("/")[2].partition(".")[0])
    head = peek(data, 0)
    if exchange_id is not None and head is not None and head.exchange_id != exchange_id:
        told = (exchange_id.hex(), head.exchange_id.hex())
        raise WrongExchange(where, 0, first, "exchange id", *told)
    check_frames(data, first, None, str(where))
    plain = name.removesuffix(SUFFIX)
    storage.replace(plain, data)
    if origin.where(name) == storage.where(name):
        storage.remove(name)
    return len(data)


def check_frames(data: bytes, first: int, last: int | None, name: str) -> None:
    """Raise NotArchivable unless the bytes are whole frames of the sequences ``first`` to ``last``.

    If ``last`` is None the frames may end at any sequence. Zeros behind the last frame are allowed:
    a kill while a segment is closed leaves the space that was reserved.
    """
    expected = first
    for count in _counts(data, first, name):
        expected += count
    if last is not None and expected != last + 1:
        raise NotArchivable(
            f"{name} ends at sequence {expected - 1}, and the next one here begins behind {last}:"
            " restore those between from where they were archived; if none were, verify the log"
        )


def _counts(data: bytes, expected: int, name: str) -> Iterator[int]:
    """Yield each frame's number of commands. Raises NotArchivable."""
    view, offset, previous = memoryview(data), 0, b""
    while offset < len(data):
        try:
            frame = decode(view, offset)
        except (BadFrame, NewerFrame) as error:
            if data.count(0, offset) == len(data) - offset:
                return
            raise NotArchivable(f"{name} at byte {offset}: {error}: verify the log") from error
        opening = frame.opening
        if opening.first_sequence != expected or previous not in (b"", opening.previous_hash):
            raise NotArchivable(f"{name} at byte {offset} breaks the chain: verify the log")
        yield opening.count
        expected += opening.count
        previous = frame.hash
        offset += frame.length
