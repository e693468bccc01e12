# The price of an auction. See call.pyx.

from exchange.engine.state cimport Instrument, Market, i64

cdef struct Found:  # where an auction would trade
    i64 price
    i64 executed  # lots; 0: there is no price
    i64 surplus  # buyers' lots less sellers' at the price

cdef Found find_price(Market* m, Instrument* book) noexcept nogil
