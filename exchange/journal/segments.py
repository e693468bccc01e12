"""The writing end of the log: one directory, one writer, one frame per batch.

A market's directory holds ``log/`` (the segments), ``index/`` (their sparse indexes), ``head`` (the
last position known durable), ``lock`` (held while a writer lives) and ``tape/`` (the released
stream, a cache of the log).

``Journal.append`` writes a frame; it is durable once a ``sync`` that began after it has returned. A
failed write or sync stops the journal for good: the kernel may have dropped dirty pages, so what is
durable is known only when the disk is read again at the next start. A full disk is no failure
(room.py).
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

SEGMENT_BYTES: Final = 64 << 20  # a segment of this size takes no further frame
ROLL_AGAIN_BYTES: Final = 1 << 20  # growth until the next try, after a try without space
_log = logging.getLogger(__name__)


class Journal:
    """Appends frames after the end that ``Recovered`` describes. The caller holds the storage's
    lock.

    Only ``sync`` may be called from another thread, and not while a frame is appended that begins a
    new segment (``rolls``): of two concurrent syncs the kernel reports a failure to only one.
    ``full``: the disk does not give the reserve.
    """

    def __init__(
        self, storage: Storage, recovered: Recovered, *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Open the log for appending: drop its torn tail, and make what was read durable.

        After a killed process the last frames may be in the page cache only, and they are about to
        be released. Raises DiskFull if there is not even space for cancels; WriteFailed,
        SyncFailed.
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
                # Reading began inside the segment: the marks before that are still missing.
                self._marks = Marks([mark for mark in make_index(storage, found) if mark[2] < end])
        try:
            self._file = storage.open(self._segment.name, write=True)
            self._file.truncate(end)
            if recovered.proven < end:  # after a failed sync these bytes may be in memory only
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
        """Bytes that can be appended without further allocation on the disk."""
        return self._file.room

    @property
    def rolls(self) -> bool:
        """Whether the next frame begins a new segment."""
        return self._file.end >= self._roll_at and not self.full

    def look_for_room(self) -> None:
        """Try to restore the reserve. Raises JournalStopped."""
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
        JournalStopped, and from then on always.
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
        """Make every frame appended so far durable. Raises SyncFailed, and from then on
        JournalStopped."""
        self._check()
        try:
            self._file.sync()
        except OSError as error:
            raise self.sync_failed(error) from error

    def handle(self) -> int:
        """Return the descriptor whose ``fdatasync`` is all that ``sync`` would do; -1 if there is
        none."""
        return -1 if self._stopped is not None else self._file.handle

    def sync_failed(self, error: OSError) -> JournalError:
        """Stop the journal after a failed sync; return the error that ``sync`` raises for it."""
        where = self._storage.where(self._segment.name)
        return self._stop(SyncFailed(f"{where}: {error}: mend the disk, then start again"))

    def _check(self) -> None:
        if self._stopped is not None:
            raise JournalStopped(f"stopped before: {self._stopped}")

    def _stop(self, error: JournalError) -> JournalError:
        """Stop the journal, unless the error is a full disk; return the error."""
        if isinstance(error, JournalStopped):
            self._stopped = error
        return error

    def _roll(self) -> None:
        """Begin the next segment, if the disk has space for one.

        The old segment is made durable first, since the new one's name states that it is. Any
        failure other than missing space stops the journal: the new name may exist already, and the
        old segment must not grow past it.
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
                WriteFailed(f"{where}: {error.strerror or error}: mend the disk, then start again")
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
        """Return the next segment's file with its reserve; None if the disk has no space."""
        try:
            file = self._storage.open(segment.name, write=True)
        except OSError as error:
            if not out_of_space(error):
                raise
        else:
            if make_room(file):
                return file
            file.close()
        self._storage.remove(segment.name)  # the failed open may have created it
        return None

    def _write_head(self, events_digest: str, state_hash: str) -> None:
        """Write the head. On a full disk the old one stays: it is older, but still true."""
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
        """Release the reserve, sync, write the head and close. After a failure, only close.

        Raises JournalStopped, DiskFull; the journal is closed then as well.
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
        """Release the reserve."""
        try:
            self._file.truncate(self._file.end)
        except OSError as error:
            raise self._stop(write_failure(error, self._segment.name)) from error

    def abandon(self) -> None:
        """Close without a sync and without a head: for use after a failure."""
        if not self._closed:
            self._file.close()
        self._closed = True
        self._stopped = self._stopped or JournalStopped("closed")
