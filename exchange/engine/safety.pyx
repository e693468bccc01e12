"""Protections: price bands, order values, circuit breakers (windows of trade prices),
accountability levels and daily loss limits. The limit over all months: months.pyx.

An instrument that has one is `watched`; watched.pyx asks what its plain orders must heed. A window
is kept in LIMIT_WINDOW_PARTS parts of time, each with its lowest and highest trade, so that its
memory is bounded whatever trades; a part leaves the window as a whole.
"""

from exchange.engine.book cimport price_of
from exchange.engine.combinations cimport reduces
from exchange.engine.events cimport blank, event_of
from exchange.engine.lifecycle cimport reject
from exchange.engine.risk cimport absolute, position_of
from exchange.engine.state cimport (
    Composite, Event, NO_ASK, NO_BID, Position, WATCH_BREAKER, WATCH_LIMITS, Window, collects, i128,
    put_state, working_of,
)
from exchange.engine.vocabulary cimport *

cdef inline bint is_armed(Market* m, Safety* s, u32 which) noexcept nogil:
    """Whether a window, `which` by Breaker, is set and its feature is on."""
    return s.windows[which].variation and is_on(m, FEATURE_CIRCUIT_BREAKER + which)


cdef u32 watch_of(Market* m, u32 instrument) noexcept nogil:
    """The bits of `watched` for those protections of an instrument that are set and on."""
    cdef Safety* s = &m.safety[instrument]
    cdef u32 bits = 0
    if ((s.band and is_on(m, FEATURE_BANDS))
            or is_armed(m, s, 0) or is_armed(m, s, 1)
            or (s.accountability and is_on(m, FEATURE_ACCOUNTABILITY))):
        bits |= WATCH_BREAKER
    if ((s.order_value and is_on(m, FEATURE_ORDER_VALUE))
            or (s.all_months and is_on(m, FEATURE_ALL_MONTHS_LIMIT))):
        bits |= WATCH_LIMITS
    return bits


# --- orders

cdef i64 value_of(Instrument* book, i64 price, u32 lots) noexcept nogil:
    """|price| × lots × micro-dollars a tick, at most 2**63 - 1. The price may be any number, and so
    may the others where 0 is the only price of the day: the product may need 155 bits."""
    cdef i128 most = <i64>0x7FFFFFFFFFFFFFFF
    cdef i128 value = <i128>price * book.tick_value
    if value < 0:
        value = -value
    if value <= most:
        value *= lots
    return <i64>(value if value < most else most)


cdef bint refuse_value(Market* m, Command* c, Instrument* book, Account* account) noexcept nogil:
    """ORDER_VALUE, unless QUANTITY_RANGE, ACCOUNT_MAX_QUANTITY or NOTIONAL will fire later."""
    cdef Safety* s = safety_of(m, book)
    cdef i64 value
    if (s.order_value == 0 or not is_on(m, FEATURE_ORDER_VALUE) or c.flags & COMMAND_FLAG_MARKET
            or c.quantity == 0 or c.quantity > book.max_order or c.quantity > account.max_order):
        return False
    value = value_of(book, c.price, c.quantity)
    if value <= s.order_value or value > <i64>LIMIT_MONEY:
        return False
    reject(m, c, REASON_ORDER_VALUE, s.order_value, value)
    return True


cdef i64 reference_of(Market* m, Instrument* book) noexcept nogil:
    """The reference of the band: the last trade since the last settlement, else the mark in whole
    ticks, rounded down; then moved to the best bid if below it, or to the best ask if above it."""
    cdef Safety* s = safety_of(m, book)
    cdef i64 reference = s.last
    if not s.traded:
        reference = book.mark / book.tick_scale
        if book.mark % book.tick_scale < 0:
            reference -= 1
    if book.best[0] != NO_BID and price_of(book, book.best[0]) > reference:
        return price_of(book, book.best[0])
    if book.best[1] != NO_ASK and price_of(book, book.best[1]) < reference:
        return price_of(book, book.best[1])
    return reference


cdef i64 within_band(Market* m, Instrument* book, u8 side, i64 limit) noexcept nogil:
    """An order's limit, moved to the band's edge if it is beyond it; `limit` itself if no band is
    set and on, or while orders are collected."""
    cdef Safety* s = safety_of(m, book)
    cdef i64 most
    if s.band == 0 or collects(book) or not is_on(m, FEATURE_BANDS):
        return limit
    if side:
        most = reference_of(m, book) - s.band
        return limit if limit > most else most
    most = reference_of(m, book) + s.band
    return limit if limit < most else most


cdef bint refuse_band(Market* m, Command* c, Instrument* book, u8 side, i64 price) noexcept nogil:
    """PRICE_BAND: the price is beyond the band."""
    cdef i64 most = within_band(m, book, side, price)
    if most == price:
        return False
    reject(m, c, REASON_PRICE_BAND, most, price)
    return True


cdef bint refuse_loss(Market* m, Command* c) noexcept nogil:
    """LOSS_LIMIT: an account that has reached its loss limit may only ENTER what reduces."""
    cdef Account* account = &m.accounts[c.account]
    cdef Composite* made
    cdef Position* p
    if not is_on(m, FEATURE_LOSS_LIMIT):
        return False
    if c.kind == COMMAND_KIND_ENTER and c.side <= SIDE_SELL and c.instrument < m.instrument_count:
        made = &m.composites[c.instrument]
        p = &m.positions[position_of(account, c.instrument)]
        if made.legs:
            if reduces(m, made, account, c.side, c.quantity):
                return False
        elif ((p.net > 0 if c.side else p.net < 0)
                and working_of(p, c.side) + c.quantity <= absolute(p.net)):
            return False
    reject(m, c, REASON_LOSS_LIMIT, m.losses[c.account].limit,
           m.losses[c.account].base - account.cash - account.unrealized)
    return True


# --- trades

cdef void clear_windows(Safety* s) noexcept nogil:
    cdef u32 k
    for k in range(LIMIT_WINDOW_PARTS):
        s.windows[0].low[k] = 0
        s.windows[0].high[k] = -1
        s.windows[1].low[k] = 0
        s.windows[1].high[k] = -1


cdef void enter_part(Window* w, i64 stamp) noexcept nogil:
    """Move a window on to the part of this stamp, emptying the parts in between."""
    cdef i64 part = stamp / (w.span / LIMIT_WINDOW_PARTS)
    cdef i64 k = w.part + 1
    if part - w.part > LIMIT_WINDOW_PARTS:
        k = part - LIMIT_WINDOW_PARTS + 1
    while k <= part:
        w.low[k & (LIMIT_WINDOW_PARTS - 1)] = 0
        w.high[k & (LIMIT_WINDOW_PARTS - 1)] = -1
        k += 1
    w.part = part


cdef bint trips(Window* w, i64 stamp, i64 price, i64* limit) noexcept nogil:
    """Whether a trade is further than `variation` from the window's lowest or highest trade; then
    sets `limit` to the price that it went beyond, else lets the trade join the window."""
    cdef i64 low = price
    cdef i64 high = price
    cdef u32 k
    enter_part(w, stamp)
    for k in range(LIMIT_WINDOW_PARTS):
        if w.low[k] <= w.high[k]:
            low = w.low[k] if w.low[k] < low else low
            high = w.high[k] if w.high[k] > high else high
    if price - low > w.variation:
        limit[0] = low + w.variation
        return True
    if high - price > w.variation:
        limit[0] = high - w.variation
        return True
    k = w.part & (LIMIT_WINDOW_PARTS - 1)
    if w.low[k] > w.high[k]:
        w.low[k] = price
        w.high[k] = price
    w.low[k] = price if price < w.low[k] else w.low[k]
    w.high[k] = price if price > w.high[k] else w.high[k]
    return False


cdef void halt(Market* m, Instrument* book, u32 cause, i64 price, i64 limit,
               i64 wait) noexcept nogil:
    """STATE_CHANGED to HALTED, for `wait` ns (0: until resumed); the windows begin anew."""
    cdef Safety* s = safety_of(m, book)
    cdef Event* e = blank(m, EVENT_KIND_STATE_CHANGED, 0, cause, <u32>(book - m.instruments), 0)
    e.price = price
    e.quantity = TRADING_STATE_HALTED
    e.leaves = book.state
    e.a = limit
    e.b = m.stamp + wait if wait else 0
    s.resume_at = e.b
    m.halt_count += wait != 0
    put_state(m, book, TRADING_STATE_HALTED)
    book.halt_cause = cause
    clear_windows(s)


cdef void halt_all(Market* m, Instrument* book, Window* w, u32 cause, i64 price,
                   i64 limit) noexcept nogil:
    """Halt the book and, if its window says so, every CONTINUOUS outright of its product."""
    cdef u32 k
    halt(m, book, cause, price, limit, w.halt)
    if not w.whole_product:
        return
    for k in range(m.instrument_count):
        if (m.instruments[k].product == book.product and m.composites[k].legs == 0
                and m.instruments[k].state == TRADING_STATE_CONTINUOUS):
            halt(m, &m.instruments[k], cause, price, limit, w.halt)


cdef void tell_level(Market* m, Instrument* book, u32 account) noexcept nogil:
    """ACCOUNTABILITY_PASSED, once, when a position comes to be beyond the level."""
    cdef u32 number = <u32>(book - m.instruments)
    cdef u32 at = position_of(&m.accounts[account], number)
    cdef i64 net = m.positions[at].net
    cdef bint beyond = absolute(net) > safety_of(m, book).accountability
    cdef Event* e
    if beyond == m.accountable[at]:
        return
    m.accountable[at] = beyond
    if beyond:
        e = blank(m, EVENT_KIND_ACCOUNTABILITY_PASSED, EVENT_FLAG_SELL if net < 0 else 0, 0,
                  number, account)
        e.a = safety_of(m, book).accountability
        e.b = net


cdef void tell_levels(Market* m, Instrument* book, u32 account, u32 other) noexcept nogil:
    """`tell_level` for both sides of a trade, if a level is set and on."""
    if safety_of(m, book).accountability and is_on(m, FEATURE_ACCOUNTABILITY):
        tell_level(m, book, account)
        tell_level(m, book, other)


cdef void look_at_trades(Market* m, Instrument* book, u32 first) noexcept nogil:
    """Look at the trades among the command's events from index `first` on, in order. Trades of
    legs: accountability levels. Trades of this book, if it is WATCH_BREAKER: the last price,
    levels, then the windows, the long one first, until one trips."""
    cdef Safety* s = safety_of(m, book)
    cdef u32 number = <u32>(book - m.instruments)
    cdef u32 last = m.index
    cdef u32 i, which
    cdef i64 price
    cdef i64 limit = 0
    cdef Event* e
    for i in range(first, last):
        e = event_of(m, i)
        if <u8>e.what == EVENT_KIND_LEG_TRADE:
            tell_levels(m, &m.instruments[<u32>e.who], <u32>(e.who >> 32), <u32>e.key_hi)
            continue
        if (<u8>e.what != EVENT_KIND_TRADE or <u32>e.who != number
                or not book.watched & WATCH_BREAKER):
            continue
        price = e.price
        s.last = price
        s.traded = 1
        if e.what >> 8 & EVENT_FLAG_AUCTION:  # the windows begin anew with its price
            clear_windows(s)
        tell_levels(m, book, <u32>(e.who >> 32), <u32>e.key_hi)
        for which in range(2):
            if (book.state == TRADING_STATE_CONTINUOUS and is_armed(m, s, which)
                    and trips(&s.windows[which], m.stamp, price, &limit)):
                halt_all(m, book, &s.windows[which], HALT_CAUSE_CIRCUIT_BREAKER + which, price,
                         limit)


# --- halts that end by themselves

cdef void forget_halt(Market* m, Instrument* book) noexcept nogil:
    """The state is about to change by other means: the halt no longer ends by itself."""
    cdef Safety* s = safety_of(m, book)
    if s.resume_at:
        s.resume_at = 0
        m.halt_count -= 1


cdef Instrument* next_resume(Market* m) noexcept nogil:
    """The instrument whose halt ends by itself first, by number if equal; NULL if none does."""
    cdef Instrument* found = NULL
    cdef u32 k
    if m.halt_count == 0:
        return NULL
    for k in range(m.instrument_count):
        if m.safety[k].resume_at and (
                found == NULL or m.safety[k].resume_at < safety_of(m, found).resume_at):
            found = &m.instruments[k]
    return found
