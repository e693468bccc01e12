import cython

cdef unsigned int _MASKED, _WIDE, _WIDEST, _HEAD


cdef class Masks:
    cdef Py_ssize_t _left
    cdef bytes _head

    @cython.locals(at=Py_ssize_t, size=Py_ssize_t, second="unsigned int")
    cpdef bint are_on(self, bytes data) except -1


cdef class _Guard:
    cdef object _parser, _queue
    cdef Masks _masks

    cpdef tuple feed_data(self, bytes data)
