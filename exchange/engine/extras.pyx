"""The Extra of special orders, and the queues of orders that wait outside the book.

Invariants: an order is FEATURED exactly while it is live and its Extra has features; `hidden` is 0
except of an iceberg that rests or is dormant; a book's `watched` has the bits that its special
orders ask for.
"""

from libc.string cimport memset

from exchange.engine.book cimport slot_of, take_out, unlink
from exchange.engine.state cimport (
    COLLECTED, FEATURED, WAITING, WATCH_HIDDEN, WATCH_STOPS, auction_of, ensure, instrument_of,
    is_featured,
)
from exchange.engine.groups cimport FOLLOWED_FEATURES, leave_special
from exchange.engine.triggers cimport remove_trigger
from exchange.engine.vocabulary cimport *


cdef void put_extra(Market* m, u32 slot, Extra* extra) noexcept nogil:
    """Give a new order, not yet in any queue, its Extra, and count it."""
    cdef u32 instrument = instrument_of(&m.positions[m.orders[slot].position])
    m.extras[slot] = extra[0]
    m.orders[slot].traits |= <u32>FEATURED << 24
    m.extra_count += 1
    if extra.features & ORDER_FEATURE_ICEBERG:
        m.stops[instrument].icebergs += 1
        m.instruments[instrument].watched |= WATCH_HIDDEN


cdef bint forget_extra(Market* m, u32 slot) noexcept nogil:
    """Uncount and clear an Extra that is no longer needed; whether it was of a quote."""
    cdef bint quote = m.extras[slot].features & ORDER_FEATURE_QUOTE
    cdef u32 instrument = instrument_of(&m.positions[m.orders[slot].position])
    cdef Stops* stops = &m.stops[instrument]
    if m.extras[slot].features & ORDER_FEATURE_ICEBERG:
        stops.icebergs -= 1
        if stops.icebergs == 0:
            m.instruments[instrument].watched &= ~<u32>WATCH_HIDDEN
    if m.extras[slot].features & FOLLOWED_FEATURES:
        leave_special(m, slot)
    memset(&m.extras[slot], 0, sizeof(Extra))
    m.orders[slot].traits &= ~(<u32>FEATURED << 24)
    m.extra_count -= 1
    return quote


cdef u32 hide(Market* m, u32 slot) noexcept nogil:
    """A FEATURED order comes to rest: hide lots above its display. Returns what it shows."""
    cdef Order* o = &m.orders[slot]
    cdef Extra* extra = &m.extras[slot]
    if extra.display and o.leaves > extra.display:
        extra.hidden = o.leaves - extra.display
        o.leaves = extra.display
    return o.leaves


cdef u32 take_hidden(Market* m, u32 slot, u32 lots) noexcept nogil:
    """Take lots, not all of them, off an order without a trade, hidden ones first. Returns how many
    were hidden; the caller takes the others out of the queue's quantity."""
    cdef Extra* extra = &m.extras[slot]
    cdef u32 taken = 0
    if is_featured(&m.orders[slot]):
        taken = extra.hidden if extra.hidden < lots else lots
        extra.hidden -= taken
    m.orders[slot].leaves -= lots - taken
    ensure(m, m.orders[slot].leaves > 0)
    return taken


cdef void leave_queue(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """Take a live order that is not WORKING out of its queue (also off the ladder of sells)."""
    cdef Stops* stops = stops_of(m, book)
    cdef Extra* extra = &m.extras[slot]
    cdef Order* o = &m.orders[slot]
    if state_of(o) == COLLECTED:
        take_out(m, &auction_of(m, book).asks, o, SIDE_SELL, slot_of(book, o.price))
        return
    unlink(m, queue_of(m, book, slot), o)
    if state_of(o) != WAITING:
        return
    if extra.features & ELECTED:
        extra.features &= ~<u32>ELECTED
        m.elected_count -= 1
        if stops.elected.head == 0:
            stops.due = 0
    else:
        remove_trigger(m, stops, slot)
    if stops.waiting.head == 0 and stops.elected.head == 0:
        book.watched &= ~<u32>WATCH_STOPS
