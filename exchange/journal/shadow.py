"""The shadow: a second engine that follows a market's log, verifies it and takes snapshots.

It only reads what the market writes, so it runs in its own process, beside the market or later, and
the market never waits for it. Every recorded events digest and every checkpoint's state hash is
compared with what this engine computes.
"""

import copy
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from exchange.journal import sealed, snapshots
from exchange.journal.errors import DamagedLog, Diverged, JournalError
from exchange.journal.frame import Frame, digest, unpack_notes
from exchange.journal.head import Head
from exchange.journal.places import find_sequence
from exchange.journal.point import Point
from exchange.journal.reader import LogReader, Start
from exchange.journal.snapshots import Engine
from exchange.journal.storage import LocalStorage, sync_directory
from exchange.journal.tape import FILE_NAME, TAPE_NAME

TAPE_SECONDS: Final = 2.0  # a live market releases what is in its log well within this time

Progress = Callable[[int, int], None]


class TapeBehind(JournalError):
    """The market has not released all that its log holds: no snapshot can be taken now."""


class Shadow:
    """Follows the log of ``directory`` from the newest usable snapshot.

    ``point`` is how far it has come, ``checked`` the number of state hashes compared so far,
    ``found`` the snapshot it started from.
    """

    def __init__(self, directory: Path, engine: Engine, *, fresh: bool = False) -> None:
        """Restore the newest snapshot, or start at the log's beginning if ``fresh``.

        ``engine`` must be empty. Raises OSError.
        """
        self.directory = directory
        self.storage = LocalStorage(directory)
        self.engine = engine
        self.found = snapshots.Found(Point(), None, [])
        if not fresh:
            self.found = snapshots.recover(self.storage, engine)
        self.point = copy.deepcopy(self.found.point)  # it moves
        self.exchange_id = self.found.exchange_id
        self.checked = 0
        self._head: Head | None = None  # the last one compared
        self._doubt: tuple[Path, int] | None = None  # where the log looked damaged

    def advance(self, progress: Progress | None = None) -> int:
        """Apply what the log has beyond ``point``; return the number of commands.

        Raises Diverged at the first difference, and the reader's errors; DamagedLog only when the
        same place looks damaged in two consecutive calls.
        """
        began = self.point.sequence
        try:
            self._read(progress)
            self._doubt = None
        except DamagedLog as damaged:
            # It may have been read while it was being written: damage is what a second look
            # confirms.
            if self._doubt == (damaged.path, damaged.offset):
                raise
            self._doubt = (damaged.path, damaged.offset)
        return self.point.sequence - began

    def catch_up(self, progress: Progress | None = None) -> None:
        """Apply all that the log has, looking twice at damage. Raises what ``advance`` does."""
        self.advance(progress)
        if self._doubt is not None:
            self.advance(progress)

    def _read(self, progress: Progress | None) -> None:
        reader = self._reader()
        total, done = reader.total_bytes, 0
        for chunk in reader.chunks():
            for frame in chunk:
                self._apply(frame)
                done += frame.length
            if progress is not None:
                progress(done, total)
        reader.finish()
        if reader.head != self._head:
            self._compare_head(reader.head)
            self._head = reader.head

    def _reader(self) -> LogReader:
        point = self.point
        start = None
        if point.sequence:
            start = Start(point.sequence, point.frame_hash, point.epoch, point.stamp)
        return LogReader(self.storage, self.exchange_id, start=start)

    def _apply(self, frame: Frame) -> bytes:
        """Compare the hashes that the frame records, apply its commands; return their events."""
        opening = frame.opening
        self.exchange_id = opening.exchange_id
        self._compare("events", opening.previous_events, self.point.events_digest)
        notes = unpack_notes(frame.notes)
        if notes is not None:
            self._compare_state(notes.state_hash)
        events = self.engine.apply(frame.commands, opening.first_sequence, opening.stamp)
        self.point.advance(frame, events)
        return events

    def _compare(self, what: str, recorded: bytes, found: bytes) -> None:
        if found != recorded:
            raise Diverged(what, self.point.first_sequence, self.point.sequence, recorded, found)

    def _compare_state(self, recorded: bytes) -> None:
        self._compare("state", recorded, digest(self.engine.state_bytes()))
        self.checked += 1

    def _compare_head(self, head: Head | None) -> None:
        """Compare with the hashes in the head, if the market was closed at this point."""
        if head is None or head.sequence != self.point.sequence:
            return
        if head.events_digest:
            self._compare("events", bytes.fromhex(head.events_digest), self.point.events_digest)
        if head.state_hash:
            self._compare_state(bytes.fromhex(head.state_hash))

    def write(self, *, keep: int = sealed.KEEP, prove: Engine | None = None) -> sealed.Header:
        """Write a snapshot of this point durably and read it back.

        ``prove`` is an empty engine into which it is restored for the whole self-check. Raises
        OSError, TapeBehind, OtherState, Damaged.
        """
        assert self.exchange_id is not None and self.point.sequence, "something was read"
        self._make_durable()
        header = snapshots.write(
            self.storage, self.engine, self.point, self.exchange_id, keep=keep, prove=prove
        )
        sealed.load(self.storage, sealed.file_name(header.sequence, header.layout, snapshots.KIND))
        return header

    def _make_durable(self) -> None:
        """Sync the log up to here, and the tape if there is one, before a snapshot refers to them.

        What this engine read may be in the page cache only.
        """
        place = find_sequence(self.storage, self.point.sequence)
        if not place.segment.archived:
            with suppress(FileNotFoundError):  # archived meanwhile, and durable there
                _sync(self.storage.where(place.segment.name))
        tape = self.directory / TAPE_NAME / FILE_NAME
        deadline = time.monotonic() + TAPE_SECONDS
        while tape.exists():
            if tape.stat().st_size >= self.point.tape_end:
                _sync(tape)
                return
            if time.monotonic() > deadline:
                raise TapeBehind(
                    f"{tape} ends before sequence {self.point.sequence}: serve the market once to "
                    "make it whole"
                )
            time.sleep(0.005)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_directory(path.parent)
