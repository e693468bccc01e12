"""Memory of a market. Slabs are reserved whole, so no slot ever moves; the system commits their
pages only when they are touched, and has them back when they are released."""

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from exchange.engine.vocabulary cimport *

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* address, size_t size, int protection, int flags, int file, long offset)
    int munmap(void* address, size_t size)
    void* MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS

cdef enum:
    SLAB_HEAD = 64  # the block's size stands in it; what follows is on a cache-line boundary


cdef void* reserve(size_t bytes) except NULL:
    """Zeroed memory on a cache-line boundary.

    Pages of its own: the C library would take a slab from its heap now and then, and zero it by
    hand, which commits all of it.
    """
    cdef size_t size = bytes + SLAB_HEAD
    cdef void* block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if block == MAP_FAILED:
        raise MemoryError(f"{bytes} bytes for the engine's slabs")
    (<size_t*>block)[0] = size
    return <char*>block + SLAB_HEAD


cdef void release_block(void* aligned) noexcept:
    cdef char* block
    if aligned == NULL:
        return
    block = <char*>aligned - SLAB_HEAD
    munmap(block, (<size_t*>block)[0])


cdef Market* market_new() except NULL:
    """An empty market in which the house account is open."""
    cdef Market* m = <Market*>calloc(1, sizeof(Market))
    if m == NULL:
        raise MemoryError("the engine's state")
    m.order_capacity = LIMIT_ORDERS
    m.position_capacity = LIMIT_POSITIONS
    m.account_capacity = LIMIT_ACCOUNTS
    m.instrument_capacity = LIMIT_INSTRUMENTS
    m.session_capacity = LIMIT_SESSIONS
    m.protection_capacity = LIMIT_PROTECTIONS
    m.orders = <Order*>reserve(m.order_capacity * sizeof(Order))
    m.extras = <Extra*>reserve(m.order_capacity * sizeof(Extra))
    m.positions = <Position*>reserve(m.position_capacity * sizeof(Position))
    m.stands = <Stand*>reserve(m.position_capacity * sizeof(Stand))
    m.accounts = <Account*>reserve(m.account_capacity * sizeof(Account))
    m.instruments = <Instrument*>reserve(m.instrument_capacity * sizeof(Instrument))
    m.stops = <Stops*>reserve(m.instrument_capacity * sizeof(Stops))
    m.auctions = <Auction**>reserve(m.instrument_capacity * sizeof(void*))
    m.sessions = <Session*>reserve(m.session_capacity * sizeof(Session))
    m.timers = <Timer*>reserve(m.session_capacity * sizeof(Timer))
    m.composites = <Composite*>reserve(m.instrument_capacity * sizeof(Composite))
    m.combined = <u32*>reserve(m.instrument_capacity * sizeof(u32))
    m.charged = <Charged*>reserve(m.position_capacity * sizeof(Charged))
    m.members = <Member*>reserve(LIMIT_MEMBERS * sizeof(Member))
    m.members_killed = <u8*>reserve(LIMIT_MEMBERS)
    m.due_of = <u32*>reserve(2 * m.account_capacity * sizeof(u32))
    m.protection_heads = <u32*>reserve(m.account_capacity * sizeof(u32))
    m.protections = <Protection*>reserve(m.protection_capacity * sizeof(Protection))
    m.expiries = <Expiry*>reserve(m.order_capacity * sizeof(Expiry))
    m.expiry_at = <u32*>reserve(m.order_capacity * sizeof(u32))
    m.safety = <Safety*>reserve(m.instrument_capacity * sizeof(Safety))
    m.losses = <Losses*>reserve(m.account_capacity * sizeof(Losses))
    m.accountable = <u8*>reserve(m.position_capacity)
    m.corrected = <u64*>reserve(LIMIT_CORRECTIONS * sizeof(u64))
    m.leg_changes = <LegTerms*>reserve(LIMIT_LEG_CHANGES * sizeof(LegTerms))
    m.credits = <Credits*>reserve(sizeof(Credits))
    m.cell_mask = (1 << 17) - 1  # a small market never has to grow it
    m.cell_room = 1 << 16
    m.cells = <Cell*>calloc(<size_t>m.cell_mask + 1, sizeof(Cell))
    if m.cells == NULL:
        raise MemoryError("the engine's state")
    m.order_top = 1
    m.position_top = 1
    m.session_top = 1
    m.protection_top = 1
    m.account_top = 1
    m.rules_version = VERSION_RULES
    m.sessions[0].entitled = <u64>1 << 32  # of a session in another slot: nobody's
    m.accounts[0].is_open = 1
    m.accounts[0].member = m.members
    m.accounts[0].kind = ACCOUNT_KIND_HOUSE
    m.accounts[0].burst = 1
    m.accounts[0].max_open_orders = LIMIT_ORDERS
    m.accounts[0].max_order = LIMIT_QUANTITY
    set_killed(&m.accounts[0], 0)
    m.accounts[0].ring = <Cell*>calloc(LIMIT_IDEMPOTENCY_WINDOW, sizeof(Cell))
    if m.accounts[0].ring == NULL:
        raise MemoryError("the engine's state")
    return m


cdef void market_free(Market* m) noexcept:
    cdef u32 i
    for i in range(m.instrument_count):
        free(m.instruments[i].levels)
        free(m.instruments[i].bits)
        if m.auctions[i] != NULL:
            free(m.auctions[i].asks.levels)
            free(m.auctions[i].asks.bits)
            free(m.auctions[i])
    for i in range(m.account_top):
        free(m.accounts[i].ring)
        free(m.accounts[i].positions)
    for block in (<size_t>m.orders, <size_t>m.extras, <size_t>m.positions, <size_t>m.accounts,
                  <size_t>m.instruments, <size_t>m.stops, <size_t>m.sessions, <size_t>m.timers,
                  <size_t>m.members, <size_t>m.expiries, <size_t>m.expiry_at,
                  <size_t>m.composites, <size_t>m.combined, <size_t>m.charged,
                  <size_t>m.credits,
                  <size_t>m.corrected, <size_t>m.leg_changes, <size_t>m.safety, <size_t>m.losses,
                  <size_t>m.accountable,
                  <size_t>m.stands, <size_t>m.members_killed, <size_t>m.protection_heads,
                  <size_t>m.protections, <size_t>m.auctions, <size_t>m.due_of):
        release_block(<void*><size_t>block)
    free(m.cells)
    free(m.picked)
    free(m.spare_events)
    free(m)


cdef Event* grow_events(Market* m) noexcept nogil:
    """More room for events, in the spare buffer; the next free one. Without memory the engine
    cannot tell what it did: it stops."""
    cdef u64 count = m.end_event - m.events
    cdef bint moves = m.events != m.spare_events
    cdef Event* grown
    if m.spare_room < 2 * count:
        grown = <Event*>realloc(m.spare_events, 2 * count * sizeof(Event))
        if grown == NULL:
            m.broken = 1
            return m.end_event - 1
        m.spare_events = grown
        m.spare_room = 2 * count
    if moves:
        memcpy(m.spare_events, m.events, count * sizeof(Event))
    m.events = m.spare_events
    m.end_event = m.events + m.spare_room
    return m.events + count


cdef bint legs_open(Market* m, u32 instrument) noexcept nogil:
    """Whether every leg of a combination is CONTINUOUS."""
    cdef Composite* made = &m.composites[instrument]
    cdef u32 i
    for i in range(made.legs):
        if m.instruments[made.leg[i]].state != TRADING_STATE_CONTINUOUS:
            return False
    return True


cdef void refresh_combined(Market* m) noexcept nogil:
    """A state has changed: a combination takes orders while its legs trade too."""
    cdef Instrument* book
    cdef u32 k
    for k in range(m.combined_count):
        book = &m.instruments[m.combined[k]]
        book.trades = (book.state == TRADING_STATE_CONTINUOUS and m.mode == MODE_NORMAL
                       and legs_open(m, m.combined[k]))
