"""The credit of calendar spreads: an account that is long in one leg and short in the other need
not hold both legs' full rates.

A position leans by the most lots it could become long less the most it could become short, so lots
that its working orders could turn round lean to neither side. Lots that lean to opposite sides of a
spread are pairs, and each pair is spared the spread's credit. No lot is in two pairs: the spread
with the largest credit takes its pairs first, of equal ones the lower number. A credit is at most
the rate of either leg. Hence no trade, cancel or reduction raises what is required: see
docs/concepts/margin.md.

Invariant: whenever an account's hold is the sum of its positions', its credit is theirs, too. Only
legs (WATCH_CREDIT) pay for it: their orders are CREDITED, which keeps them off the plain way.
"""

from exchange.engine.accounts cimport compare_deficit
from exchange.engine.combinations cimport times
from exchange.engine.lifecycle cimport reject
from exchange.engine.risk cimport add_overflows, position_of
from exchange.engine.state cimport (
    CREDITED, Composite, Credit, Credits, Instrument, Order, Position, WATCH_CREDIT, ensure,
    instrument_of, is_live,
)
from exchange.engine.vocabulary cimport *


cdef inline i64 leaning(Market* m, Account* account, u32 leg, u32 instrument, i64 buys,
                        i64 sells) noexcept nogil:
    """How far an account leans in `leg` (long is positive) if `buys` and `sells` more lots worked
    in `instrument`, which is the leg itself, a combination that has it, or neither."""
    cdef Position* p = &m.positions[position_of(account, leg)]
    cdef Composite* made = &m.composites[instrument]
    cdef i64 longest = p.exposure[0]
    cdef i64 shortest = p.exposure[1]
    cdef u32 i
    if leg == instrument:
        longest += buys
        shortest += sells
    elif buys or sells:
        for i in range(made.legs):
            if made.leg[i] == leg:
                longest += times(made.ratio[i]) * (buys if made.ratio[i] > 0 else sells)
                shortest += times(made.ratio[i]) * (sells if made.ratio[i] > 0 else buys)
    return (longest if longest > 0 else 0) - (shortest if shortest > 0 else 0)


cdef i64 credit_with(Market* m, Account* account, u32 instrument, i64 buys,
                     i64 sells) noexcept nogil:
    """An account's credit if `buys` and `sells` more lots worked in an instrument."""
    cdef i64[2 * LIMIT_CREDITS] left  # by place of a leg: leaning lots that are in no pair yet
    cdef i64* one
    cdef i64* other
    cdef i64 total = 0
    cdef i64 pairs
    cdef u32 k
    for k in range(m.credits.legs):
        left[k] = leaning(m, account, m.credits.leg[k], instrument, buys, sells)
    for k in range(m.credits.count):
        one = &left[m.credits.spread[k].place[0]]
        other = &left[m.credits.spread[k].place[1]]
        if one[0] < 0:
            one, other = other, one
        if one[0] <= 0 or other[0] >= 0:
            continue
        pairs = min(one[0], -other[0])
        one[0] -= pairs
        other[0] += pairs
        total += pairs * m.credits.spread[k].amount
    return total


cdef void recredit(Market* m, Account* account) noexcept nogil:
    """Bring an account's credit in line after one of its positions has changed."""
    cdef i64 credit = credit_with(m, account, 0, 0, 0)
    cdef i64 change = credit - account.credit
    ensure(m, credit >= 0)
    account.credit = credit
    if (add_overflows(account.excess, change, &account.excess)
            or add_overflows(account.member.excess, change, &account.member.excess)):
        m.broken = 2


# --- which spreads have a credit

cdef u32 place_of(Market* m, u32 leg) noexcept nogil:
    """The place of a leg in `leg` of Credits; a new one is added and its book watched."""
    cdef Credits* all = m.credits
    cdef u32 k
    for k in range(all.legs):
        if all.leg[k] == leg:
            return k
    all.leg[all.legs] = leg
    all.legs += 1
    m.instruments[leg].watched |= WATCH_CREDIT
    return all.legs - 1


cdef inline i64 worth(Market* m, Composite* made) noexcept nogil:
    """What a pair is spared: the spread's credit, but at most the rate of either leg."""
    return min(made.credit, min(m.instruments[made.leg[0]].rate, m.instruments[made.leg[1]].rate))


cdef void arrange(Market* m) noexcept nogil:
    """Rebuild the list of spreads that have a credit (see Credits), and their legs' watches."""
    cdef Credits* all = m.credits
    cdef Composite* made
    cdef Credit one
    cdef u32 k, at
    for k in range(all.legs):
        m.instruments[all.leg[k]].watched &= ~<u32>WATCH_CREDIT
    all.legs = 0
    all.count = 0
    for k in range(m.combined_count):
        made = &m.composites[m.combined[k]]
        if made.credit == 0:
            continue
        one.amount = worth(m, made)
        one.place[0] = place_of(m, made.leg[0])
        one.place[1] = place_of(m, made.leg[1])
        at = all.count
        while at > 0 and all.spread[at - 1].amount < one.amount:
            all.spread[at] = all.spread[at - 1]
            at -= 1
        all.spread[at] = one
        all.count += 1


cdef bint adopt_credits(Market* m) noexcept nogil:
    """`arrange` for a market loaded from an image; False if a credit is not of a spread of two
    legs, or there are too many."""
    cdef u32 count = 0
    cdef u32 k
    for k in range(m.combined_count):
        if m.composites[m.combined[k]].credit:
            count += 1
            if m.composites[m.combined[k]].legs != 2 or count > LIMIT_CREDITS:
                return False
    arrange(m)
    return True


cdef void flag_orders(Market* m) noexcept nogil:
    """Set CREDITED anew for all live orders, waiting ones too: those in legs of spreads with a
    credit leave the plain way, the others return to it."""
    cdef Instrument* book
    cdef Order* o
    cdef u32 slot
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        if not is_live(o):
            continue
        o.traits &= ~(<u32>CREDITED << 24)
        book = &m.instruments[instrument_of(&m.positions[o.position])]
        if book.watched & WATCH_CREDIT:
            o.traits |= <u32>CREDITED << 24


cdef inline bint holds_leg(Market* m, Account* account, Composite* made) noexcept nogil:
    """Whether an account has a position record in a leg."""
    cdef u32 i
    for i in range(made.legs):
        if position_of(account, made.leg[i]):
            return True
    return False


cdef void change_credit(Market* m, u32 combination, i64 credit) noexcept nogil:
    cdef Composite* made = &m.composites[combination]
    cdef u32 i
    made.credit = credit
    arrange(m)
    flag_orders(m)
    for i in range(m.account_top):
        if holds_leg(m, &m.accounts[i], made):
            recredit(m, &m.accounts[i])


cdef bint refuse_credit(Market* m, Command* c) noexcept nogil:
    """PARAMETER_RANGE, CREDITS_FULL of SET_RISK. Only a spread of two months of one product, one to
    one, has a credit, at most the lower rate. One that stays as it was is not judged again, even if
    a rate has fallen below it."""
    cdef Composite* made = &m.composites[c.instrument]
    cdef Instrument* one = &m.instruments[made.leg[0]]
    cdef Instrument* other = &m.instruments[made.leg[1]]
    cdef u32 others
    if made.legs == 0 or c.key_lo == 0 or c.key_lo == <u64>made.credit:
        return False
    if (made.legs != 2 or made.ratio[0] * made.ratio[1] != -1 or one.product != other.product
            or c.key_lo > <u64>one.rate or c.key_lo > <u64>other.rate):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return True
    others = m.credits.count - (made.credit != 0)
    if others >= LIMIT_CREDITS:
        reject(m, c, REASON_CREDITS_FULL, LIMIT_CREDITS, others)
        return True
    return False


cdef bint set_credit(Market* m, u32 instrument, u64 credit) noexcept nogil:
    """After SET_RISK of an instrument: set a combination's credit, or adapt credits to a leg's new
    rate. Whether the instrument is a combination that has a credit or had one."""
    cdef Composite* made = &m.composites[instrument]
    if made.legs == 0:
        if m.instruments[instrument].watched & WATCH_CREDIT:
            arrange(m)
        return False
    if made.credit == 0 and credit == 0:
        return False
    change_credit(m, instrument, <i64>credit)
    return True


cdef void end_credit(Market* m, u32 combination) noexcept nogil:
    """A combination has expired: its credit ends."""
    if m.composites[combination].credit:
        change_credit(m, combination, 0)


cdef void compare_spread(Market* m, u32 combination) noexcept nogil:
    """`compare_deficit` for all with a position in a combination or its legs, in account order."""
    cdef u32 i
    for i in range(m.account_top):
        if (position_of(&m.accounts[i], combination)
                or holds_leg(m, &m.accounts[i], &m.composites[combination])):
            compare_deficit(m, i)
