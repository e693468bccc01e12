# REDUCE_ONLY orders, groups of two orders, the sides of quotes. See groups.pyx.

from exchange.engine.state cimport (
    Instrument, Market, Order, Position, i64, is_featured, u32, u64, u8,
)
from exchange.engine.vocabulary cimport (
    ORDER_FEATURE_GROUPED, ORDER_FEATURE_QUOTE, ORDER_FEATURE_REDUCE_ONLY,
)

cdef enum:
    FOLLOWED_FEATURES = 35  # REDUCE_ONLY GROUPED QUOTE: while any is live, the book is WATCH_QUOTES

cdef void join_special(Market* m, u32 slot, u32 partner) noexcept nogil
cdef void leave_special(Market* m, u32 slot) noexcept nogil
cdef u32 part(Market* m, u32 slot) noexcept nogil
cdef i64 room_alone(Position* p, u8 side) noexcept nogil
cdef i64 room_to_reduce(Market* m, Position* p, u32 at, u8 side, u32 without) noexcept nogil
cdef i64 shared_lots(Market* m, u32 partner, u32 at, u8 side) noexcept nogil
cdef u32 beside(Market* m, u32 slot) noexcept nogil
cdef bint are_crossed(Order* buy, Order* sell) noexcept nogil
cdef i64 lots_called(Market* m, u32 slot) noexcept nogil


cdef inline u32 features_of(Market* m, u32 slot) noexcept nogil:
    return m.extras[slot].features if is_featured(&m.orders[slot]) else 0


cdef inline u32 partner_of(Market* m, u32 slot) noexcept nogil:
    """The slot of the order grouped with this one; 0 if there is none."""
    return m.extras[slot].partner if is_featured(&m.orders[slot]) else 0
