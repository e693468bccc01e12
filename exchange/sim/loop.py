"""An event loop without a world: time is virtual, and one seed decides all that is left to chance.

What a real loop takes from outside (threads, sockets, the clock) comes here from timers alone, so
a run is a function of its seed. Two things are drawn: in which order callbacks due at the same
instant run, and, in a *shuffled* loop, in which order callbacks run that are ready together, which
asyncio runs as they came.

A ``Process`` is a set of tasks that can be killed at any await. Nothing of a killed process runs
again but the ends of its coroutines, which find it dead.
"""

import asyncio
import contextlib
import heapq
import inspect
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, Final, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from exchange.journal.errors import JournalStopped

STEPS_MAX: Final = 20_000_000  # callbacks of one run: more is a loop that never ends
NS: Final = 1_000_000_000
EXECUTOR_NS_MAX: Final = 2_000_000  # how long work given to an executor takes at most, drawn
CLOSINGS_MAX: Final = 100  # of a killed coroutine that awaits something at its end again and again
PRUNE_TASKS: Final = 256  # tasks that a process may have before it forgets those that ended

_Result = TypeVar("_Result")
_Ts = TypeVarTuple("_Ts")
PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)


class Killed(BaseException):
    """Raised inside an operation that a process dies in."""


# What a failing disk raises: it ends a market, and every part of it that meets it.
EXPECTED: Final = (Killed, OSError, JournalStopped)


class Stuck(AssertionError):
    """Nothing is left to do, or there is no end to it, and the run has not ended."""


class Process:
    """Tasks that live and die together. ``enter`` makes the next tasks its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.tasks: list[asyncio.Task[Any]] = []
        self._prune_at = PRUNE_TASKS

    def context(self) -> Context:
        """Return a context whose tasks, and theirs, belong to this process."""
        context = copy_context()
        context.run(PROCESS.set, self)
        return context

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Let a task live and die with it."""
        if len(self.tasks) >= self._prune_at:
            self.tasks = [task for task in self.tasks if not task.done()]
            self._prune_at = 2 * len(self.tasks) + PRUNE_TASKS
        self.tasks.append(task)

    def kill(self) -> None:
        """End it where it stands. Its coroutines are closed while nothing obeys them any more."""
        self.alive = False
        while self.tasks:
            task = self.tasks.pop(0)
            coroutine = task.get_coro()
            if not task.done() and inspect.iscoroutine(coroutine):
                self.context().run(_close, coroutine)


def _close(outermost: Coroutine[Any, Any, Any]) -> None:
    # From the inside out, for one that awaits at its end would be left half closed by the one that
    # awaits it. It is closed again; one that uses what is dead fails; one that is being run cannot
    # be closed. All of that is what a kill means.
    for _ in range(CLOSINGS_MAX):
        chain = [outermost]
        while inspect.iscoroutine(inner := chain[-1].cr_await):  # type: ignore[attr-defined]
            chain.append(inner)
        with contextlib.suppress(Exception, Killed, GeneratorExit):
            chain[-1].close()
        if inspect.getcoroutinestate(outermost) in (inspect.CORO_CLOSED, inspect.CORO_RUNNING):
            return
        if len(chain) > 1 and inspect.getcoroutinestate(chain[-1]) == inspect.CORO_CLOSED:
            with contextlib.suppress(Exception, Killed, GeneratorExit):
                chain[-2].close()
    raise AssertionError(f"{outermost} does not end")


def _owner(context: Context | None) -> Process | None:
    """The process of a callback that runs in ``context``, or in the present one."""
    return PROCESS.get() if context is None else context.get(PROCESS)


class SimLoop(asyncio.BaseEventLoop):
    """The loop. ``errors`` gathers what no task was there to raise."""

    def __init__(self, random: Random, *, shuffled: bool = False) -> None:
        self._is_closed = self._is_running = False
        super().__init__()
        self.now_ns = 0
        self.steps = 0
        self.errors: list[BaseException] = []
        self.on_step: Callable[[Process], None] | None = None  # asked before a process's callback
        self._random = random
        self._shuffled = shuffled
        self._queue: list[tuple[asyncio.Handle, Process | None]] = []
        self._timers: list[tuple[int, int, int, asyncio.Handle, Process | None]] = []
        self._outside = Process("outside")  # everything that is of no process
        self._owners: WeakKeyDictionary[object, Process] = WeakKeyDictionary()  # of tasks
        self._numbers = 0

    # Time

    def time(self) -> float:
        return self.now_ns / NS

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append((handle, _owner(context)))
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)  # there are no threads

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._numbers += 1
        tie = self._random.getrandbits(32)
        due = max(self.now_ns, round(when * NS))
        heapq.heappush(self._timers, (due, tie, self._numbers, handle, _owner(context)))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asyncio tells of a cancelled timer; it is skipped when its time comes."""

    # Futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, _Result] | Coroutine[Any, Any, _Result],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[_Result]:
        text = None if name is None else str(name)
        task = asyncio.Task(coro, loop=self, name=text, context=context)
        process = _owner(context)
        if process is not None:
            self._owners[task] = process
        (process or self._outside).adopt(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., _Result], *args: Any
    ) -> asyncio.Future[_Result]:
        """Do the work whole, at a drawn moment: a thread's place taken by the seed."""
        future: asyncio.Future[_Result] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # whoever waits raises it
                future.set_exception(error)

        self.call_later(self._random.randrange(EXECUTOR_NS_MAX) / NS, work)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        """End what still waits, and be of no more use."""
        self._is_closed = True
        asyncio.events._set_running_loop(self)  # of those that gather others at their end
        try:
            self._outside.kill()
        finally:
            asyncio.events._set_running_loop(None)
        self._queue.clear()
        self._timers.clear()

    async def shutdown_asyncgens(self) -> None:
        """None are kept."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what was raised outside any await, unless its process is dead.

        A message without an exception only says that a killed task never ended.
        """
        error = context.get("exception")
        task = context.get("task") or context.get("future")
        process = None if task is None else self._owners.get(task)
        is_dead = process is not None and not process.alive
        if error is not None and not is_dead and not isinstance(error, EXPECTED):
            self.errors.append(error)

    # Running

    def run_until_complete(  # type: ignore[override]
        self, future: Coroutine[Any, Any, _Result] | asyncio.Future[_Result]
    ) -> _Result:
        """Run until ``future`` is done. Raises Stuck when it never will be."""
        task: asyncio.Future[_Result] = asyncio.ensure_future(future, loop=self)
        asyncio.events._set_running_loop(self)
        self._is_running = True
        try:
            while not task.done():
                self._step()
        finally:
            self._is_running = False
            asyncio.events._set_running_loop(None)
        return task.result()

    def _step(self) -> None:
        """Run one callback: the next that is ready, or else the next that is due."""
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Stuck(f"no end after {STEPS_MAX} steps, at {self.time():.3f} s")
        while self._timers and (self._timers[0][0] <= self.now_ns or not self._queue):
            due, _, _, timer, owner = heapq.heappop(self._timers)
            if not timer.cancelled():
                self.now_ns = max(self.now_ns, due)
                self._queue.append((timer, owner))
        if not self._queue:
            raise Stuck(f"nothing is left to do at {self.time():.3f} s")
        at = self._random.randrange(len(self._queue)) if self._shuffled else 0
        handle, process = self._queue.pop(at)
        if handle.cancelled():
            return
        if process is not None:
            if process.alive and self.on_step is not None:
                self.on_step(process)
            if not process.alive:
                return
        handle._run()
