"""The oracle's implied prices: what orders of a combination and its legs make together.

First generation: of the books that a combination and its legs are, resting orders at the top of all
but one imply a price in that one, and an incoming order there may trade with all of them at once.
"""

from typing import NamedTuple

from oracle_combinations import (
    is_continuous,
    leg_trade,
    legs_of,
    made_of,
    mark_of,
    open_legs,
    weight,
)
from oracle_risk import member_figures, required, rise_of
from oracle_state import Instrument, Market, Order, Place, Record, Rejected

from exchange.messages import CombinationRule, EventKind, Limit, Mode, Reason, Side, TradingState


class Source(NamedTuple):
    """Resting orders that imply ``price``, the combination's first if it is one of them; ``legs``
    are the prices of all legs, ``side`` is that of who trades ``lots`` of the whole."""

    price: int
    combination: Instrument
    parts: list[Order]
    legs: list[int]
    side: int
    lots: int


def set_implied(m: Market, c: Record) -> None:
    if c.instrument >= len(m.instruments):
        raise Rejected(Reason.UNKNOWN_INSTRUMENT, len(m.instruments), c.instrument)
    combination = m.instruments[c.instrument]
    if combination.state == TradingState.EXPIRED:
        raise Rejected(Reason.STATE, 0, TradingState.EXPIRED)
    if not combination.legs:
        raise Rejected(Reason.NOT_IMPLIED)
    if c.tif > 1:
        raise Rejected(Reason.PARAMETER_RANGE)
    for number, _ in combination.legs:
        spreads = sum(one.implied for one in made_of(m, number))
        if c.tif and not combination.implied and spreads >= Limit.LEG_SPREADS:
            raise Rejected(Reason.SPREADS_FULL, Limit.LEG_SPREADS, spreads)
    combination.implied = bool(c.tif)
    m.emit(EventKind.IMPLIED_CHANGED, instrument=c.instrument, quantity=c.tif)


def covered(m: Market, number: int, need: int, beside: int = 0) -> bool:
    """Whether an account has ``need`` micro-dollars that nothing binds, and its member those and
    what another of its accounts needs ``beside``."""
    account = m.accounts[number]
    member_need, member_cash = member_figures(m, account.member)
    if account.cash - required(m, account) < need:
        return False
    return member_cash - member_need >= need + beside


def affordable(
    m: Market, source: Source, account: int, rest: int | None, limit: int, beside: int
) -> bool:
    """Months of unequal hours are not priced from their anchors here: whether the side of the
    combination that this could cost more than its hold has that much besides. ``rest``: lots that
    an incoming order of the combination keeps, at its limit; it holds nothing yet. ``beside``:
    what an incoming order of a leg needs, if it is of the same member."""
    combination = source.combination
    if combination.rule == CombinationRule.AVERAGE:
        return True
    sign = 1 if source.side == Side.BUY else -1
    legs = legs_of(m, combination)
    last = legs[-1][0].multiplier
    need = loss = rates = 0
    for (leg, ratio), ticks in zip(legs, source.legs, strict=True):
        price = ticks * leg.tick_scale
        need += sign * ratio * (leg.multiplier - last) * (price - leg.anchor)
        loss += sign * ratio * leg.multiplier * (price - leg.mark)
        rates += abs(ratio) * leg.rate
    if need <= 0:
        return True
    if rest is None:
        return covered(m, account, need * source.lots, beside)
    distance = (limit * combination.tick_scale - mark_of(m, combination)) * sign
    kept = (rates + combination.rate + max(0, distance)) * rest
    return covered(m, account, (rates + max(0, loss)) * source.lots + kept)


def quotient(value: int, by: int, step: int, side: int) -> int:
    """On the grid of prices: rounded up for who buys, down for who sells."""
    whole = value // (by * step) if side == Side.SELL else -(-value // (by * step))
    return whole * step


def other_side(side: int, ratio: int) -> int:
    """The side of a leg's order that trades with who has ``side`` of the whole."""
    return 1 - side if ratio > 0 else side


def source_of(
    m: Market, combination: Instrument, instrument: Instrument, side: int, lots: int
) -> Source | None:
    """The oldest orders at the best prices of all other books, if they are there, and the most
    lots of the whole that they and the incoming order have."""
    legs = legs_of(m, combination)
    average = combination.rule == CombinationRule.AVERAGE
    whole = weight(combination.rule, legs) if average else 1
    way, own = side, 0
    for leg, ratio in legs:
        if leg is instrument:
            way, own = other_side(side, ratio), ratio
    books = [] if instrument is combination else [(combination, way, 1)]
    books += [(leg, other_side(way, r), abs(r)) for leg, r in legs if leg is not instrument]
    if not all(book.side(of) for book, of, _ in books):
        return None
    parts = [book.side(of)[0] for book, of, _ in books]
    counts = [part.leaves // times for part, (_, _, times) in zip(parts, books, strict=True)]
    count = min(lots // abs(own or 1), *counts)
    weights = [ratio * leg.multiplier if average else ratio for leg, ratio in legs]
    prices = {part.instrument: part.price for part in parts}
    known = sum(
        w * prices[leg.number]
        for (leg, _), w in zip(legs, weights, strict=True)
        if leg is not instrument
    )
    if instrument is combination:
        price = quotient(known, whole, instrument.price_step, side)
    else:
        by = next(w for (leg, _), w in zip(legs, weights, strict=True) if leg is instrument)
        rest = whole * prices[combination.number] - known
        price = quotient(rest, by, instrument.price_step, side)
    told = [prices.get(leg.number, price) for leg, _ in legs]
    return Source(price, combination, parts, told, way, count - count % instrument.lot_step)


def best_source(
    m: Market, instrument: Instrument, side: int, lots: int, account: int, limit: int
) -> Source | None:
    """The best implied price that an order of so many lots and this limit may trade with; of equal
    ones the first listed."""
    if instrument.legs:
        made = [instrument] if instrument.implied else []
    else:
        made = [one for one in made_of(m, instrument.number) if one.implied]
    found: Source | None = None
    for combination in made:
        if not is_continuous(combination) or not open_legs(m, combination):
            continue
        source = source_of(m, combination, instrument, side, lots)
        if source is None or not source.lots or m.mode != Mode.NORMAL:
            continue
        groups = {m.accounts[n].group for n in (account, *(o.account for o in source.parts))}
        if len(groups) <= len(source.parts) or any(order.features for order in source.parts):
            continue
        if not instrument.low <= source.price <= instrument.high:
            continue
        incoming = instrument is combination
        owner = account if incoming else source.parts[0].account
        rest = lots - source.lots if incoming else None
        beside = 0
        if not incoming and m.accounts[owner].member == m.accounts[account].member:
            wish = (side, lots, limit)
            beside = max(0, rise_of(m, m.accounts[account], instrument, wish, None))
        if not affordable(m, source, owner, rest, limit, beside):
            continue
        better = -1 if side == Side.BUY else 1
        if found is None or better * (source.price - found.price) > 0:
            found = source
    return found


def trade_implied(m: Market, incoming: Order, source: Source) -> list[Order]:
    """All orders trade, then every leg: who trades the whole with who trades the leg. Gives the
    resting orders."""
    legs = legs_of(m, source.combination)
    ratios = {leg.number: abs(ratio) for leg, ratio in legs}
    parent = len(m.rows)
    by_book = {order.instrument: order for order in (incoming, *source.parts)}
    for place, order in enumerate((incoming, *source.parts)):
        lots = source.lots * ratios.get(order.instrument, 1)
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
    for place, ((leg, ratio), price) in enumerate(zip(legs, source.legs, strict=True), 1):
        one, other = by_book[source.combination.number], by_book[leg.number]
        side = source.side if ratio > 0 else 1 - source.side
        if other is incoming:
            one, other, side = other, one, incoming.side
        leg_trade(
            m, one, other, leg, side, source.lots * abs(ratio), price * leg.tick_scale, parent,
            place | len(legs) << 8, taker_rests=one.place is Place.BOOK,
        )  # fmt: skip
    return source.parts
