cimport cython


@cython.final
@cython.no_gc
cdef class Page:
    cdef char* _text
    cdef Py_ssize_t _used, _room
    cdef long long _time
    cdef Py_ssize_t _time_size
    cdef char[48] _time_text
    cdef readonly Py_ssize_t count

    cdef void _stamp(self, long long time) noexcept
    cdef int _grow(self, Py_ssize_t size) except -1
    cdef int _begin(self, const char* kind, tuple row, long long time, order_id, str text,
                    str code, bint sell) except -1
    cpdef accepted(self, tuple row, long long time, str text, str code, str price,
                   long long tokens)
    cpdef execution(self, tuple row, long long time, bint made, str text, str code, str price,
                    str fee)
    cpdef cancelled(self, tuple row, long long time, str text, str code, str price,
                    str request_id)
    cpdef add(self, bytes report)
    cpdef bytes take(self)
