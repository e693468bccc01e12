cimport cython


# A level holds at most messages.Limit.BOOK_ORDERS orders, of less than 2**32 lots each.
@cython.final
cdef class Level:
    cdef readonly int side
    cdef readonly long long price
    cdef public long long lots, orders, before
    cdef public bint noted


# Not tracked by the garbage collector: a level refers to no order, so there are no cycles.
@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Order:
    cdef readonly Level level
    cdef readonly long long rank
    cdef public long long lots, before
    cdef public bint noted


@cython.locals(order=Order)
cpdef Order order_at(Level level, long long rank, long long lots)
