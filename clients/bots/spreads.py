"""How do I arbitrage a calendar spread against its legs?

    python -m clients.bots.spreads --key KEY.json H100Z26-H100F27

A lot of the spread is a lot of the near month bought and a lot of the far one sold. Where the
spread is dearer than that, the bot sells it and buys the legs, and the other way round: afterwards
only the difference is left. Months have different hours, and the market's own implied prices close
most gaps, so ``edge`` must pay for fees and for the difference in hours.
"""

import argparse
import asyncio

from clients.aio import AsyncClient
from clients.bots import options, packages
from clients.bots.packages import Holding, Package, Terms
from clients.errors import ValueRefused


def package_of(client: AsyncClient, spread: str) -> Package:
    """Return the package of the combination bought and its legs sold, whose value is zero.
    ValueRefused unless its price is the difference of its legs."""
    data = client.instruments.get(spread)
    if data is None or data.price_rule != "difference":
        raise ValueRefused(f"{spread} is no listed spread")
    return Package({spread: 1, **{leg.code: -leg.ratio for leg in data.legs or ()}})


async def run(
    client: AsyncClient, spread: str, *, stop: asyncio.Event, terms: Terms | None = None
) -> Holding:
    """Arbitrage a spread until ``stop`` is set; return what was traded."""
    return await packages.run(client, package_of(client, spread), stop=stop, terms=terms)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command line's arguments."""
    parser.add_argument("spread", help="code such as H100Z26-H100F27")
    parser.add_argument("--edge", type=int, default=5, help="ticks gained on a lot (%(default)s)")
    parser.add_argument(
        "--most",
        type=options.whole(0),
        default=10,
        help="lots of the spread, either way (%(default)s)",
    )


async def bot(client: AsyncClient, chosen: argparse.Namespace, stop: asyncio.Event) -> None:
    """Run from the command line, and print what was traded."""
    terms = Terms(edge=chosen.edge, most=chosen.most)
    print(packages.told(await run(client, chosen.spread, stop=stop, terms=terms)))


if __name__ == "__main__":
    raise SystemExit(options.main("Arbitrages a spread against its legs.", bot, arguments))
