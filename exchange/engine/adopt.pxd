# What of a market just read from an image follows from the rest. See adopt.pyx.

from exchange.engine.state cimport Market

cdef enum Fault:  # what an image may be refused for
    NONE = 0
    CUT_SHORT = 1
    NO_MEMORY = 2
    COUNTERS = 3
    OWNERS = 4
    ORDERS = 5
    LADDERS = 6
    TABLES = 7

cdef int adopt(Market* m) noexcept nogil
