"""The simulated machine that the market runs on: it starts, dies and starts again.

It runs ``exchange.app.Market`` and the gateway's own connection code on a simulated disk, clock and
network. The ledger and the key file are SQLite files in a real folder: SQLite's own crash safety is
not tested here, but a power cut may remove the whole ledger, which the market then rebuilds.
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
# Lives that may still end after the faults have stopped, for an earlier reason
CALM_REFUSALS_MAX: Final = 2
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class HostFaults(msgspec.Struct, frozen=True):
    """How a host dies. Times in milliseconds, probabilities in percent if not stated otherwise."""

    steps_to_crash: int = 0  # mean callbacks until a life is killed; 0: never
    operations_to_crash: int = 0  # mean disk operations until a life is killed in one
    power_cuts: int = 50  # share of the deaths
    ledger_losses: int = 20  # share of the power cuts that also remove the ledger
    restart_ms: int = 500
    sync_ms: int = 2  # mean
    stalls: int = 0  # share of syncs that stall, in permille
    stall_ms: int = 5_000


class SimSyncer:
    """Takes the place of the sync thread: a sync takes as long as the seed decides."""

    def __init__(self, sync: Callable[[], None], seconds: Callable[[], float]) -> None:
        self._sync, self._seconds = sync, seconds

    def begin(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        """Sync after a while, then report the result."""
        loop.call_later(self._seconds(), self._work, done)

    def _work(self, done: Done) -> None:
        failure: Exception | None = None
        try:
            self._sync()
        except Exception as error:  # passed on whole, as the thread does
            failure = error
        done(failure)

    def stop(self) -> None:
        """Do nothing: there is no thread."""


class Host:
    """One simulated machine. ``market`` is the one that serves now, or None."""

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
        self.jump_ns = 0  # error of its clock
        self.market: Market | None = None
        self.process: Process | None = None
        self.lives = 0
        self.deaths: list[str] = []
        self.refusals: list[str] = []
        self._random = random
        self._epoch_ns = epoch_ns
        self._sequencing = sequencing
        self._steps_left = 0
        self.calm = False  # no more faults
        self._calm_refusals = 0
        self._links: list[Link] = []
        self._ended = asyncio.Event()  # set when this life has ended
        self._stopped = asyncio.Event()
        self._stopping = False
        loop.on_step = self._step
        disk.on_death = self.kill

    def clock_ns(self) -> int:
        """The wall clock of this host: the true time plus its error."""
        return self._epoch_ns + self.loop.now_ns + self.jump_ns

    def sync_seconds(self) -> float:
        """Return how long the next sync takes."""
        faults = self.faults
        if faults.stalls and self._random.randrange(1000) < faults.stalls:
            self.disk.count("sync stalled")
            return faults.stall_ms / 1000
        return self._random.expovariate(1 / faults.sync_ms) / 1000

    # Life and death

    async def run(self) -> None:
        """Start the server again after each death, until stopped. AssertionError if it fails to
        start."""
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
        """Called before every callback of the server; may kill it."""
        if self._steps_left > 0:
            self._steps_left -= 1
            if self._steps_left == 0:
                self.kill("killed between two steps")

    def kill(self, why: str) -> None:
        """Kill the server at once."""
        assert self.process is not None
        self.note(why)
        self.deaths.append(why)
        self.process.alive = False
        self._ended.set()

    def _note_end(self, serving: asyncio.Task[None]) -> None:
        """Record why a life ended by itself: an error of the disk. Any other error is a bug, and
        raised."""
        error = None if serving.cancelled() else serving.exception()
        if error is not None and not isinstance(error, JournalError | OSError):
            raise error
        if error is not None:
            self.refusals.append(f"{type(error).__name__}: {error}")
            self.note(self.refusals[-1])
        if isinstance(error, DamagedLog) and self.disk.damaged:
            self.disk.restore()

    def _bury(self, process: Process) -> None:
        """Clean up after a death, as the kernel would; perhaps with a power cut."""
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
        """Do what ``hourbook serve`` does."""
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
        """Stop the market in order; return the hash of the final state."""
        self._stopping = True
        self._stopped.set()
        await self._ended.wait()
        head = read_head(self.disk)
        assert head is not None and head.state_hash, f"no orderly end: {self.refusals[-1:]}"
        return head.state_hash

    async def ask(self, work: Coroutine[Any, Any, _Result], seconds: float) -> _Result:
        """Run a coroutine in the server's process. TimeoutError if it dies or takes too long."""
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
