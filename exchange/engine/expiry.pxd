# GTD orders: a binary heap by (due, slot). See expiry.pyx.
#
# Invariants: an order is in the heap exactly while it is live and GTD; its EXPIRES flag says so.

from exchange.engine.state cimport (
    EXPIRES, Expiry, Market, i64, u32,
)

cdef void start_expiry(Market* m, u32 slot, i64 due) noexcept nogil
cdef void stop_expiry(Market* m, u32 slot) noexcept nogil


cdef inline i64 expiry_of(Market* m, u32 slot) noexcept nogil:
    """When an order in the heap is due."""
    return m.expiries[m.expiry_at[slot]].due
