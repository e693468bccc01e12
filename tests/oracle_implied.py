"""The oracle's implied prices: what two orders of a calendar spread and its legs make together.

First generation: of three books that a spread and its two legs are, resting orders at the top of
two imply a price in the third, and an incoming order there may trade with both at once.
"""

from typing import NamedTuple

from oracle_combinations import leg_trade, legs_of, made_of, open_legs
from oracle_risk import member_figures, required
from oracle_state import Instrument, Market, Order, Place, Record, Rejected

from exchange.messages import CombinationRule, EventKind, Limit, Mode, Reason, Side, TradingState


class Source(NamedTuple):
    """Two resting orders that imply ``price``; ``first`` is the combination's, if it is theirs."""

    price: int
    combination: Instrument
    first: Order
    second: Order


def set_implied(m: Market, c: Record) -> None:
    if c.instrument >= len(m.instruments):
        raise Rejected(Reason.UNKNOWN_INSTRUMENT, len(m.instruments), c.instrument)
    combination = m.instruments[c.instrument]
    if combination.state == TradingState.EXPIRED:
        raise Rejected(Reason.STATE, 0, TradingState.EXPIRED)
    ratios = [ratio for _, ratio in combination.legs]
    if ratios != [1, -1] or combination.rule != CombinationRule.DIFFERENCE:
        raise Rejected(Reason.NOT_IMPLIED, 0, len(ratios))
    if c.tif > 1:
        raise Rejected(Reason.PARAMETER_RANGE)
    for number, _ in combination.legs:
        spreads = sum(one.implied for one in made_of(m, number))
        if c.tif and not combination.implied and spreads >= Limit.LEG_SPREADS:
            raise Rejected(Reason.SPREADS_FULL, Limit.LEG_SPREADS, spreads)
    combination.implied = bool(c.tif)
    m.emit(EventKind.IMPLIED_CHANGED, instrument=c.instrument, quantity=c.tif)


def covered(m: Market, number: int, need: int) -> bool:
    """Whether an account and its member have ``need`` micro-dollars that nothing binds."""
    account = m.accounts[number]
    member_need, member_cash = member_figures(m, account.member)
    free = min(account.cash - required(m, account), member_cash - member_need)
    return free >= need


def affordable(
    m: Market, source: Source, instrument: Instrument, side: int, lots: int, account: int
) -> bool:
    """Months of unequal hours are not priced from their anchors here: whether the side of the
    spread that this could cost more than its hold has that much besides."""
    (near, _), (far, _) = legs_of(m, source.combination)
    if near.multiplier == far.multiplier:
        return True
    whole = instrument is source.combination
    who, way = (account, side) if whole else (source.first.account, source.first.side)
    sign = 1 if way == Side.BUY else -1
    price = source.price if near is instrument else (source.first if whole else source.second).price
    other = source.price if far is instrument else source.second.price
    at, off = price * near.tick_scale, other * far.tick_scale
    need = sign * (near.multiplier - far.multiplier) * (at - near.anchor)
    if need <= 0:
        return True
    if whole:
        loss = near.multiplier * (at - near.mark) - far.multiplier * (off - far.mark)
        need = near.rate + far.rate + max(0, sign * loss)
    return covered(m, who, need * lots)


def source_of(
    m: Market, combination: Instrument, instrument: Instrument, side: int
) -> Source | None:
    """The oldest orders at the best prices of the two other books, if both are there."""
    (near, _), (far, _) = legs_of(m, combination)
    if instrument is combination:
        books = near.side(1 - side), far.side(side)
    elif instrument is near:
        books = combination.side(1 - side), far.side(1 - side)
    else:
        books = combination.side(side), near.side(1 - side)
    if not all(books):
        return None
    first, second = books[0][0], books[1][0]
    if instrument is combination:
        price = first.price - second.price
    elif instrument is near:
        price = first.price + second.price
    else:
        price = second.price - first.price
    return Source(price, combination, first, second)


def best_source(
    m: Market, instrument: Instrument, side: int, lots: int, account: int
) -> Source | None:
    """The best implied price that an order may trade with; of equal ones the first listed."""
    if instrument.legs:
        made = [instrument] if instrument.implied else []
    else:
        made = [one for one in made_of(m, instrument.number) if one.implied]
    found: Source | None = None
    for combination in made:
        if combination.state != TradingState.CONTINUOUS or not open_legs(m, combination):
            continue
        source = source_of(m, combination, instrument, side)
        if source is None or m.mode != Mode.NORMAL:
            continue
        orders = source.first, source.second
        groups = {m.accounts[n].group for n in (account, *(o.account for o in orders))}
        if len(groups) < 3 or any(order.features for order in orders):
            continue
        if not instrument.low <= source.price <= instrument.high:
            continue
        count = min(lots, *(order.leaves for order in orders))
        if not affordable(m, source, instrument, side, count, account):
            continue
        better = -1 if side == Side.BUY else 1
        if found is None or better * (source.price - found.price) > 0:
            found = source
    return found


def trade_implied(m: Market, incoming: Order, source: Source) -> list[Order]:
    """The three orders trade, then the two legs; gives the resting orders."""
    (near, _), (far, _) = legs_of(m, source.combination)
    first, second, side = source.first, source.second, incoming.side
    lots = min(order.leaves for order in (incoming, first, second))
    parent = len(m.rows)
    for place, order in enumerate((incoming, first, second)):
        order.leaves -= lots
        order.executed += lots
        m.tell(
            EventKind.ORDER_EXECUTED,
            order,
            lots,
            price=source.price if order is incoming else order.price,
            leaves=order.leaves,
            reason=place,
            b=source.combination.number,
        )
    here = m.instruments[incoming.instrument]
    if here is source.combination:
        legs = [(incoming, first, side, first.price), (incoming, second, 1 - side, second.price)]
    elif here is near:
        legs = [
            (incoming, first, side, source.price),
            (first, second, 1 - first.side, second.price),
        ]
    else:
        legs = [(first, second, first.side, second.price), (incoming, first, side, source.price)]
    for place, (leg, (one, other, way, price)) in enumerate(zip((near, far), legs, strict=True), 1):
        leg_trade(
            m, one, other, leg, way, lots, price * leg.tick_scale, parent, place | 2 << 8,
            taker_rests=one.place is Place.BOOK,
        )  # fmt: skip
    return [first, second]
