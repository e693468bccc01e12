"""How do I trade now, and know what I got?

    python -m clients.bots.taker --key KEY.json H100Z26 --orders 10

From time to time the bot takes a few lots from the best level of one side of a book, and adds up
what it paid. Side and lots are drawn at random; the same seed draws the same.
"""

import argparse
import asyncio
import contextlib
import random
from collections.abc import Sequence

from clients.aio import AsyncClient
from clients.bots import options
from clients.bots.fills import Fill, take
from clients.errors import NotConnected, OutcomeUnknown
from exchange.messages.wire import SideText


async def run(
    client: AsyncClient,
    instruments: Sequence[str],
    *,
    stop: asyncio.Event,
    seed: int = 0,
    lots_max: int = 4,
    interval_s: float = 0.5,
    orders_max: int | None = None,
) -> Fill:
    """Take liquidity until ``stop`` is set or ``orders_max`` orders are sent; return the sum of
    trades.

    From a position of ten times ``lots_max`` lots on, only reducing orders are sent.
    """
    await client.subscribe(*(f"depth.{code}" for code in instruments))
    chance = random.Random(seed)
    total, sent = Fill(), 0
    while not stop.is_set() and (orders_max is None or sent < orders_max):
        code, side = chance.choice(instruments), choose(chance)
        lots = chance.randint(1, lots_max)
        net = client.positions.get(code, 0)
        if abs(net) >= 10 * lots_max:
            side = "sell" if net > 0 else "buy"
        book = client.book(code)
        best = book.best_ask if side == "buy" else book.best_bid
        if best is not None:
            # The connection is down: ``stop`` may be set meanwhile
            with contextlib.suppress(NotConnected, OutcomeUnknown):
                total.add(await take(client, code, side, min(lots, best[1]), best[0], stop=stop))
                sent += 1
        await options.pause(stop, interval_s)
    return total


def choose(chance: random.Random) -> SideText:
    """Return a random side."""
    return "buy" if chance.random() < 0.5 else "sell"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command line's arguments."""
    parser.add_argument("instruments", nargs="+", help="codes such as H100Z26")
    parser.add_argument(
        "--lots", type=options.whole(1), default=4, help="most lots of one order (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=options.positive, default=0.5, help="between orders (%(default)s)"
    )
    parser.add_argument("--orders", type=options.whole(0), help="stop after so many; none: go on")
    parser.add_argument("--seed", type=int, default=0, help="draws sides and lots (%(default)s)")


async def bot(client: AsyncClient, chosen: argparse.Namespace, stop: asyncio.Event) -> None:
    """Run from the command line, and print what was traded."""
    total = await run(
        client,
        chosen.instruments,
        stop=stop,
        seed=chosen.seed,
        lots_max=chosen.lots,
        interval_s=float(chosen.seconds),
        orders_max=chosen.orders,
    )
    average = "-" if total.average_price is None else f"{total.average_price:.3f}"
    print(f"{total.executed_quantity} lots at {average} on average, fees {total.fee} dollars")
    if total.reject is not None:
        print(total.refused())


if __name__ == "__main__":
    raise SystemExit(options.main("Takes liquidity now and then.", bot, arguments))
