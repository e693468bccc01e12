"""BUST and ADJUST: a trade of the open day is taken back, or given another price.

The engine keeps no trades, so the command says what the trade was. A bust books the trade with
reversed sign: net positions and costs of both sides still sum to zero, and

    cash back to the taker + cash back to the maker - what the house pays = 0.

A trade of a combination is corrected whole: its legs' prices and fees and its residual follow from
the terms that the legs had then (legterms.pyx), and the cash that they moved must be what the
command says. A trade with an implied price is stated leg by leg (legwise.pyx).
"""

from libc.string cimport memmove

from exchange.engine.aftermath cimport follow
from exchange.engine.accounts cimport compare_deficit
from exchange.engine.combinations cimport side_in, times
from exchange.engine.events cimport emit, what
from exchange.engine.instruments cimport exceeds, exceeds_bound, refuse_instrument
from exchange.engine.legs cimport leg_prices
from exchange.engine.legwise cimport is_next_leg, state_leg
from exchange.engine.legterms cimport terms_then
from exchange.engine.lifecycle cimport reject
from exchange.engine.months cimport withdraw_all
from exchange.engine.risk cimport charge, execute, position_of
from exchange.engine.state cimport (
    Command, Composite, Event, Instrument, LegTerms, Market, Position, WATCH_QUOTES, i128, i64,
    pair, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    INDEX_BITS = 20  # match number = sequence << INDEX_BITS | index


cdef struct Whole:  # a combination's trade as it was
    LegTerms[LIMIT_LEGS] terms
    i64[LIMIT_LEGS] prices  # clearing prices of the legs
    i64 owed  # the residual of all lots, by the taker to the maker


cdef inline u32 place_of(Market* m, u64 match) noexcept nogil:
    """Where in the list of corrected trades a match number is or belongs."""
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
    """The position record of one side of a trade; 0 if there is none."""
    if account >= m.account_top or not m.accounts[account].is_open:
        return 0
    return position_of(&m.accounts[account], instrument)


cdef bint refuse_trade(Market* m, Command* c, u32* taker, u32* maker) noexcept nogil:
    """The guards UNKNOWN_INSTRUMENT to CORRECTIONS_FULL and PARAMETER_RANGE: whether such a trade
    can have been and may be corrected. Sets the position records of both sides."""
    cdef u64 sequence = c.target_lo >> INDEX_BITS
    cdef u32 at
    if refuse_instrument(m, c):
        return True
    if c.spare and not is_next_leg(m, c):
        reject(m, c, REASON_LEG_ALONE, 0, c.spare)
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


cdef void note(Market* m, u64 match) noexcept nogil:
    """Note that this trade has been corrected."""
    cdef u32 at = place_of(m, match)
    memmove(&m.corrected[at + 1], &m.corrected[at], (m.corrected_count - at) * sizeof(u64))
    m.corrected[at] = match
    m.corrected_count += 1


cdef void say(Market* m, Command* c, u8 kind, i64 price, i64 replaced, i64 cash,
              i64 maker_cash) noexcept nogil:
    """TRADE_BUSTED or TRADE_ADJUSTED, laid out as a TRADE."""
    cdef u32 legs = m.composites[c.instrument].legs
    cdef Event* e = emit(m, what(kind, c.side << 1, legs), pair(c.instrument, c.account))
    e.order_id = c.target_lo
    e.price = price
    e.quantity = c.quantity
    e.leaves = 0
    e.key_lo = <u64>replaced
    e.key_hi = c.session
    e.a = cash
    e.b = maker_cash


cdef void compare_sides(Market* m, Command* c) noexcept nogil:
    """`compare_deficit` for the taker, then the maker."""
    compare_deficit(m, c.account)
    compare_deficit(m, c.session)


cdef bint refuse_cash(i64 cash, i64 maker_cash, i64 lots) noexcept nogil:
    """Whether fees could not have moved these amounts, or they sum to a rebate."""
    cdef i64 most = lots << 32 if lots < 1 << 28 else <i64>LIMIT_MONEY
    return (cash > most or cash < -most or maker_cash > most or maker_cash < -most
            or cash + maker_cash > 0)


cdef i64 bound_without(Position* taker, Position* maker, Instrument* book, u8 side,
                       i64 lots) noexcept nogil:
    """The instrument's bound once lots of the taker's `side` are taken back; -1 if amounts of a
    position of that size could overflow.

    A bust makes the buyer shorter and the seller longer, beyond position limits if need be.
    """
    cdef i64 bound = book.bound
    bound = max(bound, taker.exposure[1 - side] + lots)
    bound = max(bound, maker.exposure[side] + lots)
    return -1 if exceeds_bound(book, book.rate, bound) else bound


cdef void bust(Market* m, Command* c) noexcept nogil:
    """BUST: take a trade back, that is lots, cost and fees of both sides."""
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
    if m.composites[c.instrument].legs:
        bust_whole(m, c)
        return
    if c.spare:
        state_leg(m, c, c.price)
        return
    book = &m.instruments[c.instrument]
    taker = &m.positions[taker_at]
    maker = &m.positions[maker_at]
    bound = bound_without(taker, maker, book, side, lots)
    if refuse_cash(cash, maker_cash, lots) or bound < 0:
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    book.bound = bound
    value = lots * c.price * book.tick_value
    execute(m, book, taker, side, -lots, -value, cash)
    execute(m, book, maker, 1 - side, -lots, -value, maker_cash)
    withdraw_all(m)
    charge(m, &m.accounts[0], 0, 0, cash + maker_cash)
    note(m, c.target_lo)
    first = m.index
    say(m, c, EVENT_KIND_TRADE_BUSTED, c.price, 0, -cash, -maker_cash)
    compare_sides(m, c)
    if book.watched & WATCH_QUOTES:
        follow(m, book, first)


cdef void adjust(Market* m, Command* c) noexcept nogil:
    """ADJUST: give a trade another price; the difference moves between both sides' costs."""
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
    if m.composites[c.instrument].legs:
        adjust_whole(m, c, price)
        return
    if c.spare:
        state_leg(m, c, price)
        return
    change = c.quantity * (price - c.price) * book.tick_value
    execute(m, book, &m.positions[taker_at], c.side, 0, change, 0)
    execute(m, book, &m.positions[maker_at], 1 - c.side, 0, change, 0)
    note(m, c.target_lo)
    say(m, c, EVENT_KIND_TRADE_ADJUSTED, price, c.price, 0, 0)
    compare_sides(m, c)


# --- a combination's trade, corrected whole

cdef Position* held(Market* m, u32 account, u32 instrument) noexcept nogil:
    return &m.positions[position_of(&m.accounts[account], instrument)]


cdef bint refuse_legs(Market* m, Command* c, i64 price, Whole* whole) noexcept nogil:
    """LEGS_FORGOTTEN, PARAMETER_RANGE; sets `whole` as it was for a trade at `price`."""
    cdef Composite* made = &m.composites[c.instrument]
    cdef u64 sequence = c.target_lo >> INDEX_BITS
    cdef i128 owed
    cdef i64 lots
    cdef u32 i
    if sequence <= m.legs_known:
        reject(m, c, REASON_LEGS_FORGOTTEN, <i64>m.legs_known, <i64>sequence)
        return True
    for i in range(made.legs):
        whole.terms[i] = terms_then(m, made.leg[i], sequence)
    owed = leg_prices(m, made, whole.terms, price, m.instruments[c.instrument].tick_value,
                      whole.prices) * c.quantity
    for i in range(made.legs):
        lots = c.quantity * times(made.ratio[i])
        if lots > LIMIT_QUANTITY or exceeds(whole.prices[i],
                                            m.instruments[made.leg[i]].multiplier, lots):
            reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
            return True
    if owed > <i64>LIMIT_MONEY or owed < -<i64>LIMIT_MONEY:
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return True
    whole.owed = -<i64>owed if c.side else <i64>owed
    return False


cdef bint refuse_moved(Market* m, Command* c, Whole* whole) noexcept nogil:
    """PARAMETER_RANGE, TRADE_DIFFERENT: the trade moved other cash than the command says."""
    cdef Composite* made = &m.composites[c.instrument]
    cdef i128 cash = -<i128>whole.owed
    cdef i128 maker_cash = whole.owed
    cdef i64 most = LIMIT_MONEY
    cdef i64 lots
    cdef u32 i
    for i in range(made.legs):
        lots = c.quantity * times(made.ratio[i])
        cash -= <i128>lots * whole.terms[i].taker_fee
        maker_cash -= <i128>lots * whole.terms[i].maker_fee
    if cash > most or cash < -most or maker_cash > most or maker_cash < -most:
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
    elif cash != <i64>c.target_hi:
        reject(m, c, REASON_TRADE_DIFFERENT, <i64>cash, <i64>c.target_hi)
    elif maker_cash != <i64>c.key_lo:
        reject(m, c, REASON_TRADE_DIFFERENT, <i64>maker_cash, <i64>c.key_lo)
    else:
        return False
    return True


cdef void say_leg(Market* m, Command* c, u8 kind, u32 place, i64 price, i64 replaced, i64 cash,
                  i64 maker_cash, u32 parent) noexcept nogil:
    """LEG_BUSTED or LEG_ADJUSTED, laid out as the LEG_TRADE."""
    cdef Composite* made = &m.composites[c.instrument]
    cdef u8 side = side_in(c.side, made.ratio[place])
    cdef Event* e = emit(m, what(kind, side << 1, made.legs << 8 | (place + 1)),
                         pair(made.leg[place], c.account))
    e.order_id = c.target_lo + place + 1
    e.price = price
    e.quantity = <u32>(c.quantity * times(made.ratio[place]))
    e.leaves = parent
    e.key_lo = <u64>replaced
    e.key_hi = c.session
    e.a = cash
    e.b = maker_cash


cdef void return_residual(Market* m, Command* c, i64 price, i64 cash, u32 parent) noexcept nogil:
    """RESIDUAL_CORRECTED: `cash` moves from the maker to the taker."""
    cdef Event* e
    charge(m, &m.accounts[c.account], 0, 0, cash)
    charge(m, &m.accounts[c.session], 0, 0, -cash)
    e = emit(m, what(EVENT_KIND_RESIDUAL_CORRECTED, c.side << 1, 0),
             pair(c.instrument, c.account))
    e.order_id = c.target_lo
    e.price = price
    e.quantity = c.quantity
    e.leaves = parent
    e.key_lo = 0
    e.key_hi = c.session
    e.a = cash
    e.b = -cash


cdef void bust_leg(Market* m, Command* c, Whole* whole, u32 place, u32 parent) noexcept nogil:
    cdef Composite* made = &m.composites[c.instrument]
    cdef Instrument* leg = &m.instruments[made.leg[place]]
    cdef LegTerms* terms = &whole.terms[place]
    cdef i64 lots = c.quantity * times(made.ratio[place])
    cdef i64 value = lots * (whole.prices[place] * leg.multiplier)
    cdef i64 fee = lots * terms.taker_fee
    cdef i64 maker_fee = lots * terms.maker_fee
    cdef u8 side = side_in(c.side, made.ratio[place])
    execute(m, leg, held(m, c.account, made.leg[place]), side, -lots, -value, -fee)
    execute(m, leg, held(m, c.session, made.leg[place]), 1 - side, -lots, -value, -maker_fee)
    withdraw_all(m)
    charge(m, &m.accounts[0], 0, 0, -fee - maker_fee)
    say_leg(m, c, EVENT_KIND_LEG_BUSTED, place, whole.prices[place], 0, fee, maker_fee, parent)


cdef void bust_whole(Market* m, Command* c) noexcept nogil:
    """Take back all legs of a combination's trade, and its residual."""
    cdef Composite* made = &m.composites[c.instrument]
    cdef i64[LIMIT_LEGS] bounds
    cdef Whole whole
    cdef u32 first = m.index
    cdef u32 i
    if refuse_legs(m, c, c.price, &whole):
        return
    for i in range(made.legs):
        bounds[i] = bound_without(
            held(m, c.account, made.leg[i]), held(m, c.session, made.leg[i]),
            &m.instruments[made.leg[i]], side_in(c.side, made.ratio[i]),
            c.quantity * times(made.ratio[i]))
        if bounds[i] < 0:
            reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
            return
    if refuse_moved(m, c, &whole):
        return
    note(m, c.target_lo)
    say(m, c, EVENT_KIND_TRADE_BUSTED, c.price, 0, 0, 0)
    for i in range(made.legs):
        m.instruments[made.leg[i]].bound = bounds[i]
        bust_leg(m, c, &whole, i, first)
    if whole.owed:
        return_residual(m, c, c.price, whole.owed, first)
    compare_sides(m, c)
    follow(m, &m.instruments[c.instrument], first)


cdef void adjust_whole(Market* m, Command* c, i64 price) noexcept nogil:
    """Give the legs the prices that follow from the new one, and correct the residual."""
    cdef Composite* made = &m.composites[c.instrument]
    cdef Whole before, after
    cdef u32 parent = m.index
    cdef Instrument* leg
    cdef i64 change
    cdef u32 i
    cdef u8 side
    if refuse_legs(m, c, c.price, &before) or refuse_legs(m, c, price, &after):
        return
    note(m, c.target_lo)
    say(m, c, EVENT_KIND_TRADE_ADJUSTED, price, c.price, 0, 0)
    for i in range(made.legs):
        if after.prices[i] == before.prices[i]:
            continue
        leg = &m.instruments[made.leg[i]]
        side = side_in(c.side, made.ratio[i])
        change = (c.quantity * times(made.ratio[i])
                  * ((after.prices[i] - before.prices[i]) * leg.multiplier))
        execute(m, leg, held(m, c.account, made.leg[i]), side, 0, change, 0)
        execute(m, leg, held(m, c.session, made.leg[i]), 1 - side, 0, change, 0)
        say_leg(m, c, EVENT_KIND_LEG_ADJUSTED, i, after.prices[i], before.prices[i], 0, 0, parent)
    if after.owed != before.owed:
        return_residual(m, c, price, before.owed - after.owed, parent)
    compare_sides(m, c)
