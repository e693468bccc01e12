"""A client without a library: frames byte by byte, so that they may be wrong."""

import asyncio
import base64
import os
from struct import Struct
from typing import Final

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
LONG: Final = Struct(">Q")
SHORT: Final = Struct(">H")


def frame(
    op: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0, size: int | None = None
) -> bytes:
    """A masked frame (with a mask of zeros); ``size`` is what its header says, if not the truth."""
    length = len(payload) if size is None else size
    first = bytes([final << 7 | reserved << 4 | op])
    if length < 126:
        head = bytes([0x80 | length])
    elif length < 1 << 16:
        head = bytes([0x80 | 126]) + SHORT.pack(length)
    else:
        head = bytes([0x80 | 127]) + LONG.pack(length)
    return first + head + bytes(4) + payload


class Wire:
    """A TCP connection to a gateway, as a WebSocket once ``shake`` was called."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def shake(self, *headers: str, early: bytes = b"", path: str = "/ws") -> bytes:
        """Make the WebSocket's handshake, and send ``early`` with it; return the status line."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", *headers]  # fmt: skip
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode() + early)
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        return head.split(b"\r\n")[0]

    async def close_code(self) -> int:
        """Read to the close frame; return its code, 0 if the connection ended without one."""
        try:
            async with asyncio.timeout(10):
                while True:
                    first, second = await self.reader.readexactly(2)
                    length = second & 0x7F
                    if length == 126:
                        (length,) = SHORT.unpack(await self.reader.readexactly(2))
                    elif length == 127:
                        (length,) = LONG.unpack(await self.reader.readexactly(8))
                    payload = await self.reader.readexactly(length)
                    if first & 0x0F == CLOSE:
                        return int.from_bytes(payload[:2])
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        finally:
            self.writer.close()
