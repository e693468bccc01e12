"""REDUCE_ONLY orders, groups of two orders, the sides of quotes: how they are linked and counted.
Nothing here cancels an order or emits an event.

Invariants: partners name each other; a position's list of REDUCE_ONLY orders is in the order of
their acceptance; after a command, all that works on a side that has REDUCE_ONLY orders together
only reduces the position, where of two that are grouped the larger counts.
"""

from exchange.engine.risk cimport absolute
from exchange.engine.state cimport (
    Extra, FEATURED, Stand, Stops, UNPRICED, WATCH_QUOTES, instrument_of, is_live, is_seen, lots_of,
    side_of, state_of, working_of,
)


cdef void count_special(Market* m, u32 slot) noexcept nogil:
    """Count one more order that `follow` looks after, and watch its book."""
    cdef u32 instrument = instrument_of(&m.positions[m.orders[slot].position])
    m.stops[instrument].followed += 1
    m.instruments[instrument].watched |= WATCH_QUOTES


cdef Stops* across_of(Market* m, u32 slot, u32 partner) noexcept nogil:
    """The Stops of the order's instrument if its partner is in another instrument, else NULL."""
    cdef u32 instrument = instrument_of(&m.positions[m.orders[slot].position])
    if instrument_of(&m.positions[m.orders[partner].position]) == instrument:
        return NULL
    return &m.stops[instrument]


cdef void count_across(Market* m, u32 slot, u32 partner, int more) noexcept nogil:
    """Two orders have been grouped (`more` 1) or parted (-1): count those in two instruments."""
    if across_of(m, slot, partner) != NULL:
        across_of(m, slot, partner).across += more
        across_of(m, partner, slot).across += more


cdef void join_special(Market* m, u32 slot, u32 partner) noexcept nogil:
    """Link a new FEATURED order into its position's list and to its `partner` (0 = none)."""
    cdef Extra* x = &m.extras[slot]
    cdef Stand* stand = &m.stands[m.orders[slot].position]
    count_special(m, slot)
    x.prev = 0
    x.next = 0
    x.partner = partner
    if x.features & ORDER_FEATURE_REDUCE_ONLY:
        x.prev = stand.reducing_tail
        if x.prev:
            m.extras[x.prev].next = slot
        else:
            stand.reducing_head = slot
        stand.reducing_tail = slot
        stand.reducing += 1
    if partner:
        if not is_featured(&m.orders[partner]):
            m.orders[partner].traits |= <u32>FEATURED << 24
            m.extra_count += 1
        if not m.extras[partner].features & FOLLOWED_FEATURES:
            count_special(m, partner)
        m.extras[partner].features |= ORDER_FEATURE_GROUPED
        m.extras[partner].partner = slot
        count_across(m, slot, partner, 1)


cdef u32 part(Market* m, u32 slot) noexcept nogil:
    """Dissolve an order's group; returns the slot of the other order, 0 if there was no group."""
    cdef u32 partner = partner_of(m, slot)
    if partner:
        m.extras[slot].partner = 0
        m.extras[partner].partner = 0
        count_across(m, slot, partner, -1)
    return partner


cdef void leave_special(Market* m, u32 slot) noexcept nogil:
    """Unlink a finished order, its Extra still set; `follow` ends its book's watch."""
    cdef Extra* x = &m.extras[slot]
    cdef Order* o = &m.orders[slot]
    cdef Stand* stand = &m.stands[o.position]
    part(m, slot)
    m.stops[instrument_of(&m.positions[o.position])].followed -= 1
    if x.features & ORDER_FEATURE_QUOTE:
        stand.quotes[side_of(o)] = 0
    if not x.features & ORDER_FEATURE_REDUCE_ONLY:
        return
    stand.reducing -= 1
    if x.prev:
        m.extras[x.prev].next = x.next
    else:
        stand.reducing_head = x.next
    if x.next:
        m.extras[x.next].prev = x.prev
    else:
        stand.reducing_tail = x.prev


cdef i64 shared_lots(Market* m, u32 partner, u32 at, u8 side) noexcept nogil:
    """Lots of a live partner on the same position and side, else 0: only one of the two trades."""
    cdef Order* o = &m.orders[partner]
    if partner == 0 or o.position != at or side_of(o) != side or not is_live(o):
        return 0
    return lots_of(m, partner)


cdef i64 room_alone(Position* p, u8 side) noexcept nogil:
    """`room_to_reduce` if no orders were grouped: never more than that, and cheap."""
    cdef i64 room = -working_of(p, side)
    if (p.net > 0) == (side == 1):
        room += absolute(p.net)
    return room


cdef i64 room_to_reduce(Market* m, Position* p, u32 at, u8 side, u32 without) noexcept nogil:
    """How many lots more could work on a side and only reduce the position; negative if what works
    there could do more. The order `without` (0 = none) is left out; of two that are grouped the
    larger counts.
    """
    cdef i64 room = room_alone(p, side)
    cdef u32 slot = m.stands[at].reducing_head
    cdef u32 partner
    cdef i64 lots, shared
    if without:
        room += lots_of(m, without)
    while slot:
        partner = partner_of(m, slot)
        if side_of(&m.orders[slot]) == side and slot != without and partner != without:
            lots = lots_of(m, slot)
            shared = shared_lots(m, partner, at, side)
            if not (features_of(m, partner) & ORDER_FEATURE_REDUCE_ONLY and partner < slot):
                room += lots if lots < shared else shared
        slot = m.extras[slot].next
    return room


# --- two of a group in one auction

cdef u32 beside(Market* m, u32 slot) noexcept nogil:
    """The partner's slot, if both orders of a group wait for one auction; else 0."""
    cdef u32 partner = partner_of(m, slot)
    if partner == 0 or m.orders[partner].position != m.orders[slot].position:
        return 0
    return partner if is_seen(&m.orders[partner]) else 0


cdef bint are_crossed(Order* buy, Order* sell) noexcept nogil:
    """Whether a buy and a sell cross; MARKET orders always do, by their prices."""
    return buy.price >= sell.price


cdef bint comes_second(Market* m, u32 slot, u32 other) noexcept nogil:
    """Whether of two on one side `other` trades before `slot`. If they are in one queue, the one
    that is asked about first comes first: it is noted in `counted` until the other is asked."""
    cdef Order* o = &m.orders[slot]
    cdef Order* first = &m.orders[other]
    if state_of(o) != state_of(first):
        return state_of(first) == UNPRICED
    if o.price != first.price:
        return o.price > first.price if side_of(o) else o.price < first.price
    if m.extras[other].counted:
        m.extras[other].counted = 0
        return True
    m.extras[slot].counted = slot
    return False


cdef i64 lots_called(Market* m, u32 slot) noexcept nogil:
    """Lots of an order that count for the price of the auction it waits for. The caller must ask
    about every order of a queue, from the first to the last."""
    cdef Order* o = &m.orders[slot]
    cdef u32 other = beside(m, slot)
    cdef i64 lots = lots_of(m, slot)
    cdef i64 lost
    if other == 0:
        return lots
    if side_of(o) == side_of(&m.orders[other]):
        return 0 if comes_second(m, slot, other) else lots
    if not (are_crossed(&m.orders[other], o) if side_of(o)
            else are_crossed(o, &m.orders[other])):
        return lots
    lost = lots_of(m, other)
    return lots - lost if lots > lost else 0
