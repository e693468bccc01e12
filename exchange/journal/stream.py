"""The released stream over a Unix socket: the tape's bytes, for a follower in another process.

The follower sends its resume point; the server answers with the preamble and then with records
for as long as the market lives, or with one refusal. docs/reference/stream.md has the bytes.
"""

import asyncio
import os
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
RESUME_SECONDS_MAX: Final = 5  # a follower that does not say where it stands is let go


async def serve(tape: Tape, path: Path) -> asyncio.Server:
    """Serve the tape to any number of followers until it is closed.

    A slow follower is read to from disk at its own pace; it holds up nobody. The socket is this
    user's alone.
    """

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A follower may leave at any byte; that is its right and no error of ours.
        with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(RESUME_SECONDS_MAX):
                position = RESUME.unpack(await reader.readexactly(RESUME.size))
            await _send(tape, position, writer)
        writer.close()

    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(attend, path)
    finally:
        os.umask(mask)


async def _send(tape: Tape, position: Position, writer: asyncio.StreamWriter) -> None:
    writer.write(tape.preamble)
    try:
        async for released in tape.follow(position):
            writer.write(pack_released(released))
            await writer.drain()
    except NoSuchPosition as refused:
        reason = str(refused).encode()
        writer.write(REFUSAL.pack(REFUSAL_MAGIC, len(reason)) + reason)
    await writer.drain()


async def subscribe(
    path: Path, after: Position = START, *, exchange_id: bytes | None = None
) -> AsyncIterator[Released]:
    """Yield what comes after that event from the server at ``path``, until the market closes.

    Raises NoSuchPosition, and JournalError for another exchange, a later build, or a stream that
    breaks off inside a record.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(RESUME.pack(*after))
        found = check_preamble(await reader.readexactly(PREAMBLE.size))
        if exchange_id not in (None, found):
            raise JournalError(f"the stream is of exchange {found.hex()}")
        while (start := await _start(reader)) is not None:
            if start[:4] == REFUSAL_MAGIC:
                raise NoSuchPosition(after, await _reason(reader, start))
            head = unpack_head(start + await reader.readexactly(RECORD_BYTES - len(start)))
            if head is None:
                raise JournalError("the stream is out of step")
            body = await reader.readexactly(head.length - RECORD_BYTES)
            yield unpack_record(head, body)
    except asyncio.IncompleteReadError as cut:
        raise JournalError("the stream broke off inside a record") from cut
    finally:
        writer.close()


async def _start(reader: asyncio.StreamReader) -> bytes | None:
    """The first bytes of what comes next; None where the stream ends between two records."""
    try:
        return await reader.readexactly(REFUSAL.size)
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None


async def _reason(reader: asyncio.StreamReader, start: bytes) -> str:
    _, size = REFUSAL.unpack(start)
    return (await reader.readexactly(size)).decode()
