"""WebSocket messages: refuses unmasked frames, and hands messages over without aiohttp's queue.

A client must mask every frame (RFC 6455, section 5.1); aiohttp's parser does not check that.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType, web
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.helpers import DEFAULT_CHUNK_SIZE

__all__ = ["MaskedSocket", "Masks", "Take", "WSMessage", "WSMsgType"]

_MASKED: Final = 0x80
_WIDE, _WIDEST = _MASKED | 126, _MASKED | 127  # two and eight bytes of length follow
_HEAD: Final = 6  # two bytes, and four of the mask
_MESSAGES: Final = (WSMsgType.TEXT, WSMsgType.BINARY)
_ENDLESS: Final = 1 << 62  # longer than any frame that a connection can complete
Take = Callable[[str | bytes, int], None]  # a message, and its arrival in ns since the epoch


class Masks:
    """Checks the header of every frame in a stream of bytes."""

    def __init__(self) -> None:
        self._left = 0  # bytes left of the current frame
        self._head = b""  # an incomplete header

    def are_on(self, data: bytes) -> bool:
        """Whether every frame whose header is in these bytes is masked."""
        if self._head:
            data, self._head = self._head + data, b""
        at, size = self._left, len(data)
        while at < size:
            second = data[at + 1] if at + 1 < size else _WIDEST
            if second < _MASKED:
                return False
            if second < _WIDE:
                at += _HEAD + second - _MASKED
            elif second == _WIDE and at + 3 < size:
                at += 2 + _HEAD + (data[at + 2] << 8 | data[at + 3])
            elif second == _WIDEST and at + 9 < size:
                at += 8 + _HEAD + min(int.from_bytes(data[at + 2 : at + 10]), _ENDLESS)
            else:  # the header is incomplete
                self._left, self._head = 0, data[at:]
                break
        else:
            self._left = at - size
        return True


class _Guard:
    """Takes the place of a socket's parser and passes masked frames on to it."""

    def __init__(self, parser: Any, queue: Any) -> None:
        self._parser, self._queue = parser, queue
        self._masks = Masks()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if not self._masks.are_on(data):
            told = "a frame without a mask"
            self._queue.set_exception(WebSocketError(WSCloseCode.PROTOCOL_ERROR, told))
            return True, b""
        self._queue.read_ns = time.time_ns()  # for all messages that these bytes complete
        found: tuple[bool, bytes] = self._parser.feed_data(data)
        return found

    def feed_eof(self) -> None:
        self._parser.feed_eof()


class _Inbox(WebSocketDataQueue):
    """The queue behind a socket's parser. With ``take`` set and the queue empty, text and binary
    messages are handed over at once, without a task's turn of the event loop."""

    take: Take | None = None
    read_ns = 0

    def feed_data(self, data: Any, size: int) -> None:
        take = self.take
        if take is None or self._buffer or data.type not in _MESSAGES:
            super().feed_data(data, size)
        else:
            take(data.data, self.read_ns)


class MaskedSocket(web.WebSocketResponse):
    """A WebSocket that closes with 1002 on an unmasked frame.

    ``hand_to`` sets who takes messages as they arrive; ``receive`` returns all others, and those
    that were queued. Both use private attributes of aiohttp, which has no public way; tests fail if
    these change.
    """

    def _post_start(self, request: web.BaseRequest, *others: Any) -> None:
        handler: Any = request.protocol
        early, handler._message_tail = handler._message_tail, b""
        super()._post_start(request, *others)
        self._reader = _Inbox(handler, DEFAULT_CHUNK_SIZE, loop=asyncio.get_running_loop())
        self._parser = WebSocketReader(
            self._reader, self._max_msg_size, compress=bool(self._compress), decode_text=True
        )
        guard = handler._payload_parser = _Guard(self._parser, self._reader)
        if early:  # received together with the handshake
            guard.feed_data(early)

    def hand_to(self, take: Take | None) -> None:
        """Pass messages to ``take`` from now on; with None they are queued for ``receive``."""
        if isinstance(self._reader, _Inbox):  # otherwise it was never prepared
            self._reader.take = take

    def release(self) -> None:
        """Drop the unread messages and the error of an ended connection. They form reference
        cycles, which the garbage collector would free only much later."""
        self._exception = None
        self._parser = None
        if self._reader is not None:
            self._reader._buffer.clear()
