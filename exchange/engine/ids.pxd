# Who is known: the bounded hash from (account, 128-bit key) to a slot, the slab of slots, and the
# window of remembered ids. Open addressing, linear probing, at most half full, backward-shift
# delete; a cell's tag is the upper half of its hash, so probing rarely touches the slab.

from exchange.engine.state cimport (
    AGED, Account, Cell, Command, DORMANT, FREE, Market, Order, RECEIPT, WORKING,
    likely, prefetch, u32, u64, u8, unlikely,
)

cdef void grow_cells(Market* m) noexcept nogil


cdef inline u32 tag_of(u32 account, u64 key_lo, u64 key_hi) noexcept nogil:
    cdef u64 h = (key_lo ^ (key_hi * <u64>0xD6E8FEB86659FD93)) + (<u64>account << 40)
    return <u32>((h * <u64>0x9E3779B97F4A7C15) >> 32)


cdef inline u32 owner_of(Market* m, Order* o) noexcept nogil:
    return o.prev if unlikely(o.state == RECEIPT) else m.positions[o.position].account


cdef inline u32 find_key(Market* m, u32 account, u64 key_lo, u64 key_hi) noexcept nogil:
    """The slot that (account, key) names, 0 if none."""
    cdef u32 tag = tag_of(account, key_lo, key_hi)
    cdef u32 mask = (<u32>1 << m.cell_bits) - 1
    cdef u32 i = tag >> (32 - m.cell_bits)
    cdef u32 slot = m.cells[i].slot
    cdef Order* o
    while slot:
        if m.cells[i].tag == tag:
            o = &m.orders[slot]
            if likely(o.key_lo == key_lo and o.key_hi == key_hi and owner_of(m, o) == account):
                return slot
        i = (i + 1) & mask
        slot = m.cells[i].slot
    return 0


cdef inline void insert_key(Market* m, u32 account, u64 key_lo, u64 key_hi,
                            u32 slot) noexcept nogil:
    cdef u32 tag = tag_of(account, key_lo, key_hi)
    cdef u32 mask, i
    if unlikely(m.cell_count * 2 >= <u32>1 << m.cell_bits):
        grow_cells(m)
    mask = (<u32>1 << m.cell_bits) - 1
    i = tag >> (32 - m.cell_bits)
    while m.cells[i].slot:
        i = (i + 1) & mask
    m.cells[i].tag = tag
    m.cells[i].slot = slot
    m.cell_count += 1


cdef inline void erase_key(Market* m, u32 account, u64 key_lo, u64 key_hi,
                           u32 slot) noexcept nogil:
    """Forget a key that is there; later cells of its run move back over the hole."""
    cdef u32 mask = (<u32>1 << m.cell_bits) - 1
    cdef u32 shift = 32 - m.cell_bits
    cdef u32 hole = tag_of(account, key_lo, key_hi) >> shift
    cdef u32 j
    while m.cells[hole].slot != slot:
        hole = (hole + 1) & mask
    m.cell_count -= 1
    j = (hole + 1) & mask
    while m.cells[j].slot:
        if ((j - (m.cells[j].tag >> shift)) & mask) >= ((j - hole) & mask):
            m.cells[hole] = m.cells[j]
            hole = j
        j = (j + 1) & mask
    m.cells[hole].slot = 0


cdef inline bint slots_left(Market* m) noexcept nogil:
    return m.order_free != 0 or m.order_top < m.order_capacity


cdef inline u32 take_slot(Market* m) noexcept nogil:
    """A slot with its generation raised; the caller has asked `slots_left`."""
    cdef u32 slot = m.order_free
    if likely(slot != 0):
        m.order_free = m.orders[slot].next
        m.order_free_count -= 1
    else:
        slot = m.order_top
        m.order_top += 1
    m.orders[slot].generation += 1
    return slot


cdef inline void free_slot(Market* m, u32 slot) noexcept nogil:
    cdef Order* o = &m.orders[slot]
    erase_key(m, owner_of(m, o), o.key_lo, o.key_hi, slot)
    o.state = FREE
    o.next = m.order_free
    m.order_free = slot
    m.order_free_count += 1


cdef inline void retire(Market* m, u32 slot, u8 state) noexcept nogil:
    """An order is FILLED or CANCELLED: its slot stays while its id is remembered."""
    cdef Order* o = &m.orders[slot]
    o.state = state
    o.leaves = 0
    o.prev = 0
    o.next = 0
    if unlikely(o.flags & AGED):
        free_slot(m, slot)


cdef inline void remember(Market* m, Account* account, u32 slot) noexcept nogil:
    """Append an accepted id to the window; the oldest leaves it."""
    cdef u8 head = account.ring_head
    cdef u32 oldest = account.ring[head]
    cdef Order* o
    account.ring[head] = slot
    head += 1
    account.ring_head = head
    prefetch(&m.orders[account.ring[head]])
    if likely(oldest != 0):
        o = &m.orders[oldest]
        if o.state == WORKING or o.state == DORMANT:
            o.flags |= AGED
        else:
            free_slot(m, oldest)


cdef inline u64 fingerprint(Command* c) noexcept nogil:
    """Of what a repeat must have equal; not the account and key it is found by."""
    cdef u64 h
    h = (<u64>c.kind | <u64>c.side << 8 | <u64>c.tif << 16 | <u64>(c.flags & ~4) << 24
         | <u64>c.instrument << 32)
    h = (h ^ (h >> 29)) * <u64>0xBF58476D1CE4E5B9
    h = (h ^ <u64>c.price ^ (<u64>c.stp << 56)) * <u64>0x94D049BB133111EB
    h = (h ^ (h >> 32) ^ <u64>c.quantity) * <u64>0x9E3779B97F4A7C15
    h = (h ^ (h >> 29) ^ c.target_lo) * <u64>0xD6E8FEB86659FD93
    return (h ^ (h >> 32) ^ c.target_hi) * <u64>0xBF58476D1CE4E5B9
