# Enter an order. See orders.pyx.

from exchange.engine.state cimport (
    Account, Command, Extra, Instrument, Market, i32, i64, u16, u32, u8,
)

cdef struct Terms:  # what a new order is made of, once its guards have passed
    u32 at  # position
    u32 cell, tag  # where its key goes
    i32 slot  # of the ladder
    u8 side, tif
    bint rests  # at once, if it meets nothing
    u16 remainder  # why what cannot trade at once is cancelled; 0 if it rests
    u32 need  # lots it must be able to trade at once
    i64 price  # it would rest at; 0 if it does not
    i64 expiry
    u32 partner  # the slot of the other order of its group
    i64 adverse, rise  # of the hold
    Extra extra  # of a special order


cdef u32 open_position(Market* m, u32 account_id, u32 instrument) noexcept nogil
cdef void enter(Market* m, Command* c) noexcept nogil
cdef void accept(Market* m, Command* c, Instrument* book, Account* account,
                 Terms* terms) noexcept nogil
