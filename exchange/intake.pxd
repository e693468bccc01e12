import cython


cdef class _Source:
    cdef object number
    cdef list items
    cdef Py_ssize_t taken

    cdef bint is_empty(self) noexcept


cdef class Intake:
    cdef public bint full, closing
    cdef readonly Py_ssize_t queued
    cdef object _log, _begun
    cdef dict _sources
    cdef list _ring, _groups
    cdef Py_ssize_t _grouped

    @cython.locals(source=_Source)
    cdef _queue(self, object number, tuple item)
    @cython.locals(source=_Source, items=list, served=list, ring=list)
    cpdef list take(self, Py_ssize_t size)
    @cython.locals(items=list, group=list)
    cdef list _take_groups(self, Py_ssize_t size)


@cython.locals(records=list, ingress=list, texts=list, sequence="long long")
cpdef tuple columns(list items, long long first)
