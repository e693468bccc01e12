"""How operators reach a market: the admin socket, and its HTTP twin for ``--url``.

``DIR/admin.sock`` takes one JSON request a line and gives one JSON answer a line.

It is a Unix socket of mode 0600: whoever may open it may operate the market, and nobody else.
An answer is ``{"ok": true, "result": {...}}`` or ``{"ok": false, "error": "what to do"}``.
"""

import asyncio
import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.app.approvals import SOCKET_PERSON
from exchange.app.operations import Operations
from exchange.app.requests import AnyRequest, ClearingDesk
from exchange.app.wishes import RequestRefused
from exchange.gateway.access import Key, sign
from exchange.gateway.decode import Refused
from exchange.gateway.http import KEY_HEADER, NONCE_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from exchange.gateway.operator import ADMIN_PATH
from exchange.messages import Reason
from exchange.messages.access import Right, signed_request
from exchange.sequencer import Closed, QueueFull

SOCKET_NAME: Final = "admin.sock"
LINE_BYTES_MAX: Final = 1 << 20
URL_SECONDS: Final = 60.0

_decode_request = msgspec.json.Decoder(AnyRequest).decode


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What comes back for one request."""

    ok: bool
    result: dict[str, Any] = {}
    error: str = ""


Perform = Callable[[AnyRequest, str], Awaitable[Answer]]  # a request of a person


@contextlib.asynccontextmanager
async def serving(directory: Path, operations: Operations) -> AsyncIterator[Path]:
    """Serve the socket while the block runs; yields its path."""
    path = directory / SOCKET_NAME
    path.unlink(missing_ok=True)  # left by a crash; the directory's lock says nobody else serves

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                told = await answer_line(line, operations, SOCKET_PERSON)
                writer.write(msgspec.json.encode(told) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # gone, or a line longer than the limit
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(converse, path, limit=LINE_BYTES_MAX)
    path.chmod(0o600)
    try:
        yield path
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def answer(
    request: AnyRequest, operations: Operations, person: str = SOCKET_PERSON
) -> Answer:
    """Perform a request of a person; a refusal is an answer, too."""
    try:
        return Answer(True, await operations.perform(request, person))
    except (RequestRefused, QueueFull, Closed) as error:
        return Answer(False, error=str(error))
    except TimeoutError:
        return Answer(False, error="the market did not answer in time; look at its log")


async def answer_line(line: bytes, operations: Operations, person: str) -> Answer:
    """As ``answer``, for a request in JSON."""
    try:
        request = _decode_request(line)
    except msgspec.MsgspecError as error:
        return Answer(False, error=f"not a request: {error}")
    return await answer(request, operations, person)


async def answer_signed(body: bytes, perform: Perform, key: Key) -> Answer:
    """Have a request in JSON performed that came under a key; raises Refused for one beyond its
    scope.
    """
    try:
        request = _decode_request(body)
    except msgspec.MsgspecError as error:
        request, answered = None, Answer(False, error=f"not a request: {error}")
    right = Right.CLEAR if isinstance(request, ClearingDesk) else Right.ADMIN
    if not key.may(right):
        raise Refused(Reason.SCOPE, None, f"the key's scope is {key.scope}")
    return answered if request is None else await perform(request, key.key_id)


async def ask(directory: Path, request: AnyRequest) -> Answer | None:
    """Put one request to the market that serves ``directory``; None if none does."""
    try:
        reader, writer = await asyncio.open_unix_connection(
            directory / SOCKET_NAME, limit=LINE_BYTES_MAX
        )
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    writer.write(msgspec.json.encode(request) + b"\n")
    await writer.drain()
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    if not line:
        raise ConnectionError("the market stopped before it answered")
    return msgspec.json.decode(line, type=Answer)


def ask_url(url: str, key_file: Path, request: AnyRequest) -> Answer:
    """Put one request to the market at ``http://HOST:PORT``, signed with an admin key.

    Raises OSError if nobody answers there; a refused key is an answer.
    """
    key = msgspec.json.decode(key_file.read_bytes(), type=dict[str, str])
    body = msgspec.json.encode(request)
    nonce = time.time_ns()
    timestamp_ms = nonce // 1_000_000
    text = signed_request(timestamp_ms, nonce, key["key_id"], "POST", ADMIN_PATH, body)
    headers = {
        KEY_HEADER: key["key_id"],
        TIMESTAMP_HEADER: str(timestamp_ms),
        NONCE_HEADER: str(nonce),
        SIGNATURE_HEADER: sign(key["secret"], text),
        "Content-Type": "application/json",
    }
    base = url.rstrip("/").removesuffix("/api/v1")
    posted = urllib.request.Request(base + ADMIN_PATH, body, headers)
    try:
        with urllib.request.urlopen(posted, timeout=URL_SECONDS) as response:
            return msgspec.json.decode(response.read(), type=Answer)
    except urllib.error.HTTPError as error:
        return Answer(False, error=f"{url} refused: {error.code} {error.read().decode()}")
