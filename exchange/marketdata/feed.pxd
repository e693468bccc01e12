cimport cython

from exchange.marketdata.depth cimport Depth
from exchange.marketdata.queues cimport Queues
from exchange.marketdata.statistics cimport Statistics

cdef int _TRADE, _EXECUTED, _TRANSFERRED
cdef bytes _MOVING


cdef class _Batch:
    cdef readonly object wanted
    cdef readonly list out
    cdef dict _marked, _open

    @cython.locals(wanted=cython.bint)
    cpdef bint notes(self, channel, sequence) except -1
    cpdef say(self, channel, message)
    cpdef list close(self, time)


cdef class Feed:
    cdef readonly object instruments, prints, corrections
    cdef readonly dict depths, queues, sent, marked, pictures
    cdef readonly Statistics statistics
    cdef public object time
    cdef dict _pictures

    @cython.locals(
        row=tuple, kind=cython.int, number=cython.longlong, last=cython.longlong,
        queue=Queues, queues=dict, moved=dict, counted=dict,
        stated=dict, batch=_Batch)
    cpdef list apply(self, list rows, stamp, texts, wanted)
    cpdef learn(self, tuple row, stamp, text, _Batch batch=*)
    cdef _traded(self, tuple row, stamp, _Batch batch)
    cdef _happen(self, tuple row, stamp, _Batch batch)
    @cython.locals(queue=Queues)
    cdef _show(self, dict moved, dict counted, _Batch batch)
    cdef _look(self, picture, list out)
    cdef _delta(self, number, Depth depth, tuple levels, _Batch batch)
