"""What makes the log durable: a thread, so that the event loop matches the next batch meanwhile.

A bare thread and a queue: an executor's future costs a third more of every round trip. Even so a
batch waits for two switches of threads, which is more than a quick disk takes. While the last
sync was quick, the next is therefore done in place; one that turns out slow is the last of these.
"""

import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Final

QUICK_SECONDS: Final = 0.0003  # about what a loaded machine takes to hand over and back

Done = Callable[[Exception | None], None]


class SyncThread:
    """Calls ``sync`` once per ``begin``, in order, and reports to the loop that asked."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._quick = False
        self._asked: SimpleQueue[tuple[AbstractEventLoop, Done] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="journal-sync", daemon=True)
        self._thread.start()

    def begin(self, loop: AbstractEventLoop, done: Done) -> None:
        """Begin one sync, the one before having ended.

        ``done`` is called in the loop, or before this returns, with None or with what failed.
        """
        if self._quick:
            done(self._once())
        else:
            self._asked.put((loop, done))

    def _once(self) -> Exception | None:
        """Sync; return what failed, for the loop to raise."""
        started = time.perf_counter()
        try:
            self._sync()
        except Exception as error:  # handed over whole
            return error
        self._quick = time.perf_counter() - started < QUICK_SECONDS
        return None

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            loop, done = asked
            loop.call_soon_threadsafe(done, self._once())

    def stop(self) -> None:
        """Let what was begun end, and end the thread."""
        self._asked.put(None)
        self._thread.join()
