"""Storage of the log: the interface, and its implementation on local files.

A storage holds named files that grow at their end, and small files that are replaced whole. The log
needs nothing else, so that a replicated log could be used in place. tests/test_storage_contract.py
is the contract that every implementation passes: local files here, ``exchange.journal.memory``, and
the simulation's wrappers.

Failures are OSErrors with an errno, which the caller translates. Nothing here retries.
"""

import errno
import fcntl
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final, Protocol

from exchange.journal.errors import DirectoryLocked, ReadOnlyDirectory

LOCK_NAME: Final = "lock"
NEW_SUFFIX: Final = ".new"  # of a file being replaced; ``list`` leaves such names out
_OWN_BYTES: Final = 4  # random bytes in such a file's name
_LEFT: Final = re.compile(rf".+\.[0-9a-f]{{{2 * _OWN_BYTES}}}\{NEW_SUFFIX}")
_READ_ONLY: Final = (errno.EROFS, errno.EACCES, errno.EPERM)
_ZEROS: Final = bytes(1 << 16)


class Lock(Protocol):
    """The exclusive right to write, until closed or the process ends."""

    def close(self) -> None:
        """Release the lock."""


class File(Protocol):
    """One file that grows at its end. One writer; any number of readers, each with its own
    ``File``.

    ``sync`` may be called from another thread while the owner appends, reserves or syncs.
    """

    @property
    def end(self) -> int:
        """Where the next ``append`` goes, in bytes from the start."""

    @property
    def room(self) -> int:
        """Bytes reserved behind ``end``: an append within them needs no allocation."""

    @property
    def handle(self) -> int:
        """A descriptor whose ``fdatasync`` is all that ``sync`` would do now; -1 if there is
        none."""

    def append(self, data: bytes) -> None:
        """Write all of ``data`` at the end, or none of it.

        On an OSError ``end`` and ``room`` are unchanged, and the next append goes to the same
        place. Not durable before a ``sync``.
        """

    def reserve(self, room: int) -> None:
        """Have at least ``room`` bytes reserved. On an OSError (ENOSPC, EDQUOT) nothing has
        changed.

        Reserved bytes not yet written read as zeros or as the end of the file.
        """

    def sync(self) -> None:
        """Make every append and truncation before the call durable.

        After an OSError it is unknown what is durable, and a second sync may succeed falsely: the
        owner must stop.
        """

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer from ``offset`` on; return the number of bytes, 0 past the end."""

    def truncate(self, end: int) -> None:
        """Drop what lies at and behind ``end``, the reserve included. Durable after a ``sync``."""

    def renew(self, offset: int) -> None:
        """Have the next ``sync`` write the bytes from ``offset`` to the end again.

        After a failed sync the kernel may show readers bytes that it considers written although
        they never reached the disk; a later sync is only worth something if they are written again.
        """

    def close(self) -> None:
        """Close the file. Makes nothing durable. May be repeated."""


class Storage(Protocol):
    """Named files. A name is ``file`` or ``folder/file``, in ASCII."""

    def lock(self) -> Lock:
        """Take the exclusive right to write. Raises DirectoryLocked, ReadOnlyDirectory."""

    def list(self, folder: str) -> list[str]:
        """Return the names (``folder/file``) in a folder, sorted; empty if there is no such
        folder."""

    def open(self, name: str, *, write: bool = False) -> File:
        """Open a file; with ``write``, create it if needed and make its name durable.

        The end of a file just opened may lie behind its content, by zeros that an earlier writer
        had reserved: truncate it to where the content ends. Without ``write`` raises
        FileNotFoundError; on another OSError an empty file of a new name may remain.
        """

    def size(self, name: str) -> int:
        """Bytes that a reader may find, reserved ones included. Raises FileNotFoundError."""

    def read(self, name: str) -> bytes:
        """Return a whole small file. Raises FileNotFoundError."""

    def replace(self, name: str, data: bytes) -> None:
        """Make ``data`` the whole of that file, durably, or leave the old one: never a mixture."""

    def remove(self, name: str) -> None:
        """Remove a file durably; readers that have it open may go on. No error if it is gone."""

    def where(self, name: str) -> Path:
        """Return a path of the file for messages."""


def read_whole(file: File, size: int, offset: int = 0) -> bytes:
    """Return ``size`` bytes from ``offset`` on, fewer where the file ends."""
    buffer = bytearray(size)
    view, done = memoryview(buffer), 0
    while done < size and (found := file.read_into(offset + done, view[done:])):
        done += found
    return bytes(view[:done])


def only_zeros(file: File, offset: int) -> bool:
    """Whether there is nothing but zeros from ``offset`` to the end."""
    buffer = bytearray(len(_ZEROS))
    view = memoryview(buffer)
    while found := file.read_into(offset, view):
        if buffer != _ZEROS and bytes(view[:found]).strip(b"\0"):
            return False
        offset += found
    return True


class DirectoryLock:
    """The exclusive right to write to a market's directory, until closed or the process ends."""

    def __init__(self, directory: Path) -> None:
        """Take the lock, creating the directory. Raises DirectoryLocked, ReadOnlyDirectory,
        OSError."""
        path = directory / LOCK_NAME
        try:
            make_directory(directory)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno in _READ_ONLY:
                raise ReadOnlyDirectory(directory, error) from error
            raise
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise DirectoryLocked(path, holder) from error
        os.ftruncate(self._handle, 0)
        try:
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # the process id is a hint only; a full disk may still be opened
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                os.close(self._handle)
                raise

    def close(self) -> None:
        """Release the lock."""
        os.close(self._handle)


class LocalFile:
    """A file of the local file system; the reserve is allocated with ``posix_fallocate``."""

    def __init__(self, path: Path, *, write: bool) -> None:
        """Open for reading, or for both; ``LocalStorage.open`` makes the name durable."""
        flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
        self._handle = os.open(path, flags | os.O_CLOEXEC, 0o644)
        self._write = write
        self._end = self._allocated = os.fstat(self._handle).st_size
        # Truncated since the last sync. True at first: what was found may never have been synced.
        self._cut = True
        self._closed = False

    @property
    def end(self) -> int:
        """Where the next append goes."""
        return self._end

    @property
    def room(self) -> int:
        """Allocated bytes behind the end."""
        return max(0, self._allocated - self._end)

    @property
    def handle(self) -> int:
        """The file's descriptor; -1 if the next sync must be a full fsync."""
        return -1 if self._cut else self._handle

    def append(self, data: bytes) -> None:
        """Write at the end: usually one system call; a loop, since a write may be short."""
        rest, at = memoryview(data), self._end
        try:
            while rest:
                size = self._pwrite(rest, at)
                rest, at = rest[size:], at + size
        except OSError:
            self._roll_back(at)
            raise
        self._end = at
        self._allocated = max(self._allocated, at)

    def _pwrite(self, data: memoryview, at: int) -> int:
        return os.pwrite(self._handle, data, at)

    def _roll_back(self, reached: int) -> None:
        """Undo a partial append: zeros where space was reserved, else cut it off."""
        try:
            os.ftruncate(self._handle, self._allocated)
            at, stop = self._end, min(reached, self._allocated)
            while at < stop:
                at += os.pwrite(self._handle, _ZEROS[: stop - at], at)
        except OSError as error:  # the disk then holds something else than is recorded here
            raise OSError(errno.EIO, f"a failed write cannot be taken back ({error})") from error

    def reserve(self, room: int) -> None:
        """Allocate ahead, so that a sync has neither a new size to write nor space to find."""
        wanted = self._end + room
        if wanted <= self._allocated:
            return
        try:
            os.posix_fallocate(self._handle, self._allocated, wanted - self._allocated)
        except OSError:
            os.ftruncate(self._handle, self._allocated)  # a part of it may have been allocated
            raise
        self._allocated = wanted

    def sync(self) -> None:
        """fdatasync; fsync if the file was truncated since the last sync, or was just opened."""
        cut, self._cut = self._cut, False
        (os.fsync if cut else os.fdatasync)(self._handle)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read with ``preadv``."""
        return os.preadv(self._handle, [buffer], offset)

    def truncate(self, end: int) -> None:
        """Cut the file. Nothing is done, and no fsync is needed, if it has that length already."""
        if self._allocated != end:
            os.ftruncate(self._handle, end)
            self._cut = True
        self._end = self._allocated = end

    def renew(self, offset: int) -> None:
        """Write the same bytes to the same place: a crash meanwhile changes nothing."""
        rest = memoryview(read_whole(self, self._end - offset, offset))
        while rest:
            rest = rest[os.pwrite(self._handle, rest, self._end - len(rest)) :]

    def close(self) -> None:
        """Close the descriptor."""
        if not self._closed:
            os.close(self._handle)
        self._closed = True


class LocalStorage:
    """Files under one directory of the local file system."""

    def __init__(self, directory: Path) -> None:
        """Name the directory; it is created by the first ``lock`` or write."""
        self.directory = directory

    def lock(self) -> Lock:
        """Take DIR/lock with ``flock``."""
        return DirectoryLock(self.directory)

    def list(self, folder: str) -> list[str]:
        """Return the regular files of a folder."""
        try:
            with os.scandir(self.directory / folder) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
        except FileNotFoundError:
            return []
        return [f"{folder}/{name}" for name in sorted(names) if not name.endswith(NEW_SUFFIX)]

    def open(self, name: str, *, write: bool = False) -> LocalFile:
        """Open one file; with ``write``, sync its folder so that the name is durable."""
        path = self.directory / name
        if not write:
            return LocalFile(path, write=False)
        make_directory(path.parent)
        file = LocalFile(path, write=True)
        try:
            sync_directory(path.parent)
        except OSError:
            file.close()
            raise
        return file

    def size(self, name: str) -> int:
        """Return the size that the file system states."""
        found = os.stat(self.directory / name)
        assert stat.S_ISREG(found.st_mode)
        return found.st_size

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return (self.directory / name).read_bytes()

    def replace(self, name: str, data: bytes) -> None:
        """Write a new file beside it, sync, rename, sync the folder."""
        path = self.directory / name
        make_directory(path.parent)
        replace_file(path, data)

    def remove(self, name: str) -> None:
        """Unlink and sync the folder."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_directory(path.parent)

    def where(self, name: str) -> Path:
        """Return the file's path."""
        return self.directory / name


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Make ``data`` the whole of a file, durably, or leave the old one: never a mixture.

    The file has ``mode``, less the umask, from the start. Temporary files that killed processes
    left in the folder are removed. Raises OSError, which names the file.
    """
    _sweep(path.parent)
    beside, handle = _new_beside(path, mode)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.rename(beside, path)  # while the lock on it is held
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.errno:  # an error of a write names no file
            error.filename = error.filename or str(path)
        raise
    sync_directory(path.parent)


def _new_beside(path: Path, mode: int) -> tuple[Path, int]:
    """Create an empty file of a random name, since two processes may replace the same file at once,
    and lock it, so that ``_sweep`` does not remove it."""
    while True:
        beside = path.with_name(f"{path.name}.{token_hex(_OWN_BYTES)}{NEW_SUFFIX}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        handle = os.open(beside, flags, mode)
        with suppress(OSError):  # on a file system without locks nobody can sweep either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return beside, handle
        os.close(handle)  # swept away before it was locked


def _sweep(folder: Path) -> None:
    """Remove the temporary files of a folder that nobody has locked: their writer was killed.

    A locked one, another user's, or one that cannot be opened, stays.
    """
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if _LEFT.fullmatch(entry.name)]
    for name in left:
        with suppress(OSError), open(name, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name)


def make_directory(directory: Path) -> None:
    """Create a directory and its missing parents, accessible to the owner only, and make their
    names durable."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for one in reversed(missing):
        one.mkdir(0o700, exist_ok=True)
        sync_directory(one.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
