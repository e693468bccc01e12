"""The writing end of the log: one directory, one writer, one frame per batch.

Layout of a market's directory: ``log/`` the segments, ``head`` the last known durable position,
``lock`` held while a writer lives, ``tape/`` the released stream (a cache of the log).

A frame is appended by ``Journal.append`` and is durable when a ``sync`` begun after it has
returned. A failed write or sync ends the journal for good: dirty pages may be gone, and only the
disk, read again at the next start, knows what it holds.
"""

import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from exchange.journal.errors import DirectoryLocked, JournalStopped, SyncFailed, write_failure
from exchange.journal.frame import Opening, encode
from exchange.journal.head import HEAD_FORMAT, Head, sync_directory, write_head
from exchange.journal.reader import LOG_NAME, Recovered, segment_name

SEGMENT_BYTES: Final = 64 << 20  # a segment takes no further frame once it is this large
LOCK_NAME: Final = "lock"
_log = logging.getLogger(__name__)


class DirectoryLock:
    """The right to write to a market's directory, until closed or the process ends."""

    def __init__(self, directory: Path) -> None:
        """Take the lock, creating the directory. Raises DirectoryLocked."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / LOCK_NAME
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise DirectoryLocked(path, holder) from error
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let others write."""
        os.close(self._handle)


class Journal:
    """Appends frames behind what ``Recovered`` found. The caller holds the DirectoryLock.

    Only ``sync`` may be called from another thread, and never twice at once.
    """

    def __init__(
        self,
        directory: Path,
        recovered: Recovered,
        *,
        sync: Callable[[int], None] = os.fdatasync,
        write: Callable[[int, memoryview], int] = os.write,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Open the log for appending; drop its torn tail, and make durable what was read.

        What survived a killed process may be in the page cache alone, and is about to be released.
        """
        self._directory = directory
        self._log_path = directory / LOG_NAME
        self._sync = sync
        self._write = write
        self._segment_bytes = segment_bytes
        self._retired: list[int] = []
        self._stopped: JournalStopped | None = None
        self._closed = False
        self._epoch = recovered.epoch
        self.last_hash = recovered.last_hash
        self.last_sequence = recovered.last_sequence
        self._exchange_id = recovered.exchange_id or b""
        self._log_path.mkdir(parents=True, exist_ok=True)
        path = recovered.path or self._log_path / segment_name(1)
        self._segment = self._open(path)
        self._size = recovered.offset
        if recovered.tail_dropped is not None:
            tail = recovered.tail_dropped
            _log.warning(
                "dropped a torn tail: %d bytes of %s from byte %d (%s)",
                tail.size, tail.path, tail.offset, tail.reason,
            )  # fmt: skip
            os.ftruncate(self._segment, self._size)
        os.fsync(self._segment)
        sync_directory(self._log_path)
        sync_directory(directory)

    @staticmethod
    def _open(path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(
        self, opening: Opening, commands: bytes, ingress: bytes, texts: bytes, notes: bytes
    ) -> None:
        """Write one frame; it is durable once a later ``sync`` returns. Raises JournalStopped."""
        self._check()
        assert opening.first_sequence == self.last_sequence + 1, "sequence without gaps"
        assert opening.previous_hash == self.last_hash
        if self._size >= self._segment_bytes:
            self._roll()
        data, own = encode(opening, commands, ingress, texts, notes)
        self._write_whole(data)
        self._size += len(data)
        self.last_hash = own
        self.last_sequence += opening.count
        self._epoch = opening.epoch
        self._exchange_id = opening.exchange_id

    def _write_whole(self, data: bytes) -> None:
        """One write as a rule; the loop is for the short ones that the system may make."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._write(self._segment, rest) :]
        except OSError as error:
            raise self._stop(write_failure(error, f"frame of {len(data)} bytes")) from error

    def sync(self) -> None:
        """Make every frame appended so far durable. Raises SyncFailed, and then for ever."""
        self._check()
        try:
            self._sync(self._segment)
        except OSError as error:
            raise self._stop(SyncFailed(f"{self._log_path}: {error}")) from error

    def _check(self) -> None:
        if self._stopped is not None:
            raise JournalStopped(f"stopped before: {self._stopped}")

    def _stop(self, error: JournalStopped) -> JournalStopped:
        self._stopped = error
        return error

    def _roll(self) -> None:
        """Begin the next segment. The old one is made durable first, as the new name says.

        A sync of the old segment may be under way in its thread, so that handle stays open until
        the roll after this one.
        """
        self.sync()
        while self._retired:
            os.close(self._retired.pop())
        self._retired.append(self._segment)
        self._segment = self._open(self._log_path / segment_name(self.last_sequence + 1))
        self._size = 0
        sync_directory(self._log_path)
        self._write_head("", "")

    def _write_head(self, events_digest: str, state_hash: str) -> None:
        write_head(
            self._directory,
            Head(
                HEAD_FORMAT,
                self._exchange_id.hex(),
                self._epoch,
                self.last_sequence,
                self.last_hash.hex(),
                events_digest,
                state_hash,
            ),
        )

    def close(self, events_digest: bytes = b"", state_hash: bytes = b"") -> None:
        """Sync, write the head, close. After a failure, as ``abandon``."""
        if self._stopped is None and self.last_sequence:
            self.sync()
            self._write_head(events_digest.hex(), state_hash.hex())
        self.abandon()

    def abandon(self) -> None:
        """Close without a word about what is durable: for when something has failed."""
        if not self._closed:
            for handle in (*self._retired, self._segment):
                os.close(handle)
        self._closed = True
        self._stopped = self._stopped or JournalStopped("closed")
