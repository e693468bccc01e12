cimport cython

from exchange.gateway.buckets cimport Bucket

cdef int _DUPLICATE, _SELL, _QUOTE, _ACCEPTED, _TRADE, _CANCELLED, _EXECUTED, _REDUCED, _REPLACED
cdef int _DORMANT, _RETURNED, _WAITING, _ELECTED, _REPLACED_AWAY, _REPRICED


@cython.final
cdef class Order:
    cdef readonly unsigned long long id
    cdef readonly unsigned int account, instrument
    cdef readonly str text
    cdef readonly bint sell
    cdef readonly int tif
    cdef public long long price, quantity, leaves
    cdef public bint dormant, waiting

    cpdef tuple terms(self)


@cython.locals(order=Order)
cpdef Order order_of(tuple terms)


@cython.final
cdef class Holding:
    cdef public object net, cost


@cython.final
cdef class Account:
    cdef readonly Bucket bucket
    cdef public object cash
    cdef readonly object member, group
    cdef public int killed
    cdef readonly dict holdings, orders, ids


@cython.final
cdef class Accounts:
    cdef readonly dict by_id, orders
    cdef readonly object finished
    cdef public set stopped
    cdef public long long now
    cdef unsigned long long _expiring
    cdef object _instruments
    cdef dict _listed

    @cython.locals(known=Account)
    cpdef tokens(self, account, long long stamp)
    @cython.locals(order=Order)
    cpdef str text_of(self, order_id)
    cpdef Order known(self, order_id)
    @cython.locals(kind=cython.int, flags=cython.int)
    cpdef Order apply(self, tuple row, text)
    @cython.locals(kind=cython.int, order=Order, executed=cython.longlong)
    cdef Order _change(self, tuple row)
    @cython.locals(order=Order, account=Account, terms=cython.longlong, flags=cython.int,
                   quoted=cython.bint)
    cdef Order _accept(self, tuple row, str text)
    @cython.locals(maker=cython.ulonglong, lots=cython.longlong, order=Order)
    cdef Order _trade(self, tuple row)
    cdef _account(self, tuple row)
    cdef _kill(self, tuple row, bint on)
    cdef _correct(self, tuple row, unit)
    @cython.locals(account=Account, holding=Holding)
    cdef _book(self, account_id, instrument, lots, value, cash)
    cdef _leave(self, Order order, long long leaves)
    @cython.locals(oldest=Order, account=Account)
    cdef _finish(self, Order order)
