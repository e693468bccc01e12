# Stops: they wait for a trade price, are elected by it, and come in one by one. See stops.pyx.

from exchange.engine.state cimport Instrument, Market, i64, u32

cdef void start_waiting(Market* m, Instrument* book, u32 slot) noexcept nogil
cdef void wait_elected(Market* m, Instrument* book, u32 slot) noexcept nogil
cdef void elect(Market* m, Instrument* book, i64 price) noexcept nogil
cdef void say_elected(Market* m, u32 slot) noexcept nogil
cdef void come_in(Market* m, Instrument* book, u32 slot) noexcept nogil
cdef Instrument* next_slice(Market* m) noexcept nogil
