# Implied prices. See implied.pyx.

from exchange.engine.matching cimport Incoming
from exchange.engine.state cimport Account, Command, Instrument, Market, Order, i32, i64, u32, u8

cdef struct Source:  # two resting orders that imply a price
    i64 price
    u32 combination
    Instrument* books[2]  # the combination's first, if it is one of them; else near, far
    i32 at[2]  # ladder slots
    u32 lots  # that it could trade

cdef void set_implied(Market* m, Command* c) noexcept nogil
cdef void end_implied(Market* m, u32 combination) noexcept nogil
cdef bint find_source(Market* m, Instrument* book, Account* account, u8 side, u32 lots,
                      Source* best) noexcept nogil
cdef bint refuse_implied(Market* m, Command* c, Instrument* book, u8 side) noexcept nogil
cdef void trade_implied(Market* m, Instrument* book, Incoming* t, Source* source) noexcept nogil
