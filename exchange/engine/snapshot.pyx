"""The state as a memory image, and a market made from one.

An image is this build's memory, little-endian: a header of four words (magic, layout, total bytes,
zero), `Market`, then the arrays in the order of `walk`, each padded to whole words. Pointers in it
are zero. What follows from the rest is rebuilt (adopt.pyx): pointers from the ids beside them,
ladders from the orders. An image of another layout is refused, never translated: the log is the
truth.

Whoever adds an array to the state adds it to `walk`; a pointer, to the function that blanks it.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from exchange.engine.adopt cimport COUNTERS, CUT_SHORT, NO_MEMORY, TABLES, adopt
from exchange.engine.months cimport withdraw_all
from exchange.engine.state cimport (
    Account, Bucket, Composite, Expiry, Extra, Instrument, Known, LegTerms, Level, Losses,
    Market, Member, Order, Position, Protection, Safety, Session, Stops, Timer, is_featured,
    market_free, market_new, release_pages, take_pages, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *

cdef extern from *:
    """
    #ifndef HOURBOOK_LAYOUT
    #error "setup.py defines HOURBOOK_LAYOUT: a digest of the engine's sources"
    #endif
    """
    u64 SOURCES "HOURBOOK_LAYOUT"

cdef enum:
    MEASURE = 0, SAVE = 1, LOAD = 2
    HEADER_WORDS = 4

cdef u64 MAGIC = <u64>0x314547414D494248  # HBIMAGE1

FAULTS = {1: "it ends early", 3: "counters beyond the limits", 4: "an owner that is not there",
          5: "an order that leads nowhere", 6: "an order that fits no level",
          7: "a table that leads nowhere"}

cdef struct Walk:
    u8* image
    u64 size, used
    int way
    int fault


cdef u64 layout() noexcept:
    """The digest by which an image is known as this build's: of the sources and compiled sizes."""
    cdef u64[17] facts = [
        sizeof(Market), sizeof(Order), sizeof(Bucket), sizeof(Position), sizeof(Instrument),
        sizeof(Account), sizeof(Member), sizeof(Session), sizeof(Timer), sizeof(Level),
        LIMIT_ORDERS, VERSION_SCHEMA, sizeof(Expiry), sizeof(Extra), sizeof(Protection),
        sizeof(Stops), sizeof(Composite),
    ]
    cdef u64 fold = SOURCES
    cdef u64 fact
    for fact in facts:
        fold = (fold ^ fact) * <u64>0x9E3779B97F4A7C15
        fold ^= fold >> 29
    return fold


cdef void* carry(Walk* w, void* array, u64 size) noexcept nogil:
    """Measure an array or copy it into or out of the image, by `w.way`; the copy, or NULL."""
    cdef u64 padded = (size + 7) & ~<u64>7
    cdef u8* place = w.image + w.used
    if w.fault or size == 0:
        return NULL
    if w.way == LOAD:
        if padded > w.size - w.used:
            w.fault = CUT_SHORT
            return NULL
        memcpy(array, place, size)
    elif w.way == SAVE:
        memcpy(place, array, size)
        memset(place + size, 0, padded - size)
    w.used += padded
    return array if w.way == LOAD else place if w.way == SAVE else NULL


cdef void keep_pointers(Market* m, Market* of) noexcept nogil:
    m.events = of.events
    m.next_event = of.next_event
    m.end_event = of.end_event
    m.lent = of.lent
    m.orders = of.orders
    m.extras = of.extras
    m.buckets = of.buckets
    m.positions = of.positions
    m.instruments = of.instruments
    m.stops = of.stops
    m.accounts = of.accounts
    m.members = of.members
    m.members_killed = of.members_killed
    m.protection_heads = of.protection_heads
    m.protections = of.protections
    m.stands = of.stands
    m.picked = of.picked
    m.picked_capacity = of.picked_capacity
    m.picked_count = 0
    m.due_of = of.due_of
    m.composites = of.composites
    m.combined = of.combined
    m.charged = of.charged
    m.sessions = of.sessions
    m.timers = of.timers
    m.expiries = of.expiries
    m.expiry_at = of.expiry_at
    m.corrected = of.corrected
    m.leg_changes = of.leg_changes
    m.credits = of.credits
    m.auctions = of.auctions
    m.safety = of.safety
    m.losses = of.losses
    m.accountable = of.accountable
    m.allowances = of.allowances
    m.withdrawn = of.withdrawn


cdef void blank_positions(Position* p, u32 count) noexcept nogil:
    cdef u32 i
    if p != NULL:
        for i in range(count):
            p[i].owner = NULL


cdef void blank_instruments(Instrument* book, u32 count) noexcept nogil:
    cdef u32 i
    if book != NULL:
        for i in range(count):
            book[i].bits = NULL
            book[i].levels = NULL
            book[i].summary = NULL
            book[i].top = NULL


cdef void blank_accounts(Account* a, u32 count) noexcept nogil:
    cdef u32 i
    if a != NULL:
        for i in range(count):
            a[i].member = NULL
            a[i].positions = NULL
            a[i].ring = NULL


cdef bint bad_counters(Market* m, Market* fresh) noexcept nogil:
    cdef u64 buckets = m.bucket_mask / sizeof(Bucket) + 1
    return (
        m.order_capacity != fresh.order_capacity or m.order_top > m.order_capacity
        or m.order_top < 1 or m.order_free >= m.order_top
        or m.position_capacity != fresh.position_capacity or m.position_top < 1
        or m.position_top > m.position_capacity or m.vacant >= m.position_top
        or m.instrument_capacity != fresh.instrument_capacity
        or m.instrument_count > m.instrument_capacity
        or m.combined_count > m.instrument_count
        or m.account_capacity != fresh.account_capacity or m.account_top < 1
        or m.account_top > m.account_capacity
        or m.session_capacity != fresh.session_capacity or m.session_top < 1
        or m.session_top > m.session_capacity or m.session_free_head >= m.session_top
        or m.session_free_tail >= m.session_top or m.timer_count > m.session_capacity
        or m.expiry_count > m.order_capacity or m.corrected_count > LIMIT_CORRECTIONS
        or m.leg_change_count > LIMIT_LEG_CHANGES or m.halt_count > m.instrument_count
        or m.stated.count >= LIMIT_LEGS or m.extra_count >= m.order_top
        or m.protection_top < 1 or m.protection_top > m.protection_capacity
        or m.protection_capacity != fresh.protection_capacity
        or m.timer_capacity != fresh.timer_capacity
        or buckets & (buckets - 1) or buckets > LIMIT_ORDERS or m.bucket_mask % sizeof(Bucket)
        or m.id_room != 3 * buckets
        or m.order_top > m.id_room or m.broken != 0
    )


cdef void carry_counters(Market* m, Walk* w) noexcept nogil:
    """Carry `Market` itself; on LOAD it keeps its pointers, its id hash gets the image's size."""
    cdef Market nothing
    cdef Market fresh = m[0]
    cdef Market* copy
    memset(&nothing, 0, sizeof(Market))
    copy = <Market*>carry(w, m, sizeof(Market))
    if w.way == SAVE:
        keep_pointers(copy, &nothing)
    elif w.way == LOAD and copy != NULL:
        keep_pointers(m, &fresh)
        withdraw_all(m)
        if bad_counters(m, &fresh):
            m[0] = fresh
            w.fault = COUNTERS
            return
        release_pages(m.buckets)
        m.buckets = <Bucket*>take_pages(m.bucket_mask + sizeof(Bucket), True)
        if m.buckets == NULL:
            w.fault = NO_MEMORY


cdef void walk(Market* m, Walk* w) noexcept nogil:
    """Carry every array of the state, in the image's order."""
    cdef u32 i
    carry_counters(m, w)
    if w.fault:
        return
    carry(w, m.orders, <u64>m.order_top * sizeof(Order))
    carry_extras(m, w)
    carry(w, m.buckets, m.bucket_mask + sizeof(Bucket))
    carry(w, m.composites, <u64>m.instrument_count * sizeof(Composite))
    carry(w, m.combined, <u64>m.combined_count * sizeof(u32))
    carry(w, m.members, <u64>LIMIT_MEMBERS * sizeof(Member))
    carry(w, m.members_killed, LIMIT_MEMBERS)
    carry(w, m.protections, <u64>m.protection_top * sizeof(Protection))
    carry(w, m.protection_heads, <u64>m.account_top * sizeof(u32))
    carry(w, m.sessions, <u64>m.session_top * sizeof(Session))
    carry(w, m.timers, <u64>m.timer_count * sizeof(Timer))
    carry(w, m.expiries, <u64>m.expiry_count * sizeof(Expiry))
    carry(w, m.safety, <u64>m.instrument_count * sizeof(Safety))
    carry(w, m.losses, <u64>m.account_top * sizeof(Losses))
    carry(w, m.accountable, m.position_top)
    carry(w, m.corrected, <u64>m.corrected_count * sizeof(u64))
    carry(w, m.leg_changes, <u64>m.leg_change_count * sizeof(LegTerms))
    blank_positions(<Position*>carry(w, m.positions, <u64>m.position_top * sizeof(Position)),
                    m.position_top)
    blank_instruments(<Instrument*>carry(w, m.instruments,
                                         <u64>m.instrument_count * sizeof(Instrument)),
                      m.instrument_count)
    carry(w, m.stops, <u64>m.instrument_count * sizeof(Stops))
    blank_accounts(<Account*>carry(w, m.accounts, <u64>m.account_top * sizeof(Account)),
                   m.account_top)
    for i in range(m.account_top):
        if m.accounts[i].is_open and not w.fault:
            carry_tables(&m.accounts[i], w)


cdef void carry_extras(Market* m, Walk* w) noexcept nogil:
    """Carry the Extras of the orders that are FEATURED, in slot order."""
    cdef u32 slot
    cdef u32 left = m.extra_count
    for slot in range(1, m.order_top):
        if left == 0 or w.fault:
            return
        if is_featured(&m.orders[slot]):
            carry(w, &m.extras[slot], sizeof(Extra))
            left -= 1


cdef void carry_tables(Account* a, Walk* w) noexcept nogil:
    """Carry an open account's window and its index of positions; on LOAD allocate both."""
    if w.way == LOAD:
        if a.positions_length > 2 * LIMIT_INSTRUMENTS:
            w.fault = TABLES
            return
        a.ring = <Known*>calloc(LIMIT_IDEMPOTENCY_WINDOW, sizeof(Known))
        if a.positions_length:
            a.positions = <u32*>calloc(a.positions_length, sizeof(u32))
        if a.ring == NULL or (a.positions_length and a.positions == NULL):
            w.fault = NO_MEMORY
            return
    carry(w, a.ring, LIMIT_IDEMPOTENCY_WINDOW * sizeof(Known))
    carry(w, a.positions, <u64>a.positions_length * sizeof(u32))


cdef bytes image_out(Market* m):
    """The image of a market."""
    cdef u64* header
    cdef bytes out
    cdef Walk w
    memset(&w, 0, sizeof(Walk))
    w.used = HEADER_WORDS * sizeof(u64)
    walk(m, &w)
    out = PyBytes_FromStringAndSize(NULL, w.used)
    w.image = <u8*><char*>out
    w.size = w.used
    header = <u64*>w.image
    header[0] = MAGIC
    header[1] = layout()
    header[2] = w.used
    header[3] = 0
    w.used = HEADER_WORDS * sizeof(u64)
    w.way = SAVE
    with nogil:
        walk(m, &w)
    return out


cdef Market* image_in(const u8[::1] image) except NULL:
    """A new market from an image; ValueError says why it cannot be one. Or MemoryError."""
    cdef u64 header[HEADER_WORDS]
    cdef Market* m
    cdef Walk w
    memset(&w, 0, sizeof(Walk))
    w.size = image.shape[0]
    w.used = sizeof(header)
    if w.size < w.used:
        raise ValueError("no engine image: it ends early")
    memcpy(header, &image[0], sizeof(header))
    if header[0] != MAGIC:
        raise ValueError("no engine image")
    if header[1] != layout():
        raise ValueError(f"engine image of another layout: {header[1]:016x}, not {layout():016x}")
    if header[2] != w.size:
        raise ValueError(f"no engine image: {w.size} bytes, not {header[2]}")
    w.image = <u8*>&image[0]
    w.way = LOAD
    m = market_new()
    with nogil:
        walk(m, &w)
        if not w.fault and w.used != w.size:
            w.fault = COUNTERS
        if not w.fault:
            w.fault = adopt(m)
    if w.fault:
        market_free(m)
        if w.fault == NO_MEMORY:
            raise MemoryError("the engine's state")
        raise ValueError(f"no engine image: {FAULTS[w.fault]}")
    return m
