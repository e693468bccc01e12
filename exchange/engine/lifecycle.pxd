# What every order command shares: rejects, repeated answers, receipts, and an order's end.

from exchange.engine.state cimport Command, Market, Order, i64, u16, u32, u64

cdef void reject(Market* m, Command* c, u16 reason, i64 limit, i64 observed) noexcept nogil
cdef bint answered(Market* m, Command* c, u32 account) noexcept nogil
cdef void keep_receipt(Market* m, Command* c, u32 account, u64 first) noexcept nogil
cdef void say_cancelled(Market* m, Order* o, u64 order_id, u32 lots, u16 reason,
                        bint resting) noexcept nogil
cdef void cancel_order(Market* m, u32 slot, u16 reason) noexcept nogil
cdef void cancel_all_of(Market* m, u32 instrument, u32 session, u16 reason) noexcept nogil
