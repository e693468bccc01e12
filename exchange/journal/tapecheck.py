"""Compares the whole tape with the log, without an engine.

A frame carries the digest of the previous batch's events, so the log can verify the released events
without storing them. A start from a snapshot compares the tape only from there on; this compares
all of it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from exchange.journal.errors import JournalError
from exchange.journal.frame import Frame, digest
from exchange.journal.reader import LogReader
from exchange.journal.storage import Storage
from exchange.journal.tape import (
    FILE_NAME,
    PREAMBLE,
    RECORD_BYTES,
    TAPE_NAME,
    NoStream,
    check_preamble,
    unpack_head,
)

Progress = Callable[[int, int], None]


class DamagedTape(JournalError):
    """The tape is not what the log released. ``offset`` is the bad record's first byte."""

    def __init__(self, path: Path, offset: int, sequence: int, what: str) -> None:
        super().__init__(
            f"{path} at byte {offset}, sequence {sequence}: {what}: delete the file while nobody "
            "serves the directory, and the next start makes it again from the log"
        )
        self.path = path
        self.offset = offset
        self.sequence = sequence
        self.what = what


class TapeReport(msgspec.Struct, frozen=True):
    """The result of a comparison.

    ``proven_upto`` is the last sequence whose events were verified: a batch's events are recorded
    in the next frame, those of the last batch only in the head of a clean close.
    """

    records: int
    bytes: int
    last_sequence: int
    proven_upto: int


def check_tape(
    directory: Path, progress: Progress | None = None, *, log: Storage | None = None
) -> TapeReport:
    """Compare the tape of a market's directory with its log. A tape that ends early is accepted.

    ``log``: the log's storage, if it is not in the directory. Raises DamagedTape; FileNotFoundError
    if there is no tape; and the reader's errors, among them DamagedLog if the log has lost what the
    tape shows as released.
    """
    path = directory / TAPE_NAME / FILE_NAME
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size  # before the log is read: it is never behind
        reader = LogReader(log or directory)
        total, done, records, proven, last = reader.total_bytes, 0, 0, 0, 0
        before: bytes | None = None  # digest of the last record's events, named by the next frame
        try:
            exchange_id = check_preamble(file.read(PREAMBLE.size))
        except NoStream as error:
            raise DamagedTape(path, 0, 0, str(error)) from error
        for chunk in reader.chunks():
            for frame in chunk:
                if exchange_id != frame.opening.exchange_id:
                    raise DamagedTape(path, 0, 0, f"of exchange {exchange_id.hex()}")
                if before is not None and before != frame.opening.previous_events:
                    at = file.tell()
                    raise DamagedTape(path, at, last, "the record before has other events")
                if before is not None:
                    proven = last
                if file.tell() >= size:
                    return TapeReport(records, file.tell(), last, proven)
                before = _compare(path, file.tell(), file.read, frame)
                records, last = records + 1, frame.last_sequence
                done += frame.length
            if progress is not None:
                progress(done, total)
        _check_end(path, file, size, reader)
        head = reader.head
        if head is not None and (head.sequence, head.events_digest) == (
            last,
            (before or b"").hex(),
        ):
            proven = last
        elif head is not None and head.sequence == last and head.events_digest:
            raise DamagedTape(path, file.tell(), last, "the last record has other events")
        return TapeReport(records, file.tell(), last, proven)


def _check_end(path: Path, file: BinaryIO, size: int, reader: LogReader) -> None:
    """Check the log's end: whatever the tape has beyond it was durable once."""
    at, upto = file.tell(), 0
    head = unpack_head(file.read(RECORD_BYTES)) if at < size else None
    if head is not None and head.first_sequence == reader.next_sequence:
        upto = head.first_sequence + head.count - 1
    last = reader.finish(upto).last_sequence
    if at < size:
        raise DamagedTape(path, at, last, "it goes on behind the log's end")
    file.seek(at)


def _compare(path: Path, offset: int, read: Callable[[int], bytes], frame: Frame) -> bytes:
    """Compare one record with its frame; return the digest of its events."""
    opening, head = frame.opening, unpack_head(read(RECORD_BYTES))
    first = opening.first_sequence
    if head is None:
        raise DamagedTape(path, offset, first, "no record")
    if (head.epoch, head.first_sequence, head.stamp, head.count, head.texts_bytes) != (
        opening.epoch, first, opening.stamp, opening.count, opening.texts_bytes,
    ):  # fmt: skip
        raise DamagedTape(path, offset, first, "another batch than the log's")
    events = read(head.events_bytes)
    if read(head.texts_bytes) != frame.texts:
        raise DamagedTape(path, offset, first, "other texts than the log's, or cut short")
    return digest(events)
