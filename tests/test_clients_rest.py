"""The HTTP client against a real market: history in pages, refusals, retries, money."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from live import CODE, QUICK, Live, clock_ns, market_in, opened_live
from served import CHECKOUT
from test_access import certificate

from clients import errors, rest
from clients.aio import AsyncClient
from clients.pages import Pages
from clients.rest import AsyncRest, Rest
from clients.strip import split
from clients.sync import Client
from exchange.app.requests import Deposit, Settle
from exchange.app.settings import Serve, Settings
from exchange.gateway import rest as gateway_rest
from exchange.gateway.auth import create_key
from exchange.messages.wire import Accepted, Execution, PublicTrade

TRADES = 23


live = opened_live  # a fixture


async def trade(live: Live) -> tuple[AsyncClient, list[int]]:
    """Twenty-three trades of one to three lots; the buyer and the lots."""
    buyer, seller = await live.client(1), await live.client(2)
    lots = [1 + number % 3 for number in range(TRADES)]
    for count in lots:
        await seller.enter(CODE, "sell", count, 3200)
        await buyer.enter(CODE, "buy", count, 3200)
    return buyer, lots


async def rest_of(live: Live, account: int) -> AsyncRest:
    return AsyncRest(live.addresses.http, *await live.fund(account), clock_ns=clock_ns)


@pytest.mark.parametrize("limit", [1, 7, 500])
async def test_history_turns_its_pages_and_goes_on_later(live: Live, limit: int) -> None:
    _, lots = await trade(live)
    async with await rest_of(live, 1) as rest:
        told = [one async for one in rest.trades(CODE, limit=limit)]
        assert all(isinstance(one, PublicTrade) for one in told)
        assert [int(one.quantity) for one in told] == lots
        fills = [one async for one in rest.fills(limit=limit)]
        assert [one.match_number for one in fills if isinstance(one, Execution)] == [
            one.match_number for one in told if isinstance(one, PublicTrade)
        ]
        first = rest.trades(CODE, limit=limit)
        page = await first.page()
        assert len(page) == min(limit, TRADES)
        rest_of_it = [one async for one in rest.trades(CODE, after=first.after)]
        assert page + rest_of_it == told
        with pytest.raises(StopAsyncIteration):
            while True:
                await first.page()


@pytest.mark.parametrize("limit", [1, 7, 500])
async def test_a_history_read_to_its_end_goes_on_with_what_came_since(
    live: Live, limit: int
) -> None:
    async with await rest_of(live, 1) as rest:
        none = rest.trades(CODE, limit=limit)
        assert [one async for one in none] == [] and none.at_end
        histories: list[Callable[[str], Pages[Any]]] = [
            lambda after: rest.trades(CODE, limit=limit, after=after),
            lambda after: rest.fills(limit=limit, after=after),
            lambda after: rest.events(limit=limit, after=after),
        ]
        places = [none.after, "", ""]
        told: list[list[Any]] = [[], [], []]
        for _ in range(3):
            await trade(live)
            for number, history in enumerate(histories):
                pages = history(places[number])
                told[number] += [one async for one in pages]
                places[number] = pages.after
        whole = [[one async for one in history("")] for history in histories]
        assert told[:2] == whole[:2] and len(whole[0]) == len(whole[1]) == 3 * TRADES
        events = [[(one.sequence, one.index) for one in some] for some in (told[2], whole[2])]
        assert events[0] == events[1]
        await live.market.operations.cleared()
        candles = rest.candles(CODE, "1d")
        days = [one async for one in candles]
        assert [one async for one in rest.candles(CODE, "1d", from_ms=int(candles.after))] == days


async def test_the_accounts_stream_is_what_its_session_heard(live: Live) -> None:
    buyer, _ = await trade(live)
    heard = buyer.position
    assert heard is not None
    told = [one async for one in buyer.rest.events(limit=10)]
    fills = [one async for one in buyer.rest.fills()]
    assert [one for one in told if isinstance(one, Execution)] == fills
    assert (told[-1].sequence, told[-1].index) <= (heard.sequence, heard.index)
    assert (await buyer.rest.costs()).tokens["cancel"] == 0


async def test_what_the_account_is_told_agrees_with_its_session(live: Live) -> None:
    buyer, lots = await trade(live)
    await buyer.enter(CODE, "buy", 2, 3100)
    margin, over_http = await buyer.margin(), await buyer.rest.account()
    assert margin.cash == Decimal(over_http.cash) and margin.free == margin.cash - margin.required
    assert margin.holds[CODE] > 0 and not margin.in_deficit
    assert buyer.positions == {CODE: sum(lots)}
    assert [order.client_order_id for order in (await buyer.rest.orders()).orders] == list(
        buyer.orders
    )
    (one,) = buyer.orders
    status = await buyer.query_order(one)
    assert status.order is not None and status.order.client_order_id == one
    for asked in (buyer.rest.order(one), buyer.rest.order(order_id=status.order.order_id)):
        assert (await asked).order == status.order
    assert {data.code for data in await buyer.rest.instruments()} == set(buyer.instruments)
    assert "H100" in {product.code for product in await buyer.rest.contracts()}
    for ids in ({}, {"client_order_id": one, "order_id": "1"}):
        with pytest.raises(ValueError, match="exactly one"):
            await buyer.rest.order(**ids)
    await live.market.operations.perform(Settle())
    await live.market.operations.cleared()
    statement = await buyer.statement()
    assert Decimal(statement.closing) == (await buyer.margin()).cash
    (price,) = [one async for one in buyer.rest.settlement_prices(CODE)]
    assert price.instrument == CODE
    (candle,) = [one async for one in buyer.rest.candles(CODE, "1d")]
    assert (int(candle.volume), candle.trades) == (sum(lots), TRADES)


async def test_public_history_needs_no_key(live: Live) -> None:
    _, lots = await trade(live)
    async with AsyncRest(live.addresses.ws) as rest:
        assert len([one async for one in rest.trades(CODE)]) == len(lots)
        with pytest.raises(errors.RequestRefused) as refused:
            await rest.account()
        assert refused.value.reason == "AUTH_REQUIRED" and not refused.value.retryable
        with pytest.raises(errors.RequestRefused) as unknown:
            await anext(rest.trades("GOLD"))
        assert unknown.value.reason == "UNKNOWN_INSTRUMENT"


async def test_a_broken_answer_is_asked_for_again(live: Live) -> None:
    cable, url = await live.cable()
    key = await live.fund(1)
    async with AsyncRest(url, *key, backoff=QUICK, clock_ns=clock_ns) as rest:
        for size in (10, 200, 400, 600):  # in the request, and inside the answer
            cable.cut_after(size)
            assert (await rest.account()).account == 1
    assert cable.connections > 4
    with pytest.raises(errors.NotConnected):
        await rest.account()
    async with AsyncRest("http://127.0.0.1:9", backoff=QUICK) as nobody:
        with pytest.raises(errors.ConnectionLost):
            await nobody.contracts()


async def test_a_server_that_is_none_gets_and_gives_no_more_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It sends nobody elsewhere with a signature, and fills nobody's memory."""
    monkeypatch.setattr(rest, "ANSWER_BYTES_MAX", 1 << 16)
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.path)
        if request.path.endswith("account"):
            raise web.HTTPFound("/elsewhere")
        return web.Response(body=bytes(1 << 17))

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    server = TestServer(application)
    await server.start_server()
    async with AsyncRest(str(server.make_url("/")).rstrip("/"), "id", "secret") as client:
        for ask in (client.account, client.orders):
            with pytest.raises(errors.ProtocolError):
                await ask()
    await server.close()
    assert seen == ["/api/v1/account", "/api/v1/orders"]


async def test_a_nonce_overtaken_elsewhere_is_followed_by_a_higher_one(live: Live) -> None:
    key = await live.fund(1)
    behind = [0]
    slow = AsyncRest(live.addresses.http, *key, backoff=QUICK,
                     clock_ns=lambda: clock_ns() - behind[0])  # fmt: skip
    async with slow, AsyncRest(live.addresses.http, *key, clock_ns=clock_ns) as fast:
        await fast.account()
        behind[0] = 20_000_000
        assert (await slow.account()).account == 1


async def test_an_order_is_previewed_with_a_key_that_only_reads(live: Live) -> None:
    maker, trader = await live.client(1), await live.client(2)
    await maker.enter(CODE, "buy", 3, 3200)
    access = await live.fund(2, "read")
    seen = await trader.preview(trader.build.enter(CODE, "buy", 5, "3.1", post_only=True))
    async with AsyncRest(live.addresses.http, *access, clock_ns=clock_ns) as rest:
        told = await rest.preview(CODE, "buy", 5, Decimal("3.1"), post_only=True)
        assert (told.required, told.leaves_quantity) == (seen.required, seen.leaves_quantity)
        assert (await rest.preview(CODE, "sell", 4)).executed_quantity == "3"
        reducing = await rest.preview(CODE, "sell", 1, "3.3", reduce_only=True)
        assert reducing.refused is not None and reducing.refused.name == "REDUCE_ONLY"
        assert (await rest.positions()).positions == (await rest.account()).positions
        for quantity, price in ((1, 3200), (1, 3.2), (1, True), ("1.5", "3.2"), (0, "3.2")):
            with pytest.raises(errors.ValueRefused):
                await rest.preview(CODE, "buy", quantity, price)  # type: ignore[arg-type]


def test_the_blocking_client_has_http_beside_it(threaded: tuple[str, str, str]) -> None:
    with Client(*threaded, clock_ns=clock_ns) as client:
        assert client.account == 1 and client.session and client.is_ready
        assert client.rest.account().account == 1
        status = client.rest.order("no-such-order")
        assert status.state == "unknown"
        with pytest.raises(errors.NotConnected, match="connects once"):
            client.connect()
        client.rest.close()
        assert client.margin().cash  # the client goes on
    assert not client.is_ready


async def test_a_zero_is_asked_for_as_a_zero(live: Live) -> None:
    await trade(live)
    async with await rest_of(live, 1) as rest:
        assert [one async for one in rest.trades(CODE, to_ms=0)] == []
        assert [one async for one in rest.fills(to_ms=0)] == []
        with pytest.raises(errors.RequestRefused, match=r"limit: Expected `int` >= 1"):
            await anext(rest.events(limit=0))
        with pytest.raises(errors.ValueRefused, match="cannot be sent"):
            await anext(rest.trades("\ud800"))
        await live.market.operations.cleared()
        assert (await rest.statement(0)).business_date is None  # of all time, as documented


async def test_a_wrong_id_is_no_bad_signature_and_no_other_address(live: Live) -> None:
    """The address is sent as it was signed, whatever a caller put into it: five bad signatures
    would lock the key."""
    async with await rest_of(live, 1) as rest:
        for asked, reason in (
            *((rest.order(text), "SYNTAX") for text in ("a:b", "a/b", "a'b", "a?b", "a b", "é")),
            *((rest.order(order_id=text), "ID_FORMAT") for text in ("1 2", "1/2", "%31", "1#2")),
            *((rest.trades(text).page(), "ID_FORMAT") for text in (f"{CODE}#x", "../account")),
            (rest.candles(f"{CODE}?interval=1m").page(), "ID_FORMAT"),
            (rest.fills(after="1:2:3").page(), "SYNTAX"),
        ):
            with pytest.raises(errors.RequestRefused) as refused:
                await asked
            assert refused.value.reason == reason
        assert (await rest.account()).account == 1


async def test_what_came_too_soon_is_asked_again_when_it_may_be(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_rest, "LOOPBACK_REQUESTS_A_SECOND", 3)
    async with await rest_of(live, 1) as rest:
        for _ in range(7):
            assert (await rest.account()).account == 1


async def test_requests_at_once_are_all_answered(live: Live) -> None:
    async with await rest_of(live, 1) as rest:
        told = await asyncio.gather(*(rest.account() for _ in range(30)))
    assert {one.account for one in told} == {1}


async def test_a_strip_of_twelve_months_is_entered_once_and_filled_exactly(live: Live) -> None:
    seller, buyer = await live.client(1), await live.client(2)
    listed = [data for data in seller.instruments.values() if data.product == "H100"]
    strip = split(100_000, {data.code: data.multiplier for data in listed[:12]})
    await seller.subscribe(*(f"state.{leg.instrument}" for leg in strip.legs))
    prices = {leg.instrument: seller.states[leg.instrument].mark for leg in strip.legs}
    offered = await seller.enter_strip(strip, "sell", prices)
    assert all(isinstance(outcome, Accepted) for outcome in offered.values())
    for _ in range(2):  # the second is a retry
        taken = await buyer.enter_strip(strip, "buy", prices, strip_id="year")
        assert [*taken] == [leg.instrument for leg in strip.legs]
    assert all(isinstance(outcome, Accepted) and outcome.duplicate for outcome in taken.values())
    await buyer.query_orders()
    assert buyer.positions == {leg.instrument: leg.lots for leg in strip.legs}
    bought = sum(leg.lots * buyer.instruments[leg.instrument].multiplier for leg in strip.legs)
    assert len(strip.legs) == 12 and bought + strip.unhedged_hours == strip.hours == 100_000


VISITOR = """
import sys
from clients.errors import ConnectionLost
from clients.keys import Key
from clients.rest import Rest
from clients.sync import Client
key = Key.from_environment()
try:
    with Client(sys.argv[1], key) as client, Rest(sys.argv[1], key) as rest:
        print(client.margin().free, rest.account().account)
except ConnectionLost as error:
    print(error)
"""


async def visit(url: str, key: tuple[str, str], **environment: str) -> str:
    """What a program of its own says of a market."""
    named = dict(zip(("HOURBOOK_KEY_ID", "HOURBOOK_SECRET"), key, strict=True))
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VISITOR, url,
        cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE, env=os.environ | named | environment,
    )  # fmt: skip
    said, _ = await running.communicate()
    return said.decode()


async def test_a_certificate_is_checked_and_one_of_ones_own_is_named(tmp_path: Path) -> None:
    chain, private = certificate(tmp_path)
    settings = Settings(serve=Serve(tls_certificate=chain, tls_key=private))
    async with market_in(tmp_path / "market", settings=settings) as market:
        await market.operations.perform(Deposit(account=1, amount="5"))
        key = create_key(market.directory, 1, "trade")
        url = (await market.listen("127.0.0.1", 0)).ws
        assert url.startswith("wss://")
        assert "certificate" in await visit(url, key)
        assert await visit(url, key, SSL_CERT_FILE=chain) == "5.000000 1\n"


@pytest.fixture
def threaded(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    """A market in a thread of its own with 23 trades: address and key of an account."""
    ready, done = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with Live.open(tmp_path) as live:
            await trade(live)
            await live.market.operations.cleared()
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


def test_the_blocking_client_reads_history(threaded: tuple[str, str, str]) -> None:
    with Rest(*threaded, clock_ns=clock_ns) as rest:
        trades = rest.trades(CODE, limit=5)
        assert len(list(trades)) == TRADES and trades.at_end and trades.after
        assert rest.account().account == 1 and len(rest.keys()) >= 1
        assert [candle.trades for candle in rest.candles(CODE, "1d")] == [TRADES]
    with pytest.raises(errors.NotConnected):
        rest.account()


NOTEBOOK = """
from clients.aio import AsyncClient
from clients.sync import Client
with Client(*access, clock_ns=clock_ns) as client:
    blocking = client.margin().cash
    history = client.statement().account
async with AsyncClient(*access, clock_ns=clock_ns) as client:
    awaited = (await client.margin()).cash
"""


async def test_both_clients_work_in_a_running_loop(threaded: tuple[str, str, str]) -> None:
    """As in a notebook, whose cells are compiled so, and run in a loop that runs already."""
    import ast  # noqa: PLC0415

    names = {"access": threaded, "clock_ns": clock_ns}
    cell = compile(NOTEBOOK, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(cell, names)
    assert names["blocking"] == names["awaited"] and names["history"] == 1


def test_the_blocking_client_has_every_method_of_the_async_one() -> None:
    def methods(kind: type) -> set[str]:
        found = {name for name in dir(kind) if not name.startswith("_")}
        return found - {"wait"}

    assert methods(AsyncRest) == methods(Rest)
    live_copies = {"book", "queue", "top", "feed"}
    assert methods(AsyncClient) - methods(Client) <= live_copies
