"""An incoming order's way through the book: price, then time, at the resting order's price.

Buy and sell are one code: `side` indexes what is ours, `1 - side` what is opposite.
"""

from exchange.engine.book cimport (
    next_best, occupied_above, occupied_below, price_of, reaches, rest, vacate,
)
from exchange.engine.ids cimport retire
from exchange.engine.lifecycle cimport cancel_order, say_cancelled
from exchange.engine.risk cimport adverse_per_lot, execute, rehold, release
from exchange.engine.state cimport (
    CANCELLED, Event, FILLED, Instrument, Level, Market, Order, Position, WORKING, emit, i32, i64,
    likely, order_id_of, u16, u32, u64, u8, unlikely,
)
from exchange.engine.vocabulary cimport *


cdef i64 reachable(Market* m, Instrument* book, Incoming* t, u32 wanted) noexcept nogil:
    """Lots a fill-or-kill order could trade, counted until `wanted` are found."""
    cdef u32 group = m.positions[t.position].group
    cdef u8 other = 1 - t.side
    cdef i64 found = 0
    cdef i32 at = book.best[other]
    cdef u32 slot
    while at >= 0 and reaches(t.side, t.limit, at):
        slot = book.levels[at].head
        while slot:
            if m.positions[m.orders[slot].position].group != group:
                found += m.orders[slot].leaves
                if found >= wanted:
                    return found
            elif t.stp != SELF_TRADE_CANCEL_OLDEST:
                return found
            slot = m.orders[slot].next
        at = occupied_above(book, at) if other else occupied_below(book, at)
    return found


cdef void say_reduced(Market* m, Order* o, u64 order_id, u32 lots, u32 leaves,
                      bint resting) noexcept nogil:
    cdef Position* p = &m.positions[o.position]
    cdef u8 flags = EVENT_FLAG_SELL if o.side else 0
    cdef Event* e
    if resting:
        flags |= EVENT_FLAG_RESTING
    e = emit(m, EVENT_KIND_ORDER_REDUCED, flags, CANCEL_REASON_SELF_TRADE, p.instrument, p.account)
    e.order_id = order_id
    e.price = o.price
    e.quantity = lots
    e.leaves = leaves
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.session
    e.b = 0


cdef void prevent_self_trade(Market* m, Instrument* book, Level* level, u32 resting,
                             Incoming* t) noexcept nogil:
    """The incoming order met one of its own group: its mode decides who loses lots."""
    cdef Order* maker = &m.orders[resting]
    cdef Order* taker = &m.orders[t.slot]
    cdef u32 lots
    if t.stp == SELF_TRADE_DECREMENT:
        lots = t.leaves if t.leaves < maker.leaves else maker.leaves
        if lots == maker.leaves:
            cancel_order(m, resting, CANCEL_REASON_SELF_TRADE)
        else:
            maker.leaves -= lots
            level.quantity -= lots
            say_reduced(m, maker, order_id_of(m, resting), lots, maker.leaves, True)
            release(m, book, &m.positions[maker.position], maker.side, maker.price, lots)
        t.leaves -= lots
        if t.leaves:
            say_reduced(m, taker, t.order_id, lots, t.leaves, False)
        else:
            say_cancelled(m, taker, t.order_id, lots, CANCEL_REASON_SELF_TRADE, False)
            t.done = True
        return
    if t.stp != SELF_TRADE_CANCEL_NEWEST:
        cancel_order(m, resting, CANCEL_REASON_SELF_TRADE)
    if t.stp != SELF_TRADE_CANCEL_OLDEST:
        t.self_cancelled = t.leaves
        t.leaves = 0


cdef inline void trade(Market* m, Instrument* book, Level* level, Incoming* t, u32 resting,
                       Order* maker, Position* p, i64 price) noexcept nogil:
    """One match: the event, the resting side's books; the incoming side is summed in `t`."""
    cdef u32 lots = t.leaves if t.leaves < maker.leaves else maker.leaves
    cdef i64 value = lots * (price * book.tick_value)
    cdef i64 fee = lots * book.maker_fee
    cdef Event* e = emit(m, EVENT_KIND_TRADE, EVENT_FLAG_SELL if t.side else 0, 0, t.instrument,
                         m.positions[t.position].account)
    t.leaves -= lots
    t.lots += lots
    t.value += value
    maker.leaves -= lots
    maker.executed += lots
    level.quantity -= lots
    e.order_id = t.order_id
    e.price = price
    e.quantity = lots
    e.leaves = t.leaves
    e.key_lo = order_id_of(m, resting)
    e.key_hi = <u64>maker.leaves << 32 | p.account
    e.a = -(lots * book.taker_fee)
    e.b = -fee
    t.fees -= e.a
    t.house += fee - e.a
    p.working[maker.side] -= lots
    p.adverse -= lots * adverse_per_lot(book, maker.side, price)
    execute(m, book, p, maker.side, lots, value, fee)


cdef void match(Market* m, Instrument* book, Incoming* t) noexcept nogil:
    """Trade until the incoming order is done or nothing within its limit is left."""
    cdef u8 other = 1 - t.side
    cdef u32 group = m.positions[t.position].group
    cdef i32 at
    cdef i64 price
    cdef u32 slot
    cdef Level* level
    cdef Order* maker
    cdef Position* p
    while t.leaves:
        at = book.best[other]
        if at < 0 or not reaches(t.side, t.limit, at):
            return
        level = &book.levels[at]
        price = price_of(book, at)
        while True:
            slot = level.head
            maker = &m.orders[slot]
            p = &m.positions[maker.position]
            if unlikely(p.group == group):
                prevent_self_trade(m, book, level, slot, t)
                break  # the level may be gone
            trade(m, book, level, t, slot, maker, p, price)
            if maker.leaves:
                break
            level.head = maker.next
            m.accounts[p.account].open_orders -= 1
            book.working_orders -= 1
            if level.head:
                m.orders[level.head].prev = 0
            retire(m, slot, FILLED)
            if level.head == 0:
                level.tail = 0
                vacate(book, at)
                next_best(book, other, at)
                break
            if t.leaves == 0:
                break


cdef void run(Market* m, Instrument* book, Incoming* t, u64 head, u16 remainder) noexcept nogil:
    """Match an order that is in no book, then rest what is left or cancel it for `remainder`.

    `head` is the number of the event that announced the order: its leaves become what rests.
    """
    cdef Order* o = &m.orders[t.slot]
    cdef Position* p = &m.positions[t.position]
    if remainder != CANCEL_REASON_FOK_UNFILLED or reachable(m, book, t, t.leaves) >= t.leaves:
        match(m, book, t)
    o.executed += <u32>t.lots
    o.leaves = t.leaves
    if t.leaves and remainder == 0:
        o.state = WORKING
        m.events[head].leaves = t.leaves
        book.working_orders += 1
        m.accounts[p.account].open_orders += 1
        p.working[t.side] += t.leaves
        p.adverse += t.leaves * adverse_per_lot(book, t.side, o.price)
        rest(m, book, t.slot, t.limit)
    elif t.self_cancelled:
        say_cancelled(m, o, t.order_id, t.self_cancelled, CANCEL_REASON_SELF_TRADE, False)
        retire(m, t.slot, CANCELLED)
    elif t.leaves:
        say_cancelled(m, o, t.order_id, t.leaves, remainder, False)
        retire(m, t.slot, CANCELLED)
    else:
        retire(m, t.slot, CANCELLED if t.done else FILLED)
    if t.lots:
        execute(m, book, p, t.side, t.lots, t.value, t.fees)
        m.accounts[0].cash += t.house
        m.members[m.accounts[0].member].cash += t.house
    else:
        rehold(m, book, p)
