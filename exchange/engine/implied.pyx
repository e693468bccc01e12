"""Implied prices, first generation: of the three books that a calendar spread and its two legs are,
resting orders at the top of two imply a price in the third, and an incoming order there may trade
with both at once. Only resting orders imply: an implied price never makes another.

The sums that must be zero: lots and cash of each leg, as of any trade of legs.
"""

from exchange.engine.book cimport price_of
from exchange.engine.combinations cimport charge_legs
from exchange.engine.legs cimport Party, trade_leg
from exchange.engine.lifecycle cimport reject
from exchange.engine.matching cimport settle_head
from exchange.engine.risk cimport adverse_per_lot, rehold
from exchange.engine.state cimport (
    Composite, Event, NO_ASK, NO_BID, Position, WATCH_IMPLIED, account_of, blank,
    emit, is_featured, order_id_of, side_of, u16, u64, what,
)
from exchange.engine.vocabulary cimport *


# --- the switch

cdef void unlink_spread(Composite* leg, u32 combination) noexcept nogil:
    """A leg forgets a combination."""
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
    """A leg remembers a combination, in number order."""
    cdef u32 at = leg.spreads
    while at > 0 and leg.spread[at - 1] > combination:
        leg.spread[at] = leg.spread[at - 1]
        at -= 1
    leg.spread[at] = combination
    leg.spreads += 1


cdef void end_implied(Market* m, u32 combination) noexcept nogil:
    """Its prices imply nothing any more."""
    cdef Composite* made = &m.composites[combination]
    cdef u32 i, leg
    if not made.implied:
        return
    made.implied = 0
    m.instruments[combination].watched &= ~<u32>WATCH_IMPLIED
    for i in range(2):
        leg = made.leg[i]
        unlink_spread(&m.composites[leg], combination)
        if m.composites[leg].spreads == 0:
            m.instruments[leg].watched &= ~<u32>WATCH_IMPLIED


cdef void set_implied(Market* m, Command* c) noexcept nogil:
    """SET_IMPLIED: on (1) or off (0), of one combination."""
    cdef Composite* made
    cdef u32 i, leg
    if c.instrument >= m.instrument_count:
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return
    if m.instruments[c.instrument].state == TRADING_STATE_EXPIRED:
        reject(m, c, REASON_STATE, 0, TRADING_STATE_EXPIRED)
        return
    made = &m.composites[c.instrument]
    if (made.legs != 2 or made.ratio[0] != 1 or made.ratio[1] != -1
            or made.rule != COMBINATION_RULE_DIFFERENCE):
        reject(m, c, REASON_NOT_IMPLIED, 0, made.legs)
        return
    if c.tif > 1:
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    for i in range(2):
        leg = made.leg[i]
        if c.tif and not made.implied and m.composites[leg].spreads >= LIMIT_LEG_SPREADS:
            reject(m, c, REASON_SPREADS_FULL, LIMIT_LEG_SPREADS, m.composites[leg].spreads)
            return
    if not c.tif:
        end_implied(m, c.instrument)
    elif not made.implied:
        made.implied = 1
        m.instruments[c.instrument].watched |= WATCH_IMPLIED
        for i in range(2):
            link_spread(&m.composites[made.leg[i]], c.instrument)
            m.instruments[made.leg[i]].watched |= WATCH_IMPLIED
    blank(m, EVENT_KIND_IMPLIED_CHANGED, 0, 0, c.instrument, 0).quantity = c.tif


# --- which price is implied

cdef inline bint covered(Account* account, i64 need) noexcept nogil:
    return account.excess >= need and account.member.excess >= need


cdef bint affordable(Market* m, Instrument* book, Account* account, u8 side,
                     Source* s) noexcept nogil:
    """Months of unequal hours are not priced from their anchors here: whether the side of the
    spread that this could cost more than its hold has that much besides."""
    cdef Composite* made = &m.composites[s.combination]
    cdef Instrument* near = &m.instruments[made.leg[0]]
    cdef Instrument* far = &m.instruments[made.leg[1]]
    cdef bint whole = book == &m.instruments[s.combination]
    cdef i64 first = price_of(s.books[0], s.at[0])
    cdef i64 second = price_of(s.books[1], s.at[1])
    cdef i64 at, off, need, loss
    if near.multiplier == far.multiplier:
        return True
    at = (s.price if near == book else first if whole else second) * near.tick_scale
    off = (s.price if far == book else second) * far.tick_scale
    if not whole:
        side = side if far == book else 1 - side
        account = m.positions[m.orders[s.books[0].levels[s.at[0]].head].position].owner
    need = (near.multiplier - far.multiplier) * (at - m.composites[made.leg[0]].anchor)
    if side:
        need = -need
    if need <= 0:
        return True
    if whole:
        loss = near.multiplier * (at - near.mark) - far.multiplier * (off - far.mark)
        if side:
            loss = -loss
        need = near.rate + far.rate + (loss if loss > 0 else 0)
    return covered(account, need * s.lots)


cdef bint look_at(Market* m, u32 number, Instrument* book, Account* account, u8 side, u32 lots,
                  Source* s) noexcept nogil:
    """The price that one combination implies for an order of `side` in `book`, if it does."""
    cdef Composite* made = &m.composites[number]
    cdef Instrument* near = &m.instruments[made.leg[0]]
    cdef Instrument* far = &m.instruments[made.leg[1]]
    cdef u8[2] sides
    cdef Order* o
    cdef Account* owner
    cdef u32 group = account.group
    cdef u32 others = 0
    cdef i64 first, second
    cdef int i
    if not m.instruments[number].trades:
        return False
    s.combination = number
    s.lots = lots
    s.books[0] = &m.instruments[number]
    s.books[1] = far if book == near else near
    sides[0] = side if book == far else 1 - side
    sides[1] = 1 - side
    if book == s.books[0]:
        s.books[0] = near
        s.books[1] = far
        sides[1] = side
    for i in range(2):
        s.at[i] = s.books[i].best[sides[i]]
        if s.at[i] == NO_BID or s.at[i] == NO_ASK:
            return False
        o = &m.orders[s.books[i].levels[s.at[i]].head]
        owner = m.positions[o.position].owner
        if is_featured(o) or owner.group == group or (i == 1 and owner.group == others):
            return False
        others = owner.group
        if o.leaves < s.lots:
            s.lots = o.leaves
    first = price_of(s.books[0], s.at[0])
    second = price_of(s.books[1], s.at[1])
    if book == near:
        s.price = first + second
    elif book == far:
        s.price = second - first
    else:
        s.price = first - second
    return book.low <= s.price <= book.high and affordable(m, book, account, side, s)


cdef bint find_source(Market* m, Instrument* book, Account* account, u8 side, u32 lots,
                      Source* best) noexcept nogil:
    """The best implied price that an order may trade with; of equal ones the first listed."""
    cdef u32 number = <u32>(book - m.instruments)
    cdef Composite* made = &m.composites[number]
    cdef Source s
    cdef bint found = False
    cdef u32 i
    if made.legs:
        return made.implied and look_at(m, number, book, account, side, lots, best)
    for i in range(made.spreads):
        if look_at(m, made.spread[i], book, account, side, lots, &s):
            if not found or (s.price > best.price if side else s.price < best.price):
                best[0] = s
                found = True
    return found


cdef bint refuse_implied(Market* m, Command* c, Instrument* book, u8 side) noexcept nogil:
    """POST_ONLY: the order would trade with an implied price at once."""
    cdef Source s
    if not find_source(m, book, &m.accounts[c.account], side, c.quantity, &s):
        return False
    if c.price > s.price if side else c.price < s.price:
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


cdef void give(Market* m, Source* s, int i, u32 lots, Party* party) noexcept nogil:
    """A resting order's part: its lots leave its level and what works of it."""
    cdef Instrument* book = s.books[i]
    cdef u32 slot = book.levels[s.at[i]].head
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef u8 side = side_of(o)
    o.leaves -= lots
    o.executed += lots
    book.levels[s.at[i]].quantity -= lots
    party.account = p.owner
    party.number = account_of(p)
    party.order_id = order_id_of(m, slot)
    party.resting = True
    say_executed(m, o, party.order_id, EVENT_FLAG_RESTING, o.price, lots, o.leaves, s.combination,
                 <u16>(i + 1))
    p.exposure[side] -= lots
    if p.adverse:
        p.adverse -= lots * adverse_per_lot(book, side, o.price)
    rehold(m, book, p)
    if m.composites[<u32>(book - m.instruments)].legs:
        charge_legs(m, p)


cdef void trade_implied(Market* m, Instrument* book, Incoming* t, Source* s) noexcept nogil:
    """The three orders trade, then the two legs."""
    cdef Composite* made = &m.composites[s.combination]
    cdef u32 near = made.leg[0]
    cdef u32 far = made.leg[1]
    cdef i64 scale = m.instruments[near].tick_scale
    cdef i64 first = price_of(s.books[0], s.at[0]) * scale
    cdef i64 second = price_of(s.books[1], s.at[1]) * scale
    cdef i64 price = s.price * scale
    cdef u32 lots = s.lots
    cdef u32 parent = m.index
    cdef Order* o = &m.orders[t.slot]
    cdef u8 side = t.side
    cdef u16 one = 1 | 2 << 8
    cdef u16 two = 2 | 2 << 8
    cdef Party me, a, b
    t.leaves -= lots
    o.executed += lots
    me.account = m.positions[t.position].owner
    me.number = <u32>(t.who >> 32)
    me.order_id = t.order_id
    me.resting = False
    say_executed(m, o, t.order_id, 0, s.price, lots, t.leaves, s.combination, 0)
    give(m, s, 0, lots, &a)
    give(m, s, 1, lots, &b)
    if book == &m.instruments[s.combination]:
        trade_leg(m, near, &me, &a, side, lots, first, parent, one)
        trade_leg(m, far, &me, &b, 1 - side, lots, second, parent, two)
    elif book == &m.instruments[near]:
        trade_leg(m, near, &me, &a, side, lots, price, parent, one)
        trade_leg(m, far, &a, &b, side, lots, second, parent, two)
    else:
        trade_leg(m, near, &a, &b, side, lots, second, parent, one)
        trade_leg(m, far, &me, &a, side, lots, price, parent, two)
    settle_head(m, s.books[0], s.at[0])
    settle_head(m, s.books[1], s.at[1])
