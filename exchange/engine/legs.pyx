"""How combinations trade: at one agreed price, as a trade of every leg at a price that follows from
it and the legs' anchors, and a residual in cash for what those prices do not add up to.

The sums that must be zero, per trade: lots of each leg over both accounts; cash over both accounts
and the house; the agreed value less the value of the legs and the residual.
"""

from exchange.engine.book cimport price_of, reaches
from exchange.engine.combinations cimport charge_legs, rehold_all, side_in, times
from exchange.engine.events cimport emit, what
from exchange.engine.implied cimport Source, find_source, trade_implied
from exchange.engine.legterms cimport terms_now
from exchange.engine.matching cimport meet_head, meet_own, settle_head
from exchange.engine.risk cimport adverse_per_lot, charge, execute, pay_house, position_of, rehold
from exchange.engine.state cimport (
    Composite, Event, LegTerms, Level, NO_ASK, NO_BID, Order, Position, WATCH_IMPLIED, WATCH_LEGS,
    account_of, i128, i32, i64, instrument_of, order_id_of, u16, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *

cdef i128 leg_prices(Market* m, Composite* made, LegTerms* terms, i64 price, i64 weight,
                     i64* prices) noexcept nogil:
    """Set the clearing prices, within the legs' limits, at which the legs of a combination that
    trades at `price` ticks trade. Returns the residual: micro-dollars a lot that its buyer owes
    besides. `weight` is the micro-dollars of a tick."""
    cdef u32 last = made.legs - 1
    cdef i64 scale = m.instruments[made.leg[0]].tick_scale
    cdef i128 total = <i128>price * weight
    cdef i128 paid = 0
    cdef i128 wanted, rest, shift
    cdef Instrument* leg
    cdef u32 i
    rest = <i128>price * scale
    shift = total
    for i in range(made.legs):
        leg = &m.instruments[made.leg[i]]
        shift -= <i128>made.ratio[i] * leg.multiplier * terms[i].anchor
        if i < last:
            rest -= <i128>made.ratio[i] * terms[i].anchor
    shift = floor_div(shift, weight / scale)
    if made.rule == COMBINATION_RULE_DIFFERENCE:
        total = rest * m.instruments[made.leg[last]].multiplier
    for i in range(made.legs):
        leg = &m.instruments[made.leg[i]]
        wanted = terms[i].anchor
        if made.rule == COMBINATION_RULE_AVERAGE:
            wanted += shift
        elif i == last:
            wanted = floor_div(rest, made.ratio[i])
        else:
            total += <i128>made.ratio[i] * leg.multiplier * <i64>wanted
        if wanted < <i128>terms[i].low * scale:
            wanted = <i128>terms[i].low * scale
        elif wanted > <i128>terms[i].high * scale:
            wanted = <i128>terms[i].high * scale
        prices[i] = <i64>wanted
        paid += <i128>made.ratio[i] * leg.multiplier * <i64>wanted
    return total - paid


cdef void trade_leg(Market* m, u32 number, Party* one, Party* other, u8 side, i64 lots, i64 price,
                    u32 parent, u16 place) noexcept nogil:
    """LEG_TRADE: party `one` trades `side` with `other`, which rests, at a clearing price.

    Who rests pays the maker fee, who came in the taker fee. A rebate comes out of the taker fee:
    there is none if both rest."""
    cdef Instrument* leg = &m.instruments[number]
    cdef i64 value = lots * (price * leg.multiplier)
    cdef i64 maker_fee = leg.maker_fee if leg.maker_fee > 0 or not one.resting else 0
    cdef i64 fee = lots * (maker_fee if one.resting else leg.taker_fee)
    cdef i64 other_fee = lots * maker_fee
    cdef Event* e = emit(m, what(EVENT_KIND_LEG_TRADE, side << 1, place),
                         <u64>one.number << 32 | number)
    e.order_id = one.order_id
    e.price = price
    e.quantity = <u32>lots
    e.leaves = parent
    e.key_lo = other.order_id
    e.key_hi = other.number
    e.a = -fee
    e.b = -other_fee
    execute(m, leg, &m.positions[position_of(one.account, number)], side, lots, value, fee)
    execute(m, leg, &m.positions[position_of(other.account, number)], 1 - side, lots, value,
            other_fee)
    if fee + other_fee:
        charge(m, m.accounts, 0, 0, fee + other_fee)


cdef void post_residual(Market* m, Instrument* book, Party* taker, Party* maker, u8 side, u32 lots,
                        i64 price, i128 residual, u32 parent) noexcept nogil:
    """RESIDUAL_POSTED: what the legs' prices leave of the agreed price moves in cash."""
    cdef i128 owed = (-residual if side else residual) * lots
    cdef Event* e
    if owed > <i64>LIMIT_MONEY or owed < -<i64>LIMIT_MONEY:
        m.broken = 2
        return
    e = emit(m, what(EVENT_KIND_RESIDUAL_POSTED, side << 1, 0),
             <u64>taker.number << 32 | <u32>(book - m.instruments))
    e.order_id = taker.order_id
    e.price = price
    e.quantity = lots
    e.leaves = parent
    e.key_lo = maker.order_id
    e.key_hi = maker.number
    e.a = -<i64>owed
    e.b = <i64>owed
    charge(m, taker.account, 0, 0, -<i64>owed)
    charge(m, maker.account, 0, 0, <i64>owed)


cdef void meet_combined(Market* m, Instrument* book, Incoming* t, i32 at) noexcept nogil:
    """One trade with the oldest order of a level of a combination: TRADE, then all its legs."""
    cdef Level* level = &book.levels[at]
    cdef Order* o = &m.orders[level.head]
    cdef Position* p = &m.positions[o.position]
    cdef Composite* made = &m.composites[instrument_of(p)]
    cdef u32 lots = t.leaves if t.leaves < o.leaves else o.leaves
    cdef u32 parent = m.index
    cdef i64 price = price_of(book, at)
    cdef i64[LIMIT_LEGS] prices
    cdef LegTerms[LIMIT_LEGS] terms
    cdef i128 residual
    cdef Party taker, maker
    cdef Event* e = emit(m, what(EVENT_KIND_TRADE, t.side << 1, made.legs), t.who)
    cdef u32 i
    maker.account = p.owner
    maker.order_id = order_id_of(m, level.head)
    maker.number = account_of(p)
    maker.resting = True
    taker.account = m.positions[t.position].owner
    taker.order_id = t.order_id
    taker.number = <u32>(t.who >> 32)
    taker.resting = False
    t.leaves -= lots
    t.lots += lots
    o.leaves -= lots
    o.executed += lots
    level.quantity -= lots
    e.order_id = t.order_id
    e.price = price
    e.quantity = lots
    e.leaves = t.leaves
    e.key_lo = maker.order_id
    e.key_hi = <u64>o.leaves << 32 | maker.number
    e.a = 0
    e.b = 0
    p.exposure[1 - t.side] -= lots
    p.adverse -= lots * adverse_per_lot(book, 1 - t.side, price)
    rehold(m, book, p)
    charge_legs(m, p)
    for i in range(made.legs):
        terms[i] = terms_now(m, made.leg[i])
    residual = leg_prices(m, made, terms, price, book.tick_value, prices)
    for i in range(made.legs):
        trade_leg(m, made.leg[i], &taker, &maker, side_in(t.side, made.ratio[i]),
                  lots * times(made.ratio[i]), prices[i], parent, <u16>(made.legs << 8 | (i + 1)))
    if residual:
        post_residual(m, book, &taker, &maker, t.side, lots, price, residual, parent)
    settle_head(m, book, at)


cdef void book_trades(Market* m, Instrument* book, Incoming* t) noexcept nogil:
    """Book now what the incoming order has traded so far; `find_source` looks at free margin."""
    execute(m, book, &m.positions[t.position], t.side, t.lots, t.value, t.lots * book.taker_fee)
    pay_house(m, book, t.lots)
    m.orders[t.slot].executed += <u32>t.lots
    t.lots = 0
    t.value = 0


cdef bint meet_implied(Market* m, Instrument* book, Incoming* t, i32 at) noexcept nogil:
    """Trade once with an implied price if one is better than the best opposite level `at` and
    within the limit; whether it did."""
    cdef Source s
    cdef i64 limit = price_of(book, t.limit)
    cdef i64 worst = limit
    cdef i64 real
    if at != NO_BID and at != NO_ASK:
        real = price_of(book, at)
        worst = max(worst, real + 1) if t.side else min(worst, real - 1)
    if not find_source(m, book, m.positions[t.position].owner, t.side, t.leaves, limit, worst, &s):
        return False
    trade_implied(m, book, t, &s)
    return True


cdef void match_watched(Market* m, Instrument* book, Incoming* t) noexcept nogil:
    """`match` of matching.pyx for a combination or a book with implied prices."""
    cdef u8 other = 1 - t.side
    cdef Position* p
    cdef i32 at
    cdef bint implied = book.watched & WATCH_IMPLIED and t.need == 0
    cdef u32 left = LIMIT_IMPLIED_TRADES if implied else 0
    if implied:
        rehold_all(m, book, &m.positions[t.position])  # `find_source` looks at free margin
    while t.leaves:
        at = book.best[other]
        if left and meet_implied(m, book, t, at):
            left -= 1
            continue
        if not reaches(t.side, t.limit, at):
            return
        p = &m.positions[m.orders[book.levels[at].head].position]
        if p.owner.group == t.group:
            meet_own(m, book, t, at)
            if book.watched & WATCH_LEGS:
                charge_legs(m, p)
        elif book.watched & WATCH_LEGS:
            meet_combined(m, book, t, at)
        else:
            meet_head(m, book, t, at)
            if implied:
                book_trades(m, book, t)
