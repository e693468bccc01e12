"""The main loop: takes a batch, stamps it, journals it, applies it, and releases it when durable.

Invariants: sequences have no gaps; stamps never fall; only what is durable is released; batches are
released in order. The pipeline has two stages: while the disk syncs batch k, that batch is matched,
and batch k + 1 is journalled and matched.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from exchange.intake import SOURCE_COMMANDS, Closed, Intake, Item, LogFull, QueueFull, columns
from exchange.journal import snapshots
from exchange.journal.errors import DiskFull
from exchange.journal.frame import (
    Notes,
    Opening,
    Texts,
    digest,
    pack_notes,
    pack_texts,
)
from exchange.journal.head import Written
from exchange.journal.heads import HeadWriter
from exchange.journal.point import Point
from exchange.journal.reader import LogReader, Recovered
from exchange.journal.replay import Replayer, ReplayReport, checkpoint_notes, replay
from exchange.journal.room import LOOK_SECONDS
from exchange.journal.segments import SEGMENT_BYTES, Journal
from exchange.journal.snapshots import Engine
from exchange.journal.storage import LocalStorage, Lock, Storage
from exchange.journal.syncer import Log, Syncer, SyncThread
from exchange.journal.tape import Released, Tape
from exchange.messages import COMMAND, COMMAND_BYTES, CommandKind, Limit

__all__ = [
    "SOURCE_COMMANDS",
    "Closed",
    "LogFull",
    "QueueFull",
    "ReplayReport",
    "Sequencer",
    "replay",
]

SHARD: Final = 0
BATCH_COMMANDS: Final = int(Limit.BATCH_COMMANDS)
TIMER_SECONDS_MAX: Final = 3600.0  # longest sleep; a later deadline is checked again then
_NS: Final = 1_000_000_000
_log = logging.getLogger(__name__)
_NO_FIELDS: Final = (0,) * 15


@dataclass(frozen=True, slots=True)
class _Batch:
    """Commands taken from the queues, not yet in the log."""

    records: list[bytes]
    ingress: bytes
    texts: Texts
    stamp: int


class _Written(NamedTuple):
    """A batch that is in the log; its commands and its texts as they were written."""

    batch: _Batch
    commands: bytes
    texts: bytes


@dataclass(frozen=True, slots=True)
class _Matched:
    """A batch that is journalled and matched, but not yet durable."""

    released: Released
    texts: bytes
    last_sequence: int
    written: Written


def _own_record(kind: CommandKind, quantity: int = 0) -> bytes:
    """Return a command of the sequencer itself."""
    fields = [int(kind), *_NO_FIELDS]
    fields[8] = quantity
    return COMMAND.pack(*fields)


_ADVANCE_TIME: Final = _own_record(CommandKind.ADVANCE_TIME)


class Sequencer:
    """Gives every command its sequence and its stamp. Create it with ``open``; one event loop.

    ``tape`` is the released stream, ``recovered`` what was found on disk, ``epoch`` the number of
    this run, ``durable_upto`` the last sequence known durable; ``submit`` and ``submit_all`` are
    those of ``Intake``.
    """

    def __init__(
        self,
        lock: Lock,
        engine: Engine,
        journal: Journal,
        tape: Tape,
        recovered: Recovered,
        *,
        clock: Callable[[], int],
        spec_hash: bytes,
        exchange_id: bytes,
        last_digest: bytes,
        syncer: Syncer,
        signer: HeadWriter | None,
    ) -> None:
        """Take over opened parts; use ``open`` to create a sequencer."""
        self._lock = lock
        self._engine = engine
        self._journal = journal
        self.tape = tape
        self.recovered = recovered
        self._clock = clock
        self._spec_hash = spec_hash
        self._exchange_id = exchange_id
        self._events_digest = last_digest
        self._notes: Notes | None = None
        self._rules_version = engine.counts()["rules_version"]
        restarted = recovered.last_sequence > 0
        self.epoch = recovered.epoch + 1
        self.durable_upto = recovered.last_sequence
        self._next_sequence = recovered.last_sequence + 1
        self._stamp = recovered.stamp
        self._recovery = _own_record(CommandKind.RECOVERED, self.epoch) if restarted else None
        self._wakeup = asyncio.Event()
        self._intake = Intake(journal, self._wakeup.set, full=journal.full or tape.holds)
        # A plain attribute: called once per command, without another call between
        self.submit = self._intake.submit
        self.submit_all = self._intake.submit_all
        self._batch: _Batch | None = None  # taken, but the disk is full
        self._matched: _Matched | None = None
        self._syncing: _Matched | None = None
        self._asked_at = 0.0  # loop time at which the present sync began
        self._failure: Exception | None = None  # of a sync, or of the release after it
        self._syncer = syncer
        self._signer = signer
        self._failed = False
        self._open = True
        self._running: asyncio.Event | None = None  # set when the run has ended

    @classmethod
    def open(
        cls,
        directory: Path,
        engine: Engine,
        *,
        clock: Callable[[], int] = time.time_ns,
        spec_hash: bytes,
        exchange_id: bytes,
        storage: Storage | None = None,
        heads: Path | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        syncer: Callable[[Log], Syncer] = SyncThread,
        from_snapshot: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Lock the directory, replay its log into the empty ``engine``, begin a new epoch.

        With ``from_snapshot`` only what follows the newest usable snapshot is replayed. ``storage``
        holds the log if it is not in the directory; the tape is always in the directory. ``heads``
        is the directory of the signed heads; the log is compared with those in it, and new ones are
        signed.

        Raises DirectoryLocked, ReadOnlyDirectory, DamagedHead, DamagedLog (WrongExchange and
        others), DamagedArchive, NewerVersion, Diverged, DiskFull, JournalStopped; with ``heads``
        HeadsMissing and BadKey as well.
        """
        storage = storage or LocalStorage(directory)
        lock, signer = storage.lock(), None
        try:
            found = snapshots.Found(Point(), None, [])
            if from_snapshot:
                found = snapshots.recover(storage, engine, exchange_id, tape=directory)
            if heads is not None:
                signer = HeadWriter(directory, heads, exchange_id)
            known = [] if signer is None else signer.known
            reader = LogReader(storage, exchange_id, known=known, start=found.log_start)
            tape = Tape(directory, exchange_id, found.point)
            replayer = Replayer(engine, reader, found.point)
            replayer.run(on_batch=tape.confirm, progress=progress)
            recovered = reader.finish(tape.witness())
            journal = Journal(storage, recovered, segment_bytes=segment_bytes)
            tape.settle()
        except BaseException:
            if signer is not None:
                signer.close(None)
            lock.close()
            raise
        return cls(
            lock,
            engine,
            journal,
            tape,
            recovered,
            clock=clock,
            spec_hash=spec_hash,
            exchange_id=exchange_id,
            last_digest=replayer.last_digest,
            syncer=syncer(journal),
            signer=signer,
        )

    @property
    def queued(self) -> int:
        """Number of waiting commands."""
        return self._intake.queued

    @property
    def full(self) -> bool:
        """Whether the disk of the log or the tape is full: only urgent commands are accepted."""
        return self._intake.full

    @property
    def sequence(self) -> int:
        """The last sequence given to a command; it may not be durable yet."""
        return self._next_sequence - 1

    @property
    def stamp(self) -> int:
        """The stamp of the last batch, in nanoseconds since 1970."""
        return self._stamp

    @property
    def clock_behind_seconds(self) -> float:
        """How far the clock is behind the last stamp, in seconds; 0 if it is not. Until it has
        caught up the log's time stands still, because stamps never fall."""
        return max(0, self._stamp - self._clock()) / _NS

    @property
    def stalled_seconds(self) -> float:
        """Duration of the running sync in seconds; 0 if none is running."""
        if self._syncing is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._asked_at

    def wake(self) -> None:
        """Check the clock again: for a virtual clock that was moved."""
        self._wakeup.set()

    async def run(self) -> None:
        """Sequence commands until closed. Raises JournalStopped and every other fatal error.

        If ``close`` was called first and is emptying the queues, this waits for it.
        """
        if self._running is not None:
            await self._running.wait()
        if not self._open or self._intake.closing:
            return
        await self._run()

    async def _run(self) -> None:
        self._running = asyncio.Event()
        try:
            await self._loop()
        except Exception:
            self._failed = self._intake.closing = True
            self.tape.close()
            raise
        finally:
            self._running.set()
            self._running = None

    async def _loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wakeup.clear()
            if self._failure is not None:
                raise self._failure  # nothing of that batch or after it is ever released
            if self.full:
                self._journal.look_for_room()
                self._intake.full = self._journal.full or not self.tape.write_held()
            while self._matched is None and self._advance(loop):
                pass
            if self._syncing is None and self._is_done():
                return
            await self._wait(loop)

    def _advance(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Journal and match the next batch, starting a sync in between if none is running. Return
        whether there was a batch.

        A batch that begins a new segment waits for the running sync: closing the segment syncs the
        same file, the kernel reports a failure to only one of two concurrent syncs, and the other
        would take lost data for durable.
        """
        if self._syncing is not None and self._journal.rolls:
            return False
        written = self._write_next()
        if written is None:
            return False
        if self._syncing is None:
            self._begin_sync(loop)
            self._syncing = self._match(written)
        else:
            self._matched = self._match(written)
        return True

    def _is_done(self) -> bool:
        """Whether the loop may end. A batch that a full disk refuses was never answered, and may be
        dropped."""
        return self._intake.closing and (self._batch is not None or not self.queued)

    def _begin_sync(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asked_at = loop.time()
        self._syncer.begin(loop, self._synced)

    def _synced(self, failure: Exception | None) -> None:
        """Release the batch that is now durable, without waiting for the loop's turn, and start the
        sync of the next one before the followers handle this one."""
        if self._failed:  # the failure that ended the loop has been raised; release nothing more
            return
        batch, self._syncing, self._matched = self._syncing, self._matched, None
        assert batch is not None, "one sync at a time"
        try:
            if failure is not None:
                raise failure
            self.durable_upto = batch.last_sequence
            self.tape.append(batch.released, batch.texts)
            if self._signer is not None:
                self._signer.offer(batch.written)
            self._intake.full = self.full or self.tape.holds
            if self._syncing is not None:
                self._begin_sync(asyncio.get_running_loop())
        except Exception as error:  # raised by the loop: this may be a callback of asyncio
            self._failure = error
        self._wakeup.set()

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sleep until a command comes, a sync ends, an engine timer is due, or it is time to check
        the full disk again."""
        if self._wakeup.is_set():
            await asyncio.sleep(0)  # let the followers run first
            return
        timer = None
        # A due timer goes with the next batch
        held_up = self._syncing is not None or self._batch is not None
        deadline = 0 if held_up else self._engine.next_deadline()
        if deadline or self.full:
            seconds = max(0, deadline - self._clock()) / _NS if deadline else TIMER_SECONDS_MAX
            most = LOOK_SECONDS if self.full else TIMER_SECONDS_MAX
            timer = loop.call_later(min(seconds, most), self._wakeup.set)
        try:
            await self._wakeup.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _write_next(self) -> _Written | None:
        """Journal the next batch, if there is one and the disk has space for it."""
        batch = self._batch or self._take()
        if batch is None:
            return None
        commands, texts = b"".join(batch.records), pack_texts(batch.texts)
        try:
            self._write(batch, commands, texts)
        except DiskFull:
            self._batch, self._intake.full = batch, True
            return None
        self._batch, self._intake.full = None, self._journal.full or self.tape.holds
        return _Written(batch, commands, texts)

    def _match(self, written: _Written) -> _Matched:
        """Apply a journalled batch to the engine."""
        batch, commands, texts = written
        first, count = self._next_sequence, len(batch.records)
        events = self._engine.apply(commands, first, batch.stamp)
        last = first + count - 1
        self._next_sequence, self._stamp = last + 1, batch.stamp
        self._events_digest = digest(events)
        self._look_back(commands, last)
        released = Released(self.epoch, first, count, batch.stamp, events, batch.texts)
        return _Matched(released, texts, last, self._journal.last)

    def _write(self, batch: _Batch, commands: bytes, texts: bytes) -> None:
        notes = pack_notes(self._notes)
        opening = Opening(
            self._exchange_id,
            SHARD,
            self.epoch,
            self._next_sequence,
            batch.stamp,
            self.durable_upto,
            len(batch.records),
            self._rules_version,
            len(texts),
            len(notes),
            self._spec_hash,
            self._journal.last.frame_hash,
            self._events_digest,
        )
        self._journal.append(opening, commands, batch.ingress, texts, notes)

    def _look_back(self, commands: bytes, last: int) -> None:
        """Determine what the next frame must record because of this batch."""
        kinds = commands[::COMMAND_BYTES]
        self._notes = None
        if CommandKind.CHECKPOINT in kinds:
            self._notes = checkpoint_notes(self._engine, last)
        if CommandKind.UPGRADE in kinds:
            self._rules_version = self._engine.counts()["rules_version"]

    def _take(self) -> _Batch | None:
        """Take a batch from the queues, one command of each source in turn; None if none waits."""
        stamp = max(self._stamp, self._clock())
        items: list[Item] = []
        if self._recovery is not None:
            items.append((self._recovery, 0, None))
            self._recovery = None
        elif 0 < self._engine.next_deadline() <= stamp:
            items.append((_ADVANCE_TIME, 0, None))
        items += self._intake.take(min(BATCH_COMMANDS - len(items), self.queued))
        return _Batch(*columns(items, self._next_sequence), stamp) if items else None

    async def close(self) -> None:
        """Process what is queued, write the head, release the directory. May be repeated.

        Raises JournalStopped or DiskFull if the log could not be closed properly; the stream has
        ended and the directory is released all the same.
        """
        self._intake.closing = True
        self._wakeup.set()
        if self._running is not None:
            await self._running.wait()
        elif self._open and not self._failed:
            await self._run()
        if self._open:
            self._open = False
            self._shut()

    def abandon(self) -> None:
        """Release the directory at once: for a caller whose own start failed after ``open``."""
        self._open, self._failed, self._intake.closing = False, True, True
        self._shut()

    def _shut(self) -> None:
        self._syncer.stop()
        if self._batch is not None:
            waited = len(self._batch.records) + self.queued
            _log.error("%d commands were not taken, and not answered: the disk is full", waited)
        last = None
        try:
            if self._failed:
                self._journal.abandon()
            else:
                self._journal.close(self._events_digest, digest(self._engine.state_bytes()))
                last = self._journal.last
        finally:
            if self._signer is not None:
                self._signer.close(last)
            self.tape.close()
            self._lock.close()
