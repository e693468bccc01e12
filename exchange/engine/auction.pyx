"""Auctions: orders are collected, and may cross, then trade at one price in one pass.

While an instrument collects, its own ladder has only the buys and a second one the sells, so
neither is ever crossed; market orders wait beside them in two queues. The price: call.pyx. The pass
(pairing.pyx) takes buyers and sellers in order and pairs them until one side has no more; it never
looks back. Two orders of one self-trade group lose the lots that they would have traded: so the
pass takes the same lots off both sides whoever they belong to, and the book it leaves is not
crossed.
"""

from libc.stdlib cimport calloc, free

from exchange.engine.book cimport (
    append, occupied_above, occupied_below, occupy, rest, slot_of, unlink, vacate,
)
from exchange.engine.call cimport Found, find_price
from exchange.engine.events cimport blank, emit, event_of, what
from exchange.engine.extras cimport hide, stops_of
from exchange.engine.groups cimport are_crossed, beside
from exchange.engine.guards cimport rests
from exchange.engine.ladder cimport build_ladder
from exchange.engine.lifecycle cimport cancel_for, pick, reject, shrink, withdraw, work_aside
from exchange.engine.pairing cimport pair_off
from exchange.engine.risk cimport adverse_per_lot, rehold
from exchange.engine.state cimport (
    AT_MARKET, Auction, COLLECTED, Command, Event, Instrument, Level, Market, NO_ASK, NO_BID, Order,
    Position, Stops, UNPRICED, WATCH_AUCTION, WATCH_QUOTES, WATCH_STOPS, WORKING, auction_of,
    collects, ensure, i32, i64, is_featured, lots_of, order_id_of, prefetch, put_state,
    set_order_state, side_of, tif_of, u32, u8,
)
from exchange.engine.stops cimport say_elected
from exchange.engine.triggers cimport add_trigger, remove_trigger
from exchange.engine.vocabulary cimport *

cdef enum:
    REPRICED = 2  # reason of ORDER_REPLACED: by an auction
    LANES = 8  # levels whose orders are walked in parallel


# --- collecting

cdef void set_states(Market* m, Instrument* ladder, u8 state) noexcept nogil:
    """Set the state of all sells of a ladder. Orders of a level are a linked list scattered in
    memory, so several levels are walked in parallel: their cache misses overlap."""
    cdef u32[LANES] lanes
    cdef u32 count = 0
    cdef u32 i
    cdef i32 at = ladder.best[1]
    cdef Order* o
    while at != NO_ASK and count < LANES:
        lanes[count] = ladder.levels[at].head
        count += 1
        at = occupied_above(ladder, at)
    while count:
        i = 0
        while i < count:
            o = &m.orders[lanes[i]]
            set_order_state(o, state)
            lanes[i] = o.next
            if lanes[i] == 0 and at != NO_ASK:
                lanes[i] = ladder.levels[at].head
                at = occupied_above(ladder, at)
            elif lanes[i] == 0:
                count -= 1
                lanes[i] = lanes[count]
            prefetch(&m.orders[lanes[i]])
            i += 1


cdef void move_sells(Market* m, Instrument* source, Instrument* target, u8 state) noexcept nogil:
    """Move the sells' levels to the other ladder as they are, and set their orders' state."""
    cdef i32 at = source.best[1]
    set_states(m, source, state)
    target.best[1] = at
    source.best[1] = NO_ASK
    while at != NO_ASK:
        target.levels[at] = source.levels[at]
        source.levels[at] = Level(0, 0, 0)
        vacate(source, at)
        occupy(target, at)
        at = occupied_above(source, at)


cdef bint collect(Market* m, Instrument* book) noexcept nogil:
    """Begin to collect orders for an auction. False without memory: the engine stops."""
    cdef Auction* a
    if collects(book):
        return True
    a = <Auction*>calloc(1, sizeof(Auction))
    if a == NULL:
        m.broken = 1
        return False
    a.asks = book[0]
    if not build_ladder(m, &a.asks):
        free(a)
        return False
    m.auctions[book - m.instruments] = a
    book.watched |= WATCH_AUCTION
    move_sells(m, book, &a.asks, COLLECTED)
    return True


cdef void stop_collecting(Market* m, Instrument* book) noexcept nogil:
    """End collecting: one ladder again. The book is not crossed and no market orders are left."""
    cdef Auction* a = auction_of(m, book)
    if not collects(book):
        return
    ensure(m, a.market[0].head == 0 and a.market[1].head == 0)
    ensure(m, book.best[0] < a.asks.best[1])
    move_sells(m, &a.asks, book, WORKING)
    free(a.asks.levels)
    free(a.asks.bits)
    free(a)
    m.auctions[book - m.instruments] = NULL
    book.watched &= ~<u32>WATCH_AUCTION
    put_state(m, book, book.state)


cdef u32 join(Market* m, Instrument* book, u32 slot, bint unpriced) noexcept nogil:
    """Have an order that is in no queue wait for the auction with all its leaves; `unpriced`: as a
    market order. Returns what it shows."""
    cdef Auction* a = auction_of(m, book)
    cdef Order* o = &m.orders[slot]
    cdef u8 side = side_of(o)
    work_aside(m, book, slot)
    if is_featured(o):
        hide(m, slot)
    if tif_of(o) == TIME_IN_FORCE_GFA:
        a.good_for = True
    if unpriced:
        set_order_state(o, UNPRICED)
        append(m, &a.market[side], slot)
    else:
        set_order_state(o, COLLECTED if side else WORKING)
        rest(m, &a.asks if side else book, slot, side, slot_of(book, o.price))
    return o.leaves


cdef void cancel_unpriced(Market* m, Instrument* book) noexcept nogil:
    """The limits have moved: cancel the market orders that are held at an old far limit."""
    cdef Auction* a = auction_of(m, book)
    cdef i64[2] far = [book.high, book.low]
    cdef u32 slot, following
    cdef int side
    for side in range(2):
        slot = a.market[side].head
        while slot:
            following = m.orders[slot].next
            if m.orders[slot].price != far[side]:
                cancel_for(m, slot, CANCEL_REASON_LIMITS_MOVED)
            slot = following


cdef i64 orders_in(Market* m, Level* level) noexcept nogil:
    """How many orders are in a queue."""
    cdef u32 slot = level.head
    cdef i64 orders = 0
    while slot:
        orders += 1
        slot = m.orders[slot].next
    return orders


cdef i64 orders_crossed(Market* m, Instrument* book) noexcept nogil:
    """How many of the orders collected cross any of the other side, MARKET orders all of it, and
    how many stops there are that may join: these an auction may trade."""
    cdef Auction* a = auction_of(m, book)
    cdef Stops* stops = stops_of(m, book)
    cdef i64 orders = orders_in(m, &stops.waiting) + orders_in(m, &stops.elected)
    cdef i32 low = 0 if a.market[1].head else a.asks.best[1]
    cdef i32 high = <i32>book.slots - 1 if a.market[0].head else book.best[0]
    cdef i32 at
    if low <= high:
        orders += orders_in(m, &a.market[0]) + orders_in(m, &a.market[1])
    at = book.best[0]
    while at != NO_BID and at >= low:
        orders += orders_in(m, &book.levels[at])
        at = occupied_below(book, at)
    at = a.asks.best[1]
    while at <= high:
        orders += orders_in(m, &a.asks.levels[at])
        at = occupied_above(&a.asks, at)
    return orders


cdef i64 auction_size(Market* m, Instrument* book) noexcept nogil:
    """The book's orders, of which those that an auction may trade count three times: besides its
    trade, such an order may be elected, and be the last of its level. Dormant ones count twice:
    they may return, and trade. More than LIMIT_BOOK_ORDERS could give trades an index that match
    numbers have no room for."""
    cdef i64 orders = book.working_orders
    if 3 * orders <= LIMIT_BOOK_ORDERS:
        return orders
    if collects(book):
        orders += 2 * orders_crossed(m, book)
    return orders + orders_in(m, &book.dormant)


# --- what is left after the trades

cdef void reprice(Market* m, Instrument* book, u32 slot, i64 price) noexcept nogil:
    """What is left of a market order becomes a limit order at the auction's price."""
    cdef Auction* a = auction_of(m, book)
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef u8 side = side_of(o)
    cdef u32 lots = lots_of(m, slot)
    cdef Event* e = emit(m, what(EVENT_KIND_ORDER_REPLACED, EVENT_FLAG_RESTING | side << 1,
                                 REPRICED), p.who)
    e.order_id = order_id_of(m, slot)
    e.price = price
    e.quantity = lots + o.executed
    e.leaves = o.leaves
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.price
    e.b = o.leaves | <i64>(lots - o.leaves) << 32
    unlink(m, &a.market[side], o)
    p.adverse += lots * (adverse_per_lot(book, side, price)
                         - adverse_per_lot(book, side, o.price))
    rehold(m, book, p)
    o.price = price
    set_order_state(o, COLLECTED if side else WORKING)
    rest(m, &a.asks if side else book, slot, side, slot_of(book, price))


cdef void end_market_orders(Market* m, Instrument* book, Found* found) noexcept nogil:
    cdef Auction* a = auction_of(m, book)
    cdef u32 slot, following
    cdef int side
    for side in range(2):
        slot = a.market[side].head
        while slot:
            following = m.orders[slot].next
            if tif_of(&m.orders[slot]) == TIME_IN_FORCE_GFA:
                cancel_for(m, slot, CANCEL_REASON_AUCTION_ENDED)
            elif found.executed == 0:
                cancel_for(m, slot, CANCEL_REASON_MARKET_REMAINDER)
            else:
                reprice(m, book, slot, found.price)
            slot = following


cdef void end_queue(Market* m, u32 slot) noexcept nogil:
    """Cancel the GFA orders of a queue from this one on, in order."""
    cdef u32 following
    while slot:
        following = m.orders[slot].next
        if tif_of(&m.orders[slot]) == TIME_IN_FORCE_GFA:
            cancel_for(m, slot, CANCEL_REASON_AUCTION_ENDED)
        slot = following


cdef void end_good_for(Market* m, Instrument* ladder, u8 side) noexcept nogil:
    """Cancel the GFA orders of one ladder, best level first, oldest first."""
    cdef i32 at = ladder.best[side]
    while NO_BID < at < NO_ASK:
        end_queue(m, ladder.levels[at].head)
        at = occupied_above(ladder, at) if side else occupied_below(ladder, at)


cdef void say_found(Market* m, Instrument* book, u8 kind, Found* found) noexcept nogil:
    cdef Event* e = blank(m, kind, 0, 0, <u32>(book - m.instruments), 0)
    e.price = found.price
    e.leaves = found.executed != 0
    e.a = found.executed
    e.b = found.surplus


cdef Found find_with_stops(Market* m, Instrument* book) noexcept nogil:
    """Find the price, let the stops that it reaches join, and find it again: until none joins or
    LIMIT_AUCTION_ROUNDS are spent. Stops that may not join wait on: only a trade elects them, since
    the last price may be one that does not reach them."""
    cdef Found found
    cdef Stops* stops = stops_of(m, book)
    cdef u32 rounds = 0
    cdef u32 i
    join_elected(m, book)
    m.picked_count = 0
    while True:
        found = find_price(m, book)
        if (found.executed == 0 or rounds == LIMIT_AUCTION_ROUNDS
                or not book.watched & WATCH_STOPS or not join_reached(m, book, found.price)):
            break
        rounds += 1
    for i in range(m.picked_count):
        add_trigger(m, stops, m.picked[i])
    return found


cdef void join_one(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """A stop joins: ORDER_ELECTED."""
    withdraw(m, book, &m.positions[m.orders[slot].position], slot)
    say_elected(m, slot)
    event_of(m, m.index - 1).leaves = join(m, book, slot, False)


cdef void join_elected(Market* m, Instrument* book) noexcept nogil:
    """Let stops join that were elected before, in the order of their election."""
    cdef u32 slot = stops_of(m, book).elected.head
    cdef u32 following
    while slot:
        following = m.orders[slot].next
        if may_join(m, book, slot):
            join_one(m, book, slot)
        slot = following


cdef bint join_reached(Market* m, Instrument* book, i64 price) noexcept nogil:
    """Let the waiting stops that the price reaches join, in the order of `elect`; whether any did.
    Those that may not join leave the heap until the price is found, and are picked."""
    cdef Stops* stops = stops_of(m, book)
    cdef bint joined = False
    cdef u32 slot
    cdef u8 side
    for side in range(2):
        slot = stops.root[side]
        while slot and (m.extras[slot].trigger >= price if side
                        else m.extras[slot].trigger <= price):
            if may_join(m, book, slot):
                join_one(m, book, slot)
                joined = True
            else:
                remove_trigger(m, stops, slot)
                pick(m, slot)
            slot = stops.root[side]
    return joined


cdef bint may_join(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """Whether a stop may join an auction: priced within the limits, and may rest."""
    cdef Order* o = &m.orders[slot]
    return (rests(tif_of(o)) and not m.extras[slot].features & AT_MARKET
            and book.low <= o.price <= book.high)


cdef void lose_lots(Market* m, u32 slot, u32 lots) noexcept nogil:
    if lots < lots_of(m, slot):
        shrink(m, slot, lots, CANCEL_REASON_SELF_TRADE)
    else:
        cancel_for(m, slot, CANCEL_REASON_SELF_TRADE)


cdef void part_queue(Market* m, u32 slot) noexcept nogil:
    """For each buy of a queue, from this slot on, that is grouped with a sell which it crosses:
    both lose the lots that they would trade with each other."""
    cdef u32 following, sell, lots
    while slot:
        following = m.orders[slot].next
        sell = beside(m, slot)
        if (sell and side_of(&m.orders[sell])
                and are_crossed(&m.orders[slot], &m.orders[sell])):
            lots = lots_of(m, slot)
            if lots_of(m, sell) < lots:
                lots = lots_of(m, sell)
            lose_lots(m, slot, lots)
            lose_lots(m, sell, lots)
        slot = following


cdef void part_crossed(Market* m, Instrument* book) noexcept nogil:
    """`part_queue` for all buys, in order; the price did not count the lots that are lost here."""
    cdef i32 at = book.best[0]
    if not book.watched & WATCH_QUOTES:
        return
    part_queue(m, auction_of(m, book).market[0].head)
    while at != NO_BID:
        part_queue(m, book.levels[at].head)
        at = occupied_below(book, at)


cdef void uncross(Market* m, Instrument* book) noexcept nogil:
    """Hold the auction, if the instrument collects: AUCTION_UNCROSSED, trades, one ladder again."""
    cdef Found found
    if not collects(book):
        return
    found = find_with_stops(m, book)
    say_found(m, book, EVENT_KIND_AUCTION_UNCROSSED, &found)
    part_crossed(m, book)
    if found.executed:
        pair_off(m, book, found.price)
    end_market_orders(m, book, &found)
    if auction_of(m, book).good_for:
        end_good_for(m, book, 0)
        end_good_for(m, &auction_of(m, book).asks, 1)
        end_queue(m, book.dormant.head)
    stop_collecting(m, book)


cdef void indicate(Market* m, Command* c) noexcept nogil:
    """INDICATE: where the orders collected so far would trade now, stops aside; changes nothing."""
    cdef Instrument* book
    cdef Found found
    if c.instrument >= m.instrument_count:
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return
    book = &m.instruments[c.instrument]
    if book.state != TRADING_STATE_PRE_OPEN and book.state != TRADING_STATE_AUCTION:
        reject(m, c, REASON_STATE, TRADING_STATE_AUCTION, book.state)
        return
    found = find_price(m, book)
    say_found(m, book, EVENT_KIND_AUCTION_INDICATED, &found)
