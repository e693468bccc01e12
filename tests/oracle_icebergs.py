"""The oracle's icebergs: an order shows a part of its lots, and comes back behind when it is gone.

``Order.leaves`` counts all lots; those that are not shown are ``Order.hidden``.
"""

from itertools import groupby

from oracle_state import Instrument, Market, Order, Receipt, Record, Rejected, Row, signed

from exchange.messages import EventKind, Limit, OrderFeature, Reason


def judge_display(m: Market, quantity: int, display: int, instrument: Instrument) -> None:
    """Raises DISPLAY: more than the order, off the lot step, or too many refills."""
    if display > quantity:
        raise Rejected(Reason.DISPLAY, quantity, signed(display))
    if display % instrument.lot_step:
        raise Rejected(Reason.DISPLAY, instrument.lot_step, display)
    if display * (Limit.REFILLS + 1) < quantity:
        raise Rejected(Reason.DISPLAY, -(-quantity // (Limit.REFILLS + 1)), display)


def icebergs(m: Market, instrument: Instrument) -> int:
    """Live orders of the instrument that show a part."""
    return sum(o.instrument == instrument.number and o.display > 0 for o in m.orders_by_slot())


def judge_room(m: Market, c: Record, instrument: Instrument) -> None:
    if c.spare & OrderFeature.ICEBERG and icebergs(m, instrument) >= Limit.ICEBERGS:
        raise Rejected(Reason.ICEBERGS_FULL, Limit.ICEBERGS, Limit.ICEBERGS)
    if c.spare & OrderFeature.REDUCE_ONLY:
        others = m.position(c.account, c.instrument).orders.values()
        if sum(o.features & OrderFeature.REDUCE_ONLY != 0 for o in others) >= Limit.REDUCING:
            raise Rejected(Reason.REDUCING_FULL, Limit.REDUCING, Limit.REDUCING)
    if c.spare & OrderFeature.GROUPED:
        judge_groups(m, m.slots[c.target_hi & 0xFFFFFFFF], instrument)


def judge_groups(m: Market, partner: Order | Receipt, instrument: Instrument) -> None:
    """Raises GROUPS_FULL."""
    assert isinstance(partner, Order)
    if partner.instrument == instrument.number:
        return
    across = [
        order.instrument
        for order in m.orders_by_slot()
        if order.partner is not None and order.partner.instrument != order.instrument
    ]
    if any(across.count(n) >= Limit.GROUPS for n in (partner.instrument, instrument.number)):
        raise Rejected(Reason.GROUPS_FULL, Limit.GROUPS, Limit.GROUPS)


def hide(order: Order) -> None:
    """An order that comes to rest shows no more than its display."""
    order.hidden = max(0, order.leaves - order.display) if order.display else 0


def take_hidden(order: Order, lots: int) -> int:
    """Lots leave an order without trading: first those that nobody sees. How many of them."""
    taken = min(order.hidden, lots)
    order.hidden -= taken
    order.leaves -= lots
    return taken


def refill(m: Market, order: Order) -> Row:
    """All that was shown is gone: the next part is shown, behind all of its price."""
    instrument = m.instruments[order.instrument]
    instrument.side(order.side).remove(order)
    hide(order)
    instrument.rest(order)
    return m.tell(EventKind.ORDER_REFILLED, order, order.leaves, leaves=order.shown)


def levels_of(orders: list[Order]) -> list[list[Order]]:
    """Orders that stand best first, as lists of one price."""
    return [list(level) for _, level in groupby(orders, key=lambda order: order.price)]
