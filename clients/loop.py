"""An event loop in a thread of its own: how blocking code uses async clients.

It stands beside whatever loop the program has, so a blocking client works inside a notebook, whose
cells run in a loop already.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from clients.errors import NotConnected


class Closing(Protocol):
    """An async client, as far as its blocking one must know."""

    async def close(self) -> None: ...


_C = TypeVar("_C", bound=Closing)
_P = ParamSpec("_P")
_R = TypeVar("_R")


class LoopThread:
    """A loop that runs until ``stop``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hourbook", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether anything can be awaited in it."""
        return self._thread.is_alive()

    def wait(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine in the loop and wait for its end. NotConnected once it has stopped."""
        if not self._thread.is_alive():
            work.close()
            raise NotConnected("the client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Blocking(Generic[_C]):
    """A client for programs without an event loop: an async one in a loop of its own."""

    def __init__(self, make: Callable[[], _C]) -> None:
        self.loop = LoopThread()

        async def begin() -> _C:
            return make()

        try:
            self.asynchronous = self.wait(begin())
        except BaseException:
            self.loop.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine in the client's loop and wait for its end."""
        return self.loop.wait(work)

    def close(self) -> None:
        """Disconnect for good; harmless to repeat."""
        if self.loop.is_running:
            self.wait(self.asynchronous.close())
            self.loop.stop()


def blocking(
    method: Callable[Concatenate[_C, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[Blocking[_C], _P], _R]:
    """The async method as one that waits for its end."""

    @wraps(method)
    def call(client: Blocking[_C], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return client.wait(method(client.asynchronous, *args, **kwargs))

    return call
