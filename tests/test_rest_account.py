"""HTTP: the account's whole stream by pages, previews, and what requests cost."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from test_rest import CODE, House, candles_of, house

from exchange.app import trial
from exchange.app.requests import ListContract
from exchange.gateway import archive, auth, rest
from exchange.messages import wire
from exchange.messages.access import COSTS

__all__ = ["house"]  # a fixture
PAGES = Path(__file__).parents[1] / "docs" / "reference"


async def replayed(house: House, key: tuple[str, str]) -> list[dict[str, Any]]:
    """The account's reports as a connection gets them that has heard nothing yet."""
    now = house.clock()
    text = wire.signed_text(now // 1_000_000, now, key[0], 0)
    logon = {
        "op": "logon", "key_id": key[0], "timestamp_ms": now // 1_000_000, "nonce": now,
        "signature": auth.sign(key[1], text), "after": [0, 0, 0],
    }  # fmt: skip
    heard: list[dict[str, Any]] = []
    async with house.http.ws_connect(f"{house.base}/ws") as socket:
        await socket.send_str(json.dumps(logon))
        while not any(message["type"] == "logged_on" for message in heard):
            heard += await socket.receive_json(timeout=10)
    return [message for message in heard if "index" in message and "account" not in message]


async def test_the_whole_stream_by_pages_is_what_a_replay_tells(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await house.fund(1) as client:
        await client.enter(CODE, "buy", 1, "99.000", client_order_id="refused")
        await client.mass_cancel(request_id="all")
    told = await replayed(house, house.key)
    kinds = {message["type"] for message in told}
    assert {"accepted", "execution", "rejected", "mass_cancelled", "cancelled", "cash"} <= kinds
    for limit in (500, 7, 1):
        assert await house.pages(f"events?limit={limit}", "events") == told
    monkeypatch.setattr(archive, "SCAN_EVENTS", 3)
    assert await house.pages("events", "events") == told
    monkeypatch.undo()
    epoch = house.market.hub.epoch
    for place in random.Random(7).sample(range(len(told)), 6):
        one = told[place]
        after = f"{epoch}.{one['sequence']}.{one['index']}"
        later = await house.pages(f"events?limit=500&after={after}", "events")
        assert later == [
            other
            for other in told
            if (other["sequence"], other["index"]) > (one["sequence"], one["index"])
        ]


async def test_a_preview_and_the_same_refusals(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MARKET_SHARE", 1)  # one behind the other
    market = house.market
    before = market.engine.state_bytes(), market.sequencer.sequence
    ask = f"preview?instrument={CODE}&side=buy&quantity=2"
    (resting,) = (await house.get("orders"))[1]["orders"]
    status, told = await house.get(f"{ask}&price={resting['price']}&time_in_force=IOC")
    assert status == 200 and told["type"] == "previewed", told
    assert told["executions"] == [] and told.get("refused") is None  # it would meet itself
    other = auth.create_key(market.directory, 2, "read")
    status, told = await house.get(f"{ask}&type=market", other)
    assert (status, told["executions"]) == (200, [[resting["price"], "2"]])
    gtd = f"{ask}&price={resting['price']}&time_in_force=GTD"
    status, told = await house.get(f"{gtd}&expires_ms={house.clock() // 1_000_000 + 9_000}", other)
    assert (status, told["executed_quantity"]) == (200, "2"), told
    for query, status, name, field in (
        (f"{ask}&price=x", 400, "SYNTAX", "price"),
        (f"{ask}&colour=red", 400, "UNKNOWN_FIELD", "colour"),
        (f"preview?instrument={CODE}&side=buy", 400, "MISSING_FIELD", "quantity"),
        (gtd, 400, "MISSING_FIELD", "expires_ms"),
        (
            "preview?instrument=NONE&side=buy&quantity=2&price=1",
            404,
            "UNKNOWN_INSTRUMENT",
            "instrument",
        ),
    ):
        refused, told = await house.get(query, other)
        assert (refused, told["name"], told["field"]) == (status, name, field)
    assert (market.engine.state_bytes(), market.sequencer.sequence) == before


async def test_one_order_by_either_id(house: House) -> None:
    (resting,) = (await house.get("orders"))[1]["orders"]
    status, told = await house.get("order?client_order_id=rests")
    assert (status, told["type"], told["state"], told["order"]) == (
        200,
        "order",
        "working",
        resting,
    )
    assert told["executed_quantity"] == "0" and told["sequence"] == house.market.hub.sequence
    by_id = f"order/{resting['order_id']}"
    assert await house.get(by_id) == (status, told)
    sold = (await house.get("fills?limit=1"))[1]["fills"][0]
    status, told = await house.get(f"order/{sold['order_id']}")
    assert (status, told["state"], told["order"]["leaves_quantity"]) == (200, "ended", "0")
    other = auth.create_key(house.market.directory, 2, "read")
    for path, key in ((by_id, other), ("order?client_order_id=never", house.key)):
        status, told = await house.get(path, key)
        assert (status, told["state"], told.get("order")) == (200, "unknown", None), path
    assert not house.market.hub.lookups


async def test_an_order_may_be_asked_for_before_it_is_there(house: House) -> None:
    # Two keys: whose request of one key comes first nobody knows, and its nonces must rise.
    readers = [auth.create_key(house.market.directory, 2, "read") for _ in range(2)]
    async with await house.fund(2) as buyer:
        ask = "order?client_order_id=late"
        asking = [asyncio.create_task(house.get(ask, reader)) for reader in readers]
        while len(house.market.hub.lookups._waiting) < len(asking):
            await asyncio.sleep(0.001)
        asking[1].cancel()  # who has gone is told nothing, and keeps nobody from his answer
        low = house.market.hub.feed.instruments.by_code[CODE].low_ticks
        await buyer.enter(CODE, "buy", 1, low, client_order_id="late")
        status, told = await asking[0]
    assert (status, told["state"], told["order"]["client_order_id"]) == (200, "working", "late")


async def test_a_hub_that_stands_still_keeps_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for an order is told that it is unknown, though no clock ended his wait."""
    monkeypatch.setattr(rest, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(house.market.hub.lookups, "expire", lambda now_ms: None)
    status, told = await house.get("order?client_order_id=never")
    assert (status, told["state"]) == (200, "unknown")
    assert house.market.hub.lookups


@pytest.mark.parametrize(
    ("query", "status", "name"),
    [
        ("", 400, "MISSING_FIELD"),
        ("?client_order_id=a&order_id=1", 400, "UNKNOWN_FIELD"),
        ("?client_order_id=a%20b", 400, "SYNTAX"),
        ("/one", 400, "ID_FORMAT"),
        ("/99999999999999999999", 404, "NOT_FOUND"),
        ("/1?client_order_id=a", 400, "UNKNOWN_FIELD"),
        ("?id=1", 400, "UNKNOWN_FIELD"),
    ],
)
async def test_what_names_no_order_is_refused(
    house: House, query: str, status: int, name: str
) -> None:
    found, told = await house.get(f"order{query}")
    assert (found, told["name"]) == (status, name)


async def test_what_requests_cost_is_told_and_written(house: House) -> None:
    status, told = await house.get("costs")
    assert status == 200
    assert {op: cost for op, cost in told["tokens"].items() if cost} == COSTS
    assert set(told["tokens"]) == {
        str(request.__struct_config__.tag) for request in wire.AnyRequest.__args__
    }
    page = (PAGES / "wire.md").read_text()
    assert f"at most {told['frame_bytes']:,} bytes" in page
    assert f"an array of 1 to {told['frame_commands']} commands" in page
    assert "ask for ten previews a second" in page and told["previews_a_second"] == 10


async def test_candles_of_a_combination(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = "H100Z26-H100F27"
    await house.market.operations.perform(ListContract(code=spread))
    trades: list[tuple[int, int, int]] = []
    async with await house.fund(1) as seller, await house.fund(2) as buyer:
        for number in range(9):
            house.clock.ahead += 25_000_000_000
            ticks, lots = number * 7 % 5 - 2, 1 + number % 3
            await seller.enter(spread, "sell", lots, ticks)
            bought = await buyer.enter(spread, "buy", lots, ticks)
            assert isinstance(bought, wire.Accepted)
            trades.append((bought.time // 1_000_000, ticks, lots))
    wanted = candles_of(trades)
    for limit in (500, 2, 1):
        path = f"candles/{spread}?interval=1m&limit={limit}"
        assert await house.pages(path, "candles", "from_ms") == wanted
    late = f"candles/{spread}?interval=1m&from_ms={wanted[1]['start_ms'] + 1}"
    assert await house.pages(late, "candles", "from_ms") == wanted[1:]
    monkeypatch.setattr(archive, "READ_SECONDS", -1)
    status, told = await house.get(f"candles/{spread}")
    assert (status, told["name"], told["retryable"]) == (429, "REQUESTS_FULL", True)


async def test_a_switch_is_among_the_reports(house: House) -> None:
    async with await house.fund(1) as client:
        await client.cancel_after(60_000)
        await client.cancel_after(0)
    told = await replayed(house, house.key)
    assert [one["type"] for one in told].count("cancel_after") == 2
    assert await house.pages("events?limit=500", "events") == told
