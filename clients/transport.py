"""One WebSocket to the exchange: sends requests and receives messages, without interpreting
them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec

from clients.errors import ConnectionLost, ProtocolError, ValueRefused
from exchange.messages.wire import (
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    AnyCommand,
    AnyRequest,
    AnyResponse,
    encode_json,
    encode_msgpack,
)

FRAME_BYTES_MAX: Final = 1 << 26  # of one frame from the exchange, which may hold a whole batch
CONNECT_SECONDS: Final = 10.0
PING_SECONDS: Final = 15.0
CLOSE_SECONDS: Final = 1.0  # a dead peer does not answer the close
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_UNKNOWN_TAG: Final = "Invalid value"  # start of msgspec's error for an unknown type

_typed_json = msgspec.json.Decoder(list[AnyResponse]).decode
_parts_json = msgspec.json.Decoder(list[msgspec.Raw]).decode
_part_json = msgspec.json.Decoder(AnyResponse).decode
_typed_msgpack = msgspec.msgpack.Decoder(list[AnyResponse]).decode
_parts_msgpack = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_part_msgpack = msgspec.msgpack.Decoder(AnyResponse).decode


def websocket_url(url: str) -> str:
    """Return the WebSocket address for ``http://host:port``; an address with a path keeps it.

    Raises ValueRefused for anything else.
    """
    try:
        parts = urlsplit(url if "://" in url else f"ws://{url}")
        # Reading the port raises ValueError if it is no number up to 65,535.
        known = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueRefused(f"{url!r} is not an address like ws://localhost:8000/ws")
    path = "/ws" if parts.path.rstrip("/") in ("", "/api/v1") else parts.path
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))


def http_url(url: str) -> str:
    """Return the HTTP address, ``http://host:port``, for any address of a market."""
    parts = urlsplit(websocket_url(url))
    return urlunsplit(("https" if parts.scheme == "wss" else "http", parts.netloc, "", "", ""))


def _why(error: Exception) -> str:
    """Return why a connection failed, with what to do about it."""
    match error:
        case aiohttp.WSServerHandshakeError():
            return f"the answer is {error.status}; a market's address is like ws://localhost:8000"
        case aiohttp.ClientConnectorCertificateError():
            return f"{error.certificate_error}; name a certificate of one's own in SSL_CERT_FILE"
        case aiohttp.ClientSSLError():
            return f"no TLS there ({error.os_error}); ws:// is without it"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return "nobody listens there; is the market serving?"
        case TimeoutError():
            return f"no answer within {CONNECT_SECONDS:.0f} seconds"
    return str(error)


def read_frame(data: str | bytes) -> list[AnyResponse]:
    """Return the messages of a frame: text is JSON, bytes are MessagePack.

    Messages of unknown types are left out. ProtocolError if the frame is not an array of messages.
    """
    try:
        return _typed_json(data) if isinstance(data, str) else _typed_msgpack(data)
    except msgspec.ValidationError:
        return _read_known(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"unreadable frame: {error}") from error


def _read_known(data: str | bytes) -> list[AnyResponse]:
    known: list[AnyResponse] = []
    try:
        parts = _parts_json(data) if isinstance(data, str) else _parts_msgpack(data)
        for part in parts:
            try:
                known.append(_part_json(part) if isinstance(data, str) else _part_msgpack(part))
            except msgspec.ValidationError as error:
                if not (str(error).startswith(_UNKNOWN_TAG) and "$.type" in str(error)):
                    raise
    except msgspec.DecodeError as error:
        raise ProtocolError(f"unreadable frame: {error}") from error
    return known


def _retrieved(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


async def _alone(sending: Coroutine[Any, Any, None]) -> None:
    """Await the sending of a frame, without its cancellation cancelling other senders.

    In aiohttp all senders that wait for room in a connection await one future, which ends when any
    of them is cancelled: the others would be cancelled as well, and later ones would no longer
    wait.

    ``_asyncio_future_blocking`` marks that the future is being awaited; a second await beside it
    is an error. A task clears the mark in its own next step, too late for other senders,
    or pongs, in this one. So it is cleared here. A task per frame, which could be shielded, would
    cost every frame a turn of the loop, although nearly all of them find room.
    """
    try:
        while True:
            room = sending.send(None)
            room._asyncio_future_blocking = False  # nobody awaits it through this mark
            room.add_done_callback(_retrieved)  # its error is no news if this is cancelled
            await asyncio.wait([room])
    except StopIteration:  # at once, if there is room
        return
    finally:
        sending.close()


class AnyTransport(Protocol):
    """What a link needs of an open connection of any kind."""

    async def send(self, request: AnyRequest | list[AnyCommand]) -> None:
        """Send one frame: a request, or many. ConnectionLost if the connection is gone."""

    def frames(self) -> AsyncIterator[list[AnyResponse]]:
        """Each frame's messages until the connection ends. ProtocolError for a bad frame."""

    @property
    def close_reason(self) -> str:
        """Why the connection ended, as far as known."""

    async def close(self) -> None:
        """Close it; may be repeated."""


class Connect(Protocol):
    """Opens a connection. Raises ConnectionLost if there is no answer."""

    async def __call__(self, url: str, *, msgpack: bool) -> AnyTransport: ...


class Transport:
    """An open WebSocket."""

    def __init__(self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse):
        self._http = http
        self._socket = socket

    @classmethod
    async def open(cls, url: str, *, msgpack: bool) -> "Transport":
        """Connect. ConnectionLost if nobody answers, or not with a WebSocket of this protocol."""
        protocol = MSGPACK_PROTOCOL if msgpack else JSON_PROTOCOL
        http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CONNECT_SECONDS))
        try:
            socket = await http.ws_connect(
                url,
                protocols=(protocol,),
                max_msg_size=FRAME_BYTES_MAX,
                heartbeat=PING_SECONDS,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            await http.close()
            raise ConnectionLost(f"cannot connect to {url}: {_why(error)}") from error
        except BaseException:
            await http.close()
            raise
        return cls(http, socket)

    async def send(self, request: AnyRequest | list[AnyCommand]) -> None:
        """Send one frame: a request, or many. ConnectionLost if the connection is gone."""
        if self._socket.protocol == MSGPACK_PROTOCOL:
            sending = self._socket.send_bytes(encode_msgpack(request))
        else:
            sending = self._socket.send_str(encode_json(request).decode())
        try:
            await _alone(sending)
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost(str(error)) from error

    async def frames(self) -> AsyncIterator[list[AnyResponse]]:
        """Each frame's messages until the connection ends. ProtocolError for a bad frame."""
        async for message in self._socket:
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                yield read_frame(message.data)

    @property
    def close_reason(self) -> str:
        """Why the connection ended, as far as known."""
        error = self._socket.exception()
        code = self._socket.close_code
        return str(error) if error is not None else f"closed with code {code}"

    async def close(self) -> None:
        """Close both the socket and its HTTP session; may be repeated."""
        await self._socket.close()
        await self._http.close()
