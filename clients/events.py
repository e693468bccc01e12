"""What a client tells its user, in the order in which it came, and the stream that carries it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from clients.errors import HourbookError, TooMany
from clients.marks import Missed as Missed
from exchange.messages.wire import AnyResponse

EVENTS_MAX: Final = 65_536  # events that a stream holds for a reader that does not keep up


class Connected(msgspec.Struct, frozen=True):
    """The client is ready. After a break every missed report has come before this."""

    account: int | None
    session: int


class Disconnected(msgspec.Struct, frozen=True):
    """The connection broke; the client tries again. Books are not live until it is back."""

    reason: str


AnyEvent: TypeAlias = AnyResponse | Missed | Connected | Disconnected


class EventStream:
    """An async iterator over everything that arrives from now on. It ends with the client.

    A reader that falls ``EVENTS_MAX`` events behind gets TooMany: nothing is dropped silently.
    """

    def __init__(self, forget: Callable[["EventStream"], None]) -> None:
        self._events: deque[AnyEvent] = deque()
        self._more = asyncio.Event()
        self._forget = forget
        self._ended = False
        self._failure: HourbookError | None = None

    def put(self, event: AnyEvent) -> None:
        """Add one event; the client does this."""
        if len(self._events) >= EVENTS_MAX:
            self.end(TooMany("events that wait to be read", EVENTS_MAX))
            self._forget(self)
            return
        self._events.append(event)
        self._more.set()

    def end(self, failure: HourbookError | None = None) -> None:
        """Let the reader have what is there, then stop, or raise ``failure``."""
        self._ended, self._failure = True, failure
        self._more.set()

    def left(self) -> AnyEvent | None:
        """Take the next of what is there; None if nothing is."""
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Stop listening."""
        self._forget(self)
        self._events.clear()
        self.end()

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> AnyEvent:
        while not self._events:
            if self._ended:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            self._more.clear()
            await self._more.wait()
        return self._events.popleft()
