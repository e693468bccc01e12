"""A simulated operator who works across crashes: deposits that count once, halts, sessions,
days."""

import asyncio
import contextlib
from random import Random
from typing import Any, Final, Literal

from exchange.app import requests
from exchange.app.wishes import RequestRefused
from exchange.journal.errors import JournalError
from exchange.messages import Mode, TradingState
from exchange.sequencer import Closed, QueueFull
from exchange.sim.host import Host

ASK_SECONDS: Final = 40.0
AGAIN_SECONDS: Final = 0.5
REPEATED: Final = 4  # one in so many deposits is repeated although it was answered
ACTS: Final = ("deposit", "checkpoint", "halt", "day")
WEIGHTS: Final = (40, 30, 20, 10)
SESSION_ACTS: Final = ("auction", "session", "breaker")
SESSION_WEIGHTS: Final = (40, 20, 60)
VARIATIONS: Final[dict[Literal["circuit", "velocity"], tuple[str, ...]]] = {
    "circuit": ("0", "0", "0.002", "0.004"),  # dollars; 0: no breaker
    "velocity": ("0", "0.001", "0.001", "0.002"),  # checked after the other, so narrower
}
SPANS_MS: Final = (4_000, 60_000)


class Operator:
    """Sends requests to the market that serves at the moment; required ones are retried."""

    def __init__(self, host: Host, random: Random, codes: list[str], *, sessions: bool) -> None:
        self._host, self._random, self._codes, self._code = host, random, codes, codes[0]
        self._acts = ACTS + SESSION_ACTS if sessions else ACTS
        self._weights = WEIGHTS + SESSION_WEIGHTS if sessions else WEIGHTS
        self._count = 0
        self.deposited: dict[int, int] = {}  # dollars, by account

    async def ask(self, request: requests.AnyRequest) -> dict[str, Any]:
        """Perform one request. Raises RequestRefused, or TimeoutError if no answer came."""
        market = self._host.market
        if market is None:
            await asyncio.sleep(AGAIN_SECONDS)
            raise TimeoutError("no market serves")
        try:
            return await self._host.ask(market.operations.perform(request), ASK_SECONDS)
        except (QueueFull, Closed, JournalError) as error:
            raise TimeoutError(str(error)) from error

    async def insist(self, request: requests.AnyRequest) -> dict[str, Any] | None:
        """Repeat a request until it is answered; return None if it was refused."""
        while True:
            try:
                return await self.ask(request)
            except RequestRefused:
                return None
            except TimeoutError:
                await asyncio.sleep(AGAIN_SECONDS)

    async def deposit(self, account: int, dollars: str) -> None:
        """Deposit money once, however often the request must be repeated."""
        self._count += 1
        request = requests.Deposit(
            account=account, amount=dollars, request_id=f"deposit-{self._count}"
        )
        while await self.insist(request) is None:  # refused in a mode or state that will pass
            await asyncio.sleep(AGAIN_SECONDS)
        self.deposited[account] = self.deposited.get(account, 0) + int(dollars)
        if self._count % REPEATED == 0:  # as a client does whose answer was lost
            await self.insist(request)

    async def work(self, stop: asyncio.Event, pause_mean: float) -> None:
        """Perform random acts until ``stop``; a begun act is finished."""
        if self._acts is not ACTS:
            for code in self._codes:
                await self._set_breakers(code)
        while not stop.is_set():
            await asyncio.sleep(self._random.expovariate(1 / pause_mean))
            match self._random.choices(self._acts, self._weights)[0]:
                case "deposit":
                    account = self._random.randint(1, max(self.deposited))
                    await self.deposit(account, str(self._random.randint(1, 1_000)))
                case "checkpoint":
                    await self._checkpoint()
                case "halt":
                    await self._pass_through(requests.Halt(code=self._code))
                case "auction":
                    await self._pass_through(requests.Auction(code=self._code))
                case "session":
                    closing = requests.Auction(code=self._code, cause="closing")
                    opening = requests.PreOpen(code=self._code)
                    await self._pass_through(closing, requests.Close(code=self._code), opening)
                case "breaker":
                    await self._set_breakers(self._random.choice(self._codes))
                case "day":
                    await self.turn_day()

    async def _pass_through(self, *states: requests.AnyRequest) -> None:
        """Move the instrument through states, staying a moment in each, and back to trading."""
        for state in states:
            await self.insist(state)
            await asyncio.sleep(self._random.random())
            # Refused if no orders are collected
            await self.insist(requests.Indicate(code=self._code))
        await self.insist(requests.Resume(code=self._code))

    async def _set_breakers(self, code: str) -> None:
        """Set both windows so that they trip easily and halts end by themselves."""
        draw = self._random
        for window, variations in VARIATIONS.items():
            await self.insist(
                requests.SetBreaker(
                    code=code,
                    window=window,
                    variation=draw.choice(variations),
                    span_ms=draw.choice(SPANS_MS),
                    halt_ms=draw.randint(100, 2_000),
                )
            )

    async def list_spread(self, code: str) -> None:
        """List a combination, with implied prices."""
        await self.insist(requests.ListContract(code=code))
        await self.insist(requests.SetImplied(code=code))

    async def _checkpoint(self) -> None:
        market = self._host.market
        if market is not None:
            with contextlib.suppress(
                TimeoutError, RequestRefused, QueueFull, Closed, JournalError
            ):  # ignored: another checkpoint follows later
                await self._host.ask(market.operations.checkpoint(), ASK_SECONDS)

    async def turn_day(self) -> None:
        """Settle the open day, again if a crash interrupted it, and open the next."""
        await self.insist(requests.Settle())
        await self.insist(requests.OpenDay())

    def _trades(self, code: str) -> bool:
        market = self._host.market
        if market is None:
            return False
        listed = market.desk.instruments.by_code[code]
        return listed.state == TradingState.CONTINUOUS

    async def finish(self) -> None:
        """After the storm: bring every instrument to trading, and take a checkpoint."""
        await self.insist(requests.SetMode(mode="normal"))
        state = None
        while state is None:
            state = await self.insist(requests.State())
        if not state["day_open"]:
            await self.turn_day()
        for code in self._codes:
            while not self._trades(code):  # a breaker's halt ends by itself
                await self.insist(requests.Resume(code=code))
                await asyncio.sleep(AGAIN_SECONDS)
        market = self._host.market
        assert market is not None and market.desk.mode == Mode.NORMAL, "the market is open again"
        await self._host.ask(market.operations.checkpoint(), ASK_SECONDS)
        await self._host.ask(market.operations.cleared(), ASK_SECONDS)
