"""The protocol between the market's process and its gateways' over ``DIR/gateways.sock``.

A frame is a header of 21 bytes and a body. Commands are the engine's own records with their texts;
everything else is rare and is MessagePack. Layout of the bytes: docs/reference/stream.md.
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
OWN_NAME: Final = "gateway-{}.sock"  # socket of one gateway, by its number
HEAD: Final = Layout("<BIQQ")  # kind, bytes of the body, account, ingress time
MESSAGE: Final = 0
COMMAND: Final = 1
TEXTED: Final = 2  # a command followed by its text
BODY_BYTES_MAX: Final = 16 << 20


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of everything but commands."""


class Hello(Message, frozen=True):
    """A gateway's first message: its number."""

    number: int


class Welcome(Message, frozen=True):
    """The market's answer. ``life`` is unique in this run of the market: no other gateway has it,
    nor an earlier process of the same one."""

    life: int
    settings: Settings
    host: str
    port: int
    exchange_id: bytes
    standing: Standing


class Listening(Message, frozen=True):
    """The gateway listens for clients."""


class Status(Message, frozen=True):
    """A gateway's state, and its counts since the last status."""

    sequence: int
    unsent_bytes: int
    connections: dict[str, int]  # by stage
    rejects: dict[str, int]  # by reason, of the gateway itself
    closed: dict[str, int]  # by close code


class Ask(Message, frozen=True):
    """A question that only the market can answer: an operator's request, a preview, or its
    state."""

    number: int
    what: Literal["healthy", "ready", "metrics", "perform", "try"]
    request: AnyRequest | None = None
    person: str = ""
    account: int = 0
    record: bytes = b""  # of the command to try


class Seat(Message, frozen=True):
    """A question: may this owner, an address or a key, have one more connection?"""

    number: int
    owner: Owner


class Left(Message, frozen=True):
    """A counted connection has ended."""

    owner: Owner


class Told(Message, frozen=True):
    """The answer to a question, in one of these fields."""

    number: int
    count: int = 0  # the owner's connections, including the new one
    checks: dict[str, bool] | None = None
    text: bytes = b""
    answer: Answer | None = None
    tried: Tried | None = None
    # Why it was refused: the gateway's reason, detail, limit and observed.
    untried: tuple[int, str | None, str | None, str | None] | None = None


class TurnedBack(Message, frozen=True):
    """The sequencer refused a command."""

    record: bytes
    text: str | None
    reason: int


class Beat(Message, frozen=True):
    """A number that a gateway sends back: it is alive, and all that it had sent before has been
    read."""

    number: int


class KeysGone(Message, frozen=True):
    """Keys were revoked: check which."""


class Drain(Message, frozen=True):
    """Accept no more orders."""


class Drained(Message, frozen=True):
    """No more orders will follow."""


class Close(Message, frozen=True):
    """Close all connections and exit."""


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
    """The receiver of what comes over a wire."""

    def heard(self, wire: "Wire", message: Any) -> None:
        """Handle a message, one of AnyMessage."""
        ...

    def put(self, wire: "Wire", source: int, record: bytes, ingress: int, text: str | None) -> None:
        """Handle a command."""
        ...

    def lost(self, wire: "Wire") -> None:
        """Handle the end of the connection; nothing more will come."""
        ...


class Wire(asyncio.Protocol):
    """One end of a connection. What is sent in one turn of the loop is written at once, in
    order."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._rest = b""
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, failure: Exception | None) -> None:
        """Tell the receiver that the connection ended."""
        self._transport = None
        self._end.lost(self)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the other end has not taken yet, without those of this turn."""
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
        """Write what was sent in this turn."""
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    def close(self) -> None:
        """Write what was sent, and close."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once: what was sent may never arrive."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Handle every complete frame. Raises JournalError for an oversized one."""
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
