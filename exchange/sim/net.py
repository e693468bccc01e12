"""A network of connections that keep their order and lose nothing but themselves.

A WebSocket is TCP: no message of it is lost, doubled or overtaken while it lives. What can happen
is modelled at that level: delay, a path that stands still, a cut that both ends see, a connection
that is dead while both ends believe in it, a reader that stops reading, a host that is gone.
Messages under way when a connection ends are lost, so what an end has sent arrived up to some
point and no further. A message that is *doubled* is a client that sends it again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import Context, copy_context
from random import Random
from typing import Final

import msgspec

from clients.errors import ConnectionLost
from clients.transport import CONNECT_SECONDS, read_frame
from exchange.gateway.frames import WSMessage, WSMsgType
from exchange.gateway.server import PING_SECONDS
from exchange.messages.wire import (
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    AnyCommand,
    AnyRequest,
    AnyResponse,
    encode_json,
    encode_msgpack,
)
from exchange.sim.loop import NS, SimLoop

MS: Final = 1_000_000
DEAD_NS: Final = int(PING_SECONDS * 1.5 * NS)  # an unanswered ping ends a connection by then

Attend = Callable[["ServerSocket"], Awaitable[None]]


class Weather(msgspec.Struct, frozen=True):
    """How a network behaves. Delays in nanoseconds, of one way; windows in bytes."""

    delay_least: int = 0
    delay_mean: int = 0
    window: int = 1 << 18  # sent and not yet read: then the sender waits


class Pipe:
    """One direction of a connection."""

    def __init__(self, net: "Network", client: str) -> None:
        self._net = net
        self._client = client
        self._flying: deque[bytes | str | None] = deque()  # None is the end
        self._landed: deque[bytes | str | None] = deque()
        self._last_due = 0
        self._bytes = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.lost = False  # nothing put in arrives any more
        self.ended = False
        self.paused_until = 0  # the reader does not read before

    def put(self, data: bytes | str | None) -> None:
        """Send; None is the last."""
        if self.lost or self.ended:
            return
        self._flying.append(data)
        self._bytes += len(data or b"")
        if self._bytes > self._net.weather.window:
            self._room.clear()
        self._last_due = max(self._last_due, self._net.due(self._client))
        self._net.at(self._last_due, self._land)

    async def room(self) -> None:
        """Wait until the window is open again; a connection that ended is open."""
        await self._room.wait()

    def _land(self) -> None:
        """The oldest message under way arrives, unless the path is blocked."""
        if self.lost or not self._flying:
            return
        blocked = self._net.blocked_until(self._client)
        if blocked > self._net.loop.now_ns:
            self._net.at(blocked, self._land)
            return
        self._landed.append(self._flying.popleft())
        self._more.set()

    def lose(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self.lost = True
        self._flying.clear()

    def end(self) -> None:
        """The reader sees the end, after what has arrived; the writer may write into the void."""
        if not self.ended:
            self.ended = True
            self._flying.clear()
            self._landed.append(None)
            self._more.set()
            self._room.set()

    async def get(self) -> bytes | str | None:
        """The next message; None at the end, and ever after."""
        while self.paused_until > self._net.loop.now_ns:
            await asyncio.sleep((self.paused_until - self._net.loop.now_ns) / NS)
        while not self._landed:
            self._more.clear()
            await self._more.wait()
        data = self._landed[0]
        if data is None:
            self.ended = True
            self._room.set()
            return None
        self._landed.popleft()
        self._bytes -= len(data)
        if self._bytes <= self._net.weather.window:
            self._room.set()
        return data


class Connection:
    """Both directions of one connection between a named client and the gateway."""

    def __init__(self, net: "Network", client: str, protocol: str) -> None:
        self.net = net
        self.client = client
        self.protocol = protocol
        self.up = Pipe(net, client)
        self.down = Pipe(net, client)

    @property
    def over(self) -> bool:
        """Whether both ends know that it has ended."""
        return self.up.ended and self.down.ended

    def cut(self) -> None:
        """Both ends see the end at once; what was under way is gone."""
        self.up.end()
        self.down.end()

    def lose(self) -> None:
        """Neither end sees anything: each finds out when its pings stay unanswered."""
        self.up.lose()
        self.down.lose()
        self.net.at(self.net.loop.now_ns + DEAD_NS, self.cut)


class ServerSocket:
    """The gateway's end: what it needs of aiohttp's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.client = connection.client
        self.ws_protocol: str | None = connection.protocol

    async def receive(self) -> WSMessage:
        """The next message; CLOSED at the end."""
        data = await self._connection.up.get()
        if data is None:
            return WSMessage(WSMsgType.CLOSED, None, None)
        kind = WSMsgType.TEXT if isinstance(data, str) else WSMsgType.BINARY
        return WSMessage(kind, data, None)

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        """Send one frame, and wait while the reader is behind. ConnectionResetError at the end."""
        down = self._connection.down
        if down.ended:
            raise ConnectionResetError("the connection has ended")
        down.put(message.decode() if opcode == WSMsgType.TEXT else message)
        await down.room()

    async def pong(self, message: bytes) -> None:
        """Pings do not cross a simulated network."""

    async def close(self, *, code: int, message: bytes) -> bool:
        """Say the last word; the other end's answer ends this direction too."""
        self._connection.down.put(None)
        self._connection.up.end()
        return True

    def abort(self) -> None:
        """End it without a word."""
        self._connection.cut()


class ClientTransport:
    """The client's end: what ``clients.link`` needs of a transport."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.close_reason = "the connection ended"

    async def send(self, request: AnyRequest | list[AnyCommand]) -> None:
        """Send one request, and wait while the gateway is behind. ConnectionLost at the end."""
        up = self._connection.up
        if up.ended:
            raise ConnectionLost("the connection has ended")
        if self._connection.protocol == MSGPACK_PROTOCOL:
            up.put(encode_msgpack(request))
        else:
            up.put(encode_json(request).decode())
        await up.room()

    async def frames(self) -> AsyncIterator[list[AnyResponse]]:
        """Each frame's messages until the connection ends."""
        while (data := await self._connection.down.get()) is not None:
            yield read_frame(data)

    async def close(self) -> None:
        """Leave: the gateway sees the end after what was sent before."""
        self._connection.up.put(None)
        self._connection.down.end()


class Network:
    """Who can reach whom, and how long it takes. One gateway, any number of named clients."""

    def __init__(self, loop: SimLoop, random: Random, weather: Weather) -> None:
        self.loop = loop
        self.weather = weather
        self.connections: list[Connection] = []
        self._random = random
        self._attend: Attend | None = None
        self._context: Context = copy_context()  # of no process: what is under way outlives them
        self._server_context: Context | None = None
        self._blocked: dict[str, int] = {}  # client -> time until which its path stands still
        self._attending: set[asyncio.Task[None]] = set()

    def at(self, when_ns: int, callback: Callable[[], object]) -> None:
        """Have something happen at that time, whoever lives then."""
        self.loop.call_at(when_ns / NS, callback, context=self._context)

    def due(self, client: str) -> int:
        """When a message sent now arrives."""
        weather = self.weather
        spread = weather.delay_mean - weather.delay_least
        extra = int(self._random.expovariate(1 / spread)) if spread > 0 else 0
        return self.loop.now_ns + weather.delay_least + extra

    def blocked_until(self, client: str) -> int:
        """Until when nothing of this client arrives anywhere."""
        return self._blocked.get(client, 0)

    # The server

    def listen(self, context: Context, attend: Attend) -> None:
        """Have every new connection attended by a task in ``context``."""
        self._server_context, self._attend = context, attend

    def server_gone(self, *, silently: bool) -> None:
        """The server's host or process is gone: silently, or with an end that clients see."""
        self._attend = None
        for connection in self.living():
            if silently:
                connection.lose()
            else:
                self.at(self.due(connection.client), connection.cut)

    def living(self) -> list[Connection]:
        """Connections that have not ended; the others are forgotten."""
        self.connections = [c for c in self.connections if not c.over]
        return list(self.connections)

    # Clients

    async def connect(self, client: str, *, msgpack: bool) -> ClientTransport:
        """Connect to the gateway. Raises ConnectionLost."""
        begun = self.loop.now_ns
        arrival = max(self.due(client), self.blocked_until(client))
        if arrival - begun > CONNECT_SECONDS * NS:
            await asyncio.sleep(CONNECT_SECONDS)
            raise ConnectionLost("no answer")
        await asyncio.sleep((arrival - begun) / NS)
        if self._attend is None or self._server_context is None:
            raise ConnectionLost("refused")
        protocol = MSGPACK_PROTOCOL if msgpack else JSON_PROTOCOL
        connection = Connection(self, client, protocol)
        self.living()
        self.connections.append(connection)
        self._server_context.run(self._accept, self._attend, ServerSocket(connection))
        return ClientTransport(connection)

    def _accept(self, attend: Attend, socket: ServerSocket) -> None:
        task = asyncio.ensure_future(attend(socket))
        self._attending.add(task)
        task.add_done_callback(self._attending.discard)

    # Faults

    def block(self, client: str, seconds: float) -> None:
        """Nothing of this client arrives for that long; then all of it does."""
        until = self.loop.now_ns + int(seconds * NS)
        self._blocked[client] = max(until, self.blocked_until(client))

    def heal(self) -> None:
        """End every fault and every connection that only seems to live."""
        self._blocked.clear()
        for connection in self.living():
            connection.up.paused_until = connection.down.paused_until = 0
            if connection.up.lost:
                connection.cut()
