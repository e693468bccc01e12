# The plain way: limit and market orders without special features in a book that is not watched,
# and their cancels, reductions and replacements. Two other files compile the same functions for
# cases that cost more: a limit order that a watched book lets pass (`watched`: watched.pyx), and
# commands as a gateway sends them (asked.pyx): requests with an id, replacements that keep the
# order's id, post-only orders.
#
# Each function does its command whole and returns True, or changes nothing and returns False; then
# the ladder of guards (orders.pyx, changes.pyx: every guard in its documented precedence, each with
# its own reject) does the command or says what is wrong. Here a guard is a bare test, and any doubt
# is enough to decline. The effect of a command is the same either way. Buys and sells are compiled
# apart, so that `side` is a constant in each. They part after the loads that both need, by the side
# that the command states rather than its order's, which is known late: a mispredicted jump then
# costs least (docs/decisions/0034-jumps-that-know-early.md). No function is called once the command
# in hand has an event.

from exchange.engine.aftermath cimport aftermath
from exchange.engine.book cimport line_up, on_step, price_of, slot_of, take_out
from exchange.engine.events cimport end_command, new_event, what
from exchange.engine.ids cimport (
    bucket_of, fingerprint_of, first_of, free_beside, hash_of, retire_working, slot_in,
    slots_left, tagged, take_known_slot,
)
from exchange.engine.lifecycle cimport lessen, tell_gone
from exchange.engine.matching cimport Incoming, run
from exchange.engine.risk cimport (
    hold_for, is_adverse, loss_per_lot, position_of, put_back, rehold_plainly,
)
from exchange.engine.state cimport (
    Account, Bucket, CANCELLED, Command, Event, Instrument, Market, Member, Order, Position,
    WATCH_STEPS, WORKING, account_of, conditions_of, copy_key, ensure, i32, i64, instrument_of,
    is_simple, is_simple_on, likely, order_id_of, put_halves, put_pair, read_again, tif_of,
    traits_of, trades_plainly, u16, u32, u64, u8, unlikely, whole, word_at,
)
from exchange.engine.vocabulary cimport *
from exchange.engine.watched cimport (
    enter_watched, lets_pass, may_pass, replace_watched, rested_beside,
)

cdef enum:
    # masks of a command's first word, which is kind, side, tif, flags
    # bits that are 0 in a limit order, GTC or DAY
    REST_FORM = 0xFBFEFE00  # side > 1, tif > DAY, any flag but MANUAL
    # bits that are TAKE_IOC in a limit or market order, IOC
    TAKE_FORM = 0xF9FFFE00  # side > 1, tif, any flag but MARKET and MANUAL
    TAKE_IOC = 0x00020000
    # bits that are 0 in a CANCEL or REDUCE, NAMED_NEW_ID in a REPLACE by a new order; in each plus
    # NAMED_BY_CLIENT_ID if the target is named by its client order id
    NAMED_FORM = 0xFB00FC00  # side > 3, any flag but MANUAL
    NAMED_BY_CLIENT_ID = 0x08000000
    NAMED_NEW_ID = 0x10000000

cdef struct Move:  # what the guards have found out about an order on its way in
    Instrument* book
    Account* account
    Member* member
    Position* p
    u64 position
    u32 tif
    u32 slot
    u64 place  # free, in the id hash, for its key
    u64 hash
    i64 at  # ladder slot of its limit
    i64 price  # of that slot
    i64 adverse, rise  # its adverse amount; by how much the position's hold rises


cdef inline bint is_entitled(Market* m, Command* c) noexcept nogil:
    """Whether the session may act for the account; then the account is open."""
    return m.sessions[c.session & 0xFFFF].entitled == (<u64*>c)[1]


cdef inline bint is_free_to_enter(Market* m, Command* c) noexcept nogil:
    """Whether an ENTER has a key, no feature, minimum or expiry, and an entitled session."""
    # one test of two bytes, the self-trade mode and the features above it
    return likely((<u16*>&c.stp)[0] <= SELF_TRADE_DECREMENT and c.key_lo != 0
                  and c.target_lo | c.target_hi == 0 and is_entitled(m, c))


cdef inline bint has_token(Market* m, Account* account) noexcept nogil:
    """Whether the account's throttle has a token."""
    return likely(account.tat <= m.stamp + account.tolerance)


cdef inline void take_token(Market* m, Account* account) noexcept nogil:
    cdef i64 now = m.stamp
    cdef i64 tat = account.tat
    account.tat = (tat if tat > now else now) + account.interval


cdef inline bint take_room(Market* m, Move* to) noexcept nogil:
    """Take a token and a slot, or neither: the last guard. Then the order is known by its id."""
    if unlikely(not has_token(m, to.account)):
        return False
    to.slot = take_known_slot(m, to.account, to.place, to.hash)
    if unlikely(to.slot == 0):
        return False
    take_token(m, to.account)
    return True


cdef inline bint is_amount(Command* c, Instrument* book, Account* account) noexcept nogil:
    """Whether the quantity is within the limits of instrument and account, and no switch is set."""
    return likely(c.quantity - 1 < book.max_order and c.quantity <= account.most)


cdef inline bint is_on_grid(Command* c, Instrument* book, i64* at) noexcept nogil:
    """Whether the price is within the limits and on the step; sets `at`, its ladder slot."""
    cdef u64 offset = <u64>c.price - <u64>book.low
    at[0] = <i64>offset
    if likely(offset <= book.units):
        return True
    if offset > book.range or book.price_step == 1:
        return False
    at[0] = slot_of(book, c.price)
    return on_step(book, c.price)


cdef inline i64 adverse_of(Instrument* book, u8 side, i64 price, i64 lots) noexcept nogil:
    """The adverse amount of `lots` that work at `price`."""
    if not is_adverse(book, side, price):
        return 0
    return lots * loss_per_lot(book, side, price)


cdef inline bint is_covered(Move* to, u8 side, i64 lots, bint instead, i64 gone,
                            i64 adverse_gone) noexcept nogil:
    """Whether position limit and margin allow `lots` more on a side, in place of `gone` lots if
    `instead`. Sets `to.rise`, the rise of the hold, which is not negative if nothing is gone."""
    cdef Position* p = to.p
    cdef i64 worst = p.exposure[side] - gone + lots
    cdef i64 other = p.exposure[1 - side]
    if unlikely(worst > to.book.position_limit):
        return False
    to.rise = (to.book.rate * (worst if worst > other else other)
               + p.adverse - adverse_gone + to.adverse - p.hold)
    to.member = to.account.member
    return likely((not instead or to.account.excess >= 0) and to.rise <= to.account.excess
                  and to.rise <= to.member.excess)


cdef inline bint is_new(Market* m, Command* c, Move* to) noexcept nogil:
    """Whether no known key has this key's tag in its bucket, which no key has passed and which has
    a free place, so that the key is new and belongs there; sets its place and hash."""
    cdef u64 hash = hash_of(c.account, c.key_lo)
    cdef u64 at = whole(hash & m.bucket_mask)
    cdef Bucket* bucket = <Bucket*>(<u8*>m.buckets + at)
    cdef u64 free_places = free_beside(bucket.tags, hash, bucket.passed)
    if unlikely(free_places == 0):
        return False
    to.hash = hash
    to.place = at + first_of(free_places)
    return True


cdef inline Order* admit(Market* m, Command* c, Move* to, u8 side, u32 said, bint rests,
                         u32 index) noexcept nogil:
    """Emit ORDER_ACCEPTED and fill in the order, all but its links in the book. `index` is the
    event's: 0 of an ENTER, 1 of a REPLACE, whose target's ORDER_CANCELLED comes first."""
    # an ENTER names the instrument, a REPLACE does not
    cdef Event* e = new_event(m, index, to.p.who if index else word_at(&c.instrument))
    cdef Order* o = &m.orders[to.slot]
    cdef u64 conditions = whole(conditions_of(to.tif if index else c.tif, c.stp))
    cdef u32 generation = o.generation + 1
    cdef u32 lots = c.quantity
    cdef u64 session = whole(c.session)
    cdef i64 price = c.price
    cdef u64[2] key
    put_pair(&o.leaves, lots, 0)  # and executed
    o.position = <u32>to.position
    o.generation = generation
    o.price = price
    o.session = <u32>session
    o.traits = traits_of(side, <u32>conditions, WORKING)
    o.fingerprint = fingerprint_of(c, index != 0)
    e.what = said
    put_halves(&e.order_id, generation, to.slot)
    e.price = price
    e.quantity = lots
    e.leaves = lots if rests else 0
    e.a = <i64>session
    e.b = <i64>conditions
    copy_key(key, &c.key_lo)
    copy_key(&o.key_lo, key)
    copy_key(&e.key_lo, key)
    return o


cdef inline void trade_through(Market* m, Command* c, Move* to, u8 side, u32 flags, u32 index,
                               u16 remainder, bint watched) noexcept nogil:
    """Admit an order, match it, and rest what is left or cancel it for the reason `remainder` (0:
    rest). `index`: that of its first event."""
    cdef Incoming t
    admit(m, c, to, side, what(EVENT_KIND_ORDER_ACCEPTED, flags | <u32>side << 1, 0), False, index)
    m.index = index + 1
    t.slot = to.slot
    t.order_id = order_id_of(m, to.slot)
    t.limit = <i32>to.at
    t.need = 0
    run(m, to.book, &t, index, remainder)
    if watched:
        aftermath(m, to.book, index)
    end_command(m)


cdef inline bint crosses(Move* to, u8 side) noexcept nogil:
    """Whether it reaches the best opposite price, and so trades before it could rest."""
    return (unlikely(<i32>to.at <= to.book.best[0]) if side
            else unlikely(<i32>to.at >= to.book.best[1]))


cdef inline void hold_more(Move* to, u8 side, i64 lots, i64 adverse) noexcept nogil:
    """Add working `lots` with `adverse` to a side, and `to.rise` to the hold."""
    cdef Position* p = to.p
    p.exposure[side] += lots
    p.adverse += adverse
    p.hold += to.rise  # at most the excess: nothing overflows
    to.account.excess -= to.rise
    to.member.excess -= to.rise


cdef inline void place(Market* m, Command* c, Move* to, u8 side, u32 index,
                       u32 flags) noexcept nogil:
    """Admit an order that crosses nothing, and rest it. `index`: as in `admit`."""
    cdef u32 said = what(EVENT_KIND_ORDER_ACCEPTED,
                         flags | <u32>side << 1 | EVENT_FLAG_LAST_IN_COMMAND, 0)
    cdef Order* o = admit(m, c, to, side, said, True, index)
    line_up(m, to.book, o, to.slot, c.quantity, side, to.at)


cdef inline bint find_place(Market* m, Command* c, Account* account, Move* to) noexcept nogil:
    """Find an ENTER's position and book; False if the account has no position record there."""
    to.account = account
    to.position = position_of(account, c.instrument)
    if unlikely(to.position == 0):
        return False
    to.p = &m.positions[to.position]
    to.book = &m.instruments[c.instrument]
    return True


cdef inline bint may_enter(Market* m, Command* c, Account* account, Move* to) noexcept nogil:
    """The guards of an ENTER that do not depend on side or price: open orders, room, quantity."""
    return likely(account.open_orders < account.max_open_orders
                  and to.book.working_orders < LIMIT_BOOK_ORDERS
                  and is_amount(c, to.book, account))


cdef inline bint meet(Market* m, Command* c, Move* to, u8 side, u32 flags,
                      u16 remainder, bint watched) noexcept nogil:
    """The remaining guards of an order that crosses or is IOC; if they pass, `trade_through`."""
    to.adverse = adverse_of(to.book, side, to.price, c.quantity)
    if unlikely(not is_covered(to, side, c.quantity, False, 0, 0) or not take_room(m, to)):
        return False
    trade_through(m, c, to, side, flags, 0, remainder, watched)
    return True


cdef inline bint rest_side(Market* m, Command* c, Move* to, u8 side, bint watched,
                           bint posted) noexcept nogil:
    """Rest or trade, after the guards that do not depend on the side.

    The hold is raised before a slot is taken, so that its amounts need no register beyond that;
    if there is no slot it is taken back.
    """
    cdef Account* account = to.account
    if posted and crosses(to, side):
        return False
    if watched and not lets_pass(m, to.book, to.p, c, side, c.quantity, crosses(to, side)):
        return False
    if not posted and crosses(to, side):
        read_again()
        return meet(m, c, to, side, 0, 0, watched)
    read_again()
    to.adverse = adverse_of(to.book, side, to.price, c.quantity)
    if unlikely(not is_covered(to, side, c.quantity, False, 0, 0)):
        return False
    read_again()
    hold_more(to, side, c.quantity, to.adverse)
    read_again()
    to.slot = take_known_slot(m, account, to.place, to.hash)
    if unlikely(to.slot == 0):
        to.p = &m.positions[position_of(account, c.instrument)]
        put_back(m, to.book, to.p, side, c.price, c.quantity)
        rehold_plainly(m, to.book, to.p)
        return False
    read_again()
    take_token(m, account)
    account.open_orders += 1
    to.book.working_orders += 1
    place(m, c, to, side, 0, EVENT_FLAG_POST_ONLY if posted else 0)
    if watched:
        rested_beside(m, to.book)
    return True


cdef inline bint enter_limit(Market* m, Command* c, Account* account, bint watched,
                             bint posted) noexcept nogil:
    """A limit order that rests or, unless it is `posted` (post-only), trades."""
    cdef Move to
    if unlikely(not find_place(m, c, account, &to)):
        return False
    if unlikely(not watched and not trades_plainly(to.book)):
        return enter_watched(m, c, to.book)
    if posted and not may_pass(to.book):
        return False
    if unlikely(not may_enter(m, c, account, &to) or not is_on_grid(c, to.book, &to.at)
                or not is_new(m, c, &to) or not has_token(m, account)):
        return False
    to.price = c.price
    if c.side:
        return rest_side(m, c, &to, 1, watched, posted)
    return rest_side(m, c, &to, 0, watched, posted)


cdef inline bint take_side(Market* m, Command* c, Account* account, u8 side,
                           bint watched) noexcept nogil:
    cdef bint market = (c.flags & COMMAND_FLAG_MARKET) != 0
    cdef u16 remainder = CANCEL_REASON_IOC_REMAINDER
    cdef u32 flags = 0
    cdef Move to
    if unlikely(not find_place(m, c, account, &to)):
        return False
    if not watched and unlikely(not trades_plainly(to.book)):
        return enter_watched(m, c, to.book)
    if unlikely(not may_enter(m, c, account, &to) or not is_new(m, c, &to)):
        return False
    to.price = c.price
    if market:
        to.at = 0 if side else to.book.slots - 1
        to.price = price_of(to.book, <i32>to.at)
        remainder = CANCEL_REASON_MARKET_REMAINDER
        flags = EVENT_FLAG_MARKET
    elif not is_on_grid(c, to.book, &to.at):
        return False
    if unlikely(market and (watched or c.price != 0)):
        return False
    if watched and not lets_pass(m, to.book, to.p, c, side, c.quantity, True):
        return False
    return meet(m, c, &to, side, flags, remainder, watched)


cdef inline bint take_plain(Market* m, Command* c, bint watched) noexcept nogil:
    """ENTER of a limit or market order, IOC."""
    cdef Account* account = &m.accounts[c.account]
    if ((<u32*>c)[0] & <u32>TAKE_FORM != <u32>TAKE_IOC
            or not is_free_to_enter(m, c)):
        return False
    if c.side:
        return take_side(m, c, account, 1, watched)
    return take_side(m, c, account, 0, watched)


cdef inline bint enter_plain(Market* m, Command* c, bint watched) noexcept nogil:
    """ENTER of a limit order, GTC or DAY."""
    cdef Account* account = &m.accounts[c.account]
    if unlikely((<u32*>c)[0] & <u32>REST_FORM):
        return take_plain(m, c, watched)
    if unlikely(not is_free_to_enter(m, c)):
        return False
    return enter_limit(m, c, account, watched, False)


cdef inline u32 first_tagged(Market* m, u64 hash) noexcept nogil:
    """The slot of the first key with this tag in its bucket, 0 if there is none."""
    cdef Bucket* bucket = bucket_of(m, hash)
    cdef u64 found = tagged(bucket.tags, hash)
    return slot_in(bucket, found)


cdef inline Order* named(Market* m, Command* c, u32 wanted, bint stated, u32* at) noexcept nogil:
    """The account's simple order in the book that a command of the form `wanted` (bits of
    NAMED_FORM) names; sets `at` to its slot. NULL if the form is another, there is none, or, if the
    side must be `stated`, it is not."""
    cdef u32 form = (<u32*>c)[0] & <u32>NAMED_FORM
    cdef u32 slot
    cdef Order* o
    if likely(form == wanted + NAMED_BY_CLIENT_ID):
        slot = first_tagged(m, hash_of(c.account, c.target_lo))
        o = &m.orders[slot]
        if unlikely(o.key_lo != c.target_lo or o.key_hi != c.target_hi):
            return NULL
    elif form != wanted:
        return NULL
    else:
        slot = <u32>c.target_lo
        o = &m.orders[slot]
        if unlikely(slot >= m.order_top or o.generation != c.target_lo >> 32):
            return NULL
    if unlikely(not (is_simple_on(o, c.side) if stated else is_simple(o))):
        return NULL
    read_again()
    if unlikely(account_of(&m.positions[o.position]) != c.account):
        return NULL
    at[0] = slot
    return o


cdef inline Order* named_plainly(Market* m, Command* c, u32* at) noexcept nogil:
    """`named`, for a CANCEL or REDUCE without a request id from an entitled session."""
    if unlikely(c.key_lo | c.key_hi != 0 or not is_entitled(m, c)):
        return NULL
    return named(m, c, 0, True, at)


cdef inline void leave(Market* m, Instrument* book, Position* p, Order* o, u32 slot, u32 flags,
                       u8 side, u32 reason) noexcept nogil:
    """Take an order out of the book and emit ORDER_CANCELLED, the command's first event."""
    cdef Event* e = new_event(m, 0, p.who)
    flags |= <u32>side << 1 | EVENT_FLAG_RESTING
    e.what = what(EVENT_KIND_ORDER_CANCELLED, flags, reason)
    put_halves(&e.order_id, o.generation, slot)
    tell_gone(e, o, o.leaves, 0)
    take_out(m, book, o, side, slot_of(book, o.price))
    retire_working(m, o, slot, CANCELLED)


cdef inline void uncount(Market* m, Instrument* book, Position* p, Order* o,
                         u8 side) noexcept nogil:
    """Take an order that is about to leave out of counts and sums; the hold is still to follow."""
    put_back(m, book, p, side, o.price, o.leaves)
    book.working_orders -= 1
    p.owner.open_orders -= 1


cdef inline bint cancel_side(Market* m, Order* o, u32 slot, u8 side) noexcept nogil:
    cdef Position* p = &m.positions[o.position]
    cdef Instrument* book = &m.instruments[instrument_of(p)]
    cdef i64 change
    uncount(m, book, p, o, side)
    change = hold_for(book, p) + p.adverse - p.hold  # not positive: nothing overflows
    ensure(m, change <= 0)
    p.hold += change
    p.owner.excess -= change
    p.owner.member.excess -= change
    leave(m, book, p, o, slot, EVENT_FLAG_LAST_IN_COMMAND, side, CANCEL_REASON_REQUESTED)
    return True


cdef inline bint cancel_plain(Market* m, Command* c) noexcept nogil:
    """CANCEL, without a request id, of a limit order in the book."""
    cdef u32 slot
    cdef Order* o = named_plainly(m, c, &slot)
    if unlikely(o == NULL):
        return False
    if c.side:
        return cancel_side(m, o, slot, 1)
    return cancel_side(m, o, slot, 0)


cdef inline bint reduce_side(Market* m, Command* c, Order* o, u32 slot, u8 side) noexcept nogil:
    cdef Position* p = &m.positions[o.position]
    cdef Instrument* book = &m.instruments[instrument_of(p)]
    cdef u32 lots = c.quantity
    if unlikely(lots - 1 >= o.leaves - 1 or book.watched & WATCH_STEPS):
        return False
    lessen(m, book, p, o, slot, lots, side)
    end_command(m)
    return True


cdef inline bint reduce_plain(Market* m, Command* c) noexcept nogil:
    """REDUCE, without a request id, of a limit order in the book, by less than all of it."""
    cdef u32 slot
    cdef Order* o = named_plainly(m, c, &slot)
    if unlikely(o == NULL):
        return False
    if c.side:
        return reduce_side(m, c, o, slot, 1)
    return reduce_side(m, c, o, slot, 0)


cdef inline void succeed(Market* m, Command* c, Move* to, Order* o, u32 slot,
                         u8 side) noexcept nogil:
    """Cancel an order as REPLACED and take the slot of its successor, `to.slot`."""
    leave(m, to.book, to.p, o, slot, 0, side, CANCEL_REASON_REPLACED)
    to.slot = take_known_slot(m, to.account, to.place, to.hash)


cdef inline bint replace_side(Market* m, Command* c, Order* o, u32 slot, Account* account,
                              u8 side, bint watched) noexcept nogil:
    cdef i64 adverse = 0
    cdef Move to
    to.account = account
    to.position = o.position
    to.p = &m.positions[to.position]
    to.book = &m.instruments[instrument_of(to.p)]
    to.tif = tif_of(o)
    if not watched and unlikely(not trades_plainly(to.book)):
        return replace_watched(m, c, to.book)
    if unlikely(to.tif > TIME_IN_FORCE_DAY
                or not is_amount(c, to.book, account) or not is_on_grid(c, to.book, &to.at)):
        return False
    if watched and not lets_pass(m, to.book, to.p, c, side, <i64>c.quantity - o.leaves,
                                 crosses(&to, side)):
        return False
    to.price = c.price
    if to.p.adverse:  # else no order of the position has any
        adverse = adverse_of(to.book, side, o.price, o.leaves)
    to.adverse = adverse_of(to.book, side, to.price, c.quantity)
    if unlikely(not is_covered(&to, side, c.quantity, True, o.leaves, adverse)
                or not is_new(m, c, &to) or not slots_left(m) or not has_token(m, account)):
        return False
    take_token(m, account)
    if crosses(&to, side):
        uncount(m, to.book, to.p, o, side)
        succeed(m, c, &to, o, slot, side)
        trade_through(m, c, &to, side, 0, 1, 0, watched)
        return True
    read_again()
    hold_more(&to, side, <i64>c.quantity - o.leaves, to.adverse - adverse)
    succeed(m, c, &to, o, slot, side)
    place(m, c, &to, side, 1, 0)
    if watched:
        rested_beside(m, to.book)
    return True


cdef inline bint replace_plain(Market* m, Command* c, bint watched) noexcept nogil:
    """REPLACE of a limit order in the book by another under a new id."""
    cdef Account* account = &m.accounts[c.account]
    cdef u32 slot
    cdef Order* o
    if unlikely(c.stp > SELF_TRADE_DECREMENT or c.key_lo == 0 or not is_entitled(m, c)):
        return False
    o = named(m, c, NAMED_NEW_ID, True, &slot)
    if unlikely(o == NULL):
        return False
    if c.side:
        return replace_side(m, c, o, slot, account, 1, watched)
    return replace_side(m, c, o, slot, account, 0, watched)
