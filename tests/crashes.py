"""A supervisor that kills a real serving process under load, and starts it again.

The load are the simulation's traders on real clients: their histories and reports say afterwards
what every client was told, and by which of the server's lives.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from linearizable import check, frames_of
from nursery import Child, Nursery

from clients.aio import AsyncClient
from clients.backoff import Backoff
from exchange.app import asking
from exchange.app.requests import Deposit
from exchange.clearing import Clearing
from exchange.engine import Engine
from exchange.gateway.auth import create_key
from exchange.journal.reader import LogReader
from exchange.messages.wire import Position
from exchange.sequencer import replay
from exchange.sim.history import History
from exchange.sim.trader import Habits, Trader, encoded_report, is_report

ACCOUNTS = 3
CASH = "50000000"
QUICK = Backoff(first_s=0.02, most_s=0.2)
LIFE_SECONDS = (0.05, 0.5)  # of a server, once it is ready
CALM_SECONDS = 30.0  # by then everybody is served after the last kill


def free_port() -> int:
    """A port that every life of the server can have."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Supervisor:
    """A market's directory, the process that serves it at the moment, and its traders."""

    def __init__(self, directory: Path, nursery: Nursery, seed: int) -> None:
        self.directory = directory
        self._nursery = nursery
        self.port = free_port()
        self.history = History()
        self.traders: list[Trader] = []
        self.kills = 0
        self._random = Random(seed)
        self._server: Child | None = None

    async def _start(self) -> None:
        self._server = await asyncio.to_thread(self._nursery.serve, self.directory, self.port)

    def _kill(self) -> None:
        assert self._server is not None
        self._server.kill()
        self.kills += 1

    async def storm(self, goes_on: Callable[[int], bool]) -> None:
        """Trade, and kill the server while ``goes_on``, given the number of kills, says so."""
        await self._start()
        try:
            await self._open()
            stop = asyncio.Event()
            trading = [asyncio.create_task(trader.trade(stop)) for trader in self.traders]
            while goes_on(self.kills):
                await asyncio.sleep(self._random.uniform(*LIFE_SECONDS))
                self._kill()
                await self._start()
                for task in trading:
                    if task.done():
                        task.result()
            for trader in self.traders:
                trader.calm = True
            stop.set()
            async with asyncio.timeout(CALM_SECONDS):
                await asyncio.gather(*trading)
            for trader in self.traders:
                await self._agree(trader)
            assert self._server is not None
            await asyncio.to_thread(self._server.stop)
        finally:
            if self._server is not None:
                self._server.kill()

    async def _open(self) -> None:
        codes = ["H100Z26"]
        for account in range(1, ACCOUNTS + 1):
            answer = await asking.ask(self.directory, Deposit(account=account, amount=CASH))
            assert answer is not None and answer.ok, answer
            key = create_key(self.directory, account, "trade")

            def make(after: Position | None, key: tuple[str, str] = key) -> AsyncClient:
                url = f"ws://127.0.0.1:{self.port}/ws"
                return AsyncClient(url, *key, after=after, backoff=QUICK, msgpack=True)

            if not self.traders:
                codes = await first_codes(make(None))
            habits = Habits(codes=codes[:1], marks={codes[0]: 3_200}, workers=4, pause_mean=0.01)
            trader = Trader(
                f"t{account}", account, make, habits, self.history,
                Random(self._random.random()), time.monotonic_ns,
            )  # fmt: skip
            self.traders.append(trader)
            await trader.connect()

    async def _agree(self, trader: Trader) -> None:
        """What a trader's clients were told is what a newcomer is told, and what is so."""
        client = trader.client
        while not client.is_ready:
            await asyncio.sleep(0.01)
        account = await client.query_account()
        nets = {held.instrument: int(held.net) for held in account.positions}
        assert client.positions == {code: net for code, net in nets.items() if net}
        answer = await client.query_orders()
        working = {order.client_order_id: int(order.leaves_quantity) for order in answer.orders}
        assert {key: order.leaves_quantity for key, order in client.orders.items()} == working
        began = trader.began
        assert began is not None
        newcomer = trader.make(Position(began.epoch, began.sequence, began.index))
        stream = newcomer.events()
        await newcomer.connect()
        await newcomer.close()
        told = [encoded_report(event) async for event in stream if is_report(event)]
        await trader.close()
        assert trader.reports == told


async def first_codes(client: AsyncClient) -> list[str]:
    """The nearest H100 expiry that is listed today."""
    async with client:
        listed = [data for data in client.instruments.values() if data.product == "H100"]
        return [data.code for data in sorted(listed, key=lambda data: data.expiry)]


def judge(supervisor: Supervisor) -> dict[str, int]:
    """What is on disk after the storm, against itself and against what the clients saw."""
    directory = supervisor.directory
    engine = Engine()
    report = replay(directory, lambda: engine)
    assert report.divergence is None and report.tail_dropped is None
    assert report.epoch == supervisor.kills + 1
    clearing = Clearing.open(directory / "ledger.db", read_only=True)
    balance = clearing.trial_balance()
    assert balance.debits == balance.credits and not clearing.divergences
    for account in range(ACCOUNTS + 1):
        assert clearing.cash(account) == engine.account(account)["cash"]
    clearing.close()
    reader = LogReader(directory)
    codes = {code: n for n, code in enumerate(listed(directory))}
    operations = supervisor.history.operations
    placed = check(operations, frames_of(reader.chunks()), codes, strangers=False)
    return {"placed": placed, "kills": supervisor.kills, **supervisor.history.counts()}


def listed(directory: Path) -> list[str]:
    """Codes in the order of their instrument numbers."""
    clearing = Clearing.open(directory / "ledger.db", read_only=True)
    lines = sorted(clearing.open_interest(), key=lambda line: line.instrument)
    clearing.close()
    return [line.code for line in lines]
