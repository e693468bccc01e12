"""The account's working orders and positions, maintained from its reports.

``adopt_orders`` and ``adopt_account`` set them from an answer, which is true as of its sequence;
later reports are then applied, and earlier ones are included already. Quantities are lots.
"""

from decimal import Decimal

import msgspec

from clients.decimals import read_quantity
from exchange.messages.wire import (
    Accepted,
    AccountReport,
    Cancelled,
    Corrected,
    Dormant,
    Elected,
    Execution,
    LegTraded,
    OrderReport,
    Orders,
    Reduced,
    Replaced,
    Returned,
    Settled,
    SideText,
    Transferred,
    Waiting,
)


class Order(msgspec.Struct, kw_only=True):
    """One working order. ``quantity`` = executed + ``leaves_quantity``; a market order has no
    price."""

    client_order_id: str
    order_id: str
    instrument: str
    side: SideText
    price: str | None
    quantity: int
    leaves_quantity: int
    dormant: bool = False
    waiting: bool = False  # a stop that has not been elected

    @property
    def executed_quantity(self) -> int:
        """Lots traded so far."""
        return self.quantity - self.leaves_quantity


class Margin(msgspec.Struct, frozen=True, kw_only=True):
    """An account's money in dollars, as of ``sequence``.

    ``required`` is the sum of the holds less ``credit``, that for pairs of spreads, and the loss
    since the last settlement, if any; ``free`` = ``cash`` - ``required``. If it is negative the
    account is in deficit: only cancels and reducing orders are accepted.
    """

    sequence: int
    cash: Decimal
    required: Decimal
    free: Decimal
    credit: Decimal
    holds: dict[str, Decimal]  # by instrument
    unrealized: dict[str, Decimal]

    @property
    def in_deficit(self) -> bool:
        """Whether more is required than there is."""
        return self.free < 0


def margin_of(answer: AccountReport) -> Margin:
    """Return the figures of an answer."""
    return Margin(
        sequence=answer.sequence,
        cash=Decimal(answer.cash),
        required=Decimal(answer.required),
        free=Decimal(answer.free),
        credit=Decimal(answer.credit),
        holds={held.instrument: Decimal(held.hold) for held in answer.positions},
        unrealized={held.instrument: Decimal(held.unrealized) for held in answer.positions},
    )


class Portfolio:
    """``orders`` by client order id; ``positions`` by instrument, signed, without flat ones."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.positions: dict[str, int] = {}
        self._orders_as_of = 0
        self._positions_as_of = 0
        self._settled_at = 0

    @property
    def is_unsure(self) -> bool:
        """Whether a position was settled since the last query of positions, which must be repeated.

        The final settlement of an instrument ends its positions, and its report looks like any
        other.
        """
        return self._settled_at > self._positions_as_of

    def adopt_orders(self, answer: Orders) -> None:
        """Set the working orders from an answer, as of its sequence."""
        self._orders_as_of = answer.sequence
        self.orders = {
            order.client_order_id: Order(
                client_order_id=order.client_order_id,
                order_id=order.order_id,
                instrument=order.instrument,
                side=order.side,
                price=order.price,
                quantity=read_quantity(order.quantity),
                leaves_quantity=read_quantity(order.leaves_quantity),
                dormant=order.dormant,
                waiting=order.waiting,
            )
            for order in answer.orders
        }

    def adopt_account(self, answer: AccountReport) -> None:
        """Set the positions from an answer, as of its sequence."""
        self._positions_as_of = answer.sequence
        net = ((position.instrument, int(position.net)) for position in answer.positions)
        self.positions = {instrument: lots for instrument, lots in net if lots}

    def correct(self, report: Corrected) -> None:
        """Apply a correction: a bust returns the lots of its trade. An adjustment moves none, and
        the report on a combination's whole trade does not either, only those of its legs."""
        whole = report.legs and not report.place
        if report.kind == "bust" and not whole and report.sequence > self._positions_as_of:
            lots = read_quantity(report.quantity)
            self._shift(report.instrument, -lots if report.side == "buy" else lots)

    def take_leg(self, report: LegTraded | Transferred) -> None:
        """Apply a leg of a combination's trade, or lots moved off the book, to the positions."""
        if report.sequence > self._positions_as_of:
            lots = read_quantity(report.quantity)
            self._shift(report.instrument, lots if report.side == "buy" else -lots)

    def settle(self, report: Settled) -> None:
        """Note a settlement."""
        if report.instrument in self.positions:
            self._settled_at = report.sequence

    def apply(self, report: OrderReport) -> None:
        """Apply one report; each must come once and in stream order."""
        if isinstance(report, Execution) and report.sequence > self._positions_as_of:
            self._trade(report)
        if report.sequence <= self._orders_as_of:
            return
        if isinstance(report, Accepted):
            self._accept(report)
            return
        order = self.orders.get(report.client_order_id)
        if order is None or order.order_id != report.order_id:
            return
        self._change(order, report)
        if order.leaves_quantity == 0:
            del self.orders[order.client_order_id]

    def _accept(self, report: Accepted) -> None:
        # A first answer's ``quantity`` is before its trades, which follow as reports; a repeated
        # one states what rests.
        leaves = report.leaves_quantity if report.duplicate else report.quantity
        if read_quantity(leaves) == 0:
            return
        known = self.orders.get(report.client_order_id)
        if report.duplicate and known is not None and known.order_id == report.order_id:
            return  # it repeats the order's original terms
        self.orders[report.client_order_id] = Order(
            client_order_id=report.client_order_id,
            order_id=report.order_id,
            instrument=report.instrument,
            side=report.side,
            price=report.price,
            quantity=read_quantity(report.quantity),
            leaves_quantity=read_quantity(leaves),
        )

    def _change(self, order: Order, report: OrderReport) -> None:
        if isinstance(report, Execution):
            order.leaves_quantity = read_quantity(report.leaves_quantity)
        elif isinstance(report, Cancelled) and not report.duplicate:
            order.leaves_quantity = 0
        elif isinstance(report, Reduced) and report.leaves_quantity is not None:  # no repeat
            order.quantity -= read_quantity(report.quantity)
            order.leaves_quantity = read_quantity(report.leaves_quantity)
        elif isinstance(report, Replaced) and not report.duplicate:
            executed = order.executed_quantity
            order.price, order.quantity = report.price, read_quantity(report.quantity)
            order.leaves_quantity = order.quantity - executed
            order.dormant = False
        elif isinstance(report, Dormant | Returned):
            order.dormant = isinstance(report, Dormant)
        elif isinstance(report, Waiting):
            order.waiting = True
        elif isinstance(report, Elected):  # a stop at the market now has a limit
            order.waiting, order.price = False, report.price

    def _trade(self, report: Execution) -> None:
        if report.legs:  # a combination has no position
            return
        lots = read_quantity(report.quantity)
        self._shift(report.instrument, lots if report.side == "buy" else -lots)

    def _shift(self, instrument: str, lots: int) -> None:
        net = self.positions.get(instrument, 0) + lots
        if net:
            self.positions[instrument] = net
        else:
            self.positions.pop(instrument, None)
