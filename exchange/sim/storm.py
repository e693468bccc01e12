"""One seed of the simulation: a market in a storm of faults, and the checks after it.

During the storm the host dies at any step and in the middle of disk operations, the power fails,
disks fail and fill up, network paths are blocked, connections end visibly or unseen, clients die,
clocks jump, and traders and an operator keep sending requests, through auctions, breakers' halts,
trades of combinations and trades with implied prices. Then every fault stops, and *liveness* is
asserted: every request is answered, every report was delivered exactly once, all books agree, and
the ledger balances.

A run is a function of its seed: the same seed gives the same log, the same tape and the same trace.
"""

import asyncio
import contextlib
import gc
import tempfile
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

import msgspec

import exchange.gateway.resume as resume
import exchange.gateway.session as gateway_session
import exchange.journal.room as room
import exchange.sequencer as sequencer
from clients.aio import AsyncClient
from clients.backoff import Backoff
from exchange.app.conduct import BREAKER_HALTS
from exchange.gateway.auth import create_key
from exchange.messages import EVENT, EventKind, HaltCause
from exchange.messages.wire import Position
from exchange.sim.bugs import BUGS
from exchange.sim.checks import Checker
from exchange.sim.disk import SimDisk
from exchange.sim.history import History
from exchange.sim.host import Host, HostFaults
from exchange.sim.loop import NS, PROCESS, SimLoop
from exchange.sim.net import ClientTransport, Network
from exchange.sim.operator import Operator
from exchange.sim.ranges import Ranges
from exchange.sim.trader import Habits, Trader
from exchange.sim.virtual import virtual

EPOCH_NS: Final = 1_795_176_000 * NS  # 20 November 2026, noon
CODES: Final = ("H100Z26", "A100Z26")
SPREAD: Final = ("H100F27", "H100Z26-H100F27")  # another month, and the calendar spread of both
SIGHTS: Final = (
    EventKind.AUCTION_UNCROSSED, EventKind.ORDER_EXECUTED, EventKind.LEG_TRADE,
    EventKind.ORDER_WAITING, EventKind.ORDER_ELECTED,
)  # fmt: skip
CASH: Final = "50000000"
TICK_SECONDS: Final = 0.1
LIVENESS_SECONDS: Final = 600.0  # virtual time within which everybody must be served
QUICK: Final = Backoff(first_s=0.05, most_s=2.0)


class Trace:
    """A running hash of what happened, in order; the lines themselves on request."""

    def __init__(self, loop: SimLoop, *, keep: bool) -> None:
        self._loop = loop
        self._hash = blake2b(digest_size=16)
        self.lines: list[str] | None = [] if keep else None

    def __call__(self, text: str) -> None:
        """Record an occurrence at the present time."""
        line = f"{self._loop.now_ns / NS:.6f} {text}"
        self._hash.update(line.encode() + b"\n")
        if self.lines is not None:
            self.lines.append(line)

    def digest(self) -> str:
        """Return the hash so far."""
        return self._hash.hexdigest()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one run. Hashes are hex; equal seeds give equal reports."""

    seed: int
    log_hash: str
    tape_hash: str
    trace_hash: str
    state_hash: str
    steps: int
    virtual_seconds: float
    commands: int
    operations: dict[str, int]  # by outcome
    lives: int  # of the server
    deaths: dict[str, int]
    refusals: list[str]  # why starts failed or lives ended by themselves
    trouble: dict[str, int]  # faults of the disk that occurred
    sights: dict[str, int]  # rare kinds of market events


class Simulation:
    """One run. ``history`` and ``files`` can be inspected once it is over."""

    def __init__(self, seed: int, directory: Path, *, bug: str = "", trace: bool = False) -> None:
        self.seed = seed
        self.ranges = Ranges.draw(Random(f"{seed}/ranges"))
        self.loop = SimLoop(Random(f"{seed}/loop"), shuffled=self.ranges.shuffled)
        self.trace = Trace(self.loop, keep=trace)
        self.net = Network(self.loop, Random(f"{seed}/net"), self.ranges.weather)
        self.disk = SimDisk(Random(f"{seed}/disk"))
        self.history = History()
        self.traders: list[Trader] = []
        self.directory = directory
        self.bug = bug
        self.codes: dict[str, int] = {}  # instrument ids by code, once the storm is over
        self._random = Random(f"{seed}/storm")
        self.host = Host(
            self.loop, self.disk, self.net, directory, Random(f"{seed}/host"), EPOCH_NS,
            {"segment_bytes": self.ranges.limits.segment_bytes},
        )  # fmt: skip
        self.host.note = self.trace
        outrights = (
            [CODES[0], SPREAD[0]] if self.ranges.spread else CODES[: self.ranges.instruments]
        )
        self.operator = Operator(
            self.host, Random(f"{seed}/operator"), [*outrights], sessions=self.ranges.sessions
        )

    # Clocks

    def clock_ns(self) -> int:
        """The true time, which clients' hosts show."""
        return EPOCH_NS + self.loop.now_ns

    def _local_ns(self) -> int:
        """The time on the host of the code that asks."""
        return self.clock_ns() if PROCESS.get() is None else self.host.clock_ns()

    # The run

    def run(self) -> Report:
        """Run it. Raises AssertionError (Stuck is one) for whatever does not hold."""
        limits = self.ranges.limits
        with contextlib.ExitStack() as stack:
            stack.enter_context(virtual(self._local_ns, Random(f"{self.seed}/secrets")))
            for module, name, value in (
                (sequencer, "BATCH_COMMANDS", limits.batch_commands),
                (gateway_session, "BACKLOG_BYTES", limits.backlog_bytes),
                (gateway_session, "STALE_BYTES", limits.stale_bytes),
                (resume, "STALE_BYTES", limits.stale_bytes),
                (room, "RESERVE_BYTES", limits.reserve_bytes),
                (room, "STEP_BYTES", 2 * limits.reserve_bytes),
            ):
                stack.enter_context(patch.object(module, name, value))
            stack.enter_context(self.host.files.tracked())
            if self.bug:
                stack.enter_context(BUGS[self.bug]())
            stack.callback(self._abandon)
            return self.loop.run_until_complete(self._main())

    def _abandon(self) -> None:
        """End what a failed run leaves running."""
        if self.host.process is not None:
            self.host.process.kill()
        self.loop.close()

    async def _main(self) -> Report:
        living = asyncio.create_task(self.host.run())
        opening = asyncio.create_task(self._open())
        await asyncio.wait([opening, living], return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            living.result()
        opening.result()
        self._begin_storm()
        stop = asyncio.Event()
        working = [asyncio.create_task(trader.trade(stop)) for trader in self.traders]
        working.append(asyncio.create_task(self.operator.work(stop, self.ranges.operator_mean)))
        await self._blow(working)
        self._end_storm()
        stop.set()
        await self._calm(working, living)
        market = self.host.market
        assert market is not None, "a market serves"
        self.codes = {code: one.id for code, one in market.desk.instruments.by_code.items()}
        checker = Checker(self.host, self.traders, self.operator)
        await checker.living()
        for trader in self.traders:
            await trader.close()
        state_hash = await self.host.stop()
        await living
        checker.stopped(state_hash)
        assert not self.loop.errors, self.loop.errors
        return self._report(checker, state_hash)

    async def _calm(self, working: list[asyncio.Task[None]], living: asyncio.Task[None]) -> None:
        """Assert liveness: everybody is served, by a market that starts and stays up."""
        finishing = asyncio.create_task(self._finish(working))
        done, _ = await asyncio.wait(
            [finishing, living], timeout=LIVENESS_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if living in done:
            living.result()
        assert finishing in done, self._who_waits(working)
        finishing.result()

    async def _finish(self, working: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*working)
        await self.operator.finish()

    def _who_waits(self, working: list[asyncio.Task[None]]) -> str:
        waiting = [op for op in self.history.operations if op.answer is None and op.tries]
        busy = sum(not task.done() for task in working)
        return (
            f"{busy} of {len(working)} not served {LIVENESS_SECONDS:.0f} s after the storm:"
            f" {[(op.client, op.kind, op.key, op.tries) for op in waiting[-5:]]};"
            f" lives {self.host.lives}, last refusals {self.host.refusals[-2:]}"
        )

    async def _open(self) -> None:
        """Fund the accounts and connect the traders, before any fault."""
        while self.host.market is None:
            await asyncio.sleep(TICK_SECONDS)
        ranges = self.ranges
        codes = list(CODES[: ranges.instruments])
        if ranges.spread:
            await self.operator.list_spread(SPREAD[-1])
            codes = [CODES[0], *SPREAD]
        for account in range(1, ranges.traders + 1):
            await self.operator.deposit(account, CASH)
            key = create_key(self.directory, account, "trade")
            trader = self._trader(account, key, codes)
            self.traders.append(trader)
            await trader.connect()

    def _trader(self, account: int, key: tuple[str, str], codes: list[str]) -> Trader:
        name = f"t{account}"
        random = Random(f"{self.seed}/{name}")
        keeps = random.randrange(2) == 0
        grace_ms = random.choice((0, 2_000))
        market = self.host.market
        assert market is not None
        book = market.desk.instruments
        marks = {
            code: book.value(book.by_code[code]) // book.by_code[code].tick_value for code in codes
        }

        def make(after: Position | None) -> AsyncClient:
            return self._client(
                name, key, random, after=after, msgpack=account % 2 == 0,
                cancel_on_disconnect=not keeps, grace_ms=0 if keeps else grace_ms,
            )  # fmt: skip

        habits = Habits(
            codes=codes,
            marks=marks,
            workers=self.ranges.workers,
            pause_mean=self.ranges.pause_mean,
            stops=self.ranges.stops,
        )
        holding = Random(f"{self.seed}/{name}/holding")
        return Trader(
            name, account, make, habits, self.history, random, lambda: self.loop.now_ns,
            holding if holding.randrange(2) else None,
        )  # fmt: skip

    def _client(
        self, name: str, key: tuple[str, str], random: Random, **options: Any
    ) -> AsyncClient:
        async def connect(url: str, *, msgpack: bool) -> ClientTransport:
            return await self.net.connect(name, msgpack=msgpack)

        return AsyncClient(
            "ws://simulated", *key, connect=connect, clock_ns=self.clock_ns,
            chance=random.random, backoff=QUICK, answer_s=self.ranges.patience, **options,
        )  # fmt: skip

    # Weather

    def _begin_storm(self) -> None:
        self.trace("the storm begins")
        self.disk.faults = self.ranges.disk
        self.host.faults = self.ranges.host
        self.host.plan_death()

    def _end_storm(self) -> None:
        self.trace("the storm is over")
        for trader in self.traders:
            trader.calm = True
        self.disk.heal()
        self.net.heal()
        self.host.calm = True
        self.host.jump_ns = 0
        self.host.faults = HostFaults()
        self.host.plan_death()

    async def _blow(self, working: list[asyncio.Task[None]]) -> None:
        """Draw the faults of every tenth of a second, and raise what a worker failed with."""
        for _ in range(round(self.ranges.seconds / TICK_SECONDS)):
            await asyncio.sleep(TICK_SECONDS)
            for task in working:
                if task.done():
                    task.result()
            self._roll_host()
            for trader in self.traders:
                await self._roll_net(trader)

    def _happens(self, permille: int) -> bool:
        return permille > 0 and self._random.randrange(1000) < permille

    def _roll_host(self) -> None:
        ranges = self.ranges
        if self._happens(300):
            self.disk.is_full = False
        if self._happens(ranges.full_disks):
            self.disk.is_full = True
        if self._happens(ranges.jumps):
            self.host.jump_ns = self._random.randint(-ranges.jump_ms, ranges.jump_ms) * 1_000_000
            self.trace(f"the server's clock is off by {self.host.jump_ns / NS} s")

    async def _roll_net(self, trader: Trader) -> None:
        faults, name = self.ranges.net, trader.name
        mine = [c for c in self.net.living() if c.client == name]
        if self._happens(faults.block):
            self.trace(f"{name}: blocked")
            self.net.block(name, self._random.randint(1, faults.block_ms) / 1000)
        if self._happens(faults.cut):
            self.trace(f"{name}: cut")
            for connection in mine:
                connection.cut()
        if self._happens(faults.lose):
            self.trace(f"{name}: half open")
            for connection in mine:
                connection.lose()
        if self._happens(faults.slow):
            until = self.loop.now_ns + self._random.randint(1, faults.block_ms) * 1_000_000
            self.trace(f"{name}: reads slowly")
            for connection in mine:
                connection.down.paused_until = until
        if self._happens(faults.leave):
            self.trace(f"{name}: its host dies")
            for connection in mine:
                connection.lose()
            trader.leave()

    # The end

    def _report(self, checker: Checker, state_hash: str) -> Report:
        files = self.disk.everything()
        log = [data for name, data in files.items() if name.startswith("log/")]
        deaths: dict[str, int] = {}
        for why in self.host.deaths:
            deaths[why] = deaths.get(why, 0) + 1
        return Report(
            seed=self.seed,
            log_hash=blake2b(b"".join(log), digest_size=16).hexdigest(),
            tape_hash=blake2b(checker.tape_events, digest_size=16).hexdigest(),
            trace_hash=self.trace.digest(),
            state_hash=state_hash,
            steps=self.loop.steps,
            virtual_seconds=self.loop.time(),
            commands=checker.commands,
            operations=self.history.counts(),
            lives=self.host.lives,
            deaths=deaths,
            refusals=self.host.refusals,
            trouble=self.disk.trouble,
            sights=sights_of(checker.tape_events) | checker.switches.fates,
        )


def sights_of(events: bytes) -> dict[str, int]:
    """Count the rare kinds of events; a breaker's halts are counted under the breaker's name."""
    found: Counter[str] = Counter()
    for row in EVENT.iter_unpack(events):
        if row[2] in SIGHTS:
            found[EventKind(row[2]).name] += 1
        elif row[2] == EventKind.STATE_CHANGED and row[4] in BREAKER_HALTS:
            found[HaltCause(row[4]).name] += 1
    return dict(sorted(found.items()))


class Found(AssertionError):
    """Something that must hold did not. ``simulation`` can be inspected."""

    def __init__(self, simulation: Simulation, cause: Exception) -> None:
        again = f"--seed {simulation.seed} {f'--bug {simulation.bug} ' * bool(simulation.bug)}"
        super().__init__(
            f"seed {simulation.seed}: {type(cause).__name__}: {cause}"
            f" (replay it: hourbook simulate {again}--trace)"
        )
        self.simulation = simulation


def simulate(seed: int, *, bug: str = "", trace: bool = False) -> tuple[Report, Simulation]:
    """Run one seed in a temporary folder. Raises Found.

    ``bug`` is one of ``BUGS``, to be injected; ``trace`` keeps the lines of the trace.
    """
    with tempfile.TemporaryDirectory(prefix="hourbook-sim-", dir=memory_folder()) as folder:
        simulation = Simulation(seed, Path(folder), bug=bug, trace=trace)
        try:
            return simulation.run(), simulation
        except Exception as error:
            raise Found(simulation, error) from error
        finally:
            gc.collect()  # a life's engine is large, and every life leaves reference cycles


def memory_folder() -> Path | None:
    """Return a folder in memory, where real files are cheap; None for the system's default."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None
