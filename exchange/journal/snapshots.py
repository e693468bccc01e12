"""Snapshots: the engine's state at a point of the log, so that a start need not read all of it.

DIR/snapshots/SEQUENCE-LAYOUT.hbs, replaced whole and durably, never changed. The log stays the
truth: a snapshot is used only if every byte of it is as written, the frame it names is in the log,
and the state restored has the hash it had. Any other is passed over by name for an older one, and
at last for the log from its beginning. The layout and these rules: docs/reference/snapshots.md.
"""

import logging
import os
from pathlib import Path
from struct import Struct as Layout
from struct import error as StructError
from typing import Final, Protocol

import msgspec
from blake3 import blake3

from exchange.journal import replay
from exchange.journal.archive import DamagedArchive
from exchange.journal.errors import JournalError
from exchange.journal.frame import (
    EXCHANGE_ID_BYTES,
    HASH_BYTES,
    BadFrame,
    NewerFrame,
    decode,
    digest,
    peek,
)
from exchange.journal.frame import HEADER_BYTES as LOG_HEADER_BYTES
from exchange.journal.places import NotInLog, find_sequence, open_segment
from exchange.journal.point import Point
from exchange.journal.reader import Start
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
SUFFIX: Final = ".hbs"
MAGIC: Final = b"HBSN"
SNAPSHOT_FORMAT: Final = 1
KEEP: Final = 3  # of a layout: the newest may be damaged, and so may the next
SEQUENCE_DIGITS: Final = 20
LAYOUT_DIGITS: Final = 16
# magic, format, schema, exchange id, rules version, bytes of the point, layout, sequence, bytes of
# the image, state hash; then the hash of all else
HEADER: Final = Layout("<4sHH16sIIQQQ32s")
HEADER_BYTES: Final = HEADER.size + HASH_BYTES
_LAYOUT_IN_IMAGE: Final = slice(8, 16)
_log = logging.getLogger(__name__)
_encode_point = msgspec.msgpack.Encoder().encode
_decode_point = msgspec.msgpack.Decoder(Point).decode


class Engine(replay.Engine, Protocol):
    """What a snapshot is taken of, and what becomes of one."""

    def snapshot(self) -> bytes: ...
    def restore(self, image: memoryview, /) -> None: ...
    def check(self) -> None: ...


class Refused(JournalError):
    """A snapshot that must not be used. ``name`` says why in a word that never changes."""

    name = "refused"

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"{file}: {self.name}: {why}")
        self.why = why


class Damaged(Refused):
    """Not the bytes that were written."""

    name = "damaged"


class Newer(Refused):
    """Written by a later build."""

    name = "newer version"


class OtherExchange(Refused):
    """Of another exchange."""

    name = "other exchange"


class OtherLayout(Refused):
    """The memory of a build whose state is laid out in another way."""

    name = "other layout"


class AboveLog(Refused):
    """The log does not reach its sequence."""

    name = "above the log"


class OtherLog(Refused):
    """The log has another frame there: it went on from an earlier point, or is another one."""

    name = "not of this log"


class OtherTape(Refused):
    """The released stream does not reach as far, so it must be made again from the log."""

    name = "tape behind"


class OtherState(Refused):
    """What was restored is not the state it was taken of."""

    name = "other state"


class Header(msgspec.Struct, frozen=True):
    """A snapshot's first bytes."""

    file: str
    schema: int
    exchange_id: bytes
    rules_version: int
    point_bytes: int
    layout: int
    sequence: int
    image_bytes: int
    state_hash: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return HEADER_BYTES + self.point_bytes + self.image_bytes


def layout_of(image: bytes | memoryview) -> int:
    """Return the layout id that an engine's image carries."""
    return int.from_bytes(image[_LAYOUT_IN_IMAGE], "little")


def file_name(sequence: int, layout: int) -> str:
    """Return the name of the snapshot of a layout at a sequence."""
    return f"{FOLDER}/{sequence:0{SEQUENCE_DIGITS}}-{layout:0{LAYOUT_DIGITS}x}{SUFFIX}"


def list_files(storage: Storage) -> list[tuple[int, int, str]]:
    """Return (sequence, layout, name) of every snapshot by its name, newest first."""
    found = []
    for name in storage.list(FOLDER):
        stem = name.partition("/")[2].removesuffix(SUFFIX)
        sequence, _, layout = stem.partition("-")
        try:
            read = (int(sequence), int(layout, 16))
        except ValueError:
            continue
        if name == file_name(*read):
            found.append((*read, name))
    return sorted(found, reverse=True)


def read_header(storage: Storage, name: str) -> Header:
    """Return a snapshot's header, not yet compared with its bytes. Raises Damaged, Newer."""
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


def write(
    storage: Storage, engine: Engine, point: Point, exchange_id: bytes, *, keep: int = KEEP
) -> Header:
    """Write the engine's state at ``point`` durably and drop what is older than ``keep`` of them.

    The log, and the tape if it is to be used, must be durable up to the point already. Raises
    OSError; then there is no new snapshot and nothing was dropped.
    """
    assert len(exchange_id) == EXCHANGE_ID_BYTES
    image = engine.snapshot()
    packed = _encode_point(point)
    layout, state_hash = layout_of(image), digest(engine.state_bytes())
    start = HEADER.pack(
        MAGIC, SNAPSHOT_FORMAT, SCHEMA_VERSION, exchange_id, RULES_VERSION, len(packed), layout,
        point.sequence, len(image), state_hash,
    )  # fmt: skip
    whole = blake3(start, max_threads=blake3.AUTO)
    whole.update(packed)
    whole.update(image)
    name = file_name(point.sequence, layout)
    storage.replace(name, b"".join((start, whole.digest(), packed, image)))
    prune(storage, layout, keep)
    return _header(str(storage.where(name)), start)


def prune(storage: Storage, layout: int, keep: int) -> None:
    """Keep the newest ``keep`` of a layout, and of others what is no older than those."""
    assert keep >= 1
    files = list_files(storage)
    own = [sequence for sequence, made, _ in files if made == layout][:keep]
    if len(own) < keep:
        return
    for sequence, _, name in files:
        if sequence < own[-1]:
            storage.remove(name)


def load(storage: Storage, name: str) -> tuple[Header, Point, memoryview]:
    """Return a snapshot whose every byte is as written: header, point, image.

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
    image_at = HEADER_BYTES + header.point_bytes
    point = _decode_point(data[HEADER_BYTES:image_at])
    assert point.sequence == header.sequence
    return header, point, data[image_at:]


def check_log(storage: Storage, header: Header, point: Point) -> None:
    """Raise AboveLog or OtherLog unless the log has the frame that the point names."""
    try:
        place = find_sequence(storage, point.sequence)
    except NotInLog as missing:
        raise AboveLog(header.file, str(missing)) from missing
    except DamagedArchive as damaged:
        raise OtherLog(header.file, str(damaged)) from damaged
    file = open_segment(storage, place.segment)
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


def restore(engine: Engine, header: Header, image: memoryview, *, check: bool) -> None:
    """Make the engine the one the image was taken of, and prove it. Raises OtherState.

    ``check``: run the engine's whole self-check, too.
    """
    try:
        engine.restore(image)
    except ValueError as bad:
        raise OtherState(header.file, str(bad)) from bad
    found = digest(engine.state_bytes())
    if found != header.state_hash:
        raise OtherState(header.file, f"hash {found.hex()}, recorded {header.state_hash.hex()}")
    if check:
        try:
            engine.check()
        except AssertionError as broken:
            raise OtherState(header.file, f"the self-check fails: {broken}") from broken


class Passed(msgspec.Struct, frozen=True):
    """A snapshot that recovery passed over."""

    file: str
    reason: str
    why: str


class Found(msgspec.Struct, frozen=True):
    """What recovery begins with: the point that the engine now stands at, and what was passed over.

    ``file`` is None where the log is to be read from its beginning.
    """

    point: Point
    file: str | None
    passed: list[Passed]
    exchange_id: bytes | None = None

    @property
    def log_start(self) -> Start | None:
        """Where the log goes on from there; None for its beginning."""
        point = self.point
        if not point.sequence:
            return None
        return Start(point.sequence, point.frame_hash, point.epoch, point.stamp)


def recover(
    storage: Storage,
    engine: Engine,
    exchange_id: bytes | None = None,
    *,
    tape: Path | None = None,
    until: int | None = None,
    check: bool = True,
) -> Found:
    """Restore the newest snapshot that is whole, of this log and of this build's layout.

    ``engine`` is empty and stays so where there is none. ``tape`` is the market's directory if its
    released stream must reach the snapshot, ``until`` the last sequence wanted, ``check`` as in
    ``restore``. Every snapshot passed over is logged by name. Raises OSError alone.
    """
    passed: list[Passed] = []
    names = [name for at, _, name in list_files(storage) if until is None or at <= until]
    empty = engine.snapshot() if names else b""
    for name in names:
        try:
            header = read_header(storage, name)
            check_kin(header, layout_of(empty), exchange_id)
            header, point, image = load(storage, name)
            check_log(storage, header, point)
            if tape is not None:
                check_tape(tape, header, point)
            restore(engine, header, image, check=check)
        except Refused as refused:
            _log.warning("snapshot passed over: %s", refused)
            passed.append(Passed(name, refused.name, refused.why))
            if isinstance(refused, OtherState):
                engine.restore(memoryview(empty))
        else:
            return Found(point, header.file, passed, header.exchange_id)
    return Found(Point(), None, passed)


class Examined(msgspec.Struct, frozen=True):
    """A snapshot and whether recovery would use it: ``reason`` is empty, or a Refused's name."""

    file: str
    sequence: int
    layout: str
    bytes: int
    stamp: int
    state_hash: str
    reason: str
    why: str


def examine(storage: Storage, engine: Engine, exchange_id: bytes | None = None) -> list[Examined]:
    """Go through all snapshots as a recovery would, with the whole self-check; newest first.

    ``engine`` is the one they are restored into, one after another.
    """
    own, found = layout_of(engine.snapshot()), []
    for sequence, layout, name in list_files(storage):
        stamp, state_hash, reason, why = 0, "", "", ""
        try:
            header = read_header(storage, name)
            state_hash = header.state_hash.hex()
            check_kin(header, own, exchange_id)
            header, point, image = load(storage, name)
            stamp = point.stamp
            check_log(storage, header, point)
            restore(engine, header, image, check=True)
        except Refused as refused:
            reason, why = refused.name, refused.why
        size = storage.size(name)
        found.append(
            Examined(name, sequence, f"{layout:016x}", size, stamp, state_hash, reason, why)
        )
    return found


def check_kin(header: Header, layout: int, exchange_id: bytes | None) -> None:
    """Raise OtherExchange or OtherLayout."""
    if exchange_id is not None and header.exchange_id != exchange_id:
        raise OtherExchange(header.file, f"{header.exchange_id.hex()}, not {exchange_id.hex()}")
    if header.layout != layout:
        raise OtherLayout(header.file, f"{header.layout:016x}, this build has {layout:016x}")


def check_tape(directory: Path, header: Header, point: Point) -> None:
    """Raise OtherTape unless the released stream on disk reaches the point."""
    path = directory / TAPE_NAME / FILE_NAME
    try:
        with open(path, "rb") as file:
            begin, size = file.read(PREAMBLE.size), file.seek(0, os.SEEK_END)
            sequence, offset = point.marks[-1] if point.marks else (1, PREAMBLE.size)
            file.seek(offset)
            head = unpack_head(file.read(RECORD_BYTES))
    except FileNotFoundError:
        raise OtherTape(header.file, f"{path} is not there") from None
    if size < point.tape_end:
        raise OtherTape(header.file, f"{path} has {size} bytes, not {point.tape_end}")
    if begin != preamble(header.exchange_id) or head is None or head.first_sequence != sequence:
        raise OtherTape(header.file, f"{path} has no record of sequence {sequence} at {offset}")
