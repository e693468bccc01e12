# What follows from the trades of a command, once its order has found its place. See aftermath.pyx.

from exchange.engine.state cimport Instrument, Market

cdef void aftermath(Market* m, Instrument* book) noexcept nogil
