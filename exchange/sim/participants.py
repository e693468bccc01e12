"""The demo market's participants: the example bots of the SDK, each with a purpose.

They have no information that a stranger with a key would not have. The market maker's fair value of
an hour comes from real prices: a level, an assumed curve, and the shape of a real day.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Final, TypeAlias

import msgspec

from clients.aio import AsyncClient
from clients.bots import hedger, maker, taker
from clients.bots.options import pause
from contracts import prices
from exchange.messages.wire import SideText

# Layers of quotes: distance from the fair price in thousandths, and lots.
MAKER_LAYERS: Final = ((2, 40), (6, 80))
MAKER_SKEW_LOTS: Final = 40  # inventory that shifts the quotes of an instrument by one tick
MAKER_INVENTORY_LOTS: Final = 400
MAKER_INTERVAL_SECONDS: Final = 0.2
TAKER_LOTS_MAX: Final = 6
TAKER_INTERVAL_SECONDS: Final = 0.03
HEDGE_SLICES: Final = 8
HEDGED_PRODUCT: Final = "H100"
SELLER_GPUS: Final = 64
BUYER_GPUS: Final = 48
PRODUCTS: Final = ("A100", "H100", "H200", "B200")


class Day:
    """The trading time of the demo."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self.seconds = seconds
        self.over = asyncio.Event()

    @property
    def permille(self) -> int:
        """How much of the day has passed, in thousandths: 0 at the open, 1000 from the end on."""
        return min(1000, int(1000 * (self._loop.time() - self._start) / self.seconds))


Run: TypeAlias = Callable[[AsyncClient, Day, Random], Awaitable[None]]


class Role(msgspec.Struct, frozen=True):
    """A participant: account, name, deposit in dollars, behaviour, and hedge."""

    account: int
    name: str
    usd: str
    run: Run
    hedge_gpus: int = 0  # GPUs of a twelve-month strip to buy; negative: to sell


def roles() -> list[Role]:
    """Return all participants of the demo."""
    takers = [
        Role(account, f"{product} taker", "2000000", _taker(product))
        for account, product in enumerate(PRODUCTS, start=4)
    ]
    return [
        Role(1, "market maker", "100000000", make_markets),
        Role(2, "neocloud", "5000000", _hedger("sell", SELLER_GPUS), -SELLER_GPUS),
        Role(3, "AI lab", "5000000", _hedger("buy", BUYER_GPUS), BUYER_GPUS),
        *takers,
    ]


def fair_ticks(product: str, month: int, permille: int) -> int:
    """Return the fair price in ticks of the ``month``-th expiry at that time of day: the curve
    times the day's shape, which begins at 1."""
    path = prices.path(product)
    half_hours, rest = divmod(permille * (len(path) - 1), 1000)
    here, there = path[half_hours], path[min(half_hours + 1, len(path) - 1)]
    ratio = here * (1000 - rest) + there * rest
    return prices.forward_curve(product, month + 1)[month] * ratio // (1000 * path[0])


def months_of(client: AsyncClient, product: str) -> list[str]:
    """Return the product's outright codes, nearest expiry first."""
    every = client.instruments.values()
    listed = [data for data in every if data.product == product and not data.legs]
    return [data.code for data in sorted(listed, key=lambda data: data.expiry)]


async def make_markets(client: AsyncClient, day: Day, random: Random) -> None:
    """Quote every instrument around its fair price, in layers."""
    place = {
        code: (product, month)
        for product in PRODUCTS
        for month, code in enumerate(months_of(client, product))
    }

    def reference(code: str) -> int:
        return fair_ticks(*place[code], day.permille) + random.randint(-1, 1)

    def layer(product: str, permille: int, lots: int) -> Awaitable[int]:
        terms = maker.Terms(
            lots=lots,
            half_spread=prices.level(product) * permille // 1000,
            skew=max(1, lots // MAKER_SKEW_LOTS),
            inventory_max=MAKER_INVENTORY_LOTS,
            interval_s=MAKER_INTERVAL_SECONDS,
        )
        codes = months_of(client, product)
        return maker.run(client, codes, stop=day.over, terms=terms, reference=reference)

    await asyncio.gather(
        *(layer(product, *terms) for product in PRODUCTS for terms in MAKER_LAYERS)
    )


def _hedger(side: SideText, gpus: int) -> Run:
    """Return a behaviour that trades a strip of that many GPUs per month, in slices over the
    day."""

    async def run(client: AsyncClient, day: Day, random: Random) -> None:
        codes = months_of(client, HEDGED_PRODUCT)
        hours = gpus // HEDGE_SLICES * hours_of(client, codes)
        for _ in range(HEDGE_SLICES):
            wait = day.seconds / HEDGE_SLICES / 2
            await pause(day.over, wait * random.randint(60, 100) / 100)
            await hedger.run(client, HEDGED_PRODUCT, side, hours, stop=day.over)

    return run


def hours_of(client: AsyncClient, codes: Iterable[str]) -> int:
    """Return the GPU-hours of one lot of each, added up."""
    return sum(client.instruments[code].multiplier for code in codes)


def _taker(product: str) -> Run:
    async def run(client: AsyncClient, day: Day, random: Random) -> None:
        await taker.run(
            client,
            months_of(client, product),
            stop=day.over,
            seed=random.randrange(1 << 32),
            lots_max=TAKER_LOTS_MAX,
            interval_s=TAKER_INTERVAL_SECONDS,
        )

    return run
