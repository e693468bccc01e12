"""What makes the log durable: a thread, so that the event loop matches the next batch meanwhile.

A bare thread and a queue: an executor's future costs a third more of every round trip. Never in
the event loop, however quick the disk was the last time: a stalled disk may hold up
acknowledgements, but not heartbeats.
"""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

Done = Callable[[Exception | None], None]


class Syncer(Protocol):
    """What a sequencer needs of it; a simulation has one without a thread."""

    def begin(self, loop: AbstractEventLoop, done: Done) -> None: ...
    def stop(self) -> None: ...


class SyncThread:
    """Calls ``sync`` once per ``begin``, in order, and reports to the loop that asked."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._asked: SimpleQueue[tuple[AbstractEventLoop, Done] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="journal-sync", daemon=True)
        self._thread.start()

    def begin(self, loop: AbstractEventLoop, done: Done) -> None:
        """Begin one sync; ``done`` is called in the loop with None, or with what failed."""
        self._asked.put((loop, done))

    def _once(self) -> Exception | None:
        """Sync; return what failed, for the loop to raise."""
        try:
            self._sync()
        except Exception as error:  # handed over whole
            return error
        return None

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            loop, done = asked
            loop.call_soon_threadsafe(done, self._once())

    def stop(self) -> None:
        """Let what was begun end, and end the thread."""
        self._asked.put(None)
        self._thread.join()
