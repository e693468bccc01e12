"""The released stream over a Unix socket: the tape's bytes, for followers in other processes.

The follower sends its resume point; the server answers with the preamble and then with records
until the market closes, or with one refusal. Layout of the bytes: docs/reference/stream.md.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from struct import Struct as Layout
from typing import Final

from exchange.journal.errors import JournalError, NoSuchPosition
from exchange.journal.tape import (
    PREAMBLE,
    RECORD_BYTES,
    START,
    Position,
    RecordHead,
    Released,
    Tape,
    check_preamble,
    pack_released,
    unpack_head,
    unpack_record,
)

RESUME: Final = Layout("<IQI")  # epoch, sequence, index of the last event seen
REFUSAL: Final = Layout("<4sI")  # magic, bytes of the reason that follows
REFUSAL_MAGIC: Final = b"HBNO"
READ_BYTES: Final = 1 << 18  # at a time
RESUME_SECONDS_MAX: Final = 5  # a follower that sends no resume point within this is disconnected


async def serve(tape: Tape, path: Path, *, patient: bool = False) -> asyncio.Server:
    """Serve the tape to any number of followers until it is closed.

    A slow follower is served from disk at its own pace and delays nobody. ``patient`` followers get
    each record after those in this process have handled it. Only this user may connect.
    """

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A follower may disconnect at any byte; that is no error here.
        with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(RESUME_SECONDS_MAX):
                position = RESUME.unpack(await reader.readexactly(RESUME.size))
            await _send(tape.follow(position, patient=patient), tape.preamble, writer)
        writer.close()

    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(attend, path)
    finally:
        os.umask(mask)


async def _send(
    following: AsyncIterator[Released], preamble: bytes, writer: asyncio.StreamWriter
) -> None:
    writer.write(preamble)
    try:
        async for released in following:
            writer.write(pack_released(released))
            await writer.drain()
    except NoSuchPosition as refused:
        reason = str(refused).encode()
        writer.write(REFUSAL.pack(REFUSAL_MAGIC, len(reason)) + reason)
    await writer.drain()


class Arriving:
    """Assembles the bytes that a follower is sent into records; ``after`` is its resume point.

    Raises NoSuchPosition, and JournalError for another exchange, a later build, or a stream that
    breaks off inside a record.
    """

    def __init__(self, after: Position, exchange_id: bytes | None = None) -> None:
        self._after = after
        self._exchange_id = exchange_id
        self._begun = False
        self._held = bytearray()  # the beginning of an incomplete record

    def take(self, data: bytes) -> list[Released]:
        """Return the records that these bytes complete."""
        held, at = self._held, 0
        held += data
        if not self._begun:
            if len(held) < PREAMBLE.size:
                return []
            found = check_preamble(bytes(held[: PREAMBLE.size]))
            if self._exchange_id not in (None, found):
                raise JournalError(f"the stream is of exchange {found.hex()}")
            self._begun, at = True, PREAMBLE.size
        whole = []
        while (head := self._head(at)) is not None and len(held) - at >= head.length:
            body = bytes(held[at + RECORD_BYTES : at + head.length])
            whole.append(unpack_record(head, body))
            at += head.length
        del held[:at]
        return whole

    def _head(self, at: int) -> RecordHead | None:
        """Return the header at an offset; None if it is incomplete."""
        held = self._held
        if held[at : at + len(REFUSAL_MAGIC)] == REFUSAL_MAGIC:
            start = at + REFUSAL.size
            if len(held) >= start and len(held) - start >= REFUSAL.unpack_from(held, at)[1]:
                raise NoSuchPosition(self._after, held[start:].decode())
            return None
        if len(held) - at < RECORD_BYTES:
            return None
        head = unpack_head(bytes(held[at : at + RECORD_BYTES]))
        if head is None:
            raise JournalError("the stream is out of step")
        return head

    def end(self) -> None:
        """Note the end of the stream. Raises JournalError if it ended inside a record."""
        if self._held or not self._begun:
            raise JournalError("the stream broke off inside a record")


async def subscribe(
    path: Path, after: Position = START, *, exchange_id: bytes | None = None
) -> AsyncIterator[Released]:
    """Yield what comes after that event from the server at ``path``, until the market closes.

    Raises what ``Arriving`` does.
    """
    arriving = Arriving(after, exchange_id)
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(RESUME.pack(*after))
        while data := await reader.read(READ_BYTES):
            for released in arriving.take(data):
                yield released
        arriving.end()
    finally:
        writer.close()


class Subscription:
    """A blocking follower, for a thread that does nothing else meanwhile."""

    def __init__(self, path: Path, after: Position = START) -> None:
        """Connect to the server at ``path``, for what comes after the event at ``after``."""
        self._arriving = Arriving(after)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._socket.sendall(RESUME.pack(*after))

    def come(self, most: int) -> list[Released]:
        """Wait for at least one record; return those that have arrived, stopping after ``most``
        (the last read may add more). Empty once the market has closed. Raises what ``Arriving``
        does."""
        found: list[Released] = []
        while not found:
            data = self._socket.recv(READ_BYTES)
            if not data:
                self._arriving.end()
                return found
            found = self._arriving.take(data)
        with suppress(BlockingIOError):
            while len(found) < most:
                data = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
                if not data:
                    break
                found += self._arriving.take(data)
        return found

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()
