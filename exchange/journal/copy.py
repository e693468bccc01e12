"""The released stream in a follower's process: the tape's file, then the socket.

The tape's own file is opened for reading only, so nothing is stored twice.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

from exchange.journal import stream
from exchange.journal.errors import NoSuchPosition
from exchange.journal.frame import pack_texts
from exchange.journal.tape import (
    FILE_NAME,
    RECORD_BYTES,
    START,
    TAPE_NAME,
    Position,
    Reel,
    Released,
    Standing,
    after_event,
    unpack_head,
)


class Copy(Reel):
    """The stream as one follower has received it; it grows as ``follow`` is iterated."""

    def __init__(
        self, directory: Path, socket: Path, standing: Standing, exchange_id: bytes
    ) -> None:
        """Open DIR/tape. ``standing`` is how far the tape reaches; ``socket`` serves what comes
        later."""
        file = os.open(directory / TAPE_NAME / FILE_NAME, os.O_RDONLY | os.O_CLOEXEC)
        super().__init__(file)
        self._socket = socket
        self._exchange_id = exchange_id
        self.begin_at(standing)

    async def follow(self, after: Position = START) -> AsyncIterator[Released]:
        """Yield what comes after the event at ``after``, until the market closes. One caller only.

        Raises NoSuchPosition, and JournalError if the stream breaks off.
        """
        for released in self.read(*after):
            yield released
        others = stream.subscribe(self._socket, self.last, exchange_id=self._exchange_id)
        async for released in others:
            start, texts = self.end, len(pack_texts(released.texts))
            size = RECORD_BYTES + len(released.events) + texts
            self._extend(released.epoch, released.first_sequence, released.events, size)
            self._remember(released, start)
            yield released

    def _has(self, end: int) -> bool:
        """Whether the file holds the stream up to ``end``.

        While the market's disk is full its newest records are in memory only, and so they are here.
        """
        return end <= os.fstat(self._file).st_size

    def _resume(self, position: Position) -> tuple[Released | None, int]:
        """As ``Reel._resume``. A position beyond what this follower has received, which another
        follower has seen, is looked up in the file; the record itself still arrives over the
        socket."""
        offset = self.end
        if position[1] <= self.last[1]:
            return super()._resume(position)
        while (head := unpack_head(self._bytes(RECORD_BYTES, offset))) is not None:
            if position[1] < head.first_sequence + head.count:
                released, offset = self._load(offset)
                after_event(released, position)
                return None, offset
            offset += head.length
        raise NoSuchPosition(position, f"released are 1 to {self.last[1]}")
