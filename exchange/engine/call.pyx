"""The price of an auction: rules R1 to R4 of docs/reference/engine.md, in one pass over the levels.

Candidates are the prices that carry limit orders, or the reference if there are none. They are
weighed in ascending order, each with the lots that would buy and sell there. Nothing here changes
the book.
"""

from exchange.engine.book cimport occupied_above, occupied_below, price_of, slot_of
from exchange.engine.groups cimport lots_called
from exchange.engine.ladder cimport lowest
from exchange.engine.state cimport (
    Auction, Instrument, Level, Market, NO_ASK, NO_BID, WATCH_HIDDEN, WATCH_QUOTES, auction_of,
    i128, i32, i64, likely, u32,
)

cdef enum:
    BASIS_POINTS = 10_000
    NO_BAND = -1

cdef struct Search:  # the candidates that are tied after R1 and R2
    i64 executed, least  # their lots executed and their absolute surplus
    i64 low, high  # the lowest and the highest of their prices
    i64 low_surplus, high_surplus
    bint buys, sells  # not all of them have sellers over; not all have buyers over


cdef inline void weigh(Search* s, i64 price, i64 buys, i64 sells) noexcept nogil:
    """Weigh one candidate, higher than all before it, by R1 and R2."""
    cdef i64 executed = buys if buys < sells else sells
    cdef i64 surplus = buys - sells
    cdef i64 size = surplus if surplus >= 0 else -surplus
    if executed == 0 or executed < s.executed:
        return
    if executed > s.executed or size < s.least:
        s.executed = executed
        s.least = size
        s.low = price
        s.low_surplus = surplus
        s.buys = False
        s.sells = False
    elif size > s.least:
        return
    s.high = price
    s.high_surplus = surplus
    if surplus >= 0:
        s.buys = True
    if surplus <= 0:
        s.sells = True


cdef inline i64 clamp(i64 price, i64 low, i64 high) noexcept nogil:
    return low if price < low else high if price > high else price


cdef i64 decide(Search* s, i64 reference, i64 band_bp) noexcept nogil:
    """The price among the tied, by R3 and R4. `band_bp`: see `clearing_price`."""
    cdef i128 banded
    if s.buys and s.sells:
        return clamp(reference, s.low, s.high)
    if band_bp == NO_BAND:
        return s.high if s.buys else s.low
    banded = <i128>reference * (BASIS_POINTS + (band_bp if s.buys else -band_bp))
    banded = 2 * banded + BASIS_POINTS
    reference = <i64>(banded / (2 * BASIS_POINTS))
    if banded < 0 and reference * <i128>(2 * BASIS_POINTS) != banded:
        reference -= 1  # a half is rounded up on either side of zero
    return clamp(reference, s.low, s.high)


cdef i64 reference_of(Instrument* book) noexcept nogil:
    """The mark to the nearest price step, halves up, within the limits."""
    cdef i128 unit = <i128>book.tick_scale * book.price_step
    cdef i128 twice = 2 * <i128>book.mark + unit
    cdef i64 steps = <i64>(twice / (2 * unit))
    if twice < 0 and steps * (2 * unit) != twice:
        steps -= 1
    return clamp(steps * book.price_step, book.low, book.high)


cdef i32 at_or_above(Instrument* ladder, i32 at) noexcept nogil:
    """The lowest occupied slot from `at` on."""
    if ladder.bits[at >> 6] >> (at & 63) & 1:
        return at
    return occupied_above(ladder, at)


cdef inline i64 lots_in(Market* m, Instrument* book, Level* level) noexcept nogil:
    """The lots of a level or queue that count for the price, hidden ones too: see `lots_called`."""
    cdef i64 lots = 0
    cdef u32 slot
    if likely(not book.watched & (WATCH_HIDDEN | WATCH_QUOTES)):
        return level.quantity
    slot = level.head
    while slot:
        lots += lots_called(m, slot)
        slot = m.orders[slot].next
    return lots


cdef i64 lots_bid_from(Market* m, Instrument* book, i32 at) noexcept nogil:
    """Lots of the bids at slot `at` and above."""
    cdef i32 level = book.best[0]
    cdef i64 lots = 0
    while level != NO_BID and level >= at:
        lots += lots_in(m, book, &book.levels[level])
        level = occupied_below(book, level)
    return lots


cdef void count_at(Market* m, Instrument* book, Instrument* asks, i32 at,
                   i64* buys, i64* sells) noexcept nogil:
    """Add the limit orders that would trade at slot `at`."""
    cdef i32 level = asks.best[1]
    buys[0] += lots_bid_from(m, book, at)
    while level <= at:
        sells[0] += lots_in(m, book, &asks.levels[level])
        level = occupied_above(asks, level)


cdef void search(Market* m, Instrument* book, Instrument* asks, i64 buys, i64 sells,
                 Search* s) noexcept nogil:
    """Weigh every candidate. `buys` and `sells` are the lots of market orders; without any, only
    prices from the best ask to the best bid can trade, and no others are weighed."""
    cdef i32 low = asks.best[1]
    cdef i32 high = book.best[0]
    cdef i32 bid, ask, at
    if buys or sells:
        low = lowest(book) if lowest(book) < low else low
        bid = asks.slots - 1
        if not asks.bits[bid >> 6] >> (bid & 63) & 1:
            bid = occupied_below(asks, bid)
        high = bid if bid > high else high
    if low > high:
        return
    buys += lots_bid_from(m, book, low)
    bid = at_or_above(book, low)
    ask = at_or_above(asks, low)
    while True:
        at = bid if bid < ask else ask
        if at > high:
            return
        if ask == at:
            sells += lots_in(m, book, &asks.levels[at])
            ask = occupied_above(asks, at)
        weigh(s, price_of(book, at), buys, sells)
        if bid == at:
            buys -= lots_in(m, book, &book.levels[at])
            bid = occupied_above(book, at)


cdef Found find_price(Market* m, Instrument* book) noexcept nogil:
    """Price, lots and surplus at which the collected orders would trade; all 0 if none would."""
    cdef Auction* a = auction_of(m, book)
    cdef i64 buys = lots_in(m, book, &a.market[0])
    cdef i64 sells = lots_in(m, book, &a.market[1])
    cdef i64 reference = reference_of(book)
    cdef Search s = Search(0, 0, 0, 0, 0, 0, False, False)
    cdef Found found = Found(0, 0, 0)
    if book.best[0] == NO_BID and a.asks.best[1] == NO_ASK:
        weigh(&s, reference, buys, sells)
    else:
        search(m, book, &a.asks, buys, sells, &s)
    if s.executed == 0:
        return found
    found.price = decide(&s, reference, NO_BAND)
    found.executed = s.executed  # a price between two tied ones executes as many lots
    if found.price == s.low:
        found.surplus = s.low_surplus
    elif found.price == s.high:
        found.surplus = s.high_surplus
    else:
        count_at(m, book, &a.asks, slot_of(book, found.price), &buys, &sells)
        found.surplus = buys - sells
    return found


def clearing_price(bids, asks, market_buy, market_sell, reference=None,
                   reference_is_candidate=False, band_bp=None):
    """The rule alone: (price or None, executed, surplus) of bids and asks as (price, lots).

    A level of no lots is a candidate without orders. `band_bp`: a surplus on one side takes the
    reference moved by so many basis points instead of the last tied price.
    """
    cdef Search s = Search(0, 0, 0, 0, 0, 0, False, False)
    cdef i64 price, buys, sells
    candidates = {price for price, _ in (*bids, *asks)}
    if reference is not None and (reference_is_candidate or not candidates):
        candidates.add(reference)

    def at(price):
        return (market_buy + sum(lots for p, lots in bids if p >= price),
                market_sell + sum(lots for p, lots in asks if p <= price))

    for price in sorted(candidates):
        buys, sells = at(price)
        weigh(&s, price, buys, sells)
    if s.executed == 0:
        return None, 0, 0
    if reference is None and (band_bp is not None or (s.buys and s.sells and s.low != s.high)):
        raise ValueError("the tied prices need a reference")
    price = decide(&s, reference or 0, NO_BAND if band_bp is None else band_bp)
    buys, sells = at(price)
    return price, min(buys, sells), buys - sells
