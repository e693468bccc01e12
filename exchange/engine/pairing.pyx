"""An auction's trades: one pass over the orders of both sides that may trade at its price.

Each side has one order in hand. The orders of a level are a linked list scattered in memory, so a
few levels that come later are walked ahead (lanes): their orders are prefetched while others trade.
What positions have traded is kept as dues and booked at the end, once for a side of a position,
however many of its orders traded. A cancel in between changes holds by differences, so the two add
up.
"""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from exchange.engine.book cimport (
    next_best, occupied_above, occupied_below, price_of, reaches, slot_of, vacate,
)
from exchange.engine.events cimport blank, emit, make_room, what
from exchange.engine.groups cimport beside
from exchange.engine.ids cimport bucket_of, free_slot, hash_of, marked, retire
from exchange.engine.lifecycle cimport cancel_for, shrink, tell_group
from exchange.engine.protection cimport count_quote
from exchange.engine.risk cimport adverse_per_lot, charge, execute, product_overflows
from exchange.engine.state cimport (
    AGED, Auction, Event, FILLED, Instrument, Level, Market, Order, Position, account_of,
    auction_of, i32, i64, is_aged, is_featured, is_live, likely, lots_of, order_id_of, pair,
    prefetch, set_order_state, side_of, u32, u64, u8, unlikely,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    NO_LEVEL = -2  # the queue of market orders
    DUES = 256  # dues there is room for at first
    LANES = 4  # levels of a side that are walked ahead


cdef struct Due:  # what a side of a position has traded in the pass and is not booked yet
    Position* position
    i64 lots, adverse, fees
    u32 account, group
    u32 orders  # its orders that are filled
    u32 spare

cdef struct Party:  # one side of the pass: the order in hand and where it stands
    Instrument* ladder
    Level* queue
    Order* order  # in hand; NULL: none is left that may trade
    u64 order_id
    i64 price  # of its level
    i32 at, limit  # slot of its level; the last slot that may trade
    i32 ahead  # slot of the next level to be walked ahead
    u32 lane  # the lane whose turn it is
    u32[LANES] lanes  # each an order of a level that comes later, 0 = none
    u32 slot, account, group
    u64 hash  # of its key
    u32 offered  # lots that the order in hand has left
    u32 traded  # lots that it has traded, not yet taken off it
    u32 due  # the number of its Due
    i64 adverse  # adverse amount of a lot at its level
    u64 taken  # shown lots of its level that have traded and are not told yet
    u8 side

cdef struct Pass:
    Instrument* book
    u32 number
    i64 price
    i64 value, fees  # of a lot: its value at the price, the fees of both sides together
    Due* dues  # the first one stands for none
    u32 due_count, due_room
    Party[2] sides


cdef void tell_level(Market* m, Pass* x, Party* t) noexcept nogil:
    """LEVEL_TAKEN: the shown lots that traded off the level that the pass leaves."""
    cdef Event* e
    if t.taken == 0:
        return
    e = blank(m, EVENT_KIND_LEVEL_TAKEN, t.side << 1, 0, x.number, 0)
    e.price = t.price
    e.a = t.taken
    t.queue.quantity -= t.taken
    t.taken = 0


cdef u32 open_due(Market* m, Pass* x, u32 position, u8 side) noexcept nogil:
    """Begin the Due of a side of a position at its first order; returns its number."""
    cdef Position* p = &m.positions[position]
    cdef Due* grown = x.dues
    cdef u32 room = x.due_room
    if x.due_count == room:
        room = 2 * room
        grown = <Due*>realloc(x.dues, room * sizeof(Due))
        if grown == NULL:
            m.broken = 1
            return 0
        x.dues = grown
        x.due_room = room
    x.dues[x.due_count] = Due(p, 0, 0, 0, account_of(p), p.owner.group, 0, 0)
    m.due_of[2 * position + side] = x.due_count
    x.due_count += 1
    return x.due_count - 1


cdef inline void look_ahead(Market* m, Party* t) noexcept nogil:
    """Prefetch the next order of the lane whose turn it is."""
    cdef u32* lane = &t.lanes[t.lane]
    cdef Order* o = &m.orders[lane[0]]
    t.lane = (t.lane + 1) % LANES
    lane[0] = o.next if likely(is_live(o)) else 0
    if unlikely(lane[0] == 0) and reaches(t.side, t.ahead, t.limit):
        lane[0] = t.ladder.levels[t.ahead].head
        t.ahead = (occupied_above(t.ladder, t.ahead) if t.side
                   else occupied_below(t.ladder, t.ahead))
    prefetch(&m.orders[lane[0]])


cdef inline void take_hand(Market* m, Pass* x, Party* t) noexcept nogil:
    """Take up the first order of the party's queue."""
    cdef u32 slot = t.queue.head
    cdef Order* o = &m.orders[slot]
    cdef u32 due = m.due_of[2 * o.position + t.side]
    prefetch(&m.orders[o.next])
    look_ahead(m, t)
    if unlikely(due == 0):
        due = open_due(m, x, o.position, t.side)
    t.due = due
    t.account = x.dues[due].account
    t.group = x.dues[due].group
    t.hash = marked(hash_of(t.account, o.key_lo))
    prefetch(bucket_of(m, t.hash))
    t.slot = slot
    t.order = o
    t.order_id = order_id_of(m, slot)
    t.offered = lots_of(m, slot)
    t.traded = 0


cdef void enter_queue(Market* m, Pass* x, Party* t, i32 at, Level* queue,
                      i64 price) noexcept nogil:
    """Go on with a queue, whose orders' holds are for `price`."""
    t.at = at
    t.queue = queue
    t.price = price
    t.adverse = adverse_per_lot(x.book, t.side, price)
    take_hand(m, x, t)


cdef void enter_level(Market* m, Pass* x, Party* t, i32 at) noexcept nogil:
    """Go on with the best level of the ladder, if it may trade."""
    if not reaches(t.side, at, t.limit):
        t.order = NULL
        return
    enter_queue(m, x, t, at, &t.ladder.levels[at], price_of(x.book, at))


cdef void start(Market* m, Pass* x, u8 side) noexcept nogil:
    cdef Auction* a = auction_of(m, x.book)
    cdef Party* t = &x.sides[side]
    cdef i64 far
    t.side = side
    t.ladder = &a.asks if side else x.book
    t.limit = slot_of(x.book, x.price)
    t.taken = 0
    t.ahead = t.ladder.best[side]
    t.lane = 0
    memset(t.lanes, 0, sizeof(t.lanes))
    if a.market[side].head:
        far = x.book.low if side else x.book.high
        enter_queue(m, x, t, NO_LEVEL, &a.market[side], far)
    else:
        enter_level(m, x, t, t.ladder.best[side])


cdef inline void put_away(Market* m, Pass* x, Party* t) noexcept nogil:
    """Take the traded lots off the order in hand, hidden ones first, and add them to its Due."""
    cdef Order* o = t.order
    cdef Due* due = &x.dues[t.due]
    cdef u32 shown = t.traded
    cdef u32 hidden
    if unlikely(is_featured(o)):
        hidden = m.extras[t.slot].hidden
        hidden = hidden if hidden < shown else shown
        m.extras[t.slot].hidden -= hidden
        shown -= hidden
    o.executed += t.traded
    o.leaves -= shown
    t.taken += shown
    due.lots += t.traded
    due.adverse += t.traded * t.adverse
    t.traded = 0


cdef inline void end_filled(Market* m, Party* t) noexcept nogil:
    """`retire` as FILLED, with fewer tests for an order without flags but AGED."""
    cdef Order* o = t.order
    if unlikely((o.traits >> 24) & ~AGED):
        retire(m, t.slot, FILLED)
        return
    set_order_state(o, FILLED)
    o.leaves = 0
    o.prev = 0
    o.next = 0
    if is_aged(o):
        free_slot(m, t.slot, t.hash)


cdef inline void go_on(Market* m, Pass* x, Party* t) noexcept nogil:
    """The order in hand has left its queue: take up the next one."""
    if likely(t.queue.head != 0):
        take_hand(m, x, t)
        return
    tell_level(m, x, t)
    enter_level(m, x, t, t.ladder.best[t.side])


cdef inline void fill(Market* m, Pass* x, Party* t) noexcept nogil:
    """The order in hand is filled: it leaves its queue, and the next one is taken up."""
    cdef u32 following = t.order.next
    put_away(m, x, t)
    t.queue.head = following
    if likely(following != 0):
        m.orders[following].prev = 0
    else:
        t.queue.tail = 0
        if t.at != NO_LEVEL:
            vacate(t.ladder, t.at)
            next_best(t.ladder, t.side, t.at)
    x.dues[t.due].orders += 1
    end_filled(m, t)
    go_on(m, x, t)


cdef bint lose(Market* m, Pass* x, Party* t, u32 lots) noexcept nogil:
    """An order that met one of its own self-trade group loses lots without trading; whether it is
    gone. If it is, its partner on the same side, whose lots the price did not count, goes with
    it."""
    cdef u32 other = beside(m, t.slot)
    put_away(m, x, t)
    t.offered -= lots
    if t.offered:
        shrink(m, t.slot, lots, CANCEL_REASON_SELF_TRADE)
        return False
    cancel_for(m, t.slot, CANCEL_REASON_SELF_TRADE)
    if other and side_of(&m.orders[other]) == t.side:
        cancel_for(m, other, CANCEL_REASON_GROUP)
    return True


cdef void meet_own(Market* m, Pass* x, u32 lots) noexcept nogil:
    """The orders in hand are of one self-trade group: both lose the lots they would have traded."""
    cdef bint bought = lose(m, x, &x.sides[0], lots)
    cdef bint sold = lose(m, x, &x.sides[1], lots)
    if bought:
        go_on(m, x, &x.sides[0])
    if sold:
        go_on(m, x, &x.sides[1])


cdef void take_special(Market* m, Party* t, u32 lots) noexcept nogil:
    """A FEATURED order has traded: count a quote's lots, cancel a partner. The partner is not in
    hand: on the same side it comes later, and on the other side the order in hand is of another
    account."""
    if m.extras[t.slot].features & ORDER_FEATURE_QUOTE:
        count_quote(m, t.slot, lots)
    tell_group(m, t.slot)


cdef inline void take(Pass* x, Party* t, u32 lots, i64 fee) noexcept nogil:
    """A trade takes lots off what the order in hand offers."""
    t.offered -= lots
    t.traded += lots
    x.dues[t.due].fees += fee


cdef inline void trade(Market* m, Pass* x, u32 lots) noexcept nogil:
    """One match: TRADE. Neither side is incoming: each pays half of maker and taker fee together,
    the buyer an odd micro-dollar."""
    cdef Party* buy = &x.sides[0]
    cdef Party* sell = &x.sides[1]
    cdef i64 fees = lots * x.fees
    cdef i64 sell_fee = fees / 2
    cdef Event* e = emit(m, what(EVENT_KIND_TRADE, EVENT_FLAG_AUCTION, 0),
                         pair(x.number, buy.account))
    take(x, buy, lots, fees - sell_fee)
    take(x, sell, lots, sell_fee)
    e.order_id = buy.order_id
    e.price = x.price
    e.quantity = lots
    e.leaves = buy.offered
    e.key_lo = sell.order_id
    e.key_hi = <u64>sell.offered << 32 | sell.account
    e.a = sell_fee - fees
    e.b = -sell_fee
    if unlikely(is_featured(buy.order)):
        take_special(m, buy, lots)
    if unlikely(is_featured(sell.order)):
        take_special(m, sell, lots)


cdef void match_all(Market* m, Pass* x) noexcept nogil:
    """Pair buyers and sellers in their order until one side has no more that may trade."""
    cdef Party* buy = &x.sides[0]
    cdef Party* sell = &x.sides[1]
    cdef u32 lots
    cdef u32 done
    start(m, x, 0)
    start(m, x, 1)
    while buy.order != NULL and sell.order != NULL:
        lots = buy.offered if buy.offered < sell.offered else sell.offered
        if unlikely(buy.group == sell.group):
            meet_own(m, x, lots)
            continue
        trade(m, x, lots)
        done = buy.offered != 0  # the side that is filled, as an index: a branch would mispredict
        fill(m, x, &x.sides[done])
        if unlikely(done == 0 and sell.offered == 0):
            fill(m, x, sell)
    if buy.order != NULL:
        put_away(m, x, buy)
    if sell.order != NULL:
        put_away(m, x, sell)
    tell_level(m, x, buy)
    tell_level(m, x, sell)


cdef void book_dues(Market* m, Pass* x) noexcept nogil:
    """Book the dues, once for a side of a position, then the house's fees."""
    cdef i64 bought = 0
    cdef Due* due
    cdef u32* due_of
    cdef u32 i
    cdef u8 side
    for i in range(1, x.due_count):
        due = &x.dues[i]
        due_of = &m.due_of[2 * (due.position - m.positions)]
        side = due_of[0] != i
        due_of[side] = 0
        if due.lots == 0:
            continue
        due.position.owner.open_orders -= due.orders
        x.book.working_orders -= due.orders
        due.position.exposure[side] -= due.lots  # they worked; `execute` adds them to net
        due.position.adverse -= due.adverse
        execute(m, x.book, due.position, side, due.lots, due.lots * x.value, due.fees)
        if side == 0:
            bought += due.lots
    if unlikely(product_overflows(bought, x.fees, &bought)):  # `bound` limits one position, not all
        m.broken = 2
    elif bought:
        charge(m, &m.accounts[0], 0, 0, bought)


cdef void pair_off(Market* m, Instrument* book, i64 price) noexcept nogil:
    """Trade all orders that may trade at the auction's price. The caller has told the price."""
    cdef Pass x
    x.book = book
    x.number = <u32>(book - m.instruments)
    x.price = price
    x.value = price * book.tick_value
    x.fees = book.maker_fee + book.taker_fee
    x.due_count = 1
    x.due_room = DUES
    x.dues = <Due*>malloc(x.due_room * sizeof(Due))
    if x.dues == NULL:
        m.broken = 1
        return
    x.dues[0] = Due(NULL, 0, 0, 0, 0, 0, 0, 0)
    make_room(m, book.working_orders)
    match_all(m, &x)
    book_dues(m, &x)
    free(x.dues)
