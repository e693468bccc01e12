cimport cython

from exchange.marketdata.book cimport Level, Order, order_at
from exchange.marketdata.depth cimport Depth

cdef int _AUCTION, _MARKET, _RESTING, _SELL
cdef int _ACCEPTED, _TRADE, _CANCELLED, _REDUCED, _REPLACED, _DORMANT, _EXECUTED, _KEPT, _AT_MARKET
cdef int _RETURNED, _ELECTED, _REFILLED


cdef class Queues:
    cdef object _instrument
    cdef readonly Depth depth
    cdef dict _orders
    cdef public long long next_rank, next_market_rank
    cdef readonly bint watched
    cdef tuple _queues
    cdef list _noted

    @cython.locals(kind=cython.int, flags=cython.int, collects=cython.bint)
    cpdef apply(self, tuple row)
    @cython.locals(resting=cython.int)
    cdef _replace(self, tuple row)
    @cython.locals(rank=cython.longlong)
    cdef _join(self, tuple row, bint at_market)
    cdef _put(self, order_id, Order order)
    cpdef stand(self, order_id, int side, price, long long rank, long long lots)
    @cython.locals(order=Order, beyond=cython.longlong)
    cdef _leave_at_most(self, order_id, long long lots)
    @cython.locals(order=Order, queues=dict, queue=dict)
    cdef _take(self, order_id, long long lots)
    cpdef watch(self, bint watched)
    @cython.locals(order=Order)
    cdef tuple _lined_up(self)
    @cython.locals(order=Order, entries=list)
    cpdef tuple changes(self)
    @cython.locals(places=tuple, at_market=dict, at_limit=dict, end=cython.longlong)
    cpdef bytes packed(self, int side, long long count=*)
    @cython.locals(level=Level)
    cpdef count(self, int side, price)


cdef tuple _nobody()
cdef int _place(Order order)
@cython.locals(queues=dict, queue=dict)
cdef _line_up(tuple places, order_id, Order order)
@cython.locals(order=Order)
cdef long long _pack(long long price, dict queue, long long[::1] cells, long long end) except -1
