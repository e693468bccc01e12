"""Auctions: orders are collected while they may cross, then trade at one price in one pass.

While an instrument collects, its own ladder has the buys alone and a second one the sells, so
neither is ever crossed; market orders wait beside them in two queues. The pass takes buyers and
sellers in their order and pairs them until one side has no more; it never looks back. Two orders
of one self-trade group lose the lots they would have traded: so the pass takes the same lots off
both sides whoever they belong to, and what it leaves is not crossed.
"""

from libc.stdlib cimport calloc, free

from exchange.engine.book cimport (
    append, next_best, occupied_above, occupied_below, occupy, price_of, reaches, rest, slot_of,
    take_out, unlink, vacate,
)
from exchange.engine.call cimport Found, find_price
from exchange.engine.extras cimport hide, stops_of
from exchange.engine.guards cimport rests
from exchange.engine.groups cimport part
from exchange.engine.ids cimport retire
from exchange.engine.ladder cimport build_ladder
from exchange.engine.lifecycle cimport cancel_for, reject, shrink, withdraw, work_aside, pick
from exchange.engine.protection cimport count_quote
from exchange.engine.risk cimport adverse_per_lot, charge, execute, rehold
from exchange.engine.state cimport (
    AT_MARKET, Auction, COLLECTED, Command, Event, FILLED, Instrument, Level, Market, NO_ASK,
    NO_BID, Order, Position, UNPRICED, WATCH_AUCTION, WATCH_STOPS, WORKING, account_of, auction_of,
    blank, collects, emit, ensure, event_of, i32, i64, is_featured, is_live, lots_of, order_id_of,
    prefetch, set_order_state, side_of, tif_stp_of, u32, u64, u8, unlikely, what,
)
from exchange.engine.stops cimport elect, say_elected
from exchange.engine.vocabulary cimport *

cdef enum:
    REPRICED = 2  # reason of ORDER_REPLACED: by an auction
    NO_LEVEL = -2  # the queue of market orders


# --- collecting

cdef void move_level(Market* m, Instrument* source, Instrument* target, i32 at,
                     u8 state) noexcept nogil:
    """A level of sells goes to the other ladder as it is."""
    cdef u32 slot = source.levels[at].head
    while slot:
        set_order_state(&m.orders[slot], state)
        slot = m.orders[slot].next
    target.levels[at] = source.levels[at]
    source.levels[at] = Level(0, 0, 0)
    vacate(source, at)
    occupy(target, at)


cdef void move_sells(Market* m, Instrument* source, Instrument* target, u8 state) noexcept nogil:
    cdef i32 at = source.best[1]
    target.best[1] = at
    source.best[1] = NO_ASK
    while at != NO_ASK:
        move_level(m, source, target, at, state)
        at = occupied_above(source, at)


cdef bint collect(Market* m, Instrument* book) noexcept nogil:
    """From now on orders are kept for an auction. False without memory: the engine stops."""
    cdef Auction* a
    if collects(book):
        return True
    a = <Auction*>calloc(1, sizeof(Auction))
    if a == NULL:
        m.broken = 1
        return False
    a.asks = book[0]
    if not build_ladder(m, &a.asks):
        free(a)
        return False
    m.auctions[book - m.instruments] = a
    book.watched |= WATCH_AUCTION
    move_sells(m, book, &a.asks, COLLECTED)
    return True


cdef void stop_collecting(Market* m, Instrument* book) noexcept nogil:
    """One ladder again, of a book that is not crossed and has no market orders."""
    cdef Auction* a = auction_of(m, book)
    if not collects(book):
        return
    ensure(m, a.market[0].head == 0 and a.market[1].head == 0)
    ensure(m, book.best[0] < a.asks.best[1])
    move_sells(m, &a.asks, book, WORKING)
    free(a.asks.levels)
    free(a.asks.bits)
    free(a)
    m.auctions[book - m.instruments] = NULL
    book.watched &= ~<u32>WATCH_AUCTION


cdef u32 join(Market* m, Instrument* book, u32 slot, bint unpriced) noexcept nogil:
    """An order that is in no queue waits for the auction with all its lots, which are its leaves.
    Returns what it shows of them."""
    cdef Auction* a = auction_of(m, book)
    cdef Order* o = &m.orders[slot]
    cdef u8 side = side_of(o)
    work_aside(m, book, slot)
    if is_featured(o):
        hide(m, slot)
    if tif_stp_of(o) & 15 == TIME_IN_FORCE_GFA:
        a.good_for = True
    if unpriced:
        set_order_state(o, UNPRICED)
        append(m, &a.market[side], slot)
    else:
        set_order_state(o, COLLECTED if side else WORKING)
        rest(m, &a.asks if side else book, slot, side, slot_of(book, o.price))
    return o.leaves


cdef void cancel_unpriced(Market* m, Instrument* book) noexcept nogil:
    """The limits moved: market orders that are held at an old far limit are cancelled."""
    cdef Auction* a = auction_of(m, book)
    cdef i64[2] far = [book.high, book.low]
    cdef u32 slot, following
    cdef int side
    for side in range(2):
        slot = a.market[side].head
        while slot:
            following = m.orders[slot].next
            if m.orders[slot].price != far[side]:
                cancel_for(m, slot, CANCEL_REASON_LIMITS_MOVED)
            slot = following


# --- the pass

cdef struct Party:  # one side of the pass: the order in hand and where it stands
    Instrument* ladder
    Level* queue
    Order* order  # NULL: nobody is left who may trade
    Position* position
    i64 price  # of its level
    i32 at, limit  # slot of its level; the last slot that may trade
    u32 slot
    i64 lots, value, fees  # of the order in hand, not booked yet
    u64 taken  # lots that its level showed and that were traded
    u8 side


cdef void tell_level(Market* m, Instrument* book, Party* t) noexcept nogil:
    """LEVEL_TAKEN: what trades took off the level that is left now."""
    cdef Event* e
    if t.taken == 0:
        return
    e = blank(m, EVENT_KIND_LEVEL_TAKEN, t.side << 1, 0, <u32>(book - m.instruments), 0)
    e.price = t.price
    e.a = t.taken
    t.taken = 0


cdef void take_hand(Market* m, Party* t) noexcept nogil:
    """The first order of the party's queue is next."""
    t.slot = t.queue.head
    t.order = &m.orders[t.slot]
    t.position = &m.positions[t.order.position]
    prefetch(&m.orders[t.order.next])
    t.lots = 0
    t.value = 0
    t.fees = 0


cdef void enter_level(Market* m, Instrument* book, Party* t, i32 at) noexcept nogil:
    """Go on with the best level of the ladder, if it may trade."""
    t.at = at
    if not reaches(t.side, at, t.limit):
        t.order = NULL
        return
    t.queue = &t.ladder.levels[at]
    t.price = price_of(book, at)
    take_hand(m, t)


cdef void start(Market* m, Instrument* book, Party* t, u8 side, i32 limit) noexcept nogil:
    cdef Auction* a = auction_of(m, book)
    t.side = side
    t.ladder = &a.asks if side else book
    t.limit = limit
    t.taken = 0
    if a.market[side].head == 0:
        enter_level(m, book, t, t.ladder.best[side])
        return
    t.at = NO_LEVEL
    t.queue = &a.market[side]
    t.price = book.low if side else book.high
    take_hand(m, t)


cdef void put_away(Market* m, Instrument* book, Party* t) noexcept nogil:
    """Book what the order in hand traded."""
    cdef Position* p = t.position
    if t.lots == 0:
        return
    p.exposure[t.side] -= t.lots  # they worked; `execute` adds them to net
    if p.adverse:
        p.adverse -= t.lots * adverse_per_lot(book, t.side, t.order.price)
    execute(m, book, p, t.side, t.lots, t.value, t.fees)


cdef void go_on(Market* m, Instrument* book, Party* t) noexcept nogil:
    """The order in hand has left its queue: take up the next one."""
    if t.queue.head:
        take_hand(m, t)
        return
    tell_level(m, book, t)
    enter_level(m, book, t, t.ladder.best[t.side])


cdef void fill(Market* m, Instrument* book, Party* t) noexcept nogil:
    """The order in hand has traded whole: it leaves, and the next one is taken up."""
    cdef u32 following = t.order.next
    put_away(m, book, t)
    t.queue.head = following
    if following:
        m.orders[following].prev = 0
    else:
        t.queue.tail = 0
        if t.at != NO_LEVEL:
            vacate(t.ladder, t.at)
            next_best(t.ladder, t.side, t.at)
    t.position.owner.open_orders -= 1
    book.working_orders -= 1
    retire(m, t.slot, FILLED)
    go_on(m, book, t)


cdef bint lose(Market* m, Instrument* book, Party* t, u32 lots) noexcept nogil:
    """An order that met one of its own group loses lots without trading; whether it is gone."""
    if lots < lots_of(m, t.slot):
        shrink(m, t.slot, lots, CANCEL_REASON_SELF_TRADE)
        return False
    put_away(m, book, t)
    cancel_for(m, t.slot, CANCEL_REASON_SELF_TRADE)
    return True


cdef void take_special(Market* m, u32 slot, u32 lots) noexcept nogil:
    """A special order has traded: the other of its group is cancelled after the pass."""
    cdef u32 other = part(m, slot)
    if other:
        pick(m, other)
    if m.extras[slot].features & ORDER_FEATURE_QUOTE:
        count_quote(m, slot, lots)


cdef void cancel_parted(Market* m) noexcept nogil:
    """What traded in the same pass is left alone if nothing of it is left."""
    cdef u32 i
    for i in range(m.picked_count):
        if is_live(&m.orders[m.picked[i]]):
            cancel_for(m, m.picked[i], CANCEL_REASON_GROUP)


cdef inline void take(Market* m, Party* t, u32 lots, i64 value, i64 fee) noexcept nogil:
    """A trade takes lots off the order in hand, first those that nobody sees."""
    cdef u32 shown = lots
    cdef u32 hidden
    t.order.executed += lots
    t.lots += lots
    t.value += value
    t.fees += fee
    if unlikely(is_featured(t.order)):
        hidden = m.extras[t.slot].hidden
        hidden = hidden if hidden < lots else lots
        m.extras[t.slot].hidden -= hidden
        shown -= hidden
        take_special(m, t.slot, lots)
    t.order.leaves -= shown
    t.queue.quantity -= shown
    t.taken += shown


cdef void trade(Market* m, Instrument* book, Party* buy, Party* sell, i64 price,
                u32 lots) noexcept nogil:
    """One match at the auction's price. Nobody is incoming: each side pays half of what a maker
    and a taker pay, an odd micro-dollar the buyer."""
    cdef i64 value = lots * (price * book.tick_value)
    cdef i64 fees = lots * (book.maker_fee + book.taker_fee)
    cdef i64 sell_fee = fees / 2
    cdef Event* e = emit(m, what(EVENT_KIND_TRADE, EVENT_FLAG_AUCTION, 0), buy.position.who)
    take(m, buy, lots, value, fees - sell_fee)
    take(m, sell, lots, value, sell_fee)
    e.order_id = order_id_of(m, buy.slot)
    e.price = price
    e.quantity = lots
    e.leaves = lots_of(m, buy.slot)
    e.key_lo = order_id_of(m, sell.slot)
    e.key_hi = <u64>lots_of(m, sell.slot) << 32 | account_of(sell.position)
    e.a = sell_fee - fees
    e.b = -sell_fee


cdef void meet_own(Market* m, Instrument* book, Party* buy, Party* sell, u32 lots) noexcept nogil:
    """Two orders of one group lose the lots that they would have traded."""
    cdef bint bought = lose(m, book, buy, lots)
    cdef bint sold = lose(m, book, sell, lots)
    if bought:
        go_on(m, book, buy)
    if sold:
        go_on(m, book, sell)


cdef void pair_off(Market* m, Instrument* book, i64 price) noexcept nogil:
    """Buyers and sellers in their order, until one side has no more."""
    cdef i32 limit = slot_of(book, price)
    cdef Party buy, sell
    cdef i64 house = 0
    cdef u32 lots, offered
    m.picked_count = 0
    start(m, book, &buy, 0, limit)
    start(m, book, &sell, 1, limit)
    while buy.order != NULL and sell.order != NULL:
        lots = lots_of(m, buy.slot)
        offered = lots_of(m, sell.slot)
        lots = lots if lots < offered else offered
        if buy.position.owner.group == sell.position.owner.group:
            meet_own(m, book, &buy, &sell, lots)
            continue
        trade(m, book, &buy, &sell, price, lots)
        house += lots * (book.maker_fee + book.taker_fee)
        if buy.order.leaves == 0:
            fill(m, book, &buy)
        if sell.order.leaves == 0:
            fill(m, book, &sell)
    if buy.order != NULL:
        put_away(m, book, &buy)
    if sell.order != NULL:
        put_away(m, book, &sell)
    tell_level(m, book, &buy)
    tell_level(m, book, &sell)
    if house:
        charge(m, &m.accounts[0], 0, 0, house)
    cancel_parted(m)


# --- what is left

cdef void reprice(Market* m, Instrument* book, u32 slot, i64 price) noexcept nogil:
    """What is left of a market order becomes a limit order at the auction's price."""
    cdef Auction* a = auction_of(m, book)
    cdef Order* o = &m.orders[slot]
    cdef Position* p = &m.positions[o.position]
    cdef u8 side = side_of(o)
    cdef u32 lots = lots_of(m, slot)
    cdef Event* e = emit(m, what(EVENT_KIND_ORDER_REPLACED, EVENT_FLAG_RESTING | side << 1,
                                 REPRICED), p.who)
    e.order_id = order_id_of(m, slot)
    e.price = price
    e.quantity = lots + o.executed
    e.leaves = o.leaves
    e.key_lo = o.key_lo
    e.key_hi = o.key_hi
    e.a = o.price
    e.b = o.leaves | <i64>(lots - o.leaves) << 32
    unlink(m, &a.market[side], o)
    p.adverse += lots * (adverse_per_lot(book, side, price)
                         - adverse_per_lot(book, side, o.price))
    rehold(m, book, p)
    o.price = price
    set_order_state(o, COLLECTED if side else WORKING)
    rest(m, &a.asks if side else book, slot, side, slot_of(book, price))


cdef void end_market_orders(Market* m, Instrument* book, Found* found) noexcept nogil:
    cdef Auction* a = auction_of(m, book)
    cdef u32 slot, following
    cdef int side
    for side in range(2):
        slot = a.market[side].head
        while slot:
            following = m.orders[slot].next
            if tif_stp_of(&m.orders[slot]) & 15 == TIME_IN_FORCE_GFA:
                cancel_for(m, slot, CANCEL_REASON_AUCTION_ENDED)
            elif found.executed == 0:
                cancel_for(m, slot, CANCEL_REASON_MARKET_REMAINDER)
            else:
                reprice(m, book, slot, found.price)
            slot = following


cdef void end_good_for(Market* m, Instrument* ladder, u8 side) noexcept nogil:
    """Cancel the GFA orders of one ladder, best level first, oldest first."""
    cdef i32 at = ladder.best[side]
    cdef u32 slot, following
    while NO_BID < at < NO_ASK:
        slot = ladder.levels[at].head
        while slot:
            following = m.orders[slot].next
            if tif_stp_of(&m.orders[slot]) & 15 == TIME_IN_FORCE_GFA:
                cancel_for(m, slot, CANCEL_REASON_AUCTION_ENDED)
            slot = following
        at = occupied_above(ladder, at) if side else occupied_below(ladder, at)


cdef void say_found(Market* m, Instrument* book, u8 kind, Found* found) noexcept nogil:
    cdef Event* e = blank(m, kind, 0, 0, <u32>(book - m.instruments), 0)
    e.price = found.price
    e.leaves = found.executed != 0
    e.a = found.executed
    e.b = found.surplus


cdef Found find_with_stops(Market* m, Instrument* book) noexcept nogil:
    """The price, and again with the stops that it elects, until it elects no more that may join or
    the rounds are spent: what is elected by then and has not joined comes in after the auction."""
    cdef Found found
    cdef u32 rounds = 0
    join_elected(m, book)
    while True:
        found = find_price(m, book)
        if found.executed == 0 or rounds == LIMIT_AUCTION_ROUNDS:
            return found
        if not book.watched & WATCH_STOPS:
            return found
        elect(m, book, found.price)
        if not join_elected(m, book):
            return found
        rounds += 1


cdef bint join_elected(Market* m, Instrument* book) noexcept nogil:
    """Elected stops that rest at a limit of the day join the auction, in their order:
    ORDER_ELECTED. Whether there was one."""
    cdef u32 slot = stops_of(m, book).elected.head
    cdef u32 following
    cdef bint joined = False
    while slot:
        following = m.orders[slot].next
        if may_join(m, book, slot):
            withdraw(m, book, &m.positions[m.orders[slot].position], slot)
            say_elected(m, slot)
            event_of(m, m.index - 1).leaves = join(m, book, slot, False)
            joined = True
        slot = following
    return joined


cdef bint may_join(Market* m, Instrument* book, u32 slot) noexcept nogil:
    """Whether an elected stop is an order that an auction takes."""
    cdef Order* o = &m.orders[slot]
    return (rests(tif_stp_of(o) & 15) and not m.extras[slot].features & AT_MARKET
            and book.low <= o.price <= book.high)


cdef void uncross(Market* m, Instrument* book) noexcept nogil:
    """End the collecting: trade at one price, and leave a book that is not crossed."""
    cdef Found found
    if not collects(book):
        return
    found = find_with_stops(m, book)
    say_found(m, book, EVENT_KIND_AUCTION_UNCROSSED, &found)
    if found.executed:
        pair_off(m, book, found.price)
    end_market_orders(m, book, &found)
    if auction_of(m, book).good_for:
        end_good_for(m, book, 0)
        end_good_for(m, &auction_of(m, book).asks, 1)
    stop_collecting(m, book)


cdef void indicate(Market* m, Command* c) noexcept nogil:
    """Where the orders collected so far would trade, if they were uncrossed now."""
    cdef Instrument* book
    cdef Found found
    if c.instrument >= m.instrument_count:
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return
    book = &m.instruments[c.instrument]
    if book.state != TRADING_STATE_PRE_OPEN and book.state != TRADING_STATE_AUCTION:
        reject(m, c, REASON_STATE, TRADING_STATE_AUCTION, book.state)
        return
    found = find_price(m, book)
    say_found(m, book, EVENT_KIND_AUCTION_INDICATED, &found)
