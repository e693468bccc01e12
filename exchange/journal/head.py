"""DIR/head: the last position known durable, kept apart from the log.

It is written at every clean close and segment roll, so that a log cut short exactly at the end of a
frame is noticed. One JSON object, replaced whole. Signed heads, which are kept elsewhere, are in
``heads.py``.
"""

from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from exchange.journal.errors import DamagedHead, NewerVersion
from exchange.journal.frame import HASH_BYTES
from exchange.journal.storage import LocalStorage, Storage

HEAD_NAME: Final = "head"
HEAD_FORMAT: Final = 1


class KnownFrame(msgspec.Struct, frozen=True):
    """A statement from outside the log: the frame that ends at ``sequence`` had this hash."""

    sequence: int
    frame_hash: bytes
    source: str


class Written(NamedTuple):
    """A frame of the log: its epoch, its last sequence, its hash and its stamp."""

    epoch: int
    sequence: int
    frame_hash: bytes
    stamp: int


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Position of the last durable frame.

    Hashes are hex: the frame's; that of its batch's events ("" at a roll, where it is not known
    yet); and that of the engine's state after it ("" unless written at a close).
    """

    format: int
    exchange_id: str
    epoch: int
    sequence: int
    frame_hash: str
    events_digest: str = ""
    state_hash: str = ""


def read_head(place: Path | Storage) -> Head | None:
    """Return the head of a market's directory, None if it has none. Raises DamagedHead,
    NewerVersion."""
    storage = LocalStorage(place) if isinstance(place, Path) else place
    path = storage.where(HEAD_NAME)
    try:
        data = storage.read(HEAD_NAME)
    except FileNotFoundError:
        return None
    try:
        check_format(data, HEAD_FORMAT, path)
        head = msgspec.json.decode(data, type=Head)
        for name in ("frame_hash", "events_digest", "state_hash"):
            _check_hash(name, getattr(head, name))
    except (msgspec.MsgspecError, ValueError) as error:
        raise DamagedHead(f"{path}: {error}: restore it, or delete it to do without") from error
    return head


class _Format(msgspec.Struct):
    """What a head has in every format."""

    format: int


def check_format(data: bytes, known: int, path: Path) -> None:
    """Raise NewerVersion for a head of a later format, which may have other fields; a
    msgspec.MsgspecError for what is no head."""
    found = msgspec.json.decode(data, type=_Format).format
    if found > known:
        raise NewerVersion(path, 0, "format", known, found)


def _check_hash(name: str, text: str) -> None:
    """Raise ValueError unless the text is a hash, or empty where that is allowed."""
    size = len(bytes.fromhex(text))
    if size != HASH_BYTES and (size or name == "frame_hash"):
        raise ValueError(f"{name} has {size} bytes, not {HASH_BYTES}")


def write_head(storage: Storage, head: Head) -> None:
    """Replace the head file atomically and durably. Raises OSError."""
    storage.replace(HEAD_NAME, msgspec.json.encode(head) + b"\n")
