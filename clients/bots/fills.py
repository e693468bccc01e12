"""Trades at once and says what came of it: an immediate-or-cancel order, followed to its end."""

import asyncio
from decimal import Decimal
from typing import Final

import msgspec

from clients.aio import AsyncClient, EnterOutcome
from clients.decimals import Number, quantity_text, read_quantity
from clients.errors import NotConnected, OutcomeUnknown
from exchange.messages.wire import (
    Cancelled,
    Execution,
    LegTraded,
    Reduced,
    Rejected,
    SideText,
)

ATTEMPTS: Final = 10  # at entering one order
AGAIN_SECONDS: Final = 0.5


class Fill(msgspec.Struct):
    """What one order traded. ``value`` is the sum of price times lots, ``fee`` in dollars."""

    executed_quantity: int = 0
    value: Decimal = Decimal(0)
    fee: Decimal = Decimal(0)
    reject: Rejected | None = None

    @property
    def average_price(self) -> Decimal | None:
        """Dollars per GPU-hour, None if nothing traded."""
        return self.value / self.executed_quantity if self.executed_quantity else None

    def add(self, other: "Fill") -> None:
        """Count another order's trades in."""
        self.executed_quantity += other.executed_quantity
        self.value += other.value
        self.fee += other.fee


async def take(
    client: AsyncClient,
    instrument: str,
    side: SideText,
    quantity: Number,
    price: Number | None,
) -> Fill:
    """Trade up to ``quantity`` lots now, at ``price`` or better (None: at any), and no later.

    An order whose answer was lost is entered again under its id, so it exists once. Raises what
    ``AsyncClient.enter`` raises once ``ATTEMPTS`` are lost; then look at ``client.positions``.
    """
    left = read_quantity(quantity_text(quantity))
    client_order_id = client.next_id()
    fill = Fill()
    events = client.events()
    try:
        outcome = await _enter(client, instrument, side, quantity, price, client_order_id)
        if isinstance(outcome, Rejected):
            fill.reject = outcome
            return fill
        legs: dict[str, int] = {}  # reports to come of a combination's trade, by match number
        while left or any(legs.values()):
            event = await anext(events, None)
            if event is None:
                raise NotConnected("the client was closed before the order was done")
            if isinstance(event, LegTraded) and event.match_number in legs:
                legs[event.match_number] -= 1
                fill.fee += Decimal(event.fee)
            if not isinstance(event, Execution | Cancelled | Reduced):
                continue
            if event.client_order_id != client_order_id:
                continue
            lots = read_quantity(event.quantity)
            left -= lots
            if isinstance(event, Execution):
                legs[event.match_number] = event.legs
                fill.executed_quantity += lots
                fill.value += lots * Decimal(event.price)
                fill.fee += Decimal(event.fee)
        return fill
    finally:
        events.close()


async def _enter(
    client: AsyncClient,
    instrument: str,
    side: SideText,
    quantity: Number,
    price: Number | None,
    client_order_id: str,
) -> EnterOutcome:
    attempt = 0
    while True:
        try:
            return await client.enter(
                instrument,
                side,
                quantity,
                price,
                client_order_id=client_order_id,
                time_in_force="IOC",
            )
        except (NotConnected, OutcomeUnknown):
            attempt += 1
            if attempt == ATTEMPTS:
                raise
        await asyncio.sleep(AGAIN_SECONDS)
