"""What makes the log durable: a thread, so that the event loop matches the batch meanwhile.

As a rule the thread does without the interpreter (handover.pyx): it begins at once, while the loop
works on, and its end wakes the loop directly. Never in the event loop, however quick the disk was
the last time: a stalled disk may hold up acknowledgements, but not heartbeats.
"""

import os
from asyncio import AbstractEventLoop
from collections.abc import Callable
from threading import Thread
from typing import Protocol

from exchange.journal.handover import Handover

Done = Callable[[Exception | None], None]


class Log(Protocol):
    """What is to be made durable."""

    def sync(self) -> None:
        """Make everything written so far durable; raises what failed."""

    def handle(self) -> int:
        """Return the descriptor whose ``fdatasync`` is all that ``sync`` would do; -1: none is."""

    def sync_failed(self, error: OSError) -> Exception:
        """Take note that this ``fdatasync`` failed; return what ``sync`` would have raised."""


class Syncer(Protocol):
    """What a sequencer needs of it; a simulation has one without a thread."""

    def begin(self, loop: AbstractEventLoop, done: Done) -> None:
        """Begin a sync; ``done`` is called in the loop when it has ended, never before this has
        returned.
        """

    def stop(self) -> None:
        """Let what was begun end; its ``done`` may be left out."""


class SyncThread:
    """Syncs once per ``begin``, one at a time. ``took`` is told how many seconds each one took."""

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
        """Begin one sync; ``done`` is called in the loop with None, or with what failed."""
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
        """Let what was begun end, and end the thread."""
        self._hand.end()
        self._thread.join()
        if self._loop is not None:
            self._loop.remove_reader(self._hand.told)
        self._hand.close()
