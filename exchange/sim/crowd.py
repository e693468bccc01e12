"""The seeded participants of a sandbox: makers around random walks, and takers.

The value of an hour follows a mean-reverting random walk, common to all months of a product.
Calendar spreads and physical contracts have small walks of their own beside it, so that arbitrage
opens and closes. Every maker and taker is a bot of the SDK with its own key.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from itertools import islice, pairwise
from random import Random
from typing import Any, Final, TypeAlias

import msgspec

from clients.aio import AsyncClient
from clients.bots import maker, taker
from clients.bots.options import pause
from clients.errors import ValueRefused
from contracts import registry
from exchange.app import requests
from exchange.sim.participants import months_of

MAKER: Final = 901  # account numbers; visitors' accounts begin at 1
TAKER: Final = 902
USD: Final = "500000000"
WALK: Final = (3, 128)  # largest step in ticks; each step the value reverts by one part in so many
OWN_WALK: Final = (2, 24)  # of a spread or physical contract, around its fair price
STEP_SECONDS: Final = 1.0
SMALL_LOTS: Final = 20  # quoted in a spread or a physical contract
LOTS: Final = 40

Perform: TypeAlias = Callable[[requests.AnyRequest], Awaitable[dict[str, Any]]]
Connect: TypeAlias = Callable[[int, str], Awaitable[AsyncClient]]  # account, dollars


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What the makers quote: the nearest months of each product, and of these the first calendar
    spreads and physical contracts."""

    products: tuple[str, ...] = ("H100",)
    months: int = 6
    spreads: int = 2
    physical: int = 2


class Walk:
    """A mean-reverting random walk, in integers."""

    def __init__(self, random: Random, width: int, pull: int) -> None:
        self._random, self._width, self._pull = random, width, pull
        self._thousandths = 0

    def step(self) -> None:
        """Take one step."""
        self._thousandths += self._random.randint(-self._width, self._width) * 1000
        self._thousandths -= self._thousandths // self._pull

    @property
    def value(self) -> int:
        """The present value."""
        return self._thousandths // 1000


class Prices:
    """The present fair price of everything that is quoted, in ticks."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._marks: dict[str, int] = {}  # by expiry
        self._walks: dict[str, Walk] = {}  # by product
        self._product: dict[str, str] = {}
        self._legs: dict[str, dict[str, int]] = {}  # legs of what is priced from expiries
        self._own: dict[str, Walk] = {}

    def add_expiry(self, code: str, product: str, mark: int) -> None:
        """Add an expiry, which follows its product's walk."""
        self._marks[code], self._product[code] = mark, product
        self._walks.setdefault(product, Walk(self._random, *WALK))

    def add_derived(self, code: str, legs: dict[str, int]) -> None:
        """Add an instrument worth a sum of expiries, plus a walk of its own."""
        self._legs[code] = legs
        self._own[code] = Walk(self._random, *OWN_WALK)

    def step(self) -> None:
        """Advance all walks by one step."""
        for walk in (*self._walks.values(), *self._own.values()):
            walk.step()

    def __call__(self, code: str) -> int:
        if code in self._legs:
            fair = sum(lots * self(leg) for leg, lots in self._legs[code].items())
            return fair + self._own[code].value
        return self._marks[code] + self._walks[self._product[code]].value

    @property
    def expiries(self) -> list[str]:
        """Codes of the expiries quoted."""
        return list(self._marks)

    @property
    def derived(self) -> list[str]:
        """Codes of the spreads and physical contracts quoted."""
        return list(self._legs)


class Crowd:
    """All participants of a sandbox except its visitors. ``open``, then ``run`` until ``stop`` is
    set."""

    def __init__(self, seed: int, scene: Scene, perform: Perform, connect: Connect) -> None:
        self._seed, self._scene = seed, scene
        self._perform, self._connect = perform, connect
        self.prices = Prices(Random(f"{seed}/prices"))

    async def open(self) -> None:
        """List the instruments to be quoted, and connect."""
        self._maker = await self._connect(MAKER, USD)
        self._taker = await self._connect(TAKER, USD)
        for product in self._scene.products:
            await self._open_product(product)
        await self._maker.refresh()  # for the new listings

    async def _open_product(self, product: str) -> None:
        scene, client = self._scene, self._maker
        codes = months_of(client, product)[: scene.months]
        if not codes:
            raise ValueRefused(f"{product} has no months that a market opens by itself")
        await client.subscribe(*(f"state.{code}" for code in codes))
        for code in codes:
            mark = Decimal(client.states[code].mark)
            ticks = int((mark / client.scale(code).tick).to_integral_value())
            self.prices.add_expiry(code, product, ticks)
        for near, far in islice(pairwise(codes), scene.spreads):
            await self._perform(requests.ListContract(code=f"{near}-{far}"))
            self.prices.add_derived(f"{near}-{far}", {near: 1, far: -1})
        cycle = await self._cycle()
        delivered_of = {code: f"{product}P{code.removeprefix(product)}" for code in codes}
        tradable = (code for code in codes if delivered_of[code] in cycle)
        for code in islice(tradable, scene.physical):
            delivered = delivered_of[code]
            text = client.price_text(code, self.prices(code))
            await self._perform(requests.ListContract(code=delivered, price=text))
            self.prices.add_derived(delivered, {code: 1})

    async def _cycle(self) -> set[str]:
        """Return the codes that may be listed today."""
        state = await self._perform(requests.State())
        day = datetime.strptime(str(state["business_date"]), "%Y%m%d").date()
        return {terms.code for terms in registry.load().listing(day)}

    @property
    def has_quoted(self) -> bool:
        """Whether everything that is quoted has a bid and an ask."""
        standing = {(order.instrument, order.side) for order in self._maker.orders.values()}
        codes = (*self.prices.expiries, *self.prices.derived)
        return all((code, side) in standing for code in codes for side in maker.SIDES)

    async def run(self, stop: asyncio.Event) -> None:
        """Quote and take until ``stop`` is set."""
        prices, client = self.prices, self._maker
        near = maker.Terms(
            lots=LOTS, half_spread=2, skew=1, inventory_max=20 * LOTS, interval_s=0.5
        )
        deep = maker.Terms(
            lots=2 * LOTS, half_spread=6, skew=1, inventory_max=20 * LOTS, interval_s=1.0
        )
        small = maker.Terms(
            lots=SMALL_LOTS, half_spread=2, skew=1, inventory_max=20 * LOTS, interval_s=0.5
        )
        quoting = [(prices.expiries, near), (prices.expiries, deep), (prices.derived, small)]
        await asyncio.gather(
            self._walk(stop),
            taker.run(
                self._taker, prices.expiries, stop=stop,
                seed=Random(f"{self._seed}/taker").randrange(1 << 32), interval_s=1.0,
            ),
            *(
                maker.run(client, codes, stop=stop, terms=terms, reference=prices)
                for codes, terms in quoting
                if codes
            ),
        )  # fmt: skip

    async def _walk(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.prices.step()
            await pause(stop, STEP_SECONDS)
