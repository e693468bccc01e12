"""A simulated disk that loses what was not synced, and fails as its seed decides.

A file has two contents: what a reader sees now (the page cache), and what would be there after a
power cut. They differ by the writes since the last sync. A killed process leaves the first; a power
cut leaves the second, plus any subset of the sectors written since. A failed sync leaves its writes
in the first content only, and later syncs do not write them again.

A sector of the log that is written to a wrong place in its file damages two places: an older,
durable one, and its own. On a single disk such a loss can only be detected at the next read; the
bytes are put back from a copy (``restore``). Faults of reads are drawn from the place read and not
from the time, since a replay reads in threads.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from exchange.journal.errors import DirectoryLocked
from exchange.sim.loop import PROCESS, Killed, Process

SECTOR_BYTES: Final = 512
LOG_FOLDER: Final = "log/"
PROOF_SYNCS: Final = 4  # the durable mark of a sync is in the second frame after its own


class DiskFaults(msgspec.Struct, frozen=True):
    """Probabilities per operation, in parts per million."""

    write_ppm: int = 0  # an append fails
    sync_ppm: int = 0  # a sync fails
    read_ppm: int = 0  # a read of the log during a start fails
    misdirect_ppm: int = 0  # such a read returns the bytes of another place in the file
    astray_ppm: int = 0  # a sector of an append to the log is written to a wrong place
    torn_percent: int = 90  # share of unsynced sectors that a power cut loses


class _Write(msgspec.Struct, frozen=True):
    """A change of a file since its last sync: bytes written (empty: zeros up to there), or, with
    None, its truncation."""

    offset: int
    data: bytes | None


class _Astray(msgspec.Struct):
    """A misplaced sector of the log; it is applied once later frames prove that it is missing."""

    content: "_Content"
    offset: int
    size: int
    original: list[_Write] = []  # the former bytes of both places; empty until it is applied


class _Content(msgspec.Struct):
    """One file: both its faces."""

    seen: bytearray
    safe: bytearray
    dirty: list[_Write] = []
    end: int = 0  # end of what was appended; reserved space lies behind
    synced_ends: list[int] = []  # the file's end at the last successful syncs

    @property
    def proven(self) -> int:
        """The offset up to which later frames prove that something is missing. A loss at the very
        end of a log on a single disk cannot be told from a log that was cut off there."""
        return self.synced_ends[0] if len(self.synced_ends) == PROOF_SYNCS else 0


class SimDisk:
    """``exchange.journal.storage.Storage`` for one simulated host."""

    def __init__(self, random: Random) -> None:
        self.faults = DiskFaults()
        self.operations = 0  # operations that changed something
        self.crash_in = 0  # operations until one kills its process midway; 0: never
        self.is_full = False
        self.starts = 0
        self.trouble: dict[str, int] = {}  # faults that occurred, by name
        self.on_death: Callable[[str], None] = lambda why: None
        self._random = random
        self._salt = random.getrandbits(32)
        self._files: dict[str, _Content] = {}
        self._holder: Process | None = None
        self._astray: list[_Astray] = []

    # Faults

    def count(self, name: str) -> None:
        """Count a fault that occurred."""
        self.trouble[name] = self.trouble.get(name, 0) + 1

    def chance(self, ppm: int) -> bool:
        """Draw whether an event of this probability occurs."""
        return ppm > 0 and self._random.randrange(1_000_000) < ppm

    def begin(self) -> bool:
        """Begin a changing operation; return whether it is the one that kills its process.

        Raises Killed in a process that is dead already.
        """
        process = PROCESS.get()
        if process is not None and not process.alive:
            raise Killed
        self.operations += 1
        if self.crash_in > 0:
            self.crash_in -= 1
            return self.crash_in == 0
        return False

    def die(self) -> Killed:
        """Kill the process in the middle of an operation; return the exception to raise."""
        self.on_death("killed in the middle of a disk operation")
        return Killed()

    def power_cut(self) -> None:
        """Lose what was not synced, except for a random choice of sectors."""
        for content in self._files.values():
            self._tear(content)
            content.dirty = []
            content.seen = bytearray(content.safe)
            content.end = len(content.seen)

    def _tear(self, content: _Content) -> None:
        """Make a random choice of the unsynced sectors durable."""
        torn = self.faults.torn_percent
        for write in content.dirty:
            if write.data is None:
                if self._random.randrange(100) >= torn:
                    del content.safe[write.offset :]
                continue
            at, stop = write.offset, write.offset + len(write.data)
            if at == stop and self._random.randrange(100) >= torn:
                put(content.safe, at, b"")
            while at < stop:
                following = min(stop, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
                if self._random.randrange(100) >= torn:
                    part = write.data[at - write.offset : following - write.offset]
                    put(content.safe, at, part)
                at = following

    def misplace(self, content: _Content, offset: int, size: int) -> None:
        """Choose a random sector of that append to be misplaced."""
        sector = self._random.randrange(-(-size // SECTOR_BYTES)) * SECTOR_BYTES
        part = min(size - sector, SECTOR_BYTES)
        self._astray.append(_Astray(content, offset + sector, part))

    def show_astray(self, content: _Content) -> None:
        """Apply the misplaced sectors that later frames prove to be missing."""
        proven = content.proven
        for one in self._astray:
            stop = one.offset + one.size
            if one.content is not content or one.original or stop > proven or one.offset == 0:
                continue
            wrong = self._random.randrange(one.offset)
            data = bytes(content.seen[one.offset : stop])
            size = min(one.size, one.offset - wrong)
            for at, new in ((wrong, data[:size]), (one.offset, bytes(one.size))):
                old = bytes(content.seen[at : at + len(new)])
                one.original.append(_Write(at, old))
                put(content.seen, at, new)
                put(content.safe, at, new)
            self.count("write went astray")

    @property
    def damaged(self) -> bool:
        """Whether a misplaced sector has been applied."""
        return any(one.original for one in self._astray)

    def restore(self) -> None:
        """Put back the bytes that misplaced sectors destroyed, as from a copy on a standby's
        disk."""
        for one in reversed(self._astray):
            for write in reversed(one.original):
                assert write.data is not None
                put(one.content.seen, write.offset, write.data)
                put(one.content.safe, write.offset, write.data)
        self.count("log restored")
        self._astray = [one for one in self._astray if not one.original]

    def settle(self) -> None:
        """Clean up after the process ended: release its lock; reserved space remains as zeros."""
        self._holder = None
        self.starts += 1
        self.crash_in = 0
        self._astray = [one for one in self._astray if one.original]
        for content in self._files.values():
            content.end = len(content.seen)

    def heal(self) -> None:
        """Stop all faults."""
        self.faults = DiskFaults(torn_percent=self.faults.torn_percent)
        self.is_full = False
        self.crash_in = 0

    def everything(self) -> dict[str, bytes]:
        """Return every file as a reader sees it."""
        return {name: bytes(content.seen) for name, content in sorted(self._files.items())}

    # Storage

    def lock(self) -> "_Lock":
        """Take the exclusive right to write. Raises DirectoryLocked."""
        self.begin()
        if self._holder is not None and self._holder.alive:
            raise DirectoryLocked(self.where("lock"), self._holder.name)
        self._holder = PROCESS.get() or Process("a process that is not simulated")
        return _Lock(self)

    def unlock(self) -> None:
        """Release the lock."""
        self._holder = None

    def list(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted."""
        return sorted(name for name in self._files if name.startswith(f"{folder}/"))

    def open(self, name: str, *, write: bool = False) -> "SimFile":
        """Open one file; a new name is durable at once."""
        content = self._files.get(name)
        if content is None:
            if not write:
                raise FileNotFoundError(errno.ENOENT, "no such file", name)
            if self.begin():
                if self._random.randrange(2):
                    self._files[name] = _Content(bytearray(), bytearray())
                raise self.die()
            if self.is_full:
                raise self._no_space()
            content = self._files[name] = _Content(bytearray(), bytearray())
        return SimFile(self, name, content)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes, reserved space included."""
        return len(self._get(name).seen)

    def read(self, name: str) -> bytes:
        """Return a whole small file."""
        return bytes(self._get(name).seen)

    def replace(self, name: str, data: bytes) -> None:
        """Make ``data`` the whole of a file, durably; a crash leaves the old one or the new."""
        dying = self.begin()
        if self.is_full:
            raise self._no_space()
        if not dying and self.chance(self.faults.write_ppm):
            self.count("replacing failed")
            raise OSError(errno.EIO, "the disk failed", name)
        if not dying or self._random.randrange(2):
            self._files[name] = _Content(bytearray(data), bytearray(data), end=len(data))
        if dying:
            raise self.die()

    def remove(self, name: str) -> None:
        """Remove a file durably."""
        dying = self.begin()
        if not dying or self._random.randrange(2):
            self._files.pop(name, None)
        if dying:
            raise self.die()

    def where(self, name: str) -> Path:
        """Return a path for messages."""
        return Path("simulated", name)

    def _get(self, name: str) -> _Content:
        try:
            return self._files[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file", name) from None

    def _no_space(self) -> OSError:
        self.count("disk full")
        return OSError(errno.ENOSPC, "no space left")

    def read_fault(self, name: str, content: _Content, offset: int, size: int) -> int:
        """Return the offset that a read of the log really reads; raises OSError. A pure
        function."""
        faults = self.faults
        if not (faults.read_ppm or faults.misdirect_ppm) or not name.startswith(LOG_FOLDER):
            return offset
        drawn = Random(f"{self._salt}/{self.starts}/{name}/{offset}/{size}")
        if drawn.randrange(1_000_000) < faults.read_ppm:
            raise OSError(errno.EIO, "the disk failed", name)
        proven = content.proven
        if offset + SECTOR_BYTES < proven and drawn.randrange(1_000_000) < faults.misdirect_ppm:
            return drawn.randrange(proven - SECTOR_BYTES)
        return offset


def put(into: bytearray, offset: int, data: bytes) -> None:
    """Write into a file's bytes; a gap before them is filled with zeros."""
    if len(into) < offset:
        into.extend(bytes(offset - len(into)))
    into[offset : offset + len(data)] = data


class _Lock:
    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk

    def close(self) -> None:
        """Release the lock."""
        self._disk.unlock()


class SimFile:
    """``exchange.journal.storage.File``: one open file."""

    def __init__(self, disk: SimDisk, name: str, content: _Content) -> None:
        self._disk, self._name, self._content = disk, name, content

    @property
    def end(self) -> int:
        """Where the next append goes."""
        return self._content.end

    @property
    def room(self) -> int:
        """Reserved bytes behind the end."""
        return max(0, len(self._content.seen) - self._content.end)

    @property
    def handle(self) -> int:
        """Always -1: there is no file descriptor."""
        return -1

    def append(self, data: bytes) -> None:
        """Write at the end, all of it or, on an OSError, nothing."""
        disk, content = self._disk, self._content
        at = content.end
        if disk.begin():
            self._write(at, data[: disk._random.randrange(len(data) + 1)])
            raise disk.die()
        if disk.is_full and len(data) > self.room:
            raise disk._no_space()
        if disk.chance(disk.faults.write_ppm):
            disk.count("append failed")
            raise OSError(errno.EIO, "the disk failed", self._name)
        self._write(at, bytes(data))
        if self._name.startswith(LOG_FOLDER) and data and disk.chance(disk.faults.astray_ppm):
            disk.misplace(content, at, len(data))

    def _write(self, at: int, data: bytes) -> None:
        content = self._content
        put(content.seen, at, data)
        content.dirty.append(_Write(at, data))
        content.end = at + len(data)

    def reserve(self, room: int) -> None:
        """Reserve at least ``room`` bytes, as zeros."""
        content = self._content
        missing = content.end + room - len(content.seen)
        if missing <= 0:
            return
        if self._disk.begin():
            raise self._disk.die()
        if self._disk.is_full:
            raise self._disk._no_space()
        content.seen.extend(bytes(missing))
        content.dirty.append(_Write(len(content.seen), b""))

    def sync(self) -> None:
        """Make durable what was written; what a failed sync covered is never written again."""
        disk, content = self._disk, self._content
        if disk.begin():
            disk._tear(content)
            raise disk.die()
        if disk.chance(disk.faults.sync_ppm):
            disk.count("sync failed")
            content.dirty = []
            raise OSError(errno.EIO, "the disk failed", self._name)
        for write in content.dirty:
            if write.data is None:
                del content.safe[write.offset :]
            else:
                put(content.safe, write.offset, write.data)
        content.dirty = []
        content.synced_ends = [*content.synced_ends[1 - PROOF_SYNCS :], content.end]
        disk.show_astray(content)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer; return the number of bytes, fewer at the end of the file."""
        content = self._content
        found = content.seen[offset : offset + len(buffer)]
        real = self._disk.read_fault(self._name, content, offset, len(buffer))
        if real != offset:
            wrong = content.seen[real : real + SECTOR_BYTES]
            put(found, 0, bytes(wrong[: len(found)]))
        buffer[: len(found)] = found
        return len(found)

    def truncate(self, end: int) -> None:
        """Drop what lies at and behind ``end``."""
        content = self._content
        if self._disk.begin():
            raise self._disk.die()
        del content.seen[end:]
        content.dirty.append(_Write(end, None))
        content.end = end

    def renew(self, offset: int) -> None:
        """Write the same bytes to the same place."""
        content = self._content
        if self._disk.begin():
            raise self._disk.die()
        content.dirty.append(_Write(offset, bytes(content.seen[offset : content.end])))

    def close(self) -> None:
        """Do nothing."""
