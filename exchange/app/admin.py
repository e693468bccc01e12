"""How operators reach a market: the admin socket, and the same requests over HTTP for ``--url``.

``DIR/admin.sock`` takes one JSON request per line and gives one JSON answer per line. It is a Unix
socket of mode 0600: whoever can open it may operate the market. An answer is ``{"ok": true,
"result": {...}}`` or ``{"ok": false, "error": "what to do"}``.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from exchange.app.approvals import SOCKET_PERSON
from exchange.app.asking import LINE_BYTES_MAX, SOCKET_NAME, TOO_LONG, Answer
from exchange.app.operations import Operations
from exchange.app.requests import AnyRequest, ClearingDesk
from exchange.app.wishes import RequestRefused
from exchange.gateway.access import Key
from exchange.gateway.decode import Refused
from exchange.messages import Reason
from exchange.messages.access import Right
from exchange.sequencer import Closed, QueueFull

_log = logging.getLogger(__name__)
_decode_request = msgspec.json.Decoder(AnyRequest).decode

Perform = Callable[[AnyRequest, str], Awaitable[Answer]]  # a request, and the key it came under


@contextlib.asynccontextmanager
async def serving(directory: Path, operations: Operations) -> AsyncIterator[Path]:
    """Serve the socket while the block runs; yield its path."""
    path = directory / SOCKET_NAME
    path.unlink(missing_ok=True)  # left by a crash: this process holds the directory's lock

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while told := await _told(reader, operations):
                writer.write(msgspec.json.encode(told) + b"\n")
                await writer.drain()
                if told is TOO_LONG:
                    break
        except ConnectionError:
            pass  # disconnected
        finally:
            writer.close()

    bound = _bound(path)
    server = await asyncio.start_unix_server(converse, sock=bound, limit=LINE_BYTES_MAX)
    try:
        yield path
    finally:
        server.close()
        path.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket:
    """Return a Unix socket bound at a path, accessible to the owner only from the start."""
    bound = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        bound.bind(os.fspath(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(mask)
    return bound


async def _told(reader: asyncio.StreamReader, operations: Operations) -> Answer | None:
    """Return the answer to the next line; None at the end."""
    try:
        line = await reader.readline()
    except ValueError:  # the line's end was not searched further, so what follows is no request
        return TOO_LONG
    return await answer_line(line, operations, SOCKET_PERSON) if line else None


async def answer(
    request: AnyRequest, operations: Operations, person: str = SOCKET_PERSON
) -> Answer:
    """Perform a request of a person and return the answer. A refusal is an answer as well, and so
    is a failure, whose details are logged."""
    try:
        return Answer(True, await operations.perform(request, person))
    except (RequestRefused, QueueFull, Closed) as error:
        return Answer(False, error=str(error))
    except TimeoutError:
        return Answer(False, error="the market did not answer in time; look at its log")
    except Exception as error:
        _log.exception("%s failed", type(request).__name__)
        return Answer(False, error=f"failed, {type(error).__name__}: {error}; look at the log")


async def answer_line(line: bytes, operations: Operations, person: str) -> Answer:
    """As ``answer``, for a request in JSON. ``person``: as there."""
    try:
        request = _decode_request(line)
    except msgspec.MsgspecError as error:
        return Answer(False, error=f"not a request: {error}")
    return await answer(request, operations, person)


async def answer_signed(body: bytes, perform: Perform, key: Key) -> Answer:
    """Have a JSON request performed that was signed with a key. Raises Refused if the key's scope
    does not allow it."""
    try:
        request = _decode_request(body)
    except msgspec.MsgspecError as error:
        request, answered = None, Answer(False, error=f"not a request: {error}")
    right = Right.CLEAR if isinstance(request, ClearingDesk) else Right.ADMIN
    if not key.may(right):
        raise Refused(Reason.SCOPE, None, f"the key's scope is {key.scope}")
    return answered if request is None else await perform(request, key.key_id)
