"""Trades several instruments as one package, and keeps its legs together.

A package's price is the sum of its legs' asks and bids. The legs are traded one after the other,
the one with the fewest packages on offer first, each only for what the one before has filled; what
is missing at the end is traded at the next check, at the book's best price. Prices are ticks,
quantities lots.
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
    """The lots of each instrument in one package, negative if sold, and the package's fair
    value."""

    legs: Mapping[str, int]
    worth: int = 0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """When to trade: when a package is at least ``edge`` ticks cheaper, or dearer, than its
    value."""

    edge: int = 5
    most: int = 10  # packages held, long or short
    clip: int = 2  # packages per trade
    closes: bool = False  # reverse what is held once that is possible at fair value
    interval_s: float = 0.25


class Offer(msgspec.Struct, frozen=True):
    """What is on offer now: the price of a package in ticks, and how many."""

    price: int
    count: int


def offer(package: Package, books: Mapping[str, Book], sign: int) -> Offer | None:
    """Return the price of buying a package (``sign`` 1) or of selling one (-1). None while a book
    is not live or a side is empty."""
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
    """Packages held, negative if sold, and every leg's trades."""

    def __init__(
        self, client: AsyncClient, package: Package, stop: asyncio.Event | None = None
    ) -> None:
        """``stop``: as in ``take``."""
        self.package = package
        self.count = 0
        self.done = dict.fromkeys(package.legs, 0)  # signed lots
        self.traded = 0  # packages bought and sold
        self.gained = 0  # ticks below the value when bought, above it when sold
        self.fees = Decimal(0)
        self.reject: Rejected | None = None  # the last one
        self._client, self._stop = client, stop

    @property
    def missing(self) -> dict[str, int]:
        """Signed lots that legs lack for ``count`` packages."""
        wanted = {code: lots * self.count for code, lots in self.package.legs.items()}
        return {c: lots - self.done[c] for c, lots in wanted.items() if lots != self.done[c]}

    async def change(self, count: int) -> int:
        """Buy ``count`` packages at the prices shown, or sell them if negative. Return how many
        were traded. Raises what ``take`` raises."""
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
        """Trade what is missing, at the best price of each book."""
        for code, lots in self.missing.items():
            await self._take(code, lots)

    def _shown(self, code: str, count: int) -> int:
        """Return the packages that the book's best level offers for this leg."""
        level = self._best(code, self.package.legs[code] * count)
        return 0 if level is None else level[1] // abs(self.package.legs[code])

    def _best(self, code: str, lots: int) -> tuple[int, int] | None:
        book = self._client.book(code)
        return book.best_ask if lots > 0 else book.best_bid

    async def _take(self, code: str, lots: int) -> int:
        """Trade signed lots at the best level's price; return the signed lots traded."""
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
        """Complete missing legs; otherwise trade if the price is good enough. Raises as
        ``take``."""
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
    """Trade packages until ``stop`` is set; return what is held then."""
    chosen = terms if terms is not None else Terms()
    holding = Holding(client, package, stop)
    await client.subscribe(*(f"depth.{code}" for code in package.legs))
    while not stop.is_set():
        # The connection is down: ``stop`` may be set meanwhile
        with contextlib.suppress(NotConnected, OutcomeUnknown):
            await holding.look(chosen)
        await options.pause(stop, chosen.interval_s)
    return holding


def told(holding: Holding) -> str:
    """Return text about the packages held, the gain and the fees."""
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
