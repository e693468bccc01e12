# The trades of an auction. See pairing.pyx.

from exchange.engine.state cimport Instrument, Market, i64

cdef void pair_off(Market* m, Instrument* book, i64 price) noexcept nogil
