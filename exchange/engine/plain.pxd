# The plain order's way: limit and market orders where nothing watches, and their cancels.
#
# Each function does its command whole and says so, or changes nothing and leaves it to the ladder
# of guards (orders.pyx, changes.pyx), which says what is wrong: here every guard is a bare test,
# and any doubt is enough. What they do is what the ladder would. Both sides are compiled apart, so
# that `side` is a constant in each. None is called when the command in hand has had an event
# already.

from exchange.engine.book cimport on_step, price_of, rest, slot_of, take_out
from exchange.engine.ids cimport (
    find_cell, fingerprint_of, retire, slots_left, tag_of, take_known_slot,
)
from exchange.engine.lifecycle cimport lessen, say_gone
from exchange.engine.matching cimport Incoming, run
from exchange.engine.risk cimport (
    adverse_per_lot, is_adverse, position_of, put_back, rehold_plainly,
)
from exchange.engine.state cimport (
    Account, CANCELLED, Cell, Command, Event, Instrument, Market, Order, Position, WATCH_STEPS,
    WORKING, account_of, conditions_of, copy_key, end_command, i32, i64, instrument_of, is_aged,
    is_simple, likely, new_event, order_id_of, read_again, side_of, tif_of, traits_of,
    trades_plainly, u16, u32, u64, u8, unlikely, what,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    # of the first word, which is kind, side, tif, flags: what is zero in a limit order, GTC or DAY
    REST_FORM = 0xFBFEFE00  # side > 1, tif > DAY, any flag but MANUAL
    # what is IOC in a limit or market order that takes what it finds
    TAKE_FORM = 0xF9FFFE00  # side > 1, tif, any flag but MARKET and MANUAL
    TAKE_IOC = 0x00020000
    # what is zero in a CANCEL, and NEW_ID in a REPLACE
    NAMED_FORM = 0xF300FC00  # side > 3, any flag but MANUAL and BY_CLIENT_ID
    NAMED_NEW_ID = 0x10000000

cdef struct Move:  # what a plain order is made of, once its guards have passed
    Instrument* book
    Account* account
    Position* p
    u32 position, tif
    u32 slot
    u32 cell, tag  # where its key goes
    i32 at  # slot of the ladder
    i64 price  # of that slot
    i64 adverse, rise  # of the hold


cdef inline bint is_entitled(Market* m, Command* c) noexcept nogil:
    """The session may act for the account, which is then open."""
    return m.sessions[c.session & 0xFFFF].entitled == (<u64*>c)[1]


cdef inline bint is_free_to_enter(Market* m, Command* c, Account* account) noexcept nogil:
    """Nothing that a plain ENTER or its owner should not have."""
    # one test of two bytes: the self-trade mode, and features above it
    return likely((<u16*>&c.stp)[0] <= SELF_TRADE_DECREMENT and c.key_lo != 0
                  and c.target_lo | c.target_hi == 0 and is_entitled(m, c) and not account.killed)


cdef inline bint take_token(Market* m, Account* account) noexcept nogil:
    """The throttle had one; the last guard but for room, since it changes the account."""
    cdef i64 now = m.stamp
    cdef i64 tat = account.tat if account.tat > now else now
    if unlikely(tat - now > account.tolerance):
        return False
    account.tat = tat + account.interval
    return True


cdef inline bint take_room(Market* m, Move* to) noexcept nogil:
    """A token and a slot were left: the last guard, since it takes both or neither. The order is
    known by its id from here on."""
    cdef i64 tat = to.account.tat
    if unlikely(not take_token(m, to.account)):
        return False
    to.slot = take_known_slot(m, to.account, to.cell, to.tag)
    if unlikely(to.slot == 0):
        to.account.tat = tat
    return likely(to.slot != 0)


cdef inline bint is_amount(Command* c, Instrument* book, Account* account) noexcept nogil:
    """The quantity may stand."""
    return likely(c.quantity - 1 < book.max_order and c.quantity <= account.max_order)


cdef inline bint is_on_grid(Command* c, Instrument* book, i32* at) noexcept nogil:
    """The price may stand; `at` is its place on the ladder."""
    cdef u64 offset = <u64>c.price - <u64>book.low
    if unlikely(offset > book.range):
        return False
    at[0] = <i32>offset
    if likely(book.price_step == 1):
        return True
    at[0] = slot_of(book, c.price)
    return on_step(book, c.price)


cdef inline i64 adverse_of(Instrument* book, u8 side, i64 price, i64 lots) noexcept nogil:
    """Of `lots` that work at `price`."""
    return lots * adverse_per_lot(book, side, price) if is_adverse(book, side, price) else 0


cdef inline bint is_covered(Move* to, u8 side, i64 gone, i64 adverse_gone, i64 lots) noexcept nogil:
    """Position limit and margin, when `lots` come in for the `gone`, if any; sets the hold's rise,
    which is not negative if there are none."""
    cdef Position* p = to.p
    cdef i64 worst = p.exposure[side] - gone + lots
    cdef i64 other = p.exposure[1 - side]
    if unlikely(worst > to.book.position_limit):
        return False
    to.rise = (to.book.rate * (worst if worst > other else other)
               + p.adverse - adverse_gone + to.adverse - p.hold)
    return likely((gone == 0 or to.account.excess >= 0) and to.rise <= to.account.excess
                  and to.rise <= to.account.member.excess)


cdef inline bint is_new(Market* m, Command* c, Move* to) noexcept nogil:
    """No key of this tag is known, the account's least of all; sets where it goes."""
    cdef Cell* cells = m.cells
    cdef u32 tag = tag_of(c.account, c.key_lo)
    cdef u32 i = tag >> m.cell_shift
    while unlikely(cells[i].slot != 0):
        if unlikely(cells[i].tag == tag):
            return False
        i = (i + 1) & m.cell_mask
    to.tag = tag
    to.cell = i
    return True


cdef inline void write_order(Market* m, Command* c, Move* to, u8 side, u32 index) noexcept nogil:
    """All of an order but its neighbours in the book."""
    cdef Order* o = &m.orders[to.slot]
    cdef u32 conditions = conditions_of(to.tif if index else c.tif, c.stp)
    o.leaves = c.quantity
    o.executed = 0
    o.position = to.position
    o.generation += 1
    o.price = c.price
    o.session = c.session
    o.traits = traits_of(side, conditions, WORKING)
    o.fingerprint = fingerprint_of(c, index != 0)
    copy_key(&o.key_lo, &c.key_lo)


cdef inline Event* say_accepted(Market* m, Command* c, Move* to, u32 said, u32 leaves,
                                u32 index) noexcept nogil:
    """ORDER_ACCEPTED of an order that has been written."""
    cdef Event* e = new_event(m, index, to.p.who)
    e.what = said
    e.order_id = order_id_of(m, to.slot)
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = leaves
    e.a = c.session
    e.b = conditions_of(to.tif if index else c.tif, c.stp)
    copy_key(&e.key_lo, &c.key_lo)
    return e


cdef inline void trade_through(Market* m, Command* c, Move* to, u8 side, u32 flags, u32 index,
                               u16 remainder) noexcept nogil:
    """An order meets the book. `index`: that of its first event."""
    cdef Incoming t
    write_order(m, c, to, side, index)
    say_accepted(m, c, to, what(EVENT_KIND_ORDER_ACCEPTED, flags | <u32>side << 1, 0), 0, index)
    m.index = index + 1
    t.slot = to.slot
    t.order_id = order_id_of(m, to.slot)
    t.limit = to.at
    t.need = 0
    run(m, to.book, &t, index, remainder)
    end_command(m)


cdef inline void place(Market* m, Command* c, Move* to, u8 side, u32 index) noexcept nogil:
    """A limit order comes in: it rests, or first trades. What is needed least long goes first."""
    cdef Instrument* book = to.book
    cdef Position* p = to.p
    cdef u32 said = what(EVENT_KIND_ORDER_ACCEPTED,
                         <u32>side << 1 | EVENT_FLAG_LAST_IN_COMMAND, 0)
    if (unlikely(to.at <= book.best[0]) if side else unlikely(to.at >= book.best[1])):
        trade_through(m, c, to, side, 0, index, 0)
        return
    read_again()
    p.exposure[side] += c.quantity
    p.adverse += to.adverse
    p.hold += to.rise  # which is at most what is in excess: nothing overflows
    to.account.excess -= to.rise
    to.account.member.excess -= to.rise
    to.account.open_orders += 1
    book.working_orders += 1
    write_order(m, c, to, side, index)
    rest(m, book, to.slot, side, to.at)
    say_accepted(m, c, to, said, c.quantity, index)


cdef inline bint may_enter(Market* m, Command* c, Account* account, Move* to) noexcept nogil:
    """What an ENTER is asked on either side, but for its price; finds its position and book."""
    to.account = account
    to.position = position_of(account, c.instrument)
    to.p = &m.positions[to.position]
    to.book = &m.instruments[c.instrument]
    return likely(to.position != 0 and trades_plainly(to.book)
                  and account.open_orders < account.max_open_orders
                  and to.book.working_orders < LIMIT_BOOK_ORDERS
                  and is_amount(c, to.book, account))


cdef inline bint rest_side(Market* m, Command* c, Account* account, u8 side) noexcept nogil:
    cdef Move to
    if unlikely(not may_enter(m, c, account, &to) or not is_on_grid(c, to.book, &to.at)):
        return False
    to.price = c.price
    to.adverse = adverse_of(to.book, side, to.price, c.quantity)
    if unlikely(not is_covered(&to, side, 0, 0, c.quantity) or not is_new(m, c, &to)
                or not take_room(m, &to)):
        return False
    place(m, c, &to, side, 0)
    return True


cdef inline bint take_side(Market* m, Command* c, Account* account, u8 side) noexcept nogil:
    cdef bint market = (c.flags & COMMAND_FLAG_MARKET) != 0
    cdef u16 remainder = CANCEL_REASON_IOC_REMAINDER
    cdef u32 flags = 0
    cdef Move to
    if unlikely(not may_enter(m, c, account, &to)):
        return False
    to.price = c.price
    if market:
        to.at = 0 if side else to.book.slots - 1
        to.price = price_of(to.book, to.at)
        remainder = CANCEL_REASON_MARKET_REMAINDER
        flags = EVENT_FLAG_MARKET
    elif not is_on_grid(c, to.book, &to.at):
        return False
    to.adverse = adverse_of(to.book, side, to.price, c.quantity)
    if unlikely((market and c.price != 0) or not is_covered(&to, side, 0, 0, c.quantity)
                or not is_new(m, c, &to) or not take_room(m, &to)):
        return False
    trade_through(m, c, &to, side, flags, 0, remainder)
    return True


cdef inline bint take_plain(Market* m, Command* c) noexcept nogil:
    """ENTER of a limit or market order, IOC."""
    cdef Account* account = &m.accounts[c.account]
    if ((<u32*>c)[0] & <u32>TAKE_FORM != <u32>TAKE_IOC
            or not is_free_to_enter(m, c, account)):
        return False
    if c.side:
        return take_side(m, c, account, 1)
    return take_side(m, c, account, 0)


cdef inline bint enter_plain(Market* m, Command* c) noexcept nogil:
    """ENTER of a limit order, GTC or DAY."""
    cdef Account* account = &m.accounts[c.account]
    if unlikely((<u32*>c)[0] & <u32>REST_FORM):
        return take_plain(m, c)
    if unlikely(not is_free_to_enter(m, c, account)):
        return False
    if c.side:
        return rest_side(m, c, account, 1)
    return rest_side(m, c, account, 0)


cdef inline u32 first_tagged(Market* m, u32 tag) noexcept nogil:
    """The slot of the first key with this tag, 0 if there is none."""
    cdef u32 i = tag >> m.cell_shift
    cdef Cell* cells = m.cells
    while cells[i].tag != tag and cells[i].slot:
        i = (i + 1) & m.cell_mask
    return cells[i].slot


cdef inline bint is_named(Market* m, Command* c, u32* at) noexcept nogil:
    """The command names the account's plain order in the book, which is `at`."""
    cdef u32 slot
    cdef Order* o
    if likely(c.flags & COMMAND_FLAG_BY_CLIENT_ID):
        slot = first_tagged(m, tag_of(c.account, c.target_lo))
        o = &m.orders[slot]
        if unlikely(o.key_lo != c.target_lo or o.key_hi != c.target_hi):
            return False
    else:
        slot = <u32>c.target_lo
        o = &m.orders[slot]
        if unlikely(slot >= m.order_top or o.generation != c.target_lo >> 32):
            return False
    if unlikely(not is_simple(o) or account_of(&m.positions[o.position]) != c.account):
        return False
    if unlikely(c.side != side_of(o)) and c.side != SIDE_UNSTATED:
        return False
    at[0] = slot
    return True


cdef inline bint is_named_plainly(Market* m, Command* c, u32* at) noexcept nogil:
    """`is_named`, for a command without a request id."""
    return likely((<u32*>c)[0] & <u32>NAMED_FORM == 0 and c.key_lo | c.key_hi == 0
                  and is_entitled(m, c) and is_named(m, c, at))


cdef inline void remove(Market* m, Instrument* book, Position* p, u32 slot, u32 flags, u8 side,
                        u32 reason) noexcept nogil:
    """ORDER_CANCELLED, a command's first event: out of everything but the hold and the window."""
    cdef Order* o = &m.orders[slot]
    cdef u32 lots = o.leaves
    cdef Event* e = new_event(m, 0, p.who)
    flags |= <u32>side << 1 | EVENT_FLAG_RESTING
    e.what = what(EVENT_KIND_ORDER_CANCELLED, flags, reason)
    say_gone(e, o, order_id_of(m, slot), lots, 0)
    take_out(m, book, o, slot_of(book, o.price))
    put_back(m, book, p, side, o.price, lots)
    book.working_orders -= 1
    p.owner.open_orders -= 1
    retire(m, slot, CANCELLED)


cdef inline bint cancel_side(Market* m, u32 slot, u8 side) noexcept nogil:
    cdef Position* p = &m.positions[m.orders[slot].position]
    cdef Instrument* book = &m.instruments[instrument_of(p)]
    remove(m, book, p, slot, EVENT_FLAG_LAST_IN_COMMAND, side, CANCEL_REASON_REQUESTED)
    rehold_plainly(m, book, p)
    return True


cdef inline bint cancel_plain(Market* m, Command* c) noexcept nogil:
    """CANCEL, without a request id, of a limit order in the book."""
    cdef u32 slot
    if unlikely(not is_named_plainly(m, c, &slot)):
        return False
    if side_of(&m.orders[slot]):
        return cancel_side(m, slot, 1)
    return cancel_side(m, slot, 0)


cdef inline bint reduce_side(Market* m, u32 slot, u32 lots, u8 side) noexcept nogil:
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef Instrument* book = &m.instruments[instrument_of(p)]
    if unlikely(lots - 1 >= o.leaves - 1 or book.watched & WATCH_STEPS):
        return False
    lessen(m, book, p, o, slot, lots, side)
    end_command(m)
    return True


cdef inline bint reduce_plain(Market* m, Command* c) noexcept nogil:
    """REDUCE, without a request id, of a limit order in the book, by less than all of it."""
    cdef u32 slot
    if unlikely(not is_named_plainly(m, c, &slot)):
        return False
    if side_of(&m.orders[slot]):
        return reduce_side(m, slot, c.quantity, 1)
    return reduce_side(m, slot, c.quantity, 0)


cdef inline bint replace_side(Market* m, Command* c, u32 slot, Account* account,
                              u8 side) noexcept nogil:
    cdef Order* o = &m.orders[slot]
    cdef bint aged = is_aged(o)
    cdef i64 adverse = 0
    cdef Move to
    to.account = account
    to.position = o.position
    to.p = &m.positions[to.position]
    to.book = &m.instruments[instrument_of(to.p)]
    to.tif = tif_of(o)
    if unlikely(to.tif > TIME_IN_FORCE_DAY or not trades_plainly(to.book)
                or not is_amount(c, to.book, account) or not is_on_grid(c, to.book, &to.at)):
        return False
    to.price = c.price
    if to.p.adverse:  # else no order of the position has any
        adverse = adverse_of(to.book, side, o.price, o.leaves)
    to.adverse = adverse_of(to.book, side, to.price, c.quantity)
    if unlikely(not is_covered(&to, side, o.leaves, adverse, c.quantity) or not is_new(m, c, &to)
                or not slots_left(m) or not take_token(m, account)):
        return False
    remove(m, to.book, to.p, slot, 0, side, CANCEL_REASON_REPLACED)
    if unlikely(aged):  # its key has left the hash, and others have moved
        to.cell = find_cell(m, c.account, to.tag, c.key_lo, c.key_hi)
    to.slot = take_known_slot(m, account, to.cell, to.tag)
    place(m, c, &to, side, 1)
    return True


cdef inline bint replace_plain(Market* m, Command* c) noexcept nogil:
    """REPLACE of a limit order in the book by another under a new id."""
    cdef Account* account = &m.accounts[c.account]
    cdef u32 slot
    if unlikely((<u32*>c)[0] & <u32>NAMED_FORM != NAMED_NEW_ID or c.stp > SELF_TRADE_DECREMENT
                or c.key_lo == 0 or not is_entitled(m, c) or account.killed):
        return False
    if unlikely(not is_named(m, c, &slot)):
        return False
    if side_of(&m.orders[slot]):
        return replace_side(m, c, slot, account, 1)
    return replace_side(m, c, slot, account, 0)
