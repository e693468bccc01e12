"""How do I lock the price of my GPU-hours for a year?

    python -m clients.bots.hedger --key KEY.json --product H100 --side sell --hours 876000

A neocloud sells the hours that it will have, an AI lab buys those that it will need: a strip of
monthly contracts, with the lots split so that no hour is lost in rounding. Every month is traded
against the best price of its book, never more than is shown there, and never beyond a limit.
"""

import argparse
import asyncio
import contextlib
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from clients.aio import AsyncClient
from clients.bots import options
from clients.bots.fills import Fill, take
from clients.errors import NotConnected, OutcomeUnknown, ValueRefused
from clients.strip import Leg, Strip, split
from exchange.messages.wire import SideText

MONTHS = 12


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How a leg is traded: lots per order, the worst price, and the pause between checks."""

    clip: int = 10
    worst_price: Decimal | None = None
    interval_s: float = 0.2


class Hedge(msgspec.Struct):
    """What was traded: the planned strip, and a fill per month."""

    strip: Strip
    fills: dict[str, Fill]

    @property
    def lots(self) -> int:
        """Lots traded over all months."""
        return sum(fill.executed_quantity for fill in self.fills.values())

    @property
    def is_complete(self) -> bool:
        """Whether every leg of the strip is fully traded."""
        return all(self.fills[leg.instrument].executed_quantity == leg.lots
                   for leg in self.strip.legs)  # fmt: skip


def plan(
    client: AsyncClient, product: str, hours: int, months: int = MONTHS, day: str = ""
) -> Strip:  # fmt: skip
    """Return the strip of the product's next ``months`` listed months that trade on ``day`` (ISO)
    or later. ValueRefused if there are none."""
    every = [data for data in client.instruments.values()
             if data.state != "EXPIRED" and (data.last_trading_day or day) >= day]  # fmt: skip
    listed = [data for data in every if data.product == product and not data.legs]
    if not listed:
        known = ", ".join(sorted({data.product for data in every if data.product}))
        raise ValueRefused(f"no month of {product} is listed; there are {known}")
    listed.sort(key=lambda data: data.expiry)
    return split(hours, {data.code: data.multiplier for data in listed[:months]})


async def run(
    client: AsyncClient,
    product: str,
    side: SideText,
    hours: int,
    *,
    stop: asyncio.Event,
    months: int = MONTHS,
    pace: Pace | None = None,
) -> Hedge:
    """Trade the strip, ``pace.clip`` lots at a time and never beyond ``pace.worst_price``.

    Ends when all is traded or ``stop`` is set; returns what was traded.
    """
    now_ns = (await client.query_account()).time
    day = datetime.fromtimestamp(now_ns // 10**9, UTC).date().isoformat()
    hedge = Hedge(plan(client, product, hours, months, day), {})
    hedge.fills = {leg.instrument: Fill() for leg in hedge.strip.legs}
    await client.subscribe(*(f"depth.{leg.instrument}" for leg in hedge.strip.legs))
    chosen = pace if pace is not None else Pace()
    await asyncio.gather(
        *(
            _trade_leg(client, leg, side, hedge.fills[leg.instrument], chosen, stop)
            for leg in hedge.strip.legs
        )
    )
    return hedge


async def _trade_leg(
    client: AsyncClient,
    leg: Leg,
    side: SideText,
    done: Fill,
    pace: Pace,
    stop: asyncio.Event,
) -> None:
    sign = 1 if side == "buy" else -1
    while not stop.is_set() and done.executed_quantity < leg.lots:
        book = client.book(leg.instrument)
        best = book.best_ask if side == "buy" else book.best_bid
        if best is not None and _is_within(book.scale.tick * best[0], pace.worst_price, sign):
            lots = min(pace.clip, best[1], leg.lots - done.executed_quantity)
            # The connection is down: ``stop`` may be set meanwhile
            with contextlib.suppress(NotConnected, OutcomeUnknown):
                fill = await take(client, leg.instrument, side, lots, best[0], stop=stop)
                done.add(fill)
                if fill.executed_quantity:
                    continue
        await options.pause(stop, pace.interval_s)


def _is_within(price: Decimal, worst: Decimal | None, sign: int) -> bool:
    return worst is None or sign * price <= sign * worst


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command line's arguments."""
    parser.add_argument(
        "--product", default="H100", help="code of the months' contract (%(default)s)"
    )
    parser.add_argument(
        "--side", choices=("buy", "sell"), default="sell", help="of the hours (%(default)s)"
    )
    parser.add_argument(
        "--hours",
        type=options.whole(0),
        default=876_000,
        help="GPU-hours over all months (%(default)s)",
    )
    parser.add_argument(
        "--months",
        type=options.whole(1),
        default=MONTHS,
        help="from the front month on (%(default)s)",
    )
    parser.add_argument(
        "--worst-price", type=options.number, help="dollars per GPU-hour; none: any price shown"
    )


async def bot(client: AsyncClient, chosen: argparse.Namespace, stop: asyncio.Event) -> None:
    """Run from the command line, and print what was traded."""
    hedge = await run(
        client,
        chosen.product,
        chosen.side,
        chosen.hours,
        stop=stop,
        months=chosen.months,
        pace=Pace(worst_price=chosen.worst_price),
    )
    for leg in hedge.strip.legs:
        fill = hedge.fills[leg.instrument]
        price = "-" if fill.average_price is None else f"{fill.average_price:.3f}"
        print(
            f"{leg.instrument:12} {leg.hours:>10} h {fill.executed_quantity:>6}/{leg.lots} {price}"
        )
        if fill.executed_quantity < leg.lots and fill.reject is not None:
            print(f"{leg.instrument:12} {fill.refused()}")
    print(f"hours that whole lots cannot cover: {hedge.strip.unhedged_hours}")


if __name__ == "__main__":
    raise SystemExit(options.main("Sells or buys a strip of monthly contracts.", bot, arguments))
