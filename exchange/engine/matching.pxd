# An incoming order's way through the book. See matching.pyx.

from exchange.engine.state cimport (
    Instrument, Level, Market, Order, Position, i32, i64, u16, u32, u64, u8,
)

cdef struct Incoming:  # the caller sets slot, limit, need and order_id; `run` the rest
    u32 slot
    i32 limit  # ladder slot it may trade up to
    u64 order_id
    u64 who
    u32 position, group, leaves
    u32 need  # lots it must be able to trade at once, or nothing happens
    u32 self_cancelled  # lots the self-trade rule took off it at the end
    bint done  # cancelled whole by the self-trade rule DECREMENT
    i64 lots, value  # executed so far: lots, micro-dollars traded for
    u8 side, stp

cdef void run(Market* m, Instrument* book, Incoming* t, u32 head, u16 remainder) noexcept nogil
cdef void run_special(Market* m, Instrument* book, Incoming* t, u32 head,
                      u16 remainder) noexcept nogil
cdef void meet_head(Market* m, Instrument* book, Incoming* t, i32 at) noexcept nogil
cdef void meet_own(Market* m, Instrument* book, Incoming* t, i32 at) noexcept nogil
cdef void settle_head(Market* m, Instrument* book, i32 at) noexcept nogil
