# The Extra of special orders, and the queues of orders that wait outside the book. See extras.pyx.

from exchange.engine.book cimport slot_of
from exchange.engine.state cimport (
    COLLECTED, DORMANT, ELECTED, Extra, Instrument, Level, Market, Order, Stops, UNPRICED, WORKING,
    auction_of, side_of, state_of, u32, u8,
)

cdef void put_extra(Market* m, u32 slot, Extra* extra) noexcept nogil
cdef bint forget_extra(Market* m, u32 slot) noexcept nogil
cdef u32 hide(Market* m, u32 slot) noexcept nogil
cdef u32 take_hidden(Market* m, u32 slot, u32 lots) noexcept nogil
cdef void leave_queue(Market* m, Instrument* book, u32 slot) noexcept nogil


cdef inline Stops* stops_of(Market* m, Instrument* book) noexcept nogil:
    return &m.stops[book - m.instruments]


cdef inline Level* queue_of(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """The queue that a live order is in: a level of the book, or a list beside it."""
    cdef Order* o = &m.orders[slot]
    cdef u8 state = state_of(o)
    if state == WORKING:
        return &book.levels[slot_of(book, o.price)]
    if state == DORMANT:
        return &book.dormant
    if state == COLLECTED:
        return &auction_of(m, book).asks.levels[slot_of(book, o.price)]
    if state == UNPRICED:
        return &auction_of(m, book).market[side_of(o)]
    if m.extras[slot].features & ELECTED:
        return &stops_of(m, book).elected
    return &stops_of(m, book).waiting
