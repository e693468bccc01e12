"""The storage engine in memory: the promises of local files, and a power cut to be asked for.

For simulations and tests. ``crashed`` gives what a power cut would leave: what was synced, and no
more; ``capacity`` is a disk that can be full.
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
        self.reaches = len(data)  # ``written`` begins with this many bytes of ``synced``

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
        """None."""
        return -1

    def append(self, data: bytes) -> None:
        """Append, all or nothing."""
        content = self._content
        left = max(0, content.room - len(data))
        self._storage.claim(len(data) + left - content.room)
        content.written += data
        content.room = left

    def reserve(self, room: int) -> None:
        """Reserve, all or nothing."""
        if room > self._content.room:
            self._storage.claim(room - self._content.room)
            self._content.room = room

    def sync(self) -> None:
        """Let what was written survive a crash."""
        self._content.sync()

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Copy what there is."""
        found = bytes(self._content.written[offset : offset + len(buffer)])
        buffer[: len(found)] = found
        return len(found)

    def renew(self, offset: int) -> None:
        """Nothing to do: a sync here takes all that was written."""

    def truncate(self, end: int) -> None:
        """Cut, or fill up with zeros."""
        content = self._content
        content.room = 0
        self._storage.claim(end - len(content.written))
        content.reaches = min(content.reaches, end)
        del content.written[end:]
        content.written += bytes(end - len(content.written))

    def close(self) -> None:
        """Nothing to let go of."""


class _MemoryLock:
    def __init__(self, storage: "MemoryStorage") -> None:
        self._storage = storage

    def close(self) -> None:
        self._storage.locked = False


class MemoryStorage:
    """Named files in memory. ``capacity`` bytes at most, None for no bound."""

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.locked = False
        self._files: dict[str, _Content] = {}

    def claim(self, size: int) -> None:
        """Raise ENOSPC if ``size`` more bytes do not fit."""
        if self.capacity is None or size <= 0:
            return
        if size > self.capacity - sum(content.space for content in self._files.values()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def crashed(self) -> Self:
        """Return what a power cut at this moment would leave. This one stays as it is."""
        left = type(self)(self.capacity)
        left._files = {name: _Content(content.synced) for name, content in self._files.items()}
        return left

    def lock(self) -> Lock:
        """Take the lock of this storage."""
        if self.locked:
            raise DirectoryLocked(self.where("lock"), "this one")
        self.locked = True
        return _MemoryLock(self)

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        return sorted(name for name in self._files if name.rpartition("/")[0] == folder)

    def open(self, name: str, *, write: bool = False) -> MemoryFile:
        """Open one file."""
        if name not in self._files:
            if not write:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            self._files[name] = _Content()
        return MemoryFile(self, self._files[name])

    def size(self, name: str) -> int:
        """Return how many bytes were written."""
        return self.open(name).end

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        return bytes(self.open(name)._content.written)

    def replace(self, name: str, data: bytes) -> None:
        """Put another file under the name."""
        self.claim(len(data))  # both stand beside each other for a moment
        self._files[name] = _Content(data)

    def remove(self, name: str) -> None:
        """Forget the name."""
        self._files.pop(name, None)

    def where(self, name: str) -> Path:
        """Return a path that says it is none."""
        return Path("memory:") / name
