"""Implied prices, first generation.

A combination and its legs each have a book. The oldest resting orders at the best prices of all
these books but one imply a price in that one, and an incoming order there may trade with all of
them at once. Only resting orders imply: an implied price never makes another.

With weights w of the legs (their ratios; in an AVERAGE ratio × hours) and W of the whole, prices
obey W × whole = Σ w × leg. A quotient is rounded against the incoming order. The legs trade at the
prices found, so whoever trades the whole gains what rounding leaves, and there is no residual.

The sums that must be zero: lots and cash of each leg, as of any trade of legs.
"""

from exchange.engine.book cimport price_of
from exchange.engine.combinations cimport charge_legs, side_in, times
from exchange.engine.credits cimport credit_gain
from exchange.engine.events cimport blank, emit, what
from exchange.engine.legs cimport Party, floor_div, trade_leg
from exchange.engine.lifecycle cimport reject
from exchange.engine.matching cimport settle_head
from exchange.engine.risk cimport adverse_per_lot, position_of, rehold
from exchange.engine.state cimport (
    Composite, Event, NO_ASK, NO_BID, Position, WATCH_CREDIT, WATCH_IMPLIED, account_of, i128,
    is_featured, order_id_of, side_of, u16, u64,
)
from exchange.engine.vocabulary cimport *


# --- the switch

cdef void unlink_spread(Composite* leg, u32 combination) noexcept nogil:
    """Remove a combination from the list of a leg."""
    cdef u32 i, kept
    kept = 0
    for i in range(leg.spreads):
        if leg.spread[i] != combination:
            leg.spread[kept] = leg.spread[i]
            kept += 1
    for i in range(kept, leg.spreads):
        leg.spread[i] = 0
    leg.spreads = kept


cdef void link_spread(Composite* leg, u32 combination) noexcept nogil:
    """Insert a combination into the list of a leg, which is in number order."""
    cdef u32 at = leg.spreads
    while at > 0 and leg.spread[at - 1] > combination:
        leg.spread[at] = leg.spread[at - 1]
        at -= 1
    leg.spread[at] = combination
    leg.spreads += 1


cdef void end_implied(Market* m, u32 combination) noexcept nogil:
    """Turn a combination's implied prices off."""
    cdef Composite* made = &m.composites[combination]
    cdef u32 i, leg
    if not made.implied:
        return
    made.implied = 0
    m.instruments[combination].watched &= ~<u32>WATCH_IMPLIED
    for i in range(made.legs):
        leg = made.leg[i]
        unlink_spread(&m.composites[leg], combination)
        if m.composites[leg].spreads == 0:
            m.instruments[leg].watched &= ~<u32>WATCH_IMPLIED


cdef void set_implied(Market* m, Command* c) noexcept nogil:
    """SET_IMPLIED: turn a combination's implied prices on (1) or off (0)."""
    cdef Composite* made
    cdef u32 i, leg
    if c.instrument >= m.instrument_count:
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return
    if m.instruments[c.instrument].state == TRADING_STATE_EXPIRED:
        reject(m, c, REASON_STATE, 0, TRADING_STATE_EXPIRED)
        return
    made = &m.composites[c.instrument]
    if made.legs == 0:
        reject(m, c, REASON_NOT_IMPLIED, 0, 0)
        return
    if c.tif > 1:
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    for i in range(made.legs):
        leg = made.leg[i]
        if c.tif and not made.implied and m.composites[leg].spreads >= LIMIT_LEG_SPREADS:
            reject(m, c, REASON_SPREADS_FULL, LIMIT_LEG_SPREADS, m.composites[leg].spreads)
            return
    if not c.tif:
        end_implied(m, c.instrument)
    elif not made.implied:
        made.implied = 1
        m.instruments[c.instrument].watched |= WATCH_IMPLIED
        for i in range(made.legs):
            link_spread(&m.composites[made.leg[i]], c.instrument)
            m.instruments[made.leg[i]].watched |= WATCH_IMPLIED
    blank(m, EVENT_KIND_IMPLIED_CHANGED, 0, 0, c.instrument, 0).quantity = c.tif


# --- which price is implied

cdef inline i64 factor(Market* m, Composite* made, u32 place) noexcept nogil:
    """A leg's weight in the price of the whole: its ratio; in an AVERAGE ratio × GPU-hours."""
    if made.rule == COMBINATION_RULE_AVERAGE:
        return made.ratio[place] * m.instruments[made.leg[place]].multiplier
    return made.ratio[place]


cdef inline i128 quotient(i128 value, i64 by, i64 step, u8 side) noexcept nogil:
    """`value` / `by` on the price grid, rounded up for an incoming buy, down for a sell."""
    cdef i128 unit = <i128>by * step
    if by < 0:
        value = -value
        unit = -unit
    return (floor_div(value, unit) if side else -floor_div(-value, unit)) * step


cdef i64 needed_by(Market* m, Instrument* book, Account* account, u8 side, u32 lots,
                   i64 limit) noexcept nogil:
    """By how much an account's requirement rises if `lots` of an outright work at their limit."""
    cdef u32 number = <u32>(book - m.instruments)
    cdef Position* p = &m.positions[position_of(account, number)]
    cdef i64 worst = p.exposure[side] + lots
    cdef i64 rise = book.rate * max(worst, p.exposure[1 - side]) + p.adverse - p.hold
    rise += lots * adverse_per_lot(book, side, limit)
    if book.watched & WATCH_CREDIT:
        rise -= credit_gain(m, account, number, side, lots)
    return rise if rise > 0 else 0


cdef bint affordable(Market* m, Instrument* other, Account* incoming, Account* account, u8 side,
                     u32 lots, i64 limit, Source* s) noexcept nogil:
    """Whether `account`, which trades the whole, has the margin for prices off the legs' anchors.

    Legs of unequal hours do not trade at their anchors here, as they do in the combination's own
    trades: that may cost more than the combination's hold. Only a DIFFERENCE is concerned. `lots`
    and `limit` are of the incoming order in the book `other`, which holds nothing yet. If it is of
    the combination, what it does not trade now must have its hold beside; if it is of a leg and of
    another account of the same member, the member must have what both need.
    """
    cdef Composite* made = &m.composites[s.combination]
    cdef Instrument* book = &m.instruments[s.combination]
    cdef i64 last = m.instruments[made.leg[made.legs - 1]].multiplier
    cdef i128 need = 0
    cdef i128 loss = 0
    cdef i128 rates = 0
    cdef i64 ratio, price
    cdef Instrument* leg
    cdef u32 i
    if made.rule != COMBINATION_RULE_DIFFERENCE:
        return True
    for i in range(made.legs):
        leg = &m.instruments[made.leg[i]]
        ratio = -made.ratio[i] if s.side else made.ratio[i]
        price = s.prices[i] * leg.tick_scale
        need += <i128>(ratio * (leg.multiplier - last)) * (price - m.composites[made.leg[i]].anchor)
        loss += <i128>(ratio * leg.multiplier) * (price - leg.mark)
        rates += <i128>times(made.ratio[i]) * leg.rate
    if need <= 0:
        return True
    if s.own == LIMIT_LEGS:
        need = rates + (loss if loss > 0 else 0)
    need *= s.lots
    if s.own == LIMIT_LEGS:
        rates += book.rate
        rates += adverse_per_lot(book, <u8>s.side, limit)
        need += rates * (lots - s.lots)
    if account.excess < need:
        return False
    if s.own < LIMIT_LEGS and incoming.member == account.member:
        need += needed_by(m, other, incoming, side, lots, limit)
    return account.member.excess >= need


cdef inline bint has_top(Instrument* book, u8 side) noexcept nogil:
    return book.best[side] != NO_BID and book.best[side] != NO_ASK


cdef bint tell_price(Market* m, u32 number, Instrument* book, u8 side, i64 worst,
                     Source* s) noexcept nogil:
    """Whether the best levels of all other books of a combination, whoever's orders they are, imply
    a price no worse than `worst` for an order of `side` in `book`. Sets price, combination, own
    and side of `s`. Reads no level, only best prices."""
    cdef Instrument* combination = &m.instruments[number]
    cdef Composite* made = &m.composites[number]
    cdef Instrument* leg
    cdef i128 value = 0  # a DIFFERENCE alone would fit 64 bits
    cdef i64 by = 1
    cdef u32 own = LIMIT_LEGS
    cdef u8 whole = side
    cdef u8 other
    cdef u32 i
    if not combination.trades:
        return False
    if book != combination:
        own = 0
        while &m.instruments[made.leg[own]] != book:
            own += 1
        whole = side_in(1 - side, made.ratio[own])
        if not has_top(combination, whole):
            return False
    for i in range(made.legs):
        if i == own:
            continue
        leg = &m.instruments[made.leg[i]]
        other = 1 - side_in(whole, made.ratio[i])
        if not has_top(leg, other):
            return False
        value += <i128>factor(m, made, i) * price_of(leg, leg.best[other])
    if made.rule == COMBINATION_RULE_AVERAGE:
        by = combination.tick_value / m.instruments[made.leg[0]].tick_scale
    if own < LIMIT_LEGS:
        value = <i128>by * price_of(combination, combination.best[whole]) - value
        by = factor(m, made, own)
    if by == 1 or by == -1:
        value *= by  # a sum of prices is on their grid already
    else:
        value = quotient(value, by, book.price_step, side)
    if value < book.low or value > book.high or (value < worst if side else value > worst):
        return False
    s.price = <i64>value
    s.combination = number
    s.own = own
    s.side = whole
    return True


cdef inline void add_top(Source* s, Instrument* book, u8 side) noexcept nogil:
    s.books[s.parts] = book
    s.at[s.parts] = book.best[side]
    s.parts += 1


cdef void take_tops(Market* m, Source* s) noexcept nogil:
    """Set the parts of a source, the best levels of all other books, and the legs' prices."""
    cdef Composite* made = &m.composites[s.combination]
    cdef Instrument* leg
    cdef u32 i
    s.parts = 0
    if s.own < LIMIT_LEGS:
        add_top(s, &m.instruments[s.combination], <u8>s.side)
    for i in range(made.legs):
        if i == s.own:
            s.prices[i] = s.price
            continue
        leg = &m.instruments[made.leg[i]]
        add_top(s, leg, 1 - side_in(<u8>s.side, made.ratio[i]))
        s.prices[i] = price_of(leg, s.at[s.parts - 1])


cdef Account* take_parts(Market* m, Account* account, Source* s) noexcept nogil:
    """The account that trades the whole, if the oldest orders of the parts may trade with each
    other and with `account`: none FEATURED, all of different self-trade groups; else NULL. Lowers
    `s.lots` to what all of them have."""
    cdef Composite* made = &m.composites[s.combination]
    cdef u32[LIMIT_LEGS + 1] groups
    cdef i64 ratio
    cdef Order* o
    cdef Account* owner
    cdef u32 part, k, leg
    leg = 0
    groups[0] = account.group
    for part in range(s.parts):
        o = &m.orders[s.books[part].levels[s.at[part]].head]
        owner = m.positions[o.position].owner
        if is_featured(o):
            return NULL
        for k in range(part + 1):
            if groups[k] == owner.group:
                return NULL
        groups[part + 1] = owner.group
        ratio = 1
        if part == 0 and s.own < LIMIT_LEGS:
            account = owner
        else:
            leg += leg == s.own
            ratio = times(made.ratio[leg])
            leg += 1
        if o.leaves < s.lots * ratio:
            s.lots = <u32>(o.leaves / ratio)
    return account


cdef bint look_at(Market* m, u32 number, Instrument* book, Account* account, u8 side, u32 lots,
                  i64 limit, i64 worst, Source* s) noexcept nogil:
    """Whether an order, of so many lots at this limit, can trade, no worse than at `worst`, with
    the price that one combination implies. Prices are looked at before orders: most are not good
    enough."""
    if not tell_price(m, number, book, side, worst, s):
        return False
    take_tops(m, s)
    s.lots = lots
    if s.own < LIMIT_LEGS:
        s.lots = <u32>(lots / times(m.composites[number].ratio[s.own]))
    owner = take_parts(m, account, s)
    if owner == NULL:
        return False
    s.lots -= s.lots % book.lot_step
    return s.lots != 0 and affordable(m, book, account, owner, side, lots, limit, s)


cdef bint is_implied(Market* m, Instrument* leg, u8 side, i64 worst) noexcept nogil:
    """Whether any combination implies a price no worse than `worst` for an order in a leg, whether
    or not its parts may trade: if not, `find_source` finds nothing."""
    cdef Composite* made = &m.composites[leg - m.instruments]
    cdef Source s
    cdef u32 i
    for i in range(made.spreads):
        if tell_price(m, made.spread[i], leg, side, worst, &s):
            return True
    return False


cdef bint find_source(Market* m, Instrument* book, Account* account, u8 side, u32 lots, i64 limit,
                      i64 worst, Source* best) noexcept nogil:
    """Find the best price, no worse than `worst`, that is implied for an order of so many lots at
    this limit; of equal ones the first combination's."""
    cdef u32 number = <u32>(book - m.instruments)
    cdef Composite* made = &m.composites[number]
    cdef Source s
    cdef bint found = False
    cdef u32 i
    if made.legs:
        return made.implied and look_at(m, number, book, account, side, lots, limit, worst, best)
    for i in range(made.spreads):
        if look_at(m, made.spread[i], book, account, side, lots, limit, worst, &s):
            best[0] = s
            found = True
            worst = s.price + 1 if side else s.price - 1
    return found


cdef bint refuse_implied(Market* m, Command* c, Instrument* book, u8 side, u32 lots) noexcept nogil:
    """POST_ONLY: the order, which comes in with so many lots, would trade with an implied price."""
    cdef Source s
    if not find_source(m, book, &m.accounts[c.account], side, lots, c.price, c.price, &s):
        return False
    reject(m, c, REASON_POST_ONLY, s.price, c.price)
    return True


# --- the trade

cdef void say_executed(Market* m, Order* o, u64 order_id, u32 flags, i64 price, u32 lots,
                       u32 leaves, u32 combination, u16 place) noexcept nogil:
    cdef Event* e = emit(m, what(EVENT_KIND_ORDER_EXECUTED, flags | side_of(o) << 1, place),
                         m.positions[o.position].who)
    e.order_id = order_id
    e.price = price
    e.quantity = lots
    e.leaves = leaves
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.session
    e.b = combination


cdef void give(Market* m, Source* s, u32 part, u32 lots, Party* party) noexcept nogil:
    """A resting order, one of the parts, trades `lots`: ORDER_EXECUTED; they leave its level and
    its working lots. Sets `party` to it."""
    cdef Instrument* book = s.books[part]
    cdef u32 slot = book.levels[s.at[part]].head
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef u8 side = side_of(o)
    o.leaves -= lots
    o.executed += lots
    book.levels[s.at[part]].quantity -= lots
    party.account = p.owner
    party.number = account_of(p)
    party.order_id = order_id_of(m, slot)
    party.resting = True
    say_executed(m, o, party.order_id, EVENT_FLAG_RESTING, o.price, lots, o.leaves, s.combination,
                 <u16>(part + 1))
    p.exposure[side] -= lots
    if p.adverse:
        p.adverse -= lots * adverse_per_lot(book, side, o.price)
    rehold(m, book, p)
    if m.composites[<u32>(book - m.instruments)].legs:
        charge_legs(m, p)


cdef void trade_implied(Market* m, Instrument* book, Incoming* t, Source* s) noexcept nogil:
    """Trade once with an implied price: ORDER_EXECUTED of the incoming order and of each part, then
    a LEG_TRADE of each leg between whoever trades the whole and whoever trades that leg."""
    cdef Composite* made = &m.composites[s.combination]
    cdef Order* o = &m.orders[t.slot]
    cdef u32 parent = m.index
    cdef u32 lots = s.lots
    cdef i64 scale = m.instruments[made.leg[0]].tick_scale
    cdef u32 i, part
    cdef u8 side
    cdef Party me
    cdef Party[LIMIT_LEGS] parties
    cdef Party* one
    cdef Party* other
    if s.own < LIMIT_LEGS:
        lots *= <u32>times(made.ratio[s.own])
    t.leaves -= lots
    o.executed += lots
    me.account = m.positions[t.position].owner
    me.number = <u32>(t.who >> 32)
    me.order_id = t.order_id
    me.resting = False
    say_executed(m, o, t.order_id, 0, s.price, lots, t.leaves, s.combination, 0)
    part = 0
    if s.own < LIMIT_LEGS:
        give(m, s, 0, s.lots, &parties[0])
        part = 1
    for i in range(made.legs):
        if i != s.own:
            give(m, s, part, s.lots * <u32>times(made.ratio[i]), &parties[part])
            part += 1
    part = 0 if s.own == LIMIT_LEGS else 1
    for i in range(made.legs):
        one = &me
        other = &parties[0]
        if i != s.own:
            one = &me if s.own == LIMIT_LEGS else &parties[0]
            other = &parties[part]
            part += 1
        side = t.side if i == s.own else side_in(s.side, made.ratio[i])
        trade_leg(m, made.leg[i], one, other, side, s.lots * times(made.ratio[i]),
                  s.prices[i] * scale, parent, <u16>(made.legs << 8 | (i + 1)))
    for i in range(s.parts):
        settle_head(m, s.books[i], s.at[i])
