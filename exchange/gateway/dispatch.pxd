cimport cython

from exchange.gateway.accounts cimport Account, Accounts, Order
from exchange.gateway.decode cimport is_id
from exchange.gateway.page cimport Page
from exchange.marketdata.instruments cimport Instrument

cdef int _ACCEPTED, _CANCELLED, _TRADE, _REJECTED, _OPENED, _RECORDED
cdef int _DUPLICATE, _MARKET


@cython.final
cdef class Readers:
    cdef readonly list sessions
    cdef readonly bint plain
    cdef bint waits, _reads_json
    cdef Page page
    cdef list _messages

    cdef _look(self)
    cpdef add(self, report)
    @cython.locals(count=cython.Py_ssize_t, text=bytes, packed=bytes)
    cpdef tell(self, dict told)


@cython.final
cdef class Dispatch:
    cdef readonly dict readers
    cdef dict _listed
    cdef Accounts _accounts
    cdef object _reports, _answer_logon
    cdef list _waiting

    @cython.locals(accounts=Accounts, order=Order, row=tuple, kind=cython.int)
    cpdef take(self, list rows, long long stamp, dict texts, dict told)
    @cython.locals(readers=Readers)
    cdef _tell(self, dict told)
    @cython.locals(readers=Readers)
    cdef Readers _of(self, account)
    @cython.locals(readers=Readers, kind=cython.int)
    cdef _report(self, Order order, tuple row, long long stamp, text)
    @cython.locals(kind=cython.int, flags=cython.int, account=Account, unpriced=cython.bint,
                   instrument=Instrument)
    cdef _write(self, Page page, tuple row, long long stamp, str named, str text)
    @cython.locals(readers=Readers, instrument=Instrument)
    cdef _made(self, tuple row, long long stamp)
    @cython.locals(readers=Readers)
    cdef _others(self, tuple row, long long stamp, text)
