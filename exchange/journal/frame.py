"""One frame of the log: a batch of commands, with a CRC and a hash that chains the frames.

A frame is, little-endian throughout (docs/reference/journal.md has every field and offset):

    header (208 bytes) | n x 64-byte commands | n x u64 ingress times | texts | notes

The CRC32 covers everything but itself, the spare word and the hash; the hash (BLAKE3) covers
everything but itself.
"""

from struct import Struct as Layout
from typing import Final

import msgspec
from blake3 import blake3
from zlib_ng.zlib_ng import crc32

from exchange.journal.errors import BadPart
from exchange.messages import COMMAND_BYTES, RULES_VERSION, SCHEMA_VERSION

FORMAT_VERSION: Final = 1
MAGIC: Final = b"HBLF"
HASH_BYTES: Final = 32
NO_HASH: Final = bytes(HASH_BYTES)  # before the first frame, and before the first events
EXCHANGE_ID_BYTES: Final = 16
INGRESS_BYTES: Final = 8

OPENING: Final = Layout("<4sHH16sIIQQQIIII32s32s32s")
SEAL: Final = Layout("<II")  # CRC32, spare (zero)
OPENING_BYTES: Final = OPENING.size
SEALED_BYTES: Final = OPENING_BYTES + SEAL.size
HEADER_BYTES: Final = SEALED_BYTES + HASH_BYTES
PER_COMMAND_BYTES: Final = COMMAND_BYTES + INGRESS_BYTES

Texts = list[tuple[int, str]]  # (sequence, text)


class Opening(msgspec.Struct, frozen=True, gc=False):
    """The header's fields up to the seal, in order, without magic and versions.

    ``durable_upto`` is the last sequence known durable when the frame was written;
    ``previous_events`` the digest of the previous batch's events.
    """

    exchange_id: bytes
    shard: int
    epoch: int
    first_sequence: int
    stamp: int
    durable_upto: int
    count: int
    rules_version: int
    texts_bytes: int
    notes_bytes: int
    spec_hash: bytes
    previous_hash: bytes
    previous_events: bytes

    @property
    def last_sequence(self) -> int:
        """Sequence of the last command."""
        return self.first_sequence + self.count - 1

    @property
    def length(self) -> int:
        """Bytes of the whole frame."""
        variable = self.count * PER_COMMAND_BYTES
        return HEADER_BYTES + variable + self.texts_bytes + self.notes_bytes


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A decoded frame, checked against its own CRC and hash, not yet against its neighbours."""

    opening: Opening
    hash: bytes
    commands: bytes
    ingress: bytes
    texts: bytes
    notes: bytes
    length: int

    @property
    def last_sequence(self) -> int:
        """Sequence of the last command."""
        return self.opening.last_sequence


class Notes(msgspec.Struct, frozen=True, array_like=True):
    """The hash of the engine's state after the batch that ended at ``sequence``: a checkpoint."""

    sequence: int
    state_hash: bytes


class BadFrame(Exception):
    """These bytes are no whole frame. ``what`` was compared, ``expected`` with ``found``."""

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}")
        self.what = what
        self.expected = expected
        self.found = found


class CutShort(BadFrame):
    """The bytes end before or inside the frame: it may be whole once more bytes are read."""


class NewerFrame(Exception):
    """A frame that only a later build can read."""

    def __init__(self, what: str, known: int, found: int) -> None:
        super().__init__(f"{what} version {found}, known {known}")
        self.what = what
        self.known = known
        self.found = found


_encode = msgspec.msgpack.Encoder().encode
_texts = msgspec.msgpack.Decoder(Texts)
_notes = msgspec.msgpack.Decoder(Notes)
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError)


def pack_texts(texts: Texts) -> bytes:
    """Return the texts' bytes; empty if there are none."""
    return _encode(texts) if texts else b""


def unpack_texts(data: bytes) -> Texts:
    """Return (sequence, text) pairs in sequence order. Raises BadPart."""
    try:
        return _texts.decode(data) if data else []
    except _UNREADABLE as error:
        raise BadPart("texts", error) from error


def pack_notes(notes: Notes | None) -> bytes:
    """Return the notes' bytes; empty if there are none."""
    return _encode(notes) if notes else b""


def unpack_notes(data: bytes) -> Notes | None:
    """Return the notes, or None if the frame has none. Raises BadPart."""
    try:
        return _notes.decode(data) if data else None
    except _UNREADABLE as error:
        raise BadPart("notes", error) from error


def digest(data: bytes | memoryview) -> bytes:
    """Return the BLAKE3 of ``data``, 32 bytes."""
    return blake3(data).digest()


def put_together(
    opening: Opening, commands: bytes, ingress: bytes, texts: bytes, notes: bytes
) -> tuple[bytes, bytes]:
    """Return the bytes before the seal, and those behind the hash. The opening's counts must
    fit."""
    assert len(commands) == opening.count * COMMAND_BYTES
    assert len(ingress) == opening.count * INGRESS_BYTES
    assert (len(texts), len(notes)) == (opening.texts_bytes, opening.notes_bytes)
    body = b"".join((commands, ingress, texts, notes))
    fields = msgspec.structs.astuple(opening)
    return OPENING.pack(MAGIC, FORMAT_VERSION, SCHEMA_VERSION, *fields), body


def encode(
    opening: Opening, commands: bytes, ingress: bytes, texts: bytes, notes: bytes
) -> tuple[bytes, bytes]:
    """Return the frame's bytes and its hash. The opening's counts must fit the parts."""
    start, body = put_together(opening, commands, ingress, texts, notes)
    sealed = start + SEAL.pack(crc32(body, crc32(start)), 0)
    state = blake3(sealed)
    state.update(body)
    own = state.digest()
    return b"".join((sealed, own, body)), own


def peek(data: bytes, offset: int) -> Opening | None:
    """Return the header at ``offset``; None if there is none. Only magic and format are checked."""
    if len(data) - offset < HEADER_BYTES:
        return None
    magic, form, _, *fields = OPENING.unpack_from(data, offset)
    return Opening(*fields) if (magic, form) == (MAGIC, FORMAT_VERSION) else None


def decode(data: memoryview, offset: int) -> Frame:
    """Return the frame at ``offset``. Raises CutShort, BadFrame or NewerFrame.

    The format version is checked before the CRC, since a later format may place the CRC elsewhere;
    schema and rules versions after it, since they mean something only in a whole frame.
    """
    room = len(data) - offset
    if room < HEADER_BYTES:
        raise CutShort("frame header cut short", f"{HEADER_BYTES} bytes", f"{room} bytes")
    magic, form, schema, *fields = OPENING.unpack_from(data, offset)
    if magic != MAGIC:
        raise BadFrame("magic", MAGIC.hex(), magic.hex())
    if form > FORMAT_VERSION:
        raise NewerFrame("format", FORMAT_VERSION, form)
    opening = Opening(*fields)
    commands_bytes = opening.count * COMMAND_BYTES
    variable = opening.count * PER_COMMAND_BYTES
    length = opening.length
    if room < length:
        raise CutShort("frame cut short", f"{length} bytes", f"{room} bytes")
    body = data[offset + HEADER_BYTES : offset + length]
    _check_seal(data[offset : offset + HEADER_BYTES], body)
    if schema > SCHEMA_VERSION:
        raise NewerFrame("schema", SCHEMA_VERSION, schema)
    if opening.rules_version > RULES_VERSION:
        raise NewerFrame("rules", RULES_VERSION, opening.rules_version)
    notes_at = variable + opening.texts_bytes
    return Frame(
        opening,
        bytes(data[offset + SEALED_BYTES : offset + HEADER_BYTES]),
        bytes(body[:commands_bytes]),
        bytes(body[commands_bytes:variable]),
        bytes(body[variable:notes_at]),
        bytes(body[notes_at:]),
        length,
    )


def _check_seal(header: memoryview, body: memoryview) -> None:
    crc, _ = SEAL.unpack_from(header, OPENING_BYTES)
    computed = crc32(body, crc32(header[:OPENING_BYTES]))
    if computed != crc:
        raise BadFrame("CRC", f"{computed:08x}", f"{crc:08x}")
    state = blake3(header[:SEALED_BYTES])
    state.update(body)
    own = state.digest()
    if own != header[SEALED_BYTES:]:
        raise BadFrame("frame hash", own.hex(), bytes(header[SEALED_BYTES:]).hex())
