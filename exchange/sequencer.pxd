import cython


cdef class _Source:
    cdef object number
    cdef list items
    cdef Py_ssize_t taken

    cdef bint is_empty(self) noexcept


cdef class Sequencer:
    cdef public object tape, recovered, epoch, durable_upto
    cdef public bint full
    cdef public Py_ssize_t queued
    cdef public object _journal, _batch, _matched, _signer
    cdef object _lock, _engine, _clock, _spec_hash, _exchange_id, _events_digest, _notes
    cdef object _rules_version, _next_sequence, _stamp, _recovery, _wakeup, _syncing, _asked_at
    cdef object _failure, _syncer, _running
    cdef bint _closing, _failed, _open
    cdef dict _sources
    cdef list _ring

    @cython.locals(source=_Source)
    cdef _queue(self, object number, tuple item)
    cpdef object _match(self)
    @cython.locals(
        items=list, records=list, ingress=list, texts=list, number="long long"
    )
    cdef object _take(self)
    @cython.locals(source=_Source, served=list, ring=list)
    cdef list _in_turn(self, Py_ssize_t size)
