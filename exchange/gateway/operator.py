"""Operators over HTTP: ``POST /api/v1/admin``, for keys of scope admin or clear.

The body is a request of the admin socket and so is the answer; it is signed as every HTTP request
is. Keys travel in clear in some answers: listen on loopback, or with TLS.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

from exchange.gateway.access import Key
from exchange.gateway.auth import Keys
from exchange.gateway.decode import Refused
from exchange.gateway.http import admit, answer_refused, json_answer
from exchange.messages.access import ADMIN_PATH


def add_route(
    application: web.Application,
    keys: Keys,
    now_ms: Callable[[], int],
    answer: Callable[[bytes, Key], Awaitable[bytes]],
    count: Callable[[str], None],
) -> None:
    """Serve operators; ``answer`` turns the body of a signed request, and the key that it came
    under, into the body of its answer, or raises Refused; ``count`` counts a request of an address
    and raises Refused if that makes too many."""

    async def serve(request: web.Request) -> web.Response:
        try:
            count(request.remote or "")
            body = await request.read()
            return json_answer(await answer(body, admit(request, body, keys, now_ms())))
        except Refused as refused:
            return answer_refused(refused)

    application.router.add_post(ADMIN_PATH, serve)
