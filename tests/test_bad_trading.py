"""Trading that would hurt the market: swapped fields, a pushed settlement, a chain of stops.

The cases are B89 to B91 of ../shared/vectors/bad_inputs.json: through the gateway where an order
comes that way, through clearing where a price is made.
"""

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import venue as market
from clearing_house import House
from history_market import DAYS
from test_surveillance import begin, findings, quiet, trade
from venue import CODE, RICH, THIRD, Venue, enter, reject

from exchange.clearing import Clearing
from exchange.clearing.prices import WINDOW_NS
from exchange.messages import (
    Breaker,
    Command,
    CommandKind,
    HaltCause,
    Limit,
    TradingState,
    wire,
)

SECOND = 1_000_000_000
DAY = 20261201


venue = market.venue  # a fixture


def sell(name: str, **fields: Any) -> dict[str, Any]:
    return enter(name, side="sell", **fields)


async def test_quantity_and_price_swapped_b89(venue: Venue) -> None:
    """610 lots at 2.650 sent as 2650 lots at 610 ticks: refused by size, by limit and by band."""
    trader = await venue.trader(RICH)
    swapped = {"price": "1.000", "quantity": "610000"}
    told = await reject(venue, trader, sell("size", **swapped))
    assert (told.name, told.limit, told.observed) == ("QUANTITY_RANGE", "1000", "610000")
    few = {"price": "1.000", "quantity": "610"}
    told = await reject(venue, trader, sell("limit", **few))
    assert (told.name, told.limit, told.observed) == ("PRICE_LIMIT", "2.000", "1.000")
    wide = Command(kind=CommandKind.SET_LIMITS, target_lo=500, target_hi=4_000)
    await venue.order(wide)
    await venue.order(Command(kind=CommandKind.SET_PROTECTIONS, price=100))
    told = await reject(venue, trader, sell("band", **few))
    assert (told.name, told.limit, told.observed) == ("PRICE_BAND", "2.550", "1.000")
    (accepted,) = await venue.say(trader, sell("right", price="2.650", quantity="610"))
    assert isinstance(accepted, wire.Accepted)


def test_a_price_pushed_before_the_settlement_window_b90(tmp_path: Path) -> None:
    """What was dealt before the window does not count, and in it each lot counts alike."""
    house = House(Clearing.open(tmp_path / "ledger.db"))
    for account in (1, 2, 3):
        house.open(account, account, 1, 1 << 40)
    house.list(0, "H100Z26", on=date(2026, 11, 2))
    house.day(DAY)
    house.trade(3, 2, 50, 2_900)  # the push: fifty lots, four dollars a lot and hour too high
    pushed = house.market.stamp
    house.at(pushed + WINDOW_NS)
    for _ in range(20):
        house.trade(1, 2, 10, 2_500)
    house.trade(3, 2, 1, 2_900)  # one lot more, within it
    house.at(pushed + WINDOW_NS + SECOND)
    house.close(DAY)
    (priced,) = house.clearing.settlement_prices()
    assert (priced.tier, priced.window_trades, priced.window_lots) == (1, 21, 201)
    assert priced.price == 2_502_000  # (200 x 2,500 + 2,900) / 201, not 2,580
    house.agree()
    house.clearing.close()


@pytest.mark.parametrize(("lots", "logged"), [(8, True), (2, False)])
def test_who_pushed_it_is_logged_b90(tmp_path: Path, lots: int, logged: bool) -> None:
    """The outlier is found by who bought most of at least ten lots, three ticks up."""
    script = begin()
    trade(script, 1, 3, 1, 2_500)
    quiet(script, 31)
    trade(script, 5, 4, 2, 2_501)
    trade(script, 2, 3, lots, 2_504)
    script.settle(DAYS[0], (2_500_000, 2_504_000))
    expected = [("marking_the_close", 2, lots)] if logged else []  # four lots are too few to say
    assert findings(script, tmp_path) == expected


async def test_a_chain_of_stops_is_bounded_by_the_velocity_pause_b91(venue: Venue) -> None:
    """Each stop's trade elects the next; a pause comes after eleven of fifty, the rest wait."""
    buyer, seller = await venue.trader(THIRD), await venue.trader(RICH)
    arm = Command(
        kind=CommandKind.SET_BREAKER, tif=Breaker.VELOCITY, price=10, target_lo=16 * SECOND,
        target_hi=5 * SECOND,
    )  # fmt: skip
    await venue.order(arm)
    watcher = venue.connect()
    channels = [f"state.{CODE}", f"trades.{CODE}"]
    await venue.say(watcher, {"op": "subscribe", "request_id": "s", "channels": channels})
    prices = [f"2.{650 - step}" for step in range(50)]
    await venue.say(buyer, *(enter(f"bid{p}", price=p, quantity="1") for p in prices))
    stops = [sell(f"stop{p}", price="2.100", quantity="1", stop_price=p) for p in prices]
    heard = await venue.say(seller, *stops)
    assert sum(isinstance(one, wire.Waiting) for one in heard) == 50
    heard = await venue.say(seller, sell("first", quantity="1", price="2.650"))
    elected = [one for one in heard if isinstance(one, wire.Elected)]
    assert len(elected) == 11 < Limit.ELECTIONS
    seen = venue.heard(watcher)
    trades = [one.price for one in seen if isinstance(one, wire.PublicTrade)]
    assert trades == prices[:12]  # the last is beyond the ten ticks, and stands
    halt = next(one for one in seen if isinstance(one, wire.InstrumentState))
    assert (halt.state, halt.cause) == (TradingState.HALTED.name, HaltCause.VELOCITY.name)
    told = await reject(venue, seller, sell("late", quantity="1"))
    assert told.name == "NOT_TRADING"
    halts = 1
    async with asyncio.timeout(10):
        while len(trades) < 50:
            venue.now_ns += 5 * SECOND
            await venue.order(Command(kind=CommandKind.ADVANCE_TIME))
            seen = venue.heard(watcher)
            trades += [one.price for one in seen if isinstance(one, wire.PublicTrade)]
            states = [one.state for one in seen if isinstance(one, wire.InstrumentState)]
            halts += states.count(TradingState.HALTED.name)
    assert (trades, halts) == (prices, 4)
