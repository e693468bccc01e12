"""A point of the history: the position of the log, the released stream and the state after a frame.

It is a function of the log. With a point and the engine's state at it, processing can continue as
if the log had been read from its beginning.
"""

import msgspec

from exchange.journal.frame import NO_HASH, Frame, digest
from exchange.journal.tape import MARK_BYTES, PREAMBLE, RECORD_BYTES
from exchange.messages import EVENT_BYTES

TapeMark = tuple[int, int]  # first sequence and offset of a record of the tape


class Point(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The position after the frame of ``first_sequence`` to ``sequence``; all zero before the
    first.

    ``events_digest`` is the digest of that frame's events, ``tape_end`` the length in bytes of the
    released stream up to there, ``last_index`` the index of its last event, ``marks`` the tape's
    remembered offsets.
    """

    sequence: int = 0
    first_sequence: int = 0
    epoch: int = 0
    stamp: int = 0
    frame_hash: bytes = NO_HASH
    events_digest: bytes = NO_HASH
    frames: int = 0
    events: int = 0
    last_index: int = 0
    tape_end: int = PREAMBLE.size
    marks: list[TapeMark] = []

    def advance(self, frame: Frame, events: bytes) -> None:
        """Advance past ``frame``, whose events are ``events``."""
        opening = frame.opening
        if not self.marks or self.tape_end - self.marks[-1][1] >= MARK_BYTES:
            self.marks.append((opening.first_sequence, self.tape_end))
        self.first_sequence, self.sequence = opening.first_sequence, frame.last_sequence
        self.epoch, self.stamp = opening.epoch, opening.stamp
        self.frame_hash, self.events_digest = frame.hash, digest(events)
        self.frames += 1
        self.events += len(events) // EVENT_BYTES
        last = len(events) - EVENT_BYTES
        self.last_index = int.from_bytes(events[last + 8 : last + 12], "little")
        self.tape_end += RECORD_BYTES + len(events) + len(frame.texts)
