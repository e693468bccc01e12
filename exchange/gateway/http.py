"""Common parts of all HTTP requests of the gateway: signatures, rejects, answer headers.

The parts of a signature are four headers, so that no secret is ever in a URL. A refused request is
answered with the same reject as on the WebSocket; the status depends only on its reason.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from exchange.gateway.access import Key, Proof
from exchange.gateway.auth import Keys
from exchange.gateway.decode import ID, Refused
from exchange.gateway.rejects import from_refused
from exchange.messages import Reason
from exchange.messages.access import (
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    AnyReason,
    GatewayReason,
    signed_request,
)
from exchange.messages.wire import encode_json

DIGITS_MAX: Final = 20  # of a number in a header
BAD_REQUEST: Final = 400
STATUS: Final[dict[AnyReason, int]] = {
    Reason.AUTH_REQUIRED: 401,
    Reason.BAD_SIGNATURE: 401,
    Reason.TIMESTAMP: 401,
    Reason.NONCE: 401,
    Reason.KEY_LOCKED: 401,
    Reason.SCOPE: 403,
    GatewayReason.ADDRESS: 403,
    Reason.NOT_FOUND: 404,
    Reason.UNKNOWN_INSTRUMENT: 404,
    Reason.UNKNOWN_ACCOUNT: 404,
    Reason.UNKNOWN_COMMAND: 405,
    GatewayReason.BODY_TOO_LARGE: 413,
    Reason.THROTTLED: 429,
    GatewayReason.CONNECTIONS_FULL: 429,
    GatewayReason.REQUESTS_FULL: 429,
    Reason.NOT_TRADING: 503,
    Reason.CANCEL_ONLY: 503,
    Reason.QUEUE_FULL: 503,
    Reason.LOG_FULL: 503,
}


_OF_HTTP: Final[dict[int, AnyReason]] = {
    404: Reason.NOT_FOUND,
    405: Reason.UNKNOWN_COMMAND,
    413: GatewayReason.BODY_TOO_LARGE,
}


NO_PATH: Final = "no such path; /openapi.json has those that there are"
_OTHERS: Final = ("/ws", "/api/v2")  # paths with error answers of their own


class Flood:
    """The requests of the current second, by address."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._second = 0

    def count(self, address: str, most: int, cost: int = 1) -> None:
        """Count ``cost`` requests of an address.

        Raises Refused REQUESTS_FULL if it had ``most`` or more in this second before.
        """
        second = time.monotonic_ns() // 1_000_000_000
        if second != self._second:
            self._second = second
            self._requests.clear()
        spent = self._requests[address]
        self._requests[address] = spent + cost
        if spent >= most:
            raise Refused(GatewayReason.REQUESTS_FULL, None, "a second", limit=str(most))


def guard_answer(answer: web.StreamResponse) -> None:
    """Set headers that forbid caching and content sniffing, and a Server without a version."""
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Server"] = "hourbook"


def json_answer(body: bytes, status: int = 200) -> web.Response:
    """Return an answer in JSON."""
    return web.Response(body=body, status=status, content_type="application/json")


def answer_refused(refused: Refused, headers: dict[str, str] | None = None) -> web.Response:
    """Return the answer of a refused request: its reject, with the status of its reason."""
    told = from_refused(refused)
    answer = json_answer(encode_json(told), STATUS.get(refused.reason, BAD_REQUEST))
    answer.headers.update(headers or {})
    if told.retry_after_ms is not None:
        answer.headers["Retry-After"] = str(-(-told.retry_after_ms // 1_000))
    return answer


@web.middleware
async def name_refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer errors of the HTTP library with rejects, except under ``_OTHERS``."""
    try:
        return await handler(request)
    except web.RequestPayloadError:
        why = "a body that is not encoded as its headers say"
        answer = answer_refused(Refused(Reason.SYNTAX, None, why))
        if request.path.startswith(_OTHERS):
            answer = web.Response(status=BAD_REQUEST, text=why)
        answer.force_close()
        request.content.feed_eof()  # the rest is not read
        return answer
    except web.HTTPException as error:
        reason = _OF_HTTP.get(error.status)
        if reason is None or request.path.startswith(_OTHERS):
            raise
        why = NO_PATH if reason is Reason.NOT_FOUND else error.reason
        allowed = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        return answer_refused(Refused(reason, None, why), allowed)


def admit(request: web.Request, body: bytes, keys: Keys, now_ms: int) -> Key:
    """Return the key that signed a request; raises Refused."""
    headers = request.headers
    key_id, signature = headers.get(KEY_HEADER, ""), headers.get(SIGNATURE_HEADER, "")
    numbers = [headers.get(name, "") for name in (TIMESTAMP_HEADER, NONCE_HEADER)]
    if ID.fullmatch(key_id) is None or not all(map(_is_number, numbers)):
        told = f"sign the request: {KEY_HEADER}, {TIMESTAMP_HEADER}, {NONCE_HEADER}"
        raise Refused(Reason.AUTH_REQUIRED, None, f"{told}, {SIGNATURE_HEADER}")
    timestamp_ms, nonce = map(int, numbers)
    text = signed_request(timestamp_ms, nonce, key_id, request.method, target_of(request), body)
    proof = Proof(key_id, text, signature, timestamp_ms, nonce, request.remote or "")
    judged = keys.check(proof, now_ms)
    if not isinstance(judged, Key):
        raise Refused(judged)
    return judged


def target_of(request: web.Request) -> str:
    """Return a request's target as it was sent, without scheme and host.

    Raises Refused SYNTAX unless it is ASCII.
    """
    target = request.raw_path
    if not target.isascii():
        raise Refused(Reason.SYNTAX, None, "a target that is not ASCII")
    return target if target.startswith("/") else request.rel_url.raw_path_qs


def _is_number(text: str) -> bool:
    return len(text) <= DIGITS_MAX and text.isascii() and text.isdigit()
