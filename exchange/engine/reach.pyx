"""What an order could trade at once, counted before anything trades: for FOK and for a minimum.

Of two resting orders that are grouped only the first that the incoming order meets would trade. So
each grouped order that was counted is noted in `counted` of its Extra until the count is done: a
list of slots, each naming the one noted before it, the first naming itself.
"""

from exchange.engine.book cimport occupied_above, occupied_below, reaches
from exchange.engine.groups cimport partner_of
from exchange.engine.state cimport WATCH_HIDDEN, i32, lots_of, u8
from exchange.engine.vocabulary cimport SELF_TRADE_CANCEL_OLDEST


cdef bint would_go(Market* m, u32 slot, u32* counted) noexcept nogil:
    """Whether an order's partner has been counted, so that the order would have been cancelled; if
    not, note a grouped order as counted. `counted`: the last one noted, 0 = none."""
    cdef u32 partner = partner_of(m, slot)
    if partner == 0:
        return False
    if m.extras[partner].counted:
        return True
    m.extras[slot].counted = counted[0] if counted[0] else slot
    counted[0] = slot
    return False


cdef i64 count_lots(Market* m, Instrument* book, Incoming* t, u32 wanted,
                    u32* counted) noexcept nogil:
    """`reachable`, but without forgetting the orders noted; sets `counted` to the last of them."""
    cdef u8 other = 1 - t.side
    cdef i64 found = 0
    cdef i64 hidden
    cdef i32 at = book.best[other]
    cdef u32 slot
    while reaches(t.side, t.limit, at):
        hidden = 0
        slot = book.levels[at].head
        while slot:
            if m.positions[m.orders[slot].position].owner.group == t.group:
                if t.stp != SELF_TRADE_CANCEL_OLDEST:
                    return found
            elif not would_go(m, slot, counted):
                found += m.orders[slot].leaves
                hidden += lots_of(m, slot) - m.orders[slot].leaves
                if found >= wanted:
                    return found
            slot = m.orders[slot].next
        found += hidden
        at = occupied_above(book, at) if other else occupied_below(book, at)
    return found


cdef i64 shown_within(Instrument* book, Incoming* t, u32 wanted) noexcept nogil:
    """Lots that all opposite orders within the limit show, whoever's they are, added up until
    `wanted` are found."""
    cdef u8 other = 1 - t.side
    cdef i64 found = 0
    cdef i32 at = book.best[other]
    while found < wanted and reaches(t.side, t.limit, at):
        found += book.levels[at].quantity
        at = occupied_above(book, at) if other else occupied_below(book, at)
    return found


cdef i64 reachable(Market* m, Instrument* book, Incoming* t, u32 wanted) noexcept nogil:
    """Lots that an incoming order could trade at once, counted until `wanted` are found: at each
    price first what is shown, then what is hidden. Own orders are skipped under CANCEL_OLDEST, and
    end the count under any other mode. If all levels together show too little, no order is looked
    at, and the answer is some number below `wanted`."""
    cdef u32 counted = 0
    cdef u32 slot = 0
    cdef i64 found = 0
    if not book.watched & WATCH_HIDDEN:
        found = shown_within(book, t, wanted)
        if found < wanted:
            return found
    found = count_lots(m, book, t, wanted, &counted)
    while counted != slot:  # the first names itself
        slot = counted
        counted = m.extras[slot].counted
        m.extras[slot].counted = 0
    return found
