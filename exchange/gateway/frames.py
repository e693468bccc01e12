"""What a socket carries: aiohttp's names for it, the one rule that its parser leaves out, and a
message's way past its queue.

A client must mask every frame (RFC 6455, section 5.1); aiohttp's parser takes either kind.
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
_ENDLESS: Final = 1 << 62  # a frame's length that no connection lives to see the end of
Take = Callable[[str | bytes, int], None]  # a message, and when it came: nanoseconds


class Masks:
    """Looks at the head of every frame in a stream of bytes."""

    def __init__(self) -> None:
        self._left = 0  # bytes of the present frame that are still to come
        self._head = b""  # the beginning of a head, cut off

    def are_on(self, data: bytes) -> bool:
        """Whether every frame that begins in these bytes is masked."""
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
            else:  # the head is cut off
                self._left, self._head = 0, data[at:]
                break
        else:
            self._left = at - size
        return True


class _Guard:
    """Stands in the place of a socket's parser and lets masked frames through to it."""

    def __init__(self, parser: Any, queue: Any) -> None:
        self._parser, self._queue = parser, queue
        self._masks = Masks()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if not self._masks.are_on(data):
            told = "a frame without a mask"
            self._queue.set_exception(WebSocketError(WSCloseCode.PROTOCOL_ERROR, told))
            return True, b""
        self._queue.read_ns = time.time_ns()  # of all that these bytes complete
        found: tuple[bool, bytes] = self._parser.feed_data(data)
        return found

    def feed_eof(self) -> None:
        self._parser.feed_eof()


class _Inbox(WebSocketDataQueue):
    """The queue behind a socket's parser. Text and binary messages do not wait in it for their
    reader's turn of the loop if somebody takes them and nothing waits before them.
    """

    take: Take | None = None
    read_ns = 0

    def feed_data(self, data: Any, size: int) -> None:
        take = self.take
        if take is None or self._buffer or data.type not in _MESSAGES:
            super().feed_data(data, size)
        else:
            take(data.data, self.read_ns)


class MaskedSocket(web.WebSocketResponse):
    """A WebSocket that closes, with 1002, on a frame without a mask.

    ``hand_to`` has messages taken as they come; all else, and those that waited, ``receive``
    returns. aiohttp has no public place for either: tests fail where that changes.
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
        if early:  # it came with the handshake
            guard.feed_data(early)

    def hand_to(self, take: Take | None) -> None:
        """Have messages taken from now on; None: no more."""
        if isinstance(self._reader, _Inbox):  # else it was never prepared
            self._reader.take = take

    def release(self) -> None:
        """Let go of what an ended connection sent and nobody took, and of the error that it ended
        by, whose frames lead back here: the collector, which would, comes by seldom."""
        self._exception = None
        self._parser = None
        if self._reader is not None:
            self._reader._buffer.clear()
