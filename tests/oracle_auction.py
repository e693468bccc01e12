"""The oracle's auctions: the price of a call, who trades in it, and what becomes of the rest."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oracle_matching import (
    RESTS,
    book_side,
    cancel_order,
    collect,
    count_quote,
    lose,
    own,
    put_in,
    take_out,
    tell_group,
)
from oracle_state import Instrument, Market, Order, Place, Record, Rejected
from oracle_stops import reached_by

from exchange.messages import (
    CancelReason,
    EventFlag,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
    Side,
    TimeInForce,
    TradingState,
)

COLLECTING = (TradingState.PRE_OPEN, TradingState.AUCTION)
BASIS_POINTS = 10_000
REPRICED = 2  # ORDER_REPLACED: by an auction
Levels = Iterable[tuple[int, int]]  # price, lots; of zero lots: a price that is a candidate


# --- the rule


class Found(NamedTuple):
    """Where an auction would trade: ``surplus`` is buyers' lots less sellers' at the price."""

    price: int | None
    executed: int = 0
    surplus: int = 0


NOTHING = Found(None)


class Call(NamedTuple):
    """All that an auction's price depends on."""

    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]
    market_buy: int
    market_sell: int
    reference: int | None
    reference_is_candidate: bool = False
    band_bp: int | None = None

    def at(self, price: int) -> Found:
        buys = self.market_buy + sum(lots for p, lots in self.bids if p >= price)
        sells = self.market_sell + sum(lots for p, lots in self.asks if p <= price)
        return Found(price, min(buys, sells), buys - sells)

    def candidates(self) -> set[int]:
        prices = {price for price, _ in [*self.bids, *self.asks]}
        if self.reference is not None and (self.reference_is_candidate or not prices):
            prices.add(self.reference)
        return prices


def clamp(price: int, tied: Sequence[Found]) -> int:
    prices = [found.price for found in tied if found.price is not None]
    return max(min(prices), min(price, max(prices)))


def clear(call: Call) -> Found:
    """The auction's price by the rules R1 to R4 of docs/reference/engine.md."""
    found = [call.at(price) for price in sorted(call.candidates())]
    most = max((f.executed for f in found), default=0)
    if most == 0:
        return NOTHING
    tied = [f for f in found if f.executed == most]  # R1
    least = min(abs(f.surplus) for f in tied)
    tied = [f for f in tied if abs(f.surplus) == least]  # R2
    reference = call.reference
    if all(f.surplus > 0 for f in tied) or all(f.surplus < 0 for f in tied):  # R3
        sign = 1 if tied[0].surplus > 0 else -1
        if call.band_bp is None:
            return tied[-1] if sign > 0 else tied[0]
        assert reference is not None
        band = reference * (BASIS_POINTS + sign * call.band_bp)
        return call.at(clamp((2 * band + BASIS_POINTS) // (2 * BASIS_POINTS), tied))
    assert reference is not None or len(tied) == 1  # R4
    return call.at(clamp(reference, tied)) if reference is not None else tied[0]


# --- an instrument's auction


def reference_of(instrument: Instrument) -> int:
    """The mark to the nearest price step, halves up, within the limits."""
    unit = instrument.tick_scale * instrument.price_step
    steps = (2 * instrument.mark + unit) // (2 * unit)
    return max(instrument.low, min(steps * instrument.price_step, instrument.high))


def line_of(instrument: Instrument, side: int) -> list[Order]:
    """One side's orders in the order in which they would trade."""
    return [o for o in instrument.market if o.side == side] + instrument.side(side)


def beside(order: Order) -> Order | None:
    """The other of its group, if it waits for the same auction."""
    other = order.partner
    if other is None or other.instrument != order.instrument:
        return None
    return other if other.place in (Place.BOOK, Place.MARKET) else None


def crossed(order: Order) -> Order | None:
    """The other of its group, if it waits on the other side and the two could trade."""
    other = beside(order)
    if other is None or other.side == order.side:
        return None
    return other if reaches(order, other.price) else None


def lots_of(instrument: Instrument, order: Order) -> int:
    """Those that count for the price: of two of a group those that only one may trade."""
    other = beside(order)
    if other is not None and other.side == order.side:
        line = line_of(instrument, order.side)
        return 0 if line.index(other) < line.index(order) else order.leaves
    other = crossed(order)
    return order.leaves if other is None else max(0, order.leaves - other.leaves)


def find(instrument: Instrument) -> Found:
    market = [0, 0]
    for order in instrument.market:
        market[order.side] += lots_of(instrument, order)
    bids = [(o.price, lots_of(instrument, o)) for o in instrument.bids]
    asks = [(o.price, lots_of(instrument, o)) for o in instrument.asks]
    return clear(Call(bids, asks, market[0], market[1], reference_of(instrument)))


def tell_found(m: Market, instrument: Instrument, kind: EventKind, found: Found) -> None:
    m.emit(
        kind,
        instrument=instrument.number,
        price=found.price or 0,
        leaves=int(found.price is not None),
        a=found.executed,
        b=found.surplus,
    )


def indicate(m: Market, c: Record) -> None:
    if c.instrument >= len(m.instruments):
        raise Rejected(Reason.UNKNOWN_INSTRUMENT, len(m.instruments), c.instrument)
    instrument = m.instruments[c.instrument]
    if instrument.state not in COLLECTING:
        raise Rejected(Reason.STATE, TradingState.AUCTION, instrument.state)
    tell_found(m, instrument, EventKind.AUCTION_INDICATED, find(instrument))


class Queue:
    """One side's orders that may trade at the price, first to last, and what its levels lost."""

    def __init__(self, m: Market, instrument: Instrument, side: int, price: int) -> None:
        self.m = m
        better = [o for o in instrument.side(side) if reaches(o, price)]
        self.orders = [o for o in instrument.market if o.side == side] + better
        self.level: tuple[bool, int] | None = None
        self.taken = 0

    def head(self) -> Order | None:
        """The next that still has leaves."""
        while self.orders and not self.orders[0].leaves:
            self.orders.pop(0)
        order = self.orders[0] if self.orders else None
        level = (order.place is Place.MARKET, order.price) if order else None
        if level != self.level:
            self.tell()
            self.level = level
        if order:
            self.side, self.instrument = order.side, order.instrument
        return order

    def tell(self) -> None:
        if self.level and self.taken:
            self.m.emit(
                EventKind.LEVEL_TAKEN,
                flags=EventFlag.SELL if self.side else 0,
                instrument=self.instrument,
                price=self.level[1],
                a=self.taken,
            )
        self.taken = 0


def reaches(order: Order, price: int) -> bool:
    return order.price >= price if order.side == Side.BUY else order.price <= price


def half_fees(instrument: Instrument, lots: int) -> tuple[int, int]:
    """What buyer and seller pay: together what a maker and a taker would."""
    both = lots * (instrument.maker_fee + instrument.taker_fee)
    return both - both // 2, both // 2


def trade(m: Market, buy: Order, sell: Order, price: int) -> None:
    instrument = m.instruments[buy.instrument]
    lots = min(buy.leaves, sell.leaves)
    buy_fee, sell_fee = half_fees(instrument, lots)
    for order in (buy, sell):
        order.hidden -= min(order.hidden, lots)
    book_side(m, buy, lots, price, buy_fee)
    book_side(m, sell, lots, price, sell_fee)
    m.emit(
        EventKind.TRADE,
        flags=EventFlag.AUCTION,
        instrument=instrument.number,
        account=buy.account,
        order_id=buy.order_id,
        price=price,
        quantity=lots,
        leaves=buy.leaves,
        key=(sell.order_id, sell.account | sell.leaves << 32),
        a=-buy_fee,
        b=-sell_fee,
    )
    for order in (buy, sell):
        count_quote(m, order, lots)
        tell_group(m, order)
    for order in (buy, sell):
        if order.leaves == 0:
            take_out(m, order, Place.FILLED)
            m.forget_if_finished(order)


def lose_own(m: Market, order: Order, lots: int) -> None:
    """Lots meet others of their self-trade group. With all of an order that other goes of its own
    group on its side that the price did not count."""
    other = beside(order)
    lose(m, order, lots, CancelReason.SELF_TRADE, CancelReason.SELF_TRADE)
    if not order.leaves and other is not None and other.side == order.side:
        cancel_order(m, other, CancelReason.GROUP)


def part_crossed(m: Market, instrument: Instrument) -> None:
    """Buys and sells that are grouped and crossed lose what they would trade with each other."""
    for buy in line_of(instrument, Side.BUY):
        sell = crossed(buy)
        if sell is not None:
            lots = min(buy.leaves, sell.leaves)
            for order in (buy, sell):
                lose(m, order, lots, CancelReason.SELF_TRADE, CancelReason.SELF_TRADE)


def pair(m: Market, instrument: Instrument, price: int) -> int:
    """Buyers and sellers in their order; those of one self-trade group both lose the lots. Gives
    how many lots met."""
    met = 0
    queues = [Queue(m, instrument, side, price) for side in (Side.BUY, Side.SELL)]
    while True:
        buy, sell = queues[0].head(), queues[1].head()
        if buy is None or sell is None:
            break
        lots = min(buy.leaves, sell.leaves)
        met += lots
        if own(m, buy, sell):
            for order in (buy, sell):
                lose_own(m, order, lots)
        else:
            shown = buy.shown, sell.shown
            trade(m, buy, sell, price)
            for queue, order, before in zip(queues, (buy, sell), shown, strict=True):
                queue.taken += before - order.shown
    for queue in queues:
        queue.tell()
    return met


def reprice(m: Market, order: Order, price: int) -> None:
    """What is left of a market order becomes a limit order at the auction's price."""
    m.tell(
        EventKind.ORDER_REPLACED,
        order,
        order.leaves + order.executed,
        price=price,
        leaves=order.shown,
        reason=REPRICED,
        a=order.price,
        b=order.shown | order.hidden << 32,
    )
    hidden = order.hidden
    take_out(m, order, Place.INCOMING)
    order.price = order.limit = price
    put_in(m, order)
    order.hidden = hidden


def may_join(instrument: Instrument, order: Order) -> bool:
    """Whether a stop is an order that an auction takes."""
    inside = instrument.low <= order.price <= instrument.high
    return order.tif in RESTS and not order.market and inside


def join_stops(m: Market, instrument: Instrument, stops: list[Order]) -> bool:
    """Those of the stops join that may; whether there was one."""
    joining = [order for order in stops if may_join(instrument, order)]
    for order in joining:
        take_out(m, order, Place.INCOMING)
        order.features &= ~OrderFeature.STOP
        row = m.tell(EventKind.ORDER_ELECTED, order, order.leaves, b=order.trigger)
        collect(m, order, row, market=False)
    return bool(joining)


def find_with_stops(m: Market, instrument: Instrument) -> Found:
    """The price, and again as long as stops that it reaches join. Others wait for a trade."""
    join_stops(m, instrument, instrument.elected)
    for _ in range(Limit.AUCTION_ROUNDS):
        found = find(instrument)
        if found.price is None:
            return found
        if not join_stops(m, instrument, reached_by(instrument, found.price)):
            return found
    return find(instrument)


def uncross(m: Market, instrument: Instrument) -> None:
    """End the collecting: trade at one price, and leave a book that is not crossed."""
    if not instrument.collected:
        return
    found = find_with_stops(m, instrument)
    tell_found(m, instrument, EventKind.AUCTION_UNCROSSED, found)
    part_crossed(m, instrument)
    if found.price is not None:
        assert pair(m, instrument, found.price) == found.executed, "an auction trades what it said"
    for side in (Side.BUY, Side.SELL):
        for order in [o for o in instrument.market if o.side == side]:
            if order.tif == TimeInForce.GFA:
                cancel_order(m, order, CancelReason.AUCTION_ENDED)
            elif found.price is None:
                cancel_order(m, order, CancelReason.MARKET_REMAINDER)
            else:
                reprice(m, order, found.price)
    for order in [*instrument.bids, *instrument.asks, *instrument.dormant]:
        if order.tif == TimeInForce.GFA:
            cancel_order(m, order, CancelReason.AUCTION_ENDED)
    instrument.collected = False
    bids, asks = instrument.bids, instrument.asks
    assert not (bids and asks) or bids[0].price < asks[0].price, "an auction leaves no crossed book"
