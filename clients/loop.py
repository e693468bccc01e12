"""An event loop in a thread of its own: how blocking code uses async clients.

It stands beside whatever loop the program has, so a blocking client works inside a notebook, whose
cells run in a loop already.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar

from clients.errors import NotConnected

LAST_SECONDS: Final = 0.1  # for what is about to end when the loop is stopped
CLOSED: Final = "the client is closed"


class Closing(Protocol):
    """An async client, as far as its blocking one must know."""

    async def close(self) -> None: ...


_C = TypeVar("_C", bound=Closing)
_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Call(Generic[_R]):
    """A coroutine in the loop, for a thread that waits for its end.

    Both share one bare lock, since an interrupt falls between any two steps of who waits: among
    those of a ``concurrent.futures`` condition it leaves that locked, and the loop stands still
    before it. And no task ends in the thread that waits: in a finalizer an interrupt is lost.
    """

    def __init__(self, work: Coroutine[Any, Any, _R]) -> None:
        self._work: Coroutine[Any, Any, _R] | None = work
        self._task: asyncio.Task[_R] | None = None
        self._result: list[_R] = []
        self._error: BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def begin(self) -> None:
        """Start it; in the loop."""
        work, self._work = self._work, None
        if work is not None:
            self._task = asyncio.get_running_loop().create_task(work)
            self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Have it end, if it has not; in the loop."""
        work, self._work = self._work, None
        if work is not None:
            work.close()
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[_R]) -> None:
        self._task = None
        if task.cancelled():
            self._error = NotConnected(CLOSED)
        elif (error := task.exception()) is not None:
            self._error = error
        else:
            self._result.append(task.result())
        self._ended.release()

    def outcome(self) -> _R:
        """Wait for its end, in another thread; return what it does, or raise it."""
        self._ended.acquire()
        error, self._error = self._error, None
        if error is None:
            return self._result.pop()
        try:
            raise error
        finally:
            del error  # which has this frame


class LoopThread:
    """A loop that runs until ``stop``. Any thread may wait in it, and any may stop it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hourbook", daemon=True)
        self._begins = threading.Lock()  # so that nothing begins once it is being stopped
        self._ending: asyncio.Task[None] | None = None
        self._stopped = False
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether anything can be awaited in it."""
        return not self._stopped

    def wait(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine in the loop and wait for its end, which an interrupt of the waiting is,
        too. NotConnected once the loop has stopped, or if it is stopped meanwhile."""
        call = _Call(work)
        try:
            if not self._soon(call.begin):
                work.close()
                raise NotConnected(CLOSED)
            return call.outcome()
        except BaseException:
            self._soon(call.cancel)  # nothing if it has ended
            raise

    def _soon(self, do: Callable[[], None]) -> bool:
        """Have something done in the loop; return whether it is not being stopped."""
        with self._begins:
            if not self._stopped:
                self._loop.call_soon_threadsafe(do)
            return not self._stopped

    def stop(self) -> None:
        """End all that is waited for, the loop and its thread; harmless to repeat."""
        with self._begins:
            self._stopped = True
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._begin_end)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def _begin_end(self) -> None:
        if self._ending is None:
            self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, left = await asyncio.wait(others, timeout=LAST_SECONDS)
            for one in left:
                one.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        self._loop.call_soon(self._loop.stop)  # behind those who are told of the last of them


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
