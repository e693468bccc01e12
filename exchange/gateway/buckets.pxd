cimport cython


@cython.final
cdef class Bucket:
    cdef readonly long long interval, burst
    cdef public long long tat

    cpdef spend(self, long long now)
    @cython.locals(ahead=cython.longlong)
    cpdef long long left(self, long long now)
