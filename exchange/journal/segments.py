"""The writing end of the log: one directory, one writer, one frame per batch.

Layout of a market's directory: ``log/`` the segments, ``index/`` where to find what in them,
``head`` the last known durable position, ``lock`` held while a writer lives, ``tape/`` the released
stream (a cache of the log).

A frame is appended by ``Journal.append`` and is durable when a ``sync`` begun after it has
returned. A failed write or sync ends the journal for good: dirty pages may be gone, and only the
disk, read again at the next start, knows what it holds. A full disk is no failure (room.py).
"""

import logging
from typing import Final

from exchange.journal.errors import (
    DiskFull,
    JournalError,
    JournalStopped,
    SyncFailed,
    WriteFailed,
    out_of_space,
    write_failure,
)
from exchange.journal.frame import Opening, encode
from exchange.journal.head import HEAD_FORMAT, Head, Written, write_head
from exchange.journal.places import Marks, Segment, make_index, segment_name, write_index
from exchange.journal.reader import Recovered
from exchange.journal.room import LEAST_BYTES, make_room
from exchange.journal.storage import File, Storage

SEGMENT_BYTES: Final = 64 << 20  # a segment takes no further frame once it is this large
ROLL_AGAIN_BYTES: Final = 1 << 20  # where the disk had no room for another segment
_log = logging.getLogger(__name__)


class Journal:
    """Appends frames behind what ``Recovered`` found. The caller holds the storage's lock.

    Only ``sync`` may be called from another thread, and none may be under way when a frame is
    appended that begins another segment (``rolls``): of a failure the system tells only one of two.
    ``full``: the disk does not give the reserve.
    """

    def __init__(
        self, storage: Storage, recovered: Recovered, *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Open the log for appending; drop its torn tail, and make durable what was read.

        What survived a killed process may be in the page cache alone, and is about to be released.
        Raises DiskFull where not even cancels would have room; WriteFailed, SyncFailed.
        """
        self._storage = storage
        self._segment_bytes = self._roll_at = segment_bytes
        self._stopped: JournalStopped | None = None
        self._closed = False
        self._exchange_id = recovered.exchange_id or b""
        self.last = Written(
            recovered.epoch, recovered.last_sequence, recovered.last_hash, recovered.stamp
        )
        self.full = False
        if recovered.tail_dropped is not None:
            tail = recovered.tail_dropped
            _log.warning(
                "dropped a torn tail: %d bytes of %s from byte %d (%s)",
                tail.size, tail.path, tail.offset, tail.reason,
            )  # fmt: skip
        found = recovered.segment
        if found is None or found.archived:
            self._segment, self._marks, end = self._next_segment(), Marks(), 0
        else:
            self._segment, self._marks, end = found, Marks(recovered.marks), recovered.offset
            if end and (not recovered.marks or recovered.marks[0][2]):
                # Read from its middle on: the marks before that are still to be taken.
                self._marks = Marks([mark for mark in make_index(storage, found) if mark[2] < end])
        try:
            self._file = storage.open(self._segment.name, write=True)
            self._file.truncate(end)
            if recovered.proven < end:  # read from memory, and perhaps nowhere else (a failed sync)
                self._file.renew(recovered.proven)
            self._have_room()
        except OSError as error:
            raise write_failure(error, str(storage.where(self._segment.name))) from error
        if self._file.room < LEAST_BYTES:
            self._file.close()
            raise DiskFull(
                f"{storage.where(self._segment.name)}: no room for {LEAST_BYTES} bytes, not even "
                "for cancels: free some space, then start"
            )
        self.sync()

    def _next_segment(self) -> Segment:
        first = self.last.sequence + 1
        return Segment(segment_name(first), first)

    @property
    def room(self) -> int:
        """Bytes that can be appended without asking the disk for space."""
        return self._file.room

    @property
    def rolls(self) -> bool:
        """Whether the next frame begins another segment."""
        return self._file.end >= self._roll_at and not self.full

    def look_for_room(self) -> None:
        """Have the reserve again if the disk gives it. Raises JournalStopped."""
        self._check()
        try:
            self._have_room()
        except OSError as error:
            where = str(self._storage.where(self._segment.name))
            raise self._stop(write_failure(error, where)) from error

    def _have_room(self) -> None:
        full = not make_room(self._file)
        if full == self.full:
            return
        self.full = full
        if full:
            _log.error(
                "the disk of %s is full: new orders are refused, cancels are taken as long as "
                "the %d bytes set aside last: free some space",
                self._storage.where(self._segment.name), self.room,
            )  # fmt: skip
        else:
            _log.warning("the disk has room again: new orders are taken")

    def append(
        self, opening: Opening, commands: bytes, ingress: bytes, texts: bytes, notes: bytes
    ) -> None:
        """Write one frame; it is durable once a later ``sync`` returns.

        Raises DiskFull, having written nothing: the same frame may be tried again. Raises
        JournalStopped, and then for ever.
        """
        self._check()
        assert opening.first_sequence == self.last.sequence + 1, "sequence without gaps"
        assert opening.previous_hash == self.last.frame_hash
        if self.rolls:
            self._roll()
        data, own = encode(opening, commands, ingress, texts, notes)
        at = self._file.end
        try:
            self._have_room()
            self._file.append(data)
        except OSError as error:
            raise self._stop(write_failure(error, f"frame of {len(data)} bytes")) from error
        self._marks.note(opening.first_sequence, opening.stamp, at)
        self.last = Written(opening.epoch, opening.last_sequence, own, opening.stamp)
        self._exchange_id = opening.exchange_id

    def sync(self) -> None:
        """Make every frame appended so far durable. Raises SyncFailed, and then for ever."""
        self._check()
        try:
            self._file.sync()
        except OSError as error:
            raise self.sync_failed(error) from error

    def handle(self) -> int:
        """Return the descriptor whose ``fdatasync`` is all that ``sync`` would do; -1: none is."""
        return -1 if self._stopped is not None else self._file.handle

    def sync_failed(self, error: OSError) -> JournalError:
        """Let nothing follow a sync that failed; return what ``sync`` raises of it."""
        where = self._storage.where(self._segment.name)
        return self._stop(SyncFailed(f"{where}: {error}: mend the disk, then start again"))

    def _check(self) -> None:
        if self._stopped is not None:
            raise JournalStopped(f"stopped before: {self._stopped}")

    def _stop(self, error: JournalError) -> JournalError:
        """Let nothing follow a failure; a full disk is none."""
        if isinstance(error, JournalStopped):
            self._stopped = error
        return error

    def _roll(self) -> None:
        """Begin the next segment, if the disk has room for one.

        The old one is made durable first, as the new name says. Any failure but a want of room is
        the end: a name may be left there, and the old one must not go on past it.
        """
        self.sync()
        following = self._next_segment()
        try:
            file = self._new_file(following)
            if file is None:
                self._roll_at = self._file.end + ROLL_AGAIN_BYTES
                return
            self._file.truncate(self._file.end)  # zeros that a crash may leave are no harm
        except OSError as error:
            where = self._storage.where(following.name)
            raise self._stop(
                WriteFailed(f"{where}: {error}: mend the disk, then start again")
            ) from error
        self._file.close()
        full, marks = self._segment, self._marks.marks
        self._segment, self._file, self._marks = following, file, Marks()
        self._roll_at = self._segment_bytes
        self._write_head("", "")
        if not marks or marks[0][2]:
            marks = make_index(self._storage, full)
        write_index(self._storage, full, marks)

    def _new_file(self, segment: Segment) -> File | None:
        """Return the next segment's file with its reserve; None where the disk has no room."""
        try:
            file = self._storage.open(segment.name, write=True)
        except OSError as error:
            if not out_of_space(error):
                raise
        else:
            if make_room(file):
                return file
            file.close()
        self._storage.remove(segment.name)  # the open that failed may have made it
        return None

    def _write_head(self, events_digest: str, state_hash: str) -> None:
        """Write the head; a full disk keeps the older one, which says less and nothing wrong."""
        last = self.last
        head = Head(
            HEAD_FORMAT,
            self._exchange_id.hex(),
            last.epoch,
            last.sequence,
            last.frame_hash.hex(),
            events_digest,
            state_hash,
        )
        try:
            write_head(self._storage, head)
        except OSError as error:
            if not out_of_space(error):
                raise self._stop(write_failure(error, "head")) from error
            _log.warning("the head could not be written: %s", error)

    def close(self, events_digest: bytes = b"", state_hash: bytes = b"") -> None:
        """Give the reserve back, sync, write the head, close. After a failure, as ``abandon``.

        Raises JournalStopped, DiskFull; then it is closed, too.
        """
        try:
            if self._stopped is None:
                self._shorten()
                self.sync()
                if self.last.sequence:
                    self._write_head(events_digest.hex(), state_hash.hex())
        finally:
            self.abandon()

    def _shorten(self) -> None:
        """Give the reserve back."""
        try:
            self._file.truncate(self._file.end)
        except OSError as error:
            raise self._stop(write_failure(error, self._segment.name)) from error

    def abandon(self) -> None:
        """Close without a word about what is durable: for when something has failed."""
        if not self._closed:
            self._file.close()
        self._closed = True
        self._stopped = self._stopped or JournalStopped("closed")
