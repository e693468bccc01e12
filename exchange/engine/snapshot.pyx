"""The state as a memory image, and a market made from one.

An image is this build's memory, little-endian: a header of four words (magic, layout, total bytes,
zero), `Market`, then the arrays in the order of `walk`, each padded to whole words. Pointers in it
are zero. What follows from the rest is rebuilt: pointers from the ids beside them, ladders from the
orders. An image of another layout is refused, never translated: the log is the truth.

Whoever adds an array to the state adds it to `walk`; a pointer, to the function that blanks it.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from exchange.engine.book cimport occupy, on_step, slot_of
from exchange.engine.auction cimport collect
from exchange.engine.credits cimport adopt_credits
from exchange.engine.ladder cimport build_ladder, fetch_level
from exchange.engine.months cimport withdraw_all
from exchange.engine.risk cimport position_of
from exchange.engine.state cimport (
    Account, Auction, Cell, COLLECTED, Composite, ELECTED, Expiry, Extra, FREE, Instrument,
    LegTerms, Level, Losses, Market, Member, Order, Position, Protection, RECEIPT, Safety, Session,
    Stand, Stops, Timer, UNPRICED, WAITING, WATCH_AUCTION, WORKING, account_of, auction_of,
    collects, i32, instrument_of, is_featured, is_garbled, market_free, market_new, prefetch,
    release_pages, side_of, state_of, take_pages, tif_of, u32, u64, u8, working_of,
)
from exchange.engine.triggers cimport add_trigger
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
    AHEAD = 8  # how many orders ahead their positions and levels are prefetched

cdef u64 MAGIC = <u64>0x314547414D494248  # HBIMAGE1

cdef enum Fault:
    NONE = 0
    CUT_SHORT = 1
    NO_MEMORY = 2
    COUNTERS = 3
    OWNERS = 4
    ORDERS = 5
    LADDERS = 6
    TABLES = 7

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
        sizeof(Market), sizeof(Order), sizeof(Cell), sizeof(Position), sizeof(Instrument),
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
    m.cells = of.cells
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
    cdef u64 cells = <u64>m.cell_mask + 1
    return (
        m.order_capacity != fresh.order_capacity or m.order_top > m.order_capacity
        or m.order_top < 1 or m.order_free >= m.order_top
        or m.position_capacity != fresh.position_capacity or m.position_top < 1
        or m.position_top > m.position_capacity
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
        or cells & (cells - 1) or cells > <u64>4 * LIMIT_ORDERS or cells < 2
        or m.cell_room * <u64>8 != cells * 3
        or m.order_top > m.cell_room or m.broken != 0
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
        release_pages(m.cells)
        m.cells = <Cell*>take_pages((<u64>m.cell_mask + 1) * sizeof(Cell), True)
        if m.cells == NULL:
            w.fault = NO_MEMORY


cdef void walk(Market* m, Walk* w) noexcept nogil:
    """Carry every array of the state, in the image's order."""
    cdef u32 i
    carry_counters(m, w)
    if w.fault:
        return
    carry(w, m.orders, <u64>m.order_top * sizeof(Order))
    carry_extras(m, w)
    carry(w, m.cells, (<u64>m.cell_mask + 1) * sizeof(Cell))
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
        a.ring = <Cell*>calloc(LIMIT_IDEMPOTENCY_WINDOW, sizeof(Cell))
        if a.positions_length:
            a.positions = <u32*>calloc(a.positions_length, sizeof(u32))
        if a.ring == NULL or (a.positions_length and a.positions == NULL):
            w.fault = NO_MEMORY
            return
    carry(w, a.ring, LIMIT_IDEMPOTENCY_WINDOW * sizeof(Cell))
    carry(w, a.positions, <u64>a.positions_length * sizeof(u32))


# --- what follows from the rest, rebuilt; each returns a Fault, and checks an index before its use

cdef int adopt_accounts(Market* m) noexcept nogil:
    cdef Account* a
    cdef u32 i, k
    for i in range(m.account_top):
        a = &m.accounts[i]
        if not a.is_open:
            continue
        if a.member_id >= LIMIT_MEMBERS:
            return OWNERS
        a.member = &m.members[a.member_id]
        if a.ring_head >= LIMIT_IDEMPOTENCY_WINDOW:
            return TABLES
        for k in range(LIMIT_IDEMPOTENCY_WINDOW):
            if a.ring[k].slot >= m.order_top:
                return TABLES
        for k in range(a.positions_length):
            if a.positions[k] >= m.position_top:
                return TABLES
    return NONE


cdef int adopt_positions(Market* m) noexcept nogil:
    cdef Position* p
    cdef u32 i
    for i in range(1, m.position_top):
        p = &m.positions[i]
        if instrument_of(p) >= m.instrument_count or account_of(p) >= m.account_top:
            return OWNERS
        p.owner = &m.accounts[account_of(p)]
        if not p.owner.is_open:
            return OWNERS
    return NONE


cdef int adopt_combined(Market* m) noexcept nogil:
    """Check combinations, and that where one has a position its legs have; `charged`, credits."""
    cdef Composite* made
    cdef Position* p
    cdef u32 i, k
    for i in range(m.instrument_count):
        made = &m.composites[i]
        if made.legs > LIMIT_LEGS or made.spreads > LIMIT_LEG_SPREADS:
            return TABLES
        for k in range(made.legs):
            if made.leg[k] >= m.instrument_count or made.ratio[k] == 0:
                return TABLES
        for k in range(made.spreads):
            if made.spread[k] >= m.instrument_count or m.composites[made.spread[k]].legs < 2:
                return TABLES
    for i in range(m.combined_count):
        if m.combined[i] >= m.instrument_count or m.composites[m.combined[i]].legs < 2:
            return TABLES
    for i in range(1, m.position_top):
        p = &m.positions[i]
        made = &m.composites[instrument_of(p)]
        for k in range(made.legs):
            if position_of(p.owner, made.leg[k]) == 0:
                return OWNERS
        m.charged[i].lots[0] = working_of(p, 0) if made.legs else 0
        m.charged[i].lots[1] = working_of(p, 1) if made.legs else 0
    return NONE if adopt_credits(m) else TABLES


cdef int check_small(Market* m) noexcept nogil:
    """Check the small tables, and that the id hash is not full: a search would not end."""
    cdef u32 used = 0
    cdef u32 i
    for i in range(m.session_top):
        if m.sessions[i].next >= m.session_top or m.sessions[i].account >= m.account_top:
            return TABLES
    for i in range(m.timer_count):
        if m.timers[i].session & 0xFFFF >= m.session_top:
            return TABLES
    for i in range(m.account_top):
        if m.protection_heads[i] >= m.protection_top:
            return TABLES
    for i in range(1, m.protection_top):  # each was made after the one it leads to
        if m.protections[i].next >= i or m.protections[i].account >= m.account_top:
            return TABLES
    for i in range(m.expiry_count):
        if m.expiries[i].slot >= m.order_top:
            return TABLES
        m.expiry_at[m.expiries[i].slot] = i
    for i in range(m.cell_mask + 1):
        used += m.cells[i].slot != 0
        if m.cells[i].slot >= m.order_top:
            return TABLES
    return NONE if used <= m.cell_room else TABLES


cdef inline bint bad_list(Market* m, Level* level) noexcept nogil:
    return level.head >= m.order_top or level.tail >= m.order_top


cdef int build_ladders(Market* m) noexcept nogil:
    """Check every instrument's grid and give it empty ladders."""
    cdef Instrument* book
    cdef u32 i
    for i in range(m.instrument_count):
        book = &m.instruments[i]
        if (book.price_step < 1 or book.low > book.high or book.step_shift > 63
                or book.low < -<long long>LIMIT_PRICE or book.high > <long long>LIMIT_PRICE
                or (book.high - book.low) / book.price_step >= LIMIT_LADDER_LEVELS
                or bad_list(m, &book.dormant) or bad_list(m, &m.stops[i].waiting)
                or bad_list(m, &m.stops[i].elected)):
            return LADDERS
        m.stops[i].root[0] = 0
        m.stops[i].root[1] = 0
        if not build_ladder(m, book):
            return NO_MEMORY
        if book.watched & WATCH_AUCTION:
            book.watched &= ~<u32>WATCH_AUCTION
            if not collect(m, book):
                return NO_MEMORY
    return NONE


cdef inline int put_on_ladder(Market* m, u32 slot, Instrument* book) noexcept nogil:
    """Put an order, its links set, back on a ladder: level ends and quantity, bit, best price."""
    cdef Order* o = &m.orders[slot]
    cdef u8 side = side_of(o)
    cdef Level* level
    cdef i32 at
    if o.price < book.low or o.price > book.high or is_garbled(o) or not on_step(book, o.price):
        return LADDERS
    at = slot_of(book, o.price)
    if at < 0 or <u32>at >= book.slots:
        return LADDERS
    level = &book.levels[at]
    level.quantity += o.leaves
    if o.next == 0:
        if level.tail:
            return LADDERS
        level.tail = slot
    if o.prev == 0:
        if level.head:
            return LADDERS
        level.head = slot
        occupy(book, at)
        if (at < book.best[1]) if side else (at > book.best[0]):
            book.best[side] = at
    return NONE


cdef inline int put_aside(Market* m, u32 slot, Instrument* book, u8 state) noexcept nogil:
    """Put a COLLECTED or UNPRICED order back where it waits for its auction."""
    cdef Order* o = &m.orders[slot]
    cdef u8 side = side_of(o)
    cdef Auction* a
    cdef Level* queue
    if not collects(book) or is_garbled(o) or (state == COLLECTED and side == 0):
        return LADDERS
    a = auction_of(m, book)
    if state == COLLECTED:
        return put_on_ladder(m, slot, &a.asks)
    queue = &a.market[side]
    queue.quantity += o.leaves
    if (o.next == 0 and queue.tail) or (o.prev == 0 and queue.head):
        return LADDERS
    if o.next == 0:
        queue.tail = slot
    if o.prev == 0:
        queue.head = slot
    return NONE


cdef inline int put_in_place(Market* m, u32 slot, u8 state) noexcept nogil:
    """Put an order back on its ladder or in its queue, by its state; note a GFA order."""
    cdef Instrument* book = &m.instruments[instrument_of(&m.positions[m.orders[slot].position])]
    if collects(book) and tif_of(&m.orders[slot]) == TIME_IN_FORCE_GFA:
        auction_of(m, book).good_for = True
    if state == WORKING:
        return put_on_ladder(m, slot, book)
    if state == COLLECTED or state == UNPRICED:
        return put_aside(m, slot, book, state)
    return NONE


cdef int adopt_orders(Market* m) noexcept nogil:
    """Check that every slot's links and owner exist, and put every order back in its place."""
    cdef Order* o
    cdef u8 state
    cdef u32 slot
    cdef u32 free_slots = 0
    cdef u32 extras = 0
    cdef int fault
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        state = state_of(o)
        if slot + 2 * AHEAD < m.order_top:  # slots come in order, but their levels lie anywhere
            prefetch(&m.positions[m.orders[slot + 2 * AHEAD].position])
            fetch_level(m, slot + AHEAD)
        if o.next >= m.order_top and state != RECEIPT:
            return ORDERS
        if state == FREE:
            free_slots += 1
            continue
        if state == RECEIPT:
            if o.prev >= m.account_top or not m.accounts[o.prev].is_open:
                return OWNERS
            continue
        if (state > RECEIPT or o.prev >= m.order_top or o.position == 0
                or o.position >= m.position_top):
            return ORDERS
        if is_featured(o):
            extras += 1
            if extras > m.extra_count or bad_extra(m, slot):
                return ORDERS
            adopt_extra(m, slot)
        if state == WAITING and not adopt_stop(m, slot):
            return ORDERS
        fault = put_in_place(m, slot, state)
        if fault:
            return fault
    return check_free(m, free_slots) if extras == m.extra_count else ORDERS


cdef inline bint bad_extra(Market* m, u32 slot) noexcept nogil:
    """Whether an Extra is damaged. An iceberg that shows nothing would be refilled for ever."""
    cdef Extra* extra = &m.extras[slot]
    if (extra.partner >= m.order_top or extra.prev >= m.order_top or extra.next >= m.order_top
            or is_garbled(&m.orders[slot])):
        return True
    return (extra.features & ORDER_FEATURE_ICEBERG or extra.hidden) and extra.display == 0


cdef void adopt_extra(Market* m, u32 slot) noexcept nogil:
    """Enter a REDUCE_ONLY order or a side of a quote into its position's Stand."""
    cdef Extra* extra = &m.extras[slot]
    cdef Stand* stand = &m.stands[m.orders[slot].position]
    if extra.features & ORDER_FEATURE_QUOTE:
        stand.quotes[side_of(&m.orders[slot])] = slot
    if extra.features & ORDER_FEATURE_REDUCE_ONLY:
        stand.reducing += 1
        if extra.prev == 0:
            stand.reducing_head = slot
        if extra.next == 0:
            stand.reducing_tail = slot


cdef inline bint adopt_stop(Market* m, u32 slot) noexcept nogil:
    """Put a waiting stop into the heap of its side unless it is elected; False if it is no stop."""
    cdef Order* o = &m.orders[slot]
    if not is_featured(o) or is_garbled(o):
        return False
    if not m.extras[slot].features & ELECTED:
        add_trigger(m, &m.stops[instrument_of(&m.positions[o.position])], slot)
    return True


cdef int check_free(Market* m, u32 count) noexcept nogil:
    """Check that the free list has exactly the `count` free slots."""
    cdef u32 slot = m.order_free
    while slot and count and state_of(&m.orders[slot]) == FREE:
        count -= 1
        slot = m.orders[slot].next
    return NONE if slot == 0 and count == 0 else ORDERS


cdef int adopt(Market* m) noexcept nogil:
    cdef int fault = adopt_accounts(m) or adopt_positions(m) or adopt_combined(m)
    return fault or check_small(m) or build_ladders(m) or adopt_orders(m)


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
