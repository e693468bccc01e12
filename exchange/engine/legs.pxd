# How combinations trade, and implied prices. See legs.pyx.

from exchange.engine.matching cimport Incoming
from exchange.engine.state cimport Instrument, Market

cdef void match_watched(Market* m, Instrument* book, Incoming* t) noexcept nogil
