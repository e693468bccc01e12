"""Deliberate faults between a gateway and its clients, for sandboxes only.

drop       the connection is cut and the frame lost
delay      the frame and all after it wait, so the order is kept
duplicate  a frame is sent twice
gap        the changes of channels are left out of a frame, so that the next change does not follow

A correct client detects each fault and continues without losing or repeating anything. Faults occur
at random, at a rate per kind, and on demand (``Trouble.order``). Sans-IO except for the sleep of a
delay.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from exchange.gateway.frames import WSMessage, WSMsgType
from exchange.gateway.server import Socket

Kind: TypeAlias = Literal["drop", "delay", "duplicate", "gap"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
DELAY_MS_MAX: Final = 60_000
ORDERED_MAX: Final = 10_000  # pending demanded faults per kind
PERMILLE: Final = 1000

Permille: TypeAlias = Annotated[int, Meta(ge=0, le=PERMILLE)]
Delay: TypeAlias = Annotated[int, Meta(ge=0, le=DELAY_MS_MAX)]


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rate of each fault per frame, in thousandths, and the length of a delay in ms."""

    drop: Permille = 0
    delay: Permille = 0
    duplicate: Permille = 0
    gap: Permille = 0
    delay_ms: Delay = 200


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A demand: apply ``fault`` to the next ``count`` frames. ``delay_ms`` is the length of these
    delays; None: that of the rates. Other faults have none."""

    fault: Kind
    count: Annotated[int, Meta(ge=1, le=ORDERED_MAX)] = 1
    delay_ms: Delay | None = None


class Met(msgspec.Struct, frozen=True):
    """How many frames have had each fault, and how many demanded faults are pending."""

    met: dict[Kind, int]
    waiting: dict[Kind, int]


class _Change(msgspec.Struct):
    """The sequences of a channel's message; other messages have the defaults."""

    sequence: int = 0
    previous_sequence: int | None = None


class Trouble:
    """Decides which faults a frame gets, and applies them."""

    def __init__(self, random: Random, rates: Rates | None = None) -> None:
        self.rates = rates if rates is not None else Rates()
        self.told = Met(dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0))
        self._delays_ms: deque[int | None] = deque()  # of the demanded delays that are pending
        self._random = random

    def order(self, order: Order) -> Met:
        """Demand a fault for the next frames; return the counts."""
        waiting = self.told.waiting
        more = min(order.count, ORDERED_MAX - waiting[order.fault])
        waiting[order.fault] += more
        if order.fault == "delay":
            self._delays_ms.extend([order.delay_ms] * more)
        return self.told

    def end(self) -> None:
        """Stop all faults."""
        self.rates = Rates()
        self.told.waiting.update(dict.fromkeys(KINDS, 0))
        self._delays_ms.clear()

    async def carry(
        self,
        frame: bytes,
        kind: WSMsgType,
        send: Callable[[bytes, WSMsgType], Awaitable[None]],
        cut: Callable[[], None],
    ) -> None:
        """Send a frame with its faults. Raises ConnectionResetError after a drop."""
        if self._meets("drop"):
            cut()
            raise ConnectionResetError("dropped on purpose")
        demanded = self._delays_ms.popleft() if self._delays_ms else None
        if self._meets("delay"):
            delay_ms = self.rates.delay_ms if demanded is None else demanded
            await asyncio.sleep(delay_ms / 1000)
        if self._may_meet("gap"):
            rest = without_changes(frame, kind)
            if rest != frame and self._meets("gap"):
                frame = rest
        if not frame:
            return
        await send(frame, kind)
        if self._meets("duplicate"):
            await send(frame, kind)

    def _may_meet(self, kind: Kind) -> bool:
        rate: int = getattr(self.rates, kind)
        return bool(rate or self.told.waiting[kind])

    def _meets(self, kind: Kind) -> bool:
        """Decide whether this frame gets a fault, and count it."""
        rate: int = getattr(self.rates, kind)
        if self.told.waiting[kind]:
            self.told.waiting[kind] -= 1
        elif not rate or self._random.randrange(PERMILLE) >= rate:
            return False
        self.told.met[kind] += 1
        return True


class FaultySocket:
    """A gateway's end of a connection whose sent frames have faults."""

    def __init__(self, trouble: Trouble, socket: Socket, abort: Callable[[], None]) -> None:
        self._trouble = trouble
        self._socket = socket
        self._abort = abort

    @property
    def ws_protocol(self) -> str | None:
        """The negotiated subprotocol."""
        return self._socket.ws_protocol

    async def receive(self) -> WSMessage:
        """Receive a message from the client, without faults."""
        return await self._socket.receive()

    async def send_frame(self, message: bytes, opcode: WSMsgType) -> None:
        """Send a frame with its faults."""
        await self._trouble.carry(message, opcode, self._socket.send_frame, self._abort)

    async def pong(self, message: bytes) -> None:
        """Answer a ping."""
        await self._socket.pong(message)

    async def close(self, *, code: int, message: bytes) -> bool:
        """Close with a reason."""
        return await self._socket.close(code=code, message=message)


def without_changes(frame: bytes, kind: WSMsgType) -> bytes:
    """Return the frame without the messages that change a channel: unchanged if it has none, empty
    if it has no others. A channel's heartbeat repeats its sequence and is no change."""
    coding: Any = msgspec.json if kind == WSMsgType.TEXT else msgspec.msgpack
    messages = coding.decode(frame, type=list[msgspec.Raw])
    kept = [one for one in messages if not _is_change(coding.decode(one, type=_Change))]
    if len(kept) == len(messages):
        return frame
    encoded: bytes = coding.encode(kept) if kept else b""
    return encoded


def _is_change(message: _Change) -> bool:
    return message.previous_sequence not in (None, message.sequence)
