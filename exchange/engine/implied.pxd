# Implied prices. See implied.pyx.

from exchange.engine.matching cimport Incoming
from exchange.engine.state cimport Account, Command, Instrument, Market, Order, i32, i64, u32, u8
from exchange.engine.vocabulary cimport LIMIT_LEGS

cdef struct Source:  # resting orders that imply a price
    i64 price
    u32 combination
    u32 own  # place of the leg that it is a price of; LIMIT_LEGS: of the combination
    u32 side  # of who trades the whole combination
    u32 lots  # of the whole that it could trade
    u32 parts
    Instrument* books[LIMIT_LEGS]  # the combination's first, if it is one of them; then legs'
    i32[LIMIT_LEGS] at  # ladder slots
    i64[LIMIT_LEGS] prices  # of the legs, in ticks

cdef void set_implied(Market* m, Command* c) noexcept nogil
cdef void end_implied(Market* m, u32 combination) noexcept nogil
cdef bint find_source(Market* m, Instrument* book, Account* account, u8 side, u32 lots, i64 worst,
                      Source* best) noexcept nogil
cdef bint is_implied(Market* m, Instrument* leg, u8 side, i64 worst) noexcept nogil
cdef bint refuse_implied(Market* m, Command* c, Instrument* book, u8 side) noexcept nogil
cdef void trade_implied(Market* m, Instrument* book, Incoming* t, Source* source) noexcept nogil
