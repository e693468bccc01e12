"""The memory of a ladder: levels over an instrument's limits and the bitset above them."""

from libc.stdlib cimport calloc

from exchange.engine.book cimport occupied_above, slot_of
from exchange.engine.state cimport (
    Instrument, Level, Market, NO_ASK, NO_BID, Order, WORKING, i32, instrument_of, prefetch,
    state_of, u32, u64,
)


cdef bint build_ladder(Market* m, Instrument* book) noexcept nogil:
    """Give a book empty levels over [low, high]; the caller has kept the old ones, to free them."""
    cdef u64 slots = <u64>((book.high - book.low) / book.price_step) + 1
    cdef u64 words = (slots + 63) // 64
    cdef u64 summaries = (words + 63) // 64
    cdef u64 tops = (summaries + 63) // 64
    book.levels = <Level*>calloc(slots, sizeof(Level))
    book.bits = <u64*>calloc(words + summaries + tops, sizeof(u64))
    if book.levels == NULL or book.bits == NULL:
        m.broken = 1
        return False
    book.summary = book.bits + words
    book.top = book.summary + summaries
    book.top_words = <u32>tops
    book.range = <u64>book.high - <u64>book.low
    book.units = book.range if book.price_step == 1 else 0
    book.slots = <u32>slots
    book.best[0] = NO_BID
    book.best[1] = NO_ASK
    return True


cdef i32 lowest(Instrument* book) noexcept nogil:
    """The lowest occupied slot, NO_ASK if the book is empty."""
    return 0 if book.bits[0] & 1 else occupied_above(book, 0)


cdef void fetch_level(Market* m, u32 slot) noexcept nogil:
    """Prefetch an order's level. The order is from an image and not checked yet."""
    cdef Order* o = &m.orders[slot]
    cdef Instrument* book
    cdef i32 at
    if state_of(o) != WORKING or o.position >= m.position_top:
        return
    book = &m.instruments[instrument_of(&m.positions[o.position])]
    at = slot_of(book, o.price)
    if 0 <= at and <u32>at < book.slots:
        prefetch(&book.levels[at])
