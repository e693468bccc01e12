"""The blocking client and the bots on a real market."""

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from live import CASH, CODE, QUICK, Live, clock_ns, until

from clients import errors
from clients.aio import AsyncClient
from clients.bots import basis, fills, hedger, maker, packages, spreads, taker
from clients.sync import Client
from exchange.app.requests import Halt, ListContract
from exchange.app.requests_market import SetImplied
from exchange.messages import wire
from exchange.sim.sandbox import VISITOR, VirtualSandbox

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def threaded(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    """A market in a thread of its own: address and key of a funded account."""
    ready, done = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with Live.open(tmp_path) as live:
            found.extend([live.addresses.ws, *await live.fund(1)])
            ready.set()
            while not done.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield found[0], found[1], found[2]
    done.set()
    thread.join()


def test_the_sync_client_trades_and_listens(threaded: tuple[str, str, str]) -> None:
    with Client(*threaded, backoff=QUICK, clock_ns=clock_ns) as client, client.events() as events:
        client.subscribe(f"depth.{CODE}")
        outcome = client.enter(CODE, "buy", 2, 3200, client_order_id="s")
        assert isinstance(outcome, wire.Accepted)
        assert client.depth(CODE) == ([(3200, 2)], [])
        assert client.orders["s"].leaves_quantity == 2 and client.positions == {}
        assert isinstance(client.cancel("s"), wire.Cancelled)
        told: set[type] = set()
        while not {wire.Accepted, wire.Cancelled, wire.DepthDelta} <= told:
            told.add(type(event := events.next_within(10)))
            assert event is not None, told
    with pytest.raises(errors.NotConnected):
        client.enter(CODE, "buy", 2, 3200)
    assert client.position is not None and client.position.sequence > outcome.sequence


def test_the_sync_client_raises_what_the_async_one_does(threaded: tuple[str, str, str]) -> None:
    url, key_id, _ = threaded
    with pytest.raises(errors.LogonRefused):
        Client(url, key_id, "wrong", clock_ns=clock_ns).connect()


async def test_maker_hedger_and_taker_make_a_market(tmp_path: Path) -> None:
    async with asyncio.timeout(60), Live.open(tmp_path) as live:
        await trade_together(live)


async def trade_together(live: Live) -> None:
    quoting, hedging, taking = [await live.client(n) for n in (1, 2, 3)]
    stop = asyncio.Event()
    plan = hedger.plan(hedging, "H100", 12 * 720 * 8)
    codes = [leg.instrument for leg in plan.legs]
    with pytest.raises(errors.ValueRefused, match=r"no month of GOLD is listed; there are .*H100"):
        hedger.plan(hedging, "GOLD", 1)
    assert len(codes) == 12 and plan.hours == 12 * 720 * 8
    terms = maker.Terms(lots=5, interval_s=0.02, inventory_max=500)
    making = asyncio.create_task(maker.run(quoting, codes, stop=stop, terms=terms))
    hedge = await hedger.run(
        hedging, "H100", "sell", 12 * 720 * 8, stop=stop, pace=hedger.Pace(interval_s=0.02)
    )
    assert hedge.is_complete and hedge.strip == plan
    total = await taker.run(
        taking, codes[:2], stop=stop, seed=5, lots_max=2, interval_s=0.0, orders_max=10
    )
    assert 0 < total.executed_quantity <= 20 and total.fee > 0
    stop.set()
    await making
    await until(lambda: quoting.orders == {})
    for code in codes:
        assert sum(c.positions.get(code, 0) for c in (quoting, hedging, taking)) == 0
    assert sum(hedging.positions.values()) == -hedge.lots


async def quote(client: AsyncClient, code: str, bid: int, ask: int, lots: int) -> None:
    """Stand on both sides of a book."""
    for side, price in (("buy", bid), ("sell", ask)):
        outcome = await client.enter(code, side, lots, price)  # type: ignore[arg-type]
        assert isinstance(outcome, wire.Accepted)


async def mark(client: AsyncClient, code: str) -> int:
    """An instrument's mark in ticks."""
    await client.subscribe(f"state.{code}")
    return int(client.states[code].mark.replace(".", "")[:-3])


def standing(client: AsyncClient) -> int:
    """Lots that the client's orders have left."""
    return sum(order.leaves_quantity for order in client.orders.values())


FAR = "H100F27"
SPREAD = f"{CODE}-{FAR}"


async def test_a_dear_spread_is_sold_against_its_legs_and_leaves_no_position(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(60), Live.open(tmp_path) as live:
        await live.market.operations.perform(ListContract(code=SPREAD))
        making, trading = await live.client(1), await live.client(2)
        near, far = await mark(making, CODE), await mark(making, FAR)
        await quote(making, CODE, near - 1, near + 1, 6)
        await quote(making, FAR, far - 1, far + 1, 50)
        worth = near - far
        await quote(making, SPREAD, worth + 12, worth + 14, 5)  # 10 ticks over bid and ask
        stop = asyncio.Event()
        terms = packages.Terms(edge=10, most=20, clip=2, interval_s=0.01)
        running = asyncio.create_task(spreads.run(trading, SPREAD, stop=stop, terms=terms))
        await until(lambda: standing(making) == 12 + 100 + 10 - 3 * 5)
        stop.set()
        held = await running
        assert (held.count, held.traded, held.gained) == (-5, 5, 5 * 10)
        assert held.done == {SPREAD: -5, CODE: 5, FAR: -5} and not held.missing
        assert trading.positions == {}
        money = await trading.margin()
        assert money.cash == Decimal(CASH) - held.fees
        assert sum(money.unrealized.values()) == gain_of(trading, near, far, worth)
        with pytest.raises(errors.ValueRefused, match="no listed spread"):
            await spreads.run(trading, CODE, stop=stop)


def gain_of(client: AsyncClient, near: int, far: int, worth: int) -> Decimal:
    """What five lots came to: the spread's legs trade at the near month's mark and that less the
    spread's price; a lot is the hours of its month."""
    hours = [client.instruments[code].multiplier for code in (CODE, FAR)]
    sold = near * hours[0] - (near - (worth + 12)) * hours[1]
    bought = (near + 1) * hours[0] - (far - 1) * hours[1]
    return Decimal(5 * (sold - bought)) / 1000


async def test_a_gap_to_delivery_is_taken_on_and_closed(tmp_path: Path) -> None:
    physical = "H100PZ26"
    async with asyncio.timeout(60), Live.open(tmp_path) as live:
        making, trading = await live.client(1), await live.client(2)
        cash = await mark(making, CODE)
        price = making.price_text(CODE, cash)
        await live.market.operations.perform(ListContract(code=physical, price=price))
        await making.refresh()
        await trading.refresh()
        package = basis.package_of("H100", "Z26", worth=3)
        stop = asyncio.Event()
        terms = packages.Terms(edge=5, most=6, clip=4, closes=True, interval_s=0.01)
        running = asyncio.create_task(packages.run(trading, package, stop=stop, terms=terms))
        await quote(making, CODE, cash - 1, cash + 1, 20)
        await quote(making, physical, cash - 5, cash - 3, 20)  # 4 under, and worth 3 over
        await until(lambda: trading.positions == {physical: 6, CODE: -6})
        await making.mass_cancel(instrument=physical)
        await quote(making, physical, cash + 4, cash + 6, 20)  # back at its worth: 4 - 1
        await until(lambda: trading.positions == {})
        stop.set()
        held = await running
        assert (held.count, held.traded) == (0, 12) and not held.missing
        assert held.gained == 6 * (3 - (-3 - -1)) + 6 * ((4 - 1) - 3)
        money = await trading.margin()
        assert money.cash + sum(money.unrealized.values()) > Decimal(CASH)


async def test_a_leg_that_is_missing_is_completed_first(tmp_path: Path) -> None:
    async with asyncio.timeout(60), Live.open(tmp_path) as live:
        making, trading = await live.client(1), await live.client(2)
        near, far = await mark(making, CODE), await mark(making, FAR)
        await quote(making, CODE, near - 1, near + 1, 9)
        await trading.subscribe(f"depth.{CODE}", f"depth.{FAR}")
        holding = packages.Holding(trading, packages.Package({CODE: 1, FAR: -1}, near - far))
        assert await holding.change(3) == 0 == holding.count  # a side of a leg is empty
        assert await holding._take(CODE, 3) == 3  # and this is what a race leaves
        holding.count = 3
        assert holding.missing == {FAR: -3}
        await quote(making, FAR, far - 2, far + 2, 2)
        for lots in (1, 0):  # two lots are there, then the other one
            await until(lambda: trading.book(FAR).best_bid is not None)
            await holding.look(packages.Terms(edge=0))
            assert sum(holding.missing.values()) == -lots
            await quote(making, FAR, far - 2, far + 2, 2)
        assert trading.positions == holding.done == {CODE: 3, FAR: -3}


async def test_an_order_whose_answers_are_lost_is_taken_once(tmp_path: Path) -> None:
    async with asyncio.timeout(60), Live.open(tmp_path) as live:
        cable, url = await live.cable()
        making, trading = await live.client(1), await live.client(2, url=url)
        trading._link._answer_s = 0.2
        price = await mark(making, CODE)
        await quote(making, CODE, price - 1, price + 1, 50)
        cable.silent = True
        taking = asyncio.create_task(fills.take(trading, CODE, "buy", 5, price + 1))
        await until(lambda: live.market.hub.accounts.by_id[2].cash < int(CASH) * 1_000_000)
        cable.cut()
        fill = await taking
        assert fill.executed_quantity == 5 and trading.positions == {CODE: 5}
        assert making.positions == {CODE: -5}


async def test_what_is_taken_at_an_implied_price_is_known_with_its_fees(tmp_path: Path) -> None:
    """The one leg that its order has of the trade is waited for, and no other."""
    async with asyncio.timeout(60), Live.open(tmp_path) as live:
        for request in (ListContract(code=SPREAD), SetImplied(code=SPREAD, on=True)):
            await live.market.operations.perform(request)
        making, other, trading = [await live.client(n) for n in (1, 2, 3)]
        near, far = await mark(making, CODE), await mark(making, FAR)
        await making.enter(SPREAD, "sell", 5, near - far)
        await other.enter(FAR, "sell", 5, far)
        fill = await fills.take(trading, CODE, "buy", 3, near)
        assert (fill.executed_quantity, trading.positions) == (3, {CODE: 3})
        assert fill.fee == Decimal(CASH) - (await trading.margin()).cash > 0


OUTAGE_SECONDS = 60.0  # longer than a bot waits for an answer, and than it tries again


def outage(box: VirtualSandbox) -> None:
    """The visitor's path is gone for a minute, though what its client sent last still arrives."""
    mine = [one for one in box.net.living() if one.client == str(VISITOR)]
    for one in mine:
        one.down.lost = True
        box.loop.call_later(0.0006, one.lose)
    box.loop.call_later(0.0007, box.net.block, str(VISITOR), OUTAGE_SECONDS)


def test_a_long_outage_leaves_a_hedge_of_the_lots_wished_for(tmp_path: Path) -> None:
    box = VirtualSandbox(tmp_path / "market")

    async def bot(client: AsyncClient, stop: asyncio.Event) -> None:
        box.loop.call_later(0.03, outage, box)
        hedge, taken = await asyncio.gather(
            hedger.run(client, "H100", "buy", 60 * 2 * 732, months=2, stop=stop,
                       pace=hedger.Pace(clip=5, interval_s=0.05)),
            taker.run(client, ["H100G27", "H100H27"], stop=stop, seed=1, interval_s=0.01,
                      orders_max=60),
        )  # fmt: skip
        assert hedge.is_complete
        for leg in hedge.strip.legs:
            assert client.positions[leg.instrument] == leg.lots
        margin = await client.margin()
        fees = taken.fee + sum(fill.fee for fill in hedge.fills.values())
        assert margin.cash == Decimal("5000000") - fees  # every execution was counted

    box.run(bot, 300)


def test_a_maker_whose_answers_are_late_has_one_order_a_side(tmp_path: Path) -> None:
    box, most = VirtualSandbox(tmp_path / "market", seed=2), 0

    def stand_still() -> None:
        for one in box.net.living():
            if one.client == str(VISITOR):
                one.down.paused_until = box.loop.now_ns + 12_000_000_000

    async def bot(client: AsyncClient, stop: asyncio.Event) -> None:
        async def watch() -> None:
            nonlocal most
            while not stop.is_set():
                sides = Counter((one.instrument, one.side) for one in client.orders.values())
                most = max(most, *sides.values(), 0)
                await asyncio.sleep(0.05)

        box.loop.call_later(1.0, stand_still)
        terms = maker.Terms(interval_s=0.1, half_spread=3, lots=3)
        await asyncio.gather(maker.run(client, [CODE, FAR], stop=stop, terms=terms), watch())
        assert most == 1 and not client.orders

    box.run(bot, 16)


async def test_a_bot_that_is_refused_waits_and_says_why(tmp_path: Path) -> None:
    async with asyncio.timeout(30), Live.open(tmp_path) as live:
        making, hedging = await live.client(1), await live.client(2)
        price = await mark(making, CODE)
        await quote(making, CODE, price - 1, price + 1, 50)
        await live.market.operations.perform(Halt(code=CODE))
        stop, before = asyncio.Event(), live.market.hub.sequence
        pace = hedger.Pace(interval_s=0.1)
        run = hedger.run(hedging, "H100", "sell", 20 * 720, months=2, stop=stop, pace=pace)
        running = asyncio.create_task(run)
        taken = await taker.run(hedging, [CODE], stop=stop, interval_s=0.1, orders_max=4)
        stop.set()
        fill = (await running).fills[CODE]
        assert live.market.hub.sequence - before < 20, "it looks again after a pause"
        for refused in (fill.refused(), taken.refused()):
            assert refused.startswith("refused last: request refused: NOT_TRADING")
        holding = packages.Holding(hedging, packages.Package({CODE: 1, FAR: -1}))
        await hedging.subscribe(f"depth.{CODE}", f"depth.{FAR}")
        holding.count = 2
        await holding.complete()
        told = packages.told(holding).splitlines()
        assert told[1] == f"not whole, still to trade: +2 {CODE}, -2 {FAR}"
        assert told[2].startswith("refused last: request refused: NOT_TRADING")


def test_months_whose_trading_is_over_hedge_nothing() -> None:
    listed = [
        wire.InstrumentData(code=f"H100{month}", product="H100", expiry=day[:7], multiplier=720,
                            tick="0.001", decimals=3, last_trading_day=day, state=state)
        for month, day, state in (
            ("V26", "2026-10-30", "EXPIRED"), ("X26", "2026-11-30", "CLOSED"),
            ("Z26", "2026-12-31", "CLOSED"), ("F27", "2027-01-29", "CONTINUOUS"),
        )
    ]  # fmt: skip
    client = cast(AsyncClient, SimpleNamespace(instruments={one.code: one for one in listed}))
    for day, codes in (
        ("2026-11-30", ["H100X26", CODE]),
        ("2026-12-01", [CODE, FAR]),
        ("2027-01-29", [FAR]),
    ):
        legs = hedger.plan(client, "H100", 7_200, 2, day).legs
        assert [leg.instrument for leg in legs] == codes


def test_a_maker_of_all_leaves_out_what_has_expired() -> None:
    """A connection has 256 channels, and instruments stay listed for ever."""
    states = {"H100F27": "CONTINUOUS", "H100X26": "EXPIRED", "A100Z26": "HALTED"}
    listed = {code: SimpleNamespace(state=state) for code, state in states.items()}
    client = cast(AsyncClient, SimpleNamespace(instruments=listed))
    assert maker.every(client) == ["A100Z26", "H100F27"]


async def test_a_maker_says_which_quotes_may_stand(tmp_path: Path) -> None:
    async with asyncio.timeout(30), Live.open(tmp_path) as live:
        for cut in (False, True):
            client, stop = await live.client(1), asyncio.Event()
            making = asyncio.create_task(maker.run(client, [CODE], stop=stop))
            await until(lambda client=client: len(client.orders) == 2)  # type: ignore[misc]
            if cut:
                await client.close()
            stop.set()
            assert await making == (2 if cut else 0)


BOTS = ["maker", "hedger", "taker", "basis", "spreads", "recorder"]


@pytest.mark.parametrize("bot", BOTS)
def test_a_bot_says_how_to_run_it(bot: str) -> None:
    command = [sys.executable, "-m", f"clients.bots.{bot}", "--help"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "--url" in done.stdout and "--key" in done.stdout
