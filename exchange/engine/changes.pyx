"""CANCEL, REDUCE, REPLACE: the ladder of guards in documented precedence, then the effect; and the
return of dormant orders. ENTER: orders.pyx."""

from exchange.engine.aftermath cimport aftermath, follow
from exchange.engine.auction cimport join
from exchange.engine.book cimport slot_of
from exchange.engine.combinations cimport bad_legs_risk, charge_legs, rehold_all
from exchange.engine.events cimport emit, what
from exchange.engine.expiry cimport expiry_of
from exchange.engine.extras cimport queue_of, stops_of, take_hidden
from exchange.engine.groups cimport features_of, partner_of, room_to_reduce, shared_lots
from exchange.engine.guards cimport (
    bad_grid, bad_owner, bad_risk, bad_time, refuse_display, refuse_post_only, refuse_target,
)
from exchange.engine.ids cimport find_key, has_slot, owner_of
from exchange.engine.lifecycle cimport (
    answered, cancel_order, keep_receipt, lessen, pick, reject, shrink, take_away, withdraw,
)
from exchange.engine.matching cimport Incoming, run, run_special
from exchange.engine.orders cimport Terms, accept
from exchange.engine.risk cimport adverse_per_lot, release
from exchange.engine.stops cimport start_waiting, wait_elected
from exchange.engine.months cimport refuse_all_months
from exchange.engine.safety cimport refuse_band, refuse_value
from exchange.engine.state cimport (
    AT_MARKET, COMBINED, Command, DORMANT, ELECTED, Event, Extra, Instrument, Market, Order,
    PROTECTED_BY, Position, UNPRICED, WAITING, WATCH_BREAKER, WATCH_IMPLIED, WATCH_LEGS,
    WATCH_LIMITS, WATCH_QUOTES, WORKING, collects, i32, i64, instrument_of, is_featured, is_live,
    is_seen, is_simple, likely, lots_of, order_id_of, set_order_state, side_of, state_of, tif_of,
    u32, u64, u8, unlikely,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    TARGET_FLAGS = 12  # MANUAL BY_CLIENT_ID
    REPLACE_FLAGS = 29  # POST_ONLY MANUAL BY_CLIENT_ID NEW_ID


cdef inline bint bad_request(Market* m, Command* c, u8 flags, bint replacing) noexcept nogil:
    """The guards of CANCEL, REDUCE and REPLACE up to a known request id, whose answer is repeated.
    `flags`: those that the command may have."""
    if bad_owner(m, c, replacing):
        return True
    if unlikely(c.side > SIDE_UNSTATED or c.flags & ~flags
                or (replacing and c.stp > SELF_TRADE_DECREMENT)):
        reject(m, c, REASON_SYNTAX, 0, 0)
        return True
    if c.key_lo == 0 and c.key_hi == 0:
        if unlikely(c.flags & COMMAND_FLAG_NEW_ID):
            reject(m, c, REASON_ID_FORMAT, 0, 0)
            return True
        return False
    return answered(m, c, c.account)


cdef inline u32 target_of(Market* m, Command* c) noexcept nogil:
    """The slot of the live order that CANCEL, REDUCE or REPLACE names; 0 after a reject."""
    cdef u32 slot
    cdef Order* o
    if c.flags & COMMAND_FLAG_BY_CLIENT_ID:
        slot = find_key(m, c.account, c.target_lo, c.target_hi)
        o = &m.orders[slot]
    else:
        slot = <u32>c.target_lo
        o = &m.orders[slot]
        if unlikely(slot >= m.order_top or o.generation != c.target_lo >> 32
                    or owner_of(m, o) != c.account):
            slot = 0
            o = m.orders
    if likely(is_live(o) and (c.side == SIDE_UNSTATED or c.side == side_of(o))):
        return slot
    refuse_target(m, c, slot)
    return 0


cdef inline bint bad_receipt(Market* m, Command* c) noexcept nogil:
    """ORDERS_FULL, if the command has a request id and no slot to remember it."""
    if unlikely((c.key_lo or c.key_hi) and not has_slot(m, &m.accounts[c.account])):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
        return True
    return False


cdef void cancel(Market* m, Command* c) noexcept nogil:
    cdef u32 first = m.index
    cdef u32 slot
    if bad_request(m, c, TARGET_FLAGS, False):
        return
    slot = target_of(m, c)
    if slot == 0 or bad_receipt(m, c):
        return
    cancel_order(m, slot, CANCEL_REASON_REQUESTED)
    keep_receipt(m, c, c.account, first)


cdef void reduce_order(Market* m, Command* c) noexcept nogil:
    cdef u32 first = m.index
    cdef u32 slot
    cdef Order* o
    cdef Position* p
    cdef Instrument* book
    if bad_request(m, c, TARGET_FLAGS, False):
        return
    slot = target_of(m, c)
    if slot == 0:
        return
    o = &m.orders[slot]
    p = &m.positions[o.position]
    book = &m.instruments[instrument_of(p)]
    if c.quantity == 0:
        reject(m, c, REASON_QUANTITY_RANGE, book.max_order, 0)
        return
    if book.lot_step != 1 and c.quantity % book.lot_step:
        reject(m, c, REASON_LOT, book.lot_step, c.quantity)
        return
    if bad_receipt(m, c):
        return
    if unlikely(not is_simple(o)):
        reduce_special(m, slot, c.quantity)
    elif c.quantity >= o.leaves:
        cancel_order(m, slot, CANCEL_REASON_REDUCED)
    else:
        lessen(m, book, p, o, slot, c.quantity, side_of(o))
    keep_receipt(m, c, c.account, first)


cdef void reduce_special(Market* m, u32 slot, u32 lots) noexcept nogil:
    """REDUCE of an order that is not simple (see `is_simple`)."""
    if lots >= lots_of(m, slot):
        cancel_order(m, slot, CANCEL_REASON_REDUCED)
    else:
        shrink(m, slot, lots, CANCEL_REASON_REQUESTED)


cdef inline bint keeps_place(Command* c, Order* o, i64 leaves, i64 before) noexcept nogil:
    """Whether a REPLACE keeps the order's place: same id and price, `leaves` no more than its
    `before` lots, and neither dormant nor unpriced."""
    return (c.price == o.price and leaves <= before
            and state_of(o) != DORMANT and state_of(o) != UNPRICED
            and not c.flags & COMMAND_FLAG_NEW_ID)


cdef bint bad_display(Market* m, Command* c, Instrument* book, Order* o,
                      i64 leaves) noexcept nogil:
    """DISPLAY, if a REPLACE would leave an iceberg with more lots than its display but refilled too
    often. One that becomes no larger than its display shows all its lots."""
    cdef u64 display = m.extras[o - m.orders].display
    return (display != 0 and <u64>leaves > display
            and refuse_display(m, c, book, <u64>leaves, display))


cdef bint refuse_protected(Market* m, Command* c, Instrument* book, Position* p, Order* o,
                           i64 leaves, i64 before) noexcept nogil:
    """PRICE_BAND (not of a waiting stop), ALL_MONTHS_LIMIT; neither if it keeps its place."""
    if keeps_place(c, o, leaves, before):
        return False
    if (book.watched & WATCH_BREAKER and state_of(o) != WAITING
            and refuse_band(m, c, book, side_of(o), c.price)):
        return True
    return (book.watched & (WATCH_LIMITS | WATCH_LEGS)
            and refuse_all_months(m, c, book, p.owner, side_of(o), leaves - before))


cdef bint bad_reduction(Market* m, Command* c, Position* p, Order* o, i64 leaves) noexcept nogil:
    """REDUCE_ONLY: with `leaves` lots the order could do more than reduce the position."""
    cdef u32 slot = o - m.orders
    cdef i64 room, shared
    if not features_of(m, slot) & ORDER_FEATURE_REDUCE_ONLY:
        return False
    room = room_to_reduce(m, p, o.position, side_of(o), slot)
    shared = shared_lots(m, partner_of(m, slot), o.position, side_of(o))
    if room >= 0 and leaves <= room + shared:
        return False
    reject(m, c, REASON_REDUCE_ONLY, 0 if room < 0 else room + shared, leaves)
    return True


cdef bint refuse_posting(Market* m, Command* c, Instrument* book, Position* p, Order* o,
                         i64 leaves, i64 before, i32 at) noexcept nogil:
    """NOT_IN_AUCTION, POST_ONLY of a REPLACE. One that keeps its place meets nobody. Any other
    comes in when the order has left the book: which prices are implied for it depends on the
    margin that is free then."""
    cdef u8 side = side_of(o)
    cdef i64 adverse = before * adverse_per_lot(book, side, o.price) if p.adverse else 0
    cdef bint refused
    if not book.watched & WATCH_IMPLIED or keeps_place(c, o, leaves, before):
        return refuse_post_only(m, c, book, side, at, 0)
    p.exposure[side] -= before
    p.adverse -= adverse
    rehold_all(m, book, p)
    refused = refuse_post_only(m, c, book, side, at, <u32>leaves)
    p.exposure[side] += before
    p.adverse += adverse
    rehold_all(m, book, p)
    return refused


cdef inline bint bad_new_terms(Market* m, Command* c, Instrument* book, Position* p, Order* o,
                               i64 leaves, i64 before, Terms* terms) noexcept nogil:
    """The guards of a REPLACE from PRICE_BAND to MEMBER_MARGIN; margin is judged on `leaves` at the
    new price in place of the order's `before` lots, unless it keeps its place."""
    cdef i64 adverse = before * adverse_per_lot(book, side_of(o), o.price) if p.adverse else 0
    cdef bint refused
    if unlikely(book.watched) and refuse_protected(m, c, book, p, o, leaves, before):
        return True
    if (unlikely(c.flags & COMMAND_FLAG_POST_ONLY)
            and refuse_posting(m, c, book, p, o, leaves, before, terms.slot)):
        return True
    if unlikely(is_featured(o)) and bad_display(m, c, book, o, leaves):
        return True
    if keeps_place(c, o, leaves, before):
        return False
    if unlikely(is_featured(o)) and bad_reduction(m, c, p, o, leaves):
        return True
    p.exposure[side_of(o)] -= before
    p.adverse -= adverse
    terms.adverse = leaves * adverse_per_lot(book, side_of(o), c.price)
    if unlikely((o.traits >> 24) & COMBINED):
        refused = bad_legs_risk(m, c, p, p.owner, side_of(o), terms.adverse, leaves, before,
                                instrument_of(p))
    else:
        refused = bad_risk(m, c, book, p, p.owner, side_of(o), terms.adverse, leaves, before,
                           &terms.rise)
    p.exposure[side_of(o)] += before
    p.adverse += adverse
    return refused


cdef void replace(Market* m, Command* c) noexcept nogil:
    cdef u32 first = m.index
    cdef bint new_id = (c.flags & COMMAND_FLAG_NEW_ID) != 0
    cdef u32 slot
    cdef i64 leaves, before
    cdef Terms terms
    cdef Order* o
    cdef Position* p
    cdef Instrument* book
    if bad_request(m, c, REPLACE_FLAGS, True):
        return
    slot = target_of(m, c)
    if slot == 0:
        return
    o = &m.orders[slot]
    p = &m.positions[o.position]
    book = &m.instruments[instrument_of(p)]
    if unlikely(is_featured(o)) and features_of(m, slot) & ORDER_FEATURE_QUOTE:
        reject(m, c, REASON_QUOTE, 0, 0)
        return
    if (bad_time(m, c, book, p.owner)
            or (unlikely(book.watched & WATCH_LIMITS) and refuse_value(m, c, book, p.owner))
            or bad_grid(m, c, book, p.owner, &terms.slot)):
        return
    leaves = <i64>c.quantity - (0 if new_id else o.executed)
    if leaves <= 0:
        if not bad_receipt(m, c):
            cancel_order(m, slot, CANCEL_REASON_REDUCED)
            keep_receipt(m, c, c.account, first)
        return
    before = lots_of(m, slot)
    if bad_new_terms(m, c, book, p, o, leaves, before, &terms) or bad_receipt(m, c):
        return
    if not new_id:
        change_terms(m, c, book, p, o, slot, <u32>leaves, <u32>before, terms.slot)
        keep_receipt(m, c, c.account, first)
        return
    terms.at = o.position
    terms.side = side_of(o)
    terms.tif = tif_of(o)
    terms.price = c.price
    terms.expiry = expiry_of(m, slot) if terms.tif == TIME_IN_FORCE_GTD else 0
    terms.need = 0
    terms.remainder = 0
    terms.rests = True
    terms.extra.features = 0
    if unlikely(is_featured(o)):
        inherit(m, slot, &terms)
    # leaves the hold as it is: `terms.rise` was found from the hold with the old order in it
    take_away(m, slot, CANCEL_REASON_REPLACED)
    accept(m, c, book, p.owner, &terms)


cdef void change_terms(Market* m, Command* c, Instrument* book, Position* p, Order* o, u32 slot,
                       u32 leaves, u32 before, i32 at) noexcept nogil:
    """REPLACE under the same order id: ORDER_REPLACED, in place or out of the book and in again."""
    cdef bint kept = keeps_place(c, o, leaves, before)
    cdef u32 first = m.index
    cdef u32 flags = side_of(o) << 1 | (EVENT_FLAG_RESTING if is_seen(o) else 0)
    cdef Incoming t
    cdef Event* e = emit(m, what(EVENT_KIND_ORDER_REPLACED, flags, kept), p.who)
    t.order_id = order_id_of(m, slot)
    e.order_id = t.order_id
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = leaves if kept else 0
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.price
    e.b = o.leaves
    if unlikely(is_featured(o)):
        e.b |= <i64>(before - o.leaves) << 32
        if kept:
            keep_special(m, e, book, p, slot, before - leaves)
            return
        if state_of(o) == WAITING:
            wait_again(m, c, book, p, slot, leaves)
            if book.watched & WATCH_QUOTES:
                follow(m, book, first)
            return
    if kept:
        if likely(state_of(o) == WORKING):
            book.levels[at].quantity -= o.leaves - leaves
        else:
            queue_of(m, book, slot).quantity -= o.leaves - leaves
        release(m, book, p, side_of(o), o.price, o.leaves - leaves)
        if unlikely((o.traits >> 24) & COMBINED):
            charge_legs(m, p)
        o.leaves = leaves
        return
    withdraw(m, book, p, slot)
    o.price = c.price
    o.leaves = leaves
    set_order_state(o, WORKING)
    t.slot = slot
    t.limit = at
    t.need = 0
    if likely(not book.watched):
        run(m, book, &t, m.index - 1, 0)
        return
    if collects(book):
        e.leaves = join(m, book, slot, False)
    else:
        run_special(m, book, &t, m.index - 1, 0)
    aftermath(m, book, first)


cdef void keep_special(Market* m, Event* e, Instrument* book, Position* p, u32 slot,
                       u32 lots) noexcept nogil:
    """Take `lots` off a special order that keeps its place, hidden ones first."""
    cdef Order* o = &m.orders[slot]
    cdef u32 hidden = take_hidden(m, slot, lots) if lots else 0
    e.leaves = o.leaves if is_seen(o) else 0
    queue_of(m, book, slot).quantity -= lots - hidden
    release(m, book, p, side_of(o), o.price, lots)


cdef void wait_again(Market* m, Command* c, Instrument* book, Position* p, u32 slot,
                     u32 leaves) noexcept nogil:
    """Give a waiting stop its new terms, a limit among them. It waits again as the youngest of its
    trigger; if it is elected, as the last of the elected, whose due stamp stays."""
    cdef Order* o = &m.orders[slot]
    cdef Extra* extra = &m.extras[slot]
    cdef bint elected = (extra.features & ELECTED) != 0
    cdef i64 due = stops_of(m, book).due
    withdraw(m, book, p, slot)
    o.price = c.price
    o.leaves = leaves
    extra.features &= ~<u32>(AT_MARKET | PROTECTED_BY)
    extra.ticks = 0
    if elected:
        wait_elected(m, book, slot)
        stops_of(m, book).due = due
    else:
        start_waiting(m, book, slot)


cdef void inherit(Market* m, u32 slot, Terms* terms) noexcept nogil:
    """Copy into `terms` the features that an order under a new id keeps of the one it replaces."""
    terms.extra = m.extras[slot]
    terms.extra.features &= ~<u32>(AT_MARKET | PROTECTED_BY | ELECTED)
    terms.extra.ticks = 0
    terms.extra.age = 0
    terms.extra.hidden = 0
    terms.extra.child = 0
    terms.extra.sibling = 0
    terms.extra.before = 0
    terms.rests = False


cdef void return_one(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """A dormant order returns: ORDER_RETURNED, then it trades, rests, or joins an auction."""
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef Event* e
    cdef Incoming t
    withdraw(m, book, p, slot)
    set_order_state(o, WORKING)
    e = emit(m, what(EVENT_KIND_ORDER_RETURNED, side_of(o) << 1, 0), p.who)
    t.order_id = order_id_of(m, slot)
    e.order_id = t.order_id
    e.price = o.price
    e.quantity = o.leaves
    e.leaves = 0
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.session
    e.b = 0
    if collects(book):
        e.leaves = join(m, book, slot, False)
        return
    t.slot = slot
    t.limit = slot_of(book, o.price)
    t.need = 0
    run_special(m, book, &t, m.index - 1, 0)


cdef void return_dormant(Market* m, Instrument* book) noexcept nogil:
    """One pass over the dormant list: orders inside the limits return as incoming ones.

    The trades of one may cancel others of the list, so the list is copied first.
    """
    cdef u32 slot = book.dormant.head
    cdef u32 first = m.index
    cdef u32 i, before
    cdef Order* o
    m.picked_count = 0
    while slot:
        pick(m, slot)
        slot = m.orders[slot].next
    for i in range(m.picked_count):
        o = &m.orders[m.picked[i]]
        if state_of(o) == DORMANT and book.low <= o.price <= book.high:
            before = m.index
            return_one(m, book, m.picked[i])
            if book.watched & WATCH_QUOTES:
                follow(m, book, before)
    if book.watched:
        aftermath(m, book, first)
