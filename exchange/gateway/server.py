"""The gateway's HTTP and WebSocket server, on aiohttp.

One task follows the released stream. A connection's messages are taken as they are parsed, without
a task's turn of the event loop; its reader task handles the others: pings, the end, and messages
that came before it ran. Its writer task sends everything queued as one frame, unless that could be
sent at once.
"""

import asyncio
import contextlib
import logging
import os
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final, Protocol

from aiohttp import WSMessage, WSMsgType, web

from exchange.gateway import asyncapi, openapi
from exchange.gateway.arrivals import HANDSHAKE_SECONDS, KEEPALIVE_SECONDS, Arrivals, Spend
from exchange.gateway.asyncapi import ASYNCAPI_PATH
from exchange.gateway.decode import Refused
from exchange.gateway.frames import MaskedSocket, Take
from exchange.gateway.http import answer_refused, guard_answer, json_answer, name_refusals
from exchange.gateway.hub import Hub
from exchange.gateway.openapi import OPENAPI_PATH
from exchange.gateway.rest import PREFIX
from exchange.gateway.seats import Seats
from exchange.gateway.session import CLOSE_POLICY, JSON, MSGPACK, Session
from exchange.marketdata.stream import Released
from exchange.messages import Limit
from exchange.messages.access import ADMIN_PATH
from exchange.messages.rest import Health
from exchange.messages.wire import (
    HEARTBEAT_MS,
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    PROTOCOL_VERSION,
    encode_json,
)
from exchange.messages.wire_market import PERIOD_MS

PING_SECONDS: Final = 15.0  # between pings; a peer that answers none within half of it is lost
SILENT_SECONDS: Final = 5.0  # for a connection to log on or subscribe before it is closed
CLOSE_SECONDS: Final = 2.0
BATCHES_IN_ONE_GO: Final = 64
CLOSE_IDLE: Final = 4000
BODY_BYTES: Final = 1 << 20  # of an HTTP request, as sent and decompressed
PINGS_A_SECOND: Final = 32  # per connection, pongs included
_CONTROL: Final = (WSMsgType.PING, WSMsgType.PONG)
_PROTOCOLS: Final = (JSON_PROTOCOL, MSGPACK_PROTOCOL)
_OPCODE: Final = (WSMsgType.TEXT, WSMsgType.BINARY)  # by codec
# WebSockets are charged for what they say, and operators must never wait for what they do.
_UNMETERED: Final = ("/ws", ADMIN_PATH)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = logging.getLogger(__name__)


class Gateway:
    """The HTTP and WebSocket server over a Hub. ``start``, then ``run`` until ``close``."""

    def __init__(
        self,
        hub: Hub,
        *,
        origins: frozenset[str] = frozenset(),
        seats: Seats | None = None,
    ) -> None:
        """``origins`` are the allowed browser origins; clients without an Origin header are no
        browsers and are allowed.

        ``seats`` counts the connections of each address; by default the hub's.
        """
        self._hub = hub
        self._origins = origins
        self._seats = seats or hub.seats
        self._links: set[Link] = set()
        self._runner: web.AppRunner | None = None
        self._listening: list[asyncio.Server] = []
        self._arrivals = Arrivals()
        self._document = openapi.encoded()
        # Called with each released batch, after the hub has applied it.
        self.watchers: list[Callable[[Released], None]] = []
        self.app = web.Application(
            client_max_size=BODY_BYTES, middlewares=[self._note, name_refusals]
        )
        self.app.on_response_prepare.append(_guard)
        self.app.router.add_get("/ws", self._websocket, allow_head=False)
        self.app.router.add_get(f"{PREFIX}/health", self._health, allow_head=False)
        self.app.router.add_get(OPENAPI_PATH, self._openapi, allow_head=False)
        self.app.router.add_get(ASYNCAPI_PATH, self._asyncapi, allow_head=False)

    async def start(
        self, host: str, port: int, tls: SSLContext | None = None, *, shared: bool = False
    ) -> int:
        """Listen, with TLS if there is a context; return the port, a free one if it was 0.

        ``shared``: other processes may listen on the same port; the kernel distributes connections.
        """
        loop = asyncio.get_running_loop()
        hello = HANDSHAKE_SECONDS if tls else None
        await self._set_up()
        server = await loop.create_server(
            self._greet, host, port, ssl=tls, ssl_handshake_timeout=hello, reuse_port=shared,
            start_serving=False,
        )  # fmt: skip
        self._arrivals.guard(server, tls=tls is not None)
        await server.start_serving()
        self._listening.append(server)
        listening: int = server.sockets[0].getsockname()[1]
        return listening

    async def start_unix(self, path: Path) -> None:
        """Listen on a Unix socket as well, of mode 0600; an existing one is replaced."""
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            loop = asyncio.get_running_loop()
            self._listening.append(await loop.create_unix_server(self._greet, path))
        finally:
            os.umask(mask)

    async def _set_up(self) -> None:
        self._runner = web.AppRunner(
            self.app,
            access_log=None,
            shutdown_timeout=2 * CLOSE_SECONDS,  # every connection is closed or aborted before
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
        await self._runner.setup()

    def _greet(self) -> asyncio.BaseProtocol:
        assert self._runner is not None and self._runner.server is not None, "set up"
        return self._arrivals.greet(self._runner.server)

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._arrivals.head(request)
        await self._arrivals.ask(request)
        self.check_origin(request)
        if request.path.startswith(_UNMETERED):
            return await handler(request)
        return await self._arrivals.answer(request, handler(request))

    async def run(self) -> None:
        """Follow the released stream and send heartbeats, until cancelled or the stream ends.
        Raises the failure of either."""
        tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._beat())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        batches = 0
        async for released in self._hub.follow():
            self._hub.release(released)
            for watch in self.watchers:
                watch(released)
            batches += 1
            if batches % BATCHES_IN_ONE_GO == 0:
                await asyncio.sleep(0)  # sockets need turns during a long stream from disk

    async def _beat(self) -> None:
        """Tick the conflated channels every ``PERIOD_MS``; send heartbeats every
        ``HEARTBEAT_MS``."""
        now = asyncio.get_running_loop().time
        due = now() + HEARTBEAT_MS / 1000
        while True:
            await asyncio.sleep(PERIOD_MS / 1000)
            self._hub.tick()
            if now() >= due:
                due += HEARTBEAT_MS / 1000
                self._hub.beat()

    @property
    def idle(self) -> bool:
        """Whether every connection has been sent everything queued for it."""
        return not any(link.session.backlog_bytes for link in self._links)

    async def close(self) -> None:
        """Close every connection and stop listening."""
        for link in list(self._links):
            link.session.close(1001, "the gateway is stopping")
        for server in self._listening:
            server.close()
        self._arrivals.close()
        if self._runner is not None:
            await self._runner.cleanup()

    # Handlers

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        return await self.upgrade(request, partial(Link, self._hub))

    async def upgrade(self, request: web.Request, link_of: "LinkOf") -> web.StreamResponse:
        """Serve a WebSocket with the link that ``link_of`` makes, if it is accepted."""
        if not request.headers.get("Sec-WebSocket-Key", "").isascii():
            raise web.HTTPBadRequest(text="a Sec-WebSocket-Key that is none")
        asked = request.headers.getall("Sec-WebSocket-Protocol", [])
        named = {one.strip() for text in asked for one in text.split(",")}
        if named and named.isdisjoint(_PROTOCOLS):  # never reply with one that was not offered
            raise web.HTTPBadRequest(text=f"the subprotocols are {' and '.join(_PROTOCOLS)}")
        if self._hub.draining:
            raise web.HTTPServiceUnavailable(text="the market is stopping")
        address = request.remote or ""
        try:
            seat = await self._seats.admit(address)
        except Refused as full:
            return answer_refused(full)
        try:
            return await self._converse(request, address, link_of)
        finally:
            self._seats.leave(seat)

    async def _converse(
        self, request: web.Request, address: str, link_of: "LinkOf"
    ) -> web.StreamResponse:
        socket = MaskedSocket(
            protocols=_PROTOCOLS,
            max_msg_size=Limit.FRAME_BYTES + 1,  # aiohttp refuses from this size on
            compress=False,
            heartbeat=PING_SECONDS,
            autoping=False,  # the link answers, and counts
            timeout=CLOSE_SECONDS,
        )
        try:
            await socket.prepare(request)
        except ConnectionError:  # the client disconnected during the handshake
            return web.Response()

        def abort() -> None:
            if request.transport is not None:
                request.transport.abort()

        link = link_of(socket, abort, address)
        link.spend = self._arrivals.attend(request, link.session)
        self._links.add(link)
        try:
            await link.serve()
        finally:
            self._links.discard(link)
            socket.release()
        return socket

    def check_origin(self, request: web.Request) -> None:
        """Refuse (403) a request with an Origin header that is not allowed."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins:
            raise web.HTTPForbidden(text="this origin is not let in")

    async def _openapi(self, request: web.Request) -> web.Response:
        return json_answer(self._document)

    async def _asyncapi(self, request: web.Request) -> web.Response:
        return json_answer(asyncapi.encoded())

    async def _health(self, request: web.Request) -> web.Response:
        hub = self._hub
        health = Health(
            epoch=hub.epoch,
            sequence=hub.sequence,
            time=hub.feed.time,
            connections=len(self._links),
            protocol_version=PROTOCOL_VERSION,
        )
        return json_answer(encode_json(health))


async def _guard(request: web.Request, answer: web.StreamResponse) -> None:
    guard_answer(answer)


class Socket(Protocol):
    """The part of a WebSocket that a link uses: aiohttp's, or one of a simulation."""

    @property
    def ws_protocol(self) -> str | None: ...
    async def receive(self) -> WSMessage: ...
    def send_frame(self, message: bytes, opcode: WSMsgType) -> Coroutine[Any, Any, None]: ...
    async def pong(self, message: bytes) -> None: ...
    async def close(self, *, code: int, message: bytes) -> bool: ...


def _is_free(spent_ns: int) -> float:
    return 0.0


class Link:
    """One WebSocket and its session.

    ``abort`` ends the connection without a close frame; ``spend`` charges processor time for
    messages that were not taken in its parser.
    """

    spend: Spend = staticmethod(_is_free)

    def __init__(
        self, hub: Hub, socket: Socket, abort: Callable[[], None], address: str = ""
    ) -> None:
        self._hub = hub
        self._socket = socket
        self._abort_socket = abort
        self._send_frame = socket.send_frame  # looked up once: used for every frame
        self._is_resuming = hub.is_resuming
        self._work = asyncio.Event()
        self._pinged_second = self._pings = 0
        codec = MSGPACK if socket.ws_protocol == MSGPACK_PROTOCOL else JSON
        self._opcode = _OPCODE[codec]
        self._reader: asyncio.Task[None] | None = None  # while it may wait for a message
        self._closed = asyncio.Event()  # the writer has closed the socket, or given up
        self._abort: asyncio.TimerHandle | None = None
        self._begun: Awaitable[None] | None = None  # the rest of a frame not sent whole
        self.session: Session = hub.connect(codec, self._wake, address)
        self.session.send_now = self._send_now

    async def serve(self) -> None:
        """Read and write until either side closes; then log the session off."""
        writer = asyncio.create_task(self._write())
        loop = asyncio.get_running_loop()
        silence = loop.call_later(SILENT_SECONDS, self._check_silence)
        try:
            await self._read()
        finally:
            silence.cancel()
            if self._abort is not None:
                self._abort.cancel()
            writer.cancel()
            self._hub.disconnect(self.session)
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            if self.session.closing is not None:
                _log.info("connection %d closed: %s", self.session.number, self.session.closing[1])
            self.session.release()

    def _check_silence(self) -> None:
        if self.session.is_silent:
            self.session.close(CLOSE_IDLE, "neither logged on nor subscribed")

    async def _read(self) -> None:
        receive, session = self._socket.receive, self.session
        self._reader = reader = asyncio.current_task()
        self._hand_to(session.hear)
        try:
            while session.closing is None:
                message = await receive()
                if message.type not in _OPCODE:
                    if message.type not in _CONTROL:
                        return
                    await self._answer_ping(message)
                    continue
                begun = time.thread_time_ns()
                session.hear(message.data, time.time_ns())
                if wait := self.spend(time.thread_time_ns() - begun):
                    await asyncio.sleep(wait)
        except asyncio.CancelledError:
            if self._reader is not None or reader is None or reader.uncancel():
                raise  # the cancellation is not, or not only, that of `_stop_reading`
        finally:
            self._reader = None
            self._hand_to(None)
        await self._closed.wait()
        if session.failure is not None:
            raise session.failure

    def _hand_to(self, take: Take | None) -> None:
        """Set who takes messages as they are parsed, if the socket supports it."""
        if isinstance(self._socket, MaskedSocket):
            self._socket.hand_to(take)

    async def _stop_reading(self) -> None:
        """End the reader's wait for a message.

        A socket that is being read cannot wait for the client's close frame, and ending the
        connection without it could lose what was sent last.
        """
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.sleep(0)

    async def _answer_ping(self, message: WSMessage) -> None:
        """Answer a ping; more than ``PINGS_A_SECOND`` close the connection."""
        second = time.monotonic_ns() // 1_000_000_000
        if second != self._pinged_second:
            self._pinged_second, self._pings = second, 0
        self._pings += 1
        if self._pings > PINGS_A_SECOND:
            self.session.close(CLOSE_POLICY, "too many pings")
        elif message.type is WSMsgType.PING:
            await self._socket.pong(message.data)

    async def _write(self) -> None:
        session, opcode = self.session, self._opcode
        with contextlib.suppress(ConnectionError):  # the reader sees the end too
            while True:
                await self._work.wait()
                self._work.clear()
                if self._begun is not None:
                    begun, self._begun = self._begun, None
                    await begun
                    session.sending_bytes = 0
                while (frame := session.take()) or self._hub.resume(session):
                    if not frame:  # no reports in that slice; others' turn first
                        await asyncio.sleep(0)
                        continue
                    session.sending_bytes = len(frame)
                    await self._socket.send_frame(frame, opcode)
                    session.sending_bytes = 0
                    if session.shows.channels:  # others' turn first
                        await asyncio.sleep(0)
                if session.closing is not None:
                    break
            code, reason = session.closing
            await self._stop_reading()
            await self._socket.close(code=code, message=reason.encode())
        self._closed.set()

    def _send_now(self) -> bool:
        """Send the queue at once, unless the writer has work to do; return whether it is empty.

        Most frames are sent without waiting; the writer completes one that is not.
        """
        session = self.session
        if session.sending_bytes or session.closing is not None or self._work.is_set():
            return False
        if self._is_resuming(session):
            return False
        if not (frame := session.take()):
            return True
        sending = self._send_frame(frame, self._opcode)
        try:
            waits_for = sending.send(None)
        except (StopIteration, ConnectionError):  # the reader sees a reset too
            return True
        session.sending_bytes = len(frame)
        self._begun = _rest_of(sending, waits_for)
        return False

    def _wake(self) -> None:
        self._work.set()
        if self.session.closing is not None and self._abort is None:
            # A client that reads nothing would not read the close frame either.
            loop = asyncio.get_running_loop()
            self._abort = loop.call_later(CLOSE_SECONDS, self._cut)

    def _cut(self) -> None:
        self._abort_socket()
        self._closed.set()


LinkOf = Callable[[web.WebSocketResponse, Callable[[], None], str], Link]


@types.coroutine
def _rest_of(
    begun: Coroutine[Any, Any, None], waits_for: Any
) -> Generator[Any, Any, None]:  # fmt: skip
    """Continue a coroutine that was started by hand and waits for a future."""
    try:
        yield waits_for
        yield from begun
    finally:
        begun.close()
