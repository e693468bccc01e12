"""The benchmark's interface on the core: a message becomes a command, an event becomes a report.

No Python objects are involved. Orders are entered by 64 buying and 64 selling accounts with every
check on, like those of a raw flow (docs/reference/benchmarks.md). A table indexed by the
benchmark's id holds its order. An id that is used again gets another client order id, since the
market remembers those it has accepted.

A modify is a replace under the same order id: the order goes to the back of the queue, unless the
modify only makes it smaller.
"""

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from benches.flash1.abi cimport (
    CANCEL_ACK, CANCEL_REJECT, MODIFY_ACK, MODIFY_REJECT, ORDER_ACK, TRADE, cancel_t, me_msg_t,
    me_report_t, me_transport_t, modify_t, new_order_t,
)
from exchange.engine.batch cimport apply_batch
from exchange.engine.book cimport price_of
from exchange.engine.events cimport lend_events
from exchange.engine.state cimport (
    Command, Event, Instrument, Market, NO_ASK, NO_BID, Order, i32, i64, is_live, market_free,
    market_new, side_of, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *

from exchange.messages import COMMAND, COMMAND_BYTES
from exchange.sim.flow import opening_commands

import msgspec

cdef enum:
    ACCOUNTS_PER_SIDE = 64
    HIGH = 1 << 22  # ticks of half a cent: more than twenty thousand dollars
    LOTS_MAX = 1 << 30
    EVENTS = 4096  # initial room for the events of one command

cdef struct Known:  # the market's order of a benchmark id
    u64 order_id
    u32 uses, spare

cdef Market* m = NULL
cdef Known* known = NULL
cdef u64 known_count = 0
cdef const me_transport_t* transport = NULL
cdef void* sink = NULL


cdef inline void do(Command* c) noexcept nogil:
    """Apply a batch of one command; its events overwrite those of the last one."""
    apply_batch(m, <const u8*>c, 1, m.sequence + 1, 0)
    m.sequence -= 1  # apply_batch leaves the next command's number


cdef public int hourbook_begin() except -1 with gil:
    """Open a market with one instrument; raise MemoryError or RuntimeError if that fails.

    Python runs here, and later only when one command makes more than EVENTS events.
    """
    global m, known, known_count
    cdef bytes record
    m = market_new()
    m.set_aside = 2
    if not lend_events(m, EVENTS):
        raise MemoryError("the events of a command")
    for command in opening_commands([(0, HIGH, 1, LOTS_MAX)]):
        record = COMMAND.pack(*msgspec.structs.astuple(command))
        assert len(record) == COMMAND_BYTES == sizeof(Command)
        do(<Command*><char*>record)
        if <u8>m.events.what == EVENT_KIND_REJECTED:
            raise RuntimeError(f"the engine refused its setup: {command}")
    known_count = 1 << 20
    known = <Known*>calloc(known_count, sizeof(Known))
    if known == NULL:
        raise MemoryError("the table of ids")
    return 0


cdef public void hourbook_send_to(const me_transport_t* vtable, void* handle) noexcept:
    global transport, sink
    transport, sink = vtable, handle


cdef public void engine_shutdown() noexcept with gil:
    global m, known
    market_free(m)
    free(known)
    m, known = NULL, NULL


cdef inline Known* find(u64 order_id) noexcept nogil:
    """Return the entry of a benchmark id; the table grows with the largest id."""
    global known, known_count
    cdef u64 count = known_count
    if order_id >= count:
        while count <= order_id:
            count *= 2
        known = <Known*>realloc(known, count * sizeof(Known))
        if known == NULL:
            m.broken = 1
        memset(&known[known_count], 0, (count - known_count) * sizeof(Known))
        known_count = count
    return &known[order_id]


cdef inline void push(me_report_t* r) noexcept nogil:
    while not transport.push(sink, r):
        pass  # full: another thread drains it


cdef inline bint is_resting(Known* k) noexcept nogil:
    cdef Order* o = &m.orders[<u32>k.order_id]
    return k.order_id != 0 and o.generation == k.order_id >> 32 and is_live(o)


cdef inline void fill(Command* c, u8 kind, u64 order_id, u8 side) noexcept nogil:
    cdef u32 account = 1 + side * ACCOUNTS_PER_SIDE + <u32>(order_id % ACCOUNTS_PER_SIDE)
    memset(c, 0, sizeof(Command))
    c.kind = kind
    c.side = side
    c.account = account
    c.session = 1 << 16 | account


cdef inline u64 name_of(u64 order_id) noexcept nogil:
    """Return the benchmark's id of an order of the market."""
    return m.orders[<u32>order_id].key_lo - 1


cdef void report_rest(u64 sequence_number, u64 order_id, Event* e) noexcept nogil:
    """Report a command's trades and the end of an IOC order, from its second event ``e`` on."""
    cdef me_report_t r
    while e != m.next_event:
        memset(&r, 0, sizeof(r))
        r.sequence_number = sequence_number
        r.order_id = order_id
        r.price_ticks = e.price
        r.quantity = e.quantity
        r.side = (e.what >> 8) & EVENT_FLAG_SELL != 0
        if <u8>e.what == EVENT_KIND_TRADE:
            r.type = TRADE
            r.maker_order_id = name_of(e.key_lo)
            r.taker_order_id = order_id
        else:  # ORDER_CANCELLED
            r.type = CANCEL_ACK
        push(&r)
        e += 1


cdef public void engine_on_new_order(const new_order_t* order) noexcept nogil:
    cdef Known* k = find(order.order_id)
    cdef Command c
    cdef me_report_t r
    if is_resting(k):
        return  # the id is live: refused; the interface has no report for this
    k.uses += 1
    fill(&c, COMMAND_KIND_ENTER, order.order_id, order.side)
    c.price = order.price_ticks
    c.quantity = order.quantity
    if order.ioc:
        c.tif = TIME_IN_FORCE_IOC
    c.key_lo = order.order_id + 1
    c.key_hi = k.uses
    do(&c)
    if <u8>m.events.what != EVENT_KIND_ORDER_ACCEPTED:
        return
    k.order_id = m.events.order_id
    memset(&r, 0, sizeof(r))
    r.type = ORDER_ACK
    r.side = order.side
    r.sequence_number = order.sequence_number
    r.order_id = order.order_id
    r.price_ticks = order.price_ticks
    r.quantity = order.quantity
    push(&r)
    if m.next_event != m.events + 1:
        report_rest(order.sequence_number, order.order_id, m.events + 1)


cdef public void engine_on_cancel(const cancel_t* order) noexcept nogil:
    cdef Known* k = find(order.order_id)
    cdef Command c
    cdef me_report_t r
    memset(&r, 0, sizeof(r))
    r.type = CANCEL_REJECT
    r.sequence_number = order.sequence_number
    r.order_id = order.order_id
    if is_resting(k):
        fill(&c, COMMAND_KIND_CANCEL, order.order_id, side_of(&m.orders[<u32>k.order_id]))
        c.target_lo = k.order_id
        do(&c)
        if <u8>m.events.what == EVENT_KIND_ORDER_CANCELLED:
            r.type = CANCEL_ACK
            r.side = c.side
            r.price_ticks = m.events.price
            r.quantity = m.events.quantity
    push(&r)


cdef public void engine_on_modify(const modify_t* order) noexcept nogil:
    cdef Known* k = find(order.order_id)
    cdef Command c
    cdef me_report_t r
    memset(&r, 0, sizeof(r))
    r.type = MODIFY_REJECT
    r.sequence_number = order.sequence_number
    r.order_id = order.order_id
    if is_resting(k):
        fill(&c, COMMAND_KIND_REPLACE, order.order_id, side_of(&m.orders[<u32>k.order_id]))
        c.target_lo = k.order_id
        c.price = order.new_price_ticks
        c.quantity = order.new_quantity + m.orders[<u32>k.order_id].executed
        do(&c)
        if <u8>m.events.what == EVENT_KIND_ORDER_REPLACED:
            r.type = MODIFY_ACK
            r.side = c.side
            r.price_ticks = order.new_price_ticks
            r.quantity = order.new_quantity
    push(&r)
    if r.type == MODIFY_ACK and m.next_event != m.events + 1:
        report_rest(order.sequence_number, order.order_id, m.events + 1)


cdef public void engine_on_batch(const me_msg_t* messages, u32 count) noexcept nogil:
    cdef u32 i
    for i in range(count):
        if messages[i].type == 0:
            engine_on_new_order(<const new_order_t*>messages[i].payload)
        elif messages[i].type == 1:
            engine_on_cancel(<const cancel_t*>messages[i].payload)
        else:
            engine_on_modify(<const modify_t*>messages[i].payload)


cdef public void engine_flush() noexcept nogil:
    """Do nothing: every message is matched and reported before its call returns."""


cdef public i64 engine_query_best_bid() noexcept nogil:
    cdef i32 best = m.instruments[0].best[0]
    return <i64>(<u64>1 << 63) if best == NO_BID else price_of(&m.instruments[0], best)


cdef public i64 engine_query_best_ask() noexcept nogil:
    cdef i32 best = m.instruments[0].best[1]
    return <i64>((<u64>1 << 63) - 1) if best == NO_ASK else price_of(&m.instruments[0], best)


cdef public u64 engine_query_depth_at(i64 price_ticks, u8 side) noexcept nogil:
    cdef Instrument* book = &m.instruments[0]
    if price_ticks < book.low or price_ticks > book.high:
        return 0
    cdef i32 at = <i32>(price_ticks - book.low)
    if book.levels[at].head == 0 or side_of(&m.orders[book.levels[at].head]) != side:
        return 0
    return book.levels[at].quantity
