# Enter, cancel, reduce, replace: one order command each. See orders.pyx.

from exchange.engine.state cimport Command, Instrument, Market

cdef void enter(Market* m, Command* c) noexcept nogil
cdef void cancel(Market* m, Command* c) noexcept nogil
cdef void reduce_order(Market* m, Command* c) noexcept nogil
cdef void replace(Market* m, Command* c) noexcept nogil
cdef void return_dormant(Market* m, Instrument* book) noexcept nogil
