"""The blocking client and the bots on a real market."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import CODE, QUICK, Live, clock_ns, until

from clients import errors
from clients.bots import hedger, maker, taker
from clients.sync import Client
from exchange.messages import wire

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
        told = []
        while (event := events.next_within(0.2)) is not None:
            told.append(event)
        assert {wire.Accepted, wire.Cancelled, wire.DepthDelta} <= {type(e) for e in told}
    with pytest.raises(errors.NotConnected):
        client.enter(CODE, "buy", 2, 3200)


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


@pytest.mark.parametrize("bot", ["maker", "hedger", "taker"])
def test_a_bot_says_how_to_run_it(bot: str) -> None:
    command = [sys.executable, "-m", f"clients.bots.{bot}", "--help"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "--url" in done.stdout and "--key" in done.stdout
