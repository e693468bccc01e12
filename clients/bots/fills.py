"""Trades at once and reports the result: an immediate-or-cancel order, followed to its end."""

import asyncio
from decimal import Decimal

import msgspec

from clients.aio import AsyncClient, EnterOutcome
from clients.bots.options import next_event
from clients.decimals import Number, quantity_text, read_quantity
from clients.errors import NotConnected, OutcomeUnknown, refusal
from clients.events import AnyEvent, Connected, EventStream
from exchange.messages.wire import (
    Cancelled,
    Execution,
    LegTraded,
    Reduced,
    Rejected,
    SideText,
)


class Fill(msgspec.Struct):
    """What one order traded. ``value`` is the sum of price times lots, ``fee`` in dollars;
    ``reject`` is the reject if the order was refused, of several orders the last one."""

    executed_quantity: int = 0
    value: Decimal = Decimal(0)
    fee: Decimal = Decimal(0)
    reject: Rejected | None = None

    @property
    def average_price(self) -> Decimal | None:
        """Dollars per GPU-hour, None if nothing traded."""
        return self.value / self.executed_quantity if self.executed_quantity else None

    def add(self, other: "Fill") -> None:
        """Add another order's trades."""
        self.executed_quantity += other.executed_quantity
        self.value += other.value
        self.fee += other.fee
        self.reject = other.reject or self.reject

    def refused(self) -> str:
        """Return a line of text about the last reject; empty if there was none."""
        return f"refused last: {refusal(self.reject)}" if self.reject is not None else ""


async def take(
    client: AsyncClient,
    instrument: str,
    side: SideText,
    quantity: Number,
    price: Number | None,
    *,
    stop: asyncio.Event | None = None,
) -> Fill:
    """Trade up to ``quantity`` lots now, at ``price`` or better (None: at any price).

    An order whose answer was lost is entered again under its id after a reconnect, however long
    that takes: it exists once, and the answer is its outcome. Raises NotConnected or OutcomeUnknown
    if the outcome is unknown when ``stop`` is set or the client is closed; and the error that ends
    the client.
    """
    taking = _Taking(client.next_id(), read_quantity(quantity_text(quantity)))
    events = client.events()
    try:
        while True:
            try:
                outcome = await client.enter(
                    instrument,
                    side,
                    quantity,
                    price,
                    client_order_id=taking.client_order_id,
                    time_in_force="IOC",
                )
                break
            except OutcomeUnknown:
                if stop is not None and stop.is_set():
                    raise
            except NotConnected:
                if not await taking.reconnected(events, stop):
                    raise
        await taking.finish(events, outcome)
        return taking.fill
    finally:
        events.close()


class _Taking:
    """One order until it is finished: the lots left, and the reports still to come."""

    def __init__(self, client_order_id: str, lots: int) -> None:
        self.client_order_id = client_order_id
        self.fill = Fill()
        self._left = lots
        # Leg reports still to come of a combination's trade, by match number
        self._legs: dict[str, int] = {}

    async def reconnected(self, events: EventStream, stop: asyncio.Event | None) -> bool:
        """Wait for the next connection; False if the client is closed, or ``stop`` is set first."""
        while (event := await next_event(events, stop)) is not None:
            self._count(event)
            if isinstance(event, Connected):
                return True
        return False

    async def finish(self, events: EventStream, outcome: EnterOutcome) -> None:
        """Wait for all reports of an answered order. NotConnected if the client is closed first."""
        if isinstance(outcome, Rejected):
            self.fill.reject = outcome
            return
        while self._left or any(self._legs.values()):
            event = await anext(events, None)
            if event is None:
                raise NotConnected("the client was closed before the order was done")
            self._count(event)

    def _count(self, event: AnyEvent) -> None:
        fill = self.fill
        if isinstance(event, LegTraded) and event.match_number in self._legs:
            self._legs[event.match_number] -= 1
            fill.fee += Decimal(event.fee)
        if not isinstance(event, Execution | Cancelled | Reduced):
            return
        if event.client_order_id != self.client_order_id:
            return
        lots = read_quantity(event.quantity)
        self._left -= lots
        if isinstance(event, Execution):
            self._legs[event.match_number] = event.legs
            fill.executed_quantity += lots
            fill.value += lots * Decimal(event.price)
            fill.fee += Decimal(event.fee)
