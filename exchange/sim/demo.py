"""The demo: a market day with real clients over real WebSockets, then settlement and proof.

Four GPU classes with twelve expiries each; a market maker around real prices, a neocloud that sells
a twelve-month strip of its H100 hours, an AI lab that buys one, and a taker per class.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, Self

import msgspec

from clients.aio import AsyncClient
from exchange.app import Market, asking, requests
from exchange.messages import HOUSE_ACCOUNT
from exchange.sim.participants import Day, Role, make_markets, roles
from exchange.sim.proof import Party, Proof, prove

HOST: Final = "127.0.0.1"
TICK_SECONDS: Final = 0.2
LATE_SECONDS: Final = 15.0  # extra time for hedges that a slow machine has not finished
QUIET_SECONDS: Final = 10.0  # limit for the market to come to rest after the last client left
VISITOR: Final = 100


class Participant(NamedTuple):
    """A role and the connected client that plays it."""

    role: Role
    client: AsyncClient
    random: Random


class Visit(msgspec.Struct, frozen=True):
    """What a visitor needs: the addresses and a key of a funded account."""

    ws: str
    http: str
    account: int
    key_id: str
    secret: str

    def text(self) -> str:
        """Return it as text for people, with the next step."""
        return (
            f"\nThe market is open. Account {self.account} has money in it:\n"
            f'  Client("{self.ws}", "{self.key_id}", "{self.secret}")\n'
            "Begin the README's ten lines of SDK with that. Ctrl-C closes it."
        )


class Demo:
    """A running demo market and its participants. As a context it closes itself."""

    def __init__(self, market: Market, url: str, http: str) -> None:
        self.market = market
        self._url, self._http = url, http
        self._participants: list[Participant] = []
        self._exits = contextlib.AsyncExitStack()
        self._quoting: asyncio.Task[None] | None = None
        self._over: asyncio.Event | None = None
        self.is_whole = False  # the day ran to its end, and every hedge had its time

    @classmethod
    async def open(cls, directory: Path, seed: int) -> Self:
        """Start a market in ``directory``, fund the participants and connect them."""
        market = await Market.start(directory)
        addresses = await market.listen(HOST, 0)
        demo = cls(market, addresses.ws, addresses.http)
        try:
            for role in roles():
                client = await demo._connect(role.account, role.usd)
                random = Random(f"{seed}/{role.account}")
                demo._participants.append(Participant(role, client, random))
        except BaseException:
            await demo.close()
            raise
        return demo

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect everybody and stop the market."""
        if self._over is not None and self._quoting is not None:
            self._over.set()
            await self._quoting
        await self._exits.aclose()
        await self.market.stop()

    async def trade(
        self, seconds: float, stopped: asyncio.Event, advance: Callable[..., None] | None
    ) -> None:
        """Let everybody trade for ``seconds``, and up to LATE_SECONDS more for unfinished hedges;
        or until ``stopped``."""
        day = Day(seconds)
        trading = [
            asyncio.ensure_future(role.run(client, day, random))
            for role, client, random in self._participants
        ]
        everybody = zip(trading, self._participants, strict=True)
        hedging = [task for task, one in everybody if one.role.hedge_gpus]
        latest = asyncio.get_running_loop().time() + seconds + LATE_SECONDS
        failing = asyncio.create_task(self.market.failed())
        while not stopped.is_set() and not failing.done():
            late = not all(task.done() for task in hedging)
            if day.permille == 1000 and not (late and asyncio.get_running_loop().time() < latest):
                break
            await asyncio.sleep(TICK_SECONDS)
            if advance is not None:
                advance(day.permille, 1000, f"{self.market.desk.sequence:,} commands")
            if any(task.done() and task.exception() for task in trading):
                break
        hedged = all(task.done() for task in hedging)
        self.is_whole = day.permille == 1000 and (hedged or not stopped.is_set())
        day.over.set()
        if failing.done():
            failing.result()
        failing.cancel()
        await asyncio.gather(*trading)

    async def settle_and_prove(self) -> Proof:
        """Close and settle the day at clearing's prices, disconnect everybody, and return the
        proof.

        The hedges are left out if the day was stopped before its end.
        """
        await self._ask(requests.Settle())
        await self._at_rest()
        await self._exits.aclose()
        await self._at_rest()
        parties = [Party(HOUSE_ACCOUNT, "house", None, 0)]
        for role, client, _ in self._participants:
            gpus = role.hedge_gpus if self.is_whole else 0
            parties.append(Party(role.account, role.name, client, gpus))
        return await prove(self.market, parties)

    async def invite(self) -> Visit:
        """Open the next day with a quoting market maker, and create a visitor's account."""
        await self._ask(requests.OpenDay())
        role = roles()[0]
        key = await self._ask(requests.CreateKey(account=role.account))
        client = AsyncClient(self._url, key["key_id"], key["secret"])
        await self._exits.enter_async_context(client)
        day = Day(24 * 3600)
        self._over = day.over
        self._quoting = asyncio.create_task(make_markets(client, day, Random(role.account)))
        visitor = await self._ask(requests.CreateKey(account=VISITOR))
        await self._ask(requests.Deposit(account=VISITOR, amount="1000000"))
        return Visit(self._url, self._http, VISITOR, visitor["key_id"], visitor["secret"])

    async def _connect(self, account: int, usd: str) -> AsyncClient:
        """Open and fund an account as an operator would, and connect its client."""
        await self._ask(requests.Deposit(account=account, amount=usd))
        key = await self._ask(requests.CreateKey(account=account))
        client = AsyncClient(self._url, key["key_id"], key["secret"], msgpack=account % 2 == 0)
        return await self._exits.enter_async_context(client)

    async def _ask(self, request: requests.AnyRequest) -> dict[str, str]:
        """Send a request over the admin socket. Raises RuntimeError if the market refuses."""
        answer = await asking.ask(self.market.directory, request)
        if answer is None or not answer.ok:
            raise RuntimeError(answer.error if answer is not None else "the market is gone")
        return answer.result

    async def _at_rest(self) -> None:
        """Wait until every submitted command is released and no more follow. TimeoutError."""
        market = self.market
        async with asyncio.timeout(QUIET_SECONDS):
            quiet = 0
            while quiet < 3:
                before = market.tape.last
                await asyncio.sleep(TICK_SECONDS / 4)
                still = before == market.tape.last and market.sequencer.queued == 0
                quiet = quiet + 1 if still else 0


async def run_day(
    directory: Path,
    seconds: float,
    seed: int,
    stopped: asyncio.Event,
    advance: Callable[..., None] | None,
) -> Demo:
    """Open a demo market and let it trade; the caller settles, proves and closes it."""
    demo = await Demo.open(directory, seed)
    try:
        await demo.trade(seconds, stopped, advance)
    except BaseException:
        await demo.close()
        raise
    return demo
