# What the order commands share: rejects, repeated answers, receipts, and how orders end. See
# lifecycle.pyx.

from exchange.engine.book cimport slot_of, take_out
from exchange.engine.events cimport emit, event_of, what
from exchange.engine.ids cimport retire
from exchange.engine.risk cimport put_back, rehold, rehold_plainly
from exchange.engine.state cimport (
    Account, CANCELLED, Command, Event, Instrument, Market, Order, Position, WORKING, copy_key, i64,
    instrument_of, is_simple, likely, order_id_of, put_pair, side_of, state_of, u16, u32, u64, u8,
    unlikely,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    NOBODY = 0xFFFFFFFF

cdef struct Gathered:  # the orders of all sessions or accounts that one command may cancel
    u64* keys  # number of the session or account << 32 | slot, ascending; the caller frees them
    u64 count
    bint made  # they have been gathered

cdef void reject(Market* m, Command* c, u16 reason, i64 limit, i64 observed) noexcept nogil
cdef void answer_again(Market* m, Command* c, u32 account, u32 slot) noexcept nogil
cdef bint answered(Market* m, Command* c, u32 account) noexcept nogil
cdef void remember_request(Market* m, Command* c, u32 account, Event* e) noexcept nogil
cdef void take_away_special(Market* m, u32 slot, u32 reason) noexcept nogil
cdef void shrink(Market* m, u32 slot, u32 lots, u32 reason) noexcept nogil
cdef void withdraw(Market* m, Instrument* book, Position* p, u32 slot) noexcept nogil
cdef void work_aside(Market* m, Instrument* book, u32 slot) noexcept nogil
cdef void cancel_for(Market* m, u32 slot, u32 reason) noexcept nogil
cdef void pick(Market* m, u32 slot) noexcept nogil
cdef void tell_group(Market* m, u32 slot) noexcept nogil
cdef void cancel_all_of(Market* m, u32 instrument, u32 reason) noexcept nogil
cdef void cancel_gathered(Market* m, Gathered* g, u32 number, u32 reason) noexcept nogil


cdef inline Gathered none_gathered() noexcept nogil:
    """A Gathered of which nothing has been gathered yet."""
    return Gathered(NULL, 0, False)


cdef inline bint is_beyond_loss(Market* m, u32 account) noexcept nogil:
    """Whether the account has a daily loss limit and has lost that much."""
    cdef i64 limit = m.losses[account].limit
    cdef Account* a = &m.accounts[account]
    return limit and m.losses[account].base - a.cash - a.unrealized >= limit


cdef inline void keep_receipt(Market* m, Command* c, u32 account, u32 first) noexcept nogil:
    """Remember an accepted request if it has an id; its answer is the event of index `first`."""
    if c.key_lo or c.key_hi:
        remember_request(m, c, account, event_of(m, first))


cdef inline void tell_gone(Event* e, Order* o, u32 lots, u32 leaves) noexcept nogil:
    """ORDER_CANCELLED or ORDER_REDUCED, all but the order id: `lots` went, `leaves` are left."""
    put_pair(&e.quantity, lots, leaves)
    e.price = o.price
    e.a = o.session
    e.b = 0
    copy_key(&e.key_lo, &o.key_lo)


cdef inline void say_gone(Event* e, Order* o, u64 order_id, u32 lots,
                          u32 leaves) noexcept nogil:
    """`tell_gone`, and the order id."""
    e.order_id = order_id
    tell_gone(e, o, lots, leaves)


cdef inline void lessen(Market* m, Instrument* book, Position* p, Order* o, u32 slot,
                        u32 lots, u8 side) noexcept nogil:
    """Take lots, not all of them, off a simple order that keeps its place: ORDER_REDUCED."""
    cdef u32 flags = <u32>side << 1 | EVENT_FLAG_RESTING
    o.leaves -= lots
    book.levels[slot_of(book, o.price)].quantity -= lots
    say_gone(emit(m, what(EVENT_KIND_ORDER_REDUCED, flags, CANCEL_REASON_REQUESTED), p.who), o,
             order_id_of(m, slot), lots, o.leaves)
    put_back(m, book, p, side, o.price, lots)
    rehold_plainly(m, book, p)


cdef inline void take_away(Market* m, u32 slot, u32 reason) noexcept nogil:
    """Cancel a live order, all but bringing the hold in line: ORDER_CANCELLED."""
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef Instrument* book = &m.instruments[instrument_of(p)]
    cdef u8 side = side_of(o)
    cdef u32 leaves = o.leaves
    cdef u32 gone = what(EVENT_KIND_ORDER_CANCELLED, side << 1 | EVENT_FLAG_RESTING, reason)
    if unlikely(not is_simple(o)):
        take_away_special(m, slot, reason)
        return
    say_gone(emit(m, gone, p.who), o, order_id_of(m, slot), leaves, 0)
    take_out(m, book, o, side, slot_of(book, o.price))
    put_back(m, book, p, side, o.price, leaves)
    book.working_orders -= 1
    p.owner.open_orders -= 1
    retire(m, slot, CANCELLED)


cdef inline void cancel_order(Market* m, u32 slot, u32 reason) noexcept nogil:
    """Cancel a live order, whatever it is and wherever it waits: ORDER_CANCELLED."""
    cdef Position* p = &m.positions[m.orders[slot].position]
    cdef bint simple = is_simple(&m.orders[slot])
    take_away(m, slot, reason)
    if likely(simple):
        rehold_plainly(m, &m.instruments[instrument_of(p)], p)
    else:
        rehold(m, &m.instruments[instrument_of(p)], p)
