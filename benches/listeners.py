"""Connections with very low overhead: they count what arrives and parse no JSON."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

DEPTH: Final = b'"type":"depth"'
RECEIVE_BYTES: Final = 4_096  # kernel buffer of a client that does not read
_HELLO: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aG91cmJvb2stYmVuY2hlcw==\r\n\r\n"
)


def masked(text: str) -> bytes:
    """Return a text frame as a client sends it, masked with zeros."""
    data = text.encode()
    size = len(data)
    head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + bytes(4) + data


class Listener(asyncio.Protocol):
    """One WebSocket. ``frames`` counts the frames received, ``updates`` the book changes in
    them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._hello = _HELLO.format(path=parts.path, host=parts.netloc).encode()
        self._buffer = b""
        self.open = False
        self.frames = self.updates = 0
        self.last = b""  # payload of the last frame with an update
        self.on_update: Callable[[bytes], None] = lambda frame: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._hello)

    def say(self, text: str) -> None:
        """Send a text frame."""
        self.transport.write(masked(text))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if not self.open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            self.open = True
        at = 0
        while len(data) - at >= 2:
            size, begin = data[at + 1], at + 2
            if size == 126:
                size, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, begin = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if len(data) < begin + size:
                break
            at = begin + size
            self.frames += 1
            come = data.count(DEPTH, begin, at)
            if come:
                self.updates += come
                self.last = data[begin:at]
                self.on_update(self.last)
        self._buffer = data[at:]


async def listen(url: str) -> Listener:
    """Open a connection that counts."""
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    _, made = await loop.create_connection(
        lambda: Listener(url), str(parts.hostname), parts.port or 0
    )
    while not made.open:
        await asyncio.sleep(0.001)
    return made


async def deaf(url: str, texts: list[str]) -> socket.socket:
    """Open a connection that sends the texts and then never reads."""
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    made.setblocking(False)
    await loop.sock_connect(made, (parts.hostname, parts.port))
    hello = _HELLO.format(path=parts.path, host=parts.netloc).encode()
    await loop.sock_sendall(made, hello)
    await loop.sock_recv(made, RECEIVE_BYTES)  # the server's handshake
    await loop.sock_sendall(made, b"".join(map(masked, texts)))
    return made


def resident_bytes(process: int) -> int:
    """Return the resident memory of a process in bytes."""
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
