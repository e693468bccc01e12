"""The sandbox: a market for testing bots, with seeded makers and faults on demand.

``VirtualSandbox`` runs a bot inside this process in virtual time, as fast as the work allows: the
same seed and bot give the same log, byte for byte. ``Sandbox`` serves on a port in real time,
behind a relay that injects the faults, for clients in any language. In both the exchange is the
real one, and the makers are ordinary clients.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from decimal import Decimal
from functools import partial
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

import msgspec

from clients.aio import AsyncClient
from clients.backoff import Backoff
from clients.errors import NotConnected, OutcomeUnknown
from clients.keys import Key
from clients.portfolio import Margin
from exchange.app import Market, requests
from exchange.app.door import at
from exchange.app.settings import Limits, Settings
from exchange.gateway.auth import create_key
from exchange.gateway.faults import FaultySocket, Kind, Rates, Trouble
from exchange.gateway.relay import Relay
from exchange.gateway.server import Gateway, Link
from exchange.sim.crowd import Crowd, Perform, Scene
from exchange.sim.host import SimSyncer
from exchange.sim.loop import NS, SimLoop
from exchange.sim.net import ClientTransport, Network, ServerSocket, Weather
from exchange.sim.recorded import Replay, Tape
from exchange.sim.virtual import virtual

HOST: Final = "127.0.0.1"
VISITOR: Final = 1  # the first visitor's account
VISITOR_USD: Final = "5000000"
KEY_NAME: Final = "key.json"
START_NS: Final = 1_795_176_000 * NS  # 20 November 2026, noon: start of virtual time
POLL_SECONDS: Final = 0.001
OPEN_SECONDS: Final = 30.0  # limit for a served sandbox's makers to have their quotes out
LOOK_SECONDS: Final = 0.01  # between two checks of that
SECONDS: Final = 300  # default duration of a run
SYNC_SECONDS: Final = 0.002  # mean time of a virtual sync
END_SECONDS: Final = 30.0  # for a bot to end after it was asked to
QUICK: Final = Backoff(first_s=0.05, most_s=1.0)
WEATHER: Final = Weather(delay_least=100_000, delay_mean=500_000)
# Checks of clearing are rare: they are not what is tested here.
SETTINGS: Final = Settings(limits=Limits(watch_seconds=10.0, checkpoint_seconds=600.0))

Run: TypeAlias = Callable[[AsyncClient, asyncio.Event], Coroutine[Any, Any, None]]


class Deaf(TimeoutError):
    """The bot was still running ``END_SECONDS`` after it was asked to stop."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a virtual run. Hashes are hex; the same seed and bot give the same report.

    ``profit`` = cash + unrealized gains at the marks - deposits, in dollars.
    """

    seed: int
    virtual_seconds: float
    commands: int
    log_hash: str
    state_hash: str
    faults: dict[Kind, int]
    positions: dict[str, int]
    cash: str
    unrealized: str
    profit: str


class VirtualSandbox:
    """One run of one bot in virtual time. Afterwards ``directory`` is a market's data directory."""

    def __init__(
        self,
        directory: Path,
        *,
        seed: int = 1,
        scene: Scene | None = None,
        rates: Rates | None = None,
        tape: Tape | None = None,
    ) -> None:
        """Prepare a run. With a ``tape`` its recorded day replaces the scene's makers."""
        self.seed = seed
        self.directory = directory
        self.loop = SimLoop(Random(f"{seed}/loop"), steps_max=0)
        self.net = Network(self.loop, Random(f"{seed}/net"), WEATHER)
        self.trouble = Trouble(Random(f"{seed}/faults"))
        self._rates = rates if rates is not None else Rates()
        self._scene = scene if scene is not None else Scene()
        self._tape = tape
        self._start_ns = START_NS if tape is None else tape.start_ns
        self._random = Random(f"{seed}/host")
        self._exits = contextlib.AsyncExitStack()
        self.market: Market | None = None
        self.on_second: Callable[[int, int], None] | None = None  # called with seconds done, of all

    def clock_ns(self) -> int:
        """The present time in ns, of the market and all participants."""
        return self._start_ns + self.loop.now_ns

    def run(self, bot: Run, seconds: float = 0) -> Report:
        """Run a bot for ``seconds`` of virtual time, or until it ends; return the report.

        0 seconds mean the whole tape, or ``SECONDS`` without one. Raises what the bot raises; Deaf
        if it goes on for ``END_SECONDS`` after it was asked to stop; Stuck if it never waits, so
        that no time passes; NotConnected if it leaves its client without a connection, since the
        report queries the account.
        """
        if not seconds:
            seconds = SECONDS if self._tape is None else self._tape.seconds
        with virtual(self.clock_ns, Random(f"{self.seed}/secrets")):
            try:
                report = self.loop.run_until_complete(self._main(bot, seconds))
                if self.loop.errors:
                    raise self.loop.errors[0]
                return report
            finally:
                self.loop.close()

    async def _main(self, bot: Run, seconds: float) -> Report:
        self.market = market = await Market.start(
            self.directory,
            clock=self.clock_ns,
            settings=SETTINGS,
            syncer=lambda log: SimSyncer(log.sync, self._sync_seconds),
        )
        try:
            following = asyncio.create_task(Gateway(market.hub).run())
            while market.hub.sequence < market.tape.last[1]:
                await asyncio.sleep(POLL_SECONDS)
            self.net.listen(copy_context(), self._attend)
            async with self._exits:
                client = await self._trade(bot, seconds)
            following.cancel()
        finally:
            state_hash = await market.stop()
        return self._report(client, state_hash)

    async def _trade(self, bot: Run, seconds: float) -> "_Money":
        """Open the market, let everybody trade, and return the visitor's final balance."""
        assert self.market is not None, "started"
        crowd = self._crowd(self.market.operations.perform)
        await crowd.open()
        visitor = await self._connect(VISITOR, VISITOR_USD)
        over, stop = asyncio.Event(), asyncio.Event()
        quoting = asyncio.create_task(crowd.run(over))
        await asyncio.sleep(1.0)  # until the makers have quoted
        self.trouble.rates = self._rates
        trading = asyncio.create_task(bot(visitor, stop))
        for second in range(math.ceil(seconds)):
            if self.on_second is not None:
                self.on_second(second, math.ceil(seconds))
            await asyncio.wait([trading, quoting], timeout=1, return_when="FIRST_COMPLETED")
            if trading.done() or quoting.done():
                break
        stop.set()
        try:
            async with asyncio.timeout(END_SECONDS) as patience:
                await trading
        except TimeoutError as error:
            raise Deaf if patience.expired() else error from None
        finally:
            over.set()
        await quoting
        self.trouble.end()
        try:
            async with asyncio.timeout(END_SECONDS):
                margin = await _margin(visitor)
        except TimeoutError:
            raise NotConnected(
                f"the bot's client had no connection for {END_SECONDS:.0f} seconds after it: a bot"
                " leaves its client open"
            ) from None
        return _Money(visitor.positions, margin.cash, sum(margin.unrealized.values(), Decimal(0)))

    def _crowd(self, perform: Perform) -> Crowd | Replay:
        if self._tape is not None:
            return Replay(self._tape, perform, self._connect, self.clock_ns)
        return Crowd(self.seed, self._scene, perform, self._connect)

    async def _connect(self, account: int, usd: str) -> AsyncClient:
        """Open and fund an account, and connect its client over the virtual network."""
        assert self.market is not None, "started"
        await self.market.operations.perform(requests.Deposit(account=account, amount=usd))
        key = Key.hmac(*create_key(self.directory, account, "trade"))
        client = AsyncClient(
            "ws://sandbox.invalid",  # an unreachable address, for code that dials it by other means
            key,
            connect=partial(self.dial, str(account)),
            clock_ns=self.clock_ns,
            chance=Random(f"{self.seed}/{account}").random,
            backoff=QUICK,
            cancel_on_disconnect=True,
            grace_ms=5_000,
        )
        return await self._exits.enter_async_context(client)

    async def dial(self, name: str, url: str, *, msgpack: bool) -> ClientTransport:
        """Open a connection over the virtual network. Faults apply only to the visitor's name."""
        return await self.net.connect(name, msgpack=msgpack)

    async def _attend(self, socket: ServerSocket) -> None:
        """Serve one connection; faults are applied to what a visitor is sent."""
        assert self.market is not None, "started"
        if socket.client == str(VISITOR):
            faulty = FaultySocket(self.trouble, socket, socket.abort)
            await Link(self.market.hub, faulty, socket.abort).serve()
        else:
            await Link(self.market.hub, socket, socket.abort).serve()

    def _sync_seconds(self) -> float:
        return self._random.expovariate(1 / SYNC_SECONDS)

    def _report(self, money: "_Money", state_hash: str) -> Report:
        assert self.market is not None, "started"
        profit = money.cash + money.unrealized - Decimal(VISITOR_USD)
        return Report(
            seed=self.seed,
            virtual_seconds=self.loop.time(),
            commands=self.market.desk.sequence,
            log_hash=log_hash(self.directory),
            state_hash=state_hash,
            faults=self.trouble.told.met,
            positions=money.positions,
            cash=str(money.cash),
            unrealized=str(money.unrealized),
            profit=str(profit),
        )


class _Money(msgspec.Struct, frozen=True):
    positions: dict[str, int]
    cash: Decimal
    unrealized: Decimal


async def _margin(client: AsyncClient) -> Margin:
    """Return an account's margin, retrying until its client is connected."""
    while True:
        try:
            return await client.margin()
        except (NotConnected, OutcomeUnknown):
            await asyncio.sleep(QUICK.first_s)


def log_hash(directory: Path) -> str:
    """Return a hash of a log's bytes."""
    whole = blake2b(digest_size=16)
    for path in sorted((directory / "log").iterdir()):
        whole.update(path.read_bytes())
    return whole.hexdigest()


class Visit(msgspec.Struct, frozen=True):
    """What a visitor of a served sandbox needs."""

    ws: str
    http: str
    data: str
    account: int
    key_file: str


class Sandbox:
    """A served sandbox: ``open``, ``run`` until ``stop`` is set, ``close``.

    Visitors are let in once every quoted instrument has a bid and an ask.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int = 1,
        scene: Scene | None = None,
        rates: Rates | None = None,
    ) -> None:
        self._seed, self._directory = seed, directory
        self._scene = scene if scene is not None else Scene()
        self.trouble = Trouble(Random(f"{seed}/faults"), rates)
        self._exits = contextlib.AsyncExitStack()
        self._inner = ""  # the market's own address, behind the relay
        self._over = asyncio.Event()  # asks the makers to end
        self.market: Market | None = None

    async def open(self, host: str, port: int) -> Visit:
        """Start the market and its makers, and let visitors in. TimeoutError without quotes."""
        self.market = market = await Market.start(self._directory)
        self._exits.push_async_callback(market.stop)
        try:
            addresses = await market.listen(HOST, 0)
            self._inner = addresses.ws
            relay = Relay(addresses.http.removesuffix("/api/v1"), self.trouble)
            self._exits.push_async_callback(relay.close)
            perform = market.operations.perform
            self._crowd = Crowd(self._seed, self._scene, perform, self._connect)
            await self._crowd.open()
            self._trading = asyncio.create_task(self._crowd.run(self._over))
            self._exits.push_async_callback(self._end)
            async with asyncio.timeout(OPEN_SECONDS):
                while not (self._crowd.has_quoted or self._trading.done()):
                    await asyncio.sleep(LOOK_SECONDS)
            key = await self._fund(VISITOR, VISITOR_USD)
            path = self._directory / KEY_NAME
            path.touch(0o600)
            path.write_bytes(msgspec.json.encode(dict(zip(("key_id", "secret"), key, strict=True))))
            port = await relay.start(host, port)
        except BaseException:
            await self.close()
            raise
        address = at(host, port)
        return Visit(
            f"ws://{address}/ws", f"http://{address}/api/v1",
            str(self._directory), VISITOR, str(path),
        )  # fmt: skip

    async def run(self, stop: asyncio.Event) -> None:
        """Wait until ``stop`` is set, then end the participants. Raises what failed."""
        assert self.market is not None, "opened"
        failing = asyncio.create_task(self.market.failed())
        stopping = asyncio.create_task(stop.wait())
        tasks: list[asyncio.Task[Any]] = [self._trading, failing, stopping]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._over.set()
        for task in done:
            task.result()
        await self._trading
        failing.cancel()
        stopping.cancel()

    async def close(self) -> None:
        """Stop everything."""
        await self._exits.aclose()

    async def _end(self) -> None:
        """End the makers; ``run`` has raised their errors already."""
        self._over.set()
        await asyncio.gather(self._trading, return_exceptions=True)

    async def _fund(self, account: int, usd: str) -> tuple[str, str]:
        assert self.market is not None, "opened"
        await self.market.operations.perform(requests.Deposit(account=account, amount=usd))
        return create_key(self._directory, account, "trade")

    async def _connect(self, account: int, usd: str) -> AsyncClient:
        key = Key.hmac(*await self._fund(account, usd))
        return await self._exits.enter_async_context(AsyncClient(self._inner, key))
