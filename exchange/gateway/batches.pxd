import cython


cpdef bint is_batch(object data) except -1
@cython.locals(char=Py_UCS4)
cdef bint _opens_array(str text) except -1
