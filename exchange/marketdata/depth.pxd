cimport cython

from exchange.marketdata.book cimport Level

cdef int _AUCTION, _DUPLICATE, _RESTING, _SELL
cdef int _ACCEPTED, _TRADE, _CANCELLED, _REDUCED, _REPLACED, _DORMANT, _RETURNED, _ELECTED
cdef int _REFILLED, _EXECUTED, _LEVEL_TAKEN


cdef class Depth:
    cdef readonly tuple levels
    cdef readonly Level moved
    cdef readonly object sequence
    cdef list _noted
    cdef tuple _prices, _unsorted

    @cython.locals(kind=cython.int, flags=cython.int, sell=cython.int, lots=cython.longlong)
    cpdef bint apply(self, tuple row) except -1

    @cython.locals(levels=dict, level=Level)
    cdef _add(self, int side, price, long long lots)

    @cython.locals(level=Level, side=cython.int)
    cpdef tuple changes(self)

    @cython.locals(levels=dict, unsorted=dict)
    cpdef prices(self, int side)
    @cython.locals(level=Level)
    cpdef long long lots(self, int side, price) except? -1
    cpdef list bids(self, count=*)
    cpdef list asks(self, count=*)


cpdef levels_checksum(list bids, list asks)
