# What an order could trade at once. See reach.pyx.

from exchange.engine.matching cimport Incoming
from exchange.engine.state cimport Instrument, Market, i64, u32

cdef i64 reachable(Market* m, Instrument* book, Incoming* t, u32 wanted) noexcept nogil
