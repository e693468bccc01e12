# What only special orders have, and the lists of those that are not in the book. See extras.pyx.

from exchange.engine.state cimport (
    DORMANT, ELECTED, Extra, Instrument, Level, Market, Order, Stops, state_of, u32,
)

cdef void put_extra(Market* m, u32 slot, Extra* extra) noexcept nogil
cdef void forget_extra(Market* m, u32 slot) noexcept nogil
cdef u32 hide(Market* m, u32 slot) noexcept nogil
cdef u32 take_hidden(Market* m, u32 slot, u32 lots) noexcept nogil
cdef void leave_queue(Market* m, Instrument* book, u32 slot) noexcept nogil


cdef inline Stops* stops_of(Market* m, Instrument* book) noexcept nogil:
    return &m.stops[book - m.instruments]


cdef inline Level* queue_of(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """The list that a live order which is not in the book is in."""
    if state_of(&m.orders[slot]) == DORMANT:
        return &book.dormant
    if m.extras[slot].features & ELECTED:
        return &stops_of(m, book).elected
    return &stops_of(m, book).waiting
