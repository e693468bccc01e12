"""A clearing house in a process of its own, which a test kills: the books of a House elsewhere."""

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from clearing_house import House

from exchange.app import bookkeeping
from exchange.clearing import Clearing
from exchange.journal import stream
from exchange.journal.frame import EXCHANGE_ID_BYTES, pack_texts
from exchange.journal.tape import Released, Tape

BOOKED_SECONDS: Final = 60.0  # by then a batch is in the ledger, whoever was killed
FRAMES: Final = "512"  # of one transaction of the ledger
KILLED_WITHIN: Final = 0.01  # seconds after a batch came
IDLE, AT_WORK, DONE = range(3)
Answer = TypeVar("Answer")

_context: Final = multiprocessing.get_context("forkserver")  # what is imported is imported once
_context.set_forkserver_preload(["exchange.app.bookkeeping"])


def follow(directory: str) -> None:
    """What the child runs: its parent is the process that forks."""
    bookkeeping.main(directory, FRAMES, "0", str(os.getppid()))


class Broadcast:
    """The released stream on its socket, served by a loop in a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="broadcast")
        self._thread.start()
        self._tape = Tape(directory, bytes(EXCHANGE_ID_BYTES))
        self._tape.settle()
        self._server = self._do(stream.serve(self._tape, directory / bookkeeping.STREAM_NAME))

    def _do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BOOKED_SECONDS)

    def append(self, *frames: Released) -> None:
        """Release batches to every follower."""

        async def append() -> None:
            for frame in frames:
                self._tape.append(frame, pack_texts(frame.texts))

        self._do(append())

    def end(self) -> None:
        """End the stream: a follower that has read it all is done."""

        async def end() -> None:
            self._tape.close()

        self._do(end())

    def close(self) -> None:
        """Serve nobody any more."""

        async def close() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                await task  # one that waited for a follower who was killed

        self._do(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Apart(House):
    """A house whose clearing is another process: killed (SIGKILL) at every batch, and started
    again.

    In turn it is killed before the batch comes, while it books it, and once it has.
    """

    directory: Path = Path()
    draw: Random = field(default_factory=lambda: Random(1))
    kills: int = 0
    cut: int = 0  # kills that found it at work on a batch

    @classmethod
    def follow(cls, begun: House, directory: Path) -> "Apart":
        """Take over the market of a house; its stream so far is booked anew by the process."""
        begun.clearing.close()
        path = directory / bookkeeping.LEDGER_NAME
        Clearing.open(path).close()
        made = cls(Clearing.open(path, read_only=True), begun.market, directory)
        made.broadcast.append(*begun.market.frames)
        made._await_booked()
        return made

    def __post_init__(self) -> None:
        self.broadcast = Broadcast(self.directory)
        self._child = self._start()

    def book(self) -> None:
        kind = self.kills % 3
        if kind == IDLE:
            self._kill()
        self.broadcast.append(self.market.frames[-1])
        if kind == AT_WORK:
            time.sleep(self.draw.uniform(0, KILLED_WITHIN))
            self._kill()
            self.cut += self.clearing.position[1] < self.market.sequence
        elif kind == DONE:
            self._await_booked()
            self._kill()
        self._child = self._start()
        self._await_booked()

    def end(self) -> None:
        """End the stream; the process ends where it does."""
        self.broadcast.end()
        self._child.join(BOOKED_SECONDS)
        ended = self._child.exitcode
        self._child.kill()
        self.broadcast.close()
        self.clearing.close()
        assert ended == 0, f"the clearing process ended with {ended}"

    def _start(self) -> BaseProcess:
        child = _context.Process(target=follow, args=(str(self.directory),), daemon=True)
        child.start()
        return child

    def _kill(self) -> None:
        self._child.kill()
        self._child.join()
        self.clearing.look()
        self.kills += 1

    def _await_booked(self) -> None:
        """Until the ledger's file has all that was released."""
        until = time.monotonic() + BOOKED_SECONDS
        self.clearing.look()
        while self.clearing.position[1] < self.market.sequence:
            assert self._child.exitcode is None, "the clearing process died by itself"
            assert time.monotonic() < until, "the clearing process does not book"
            time.sleep(0.001)
            self.clearing.look()
        self.clearing.refresh()
