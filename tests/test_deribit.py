"""The Deribit dialect as its own document says: numbers, books, channels, orders, tokens."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from dialect import SECONDS, Rpc, Venue, no_candles
from hypothesis import given
from hypothesis import strategies as st

from exchange.gateway import seats
from exchange.gateway.dialects.deribit import codes, peer
from exchange.gateway.dialects.deribit.blotter import Blotter
from exchange.gateway.dialects.deribit.methods import CONNECTION_METHODS, Methods
from exchange.gateway.dialects.deribit.numbers import exact, half_even, plain
from exchange.messages import Reason
from exchange.messages.access import GatewayReason
from exchange.messages.wire import Rejected

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs/reference/deribit.md"


@given(st.integers(-(10**15), 10**15), st.integers(0, 6))
def test_a_number_goes_both_ways_without_a_float(units: int, decimals: int) -> None:
    text = str(Decimal(units).scaleb(-decimals))
    number = Decimal(msgspec.json.encode(exact(format(Decimal(text), "f"))).decode())
    assert number == Decimal(text)
    assert Decimal(plain(number, "price")) == number == Decimal(plain(text, "price"))


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_an_average_rounds_a_half_to_the_even(dividend: int, divisor: int) -> None:
    exactly = Decimal(dividend) / Decimal(divisor)
    assert half_even(dividend, divisor) == int(exactly.to_integral_value("ROUND_HALF_EVEN"))


@pytest.mark.parametrize(
    ("given", "read"), [("8e-7", "0.0000008"), (10, "10"), ("10.0", "10"), ("1E1", "10")]
)
def test_numbers_are_read_leniently(given: Any, read: str) -> None:
    assert plain(given, "price") == read


@pytest.mark.parametrize("reason", [*Reason, *GatewayReason], ids=lambda r: r.name)
def test_every_reject_has_a_code_and_its_name(reason: Any) -> None:
    told = codes.failure(Rejected(number=int(reason), name=reason.name, retry_after_ms=7))
    assert told.data is not None and told.data["reason"] == reason.name
    assert told.data["retry_after_ms"] == 7
    if told.code != codes.OTHER[0]:
        assert f"| {told.code} | `{told.message}` |" in PAGE.read_text()


def test_a_refusal_of_the_dialects_own_says_when_to_come_again() -> None:
    told = codes.refusal(Reason.LOG_FULL).data
    assert told is not None and (told["retryable"], told["retry_after_ms"]) == (True, 1_000)
    told = codes.refusal(Reason.BAD_SIGNATURE).data
    assert told is not None and not told["retryable"] and "retry_after_ms" not in told


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    async with Venue.open(tmp_path) as opened:
        yield opened


class Desk:
    """A trader on a connection, and the instrument it trades."""

    def __init__(self, rpc: Rpc, code: str, price: Decimal) -> None:
        self.rpc, self.code, self.price = rpc, code, price

    async def enter(self, side: str, amount: int, ticks: int, **terms: Any) -> Any:
        """Enter an order so many ticks from the mark."""
        price = str(self.price + ticks * Decimal("0.001"))
        terms = {"instrument_name": self.code, "amount": amount, "price": price, **terms}
        return await self.rpc.call(f"private/{side}", **terms)


async def desk(venue: Venue, account: int) -> Desk:
    rpc = await venue.rpc(await venue.key(account))
    listed = await rpc.call("public/get_instruments", currency="H100", kind="future")
    code = listed[0]["instrument_name"]
    ticker = await rpc.call("public/ticker", instrument_name=code)
    return Desk(rpc, code, Decimal(str(ticker["mark_price"])))


async def test_every_method_is_documented(venue: Venue) -> None:
    hub, page = venue.market.hub, PAGE.read_text()
    known = {*Methods(hub, Blotter(hub), no_candles).known, *CONNECTION_METHODS, "public/auth"}
    assert set(re.findall(r"`((?:public|private)/\w+)`", page)) == known


async def test_books_of_every_interval_lead_to_the_same_book(venue: Venue) -> None:
    trader, watcher = await desk(venue, 1), await venue.rpc()
    names = [f"book.{trader.code}.{interval}" for interval in ("raw", "100ms", "agg2")]
    grouped, quote = f"book.{trader.code}.none.10.100ms", f"quote.{trader.code}"
    await trader.enter("buy", 3, -1)
    assert await watcher.call("public/subscribe", channels=names) == names
    books = {name: Follower() for name in names}
    for name in names:
        books[name].take(await watcher.data(name))
    await watcher.call("public/subscribe", channels=[grouped, quote, names[0]])  # once more
    rng = random.Random(3)
    working: list[str] = []
    for _ in range(60):
        if working and rng.random() < 0.4:
            order_id = working.pop(rng.randrange(len(working)))
            await trader.rpc.call("private/cancel", order_id=order_id)
        else:
            side, ticks = rng.choice((("buy", -1), ("sell", 1)))
            entered = await trader.enter(side, rng.randint(1, 4), ticks * rng.randint(1, 6))
            working.append(entered["order"]["order_id"])
    truth = await watcher.call("public/get_order_book", instrument_name=trader.code, depth=100)
    for name in names:
        while books[name].change_id < truth["change_id"]:
            books[name].take(await watcher.data(name))
        assert books[name].sides() == (truth["bids"], truth["asks"]), name
    assert books[names[0]].messages > 40 > books[names[2]].messages
    while (last := await watcher.data(grouped))["change_id"] < truth["change_id"]:
        pass
    assert last["bids"] == truth["bids"][:10] and last["asks"] == truth["asks"][:10]
    while (top := await watcher.data(quote))["timestamp"] < truth["timestamp"]:
        pass
    assert [top["best_bid_price"], top["best_bid_amount"]] == truth["bids"][0]
    assert await watcher.call("public/unsubscribe", channels=[*names, "book.X.raw"]) == names
    assert await watcher.call("public/unsubscribe_all") == "ok"


class Follower:
    """A book kept by the venue's rules: a snapshot, then changes that follow each other."""

    def __init__(self) -> None:
        self.levels: tuple[dict[float, int], dict[float, int]] = ({}, {})
        self.change_id = -1
        self.messages = 0

    def take(self, data: Any) -> None:
        """Take a message in."""
        if data["type"] == "snapshot":
            assert self.change_id == -1, "one snapshot alone"
        else:
            assert data["prev_change_id"] == self.change_id
        self.change_id = data["change_id"]
        self.messages += 1
        for levels, changes in zip(self.levels, (data["bids"], data["asks"]), strict=True):
            for action, price, amount in changes:
                assert (price in levels) == (action != "new"), (action, price)
                if action == "delete":
                    del levels[price]
                else:
                    levels[price] = amount

    def sides(self) -> tuple[list[list[float]], list[list[float]]]:
        """Both sides, best first."""
        bids, asks = (sorted(map(list, one.items())) for one in self.levels)
        return bids[::-1], asks


async def test_a_channels_snapshot_in_the_middle_becomes_a_change(venue: Venue) -> None:
    trader, watcher = await desk(venue, 1), await venue.rpc()
    name, book = f"book.{trader.code}.raw", Follower()
    await trader.enter("buy", 1, -1)
    await watcher.call("public/subscribe", channels=[name])
    book.take(await watcher.data(name))
    session = next(s for s in venue.market.hub.sessions.values() if s.channels)
    session.stale.add(f"depth.{trader.code}")  # as one that has not kept up
    await trader.enter("buy", 2, -1)
    await trader.enter("buy", 2, -2)
    truth = await watcher.call("public/get_order_book", instrument_name=trader.code)
    while book.change_id < truth["change_id"]:
        book.take(await watcher.data(name))
    assert book.sides() == (truth["bids"], [])


async def test_own_channels_tell_orders_trades_and_positions(venue: Venue) -> None:
    one, two = await desk(venue, 1), await desk(venue, 2)
    told = ["user.orders.any.any.raw", f"user.trades.{one.code}.raw", "user.changes.future.USD.raw",
            f"user.orders.{one.code}.100ms", "user.portfolio.usd"]  # fmt: skip
    assert await one.rpc.call("private/subscribe", channels=told) == told
    entered = await one.enter("buy", 5, 0, label="mm-1")
    order_id = entered["order"]["order_id"]
    assert (await one.rpc.data(told[0]))["order_state"] == "open"
    assert (await one.rpc.data(told[2]))["orders"][0]["label"] == "mm-1"
    await two.enter("sell", 5, 0)
    filled = await one.rpc.data(told[0])
    assert (filled["order_id"], filled["order_state"], filled["filled_amount"]) == (
        order_id, "filled", 5,
    )  # fmt: skip
    (trade,) = await one.rpc.data(told[1])
    assert (trade["order_id"], trade["liquidity"], trade["label"]) == (order_id, "M", "mm-1")
    changes = await one.rpc.data(told[2])
    assert changes["trades"] == [trade] and changes["positions"][0]["size"] == 5
    assert isinstance(await one.rpc.data(told[3]), list)
    assert (await one.rpc.data(told[4]))["currency"] == "USD"


async def test_orders_of_every_kind(venue: Venue) -> None:
    one, two = await desk(venue, 1), await desk(venue, 2)
    iceberg = (await one.enter("sell", 9, 2, max_show=3))["order"]
    assert (iceberg["max_show"], iceberg["amount"]) == (3, 9)
    book = await one.rpc.call("public/get_order_book", instrument_name=one.code)
    assert book["asks"][0][1] == 3
    stop = (await two.enter("buy", 1, 9, type="stop_limit",
                            trigger_price=str(one.price + Decimal("0.002"))))["order"]  # fmt: skip
    assert (stop["order_state"], stop["order_type"]) == ("untriggered", "stop_limit")
    left = await one.enter("sell", 1, -9, type="stop_limit",
                           trigger_price=str(one.price - Decimal("0.007")))  # fmt: skip
    left = await one.rpc.call("private/cancel", order_id=left["order"]["order_id"])
    assert (left["order_state"], left["triggered"]) == ("cancelled", False)
    bare: dict[str, Any] = {"instrument_name": one.code, "type": "stop_market"}
    left = await one.rpc.call(
        "private/sell", amount=2, trigger_price=str(one.price - Decimal("0.009")), **bare
    )
    target = {"order_id": left["order"]["order_id"]}
    priced = await one.rpc.fail("private/edit", price=str(one.price), **target)
    assert priced["data"]["reason"] == "COMBINATION"
    left = (await one.rpc.call("private/edit", amount=1, **target))["order"]
    assert (left["price"], left["amount"]) == ("market_price", 1)
    await one.rpc.call("private/cancel", **target)
    ioc = await two.enter("buy", 2, 1, time_in_force="immediate_or_cancel")
    assert (ioc["order"]["order_state"], ioc["order"]["cancel_reason"]) == (
        "cancelled", "ioc_remainder",
    )  # fmt: skip
    market = await two.rpc.call("private/buy", instrument_name=one.code, contracts=1, type="market")
    assert (market["order"]["order_state"], len(market["trades"])) == ("filled", 1)
    assert market["order"]["average_price"] == float(one.price + Decimal("0.002"))
    state = await two.rpc.call("private/get_order_state", order_id=stop["order_id"])
    assert state["order_state"] == "filled" and state["triggered"]
    gone = await one.rpc.call("private/get_open_orders_by_label", label="none")
    assert gone == []
    edited = await one.rpc.call("private/edit", order_id=iceberg["order_id"], amount=8)
    assert (edited["order"]["amount"], edited["order"]["replaced"]) == (8, True)
    assert await one.rpc.call("private/cancel_all_by_currency", currency="H100") == 1
    history = await one.rpc.call(
        "private/get_order_history_by_instrument", instrument_name=one.code
    )
    assert [order["order_state"] for order in history] == ["cancelled"] * 3
    lists = await two.rpc.call("private/get_user_trades_by_order", order_id=stop["order_id"])
    assert [trade["amount"] for trade in lists] == [1]
    trades = await one.rpc.call("public/get_last_trades_by_instrument", instrument_name=one.code)
    assert len(trades["trades"]) == 2 and not trades["has_more"]
    first = await one.rpc.call("public/get_last_trades_by_currency", count=1, sorting="asc")
    assert first["has_more"] and first["trades"] == [trades["trades"][1]]
    summary = await one.rpc.call("private/get_account_summary", currency="USD")
    positions = await one.rpc.call("private/get_positions", currency="USD", kind="future")
    assert summary["equity"] == pytest.approx(
        summary["balance"] + positions[0]["floating_profit_loss"]
    )


async def test_over_http_by_every_kind_of_proof(venue: Venue) -> None:
    key_id, secret = await venue.key(1)
    url = f"{venue.http}/api/v2"
    async with aiohttp.ClientSession() as session:
        async with session.get(
            f"{url}/public/auth",
            params={"grant_type": "client_credentials", "client_id": key_id,
                    "client_secret": secret},
        ) as answer:  # fmt: skip
            granted = (await answer.json())["result"]
        assert granted["token_type"] == "bearer" and "trade:read_write" in granted["scope"]
        proofs = [
            {"Authorization": f"Bearer {granted['access_token']}"},
            {"Authorization": aiohttp.encode_basic_auth(key_id, secret)},
        ]
        for headers in proofs:
            async with session.get(f"{url}/private/get_positions", headers=headers) as answer:
                assert (answer.status, (await answer.json())["result"]) == (200, [])
        order = {"instrument_name": "H100Z26", "amount": "1", "price": "3"}
        async with session.head(
            f"{url}/private/buy", params=order, headers=proofs[1]
        ) as answer:  # fmt: skip
            assert answer.status == 405, "HEAD changes nothing"
        every = {"type": "all", "detailed": "false", "kind": "any"}
        async with session.get(
            f"{url}/private/cancel_all", params=every, headers=proofs[1]
        ) as answer:  # fmt: skip
            assert (answer.status, (await answer.json())["result"]) == (200, 0)
        call = {"method": "private/get_open_orders", "id": "7", "params": {}}
        async with session.post(url, data=json.dumps(call), headers=proofs[0]) as answer:
            told = await answer.json()
            assert (told["id"], told["result"], told["testnet"]) == ("7", [], False)
            assert told["usDiff"] == told["usOut"] - told["usIn"]
    rpc = await venue.rpc()
    again = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
    assert (await rpc.call("public/auth", **again))["expires_in"] == 900
    other = await venue.rpc()
    assert (await other.fail("public/auth", **again))["code"] == 13009, "a token refreshes once"


async def test_the_blotter_reads_back_what_was_before_a_restart(tmp_path: Path) -> None:
    async with Venue.open(tmp_path) as venue:
        key = await venue.key(1)
        one, two = await desk(venue, 1), await desk(venue, 2)
        order = (await one.enter("buy", 2, 0, label="before"))["order"]
        await two.enter("sell", 1, 0)
        before = await one.rpc.call("private/get_order_state", order_id=order["order_id"])
        trades = await one.rpc.call("private/get_user_trades_by_currency", count=5)
    async with Venue.open(tmp_path) as venue:
        rpc = await venue.rpc(key)
        assert before == await rpc.call("private/get_order_state", order_id=order["order_id"])
        assert trades == await rpc.call("private/get_user_trades_by_currency", count=5)
        assert before["label"] == "before" and before["filled_amount"] == 1


async def test_heartbeats_ask_and_then_give_up(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "HEARTBEAT_SECONDS_MIN", 0)
    rpc = await venue.rpc()
    await rpc.call("public/subscribe", channels=["trades.any.any.100ms"])
    await rpc.call("public/set_heartbeat", interval=1)
    kinds = []
    for _ in range(2):
        beat = await rpc.answer(lambda message: message.get("method") == "heartbeat")
        kinds.append(beat["params"]["type"])
    assert kinds == ["heartbeat", "test_request"]
    assert await rpc.call("public/test") == {"version": "hourbook"}
    beat = await rpc.answer(lambda message: message.get("method") == "heartbeat")
    assert beat["params"]["type"] == "heartbeat"
    while (message := await rpc.socket.receive()).type is aiohttp.WSMsgType.TEXT:
        pass
    assert message.data == 4000, "nothing more was said"


async def test_logout_ends_the_connection_and_the_dialect_may_be_off(tmp_path: Path) -> None:
    async with Venue.open(tmp_path) as venue:
        rpc = await venue.rpc(await venue.key(1))
        await rpc.call("private/logout")
        assert (await rpc.socket.receive()).data == 1000
        url = f"{venue.http}/api/v2/public/subscribe"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert (await answer.json())["error"]["code"] == 10030
    async with Venue.open(tmp_path, deribit=False) as venue, aiohttp.ClientSession() as session:
        for path in ("/api/v2/public/test", "/ws/api/v2"):
            async with session.get(venue.http + path) as answer:
                assert answer.status == 404


async def test_many_calls_at_once_are_all_answered(venue: Venue) -> None:
    trader = await desk(venue, 1)
    for number in range(200):
        params = {"instrument_name": trader.code, "amount": 1, "price": str(trader.price)}
        text = {"jsonrpc": "2.0", "id": f"n{number}", "method": "private/buy", "params": params}
        await trader.rpc.socket.send_str(json.dumps(text))
    answers: dict[str, Any] = {}
    async with asyncio.timeout(10):
        while len(answers) < 200:
            message = await trader.rpc.socket.receive_json()
            answers[message["id"]] = message
    done = [one for one in answers.values() if "result" in one]
    assert {one["error"]["data"]["reason"] for one in answers.values() if "error" in one} <= {
        "THROTTLED", "MARGIN",
    }  # fmt: skip
    working = await trader.rpc.call(
        "private/get_open_orders_by_instrument", instrument_name=trader.code
    )
    assert len(working) == len(done) > 0


async def test_the_end_of_a_connection_cancels_what_came_over_it(venue: Venue) -> None:
    key = await venue.key(1)
    kept, lost, left, other = [await venue.rpc(key) for _ in range(4)]
    code = (await other.call("public/get_instruments", currency="H100"))[0]["instrument_name"]
    mark = (await other.call("public/ticker", instrument_name=code))["mark_price"]
    order = {"instrument_name": code, "price": str(mark), "amount": 1}
    assert (await lost.call("private/get_cancel_on_disconnect"))["enabled"] is False
    for rpc in (lost, left):
        await rpc.call("private/buy", label="before", **order)
        assert await rpc.call("private/enable_cancel_on_disconnect") == "ok"
        await rpc.call("private/buy", label="after", **order)
    await kept.call("private/buy", label="kept", **order)
    assert await kept.call("private/enable_cancel_on_disconnect", scope="connection") == "ok"
    assert await kept.call("private/disable_cancel_on_disconnect") == "ok"
    error = await kept.fail("private/enable_cancel_on_disconnect", scope="account")
    assert error["data"]["param"] == "scope"
    assert await lost.call("private/get_cancel_on_disconnect") == {
        "scope": "connection",
        "enabled": True,
    }
    await left.socket.send_json({"jsonrpc": "2.0", "id": 0, "method": "private/logout"})
    await lost.socket.close()
    await kept.socket.close()
    async with asyncio.timeout(SECONDS):
        while len(working := await other.call("private/get_open_orders")) > 3:
            await asyncio.sleep(0.02)
    assert [one["label"] for one in working] == ["before", "after", "kept"]
    assert (await other.ask({"method": "public/test", "params": {}}))["result"]
    guard = await venue.rpc(await venue.key(1, "read"))
    assert (await guard.fail("private/enable_cancel_on_disconnect"))["data"]["reason"] == "SCOPE"


async def test_charts_over_a_connection_and_what_is_none(venue: Venue) -> None:
    rpc = await venue.rpc()
    code = (await rpc.call("public/get_instruments", currency="H100"))[0]["instrument_name"]
    ask = {"instrument_name": code, "start_timestamp": 0, "end_timestamp": 60_000}
    method = "public/get_tradingview_chart_data"
    chart = await rpc.call(method, **ask, resolution="1")
    assert chart == {"status": "no_data", **{key: [] for key in chart.keys() - {"status"}}}
    assert set(chart) == {"status", "ticks", "open", "high", "low", "close", "volume"}
    for wrong, param in (
        ({"resolution": "7"}, "resolution"),
        ({"resolution": "1", "start_timestamp": -1}, "start_timestamp"),
        ({"resolution": "1", "end_timestamp": -1}, "end_timestamp"),
        ({"resolution": "1", "end_timestamp": 1 << 62}, "end_timestamp"),
        ({"resolution": "1", "end_timestamp": 300_000_001}, "start_timestamp"),
        ({}, "resolution"),
    ):
        assert (await rpc.fail(method, **{**ask, **wrong}))["data"]["param"] == param


async def test_an_address_has_so_many_connections(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "LOOPBACK_CONNECTIONS", 2)
    one, two = await venue.rpc(), await venue.rpc()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await venue.rpc()
    assert refused.value.status == 429
    assert await one.call("public/test") == await two.call("public/test")
