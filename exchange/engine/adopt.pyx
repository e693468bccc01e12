"""What follows from the rest of a market that was read from an image: pointers, ladders, lists.

Each function returns a Fault, and checks an index before its use: see snapshot.pyx.
"""

from exchange.engine.auction cimport collect
from exchange.engine.book cimport occupy, on_step, slot_of
from exchange.engine.credits cimport adopt_credits
from exchange.engine.ladder cimport build_ladder, fetch_level
from exchange.engine.risk cimport position_of
from exchange.engine.state cimport (
    Account, Auction, Bucket, COLLECTED, Composite, ELECTED, Extra, FREE, Instrument, Known,
    Level, Order, PAST_CANCELLED, Position, RECEIPT, Stand, UNPRICED, WAITING, WATCH_AUCTION,
    WORKING, account_of, auction_of, collects, i32, instrument_of, is_featured, is_garbled,
    is_past, is_vacant, prefetch, side_of, state_of, tif_of, u32, u64, u8, working_of,
)
from exchange.engine.triggers cimport add_trigger
from exchange.engine.vocabulary cimport *

cdef enum:
    AHEAD = 8  # how many orders ahead their positions and levels are prefetched


cdef int adopt_accounts(Market* m) noexcept nogil:
    cdef Account* a
    cdef u32 i, k
    for i in range(m.account_top):
        a = &m.accounts[i]
        if not a.is_open:
            continue
        if a.member_id >= LIMIT_MEMBERS:
            return OWNERS
        a.member = &m.members[a.member_id]
        if a.ring_head >= LIMIT_IDEMPOTENCY_WINDOW:
            return TABLES
        for k in range(LIMIT_IDEMPOTENCY_WINDOW):
            if bad_place(m, &a.ring[k]):
                return TABLES
        for k in range(a.positions_length):
            if a.positions[k] >= m.position_top or is_vacant(&m.positions[a.positions[k]]):
                return TABLES
    return NONE


cdef inline bint bad_place(Market* m, Known* known) noexcept nogil:
    """Whether a remembered id is not where it should be in the id hash."""
    cdef u32 slot = known.slot
    cdef u64 at = known.place
    if slot == 0:
        return False
    return (slot >= m.order_top or at & 49 or at > m.bucket_mask + 14
            or (<u32*>(<u8*>m.buckets + at + 16 + (at & 14)))[0] != slot)


cdef int adopt_positions(Market* m) noexcept nogil:
    cdef Position* p
    cdef u32 vacant = 0
    cdef u32 i
    for i in range(1, m.position_top):
        p = &m.positions[i]
        if is_vacant(p):
            vacant += 1
            continue
        if instrument_of(p) >= m.instrument_count or account_of(p) >= m.account_top:
            return OWNERS
        p.owner = &m.accounts[account_of(p)]
        if not p.owner.is_open:
            return OWNERS
    return check_vacant(m) if vacant == m.vacant else COUNTERS


cdef int check_vacant(Market* m) noexcept nogil:
    """Check that the chain of free records has exactly as many as there are."""
    cdef u32 at = m.position_free
    cdef u32 left = m.vacant
    while at and left and at < m.position_top and is_vacant(&m.positions[at]):
        left -= 1
        at = instrument_of(&m.positions[at])
    return NONE if at == 0 and left == 0 else TABLES


cdef int adopt_combined(Market* m) noexcept nogil:
    """Check combinations, and that where one has a position its legs have; `charged`, credits."""
    cdef Composite* made
    cdef Position* p
    cdef u32 i, k
    for i in range(m.instrument_count):
        made = &m.composites[i]
        if made.legs > LIMIT_LEGS or made.spreads > LIMIT_LEG_SPREADS:
            return TABLES
        for k in range(made.legs):
            if made.leg[k] >= m.instrument_count or made.ratio[k] == 0:
                return TABLES
        for k in range(made.spreads):
            if made.spread[k] >= m.instrument_count or m.composites[made.spread[k]].legs < 2:
                return TABLES
    for i in range(m.combined_count):
        if m.combined[i] >= m.instrument_count or m.composites[m.combined[i]].legs < 2:
            return TABLES
    for i in range(1, m.position_top):
        p = &m.positions[i]
        if is_vacant(p):
            continue
        made = &m.composites[instrument_of(p)]
        for k in range(made.legs):
            if position_of(p.owner, made.leg[k]) == 0:
                return OWNERS
        m.charged[i].lots[0] = working_of(p, 0) if made.legs else 0
        m.charged[i].lots[1] = working_of(p, 1) if made.legs else 0
    return NONE if adopt_credits(m) else TABLES


cdef int check_small(Market* m) noexcept nogil:
    """Check the small tables, and that the id hash is not full: a search would not end."""
    cdef u64 used = 0
    cdef u32 i, k
    cdef Bucket* bucket
    for i in range(m.session_top):
        if m.sessions[i].next >= m.session_top or m.sessions[i].account >= m.account_top:
            return TABLES
    for i in range(m.timer_count):
        if m.timers[i].session & 0xFFFF >= m.session_top:
            return TABLES
    for i in range(m.account_top):
        if m.protection_heads[i] >= m.protection_top:
            return TABLES
    for i in range(1, m.protection_top):  # each was made after the one it leads to
        if m.protections[i].next >= i or m.protections[i].account >= m.account_top:
            return TABLES
    for i in range(m.expiry_count):
        if m.expiries[i].slot >= m.order_top:
            return TABLES
        m.expiry_at[m.expiries[i].slot] = i
    for i in range(m.bucket_mask / sizeof(Bucket) + 1):
        bucket = &m.buckets[i]
        for k in range(8):
            used += bucket.tags[k] != 0
            if bucket.slots[k] >= m.order_top:
                return TABLES
    return NONE if used <= m.id_room else TABLES


cdef inline bint bad_list(Market* m, Level* level) noexcept nogil:
    return level.head >= m.order_top or level.tail >= m.order_top


cdef int build_ladders(Market* m) noexcept nogil:
    """Check every instrument's grid and give it empty ladders."""
    cdef Instrument* book
    cdef u32 i
    for i in range(m.instrument_count):
        book = &m.instruments[i]
        if (book.price_step < 1 or book.low > book.high or book.step_shift > 63
                or book.low < -<long long>LIMIT_PRICE or book.high > <long long>LIMIT_PRICE
                or (book.high - book.low) / book.price_step >= LIMIT_LADDER_LEVELS
                or bad_list(m, &book.dormant) or bad_list(m, &m.stops[i].waiting)
                or bad_list(m, &m.stops[i].elected)):
            return LADDERS
        m.stops[i].root[0] = 0
        m.stops[i].root[1] = 0
        if not build_ladder(m, book):
            return NO_MEMORY
        if book.watched & WATCH_AUCTION:
            book.watched &= ~<u32>WATCH_AUCTION
            if not collect(m, book):
                return NO_MEMORY
    return NONE


cdef inline int put_on_ladder(Market* m, u32 slot, Instrument* book) noexcept nogil:
    """Put an order, its links set, back on a ladder: level ends and quantity, bit, best price."""
    cdef Order* o = &m.orders[slot]
    cdef u8 side = side_of(o)
    cdef Level* level
    cdef i32 at
    if o.price < book.low or o.price > book.high or is_garbled(o) or not on_step(book, o.price):
        return LADDERS
    at = slot_of(book, o.price)
    if at < 0 or <u32>at >= book.slots:
        return LADDERS
    level = &book.levels[at]
    level.quantity += o.leaves
    if o.next == 0:
        if level.tail:
            return LADDERS
        level.tail = slot
    if o.prev == 0:
        if level.head:
            return LADDERS
        level.head = slot
        occupy(book, at)
        if (at < book.best[1]) if side else (at > book.best[0]):
            book.best[side] = at
    return NONE


cdef inline int put_aside(Market* m, u32 slot, Instrument* book, u8 state) noexcept nogil:
    """Put a COLLECTED or UNPRICED order back where it waits for its auction."""
    cdef Order* o = &m.orders[slot]
    cdef u8 side = side_of(o)
    cdef Auction* a
    cdef Level* queue
    if not collects(book) or is_garbled(o) or (state == COLLECTED and side == 0):
        return LADDERS
    a = auction_of(m, book)
    if state == COLLECTED:
        return put_on_ladder(m, slot, &a.asks)
    queue = &a.market[side]
    queue.quantity += o.leaves
    if (o.next == 0 and queue.tail) or (o.prev == 0 and queue.head):
        return LADDERS
    if o.next == 0:
        queue.tail = slot
    if o.prev == 0:
        queue.head = slot
    return NONE


cdef inline int put_in_place(Market* m, u32 slot, u8 state) noexcept nogil:
    """Put an order back on its ladder or in its queue, by its state; note a GFA order."""
    cdef Instrument* book = &m.instruments[instrument_of(&m.positions[m.orders[slot].position])]
    if collects(book) and tif_of(&m.orders[slot]) == TIME_IN_FORCE_GFA:
        auction_of(m, book).good_for = True
    if state == WORKING:
        return put_on_ladder(m, slot, book)
    if state == COLLECTED or state == UNPRICED:
        return put_aside(m, slot, book, state)
    return NONE


cdef int adopt_orders(Market* m) noexcept nogil:
    """Check that every slot's links and owner exist, and put every order back in its place."""
    cdef Order* o
    cdef u8 state
    cdef u32 slot
    cdef u32 free_slots = 0
    cdef u32 extras = 0
    cdef int fault
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        state = state_of(o)
        if slot + 2 * AHEAD < m.order_top:  # slots come in order, but their levels lie anywhere
            prefetch(&m.positions[m.orders[slot + 2 * AHEAD].position])
            fetch_level(m, slot + AHEAD)
        if o.next >= m.order_top and state != RECEIPT:
            return ORDERS
        if state == FREE:
            free_slots += 1
            continue
        if state == RECEIPT:
            if o.prev >= m.account_top or not m.accounts[o.prev].is_open:
                return OWNERS
            continue
        if is_past(o):
            if bad_past(m, o):
                return OWNERS
            continue
        if (o.prev >= m.order_top or o.position == 0 or o.position >= m.position_top
                or is_vacant(&m.positions[o.position])):
            return ORDERS
        if is_featured(o):
            extras += 1
            if extras > m.extra_count or bad_extra(m, slot):
                return ORDERS
            adopt_extra(m, slot)
        if state == WAITING and not adopt_stop(m, slot):
            return ORDERS
        fault = put_in_place(m, slot, state)
        if fault:
            return fault
    return check_free(m, free_slots) if extras == m.extra_count else ORDERS


cdef inline bint bad_past(Market* m, Order* o) noexcept nogil:
    """Whether an order that is past is damaged: it has no Extra, and is no quote."""
    return (state_of(o) > PAST_CANCELLED or is_featured(o) or o.prev >= m.account_top
            or not m.accounts[o.prev].is_open or o.position >= m.instrument_count)


cdef inline bint bad_extra(Market* m, u32 slot) noexcept nogil:
    """Whether an Extra is damaged. An iceberg that shows nothing would be refilled for ever."""
    cdef Extra* extra = &m.extras[slot]
    if (extra.partner >= m.order_top or extra.prev >= m.order_top or extra.next >= m.order_top
            or is_garbled(&m.orders[slot])):
        return True
    return (extra.features & ORDER_FEATURE_ICEBERG or extra.hidden) and extra.display == 0


cdef void adopt_extra(Market* m, u32 slot) noexcept nogil:
    """Enter a REDUCE_ONLY order or a side of a quote into its position's Stand."""
    cdef Extra* extra = &m.extras[slot]
    cdef Stand* stand = &m.stands[m.orders[slot].position]
    if extra.features & ORDER_FEATURE_QUOTE:
        stand.quotes[side_of(&m.orders[slot])] = slot
    if extra.features & ORDER_FEATURE_REDUCE_ONLY:
        stand.reducing += 1
        if extra.prev == 0:
            stand.reducing_head = slot
        if extra.next == 0:
            stand.reducing_tail = slot


cdef inline bint adopt_stop(Market* m, u32 slot) noexcept nogil:
    """Put a waiting stop into the heap of its side unless it is elected; False if it is no stop."""
    cdef Order* o = &m.orders[slot]
    if not is_featured(o) or is_garbled(o):
        return False
    if not m.extras[slot].features & ELECTED:
        add_trigger(m, &m.stops[instrument_of(&m.positions[o.position])], slot)
    return True


cdef int check_free(Market* m, u32 count) noexcept nogil:
    """Check that the free list has exactly the `count` free slots."""
    cdef u32 slot = m.order_free
    while slot and count and state_of(&m.orders[slot]) == FREE:
        count -= 1
        slot = m.orders[slot].next
    return NONE if slot == 0 and count == 0 else ORDERS


cdef int adopt(Market* m) noexcept nogil:
    cdef int fault = adopt_accounts(m) or adopt_positions(m) or adopt_combined(m)
    return fault or check_small(m) or build_ladders(m) or adopt_orders(m)
