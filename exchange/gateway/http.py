"""What every HTTP request of the gateway goes through: its signature, and a reject as its answer.

The parts of the signature travel in four headers, so that no secret is ever in a URL. The answer
to a refused request is the reject of the WebSocket, and its status follows from the reason alone.
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
_OTHERS: Final = ("/ws", "/api/v2")  # sockets, and what has answers of its own


class Flood:
    """The requests of this second, by address."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._second = 0

    def count(self, address: str, most: int, cost: int = 1) -> None:
        """Count a request, or what it costs; raises Refused if its address had spent all that it
        may."""
        second = time.monotonic_ns() // 1_000_000_000
        if second != self._second:
            self._second = second
            self._requests.clear()
        spent = self._requests[address]
        self._requests[address] = spent + cost
        if spent >= most:
            raise Refused(GatewayReason.REQUESTS_FULL, None, "a second", limit=str(most))


def guard_answer(answer: web.StreamResponse) -> None:
    """Say of an answer that nobody keeps it or takes it for something else, and no version."""
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Server"] = "hourbook"


def json_answer(body: bytes, status: int = 200) -> web.Response:
    """Return an answer in JSON."""
    return web.Response(body=body, status=status, content_type="application/json")


def answer_refused(refused: Refused, headers: dict[str, str] | None = None) -> web.Response:
    """Return the reject that a refusal is, with the status of its reason."""
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
    """Give what the HTTP library itself refuses its name and number, too, but in others' rooms."""
    try:
        return await handler(request)
    except web.RequestPayloadError:
        why = "a body that is not encoded as its headers say"
        answer = answer_refused(Refused(Reason.SYNTAX, None, why))
        if request.path.startswith(_OTHERS):
            answer = web.Response(status=BAD_REQUEST, text=why)
        answer.force_close()
        request.content.feed_eof()  # nobody reads the rest of it
        return answer
    except ConnectionError:
        if request.transport is not None:
            raise
        return web.Response(status=BAD_REQUEST)  # to nobody: the connection ended in the body
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
    """Return what a request asks for as it was sent, without the host; raises Refused."""
    target = request.raw_path
    if not target.isascii():
        raise Refused(Reason.SYNTAX, None, "a target that is not ASCII")
    return target if target.startswith("/") else request.rel_url.raw_path_qs


def _is_number(text: str) -> bool:
    return len(text) <= DIGITS_MAX and text.isascii() and text.isdigit()
