"""An instrument's life: LIST, SET_LIMITS, SET_RISK, SET_STATE, SET_MODE, MARK, SETTLE, EXPIRE.

Variation margin moves only between positions: its sum over all accounts is zero, which
`pay_variation` asserts.
"""

from libc.stdlib cimport free
from libc.string cimport memset

from exchange.engine.accounts cimport compare_deficits
from exchange.engine.aftermath cimport aftermath
from exchange.engine.auction cimport (
    auction_size, cancel_unpriced, collect, stop_collecting, uncross,
)
from exchange.engine.combinations cimport (
    bad_made_marks, expire_made, move_made_marks, return_made, times,
)
from exchange.engine.book cimport append, occupied_above, occupied_below, rest, slot_of
from exchange.engine.credits cimport compare_spread, refuse_credit, set_credit
from exchange.engine.events cimport blank, emit, what
from exchange.engine.ladder cimport build_ladder, lowest
from exchange.engine.legterms cimport note_change
from exchange.engine.lifecycle cimport cancel_all_of, reject
from exchange.engine.changes cimport return_dormant
from exchange.engine.months cimport withdraw_all
from exchange.engine.positions cimport vacate_expired
from exchange.engine.risk cimport (
    absolute, adverse_per_lot, charge, position_of, rehold, set_mark,
)
from exchange.engine.safety cimport forget_halt
from exchange.engine.state cimport (
    Auction, Command, Composite, DORMANT, Event, Instrument, Level, Market, NO_ASK, NO_BID, Order,
    Position, WATCH_STEPS, auction_of, collects, ctz, i32, i64, is_continuous, lots_of, order_id_of,
    put_state, refresh_combined, set_order_state, side_of, u16, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *


cdef bint bad_limits(i64 low, i64 high, i64 step, i64 tick_value, i64 bound) noexcept nogil:
    cdef i64 most = LIMIT_PRICE
    if low > high or low < -most or high > most or low % step or high % step:
        return True
    if (high - low) / step >= LIMIT_LADDER_LEVELS:
        return True
    return exceeds(low, tick_value, bound) or exceeds(high, tick_value, bound)


cdef bint bad_mark(i64 price, i64 multiplier, i64 bound) noexcept nogil:
    cdef i64 most = LIMIT_PRICE
    return price < -most or price > most or exceeds(price, multiplier, bound)


cdef void outline(Instrument* book, i64 low, i64 high, i64 step, u32 lot_step) noexcept nogil:
    """Set a new instrument's grid, and what follows from it; everything else of it is zero."""
    cdef u64 odd
    cdef int _
    memset(book, 0, sizeof(Instrument))
    book.low = low
    book.high = high
    book.price_step = step
    book.lot_step = lot_step
    book.step_shift = ctz(<u64>step)
    odd = <u64>step >> book.step_shift
    book.step_inverse = odd
    for _ in range(5):  # Newton: 3 correct bits at first, each round doubles them
        book.step_inverse *= 2 - odd * book.step_inverse
    book.bound = 1
    book.watched = 0 if lot_step == 1 else WATCH_STEPS


cdef void list_instrument(Market* m, Command* c) noexcept nogil:
    cdef i64 low = <i64>c.target_lo
    cdef i64 high = <i64>c.target_hi
    cdef u64 tick_value = <u64>c.quantity * c.session
    cdef Instrument* book
    cdef Event* e
    if m.instrument_count >= m.instrument_capacity:
        reject(m, c, REASON_INSTRUMENTS_FULL, m.instrument_capacity, m.instrument_count)
        return
    if c.instrument != m.instrument_count:
        reject(m, c, REASON_STATE, m.instrument_count, c.instrument)
        return
    if (c.quantity < 1 or c.session < 1 or c.account < 1 or c.operator < 1
            or tick_value > <u64>LIMIT_MONEY or bad_limits(low, high, c.account, <i64>tick_value, 1)
            or bad_mark(c.price, c.quantity, 1) or c.key_lo >= LIMIT_PRODUCTS):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    book = &m.instruments[c.instrument]
    outline(book, low, high, c.account, c.operator)
    book.multiplier = c.quantity
    book.tick_scale = c.session
    book.tick_value = tick_value
    set_mark(book, c.price)
    book.product = <u32>c.key_lo
    m.composites[c.instrument].anchor = c.price
    if not build_ladder(m, book):
        return
    m.instrument_count += 1
    withdraw_all(m)
    e = blank(m, EVENT_KIND_INSTRUMENT_LISTED, 0, c.operator, c.instrument, 0)
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = c.session
    e.order_id = c.account
    e.key_lo = c.key_lo
    e.a = low
    e.b = high


cdef bint refuse_instrument(Market* m, Command* c) noexcept nogil:
    """UNKNOWN_INSTRUMENT, STATE (expired)."""
    if c.instrument >= m.instrument_count:
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return True
    if m.instruments[c.instrument].state == TRADING_STATE_EXPIRED:
        reject(m, c, REASON_STATE, 0, TRADING_STATE_EXPIRED)
        return True
    return False


cdef void carry_level(Market* m, Instrument* book, Instrument* ladder,
                      Level* level) noexcept nogil:
    """Carry the orders of an old level, in order, to the new ladder or the dormant list."""
    cdef u32 slot = level.head
    cdef u32 following
    cdef Order* o
    cdef Position* p
    cdef Event* e
    while slot:
        o = &m.orders[slot]
        following = o.next
        if book.low <= o.price <= book.high:
            rest(m, ladder, slot, side_of(o), slot_of(book, o.price))
        else:
            set_order_state(o, DORMANT)
            append(m, &book.dormant, slot)
            p = &m.positions[o.position]
            e = emit(m, what(EVENT_KIND_ORDER_DORMANT, EVENT_FLAG_RESTING | side_of(o) << 1, 0),
                     p.who)
            e.order_id = order_id_of(m, slot)
            e.price = o.price
            e.quantity = lots_of(m, slot)
            e.leaves = o.leaves
            e.key_lo = o.key_lo
            e.key_hi = o.key_hi
            e.a = o.session
            e.b = 0
        slot = following


cdef void rebase(Market* m, Instrument* book, Instrument* ladder, i64 low,
                 i64 high) noexcept nogil:
    """Give a ladder of `book` new limits; orders outside them fall dormant, best first."""
    cdef Instrument old = ladder[0]
    cdef i32 at
    ladder.low = low
    ladder.high = high
    if not build_ladder(m, ladder):
        return
    at = old.best[0]
    while at != NO_BID:
        carry_level(m, book, ladder, &old.levels[at])
        at = occupied_below(&old, at)
    at = old.best[1]
    while at != NO_ASK:
        carry_level(m, book, ladder, &old.levels[at])
        at = occupied_above(&old, at)
    free(old.levels)
    free(old.bits)


cdef bint is_too_large(Market* m, Command* c, Instrument* book) noexcept nogil:
    """BOOK_FULL: an auction, or dormant orders that return, may be too many for one command."""
    cdef i64 orders = auction_size(m, book)
    if orders <= LIMIT_BOOK_ORDERS:
        return False
    reject(m, c, REASON_BOOK_FULL, LIMIT_BOOK_ORDERS, orders)
    return True


cdef void set_limits(Market* m, Command* c) noexcept nogil:
    cdef i64 low = <i64>c.target_lo
    cdef i64 high = <i64>c.target_hi
    cdef Instrument* book
    cdef Event* e
    if refuse_instrument(m, c):
        return
    book = &m.instruments[c.instrument]
    if bad_limits(low, high, book.price_step, book.tick_value, book.bound):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    if book.trades and book.dormant.head and is_too_large(m, c, book):
        return
    note_change(m, c.instrument)
    e = blank(m, EVENT_KIND_LIMITS_CHANGED, 0, 0, c.instrument, 0)
    e.a = low
    e.b = high
    rebase(m, book, book, low, high)
    if collects(book):
        rebase(m, book, &auction_of(m, book).asks, low, high)
        cancel_unpriced(m, book)
    bring_back(m, book)


cdef bint bad_combined_risk(Composite* made, Command* c) noexcept nogil:
    """Whether a combination would have fees of its own, or a max_order too large for a leg."""
    cdef u32 i
    for i in range(made.legs):
        if c.target_lo or c.target_hi or c.session * times(made.ratio[i]) > LIMIT_QUANTITY:
            return True
    return False


cdef bint refuse_outright(Market* m, Command* c) noexcept nogil:
    """UNKNOWN_INSTRUMENT, STATE (expired), NOT_OUTRIGHT."""
    if refuse_instrument(m, c):
        return True
    if m.composites[c.instrument].legs:
        reject(m, c, REASON_NOT_OUTRIGHT, 0, m.composites[c.instrument].legs)
        return True
    return False


cdef void set_risk(Market* m, Command* c) noexcept nogil:
    cdef i64 maker_fee = <i64>c.target_lo
    cdef i64 taker_fee = <i64>c.target_hi
    cdef i64 most_fee = <i64>1 << 32
    cdef i64 bound
    cdef Instrument* book
    cdef Event* e
    cdef u32 i, at
    cdef bint credited
    if refuse_instrument(m, c):
        return
    book = &m.instruments[c.instrument]
    bound = book.bound
    if c.quantity > bound:
        bound = c.quantity
    if c.session > bound:
        bound = c.session
    if (c.price < 0 or c.price > <i64>1 << 40 or c.session > LIMIT_QUANTITY
            or maker_fee > most_fee or maker_fee < -most_fee or taker_fee > most_fee
            or taker_fee < -most_fee or maker_fee + taker_fee < 0
            or exceeds(absolute(maker_fee) + absolute(taker_fee), bound, 1)
            or exceeds_bound(book, c.price, bound)
            or bad_combined_risk(&m.composites[c.instrument], c)):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    if refuse_credit(m, c):
        return
    note_change(m, c.instrument)
    book.bound = bound
    book.rate = c.price
    book.position_limit = c.quantity
    book.max_order = c.session
    book.maker_fee = maker_fee
    book.taker_fee = taker_fee
    credited = set_credit(m, c.instrument, c.key_lo)
    for i in range(m.account_top):
        at = position_of(&m.accounts[i], c.instrument)
        if at:
            rehold(m, book, &m.positions[at])
    e = blank(m, EVENT_KIND_RISK_CHANGED, 0, 0, c.instrument, 0)
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = c.session
    e.key_lo = <u64>m.composites[c.instrument].credit
    e.a = maker_fee
    e.b = taker_fee
    if credited:
        compare_spread(m, c.instrument)
    else:
        compare_deficits(m, c.instrument)


cdef inline bint gathers(u8 state) noexcept nogil:
    """Whether orders are collected in this state."""
    return state == TRADING_STATE_PRE_OPEN or state == TRADING_STATE_AUCTION


cdef void bring_back(Market* m, Instrument* book) noexcept nogil:
    """Dormant orders inside the limits return, if the instrument trades or collects."""
    if book.trades or gathers(<u8>book.state):
        return_dormant(m, book)


cdef void hold_auction(Market* m, Instrument* book, u32 first) noexcept nogil:
    """Hold the auction, if the instrument collects, and do what follows from the events from index
    `first` on; while the market is cancel-only both wait."""
    if m.mode != MODE_NORMAL:
        return
    uncross(m, book)
    if book.watched:
        aftermath(m, book, first)


cdef bint may_follow(u8 present, u8 wished) noexcept nogil:
    """Whether SET_STATE may change `present` to `wished`: CLOSED to a state that takes orders; a
    state that takes orders, or HALTED, to any other; never to or from EXPIRED."""
    if wished > TRADING_STATE_HALTED or wished == present or present == TRADING_STATE_EXPIRED:
        return False
    return present != TRADING_STATE_CLOSED or wished != TRADING_STATE_HALTED


cdef bint bad_cause(u8 state, u32 cause) noexcept nogil:
    """Whether a state may not be entered for this HaltCause."""
    return cause != 0 and (not gathers(state) or cause < HALT_CAUSE_OPENING
                           or cause > HALT_CAUSE_VOLATILITY)


cdef void move_state(Market* m, Instrument* book, u8 state, u16 cause) noexcept nogil:
    """STATE_CHANGED, then what follows: orders are collected, or the auction is held; dormant
    orders return, and with CONTINUOUS also those of the leg's combinations."""
    cdef u8 before = <u8>book.state
    cdef u32 first = m.index
    cdef Event* e = blank(m, EVENT_KIND_STATE_CHANGED, 0, cause, <u32>(book - m.instruments), 0)
    e.quantity = state
    e.leaves = before
    book.halt_cause = cause
    put_state(m, book, state)
    if gathers(state):
        if not collect(m, book):
            return
    elif state == TRADING_STATE_CONTINUOUS or (state == TRADING_STATE_CLOSED
                                               and before == TRADING_STATE_AUCTION):
        hold_auction(m, book, first)
    bring_back(m, book)
    if state == TRADING_STATE_CONTINUOUS:
        return_made(m, <u32>(book - m.instruments))


cdef inline bint ends_auction(Instrument* book, u8 state) noexcept nogil:
    """Whether a change to this state ends an auction, if orders are collected for one."""
    return state == TRADING_STATE_CONTINUOUS or (state == TRADING_STATE_CLOSED
                                                 and book.state == TRADING_STATE_AUCTION)


cdef void set_state(Market* m, Command* c) noexcept nogil:
    cdef Instrument* book
    cdef u32 cause = c.quantity
    if c.instrument >= m.instrument_count:
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return
    book = &m.instruments[c.instrument]
    if not may_follow(book.state, c.tif) or (gathers(c.tif)
                                             and m.composites[c.instrument].legs):
        reject(m, c, REASON_STATE, book.state, c.tif)
        return
    if bad_cause(c.tif, cause):
        reject(m, c, REASON_PARAMETER_RANGE,
               HALT_CAUSE_VOLATILITY if gathers(c.tif) else 0, cause)
        return
    if ((collects(book) or book.dormant.head) and ends_auction(book, c.tif)
            and m.mode == MODE_NORMAL and is_too_large(m, c, book)):
        return
    forget_halt(m, book)
    if c.tif == TRADING_STATE_HALTED:
        cause = HALT_CAUSE_OPERATOR
    move_state(m, book, c.tif, <u16>cause)


cdef i64 orders_waiting(Market* m) noexcept nogil:
    """The orders of the instruments in which something waits for the mode NORMAL, as
    `auction_size` counts them."""
    cdef i64 orders = 0
    cdef Instrument* book
    cdef u32 i
    for i in range(m.instrument_count):
        book = &m.instruments[i]
        if book.state == TRADING_STATE_CONTINUOUS and (
                collects(book) or book.dormant.head or m.stops[i].elected.head):
            orders += auction_size(m, book)
    return orders


cdef void set_mode(Market* m, Command* c) noexcept nogil:
    """SET_MODE. On the way back to NORMAL every CONTINUOUS instrument does what waited for that, in
    number order: so legs come before their combinations."""
    cdef bint waited = m.mode != MODE_NORMAL and c.tif == MODE_NORMAL
    cdef u32 i
    if c.tif > MODE_CANCEL_ONLY:
        reject(m, c, REASON_PARAMETER_RANGE, MODE_CANCEL_ONLY, c.tif)
        return
    if waited and orders_waiting(m) > LIMIT_BOOK_ORDERS:
        reject(m, c, REASON_BOOK_FULL, LIMIT_BOOK_ORDERS, orders_waiting(m))
        return
    m.mode = c.tif
    for i in range(m.instrument_count):
        m.instruments[i].trades = m.mode == MODE_NORMAL and is_continuous(&m.instruments[i])
    refresh_combined(m)
    blank(m, EVENT_KIND_MODE_CHANGED, 0, 0, 0, 0).quantity = c.tif
    for i in range(m.instrument_count if waited else 0):
        if m.instruments[i].state == TRADING_STATE_CONTINUOUS:
            hold_auction(m, &m.instruments[i], m.index)
            bring_back(m, &m.instruments[i])


cdef void resume(Market* m, Instrument* book) noexcept nogil:
    """A halt ends by itself."""
    forget_halt(m, book)
    move_state(m, book, TRADING_STATE_CONTINUOUS, HALT_CAUSE_NONE)


cdef void count_adverse(Market* m, Instrument* book, Level* level) noexcept nogil:
    """Add the adverse amounts of a queue's orders to their positions."""
    cdef u32 slot = level.head
    cdef u32 lots
    cdef Order* o
    while slot:
        o = &m.orders[slot]
        lots = lots_of(m, slot)
        m.positions[o.position].adverse += lots * adverse_per_lot(book, side_of(o), o.price)
        slot = o.next


cdef void count_collected(Market* m, Instrument* book) noexcept nogil:
    """`count_adverse` for the orders that wait for an auction beside the book's own ladder."""
    cdef Auction* a = auction_of(m, book)
    cdef i32 level = a.asks.best[1]
    while level != NO_ASK:
        count_adverse(m, book, &a.asks.levels[level])
        level = occupied_above(&a.asks, level)
    count_adverse(m, book, &a.market[0])
    count_adverse(m, book, &a.market[1])


cdef void move_mark(Market* m, u32 instrument, i64 price) noexcept nogil:
    """Set a new mark; unrealized, adverse and hold of every position follow."""
    cdef Instrument* book = &m.instruments[instrument]
    cdef i64 change = (price - book.mark) * book.multiplier
    cdef Position* p
    cdef u32 i, at
    cdef i32 level
    set_mark(book, price)
    for i in range(m.account_top):
        at = position_of(&m.accounts[i], instrument)
        if at:
            m.positions[at].adverse = 0
    level = lowest(book)
    while level != NO_ASK:
        count_adverse(m, book, &book.levels[level])
        level = occupied_above(book, level)
    count_adverse(m, book, &book.dormant)
    count_adverse(m, book, &m.stops[instrument].waiting)
    count_adverse(m, book, &m.stops[instrument].elected)
    if collects(book):
        count_collected(m, book)
    for i in range(m.account_top):
        at = position_of(&m.accounts[i], instrument)
        if at:
            p = &m.positions[at]
            charge(m, &m.accounts[i], 0, p.net * change, 0)
            rehold(m, book, p)


cdef void mark(Market* m, Command* c) noexcept nogil:
    cdef Instrument* book
    if refuse_outright(m, c):
        return
    book = &m.instruments[c.instrument]
    if (bad_mark(c.price, book.multiplier, book.bound)
            or bad_made_marks(m, c.instrument, c.price, False)):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    move_mark(m, c.instrument, c.price)
    move_made_marks(m, c.instrument)
    blank(m, EVENT_KIND_MARKED, 0, 0, c.instrument, 0).price = c.price
    compare_deficits(m, c.instrument)


cdef void pay_variation(Market* m, u32 instrument, bint closing) noexcept nogil:
    """Turn unrealized amounts at the mark into cash, in account order; their sum is zero."""
    cdef Instrument* book = &m.instruments[instrument]
    cdef i64 total = 0
    cdef i64 net, variation
    cdef Position* p
    cdef Event* e
    cdef u32 i, at
    if closing:
        withdraw_all(m)
    for i in range(m.account_top):
        at = position_of(&m.accounts[i], instrument)
        if at == 0:
            continue
        p = &m.positions[at]
        net = p.net
        variation = net * book.mark * book.multiplier - p.cost
        p.cost += variation
        charge(m, &m.accounts[i], 0, -variation, variation)
        total += variation
        if closing:
            p.exposure[0] -= net
            p.exposure[1] += net
            p.net = 0
            p.cost = 0
            rehold(m, book, p)
        if net or variation:
            e = blank(m, EVENT_KIND_POSITION_SETTLED, EVENT_FLAG_SELL if net < 0 else 0, 0,
                      instrument, i)
            e.price = book.mark
            e.quantity = <u32>absolute(net)
            e.a = variation
            e.b = m.accounts[i].cash
    if total != 0:
        m.broken = 4


cdef void settle(Market* m, Command* c) noexcept nogil:
    cdef Instrument* book
    cdef Event* e
    cdef u64 cycle = <u64>m.business_date * 100 + c.quantity
    if refuse_outright(m, c):
        return
    if m.business_date == 0:
        reject(m, c, REASON_DAY_STATE, 0, 0)
        return
    book = &m.instruments[c.instrument]
    if (bad_mark(c.price, book.multiplier, book.bound) or c.quantity < 1 or c.quantity > 99
            or bad_made_marks(m, c.instrument, c.price, True)):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    if cycle <= book.last_settled:
        reject(m, c, REASON_ALREADY_SETTLED, <i64>book.last_settled, <i64>cycle)
        return
    note_change(m, c.instrument)
    book.last_settled = cycle
    m.safety[c.instrument].traded = 0
    m.safety[c.instrument].last = 0
    e = blank(m, EVENT_KIND_INSTRUMENT_SETTLED, 0, 0, c.instrument, 0)
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = m.business_date
    m.composites[c.instrument].anchor = c.price
    move_mark(m, c.instrument, c.price)
    move_made_marks(m, c.instrument)
    pay_variation(m, c.instrument, False)
    compare_deficits(m, c.instrument)


cdef void expire(Market* m, Command* c) noexcept nogil:
    """EXPIRE, the last settlement: orders are cancelled, positions are paid out and end, and their
    records come back."""
    cdef Instrument* book
    if refuse_outright(m, c):
        return
    book = &m.instruments[c.instrument]
    if book.state == TRADING_STATE_CONTINUOUS:
        reject(m, c, REASON_STATE, TRADING_STATE_HALTED, book.state)
        return
    if bad_mark(c.price, book.multiplier, book.bound):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    forget_halt(m, book)
    blank(m, EVENT_KIND_INSTRUMENT_EXPIRED, 0, 0, c.instrument, 0).price = c.price
    cancel_all_of(m, c.instrument, CANCEL_REASON_INSTRUMENT_EXPIRED)
    stop_collecting(m, book)
    expire_made(m, c.instrument)
    m.composites[c.instrument].anchor = c.price
    move_mark(m, c.instrument, c.price)
    pay_variation(m, c.instrument, True)
    put_state(m, book, TRADING_STATE_EXPIRED)
    compare_deficits(m, c.instrument)
    vacate_expired(m)
