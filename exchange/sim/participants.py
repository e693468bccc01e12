"""The demo market's participants: ordinary clients of the SDK, each with a simple intention.

They know nothing that a stranger with a key could not know: instruments, depth, their own reports.
All chance comes from a seeded generator, all prices are integer ticks.
"""

import asyncio
from collections import Counter, defaultdict
from random import Random
from typing import Final

from clients import strip
from clients.aio import AsyncClient
from contracts import prices
from exchange.messages.wire import Rejected, SideText

MAKER_LEVELS: Final = 3  # quotes of one side of one instrument
MAKER_LOTS: Final = 20  # of one quote
MAKER_HALF_SPREAD_BP: Final = 15  # of the fair price
MAKER_SKEW_LOTS: Final = 40  # inventory that moves the quotes by a tick
MAKER_PAUSE_SECONDS: Final = 0.02  # between two products
TAKER_PAUSE_MS: Final = (10, 60)
TAKER_LOTS_MAX: Final = 6
PATIENT_ORDERS: Final = 8  # a patient taker's oldest order is cancelled beyond that many
HEDGE_SLICES: Final = 10
SWEEP_TICKS: Final = 25  # how far a hedger reaches beyond the touch in its last slice


class Day:
    """The trading time of the demo: how much of it is gone, in thousandths."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self.seconds = seconds
        self.over = asyncio.Event()

    @property
    def permille(self) -> int:
        """0 at the open, 1000 at the end and after."""
        return min(1000, int(1000 * (self._loop.time() - self._start) / self.seconds))

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the day."""
        try:
            async with asyncio.timeout(seconds):
                await self.over.wait()
        except TimeoutError:
            return


def fair_ticks(product: str, month: int, permille: int) -> int:
    """What the ``month``-th expiry is worth at that time of day: curve times the day's shape."""
    path = prices.path(product)
    half_hours, rest = divmod(permille * (len(path) - 1), 1000)
    here, there = path[half_hours], path[min(half_hours + 1, len(path) - 1)]
    ratio = here * (1000 - rest) + there * rest
    return prices.forward_curve(product, month + 1)[month] * ratio // (1000 * prices.RATIO_ONE)


def by_product(client: AsyncClient) -> dict[str, list[str]]:
    """The codes of each product, nearest expiry first."""
    found: dict[str, list[str]] = defaultdict(list)
    for data in sorted(client.instruments.values(), key=lambda data: data.expiry):
        found[data.product].append(data.code)
    return dict(sorted(found.items()))


class Participant:
    """A client with a name, and the count of what it was refused."""

    def __init__(self, name: str, client: AsyncClient, random: Random) -> None:
        self.name = name
        self.client = client
        self.random = random
        self.watched: list[str] = []
        self.rejects: Counter[str] = Counter()

    async def run(self, day: Day) -> None:
        """Trade until the day is over."""
        raise NotImplementedError

    async def watch(self, codes: list[str]) -> None:
        """Keep the books of these instruments."""
        self.watched += codes
        await self.client.subscribe(*(f"depth.{code}" for code in codes))

    def touch(self, code: str, side: SideText) -> int | None:
        """The price in ticks at which an order of ``side`` would trade now."""
        book = self.client.book(code)
        best = book.best_ask if side == "buy" else book.best_bid
        return None if best is None else best[0]

    async def enter(self, code: str, side: SideText, lots: int, ticks: int, tif: str) -> str | None:
        """Enter a limit order; its client order id, or None and a count if it was refused."""
        outcome = await self.client.enter(
            code,
            side,
            lots,
            ticks,
            time_in_force="DAY" if tif != "IOC" else "IOC",
            post_only=tif == "POST",
        )
        if isinstance(outcome, Rejected):
            self.rejects[outcome.name] += 1
            return None
        return outcome.client_order_id


class MarketMaker(Participant):
    """Quotes both sides of every instrument around its fair price, leaning against inventory."""

    def __init__(self, name: str, client: AsyncClient, random: Random) -> None:
        super().__init__(name, client, random)
        self._quotes: dict[tuple[str, SideText, int], str] = {}  # -> client order id
        self._last: dict[str, int] = {}  # code -> fair price last quoted around

    async def run(self, day: Day) -> None:
        """Go round the products, twelve expiries at once."""
        products = by_product(self.client)
        while not day.over.is_set():
            for product, codes in products.items():
                permille = day.permille
                await asyncio.gather(
                    *(
                        self._quote(code, fair_ticks(product, month, permille))
                        for month, code in enumerate(codes)
                    )
                )
                await day.sleep(MAKER_PAUSE_SECONDS)

    async def _quote(self, code: str, fair: int) -> None:
        """Bring the quotes of one instrument to where they belong."""
        fair += self.random.randint(-1, 1) - self.client.positions.get(code, 0) // MAKER_SKEW_LOTS
        half = max(2, fair * MAKER_HALF_SPREAD_BP // 10_000)
        rising = fair > self._last.get(code, fair)
        self._last[code] = fair
        # The side that makes room moves first: a quote never meets the one on the other side.
        for side in ("sell", "buy") if rising else ("buy", "sell"):
            sign = 1 if side == "sell" else -1
            for level in range(MAKER_LEVELS):
                await self._move(code, side, level, fair + sign * half * (level + 1))

    async def _move(self, code: str, side: SideText, level: int, ticks: int) -> None:
        quote = (code, side, level)
        order_id = self._quotes.get(quote)
        order = self.client.orders.get(order_id) if order_id is not None else None
        if order is None:
            entered = await self.enter(code, side, MAKER_LOTS, ticks, "POST")
            if entered is not None:
                self._quotes[quote] = entered
        elif order.price != self.client.price_text(code, ticks):
            total = order.executed_quantity + MAKER_LOTS
            outcome = await self.client.replace(
                order.client_order_id, quantity=total, price=ticks, post_only=True
            )
            if isinstance(outcome, Rejected):
                self.rejects[outcome.name] += 1


class Hedger(Participant):
    """Buys or sells a strip: the same number of GPUs for every month of a product's curve."""

    def __init__(
        self,
        name: str,
        client: AsyncClient,
        random: Random,
        *,
        product: str,
        side: SideText,
        gpus: int,
    ) -> None:
        super().__init__(name, client, random)
        self._product, self._side, self._gpus = product, side, gpus
        self.legs: tuple[strip.Leg, ...] = ()

    async def run(self, day: Day) -> None:
        """Trade the legs in slices over the day; the last ones reach further."""
        codes = by_product(self.client)[self._product]
        hours = {code: self.client.instruments[code].multiplier for code in codes}
        self.legs = strip.split(self._gpus * sum(hours.values()), hours).legs
        await self.watch(codes)
        await day.sleep(day.seconds / HEDGE_SLICES / 2)  # let the market maker quote
        slice_number = 0
        while not day.over.is_set() and not self.is_done:
            slice_number += 1
            last = slice_number >= HEDGE_SLICES - 2
            for leg in self.legs:
                due = leg.lots * min(slice_number, HEDGE_SLICES - 2) // (HEDGE_SLICES - 2)
                await self._trade(leg.instrument, due - self.done(leg), SWEEP_TICKS * last)
            await day.sleep(day.seconds / HEDGE_SLICES * self.random.randint(80, 100) / 100)

    def done(self, leg: strip.Leg) -> int:
        """Lots of a leg that are traded."""
        return abs(self.client.positions.get(leg.instrument, 0))

    @property
    def is_done(self) -> bool:
        """Whether the whole strip is traded."""
        return bool(self.legs) and all(self.done(leg) == leg.lots for leg in self.legs)

    async def _trade(self, code: str, lots: int, reach: int) -> None:
        ticks = self.touch(code, self._side)
        if ticks is None or lots <= 0:
            return
        ticks += reach if self._side == "buy" else -reach
        await self.enter(code, self._side, lots, ticks, "IOC")


class Taker(Participant):
    """Trades one product at random, mostly at once, sometimes by waiting inside the spread."""

    def __init__(self, name: str, client: AsyncClient, random: Random, *, product: str) -> None:
        super().__init__(name, client, random)
        self._product = product
        self._patient: list[str] = []

    async def run(self, day: Day) -> None:
        """Take, wait, and cancel what waited too long."""
        codes = by_product(self.client)[self._product]
        await self.watch(codes)
        while not day.over.is_set():
            await day.sleep(self.random.randint(*TAKER_PAUSE_MS) / 1000)
            code = codes[min(self.random.randrange(len(codes)), self.random.randrange(len(codes)))]
            await self._trade(code)
            if len(self._patient) > PATIENT_ORDERS:
                await self._withdraw(self._patient.pop(0))

    async def _trade(self, code: str) -> None:
        net = self.client.positions.get(code, 0)
        # Leans towards flat: the larger the position, the surer the trade against it.
        side: SideText = "sell" if self.random.randint(-20, 20) < net else "buy"
        ticks = self.touch(code, side)
        if ticks is None:
            return
        lots = self.random.randint(1, TAKER_LOTS_MAX)
        if self.random.randrange(4):
            await self.enter(code, side, lots, ticks, "IOC")
            return
        beside = self.touch(code, "sell" if side == "buy" else "buy")
        if beside is None:
            return
        waiting = await self.enter(code, side, lots, beside + (1 if side == "buy" else -1), "DAY")
        if waiting is not None:
            self._patient.append(waiting)

    async def _withdraw(self, client_order_id: str) -> None:
        if client_order_id not in self.client.orders:
            return  # traded meanwhile
        outcome = await self.client.cancel(client_order_id)
        if isinstance(outcome, Rejected):
            self.rejects[outcome.name] += 1
