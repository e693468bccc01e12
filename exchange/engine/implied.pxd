# Implied prices. See implied.pyx.

from exchange.engine.matching cimport Incoming
from exchange.engine.state cimport Account, Command, Instrument, Market, Order, i32, i64, u32, u8
from exchange.engine.vocabulary cimport LIMIT_LEGS

cdef struct Source:  # an implied price, and the resting orders (parts) that imply it
    i64 price
    u32 combination
    u32 own  # the leg, by its place, whose price is implied; LIMIT_LEGS: the combination's is
    u32 side  # on which the whole combination is traded by the one who trades it
    u32 lots  # of the combination that could trade
    u32 parts
    Instrument* books[LIMIT_LEGS]  # of the parts: the combination's first, if it is one; then legs'
    i32[LIMIT_LEGS] at  # their ladder slots
    i64[LIMIT_LEGS] prices  # of all legs, in ticks

cdef void set_implied(Market* m, Command* c) noexcept nogil
cdef void end_implied(Market* m, u32 combination) noexcept nogil
cdef bint find_source(Market* m, Instrument* book, Account* account, u8 side, u32 lots, i64 limit,
                      i64 worst, Source* best) noexcept nogil
cdef bint is_implied(Market* m, Instrument* leg, u8 side, i64 worst) noexcept nogil
cdef bint refuse_implied(Market* m, Command* c, Instrument* book, u8 side, u32 lots) noexcept nogil
cdef void trade_implied(Market* m, Instrument* book, Incoming* t, Source* source) noexcept nogil
