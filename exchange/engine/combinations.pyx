"""Combinations: several instruments traded together at one price, all legs or none.

A combination has no net position: its orders work in each of its legs, its trades are trades of the
legs. Its multiplier is 1, its tick scale the micro-dollars of a tick and lot, its mark the
micro-dollars that a lot is worth at its legs' marks: exact, whatever the hours of the months.

Invariant: `charged` of a position in a combination is its working lots, and the exposure of each
leg includes them, times the leg's ratio.
"""

from libc.string cimport memset

from exchange.engine.changes cimport return_dormant
from exchange.engine.credits cimport credit_gain, end_credit
from exchange.engine.events cimport blank
from exchange.engine.guards cimport refuse_combined_margin
from exchange.engine.implied cimport end_implied
from exchange.engine.instruments cimport bad_limits, bad_mark, exceeds, move_mark, outline
from exchange.engine.ladder cimport build_ladder
from exchange.engine.lifecycle cimport cancel_all_of, reject
from exchange.engine.months cimport withdraw
from exchange.engine.positions cimport open_position
from exchange.engine.risk cimport position_of, rehold, set_mark
from exchange.engine.state cimport (
    Event, WATCH_CREDIT, WATCH_LEGS, i128, i32, instrument_of, put_state, u16, u64, working_of,
)
from exchange.engine.vocabulary cimport *

cdef void charge_legs(Market* m, Position* p) noexcept nogil:
    """Bring exposure and hold of the legs in line with the lots that work in the combination."""
    cdef u32 at = <u32>(p - m.positions)
    cdef Composite* made = &m.composites[instrument_of(p)]
    cdef Position* q
    cdef i64 change
    cdef u32 i
    cdef u8 side
    for side in range(2):
        change = working_of(p, side) - m.charged[at].lots[side]
        if change == 0:
            continue
        m.charged[at].lots[side] += change
        for i in range(made.legs):
            q = &m.positions[position_of(p.owner, made.leg[i])]
            q.exposure[side_in(side, made.ratio[i])] += change * times(made.ratio[i])
            rehold(m, &m.instruments[made.leg[i]], q)


cdef void rehold_all(Market* m, Instrument* book, Position* p) noexcept nogil:
    """Bring the hold of a position and, of a combination's, of its legs in line."""
    rehold(m, book, p)
    if book.watched & WATCH_LEGS:
        charge_legs(m, p)


# --- listing

cdef bint bad_legs(Market* m, Command* c, Composite* made) noexcept nogil:
    """Read the legs of LIST_COMBINATION into `made`; whether they are no valid combination."""
    cdef u64 ratios = c.quantity | <u64>c.session << 32
    cdef u64[3] numbers
    cdef Instrument* leg
    cdef Instrument* first
    cdef u32 i
    cdef i32 ratio
    numbers[0] = c.key_lo
    numbers[1] = c.key_hi
    numbers[2] = <u64>c.price
    memset(made, 0, sizeof(Composite))
    made.rule = c.tif
    for i in range(LIMIT_LEGS):
        ratio = <i32>(ratios >> (4 * i) & 15)
        if ratio == 0:
            break
        made.ratio[i] = ratio - 16 if ratio > 7 else ratio
        made.leg[i] = <u32>(numbers[i >> 2] >> (16 * (i & 3)) & 0xFFFF)
        if contains(made, made.leg[i]) or ratio == 8 or made.leg[i] >= m.instrument_count:
            return True
        made.legs += 1
        leg = &m.instruments[made.leg[i]]
        first = &m.instruments[made.leg[0]]
        if (m.composites[made.leg[i]].legs or leg.state == TRADING_STATE_EXPIRED
                or leg.tick_scale != first.tick_scale or leg.price_step != first.price_step
                or leg.lot_step != first.lot_step
                or (c.tif == COMBINATION_RULE_AVERAGE and ratio > 7)):
            return True
    return made.legs < 2 or c.tif > COMBINATION_RULE_AVERAGE


cdef i64 weight_of(Market* m, Composite* made) noexcept nogil:
    """GPU-hours that the combination's price is per: a DIFFERENCE has its last leg's, an AVERAGE
    those of all its legs."""
    cdef i64 hours = 0
    cdef u32 i
    if made.rule == COMBINATION_RULE_DIFFERENCE:
        return m.instruments[made.leg[made.legs - 1]].multiplier
    for i in range(made.legs):
        hours += made.ratio[i] * m.instruments[made.leg[i]].multiplier
    return hours


cdef i128 value_at_marks(Market* m, Composite* made, u32 instrument, i64 mark,
                         bint settles) noexcept nogil:
    """Micro-dollars that a lot is worth at its legs' marks; the leg `instrument` is taken to have
    the mark `mark`, and as its anchor, too, if it `settles` (LIMIT_INSTRUMENTS: no leg is)."""
    cdef i128 value = 0
    cdef i64 last = m.instruments[made.leg[made.legs - 1]].multiplier
    cdef i64 at, anchor
    cdef Instrument* leg
    cdef u32 i
    for i in range(made.legs):
        leg = &m.instruments[made.leg[i]]
        at = leg.mark
        anchor = m.composites[made.leg[i]].anchor
        if made.leg[i] == instrument:
            at = mark
            anchor = mark if settles else anchor
        value += <i128>made.ratio[i] * leg.multiplier * at
        if made.rule == COMBINATION_RULE_DIFFERENCE and i + 1 < made.legs:
            value -= <i128>made.ratio[i] * anchor * (leg.multiplier - last)
    return value


cdef inline bint bad_value(i128 value, i64 bound) noexcept nogil:
    if value > <i64>LIMIT_PRICE or value < -<i64>LIMIT_PRICE:
        return True
    return bad_mark(<i64>value, 1, bound)


cdef void list_combination(Market* m, Command* c) noexcept nogil:
    cdef Composite made
    cdef Instrument* first
    cdef Instrument* book
    cdef Event* e
    cdef i64 hours
    cdef i128 value
    cdef u32 i
    if m.instrument_count >= m.instrument_capacity:
        reject(m, c, REASON_INSTRUMENTS_FULL, m.instrument_capacity, m.instrument_count)
        return
    if c.instrument != m.instrument_count:
        reject(m, c, REASON_STATE, m.instrument_count, c.instrument)
        return
    if bad_legs(m, c, &made):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    first = &m.instruments[made.leg[0]]
    hours = weight_of(m, &made)
    value = value_at_marks(m, &made, LIMIT_INSTRUMENTS, 0, False)
    if (hours > <i64>0xFFFFFFFF or exceeds(hours, first.tick_scale, 1) or bad_value(value, 1)
            or bad_limits(<i64>c.target_lo, <i64>c.target_hi, first.price_step,
                          hours * first.tick_scale, 1)):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    book = &m.instruments[c.instrument]
    outline(book, <i64>c.target_lo, <i64>c.target_hi, first.price_step, first.lot_step)
    book.multiplier = 1
    book.tick_scale = hours * first.tick_scale
    book.tick_value = book.tick_scale
    set_mark(book, <i64>value)
    book.watched |= WATCH_LEGS
    if not build_ladder(m, book):
        return
    m.composites[c.instrument] = made
    m.combined[m.combined_count] = c.instrument
    m.combined_count += 1
    m.instrument_count += 1
    e = blank(m, EVENT_KIND_INSTRUMENT_LISTED, 0, <u16>first.lot_step, c.instrument, 0)
    e.price = book.mark
    e.quantity = <u32>hours
    e.leaves = <u32>first.tick_scale
    e.order_id = <u64>first.price_step
    e.a = book.low
    e.b = book.high
    for i in range(made.legs):
        e = blank(m, EVENT_KIND_LEG_LISTED, 0, c.tif, c.instrument, 0)
        e.order_id = made.leg[i]
        e.price = made.ratio[i]
        e.quantity = i + 1
        e.leaves = made.legs


# --- what happens to a leg happens to its combinations

cdef inline bint lives(Market* m, u32 combination, u32 instrument) noexcept nogil:
    """Whether a combination has not expired and has this leg."""
    return (m.instruments[combination].state != TRADING_STATE_EXPIRED
            and contains(&m.composites[combination], instrument))


cdef bint has_living(Market* m, u32 instrument) noexcept nogil:
    """Whether an instrument is a leg of a combination that has not expired."""
    cdef u32 k
    for k in range(m.combined_count):
        if lives(m, m.combined[k], instrument):
            return True
    return False


cdef bint bad_made_marks(Market* m, u32 instrument, i64 mark, bint settles) noexcept nogil:
    """Whether a new mark of a leg would put a combination's mark out of range."""
    cdef u32 k, number
    for k in range(m.combined_count):
        number = m.combined[k]
        if lives(m, number, instrument) and bad_value(
                value_at_marks(m, &m.composites[number], instrument, mark, settles),
                m.instruments[number].bound):
            return True
    return False


cdef void move_made_marks(Market* m, u32 instrument) noexcept nogil:
    cdef u32 k, number
    for k in range(m.combined_count):
        number = m.combined[k]
        if lives(m, number, instrument):
            move_mark(m, number, <i64>value_at_marks(m, &m.composites[number], LIMIT_INSTRUMENTS,
                                                     0, False))


cdef void expire_made(Market* m, u32 instrument) noexcept nogil:
    """A leg expires, and its combinations with it: STATE_CHANGED, their orders are cancelled."""
    cdef Instrument* book
    cdef Event* e
    cdef u32 k, number
    for k in range(m.combined_count):
        number = m.combined[k]
        if lives(m, number, instrument):
            book = &m.instruments[number]
            e = blank(m, EVENT_KIND_STATE_CHANGED, 0, HALT_CAUSE_NONE, number, 0)
            e.quantity = TRADING_STATE_EXPIRED
            e.leaves = book.state
            put_state(m, book, TRADING_STATE_EXPIRED)
            end_implied(m, number)
            book.halt_cause = HALT_CAUSE_NONE
            cancel_all_of(m, number, CANCEL_REASON_INSTRUMENT_EXPIRED)
            move_mark(m, number, 0)
            end_credit(m, number)


cdef void return_made(Market* m, u32 instrument) noexcept nogil:
    """A leg trades again: the dormant orders of its combinations that trade now return."""
    cdef u32 k, number
    for k in range(m.combined_count):
        number = m.combined[k]
        if lives(m, number, instrument) and m.instruments[number].trades:
            return_dormant(m, &m.instruments[number])


# --- the guards of an order

cdef u32 missing_positions(Market* m, Account* account, u32 instrument) noexcept nogil:
    """How many position records an account lacks for an order of the combination."""
    cdef Composite* made = &m.composites[instrument]
    cdef u32 count = position_of(account, instrument) == 0
    cdef u32 i
    for i in range(made.legs):
        count += position_of(account, made.leg[i]) == 0
    return count


cdef u32 open_missing(Market* m, u32 account, u32 instrument) noexcept nogil:
    """Make the position records that an account lacks for an order of the combination; returns the
    number of that in the combination itself, 0 without memory."""
    cdef Composite* made = &m.composites[instrument]
    cdef Account* a = &m.accounts[account]
    cdef u32 i
    if position_of(a, instrument) == 0:
        open_position(m, account, instrument)
    for i in range(made.legs):
        if position_of(a, made.leg[i]) == 0:
            open_position(m, account, made.leg[i])
    return position_of(a, instrument)


cdef bint reduces(Market* m, Composite* made, Account* account, u8 side, i64 more) noexcept nogil:
    """Whether `more` lots on a side could only reduce the position in every leg."""
    cdef Position* q
    cdef u8 way
    cdef u32 i
    for i in range(made.legs):
        q = &m.positions[position_of(account, made.leg[i])]
        way = side_in(side, made.ratio[i])
        if not (q.net > 0 if way else q.net < 0):
            return False
        if working_of(q, way) + more * times(made.ratio[i]) > (q.net if way else -q.net):
            return False
    return True


cdef bint bad_legs_risk(Market* m, Command* c, Position* p, Account* account, u8 side,
                        i64 adverse, i64 lots, i64 before, u32 instrument) noexcept nogil:
    """POSITION_LIMIT (of the combination, then of its legs), MARGIN, MEMBER_MARGIN for `lots` in
    place of `before`, which the caller has taken out of the combination's own position but not out
    of its legs."""
    cdef Composite* made = &m.composites[instrument]
    cdef Instrument* book = &m.instruments[instrument]
    cdef Position* q
    cdef i64 worst = p.exposure[side] + lots
    cdef i64 other = p.exposure[1 - side]
    cdef i64 rise = book.rate * (worst if worst > other else other) + p.adverse + adverse - p.hold
    cdef u32 watched = 0
    cdef u8 way
    cdef u32 i
    if lots > before:
        withdraw(m, <u32>(account - m.accounts))
    if worst > book.position_limit and lots > before:
        reject(m, c, REASON_POSITION_LIMIT, book.position_limit, worst)
        return True
    for i in range(made.legs):
        book = &m.instruments[made.leg[i]]
        q = &m.positions[position_of(account, made.leg[i])]
        way = side_in(side, made.ratio[i])
        worst = q.exposure[way] + (lots - before) * times(made.ratio[i])
        other = q.exposure[1 - way]
        if worst > book.position_limit and lots > before:
            reject(m, c, REASON_POSITION_LIMIT, book.position_limit, worst)
            return True
        rise += book.rate * (worst if worst > other else other) + q.adverse - q.hold
        watched |= book.watched
    if watched & WATCH_CREDIT:
        rise -= credit_gain(m, account, instrument, side, lots - before)
    if account.excess >= 0 and (rise <= 0 or (rise <= account.excess
                                              and rise <= account.member.excess)):
        return False
    if account.excess < 0 and reduces(m, made, account, side, lots - before):
        return False
    refuse_combined_margin(m, c, account, rise)
    return True
