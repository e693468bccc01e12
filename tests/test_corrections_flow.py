"""Trades busted and adjusted while orders flow and connections break: what each account's stream
adds up to is what engine and clearing house hold. Budget: 3 seconds; with
HOURBOOK_CORRECTION_ROUNDS, which says how many rounds of orders there are, what those take."""

import asyncio
import os
from collections import Counter
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final

from live import CODE, QUICK, Cable, Live, clock_ns, until
from overrides import people

from clients import errors
from clients.aio import AsyncClient
from clients.events import EventStream
from exchange.app import requests
from exchange.app.requests_market import ListContract, SetImplied
from exchange.app.wishes import RequestRefused
from exchange.messages import wire
from exchange.messages.wire_moves import Corrected, LegTraded, ResidualPosted
from exchange.sim.trader import encoded_report, is_report

FAR: Final = "H100F27"
SPREAD: Final = f"{CODE}-{FAR}"
CODES: Final = (CODE, FAR, SPREAD)
ACCOUNTS: Final = (1, 2, 3)
SEED: Final = 1
ROUNDS: Final = int(os.environ.get("HOURBOOK_CORRECTION_ROUNDS", "8"))
SIDES: Final[tuple[wire.SideText, wire.SideText]] = ("buy", "sell")
ORDERS: Final = 30  # of each account in a round
MICROS: Final = 1_000_000


def micros(text: str) -> int:
    """Money, or a price, as a whole number of millionths."""
    value = Decimal(text) * MICROS
    assert value == int(value)
    return int(value)


class Books:
    """What a stream of reports says that an account has, and nothing else does."""

    def __init__(self, hours: dict[str, int]) -> None:
        self._hours = hours
        self.cash = 0
        self.nets: Counter[str] = Counter()
        self.costs: Counter[str] = Counter()  # of signed lots at their prices, in millionths

    def take(self, report: Any) -> None:
        """Take one report in."""
        match report:
            case wire.CashMoved():
                self.cash += micros(report.amount)
            case wire.Execution():
                self.cash -= micros(report.fee)
                if not report.legs:
                    self._move(report, micros(report.price))
            case LegTraded():
                self.cash -= micros(report.fee)
                self._move(report, micros(report.price))
            case ResidualPosted():
                self.cash += micros(report.cash)
            case Corrected():
                self.cash += micros(report.fee)
                if not report.legs or report.place:
                    self._correct(report)
            case wire.Settled():
                self._settle(report)

    def _move(self, report: Any, price: int, sign: int = 1) -> None:
        lots = sign * int(report.quantity) * (1 if report.side == "buy" else -1)
        self.nets[report.instrument] += lots
        self.costs[report.instrument] += lots * price

    def _correct(self, report: Corrected) -> None:
        if report.kind == "bust":
            self._move(report, micros(report.price), -1)
            return
        assert report.previous_price is not None
        self._move(report, micros(report.previous_price), -1)
        self._move(report, micros(report.price))

    def _settle(self, report: wire.Settled) -> None:
        code, price = report.instrument, micros(report.settlement_price)
        assert self.nets[code] == int(report.position), code
        gained = (self.nets[code] * price - self.costs[code]) * self._hours[code]
        assert gained == micros(report.variation), code
        self.cash += gained
        assert self.cash == micros(report.cash), code
        self.costs[code] = self.nets[code] * price


class Trader:
    """An account with a client whose wire breaks and one that hears the truth."""

    def __init__(self, live: Live, key: tuple[str, str], seed: int) -> None:
        self.live, self.key, self.chance = live, key, Random(seed)
        self.cable: Cable
        self.client: AsyncClient
        self.steady: AsyncClient
        self.got: list[Any] = []
        self.truth: list[Any] = []
        self._reading: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        self.cable, url = await self.live.cable()
        zero = wire.Position(0, 0, 0)
        made = []
        for address, heard in ((url, self.got), (self.live.addresses.ws, self.truth)):
            one = AsyncClient(address, *self.key, after=zero, clock_ns=clock_ns, backoff=QUICK)
            self._reading.append(asyncio.create_task(gather(one.events(), heard)))
            await one.connect()
            made.append(one)
            await until(lambda heard=heard: bool(heard))  # type: ignore[misc]
        self.client, self.steady = made

    async def trade(self, middles: dict[str, int]) -> None:
        """A round of orders, most of which trade, while the wire breaks."""
        chance, build, orders = self.chance, self.client.build, []
        for _ in range(ORDERS):
            code, side = chance.choice(CODES), chance.choice(SIDES)
            price = middles[code] + chance.randint(-2, 3) * (1 if side == "sell" else -1)
            orders.append(build.enter(code, side, chance.randint(1, 9), price))
        cut = chance.random()
        if cut < 0.3:
            self.cable.cut_after(chance.randint(1, 20_000))
        elif cut < 0.4:
            self.cable.cut()
        try:
            outcomes = await self.client.send_batch(orders)
        except errors.NotConnected:
            await until(lambda: self.client.is_ready)
            return
        assert not any(isinstance(one, errors.OutcomeUnknown) for one in outcomes)

    async def resume(self) -> None:
        """A newcomer that has seen some of the stream is told the rest of it, once."""
        known = len(self.truth)
        at = self.chance.randrange(known)
        last = self.truth[at]
        after = wire.Position(1, last.sequence, last.index)
        rest: list[Any] = []
        late = AsyncClient(self.live.addresses.ws, *self.key, after=after, clock_ns=clock_ns)
        reading = asyncio.create_task(gather(late.events(), rest))
        await late.connect()
        await late.close()
        await reading
        told = [encoded_report(one) for one in rest]
        wanted = [encoded_report(one) for one in self.truth[at + 1 :]]
        both = min(len(told), len(wanted))  # either may have heard more by now
        assert told[:both] == wanted[:both] and len(told) >= known - at - 1

    async def close(self) -> None:
        await self.client.close()
        await self.steady.close()
        await asyncio.gather(*self._reading)


async def gather(stream: EventStream, heard: list[Any]) -> None:
    async for event in stream:
        if is_report(event):
            heard.append(event)


async def correct(live: Live, traders: list[Trader], chance: Random, done: Counter[str]) -> None:
    """Have two people take back a trade of late, or give it another price."""
    operations = live.market.operations
    trades = [one for one in chance.choice(traders).truth[-400:] if isinstance(one, wire.Execution)]
    if not trades:
        return
    trade = chance.choice(trades)
    number = int(trade.match_number)
    price = str(Decimal(trade.price) + chance.randint(-4, 4) * Decimal("0.001"))
    why: dict[str, Any] = {"reason": "a test", "malfunction": True}
    kind = chance.choice(("bust", "adjust"))
    request: requests.AnyRequest = requests.Bust(match_number=number, **why)
    if kind == "adjust":
        request = requests.Adjust(match_number=number, price=price, **why)
    try:
        proposed = await operations.perform(request, "anne")
        await operations.perform(requests.Approve(proposal=proposed["proposal"]), "bert")
        done[kind] += 1
    except RequestRefused:  # it was corrected before, or its price is another one at an implied one
        done["refused"] += 1


async def test_what_a_stream_adds_up_to_is_what_there_is(tmp_path: Path) -> None:
    chance, done = Random(SEED), Counter[str]()
    async with asyncio.timeout(60 + 5 * ROUNDS), Live.open(tmp_path) as live:
        market = live.market
        people(market.directory, "anne", "bert")
        await market.operations.perform(ListContract(code=SPREAD))
        await market.operations.perform(SetImplied(code=SPREAD, on=True))
        book = market.desk.instruments.by_code
        hours = {code: book[code].multiplier for code in (CODE, FAR)}
        middles = {code: book[code].mark // book[code].tick_scale for code in (CODE, FAR)}
        middles[SPREAD] = middles[CODE] - middles[FAR]
        traders = [Trader(live, await live.fund(n), 100 * SEED + n) for n in ACCOUNTS]
        for trader in traders:
            await trader.open()
        for _ in range(ROUNDS):
            await asyncio.gather(
                *(trader.trade(middles) for trader in traders),
                *(correct(live, traders, chance, done) for _ in range(3)),
                chance.choice(traders).resume(),
            )
        await market.operations.perform(requests.Settle())
        await market.operations.cleared()
        await heard_all(traders)
        for number, trader in zip(ACCOUNTS, traders, strict=True):
            check(live, number, trader, hours)
            await trader.close()
    assert done["bust"] and done["adjust"], done


async def heard_all(traders: list[Trader]) -> None:
    """Wait until every client is told all that has been released."""
    for trader in traders:
        for client in (trader.steady, trader.client):
            await until(lambda c=client: c.is_ready)  # type: ignore[misc]
            await client.query_account()  # its answer comes behind all that it counts
        await until(lambda t=trader: len(t.got) == len(t.truth))  # type: ignore[misc]


def check(live: Live, number: int, trader: Trader, hours: dict[str, int]) -> None:
    """An account's stream, added up, against everybody who keeps its books."""
    assert [*map(encoded_report, trader.got)] == [*map(encoded_report, trader.truth)]
    books, market = Books(hours), live.market
    for report in trader.truth:
        books.take(report)
    assert books.cash == market.engine.account(number)["cash"] == market.clearing.cash(number)
    for code in CODES:
        listed = market.desk.instruments.by_code[code].id
        net = market.engine.position(number, listed)["net"]
        assert books.nets[code] == net == market.clearing.net(number, listed), code
        assert trader.client.positions.get(code, 0) == net, code
