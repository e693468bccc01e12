"""Mass quotes: both sides of an account's quote in one instrument, in one command.

A side is an order without a client order id: it is found by its position, and its slot is free as
soon as it is finished. It never takes: a quote that would trade at once is refused. Both sides are
judged together, in place of the last quote.
"""

from exchange.engine.aftermath cimport aftermath
from exchange.engine.book cimport occupied_above, occupied_below, price_of, reaches, rest
from exchange.engine.credits cimport credit_with
from exchange.engine.events cimport blank, emit, what
from exchange.engine.extras cimport put_extra
from exchange.engine.groups cimport join_special
from exchange.engine.guards cimport bad_grid, bad_owner, bad_time
from exchange.engine.ids cimport gives_slot, take_slot
from exchange.engine.lifecycle cimport (
    answered, cancel_for, keep_receipt, reject, withdraw,
)
from exchange.engine.positions cimport has_records, open_position
from exchange.engine.protection cimport protection_of
from exchange.engine.risk cimport (
    absolute, adverse_per_lot, position_of, rehold, release, required_of,
)
from exchange.engine.months cimport refuse_all_months
from exchange.engine.safety cimport refuse_band, refuse_value
from exchange.engine.state cimport (
    Account, Event, Extra, Instrument, Order, Position, Protection, WORKING, conditions_of, i32,
    i64, order_id_of, set_order_state, side_of, state_of, tif_of, traits_of, u32, u64, u8,
    working_of,
    WATCH_BREAKER, WATCH_CREDIT, WATCH_LIMITS,
)
from exchange.engine.vocabulary cimport *

from libc.string cimport memset

cdef struct Quote:  # one side, as the command wants it
    Command c  # the command with this side's price and quantity, which a reject tells
    u32 slot  # of the present order, 0 if there is none
    u32 before  # lots of the present order
    i32 at  # ladder slot of the new price
    bint same  # nothing is to be put down: the order stands as wanted
    bint anew  # the order loses its place and has traded or has another tif: a new order follows


cdef void read_sides(Market* m, Command* c, u32 at, Quote* sides) noexcept nogil:
    """Fill in each side: what the command wants, and the order there is."""
    cdef Order* o
    cdef Quote* q
    cdef int s
    for s in range(2):
        q = &sides[s]
        q.c = c[0]
        q.c.side = s
        q.c.flags = 0
        if s:
            q.c.price = <i64>c.target_lo
            q.c.quantity = <u32>c.target_hi
        q.slot = m.stands[at].quotes[s]
        q.before = 0
        q.same = False
        q.anew = False
        if q.slot:
            o = &m.orders[q.slot]
            q.before = o.leaves
            q.same = keeps_queue(m, q) and q.c.quantity == o.leaves
            q.anew = (q.c.quantity != 0 and not keeps_queue(m, q)
                      and (o.executed != 0 or tif_of(o) != q.c.tif))


cdef inline bint keeps_queue(Market* m, Quote* q) noexcept nogil:
    """Whether the side's order keeps its place: in the book, same price and tif, no more lots."""
    cdef Order* o = &m.orders[q.slot]
    return (q.slot != 0 and state_of(o) == WORKING and o.price == q.c.price
            and q.c.quantity <= o.leaves and tif_of(o) == q.c.tif)


cdef bint bad_prices(Market* m, Command* c, Instrument* book, Account* account,
                     Quote* sides) noexcept nogil:
    """ORDER_VALUE and QUANTITY_RANGE to PRICE_LIMIT of each side, CROSSED, PRICE_BAND of each side
    that does not keep its place, POST_ONLY of each side."""
    cdef Quote* q
    cdef i32 best
    cdef u32 own
    cdef int s
    for s in range(2):
        q = &sides[s]
        if q.c.quantity and ((book.watched & WATCH_LIMITS and refuse_value(m, &q.c, book, account))
                             or bad_grid(m, &q.c, book, account, &q.at)):
            return True
    if sides[0].c.quantity and sides[1].c.quantity and sides[0].c.price >= sides[1].c.price:
        reject(m, c, REASON_CROSSED, sides[1].c.price, sides[0].c.price)
        return True
    for s in range(2):
        q = &sides[s]
        if (q.c.quantity and book.watched & WATCH_BREAKER and not keeps_queue(m, q)
                and refuse_band(m, &q.c, book, s, q.c.price)):
            return True
    for s in range(2):
        q = &sides[s]
        best = book.best[1 - s]
        own = sides[1 - s].slot
        if own and 0 <= best < <i32>book.slots and book.levels[best].head == own \
                and book.levels[best].tail == own:  # alone there, and replaced by this command, too
            best = occupied_below(book, best) if s else occupied_above(book, best)
        if q.c.quantity and reaches(s, q.at, best):
            reject(m, &q.c, REASON_POST_ONLY, price_of(book, best), q.c.price)
            return True
    return False


cdef bint bad_extent(Market* m, Command* c, Instrument* book, Position* p, Account* account,
                     Quote* sides) noexcept nogil:
    """ALL_MONTHS_LIMIT of each side, POSITION_LIMIT of each side, then MARGIN and MEMBER_MARGIN of
    both together."""
    cdef i64 exposure[2]
    cdef i64 adverse = p.adverse
    cdef i64 rise
    cdef Quote* q
    cdef int s
    for s in range(2):
        q = &sides[s]
        if book.watched & WATCH_LIMITS and refuse_all_months(
                m, &q.c, book, account, s, <i64>q.c.quantity - q.before):
            return True
    for s in range(2):
        q = &sides[s]
        exposure[s] = p.exposure[s] - q.before + q.c.quantity
        if q.before:
            adverse -= q.before * adverse_per_lot(book, s, m.orders[q.slot].price)
        if q.c.quantity:  # else its price has not been checked
            adverse += q.c.quantity * adverse_per_lot(book, s, q.c.price)
        if exposure[s] > book.position_limit and q.c.quantity > q.before:
            reject(m, &q.c, REASON_POSITION_LIMIT, book.position_limit, exposure[s])
            return True
    rise = book.rate * max(exposure[0], exposure[1]) + adverse - p.hold
    if book.watched & WATCH_CREDIT:
        rise += account.credit - credit_with(
            m, account, c.instrument, <i64>sides[0].c.quantity - sides[0].before,
            <i64>sides[1].c.quantity - sides[1].before)
    if account.excess < 0:
        for s in range(2):
            if not reduces(m, p, &sides[s]):
                reject(m, &sides[s].c, REASON_MARGIN, account.cash,
                       required_of(account) + (rise if rise > 0 else 0))
                return True
    elif rise > account.excess and rise > 0:
        reject(m, c, REASON_MARGIN, account.cash, required_of(account) + rise)
        return True
    elif rise > account.member.excess and rise > 0:
        reject(m, c, REASON_MEMBER_MARGIN, account.member.cash,
               account.member.cash - account.member.excess + rise)
        return True
    return False


cdef bint reduces(Market* m, Position* p, Quote* q) noexcept nogil:
    """Whether an account in DEFICIT may have this side: empty, in its place, or only reducing."""
    cdef u8 side = q.c.side
    if q.c.quantity == 0 or keeps_queue(m, q):
        return True
    if (p.net <= 0) if side else (p.net >= 0):
        return False
    return working_of(p, side) - q.before + q.c.quantity <= absolute(p.net)


cdef bint bad_room(Market* m, Command* c, Instrument* book, Account* account, u32 at,
                   Quote* sides) noexcept nogil:
    """BOOK_FULL, ORDERS_FULL, POSITIONS_FULL."""
    cdef i64 more = fresh(sides)
    cdef u32 slot = m.order_free
    cdef i64 needed = more + ((c.key_lo or c.key_hi) != 0 and not gives_slot(m, account))
    if more > 0 and book.working_orders + more > LIMIT_BOOK_ORDERS:
        reject(m, c, REASON_BOOK_FULL, LIMIT_BOOK_ORDERS, book.working_orders)
        return True
    needed -= m.order_capacity - m.order_top
    while slot and needed > 0:
        needed -= 1
        slot = m.orders[slot].next
    if needed > 0:
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
        return True
    if at == 0 and more > 0 and not has_records(m, 1):
        reject(m, c, REASON_POSITIONS_FULL, m.position_capacity, m.position_capacity)
        return True
    return False


cdef inline i64 fresh(Quote* sides) noexcept nogil:
    """How many sides need a new slot: wanted, and without an order."""
    return ((sides[0].slot == 0 and sides[0].c.quantity != 0)
            + (sides[1].slot == 0 and sides[1].c.quantity != 0))


cdef void take_back(Market* m, Instrument* book, Position* p, Quote* q) noexcept nogil:
    """First for both sides that have an order: cancel it, leave it as it is, make it smaller in its
    place, or take it out to be put down anew; a change is told by ORDER_REPLACED."""
    cdef Order* o = &m.orders[q.slot]
    cdef bint kept = keeps_queue(m, q)
    cdef u32 flags
    cdef Event* e
    if q.c.quantity == 0 or q.anew:
        cancel_for(m, q.slot, CANCEL_REASON_QUOTE)
        q.slot = 0
        return
    o.session = q.c.session
    if q.same:
        return
    flags = side_of(o) << 1 | (EVENT_FLAG_RESTING if state_of(o) == WORKING else 0)
    e = emit(m, what(EVENT_KIND_ORDER_REPLACED, flags, kept), p.who)
    e.order_id = order_id_of(m, q.slot)
    e.price = q.c.price
    e.quantity = o.executed + q.c.quantity
    e.leaves = q.c.quantity
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.price
    e.b = o.leaves
    if kept:
        book.levels[q.at].quantity -= o.leaves - q.c.quantity
        release(m, book, p, side_of(o), o.price, o.leaves - q.c.quantity)
        o.leaves = q.c.quantity
        q.same = True
        return
    withdraw(m, book, p, q.slot)


cdef void put_down(Market* m, Instrument* book, Position* p, u32 at, Quote* q) noexcept nogil:
    """Then for each side that is wanted and not in its place: a new order (ORDER_ACCEPTED), or the
    old one, at the back of its new level."""
    cdef u8 side = q.c.side
    cdef Extra extra
    cdef Order* o
    cdef Event* e
    cdef u64 order_id
    if q.slot == 0:
        q.slot = take_slot(m)
        o = &m.orders[q.slot]
        order_id = order_id_of(m, q.slot)
        o.position = at
        o.executed = 0
        o.key_lo = q.c.key_lo
        o.key_hi = q.c.key_hi
        o.fingerprint = 0
        o.session = q.c.session
        o.traits = traits_of(side, conditions_of(q.c.tif, q.c.stp), WORKING)
        memset(&extra, 0, sizeof(Extra))
        extra.features = ORDER_FEATURE_QUOTE
        put_extra(m, q.slot, &extra)
        join_special(m, q.slot, 0)
        m.stands[at].quotes[side] = q.slot
        e = emit(m, what(EVENT_KIND_ORDER_ACCEPTED, side << 1 | EVENT_FLAG_POST_ONLY, 0), p.who)
        e.order_id = order_id
        e.price = q.c.price
        e.quantity = q.c.quantity
        e.leaves = q.c.quantity
        e.key_lo = q.c.key_lo
        e.key_hi = q.c.key_hi
        e.a = q.c.session
        e.b = q.c.tif | <i64>q.c.stp << 8 | <i64>ORDER_FEATURE_QUOTE << 16
    o = &m.orders[q.slot]
    o.price = q.c.price
    o.leaves = q.c.quantity
    set_order_state(o, WORKING)
    book.working_orders += 1
    p.owner.open_orders += 1
    p.exposure[side] += q.c.quantity
    p.adverse += q.c.quantity * adverse_per_lot(book, side, q.c.price)
    rest(m, book, q.slot, side, q.at)


cdef bint refuse_quote(Market* m, Command* c) noexcept nogil:
    """The guards up to a known request id, then UNKNOWN_INSTRUMENT, NOT_OUTRIGHT."""
    if bad_owner(m, c, True):
        return True
    if (c.side or c.tif > TIME_IN_FORCE_DAY or c.stp > SELF_TRADE_DECREMENT
            or c.flags & ~COMMAND_FLAG_MANUAL or c.spare or c.target_hi > <u64>0xFFFFFFFF):
        reject(m, c, REASON_SYNTAX, 0, 0)
        return True
    if answered(m, c, c.account):
        return True
    if c.instrument >= m.instrument_count:
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return True
    if m.composites[c.instrument].legs:
        reject(m, c, REASON_NOT_OUTRIGHT, 0, m.composites[c.instrument].legs)
        return True
    return False


cdef bint bad_quote(Market* m, Command* c, Instrument* book, u32 at, Quote* sides) noexcept nogil:
    """The guards NOT_TRADING to POSITIONS_FULL. A quote without lots only takes back: it needs room
    for its request id and nothing else."""
    cdef Account* account = &m.accounts[c.account]
    cdef Protection* protection
    cdef i64 open_orders
    if c.quantity == 0 and c.target_hi == 0:
        return bad_room(m, c, book, account, at, sides)
    if book.state != TRADING_STATE_CONTINUOUS:
        reject(m, c, REASON_NOT_TRADING, TRADING_STATE_CONTINUOUS, book.state)
        return True
    if bad_time(m, c, book, account):
        return True
    protection = protection_of(m, c.account, book.product)
    if protection != NULL and protection.blocked:
        reject(m, c, REASON_QUOTES_BLOCKED, protection.lots, protection.traded)
        return True
    if bad_prices(m, c, book, account, sides):
        return True
    open_orders = account.open_orders + fresh(sides)
    if fresh(sides) and open_orders > account.max_open_orders:
        reject(m, c, REASON_OPEN_ORDERS, account.max_open_orders, account.open_orders)
        return True
    return (bad_extent(m, c, book, &m.positions[at], account, sides)
            or bad_room(m, c, book, account, at, sides))


cdef void mass_quote(Market* m, Command* c) noexcept nogil:
    cdef u32 first = m.index
    cdef Quote sides[2]
    cdef Instrument* book
    cdef Position* p
    cdef Event* e
    cdef u32 at
    cdef int s
    if refuse_quote(m, c):
        return
    book = &m.instruments[c.instrument]
    at = position_of(&m.accounts[c.account], c.instrument)
    read_sides(m, c, at, sides)
    if bad_quote(m, c, book, at, sides):
        return
    if at == 0 and fresh(sides):
        at = open_position(m, c.account, c.instrument)
    p = &m.positions[at]
    e = blank(m, EVENT_KIND_QUOTED, 0, 0, c.instrument, c.account)
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = <u32>c.target_hi
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    e.a = <i64>c.target_lo
    e.b = c.session
    for s in range(2):
        if sides[s].slot:
            take_back(m, book, p, &sides[s])
    for s in range(2):
        if sides[s].c.quantity and not sides[s].same:
            put_down(m, book, p, at, &sides[s])
    if at:
        rehold(m, book, p)
    if book.watched:
        aftermath(m, book, first)
    keep_receipt(m, c, c.account, first)
