"""What the log asks of a place to keep it: the interface, and the engine on local files.

An engine holds named files that grow at their end, and small ones that are replaced whole. The log
needs nothing else, so that a replicated log can stand in one day. tests/test_storage_contract.py is
the contract; every engine passes it: local files here, ``exchange.journal.memory``, and whatever a
simulation puts around either.

Failures are OSErrors with an errno; the caller names them. What each call promises stands at the
protocol. Nothing here retries.
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
NEW_SUFFIX: Final = ".new"  # of a file being replaced: none of ``list``'s business
_OWN_BYTES: Final = 4  # of a new file's name of its own
_LEFT: Final = re.compile(rf".+\.[0-9a-f]{{{2 * _OWN_BYTES}}}\{NEW_SUFFIX}")
_READ_ONLY: Final = (errno.EROFS, errno.EACCES, errno.EPERM)
_ZEROS: Final = bytes(1 << 16)


class Lock(Protocol):
    """The right to write, until closed or the process ends."""

    def close(self) -> None:
        """Let others write."""


class File(Protocol):
    """One file that grows at its end. One writer; any number of readers, each its own ``File``.

    ``sync`` may be called from another thread, while the owner appends, reserves or syncs.
    """

    @property
    def end(self) -> int:
        """Where the next ``append`` goes, in bytes from the start."""

    @property
    def room(self) -> int:
        """Bytes behind ``end`` that an append may fill without asking for space."""

    @property
    def handle(self) -> int:
        """A descriptor whose ``fdatasync`` is all that ``sync`` would do now; -1 if none is."""

    def append(self, data: bytes) -> None:
        """Write all of ``data`` at the end. On an OSError none of it: ``end`` and ``room`` stay,
        and the next append goes to the same place. Not durable before a ``sync``.
        """

    def reserve(self, room: int) -> None:
        """Have at least that much room. On an OSError (ENOSPC, EDQUOT) nothing has changed.

        What is reserved and not written reads as zeros or as the end of the file.
        """

    def sync(self) -> None:
        """Make durable what was appended, and every truncation, before the call began.

        After an OSError nobody knows what is durable, and a second sync may succeed falsely: the
        owner must stop.
        """

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer from ``offset`` on; return how many bytes there were, 0 past the end."""

    def truncate(self, end: int) -> None:
        """Forget what lies at and behind ``end``, the room too. Durable after a ``sync``."""

    def renew(self, offset: int) -> None:
        """Have the next ``sync`` write again what stands from ``offset`` to the end.

        After a sync that failed the system may hold bytes that it shows to every reader and calls
        written; only writing them once more makes another sync worth anything.
        """

    def close(self) -> None:
        """Let the file go. Says nothing about what is durable. May be repeated."""


class Storage(Protocol):
    """Named files. A name is ``file`` or ``folder/file``, in ASCII."""

    def lock(self) -> Lock:
        """Take the only right to write. Raises DirectoryLocked, ReadOnlyDirectory."""

    def list(self, folder: str) -> list[str]:
        """Return the names (``folder/file``) in a folder in text order; none if it is not there."""

    def open(self, name: str, *, write: bool = False) -> File:
        """Open a file; with ``write`` make it if need be, and its name is durable then.

        The end of a file just opened may lie behind what was appended to it, by the zeros that an
        earlier writer had reserved: truncate it to where its content ends. On another OSError a
        new name may be there, of an empty file. Raises FileNotFoundError without ``write``.
        """

    def size(self, name: str) -> int:
        """Bytes that a reader may find, a writer's room among them. Raises FileNotFoundError."""

    def read(self, name: str) -> bytes:
        """Return a whole small file. Raises FileNotFoundError."""

    def replace(self, name: str, data: bytes) -> None:
        """Make ``data`` the whole of that file, durably, or leave the old one: never a mixture."""

    def remove(self, name: str) -> None:
        """Remove a file durably; those who have it open may go on reading it. No error if gone."""

    def where(self, name: str) -> Path:
        """Return what people are told about the place of a file."""


def read_whole(file: File, size: int, offset: int = 0) -> bytes:
    """Return ``size`` bytes from ``offset`` on, fewer where the file ends."""
    buffer = bytearray(size)
    view, done = memoryview(buffer), 0
    while done < size and (found := file.read_into(offset + done, view[done:])):
        done += found
    return bytes(view[:done])


def only_zeros(file: File, offset: int) -> bool:
    """Whether nothing but zeros lies behind ``offset``."""
    buffer = bytearray(len(_ZEROS))
    view = memoryview(buffer)
    while found := file.read_into(offset, view):
        if buffer != _ZEROS and bytes(view[:found]).strip(b"\0"):
            return False
        offset += found
    return True


class DirectoryLock:
    """The right to write to a market's directory, until closed or the process ends."""

    def __init__(self, directory: Path) -> None:
        """Take the lock, creating the directory. Raises DirectoryLocked, ReadOnlyDirectory."""
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
        except OSError as error:  # who holds it is a courtesy; a full disk may still be opened
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                os.close(self._handle)
                raise

    def close(self) -> None:
        """Let others write."""
        os.close(self._handle)


class LocalFile:
    """A file of the local file system; room is allocated ahead with ``posix_fallocate``."""

    def __init__(self, path: Path, *, write: bool) -> None:
        """Open for reading, or for both; ``LocalStorage.open`` makes the name durable."""
        flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
        self._handle = os.open(path, flags | os.O_CLOEXEC, 0o644)
        self._write = write
        self._end = self._allocated = os.fstat(self._handle).st_size
        self._cut = True  # since the last sync: what was found may itself never have been synced
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
        """The file's own, unless the next sync has more to do."""
        return -1 if self._cut else self._handle

    def append(self, data: bytes) -> None:
        """Write at the end: one system call as a rule, a loop for the short ones it may make."""
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
        """Take a part of an append out again: zeros where room was reserved, else nothing."""
        try:
            os.ftruncate(self._handle, self._allocated)
            at, stop = self._end, min(reached, self._allocated)
            while at < stop:
                at += os.pwrite(self._handle, _ZEROS[: stop - at], at)
        except OSError as error:  # whatever it was: the disk holds something else than we believe
            raise OSError(errno.EIO, f"a failed write cannot be taken back ({error})") from error

    def reserve(self, room: int) -> None:
        """Allocate ahead, so that a sync has no size to write and no space to find."""
        wanted = self._end + room
        if wanted <= self._allocated:
            return
        try:
            os.posix_fallocate(self._handle, self._allocated, wanted - self._allocated)
        except OSError:
            os.ftruncate(self._handle, self._allocated)  # a part of it may have been found
            raise
        self._allocated = wanted

    def sync(self) -> None:
        """fdatasync; fsync where the file has shrunk, or was just opened."""
        cut, self._cut = self._cut, False
        (os.fsync if cut else os.fdatasync)(self._handle)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read with ``preadv``."""
        return os.preadv(self._handle, [buffer], offset)

    def truncate(self, end: int) -> None:
        """Cut the file; a file as long as that already keeps its bytes and its sync."""
        if self._allocated != end:
            os.ftruncate(self._handle, end)
            self._cut = True
        self._end = self._allocated = end

    def renew(self, offset: int) -> None:
        """Write the same bytes to the same place: a crash on the way changes nothing."""
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
        """Name the directory; nothing is made before the first ``lock`` or write."""
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
        """Open one file; a writer's name is synced with its folder."""
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
        """Write beside it, sync, rename, sync the folder."""
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

    The file has that mode, less the umask, from its first byte on. What a kill left of other new
    files in the folder goes. Raises OSError, which names the file.
    """
    _sweep(path.parent)
    beside, handle = _new_beside(path, mode)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.rename(beside, path)  # while it is held
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.errno:  # a write names no file
            error.filename = error.filename or str(path)
        raise
    sync_directory(path.parent)


def _new_beside(path: Path, mode: int) -> tuple[Path, int]:
    """Make an empty file of a name of its own, since two may write the same file at once; it is
    held, so that nobody sweeps it away."""
    while True:
        beside = path.with_name(f"{path.name}.{token_hex(_OWN_BYTES)}{NEW_SUFFIX}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        handle = os.open(beside, flags, mode)
        with suppress(OSError):  # where a file system has no locks, nobody can sweep either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return beside, handle
        os.close(handle)  # swept away before it was held


def _sweep(folder: Path) -> None:
    """Remove the new files of a folder that nobody holds: whoever wrote one was killed.

    One that is held, another user's, or cannot be looked at for any other reason, stays.
    """
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if _LEFT.fullmatch(entry.name)]
    for name in left:
        with suppress(OSError), open(name, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name)


def make_directory(directory: Path) -> None:
    """Make a directory and those above it that are missing, its owner's alone; the name of each is
    durable then."""
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
