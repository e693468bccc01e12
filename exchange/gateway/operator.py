"""Operators over HTTP: ``POST /api/v1/admin``, for keys of scope admin.

The body is a request of the admin socket and so is the answer. It is signed as a logon is, with
the SHA-256 of the body, read as a big-endian number, in the place of ``resume_session``; the
signature's parts travel in headers. Keys travel in clear in some answers: listen on loopback, or
behind TLS.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final

from aiohttp import web

from exchange.gateway.auth import Key, Keys
from exchange.messages import Reason
from exchange.messages.wire import Logon, Rejected, encode_json

ADMIN_PATH: Final = "/api/v1/admin"
KEY_HEADER: Final = "Hourbook-Key"
TIMESTAMP_HEADER: Final = "Hourbook-Timestamp"
NONCE_HEADER: Final = "Hourbook-Nonce"
SIGNATURE_HEADER: Final = "Hourbook-Signature"


def add_route(
    application: web.Application,
    keys: Keys,
    now_ms: Callable[[], int],
    answer: Callable[[bytes, str], Awaitable[bytes]],
) -> None:
    """Serve operators; ``answer`` turns the body of an admitted request, and the key id that it
    came under, into the body of its answer."""

    async def serve(request: web.Request) -> web.Response:
        body = await request.read()
        judged = _judge(request, body, keys, now_ms())
        if isinstance(judged, Reason):
            rejected = Rejected(number=judged, name=judged.name)
            return web.Response(
                body=encode_json(rejected), status=403, content_type="application/json"
            )
        answered = await answer(body, judged.key_id)
        return web.Response(body=answered, content_type="application/json")

    application.router.add_post(ADMIN_PATH, serve)


def body_number(body: bytes) -> int:
    """What stands in the signed text for the body."""
    return int.from_bytes(sha256(body).digest())


def _judge(request: web.Request, body: bytes, keys: Keys, now_ms: int) -> Key | Reason:
    """The key that the request came under, or why it is not admitted."""
    headers = request.headers
    try:
        logon = Logon(
            key_id=headers[KEY_HEADER],
            timestamp_ms=int(headers[TIMESTAMP_HEADER]),
            nonce=int(headers[NONCE_HEADER]),
            signature=headers[SIGNATURE_HEADER],
            resume_session=body_number(body),
        )
    except (KeyError, ValueError):
        return Reason.AUTH_REQUIRED
    judged = keys.check(logon, now_ms)
    if isinstance(judged, Reason):
        return judged
    return judged if judged.scope == "admin" else Reason.SCOPE
