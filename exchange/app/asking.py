"""How an operator's command reaches a market: its admin socket, or HTTP with an admin key.

Separate from ``admin``, which answers: sending a request needs nothing of the market's code.
"""

import asyncio
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.app.requests import AnyRequest
from exchange.messages.access import (
    ADMIN_PATH,
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    signed_request,
)

SOCKET_NAME: Final = "admin.sock"
LINE_BYTES_MAX: Final = 1 << 20  # of a request
ANSWER_BYTES_MAX: Final = 1 << 30
SOCKET_PATH_BYTES: Final = 107  # longest path of a Unix socket
URL_SECONDS: Final = 60.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirects: what is signed for one market must not be sent elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


class AdminKey(msgspec.Struct, frozen=True):
    """A key, as in its file."""

    key_id: str
    secret: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one request."""

    ok: bool
    result: dict[str, Any] = {}
    error: str = ""


TOO_LONG: Final = Answer(False, error=f"a request has at most {LINE_BYTES_MAX} bytes")


def fits_socket(path: Path) -> bool:
    """Whether a Unix socket can have that path."""
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES


async def ask(directory: Path, request: AnyRequest) -> Answer | None:
    """Send one request to the market that serves ``directory``; return None if none does.

    Raises ConnectionError if the market stops before it has answered, and another OSError if its
    socket may not be used.
    """
    path, line = directory / SOCKET_NAME, msgspec.json.encode(request)
    if not fits_socket(path):  # so nobody can be serving there
        return None
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES_MAX)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:  # the system names no socket's file
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        if len(line) > LINE_BYTES_MAX:
            return TOO_LONG
        writer.write(line + b"\n")
        await writer.drain()
        told = await reader.readline()
    finally:
        writer.close()
    await writer.wait_closed()
    if not told:
        raise ConnectionError("the market stopped before it answered")
    return msgspec.json.decode(told, type=Answer)


def ask_url(url: str, key_file: Path, request: AnyRequest) -> Answer:
    """Send one request to the market at ``http://HOST:PORT``, signed with an admin key.

    Raises URLError if no market answers there; another OSError if the connection broke before the
    answer, or there was none within URL_SECONDS, so that the request may have been performed;
    ValueError for an invalid URL. A refused key is an answer.
    """
    from exchange.gateway.access import sign  # noqa: PLC0415 - not needed for the socket

    try:
        key = msgspec.json.decode(key_file.read_bytes(), type=AdminKey)
    except msgspec.MsgspecError as error:
        return Answer(False, error=f"{key_file} holds no admin key: {error}")
    body = msgspec.json.encode(request)
    nonce = time.time_ns()
    timestamp_ms = nonce // 1_000_000
    text = signed_request(timestamp_ms, nonce, key.key_id, "POST", ADMIN_PATH, body)
    headers = {
        KEY_HEADER: key.key_id,
        TIMESTAMP_HEADER: str(timestamp_ms),
        NONCE_HEADER: str(nonce),
        SIGNATURE_HEADER: sign(key.secret, text),
        "Content-Type": "application/json",
    }
    base = url.rstrip("/").removesuffix("/api/v1")
    try:
        posted = urllib.request.Request(base + ADMIN_PATH, body, headers)
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(posted, timeout=URL_SECONDS) as response:
            return msgspec.json.decode(response.read(), type=Answer)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(False, error=f"{url} refused: {error.code} {error.read().decode()}")
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {URL_SECONDS:g} s") from error
    except http.client.InvalidURL as error:
        raise ValueError(str(error)) from error
    except (http.client.HTTPException, msgspec.MsgspecError) as error:
        raise ConnectionError(f"what answers is no market: {error!r}") from error
