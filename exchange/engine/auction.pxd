# Auctions: orders are collected, then trade at one price. See auction.pyx.

from exchange.engine.state cimport Command, Instrument, Market, i64, u32

cdef bint collect(Market* m, Instrument* book) noexcept nogil
cdef u32 join(Market* m, Instrument* book, u32 slot, bint unpriced) noexcept nogil
cdef i64 auction_size(Market* m, Instrument* book) noexcept nogil
cdef void uncross(Market* m, Instrument* book) noexcept nogil
cdef void stop_collecting(Market* m, Instrument* book) noexcept nogil
cdef void cancel_unpriced(Market* m, Instrument* book) noexcept nogil
cdef void indicate(Market* m, Command* c) noexcept nogil
