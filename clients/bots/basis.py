"""How do I take on a gap between the cash contract and the one that is delivered?

    python -m clients.bots.basis --key KEY.json --month Z26 --worth 12 --edge 5

Both are on the same GPU's hours of the same month, so their prices belong together: what is
delivered is worth ``worth`` ticks more (or less, below zero). When the gap is wider, the bot sells
the dear one and buys the cheap one, lot for lot, and takes it back once the gap has closed. Lots
of a month have the same hours, so what the price of an hour does cancels out.
"""

import argparse
import asyncio

from clients.aio import AsyncClient
from clients.bots import options, packages
from clients.bots.packages import Package, Terms


def package_of(product: str, month: str, worth: int) -> Package:
    """The physical contract bought against the cash-settled one of a month such as ``Z26``."""
    return Package({f"{product}P{month}": 1, f"{product}{month}": -1}, worth)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("--product", default="H100")
    parser.add_argument("--month", required=True, help="of both contracts, such as Z26")
    parser.add_argument("--worth", type=int, default=0, help="ticks that delivery is worth more")
    parser.add_argument("--edge", type=int, default=5, help="ticks of the gap beyond that")
    parser.add_argument("--most", type=options.whole(0), default=10, help="lots held of each")


async def bot(client: AsyncClient, chosen: argparse.Namespace, stop: asyncio.Event) -> None:
    """Run by the command line, and say what is held."""
    terms = Terms(edge=chosen.edge, most=chosen.most, closes=True)
    package = package_of(chosen.product, chosen.month, chosen.worth)
    print(packages.told(await packages.run(client, package, stop=stop, terms=terms)))


if __name__ == "__main__":
    raise SystemExit(options.main("Trades the gap between cash and delivery.", bot, arguments))
