"""Reading a log: all of it with every hash compared, or with stops at some sequences.

All functions use an engine of their own and change nothing on disk.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from exchange.engine import Engine
from exchange.journal.errors import Diverged, JournalError, NotReproduced
from exchange.journal.frame import Frame
from exchange.journal.heads import frames_known_of
from exchange.journal.places import NotInLog, find_time
from exchange.journal.point import Point
from exchange.journal.reader import LOG_NAME, LogReader, Tail
from exchange.journal.replay import Replayer
from exchange.journal.snapshots import recover
from exchange.journal.storage import LocalStorage
from exchange.messages import COMMAND_BYTES, CommandKind

NS: Final = 1_000_000_000
# A session without grace ends by a timer that is due at once, and fires with the next batch.
_TIMED: Final = frozenset({int(CommandKind.LOGOFF), int(CommandKind.RECOVERED)})
Progress = Callable[[int, int], None]
Take = Callable[[Frame, bytes], None]  # called with a frame and the events of its commands
Look = Callable[[Engine, int], None]  # called with the engine before that sequence and the sequence


class NoLog(JournalError):
    """The directory holds no log."""


def open_log(directory: Path) -> LogReader:
    """Return a reader of the log of a market's directory. Raises NoLog."""
    if not (directory / LOG_NAME).is_dir():
        raise NoLog(f"no log in {directory}; name a market's data directory")
    return LogReader(directory)


class Replayed(NamedTuple):
    """A finished replay: the engine at its end, and how it agreed with the log."""

    engine: Engine
    replayer: Replayer
    divergence: Diverged | None
    tail_dropped: Tail | None


def replay(
    directory: Path,
    take: Take | None = None,
    until: int | None = None,
    progress: Progress | None = None,
    *,
    from_snapshot: bool = False,
    heads: Path | None = None,
) -> Replayed:
    """Replay the log, or its commands up to ``until``, and compare every recorded hash.

    ``take`` is called with every batch and its events; a divergence may be found only after later
    batches were passed on as well. A divergence is returned; the reader's errors (DamagedLog,
    NewerVersion, ...) are raised, except those beyond ``until``.

    ``from_snapshot``: start from the newest usable snapshot, if there is one. ``heads``: a
    directory of signed heads, all of which the log must agree with.
    """
    reader, engine, point = open_log(directory), Engine(), Point()
    known = [] if heads is None else frames_known_of(directory, heads)
    if known:
        reader = LogReader(directory, known=known)
    if from_snapshot:
        found = recover(LocalStorage(directory), engine, until=until)
        reader = LogReader(directory, known=known, start=found.log_start)
        point = found.point
    replayer = Replayer(engine, reader, point)
    try:
        replayer.run(until=until, on_batch=take, progress=progress)
    except Diverged as diverged:
        return Replayed(engine, replayer, diverged, None)
    ended = until is None or reader.next_sequence <= until
    tail = reader.finish().tail_dropped if ended else None
    return Replayed(engine, replayer, None, tail)


def walk(
    directory: Path, take: Take, until: int | None = None, progress: Progress | None = None
) -> Engine:
    """As ``replay``, and return the engine. Raises NotReproduced at a divergence."""
    replayed = replay(directory, take, until, progress)
    if replayed.divergence is not None:
        raise NotReproduced(directory, replayed.divergence) from replayed.divergence
    return replayed.engine


class Pieces:
    """Applies one batch in pieces to an engine, with the events that it gives as a whole.

    Timers fire at the beginning of what is applied. One that a command of the batch sets may be due
    at the batch's own stamp, and must not fire with the next piece: then the batch is applied again
    from its beginning.
    """

    def __init__(self, engine: Engine, frame: Frame) -> None:
        self._engine = engine
        self._first, self._stamp = frame.opening.first_sequence, frame.opening.stamp
        again = not _TIMED.isdisjoint(frame.commands[::COMMAND_BYTES])
        self._image = engine.snapshot() if again else None
        self._applied = self._told = 0  # commands, and bytes of their events

    def upto(self, commands: "bytes | bytearray", end: int) -> bytes:
        """Apply the batch's commands below number ``end``; return the events of those that were not
        applied yet. ``commands`` are the batch's; those applied before must be as they were."""
        start = self._applied
        if start == end:
            return b""
        if self._image is None or not start:
            piece = bytes(commands[start * COMMAND_BYTES : end * COMMAND_BYTES])
            events = self._engine.apply(piece, self._first + start, self._stamp)
        else:
            self._engine.restore(self._image)
            whole = bytes(commands[: end * COMMAND_BYTES])
            events = self._engine.apply(whole, self._first, self._stamp)[self._told :]
        self._applied, self._told = end, self._told + len(events)
        return events


def visit(directory: Path, sequences: Iterable[int], look: Look) -> Engine:
    """Replay without comparing, and call ``look`` before each of the sequences is applied.

    Stops at the last of them. A sequence beyond the log is ignored. Raises the reader's errors.
    """
    engine = Engine()
    due = iter(sorted(set(sequences)))
    stop = next(due, None)
    reader = open_log(directory)
    for chunk in reader.chunks():
        for frame in chunk:
            opening = frame.opening
            if stop is not None and stop <= frame.last_sequence:
                pieces = Pieces(engine, frame)
                while stop is not None and stop <= frame.last_sequence:
                    pieces.upto(frame.commands, stop - opening.first_sequence)
                    look(engine, stop)
                    stop = next(due, None)
                if stop is not None:
                    pieces.upto(frame.commands, opening.count)
            elif stop is not None:
                engine.apply(frame.commands, opening.first_sequence, opening.stamp)
            if stop is None:
                return engine
    reader.finish()
    return engine


def parse_time(text: str) -> int:
    """Return an ISO 8601 time in ns since 1970; UTC if it has no offset. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * NS + moment.microsecond * 1_000


def time_text(stamp: int) -> str:
    """Return ns since 1970 as ISO 8601 in UTC with milliseconds, truncated."""
    seconds, rest = divmod(stamp, NS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def last_moment(stamp: int) -> int:
    """Return the last ns of the millisecond that begins at ``stamp``; of the microsecond, if
    ``stamp`` is more exact. Times are printed truncated: all that is printed with one is within."""
    return stamp + (999_999 if stamp % 1_000_000 == 0 else 999)


def last_sequence_at(directory: Path, stamp: int) -> int:
    """Return the last sequence stamped at or before ``stamp`` (ns); 0 if there is none."""
    open_log(directory)
    try:
        return find_time(directory, stamp + 1).first_sequence - 1
    except NotInLog:  # all of it is older
        return log_end(directory)


def log_end(directory: Path) -> int:
    """Return the last sequence of the log; 0 for an empty one. Raises the reader's errors."""
    reader = open_log(directory)
    for _ in reader.chunks():
        pass
    return reader.finish().last_sequence


def batches(directory: Path) -> Iterator[tuple[Frame, bytes]]:
    """Yield every frame and the events that this build computes; no recorded hash is compared.

    Raises the reader's errors.
    """
    engine, reader = Engine(), open_log(directory)
    for chunk in reader.chunks():
        for frame in chunk:
            opening = frame.opening
            yield frame, engine.apply(frame.commands, opening.first_sequence, opening.stamp)
    reader.finish()
