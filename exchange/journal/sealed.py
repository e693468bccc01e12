"""Sealed files: results computed from the log up to a point, verified whole before use.

DIR/snapshots/SEQUENCE-LAYOUT.KIND, replaced atomically and durably, never changed. The layout says
which builds can read the body. Every defect has a named error; the reader then tries an older file,
and at last the log. Layout of the bytes: docs/reference/snapshots.md.
"""

import os
from pathlib import Path
from struct import Struct as Layout
from struct import error as StructError
from typing import Final

import msgspec
from blake3 import blake3

from exchange.journal.archive import DamagedArchive
from exchange.journal.errors import JournalError
from exchange.journal.frame import (
    EXCHANGE_ID_BYTES,
    HASH_BYTES,
    BadFrame,
    NewerFrame,
    decode,
    peek,
)
from exchange.journal.frame import HEADER_BYTES as LOG_HEADER_BYTES
from exchange.journal.places import NotInLog, find_sequence, open_segment
from exchange.journal.point import Point
from exchange.journal.storage import Storage, read_whole
from exchange.journal.tape import (
    FILE_NAME,
    PREAMBLE,
    RECORD_BYTES,
    TAPE_NAME,
    preamble,
    unpack_head,
)
from exchange.messages import RULES_VERSION, SCHEMA_VERSION

FOLDER: Final = "snapshots"
MAGIC: Final = b"HBSN"
SNAPSHOT_FORMAT: Final = 1
KEEP: Final = 3  # files per layout: enough that the newest two may be damaged
SEQUENCE_DIGITS: Final = 20
LAYOUT_DIGITS: Final = 16
# magic, format, schema, exchange id, rules version, bytes of the point, layout, sequence, bytes of
# the body, state hash, flags, spare; then the hash of all else
HEADER: Final = Layout("<4sHH16sIIQQQ32sII")
PROVEN: Final = 1  # a flag: the body was restored and passed the self-check before it was written
HEADER_BYTES: Final = HEADER.size + HASH_BYTES
_encode_point = msgspec.msgpack.Encoder().encode
_decode_point = msgspec.msgpack.Decoder(Point).decode


class Facts(msgspec.Struct, frozen=True):
    """What the header states beyond the body. ``state_hash`` is the engine's state, or zeros."""

    point: Point
    exchange_id: bytes
    state_hash: bytes
    flags: int = 0


class Refused(JournalError):
    """A file that must not be used. ``name`` gives the reason; it is stable and may be relied
    upon."""

    name = "refused"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"{file}: {self.name}: {why}")
        self.why = why


class Damaged(Refused):
    """The bytes are not those that were written."""

    name = "damaged"


class Newer(Refused):
    """The file was written by a later build."""

    name = "newer version"


class OtherExchange(Refused):
    """The file belongs to another exchange."""

    name = "other exchange"


class OtherLayout(Refused):
    """The file was written by a build whose state has another memory layout."""

    name = "other layout"


class AboveLog(Refused):
    """The log does not reach the file's sequence."""

    name = "above the log"


class OtherLog(Refused):
    """The log has another frame there: it was continued from an earlier point, or is another
    log."""

    name = "not of this log"


class OtherTape(Refused):
    """The released stream ends before the file's point, so it must be rebuilt from the log."""

    name = "tape behind"


class OtherState(Refused):
    """The restored state is not the one that was saved."""

    name = "other state"


class Header(msgspec.Struct, frozen=True):
    """The fields of a file's header."""

    file: str
    schema: int
    exchange_id: bytes
    rules_version: int
    point_bytes: int
    layout: int
    sequence: int
    body_bytes: int
    state_hash: bytes
    flags: int
    spare: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return HEADER_BYTES + self.point_bytes + self.body_bytes


def file_name(sequence: int, layout: int, kind: str) -> str:
    """Return the name of the file of a kind and layout at a sequence."""
    return f"{FOLDER}/{sequence:0{SEQUENCE_DIGITS}}-{layout:0{LAYOUT_DIGITS}x}.{kind}"


def list_files(storage: Storage, kind: str) -> list[tuple[int, int, str]]:
    """Return (sequence, layout, name) of every file of a kind, taken from its name, newest
    first."""
    found = []
    for name in storage.list(FOLDER):
        stem = name.partition("/")[2].removesuffix(f".{kind}")
        sequence, _, layout = stem.partition("-")
        try:
            read = (int(sequence), int(layout, 16))
        except ValueError:
            continue
        if name == file_name(*read, kind):
            found.append((*read, name))
    return sorted(found, reverse=True)


def read_header(storage: Storage, name: str) -> Header:
    """Return a file's header without verifying the file's hash. Raises Damaged, Newer."""
    file = storage.open(name)
    try:
        return _header(str(storage.where(name)), read_whole(file, HEADER.size))
    finally:
        file.close()


def _header(path: str, data: bytes) -> Header:
    try:
        magic, form, schema, *fields = HEADER.unpack_from(data)
    except StructError:
        raise Damaged(path, f"{len(data)} bytes hold no header") from None
    if magic != MAGIC:
        raise Damaged(path, f"magic {magic.hex()}, not {MAGIC.hex()}")
    header = Header(path, schema, *fields)
    versions = (("format", form, SNAPSHOT_FORMAT), ("schema", schema, SCHEMA_VERSION),
                ("rules", header.rules_version, RULES_VERSION))  # fmt: skip
    for what, found, known in versions:
        if found > known:
            raise Newer(path, f"{what} version {found} is newer than this build's {known}")
    return header


def write_sealed(
    storage: Storage, kind: str, layout: int, facts: Facts, body: bytes, *, keep: int = KEEP
) -> Header:
    """Write one file durably, then ``prune`` its layout to ``keep`` files. Raises OSError."""
    point = facts.point
    assert len(facts.exchange_id) == EXCHANGE_ID_BYTES
    packed = _encode_point(point)
    start = HEADER.pack(
        MAGIC, SNAPSHOT_FORMAT, SCHEMA_VERSION, facts.exchange_id, RULES_VERSION, len(packed),
        layout, point.sequence, len(body), facts.state_hash, facts.flags, 0,
    )  # fmt: skip
    whole = blake3(start, max_threads=blake3.AUTO)
    whole.update(packed)
    whole.update(body)
    name = file_name(point.sequence, layout, kind)
    storage.replace(name, b"".join((start, whole.digest(), packed, body)))
    prune(storage, kind, layout, keep)
    return _header(str(storage.where(name)), start)


def prune(storage: Storage, kind: str, layout: int, keep: int) -> None:
    """Keep the newest ``keep`` files of a layout, and of other layouts those no older than
    these."""
    assert keep >= 1
    files = list_files(storage, kind)
    own = [sequence for sequence, made, _ in files if made == layout][:keep]
    if len(own) < keep:
        return
    for sequence, _, name in files:
        if sequence < own[-1]:
            storage.remove(name)


def load(storage: Storage, name: str) -> tuple[Header, Point, memoryview]:
    """Return the header, point and body of a file after verifying its hash.

    Raises Damaged, Newer.
    """
    path = str(storage.where(name))
    data = memoryview(storage.read(name))
    header = _header(path, bytes(data[: HEADER.size]))
    if len(data) != header.size:
        raise Damaged(path, f"{len(data)} bytes, not {header.size}")
    recorded, whole = data[HEADER.size : HEADER_BYTES], blake3(max_threads=blake3.AUTO)
    whole.update(data[: HEADER.size])
    whole.update(data[HEADER_BYTES:])
    if whole.digest() != recorded:
        raise Damaged(path, f"hash {whole.hexdigest()}, recorded {recorded.hex()}")
    body_at = HEADER_BYTES + header.point_bytes
    point = _decode_point(data[HEADER_BYTES:body_at])
    assert point.sequence == header.sequence
    return header, point, data[body_at:]


def check_log(storage: Storage, header: Header, point: Point) -> None:
    """Raise AboveLog or OtherLog unless the log has the frame that the point names."""
    try:
        place = find_sequence(storage, point.sequence)
        file = open_segment(storage, place.segment)
    except (NotInLog, FileNotFoundError) as missing:  # the latter: archived right now
        raise AboveLog(header.file, str(missing)) from missing
    except DamagedArchive as damaged:
        raise OtherLog(header.file, str(damaged)) from damaged
    try:
        head = peek(read_whole(file, LOG_HEADER_BYTES, place.offset), 0)
        size = head.length if head is not None else 0
        frame = decode(memoryview(read_whole(file, size, place.offset)), 0)
    except (BadFrame, NewerFrame) as bad:
        raise AboveLog(
            header.file, f"the log's frame at {point.sequence} is not whole: {bad}"
        ) from bad
    finally:
        file.close()
    if frame.hash != point.frame_hash or frame.last_sequence != point.sequence:
        raise OtherLog(
            header.file,
            f"the frame at sequence {point.sequence} is {frame.hash.hex()} up to "
            f"{frame.last_sequence}, not {point.frame_hash.hex()}",
        )


def check_kin(header: Header, layout: int, exchange_id: bytes | None) -> None:
    """Raise OtherExchange or OtherLayout if the header differs; None accepts any exchange."""
    if exchange_id is not None and header.exchange_id != exchange_id:
        raise OtherExchange(header.file, f"{header.exchange_id.hex()}, not {exchange_id.hex()}")
    if header.layout != layout:
        raise OtherLayout(header.file, f"{header.layout:016x}, this build has {layout:016x}")


def check_tape(directory: Path, name: str, exchange_id: bytes, point: Point) -> None:
    """Raise OtherTape unless the released stream on disk reaches the point of that file."""
    path = directory / TAPE_NAME / FILE_NAME
    try:
        with open(path, "rb") as file:
            begin, size = file.read(PREAMBLE.size), file.seek(0, os.SEEK_END)
            sequence, offset = point.marks[-1] if point.marks else (1, PREAMBLE.size)
            file.seek(offset)
            head = unpack_head(file.read(RECORD_BYTES))
    except FileNotFoundError:
        raise OtherTape(name, f"{path} is not there") from None
    if size < point.tape_end:
        raise OtherTape(name, f"{path} has {size} bytes, not {point.tape_end}")
    if begin != preamble(exchange_id) or head is None or head.first_sequence != sequence:
        raise OtherTape(name, f"{path} has no record of sequence {sequence} at {offset}")
