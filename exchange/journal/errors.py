"""Every error of the journal. None of them is swallowed anywhere."""

import errno
from pathlib import Path
from typing import Final

_OUT_OF_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_RIGHT: Final = (errno.EACCES, errno.EPERM)


class JournalError(Exception):
    """Base of all errors of the journal."""


class DirectoryLocked(JournalError):
    """Another writer holds the directory."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(
            f"{path} is held by another writer (process {holder or 'unknown'}): send your request "
            "to it, or stop it first"
        )
        self.path = path
        self.holder = holder


class ReadOnlyDirectory(JournalError):
    """This process has no right to write to the directory."""

    def __init__(self, directory: Path, error: OSError) -> None:
        super().__init__(
            f"{directory} cannot be written to ({error.strerror}): remount it for writing or give "
            "this user the right; `hourbook replay` needs to read only"
        )
        self.directory = directory


class DamagedLog(JournalError):
    """The log is not what was made durable: it must be restored, not repaired.

    ``offset`` is the byte in ``path`` where the first bad frame starts (or should start),
    ``sequence`` the first sequence that cannot be read, ``expected`` and ``found`` the values
    compared (hashes in hex where the failed check is one). The text ends with ``advice``: what to
    do.
    """

    advice = "restore the log from a copy; never cut it by hand"

    def __init__(
        self, path: Path, offset: int, sequence: int, what: str, expected: str, found: str
    ) -> None:
        super().__init__(
            f"{path} at byte {offset}, sequence {sequence}: {what}: "
            f"expected {expected}, found {found}: {self.advice}"
        )
        self.path = path
        self.offset = offset
        self.sequence = sequence
        self.what = what
        self.expected = expected
        self.found = found


class BrokenChain(DamagedLog):
    """A frame that is whole but does not follow the one before it.

    No crash leaves this: frames were removed, repeated, swapped or copied from another log.
    """


class WrongExchange(BrokenChain):
    """The frame belongs to another exchange."""

    advice = "name the right directory, or put back its own exchange.id or log"


class MissingSegment(DamagedLog):
    """A segment is missing, or ends before the next one begins."""

    advice = "put the segment back from the archive or a copy"


class BadPart(JournalError):
    """Texts or notes of a frame or of a record are not what its format says, though the whole has
    the right checksum, or has none."""

    def __init__(self, what: str, why: Exception) -> None:
        super().__init__(
            f"the {what} of a batch cannot be read ({why}): the log or the released stream was not"
            " written so: restore it from a copy"
        )


class NewerVersion(JournalError):
    """A file was written by a later build than this one."""

    def __init__(self, path: Path, offset: int, what: str, known: int, found: int) -> None:
        super().__init__(
            f"{path} at byte {offset}: {what} version {found} is newer than this build's {known}: "
            "use the build that wrote it, or a later one"
        )
        self.path = path
        self.offset = offset
        self.what = what
        self.known = known
        self.found = found


class DamagedHead(JournalError):
    """DIR/head cannot be read."""


class Diverged(JournalError):
    """Replay gave other events or another state than the log recorded.

    ``first_sequence`` and ``last_sequence`` are those of the batch where it happened; ``what``
    is ``events`` or ``state``.
    """

    def __init__(self, what: str, first: int, last: int, expected: bytes, found: bytes) -> None:
        super().__init__(
            f"replay diverged in the batch of sequences {first} to {last}: {what} hash "
            f"{found.hex()}, recorded {expected.hex()}"
        )
        self.what = what
        self.first_sequence = first
        self.last_sequence = last
        self.expected = expected
        self.found = found


class NotReproduced(JournalError):
    """This build computes another history than the log's: it can neither go on with it nor answer
    a question about it."""

    def __init__(self, directory: Path, diverged: Diverged) -> None:
        super().__init__(
            f"{diverged}; `hourbook replay {directory} --verify` says where and why; the build that"
            " wrote the log can use it"
        )


class JournalStopped(JournalError):
    """Fatal: what is durable is no longer known. Stop the process and recover."""


class SyncFailed(JournalStopped):
    """The disk reported a failed sync. It is not retried: a second sync could report success
    falsely."""


class DiskFull(JournalError):
    """No space is left. Nothing was written, and what was written before is unchanged."""


class WriteFailed(JournalStopped):
    """A write failed for another reason than missing space."""


def out_of_space(error: OSError) -> bool:
    """Whether the error is missing space, so that a later try may succeed."""
    return error.errno in _OUT_OF_SPACE


def write_failure(error: OSError, what: str) -> JournalError:
    """Return the journal's error for a failed write: DiskFull or WriteFailed."""
    why = error.strerror or str(error)
    if out_of_space(error):
        return DiskFull(f"{what}: {why}: free some space")
    todo = "give this user the right" if error.errno in _NO_RIGHT else "mend the disk"
    return WriteFailed(f"{what}: {why}: {todo}, then start again")


class NoSuchPosition(JournalError):
    """The resume point is not an event of this stream."""

    def __init__(self, position: tuple[int, int, int], why: str) -> None:
        epoch, sequence, index = position
        super().__init__(f"no event at epoch {epoch}, sequence {sequence}, index {index}: {why}")
        self.position = position
