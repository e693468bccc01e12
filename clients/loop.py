"""An event loop in its own thread, by which blocking code uses async clients.

It is independent of any other loop of the program, so that a blocking client also works in a
notebook, whose cells already run in a loop.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar

from clients.errors import NotConnected

LAST_SECONDS: Final = 0.1  # for tasks about to end when the loop is stopped
CLOSED: Final = "the client is closed"
ELSEWHERE: Final = "the client is of another process; make one in each, with a key of its own"


class Closing(Protocol):
    """What the blocking client needs of an async one."""

    async def close(self) -> None: ...


_C = TypeVar("_C", bound=Closing)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Step = Callable[[asyncio.AbstractEventLoop | None], None]


class _Call(Generic[_R]):
    """A coroutine in the loop whose result another thread waits for.

    Both threads share only a plain lock, since an interrupt can occur between any two steps of the
    waiting thread: in the middle of a ``concurrent.futures`` condition it would leave that locked
    and block the loop. No task is finalized in the waiting thread either, since an interrupt in a
    finalizer is lost.
    """

    def __init__(self, work: Coroutine[Any, Any, _R]) -> None:
        self._work: Coroutine[Any, Any, _R] | None = work
        self._task: asyncio.Task[_R] | None = None
        self._result: list[_R] = []
        self._error: BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def begin(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Start the coroutine; called in the loop, or without one once that is being stopped."""
        work, self._work = self._work, None
        if work is not None and loop is not None:
            self._task = loop.create_task(work)
            self._task.add_done_callback(self._end)
        elif work is not None:
            work.close()
            self._error = NotConnected(CLOSED)
            self._ended.release()

    def cancel(self, _: object) -> None:
        """Cancel it if it has not ended; called in the loop, or once that has ended."""
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
        """Wait for its end in another thread; return its result, or raise its error."""
        self._ended.acquire()
        error, self._error = self._error, None
        if error is None:
            return self._result.pop()
        try:
            raise error
        finally:
            del error  # it refers to this frame


class LoopThread:
    """A loop that runs until ``stop``. Any thread may wait for coroutines in it, and any may stop
    it. A fork has no such thread: there it counts as stopped.

    The threads share no lock but a queue: on Python 3.14 an interrupt between ``with`` and its
    block leaves a lock held for ever.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._asked = deque[_Step]()
        self._thread = threading.Thread(target=self._run, name="hourbook", daemon=True)
        self._ending: asyncio.Task[None] | None = None
        self._stopped = False
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine in the loop and wait for its result; an interrupt of the wait cancels it.
        NotConnected once the loop has stopped, or if it is stopped meanwhile."""
        if self._process != os.getpid():
            work.close()
            raise NotConnected(ELSEWHERE)
        call = _Call(work)
        try:
            self._ask(call.begin)
            return call.outcome()
        except BaseException:
            self._ask(call.cancel)  # no effect if it has ended
            raise

    def _ask(self, do: _Step) -> None:
        """Call a function in the loop, or in this thread if the loop has ended."""
        try:
            if not self._loop.is_closed():
                self._asked.append(do)
            self._loop.call_soon_threadsafe(self._do_asked)
        except RuntimeError:  # closed
            self._thread.join()  # its last turn is over: `do` is done, or nobody else will do it
            do(None)

    def _do_asked(self) -> None:
        while self._asked:
            self._asked.popleft()(None if self._stopped else self._loop)

    def stop(self) -> None:
        """End all waiting calls, the loop and its thread; may be repeated."""
        if self._process != os.getpid():
            return
        self._stopped = True
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._begin_end)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()
        self._do_asked()  # what came after the loop's last turn

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
        self._loop.call_soon(self._loop.stop)  # after the callbacks of the last tasks


class Blocking(Generic[_C]):
    """A client for programs without an event loop: an async client in a loop of its own."""

    def __init__(self, make: Callable[[], _C], loop: LoopThread | None = None) -> None:
        """``loop`` is one that belongs to another client, and that ``close`` leaves alone."""
        self.loop = loop if loop is not None else LoopThread()
        self._owns = loop is None

        async def begin() -> _C:
            return make()

        try:
            self.asynchronous = self.wait(begin())
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        if self._owns:
            self.loop.stop()

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine in the client's loop and wait for its end."""
        return self.loop.wait(work)

    def close(self) -> None:
        """Disconnect for good; may be repeated."""
        with contextlib.suppress(NotConnected):  # another thread is closing it
            self.wait(self.asynchronous.close())
        self._stop()


def blocking(
    method: Callable[Concatenate[_C, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[Blocking[_C], _P], _R]:
    """Return the async method as a blocking one."""

    @wraps(method)
    def call(client: Blocking[_C], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return client.wait(method(client.asynchronous, *args, **kwargs))

    return call
