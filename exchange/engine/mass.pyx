"""Mass cancel and the kill switches: one command, one event per order, in slot order.

The orders of one account are found by walking the books of the instruments in which it has working
lots, from the best prices outwards, until all these lots have been met; those of a member or of all
members by one pass over the slots. So no index of an account's orders has to be kept up to date.
A walk follows links through all memory, and takes over ten times as long per order as a pass: one
that has met a sixteenth as many orders as there are slots is given up for a pass.
"""

from libc.stdlib cimport qsort

from exchange.engine.book cimport occupied_above, occupied_below
from exchange.engine.combinations cimport side_in, times
from exchange.engine.events cimport blank, event_of
from exchange.engine.guards cimport bad_owner
from exchange.engine.ids cimport has_slot
from exchange.engine.lifecycle cimport answered, cancel_for, keep_receipt, pick, reject
from exchange.engine.risk cimport position_of
from exchange.engine.state cimport (
    Account, Auction, Command, Composite, Event, Instrument, KILLED_ACCOUNT, KILLED_EXCHANGE,
    KILLED_MEMBER, Level, Market, NO_ASK, NO_BID, Order, Position, SESSION_FREE, SESSION_ONLINE,
    Session, account_of, collects, ensure, i32, i64, instrument_of, is_live, lots_of, set_killed,
    side_of, u32, u64, u8, working_of,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    ANY_FLAGS = 4  # MANUAL
    ALL_SELECTIONS = 7

cdef struct Choice:  # which orders of an account are chosen
    u32 account
    u8 side  # UNSTATED: both
    u8 selection  # bits of Selection: which of the following count
    u32 number  # of the instrument or product
    u32 session
    i64[2] left  # by side, the account's working lots in the book in hand that are still to be met
    i64 steps  # orders that the walk may still meet before it is given up; negative: it is


cdef inline bint is_of_side(Order* o, Choice* wanted) noexcept nogil:
    return wanted.side == SIDE_UNSTATED or wanted.side == side_of(o)


cdef inline bint is_of_session(Order* o, Choice* wanted) noexcept nogil:
    return not wanted.selection & SELECTION_SESSION or o.session == wanted.session


cdef void pick_from(Market* m, Level* level, Choice* wanted) noexcept nogil:
    """Pick the chosen orders of one queue."""
    cdef u32 slot = level.head
    cdef Order* o
    cdef u8 side
    while slot and wanted.left[0] | wanted.left[1] and wanted.steps >= 0:
        wanted.steps -= 1
        o = &m.orders[slot]
        side = side_of(o)
        if account_of(&m.positions[o.position]) == wanted.account and is_of_side(o, wanted):
            wanted.left[side] -= lots_of(m, slot)
            ensure(m, wanted.left[side] >= 0)
            if is_of_session(o, wanted):
                pick(m, slot)
        slot = o.next


cdef void pick_from_ladder(Market* m, Instrument* ladder, u8 side, Choice* wanted) noexcept nogil:
    cdef i32 at = ladder.best[side]
    while wanted.left[side] and at != NO_BID and at != NO_ASK and wanted.steps >= 0:
        pick_from(m, &ladder.levels[at], wanted)
        at = occupied_above(ladder, at) if side else occupied_below(ladder, at)


cdef void pick_from_book(Market* m, u32 instrument, Choice* wanted) noexcept nogil:
    cdef Instrument* book = &m.instruments[instrument]
    cdef Auction* auction = m.auctions[instrument]
    pick_from_ladder(m, book, SIDE_BUY, wanted)
    pick_from_ladder(m, &auction.asks if collects(book) else book, SIDE_SELL, wanted)
    pick_from(m, &book.dormant, wanted)
    pick_from(m, &m.stops[instrument].waiting, wanted)
    pick_from(m, &m.stops[instrument].elected, wanted)
    if collects(book):
        pick_from(m, &auction.market[0], wanted)
        pick_from(m, &auction.market[1], wanted)


cdef inline bint is_chosen(Market* m, u32 instrument, Choice* wanted) noexcept nogil:
    if wanted.selection & SELECTION_INSTRUMENT:
        return instrument == wanted.number
    if wanted.selection & SELECTION_PRODUCT:
        return m.instruments[instrument].product == wanted.number
    return True


cdef int in_slot_order(const void* x, const void* y) noexcept nogil:
    return -1 if (<u32*>x)[0] < (<u32*>y)[0] else 1


cdef void count_made(Market* m, Account* a, bint forget) noexcept nogil:
    """Add up in `due_of` what an account's orders in combinations work in each leg's position, for
    in the leg's book there is no order for it; or `forget` these sums. Modulo 2**32: less than they
    are makes a walk longer, not wrong."""
    cdef Composite* made
    cdef u32* due
    cdef u32 i, k, at, leg
    cdef u8 side
    for i in range(a.positions_length if m.combined_count else 0):
        made = &m.composites[i]
        at = position_of(a, i)
        for k in range(made.legs if at else 0):
            leg = position_of(a, made.leg[k])
            for side in range(2):
                due = &m.due_of[2 * leg + side_in(side, made.ratio[k])]
                due[0] = 0 if forget else due[0] + <u32>(m.charged[at].lots[side]
                                                         * times(made.ratio[k]))


cdef void walk_books(Market* m, Account* a, Choice* wanted) noexcept nogil:
    """Pick the chosen orders of one account from the books, unless the walk is given up."""
    cdef Position* p
    cdef u32 i, at
    cdef u8 side
    wanted.steps = m.order_top >> 4
    count_made(m, a, False)
    for i in range(a.positions_length):
        at = position_of(a, i)
        if at == 0 or not is_chosen(m, i, wanted):
            continue
        p = &m.positions[at]
        for side in range(2):
            wanted.left[side] = (0 if wanted.side == 1 - side  # only the other side is chosen
                                 else working_of(p, side) - m.due_of[2 * at + side])
        if wanted.left[0] | wanted.left[1]:
            pick_from_book(m, i, wanted)
        if wanted.steps < 0:
            break
    count_made(m, a, True)


cdef void pick_from_slots(Market* m, Choice* wanted) noexcept nogil:
    """Pick the chosen orders of one account by a pass over all slots."""
    cdef Order* o
    cdef Position* p
    cdef u32 slot
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        if not is_live(o):
            continue
        p = &m.positions[o.position]
        if (account_of(p) == wanted.account and is_chosen(m, instrument_of(p), wanted)
                and is_of_side(o, wanted) and is_of_session(o, wanted)):
            pick(m, slot)


cdef void gather(Market* m, Choice* wanted) noexcept nogil:
    """Pick the chosen orders of one account, in slot order."""
    cdef Account* a = &m.accounts[wanted.account]
    m.picked_count = 0
    if a.open_orders == 0:
        return
    walk_books(m, a, wanted)
    if wanted.steps < 0:
        m.picked_count = 0
        pick_from_slots(m, wanted)
    elif m.picked_count > 1:
        qsort(m.picked, m.picked_count, sizeof(u32), in_slot_order)


cdef void cancel_picked(Market* m, u32 first, u32 reason) noexcept nogil:
    """Cancel the picked orders; the command's first event, of index `first`, says how many."""
    cdef u32 i
    event_of(m, first).quantity = m.picked_count
    for i in range(m.picked_count):
        if is_live(&m.orders[m.picked[i]]):
            cancel_for(m, m.picked[i], reason)


cdef void mass_cancel(Market* m, Command* c) noexcept nogil:
    cdef u32 first = m.index
    cdef Choice wanted
    cdef Event* e
    if bad_owner(m, c, False):
        return
    if (c.side > SIDE_UNSTATED or c.tif > ALL_SELECTIONS or c.flags & ~ANY_FLAGS
            or (c.tif & SELECTION_SESSION == 0 and c.target_lo != 0)
            or c.target_lo > <u64>0xFFFFFFFF):
        reject(m, c, REASON_SYNTAX, 0, 0)
        return
    if c.tif & SELECTION_INSTRUMENT and c.tif & SELECTION_PRODUCT:
        reject(m, c, REASON_COMBINATION, 0, 0)
        return
    if answered(m, c, c.account):
        return
    if c.tif & SELECTION_INSTRUMENT and c.instrument >= m.instrument_count:
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return
    if (c.key_lo or c.key_hi) and not has_slot(m, &m.accounts[c.account]):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
        return
    wanted.account = c.account
    wanted.side = c.side
    wanted.selection = c.tif
    wanted.number = c.instrument
    wanted.session = <u32>c.target_lo
    e = blank(m, EVENT_KIND_MASS_CANCELLED, 0, c.tif, c.instrument, c.account)
    e.leaves = c.side
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    e.a = c.session
    e.b = wanted.session
    gather(m, &wanted)
    cancel_picked(m, first, CANCEL_REASON_MASS_CANCELLED)
    keep_receipt(m, c, c.account, first)


cdef void gather_member(Market* m, u32 member, bint everyone) noexcept nogil:
    """Pick the orders of a member's accounts, or of all, in slot order."""
    cdef Order* o
    cdef u32 slot
    m.picked_count = 0
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        if is_live(o) and (everyone or m.positions[o.position].owner.member_id == member):
            pick(m, slot)


cdef Session* session_named(Market* m, Command* c) noexcept nogil:
    """The session that the command names, if it is this account's and has not ended; else NULL."""
    cdef u32 slot = c.session & 0xFFFF
    cdef Session* s = &m.sessions[slot]
    if slot == 0 or slot >= m.session_top or s.standing & 0xFFFF == SESSION_FREE:
        return NULL
    if (s.standing ^ c.session) >> 16 or s.account != c.account:
        return NULL
    return s


cdef bint refuse_scope(Market* m, Command* c) noexcept nogil:
    """SYNTAX, UNKNOWN_ACCOUNT, SESSION_UNKNOWN, PARAMETER_RANGE of KILL and RESUME."""
    if c.tif > KILL_SCOPE_EXCHANGE:
        reject(m, c, REASON_SYNTAX, 0, 0)
    elif c.tif <= KILL_SCOPE_SESSION and (c.account >= m.account_capacity
                                          or not m.accounts[c.account].is_open):
        reject(m, c, REASON_UNKNOWN_ACCOUNT, 0, 0)
    elif c.tif == KILL_SCOPE_SESSION and session_named(m, c) == NULL:
        reject(m, c, REASON_SESSION_UNKNOWN, 0, c.session)
    elif c.tif == KILL_SCOPE_MEMBER and c.quantity >= LIMIT_MEMBERS:
        reject(m, c, REASON_PARAMETER_RANGE, LIMIT_MEMBERS - 1, c.quantity)
    else:
        return False
    return True


cdef void switch(Market* m, Command* c, bint on) noexcept nogil:
    """Set or clear the kill switch of a scope, and its bit in every account that it covers."""
    cdef Session* s
    cdef u32 i
    cdef u8 bit = KILLED_MEMBER
    if c.tif == KILL_SCOPE_SESSION:
        s = session_named(m, c)
        s.killed = on
        s.entitled = 0
        if not on and s.standing & 0xFFFF == SESSION_ONLINE:
            s.entitled = <u64>c.session << 32 | c.account
        return
    if c.tif == KILL_SCOPE_MEMBER:
        m.members_killed[c.quantity] = bit if on else 0
    elif c.tif == KILL_SCOPE_EXCHANGE:
        bit = KILLED_EXCHANGE
        m.killed = bit if on else 0
    else:
        bit = KILLED_ACCOUNT
    for i in range(m.account_top):
        if not m.accounts[i].is_open or (c.tif == KILL_SCOPE_ACCOUNT and i != c.account):
            continue
        if c.tif == KILL_SCOPE_MEMBER and m.accounts[i].member_id != c.quantity:
            continue
        set_killed(&m.accounts[i], (m.accounts[i].killed & ~bit) | (bit if on else 0))


cdef void tell_switch(Market* m, Command* c, u8 kind) noexcept nogil:
    cdef Event* e
    cdef u32 account = c.account if c.tif <= KILL_SCOPE_SESSION else 0
    e = blank(m, kind, 0, c.tif, 0, account)
    if c.tif == KILL_SCOPE_SESSION:
        e.order_id = c.session
    if c.tif == KILL_SCOPE_MEMBER:
        e.leaves = c.quantity


cdef void kill(Market* m, Command* c) noexcept nogil:
    """KILL: throw a switch, then cancel every order that it covers."""
    cdef u32 first = m.index
    cdef Choice wanted
    if refuse_scope(m, c):
        return
    tell_switch(m, c, EVENT_KIND_KILLED)
    switch(m, c, True)
    if c.tif >= KILL_SCOPE_MEMBER:
        gather_member(m, c.quantity, c.tif == KILL_SCOPE_EXCHANGE)
    else:
        wanted.account = c.account
        wanted.side = SIDE_UNSTATED
        wanted.selection = SELECTION_SESSION if c.tif == KILL_SCOPE_SESSION else 0
        wanted.number = 0
        wanted.session = c.session
        gather(m, &wanted)
    cancel_picked(m, first, CANCEL_REASON_KILLED)


cdef void resume(Market* m, Command* c) noexcept nogil:
    """RESUME: clear a switch; nothing that was cancelled comes back."""
    if refuse_scope(m, c):
        return
    tell_switch(m, c, EVENT_KIND_RESUMED)
    switch(m, c, False)
