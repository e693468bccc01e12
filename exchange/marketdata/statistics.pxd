cimport cython

cdef int _DUPLICATE, _SELL, _LEG_TRADE, _BUSTED, _ADJUSTED, _LEG_BUSTED, _TRANSFERRED
cdef int _EXPIRED, _SETTLED, _DAY_OPENED


cdef class Day:
    cdef public object open, last
    cdef public long long trades
    cdef readonly dict lots

    cpdef trade(self, price, lots)
    cpdef move(self, price, lots)


cdef class Statistics:
    cdef object _instruments
    cdef readonly object days
    cdef readonly dict open_interest, sequences
    cdef dict _nets
    cdef public object first

    @cython.locals(day=Day)
    cpdef trade(self, tuple row)
    @cython.locals(kind=cython.int)
    cpdef apply(self, tuple row)
    @cython.locals(busted=cython.bint, day=Day)
    cdef _correct(self, tuple row)
    cdef _book(self, tuple row, other, lots)
    @cython.locals(nets=dict, old=cython.longlong, new=cython.longlong)
    cpdef move(self, instrument, account, long long lots)
