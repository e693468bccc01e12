"""What the order commands share: rejects, repeated answers, receipts, and how orders end.

An order ends by `retire` (ids.pxd): filled in matching, or cancelled by `cancel_order` and its
kin, here. One that moves or waits elsewhere leaves its queue by `withdraw`.
"""

from libc.stdlib cimport qsort, realloc

from exchange.engine.events cimport blank
from exchange.engine.groups cimport part
from exchange.engine.ids cimport (
    book_of, find_key, fingerprint, take_new_slot,
)
from exchange.engine.combinations cimport charge_legs
from exchange.engine.extras cimport leave_queue, queue_of, take_hidden
from exchange.engine.risk cimport adverse_per_lot, release
from exchange.engine.state cimport (
    COMBINED, RECEIPT, SESSION_GRACE, Session, conditions_of, account_of, is_featured, is_live,
    is_seen, lots_of, standing, stp_of, tif_of,
)


cdef void reject(Market* m, Command* c, u16 reason, i64 limit, i64 observed) noexcept nogil:
    """REJECTED, the command's one event: nothing has changed. a = limit, b = observed."""
    cdef u8 flags = EVENT_FLAG_SELL if c.side == SIDE_SELL else 0
    cdef Event* e = blank(m, EVENT_KIND_REJECTED, flags, reason, c.instrument, c.account)
    if COMMAND_KIND_CANCEL <= c.kind <= COMMAND_KIND_REPLACE:
        if not c.flags & COMMAND_FLAG_BY_CLIENT_ID:
            e.order_id = c.target_lo
    e.price = c.price
    e.quantity = c.quantity
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    e.a = limit
    e.b = observed


cdef bint answered(Market* m, Command* c, u32 account) noexcept nogil:
    """If the request id is known, answer it again or reject it; whether it was known."""
    cdef u32 slot
    if c.key_lo == 0 and c.key_hi == 0:
        return False
    slot = find_key(m, account, c.key_lo, c.key_hi)
    if slot:
        answer_again(m, c, account, slot)
    return slot != 0


cdef void answer_again(Market* m, Command* c, u32 account, u32 slot) noexcept nogil:
    """Repeat the first answer of a known (account, key); DUPLICATE_DIFFERENT if it is another."""
    cdef Order* o = &m.orders[slot]
    cdef Event* e
    cdef u8 flags
    if o.fingerprint != fingerprint(c):
        reject(m, c, REASON_DUPLICATE_DIFFERENT, 0, 0)
        return
    if state_of(o) == RECEIPT:
        flags = <u8>(o.traits >> 8) | EVENT_FLAG_DUPLICATE
        e = blank(m, <u8>o.traits, flags, 0, o.position, account)
        e.order_id = <u64>o.executed << 32 | o.next
        e.price = o.price
        e.quantity = o.leaves
    else:
        flags = EVENT_FLAG_DUPLICATE
        if side_of(o) == SIDE_SELL:
            flags |= EVENT_FLAG_SELL
        if c.flags & COMMAND_FLAG_MARKET:
            flags |= EVENT_FLAG_MARKET
        if c.flags & COMMAND_FLAG_POST_ONLY:
            flags |= EVENT_FLAG_POST_ONLY
        e = blank(m, EVENT_KIND_ORDER_ACCEPTED, flags, 0, book_of(m, o), account)
        e.order_id = order_id_of(m, slot)
        e.price = c.price
        e.quantity = c.quantity
        e.leaves = lots_of(m, slot)
        e.a = o.session
        e.b = conditions_of(tif_of(o), stp_of(o))
        if c.kind == COMMAND_KIND_ENTER:
            e.b |= <i64>c.spare << 16
            if c.spare & ORDER_FEATURE_ICEBERG:
                e.b |= <i64>c.target_hi << 32
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi


cdef void remember_request(Market* m, Command* c, u32 account, Event* e) noexcept nogil:
    """Keep an accepted request and its answer `e` as a RECEIPT; the caller has asked for a slot."""
    cdef u32 slot = take_new_slot(m, &m.accounts[account], account, c.key_lo)
    cdef Order* o = &m.orders[slot]
    o.generation += 1
    # without LAST_IN_COMMAND: a repeated answer is marked anew
    o.traits = e.what & (0xFFFF - (EVENT_FLAG_LAST_IN_COMMAND << 8)) | <u32>RECEIPT << 16
    o.prev = account
    o.next = <u32>e.order_id
    o.executed = <u32>(e.order_id >> 32)
    o.leaves = e.quantity
    o.price = e.price
    o.position = <u32>e.who
    o.session = 0
    o.key_lo = c.key_lo
    o.key_hi = c.key_hi
    o.fingerprint = fingerprint(c)


cdef void take_away_special(Market* m, u32 slot, u32 reason) noexcept nogil:
    """`take_away` of an order that is not simple."""
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef Instrument* book = &m.instruments[instrument_of(p)]
    cdef u32 lots = lots_of(m, slot)
    cdef u32 flags = side_of(o) << 1 | (EVENT_FLAG_RESTING if is_seen(o) else 0)
    cdef Event* e = emit(m, what(EVENT_KIND_ORDER_CANCELLED, flags, reason), p.who)
    say_gone(e, o, order_id_of(m, slot), lots, 0)
    e.b = lots - o.leaves
    withdraw(m, book, p, slot)
    retire(m, slot, CANCELLED)


cdef void shrink(Market* m, u32 slot, u32 lots, u32 reason) noexcept nogil:
    """Take lots, not all of them, off a live order that keeps its place: ORDER_REDUCED."""
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef Instrument* book = &m.instruments[instrument_of(p)]
    cdef u32 flags = side_of(o) << 1 | (EVENT_FLAG_RESTING if is_seen(o) else 0)
    cdef u32 hidden = take_hidden(m, slot, lots)
    cdef Event* e
    queue_of(m, book, slot).quantity -= lots - hidden
    e = emit(m, what(EVENT_KIND_ORDER_REDUCED, flags, reason), p.who)
    say_gone(e, o, order_id_of(m, slot), lots, lots_of(m, slot))
    e.b = hidden
    release(m, book, p, side_of(o), o.price, lots)
    if (o.traits >> 24) & COMBINED:
        charge_legs(m, p)


cdef void withdraw(Market* m, Instrument* book, Position* p, u32 slot) noexcept nogil:
    """Take a live order out of its queue, counts and sums, its leaves being all its lots again. It
    is then to end or to come in anew; the hold is still to follow."""
    cdef Order* o = &m.orders[slot]
    if likely(state_of(o) == WORKING):
        take_out(m, book, o, side_of(o), slot_of(book, o.price))
    else:
        leave_queue(m, book, slot)
    if is_featured(o):
        o.leaves += m.extras[slot].hidden
        m.extras[slot].hidden = 0
    put_back(m, book, p, side_of(o), o.price, o.leaves)
    book.working_orders -= 1
    p.owner.open_orders -= 1


cdef void work_aside(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """Count an order that waits, or is collected: counts, the position's sums, the hold."""
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    book.working_orders += 1
    p.owner.open_orders += 1
    p.exposure[side_of(o)] += o.leaves
    p.adverse += o.leaves * adverse_per_lot(book, side_of(o), o.price)
    rehold(m, book, p)


cdef void cancel_for(Market* m, u32 slot, u32 reason) noexcept nogil:
    """`cancel_order`, not inlined: for callers off the hot path."""
    cancel_order(m, slot, reason)


cdef void pick(Market* m, u32 slot) noexcept nogil:
    """Append a slot to `picked`, the list that the command in hand gathers."""
    cdef u32 room = m.picked_capacity
    cdef u32* grown
    if m.picked_count == room:
        room = 2 * room if room else 1024
        grown = <u32*>realloc(m.picked, <u64>room * sizeof(u32))
        if grown == NULL:
            m.broken = 1
            return
        m.picked = grown
        m.picked_capacity = room
    m.picked[m.picked_count] = slot
    m.picked_count += 1


cdef void tell_group(Market* m, u32 slot) noexcept nogil:
    """A FEATURED order has traded: cancel the other order of its group, if any. To be called after
    each trade of a resting order, and once for an incoming one."""
    cdef u32 other = part(m, slot)
    if other:
        cancel_for(m, other, CANCEL_REASON_GROUP)


cdef inline u64 number_of(Market* m, Order* o, u32 reason) noexcept nogil:
    """The number under which `gather_orders` files an order: its session, if that is in grace
    (DISCONNECTED), or its account, if that is beyond its loss limit (LOSS_LIMIT); else NOBODY.

    Session ids come round: an old order's may be in use again, by another account.
    """
    cdef Session* s
    cdef u32 account
    if not is_live(o):
        return NOBODY
    account = account_of(&m.positions[o.position])
    if reason == CANCEL_REASON_DISCONNECTED:
        s = &m.sessions[o.session & 0xFFFF]
        if s.account != account or s.standing != standing(o.session, SESSION_GRACE):
            return NOBODY
        return o.session
    return account if is_beyond_loss(m, account) else NOBODY


cdef int by_number(const void* x, const void* y) noexcept nogil:
    return -1 if (<u64*>x)[0] < (<u64*>y)[0] else 1


cdef void gather_orders(Market* m, Gathered* g, u32 reason) noexcept nogil:
    """One pass over the slots: gather and sort all that one command may cancel for this reason."""
    cdef u64 room = 0
    cdef u64 key
    cdef u64* grown
    cdef u32 slot
    g.made = True
    for slot in range(1, m.order_top):
        key = number_of(m, &m.orders[slot], reason)
        if key == NOBODY:
            continue
        if g.count == room:
            room = 2 * room if room else 1024
            grown = <u64*>realloc(g.keys, room * sizeof(u64))
            if grown == NULL:
                m.broken = 1
                return
            g.keys = grown
        g.keys[g.count] = key << 32 | slot
        g.count += 1
    if g.count > 1:
        qsort(g.keys, g.count, sizeof(u64), by_number)


cdef void cancel_gathered(Market* m, Gathered* g, u32 number, u32 reason) noexcept nogil:
    """Cancel, in slot order, the orders of a session (DISCONNECTED) or account (LOSS_LIMIT); the
    first call gathers those of all that may follow."""
    cdef u64 low = 0
    cdef u64 high, middle
    cdef u32 slot
    if not g.made:
        gather_orders(m, g, reason)
    high = g.count
    while low < high:
        middle = (low + high) >> 1
        if g.keys[middle] < <u64>number << 32:
            low = middle + 1
        else:
            high = middle
    while low < g.count and g.keys[low] >> 32 == number:
        slot = <u32>g.keys[low]
        if is_live(&m.orders[slot]):
            cancel_for(m, slot, reason)
        low += 1


cdef void cancel_all_of(Market* m, u32 instrument, u32 reason) noexcept nogil:
    """Cancel, in slot order, all orders of an instrument (reason INSTRUMENT_EXPIRED), or the DAY
    orders of all instruments (DAY_ENDED)."""
    cdef u32 slot
    cdef Order* o
    cdef bint wanted
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        if not is_live(o):
            continue
        if reason == CANCEL_REASON_INSTRUMENT_EXPIRED:
            wanted = instrument_of(&m.positions[o.position]) == instrument
        else:
            wanted = tif_of(o) == TIME_IN_FORCE_DAY
        if wanted:
            cancel_for(m, slot, reason)
