"""How do I quote both sides of many months and keep my inventory small?

    python -m clients.bots.maker --url ws://localhost:8000/ws --key KEY.json H100Z26 H100F27

A bid and an ask are quoted ``half_spread`` ticks from a reference price, and both move against the
position: the longer the bot is, the lower it quotes. A quote that should move is replaced, not
cancelled and entered again, so there is at most one order per side. All in ticks and lots.
"""

import argparse
import asyncio
import contextlib
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from clients.aio import AsyncClient
from clients.bots import options
from clients.errors import NotConnected, OutcomeUnknown
from exchange.messages.wire import InstrumentState, Rejected, SideText

Reference: TypeAlias = Callable[[str], int | None]  # instrument -> ticks, None: do not quote
SIDES: Final[tuple[SideText, SideText]] = ("buy", "sell")


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How to quote. ``skew`` moves both quotes that many ticks per full ``lots`` of position."""

    lots: int = 5
    half_spread: int = 10
    skew: int = 2
    inventory_max: int = 50  # lots, long or short, at which only the reducing side is quoted
    interval_s: float = 0.25


def targets(terms: Terms, reference: int, net: int, low: int, high: int) -> dict[SideText, int]:
    """Return the price to quote on each side; a side that is not to be quoted is absent.

    >>> targets(Terms(), 2650, 0, 2000, 3000)
    {'buy': 2640, 'sell': 2660}
    >>> targets(Terms(), 2650, 10, 2000, 3000)
    {'buy': 2636, 'sell': 2656}
    """
    middle = reference - terms.skew * net // terms.lots
    wished: dict[SideText, int] = {
        "buy": middle - terms.half_spread,
        "sell": middle + terms.half_spread,
    }
    if net >= terms.inventory_max:
        del wished["buy"]
    if net <= -terms.inventory_max:
        del wished["sell"]
    return {side: price for side, price in wished.items() if low <= price <= high}


def mark_of(client: AsyncClient) -> Reference:
    """Return a reference that is the exchange's mark, to the nearest tick."""

    def reference(instrument: str) -> int | None:
        state = client.states.get(instrument)
        if state is None:
            return None
        tick = Decimal(client.instruments[instrument].tick)
        return int((Decimal(state.mark) / tick).to_integral_value())

    return reference


async def run(
    client: AsyncClient,
    instruments: Iterable[str],
    *,
    stop: asyncio.Event,
    terms: Terms | None = None,
    reference: Reference | None = None,
) -> int:
    """Quote until ``stop`` is set, then cancel the quotes. Return how many sides may still have a
    quote because the exchange has not answered."""
    chosen = terms if terms is not None else Terms()
    quoters = [_Quoter(client, code, chosen, reference or mark_of(client)) for code in instruments]
    await client.subscribe(*(f"state.{quoter.instrument}" for quoter in quoters))
    try:
        while not stop.is_set():
            await asyncio.gather(*(quoter.refresh() for quoter in quoters))
            await options.pause(stop, chosen.interval_s)
    finally:
        left = await asyncio.gather(*(quoter.withdraw() for quoter in quoters))
    return sum(left)


class _Quoter:
    """The two quotes of one instrument."""

    def __init__(
        self, client: AsyncClient, instrument: str, terms: Terms, reference: Reference
    ) -> None:
        self.instrument = instrument
        self._client = client
        self._terms = terms
        self._reference = reference
        self._ids: dict[SideText, str] = {}
        # Price in ticks of orders that may or may not have been entered
        self._unanswered: dict[SideText, int] = {}
        self._quoted_bid: int | None = None  # ticks, last wanted

    async def refresh(self) -> None:
        """Move both quotes to where they should be."""
        state = self._client.states.get(self.instrument)
        reference = self._reference(self.instrument)
        if state is None or state.state != "CONTINUOUS" or reference is None:
            return
        net = self._client.positions.get(self.instrument, 0)
        wished = targets(self._terms, reference, net, *self._limits(state))
        bid = wished.get("buy")
        rising = bid is not None and self._quoted_bid is not None and bid > self._quoted_bid
        self._quoted_bid = bid
        # The side that makes room moves first, otherwise the other would meet it.
        for side in reversed(SIDES) if rising else SIDES:
            try:
                rejected = await self._stand(side, wished.get(side))
                if rejected is not None and rejected.name == "PRICE_BAND" and rejected.limit:
                    # Quote at the band's edge; the reference then follows.
                    edge = self._client.scale(self.instrument).read(rejected.limit)
                    rejected = await self._stand(side, edge)
            except (NotConnected, OutcomeUnknown):
                return  # client.orders shows the outcome after the reconnect
            if rejected is not None and rejected.retry_after_ms:
                await asyncio.sleep(rejected.retry_after_ms / 1000)

    async def withdraw(self) -> int:
        """Cancel the quotes; without a connection the exchange does so after the grace time. Return
        how many sides may still have a quote."""
        left = 0
        for side in SIDES:
            gone = False
            with contextlib.suppress(NotConnected, OutcomeUnknown):
                if side in self._unanswered:
                    await self._client.cancel(self._ids[side])
                await self._stand(side, None)
                gone = self._ids.get(side, "") not in self._client.orders
            left += not gone
        return left

    async def _stand(self, side: SideText, price: int | None) -> Rejected | None:
        """Enter, move or cancel the quote of one side; return the reject if there was one."""
        order = self._client.orders.get(self._ids.get(side, ""))
        if order is None:
            return None if price is None else await self._enter(side, price)
        if price is None:
            gone = await self._client.cancel(order.client_order_id)
            return gone if isinstance(gone, Rejected) else None
        if self._client.price_text(self.instrument, price) == order.price:
            return None
        moved = await self._client.replace(
            order.client_order_id,
            quantity=order.executed_quantity + self._terms.lots,
            price=price,
            post_only=True,
        )
        return moved if isinstance(moved, Rejected) else None

    async def _enter(self, side: SideText, price: int) -> Rejected | None:
        is_new = side not in self._unanswered
        if is_new:
            self._ids[side] = self._client.next_id()
        try:
            outcome = await self._client.enter(
                self.instrument,
                side,
                self._terms.lots,
                # The same order again, so that it exists once
                self._unanswered.setdefault(side, price),
                client_order_id=self._ids[side],
                post_only=True,
            )
        except NotConnected:
            if is_new:
                del self._unanswered[side]  # nothing was sent
            raise
        del self._unanswered[side]
        return outcome if isinstance(outcome, Rejected) else None

    def _limits(self, state: InstrumentState) -> tuple[int, int]:
        scale = self._client.scale(self.instrument)
        return scale.read(state.low_limit), scale.read(state.high_limit)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command line's arguments."""
    parser.add_argument("instruments", nargs="*", help="codes such as H100Z26; none: every one")
    parser.add_argument(
        "--lots", type=options.whole(1), default=5, help="lots of each quote (%(default)s)"
    )
    parser.add_argument(
        "--half-spread",
        type=options.whole(0),
        default=10,
        help="ticks from the reference price (%(default)s)",
    )
    parser.add_argument(
        "--skew", type=options.whole(0), default=2, help="ticks per LOTS of position (%(default)s)"
    )


def every(client: AsyncClient) -> list[str]:
    """Return the codes of all instruments that have not expired."""
    return sorted(code for code, data in client.instruments.items() if data.state != "EXPIRED")


async def bot(client: AsyncClient, chosen: argparse.Namespace, stop: asyncio.Event) -> None:
    """Run from the command line, and print what is held."""
    terms = Terms(lots=chosen.lots, half_spread=chosen.half_spread, skew=chosen.skew)
    codes = chosen.instruments or every(client)
    left = await run(client, codes, stop=stop, terms=terms)
    held = ", ".join(f"{lots:+d} {code}" for code, lots in sorted(client.positions.items()))
    if left:
        print(f"{left} quotes may stand: without an answer the market takes them out by itself,")
        print(f"once it has missed this bot for five seconds; last told held: {held or 'nothing'}")
    else:
        print(f"quotes are out; held: {held or 'nothing'}")


if __name__ == "__main__":
    raise SystemExit(
        options.main("Quotes both sides and leans against its position.", bot, arguments)
    )
