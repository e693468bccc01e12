"""What the market's own process and its gateways' say to each other over ``DIR/gateways.sock``.

A frame is a head of 21 bytes and a body. Commands are the engine's own records, with the text that
came with each; everything else is rare and is MessagePack. docs/reference/stream.md has the bytes.
"""

import asyncio
from struct import Struct as Layout
from typing import Any, Final, Literal, Protocol

import msgspec

from exchange.app.asking import Answer
from exchange.app.requests import AnyRequest
from exchange.app.settings import Settings
from exchange.gateway.previews import Tried
from exchange.gateway.seats import Owner
from exchange.journal.errors import JournalError
from exchange.journal.tape import Standing
from exchange.messages import COMMAND_BYTES

SOCKET_NAME: Final = "gateways.sock"
OWN_NAME: Final = "gateway-{}.sock"  # of one gateway, by its number
HEAD: Final = Layout("<BIQQ")  # kind, bytes of the body, account, ingress time
MESSAGE: Final = 0
COMMAND: Final = 1
TEXTED: Final = 2  # a command with its text behind it
BODY_BYTES_MAX: Final = 16 << 20


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Anything but a command."""


class Hello(Message, frozen=True):
    """A gateway's first word: which one it is."""

    number: int


class Welcome(Message, frozen=True):
    """The market's answer. ``life`` is no other gateway's, of this run of the market or this
    gateway's own earlier ones."""

    life: int
    settings: Settings
    host: str
    port: int
    exchange_id: bytes
    standing: Standing


class Listening(Message, frozen=True):
    """The gateway lets clients in."""


class Status(Message, frozen=True):
    """How a gateway stands, and what it counted since it last said so."""

    sequence: int
    unsent_bytes: int
    connections: dict[str, int]  # by stage
    rejects: dict[str, int]  # by reason, its own alone
    closed: dict[str, int]  # by close code


class Ask(Message, frozen=True):
    """A question that only the market answers: an operator's, a preview, or how it stands."""

    number: int
    what: Literal["healthy", "ready", "metrics", "perform", "try"]
    request: AnyRequest | None = None
    person: str = ""
    account: int = 0
    record: bytes = b""  # of what is to be tried


class Seat(Message, frozen=True):
    """A question: may its owner, an address or a key, have one more connection?"""

    number: int
    owner: Owner


class Left(Message, frozen=True):
    """A connection that was let in has ended."""

    owner: Owner


class Told(Message, frozen=True):
    """An answer, of one of these kinds."""

    number: int
    count: int = 0  # of the owner's connections, with that one
    checks: dict[str, bool] | None = None
    text: bytes = b""
    answer: Answer | None = None
    tried: Tried | None = None
    # Why it was not: a reason of the gateway's, in words, limit and observed.
    untried: tuple[int, str | None, str | None, str | None] | None = None


class TurnedBack(Message, frozen=True):
    """The sequencer did not take a command."""

    record: bytes
    text: str | None
    reason: int


class Beat(Message, frozen=True):
    """A number that a gateway gives back: it lives, and all that it had sent before is read."""

    number: int


class KeysGone(Message, frozen=True):
    """Keys were revoked: look which."""


class Drain(Message, frozen=True):
    """Take no more orders."""


class Drained(Message, frozen=True):
    """None will follow."""


class Close(Message, frozen=True):
    """Close all connections and end."""


AnyMessage = (
    Hello
    | Welcome
    | Listening
    | Status
    | Ask
    | Seat
    | Left
    | Told
    | TurnedBack
    | Beat
    | KeysGone
    | Drain
    | Drained
    | Close
)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyMessage).decode


class End(Protocol):
    """Who hears what comes over a wire."""

    def heard(self, wire: "Wire", message: Any) -> None:
        """Take a message, one of AnyMessage."""
        ...

    def put(self, wire: "Wire", source: int, record: bytes, ingress: int, text: str | None) -> None:
        """Take a command."""
        ...

    def lost(self, wire: "Wire") -> None:
        """The other end is gone; nothing more will come."""
        ...


class Wire(asyncio.Protocol):
    """One end of a connection. What is said in a turn of the loop leaves in one write, in order."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._rest = b""
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, failure: Exception | None) -> None:
        """End."""
        self._transport = None
        self._end.lost(self)

    @property
    def waiting_bytes(self) -> int:
        """What the other end has not taken yet, this turn's left aside."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def say(self, message: AnyMessage) -> None:
        """Send a message."""
        body = _encode(message)
        self._send(HEAD.pack(MESSAGE, len(body), 0, 0) + body)

    def put(self, source: int, record: bytes, ingress: int, text: str | None) -> None:
        """Send a command."""
        if text is None:
            self._send(HEAD.pack(COMMAND, COMMAND_BYTES, source, ingress) + record)
        else:
            said = text.encode()
            head = HEAD.pack(TEXTED, COMMAND_BYTES + len(said), source, ingress)
            self._send(head + record + said)

    def _send(self, frame: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(frame)

    def flush(self) -> None:
        """Write what was said."""
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    def close(self) -> None:
        """Write what was said, and end."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End without another word: what was said may never be read."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hear every frame that is whole. Raises JournalError for what is none."""
        data = self._rest + data if self._rest else data
        at, size, unpack = 0, len(data), HEAD.unpack_from
        while size - at >= HEAD.size:
            kind, length, source, ingress = unpack(data, at)
            begin = at + HEAD.size
            end = begin + length
            if length > BODY_BYTES_MAX:
                raise JournalError(f"a frame of {length} bytes on {SOCKET_NAME}")
            if end > size:
                break
            at = end
            if kind == MESSAGE:
                self._end.heard(self, _decode(data[begin:end]))
                continue
            behind = begin + COMMAND_BYTES
            text = data[behind:end].decode() if kind == TEXTED else None
            self._end.put(self, source, data[begin:behind], ingress, text)
        self._rest = data[at:]
