# Enter an order. See orders.pyx.

from exchange.engine.state cimport (
    Account, Command, Extra, Instrument, Market, i32, i64, u16, u32, u8,
)

cdef struct Terms:  # what the guards have found out about a new order
    u32 at  # its position record
    i32 slot  # ladder slot of its limit
    u8 side, tif
    bint rests  # it rests if it meets nothing: no minimum, no features
    u16 remainder  # the reason for which a remainder is cancelled; 0: the remainder rests
    u32 need  # its minimum: lots it must be able to trade at once
    i64 price  # at which it would rest; 0 if it cannot
    i64 expiry  # stamp at which it expires; 0 = none
    u32 partner  # the slot of the other order of its group; 0 = none
    i64 adverse, rise  # its adverse amount; by how much the requirement rises
    Extra extra  # of a special order


cdef void enter(Market* m, Command* c) noexcept nogil
cdef void accept(Market* m, Command* c, Instrument* book, Account* account,
                 Terms* terms) noexcept nogil
