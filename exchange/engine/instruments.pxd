# An instrument's life: list, limits, risk, state, mode, mark, settle, expire. See instruments.pyx.

from exchange.engine.risk cimport absolute
from exchange.engine.state cimport Command, Instrument, Market, i128, i64, u16, u32, u8
from exchange.engine.vocabulary cimport LIMIT_MONEY

cdef bint refuse_instrument(Market* m, Command* c) noexcept nogil
cdef bint refuse_outright(Market* m, Command* c) noexcept nogil
cdef bint bad_limits(i64 low, i64 high, i64 step, i64 tick_value, i64 bound) noexcept nogil
cdef bint bad_mark(i64 price, i64 multiplier, i64 bound) noexcept nogil
cdef void outline(Instrument* book, i64 low, i64 high, i64 step, u32 lot_step) noexcept nogil
cdef void move_mark(Market* m, u32 instrument, i64 price) noexcept nogil
cdef void list_instrument(Market* m, Command* c) noexcept nogil
cdef void set_limits(Market* m, Command* c) noexcept nogil
cdef void set_risk(Market* m, Command* c) noexcept nogil
cdef void move_state(Market* m, Instrument* book, u8 state, u16 cause) noexcept nogil
cdef void set_state(Market* m, Command* c) noexcept nogil
cdef void set_mode(Market* m, Command* c) noexcept nogil
cdef void resume(Market* m, Instrument* book) noexcept nogil
cdef void mark(Market* m, Command* c) noexcept nogil
cdef void settle(Market* m, Command* c) noexcept nogil
cdef void expire(Market* m, Command* c) noexcept nogil


cdef inline bint exceeds(i64 a, i64 b, i64 c) noexcept nogil:
    """Whether |a| × b × c is more than LIMIT_MONEY; b and c are not negative."""
    cdef i128 product = <i128>a * b
    if product < 0:
        product = -product
    if product > <i64>LIMIT_MONEY:
        return c != 0
    return product * c > <i64>LIMIT_MONEY


cdef inline bint exceeds_bound(Instrument* book, i64 rate, i64 bound) noexcept nogil:
    """Whether `bound` lots could hold, or be worth at a price or the mark, over LIMIT_MONEY."""
    return (exceeds(book.low, book.tick_value, bound) or exceeds(book.high, book.tick_value, bound)
            or exceeds(book.mark, book.multiplier, bound) or exceeds(rate, bound, 1))
