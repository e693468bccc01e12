"""Replay: runs the log through an engine again and compares every recorded hash.

Three threads share the work, since hashing releases the interpreter's lock: one reads and verifies
frames, one applies them, one compares the digests of the resulting events.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import msgspec

from exchange.journal.errors import Diverged
from exchange.journal.frame import INGRESS_BYTES, Frame, Notes, digest, unpack_notes
from exchange.journal.point import Point
from exchange.journal.reader import LogReader, Tail
from exchange.messages import COMMAND_BYTES, EVENT_BYTES


class Engine(Protocol):
    """What the journal and the sequencer need of an engine (docs/reference/engine.md)."""

    def apply(self, commands: bytes, first_sequence: int, stamp: int, /) -> bytes: ...
    def next_deadline(self) -> int: ...
    def state_bytes(self) -> bytes: ...
    def counts(self) -> dict[str, int]: ...


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a replay. ``state_hash`` is of the state reached, also after a divergence."""

    frames: int
    commands: int
    events: int
    last_sequence: int
    epoch: int
    stamp: int
    state_hash: bytes
    seconds: float
    divergence: Diverged | None
    tail_dropped: Tail | None


class _Batch(msgspec.Struct, frozen=True, gc=False):
    """A replayed batch; the next frame (or the head) records the digest of its events."""

    first_sequence: int
    last_sequence: int
    digest: bytes

    def compare(self, what: str, expected: bytes, found: bytes) -> None:
        if expected != found:
            raise Diverged(what, self.first_sequence, self.last_sequence, expected, found)


class Replayer:
    """Applies a reader's frames to an engine whose state is that at ``start``. Can be run once.

    After ``run``, ``last_digest`` is the digest of the last batch's events (that of ``start`` if no
    frame was read).
    """

    def __init__(self, engine: Engine, reader: LogReader, start: Point | None = None) -> None:
        self._engine = engine
        self._reader = reader
        self._start = start or Point()
        self.frames = 0
        self.commands = 0
        self.events = 0
        self.epoch = self._start.epoch
        self.stamp = self._start.stamp
        self.last_digest = self._start.events_digest
        self._state_hash: bytes | None = None  # computed on demand, after the last command

    def run(
        self,
        *,
        until: int | None = None,
        on_batch: Callable[[Frame, bytes], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Replay all commands, or those up to sequence ``until``. Raises Diverged at the first.

        ``on_batch`` is called with every frame and its events, ``progress`` with (bytes done, bytes
        in all) after every chunk. Errors of the reader pass through.
        """
        total = self._reader.total_bytes
        done = 0
        checked: Future[_Batch] = Future()
        start = self._start
        checked.set_result(_Batch(start.first_sequence, start.sequence, start.events_digest))
        with ThreadPoolExecutor(1) as pool:
            for chunk in _ahead(self._reader.chunks()):
                frames = chunk if until is None else _upto(chunk, until)
                outputs = self._apply(frames, checked)
                if on_batch is not None:
                    for frame, events in zip(frames, outputs, strict=True):
                        on_batch(frame, events)
                checked = pool.submit(_compare_events, frames, outputs, checked.result())
                done += sum(frame.length for frame in frames)
                if progress is not None:
                    progress(done, total)
                if until is not None and frames != chunk:
                    break
            last = checked.result()
        self.last_digest = last.digest
        if until is None:
            self._compare_head(last)

    def _apply(self, frames: list[Frame], before: "Future[_Batch]") -> list[bytes]:
        apply = self._engine.apply
        outputs: list[bytes] = []
        for frame in frames:
            opening = frame.opening
            if frame.notes:
                self._compare_state(frame, frames, outputs, before)
            outputs.append(apply(frame.commands, opening.first_sequence, opening.stamp))
            self.commands += opening.count
        self.frames += len(frames)
        self.events += sum(map(len, outputs)) // EVENT_BYTES
        if frames:
            self.epoch, self.stamp = frames[-1].opening.epoch, frames[-1].opening.stamp
        return outputs

    def _compare_state(
        self, frame: Frame, frames: list[Frame], outputs: list[bytes], before: "Future[_Batch]"
    ) -> None:
        notes = unpack_notes(frame.notes)
        assert notes is not None
        found = digest(self._engine.state_bytes())
        if found != notes.state_hash:
            # The events may have differed first, in a batch that has not been compared yet.
            seen = [*frames[: len(outputs)], frame]
            batch = _compare_events(seen[:-1], outputs, before.result())
            batch.compare("events", frame.opening.previous_events, batch.digest)
            batch.compare("state", notes.state_hash, found)

    def _compare_head(self, last: _Batch) -> None:
        head = self._reader.head
        if head is None or head.sequence != last.last_sequence:
            return
        if head.events_digest:
            last.compare("events", bytes.fromhex(head.events_digest), last.digest)
        if head.state_hash:
            last.compare("state", bytes.fromhex(head.state_hash), self.state_hash())

    @property
    def last_sequence(self) -> int:
        """Sequence of the last command applied."""
        return self._start.sequence + self.commands

    def state_hash(self) -> bytes:
        """Return the hash of the state reached."""
        if self._state_hash is None:
            self._state_hash = digest(self._engine.state_bytes())
        return self._state_hash


def _compare_events(frames: list[Frame], outputs: list[bytes], before: _Batch) -> _Batch:
    for frame, events in zip(frames, outputs, strict=True):
        before.compare("events", frame.opening.previous_events, before.digest)
        before = _Batch(frame.opening.first_sequence, frame.last_sequence, digest(events))
    return before


def _upto(chunk: list[Frame], until: int) -> list[Frame]:
    """Return the frames up to sequence ``until``; the last one is cut if it goes beyond."""
    frames = [frame for frame in chunk if frame.last_sequence <= until]
    for frame in chunk[len(frames) : len(frames) + 1]:
        count = until - frame.opening.first_sequence + 1
        if count > 0:
            cut = msgspec.structs.replace(
                frame,
                opening=msgspec.structs.replace(frame.opening, count=count),
                commands=frame.commands[: count * COMMAND_BYTES],
                ingress=frame.ingress[: count * INGRESS_BYTES],
            )
            frames.append(cut)
    return frames


def _ahead(chunks: Iterator[list[Frame]]) -> Iterator[list[Frame]]:
    """Yield the chunks while a thread reads the next one."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk


def checkpoint_notes(engine: Engine, sequence: int) -> Notes:
    """Return a checkpoint of the present state, which is that after sequence ``sequence``."""
    return Notes(sequence, digest(engine.state_bytes()))


def replay(
    directory: Path,
    engine_factory: Callable[[], Engine],
    until: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayReport:
    """Replay the log of ``directory`` through a fresh engine, changing nothing on disk.

    A divergence is reported, not raised. Raises the reader's errors: DamagedLog, NewerVersion, ...
    """
    reader = LogReader(directory)
    engine = engine_factory()
    replayer = Replayer(engine, reader)
    divergence: Diverged | None = None
    tail: Tail | None = None
    start = time.perf_counter()
    try:
        replayer.run(until=until, progress=progress)
    except Diverged as error:
        divergence = error
    else:
        if until is None:
            tail = reader.finish().tail_dropped
    seconds = time.perf_counter() - start
    return ReplayReport(
        frames=replayer.frames,
        commands=replayer.commands,
        events=replayer.events,
        last_sequence=replayer.commands,
        epoch=replayer.epoch,
        stamp=replayer.stamp,
        state_hash=replayer.state_hash(),
        seconds=seconds,
        divergence=divergence,
        tail_dropped=tail,
    )
