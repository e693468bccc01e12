"""A proxy in front of a market that adds faults to the frames sent to WebSocket clients.

It forwards WebSockets and HTTP to the market's port, and decodes frames only to apply faults, so it
works with any market. ``POST /api/v1/sandbox/faults`` demands a fault; it is not signed, since a
sandbox holds no real money.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

import aiohttp
import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from exchange.gateway.decode import explain
from exchange.gateway.faults import Order, Trouble
from exchange.gateway.http import answer_refused, json_answer
from exchange.gateway.server import BODY_BYTES, CLOSE_SECONDS, PING_SECONDS

FAULTS_PATH: Final = "/api/v1/sandbox/faults"
FRAME_BYTES_MAX: Final = 1 << 26  # of one frame from the market
CLOSE_GONE: Final = 1001
_DATA: Final = (WSMsgType.TEXT, WSMsgType.BINARY)
# Headers of a single hop, which the libraries set for each side themselves.
_HOP: Final = frozenset(
    (
        "connection",
        "content-encoding",
        "content-length",
        "date",
        "host",
        "server",
        "transfer-encoding",
    )
)


class Relay:
    """A proxy to the market at the URL ``market``, such as ``http://host:port``.

    Call ``start``, then ``close``.
    """

    def __init__(self, market: str, trouble: Trouble) -> None:
        self._market = market
        self._trouble = trouble
        self._http: aiohttp.ClientSession | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port, a free one if it was 0."""
        application = web.Application(client_max_size=BODY_BYTES)
        application.router.add_post(FAULTS_PATH, self._order)
        application.router.add_route("*", "/{path:.*}", self._pass_on)
        self._http = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=CLOSE_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        listening: int = self._runner.addresses[0][1]
        return listening

    async def close(self) -> None:
        """Close every connection and stop listening."""
        for socket in list(self._sockets):
            await socket.close(code=CLOSE_GONE, message=b"the sandbox is stopping")
        if self._runner is not None:
            await self._runner.cleanup()
        if self._http is not None:
            await self._http.close()

    async def _order(self, request: web.Request) -> web.Response:
        try:
            order = msgspec.json.decode(await request.read(), type=Order)
        except msgspec.DecodeError as error:
            return answer_refused(explain(error))
        return json_answer(msgspec.json.encode(self._trouble.order(order)))

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._converse(request)
        body = await request.read()  # decompressed
        headers = _passed(request.headers, "content-encoding")
        async with self._client.request(
            request.method, self._target(request), headers=headers, data=body
        ) as answer:
            return web.Response(
                status=answer.status, headers=_passed(answer.headers), body=await answer.read()
            )

    async def _converse(self, request: web.Request) -> web.StreamResponse:
        """Forward a WebSocket both ways until either side closes it."""
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        protocols = [name.strip() for name in offered.split(",") if name.strip()]
        origin = {name: request.headers[name] for name in ("Origin",) if name in request.headers}
        try:
            market = await self._client.ws_connect(
                self._target(request),
                protocols=protocols,
                max_msg_size=FRAME_BYTES_MAX,
                headers=origin,
            )
        except aiohttp.WSServerHandshakeError as refused:
            return web.Response(status=refused.status, text=refused.message)
        client = web.WebSocketResponse(
            protocols=protocols,
            compress=False,
            max_msg_size=FRAME_BYTES_MAX,  # the market has its own limit
            heartbeat=PING_SECONDS,
            timeout=CLOSE_SECONDS,
        )
        try:
            await client.prepare(request)
        except ConnectionError:  # the client disconnected during the handshake
            await market.close()
            return web.Response()
        self._sockets.add(client)
        asking = asyncio.create_task(self._ask(client, market))
        try:
            await self._tell(request, client, market)
        finally:
            asking.cancel()
            self._sockets.discard(client)
            await market.close()
        return client

    @property
    def _client(self) -> aiohttp.ClientSession:
        assert self._http is not None, "started"
        return self._http

    def _target(self, request: web.Request) -> str:
        return f"{self._market}{request.rel_url.raw_path_qs}"

    async def _ask(
        self, client: web.WebSocketResponse, market: aiohttp.ClientWebSocketResponse
    ) -> None:
        """Forward the client's messages to the market unchanged."""
        with contextlib.suppress(ConnectionError):  # `_tell` sees the market's end
            async for message in client:
                if message.type in _DATA:
                    data = message.data
                    await market.send_frame(
                        data.encode() if isinstance(data, str) else data, message.type
                    )
        await market.close()

    async def _tell(
        self,
        request: web.Request,
        client: web.WebSocketResponse,
        market: aiohttp.ClientWebSocketResponse,
    ) -> None:
        """Forward the market's messages to the client, with faults."""

        def cut() -> None:
            if request.transport is not None:
                request.transport.abort()

        with contextlib.suppress(ConnectionError):  # the client is gone
            async for message in market:
                if message.type in _DATA:
                    data = message.data
                    frame = data.encode() if isinstance(data, str) else data
                    await self._trouble.carry(frame, message.type, client.send_frame, cut)
            if market.close_code in (None, WSCloseCode.ABNORMAL_CLOSURE):
                cut()  # the market's connection ended without a close as well
            else:
                await client.close(code=market.close_code)


def _passed(headers: Mapping[str, str], *but: str) -> dict[str, str]:
    """The headers to forward: all but those of a single hop and those named in ``but``."""
    return {name: text for name, text in headers.items() if name.lower() not in _HOP.union(but)}
