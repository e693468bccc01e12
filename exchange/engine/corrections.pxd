# Trades taken back or given another price, on the day they were made. See corrections.pyx.

from exchange.engine.state cimport Command, Market

cdef void bust(Market* m, Command* c) noexcept nogil
cdef void adjust(Market* m, Command* c) noexcept nogil
