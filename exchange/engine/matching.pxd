# Matching an incoming order. See matching.pyx.

from exchange.engine.state cimport (
    Instrument, Level, Market, Order, Position, i32, i64, u16, u32, u64, u8,
)

cdef struct Incoming:  # the caller sets slot, limit, need and order_id; `run` the rest
    u32 slot
    i32 limit  # ladder slot it may trade up to
    u64 order_id
    u64 who
    u32 position, group, leaves
    u32 need  # its minimum: lots it must be able to trade at once, or it trades none
    u32 self_cancelled  # lots that CANCEL_NEWEST or CANCEL_BOTH ended it with, else 0
    bint done  # DECREMENT took its last lots, and has told its end
    i64 lots, value  # executed so far: lots, micro-dollars traded for
    u8 side, stp

cdef void run(Market* m, Instrument* book, Incoming* t, u32 head, u16 remainder) noexcept nogil
cdef void run_special(Market* m, Instrument* book, Incoming* t, u32 head,
                      u16 remainder) noexcept nogil
cdef void meet_head(Market* m, Instrument* book, Incoming* t, i32 at) noexcept nogil
cdef void meet_own(Market* m, Instrument* book, Incoming* t, i32 at) noexcept nogil
cdef void settle_head(Market* m, Instrument* book, i32 at) noexcept nogil
