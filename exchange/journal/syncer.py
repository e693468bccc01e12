"""Makes the log durable in a thread, while the event loop matches the next batch.

As a rule the thread does not need the interpreter's lock (handover.pyx): it begins at once, and its
end wakes the loop directly. The loop itself never syncs, however quick the disk is: a stalled disk
may delay acknowledgements, but not heartbeats.
"""

import os
from asyncio import AbstractEventLoop
from collections.abc import Callable
from threading import Thread
from typing import Protocol

from exchange.journal.handover import Handover

Done = Callable[[Exception | None], None]


class Log(Protocol):
    """The log that is made durable."""

    def sync(self) -> None:
        """Make everything written so far durable; raises the failure."""

    def handle(self) -> int:
        """Return the descriptor whose ``fdatasync`` is all that ``sync`` would do; -1 if there is
        none."""

    def sync_failed(self, error: OSError) -> Exception:
        """Record that this ``fdatasync`` failed; return the error that ``sync`` would have
        raised."""


class Syncer(Protocol):
    """What a sequencer needs of a syncer; a simulation has one without a thread."""

    def begin(self, loop: AbstractEventLoop, done: Done) -> None:
        """Begin a sync. ``done`` is called in the loop when it has ended, never before ``begin``
        has returned."""

    def stop(self) -> None:
        """Let a running sync end; its ``done`` may not be called."""


class SyncThread:
    """Syncs once per ``begin``, one at a time. ``took`` is called with each duration in seconds."""

    def __init__(self, log: Log, took: Callable[[float], None] | None = None) -> None:
        self._log = log
        self._took = took
        self._done: Done | None = None
        self._loop: AbstractEventLoop | None = None
        self._hand = Handover()
        self._thread = Thread(
            target=self._hand.serve, args=(log.sync,), name="journal-sync", daemon=True
        )
        self._thread.start()

    def begin(self, loop: AbstractEventLoop, done: Done) -> None:
        """Begin one sync; ``done`` is called in the loop with None, or with the error."""
        assert self._done is None, "one sync at a time"
        self._done = done
        if loop is not self._loop:
            loop.add_reader(self._hand.told, self._ended)
            self._loop = loop
        self._hand.ask(self._log.handle())

    def _ended(self) -> None:
        failed, error, seconds = self._hand.take()
        done, self._done = self._done, None
        assert done is not None, "it was asked for"
        if failed:
            error = self._log.sync_failed(OSError(failed, os.strerror(failed)))
        done(error)
        if self._took is not None:
            self._took(seconds)

    def stop(self) -> None:
        """Let a running sync end, and stop the thread."""
        self._hand.end()
        self._thread.join()
        if self._loop is not None:
            self._loop.remove_reader(self._hand.told)
        self._hand.close()
