"""GTD orders: a binary heap by (due, slot) that knows each order's place, so that any can leave."""


cdef inline bint before(Expiry* x, Expiry* y) noexcept nogil:
    return x.due < y.due or (x.due == y.due and x.slot < y.slot)


cdef inline void put(Market* m, u32 at, Expiry x) noexcept nogil:
    m.expiries[at] = x
    m.expiry_at[x.slot] = at


cdef void sift(Market* m, u32 at, Expiry x) noexcept nogil:
    """Put `x` into the hole at `at` and sift it up or down to where it belongs."""
    cdef u32 parent, child
    while at > 0:
        parent = (at - 1) >> 1
        if not before(&x, &m.expiries[parent]):
            break
        put(m, at, m.expiries[parent])
        at = parent
    while True:
        child = 2 * at + 1
        if child >= m.expiry_count:
            break
        if child + 1 < m.expiry_count and before(&m.expiries[child + 1], &m.expiries[child]):
            child += 1
        if not before(&m.expiries[child], &x):
            break
        put(m, at, m.expiries[child])
        at = child
    put(m, at, x)


cdef void start_expiry(Market* m, u32 slot, i64 due) noexcept nogil:
    """Have the order in `slot` cancelled at the first stamp at or after `due`, if still live."""
    cdef Expiry x
    x.due = due
    x.slot = slot
    x.spare = 0
    m.orders[slot].traits |= <u32>EXPIRES << 24
    m.expiry_count += 1
    sift(m, m.expiry_count - 1, x)


cdef void stop_expiry(Market* m, u32 slot) noexcept nogil:
    """Take a finished order out of the heap."""
    cdef u32 at = m.expiry_at[slot]
    m.orders[slot].traits &= ~(<u32>EXPIRES << 24)
    m.expiry_count -= 1
    if at != m.expiry_count:
        sift(m, at, m.expiries[m.expiry_count])
