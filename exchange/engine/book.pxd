# One instrument's book: a dense ladder of levels over the day's limits, with a three-level 64-ary
# bitset over it (bits, summary, top) that finds the next occupied level in a few words.
#
# Invariants: best[BUY] < best[SELL] where both are set; a level's quantity is the sum of its
# orders' leaves; a bit is set exactly where a level has an order.

from exchange.engine.state cimport (
    Instrument, Level, Market, NO_ASK, NO_BID, Order, clz, ctz, ensure, i32, i64, likely,
    put_pair, side_of, u32, u64, u8, unlikely,
)

cdef extern from *:
    """
    static inline uint32_t* hb_pick(uint32_t which, uint32_t* a, uint32_t* b) {
    #ifdef __x86_64__  /* the compiler would make it a jump */
        __asm__("testl %1, %1; cmovz %2, %0" : "+r"(a) : "r"(which), "r"(b) : "cc");
        return a;
    #else
        return which ? a : b;
    #endif
    }
    """
    u32* pick "hb_pick"(u32 which, u32* a, u32* b) noexcept nogil  # a if which is not 0, else b


cdef inline i32 slot_of(Instrument* book, i64 price) noexcept nogil:
    """The ladder slot of a price that is on the step and within the limits."""
    if likely(book.price_step == 1):
        return <i32>(<u64>price - <u64>book.low)
    return <i32>(((<u64>price - <u64>book.low) >> book.step_shift) * book.step_inverse)


cdef inline i64 price_of(Instrument* book, i32 slot) noexcept nogil:
    return book.low + slot * book.price_step


cdef inline i64 price_toward(Instrument* book, u8 side, i64 limit) noexcept nogil:
    """The last price on the step that an order with this limit may trade at."""
    cdef i64 beyond = (limit - book.low) % book.price_step
    if beyond < 0:
        beyond += book.price_step
    if beyond and side:
        beyond -= book.price_step
    return limit - beyond


cdef inline i32 slot_within(Instrument* book, u8 side, i64 price) noexcept nogil:
    """The ladder slot up to which an order limited at a price on the step may trade. A price out of
    the limits gives the end of the ladder if it reaches all levels, else a slot beyond its end."""
    if price < book.low:
        return 0 if side else -1
    if price > book.high:
        return <i32>book.slots if side else <i32>book.slots - 1
    return slot_of(book, price)


cdef inline bint on_step(Instrument* book, i64 price) noexcept nogil:
    """Whether a price within the limits is on the step: an exact division and its check."""
    return price_of(book, slot_of(book, price)) == price


cdef inline void occupy(Instrument* book, i32 slot) noexcept nogil:
    cdef u64 word = book.bits[slot >> 6]
    book.bits[slot >> 6] = word | <u64>1 << (slot & 63)
    if word == 0:
        word = book.summary[slot >> 12]
        book.summary[slot >> 12] = word | <u64>1 << ((slot >> 6) & 63)
        if word == 0:
            book.top[slot >> 18] |= <u64>1 << ((slot >> 12) & 63)


cdef inline void vacate(Instrument* book, i32 slot) noexcept nogil:
    book.bits[slot >> 6] &= ~(<u64>1 << (slot & 63))
    if book.bits[slot >> 6] == 0:
        book.summary[slot >> 12] &= ~(<u64>1 << ((slot >> 6) & 63))
        if book.summary[slot >> 12] == 0:
            book.top[slot >> 18] &= ~(<u64>1 << ((slot >> 12) & 63))


cdef inline i32 occupied_below(Instrument* book, i32 slot) noexcept nogil:
    """The highest occupied slot < `slot`, or NO_BID."""
    cdef i32 w = slot >> 6
    cdef u64 found = book.bits[w] & ((<u64>1 << (slot & 63)) - 1)
    cdef i32 v
    if likely(found != 0):
        return (w << 6) + 63 - clz(found)
    v = w >> 6
    found = book.summary[v] & ((<u64>1 << (w & 63)) - 1)
    if found == 0:
        w = v >> 6
        found = book.top[w] & ((<u64>1 << (v & 63)) - 1)
        while found == 0:
            w -= 1
            if w < 0:
                return NO_BID
            found = book.top[w]
        v = (w << 6) + 63 - clz(found)
        found = book.summary[v]
    w = (v << 6) + 63 - clz(found)
    return (w << 6) + 63 - clz(book.bits[w])


cdef inline i32 occupied_above(Instrument* book, i32 slot) noexcept nogil:
    """The lowest occupied slot > `slot`, or NO_ASK."""
    cdef i32 w = slot >> 6
    # two shifts: a shift by 64 would be undefined
    cdef u64 found = book.bits[w] & ((~<u64>1) << (slot & 63))
    cdef i32 v
    if likely(found != 0):
        return (w << 6) + ctz(found)
    v = w >> 6
    found = book.summary[v] & ((~<u64>1) << (w & 63))
    if found == 0:
        w = v >> 6
        found = book.top[w] & ((~<u64>1) << (v & 63))
        while found == 0:
            w += 1
            if w >= <i32>book.top_words:
                return NO_ASK
            found = book.top[w]
        v = (w << 6) + ctz(found)
        found = book.summary[v]
    w = (v << 6) + ctz(found)
    return (w << 6) + ctz(book.bits[w])


cdef inline void next_best(Instrument* book, u8 side, i32 slot) noexcept nogil:
    """Find the next best of `side`, whose best level `slot` has become empty."""
    book.best[side] = occupied_above(book, slot) if side else occupied_below(book, slot)


cdef inline bint has_opposite(Instrument* book, u8 side) noexcept nogil:
    return book.best[0] != NO_BID if side else book.best[1] != NO_ASK


cdef inline bint reaches(u8 side, i32 slot, i32 opposite) noexcept nogil:
    """Whether an order of `side` limited at `slot` trades with a level of the other side."""
    return slot <= opposite if side else slot >= opposite


cdef inline void append(Market* m, Level* level, u32 slot) noexcept nogil:
    cdef Order* o = &m.orders[slot]
    o.prev = level.tail
    o.next = 0
    if level.tail:
        m.orders[level.tail].next = slot
    else:
        level.head = slot
    level.tail = slot
    level.quantity += o.leaves


cdef inline void unlink(Market* m, Level* level, Order* o) noexcept nogil:
    """Take an order out of its queue; its leaves leave the level's quantity."""
    # no jumps: which neighbours an order has is as good as random, and known late
    pick(o.prev, &m.orders[o.prev].next, &level.head)[0] = o.next
    pick(o.next, &m.orders[o.next].prev, &level.tail)[0] = o.prev
    level.quantity -= o.leaves


cdef inline void line_up(Market* m, Instrument* book, Order* o, u32 slot, u32 lots, u8 side,
                         i64 at) noexcept nogil:
    """Put an order, its leaves `lots`, at the back of its level."""
    cdef Level* level = &book.levels[at]
    cdef u32 tail = level.tail
    ensure(m, 0 <= at and <u32>at < book.slots and price_of(book, <i32>at) == o.price)
    ensure(m, not reaches(side, <i32>at, book.best[1 - side]))
    ensure(m, lots > 0 and lots == o.leaves and (tail == 0 or side_of(&m.orders[tail]) == side))
    put_pair(&o.prev, tail, 0)  # and next
    level.quantity += lots
    level.tail = slot
    if tail:
        m.orders[tail].next = slot
    else:
        level.head = slot
        occupy(book, <i32>at)
        if (<i32>at < book.best[1]) if side else (<i32>at > book.best[0]):
            book.best[side] = <i32>at


cdef inline void rest(Market* m, Instrument* book, u32 slot, u8 side, i32 at) noexcept nogil:
    """`line_up` with the order's own leaves."""
    line_up(m, book, &m.orders[slot], slot, m.orders[slot].leaves, side, at)


cdef inline void take_out(Market* m, Instrument* book, Order* o, u8 side, i32 at) noexcept nogil:
    """Take a WORKING order out of the book."""
    cdef Level* level = &book.levels[at]
    ensure(m, level.head != 0 and level.quantity >= o.leaves and side == side_of(o))
    if o.prev | o.next:
        unlink(m, level, o)
        return
    put_pair(&level.head, 0, 0)  # and tail
    level.quantity -= o.leaves  # not to 0 in an auction, which books lots later
    vacate(book, at)
    if book.best[side] == at:
        next_best(book, side, at)
