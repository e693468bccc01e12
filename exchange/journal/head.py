"""DIR/head: the last position known durable, kept apart from the log.

Written at every clean close and segment roll, so that a log cut short at a frame's end is noticed.
One JSON object, replaced whole. A signature would cover exactly ``Head`` without itself.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from exchange.journal.errors import DamagedHead

HEAD_NAME: Final = "head"
HEAD_FORMAT: Final = 1


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Position of the last durable frame.

    Hashes are hex: the frame's, that of its batch's events ("" where not known yet, at a roll), and
    that of the engine's state after it ("" unless written at a close).
    """

    format: int
    exchange_id: str
    epoch: int
    sequence: int
    frame_hash: str
    events_digest: str = ""
    state_hash: str = ""


def read_head(directory: Path) -> Head | None:
    """Return the head of ``directory``, None if it has none. Raises DamagedHead."""
    path = directory / HEAD_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        head = msgspec.json.decode(data, type=Head)
    except msgspec.MsgspecError as error:
        raise DamagedHead(f"{path}: {error}") from error
    if head.format > HEAD_FORMAT:
        raise DamagedHead(f"{path}: format {head.format} is newer than {HEAD_FORMAT}")
    return head


def write_head(directory: Path, head: Head) -> None:
    """Replace the head durably: write beside it, sync, rename, sync the directory."""
    path = directory / HEAD_NAME
    beside = path.with_suffix(".new")
    with open(beside, "wb") as file:
        file.write(msgspec.json.encode(head) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
