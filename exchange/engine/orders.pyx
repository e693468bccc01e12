"""Enter, cancel, reduce, replace: guards in documented precedence, then the effect."""

from libc.stdlib cimport realloc
from libc.string cimport memset

from exchange.engine.book cimport reaches, slot_of, take_out, unlink
from exchange.engine.guards cimport (
    refuse_grid, refuse_market_state, refuse_risk, refuse_session, target_of,
)
from exchange.engine.ids cimport fingerprint, insert_key, remember, retire, slots_left, take_slot
from exchange.engine.lifecycle cimport answered, cancel_order, keep_receipt, reject
from exchange.engine.matching cimport Incoming, run
from exchange.engine.risk cimport adverse_per_lot, position_of, release
from exchange.engine.state cimport (
    Account, Command, DORMANT, Event, Instrument, Level, Market, Order, Position, WORKING, emit,
    i32, i64, likely, order_id_of, u16, u32, u64, u8, unlikely,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    ENTER_FLAGS = 7  # POST_ONLY MARKET MANUAL
    TARGET_FLAGS = 12  # MANUAL BY_CLIENT_ID
    REPLACE_FLAGS = 29  # POST_ONLY MANUAL BY_CLIENT_ID NEW_ID


cdef u32 open_position(Market* m, u32 account_id, u32 instrument) noexcept nogil:
    """A new record of (account, instrument); the caller has asked for room."""
    cdef Account* account = &m.accounts[account_id]
    cdef u32 length = account.positions_length
    cdef u32 at = m.position_top
    cdef u32* grown
    if instrument >= length:
        length = instrument + 1 if instrument + 1 > 2 * length else 2 * length
        grown = <u32*>realloc(account.positions, length * sizeof(u32))
        if grown == NULL:
            m.broken = 1
            return 0
        memset(&grown[account.positions_length], 0,
               (length - account.positions_length) * sizeof(u32))
        account.positions = grown
        account.positions_length = length
    m.position_top += 1
    account.positions[instrument] = at
    m.positions[at].account = account_id
    m.positions[at].instrument = instrument
    m.positions[at].group = account.group
    return at


cdef inline bint refuse_enter_form(Market* m, Command* c) noexcept nogil:
    """SYNTAX, ID_FORMAT, COMBINATION."""
    cdef bint market = (c.flags & COMMAND_FLAG_MARKET) != 0
    if unlikely(c.side > SIDE_SELL or c.tif > TIME_IN_FORCE_FOK or c.stp > SELF_TRADE_DECREMENT
                or c.flags & ~<u8>ENTER_FLAGS or (market and c.price != 0)):
        reject(m, c, REASON_SYNTAX, 0, 0)
        return True
    if unlikely(c.key_lo == 0 and c.key_hi == 0):
        reject(m, c, REASON_ID_FORMAT, 0, 0)
        return True
    if unlikely((c.flags & COMMAND_FLAG_POST_ONLY and (market or c.tif >= TIME_IN_FORCE_IOC))
                or (market and c.tif != TIME_IN_FORCE_IOC)):
        reject(m, c, REASON_COMBINATION, 0, 0)
        return True
    return False


cdef inline bint refuse_post_only(Market* m, Command* c, Instrument* book, u8 side) noexcept nogil:
    cdef i32 best = book.best[1 - side]
    if c.flags & COMMAND_FLAG_POST_ONLY and best >= 0:
        if reaches(side, slot_of(book, c.price), best):
            reject(m, c, REASON_POST_ONLY, book.low + best * book.price_step, c.price)
            return True
    return False


cdef inline bint refuse_capacity(Market* m, Command* c, Instrument* book, u32 at) noexcept nogil:
    """BOOK_FULL, ORDERS_FULL, POSITIONS_FULL."""
    if unlikely(book.working_orders >= LIMIT_BOOK_ORDERS):
        reject(m, c, REASON_BOOK_FULL, LIMIT_BOOK_ORDERS, book.working_orders)
        return True
    if unlikely(not slots_left(m)):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
        return True
    if unlikely(at == 0 and m.position_top >= m.position_capacity):
        reject(m, c, REASON_POSITIONS_FULL, m.position_capacity, m.position_capacity)
        return True
    return False


cdef inline void set_off(Market* m, Instrument* book, Incoming* t, u32 slot, u64 head,
                         u16 remainder) noexcept nogil:
    """Fill in the rest of `t` from its order and run it."""
    cdef Order* o = &m.orders[slot]
    t.slot = slot
    t.position = o.position
    t.instrument = m.positions[o.position].instrument
    t.leaves = o.leaves
    t.side = o.side
    t.stp = o.tif_stp >> 4
    t.self_cancelled = 0
    t.lots = 0
    t.value = 0
    t.fees = 0
    t.house = 0
    t.done = False
    run(m, book, t, head, remainder)


cdef inline void accept(Market* m, Command* c, Instrument* book, u32 instrument, u32 at, u8 side,
                        u8 tif) noexcept nogil:
    """A new order under the command's key: ORDER_ACCEPTED, its trades, its rest or its end."""
    cdef u32 slot = take_slot(m)
    cdef Order* o = &m.orders[slot]
    cdef u8 flags = (EVENT_FLAG_SELL if side else 0) | (c.flags & COMMAND_FLAG_MARKET) << 3
    cdef u16 remainder = 0
    cdef Incoming t
    cdef Event* e
    o.leaves = c.quantity
    o.executed = 0
    o.position = at
    o.key_lo = c.key_lo
    o.key_hi = c.key_hi
    o.price = c.price
    o.fingerprint = fingerprint(c)
    o.session = c.session
    o.side = side
    o.tif_stp = tif | c.stp << 4
    o.state = WORKING
    o.flags = 0
    insert_key(m, c.account, c.key_lo, c.key_hi, slot)
    remember(m, &m.accounts[c.account], slot)
    if c.flags & COMMAND_FLAG_POST_ONLY:
        flags |= EVENT_FLAG_POST_ONLY
    e = emit(m, EVENT_KIND_ORDER_ACCEPTED, flags, 0, instrument, c.account)
    t.order_id = order_id_of(m, slot)
    e.order_id = t.order_id
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = 0
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    e.a = c.session
    e.b = tif | <i64>c.stp << 8
    if c.flags & COMMAND_FLAG_MARKET:
        t.limit = <i32>(book.slots - 1) if side == SIDE_BUY else 0
        remainder = CANCEL_REASON_MARKET_REMAINDER
    else:
        t.limit = slot_of(book, c.price)
        if tif == TIME_IN_FORCE_IOC:
            remainder = CANCEL_REASON_IOC_REMAINDER
        elif tif == TIME_IN_FORCE_FOK:
            remainder = CANCEL_REASON_FOK_UNFILLED
    set_off(m, book, &t, slot, m.event_count - 1, remainder)


cdef void enter(Market* m, Command* c) noexcept nogil:
    cdef Account* account
    cdef Instrument* book
    cdef u32 at
    cdef i64 price
    cdef bint market = (c.flags & COMMAND_FLAG_MARKET) != 0
    if refuse_session(m, c, True) or refuse_enter_form(m, c) or answered(m, c, c.account):
        return
    if unlikely(c.instrument >= m.instrument_count):
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return
    book = &m.instruments[c.instrument]
    account = &m.accounts[c.account]
    if refuse_market_state(m, c, book) or refuse_grid(m, c, book, not market):
        return
    if refuse_post_only(m, c, book, c.side):
        return
    if unlikely(account.open_orders >= account.max_open_orders):
        reject(m, c, REASON_OPEN_ORDERS, account.max_open_orders, account.open_orders)
        return
    at = position_of(account, c.instrument)
    price = c.price
    if market:
        price = book.low if c.side else book.low + (book.slots - 1) * book.price_step
    # position 0 is all zeros: an account without a record has nothing there
    if refuse_risk(m, c, book, &m.positions[at], c.side, price, c.quantity, 0):
        return
    if refuse_capacity(m, c, book, at):
        return
    if at == 0:
        at = open_position(m, c.account, c.instrument)
    accept(m, c, book, c.instrument, at, c.side, c.tif)


cdef inline bint refuse_request(Market* m, Command* c, u8 flags, bint blocked) noexcept nogil:
    """The guards of CANCEL, REDUCE and REPLACE up to the known request id."""
    if refuse_session(m, c, blocked):
        return True
    if unlikely(c.side > SIDE_UNSTATED or c.flags & ~flags
                or (blocked and c.stp > SELF_TRADE_DECREMENT)):
        reject(m, c, REASON_SYNTAX, 0, 0)
        return True
    if c.flags & COMMAND_FLAG_NEW_ID and c.key_lo == 0 and c.key_hi == 0:
        reject(m, c, REASON_ID_FORMAT, 0, 0)
        return True
    return answered(m, c, c.account)


cdef inline bint refuse_receipt(Market* m, Command* c) noexcept nogil:
    """ORDERS_FULL if the request id could not be remembered."""
    if (c.key_lo or c.key_hi) and unlikely(not slots_left(m)):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
        return True
    return False


cdef void cancel(Market* m, Command* c) noexcept nogil:
    cdef u64 first = m.event_count
    cdef u32 slot
    if refuse_request(m, c, TARGET_FLAGS, False):
        return
    slot = target_of(m, c)
    if slot == 0 or refuse_receipt(m, c):
        return
    cancel_order(m, slot, CANCEL_REASON_REQUESTED)
    keep_receipt(m, c, c.account, first)


cdef void reduce_order(Market* m, Command* c) noexcept nogil:
    cdef u64 first = m.event_count
    cdef u32 slot
    cdef Order* o
    cdef Position* p
    cdef Instrument* book
    if refuse_request(m, c, TARGET_FLAGS, False):
        return
    slot = target_of(m, c)
    if slot == 0:
        return
    o = &m.orders[slot]
    p = &m.positions[o.position]
    book = &m.instruments[p.instrument]
    if c.quantity == 0:
        reject(m, c, REASON_QUANTITY_RANGE, book.max_order, 0)
        return
    if c.quantity % book.lot_step:
        reject(m, c, REASON_LOT, book.lot_step, c.quantity)
        return
    if refuse_receipt(m, c):
        return
    if c.quantity >= o.leaves:
        cancel_order(m, slot, CANCEL_REASON_REDUCED)
    else:
        lessen(m, book, p, o, slot, c.quantity)
    keep_receipt(m, c, c.account, first)


cdef void lessen(Market* m, Instrument* book, Position* p, Order* o, u32 slot,
                 u32 lots) noexcept nogil:
    """Take lots off a live order that keeps its place: ORDER_REDUCED."""
    cdef u8 flags = EVENT_FLAG_SELL if o.side else 0
    cdef Event* e
    o.leaves -= lots
    if o.state == WORKING:
        flags |= EVENT_FLAG_RESTING
        book.levels[slot_of(book, o.price)].quantity -= lots
    else:
        book.dormant.quantity -= lots
    e = emit(m, EVENT_KIND_ORDER_REDUCED, flags, CANCEL_REASON_REQUESTED, p.instrument, p.account)
    e.order_id = order_id_of(m, slot)
    e.price = o.price
    e.quantity = lots
    e.leaves = o.leaves
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.session
    e.b = 0
    release(m, book, p, o.side, o.price, lots)


cdef void withdraw(Market* m, Instrument* book, Position* p, Order* o) noexcept nogil:
    """A live order leaves the book to come back as incoming; its hold is put right by `run`."""
    if o.state == WORKING:
        take_out(m, book, o)
    else:
        unlink(m, &book.dormant, o)
    p.working[o.side] -= o.leaves
    p.adverse -= o.leaves * adverse_per_lot(book, o.side, o.price)
    book.working_orders -= 1
    m.accounts[p.account].open_orders -= 1


cdef bint refuse_new_terms(Market* m, Command* c, Instrument* book, Position* p, Order* o,
                           i64 leaves) noexcept nogil:
    """POST_ONLY, then the risk of `leaves` at the new price in place of what the order holds."""
    cdef i64 before = o.leaves
    cdef i64 adverse = before * adverse_per_lot(book, o.side, o.price)
    cdef bint refused
    if refuse_post_only(m, c, book, o.side):
        return True
    p.working[o.side] -= before
    p.adverse -= adverse
    refused = refuse_risk(m, c, book, p, o.side, c.price, leaves, before)
    p.working[o.side] += before
    p.adverse += adverse
    return refused


cdef void replace(Market* m, Command* c) noexcept nogil:
    cdef u64 first = m.event_count
    cdef bint new_id = (c.flags & COMMAND_FLAG_NEW_ID) != 0
    cdef u32 slot, at
    cdef i64 leaves
    cdef u8 side, tif
    cdef Order* o
    cdef Position* p
    cdef Instrument* book
    if refuse_request(m, c, REPLACE_FLAGS, True):
        return
    slot = target_of(m, c)
    if slot == 0:
        return
    o = &m.orders[slot]
    at = o.position
    p = &m.positions[at]
    book = &m.instruments[p.instrument]
    if refuse_market_state(m, c, book) or refuse_grid(m, c, book, True):
        return
    leaves = <i64>c.quantity - (0 if new_id else o.executed)
    if leaves <= 0:
        if refuse_receipt(m, c):
            return
        cancel_order(m, slot, CANCEL_REASON_REDUCED)
        keep_receipt(m, c, c.account, first)
        return
    if refuse_new_terms(m, c, book, p, o, leaves) or refuse_receipt(m, c):
        return
    if new_id:
        side = o.side
        tif = o.tif_stp & 15
        cancel_order(m, slot, CANCEL_REASON_REPLACED)
        accept(m, c, book, p.instrument, at, side, tif)
        return
    change_terms(m, c, book, p, o, slot, <u32>leaves)
    keep_receipt(m, c, c.account, first)


cdef void change_terms(Market* m, Command* c, Instrument* book, Position* p, Order* o, u32 slot,
                       u32 leaves) noexcept nogil:
    """ORDER_REPLACED under the same id: in place, or out of the book and in again."""
    cdef bint kept = o.state == WORKING and c.price == o.price and leaves <= o.leaves
    cdef u8 flags = EVENT_FLAG_SELL if o.side else 0
    cdef u64 head = m.event_count
    cdef Incoming t
    cdef Event* e
    if o.state == WORKING:
        flags |= EVENT_FLAG_RESTING
    e = emit(m, EVENT_KIND_ORDER_REPLACED, flags, 1 if kept else 0, p.instrument, p.account)
    e.order_id = order_id_of(m, slot)
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = leaves if kept else 0
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.price
    e.b = o.leaves
    if kept:
        book.levels[slot_of(book, o.price)].quantity -= o.leaves - leaves
        release(m, book, p, o.side, o.price, o.leaves - leaves)
        o.leaves = leaves
        return
    withdraw(m, book, p, o)
    o.price = c.price
    o.leaves = leaves
    o.state = WORKING
    t.order_id = e.order_id
    t.limit = slot_of(book, c.price)
    set_off(m, book, &t, slot, head, 0)


cdef void return_dormant(Market* m, Instrument* book) noexcept nogil:
    """One pass over the dormant list: orders inside the limits come back as incoming ones."""
    cdef u32 slot = book.dormant.head
    cdef u32 last = book.dormant.tail
    cdef u32 following
    cdef u64 head
    cdef Order* o
    cdef Position* p
    cdef Event* e
    cdef Incoming t
    while slot:
        o = &m.orders[slot]
        following = o.next if slot != last else 0
        if book.low <= o.price <= book.high:
            p = &m.positions[o.position]
            head = m.event_count
            e = emit(m, EVENT_KIND_ORDER_RETURNED, EVENT_FLAG_SELL if o.side else 0, 0,
                     p.instrument, p.account)
            t.order_id = order_id_of(m, slot)
            e.order_id = t.order_id
            e.price = o.price
            e.quantity = o.leaves
            e.leaves = 0
            e.key_lo = o.key_lo
            e.key_hi = o.key_hi
            e.a = o.session
            e.b = 0
            withdraw(m, book, p, o)
            o.state = WORKING
            t.limit = slot_of(book, o.price)
            set_off(m, book, &t, slot, head, 0)
        slot = following
