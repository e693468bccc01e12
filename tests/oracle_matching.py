"""The oracle's matching: how an incoming order trades, rests or is cancelled."""

from oracle_combinations import trade_legs
from oracle_icebergs import hide, levels_of, refill, take_hidden
from oracle_state import (
    WORKING,
    Market,
    Order,
    Place,
    Position,
    Row,
)

from exchange.messages import (
    CancelReason,
    EventFlag,
    EventKind,
    Limit,
    OrderFeature,
    SelfTrade,
    Side,
    TimeInForce,
)

RESTS = (TimeInForce.GTC, TimeInForce.DAY, TimeInForce.GTD, TimeInForce.GFA)


def reaches(order: Order, price: int) -> bool:
    return price <= order.limit if order.side == Side.BUY else price >= order.limit


def opposite(m: Market, order: Order) -> list[Order]:
    return m.instruments[order.instrument].side(1 - order.side)


def own(m: Market, order: Order, other: Order) -> bool:
    return m.accounts[order.account].group == m.accounts[other.account].group


def position_of(m: Market, order: Order) -> Position:
    return m.accounts[order.account].positions[order.instrument]


def take_out(m: Market, order: Order, place: Place) -> None:
    """Out of the book or the dormant list, and no longer working."""
    instrument = m.instruments[order.instrument]
    if order.place is Place.BOOK:
        instrument.side(order.side).remove(order)
    elif order.place is Place.DORMANT:
        instrument.dormant.remove(order)
    elif order.place is Place.WAITING:
        (instrument.stops if order in instrument.stops else instrument.elected).remove(order)
        instrument.due = instrument.due if instrument.elected else 0
    elif order.place is Place.MARKET:
        instrument.market.remove(order)
    position_of(m, order).orders.pop(order.order_id, None)
    order.place = place
    if place is Place.INCOMING:
        order.hidden = 0


def put_in(m: Market, order: Order) -> None:
    hide(order)
    m.instruments[order.instrument].rest(order)
    position_of(m, order).orders[order.order_id] = order


def collect(m: Market, order: Order, row: Row, market: bool) -> None:
    """An incoming order waits for the auction, at its limit or at any price."""
    if market:
        order.place = Place.MARKET
        m.instruments[order.instrument].market.append(order)
        position_of(m, order).orders[order.order_id] = order
        hide(order)
    else:
        put_in(m, order)
    row.leaves = order.shown


def cancel_order(m: Market, order: Order, reason: CancelReason) -> Row:
    row = m.tell(EventKind.ORDER_CANCELLED, order, order.leaves, reason=reason, b=order.hidden)
    take_out(m, order, Place.CANCELLED)
    order.part()
    order.leaves = order.hidden = 0
    m.forget_if_finished(order)
    return row


def lose(m: Market, order: Order, lots: int, some: CancelReason, everything: CancelReason) -> Row:
    """Lots leave an order without trading, and it keeps its place."""
    if lots >= order.leaves:
        return cancel_order(m, order, everything)
    hidden = take_hidden(order, lots)
    return m.tell(EventKind.ORDER_REDUCED, order, lots, leaves=order.leaves, reason=some, b=hidden)


def book_side(m: Market, order: Order, lots: int, price: int, fee: int) -> None:
    """One side of a trade in its position and cash; a combination has neither."""
    order.leaves -= lots
    order.executed += lots
    if m.instruments[order.instrument].legs:
        return
    value = m.instruments[order.instrument].tick_value
    change = lots if order.side == Side.BUY else -lots
    position = position_of(m, order)
    position.net += change
    position.cost += change * price * value
    m.accounts[order.account].pay(-fee)
    m.accounts[0].pay(fee)


def trade(m: Market, incoming: Order, resting: Order) -> None:
    instrument = m.instruments[incoming.instrument]
    lots = min(incoming.leaves, resting.shown)
    taker_fee, maker_fee = instrument.taker_fee * lots, instrument.maker_fee * lots
    book_side(m, resting, lots, resting.price, maker_fee)
    book_side(m, incoming, lots, resting.price, taker_fee)
    m.emit(
        EventKind.TRADE,
        flags=EventFlag.SELL if incoming.side == Side.SELL else 0,
        reason=len(instrument.legs),
        instrument=instrument.number,
        account=incoming.account,
        order_id=incoming.order_id,
        price=resting.price,
        quantity=lots,
        leaves=incoming.leaves,
        key=(resting.order_id, resting.account | resting.leaves << 32),
        a=-taker_fee,
        b=-maker_fee,
    )
    if instrument.legs:
        trade_legs(m, incoming, resting, lots, len(m.rows) - 1)
    if resting.leaves and not resting.shown:
        refill(m, resting)
    count_quote(m, resting, lots)
    tell_group(m, resting)
    fill(m, resting)


def count_quote(m: Market, order: Order, lots: int) -> None:
    """Lots of a quote have traded."""
    product = m.instruments[order.instrument].product
    one = m.accounts[order.account].protections.get(product)
    if not order.features & OrderFeature.QUOTE or one is None or not one.lots:
        return
    if m.stamp - one.start >= one.window:
        one.start, one.traded = m.stamp, 0
    one.traded += lots


def tell_group(m: Market, order: Order) -> None:
    """The order traded: the other one of its group is cancelled."""
    other = order.part()
    if other is not None:
        cancel_order(m, other, CancelReason.GROUP)


def fill(m: Market, order: Order) -> None:
    if order.leaves == 0:
        take_out(m, order, Place.FILLED)
        m.forget_if_finished(order)


def meet_own(m: Market, incoming: Order, resting: Order, *, traded: bool) -> None:
    """The incoming order's mode decides; the resting order's event comes first.

    ``traded``: it has traded on its way here, and so the other of its group goes before it does.
    """
    reason = CancelReason.SELF_TRADE
    if incoming.stp == SelfTrade.DECREMENT:
        lots = min(incoming.leaves, resting.leaves)
        lose(m, resting, lots, reason, reason)
        lose(m, incoming, lots, reason, reason)
        return
    if incoming.stp in (SelfTrade.CANCEL_OLDEST, SelfTrade.CANCEL_BOTH):
        cancel_order(m, resting, reason)
    if incoming.stp in (SelfTrade.CANCEL_NEWEST, SelfTrade.CANCEL_BOTH):
        if traded:
            tell_group(m, incoming)
        cancel_order(m, incoming, reason)


def can_fill(m: Market, incoming: Order, wanted: int) -> bool:
    """Whether an order would trade at least ``wanted`` lots at once: of each price first what is
    shown, then what is not."""
    lots, counted = 0, set[int]()
    for level in levels_of(opposite(m, incoming)):
        if not reaches(incoming, level[0].price):
            break
        hidden = 0
        for resting in level:
            if own(m, incoming, resting):
                if incoming.stp != SelfTrade.CANCEL_OLDEST:
                    return lots >= wanted
            elif resting.partner is None or resting.partner.order_id not in counted:
                counted.add(resting.order_id)
                lots += resting.shown
                hidden += resting.hidden
                if lots >= wanted:
                    return True
        lots += hidden
    return lots >= wanted


def meet_implied(m: Market, incoming: Order) -> bool:
    """Trade once with an implied price that is better than every order it could trade with."""
    from oracle_implied import best_source, trade_implied  # noqa: PLC0415

    instrument = m.instruments[incoming.instrument]
    source = best_source(
        m, instrument, incoming.side, incoming.leaves, incoming.account, incoming.limit
    )
    if source is None or not reaches(incoming, source.price):
        return False
    better = 1 if incoming.side == Side.BUY else -1
    for real in opposite(m, incoming)[:1]:
        if better * (real.price - source.price) <= 0:
            return False
    for order in [*trade_implied(m, incoming, source), incoming]:
        if order.leaves == 0:
            take_out(m, order, Place.FILLED)
            m.forget_if_finished(order)
    return True


def send(m: Market, order: Order, row: Row, market: bool = False) -> None:
    """An incoming order trades, then rests or is cancelled; ``row`` is told what rests.

    ``market``: what is left of it does not rest, whatever its time in force.
    """
    if m.instruments[order.instrument].collected:
        collect(m, order, row, market)
        return
    if order.tif == TimeInForce.FOK and not can_fill(m, order, order.leaves):
        cancel_order(m, order, CancelReason.FOK_UNFILLED)
        return
    minimum, order.minimum = order.minimum, 0
    implied = 0 if minimum or order.tif == TimeInForce.FOK else Limit.IMPLIED_TRADES
    if not can_fill(m, order, minimum):
        cancel_order(m, order, CancelReason.MINIMUM_UNFILLED)
        return
    resting, before, bound = opposite(m, order), order.executed, order.partner
    while order.leaves:
        if implied and meet_implied(m, order):
            implied -= 1
            continue
        if not resting or not reaches(order, resting[0].price):
            break
        if own(m, order, resting[0]):
            meet_own(m, order, resting[0], traded=order.executed > before)
        else:
            trade(m, order, resting[0])
    if order.executed > before:
        count_quote(m, order, order.executed - before)  # one that was dormant
        decremented = order.place is Place.CANCELLED and order.stp == SelfTrade.DECREMENT
        if decremented and bound is not None and bound.place in WORKING:
            bound.partner = order  # the last of it was decremented, which parted the two
            order.partner = bound
        tell_group(m, order)
    if order.place is Place.INCOMING:
        fill(m, order)
    if not order.leaves:
        return
    if order.tif in RESTS and not market:
        put_in(m, order)
        row.leaves = order.shown
    else:
        reason = CancelReason.MARKET_REMAINDER if market else CancelReason.IOC_REMAINDER
        cancel_order(m, order, reason)
