"""Several instruments traded as one: what a package costs now, and how its legs are kept together.

A package is bought for what its asks and bids come to. The legs are taken one after the other, the
one with the fewest lots first, each only for what the one before has filled; what is missing in the
end is taken at the next look, at whatever the book asks. Prices are ticks, quantities lots.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

from clients.aio import AsyncClient
from clients.book import Book
from clients.bots import options
from clients.bots.fills import Fill, take
from clients.errors import NotConnected, OutcomeUnknown, refusal
from exchange.messages.wire import Rejected, SideText

SIDES: Final[dict[int, SideText]] = {1: "buy", -1: "sell"}


class Package(msgspec.Struct, frozen=True):
    """Lots of each instrument in one package, below zero if it is sold in it; what one is worth."""

    legs: Mapping[str, int]
    worth: int = 0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """When to trade. A package must be ``edge`` ticks cheaper, or dearer, than it is worth."""

    edge: int = 5
    most: int = 10  # packages held, or sold
    clip: int = 2  # of one trade
    closes: bool = False  # take back what is held once it may be had at its worth
    interval_s: float = 0.25


class Offer(msgspec.Struct, frozen=True):
    """What packages can be had for now: ticks of one, and how many."""

    price: int
    count: int


def offer(package: Package, books: Mapping[str, Book], sign: int) -> Offer | None:
    """What it costs to buy a package (``sign`` 1), or what selling one brings (-1). None while a
    book is not live or a side is empty.
    """
    price, counts = 0, []
    for code, lots in package.legs.items():
        book = books[code]
        level = book.best_ask if lots * sign > 0 else book.best_bid
        if not book.is_live or level is None:
            return None
        price += lots * level[0]
        counts.append(level[1] // abs(lots))
    return Offer(price, min(counts))


class Holding:
    """Packages held, below zero if sold, and every leg's trades."""

    def __init__(
        self, client: AsyncClient, package: Package, stop: asyncio.Event | None = None
    ) -> None:
        """``stop`` as for ``take``."""
        self.package = package
        self.count = 0
        self.done = dict.fromkeys(package.legs, 0)  # signed lots
        self.traded = 0  # packages bought and sold
        self.gained = 0  # ticks under what they are worth when bought, over it when sold
        self.fees = Decimal(0)
        self.reject: Rejected | None = None  # the last one
        self._client, self._stop = client, stop

    @property
    def missing(self) -> dict[str, int]:
        """Signed lots that legs lack to make ``count`` packages."""
        wanted = {code: lots * self.count for code, lots in self.package.legs.items()}
        return {c: lots - self.done[c] for c, lots in wanted.items() if lots != self.done[c]}

    async def change(self, count: int) -> int:
        """Buy ``count`` packages at the prices shown, or sell them if below zero. Returns how many
        came of it; raises what ``take`` raises.
        """
        legs = sorted(self.package.legs, key=lambda code: self._shown(code, count))
        possible = abs(count)
        for place, code in enumerate(legs):
            ratio = self.package.legs[code]
            lots = await self._take(code, ratio * (1 if count > 0 else -1) * possible)
            if place == 0:
                possible = abs(lots) // abs(ratio)
                self.count += possible if count > 0 else -possible
            if not possible:
                break
        return possible

    async def complete(self) -> None:
        """Take what is missing, at the best price that each book shows."""
        for code, lots in self.missing.items():
            await self._take(code, lots)

    def _shown(self, code: str, count: int) -> int:
        """Packages that the book's best level has for this leg."""
        level = self._best(code, self.package.legs[code] * count)
        return 0 if level is None else level[1] // abs(self.package.legs[code])

    def _best(self, code: str, lots: int) -> tuple[int, int] | None:
        book = self._client.book(code)
        return book.best_ask if lots > 0 else book.best_bid

    async def _take(self, code: str, lots: int) -> int:
        """Take signed lots at the best level's price; the signed lots that came."""
        level = self._best(code, lots)
        if level is None:
            return 0
        sign = 1 if lots > 0 else -1
        fill: Fill = await take(
            self._client, code, SIDES[sign], abs(lots), level[0], stop=self._stop
        )
        self.done[code] += sign * fill.executed_quantity
        self.fees += fill.fee
        self.reject = fill.reject or self.reject
        return sign * fill.executed_quantity

    async def look(self, terms: Terms) -> None:
        """Make whole what is not; else trade what is cheap or dear enough. Raises as ``take``."""
        if self.missing:
            return await self.complete()
        books = {code: self._client.book(code) for code in self.package.legs}
        for sign in (1, -1):
            found = offer(self.package, books, sign)
            if found is None:
                continue
            back = terms.closes and self.count * sign < 0
            gain = sign * (self.package.worth - found.price) - (0 if back else terms.edge)
            room = -sign * self.count if back else terms.most - sign * self.count
            count = min(found.count, terms.clip, room)
            if gain >= 0 and count > 0:
                done = await self.change(sign * count)
                self.traded += done
                self.gained += sign * (self.package.worth - found.price) * done
                return


async def run(
    client: AsyncClient, package: Package, *, stop: asyncio.Event, terms: Terms | None = None
) -> Holding:
    """Trade packages until ``stop`` is set; what is held then."""
    chosen = terms if terms is not None else Terms()
    holding = Holding(client, package, stop)
    await client.subscribe(*(f"depth.{code}" for code in package.legs))
    while not stop.is_set():
        with contextlib.suppress(NotConnected, OutcomeUnknown):  # to be stopped meanwhile
            await holding.look(chosen)
        await options.pause(stop, chosen.interval_s)
    return holding


def told(holding: Holding) -> str:
    """A line for people: packages held, what they cost on average, what was paid in fees."""
    legs = ", ".join(f"{lots:+d} {code}" for code, lots in holding.done.items())
    line = (
        f"{holding.count:+d} packages held ({legs}), {holding.traded} traded,"
        f" gained {holding.gained} ticks x lots, fees {holding.fees} dollars"
    )
    if holding.missing:
        lack = ", ".join(f"{lots:+d} {code}" for code, lots in holding.missing.items())
        line += f"\nnot whole, still to trade: {lack}"
    if holding.reject is not None:
        line += f"\nrefused last: {refusal(holding.reject)}"
    return line
