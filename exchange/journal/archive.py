"""Closed segments, compressed: verified before the original goes, read again as if it were there.

An archived segment is ``log/FIRST.hbl.gz``: the segment's bytes in one gzip member, so that any
machine can unpack it by hand, years from now, without this software. It may stay beside the log,
where the reader takes it for the segment, or lie in another directory until it is restored.
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
_GZIP: Final = 31  # zlib's name for: with gzip's header and trailer


class DamagedArchive(JournalError):
    """An archived segment that cannot be unpacked, or unpacks to something else."""


class NotArchivable(JournalError):
    """The segment may not be archived, or what was asked for is not there."""


class Archived(msgspec.Struct, frozen=True):
    """One segment that was archived: its name, its sequences, its size before and after."""

    name: str
    first_sequence: int
    last_sequence: int
    size: int
    archived_size: int


class ExpandedFile:
    """An archived segment opened for reading: unpacked whole, in memory."""

    def __init__(self, data: bytes) -> None:
        """Hold the unpacked bytes."""
        self._data = memoryview(data)

    @property
    def end(self) -> int:
        """Bytes of the segment."""
        return len(self._data)

    @property
    def room(self) -> int:
        """None: it takes no more."""
        return 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Copy what there is."""
        found = self._data[offset : offset + len(buffer)]
        buffer[: len(found)] = found
        return len(found)

    def append(self, data: bytes) -> None:
        """Never."""
        raise AssertionError("an archived segment is closed")

    @property
    def handle(self) -> int:
        """None."""
        return -1

    def reserve(self, room: int) -> None:
        """Never."""
        raise AssertionError("an archived segment is closed")

    def renew(self, offset: int) -> None:
        """Never."""
        raise AssertionError("an archived segment is closed")

    def truncate(self, end: int) -> None:
        """Never."""
        raise AssertionError("an archived segment is closed")

    def sync(self) -> None:
        """Nothing to make durable."""

    def close(self) -> None:
        """Nothing to let go of."""


def pack(data: bytes) -> bytes:
    """Return ``data`` as one gzip member; the same bytes every time."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(data) + packer.flush()


def unpack(data: bytes, name: str) -> bytes:
    """Return what was packed. Raises DamagedArchive."""
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
    """Archive one closed segment, into ``to`` if given, and remove it.

    The original goes only when its frames were found whole from ``first`` to ``last``, and the
    archived form, read back from where it was written, unpacked to the same bytes. Nothing else is
    written over. Raises NotArchivable, DamagedArchive.
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
    """Write an archived segment of ``origin`` back as the segment it was; return its bytes.

    ``name`` is the archived one's, ``exchange_id`` the log's, None for an empty one. The archived
    form stays where it is, unless that is the log itself. Raises DamagedArchive, NotArchivable,
    WrongExchange.
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

    ``last`` None: to wherever they end. Behind them may be zeros: a kill inside a roll leaves the
    reserve.
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
    """Yield each frame's number of commands."""
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
