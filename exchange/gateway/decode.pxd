import cython

from exchange.gateway.records cimport pack_command
from exchange.marketdata.instruments cimport Instrument

cdef int _ID_CHARS

cpdef object read_json(str text)
cpdef int fields_of(object request) except -1

cpdef bytes digest(str text, bytes person)
@cython.locals(char=Py_UCS4, known=bint)
cpdef bint is_id(str text) except -1
cpdef str checked_id(str text, str field)
cpdef bytes id_key(str text, str field, bytes person)
cpdef tuple target_of(object request)


cdef class Recorder:
    cdef dict _by_code
    cdef dict _ticks

    @cython.locals(
        instrument=Instrument, market=bint, lots="unsigned int", flags="unsigned int",
        tif="unsigned int", features="unsigned int", extent=bytes, key=bytes,
    )
    cpdef bytes enter(self, object request, unsigned int account, unsigned int session)
    cpdef bytes cancel(self, object request, unsigned int account, unsigned int session)
    cpdef bytes reduce(self, object request, unsigned int account, unsigned int session)
    cpdef bytes replace(
        self, object request, unsigned int account, unsigned int session, Instrument instrument
    )
    @cython.locals(target=bytes, by_client_id=bint)
    cdef bytes _target(
        self, int kind, object request, unsigned int account, unsigned int session,
        long long price, unsigned int lots, unsigned int flags,
    )
    cpdef object price(self, Instrument instrument, str text, str field=*)
