"""Operator requests over HTTP: ``POST /api/v1/admin``, for keys of scope admin or clear.

Body and answer are those of the admin socket; requests are signed like all HTTP requests. Some
answers contain secrets of keys in clear text: listen on loopback, or use TLS.
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
    """Add the route.

    ``answer`` returns the answer's body for a request's body and its key, or raises Refused.
    ``count`` counts a request of an address, or raises Refused if there are too many.
    """

    async def serve(request: web.Request) -> web.Response:
        try:
            count(request.remote or "")
            body = await request.read()
            return json_answer(await answer(body, admit(request, body, keys, now_ms())))
        except Refused as refused:
            return answer_refused(refused)

    application.router.add_post(ADMIN_PATH, serve)
