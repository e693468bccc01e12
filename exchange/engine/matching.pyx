"""Matching: an incoming order trades in price-time priority, at the resting order's price.

One code serves buys and sells: `side` is the incoming order's and indexes its own side of the book,
`1 - side` the opposite one. The functions that take `special` are compiled twice: a plain order in
a book that is not watched does not pay for what special orders and watched books need.
"""

from exchange.engine.book cimport (
    append, next_best, price_of, reaches, rest, unlink, vacate,
)
from exchange.engine.combinations cimport charge_legs
from exchange.engine.credits cimport recredit
from exchange.engine.events cimport emit, event_of, what
from exchange.engine.extras cimport hide
from exchange.engine.ids cimport retire, retire_working
from exchange.engine.legs cimport match_watched
from exchange.engine.lifecycle cimport cancel_for, say_gone, shrink, tell_group
from exchange.engine.protection cimport count_quote
from exchange.engine.reach cimport reachable
from exchange.engine.risk cimport (
    adverse_per_lot, execute, execute_plainly, pay_house, rehold, rehold_plainly,
)
from exchange.engine.state cimport (
    CANCELLED, Event, FILLED, Instrument, Level, Market, Order, Position, WATCH_CREDIT,
    WATCH_IMPLIED, WATCH_LEGS, WORKING, account_of, i32, i64, is_featured, lots_of, order_id_of,
    put_halves, set_order_state, side_of, stp_of, u16, u32, u64, u8, unlikely,
)
from exchange.engine.vocabulary cimport *


cdef void prevent_self_trade(Market* m, u32 resting, Incoming* t) noexcept nogil:
    """The incoming order met one of its own self-trade group: its mode decides which loses lots."""
    cdef Order* taker = &m.orders[t.slot]
    cdef u8 kind
    cdef u32 lots, said
    if t.stp == SELF_TRADE_DECREMENT:
        lots = lots_of(m, resting)
        if lots <= t.leaves:
            cancel_for(m, resting, CANCEL_REASON_SELF_TRADE)
        else:
            lots = t.leaves
            shrink(m, resting, lots, CANCEL_REASON_SELF_TRADE)
        t.leaves -= lots
        t.done = t.leaves == 0
        kind = EVENT_KIND_ORDER_CANCELLED if t.done else EVENT_KIND_ORDER_REDUCED
        said = what(kind, t.side << 1, CANCEL_REASON_SELF_TRADE)
        say_gone(emit(m, said, t.who), taker, t.order_id, lots, t.leaves)
        return
    if t.stp != SELF_TRADE_CANCEL_NEWEST:
        cancel_for(m, resting, CANCEL_REASON_SELF_TRADE)
    if t.stp != SELF_TRADE_CANCEL_OLDEST:
        t.self_cancelled = t.leaves
        t.leaves = 0


cdef inline void trade(Market* m, Instrument* book, Level* level, Incoming* t, u8 side,
                       Order* maker, Position* p, u32 slot, i64 price, bint special) noexcept nogil:
    """One match: emit TRADE and book the resting side; the incoming side is summed up in `t`."""
    cdef u32 lots = t.leaves if t.leaves < maker.leaves else maker.leaves
    cdef i64 value = lots * (price * book.tick_value)
    cdef i64 given = -<i64>lots
    cdef i64 fee = given * book.maker_fee
    cdef Event* e = emit(m, what(EVENT_KIND_TRADE, <u32>side << 1, 0), t.who)
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
    put_halves(&e.key_lo, maker.generation, slot)
    put_halves(&e.key_hi, maker.leaves, account_of(p))
    e.a = given * book.taker_fee
    e.b = fee
    p.exposure[1 - side] -= lots  # they worked; `execute_plainly` adds them to net
    execute_plainly(m, book, p, 1 - side, lots, value, -fee, True)
    if special and unlikely(book.watched & WATCH_CREDIT):
        recredit(m, p.owner)


cdef void refill(Market* m, Level* level, u32 slot) noexcept nogil:
    """An iceberg's shown lots are gone: show its next part at the back (ORDER_REFILLED)."""
    cdef Order* o = &m.orders[slot]
    cdef u32 lots = m.extras[slot].hidden
    cdef Position* p = &m.positions[o.position]
    cdef Event* e
    unlink(m, level, o)
    m.extras[slot].hidden = 0
    o.leaves = lots
    hide(m, slot)
    append(m, level, slot)
    e = emit(m, what(EVENT_KIND_ORDER_REFILLED, EVENT_FLAG_RESTING | side_of(o) << 1, 0), p.who)
    say_gone(e, o, order_id_of(m, slot), lots, o.leaves)


cdef bint was_iceberg(Market* m, Level* level, u32 slot) noexcept nogil:
    """Add hidden lots to the last TRADE's leaves, and refill an iceberg: whether it did."""
    cdef u32 hidden = m.extras[slot].hidden
    (m.next_event - 1).key_hi += <u64>hidden << 32  # the leaves of a trade are all its lots
    if hidden == 0 or m.orders[slot].leaves:
        return False
    refill(m, level, slot)
    return True


cdef bint after_special(Market* m, Level* level, u32 slot) noexcept nogil:
    """What follows at once when a FEATURED resting order has traded: an iceberg's refill, the count
    of a quote's lots, the end of a group. Whether it was refilled; if not, it is still the first of
    its level, whatever was cancelled."""
    cdef u32 lots = (m.next_event - 1).quantity
    cdef bint again = was_iceberg(m, level, slot)
    if m.extras[slot].features & ORDER_FEATURE_QUOTE:
        count_quote(m, slot, lots)
    tell_group(m, slot)
    return again


cdef inline void match(Market* m, Instrument* book, Incoming* t, u8 side,
                       bint special) noexcept nogil:
    """Trade until the incoming order is done or nothing within its limit is left."""
    cdef u8 other = 1 - side
    cdef i32 at
    cdef i64 price
    cdef u32 slot, retired
    cdef Level* level
    cdef Order* maker
    cdef Position* p
    while t.leaves:
        at = book.best[other]
        if not reaches(side, t.limit, at):
            return
        level = &book.levels[at]
        price = price_of(book, at)
        while True:
            slot = level.head
            maker = &m.orders[slot]
            p = &m.positions[maker.position]
            if unlikely(p.owner.group == t.group):
                prevent_self_trade(m, slot, t)
                break  # the level may be gone
            trade(m, book, level, t, side, maker, p, slot, price, special)
            if special and is_featured(maker) and after_special(m, level, slot):
                if t.leaves == 0:
                    break
                continue
            if maker.leaves:
                break
            p.owner.open_orders -= 1
            book.working_orders -= 1
            retired = slot
            slot = maker.next
            level.head = slot
            retire_working(m, maker, retired, FILLED)
            if slot == 0:
                level.tail = 0
                vacate(book, at)
                next_best(book, other, at)
                break
            m.orders[slot].prev = 0
            if t.leaves == 0:
                break


# --- one resting order at a time: for match_watched and trade_implied, which choose each anew

cdef void settle_head(Market* m, Instrument* book, i32 at) noexcept nogil:
    """The oldest order of a level has traded: if it has no lots left, take it out of the book."""
    cdef Level* level = &book.levels[at]
    cdef u32 slot = level.head
    cdef Order* maker = &m.orders[slot]
    cdef u8 side = side_of(maker)
    if is_featured(maker) and after_special(m, level, slot):
        return
    if maker.leaves:
        return
    level.head = maker.next
    m.positions[maker.position].owner.open_orders -= 1
    book.working_orders -= 1
    retire(m, slot, FILLED)
    if level.head == 0:
        level.tail = 0
        vacate(book, at)
        if book.best[side] == at:
            next_best(book, side, at)
    else:
        m.orders[level.head].prev = 0


cdef void meet_own(Market* m, Instrument* book, Incoming* t, i32 at) noexcept nogil:
    """`prevent_self_trade` with the oldest order of a level."""
    prevent_self_trade(m, book.levels[at].head, t)


cdef void meet_head(Market* m, Instrument* book, Incoming* t, i32 at) noexcept nogil:
    """One trade with the oldest order of a level, which is of another self-trade group."""
    cdef Level* level = &book.levels[at]
    cdef Order* maker = &m.orders[level.head]
    trade(m, book, level, t, t.side, maker, &m.positions[maker.position],
          level.head, price_of(book, at), True)
    settle_head(m, book, at)


cdef inline void finish(Market* m, Incoming* t, u16 remainder) noexcept nogil:
    """The incoming order ends: cancel what is left for the reason `remainder`, retire its slot."""
    cdef Order* o = &m.orders[t.slot]
    cdef u32 lots = t.self_cancelled if t.self_cancelled else t.leaves
    if t.self_cancelled:
        remainder = CANCEL_REASON_SELF_TRADE
    if lots:
        say_gone(emit(m, what(EVENT_KIND_ORDER_CANCELLED, t.side << 1, remainder), t.who), o,
                 t.order_id, lots, 0)
    retire(m, t.slot, CANCELLED if lots or t.done else FILLED)


cdef inline void pass_through(Market* m, Instrument* book, Incoming* t, u32 head, u16 remainder,
                              u8 side, bint special) noexcept nogil:
    cdef Order* o = &m.orders[t.slot]
    cdef Position* p = &m.positions[o.position]
    cdef u32 before = o.executed  # trades with an implied price add to it as they happen
    t.who = p.who
    t.group = p.owner.group
    t.position = o.position
    t.leaves = o.leaves
    t.side = side
    t.stp = stp_of(o)
    t.self_cancelled = 0
    t.lots = 0
    t.value = 0
    t.done = False
    if not special or t.need == 0 or reachable(m, book, t, t.need) >= t.need:
        if special and book.watched & (WATCH_LEGS | WATCH_IMPLIED):
            match_watched(m, book, t)
        else:
            match(m, book, t, side, special)
    elif remainder != CANCEL_REASON_FOK_UNFILLED:
        remainder = CANCEL_REASON_MINIMUM_UNFILLED
    if special and is_featured(o) and (t.lots or o.executed != before):
        if m.extras[t.slot].features & ORDER_FEATURE_QUOTE:  # a quote takes only as it returns
            count_quote(m, t.slot, <u32>t.lots + o.executed - before)
        tell_group(m, t.slot)
    o.executed += <u32>t.lots
    o.leaves = t.leaves
    if t.leaves and remainder == 0:
        if special:
            set_order_state(o, WORKING)
        event_of(m, head).leaves = hide(m, t.slot) if special and is_featured(o) else t.leaves
        book.working_orders += 1
        p.owner.open_orders += 1
        p.exposure[side] += t.leaves
        p.adverse += t.leaves * adverse_per_lot(book, side, o.price)
        rest(m, book, t.slot, side, t.limit)
    else:
        finish(m, t, remainder)
    if special and book.watched & WATCH_LEGS:  # its trades were booked in the legs
        rehold(m, book, p)
        charge_legs(m, p)
    elif t.lots:
        if special:
            execute(m, book, p, side, t.lots, t.value, t.lots * book.taker_fee)
        else:
            execute_plainly(m, book, p, side, t.lots, t.value, t.lots * book.taker_fee, False)
        pay_house(m, book, t.lots)
    elif special:
        rehold(m, book, p)
    else:
        rehold_plainly(m, book, p)


cdef void run(Market* m, Instrument* book, Incoming* t, u32 head, u16 remainder) noexcept nogil:
    """Match an order that is in no queue, then cancel what is left for the reason `remainder`, or
    rest it if that is 0.

    `head` is the index of the event that announced the order: its leaves become what rests.
    Neither the order nor the book may be special.
    """
    if side_of(&m.orders[t.slot]):
        pass_through(m, book, t, head, remainder, 1, False)
    else:
        pass_through(m, book, t, head, remainder, 0, False)


cdef void run_special(Market* m, Instrument* book, Incoming* t, u32 head,
                      u16 remainder) noexcept nogil:
    """`run` where the order or the book may be special."""
    pass_through(m, book, t, head, remainder, side_of(&m.orders[t.slot]), True)
