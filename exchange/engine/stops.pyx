"""Stops: they wait for a trade at their trigger, are elected by it, and come in one by one.

Invariants: a WAITING order is in one list of its instrument, `waiting` or `elected`, and holds its
margin; those in `waiting` are also in the heap of their side (triggers.pyx), and are in the order
of their age.
"""

from exchange.engine.book cimport (
    append, has_opposite, price_of, price_toward, slot_within, unlink,
)
from exchange.engine.events cimport emit, what
from exchange.engine.extras cimport forget_extra, stops_of
from exchange.engine.guards cimport beyond_all, market_slot, rests
from exchange.engine.lifecycle cimport work_aside, withdraw
from exchange.engine.matching cimport Incoming, run_special
from exchange.engine.safety cimport within_band
from exchange.engine.state cimport (
    AT_MARKET, DORMANT, ELECTED, Event, Extra, Order, PROTECTED_BY, Position, Stops, WAITING,
    WATCH_BREAKER, WATCH_STOPS, WORKING, order_id_of, set_order_state, side_of, tif_of, u16, u8,
)
from exchange.engine.triggers cimport add_trigger, remove_trigger
from exchange.engine.vocabulary cimport *


cdef void start_waiting(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """An order that is in no queue begins to wait as a stop, the youngest of all: ORDER_WAITING."""
    cdef Order* o = &m.orders[slot]
    cdef Stops* stops = stops_of(m, book)
    cdef Event* e = emit(m, what(EVENT_KIND_ORDER_WAITING, side_of(o) << 1, 0),
                         m.positions[o.position].who)
    e.order_id = order_id_of(m, slot)
    e.price = o.price
    e.quantity = o.leaves
    e.leaves = 0
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.session
    e.b = m.extras[slot].trigger
    m.ages += 1
    m.extras[slot].age = m.ages
    set_order_state(o, WAITING)
    append(m, &stops.waiting, slot)
    add_trigger(m, stops, slot)
    book.watched |= WATCH_STOPS
    work_aside(m, book, slot)


cdef void wait_elected(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """An elected stop that is in no queue waits again, as the last of the elected."""
    set_order_state(&m.orders[slot], WAITING)
    m.extras[slot].features |= ELECTED
    m.elected_count += 1
    append(m, &stops_of(m, book).elected, slot)
    book.watched |= WATCH_STOPS
    work_aside(m, book, slot)


cdef void elect_first(Market* m, Stops* stops, u32 slot) noexcept nogil:
    remove_trigger(m, stops, slot)
    unlink(m, &stops.waiting, &m.orders[slot])
    append(m, &stops.elected, slot)
    m.extras[slot].features |= ELECTED
    m.elected_count += 1


cdef void elect(Market* m, Instrument* book, i64 price) noexcept nogil:
    """Elect the stops that a trade at this price reaches: buys before sells, on each side the
    trigger nearest to the market first, then the oldest."""
    cdef Stops* stops = stops_of(m, book)
    while stops.root[0] and m.extras[stops.root[0]].trigger <= price:
        elect_first(m, stops, stops.root[0])
    while stops.root[1] and m.extras[stops.root[1]].trigger >= price:
        elect_first(m, stops, stops.root[1])


cdef i64 limit_at_market(Market* m, Instrument* book, Order* o, i64 ticks,
                         bint protected) noexcept nogil:
    """The limit of an elected MARKET stop: as of a MARKET order now, within the price band, but no
    further than the order's price, for which its hold was taken."""
    cdef i64 limit = price_of(book, market_slot(
        book, side_of(o), tif_of(o), ticks, protected))
    if book.watched & WATCH_BREAKER:
        limit = price_toward(book, side_of(o), within_band(m, book, side_of(o), limit))
    if side_of(o):
        return limit if limit > o.price else o.price
    return limit if limit < o.price else o.price


cdef void fall_dormant(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """An elected order whose price is outside the day's limits falls dormant: ORDER_DORMANT."""
    cdef Order* o = &m.orders[slot]
    cdef Event* e = emit(m, what(EVENT_KIND_ORDER_DORMANT, side_of(o) << 1, 0),
                         m.positions[o.position].who)
    e.order_id = order_id_of(m, slot)
    e.price = o.price
    e.quantity = o.leaves
    e.leaves = 0
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.session
    e.b = 0
    set_order_state(o, DORMANT)
    append(m, &book.dormant, slot)
    work_aside(m, book, slot)


cdef void say_elected(Market* m, u32 slot) noexcept nogil:
    """Turn an elected stop, in no queue any more, into the order it stands for: ORDER_ELECTED."""
    cdef Order* o = &m.orders[slot]
    cdef Extra* extra = &m.extras[slot]
    cdef Event* e = emit(m, what(EVENT_KIND_ORDER_ELECTED, side_of(o) << 1, 0),
                         m.positions[o.position].who)
    e.order_id = order_id_of(m, slot)
    e.price = o.price
    e.quantity = o.leaves
    e.leaves = 0
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.session
    e.b = extra.trigger
    extra.features &= ~<u32>(ORDER_FEATURE_STOP | AT_MARKET | PROTECTED_BY)
    if extra.features == 0:
        forget_extra(m, slot)


cdef void come_in(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """An elected stop comes in: ORDER_ELECTED, then it trades, rests, ends or falls dormant."""
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef Extra* extra = &m.extras[slot]
    cdef u32 features = extra.features
    cdef i64 limit = o.price
    cdef u8 tif = tif_of(o)
    cdef bint stays = rests(tif)
    cdef u16 remainder = 0
    cdef Incoming t
    withdraw(m, book, p, slot)
    if features & AT_MARKET:
        limit = limit_at_market(m, book, o, extra.ticks, (features & PROTECTED_BY) != 0)
        stays = stays and has_opposite(book, side_of(o))
        remainder = 0 if stays else CANCEL_REASON_MARKET_REMAINDER
        if stays:
            o.price = limit
    elif not stays:
        remainder = (CANCEL_REASON_FOK_UNFILLED if tif == TIME_IN_FORCE_FOK
                     else CANCEL_REASON_IOC_REMAINDER)
    say_elected(m, slot)
    set_order_state(o, WORKING)
    t.order_id = order_id_of(m, slot)
    if stays and not book.low <= limit <= book.high:
        fall_dormant(m, book, slot)
        return
    t.slot = slot
    t.limit = slot_within(book, side_of(o), limit)
    if (features & AT_MARKET and not has_opposite(book, side_of(o))
            and (features & PROTECTED_BY or rests(tif))):
        t.limit = beyond_all(book, side_of(o))
    t.need = o.leaves if tif == TIME_IN_FORCE_FOK else 0
    run_special(m, book, &t, m.index - 1, remainder)


cdef Instrument* next_slice(Market* m) noexcept nogil:
    """The instrument whose elected stops are to come in next: of those that trade and have any, the
    earliest due, then the lowest number; NULL if there is none."""
    cdef Instrument* found = NULL
    cdef u32 i
    if m.elected_count == 0:
        return NULL
    for i in range(m.instrument_count):
        if m.stops[i].elected.head and m.instruments[i].trades and (
                found == NULL or m.stops[i].due < stops_of(m, found).due):
            found = &m.instruments[i]
    return found
