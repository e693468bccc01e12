"""Trades with an implied price, busted or adjusted whole: stated leg by leg, corrected at the last.

Such a trade is between several orders, more than one command can describe. So each of its legs is
stated by a command of its own, in order. What was stated is state and moves nothing; it is
forgotten as soon as the correction of another trade is begun. With the last leg all legs are
corrected at once, each like a trade of its own between its two accounts:

    cash back to one + cash back to the other - what the house pays = 0.
"""

from exchange.engine.accounts cimport compare_deficit
from exchange.engine.aftermath cimport follow
from exchange.engine.combinations cimport times
from exchange.engine.corrections cimport bound_without, held, note
from exchange.engine.events cimport emit, what
from exchange.engine.lifecycle cimport reject
from exchange.engine.months cimport withdraw_all
from exchange.engine.risk cimport charge, execute
from exchange.engine.state cimport (
    Composite, Correction, Event, Instrument, Stated, pair, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *


cdef bint is_next_leg(Market* m, Command* c) noexcept nogil:
    """Whether the command states the first or the next leg of a correction: `key_hi` names a living
    combination that has the command's instrument at that place, `spare` (from 1)."""
    cdef Correction* stated = &m.stated
    cdef u32 place = c.spare
    if c.key_hi >= m.instrument_count or place > m.composites[c.key_hi].legs:
        return False
    if (m.composites[c.key_hi].leg[place - 1] != c.instrument
            or m.instruments[c.key_hi].state == TRADING_STATE_EXPIRED):
        return False
    return place == 1 or (place == stated.count + 1 and stated.match == c.target_lo
                          and stated.combination == c.key_hi and stated.kind == c.kind)


cdef void say_stated(Market* m, u8 kind, u32 place, u32 parent, bint moved) noexcept nogil:
    """LEG_STATED, LEG_BUSTED or LEG_ADJUSTED, laid out as the LEG_TRADE; `place` from 0."""
    cdef Composite* made = &m.composites[m.stated.combination]
    cdef Stated* leg = &m.stated.legs[place]
    cdef i64 scale = m.instruments[made.leg[place]].tick_scale
    cdef bint adjusts = m.stated.kind == COMMAND_KIND_ADJUST
    cdef Event* e = emit(m, what(kind, leg.side << 1, made.legs << 8 | (place + 1)),
                         pair(made.leg[place], leg.account))
    e.order_id = m.stated.match + place + 1
    e.price = leg.now * scale
    e.quantity = leg.lots
    e.leaves = parent
    e.key_lo = <u64>(leg.price * scale) if adjusts else 0
    e.key_hi = leg.other
    e.a = -leg.cash if moved else 0
    e.b = -leg.other_cash if moved else 0


cdef bint refuse_stated(Market* m, Command* c) noexcept nogil:
    """PARAMETER_RANGE (cash), TRADE_DIFFERENT (lots) of the leg that a command states."""
    cdef u32 place = c.spare - 1
    cdef i64 ratio = times(m.composites[c.key_hi].ratio[place])
    cdef i64 lots = (m.stated.lots if place else c.quantity / ratio) * ratio
    cdef i64 most = <i64>c.quantity << 32 if c.quantity < 1 << 28 else <i64>LIMIT_MONEY
    cdef i64 cash = <i64>c.target_hi
    cdef i64 other_cash = <i64>c.key_lo
    if c.kind == COMMAND_KIND_BUST and (cash > most or cash < -most or other_cash > most
                                        or other_cash < -most):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return True
    if lots != c.quantity:
        reject(m, c, REASON_TRADE_DIFFERENT, lots, c.quantity)
        return True
    return False


cdef void state_leg(Market* m, Command* c, i64 now) noexcept nogil:
    """State one leg, its new price `now`: LEG_STATED; with the last one, correct all."""
    cdef Correction* stated = &m.stated
    cdef Composite* made = &m.composites[c.key_hi]
    cdef u32 place = c.spare - 1
    cdef bint busts = c.kind == COMMAND_KIND_BUST
    cdef Stated* leg = &stated.legs[place]
    if refuse_stated(m, c):
        return
    leg.account = c.account
    leg.other = c.session
    leg.side = c.side
    leg.lots = c.quantity
    leg.price = c.price
    leg.now = now
    leg.cash = <i64>c.target_hi if busts else 0
    leg.other_cash = <i64>c.key_lo if busts else 0
    if place + 1 == made.legs:
        conclude(m, c)
        return
    stated.match = c.target_lo
    stated.combination = <u32>c.key_hi
    stated.kind = c.kind
    if place == 0:
        stated.lots = <u32>(c.quantity / times(made.ratio[0]))
    stated.count = place + 1
    say_stated(m, EVENT_KIND_LEG_STATED, place, m.index, False)


cdef void conclude(Market* m, Command* c) noexcept nogil:
    """The last leg has been stated: correct all, or reject if a bound would be exceeded."""
    cdef Composite* made = &m.composites[c.key_hi]
    cdef bint busts = c.kind == COMMAND_KIND_BUST
    cdef i64[LIMIT_LEGS] bounds
    cdef Stated* leg
    cdef u32 first = m.index
    cdef u32 i
    for i in range(made.legs if busts else 0):
        leg = &m.stated.legs[i]
        bounds[i] = bound_without(
            held(m, leg.account, made.leg[i]), held(m, leg.other, made.leg[i]),
            &m.instruments[made.leg[i]], leg.side, leg.lots)
        if bounds[i] < 0:
            reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
            return
    note(m, c.target_lo)
    for i in range(made.legs):
        if busts:
            m.instruments[made.leg[i]].bound = bounds[i]
            bust_stated(m, made.leg[i], &m.stated.legs[i])
            say_stated(m, EVENT_KIND_LEG_BUSTED, i, first, True)
        else:
            adjust_stated(m, made.leg[i], &m.stated.legs[i])
            say_stated(m, EVENT_KIND_LEG_ADJUSTED, i, first, True)
    m.stated.count = 0
    for i in range(made.legs):
        compare_deficit(m, m.stated.legs[i].account)
        compare_deficit(m, m.stated.legs[i].other)
    if busts:
        follow(m, &m.instruments[c.key_hi], first)


cdef void bust_stated(Market* m, u32 number, Stated* leg) noexcept nogil:
    """Take back lots, cost and fees of both sides of a leg."""
    cdef Instrument* book = &m.instruments[number]
    cdef i64 lots = leg.lots
    cdef i64 value = lots * leg.price * book.tick_value
    execute(m, book, held(m, leg.account, number), leg.side, -lots, -value, leg.cash)
    execute(m, book, held(m, leg.other, number), 1 - leg.side, -lots, -value, leg.other_cash)
    withdraw_all(m)
    charge(m, &m.accounts[0], 0, 0, leg.cash + leg.other_cash)


cdef void adjust_stated(Market* m, u32 number, Stated* leg) noexcept nogil:
    """Move the difference in price from one side's cost to the other's."""
    cdef Instrument* book = &m.instruments[number]
    cdef i64 change = leg.lots * (leg.now - leg.price) * book.tick_value
    execute(m, book, held(m, leg.account, number), leg.side, 0, change, 0)
    execute(m, book, held(m, leg.other, number), 1 - leg.side, 0, change, 0)
