# Ids: the hash from (account, 128-bit key) to a slot, the slab of slots with its free list, and
# each account's window of remembered ids. A live order keeps its slot, and so does a finished one
# while its id is in the window; a quote's side has no id and is not in the hash. Once its
# instrument has expired a finished order is PAST: it knows its account and instrument without a
# position.
#
# The hash is open addressing with linear probing and backward-shift deletion, at most three eighths
# full. A cell's tag is the key's hash, so probing rarely touches the slab.

from exchange.engine.combinations cimport charge_legs
from exchange.engine.expiry cimport stop_expiry
from exchange.engine.extras cimport forget_extra
from exchange.engine.vocabulary cimport LIMIT_IDEMPOTENCY_WINDOW
from exchange.engine.state cimport (
    AGED, Account, COMBINED, Cell, Command, EXPIRES, FEATURED, FREE, Market, Order, RECEIPT,
    UNPRICED, account_of, assume, ensure, instrument_of, is_aged, is_live, is_marked, is_past,
    likely, prefetch,
    read_again, state_of, u32, u64, u8, unlikely,
)

cdef enum:
    FRESH = 8  # how many slots ahead slots that were never used are prefetched

cdef void reserve_ids(Market* m, u64 commands) noexcept nogil


cdef inline u32 tag_of(u32 account, u64 key_lo) noexcept nogil:
    """The 32-bit hash of (account, key). Keys are digests, so a quarter of one is enough; the
    factors also spread keys that are counted up, in any number of accounts."""
    return <u32>key_lo * <u32>0x9E3779B1 + account * <u32>0xCC9E2D51


cdef inline u32 owner_of(Market* m, Order* o) noexcept nogil:
    """The account of an order or a receipt."""
    return o.prev if unlikely(state_of(o) >= RECEIPT) else account_of(&m.positions[o.position])


cdef inline u32 book_of(Market* m, Order* o) noexcept nogil:
    """The number of the instrument of an order."""
    return o.position if is_past(o) else instrument_of(&m.positions[o.position])


cdef inline u32 find_cell(Market* m, u32 account, u32 tag, u64 key_lo, u64 key_hi) noexcept nogil:
    """The cell of (account, key); if its slot is 0 the key is unknown, and belongs there."""
    cdef u64 i = tag & m.cell_mask
    cdef Cell* cells = m.cells
    cdef Order* o
    while cells[i].slot:
        if cells[i].tag == tag:
            o = &m.orders[cells[i].slot]
            if likely(o.key_lo == key_lo and o.key_hi == key_hi and owner_of(m, o) == account):
                break
        i = (i + 1) & m.cell_mask
    return <u32>i


cdef inline u32 find_key(Market* m, u32 account, u64 key_lo, u64 key_hi) noexcept nogil:
    """The slot that (account, key) names, 0 if none."""
    return m.cells[find_cell(m, account, tag_of(account, key_lo), key_lo, key_hi)].slot


cdef inline void fill_cell(Market* m, Cell* cell, u32 tag, u32 slot) noexcept nogil:
    """Put a key into the free cell that `find_cell` gave for it."""
    ensure(m, cell.slot == 0 and slot < m.order_top)
    cell.tag = tag
    cell.slot = slot


cdef inline void erase_key(Market* m, u32 tag, u32 slot) noexcept nogil:
    """Forget a key that is there; later cells of its run move back over the hole."""
    cdef u64 mask = m.cell_mask
    cdef u64 hole = tag & mask
    cdef Cell* cells = m.cells
    cdef u64 j
    while cells[hole].slot != slot:
        hole = (hole + 1) & mask
    j = (hole + 1) & mask
    while cells[j].slot:
        if ((j - cells[j].tag) & mask) >= ((j - hole) & mask):
            cells[hole] = cells[j]
            hole = j
        j = (j + 1) & mask
    cells[hole].slot = 0


cdef inline bint slots_left(Market* m) noexcept nogil:
    return m.order_free != 0 or m.order_top < m.order_capacity


cdef inline bint gives_slot(Market* m, Account* account) noexcept nogil:
    """Whether the account's oldest remembered id names a request or a finished order, so that the
    account's next id takes its slot: see `take_known_slot`."""
    return state_of(&m.orders[account.ring[account.ring_head].slot]) > UNPRICED


cdef inline bint has_slot(Market* m, Account* account) noexcept nogil:
    """Whether there is a slot for one more id of the account."""
    return likely(slots_left(m)) or gives_slot(m, account)


cdef inline u32 find_slot(Market* m) noexcept nogil:
    """Take a slot; 0 if none is left. The caller raises its generation."""
    cdef u32 slot = m.order_free
    if likely(slot != 0):
        m.order_free = m.orders[slot].next
        return slot
    slot = m.order_top
    if slot >= m.order_capacity:
        return 0
    m.order_top = slot + 1
    prefetch(&m.orders[slot + FRESH])
    return slot


cdef inline u32 take_slot(Market* m) noexcept nogil:
    """Take a slot that no id names, and raise its generation; the caller knows that one is left."""
    cdef u32 slot = find_slot(m)
    m.orders[slot].generation += 1
    return slot


cdef inline void free_slot(Market* m, u32 slot, u32 tag) noexcept nogil:
    cdef Order* o = &m.orders[slot]
    ensure(m, not is_live(o) and state_of(o) != FREE)
    erase_key(m, tag, slot)
    o.traits = 0  # FREE
    o.next = m.order_free
    m.order_free = slot


cdef inline void free_quote(Market* m, u32 slot) noexcept nogil:
    """Free the slot of a quote's side, which no id names."""
    m.orders[slot].traits = 0  # FREE
    m.orders[slot].next = m.order_free
    m.order_free = slot


cdef inline void let_go(Market* m, u32 slot) noexcept nogil:
    """Take a finished order that has flags out of what these stand for: the heap of expiries, its
    Extra and lists, its legs; and free its slot if no id keeps it."""
    cdef Order* o = &m.orders[slot]
    if (o.traits >> 24) & EXPIRES:
        stop_expiry(m, slot)
    if (o.traits >> 24) & FEATURED and forget_extra(m, slot):
        free_quote(m, slot)
        return
    if (o.traits >> 24) & COMBINED:
        charge_legs(m, &m.positions[o.position])
    if is_aged(o):
        free_slot(m, slot, tag_of(owner_of(m, o), o.key_lo))


cdef inline bint retire_working(Market* m, Order* o, u32 slot, u8 state) noexcept nogil:
    """Finish the order of a slot as FILLED or CANCELLED; the slot stays taken while its id is
    remembered. Whether cells of the id hash may have moved."""
    (<u8*>&o.traits)[2] = state  # a store of one byte, without a load
    o.leaves = 0
    o.prev = 0
    o.next = 0
    if likely(not is_marked(o)):
        return False
    let_go(m, slot)
    return True


cdef inline void retire(Market* m, u32 slot, u8 state) noexcept nogil:
    """`retire_working`, where no cell of the id hash is in hand."""
    retire_working(m, &m.orders[slot], slot, state)


cdef inline void prefetch_oldest(Market* m, Cell* oldest) noexcept nogil:
    """Prefetch what the account's next id will touch to forget `oldest`: its order, its cell, and
    the window a cache line further on."""
    cdef Cell* cell = &m.cells[oldest.tag & m.cell_mask]
    prefetch(&m.orders[oldest.slot])
    prefetch(cell)
    prefetch(oldest + 8)


cdef inline u32 take_known_slot(Market* m, Account* account, Cell* cell, u32 tag) noexcept nogil:
    """Take a slot for the id that `cell` was found for, and remember the id; 0 if there is none,
    and then nothing has changed. The caller raises the generation.

    The oldest id leaves the account's window. If its order is finished, or it is a request, the new
    id takes over its slot; if the order is live, it is AGED and a free slot is taken.
    """
    cdef u64 head = account.ring_head
    cdef u64 next = (head + 1) & (LIMIT_IDEMPOTENCY_WINDOW - 1)
    cdef Cell* ring = account.ring
    cdef u32 oldest = ring[head].slot
    cdef u32 slot = oldest
    cdef u32 forgotten
    prefetch_oldest(m, &ring[next])
    if likely(state_of(&m.orders[oldest]) > UNPRICED):  # in a window only 0, for none, is FREE
        assume(slot != 0)
        read_again()
        forgotten = ring[head].tag
        ring[head].tag = tag
        account.ring_head = <u32>next
        # fill first: `cell` may move when the oldest is erased. Both cells name this slot, but if
        # they share a run the oldest's comes first, so it is the one that `erase_key` finds
        fill_cell(m, cell, tag, slot)
        erase_key(m, forgotten, slot)
        return slot
    read_again()
    slot = find_slot(m)
    if unlikely(slot == 0):
        return 0
    ring[head].tag = tag
    ring[head].slot = slot
    account.ring_head = <u32>next
    fill_cell(m, cell, tag, slot)
    if oldest:
        m.orders[oldest].traits |= <u32>AGED << 24
    return slot


cdef inline u64 fingerprint_of(Command* c, bint targets) noexcept nogil:
    """`fingerprint`; `targets` False: the command's target is known to be zero."""
    cdef u64* words = <u64*>c
    cdef u64 h = ((words[0] & <u64>0xFFFFFFFFFBFFFFFF) + words[2] * <u64>0x6E789E6B
                  + (words[3] & <u64>0xFFFF0000FFFFFFFF) * <u64>0x5851F42D)
    if targets:
        h += words[4] * <u64>0x6659FD93 + words[5] * <u64>0x27D4EB4F
    return h


cdef inline u64 fingerprint(Command* c) noexcept nogil:
    """A hash, multilinear in the record's words, of all that a repeat must have equal: kind, side,
    tif, flags but MANUAL, instrument, price, quantity, self-trade mode, features, target."""
    return fingerprint_of(c, True)
