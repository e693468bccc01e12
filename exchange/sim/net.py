"""A simulated network of connections that keep the order of their messages.

A WebSocket is TCP: no message is lost, repeated or overtaken while the connection lives. Faults are
modelled at that level: delay, a blocked path, a cut that both ends see, a connection that is dead
although both ends believe in it, a reader that stops reading, a host that is gone. Messages under
way when a connection ends are lost, so a prefix of what was sent arrived. A repeated message is one
that the client sends again.
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
DEAD_NS: Final = int(PING_SECONDS * 1.5 * NS)  # by then an unanswered ping ends a connection

Attend = Callable[["ServerSocket"], Awaitable[None]]


class Weather(msgspec.Struct, frozen=True):
    """How a network behaves. Delays in nanoseconds, one way; the window in bytes."""

    delay_least: int = 0
    delay_mean: int = 0
    window: int = 1 << 18  # sent and not yet read: beyond it the sender waits


class Pipe:
    """One direction of a connection."""

    def __init__(self, net: "Network", client: str) -> None:
        self._net = net
        self._client = client
        self._flying: deque[bytes | str | None] = deque()  # None is the end of the stream
        self._landed: deque[bytes | str | None] = deque()
        self._last_due = 0
        self._bytes = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.lost = False  # nothing that is sent arrives any more
        self.ended = False
        self.paused_until = 0  # the reader reads nothing before this time

    def put(self, data: bytes | str | None) -> None:
        """Send a message; None ends the stream."""
        if self.lost or self.ended:
            return
        self._flying.append(data)
        self._bytes += len(data or b"")
        if self._bytes > self._net.weather.window:
            self._room.clear()
        self._last_due = max(self._last_due, self._net.due(self._client))
        self._net.at(self._last_due, self._land)

    async def room(self) -> None:
        """Wait until the window is open; it is open on an ended connection."""
        await self._room.wait()

    def _land(self) -> None:
        """Deliver the oldest message under way, unless the path is blocked."""
        if self.lost or not self._flying:
            return
        blocked = self._net.blocked_until(self._client)
        if blocked > self._net.loop.now_ns:
            self._net.at(blocked, self._land)
            return
        self._landed.append(self._flying.popleft())
        self._more.set()

    def lose(self) -> None:
        """From now on deliver nothing, without telling either end."""
        self.lost = True
        self._flying.clear()

    def end(self) -> None:
        """End the pipe: the reader sees the end after what has arrived; later messages are
        dropped."""
        if not self.ended:
            self.ended = True
            self._flying.clear()
            self._landed.append(None)
            self._more.set()
            self._room.set()

    async def get(self) -> bytes | str | None:
        """Return the next message; None at the end, and from then on."""
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
        """Whether both ends have seen the end."""
        return self.up.ended and self.down.ended

    def cut(self) -> None:
        """End the connection for both ends at once; messages under way are lost."""
        self.up.end()
        self.down.end()

    def lose(self) -> None:
        """Kill the connection unseen: each end finds out when its pings stay unanswered."""
        self.up.lose()
        self.down.lose()
        self.net.at(self.net.loop.now_ns + DEAD_NS, self.cut)


class ServerSocket:
    """The gateway's end, with the interface that it needs of aiohttp's WebSocket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.client = connection.client
        self.ws_protocol: str | None = connection.protocol

    async def receive(self) -> WSMessage:
        """Return the next message; CLOSED at the end."""
        data = await self._connection.up.get()
        if data is None:
            return WSMessage(WSMsgType.CLOSED, None, None)
        kind = WSMsgType.TEXT if isinstance(data, str) else WSMsgType.BINARY
        return WSMessage(kind, data, None)

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        """Send one frame, and wait while the window is full. ConnectionResetError after the end."""
        down = self._connection.down
        if down.ended:
            raise ConnectionResetError("the connection has ended")
        down.put(message.decode() if opcode == WSMsgType.TEXT else message)
        await down.room()

    async def pong(self, message: bytes) -> None:
        """Do nothing: pings are not simulated."""

    async def close(self, *, code: int, message: bytes) -> bool:
        """Close the connection: what was sent before still arrives; nothing more is received."""
        self._connection.down.put(None)
        self._connection.up.end()
        return True

    def abort(self) -> None:
        """End the connection at once."""
        self._connection.cut()


class ClientTransport:
    """The client's end, with the interface that ``clients.link`` needs of a transport."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.close_reason = "the connection ended"

    async def send(self, request: AnyRequest | list[AnyCommand]) -> None:
        """Send one request, and wait while the window is full. ConnectionLost after the end."""
        up = self._connection.up
        if up.ended:
            raise ConnectionLost("the connection has ended")
        if self._connection.protocol == MSGPACK_PROTOCOL:
            up.put(encode_msgpack(request))
        else:
            up.put(encode_json(request).decode())
        await up.room()

    async def frames(self) -> AsyncIterator[list[AnyResponse]]:
        """Yield each frame's messages until the connection ends."""
        while (data := await self._connection.down.get()) is not None:
            yield read_frame(data)

    async def close(self) -> None:
        """Leave: the gateway sees the end after what was sent before."""
        self._connection.up.put(None)
        self._connection.down.end()


class Network:
    """All connections, their delays and faults. One gateway, any number of named clients."""

    def __init__(self, loop: SimLoop, random: Random, weather: Weather) -> None:
        self.loop = loop
        self.weather = weather
        self.connections: list[Connection] = []
        self._random = random
        self._attend: Attend | None = None
        self._context: Context = copy_context()  # of no process: messages under way survive a kill
        self._server_context: Context | None = None
        self._blocked: dict[str, int] = {}  # client -> time until which its path is blocked
        self._attending: set[asyncio.Task[None]] = set()

    def at(self, when_ns: int, callback: Callable[[], object]) -> None:
        """Call ``callback`` at that time, whichever processes live then."""
        self.loop.call_at(when_ns / NS, callback, context=self._context)

    def due(self, client: str) -> int:
        """Return when a message sent now arrives."""
        weather = self.weather
        spread = weather.delay_mean - weather.delay_least
        extra = int(self._random.expovariate(1 / spread)) if spread > 0 else 0
        return self.loop.now_ns + weather.delay_least + extra

    def blocked_until(self, client: str) -> int:
        """Return the time until which this client's path is blocked; 0 if it is not."""
        return self._blocked.get(client, 0)

    # The server

    def listen(self, context: Context, attend: Attend) -> None:
        """Serve every new connection in a task of ``context``."""
        self._server_context, self._attend = context, attend

    def server_gone(self, *, silently: bool) -> None:
        """End the server: silently (a power cut), or with an end that clients see."""
        self._attend = None
        for connection in self.living():
            if silently:
                connection.lose()
            else:
                self.at(self.due(connection.client), connection.cut)

    def living(self) -> list[Connection]:
        """Return the connections that have not ended; drop the others."""
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
        """Block this client's path for ``seconds``; afterwards everything arrives."""
        until = self.loop.now_ns + int(seconds * NS)
        self._blocked[client] = max(until, self.blocked_until(client))

    def heal(self) -> None:
        """End all faults, and every connection that is dead unseen."""
        self._blocked.clear()
        for connection in self.living():
            connection.up.paused_until = connection.down.paused_until = 0
            if connection.up.lost:
                connection.cut()
