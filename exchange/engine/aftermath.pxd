# What follows from the trades of a command, once its order has found its place. See aftermath.pyx.

from exchange.engine.state cimport Instrument, Market, u32

cdef void aftermath(Market* m, Instrument* book, u32 first) noexcept nogil
cdef void follow(Market* m, Instrument* book, u32 first) noexcept nogil
