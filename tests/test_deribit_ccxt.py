"""ccxt.pro's deribit class, told nothing but where we are, trades against the dialect."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from dialect import CASH, SECONDS, Venue

ccxt = pytest.importorskip("ccxt.pro", reason="ccxt is not installed: pip install '.[dev]'")


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    async with Venue.open(tmp_path) as opened:
        yield opened


async def client(venue: Venue, account: int, **options: Any) -> Any:
    """ccxt's class with a key and our addresses."""
    key_id, secret = await venue.key(account)
    made = ccxt.deribit({"apiKey": key_id, "secret": secret, "options": options})
    made.urls["api"] = {"rest": venue.http, "ws": f"{venue.ws}/ws/api/v2"}
    await venue.closing(made)
    return made


async def test_every_call_works_unchanged(venue: Venue) -> None:
    one, two = await client(venue, 1), await client(venue, 2)
    markets = await one.load_markets()
    market = next(m for m in markets.values() if m["id"].startswith("H100") and m["linear"])
    symbol, tick = market["symbol"], market["precision"]["price"]
    assert symbol.startswith("H100/USD:USD-") and market["future"] and market["active"]
    assert 672 <= market["contractSize"] <= 744
    assert (await one.fetch_time()) > 0

    ticker = await one.fetch_ticker(symbol)
    price = one.parse_to_numeric(one.price_to_precision(symbol, ticker["markPrice"]))
    assert ticker["bid"] is None
    async with asyncio.timeout(SECONDS):  # a channel that says nothing must not be waited for
        await watch_and_trade(venue, one, two, symbol, price)
    await manage_orders(one, two, symbol, price, tick)


async def charts(venue: Venue, one: Any, symbol: str, price: float) -> None:
    """Candles of what was traded, of a minute and of a day; none of a time without a trade."""
    await venue.market.operations.cleared()
    (candle,) = await one.fetch_ohlcv(symbol, "1m")
    assert candle[0] % 60_000 == 0 and candle[1:] == [price, price, price, price, 2]
    (day,) = await one.fetch_ohlcv(symbol, "1d", since=candle[0] - 86_400_000)
    assert day[1:] == candle[1:]
    assert await one.fetch_ohlcv(symbol, "1m", since=0, limit=10) == []
    begun = candle[0] - 4_000 * 60_000  # of the longest page there is, and of one behind another
    assert await one.fetch_ohlcv(symbol, "1m", since=begun, limit=5_000) == [candle]
    pages = {"paginate": True, "paginationCalls": 2}
    assert await one.fetch_ohlcv(symbol, "1m", since=begun - 5_000 * 60_000, params=pages) == [
        candle
    ]


async def watch_and_trade(venue: Venue, one: Any, two: Any, symbol: str, price: float) -> None:
    """What is watched says what is done: book, trades, own orders and own trades."""
    watched = [
        asyncio.ensure_future(one.watch_order_book(symbol)),
        asyncio.ensure_future(one.watch_trades(symbol)),
        asyncio.ensure_future(one.watch_my_trades()),
        asyncio.ensure_future(one.watch_orders()),
        asyncio.ensure_future(one.watch_ticker(symbol)),
    ]
    book = await watched[0]
    assert book["bids"] == book["asks"] == []
    # ccxt says nothing of a subscription's own answer; this one is of the same connection, asked
    # for last, and is answered at once.
    one.options["currencies"] = ["USD"]
    await one.watch_balance()
    update = asyncio.ensure_future(one.watch_order_book(symbol))
    await asyncio.sleep(0)
    entered = await one.create_order(symbol, "limit", "buy", 5, price)
    assert (entered["status"], entered["amount"], entered["filled"]) == ("open", 5, 0)
    book = await update
    assert [list(level[:2]) for level in book["bids"]] == [[price, 5]]
    assert (await one.fetch_order_book(symbol))["bids"] == [[price, 5]]

    taken = await two.create_order(symbol, "limit", "sell", 2, price)
    assert (taken["status"], taken["filled"], taken["average"]) == ("closed", 2, price)
    assert [trade["amount"] for trade in taken["trades"]] == [2]
    (printed,) = await watched[1]
    assert (printed["price"], printed["amount"], printed["side"]) == (price, 2, "sell")
    (mine,) = await watched[2]
    assert (mine["order"], mine["takerOrMaker"], mine["side"]) == (entered["id"], "maker", "buy")
    assert mine["fee"]["cost"] > 0 and mine["fee"]["currency"] == "USD"
    orders = await watched[3]
    assert [order["id"] for order in orders] == [entered["id"]]
    assert (await watched[4])["symbol"] == symbol

    await charts(venue, one, symbol, price)
    (traded,) = await one.fetch_trades(symbol)
    assert traded["id"] == printed["id"] == mine["id"]
    assert [trade["id"] for trade in await one.fetch_my_trades(symbol)] == [mine["id"]]
    (position,) = await one.fetch_positions()
    assert (position["symbol"], position["contracts"], position["side"]) == (symbol, 2, "long")
    assert (await two.fetch_position(symbol))["side"] == "short"
    balance = await one.fetch_balance()
    assert 0 < balance["USD"]["free"] < float(CASH)
    ticker = await one.fetch_ticker(symbol)
    assert (ticker["last"], ticker["bid"], ticker["baseVolume"]) == (price, price, 2)


async def manage_orders(one: Any, two: Any, symbol: str, price: float, tick: float) -> None:
    """Edit, fetch, refuse, cancel."""
    (order,) = await one.fetch_open_orders(symbol)
    assert (order["remaining"], order["filled"], order["price"]) == (3, 2, price)
    lower = one.parse_to_numeric(one.price_to_precision(symbol, price - 10 * tick))
    edited = await one.edit_order(order["id"], symbol, "limit", "buy", 6, lower)
    assert (edited["id"], edited["price"], edited["amount"]) == (order["id"], lower, 6)
    assert (await one.fetch_order(order["id"]))["remaining"] == 4

    with pytest.raises(ccxt.InvalidOrder, match="post_only_reject"):
        await two.create_order(symbol, "limit", "sell", 1, lower, {"postOnly": True})
    with pytest.raises(ccxt.OrderNotFound):
        await two.cancel_order(order["id"], symbol)
    with pytest.raises(ccxt.InsufficientFunds):
        await one.create_order(symbol, "limit", "buy", 900, price)
    cancelled = await one.cancel_order(order["id"], symbol)
    assert (cancelled["status"], cancelled["filled"]) == ("canceled", 2)
    with pytest.raises(ccxt.OrderNotFound):
        await one.cancel_order(order["id"], symbol)

    for _ in range(2):
        kept = await one.create_order(symbol, "limit", "buy", 1, lower, {"postOnly": True})
        assert kept["postOnly"] and kept["status"] == "open"
    assert len(await one.fetch_open_orders(symbol)) == 2
    await one.cancel_all_orders(symbol)
    await one.cancel_all_orders()
    assert await one.fetch_open_orders(symbol) == []
    ended = await one.fetch_closed_orders(symbol)
    assert [order["status"] for order in ended] == ["canceled"] * 3


async def test_where_ccxt_asks_for_a_currency_it_is_told_ours(venue: Venue) -> None:
    one = await client(venue, 1, code="USD", currencies=["USD"])
    async with asyncio.timeout(SECONDS):
        assert (await one.watch_balance())["USD"]["total"]["USD"] == float(CASH)
    assert await one.fetch_open_orders() == await one.fetch_my_trades() == []
    tickers = await one.fetch_tickers(params={"code": "H100"})
    assert tickers and all(symbol.startswith("H100") for symbol in tickers)
