"""How do I trade the gap between the cash contract and the physical one?

    python -m clients.bots.basis --key KEY.json --month Z26 --worth 12 --edge 5

Both are on the same GPU-hours of the same month, so their prices belong together: the physical
contract is worth ``worth`` ticks more (or less, if negative). When the gap is wider, the bot sells
the expensive one and buys the cheap one, lot for lot, and reverses that once the gap has closed.
Lots of a month have the same hours, so moves of the hour's price cancel out.
"""

import argparse
import asyncio

from clients.aio import AsyncClient
from clients.bots import options, packages
from clients.bots.packages import Package, Terms


def package_of(product: str, month: str, worth: int) -> Package:
    """Return the package of the physical contract bought and the cash-settled one sold, of a month
    such as ``Z26``."""
    return Package({f"{product}P{month}": 1, f"{product}{month}": -1}, worth)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command line's arguments."""
    parser.add_argument(
        "--product", default="H100", help="code of the cash-settled contract (%(default)s)"
    )
    parser.add_argument("--month", required=True, help="of both contracts, such as Z26")
    parser.add_argument(
        "--worth", type=int, default=0, help="ticks that delivery is worth more (%(default)s)"
    )
    parser.add_argument(
        "--edge", type=int, default=5, help="ticks of the gap beyond that (%(default)s)"
    )
    parser.add_argument(
        "--most", type=options.whole(0), default=10, help="most lots held of each (%(default)s)"
    )


async def bot(client: AsyncClient, chosen: argparse.Namespace, stop: asyncio.Event) -> None:
    """Run from the command line, and print what is held."""
    terms = Terms(edge=chosen.edge, most=chosen.most, closes=True)
    package = package_of(chosen.product, chosen.month, chosen.worth)
    print(packages.told(await packages.run(client, package, stop=stop, terms=terms)))


if __name__ == "__main__":
    raise SystemExit(options.main("Trades the gap between cash and delivery.", bot, arguments))
