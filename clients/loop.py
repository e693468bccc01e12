"""An event loop in a thread of its own: how blocking code uses async clients.

It stands beside whatever loop the program has, so a blocking client works inside a notebook, whose
cells run in a loop already.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from functools import wraps
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar

from clients.errors import NotConnected

LAST_SECONDS: Final = 0.1  # for what is about to end when the loop is stopped


class Closing(Protocol):
    """An async client, as far as its blocking one must know."""

    async def close(self) -> None: ...


_C = TypeVar("_C", bound=Closing)
_P = ParamSpec("_P")
_R = TypeVar("_R")


class LoopThread:
    """A loop that runs until ``stop``. Any thread may wait in it, and any may stop it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hourbook", daemon=True)
        self._thread.start()
        self._begins = threading.Lock()  # so that nothing begins once it is being stopped
        self._stopped = False

    @property
    def is_running(self) -> bool:
        """Whether anything can be awaited in it."""
        return not self._stopped

    def wait(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine in the loop and wait for its end, which an interrupt of the waiting is,
        too. NotConnected once the loop has stopped, or if it is stopped meanwhile."""
        with self._begins:
            if self._stopped:
                work.close()
                raise NotConnected("the client is closed")
            begun = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return begun.result()
        except CancelledError:
            raise NotConnected("the client is closed") from None
        finally:
            begun.cancel()  # nothing if it has ended

    def stop(self) -> None:
        """End all that is waited for, the loop and its thread; harmless to repeat."""
        with self._begins:
            is_first, self._stopped = not self._stopped, True
        if is_first:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        if is_first:
            self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, left = await asyncio.wait(others, timeout=LAST_SECONDS)
            for one in left:
                one.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)  # who waits for the last of them is told


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
        with contextlib.suppress(NotConnected):  # another thread closes it
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
