"""Bust and adjust: a trade of the open day is taken back, or given another price.

The engine keeps no trades, so the command says what the trade was. What a bust moves is the trade
with the sign turned: net positions and costs of both sides still sum to zero, and

    cash back to the taker + cash back to the maker + what the house gives = 0.
"""

from libc.string cimport memmove

from exchange.engine.aftermath cimport follow
from exchange.engine.accounts cimport compare_deficit
from exchange.engine.instruments cimport exceeds, exceeds_bound, refuse_outright
from exchange.engine.lifecycle cimport reject
from exchange.engine.risk cimport charge, execute, position_of
from exchange.engine.state cimport (
    Command, Event, Instrument, Market, Position, WATCH_QUOTES, emit, i64, pair, u32, u64, u8, what,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    INDEX_BITS = 20  # match number = sequence << INDEX_BITS | index


cdef inline u32 place_of(Market* m, u64 match) noexcept nogil:
    """Where in the ascending list of corrected trades a match number is, or belongs."""
    cdef u32 low = 0
    cdef u32 high = m.corrected_count
    cdef u32 middle
    while low < high:
        middle = (low + high) >> 1
        if m.corrected[middle] < match:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline u32 side_of_trade(Market* m, u32 account, u32 instrument) noexcept nogil:
    """The position record of one side; 0 if that account never was in the instrument."""
    if account >= m.account_top or not m.accounts[account].is_open:
        return 0
    return position_of(&m.accounts[account], instrument)


cdef bint refuse_trade(Market* m, Command* c, u32* taker, u32* maker) noexcept nogil:
    """UNKNOWN_INSTRUMENT to CORRECTIONS_FULL: whether there may be such a trade to correct.

    Sets the position records of both sides.
    """
    cdef u64 sequence = c.target_lo >> INDEX_BITS
    cdef u32 at
    if refuse_outright(m, c):
        return True
    if not m.day_open:
        reject(m, c, REASON_DAY_STATE, m.business_date, 0)
        return True
    taker[0] = side_of_trade(m, c.account, c.instrument)
    maker[0] = side_of_trade(m, c.session, c.instrument)
    if (sequence <= m.day_first or sequence >= m.sequence or taker[0] == 0 or maker[0] == 0
            or taker[0] == maker[0]):
        reject(m, c, REASON_TRADE_UNKNOWN, <i64>m.day_first, <i64>sequence)
        return True
    at = place_of(m, c.target_lo)
    if at < m.corrected_count and m.corrected[at] == c.target_lo:
        reject(m, c, REASON_ALREADY_CORRECTED, 0, 0)
        return True
    if m.corrected_count >= LIMIT_CORRECTIONS:
        reject(m, c, REASON_CORRECTIONS_FULL, LIMIT_CORRECTIONS, m.corrected_count)
        return True
    if (c.side > SIDE_SELL or c.quantity < 1 or c.quantity > LIMIT_QUANTITY
            or exceeds(c.price, m.instruments[c.instrument].tick_value, c.quantity)):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return True
    return False


cdef inline void note(Market* m, u64 match) noexcept nogil:
    """This trade is corrected: never again."""
    cdef u32 at = place_of(m, match)
    memmove(&m.corrected[at + 1], &m.corrected[at], (m.corrected_count - at) * sizeof(u64))
    m.corrected[at] = match
    m.corrected_count += 1


cdef void say(Market* m, Command* c, u8 kind, i64 price, i64 replaced, i64 cash,
              i64 maker_cash) noexcept nogil:
    """TRADE_BUSTED or TRADE_ADJUSTED, laid out as a TRADE, then who came into DEFICIT or out."""
    cdef Event* e = emit(m, what(kind, c.side << 1, 0), pair(c.instrument, c.account))
    e.order_id = c.target_lo
    e.price = price
    e.quantity = c.quantity
    e.leaves = 0
    e.key_lo = <u64>replaced
    e.key_hi = c.session
    e.a = cash
    e.b = maker_cash
    compare_deficit(m, c.account)
    compare_deficit(m, c.session)


cdef bint refuse_cash(i64 cash, i64 maker_cash, i64 lots) noexcept nogil:
    """Whether no fees could have moved these amounts."""
    cdef i64 most = lots << 32
    return (cash > most or cash < -most or maker_cash > most or maker_cash < -most
            or cash + maker_cash > 0)


cdef void bust(Market* m, Command* c) noexcept nogil:
    """Take a trade back: lots, cost and fees of both sides."""
    cdef i64 cash = <i64>c.target_hi
    cdef i64 maker_cash = <i64>c.key_lo
    cdef i64 lots = c.quantity
    cdef Instrument* book
    cdef Position* taker
    cdef Position* maker
    cdef u32 taker_at, maker_at, first
    cdef i64 bound, value
    cdef u8 side = c.side
    if refuse_trade(m, c, &taker_at, &maker_at):
        return
    book = &m.instruments[c.instrument]
    taker = &m.positions[taker_at]
    maker = &m.positions[maker_at]
    # who bought comes to be shorter, who sold longer, whatever the limits say
    bound = book.bound
    bound = max(bound, taker.exposure[1 - side] + lots)
    bound = max(bound, maker.exposure[side] + lots)
    if refuse_cash(cash, maker_cash, lots) or exceeds_bound(book, book.rate, bound):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    book.bound = bound
    value = lots * c.price * book.tick_value
    execute(m, book, taker, side, -lots, -value, cash)
    execute(m, book, maker, 1 - side, -lots, -value, maker_cash)
    charge(m, &m.accounts[0], 0, 0, cash + maker_cash)
    note(m, c.target_lo)
    first = m.index
    say(m, c, EVENT_KIND_TRADE_BUSTED, c.price, 0, -cash, -maker_cash)
    if book.watched & WATCH_QUOTES:
        follow(m, book, first)


cdef void adjust(Market* m, Command* c) noexcept nogil:
    """Give a trade another price: the difference goes from one side's cost to the other's."""
    cdef i64 price = <i64>c.target_hi
    cdef i64 change
    cdef Instrument* book
    cdef u32 taker_at, maker_at
    if refuse_trade(m, c, &taker_at, &maker_at):
        return
    book = &m.instruments[c.instrument]
    if price % book.price_step:
        reject(m, c, REASON_TICK, book.price_step, price)
        return
    if price < book.low or price > book.high:
        reject(m, c, REASON_PRICE_LIMIT, book.low if price < book.low else book.high, price)
        return
    if exceeds(price, book.tick_value, c.quantity):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    change = c.quantity * (price - c.price) * book.tick_value
    execute(m, book, &m.positions[taker_at], c.side, 0, change, 0)
    execute(m, book, &m.positions[maker_at], 1 - c.side, 0, change, 0)
    note(m, c.target_lo)
    say(m, c, EVENT_KIND_TRADE_ADJUSTED, price, c.price, 0, 0)
