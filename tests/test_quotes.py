"""The quotes a day is settled by: read from the released stream, with a gateway and without."""

import random
from pathlib import Path

from live import CODE, Live, clock_ns, market_in

from clients.aio import AsyncClient
from exchange.app import Market
from exchange.app.quotes import NO_QUOTE, Quote
from exchange.app.requests import Settle
from exchange.messages.wire import SideText

OTHER = "A100Z26"


def in_the_engine(market: Market) -> dict[int, Quote]:
    """The quotes of the books themselves."""
    found: dict[int, Quote] = {}
    for number in market.desk.instruments.by_id:
        bids, asks = market.engine.book(number, 1)
        found[number] = (bids[0][0] if bids else None, asks[0][0] if asks else None)
    return found


async def read(market: Market) -> dict[int, Quote]:
    """The desk's quote of every listed instrument."""
    quotes = await market.desk.quotes.read()
    assert set(quotes) <= set(market.desk.instruments.by_id)
    return {number: quotes.get(number, NO_QUOTE) for number in market.desk.instruments.by_id}


async def test_the_desks_quotes_are_the_engines_books_while_orders_come_and_go(
    tmp_path: Path,
) -> None:
    chance = random.Random(7)
    async with Live.open(tmp_path) as live:
        clients = [await live.client(account) for account in (1, 2)]
        market = live.market
        working: list[tuple[AsyncClient, str]] = []
        for step in range(120):
            client = chance.choice(clients)
            listed = market.desk.instruments.by_code[chance.choice((CODE, OTHER))]
            middle = listed.mark // listed.tick_scale
            deed = chance.random()
            if deed < 0.6 or not working:
                side: SideText = "buy" if chance.random() < 0.5 else "sell"
                price = middle + chance.randint(-2, 8) * (-1 if side == "buy" else 1)
                order = f"o{step}"
                await client.enter(
                    listed.code, side, chance.randint(1, 3), price, client_order_id=order
                )
                working.append((client, order))
            else:
                owner, order = working.pop(chance.randrange(len(working)))
                if order in owner.orders:
                    await owner.cancel(order)
            if step % 10 == 0:
                assert await read(market) == in_the_engine(market)
        before = in_the_engine(market)
        assert any(bid is not None and ask is not None for bid, ask in before.values())
        assert await read(market) == before
    async with Live.open(tmp_path) as live:
        assert await read(live.market) == in_the_engine(live.market) == before


async def test_a_day_settled_offline_after_a_restart_is_moved_into_the_quote(
    tmp_path: Path,
) -> None:
    async with Live.open(tmp_path) as live:
        client = await live.client(1)
        other = await live.client(2)
        listed = live.market.desk.instruments.by_code[CODE]
        bid = listed.mark // listed.tick_scale + 50
        await client.enter(CODE, "buy", 1, bid)
        await other.enter(CODE, "sell", 1, bid + 4)
        scale = listed.tick_scale
    async with market_in(tmp_path, clock=clock_ns) as market:
        assert not market.listening
        settled = await market.operations.perform(Settle())
        assert settled["settlement_prices"][CODE] == f"{bid * scale / 1_000_000:.6f}"
        assert settled["divergences"] == 0
