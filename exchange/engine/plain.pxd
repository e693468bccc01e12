# The plain order's way: ENTER, CANCEL and REPLACE of limit orders where nothing watches.
#
# Each does its command whole and says so, or changes nothing and leaves it to the ladder of guards
# (orders.pyx, changes.pyx), which says what is wrong: here every guard is a bare test, and any doubt
# is enough. What they do is what the ladder does. Both sides are compiled apart, so that `side` is
# a constant in each.

from exchange.engine.book cimport on_step, rest, slot_of, take_out
from exchange.engine.ids cimport (
    fill_cell, find_cell, find_key, fingerprint, free_slot, remember, slots_left, tag_of, take_slot,
)
from exchange.engine.lifecycle cimport say_gone
from exchange.engine.matching cimport Incoming, run
from exchange.engine.risk cimport adverse_per_lot, position_of, put_back, rehold
from exchange.engine.state cimport (
    Account, CANCELLED, Command, Event, Instrument, Market, Order, Position, WORKING, copy_key,
    emit, ensure, i32, i64, instrument_of, is_aged, is_simple, likely, order_id_of, side_of,
    tif_stp_of, trades_plainly, u16, u32, u64, u8,
    unlikely, what,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    # what must be zero in the first word, which is kind, side, tif, flags
    PLAIN_ENTER = 0xFBFEFE00  # side > 1, tif > DAY, any flag but MANUAL
    PLAIN_CANCEL = 0xF300FC00  # side > 3, any flag but MANUAL and BY_CLIENT_ID
    # the same of a REPLACE, but it has NEW_ID
    PLAIN_REPLACE = 0x10000000

cdef struct Move:  # what a plain order is made of, once its guards have passed
    Instrument* book
    Account* account
    Position* p
    u32 position, tif
    u32 cell, tag  # where its key goes
    i32 at  # slot of the ladder
    i64 adverse, rise  # of the hold


cdef inline bint is_plain_owner(Market* m, Command* c) noexcept nogil:
    """The session may act for the account."""
    return m.sessions[c.session & 0xFFFF].entitled == (<u64*>c)[1]


cdef inline bint is_in_time(Market* m, Account* account, i64* tat) noexcept nogil:
    """The throttle has a token; `tat` is what spending it is counted from."""
    tat[0] = account.tat if account.tat > m.stamp else m.stamp
    return tat[0] - m.stamp <= account.tolerance


cdef inline bint is_on_grid(Command* c, Instrument* book, Account* account, i32* at) noexcept nogil:
    """Quantity and price may stand; `at` is the price's place on the ladder."""
    if unlikely(c.quantity - 1 >= book.max_order or c.quantity > account.max_order
                or book.lot_step != 1 or <u64>c.price - <u64>book.low > book.range):
        return False
    at[0] = slot_of(book, c.price)
    return likely(book.price_step == 1) or on_step(book, c.price)


cdef inline bint is_covered(Instrument* book, Account* account, Position* p, u8 side, i64 gone,
                            i64 adverse_gone, i64 lots, i64 adverse, i64* rise) noexcept nogil:
    """Position limit and margin, when `lots` come in for the `gone`; `rise` is the hold's."""
    cdef i64 worst = p.exposure[side] - gone + lots
    cdef i64 other = p.exposure[1 - side]
    if unlikely(worst > book.position_limit):
        return False
    rise[0] = (book.rate * (worst if worst > other else other)
               + p.adverse - adverse_gone + adverse - p.hold)
    return likely(account.excess >= 0 and rise[0] <= account.excess
                  and rise[0] <= account.member.excess)


cdef inline void admit(Market* m, Command* c, Move* to, u8 side) noexcept nogil:
    """ORDER_ACCEPTED of a limit order, then its place in the book or its trades."""
    cdef Instrument* book = to.book
    cdef Position* p = to.p
    cdef u32 lots = c.quantity
    cdef u32 slot = take_slot(m)
    cdef Order* o = &m.orders[slot]
    cdef u64 order_id = order_id_of(m, slot)
    cdef Incoming t
    cdef Event* e
    copy_key(&o.key_lo, &c.key_lo)
    o.leaves = lots
    o.executed = 0
    o.position = to.position
    o.price = c.price
    o.fingerprint = fingerprint(c)
    o.session = c.session
    o.traits = side | to.tif << 8 | <u32>c.stp << 12 | <u32>WORKING << 16
    fill_cell(m, to.cell, to.tag, slot)
    remember(m, to.account, to.tag, slot)
    e = emit(m, what(EVENT_KIND_ORDER_ACCEPTED, <u32>side << 1, 0), p.who)
    e.order_id = order_id
    e.price = c.price
    e.quantity = lots
    copy_key(&e.key_lo, &c.key_lo)
    e.a = c.session
    e.b = to.tif | <u64>c.stp << 8
    if unlikely(to.at <= book.best[0] if side else to.at >= book.best[1]):
        e.leaves = 0
        t.order_id = order_id
        t.slot = slot
        t.limit = to.at
        t.need = 0
        run(m, book, &t, m.index - 1, 0)
        return
    e.leaves = lots
    book.working_orders += 1
    to.account.open_orders += 1
    p.exposure[side] += lots
    p.adverse += to.adverse
    p.hold += to.rise  # at most what is in excess: nothing overflows
    to.account.excess -= to.rise
    to.account.member.excess -= to.rise
    rest(m, book, slot, side, to.at)


cdef inline bint enter_side(Market* m, Command* c, Account* account, u8 side) noexcept nogil:
    cdef Move to
    cdef i64 tat
    to.account = account
    to.position = position_of(account, c.instrument)
    to.p = &m.positions[to.position]
    to.book = &m.instruments[c.instrument]
    if unlikely(to.position == 0 or not trades_plainly(to.book)
                or account.open_orders >= account.max_open_orders
                or not is_on_grid(c, to.book, account, &to.at)
                or to.book.working_orders >= LIMIT_BOOK_ORDERS or not slots_left(m)
                or not is_in_time(m, account, &tat)):
        return False
    to.adverse = c.quantity * adverse_per_lot(to.book, side, c.price)
    if unlikely(not is_covered(to.book, account, to.p, side, 0, 0, c.quantity, to.adverse,
                               &to.rise)):
        return False
    to.tag = tag_of(c.account, c.key_lo)
    to.cell = find_cell(m, c.account, to.tag, c.key_lo, c.key_hi)
    if unlikely(m.cells[to.cell].slot != 0):
        return False
    account.tat = tat + account.interval
    to.tif = c.tif
    admit(m, c, &to, side)
    return True


cdef inline bint enter_plain(Market* m, Command* c) noexcept nogil:
    """ENTER of a limit order, GTC or DAY."""
    cdef Account* account = &m.accounts[c.account]
    # one test of two bytes: the self-trade mode, and features above it
    if unlikely((<u32*>c)[0] & <u32>PLAIN_ENTER or (<u16*>&c.stp)[0] > SELF_TRADE_DECREMENT
                or c.key_lo == 0 or c.target_lo | c.target_hi
                or not is_plain_owner(m, c) or account.killed):
        return False
    if c.side:
        return enter_side(m, c, account, 1)
    return enter_side(m, c, account, 0)


cdef inline u32 named(Market* m, Command* c) noexcept nogil:
    """The slot of the account's plain order that a command names; 0 on any doubt."""
    cdef u32 slot = <u32>c.target_lo
    cdef Order* o
    if likely(c.flags & COMMAND_FLAG_BY_CLIENT_ID):
        slot = find_key(m, c.account, c.target_lo, c.target_hi)
    elif slot >= m.order_top or m.orders[slot].generation != c.target_lo >> 32:
        return 0
    o = &m.orders[slot]
    if unlikely(not is_simple(o) or m.positions[o.position].who >> 32 != c.account
                or (c.side != SIDE_UNSTATED and c.side != side_of(o))):
        return 0
    return slot


cdef inline void remove(Market* m, Instrument* book, Position* p, u32 slot, u8 side,
                        u32 reason) noexcept nogil:
    """ORDER_CANCELLED: out of everything but the hold and the window of its account."""
    cdef Order* o = &m.orders[slot]
    cdef u32 flags = <u32>side << 1 | EVENT_FLAG_RESTING
    say_gone(emit(m, what(EVENT_KIND_ORDER_CANCELLED, flags, reason), p.who), o,
             order_id_of(m, slot), o.leaves, 0)
    take_out(m, book, o, slot_of(book, o.price))
    put_back(m, book, p, side, o.price, o.leaves)
    book.working_orders -= 1
    p.owner.open_orders -= 1
    o.prev = 0
    o.next = 0
    o.leaves = 0
    o.traits = (o.traits & <u32>0xFF00FFFF) | <u32>CANCELLED << 16
    if unlikely(is_aged(o)):
        free_slot(m, slot, tag_of(<u32>(p.who >> 32), o.key_lo))


cdef inline bint cancel_side(Market* m, u32 slot, u8 side) noexcept nogil:
    cdef Position* p = &m.positions[m.orders[slot].position]
    cdef Instrument* book = &m.instruments[instrument_of(p)]
    remove(m, book, p, slot, side, CANCEL_REASON_REQUESTED)
    rehold(m, book, p)
    return True


cdef inline bint cancel_plain(Market* m, Command* c) noexcept nogil:
    """CANCEL, without a request id, of a limit order in the book."""
    cdef u32 slot
    if unlikely((<u32*>c)[0] & <u32>PLAIN_CANCEL or c.key_lo | c.key_hi
                or not is_plain_owner(m, c)):
        return False
    slot = named(m, c)
    if unlikely(slot == 0):
        return False
    if side_of(&m.orders[slot]):
        return cancel_side(m, slot, 1)
    return cancel_side(m, slot, 0)


cdef inline bint replace_side(Market* m, Command* c, u32 slot, Account* account,
                              u8 side) noexcept nogil:
    cdef Order* o = &m.orders[slot]
    cdef i64 adverse = 0
    cdef i64 tat
    cdef Move to
    to.account = account
    to.position = o.position
    to.p = &m.positions[to.position]
    to.book = &m.instruments[instrument_of(to.p)]
    to.tif = tif_stp_of(o) & 15
    if unlikely(to.tif > TIME_IN_FORCE_DAY or not trades_plainly(to.book)
                or not is_on_grid(c, to.book, account, &to.at) or not slots_left(m)
                or not is_in_time(m, account, &tat)):
        return False
    if to.p.adverse:  # else no order of the position has any
        adverse = o.leaves * adverse_per_lot(to.book, side, o.price)
    to.adverse = c.quantity * adverse_per_lot(to.book, side, c.price)
    if unlikely(not is_covered(to.book, account, to.p, side, o.leaves, adverse, c.quantity,
                               to.adverse, &to.rise)):
        return False
    to.tag = tag_of(c.account, c.key_lo)
    to.cell = find_cell(m, c.account, to.tag, c.key_lo, c.key_hi)
    if unlikely(m.cells[to.cell].slot != 0):
        return False
    account.tat = tat + account.interval
    remove(m, to.book, to.p, slot, side, CANCEL_REASON_REPLACED)
    if is_aged(o):
        to.cell = find_cell(m, c.account, to.tag, c.key_lo, c.key_hi)
    admit(m, c, &to, side)
    return True


cdef inline bint replace_plain(Market* m, Command* c) noexcept nogil:
    """REPLACE of a limit order in the book by another under a new id."""
    cdef Account* account = &m.accounts[c.account]
    cdef u32 slot
    if unlikely((<u32*>c)[0] & <u32>PLAIN_CANCEL != PLAIN_REPLACE or c.stp > SELF_TRADE_DECREMENT
                or c.key_lo == 0 or not is_plain_owner(m, c) or account.killed):
        return False
    slot = named(m, c)
    if unlikely(slot == 0):
        return False
    if side_of(&m.orders[slot]):
        return replace_side(m, c, slot, account, 1)
    return replace_side(m, c, slot, account, 0)
