"""The released stream: the events the market has published, as one append-only byte stream.

A record holds what one durable batch released. The stream lives in DIR/tape and is not synced: it
is a function of the log, compared with it at every start and rewritten from the first difference
on. Layout and rules of resuming: docs/reference/stream.md.
"""

import asyncio
import logging
import os
import weakref
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from struct import Struct as Layout
from typing import TYPE_CHECKING, Final

import msgspec
from zlib_ng.zlib_ng import crc32

from exchange.journal.errors import (
    BadPart,
    DiskFull,
    JournalError,
    JournalStopped,
    NoSuchPosition,
    WriteFailed,
    write_failure,
)
from exchange.journal.frame import (
    EXCHANGE_ID_BYTES,
    Frame,
    Texts,
    digest,
    pack_texts,
    unpack_texts,
)
from exchange.messages import EVENT_BYTES, SCHEMA_VERSION

if TYPE_CHECKING:
    from exchange.journal.point import Point

TAPE_NAME: Final = "tape"
FILE_NAME: Final = "released.hbt"
TAPE_FORMAT: Final = 1
PREAMBLE: Final = Layout("<8sHHI16s")  # magic, format, schema, zero, exchange id
PREAMBLE_MAGIC: Final = b"HBSTREAM"
RECORD: Final = Layout("<4sIQQIII")  # magic, epoch, first sequence, stamp, count, events, texts
RECORD_CRC: Final = Layout("<I")
RECORD_MAGIC: Final = b"HBRL"
RECORD_BYTES: Final = RECORD.size + RECORD_CRC.size
MARK_BYTES: Final = 1 << 20  # one remembered offset per this much stream: the longest scan
RECENT_RECORDS: Final = 64  # kept in memory for followers at the end
RECENT_BYTES: Final = 8 << 20
HELD_BYTES_MAX: Final = 512 << 20  # while the disk is full; the commands still accepted stay below
_EVENT_POSITION: Final = Layout("<QI")
# A start from a snapshot does not look at what is below it, and so does not rewrite it.
_REMEDY: Final = (
    f"delete {TAPE_NAME}/{FILE_NAME} while nobody serves the directory, and the next start makes it"
    " again from the log"
)

_log = logging.getLogger(__name__)

Position = tuple[int, int, int]  # epoch, sequence, index of the last event seen
START: Final[Position] = (0, 0, 0)


class Released(msgspec.Struct, frozen=True, gc=False):
    """The events of one durable batch, in order, and the texts of its commands.

    After a resume inside a batch the record starts at the first event not yet seen:
    ``first_sequence`` is that event's, and ``texts`` begins there as well.
    """

    epoch: int
    first_sequence: int
    count: int
    stamp: int
    events: bytes
    texts: Texts

    @property
    def last_sequence(self) -> int:
        """Sequence of the last command."""
        return self.first_sequence + self.count - 1


def pack_record(
    epoch: int, first_sequence: int, stamp: int, count: int, events: bytes, texts: bytes
) -> bytes:
    """Return a record's bytes; ``texts`` are packed already."""
    opening = RECORD.pack(
        RECORD_MAGIC, epoch, first_sequence, stamp, count, len(events), len(texts)
    )
    return b"".join((opening, RECORD_CRC.pack(crc32(opening)), events, texts))


def pack_released(released: Released) -> bytes:
    """Return a record's bytes."""
    return pack_record(
        released.epoch,
        released.first_sequence,
        released.stamp,
        released.count,
        released.events,
        pack_texts(released.texts),
    )


class RecordHead(msgspec.Struct, frozen=True, gc=False):
    """A record's header: all but its events and texts."""

    epoch: int
    first_sequence: int
    stamp: int
    count: int
    events_bytes: int
    texts_bytes: int

    @property
    def length(self) -> int:
        """Bytes of the whole record."""
        return RECORD_BYTES + self.events_bytes + self.texts_bytes


def unpack_head(data: bytes) -> RecordHead | None:
    """Return the header in the first RECORD_BYTES of ``data``; None if there is none."""
    if len(data) < RECORD_BYTES or data[:4] != RECORD_MAGIC:
        return None
    (crc,) = RECORD_CRC.unpack_from(data, RECORD.size)
    if crc != crc32(data[: RECORD.size]):
        return None
    return RecordHead(*RECORD.unpack_from(data)[1:])


def unpack_record(head: RecordHead, body: bytes) -> Released:
    """Return the record of the header ``head`` and the bytes after it. Raises BadPart."""
    return Released(
        head.epoch,
        head.first_sequence,
        head.count,
        head.stamp,
        body[: head.events_bytes],
        unpack_texts(body[head.events_bytes :]),
    )


def after_event(released: Released, position: Position) -> Released | None:
    """Return the part of ``released`` after ``position``; None if there is none.

    Raises NoSuchPosition if the position lies in this record but is no event of it.
    """
    epoch, sequence, index = position
    if released.epoch != epoch:
        raise NoSuchPosition(position, f"that sequence is of epoch {released.epoch}")
    events = released.events
    if _EVENT_POSITION.unpack_from(events, len(events) - EVENT_BYTES) == (sequence, index):
        return None
    for at in range(0, len(events), EVENT_BYTES):
        if _EVENT_POSITION.unpack_from(events, at) == (sequence, index):
            break
    else:
        raise NoSuchPosition(position, "the command has no such event")
    rest = events[at + EVENT_BYTES :]
    if not rest:
        return None
    first, _ = _EVENT_POSITION.unpack_from(rest)
    return Released(
        epoch,
        first,
        released.last_sequence - first + 1,
        released.stamp,
        rest,
        [text for text in released.texts if text[0] >= first],
    )


def preamble(exchange_id: bytes) -> bytes:
    """Return the bytes that every stream begins with."""
    return PREAMBLE.pack(PREAMBLE_MAGIC, TAPE_FORMAT, SCHEMA_VERSION, 0, exchange_id)


class NoStream(JournalError):
    """What was to be a released stream begins with something else."""


def check_preamble(data: bytes) -> bytes:
    """Return the exchange id in a stream's first bytes. Raises NoStream, JournalError."""
    if len(data) < PREAMBLE.size or data[:8] != PREAMBLE_MAGIC:
        raise NoStream("not a released stream")
    _, form, schema, _, exchange_id = PREAMBLE.unpack_from(data)
    if form > TAPE_FORMAT or schema > SCHEMA_VERSION:
        found = f"format {form}, schema {schema}"
        raise JournalError(f"stream of a later build ({found}): use that build, or a later one")
    return bytes(exchange_id)


class Standing(msgspec.Struct, frozen=True):
    """How far a stream reaches, and offsets to search it from."""

    last: Position
    end: int
    marks: list[tuple[int, int]]  # first sequence and offset of some records


class Reel:
    """The released stream up to ``end``; it can be read from any event on, in any thread.

    Invariants: records are whole up to ``end``; ``last`` is the position of the last event in them.
    """

    def __init__(self, file: int) -> None:
        """Use the descriptor ``file``, which is closed with this object."""
        self._file = file
        weakref.finalize(self, os.close, file)
        self.end = PREAMBLE.size
        self.last: Position = START
        self._mark_sequences: list[int] = []
        self._mark_offsets: list[int] = []
        self._recent: OrderedDict[int, tuple[Released, int]] = OrderedDict()
        self._recent_bytes = 0

    @property
    def standing(self) -> Standing:
        """How far it reaches, for another reader of the same bytes."""
        marks = zip(self._mark_sequences, self._mark_offsets, strict=True)
        return Standing(self.last, self.end, list(marks))

    def begin_at(self, standing: Standing) -> None:
        """Take over what another reader knows of the stream."""
        self.last, self.end = standing.last, standing.end
        self._mark_sequences = [sequence for sequence, _ in standing.marks]
        self._mark_offsets = [offset for _, offset in standing.marks]

    def _extend(self, epoch: int, first_sequence: int, events: bytes, size: int) -> None:
        assert first_sequence == self.last[1] + 1, "released in order"
        if not self._mark_offsets or self.end - self._mark_offsets[-1] >= MARK_BYTES:
            # Readers in other threads search the sequences first: the offset must be there by then.
            self._mark_offsets.append(self.end)
            self._mark_sequences.append(first_sequence)
        sequence, index = _EVENT_POSITION.unpack_from(events, len(events) - EVENT_BYTES)
        self.last = (epoch, sequence, index)
        self.end += size

    def _remember(self, released: Released, start: int) -> None:
        """Keep the newest record in memory, and drop the oldest ones that are on disk."""
        recent = self._recent
        recent[start] = (released, self.end)
        self._recent_bytes += self.end - start
        while len(recent) > RECENT_RECORDS or self._recent_bytes > RECENT_BYTES:
            oldest, (_, end) = next(iter(recent.items()))
            if not self._has(end):
                return
            del recent[oldest]
            self._recent_bytes -= end - oldest

    def _has(self, end: int) -> bool:
        """Whether ``_bytes`` returns everything up to that offset."""
        return True

    def _bytes(self, size: int, at: int) -> bytes:
        """Return bytes of the stream; fewer where it ends."""
        return os.pread(self._file, size, at)

    def read(self, epoch: int, sequence: int, index: int) -> Iterator[Released]:
        """Yield what comes after that event, up to the present end. (0, 0, 0) is the beginning.

        Raises NoSuchPosition.
        """
        first, offset = self._resume((epoch, sequence, index))
        if first is not None:
            yield first
        yield from self._onwards(offset)

    def since(self, stamp: int) -> Iterator[Released]:
        """Yield the batches stamped at or after ``stamp`` (ns), up to the present end."""
        offsets = self._mark_offsets
        found = bisect_left(offsets, stamp, key=lambda offset: self._head(offset).stamp)
        offset = offsets[max(0, found - 1)] if offsets else self.end
        while offset < self.end and (head := self._head(offset)).stamp < stamp:
            offset += head.length
        yield from self._onwards(offset)

    def _onwards(self, offset: int) -> Iterator[Released]:
        end = self.end
        while offset < end:
            recent = self._recent.get(offset)
            released, offset = recent or self._load(offset)
            yield released

    def _resume(self, position: Position) -> tuple[Released | None, int]:
        """Return the rest of the record that holds ``position``, and the next record's offset."""
        if position == START:
            return None, PREAMBLE.size
        sequence = position[1]
        if not 1 <= sequence <= self.last[1]:
            raise NoSuchPosition(position, f"released are 1 to {self.last[1]}")
        for released, end in list(self._recent.values()):  # a follower that keeps up is found here
            if released.first_sequence <= sequence <= released.last_sequence:
                return after_event(released, position), end
        offset = self._mark_offsets[bisect_right(self._mark_sequences, sequence) - 1]
        while True:
            head = self._head(offset)
            if sequence < head.first_sequence + head.count:
                released, offset = self._load(offset)
                return after_event(released, position), offset
            offset += head.length

    def _head(self, offset: int) -> RecordHead:
        head = unpack_head(self._bytes(RECORD_BYTES, offset))
        if head is None:
            raise JournalError(f"the tape is damaged at byte {offset}: {_REMEDY}")
        return head

    def _load(self, offset: int) -> tuple[Released, int]:
        head = self._head(offset)
        body = self._bytes(head.length - RECORD_BYTES, offset + RECORD_BYTES)
        if len(body) != head.length - RECORD_BYTES:
            raise JournalError(f"the tape is cut short at byte {offset}: {_REMEDY}")
        try:
            return unpack_record(head, body), offset + head.length
        except BadPart as error:
            raise JournalError(f"the tape is damaged at byte {offset}: {_REMEDY}") from error


class Tape(Reel):
    """The stream's writer (the sequencer) and its followers, all in one event loop.

    Invariant: nothing is appended that is not durable in the log. While the disk is full the newest
    records are held in memory, and read from there.
    """

    def __init__(self, directory: Path, exchange_id: bytes, start: "Point | None" = None) -> None:
        """Open DIR/tape for comparison with the log: ``confirm`` each batch, then ``settle``.

        With ``start``, a point that the tape is known to reach, the comparison begins there.
        """
        assert len(exchange_id) == EXCHANGE_ID_BYTES
        folder = directory / TAPE_NAME
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        super().__init__(file)
        self.exchange_id = exchange_id
        self.preamble = preamble(exchange_id)
        # Whether every batch so far was found on the tape unchanged.
        self._same = os.pread(self._file, PREAMBLE.size, 0) == self.preamble
        self._begun = False  # whether rewriting from the first difference has begun
        self._unproven: deque[tuple[int, int, bytes]] = deque()  # last sequence, offset, record
        self._digest: bytes | None = None  # of the last of these batches' events
        self._differs = False  # whether a frame named other events: the replay is about to fail
        if start is not None and start.sequence:
            last = (start.epoch, start.sequence, start.last_index)
            self.begin_at(Standing(last, start.tape_end, start.marks))
        # The last bytes of the stream that are not on disk yet, with their offset: one tuple, since
        # another thread may be reading.
        self._held: tuple[int, bytearray] = (0, bytearray())
        self._followers = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}  # followers at the end, by number
        self._closed = False

    def confirm(self, frame: Frame, events: bytes) -> None:
        """Advance over a replayed batch; if the tape does not have it, rewrite the tape from here.

        A batch that is in the log but not yet proven durable is not written before ``settle``: on
        the tape it would be evidence of a release that never happened. Nor is one whose events are
        not those that the next frame names: what the writing build released shows what differs.
        """
        opening = frame.opening
        data = pack_record(
            opening.epoch, opening.first_sequence, opening.stamp, opening.count, events, frame.texts
        )
        self._same = self._same and os.pread(self._file, len(data), self.end) == data
        if not self._same:
            self._differs |= self._digest not in (None, opening.previous_events)
            if not self._differs:
                self._write_proven(opening.durable_upto)
            self._unproven.append((frame.last_sequence, self.end, data))
            self._digest = digest(events)
        self._extend(opening.epoch, opening.first_sequence, events, len(data))

    def _write_proven(self, upto: int) -> None:
        unproven = self._unproven
        while unproven and unproven[0][0] <= upto:
            _, at, data = unproven.popleft()
            if not self._begun:
                os.ftruncate(self._file, at)
                self._begin(at)
                self._begun = True
            self._write_or_hold(data, at)

    def _begin(self, end: int) -> None:
        """Write the preamble if it is not there; ``end`` is the stream's length in bytes."""
        if os.pread(self._file, PREAMBLE.size, 0) == self.preamble:
            return
        if end == PREAMBLE.size:
            self._write_or_hold(self.preamble, 0)
        else:
            self._write(self.preamble, 0)

    def witness(self) -> int:
        """Return the last sequence that the tape's next record shows as released; 0 if there is
        none.

        Called at the log's end: a record beyond it proves that the log has lost durable frames.
        """
        head = unpack_head(os.pread(self._file, RECORD_BYTES, self.end))
        if not self._same or head is None or head.first_sequence != self.last[1] + 1:
            return 0
        return head.first_sequence + head.count - 1

    def settle(self) -> None:
        """End the comparison and drop what lies beyond the confirmed batches.

        All of these are durable in the log by now. The tape is made durable, since a later start
        from a snapshot does not compare this part again. What a full disk cannot take is held in
        memory.
        """
        self._write_proven(self.last[1])
        if not self.holds:
            os.ftruncate(self._file, self.end)
            self._begin(self.end)
        os.fsync(self._file)

    def append(self, released: Released, texts: bytes) -> None:
        """Release a durable batch to every follower. ``texts`` are its texts, packed.

        Raises JournalStopped (WriteFailed).
        """
        data = pack_record(
            released.epoch,
            released.first_sequence,
            released.stamp,
            released.count,
            released.events,
            texts,
        )
        start = self.end
        self._write_or_hold(data, start)
        self._extend(released.epoch, released.first_sequence, released.events, len(data))
        self._remember(released, start)
        self._wake()

    @property
    def holds(self) -> bool:
        """Whether the disk is full and the newest records are in memory alone."""
        return bool(self._held[1])

    def write_held(self) -> bool:
        """Try to write what is held in memory; return whether nothing is left. Raises
        WriteFailed."""
        at, held = self._held
        if held:
            try:
                self._write(held, at)
            except DiskFull:
                return False
            self._held = (0, bytearray())
        return True

    def _write_or_hold(self, data: bytes, at: int) -> None:
        """Write at the end; on a full disk hold it in memory, up to HELD_BYTES_MAX."""
        start, held = self._held
        if not held:
            try:
                self._write(data, at)
                return
            except DiskFull as error:
                _log.error("records are held in memory: %s", error)
                start = at
        if len(held) + len(data) > HELD_BYTES_MAX:
            raise JournalStopped(f"the tape's disk is full, and {HELD_BYTES_MAX} bytes are held")
        held += data  # in place: a start may have much to hold
        self._held = (start, held)

    def _bytes(self, size: int, at: int) -> bytes:
        """Return bytes of the stream, from disk or from memory; fewer where it ends."""
        start, held = self._held
        if held and at >= start:
            return bytes(held[at - start : at - start + size])
        return super()._bytes(size, at)

    def _write(self, data: bytes | bytearray, at: int) -> None:
        rest = memoryview(data)
        try:
            while rest:
                size = os.pwrite(self._file, rest, at)
                rest, at = rest[size:], at + size
        except OSError as error:
            raise write_failure(error, f"tape, {len(data)} bytes") from error

    async def follow(
        self, after: Position = START, *, patient: bool = False
    ) -> AsyncIterator[Released]:
        """Yield what comes after that event, as it is released, until the tape is closed.

        A follower that lags reads from disk; nothing is queued for it. A ``patient`` one gets each
        record after the others have handled it. Raises NoSuchPosition.
        """
        self._followers += 1
        number = self._followers
        first, offset = self._resume(after)
        if first is not None:
            yield first
        while True:
            while offset < self.end:
                recent = self._recent.get(offset)
                released, offset = recent or self._load(offset)
                yield released
            if self._closed:
                return
            grown = asyncio.get_running_loop().create_future()
            self._waiting[number] = grown
            await grown
            if patient:
                await asyncio.sleep(0)

    def _wake(self) -> None:
        """Wake the waiting followers, the last to subscribe first: that is the gateway."""
        waiting, self._waiting = self._waiting, {}
        for number in sorted(waiting, reverse=True):
            if not waiting[number].done():
                waiting[number].set_result(None)

    def close(self) -> None:
        """End every follower at the present end. The file stays readable for those that lag."""
        try:
            self.write_held()
        except WriteFailed as error:  # the next start rebuilds the rest from the log
            _log.error("the tape ends before the log: %s", error)
        self._closed = True
        self._wake()
