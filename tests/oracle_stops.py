"""The oracle's stops: they wait for a trade price, are elected by it, and come in one by one."""

from oracle_combinations import is_continuous
from oracle_features import follow
from oracle_matching import RESTS, position_of, send, take_out
from oracle_protections import bound_by_band, look_at_trades
from oracle_state import Instrument, Market, Order, Place, Record, Rejected, signed

from exchange.messages import (
    EventKind,
    Limit,
    Mode,
    OrderFeature,
    Reason,
    Side,
)


def judge_trigger(c: Record, instrument: Instrument) -> None:
    """Raises TRIGGER: off the price step, or outside the day's limits."""
    trigger = signed(c.target_hi)
    if trigger % instrument.price_step:
        raise Rejected(Reason.TRIGGER, instrument.price_step, trigger)
    if trigger < instrument.low:
        raise Rejected(Reason.TRIGGER, instrument.low, trigger)
    if trigger > instrument.high:
        raise Rejected(Reason.TRIGGER, instrument.high, trigger)


def far_limit(instrument: Instrument, side: int) -> int:
    return instrument.high if side == Side.BUY else instrument.low


def market_limit(
    instrument: Instrument, side: int, tif: int, ticks: int | None
) -> tuple[int, bool]:
    """How far a MARKET order may trade, and whether what is left of it may rest there."""
    best = [order.price for order in instrument.side(1 - side)[:1]]
    far = far_limit(instrument, side)
    if not best or (ticks is None and tif not in RESTS):
        return far, False
    if side == Side.BUY:
        return min(best[0] + (ticks or 0), far), tif in RESTS
    return max(best[0] - (ticks or 0), far), tif in RESTS


def follows_nothing(instrument: Instrument, side: int, tif: int, ticks: int | None) -> bool:
    """A MARKET order's limit would be the best opposite price or so far beyond it, but there is
    none: it meets nobody, not even an implied price."""
    return not instrument.side(1 - side) and (ticks is not None or tif in RESTS)


def beyond_all(instrument: Instrument, side: int) -> int:
    """A limit that no price of the day reaches."""
    return instrument.low - 1 if side == Side.BUY else instrument.high + 1


def wait(m: Market, order: Order, age: int = 0) -> None:
    """Behind the others that wait for the same price, unless it has an age already."""
    m.stops += not age
    order.age = age or m.stops
    order.place = Place.WAITING
    m.instruments[order.instrument].stops.append(order)
    position_of(m, order).orders[order.order_id] = order


def begin_waiting(m: Market, order: Order) -> None:
    wait(m, order)
    m.tell(EventKind.ORDER_WAITING, order, order.leaves, b=order.trigger)


def reached(order: Order, price: int) -> bool:
    return price >= order.trigger if order.side == Side.BUY else price <= order.trigger


def reached_by(instrument: Instrument, price: int) -> list[Order]:
    """The stops that a price reaches, nearest trigger first, then oldest; buys before sells."""
    found: list[Order] = []
    for side, sign in ((Side.BUY, 1), (Side.SELL, -1)):
        chosen = [o for o in instrument.stops if o.side == side and reached(o, price)]
        found += sorted(chosen, key=lambda o, sign=sign: (sign * o.trigger, o.age))  # type: ignore[misc]
    return found


def elect(instrument: Instrument, price: int) -> None:
    """A trade at this price elects the stops that it reaches."""
    for order in reached_by(instrument, price):
        instrument.stops.remove(order)
        instrument.elected.append(order)


def trades_now(m: Market, instrument: Instrument) -> bool:
    return is_continuous(instrument) and m.mode == Mode.NORMAL


def come_in(m: Market, order: Order) -> None:
    """An elected stop is the order of its other fields, and enters now."""
    instrument = m.instruments[order.instrument]
    take_out(m, order, Place.INCOMING)
    order.features &= ~OrderFeature.STOP
    order.limit, rests = order.price, order.tif in RESTS
    if order.market:
        order.limit, rests = market_limit(instrument, order.side, order.tif, order.ticks)
        worst = min if order.side == Side.BUY else max
        order.limit = bound_by_band(m, instrument, order.side, order.limit)
        order.limit = worst(order.limit, order.price)  # its hold is for no worse a price
        if rests:
            order.price = order.limit
        if follows_nothing(instrument, order.side, order.tif, order.ticks):
            order.limit = beyond_all(instrument, order.side)
    row = m.tell(EventKind.ORDER_ELECTED, order, order.leaves, b=order.trigger)
    if rests and not instrument.low <= order.price <= instrument.high:
        m.tell(EventKind.ORDER_DORMANT, order, order.leaves)
        order.place = Place.DORMANT
        instrument.dormant.append(order)
        position_of(m, order).orders[order.order_id] = order
        return
    send(m, order, row, order.market and not rests)


def aftermath(m: Market, instrument: Instrument, first: int) -> None:
    """What follows from the trades among this command's events from number ``first`` on."""
    count = 0
    while True:
        follow(m, first)
        prints = [
            row.price
            for row in m.rows[first:]
            if row.kind == EventKind.TRADE and row.instrument == instrument.number
        ]
        rows, first = m.rows[first:], len(m.rows)
        look_at_trades(m, instrument, rows)
        for price in prints:
            elect(instrument, price)
        if not instrument.elected or instrument.due > m.stamp:
            return
        if count == Limit.ELECTIONS or not trades_now(m, instrument):
            instrument.due = m.stamp + Limit.ELECTION_NS
            return
        come_in(m, instrument.elected[0])
        count += 1
