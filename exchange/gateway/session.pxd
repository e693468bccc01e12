from exchange.gateway.batches cimport is_batch
from exchange.gateway.decode cimport Recorder, read_json
from exchange.gateway.shows cimport Shows


cdef class Session:
    cdef public object hub, address, number, wake, send_now, stage, key, logon, closing, failure
    cdef public int codec
    cdef public unsigned int engine_session
    cdef public long long trading_account
    cdef public set channels, stale
    cdef readonly Shows shows
    cdef public bint cancels_on_loss
    cdef public Py_ssize_t sending_bytes
    cdef Recorder _recorder
    cdef list _waiting
    cdef Py_ssize_t _waiting_bytes, _granted_bytes, _waiting_count, _late_bytes
    cdef long long _turn
    cdef object _kind, _encode
    cdef int _malformed, _bad_logons
    cdef dict _handlers

    cpdef hear(self, object data, object ingress_ns)
    cpdef receive(self, object data, object ingress_ns)
    cdef _submit(self, bytes record, object ingress_ns, str text)
    cpdef send(self, object message)
    cpdef bint flush(self) except -1
    cpdef push(self, bytes encoded, Py_ssize_t count=*)
    cpdef bytes take(self)
    cpdef close(self, int code, str reason)


cpdef bytes array_of(list parts, Py_ssize_t count, int codec)
cpdef bytes elements(bytes array)
