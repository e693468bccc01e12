# Cancel, reduce, replace: one order command each. See changes.pyx.

from exchange.engine.state cimport Command, Instrument, Market

cdef void cancel(Market* m, Command* c) noexcept nogil
cdef void reduce_order(Market* m, Command* c) noexcept nogil
cdef void replace(Market* m, Command* c) noexcept nogil
cdef void return_dormant(Market* m, Instrument* book) noexcept nogil
