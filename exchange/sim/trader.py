"""A persistent trader: real clients, one after the other, and a history of all requests.

It enters, cancels, reduces, replaces and queries, several at once. It may have a dead man's switch,
which it renews, takes back, and sometimes misses. Unanswered requests are sent again under their
old id, sometimes answered ones too. Its client may die with everything not yet processed; the next
one resumes at the last position read. Every report delivered is kept, so that one delivered twice
or never is noticed.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from operator import methodcaller
from random import Random
from typing import Any, Final, TypeVar

import msgspec

from clients.aio import AsyncClient
from clients.errors import (
    ConnectionLost,
    LogonRefused,
    NotConnected,
    OutcomeUnknown,
    RequestRefused,
)
from clients.events import EventStream
from clients.session import AnyReport
from exchange.marketdata.instruments import decimal_text
from exchange.messages.wire import (
    Accepted,
    AnyResponse,
    Position,
    Rejected,
    Replaced,
)
from exchange.messages.wire_mass import Quoted
from exchange.sim.history import History, Operation

KINDS: Final = ("enter", "cancel", "reduce", "replace", "orders", "account")
AGAIN_SECONDS: Final = 0.2  # before a request that could not be sent is retried
LOTS_MAX: Final = 9
SPREAD_TICKS: Final = 12
TICK_DIGITS: Final = 3
HOLD_SECONDS: Final = 0.8  # mean time between two requests about its switch
TIMEOUTS_MS: Final = (0, 1_000, 1_000, 1_500, 4_000)
TIMES_IN_FORCE: Final = ("GTC", "GTC", "GTC", "GTC", "IOC", "FOK", "GFA")

_Answer = TypeVar("_Answer")
Make = Callable[[Position | None], AsyncClient]


class Habits(msgspec.Struct, frozen=True):
    """How a trader behaves. Shares in percent."""

    codes: list[str]
    marks: dict[str, int]  # ticks
    workers: int = 2
    pause_mean: float = 0.1  # seconds between two requests of one worker
    weights: tuple[int, ...] = (50, 20, 6, 12, 8, 4)  # of KINDS
    repeat: int = 10  # answered enters that are sent again
    forsake: int = 10  # unanswered operations that are abandoned
    stops: int = 0  # enters that are stop orders


class Trader:
    """One account. ``now_ns`` is the clock of the history; ``holding`` draws its use of a dead
    man's switch; None: it uses none."""

    def __init__(
        self,
        name: str,
        account: int,
        make: Make,
        habits: Habits,
        history: History,
        random: Random,
        now_ns: Callable[[], int],
        holding: Random | None = None,
    ) -> None:
        self.name, self.account = name, account
        self.habits = habits
        self.reports: list[bytes] = []  # encoded, in the order of delivery
        self.calm = False  # no operation is abandoned any more
        self.began: Position | None = None
        self.make = make
        self._history, self._random, self._now_ns = history, random, now_ns
        self._holding = holding
        self._ids: list[str] = []  # client order ids entered
        self._count = 0
        self._stream: EventStream | None = None
        self._collecting: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._renewing = asyncio.Lock()
        self.client = make(None)

    # The client

    async def connect(self) -> None:
        """Connect the first client; from now on every report is collected."""
        while not self.client.is_ready:
            try:
                await self.client.connect()
            except (ConnectionLost, OutcomeUnknown, NotConnected):
                self.client = self.make(None)
        self.began = self.client.position
        self._collect()
        await self._join()

    def _collect(self) -> None:
        self._stream = self.client.events()
        self._collecting = asyncio.create_task(self._gather(self._stream))

    async def _gather(self, stream: EventStream) -> None:
        with contextlib.suppress(ConnectionLost, LogonRefused):
            async for event in stream:
                if is_report(event):
                    self.reports.append(encoded_report(event))

    async def _join(self) -> None:
        names = [f"{kind}.{code}" for code in self.habits.codes for kind in ("depth", "trades")]
        client = self.client
        while client is self.client:
            try:
                return await client.subscribe(*names)
            except (OutcomeUnknown, NotConnected):
                await asyncio.sleep(AGAIN_SECONDS)
            except (ConnectionLost, LogonRefused):
                return  # the next request creates another client, which subscribes again

    async def renew(self, old: AsyncClient) -> None:
        """Replace a finished client, once, whoever notices first."""
        async with self._renewing:
            if self.client is not old:
                return
            client = old
            while True:
                after = await self._leave(client)
                client = self.client = self.make(after)
                self._collect()  # the stream must exist before the first report
                try:
                    await client.connect()
                    break
                except (ConnectionLost, LogonRefused, OutcomeUnknown, NotConnected):
                    await asyncio.sleep(AGAIN_SECONDS)
        await self._join()

    async def ask(self, question: Callable[[AsyncClient], Awaitable[_Answer]]) -> _Answer:
        """Repeat a query with the current client until it is answered."""
        while True:
            client = self.client
            try:
                return await question(client)
            except (OutcomeUnknown, NotConnected):
                await asyncio.sleep(AGAIN_SECONDS)
            except (ConnectionLost, LogonRefused):
                await self.renew(client)

    def leave(self) -> None:
        """Simulate the death of the client's host: another client takes over."""
        self._leaving = asyncio.create_task(self.renew(self.client))

    async def _leave(self, client: AsyncClient) -> Position | None:
        """Close a client; return the position it had read to, once all its reports are
        collected."""
        await client.close()
        assert self._stream is not None and self._collecting is not None
        self._stream.end(None)
        await self._collecting
        return client.position

    async def close(self) -> None:
        """Close the client for good."""
        await self._leave(self.client)

    # Wishes

    async def trade(self, stop: asyncio.Event) -> None:
        """Send random requests until ``stop``, then wait until every one is answered."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.habits.workers):
                tasks.create_task(self._work(stop))
            if self._holding is not None:
                tasks.create_task(self._hold(stop, self._holding))
        if self._leaving is not None:
            await self._leaving

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(self._random.expovariate(1 / self.habits.pause_mean))
            operation = self._wish()
            await self.perform(operation)
            again = self._random.randrange(100) < self.habits.repeat
            if again and operation.kind == "enter" and isinstance(operation.answer, Accepted):
                await self._repeat(operation)

    async def _hold(self, stop: asyncio.Event, random: Random) -> None:
        """Set, renew and take back a switch, so slowly that some fire."""
        while not stop.is_set():
            await asyncio.sleep(random.expovariate(1 / HOLD_SECONDS))
            say = methodcaller("cancel_after", random.choice(TIMEOUTS_MS))
            with contextlib.suppress(RequestRefused):  # the disk or the queue is full
                await self.ask(say)

    def _wish(self) -> Operation:
        random = self._random
        kind = random.choices(KINDS, self.habits.weights)[0]
        if kind in ("cancel", "reduce", "replace") and not self._ids:
            kind = "enter"
        self._count += 1
        key = f"{self.name}-{self._count}"
        fields = self._fields(kind)
        if kind == "enter":
            self._ids.append(key)
        return self._history.invoke(self.name, self.account, kind, key, fields, self._now_ns())

    def _fields(self, kind: str) -> dict[str, Any]:
        random = self._random
        if kind in ("orders", "account"):
            return {}
        code = random.choice(self.habits.codes)
        if kind == "enter":
            tif = random.choice(TIMES_IN_FORCE)
            fields = {
                "instrument": code,
                "side": random.choice(("buy", "sell")),
                "quantity": random.randint(1, LOTS_MAX),
                "price": self._price(code),
                "time_in_force": tif,
                "post_only": tif == "GTC" and random.randrange(8) == 0,
            }
            if random.randrange(100) < self.habits.stops:
                fields |= {"stop_price": self._price(code), "post_only": False}
            return fields
        target = {"client_order_id": random.choice(self._ids[-8:])}
        if kind == "cancel":
            return target
        if kind == "reduce":
            return {**target, "quantity": random.randint(1, 3)}
        code = self._code_of(target["client_order_id"])
        return {
            **target,
            "instrument": code,
            "quantity": random.randint(1, LOTS_MAX),
            "price": self._price(code),
        }

    def _price(self, code: str) -> str:
        """Return a price near the mark."""
        ticks = self.habits.marks[code] + self._random.randint(-SPREAD_TICKS, SPREAD_TICKS)
        return decimal_text(ticks, TICK_DIGITS)

    def _code_of(self, client_order_id: str) -> str:
        for operation in reversed(self._history.operations):
            if operation.kind == "enter" and operation.key == client_order_id:
                return str(operation.fields["instrument"])
        raise AssertionError("only what was entered is replaced")

    async def perform(self, operation: Operation) -> None:
        """Send until answered. An abandoned operation and an unanswered query stay unknown."""
        while True:
            client = self.client
            try:
                operation.tries += 1
                answer = await send(client, operation)
            except NotConnected:
                await asyncio.sleep(AGAIN_SECONDS)
            except (ConnectionLost, LogonRefused):
                await self.renew(client)
            except OutcomeUnknown:
                if operation.kind in ("orders", "account"):
                    return
            else:
                operation.complete(answer, self._now_ns())
                return
            if not self.calm and self._random.randrange(100) < self.habits.forsake:
                return

    async def _repeat(self, first: Operation) -> None:
        again = self._history.invoke(
            self.name, self.account, first.kind, first.key, first.fields, self._now_ns()
        )
        again.is_repeat = True
        await self.perform(again)


def is_report(event: object) -> bool:
    """Whether an event belongs to the account's report stream."""
    if isinstance(event, Rejected):
        return event.sequence is not None
    return isinstance(event, AnyReport)


def encoded_report(event: object) -> bytes:
    """Return a report's bytes without the tokens left, which a replayed report does not have."""
    if isinstance(event, Rejected | Accepted | Replaced | Quoted):
        event = msgspec.structs.replace(event, tokens=None)
    return msgspec.json.encode(event)


async def send(client: AsyncClient, operation: Operation) -> AnyResponse:
    """Send one operation with a client."""
    fields, key = operation.fields, operation.key
    match operation.kind:
        case "enter":
            return await client.enter(**fields, client_order_id=key)
        case "cancel":
            return await client.cancel(**fields, request_id=key)
        case "reduce":
            return await client.reduce(**fields, request_id=key)
        case "replace":
            return await client.replace(**fields, request_id=key)
        case "orders":
            return await client.query_orders()
        case "account":
            return await client.query_account()
    raise AssertionError(operation.kind)
