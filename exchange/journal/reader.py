"""Reads the log back: every frame is checked by itself and against the one before it.

``LogReader.chunks`` yields verified frames until the log ends or something is wrong; ``finish``
then judges the end: clean, a torn tail that was never released, or damage that must stop a start.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from exchange.journal.errors import (
    BrokenChain,
    DamagedLog,
    MissingSegment,
    NewerVersion,
    WrongExchange,
)
from exchange.journal.frame import (
    MAGIC,
    NO_HASH,
    BadFrame,
    CutShort,
    Frame,
    NewerFrame,
    decode,
)
from exchange.journal.head import Head, KnownFrame, read_head
from exchange.journal.places import (
    LOG_NAME,
    Elsewhere,
    Mark,
    Marks,
    NotInLog,
    Segment,
    find_sequence,
    list_segments,
    open_segment,
    segment_bytes,
    segment_name,
    storage_of,
)
from exchange.journal.storage import File, Storage, only_zeros, read_whole

__all__ = ["LOG_NAME", "LogReader", "Recovered", "Start", "Tail"]

LOOKS_MAX: Final = 100  # re-reads of one place that keeps changing, before it is judged
EPOCH_MAX: Final = (1 << 32) - 2  # the next start has one more
STAMP_MAX: Final = (1 << 63) - 1  # the engine's time is signed
CHUNK_BYTES: Final = 1 << 20  # read and passed on together, so that threads switch rarely


class Start(msgspec.Struct, frozen=True):
    """Where to begin inside a log: after the frame that ends at ``sequence``.

    ``frame_hash`` is that frame's hash; None if unknown, then the chain is checked from the next
    frame on. ``epoch`` and ``stamp`` are that frame's, as lower bounds for what follows.
    """

    sequence: int
    frame_hash: bytes | None = None
    epoch: int = 0
    stamp: int = 0


class Tail(msgspec.Struct, frozen=True):
    """A torn tail: ``size`` bytes of ``path`` from ``offset`` on that are no whole frame."""

    path: Path
    offset: int
    size: int
    reason: str


class Recovered(msgspec.Struct, frozen=True):
    """What a log holds. Sequences start at 1; an empty log has zeros and NO_HASH.

    ``frames`` counts the frames that were read: not all of them if reading began inside the log.
    """

    frames: int
    last_sequence: int
    last_hash: bytes
    epoch: int
    stamp: int
    durable_upto: int
    exchange_id: bytes | None
    segment: Segment | None
    offset: int  # in ``segment``, where the next frame goes
    proven: int  # in ``segment``, the end of what is known to have been synced
    tail_dropped: Tail | None
    marks: list[Mark]  # of ``segment``


class _Damage(msgspec.Struct, frozen=True):
    segment: Segment
    offset: int
    size: int
    fault: BadFrame


def _show(value: bytes | int) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


class _Window:
    """A part of a segment in memory, moved forward as it is read.

    One buffer serves all parts, since allocating new memory would cost more than the reading. It
    grows only for a frame larger than itself.
    """

    def __init__(self, file: File, base: int) -> None:
        self._file = file
        self._buffer = bytearray(CHUNK_BYTES)
        self.view = memoryview(b"")
        self.base = base  # offset in the file of the view's first byte

    def advance(self, used: int) -> bool:
        """Drop ``used`` bytes at the front and read on. False at the end of the file."""
        rest = bytes(self.view[used:])
        if len(rest) == len(self._buffer):
            self._buffer = bytearray(2 * len(rest))
        whole = memoryview(self._buffer)
        whole[: len(rest)] = rest
        self.base += used
        size = self._file.read_into(self.base + len(rest), whole[len(rest) :])
        self.view = whole[: len(rest) + size]
        return size > 0

    def changed(self, used: int) -> bool:
        """Whether the file's bytes from ``used`` on differ now from those that were read."""
        seen = bytes(self.view[used:])
        return read_whole(self._file, len(seen), self.base + used) != seen


def _unlike(path: Path, offset: int, first: int, known: KnownFrame, found: bytes) -> BrokenChain:
    """Return the error for a frame whose hash differs from that in a head."""
    what = f"frame ending at sequence {known.sequence}, named by {known.source}"
    return BrokenChain(path, offset, first, what, known.frame_hash.hex(), found.hex())


class LogReader:
    """One pass over the log of a market: all of it, or what follows ``start``.

    Invariants: ``durable_upto`` is the highest durable mark found in a verified frame, in the head,
    in a signed head, or in a segment's name (a segment is begun only when all before it is
    durable); ``next_sequence`` is one more than the last verified frame's last sequence.
    """

    def __init__(
        self,
        place: Path | Storage,
        exchange_id: bytes | None = None,
        *,
        known: Iterable[KnownFrame] = (),
        start: Start | None = None,
    ) -> None:
        """Open the log in a directory or storage; ``known`` are the frames that signed heads state.

        Raises DamagedHead; NotInLog if no frame ends at ``start``; DamagedLog if the part of the
        log before ``start`` contradicts a head.
        """
        self.storage = storage_of(place)
        self.head: Head | None = read_head(self.storage)
        self.exchange_id = exchange_id
        self.segments = list_segments(self.storage)
        self._known = sorted(known, key=lambda one: one.sequence)
        if self.head is not None:
            name = str(self.storage.where("head"))
            own = KnownFrame(self.head.sequence, bytes.fromhex(self.head.frame_hash), name)
            self._known = sorted([*self._known, own], key=lambda one: one.sequence)
        self.next_sequence = 1
        self.durable_upto = max((one.sequence for one in self._known), default=0)
        self._frames = 0
        self._hash: bytes | None = NO_HASH
        self._shard: int | None = None
        self._epoch = 0
        self._stamp = 0
        self._offset = 0
        self._first_offset = 0  # in the first segment read
        self._segment: Segment | None = None
        self._marks = Marks()
        self._doubtful: deque[tuple[int, int]] = deque()  # (last sequence, offset) of frames
        self._damage: _Damage | None = None
        if start is not None and start.sequence > 0:
            self._begin_at(start)
        self._known_at = 0
        while self._known_at < len(self._known) and (
            self._known[self._known_at].sequence < self.next_sequence
        ):
            self._known_at += 1

    def _begin_at(self, start: Start) -> None:
        """Skip what lies up to ``start`` without reading it."""
        self.next_sequence = start.sequence + 1
        self._hash, self._epoch, self._stamp = start.frame_hash, start.epoch, start.stamp
        self._check_left_out(start.sequence)
        first = self.next_sequence
        if all(one.first != first for one in self.segments):
            place = find_sequence(self.storage, start.sequence)
            if place.last_sequence != start.sequence:
                raise NotInLog(f"no frame ends at sequence {start.sequence}: begin elsewhere")
            first, self._first_offset = place.segment.first, place.end
        self.segments = [one for one in self.segments if one.first >= first]

    def _check_left_out(self, sequence: int) -> None:
        """Check the newest known frame of each source in the skipped part: by seeking, not by a
        scan.

        A frame whose segment was archived elsewhere is not checked.
        """
        newest = {one.source: one for one in self._known if one.sequence <= sequence}
        for one in newest.values():
            try:
                place = find_sequence(self.storage, one.sequence)
                file = open_segment(self.storage, place.segment)
            except (Elsewhere, FileNotFoundError):  # the latter: it is being archived right now
                continue
            except NotInLog as missing:
                raise self._not_found(one, missing) from missing
            data = read_whole(file, place.end - place.offset, place.offset)
            file.close()
            path, found = self.storage.where(place.segment.name), NO_HASH
            with suppress(BadFrame):
                found = decode(memoryview(data), 0).hash
            if (place.last_sequence, found) != (one.sequence, one.frame_hash):
                raise _unlike(path, place.offset, place.first_sequence, one, found)

    def _not_found(self, known: KnownFrame, missing: NotInLog) -> DamagedLog:
        """Return the error of a log whose segment lacks a frame that is known to have been
        durable."""
        held = [one for one in self.segments if one.first <= known.sequence]
        path = self.storage.where(held[-1].name if held else LOG_NAME)
        what = f"frame named by {known.source}"
        return DamagedLog(path, missing.offset, known.sequence, what, "a frame", "none")

    @property
    def total_bytes(self) -> int:
        """Bytes of all segments to be read, reserved space and a skipped beginning included."""
        return sum(segment_bytes(self.storage, one) for one in self.segments)

    def chunks(self) -> Iterator[list[Frame]]:
        """Yield verified frames, about CHUNK_BYTES at a time, to the end or the first damage.

        Raises BrokenChain (WrongExchange), MissingSegment, NewerVersion, DamagedArchive.
        """
        offset, self._first_offset = self._first_offset, 0
        for segment in self.segments:
            if self._damage is not None:
                return
            self.durable_upto = max(self.durable_upto, segment.first - 1)
            if segment.first != self.next_sequence and not offset:
                self._refuse_gap(segment)
            self._segment, self._marks = segment, Marks()
            self._doubtful.clear()
            yield from self._read(segment, offset)
            offset = 0

    def _read(self, segment: Segment, offset: int) -> Iterator[list[Frame]]:
        self._offset = offset
        try:
            file = open_segment(self.storage, segment)
        except FileNotFoundError as gone:
            raise MissingSegment(
                self.storage.where(segment.name), offset, self.next_sequence,
                "segment gone since the log was listed", segment.name, "none",
            ) from gone  # fmt: skip
        try:
            yield from self._frames_of(segment, file)
        finally:
            file.close()

    def _frames_of(self, segment: Segment, file: File) -> Iterator[list[Frame]]:
        chunk: list[Frame] = []
        window, looks = _Window(file, self._offset), 0
        path = self.storage.where(segment.name)
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
                if isinstance(fault, CutShort) and window.advance(at):
                    continue
                # A writer may be at work: bytes that were read before it wrote prove no damage.
                looks += 1
                seen = looks > LOOKS_MAX or not window.changed(at)
                if seen and not self._is_whole_now(segment, file, fault, looks):
                    return
                window = _Window(file, self._offset)
            else:
                looks = 0
                chunk.append(frame)
                self._marks.note(frame.opening.first_sequence, self._stamp, self._offset)
                self._doubtful.append((frame.last_sequence, self._offset))
                self._offset += frame.length
                self._proven(self.durable_upto)

    def _follow(self, path: Path, frame: Frame) -> None:
        """Accept a whole frame as the next one, or raise BrokenChain."""
        opening = frame.opening
        if self.exchange_id is None:
            self.exchange_id = opening.exchange_id
        if self._shard is None:
            self._shard = opening.shard
        if self._hash is None:
            self._hash = opening.previous_hash
        rules: tuple[tuple[str, bytes | int, bytes | int], ...] = (
            ("exchange id", self.exchange_id, opening.exchange_id),
            ("shard", self._shard, opening.shard),
            ("first sequence", self.next_sequence, opening.first_sequence),
            ("previous frame's hash", self._hash, opening.previous_hash),
            ("epoch", min(max(opening.epoch, self._epoch), EPOCH_MAX), opening.epoch),
            ("stamp", min(max(opening.stamp, self._stamp), STAMP_MAX), opening.stamp),
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
        if self._known_at < len(self._known):
            self._check_known(path, frame)

    def _check_known(self, path: Path, frame: Frame) -> None:
        """Compare with the known frames: one must end at their sequence and have their hash."""
        while self._known_at < len(self._known):
            one = self._known[self._known_at]
            if one.sequence > frame.last_sequence:
                return
            ends = one.sequence == frame.last_sequence
            if not ends or one.frame_hash != frame.hash:
                first = frame.opening.first_sequence
                raise _unlike(path, self._offset, first, one, frame.hash)
            self._known_at += 1

    def _is_whole_now(self, segment: Segment, file: File, fault: BadFrame, looks: int) -> bool:
        """Whether a whole frame can be read there now. If not, record the damage, if there is any.

        The end of the file, or zeros up to it, is no damage: the writer reserves space ahead.
        """
        if only_zeros(file, self._offset):
            return False
        raw = read_whole(file, file.end - self._offset, self._offset)
        if looks <= LOOKS_MAX:
            with suppress(BadFrame, NewerFrame):
                decode(memoryview(raw), 0)
                return True
        self._judge_damage(segment, raw, fault)
        return False

    def _judge_damage(self, segment: Segment, raw: bytes, fault: BadFrame) -> None:
        """Search for whole frames and segments after the damage: their marks show what was
        durable."""
        rest = memoryview(raw)
        at = raw.find(MAGIC, 1)
        while at >= 0:
            step = 1
            try:
                frame = decode(rest, at)
            except (BadFrame, NewerFrame):
                pass  # the magic's bytes by chance, inside damage or a payload: no evidence
            else:
                step = frame.length
                if self.exchange_id in (None, frame.opening.exchange_id):
                    self.durable_upto = max(self.durable_upto, frame.opening.durable_upto)
            at = raw.find(MAGIC, at + step)
        self.durable_upto = max(self.durable_upto, self.segments[-1].first - 1)
        self._damage = _Damage(segment, self._offset, len(raw), fault)

    def _refuse_gap(self, segment: Segment) -> None:
        before = self._segment or segment
        raise MissingSegment(
            self.storage.where(before.name), self._offset, self.next_sequence,
            "segment missing or cut", segment_name(self.next_sequence), segment.name,
        )  # fmt: skip

    def finish(self, released_upto: int = 0) -> Recovered:
        """Check the end of the log once ``chunks`` is exhausted.

        ``released_upto`` is the last sequence known to have been released (0 if none), which was
        therefore durable. Raises DamagedLog if anything at or below the durable mark is missing.
        """
        mark = max(self.durable_upto, released_upto)
        damage = self._damage
        if self.next_sequence <= mark:
            self._refuse_end(f"(durable up to {mark})", f"frames up to {mark}")
        if damage is not None and damage.segment != self.segments[-1]:
            self._refuse_end("(the next segment is there)", "a frame")
        tail = None
        if damage is not None:
            path = self.storage.where(damage.segment.name)
            tail = Tail(path, damage.offset, damage.size, str(damage.fault))
        return Recovered(
            self._frames,
            self.next_sequence - 1,
            self._hash or NO_HASH,
            self._epoch,
            self._stamp,
            mark,
            self.exchange_id,
            self._segment,
            self._offset,
            self._proven(mark),
            tail,
            self._marks.marks,
        )

    def _proven(self, mark: int) -> int:
        """Drop the frames up to ``mark`` from the doubtful ones; return the offset of the first
        left."""
        doubtful = self._doubtful
        while doubtful and doubtful[0][0] <= mark:
            doubtful.popleft()
        return doubtful[0][1] if doubtful else self._offset

    def _refuse_end(self, why: str, wanted: str) -> None:
        damage = self._damage
        segment = self._segment.name if self._segment else segment_name(self.next_sequence)
        if damage is not None:
            what, expected, found = damage.fault.what, damage.fault.expected, damage.fault.found
        else:
            what, expected, found = "log cut short", wanted, "the end"
        raise DamagedLog(
            self.storage.where(segment), self._offset, self.next_sequence, f"{what} {why}",
            expected, found,
        )  # fmt: skip
