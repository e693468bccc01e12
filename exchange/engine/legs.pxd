# How combinations trade, with each other's orders and with implied prices. See legs.pyx.

from exchange.engine.matching cimport Incoming
from exchange.engine.state cimport (
    Account, Composite, Instrument, LegTerms, Market, i128, i64, u16, u32, u64, u8,
)

cdef struct Party:  # one side of a trade of legs
    Account* account
    u64 order_id
    u32 number
    bint resting

cdef i128 leg_prices(Market* m, Composite* made, LegTerms* terms, i64 price, i64 weight,
                     i64* prices) noexcept nogil
cdef void match_watched(Market* m, Instrument* book, Incoming* t) noexcept nogil
cdef void trade_leg(Market* m, u32 number, Party* one, Party* other, u8 side, i64 lots, i64 price,
                    u32 parent, u16 place) noexcept nogil


cdef inline i128 floor_div(i128 a, i128 b) noexcept nogil:
    cdef i128 q = a / b
    return q - 1 if (a % b != 0 and (a < 0) != (b < 0)) else q
