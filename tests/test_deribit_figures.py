"""What the dialect says of money, prices and calls is what the market did. Budget: 12 seconds."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dialect import CASH, Rpc, Venue
from msgspec.structs import astuple

from exchange.app.requests_market import ListContract, PreOpen, Resume, SetImplied
from exchange.gateway import server
from exchange.messages import COMMAND, Command, CommandKind

NEAR, FAR, SPREAD = "H100Z26", "H100F27", "H100Z26-H100F27"
SECONDS = 20


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    async with asyncio.timeout(60), Venue.open(tmp_path) as opened:
        await opened.market.operations.perform(ListContract(code=SPREAD))
        yield opened


async def people(venue: Venue, count: int) -> list[Rpc]:
    """Logged-on connections of as many accounts."""
    return [await venue.rpc(await venue.key(account)) for account in range(1, count + 1)]


async def mark(rpc: Rpc, code: str) -> Decimal:
    return Decimal(str((await rpc.call("public/ticker", instrument_name=code))["mark_price"]))


async def fees(rpc: Rpc) -> Decimal:
    """What an account's trades say that it paid, by every list of them."""
    told = await rpc.call("private/get_user_trades_by_currency", count=1_000)
    return sum((Decimal(str(trade["fee"])) for trade in told["trades"]), Decimal(0))


async def paid(rpc: Rpc) -> Decimal:
    """What has left an account's cash."""
    summary = await rpc.call("private/get_account_summary")
    return Decimal(CASH) - Decimal(str(summary["balance"]))


async def test_the_trades_of_a_combination_say_what_its_legs_cost(venue: Venue) -> None:
    one, two = await people(venue, 2)
    channel = f"user.trades.{SPREAD}.raw"
    await two.call("private/subscribe", channels=[channel])
    price = str(await mark(one, SPREAD))
    for side in ("buy", "buy"):
        await one.call(f"private/{side}", instrument_name=SPREAD, amount=1, price=price)
    sold = await two.call("private/sell", instrument_name=SPREAD, amount=2, type="market")
    assert len(sold["trades"]) == 2 and await two.data(channel) == sold["trades"]
    for rpc in (one, two):
        assert await fees(rpc) == await paid(rpc) > 0
    assert sum(Decimal(str(trade["fee"])) for trade in sold["trades"]) == await paid(two)


async def test_trades_at_implied_prices_say_what_they_cost(venue: Venue) -> None:
    await venue.market.operations.perform(SetImplied(code=SPREAD, on=True))
    one, two, three = await people(venue, 3)
    near, far = await mark(one, NEAR), await mark(one, FAR)
    await one.call("private/sell", instrument_name=SPREAD, amount=1, price=str(near - far))
    await two.call("private/sell", instrument_name=FAR, amount=1, price=str(far))
    bought = await three.call("private/buy", instrument_name=NEAR, amount=1, price=str(near))
    assert bought["order"]["order_state"] == "filled"
    for rpc in (one, two, three):
        assert await fees(rpc) == await paid(rpc) > 0


async def test_a_market_order_that_rests_at_a_price_of_zero_shows_it(venue: Venue) -> None:
    one, two = await people(venue, 2)
    order: dict[str, Any] = {"instrument_name": SPREAD, "amount": 1}
    await one.call("private/sell", price=0, **order)
    left = await two.call("private/buy", type="market_limit", **order | {"amount": 3})
    assert (left["order"]["price"], left["order"]["filled_amount"]) == (0, 1)
    gone = await two.call("private/buy", type="market", **order)
    assert gone["order"]["price"] == "market_price"


async def test_an_order_that_only_an_auction_priced_was_not_edited(venue: Venue) -> None:
    one, two = await people(venue, 2)
    price, operations = str(await mark(one, NEAR)), venue.market.operations
    await operations.perform(PreOpen(code=NEAR))
    order: dict[str, Any] = {"instrument_name": NEAR}
    await one.call("private/buy", amount=2, price=price, **order)
    sold = await two.call("private/sell", amount=5, type="market_limit", **order)
    await operations.perform(Resume(code=NEAR))
    which = {"order_id": sold["order"]["order_id"]}
    async with asyncio.timeout(SECONDS):
        while (state := await two.call("private/get_order_state", **which))["filled_amount"] != 2:
            await asyncio.sleep(0.01)
    assert (state["price"], state["replaced"]) == (float(price), False)
    edited = await two.call("private/edit", amount=4, **which)
    assert edited["order"]["replaced"] is True


@pytest.mark.parametrize("price", ["-0.0", "-0", "0e3", '"-0.000"'])
async def test_a_negative_zero_is_zero(venue: Venue, price: str) -> None:
    """A program that works spreads out with floats arrives at it."""
    (one,) = await people(venue, 1)
    params = f'{{"instrument_name": "{SPREAD}", "amount": 1, "price": {price}}}'
    await one.socket.send_str(f'{{"id": 0, "method": "private/buy", "params": {params}}}')
    told = await one.answer(lambda message: message.get("id") == 0)
    assert told["result"]["order"]["price"] == 0


async def test_a_portfolio_follows_the_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not with the next heartbeat that comes along."""
    monkeypatch.setattr(server, "HEARTBEAT_MS", 3_600_000)
    async with asyncio.timeout(60), Venue.open(tmp_path) as venue:
        await follow_a_mark(venue)


async def follow_a_mark(venue: Venue) -> None:
    one, two = await people(venue, 2)
    price, channel = await mark(one, NEAR), "user.portfolio.usd"
    await one.call("private/buy", instrument_name=NEAR, amount=1, price=str(price))
    await two.call("private/sell", instrument_name=NEAR, amount=1, type="market")
    await one.call("private/subscribe", channels=[channel])
    before = (await one.data(channel))["equity"]
    listed = venue.market.hub.feed.instruments.by_code[NEAR]
    up = Command(kind=CommandKind.MARK, instrument=listed.id, price=listed.mark + 10_000)
    venue.market.sequencer.submit(0, COMMAND.pack(*astuple(up)))
    async with asyncio.timeout(SECONDS):
        while (told := await one.data(channel))["equity"] == before:
            pass
    assert told == await one.call("private/get_account_summary")
    gain = listed.multiplier * Decimal("0.01")
    assert Decimal(str(told["equity"])) - Decimal(str(before)) == gain


async def test_a_subscription_is_answered_before_its_channels_speak(venue: Venue) -> None:
    (one,) = await people(venue, 1)
    names = [f"ticker.{NEAR}.raw", f"quote.{NEAR}", f"book.{NEAR}.none.10.100ms",
             f"book.{NEAR}.raw", "user.portfolio.any"]  # fmt: skip
    assert await one.call("private/subscribe", channels=names) == names
    assert one.told == []
    for name in names:
        assert await one.data(name)
    await one.call("public/test")
    assert one.told == [], "each spoke once"


@pytest.mark.parametrize(
    "number", ["7", "-1", '"naïve"', '"' + "x" * 64 + '"', "1795490694.25", "9" * 30, "null", '""']
)
async def test_an_answer_repeats_the_id_of_its_call(venue: Venue, number: str) -> None:
    rpc = await venue.rpc()
    await rpc.socket.send_str(f'{{"id": {number}, "method": "public/test"}}')
    text = (await rpc.socket.receive()).data
    assert f'"id":{number},' in text and json.loads(text)["result"]


@pytest.mark.parametrize("number", ["true", "[1]", "{}", '"' + "x" * 65 + '"', "9" * 65])
async def test_a_call_whose_answer_could_not_be_recognized_is_not_done(
    venue: Venue, number: str
) -> None:
    (one,) = await people(venue, 1)
    params = {"instrument_name": NEAR, "amount": 1, "price": str(await mark(one, NEAR))}
    call = f'{{"id": {number}, "method": "private/buy", "params": {json.dumps(params)}}}'
    await one.socket.send_str(call)
    told = await one.answer(lambda message: "error" in message)
    assert (told["id"], told["error"]["code"]) == (None, -32600)
    assert await one.call("private/get_open_orders") == []
