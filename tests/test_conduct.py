"""What an operator does with instruments, on a market that runs, and what its users see of it.

Budget: 15 seconds.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from live import CODE, Live, market_in, until
from overrides import people

from clients.aio import AsyncClient
from clients.events import AnyEvent
from exchange.app import Market, requests
from exchange.app.wishes import RequestRefused, Wish, note
from exchange.marketdata.instruments import micros_text
from exchange.messages import Command, CommandKind, HaltCause, Side, TradingState
from exchange.messages.wire import (
    Accepted,
    AuctionResult,
    IndicativePrice,
    InstrumentState,
    LegTraded,
    PublicTrade,
    Rejected,
)

SPREAD, FLY, STRIP, RATIO = (
    "H100Z26-H100F27", "H100Z26-H100F27-H100G27", "H100-1Q27", "2H100Z26-1B200Z26",
)  # fmt: skip


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with asyncio.timeout(60), Live.open(tmp_path) as opened:
        people(tmp_path, "anne", "bert")
        yield opened


async def do(live: Live, request: requests.AnyRequest, person: str = "anne") -> dict[str, Any]:
    return await live.market.operations.perform(request, person)


async def refused(live: Live, request: requests.AnyRequest, person: str = "anne") -> str:
    with pytest.raises(RequestRefused) as why:
        await do(live, request, person)
    return str(why.value)


def stamp(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def states(live: Live, product: str = "H100") -> set[str]:
    listed = live.market.desk.instruments.by_id.values()
    return {one.state.name for one in listed if one.data.product == product}


def mark_ticks(live: Live, code: str = CODE) -> int:
    listed = live.market.desk.instruments.by_code[code]
    return live.market.desk.instruments.mark(listed) // listed.tick_scale


class Heard:
    """What a client was told of one kind, in order."""

    def __init__(self, client: AsyncClient) -> None:
        self.events: list[AnyEvent] = []
        self._task = asyncio.create_task(self._listen(client))

    async def _listen(self, client: AsyncClient) -> None:
        async for event in client.events():
            self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def at_least(self, kind: type, count: int) -> list[Any]:
        await until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)


async def test_an_auction_by_hand_is_told_to_everybody(live: Live) -> None:
    maker, taker = await live.client(1), await live.client(2)
    heard = Heard(taker)
    await taker.subscribe(f"state.{CODE}", f"trades.{CODE}")
    done = await do(live, requests.PreOpen(code=CODE))
    assert done == {"code": CODE, "state": "PRE_OPEN", "changed": [CODE]}
    price = mark_ticks(live)
    await maker.enter(CODE, "sell", 7, price)
    await taker.enter(CODE, "buy", 5, price + 2)
    (found,) = (await do(live, requests.Indicate(code=CODE)))["indicative"]
    assert (found["quantity"], found["surplus"]) == (5, -2)
    (told,) = await heard.at_least(IndicativePrice, 1)
    assert (told.instrument, told.price, told.quantity, told.surplus) == (
        CODE, found["price"], "5", "-2",
    )  # fmt: skip
    await do(live, requests.Auction(code=CODE, cause="opening"))
    await do(live, requests.Resume(code=CODE))
    (result,) = await heard.at_least(AuctionResult, 1)
    assert (result.price, result.quantity, result.surplus) == (found["price"], "5", "-2")
    trades = await heard.at_least(PublicTrade, 1)
    assert {trade.price for trade in trades} == {result.price}
    shown = [(one.state, one.cause) for one in await heard.at_least(InstrumentState, 4)]
    assert shown == [
        ("CONTINUOUS", "NONE"), ("PRE_OPEN", "OPENING"), ("AUCTION", "OPENING"),
        ("CONTINUOUS", "NONE"),
    ]  # fmt: skip
    assert "STATE" in await refused(live, requests.Indicate(code=CODE))
    assert "nothing" not in await refused(live, requests.Resume(code="X100"))


async def test_a_product_moves_as_one(live: Live) -> None:
    await do(live, requests.ListContract(code=SPREAD))
    halted = await do(live, requests.Halt(code="H100"))
    assert len(halted["changed"]) == 13 and states(live) == {"HALTED"}
    assert states(live, "B200") == {"CONTINUOUS"}
    assert len((await do(live, requests.PreOpen(code="H100")))["changed"]) == 12
    indicated = await do(live, requests.Indicate(code="H100"))
    assert [one["price"] for one in indicated["indicative"]] == [None] * 12
    await do(live, requests.Resume(code="H100"))
    assert states(live) == {"CONTINUOUS"}
    await do(live, requests.Close(code="H100"))
    assert states(live) == {"CLOSED"}
    assert "nothing of H100 can be CLOSED" in await refused(live, requests.Close(code="H100"))


async def test_combinations_are_listed_by_their_codes_and_trade(live: Live) -> None:
    legs = {
        SPREAD: {"H100Z26": 1, "H100F27": -1},
        FLY: {"H100Z26": 1, "H100F27": -2, "H100G27": 1},
        STRIP: {"H100F27": 1, "H100G27": 1, "H100H27": 1},
        RATIO: {"H100Z26": 2, "B200Z26": -1},
    }
    for code, wanted in legs.items():
        done = await do(live, requests.ListContract(code=code))
        assert done["legs"] == wanted
    assert "listed already" in await refused(live, requests.ListContract(code=SPREAD))
    assert "H100Z28" in await refused(live, requests.ListContract(code="H100Z28-H100F29"))
    maker, taker = await live.client(1), await live.client(2)
    shown = {data.code: data for data in (await taker.query_instruments()).instruments}
    for code, wanted in legs.items():
        data = shown[code]
        assert {leg.code: leg.ratio for leg in data.legs} == wanted
        assert data.state == "CONTINUOUS" and data.max_order > 0
        assert data.price_rule == ("average" if code == STRIP else "difference")
        heard, price = Heard(taker), mark_ticks(live, code)
        assert isinstance(await maker.enter(code, "sell", 1, price), Accepted)
        assert isinstance(await taker.enter(code, "buy", 1, price), Accepted)
        traded = await heard.at_least(LegTraded, len(wanted))
        assert {leg.instrument for leg in traded} == set(wanted)
    await live.market.operations.checkpoint()
    await do(live, requests.Settle())
    assert not live.market.clearing.divergences
    before = live.market.desk.instruments.by_code[SPREAD].low_ticks
    await do(live, requests.OpenDay())
    listed = live.market.desk.instruments.by_code
    near, far = listed["H100Z26"], listed["H100F27"]
    assert listed[SPREAD].low_ticks == near.low_ticks - far.high_ticks
    assert listed[SPREAD].state == TradingState.CONTINUOUS and before


async def test_implied_prices_are_switched_by_spread_and_for_all(live: Live) -> None:
    await do(live, requests.ListContract(code=SPREAD))
    await do(live, requests.ListContract(code="H100F27-H100G27"))
    await do(live, requests.ListContract(code=FLY))
    taker, far, third = [await live.client(account) for account in (2, 3, 4)]
    price = mark_ticks(live)
    await far.enter("H100F27", "sell", 1, mark_ticks(live, "H100F27"))
    spread = price - mark_ticks(live, "H100F27")
    await third.enter(SPREAD, "sell", 1, spread)
    assert (await do(live, requests.SetImplied()))["changed"] == [SPREAD, "H100F27-H100G27", FLY]
    heard = Heard(taker)
    await taker.enter(CODE, "buy", 1, price, time_in_force="IOC")
    assert await heard.at_least(LegTraded, 1)
    assert live.market.desk.instruments.by_code[SPREAD].implied
    off = await do(live, requests.SetImplied(code=SPREAD, on=False))
    assert off == {"implied": False, "changed": [SPREAD]}
    assert "NOT_IMPLIED" in await refused(live, requests.SetImplied(code=CODE))


async def test_a_spread_is_given_a_credit_and_an_account_shows_it(live: Live) -> None:
    await do(live, requests.ListContract(code=SPREAD))
    client = await live.client(1)
    difference = mark_ticks(live) - mark_ticks(live, "H100F27")
    await client.enter(SPREAD, "buy", 2, difference)
    gross = Decimal((await client.query_account()).required)
    told = await do(live, requests.SetLimits(code=SPREAD, credit="40.5"))
    assert told["credit"] == "40.500000"
    report = await client.query_account()
    assert (report.credit, gross - Decimal(report.required)) == ("81.000000", Decimal(81))
    assert Decimal(report.free) == Decimal(report.cash) - Decimal(report.required)
    await do(live, requests.SetLimits(code=SPREAD, max_order=7))
    assert live.market.desk.instruments.by_code[SPREAD].risk.credit == 40_500_000
    for credit in ("-1", "100000"):
        beyond = requests.SetLimits(code=SPREAD, credit=credit)
        assert "what a lot of the cheaper leg holds" in await refused(live, beyond)
    ended = await do(live, requests.SetLimits(code=SPREAD, credit="0"))
    assert ended["credit"] == (await client.query_account()).credit == "0.000000"


async def test_protections_hold_from_the_listing_on_and_can_be_moved(live: Live) -> None:
    market, client = live.market, await live.client(1)
    listed = market.desk.instruments.by_code[CODE]
    terms = market.desk.terms[CODE]
    band = mark_ticks(live) * terms.band_percent // 100
    assert listed.protections == (band, 10_000, 10_000_000 * 10**6, 40_000)
    far = await client.enter(CODE, "buy", 1, mark_ticks(live) + band + 1)
    assert isinstance(far, Rejected) and far.name == "PRICE_BAND"
    heard = Heard(client)
    await client.subscribe(f"state.{CODE}")
    assert (await heard.at_least(InstrumentState, 1))[0].band == listed.price_text(band)
    await do(live, requests.Protect(code=CODE, band="0.010", order_value="5000"))
    assert listed.protections == (10, 10_000, 5_000 * 10**6, 40_000)
    assert (await heard.at_least(InstrumentState, 2))[1].band == "0.010"
    dear = await client.enter(CODE, "buy", 3, mark_ticks(live))
    assert isinstance(dear, Rejected) and dear.name == "ORDER_VALUE"
    low = listed.price_text(mark_ticks(live) - 5)
    moved = await do(live, requests.SetLimits(code=CODE, low=low, max_order=2, position_limit=9))
    assert moved["low_limit"] == low and (moved["max_order"], moved["position_limit"]) == (2, 9)
    many = await client.enter(CODE, "buy", 3, mark_ticks(live))
    assert isinstance(many, Rejected) and many.name == "QUANTITY_RANGE"
    assert "another than now" in await refused(live, requests.SetLimits(code=CODE, low=low))
    assert "no multiple of the tick" in await refused(
        live, requests.SetLimits(code=CODE, low="1.0001")
    )
    assert (await do(live, requests.Protect(on=False)))["protected"] == 0
    assert not any(listed.protections)
    await do(live, requests.Settle())
    await do(live, requests.OpenDay())
    assert listed.protections.band and listed.risk.max_order == terms.max_order
    shown = {one["code"]: one for one in (await do(live, requests.State()))["instruments"]}
    assert shown[CODE]["band"] == listed.price_text(listed.protections.band)


SENSELESS: list[tuple[requests.AnyRequest, str]] = [
    (requests.Protect(code=CODE, band="-0.001"), "a band is from 0 dollars on, not -0.001"),
    (requests.Protect(code=CODE, order_value="-1"), "an order's value is from 0"),
    (requests.Protect(code=CODE, accountability=-1), "an accountability level is from 0"),
    (requests.Protect(code=CODE, all_months=1 << 64), "a limit over all months is from 0"),
    (requests.Protect(code=CODE, band="1e3"), "1e3"),
    (requests.SetBreaker(code=CODE, variation="-1"), "a variation is from 0 dollars on, not -1"),
    (requests.SetBreaker(code=CODE, variation="0.0001"), "no multiple of the tick"),
    (requests.SetBreaker(code=CODE, span_ms=-1), "a span in milliseconds is from 1 to"),
    (requests.SetBreaker(code=CODE, halt_ms=1 << 60), "a halt in milliseconds is from 0"),
    (requests.SetBreaker(code=CODE, span_ms=0), "a span in milliseconds is from 1 to"),
    (requests.SetLimits(code=CODE, low="9" * 24), "is no price"),
    (
        requests.SetLimits(code=CODE, low="3.000", high="2.000"),
        "3.000, is above the highest, 2.000",
    ),
    (requests.SetLimits(code=CODE, low="-9000", high="9000"), "are 18000001 prices; 16777216"),
    (requests.OpenAccount(account=9, max_open_orders=0), "rejected PARAMETER_RANGE (805): {"),
    (requests.SetLimits(code=CODE, position_limit=-1), "a position limit is from 0"),
    (requests.SetLimits(code=CODE, max_order=1 << 32), "an order's limit is from 0"),
    (requests.SetLimits(code=CODE), "another than now"),
    (requests.SetLimits(code=CODE, credit="1"), "no spread of two months"),
    (requests.SetLimits(code="H100"), "not listed"),
    (requests.ListContract(code="H100PF27"), "state the first mark"),
    (requests.ListContract(code="2H100Z26-2B200Z26"), "not in the listing cycle"),
    (requests.SetImplied(code=CODE), "NOT_IMPLIED"),
    (requests.PreOpen(code="__proto__"), "not listed"),
]


async def test_what_makes_no_sense_is_refused_by_name(live: Live) -> None:
    before = live.market.engine.state_bytes()
    for request, why in SENSELESS:
        assert why in await refused(live, request)
    assert live.market.engine.state_bytes() == before


async def test_a_breaker_halts_and_two_people_let_it_go_on(live: Live) -> None:
    maker, taker = await live.client(1), await live.client(2)
    heard = Heard(taker)
    await taker.subscribe(f"state.{CODE}")
    breaker = requests.SetBreaker(code="H100", variation="0.020", product=True)
    assert len((await do(live, breaker))["changed"]) == 12
    told = (await heard.at_least(InstrumentState, 2))[1].circuit_breaker
    assert (told.variation, told.span_ms, told.halt_ms, told.product) == ("0.020", 60_000, 0, True)
    price = mark_ticks(live)
    for step in (0, 21):
        await maker.enter(CODE, "sell", 1, price + step)
        await taker.enter(CODE, "buy", 1, price + step)
    await until(lambda: states(live) == {"HALTED"})
    halted = (await heard.at_least(InstrumentState, 3))[2]
    assert (halted.state, halted.cause, halted.resumes) == ("HALTED", "CIRCUIT_BREAKER", None)
    for request in (requests.Auction(code=CODE), requests.Close(code=CODE)):
        assert "two people let it go on" in await refused(live, request)
    resume = requests.Resume(code="H100", reason="news", auction=True)
    assert "under an admin key" in await refused(live, resume, "socket")
    assert "state the reason" in await refused(live, requests.Resume(code="H100"))
    proposed = await do(live, resume, "anne")
    assert len(proposed["changed"]) == 12 and states(live) == {"HALTED"}
    approve = requests.Approve(proposal=proposed["proposal"])
    assert "another person" in await refused(live, approve, "anne")
    done = await do(live, approve, "bert")
    assert (done["proposed_by"], done["approved_by"]) == ("anne", "bert")
    listed = live.market.desk.instruments.by_code[CODE]
    assert (listed.state, listed.cause) == (TradingState.AUCTION, HaltCause.VOLATILITY)
    assert len((await do(live, requests.Resume(code="H100"), "anne"))["changed"]) == 12
    assert states(live) == {"CONTINUOUS"}
    again = await do(live, requests.SetBreaker(code=CODE))
    assert again["changed"] == [CODE]
    assert (await heard.at_least(InstrumentState, 6))[-1].circuit_breaker is None


async def halted(live: Live, code: str) -> None:
    """Trade so far apart that the breaker of an expiry halts it."""
    number, price = live.market.desk.instruments.by_code[code].id, mark_ticks(live, code)
    wished = [
        Wish(Command(kind=CommandKind.ENTER, account=account, side=side, quantity=1,
                     instrument=number, price=price + step,
                     key_lo=live.market.desk.sequence + step * 2 + account), note("enter"))
        for step in (0, 21) for account, side in ((1, Side.SELL), (2, Side.BUY))
    ]  # fmt: skip
    await live.market.desk.perform(wished)
    assert live.market.desk.instruments.by_code[code].state == TradingState.HALTED


async def test_an_approval_ends_no_halt_that_began_after_its_proposal(live: Live) -> None:
    """Neither another halt of the same expiry, nor one of another expiry of the product."""
    for account in (1, 2):
        await live.fund(account)
    await do(live, requests.SetBreaker(code="H100", variation="0.020"))
    state = {code: live.market.desk.instruments.by_code[code] for code in (CODE, "H100F27")}
    resume = requests.Resume(code="H100", reason="news")
    await halted(live, CODE)
    first, second = [(await do(live, resume))["proposal"] for _ in range(2)]
    await halted(live, "H100F27")
    done = await do(live, requests.Approve(proposal=first), "bert")
    assert done["changed"] == [CODE]
    assert [one.state.name for one in state.values()] == ["CONTINUOUS", "HALTED"]
    await halted(live, CODE)
    stale = requests.Approve(proposal=second)
    assert "was halted again after this was proposed" in await refused(live, stale, "bert")
    third = (await do(live, resume))["proposal"]
    done = await do(live, requests.Approve(proposal=third), "bert")
    assert set(done["changed"]) == set(state)


async def test_a_days_limits_of_lots_end_with_it_for_a_combination_too(tmp_path: Path) -> None:
    """Its credit stays; and what is in force is shown."""
    now = stamp("2026-11-23T12:00")
    market = await Market.start(tmp_path, clock=lambda: now)
    perform = market.operations.perform

    async def shown() -> list[tuple[int, int, str | None]]:
        found = {one["code"]: one for one in (await perform(requests.State()))["instruments"]}
        names = ("position_limit", "max_order", "credit")
        return [tuple(found[code][name] for name in names) for code in (SPREAD, CODE)]

    try:
        await perform(requests.ListContract(code=SPREAD))
        (spread, outright) = await shown()
        for code in (SPREAD, CODE):
            await perform(requests.SetLimits(code=code, position_limit=7, max_order=3))
        await perform(requests.SetLimits(code=SPREAD, credit="1.5"))
        assert await shown() == [(7, 3, "1.500000"), (7, 3, None)]
        await perform(requests.Settle())
        now = stamp("2026-11-24T12:00")
        await perform(requests.OpenDay())
        assert await shown() == [(*spread[:2], "1.500000"), outright]
    finally:
        await market.stop()


async def test_after_its_last_trading_day_a_contract_is_resumed_by_nobody(tmp_path: Path) -> None:
    """By its code as little as with its product, whose other months go on."""
    now = stamp("2026-11-30T12:00")
    async with market_in(tmp_path, clock=lambda: now) as market:
        perform, last = market.operations.perform, market.desk.instruments.by_code["H100X26"]
        assert (await perform(requests.Close(code="H100")))["changed"][0] == last.code
        assert (await perform(requests.Resume(code=last.code)))["changed"] == [last.code]
        await perform(requests.Settle())
        now = stamp("2026-12-01T12:00")
        await perform(requests.OpenDay())
        for request in (requests.Resume, requests.PreOpen, requests.Auction):
            with pytest.raises(RequestRefused, match="last trading day of H100X26 is over"):
                await perform(request(code=last.code))
        await perform(requests.Halt(code="H100"))
        assert len((await perform(requests.Resume(code="H100")))["changed"]) == 12
        assert last.state == TradingState.CLOSED


async def test_what_a_combination_has_not_is_not_said_to_be_set(live: Live) -> None:
    await do(live, requests.ListContract(code=SPREAD))
    for request, why in (
        (requests.SetBreaker(code=SPREAD, variation="0.1"), "has no breaker of its own"),
        (requests.Protect(code=SPREAD, band="0.050"), "has protections of its own"),
    ):
        assert why in await refused(live, request)


async def test_a_velocity_halt_ends_by_itself_and_says_when(live: Live) -> None:
    maker, taker = await live.client(1), await live.client(2)
    heard = Heard(taker)
    await taker.subscribe(f"state.{CODE}")
    await do(live, requests.SetBreaker(
        code=CODE, window="velocity", variation="0.005", span_ms=1_000, halt_ms=200,
    ))  # fmt: skip
    price = mark_ticks(live)
    for step in (0, 6):
        await maker.enter(CODE, "sell", 1, price + step)
        await taker.enter(CODE, "buy", 1, price + step)
    shown = await heard.at_least(InstrumentState, 4)
    assert [one.state for one in shown[2:4]] == ["HALTED", "CONTINUOUS"]
    assert shown[2].cause == "VELOCITY" and shown[2].resumes - shown[2].time == 200 * 10**6
    assert shown[3].resumes is None


async def test_a_restart_knows_what_instruments_are_held_to(tmp_path: Path) -> None:
    async with Live.open(tmp_path) as live:
        await do(live, requests.ListContract(code=SPREAD))
        await do(live, requests.SetImplied(code=SPREAD))
        await do(live, requests.SetBreaker(code=CODE, variation="0.020"))
        before = {one["code"]: one for one in (await do(live, requests.State()))["instruments"]}
    async with Live.open(tmp_path) as live:
        after = {one["code"]: one for one in (await do(live, requests.State()))["instruments"]}
        assert after == before
        assert after[SPREAD]["implied"] and after[CODE]["breakers"] == {"circuit": "0.020"}


class Quiet:
    """A market, and two accounts that trade with each other."""

    def __init__(self) -> None:
        self.now = stamp("2026-11-20T12:00")
        self.market: Market

    async def do(self, request: requests.AnyRequest, person: str = "anne") -> dict[str, Any]:
        return await self.market.operations.perform(request, person)

    def state(self, code: str) -> str:
        return self.market.desk.instruments.by_code[code].state.name

    async def cross(self, code: str, sell: int, buy: int) -> None:
        """Account 1 sells a lot and account 2 buys one, so many ticks from the mark."""
        listed = self.market.desk.instruments.by_code[code]
        for account, side, step in ((1, Side.SELL, sell), (2, Side.BUY, buy)):
            order = Command(
                kind=CommandKind.ENTER, account=account, side=side, quantity=1,
                instrument=listed.id, price=listed.mark // listed.tick_scale + step,
                key_lo=self.market.desk.sequence + 1,
            )  # fmt: skip
            await self.market.desk.perform([Wish(order, note("enter"))])


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[Quiet]:
    """A market whose clock stands still until a test moves it, and two accounts with money."""
    async with asyncio.timeout(60):
        quiet = Quiet()
        quiet.market = await Market.start(tmp_path, clock=lambda: quiet.now)
        people(tmp_path, "anne", "bert")
        for account in (1, 2):
            await quiet.do(requests.Deposit(account=account, amount="5000000"))
        yield quiet
        await quiet.market.stop()


async def test_nothing_that_a_settlement_leaves_trades_on_its_date(quiet: Quiet) -> None:
    """Neither when a halt's time is over, nor when somebody ends an auction."""
    halts, auction, pre_open = "H100Z26", "H100F27", "H100G27"
    market = quiet.market
    breaker = requests.SetBreaker(
        code=halts, window="velocity", variation="0.005", halt_ms=30_000
    )  # fmt: skip
    await quiet.do(breaker)
    for step in (0, 6):
        await quiet.cross(halts, step, step)
    assert quiet.state(halts) == "HALTED"
    await quiet.do(requests.Auction(code=auction, cause="closing"))
    await quiet.do(requests.PreOpen(code=pre_open))
    for code in (auction, pre_open):
        await quiet.cross(code, -2, 9)
    before = Decimal(micros_text(market.desk.instruments.by_code[pre_open].mark))
    inputs = {one["code"]: one for one in (await quiet.do(requests.Settle()))["inputs"]}
    assert [quiet.state(code) for code in (halts, auction, pre_open)] == [
        "CLOSED", "CLOSED", "PRE_OPEN",
    ]  # fmt: skip
    assert inputs[auction]["window_trades"] == 1  # of its auction, which came before the settlement
    crossed = inputs[pre_open]  # no quote is what nobody could trade at
    assert (crossed["bid"], crossed["ask"], crossed["tier"]) == (None, None, 3)
    assert Decimal(crossed["price"]) == before + Decimal(crossed["preceding_change"])
    quiet.now += 60 * 10**9
    market.sequencer.wake()
    await quiet.do(requests.Deposit(account=1, amount="1"))  # behind whatever was due
    assert quiet.state(halts) == "CLOSED"
    assert (await quiet.do(requests.OpenDay()))["opened"] == 47


async def test_nothing_trades_while_no_business_date_is_open(quiet: Quiet) -> None:
    await quiet.do(requests.SetBreaker(code="H100F27", variation="0.005"))
    for step in (0, 6):
        await quiet.cross("H100F27", step, step)
    resume = requests.Resume(code="H100F27", reason="news")
    proposed = await quiet.do(resume)
    await quiet.do(requests.Settle())
    for request in (
        requests.Resume(code=CODE), requests.Resume(code="B200"), requests.Auction(code=CODE),
        requests.Resume(code=CODE, auction=True), resume,
        requests.Approve(proposal=proposed["proposal"]),
    ):  # fmt: skip
        with pytest.raises(RequestRefused, match="no business date is open"):
            await quiet.do(request, "bert")
    assert (quiet.state(CODE), quiet.state("H100F27")) == ("CLOSED", "HALTED")
    await quiet.do(requests.PreOpen(code=CODE))  # of the next date: nothing trades in it
    await quiet.do(requests.OpenDay())
    assert quiet.state(CODE) == "PRE_OPEN"
    await quiet.do(requests.Resume(code=CODE))
    await quiet.do(requests.Approve(proposal=proposed["proposal"]), "bert")
    assert (quiet.state(CODE), quiet.state("H100F27")) == ("CONTINUOUS", "CONTINUOUS")
