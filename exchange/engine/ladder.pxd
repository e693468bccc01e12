# The memory of a ladder. See ladder.pyx.

from exchange.engine.state cimport Instrument, Market, i32, u32

cdef bint build_ladder(Market* m, Instrument* book) noexcept nogil
cdef i32 lowest(Instrument* book) noexcept nogil
cdef void fetch_level(Market* m, u32 slot) noexcept nogil
