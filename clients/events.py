"""The events that a client delivers, in order of arrival, and the stream that carries them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from clients.errors import HourbookError, TooMany
from clients.marks import Missed as Missed
from exchange.messages.wire import AnyResponse

EVENTS_MAX: Final = 65_536  # events held for a reader that does not keep up


class Connected(msgspec.Struct, frozen=True):
    """The client is ready. After a reconnect all missed reports have been delivered before this."""

    account: int | None
    session: int


class Disconnected(msgspec.Struct, frozen=True):
    """The connection broke; the client reconnects. Books are not live until then."""

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
        """Add one event; called by the client."""
        if len(self._events) >= EVENTS_MAX:
            self.end(TooMany("events that wait to be read", EVENTS_MAX))
            self._forget(self)
            return
        self._events.append(event)
        self._more.set()

    def end(self, failure: HourbookError | None = None) -> None:
        """End the stream after the events it holds, or with ``failure``."""
        self._ended, self._failure = True, failure
        self._more.set()

    def left(self) -> AnyEvent | None:
        """Take the next event it holds; None if there is none."""
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
                    raise self._failure.with_traceback(None)  # it may be raised again and again
                raise StopAsyncIteration
            self._more.clear()
            await self._more.wait()
        return self._events.popleft()
