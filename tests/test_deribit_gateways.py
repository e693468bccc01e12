"""A gateway that is a batch behind another one, which has told a client of an order already.
Budget: 10 seconds."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from dialect import Venue

from clients.aio import AsyncClient
from exchange.app import door
from exchange.app.requests import Deposit
from exchange.gateway.dialects.deribit import blotter as projection
from exchange.gateway.dialects.deribit.blotter import Blotter
from exchange.gateway.dialects.deribit.room import Room
from exchange.marketdata.stream import Released
from exchange.messages.wire import Accepted

CODE = "H100Z26"
SECONDS = 20


class Delay:
    """Gives a dialect's projection one batch late, with the next one, once it is told to."""

    def __init__(self) -> None:
        self.armed = False
        self.blotter: Blotter | None = None  # the gateway's
        self._take = Blotter.take
        self._held: list[Released] = []

    def take(self, blotter: Blotter, released: Released) -> None:
        """Stand in for ``Blotter.take``."""
        self.blotter = blotter
        if self.armed:
            self.armed = False
            self._held.append(released)
            return
        for batch in (*self._held, released):
            self._take(blotter, batch)
        self._held.clear()


class Bench:
    """A served market, a key with a native client of it, and who delays the dialect."""

    def __init__(
        self, venue: Venue, key: tuple[str, str], client: AsyncClient, delay: Delay
    ) -> None:
        self.venue, self.key, self.delay = venue, key, delay
        self._client = client

    async def enter(self) -> str:
        """Enter an order of which the dialect does not know yet; return its id."""
        low = self.venue.market.hub.feed.instruments.by_code[CODE].low_ticks
        self.delay.armed = True
        entered = await self._client.enter(CODE, "buy", 1, low)
        assert isinstance(entered, Accepted) and not self.delay.armed
        return entered.order_id

    async def post(self, method: str, **params: Any) -> Any:
        """Call over HTTP."""
        headers = {"Authorization": aiohttp.encode_basic_auth(*self.key)}
        call = {"method": method, "params": params}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{self.venue.http}/api/v2", json=call) as answer,
        ):
            told = await answer.json()
        assert "result" in told, told
        return told["result"]

    async def go_on(self, asked: asyncio.Future[Any]) -> None:
        """Have the market release another batch once the call waits for it."""
        assert self.delay.blotter is not None
        async with asyncio.timeout(SECONDS):
            while not (self.delay.blotter._waiters or asked.done()):
                await asyncio.sleep(0.005)
        await self.venue.market.operations.perform(Deposit(account=9, amount="1"))


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    delay = Delay()
    monkeypatch.setattr(Blotter, "take", lambda one, released: delay.take(one, released))
    monkeypatch.setattr(door, "Room", lambda *parts, apart: Room(*parts, apart=True))
    async with asyncio.timeout(60), Venue.open(tmp_path) as venue:
        key = await venue.key(1)
        async with AsyncClient(f"{venue.ws}/ws", *key) as client:
            yield Bench(venue, key, client, delay)


@pytest.mark.parametrize("over_http", [False, True])
async def test_an_order_that_only_another_gateway_knows_is_cancelled(
    bench: Bench, over_http: bool
) -> None:
    """To be told that it does not exist would leave it working."""
    call = bench.post if over_http else (await bench.venue.rpc(bench.key)).call
    if over_http:
        await bench.post("private/cancel_all")  # the key's session is open
    order_id = await bench.enter()
    told = await call("private/cancel", order_id=order_id)
    assert (told["order_id"], told["order_state"]) == (order_id, "cancelled")


@pytest.mark.parametrize("over_http", [False, True])
@pytest.mark.parametrize("method", ["edit", "get_order_state", "get_user_trades_by_order"])
async def test_an_order_that_only_another_gateway_knows_is_waited_for(
    bench: Bench, method: str, over_http: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "SEEN_SECONDS", SECONDS)
    call = bench.post if over_http else (await bench.venue.rpc(bench.key)).call
    if over_http:
        await bench.post("private/cancel_all")
    more = {"amount": 2} if method == "edit" else {}
    order_id = await bench.enter()
    asked = asyncio.ensure_future(partial(call, f"private/{method}", **more)(order_id=order_id))
    await bench.go_on(asked)
    told = await asked
    if method == "edit":
        assert (told["order"]["order_id"], told["order"]["amount"]) == (order_id, 2)
    else:
        assert told == [] if method.endswith("by_order") else told["order_id"] == order_id


async def test_an_order_that_nobody_knows_is_not_waited_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "SEEN_SECONDS", 0.01)
    rpc = await bench.venue.rpc(bench.key)
    for method in ("edit", "get_order_state", "cancel"):
        error = await rpc.fail(f"private/{method}", order_id="4294999999")
        assert (error["code"], error["data"]["reason"]) == (10004, "NOT_FOUND")
    blotter = Blotter(bench.venue.market.hub)
    left = asyncio.ensure_future(blotter.seen(7))
    await asyncio.sleep(0)
    assert blotter._waiters == 1
    left.cancel()
    await asyncio.wait([left])
    assert (blotter._waiters, blotter._awaited) == (0, {})
