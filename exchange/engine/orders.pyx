"""Enter, cancel, reduce, replace: guards in documented precedence, then the effect."""

from libc.stdlib cimport realloc
from libc.string cimport memset

from exchange.engine.book cimport has_opposite, price_of, reaches, rest, slot_of, take_out, unlink
from exchange.engine.expiry cimport expiry_of, start_expiry
from exchange.engine.guards cimport (
    bad_grid, bad_owner, bad_risk, bad_time, refuse_extent, refuse_target, rests,
)
from exchange.engine.ids cimport (
    fill_cell, find_cell, find_key, fingerprint, remember, slots_left, tag_of,
    take_slot,
)
from exchange.engine.lifecycle cimport (
    answer_again, answered, cancel_order, keep_receipt, reject, say_gone, take_away,
)
from exchange.engine.matching cimport Incoming, run
from exchange.engine.risk cimport (
    adverse_per_lot, position_of, put_back, raise_hold, release,
)
from exchange.engine.state cimport (
    Account, Command, DORMANT, Event, Instrument, Market, Order, Position, WORKING, emit,
    account_of, i32, i64, instrument_of, is_live, likely, order_id_of, pair,
    set_order_state, side_of, state_of, tif_stp_of, traits_of, u16, u32, u64, u8, unlikely, what,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    TARGET_FLAGS = 12  # MANUAL BY_CLIENT_ID
    REPLACE_FLAGS = 29  # POST_ONLY MANUAL BY_CLIENT_ID NEW_ID
    # what must be zero in an ENTER's kind, side, tif, flags: side > 1, tif > 7, unknown flags
    ENTER_FORM = 0x78F8FE00
    # what is zero in a plain limit order, GTC or DAY: also tif > 1, all flags but MANUAL
    PLAIN_FORM = 0xFBFEFE00


cdef struct Terms:  # what a new order is made of, once its guards have passed
    u32 at  # position
    u32 cell, tag  # where its key goes
    i32 slot  # of the ladder
    u8 side, tif
    bint rests  # at once, if it meets nothing
    u16 remainder  # why what cannot trade at once is cancelled; 0 if it rests
    u32 need  # lots it must be able to trade at once
    i64 price  # it would rest at; 0 if it does not
    i64 expiry
    i64 adverse, rise  # of the hold


cdef u32 open_position(Market* m, u32 account_id, u32 instrument) noexcept nogil:
    """A new record of (account, instrument); the caller has asked for room."""
    cdef Account* account = &m.accounts[account_id]
    cdef u32 length = account.positions_length
    cdef u32 at = m.position_top
    cdef u32* grown
    if instrument >= length:
        length = instrument + 1 if instrument + 1 > 2 * length else 2 * length
        grown = <u32*>realloc(account.positions, length * sizeof(u32))
        if grown == NULL:
            m.broken = 1
            return 0
        memset(&grown[account.positions_length], 0,
               (length - account.positions_length) * sizeof(u32))
        account.positions = grown
        account.positions_length = length
    m.position_top += 1
    account.positions[instrument] = at
    m.positions[at].who = pair(instrument, account_id)
    m.positions[at].owner = account
    return at


cdef bint bad_form(Market* m, Command* c) noexcept nogil:
    """SYNTAX, ID_FORMAT, COMBINATION: when a cheap test found something unusual."""
    cdef bint market = (c.flags & COMMAND_FLAG_MARKET) != 0
    cdef bint protected = (c.flags & COMMAND_FLAG_PROTECTED) != 0
    cdef bint post_only = (c.flags & COMMAND_FLAG_POST_ONLY) != 0
    if ((<u32*>c)[0] & <u32>ENTER_FORM or c.tif > TIME_IN_FORCE_GTD
            or c.stp > SELF_TRADE_DECREMENT or (market and not protected and c.price != 0)
            or (c.tif != TIME_IN_FORCE_GTD and c.target_lo != 0)):
        reject(m, c, REASON_SYNTAX, 0, 0)
        return True
    if c.key_lo == 0 and c.key_hi == 0:
        reject(m, c, REASON_ID_FORMAT, 0, 0)
        return True
    if ((post_only and (market or not rests(c.tif))) or (market and c.tif == TIME_IN_FORCE_FOK)
            or (protected and not market)
            or (c.target_hi and (post_only or c.tif == TIME_IN_FORCE_FOK))):
        reject(m, c, REASON_COMBINATION, 0, 0)
        return True
    return False


cdef inline bint bad_post_only(Market* m, Command* c, Instrument* book, u8 side,
                               i32 at) noexcept nogil:
    if likely(not c.flags & COMMAND_FLAG_POST_ONLY
              or not reaches(side, at, book.best[1 - side])):
        return False
    reject(m, c, REASON_POST_ONLY, price_of(book, book.best[1 - side]), c.price)
    return True


cdef inline bint bad_capacity(Market* m, Command* c, Instrument* book, u32 at) noexcept nogil:
    """BOOK_FULL, ORDERS_FULL, POSITIONS_FULL."""
    if likely(book.working_orders < LIMIT_BOOK_ORDERS and slots_left(m)
              and (at != 0 or m.position_top < m.position_capacity)):
        return False
    if book.working_orders >= LIMIT_BOOK_ORDERS:
        reject(m, c, REASON_BOOK_FULL, LIMIT_BOOK_ORDERS, book.working_orders)
    elif not slots_left(m):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
    else:
        reject(m, c, REASON_POSITIONS_FULL, m.position_capacity, m.position_capacity)
    return True


cdef inline void accept(Market* m, Command* c, Instrument* book, Account* account,
                        Terms* terms, bint plain) noexcept nogil:
    """A new order under the command's key: ORDER_ACCEPTED, its trades, its rest or its end.

    `plain`: a limit order, GTC or DAY, of which `terms` says nothing more.
    """
    cdef Position* p = &m.positions[terms.at]
    cdef u32 slot = take_slot(m)
    cdef Order* o = &m.orders[slot]
    cdef u8 side = terms.side
    # POST_ONLY and MARKET stand four bits higher in an event
    cdef u32 flags = side << 1 | (c.flags & (COMMAND_FLAG_POST_ONLY | COMMAND_FLAG_MARKET)) << 4
    cdef Incoming t
    cdef Event* e
    o.leaves = c.quantity
    o.executed = 0
    o.position = terms.at
    o.key_lo = c.key_lo
    o.key_hi = c.key_hi
    o.price = c.price if plain else terms.price
    o.fingerprint = fingerprint(c)
    o.session = c.session
    o.traits = traits_of(side, terms.tif | c.stp << 4, WORKING)
    fill_cell(m, terms.cell, terms.tag, slot)
    remember(m, account, terms.tag, slot)
    e = emit(m, what(EVENT_KIND_ORDER_ACCEPTED, flags, 0), p.who)
    t.order_id = order_id_of(m, slot)
    e.order_id = t.order_id
    e.price = o.price
    e.quantity = c.quantity
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    e.a = c.session
    e.b = terms.tif | <i64>c.stp << 8
    if not plain and terms.expiry != 0:
        start_expiry(m, slot, terms.expiry)
    if likely((plain or terms.rests) and not reaches(side, terms.slot, book.best[1 - side])):
        # nothing to trade with: what the guards foresaw is what happens
        e.leaves = c.quantity
        book.working_orders += 1
        account.open_orders += 1
        p.exposure[side] += c.quantity
        p.adverse += terms.adverse
        raise_hold(m, p, terms.rise)
        rest(m, book, slot, side, terms.slot)
        return
    e.leaves = 0
    t.slot = slot
    t.limit = terms.slot
    t.need = 0 if plain else terms.need
    run(m, book, &t, m.index - 1, 0 if plain else terms.remainder)


cdef void accept_special(Market* m, Command* c, Instrument* book, Account* account,
                         Terms* terms) noexcept nogil:
    accept(m, c, book, account, terms, False)


cdef void specify(Command* c, Instrument* book, Terms* terms) noexcept nogil:
    """What is not plain in an order: what becomes of its remainder, and what it asks for."""
    terms.rests = False
    terms.expiry = 0
    terms.remainder = 0
    terms.need = <u32>c.target_hi
    if c.tif == TIME_IN_FORCE_GTD:
        terms.expiry = <i64>c.target_lo
    if c.flags & COMMAND_FLAG_MARKET:
        if not rests(c.tif) or not has_opposite(book, c.side):
            terms.remainder = CANCEL_REASON_MARKET_REMAINDER
            terms.price = 0
        return
    if c.tif == TIME_IN_FORCE_IOC:
        terms.remainder = CANCEL_REASON_IOC_REMAINDER
    elif c.tif == TIME_IN_FORCE_FOK:
        terms.remainder = CANCEL_REASON_FOK_UNFILLED
        terms.need = c.quantity
    else:
        terms.rests = terms.need == 0


cdef void enter(Market* m, Command* c) noexcept nogil:
    cdef Account* account
    cdef Instrument* book
    cdef Terms terms
    cdef bint special
    cdef i64 price
    if bad_owner(m, c, True):
        return
    special = ((<u32*>c)[0] & <u32>PLAIN_FORM or c.stp > SELF_TRADE_DECREMENT or c.key_lo == 0
               or c.target_lo | c.target_hi)
    if unlikely(special) and bad_form(m, c):
        return
    terms.tag = tag_of(c.account, c.key_lo)
    terms.cell = find_cell(m, c.account, terms.tag, c.key_lo, c.key_hi)
    if unlikely(m.cells[terms.cell].slot != 0):
        answer_again(m, c, c.account, m.cells[terms.cell].slot)
        return
    if unlikely(c.instrument >= m.instrument_count):
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return
    book = &m.instruments[c.instrument]
    account = &m.accounts[c.account]
    if bad_time(m, c, book, account) or bad_grid(m, c, book, account, &terms.slot):
        return
    terms.side = c.side
    terms.tif = c.tif
    price = c.price
    if unlikely(special):
        if c.flags & COMMAND_FLAG_MARKET:
            price = price_of(book, terms.slot)
        if bad_post_only(m, c, book, c.side, terms.slot) or refuse_extent(m, c):
            return
    if unlikely(account.open_orders >= account.max_open_orders):
        reject(m, c, REASON_OPEN_ORDERS, account.max_open_orders, account.open_orders)
        return
    terms.at = position_of(account, c.instrument)
    terms.adverse = c.quantity * adverse_per_lot(book, c.side, price)
    # position 0 is all zeros: an account without a record has nothing there
    if bad_risk(m, c, book, &m.positions[terms.at], account, c.side, terms.adverse, c.quantity, 0,
                &terms.rise):
        return
    if bad_capacity(m, c, book, terms.at):
        return
    if unlikely(terms.at == 0):
        terms.at = open_position(m, c.account, c.instrument)
    if likely(not special):
        accept(m, c, book, account, &terms, True)
        return
    terms.price = price
    specify(c, book, &terms)
    accept_special(m, c, book, account, &terms)


cdef inline bint bad_request(Market* m, Command* c, u8 flags, bint replacing) noexcept nogil:
    """The guards of CANCEL, REDUCE and REPLACE up to the known request id."""
    if bad_owner(m, c, replacing):
        return True
    if unlikely(c.side > SIDE_UNSTATED or c.flags & ~flags
                or (replacing and c.stp > SELF_TRADE_DECREMENT)):
        reject(m, c, REASON_SYNTAX, 0, 0)
        return True
    if c.key_lo == 0 and c.key_hi == 0:
        if unlikely(c.flags & COMMAND_FLAG_NEW_ID):
            reject(m, c, REASON_ID_FORMAT, 0, 0)
            return True
        return False
    return answered(m, c, c.account)


cdef inline u32 target_of(Market* m, Command* c) noexcept nogil:
    """The slot of the live order that CANCEL, REDUCE or REPLACE names; 0 after a reject."""
    cdef u32 slot
    cdef Order* o
    if c.flags & COMMAND_FLAG_BY_CLIENT_ID:
        slot = find_key(m, c.account, c.target_lo, c.target_hi)
        o = &m.orders[slot]
    else:
        slot = <u32>c.target_lo
        o = &m.orders[slot]
        if unlikely(slot >= m.order_top or o.generation != c.target_lo >> 32
                    or account_of(&m.positions[o.position]) != c.account):
            slot = 0
            o = m.orders
    if likely(is_live(o) and (c.side == SIDE_UNSTATED or c.side == side_of(o))):
        return slot
    refuse_target(m, c, slot)
    return 0


cdef inline bint bad_receipt(Market* m, Command* c) noexcept nogil:
    """ORDERS_FULL if the request id could not be remembered."""
    if unlikely((c.key_lo or c.key_hi) and not slots_left(m)):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
        return True
    return False


cdef void cancel(Market* m, Command* c) noexcept nogil:
    cdef u32 first = m.index
    cdef u32 slot
    if bad_request(m, c, TARGET_FLAGS, False):
        return
    slot = target_of(m, c)
    if slot == 0 or bad_receipt(m, c):
        return
    cancel_order(m, slot, CANCEL_REASON_REQUESTED)
    keep_receipt(m, c, c.account, first)


cdef void reduce_order(Market* m, Command* c) noexcept nogil:
    cdef u32 first = m.index
    cdef u32 slot
    cdef Order* o
    cdef Position* p
    cdef Instrument* book
    if bad_request(m, c, TARGET_FLAGS, False):
        return
    slot = target_of(m, c)
    if slot == 0:
        return
    o = &m.orders[slot]
    p = &m.positions[o.position]
    book = &m.instruments[instrument_of(p)]
    if c.quantity == 0:
        reject(m, c, REASON_QUANTITY_RANGE, book.max_order, 0)
        return
    if book.lot_step != 1 and c.quantity % book.lot_step:
        reject(m, c, REASON_LOT, book.lot_step, c.quantity)
        return
    if bad_receipt(m, c):
        return
    if c.quantity >= o.leaves:
        cancel_order(m, slot, CANCEL_REASON_REDUCED)
    else:
        lessen(m, book, p, o, slot, c.quantity)
    keep_receipt(m, c, c.account, first)


cdef inline void lessen(Market* m, Instrument* book, Position* p, Order* o, u32 slot,
                        u32 lots) noexcept nogil:
    """Take lots off a live order that keeps its place: ORDER_REDUCED."""
    cdef u32 flags = side_of(o) << 1
    o.leaves -= lots
    if likely(state_of(o) == WORKING):
        flags |= EVENT_FLAG_RESTING
        book.levels[slot_of(book, o.price)].quantity -= lots
    else:
        book.dormant.quantity -= lots
    say_gone(emit(m, what(EVENT_KIND_ORDER_REDUCED, flags, CANCEL_REASON_REQUESTED), p.who), o,
             order_id_of(m, slot), lots, o.leaves)
    release(m, book, p, side_of(o), o.price, lots)


cdef inline void withdraw(Market* m, Instrument* book, Position* p, Order* o) noexcept nogil:
    """A live order leaves the book to come back as incoming; its hold is put right by `run`."""
    if likely(state_of(o) == WORKING):
        take_out(m, book, o, slot_of(book, o.price))
    else:
        unlink(m, &book.dormant, o)
    put_back(m, book, p, side_of(o), o.price, o.leaves)
    book.working_orders -= 1
    p.owner.open_orders -= 1


cdef inline bint keeps_place(Command* c, Order* o, i64 leaves) noexcept nogil:
    """Whether a REPLACE only makes its order smaller."""
    return (state_of(o) == WORKING and c.price == o.price and leaves <= o.leaves
            and not c.flags & COMMAND_FLAG_NEW_ID)


cdef inline bint bad_new_terms(Market* m, Command* c, Instrument* book, Position* p, Order* o,
                               i64 leaves, Terms* terms) noexcept nogil:
    """POST_ONLY, then the risk of `leaves` at the new price in place of what the order holds."""
    cdef i64 before = o.leaves
    cdef i64 adverse = before * adverse_per_lot(book, side_of(o), o.price) if p.adverse else 0
    cdef bint refused
    if bad_post_only(m, c, book, side_of(o), terms.slot):
        return True
    if keeps_place(c, o, leaves):
        return False
    p.exposure[side_of(o)] -= before
    p.adverse -= adverse
    terms.adverse = leaves * adverse_per_lot(book, side_of(o), c.price)
    refused = bad_risk(m, c, book, p, p.owner, side_of(o), terms.adverse, leaves, before,
                       &terms.rise)
    p.exposure[side_of(o)] += before
    p.adverse += adverse
    return refused


cdef void replace(Market* m, Command* c) noexcept nogil:
    cdef u32 first = m.index
    cdef bint new_id = (c.flags & COMMAND_FLAG_NEW_ID) != 0
    cdef u32 slot
    cdef i64 leaves
    cdef Terms terms
    cdef Order* o
    cdef Position* p
    cdef Instrument* book
    if bad_request(m, c, REPLACE_FLAGS, True):
        return
    slot = target_of(m, c)
    if slot == 0:
        return
    o = &m.orders[slot]
    p = &m.positions[o.position]
    book = &m.instruments[instrument_of(p)]
    if bad_time(m, c, book, p.owner) or bad_grid(m, c, book, p.owner, &terms.slot):
        return
    leaves = <i64>c.quantity - (0 if new_id else o.executed)
    if leaves <= 0:
        if not bad_receipt(m, c):
            cancel_order(m, slot, CANCEL_REASON_REDUCED)
            keep_receipt(m, c, c.account, first)
        return
    if bad_new_terms(m, c, book, p, o, leaves, &terms) or bad_receipt(m, c):
        return
    if not new_id:
        change_terms(m, c, book, p, o, slot, <u32>leaves, terms.slot)
        keep_receipt(m, c, c.account, first)
        return
    terms.at = o.position
    terms.side = side_of(o)
    terms.tif = tif_stp_of(o) & 15
    terms.price = c.price
    terms.expiry = expiry_of(m, slot) if terms.tif == TIME_IN_FORCE_GTD else 0
    terms.need = 0
    terms.remainder = 0
    terms.rests = True
    take_away(m, slot, CANCEL_REASON_REPLACED)  # `rise` is from the hold with the old order
    terms.tag = tag_of(c.account, c.key_lo)
    terms.cell = find_cell(m, c.account, terms.tag, c.key_lo, c.key_hi)
    accept_special(m, c, book, p.owner, &terms)


cdef void change_terms(Market* m, Command* c, Instrument* book, Position* p, Order* o, u32 slot,
                       u32 leaves, i32 at) noexcept nogil:
    """ORDER_REPLACED under the same id: in place, or out of the book and in again."""
    cdef bint kept = keeps_place(c, o, leaves)
    cdef u32 flags = side_of(o) << 1 | (EVENT_FLAG_RESTING if state_of(o) == WORKING else 0)
    cdef Incoming t
    cdef Event* e = emit(m, what(EVENT_KIND_ORDER_REPLACED, flags, kept), p.who)
    t.order_id = order_id_of(m, slot)
    e.order_id = t.order_id
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = leaves if kept else 0
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.price
    e.b = o.leaves
    if kept:
        book.levels[at].quantity -= o.leaves - leaves
        release(m, book, p, side_of(o), o.price, o.leaves - leaves)
        o.leaves = leaves
        return
    withdraw(m, book, p, o)
    o.price = c.price
    o.leaves = leaves
    set_order_state(o, WORKING)
    t.slot = slot
    t.limit = at
    t.need = 0
    run(m, book, &t, m.index - 1, 0)


cdef void return_dormant(Market* m, Instrument* book) noexcept nogil:
    """One pass over the dormant list: orders inside the limits come back as incoming ones."""
    cdef u32 slot = book.dormant.head
    cdef u32 last = book.dormant.tail
    cdef u32 following
    cdef Order* o
    cdef Position* p
    cdef Event* e
    cdef Incoming t
    while slot:
        o = &m.orders[slot]
        following = o.next if slot != last else 0
        if book.low <= o.price <= book.high:
            p = &m.positions[o.position]
            e = emit(m, what(EVENT_KIND_ORDER_RETURNED, side_of(o) << 1, 0), p.who)
            t.order_id = order_id_of(m, slot)
            e.order_id = t.order_id
            e.price = o.price
            e.quantity = o.leaves
            e.leaves = 0
            e.key_lo = o.key_lo
            e.key_hi = o.key_hi
            e.a = o.session
            e.b = 0
            withdraw(m, book, p, o)
            set_order_state(o, WORKING)
            t.slot = slot
            t.limit = slot_of(book, o.price)
            t.need = 0
            run(m, book, &t, m.index - 1, 0)
        slot = following
