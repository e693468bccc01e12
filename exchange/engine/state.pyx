"""The memory of a market.

Slabs are reserved at full capacity, so no slot ever moves; the system commits their pages when they
are first touched and takes them back when the slab is released.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdlib cimport calloc, free

from exchange.engine.vocabulary cimport *

cdef extern from "<sys/mman.h>" nogil:
    """
    #ifdef MADV_HUGEPAGE
    #define HB_IN_HUGE_PAGES(at, size) ((void)madvise((at), (size), MADV_HUGEPAGE))
    #else
    #define HB_IN_HUGE_PAGES(at, size) ((void)0)
    #endif
    """
    void* mmap(void* address, size_t size, int protection, int flags, int file, long offset)
    int munmap(void* address, size_t size)
    void in_huge_pages "HB_IN_HUGE_PAGES"(void* address, size_t size)
    void* MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS

cdef enum:
    BUCKETS = 1 << 14  # of the id hash at first: a small market never has to grow it
    SLAB_HEAD = 64  # bytes before a slab that hold its block's size; keeps slabs on a cache line
    HUGE_PAGE = 1 << 21
    SMALL_PAGE = 1 << 12
    COMMITTED = HUGE_PAGE - SLAB_HEAD  # bytes of the orders committed at once: 32,767 of them
    EVENTS_KEPT = 7 << 18  # bytes of events that a batch of BATCH_COMMANDS may ask for


cdef void* take_pages(size_t bytes, bint scattered) noexcept nogil:
    """Zeroed memory on a cache-line boundary; NULL if there is none.

    By mmap: calloc would sometimes take a slab from its heap and zero it by hand, which commits all
    of it. A slab with `scattered` accesses asks for huge pages where the system has them: the
    processor's TLB covers few pages.
    """
    cdef size_t size = bytes + SLAB_HEAD
    cdef size_t whole = size & ~<size_t>(HUGE_PAGE - 1) if size > HUGE_PAGE else HUGE_PAGE
    cdef void* block
    if scattered:
        size = whole + HUGE_PAGE  # a size that is a multiple: then Linux aligns it to a huge page
    block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if block == MAP_FAILED:
        return NULL
    if scattered:
        in_huge_pages(block, whole)
    (<size_t*>block)[0] = size
    return <char*>block + SLAB_HEAD


cdef void* reserve(size_t bytes, bint scattered=False) except NULL:
    """`take_pages`, or MemoryError."""
    cdef void* pages = take_pages(bytes, scattered)
    if pages == NULL:
        raise MemoryError(f"{bytes} bytes for the engine's slabs")
    return pages


cdef void commit(void* pages, size_t bytes) noexcept nogil:
    """Touch the pages of the first `bytes` now, so that no order has to wait for a page fault."""
    cdef size_t at = 0
    while at < bytes:
        (<volatile char*>pages)[at] = 0
        at += SMALL_PAGE


cdef void release_pages(void* aligned) noexcept nogil:
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
    m.protection_capacity = LIMIT_ACCOUNTS * LIMIT_PROTECTIONS + 1  # 0 stands for none
    m.orders = <Order*>reserve(m.order_capacity * sizeof(Order), True)
    m.extras = <Extra*>reserve(m.order_capacity * sizeof(Extra))
    m.positions = <Position*>reserve(m.position_capacity * sizeof(Position), True)
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
    m.due_of = <u32*>reserve(2 * m.position_capacity * sizeof(u32))
    m.protection_heads = <u32*>reserve(m.account_capacity * sizeof(u32))
    m.protections = <Protection*>reserve(m.protection_capacity * sizeof(Protection))
    m.expiries = <Expiry*>reserve(m.order_capacity * sizeof(Expiry))
    m.expiry_at = <u32*>reserve(m.order_capacity * sizeof(u32))
    m.safety = <Safety*>reserve(m.instrument_capacity * sizeof(Safety))
    m.losses = <Losses*>reserve(m.account_capacity * sizeof(Losses))
    m.accountable = <u8*>reserve(m.position_capacity)
    m.allowances = <Allowance*>reserve(m.position_capacity * sizeof(Allowance))
    m.withdrawn = <u64*>reserve(m.account_capacity * sizeof(u64))
    m.corrected = <u64*>reserve(LIMIT_CORRECTIONS * sizeof(u64))
    m.leg_changes = <LegTerms*>reserve(LIMIT_LEG_CHANGES * sizeof(LegTerms))
    m.credits = <Credits*>reserve(sizeof(Credits))
    m.bucket_mask = BUCKETS * sizeof(Bucket) - sizeof(Bucket)
    m.id_room = 3 * BUCKETS
    m.buckets = <Bucket*>reserve(BUCKETS * sizeof(Bucket), True)
    commit(m.buckets, BUCKETS * sizeof(Bucket))
    commit(m.orders, COMMITTED)
    commit(m.positions, SMALL_PAGE)
    # freed at once, which raises malloc's threshold for mmap: large batches reuse heap memory
    PyBytes_FromStringAndSize(NULL, EVENTS_KEPT)
    m.order_top = 1
    m.position_top = 1
    m.session_top = 1
    m.protection_top = 1
    m.account_top = 1
    m.rules_version = VERSION_RULES
    m.sessions[0].entitled = <u64>1 << 32  # a session id that slot 0 never has: matches no command
    m.accounts[0].is_open = 1
    m.accounts[0].member = m.members
    m.accounts[0].kind = ACCOUNT_KIND_HOUSE
    m.accounts[0].burst = 1
    m.accounts[0].max_open_orders = LIMIT_ORDERS
    m.accounts[0].max_order = LIMIT_QUANTITY
    set_killed(&m.accounts[0], 0)
    m.accounts[0].ring = <Known*>calloc(LIMIT_IDEMPOTENCY_WINDOW, sizeof(Known))
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
                  <size_t>m.accountable, <size_t>m.allowances, <size_t>m.withdrawn,
                  <size_t>m.stands, <size_t>m.members_killed, <size_t>m.protection_heads,
                  <size_t>m.protections, <size_t>m.auctions, <size_t>m.due_of):
        release_pages(<void*><size_t>block)
    release_pages(m.buckets)
    free(m.picked)
    Py_XDECREF(<PyObject*>m.lent)
    free(m)


cdef bint legs_open(Market* m, u32 instrument) noexcept nogil:
    """Whether every leg of a combination is CONTINUOUS and collects for no auction."""
    cdef Composite* made = &m.composites[instrument]
    cdef u32 i
    for i in range(made.legs):
        if not is_continuous(&m.instruments[made.leg[i]]):
            return False
    return True


cdef void refresh_combined(Market* m) noexcept nogil:
    """Set `trades` of all combinations, which trade only while their legs do."""
    cdef Instrument* book
    cdef u32 k
    for k in range(m.combined_count):
        book = &m.instruments[m.combined[k]]
        book.trades = (is_continuous(book) and m.mode == MODE_NORMAL
                       and legs_open(m, m.combined[k]))
