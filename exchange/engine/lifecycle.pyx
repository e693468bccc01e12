"""What every order command shares: rejects, repeated answers, receipts, and an order's end."""

from exchange.engine.book cimport take_out, unlink
from exchange.engine.ids cimport (
    find_key, fingerprint, insert_key, remember, retire, take_slot,
)
from exchange.engine.risk cimport release
from exchange.engine.state cimport (
    CANCELLED, Command, DORMANT, Event, Instrument, Market, Order, Position, RECEIPT, WORKING,
    blank, emit, i64, order_id_of, u16, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *


cdef void reject(Market* m, Command* c, u16 reason, i64 limit, i64 observed) noexcept nogil:
    """The command's one event: nothing happened, and why."""
    cdef u8 flags = EVENT_FLAG_SELL if c.side == SIDE_SELL else 0
    cdef Event* e = blank(m, EVENT_KIND_REJECTED, flags, reason, c.instrument, c.account)
    if COMMAND_KIND_CANCEL <= c.kind <= COMMAND_KIND_REPLACE:
        if not c.flags & COMMAND_FLAG_BY_CLIENT_ID:
            e.order_id = c.target_lo
    e.price = c.price
    e.quantity = c.quantity
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    e.a = limit
    e.b = observed


cdef bint answered(Market* m, Command* c, u32 account) noexcept nogil:
    """Whether the key was known: the first answer again, or DUPLICATE_DIFFERENT."""
    cdef u32 slot
    cdef Order* o
    cdef Event* e
    cdef u8 flags
    if c.key_lo == 0 and c.key_hi == 0:
        return False
    slot = find_key(m, account, c.key_lo, c.key_hi)
    if slot == 0:
        return False
    o = &m.orders[slot]
    if o.fingerprint != fingerprint(c):
        reject(m, c, REASON_DUPLICATE_DIFFERENT, 0, 0)
        return True
    if o.state == RECEIPT:
        e = blank(m, o.side, o.tif_stp | EVENT_FLAG_DUPLICATE, 0, o.position, account)
        e.order_id = <u64>o.executed << 32 | o.next
        e.price = o.price
        e.quantity = o.leaves
    else:
        flags = EVENT_FLAG_DUPLICATE
        if o.side == SIDE_SELL:
            flags |= EVENT_FLAG_SELL
        if c.flags & COMMAND_FLAG_MARKET:
            flags |= EVENT_FLAG_MARKET
        if c.flags & COMMAND_FLAG_POST_ONLY:
            flags |= EVENT_FLAG_POST_ONLY
        e = blank(m, EVENT_KIND_ORDER_ACCEPTED, flags, 0,
                  m.positions[o.position].instrument, account)
        e.order_id = order_id_of(m, slot)
        e.price = c.price
        e.quantity = c.quantity
        e.leaves = o.leaves
        e.a = o.session
        e.b = (o.tif_stp & 15) | <i64>(o.tif_stp >> 4) << 8
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    return True


cdef void keep_receipt(Market* m, Command* c, u32 account, u64 first) noexcept nogil:
    """Remember an accepted request with the answer in event number `first` of the buffer."""
    cdef u32 slot
    cdef Order* o
    cdef Event* e = &m.events[first]
    if c.key_lo == 0 and c.key_hi == 0:
        return
    slot = take_slot(m)
    o = &m.orders[slot]
    o.state = RECEIPT
    o.flags = 0
    o.prev = account
    o.next = <u32>e.order_id
    o.executed = <u32>(e.order_id >> 32)
    o.leaves = e.quantity
    o.price = e.price
    o.position = e.instrument
    o.side = e.kind
    o.tif_stp = e.flags & ~<u8>EVENT_FLAG_LAST_IN_COMMAND
    o.session = 0
    o.key_lo = c.key_lo
    o.key_hi = c.key_hi
    o.fingerprint = fingerprint(c)
    insert_key(m, account, c.key_lo, c.key_hi, slot)
    remember(m, &m.accounts[account], slot)


cdef void say_cancelled(Market* m, Order* o, u64 order_id, u32 lots, u16 reason,
                        bint resting) noexcept nogil:
    """ORDER_CANCELLED: `lots` left the order without trading and it is done."""
    cdef Position* p = &m.positions[o.position]
    cdef u8 flags = EVENT_FLAG_SELL if o.side else 0
    cdef Event* e
    if resting:
        flags |= EVENT_FLAG_RESTING
    e = emit(m, EVENT_KIND_ORDER_CANCELLED, flags, reason, p.instrument, p.account)
    e.order_id = order_id
    e.price = o.price
    e.quantity = lots
    e.leaves = 0
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.session
    e.b = 0


cdef void cancel_order(Market* m, u32 slot, u16 reason) noexcept nogil:
    """Take a working or dormant order out of everything it is in."""
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef Instrument* book = &m.instruments[p.instrument]
    cdef bint resting = o.state == WORKING
    say_cancelled(m, o, order_id_of(m, slot), o.leaves, reason, resting)
    if resting:
        take_out(m, book, o)
    else:
        unlink(m, &book.dormant, o)
    release(m, book, p, o.side, o.price, o.leaves)
    book.working_orders -= 1
    m.accounts[p.account].open_orders -= 1
    retire(m, slot, CANCELLED)


cdef void cancel_all_of(Market* m, u32 instrument, u32 session, u16 reason) noexcept nogil:
    """Cancel, in slot order, the orders of an instrument (reason INSTRUMENT_EXPIRED), of a
    session (DISCONNECTED) or for the day (DAY_ENDED)."""
    cdef u32 slot
    cdef Order* o
    cdef bint wanted
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        if o.state != WORKING and o.state != DORMANT:
            continue
        if reason == CANCEL_REASON_INSTRUMENT_EXPIRED:
            wanted = m.positions[o.position].instrument == instrument
        elif reason == CANCEL_REASON_DISCONNECTED:
            wanted = o.session == session
        else:
            wanted = (o.tif_stp & 15) == TIME_IN_FORCE_DAY
        if wanted:
            cancel_order(m, slot, reason)
