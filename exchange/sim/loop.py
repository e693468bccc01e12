"""An event loop in virtual time, deterministic for a seed.

What a real loop takes from outside (threads, sockets, the clock) is replaced by timers, so that a
run is a function of its seed. Two things are drawn: the order of callbacks due at the same instant,
and, in a *shuffled* loop, the order of callbacks that are ready together, which asyncio runs first
in, first out.

A ``Process`` is a set of tasks that can be killed at any await. After that nothing of it runs
except the cleanup of its coroutines, whose actions have no effect.
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

STEPS_MAX: Final = 20_000_000  # callbacks of a storm; more mean that it never ends
STILL_STEPS_MAX: Final = 1_000_000  # callbacks at one instant; more mean that time stands still
NS: Final = 1_000_000_000
EXECUTOR_NS_MAX: Final = 2_000_000  # longest duration of work in an executor, which is drawn
CLOSINGS_MAX: Final = 100  # tries to close a killed coroutine that awaits again in its cleanup
PRUNE_TASKS: Final = 256  # tasks of a process before finished ones are dropped

_Result = TypeVar("_Result")
_Ts = TypeVarTuple("_Ts")
PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)


class Killed(BaseException):
    """Raised inside an operation during which its process dies."""


# The errors of a failing disk: they end a market and whatever part of it meets them.
EXPECTED: Final = (Killed, OSError, JournalStopped)


class Stuck(AssertionError):
    """The run cannot end: nothing is left to do, time stands still, or it exceeded its steps."""


class Process:
    """Tasks that live and die together. Tasks created in its ``context`` belong to it."""

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
        """Add a task to the process."""
        if len(self.tasks) >= self._prune_at:
            self.tasks = [task for task in self.tasks if not task.done()]
            self._prune_at = 2 * len(self.tasks) + PRUNE_TASKS
        self.tasks.append(task)

    def kill(self) -> None:
        """End the process at once. Its coroutines are closed when their actions have no more
        effect."""
        self.alive = False
        while self.tasks:
            task = self.tasks.pop(0)
            coroutine = task.get_coro()
            if not task.done() and inspect.iscoroutine(coroutine):
                self.context().run(_close, coroutine)


def _close(outermost: Coroutine[Any, Any, Any]) -> None:
    # From the inside out: a coroutine that awaits in its cleanup would be left half closed by the
    # one that awaits it. It is closed again; errors from using something dead are ignored; a
    # running one cannot be closed. All of this belongs to a kill.
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
    """Return the process of a callback in ``context``, or in the present context if None."""
    return PROCESS.get() if context is None else context.get(PROCESS)


class SimLoop(asyncio.BaseEventLoop):
    """The event loop. ``errors`` collects exceptions that no task could raise; ``steps_max`` is
    the most callbacks of a run, 0: any number, for a run that has an end in time."""

    def __init__(
        self, random: Random, *, shuffled: bool = False, steps_max: int = STEPS_MAX
    ) -> None:
        self._is_closed = self._is_running = False
        super().__init__()
        self.now_ns = 0
        self.steps = 0
        self._steps_max = steps_max
        self._still = 0  # ``steps`` when time last moved
        self.errors: list[BaseException] = []
        # Called before a callback of a process
        self.on_step: Callable[[Process], None] | None = None
        self._random = random
        self._shuffled = shuffled
        self._queue: list[tuple[asyncio.Handle, Process | None]] = []
        self._timers: list[tuple[int, int, int, asyncio.Handle, Process | None]] = []
        self._outside = Process("outside")  # owns the tasks of no process
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
        """Do nothing: a cancelled timer is skipped when it is due."""

    # Futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, _Result] | Coroutine[Any, Any, _Result],
        *,
        name: object = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> asyncio.Task[_Result]:
        """Return a new task, which begins in a turn of its own even if asked to start at once."""
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
        """Do the work at once at a drawn moment, in place of a thread."""
        future: asyncio.Future[_Result] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # raised by whoever awaits it
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
        """End the remaining tasks; the loop cannot be used again."""
        self._is_closed = True
        # Needed by coroutines that gather others in their cleanup
        asyncio.events._set_running_loop(self)
        try:
            self._outside.kill()
        finally:
            asyncio.events._set_running_loop(None)
        self._queue.clear()
        self._timers.clear()

    async def shutdown_asyncgens(self) -> None:
        """Do nothing: none are tracked."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: there is none."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep an exception raised outside any await, unless its process is dead.

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
        """Run until ``future`` is done. Raises Stuck if it cannot finish."""
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
        """Run one callback: the next that is ready, otherwise the next that is due."""
        self.steps += 1
        if 0 < self._steps_max < self.steps:
            raise Stuck(f"no end after {self._steps_max} steps, at {self.time():.3f} s")
        if self.steps - self._still > STILL_STEPS_MAX:
            raise Stuck(f"time stands still at {self.time():.3f} s: something never waits")
        while self._timers and (self._timers[0][0] <= self.now_ns or not self._queue):
            due, _, _, timer, owner = heapq.heappop(self._timers)
            if not timer.cancelled():
                if due > self.now_ns:
                    self.now_ns, self._still = due, self.steps
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
