"""ALL_MONTHS_LIMIT: the limit on net and working lots of a side over all outrights of a product.

To sum up an account's positions for every order would cost more than all its other guards. So each
time they are summed, what is left of the limit is shared out as allowances: half to the position
that asked, the rest to the others in equal parts. Until a position outgrows its allowance, its
orders need no sum.

Invariant: the sum over an account's positions in a product of the larger of exposure and good
allowance, on a side, is within the limit. Whatever lets a position grow without this guard (a
transfer, a bust, a combination's legs) withdraws allowances, and so does a change of a limit.

Allowances are not state: they decide when to sum, never the answer. A loaded market has none.
"""

from exchange.engine.combinations cimport side_in, times
from exchange.engine.lifecycle cimport reject
from exchange.engine.risk cimport position_of
from exchange.engine.safety cimport is_on, safety_of
from exchange.engine.state cimport Composite, WATCH_LIMITS, instrument_of, is_vacant
from exchange.engine.vocabulary cimport *


cdef inline bint is_month_of(Market* m, u32 instrument, Instrument* book) noexcept nogil:
    """Whether an instrument is an outright of the book's product."""
    return m.instruments[instrument].product == book.product and not m.composites[instrument].legs


cdef inline bint is_over(Market* m, u32 instrument) noexcept nogil:
    return m.instruments[instrument].state == TRADING_STATE_EXPIRED


cdef bint is_even(Market* m, Instrument* book, i64 limit) noexcept nogil:
    """Whether all months that may trade have this limit; only then are allowances sound."""
    cdef u32 k
    for k in range(m.instrument_count):
        if m.safety[k].all_months != limit and is_month_of(m, k, book) and not is_over(m, k):
            return False
    return True


cdef void share_out(Market* m, Instrument* book, Account* account, u8 side, i64 rise, i64 left,
                    u32 others) noexcept nogil:
    """Give allowances: `left` lots more may work on a side besides the `rise` in the book in hand.
    `others`: how many other positions share in them."""
    cdef u32 own = position_of(account, <u32>(book - m.instruments))
    cdef i64 part = left / 2 / others if others else 0
    cdef Allowance* a
    cdef Position* p
    cdef u32 i, at
    times_given(m)[0] += 1
    for i in range(account.positions_length):
        at = account.positions[i]
        if at == 0 or not is_month_of(m, i, book) or is_over(m, i):
            continue
        p = &m.positions[at]
        a = &m.allowances[at]
        a.most[side] = p.exposure[side] + (rise + left - others * part if at == own else part)
        a.given[side] = times_given(m)[0]


cdef bint refuse_month(Market* m, Command* c, Instrument* book, Account* account, u8 side,
                       i64 rise) noexcept nogil:
    """ALL_MONTHS_LIMIT for `rise` lots more in an outright."""
    cdef i64 limit = safety_of(m, book).all_months
    cdef u32 own = position_of(account, <u32>(book - m.instruments))
    cdef i64 total = rise
    cdef u32 others = 0
    cdef u32 i
    if limit == 0 or rise <= 0 or not is_on(m, FEATURE_ALL_MONTHS_LIMIT):
        return False
    if own and is_allowed(m, &m.positions[own], side, rise):
        return False
    for i in range(account.positions_length):
        if account.positions[i] and is_month_of(m, i, book):
            total += m.positions[account.positions[i]].exposure[side]
            others += account.positions[i] != own and not is_over(m, i)
    if total > limit:
        reject(m, c, REASON_ALL_MONTHS_LIMIT, limit, total)
        return True
    if is_even(m, book, limit):
        share_out(m, book, account, side, rise, limit - total, others)
    return False


cdef bint refuse_all_months(Market* m, Command* c, Instrument* book, Account* account, u8 side,
                            i64 rise) noexcept nogil:
    """ALL_MONTHS_LIMIT for `rise` lots more. A combination is judged leg by leg, each with the lots
    of all legs in its product on its side."""
    cdef Composite* made = &m.composites[book - m.instruments]
    cdef Instrument* leg
    cdef i64 together
    cdef u32 i, k
    cdef u8 way
    if made.legs == 0:
        return refuse_month(m, c, book, account, side, rise)
    for i in range(made.legs):
        leg = &m.instruments[made.leg[i]]
        if not leg.watched & WATCH_LIMITS:
            continue
        way = side_in(side, made.ratio[i])
        together = 0
        for k in range(made.legs):
            if side_in(side, made.ratio[k]) == way and is_month_of(m, made.leg[k], leg):
                together += rise * times(made.ratio[k])
        if refuse_month(m, c, leg, account, way, together):
            return True
    return False


cdef int check_allowances(Market* m) except -1:
    """The invariant above, for `check`; AssertionError if it does not hold."""
    cdef dict together = {}
    cdef dict limits = {}
    cdef Position* p
    cdef Allowance* a
    cdef u32 at, k
    cdef u8 side
    for at in range(1, m.position_top):
        p = &m.positions[at]
        k = instrument_of(p)
        if is_vacant(p) or m.composites[k].legs:
            continue
        a = &m.allowances[at]
        for side in range(2):
            key = (account_of(p), m.instruments[k].product, side)
            most = p.exposure[side]
            if is_good(m, a, account_of(p), side):
                most = max(most, a.most[side])
                limits[key] = min(limits.get(key, m.safety[k].all_months), m.safety[k].all_months)
            together[key] = together.get(key, 0) + most
    for key, limit in limits.items():
        if together[key] > limit:
            raise AssertionError(f"more is allowed than the limit over all months: {key}")
    return 0
