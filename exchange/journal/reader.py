"""Reading the log back: every frame checked alone and against the one before it.

``LogReader.chunks`` yields verified frames until the log ends or something is wrong; ``finish``
then says what the end is: clean, a torn tail that nobody was told of, or damage that must stop us.
"""

from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

import msgspec

from exchange.journal.errors import BrokenChain, DamagedLog, NewerVersion, WrongExchange
from exchange.journal.frame import (
    MAGIC,
    NO_HASH,
    BadFrame,
    CutShort,
    Frame,
    NewerFrame,
    decode,
)
from exchange.journal.head import Head, read_head

LOG_NAME: Final = "log"
SUFFIX: Final = ".hbl"
DIGITS: Final = 20
CHUNK_BYTES: Final = 1 << 20  # read, and handed over, together: enough to hide a thread's cost


def segment_name(first_sequence: int) -> str:
    """Return the file name of the segment that starts at ``first_sequence``."""
    return f"{first_sequence:0{DIGITS}}{SUFFIX}"


def list_segments(log: Path) -> list[Path]:
    """Return the segments in order of their first sequence; none if there is no log yet."""
    return sorted(log.glob(f"{'[0-9]' * DIGITS}{SUFFIX}")) if log.is_dir() else []


class Tail(msgspec.Struct, frozen=True):
    """A torn tail: ``size`` bytes of ``path`` from ``offset`` on that are no whole frame."""

    path: Path
    offset: int
    size: int
    reason: str


class Recovered(msgspec.Struct, frozen=True):
    """What a log holds. Sequences start at 1; zeros and no hash for an empty log."""

    frames: int
    last_sequence: int
    last_hash: bytes
    epoch: int
    stamp: int
    durable_upto: int
    exchange_id: bytes | None
    path: Path | None
    offset: int  # in ``path``, where the next frame goes
    tail_dropped: Tail | None


class _Damage(msgspec.Struct, frozen=True):
    path: Path
    offset: int
    size: int
    fault: BadFrame


def _show(value: bytes | int) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


class _Window:
    """A segment in memory a piece at a time.

    One buffer for all pieces: fresh memory would cost more than the reading. It grows only for a
    frame larger than itself.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._buffer = bytearray(CHUNK_BYTES)
        self.view = memoryview(b"")
        self.base = 0  # offset in the file of the view's first byte

    def advance(self, used: int) -> bool:
        """Drop ``used`` bytes at the front and read on. False at the end of the file."""
        rest = bytes(self.view[used:])
        if len(rest) == len(self._buffer):
            self._buffer = bytearray(2 * len(rest))
        whole = memoryview(self._buffer)
        whole[: len(rest)] = rest
        size = self._file.readinto(whole[len(rest) :])
        self.view = whole[: len(rest) + size]
        self.base += used
        return size > 0


class LogReader:
    """One pass over the log of a market's directory.

    Invariants: ``durable_upto`` is the highest mark seen in a verified frame, in the head, or in a
    segment's name (a segment is only begun when all before it is durable); ``next_sequence`` is one
    past the last verified frame.
    """

    def __init__(self, directory: Path, exchange_id: bytes | None = None) -> None:
        self.log = directory / LOG_NAME
        self.head: Head | None = read_head(directory)
        self.exchange_id = exchange_id
        self.segments = list_segments(self.log)
        self.next_sequence = 1
        self.durable_upto = self.head.sequence if self.head else 0
        self._frames = 0
        self._hash = NO_HASH
        self._shard = 0
        self._epoch = 0
        self._stamp = 0
        self._offset = 0
        self._path: Path | None = None
        self._damage: _Damage | None = None

    def chunks(self) -> Iterator[list[Frame]]:
        """Yield verified frames, up to CHUNK_BYTES at a time, to the end or the first damage.

        Raises BrokenChain (WrongExchange), DamagedLog where a segment is missing, NewerVersion.
        """
        for path in self.segments:
            if self._damage is not None:
                return
            first = int(path.stem)
            self.durable_upto = max(self.durable_upto, first - 1)
            if first != self.next_sequence:
                self._refuse_gap(path, first)
            self._path = path
            yield from self._segment(path)

    def _segment(self, path: Path) -> Iterator[list[Frame]]:
        chunk: list[Frame] = []
        self._offset = 0
        with open(path, "rb", buffering=0) as file:
            window = _Window(file)
            while self._damage is None:
                at = self._offset - window.base
                try:
                    frame = decode(window.view, at)
                    self._follow(path, frame)
                except NewerFrame as newer:
                    raise NewerVersion(
                        path, self._offset, newer.what, newer.known, newer.found
                    ) from newer
                except BadFrame as fault:
                    if chunk:
                        yield chunk
                        chunk = []
                    if isinstance(fault, CutShort):
                        if window.advance(at):
                            continue
                        if not window.view:
                            return
                    self._judge_damage(path, fault)
                else:
                    chunk.append(frame)
                    self._offset += frame.length

    def _follow(self, path: Path, frame: Frame) -> None:
        """Accept a whole frame as the next one, or raise BrokenChain."""
        opening = frame.opening
        if self.exchange_id is None:
            self.exchange_id = opening.exchange_id
        if self._frames == 0:
            self._shard = opening.shard
        rules: tuple[tuple[str, bytes | int, bytes | int], ...] = (
            ("exchange id", self.exchange_id, opening.exchange_id),
            ("shard", self._shard, opening.shard),
            ("first sequence", self.next_sequence, opening.first_sequence),
            ("previous frame's hash", self._hash, opening.previous_hash),
            ("epoch", max(opening.epoch, self._epoch), opening.epoch),
            ("stamp", max(opening.stamp, self._stamp), opening.stamp),
            ("durable mark", min(opening.durable_upto, self.next_sequence - 1),
             opening.durable_upto),
            ("command count", max(opening.count, 1), opening.count),
        )  # fmt: skip
        for what, expected, found in rules:
            if expected != found:
                kind = WrongExchange if what == "exchange id" else BrokenChain
                shown = (_show(expected), _show(found))
                raise kind(path, self._offset, self.next_sequence, what, *shown)
        self._hash, self._epoch, self._stamp = frame.hash, opening.epoch, opening.stamp
        self.next_sequence += opening.count
        self._frames += 1
        self.durable_upto = max(self.durable_upto, opening.durable_upto)
        self._check_head(path, frame)

    def _check_head(self, path: Path, frame: Frame) -> None:
        head = self.head
        if head is None or frame.last_sequence != head.sequence:
            return
        if frame.hash.hex() != head.frame_hash:
            raise BrokenChain(
                path, self._offset, frame.opening.first_sequence, "frame hash named by the head",
                head.frame_hash, frame.hash.hex(),
            )  # fmt: skip

    def _judge_damage(self, path: Path, fault: BadFrame) -> None:
        """Look past the damage: whole frames and segments there say what was durable."""
        raw = path.read_bytes()[self._offset :]
        rest = memoryview(raw)
        at = raw.find(MAGIC, 1)
        while at >= 0:
            step = 1
            try:
                frame = decode(rest, at)
            except (BadFrame, NewerFrame):
                pass  # the magic's bytes inside damage or inside a payload: no evidence
            else:
                step = frame.length
                if self.exchange_id in (None, frame.opening.exchange_id):
                    self.durable_upto = max(self.durable_upto, frame.opening.durable_upto)
            at = raw.find(MAGIC, at + step)
        self.durable_upto = max(self.durable_upto, int(self.segments[-1].stem) - 1)
        if not raw.strip(b"\0"):
            fault = BadFrame("zeros", "a frame", f"{len(raw)} zero bytes to the end")
        self._damage = _Damage(path, self._offset, len(raw), fault)

    def _refuse_gap(self, path: Path, first: int) -> None:
        raise DamagedLog(
            self._path or path, self._offset, self.next_sequence, "segment missing or cut",
            segment_name(self.next_sequence), segment_name(first),
        )  # fmt: skip

    def finish(self, released_upto: int = 0) -> Recovered:
        """Judge the end, once ``chunks`` is exhausted.

        ``released_upto`` is the last sequence known to have been released (0 if none), which was
        durable therefore. Raises DamagedLog if anything at or below the durable mark is gone.
        """
        mark = max(self.durable_upto, released_upto)
        if self.next_sequence <= mark:
            self._refuse_end(mark)
        damage = self._damage
        tail = Tail(damage.path, damage.offset, damage.size, str(damage.fault)) if damage else None
        return Recovered(
            self._frames,
            self.next_sequence - 1,
            self._hash,
            self._epoch,
            self._stamp,
            mark,
            self.exchange_id,
            self._path,
            self._offset,
            tail,
        )

    def _refuse_end(self, mark: int) -> None:
        damage = self._damage
        path = self._path or self.log / segment_name(1)
        if damage is not None:
            what, expected, found = damage.fault.what, damage.fault.expected, damage.fault.found
        else:
            what, expected, found = "log cut short", f"frames up to {mark}", "the end"
        raise DamagedLog(
            path, self._offset, self.next_sequence, f"{what} (durable up to {mark})",
            expected, found,
        )  # fmt: skip
