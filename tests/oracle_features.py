"""The oracle's special orders: those that only reduce, and groups of two."""

from oracle_matching import cancel_order, lose
from oracle_risk import working
from oracle_state import WORKING, Market, Order, Protection, Record, Rejected

from exchange.messages import CancelReason, EventKind, OrderFeature, Reason, Side

OF_TWO = (
    EventKind.TRADE, EventKind.TRADE_BUSTED, EventKind.LEG_TRADE, EventKind.LEG_BUSTED,
)  # fmt: skip
OF_AN_ORDER = (*range(EventKind.ORDER_ACCEPTED, 9), EventKind.ORDER_ELECTED)


def shared(partner: Order | None, account: int, instrument: int, side: int) -> int:
    """Lots of a partner of the same position and side: they never trade as well."""
    if partner is None or partner.place not in WORKING:
        return 0
    same = (partner.account, partner.instrument, partner.side) == (account, instrument, side)
    return partner.leaves if same else 0


def shared_by(order: Order) -> int:
    return shared(order.partner, order.account, order.instrument, order.side)


def room(m: Market, account: int, instrument: int, side: int, without: Order | None = None) -> int:
    """Lots that would still only reduce, beyond what works; of a group the larger one counts."""
    position = m.position(account, instrument)
    opposite = position.net > 0 if side == Side.SELL else position.net < 0
    left = abs(position.net) if opposite else 0
    works = working(m, m.accounts[account], instrument, without)
    left -= sum(lots for way, lots, _ in works if way == side)
    counted: set[int] = set()
    for order in position.orders.values():
        other = order.partner
        if order.side != side or order is without or other is None or other is without:
            continue
        if order.features & OrderFeature.REDUCE_ONLY and order.order_id not in counted:
            left += min(order.leaves, shared_by(order))
            counted.add(other.order_id)
    return left


def judge_reduction(left: int, lots: int, partner_lots: int) -> None:
    """``left`` is the room without the order. Raises REDUCE_ONLY."""
    most = left + partner_lots if left >= 0 else 0
    if lots > most:
        raise Rejected(Reason.REDUCE_ONLY, most, lots)


def find_partner(m: Market, c: Record) -> Order | None:
    """The order that an ENTER wants to be grouped with. Raises GROUP."""
    if not c.spare & OrderFeature.GROUPED:
        return None
    found = m.slots.get(c.target_hi & 0xFFFFFFFF)
    if (
        not isinstance(found, Order)
        or found.order_id != c.target_hi
        or found.account != c.account
        or found.place not in WORKING
        or found.partner is not None
        or found.features & OrderFeature.QUOTE
        or m.instruments[found.instrument].legs
    ):
        raise Rejected(Reason.GROUP)
    return found


def join(order: Order, partner: Order | None) -> None:
    if partner is not None:
        order.partner, partner.partner = partner, order
        partner.features |= OrderFeature.GROUPED


def trim(m: Market, account: int, instrument: int) -> None:
    """Orders that only reduce give way, the newest first."""
    position = m.position(account, instrument)
    reducing = [o for o in position.orders.values() if o.features & OrderFeature.REDUCE_ONLY]
    for order in sorted(reducing, key=lambda o: o.serial, reverse=True):
        left = room(m, account, instrument, order.side)
        if left < 0:
            other, lots = order.partner, -left
            stays = other is not None and not other.features & OrderFeature.REDUCE_ONLY
            if stays and order.leaves - lots < shared_by(order):  # fewer would be of no use
                lots = order.leaves
            lose(m, order, lots, CancelReason.REDUCE_ONLY, CancelReason.REDUCE_ONLY)


def tell_protection(m: Market, account: int, product: int, one: Protection) -> None:
    m.emit(
        EventKind.PROTECTION_CHANGED,
        account=account,
        instrument=product,
        quantity=one.lots,
        leaves=int(one.blocked),
        a=one.window,
        b=one.traded,
    )


def protect(m: Market, account: int, product: int) -> None:
    """Too much traded: no quotes of it are left, and there will be none until it is set again."""
    one = m.accounts[account].protections.get(product)
    if one is None or not one.lots or one.blocked or one.traded < one.lots:
        return
    one.blocked = True
    tell_protection(m, account, product, one)
    quotes = [
        order
        for number, position in m.accounts[account].positions.items()
        for order in position.orders.values()
        if order.features & OrderFeature.QUOTE and m.instruments[number].product == product
    ]
    for order in sorted(quotes, key=lambda o: (o.instrument, o.side)):
        cancel_order(m, order, CancelReason.PROTECTION)


def follow(m: Market, first: int) -> None:
    """Quotes that traded too much, then everyone whose position or working lots the rows from
    ``first`` on have changed."""
    rows = m.rows[first:]
    for row in rows:
        if row.kind in (EventKind.TRADE, EventKind.LEG_TRADE):
            for account in (row.account, row.key[1] & 0xFFFFFFFF):
                protect(m, account, m.instruments[row.instrument].product)
    seen: dict[tuple[int, int], None] = {}  # in order, each once
    for row in rows:
        if row.kind in OF_TWO:
            seen[row.account, row.instrument] = None
            seen[row.key[1] & 0xFFFFFFFF, row.instrument] = None
        elif row.kind == EventKind.LOTS_TRANSFERRED:
            seen[row.account, row.instrument] = None
            seen[row.order_id, row.instrument] = None
        elif row.kind in OF_AN_ORDER:
            seen[row.account, row.instrument] = None
            for number, _ in m.instruments[row.instrument].legs:
                seen[row.account, number] = None
    for account, number in seen:
        trim(m, account, number)
