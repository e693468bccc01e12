cimport cython


@cython.final
cdef class _Show:
    cdef object messages
    cdef Py_ssize_t told
    cdef list behind


cdef class Shows:
    cdef readonly dict channels
    cdef readonly Py_ssize_t behind_bytes

    cpdef begin(self, str channel, object messages)
    @cython.locals(show=_Show)
    cpdef hold(self, str channel, bytes encoded)
    @cython.locals(show=_Show)
    cpdef tuple tell(self)
    @cython.locals(show=_Show)
    cpdef forget(self, str channel)
    cpdef clear(self)
