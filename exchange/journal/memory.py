"""Storage in memory: the guarantees of local files, and a power cut on request.

For simulations and tests. ``crashed`` returns what a power cut would leave, which is what was
synced; ``capacity`` makes a disk that can be full.
"""

import errno
import os
from pathlib import Path
from typing import Self

from exchange.journal.errors import DirectoryLocked
from exchange.journal.storage import Lock


class _Content:
    """Bytes of one file: as written, and as a power cut would leave them."""

    def __init__(self, data: bytes = b"") -> None:
        self.written = bytearray(data)
        self.room = 0
        self.synced = bytes(data)
        self.reaches = len(data)  # length of the common prefix of ``written`` and ``synced``

    @property
    def space(self) -> int:
        return len(self.written) + self.room

    def sync(self) -> None:
        written = bytes(self.written)
        if self.reaches == len(self.synced):
            self.synced += written[self.reaches :]
        else:
            self.synced = written
        self.reaches = len(self.synced)


class MemoryFile:
    """A file of MemoryStorage."""

    def __init__(self, storage: "MemoryStorage", content: _Content) -> None:
        self._storage = storage
        self._content = content

    @property
    def end(self) -> int:
        """Where the next append goes."""
        return len(self._content.written)

    @property
    def room(self) -> int:
        """Bytes reserved behind the end."""
        return self._content.room

    @property
    def handle(self) -> int:
        """Always -1: there is no file descriptor."""
        return -1

    def append(self, data: bytes) -> None:
        """Append all of ``data``, or raise OSError (ENOSPC) and append nothing."""
        content = self._content
        left = max(0, content.room - len(data))
        self._storage.claim(len(data) + left - content.room)
        content.written += data
        content.room = left

    def reserve(self, room: int) -> None:
        """Reserve ``room`` bytes behind the end, or raise OSError (ENOSPC) and reserve nothing."""
        if room > self._content.room:
            self._storage.claim(room - self._content.room)
            self._content.room = room

    def sync(self) -> None:
        """Make what was written survive ``crashed``."""
        self._content.sync()

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Copy the bytes from ``offset`` on into ``buffer``; return how many."""
        found = bytes(self._content.written[offset : offset + len(buffer)])
        buffer[: len(found)] = found
        return len(found)

    def renew(self, offset: int) -> None:
        """Do nothing: a sync here always covers all that was written."""

    def truncate(self, end: int) -> None:
        """Cut the file at ``end``, or fill it up to there with zeros."""
        content = self._content
        content.room = 0
        self._storage.claim(end - len(content.written))
        content.reaches = min(content.reaches, end)
        del content.written[end:]
        content.written += bytes(end - len(content.written))

    def close(self) -> None:
        """Do nothing."""


class _MemoryLock:
    def __init__(self, storage: "MemoryStorage") -> None:
        self._storage = storage

    def close(self) -> None:
        self._storage.locked = False


class MemoryStorage:
    """Named files in memory. ``capacity`` is the most bytes they may have, None for no limit."""

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.locked = False
        self._files: dict[str, _Content] = {}

    def claim(self, size: int) -> None:
        """Raise OSError (ENOSPC) if ``size`` more bytes do not fit."""
        if self.capacity is None or size <= 0:
            return
        if size > self.capacity - sum(content.space for content in self._files.values()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def crashed(self) -> Self:
        """Return the storage that a power cut at this moment would leave. This one is unchanged."""
        left = type(self)(self.capacity)
        left._files = {name: _Content(content.synced) for name, content in self._files.items()}
        return left

    def lock(self) -> Lock:
        """Take the lock of this storage. Raises DirectoryLocked."""
        if self.locked:
            raise DirectoryLocked(self.where("lock"), "this one")
        self.locked = True
        return _MemoryLock(self)

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted."""
        return sorted(name for name in self._files if name.rpartition("/")[0] == folder)

    def open(self, name: str, *, write: bool = False) -> MemoryFile:
        """Open one file; with ``write``, create it if needed. Raises FileNotFoundError."""
        if name not in self._files:
            if not write:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            self._files[name] = _Content()
        return MemoryFile(self, self._files[name])

    def size(self, name: str) -> int:
        """Return how many bytes the file has. Raises FileNotFoundError."""
        return self.open(name).end

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises FileNotFoundError."""
        return bytes(self.open(name)._content.written)

    def replace(self, name: str, data: bytes) -> None:
        """Replace the file's content durably. Raises OSError (ENOSPC)."""
        self.claim(len(data))  # the old and the new content exist together for a moment
        self._files[name] = _Content(data)

    def remove(self, name: str) -> None:
        """Remove the file if it exists."""
        self._files.pop(name, None)

    def where(self, name: str) -> Path:
        """Return a path for messages that shows that the file is in memory."""
        return Path("memory:") / name
