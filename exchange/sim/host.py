"""The machine that the market runs on: it starts, dies and starts again.

What runs is ``exchange.app.Market`` and the gateway's own links, on a simulated disk, clock and
network. The ledger and the key file are SQLite's and lie in a real folder: what SQLite promises
of a crash is its own tests' affair; a power cut here may take the whole ledger, which the market
rebuilds.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import msgspec

from exchange.app import Market
from exchange.app.market import LEDGER_NAME
from exchange.gateway.server import Gateway, Link
from exchange.journal.errors import DamagedLog, JournalError
from exchange.journal.head import read_head
from exchange.journal.syncer import Done
from exchange.sim.disk import SimDisk
from exchange.sim.files import RealFiles
from exchange.sim.loop import Killed, Process, SimLoop
from exchange.sim.net import Network, ServerSocket

POLL_SECONDS: Final = 0.001
CALM_REFUSALS_MAX: Final = 2  # lives that may still end of what happened before
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class HostFaults(msgspec.Struct, frozen=True):
    """How a host dies. Times in milliseconds, probabilities in percent."""

    steps_to_crash: int = 0  # mean callbacks of a life that ends by itself; 0 for none
    operations_to_crash: int = 0  # mean disk operations of a life that ends in one
    power_cuts: int = 50  # of the deaths
    ledger_losses: int = 20  # of the power cuts
    restart_ms: int = 500
    sync_ms: int = 2  # mean
    stalls: int = 0  # syncs that stall, in permille
    stall_ms: int = 5_000


class SimSyncer:
    """The place of the sync thread: a sync that takes as long as the seed says."""

    def __init__(self, sync: Callable[[], None], seconds: Callable[[], float]) -> None:
        self._sync, self._seconds = sync, seconds

    def begin(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        """Sync after a while, then report."""
        loop.call_later(self._seconds(), self._work, done)

    def _work(self, done: Done) -> None:
        failure: Exception | None = None
        try:
            self._sync()
        except Exception as error:  # handed over whole, as the thread does
            failure = error
        done(failure)

    def stop(self) -> None:
        """Nothing to end."""


class Host:
    """One simulated machine. ``market`` is the one that serves, None while none does."""

    def __init__(
        self,
        loop: SimLoop,
        disk: SimDisk,
        net: Network,
        directory: Path,
        random: Random,
        epoch_ns: int,
        sequencing: dict[str, Any],
    ) -> None:
        self.loop, self.disk, self.net = loop, disk, net
        self.directory = directory
        self.files = RealFiles(directory, random)
        self.faults = HostFaults()
        self.note: Callable[[str], None] = lambda text: None
        self.jump_ns = 0  # how far its clock is off
        self.market: Market | None = None
        self.process: Process | None = None
        self.lives = 0
        self.deaths: list[str] = []
        self.refusals: list[str] = []
        self._random = random
        self._epoch_ns = epoch_ns
        self._sequencing = sequencing
        self._steps_left = 0
        self.calm = False  # no fault happens any more
        self._calm_refusals = 0
        self._links: list[Link] = []
        self._ended = asyncio.Event()  # this life
        self._stopped = asyncio.Event()
        self._stopping = False
        loop.on_step = self._step
        disk.on_death = self.kill

    def clock_ns(self) -> int:
        """The wall clock of this host: right but for its jumps."""
        return self._epoch_ns + self.loop.now_ns + self.jump_ns

    def sync_seconds(self) -> float:
        """How long the next sync takes."""
        faults = self.faults
        if faults.stalls and self._random.randrange(1000) < faults.stalls:
            self.disk.count("sync stalled")
            return faults.stall_ms / 1000
        return self._random.expovariate(1 / faults.sync_ms) / 1000

    # Life and death

    async def run(self) -> None:
        """Live again and again, until told to stop. AssertionError: it does not come up."""
        while not self._stopping:
            before = len(self.refusals)
            await self._live()
            if self._stopping:
                return
            self._calm_refusals += self.calm and len(self.refusals) > before
            assert self._calm_refusals <= CALM_REFUSALS_MAX, self.refusals[-1]
            await asyncio.sleep(self._random.randint(1, self.faults.restart_ms) / 1000)

    async def _live(self) -> None:
        self.lives += 1
        process = self.process = Process(f"server-{self.lives}")
        self._ended.clear()
        self._links.clear()
        self.plan_death()
        serving = process.context().run(asyncio.create_task, self._serve())
        serving.add_done_callback(lambda _: self._ended.set())
        await self._ended.wait()
        if process.alive:
            self._note_end(serving)
        self._bury(process)

    def plan_death(self) -> None:
        """Draw when this life ends."""
        faults, draw = self.faults, self._random.expovariate
        self._steps_left = int(draw(1 / faults.steps_to_crash)) + 1 if faults.steps_to_crash else 0
        operations = faults.operations_to_crash
        self.disk.crash_in = int(draw(1 / operations)) + 1 if operations else 0

    def _step(self, process: Process) -> None:
        """Before every callback of the server's: is it the one it does not live to see?"""
        if self._steps_left > 0:
            self._steps_left -= 1
            if self._steps_left == 0:
                self.kill("killed between two steps")

    def kill(self, why: str) -> None:
        """Kill the server where it stands."""
        assert self.process is not None
        self.note(why)
        self.deaths.append(why)
        self.process.alive = False
        self._ended.set()

    def _note_end(self, serving: asyncio.Task[None]) -> None:
        """Note why a life ended by itself: of the disk, or else of a bug, which is raised."""
        error = None if serving.cancelled() else serving.exception()
        if error is not None and not isinstance(error, JournalError | OSError):
            raise error
        if error is not None:
            self.refusals.append(f"{type(error).__name__}: {error}")
            self.note(self.refusals[-1])
        if isinstance(error, DamagedLog) and self.disk.damaged:
            self.disk.restore()

    def _bury(self, process: Process) -> None:
        """What the kernel does for the dead, or the power cut to all."""
        died = not process.alive
        market, self.market = self.market, None
        process.kill()
        power_cut = died and self._random.randrange(100) < self.faults.power_cuts
        self.net.server_gone(silently=power_cut)
        if market is not None:
            market.clearing.close()
        if power_cut:
            self.note("the power goes")
            self.disk.count("power cut")
            self.disk.power_cut()
            self.files.power_cut(self.disk.faults.torn_percent)
            if self._random.randrange(100) < self.faults.ledger_losses:
                self.disk.count("ledger lost")
                for suffix in ("", "-wal", "-shm"):
                    (self.directory / (LEDGER_NAME + suffix)).unlink(missing_ok=True)
        self.disk.settle()

    async def _serve(self) -> None:
        """What ``hourbook serve`` does."""
        market = await Market.start(
            self.directory,
            clock=self.clock_ns,
            syncer=lambda log: SimSyncer(log.sync, self.sync_seconds),
            storage=self.disk,
            **self._sequencing,
        )
        try:
            gateway = Gateway(market.hub)
            following = asyncio.create_task(gateway.run())
            while market.hub.sequence < market.tape.last[1]:
                await asyncio.sleep(POLL_SECONDS)
            self._open_doors(market)
            stopped = asyncio.create_task(self._stopped.wait())
            failed = asyncio.create_task(market.failed())
            parts = [following, stopped, failed]
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
            for link in self._links:
                link.session.close(1001, "the gateway is stopping")
        finally:
            await market.stop()

    def _open_doors(self, market: Market) -> None:
        self.market = market
        assert self.process is not None
        self.note(f"life {self.lives} serves, {market.tape.last} released")
        self.net.listen(self.process.context(), self._attend)

    async def _attend(self, socket: ServerSocket) -> None:
        assert self.market is not None
        link = Link(self.market.hub, socket, socket.abort)
        self._links.append(link)
        try:
            await link.serve()
        finally:
            self._links.remove(link)

    async def stop(self) -> str:
        """Stop the market in order; return the final state's hash."""
        self._stopping = True
        self._stopped.set()
        await self._ended.wait()
        head = read_head(self.disk)
        assert head is not None and head.state_hash, f"no orderly end: {self.refusals[-1:]}"
        return head.state_hash

    async def ask(self, work: Coroutine[Any, Any, _Result], seconds: float) -> _Result:
        """Have the server's process do something. TimeoutError if it dies, or takes too long."""
        assert self.process is not None
        process, ended = self.process, asyncio.create_task(self._ended.wait())
        task = process.context().run(asyncio.create_task, work)
        await asyncio.wait([task, ended], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not task.done():
            task.cancel()
            raise TimeoutError("the server died or is slow")
        with contextlib.suppress(Killed):
            return task.result()
        raise TimeoutError("the server died")
