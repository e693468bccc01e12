"""The full self-check: every invariant, recomputed slowly from first principles. An AssertionError
names the one that is broken and where. Not for the hot path: it uses Python objects."""

from exchange.engine.book cimport occupied_above, price_of
from exchange.engine.combinations cimport side_in, times
from exchange.engine.groups cimport (
    FOLLOWED_FEATURES, features_of, partner_of, room_to_reduce,
)
from exchange.engine.ids cimport book_of, bucket_of, find_key, home_of, owner_of
from exchange.engine.ladder cimport lowest
from exchange.engine.months cimport check_allowances
from exchange.engine.risk cimport absolute, adverse_per_lot, hold_of, position_of, required_of
from exchange.engine.safety cimport watch_of
from exchange.engine.state cimport (
    Bucket, Known, WATCH_BREAKER, WATCH_LIMITS, Account, Auction, COLLECTED, COMBINED, CREDITED,
    Composite, DORMANT, ELECTED, EXPIRES, Extra, FREE, Instrument, Level, Market, NO_ASK,
    NO_BID, Order, Position, RECEIPT, Stops, UNPRICED, WAITING, WATCH_CREDIT, WATCH_HIDDEN,
    WATCH_QUOTES, WATCH_STEPS, WATCH_STOPS, WORKING, account_of, collects, i32, instrument_of,
    is_aged, is_continuous, is_featured, is_live, is_past, is_vacant, legs_open, lots_of,
    side_of, state_of, tif_of, u32, u64, u8, working_of,
)
from exchange.engine.vocabulary cimport *


cdef int ensure(bint holds, str invariant, object where) except -1:
    if not holds:
        raise AssertionError(f"{invariant}: {where}")
    return 0


cdef int check_legs(Market* m, Order* o, Position* p, dict sums, u32 slot) except -1:
    """Check an order's COMBINED flag; add its lots to the sums of its legs' positions."""
    cdef Composite* made = &m.composites[instrument_of(p)]
    cdef u32 i, at
    ensure(((o.traits >> 24) & COMBINED != 0) == (made.legs != 0), "COMBINED orders", slot)
    for i in range(made.legs):
        at = position_of(p.owner, made.leg[i])
        ensure(at != 0, "a combination's order has positions in its legs", slot)
        working = sums.setdefault(at, [0, 0, 0])
        working[side_in(side_of(o), made.ratio[i])] += o.leaves * times(made.ratio[i])
    return 0


cdef u32 check_queue(Market* m, Level* level, u8 state, dict sums, object where) except? 0xFFFFFFFF:
    """Check links, states, ids and quantity of one queue; add its orders to the sums of their
    positions ([buys, sells, adverse] by position). Returns how many they are."""
    cdef u32 slot = level.head
    cdef u32 before = 0
    cdef u32 count = 0
    cdef u64 lots = 0
    cdef Order* o
    cdef Position* p
    cdef Instrument* book
    while slot:
        o = &m.orders[slot]
        p = &m.positions[o.position]
        book = &m.instruments[instrument_of(p)]
        ensure(o.prev == before and state_of(o) == state, "FIFO links whole", (where, slot))
        ensure(o.leaves > 0, "a live order has leaves", (where, slot))
        if features_of(m, slot) & ORDER_FEATURE_QUOTE:
            ensure(m.stands[o.position].quotes[side_of(o)] == slot, "every quote is found", slot)
        else:
            ensure(find_key(m, account_of(p), o.key_lo, o.key_hi) == slot, "every order is found",
                   slot)
        working = sums.setdefault(o.position, [0, 0, 0])
        working[side_of(o)] += lots_of(m, slot)
        working[2] += lots_of(m, slot) * adverse_per_lot(book, side_of(o), o.price)
        check_legs(m, o, p, sums, slot)
        lots += o.leaves
        count += 1
        before = slot
        slot = o.next
    ensure(level.tail == before, "FIFO links whole", (where, "tail"))
    ensure(level.quantity == lots, "level quantity = sum of its orders", where)
    return count


cdef u32 check_ladder(Market* m, Instrument* book, u32 number, u8 state,
                      dict sums) except? 0xFFFFFFFF:
    """Check one ladder: sides, prices, bitset, best prices, queues; returns how many orders."""
    cdef i32 at = lowest(book)
    cdef i32 best_bid = NO_BID
    cdef i32 best_ask = NO_ASK
    cdef u32 orders = 0
    cdef u32 slot
    while at != NO_ASK:
        slot = book.levels[at].head
        ensure(slot != 0, "bitset = levels", (number, at))
        side = side_of(&m.orders[slot])
        if side:
            best_ask = min(at, best_ask)
        else:
            best_bid = at
        while slot:
            ensure(side_of(&m.orders[slot]) == side and m.orders[slot].price == price_of(book, at),
                   "a level has one side and one price", (number, at))
            slot = m.orders[slot].next
        orders += check_queue(m, &book.levels[at], state, sums, (number, at))
        at = occupied_above(book, at)
    ensure(best_bid < best_ask, "no crossed book", number)
    ensure(book.best[0] == best_bid and book.best[1] == best_ask, "best prices true", number)
    occupied = sum([bin(book.bits[k]).count("1") for k in range((book.slots + 63) // 64)])
    filled = sum([book.levels[k].head != 0 for k in range(book.slots)]) \
        if book.slots < 100_000 else occupied
    ensure(occupied == filled, "bitset = levels", number)
    return orders


cdef int check_book(Market* m, u32 number, dict sums) except -1:
    cdef Instrument* book = &m.instruments[number]
    cdef Auction* a = m.auctions[number]
    cdef u32 orders = check_ladder(m, book, number, WORKING, sums)
    ensure(bool(book.watched & WATCH_STEPS) == (book.lot_step != 1), "lots in steps are watched",
           number)
    ensure(adverse_per_lot(book, 0, book.fair[0]) == 0 < adverse_per_lot(book, 0, book.fair[0] + 1)
           and adverse_per_lot(book, 1, book.fair[1]) == 0
           and 0 < adverse_per_lot(book, 1, book.fair[1] - 1), "fair prices are the mark's", number)
    ensure(book.worth == book.mark * book.multiplier
           and book.tick_value == book.tick_scale * book.multiplier, "worth at the mark", number)
    ensure((a != NULL) == collects(book), "collected orders have their places", number)
    gathers = book.state in (TRADING_STATE_PRE_OPEN, TRADING_STATE_AUCTION)
    ensure(collects(book) or not gathers, "PRE_OPEN and AUCTION collect", number)
    ensure(book.state != TRADING_STATE_CONTINUOUS or not collects(book) or m.mode != MODE_NORMAL,
           "CONTINUOUS does not collect, unless the market is cancel-only", number)
    ensure(book.trades == (is_continuous(book) and m.mode == MODE_NORMAL and legs_open(m, number)),
           "what trades is CONTINUOUS, and so are its legs", number)
    if a != NULL:
        ensure(book.best[1] == NO_ASK, "buys on their ladder", number)
        ensure(a.asks.best[0] == NO_BID, "sells on their ladder", number)
        ensure(a.asks.low == book.low and a.asks.high == book.high, "equal ladders", number)
        orders += check_ladder(m, &a.asks, number, COLLECTED, sums)
        for side in range(2):
            orders += check_queue(m, &a.market[side], UNPRICED, sums, (number, "market", side))
    orders += check_queue(m, &book.dormant, DORMANT, sums, (number, "dormant"))
    orders += check_queue(m, &m.stops[number].waiting, WAITING, sums, (number, "waiting"))
    orders += check_queue(m, &m.stops[number].elected, WAITING, sums, (number, "elected"))
    check_stops(m, number)
    ensure(orders == book.working_orders, "working orders counted", number)
    return 0


cdef int check_heap(Market* m, u32 root, u8 side, set found) except -1:
    """Check that no stop of a heap comes before its parent; adds the heap's slots to `found`."""
    cdef u32 slot, child
    cdef Extra* one
    cdef Extra* other
    sign = -1 if side else 1
    todo = [root] if root else []
    while todo:
        slot = todo.pop()
        found.add(slot)
        ensure(side_of(&m.orders[slot]) == side, "a heap has one side", slot)
        child = m.extras[slot].child
        while child:
            one = &m.extras[slot]
            other = &m.extras[child]
            ensure((sign * one.trigger, one.age) < (sign * other.trigger, other.age),
                   "the next stop is first", (slot, child))
            todo.append(child)
            child = other.sibling
    return 0


cdef int check_stops(Market* m, u32 number) except -1:
    """Check an instrument's lists and heaps of stops, and its bits for stops and icebergs."""
    cdef Stops* stops = &m.stops[number]
    cdef u32 slot = stops.waiting.head
    cdef u64 age = 0
    waiting = set()
    heaped = set()
    while slot:
        ensure(age < m.extras[slot].age <= m.ages, "stops wait in order of age", slot)
        ensure(m.extras[slot].features & (ORDER_FEATURE_STOP | ELECTED) == ORDER_FEATURE_STOP,
               "a waiting order is a stop", slot)
        age = m.extras[slot].age
        waiting.add(slot)
        slot = m.orders[slot].next
    check_heap(m, stops.root[0], 0, heaped)
    check_heap(m, stops.root[1], 1, heaped)
    ensure(heaped == waiting, "every waiting stop is in a heap", number)
    slot = stops.elected.head
    while slot:
        ensure(m.extras[slot].features & ELECTED, "an elected stop says so", slot)
        slot = m.orders[slot].next
    ensure((stops.due == 0) == (stops.elected.head == 0), "elected stops are due", number)
    held = stops.waiting.head != 0 or stops.elected.head != 0
    watched = m.instruments[number].watched
    ensure(bool(watched & WATCH_STOPS) == held, "a book with stops is watched", number)
    ensure(bool(watched & WATCH_HIDDEN) == (stops.icebergs != 0), "as one with icebergs is", number)
    return 0


cdef int check_extras(Market* m) except -1:
    """Check which orders are FEATURED, what icebergs show, and the counts of both."""
    cdef u32 slot
    cdef Extra* extra
    count = 0
    elected = 0
    icebergs = {}
    for slot in range(1, m.order_top):
        extra = &m.extras[slot]
        if state_of(&m.orders[slot]) == FREE or not is_featured(&m.orders[slot]):
            ensure(extra.features == 0 and extra.hidden == 0, "a plain order has no Extra", slot)
            continue
        count += 1
        elected += extra.features & ELECTED != 0
        ensure(is_live(&m.orders[slot]) and extra.features, "a special order is live", slot)
        if extra.features & ORDER_FEATURE_ICEBERG:
            ensure(0 < m.orders[slot].leaves <= extra.display, "an iceberg shows its part", slot)
            instrument = instrument_of(&m.positions[m.orders[slot].position])
            icebergs[instrument] = icebergs.get(instrument, 0) + 1
        else:
            ensure(extra.hidden == 0, "only icebergs hide lots", slot)
    ensure(count == m.extra_count and elected == m.elected_count, "special orders counted", count)
    for slot in range(m.instrument_count):
        ensure(m.stops[slot].icebergs == icebergs.get(slot, 0), "icebergs counted", slot)
    return 0


cdef dict spreads_of(Market* m):
    """A dict of all spreads that have a credit: (-credit of a pair, number) to (leg, leg)."""
    cdef Composite* made
    cdef u32 k
    found = {}
    for k in range(m.instrument_count):
        made = &m.composites[k]
        if made.credit:
            rates = [m.instruments[made.leg[i]].rate for i in range(made.legs)]
            ensure(made.legs == 2 and m.instruments[k].state != TRADING_STATE_EXPIRED,
                   "a living spread has the credit", k)
            found[-min(made.credit, *rates), k] = (made.leg[0], made.leg[1])
    return found


cdef object credit_of(dict spreads, dict leaning):
    """The credit of an account whose positions lean so: `leaning` by leg, long positive."""
    left = dict(leaning)
    total = 0
    for credit, number in sorted(spreads):
        one, other = spreads[credit, number]
        if left.get(one, 0) < 0:
            one, other = other, one
        pairs = max(0, min(left.get(one, 0), -left.get(other, 0)))
        left[one] = left.get(one, 0) - pairs
        left[other] = left.get(other, 0) + pairs
        total -= credit * pairs
    return total


cdef int check_credits(Market* m) except -1:
    """Check each account's credit, that no requirement is below that of its positions alone, and
    which legs are WATCH_CREDIT and which orders CREDITED."""
    cdef Position* p
    cdef Order* o
    cdef u32 k
    spreads = spreads_of(m)
    legs = {leg for pair in spreads.values() for leg in pair}
    ensure(m.credits.count == len(spreads) and m.credits.legs == len(legs), "spreads", spreads)
    for k in range(m.instrument_count):
        ensure((m.instruments[k].watched & WATCH_CREDIT != 0) == (k in legs), "legs watched", k)
    for k in range(1, m.order_top):
        o = &m.orders[k]
        if is_live(o) and not is_featured(o):
            ensure(((o.traits >> 24) & CREDITED != 0)
                   == (instrument_of(&m.positions[o.position]) in legs), "CREDITED orders", k)
    leaning = {}
    nets = {}
    beyond = {}
    for k in range(1, m.position_top):
        p = &m.positions[k]
        if is_vacant(p):
            continue
        account, leg = account_of(p), instrument_of(p)
        leaning.setdefault(account, {})[leg] = max(0, p.exposure[0]) - max(0, p.exposure[1])
        nets.setdefault(account, {})[leg] = p.net
        beyond[account] = (beyond.get(account, 0) + p.hold - p.adverse
                           - m.instruments[leg].rate * absolute(p.net))
    for k in range(m.account_top):
        credit = credit_of(spreads, leaning.get(k, {}))
        ensure(m.accounts[k].credit == credit, "credit = its formula", (k, credit))
        ensure(beyond.get(k, 0) - credit >= -credit_of(spreads, nets.get(k, {})),
               "required covers the positions alone", k)
    return 0


cdef int check_positions(Market* m, dict sums) except -1:
    cdef Position* p
    cdef Instrument* book
    cdef u32 k
    net = {}
    hold = {}
    unrealized = {}
    for k in range(1, m.position_top):
        p = &m.positions[k]
        if is_vacant(p):
            continue
        book = &m.instruments[instrument_of(p)]
        ensure(book.state != TRADING_STATE_EXPIRED, "what has expired has no positions", k)
        working = sums.get(k, [0, 0, 0])
        ensure([working_of(p, 0), working_of(p, 1), p.adverse] == working, "working sums", k)
        if m.composites[instrument_of(p)].legs:
            ensure(m.charged[k].lots[0] == working[0] and m.charged[k].lots[1] == working[1]
                   and p.net == 0, "legs are charged what works in a combination", k)
        longest = max(abs(p.exposure[0]), abs(p.exposure[1]))
        ensure(p.hold == book.rate * longest + p.adverse, "hold = its formula", k)
        found = position_of(&m.accounts[account_of(p)], instrument_of(p))
        ensure(found == k, "positions are found", k)
        net[instrument_of(p)] = net.get(instrument_of(p), 0) + p.net
        hold[account_of(p)] = hold.get(account_of(p), 0) + p.hold
        unrealized[account_of(p)] = (unrealized.get(account_of(p), 0)
                                 + p.net * book.mark * book.multiplier - p.cost)
    ensure(not any(net.values()), "net positions sum to zero", net)
    check_vacant(m)
    return check_money(m, hold, unrealized)


cdef int check_vacant(Market* m) except -1:
    """Check that the free position records are one chain, and that nothing names one."""
    cdef u32 at = m.position_free
    cdef u32 k, i
    cdef Order* o
    found = set()
    while at:
        ensure(at < m.position_top and is_vacant(&m.positions[at]) and at not in found,
               "free positions are a chain", at)
        found.add(at)
        at = instrument_of(&m.positions[at])
    ensure(len(found) == m.vacant == sum([is_vacant(&m.positions[k])
                                          for k in range(1, m.position_top)]),
           "free positions counted", m.vacant)
    for k in range(m.account_top):
        held = {m.accounts[k].positions[i] for i in range(m.accounts[k].positions_length)}
        ensure(not held & found, "what is held is not free", k)
    for k in range(1, m.order_top):
        o = &m.orders[k]
        if state_of(o) == FREE or state_of(o) == RECEIPT:
            continue
        ensure(is_past(o) or o.position not in found, "no order names a free position", k)
        ensure(is_past(o) == (m.instruments[book_of(m, o)].state == TRADING_STATE_EXPIRED),
               "orders are past once their instrument has expired", k)
    return 0


cdef int check_money(Market* m, dict hold, dict unrealized) except -1:
    cdef Account* a
    cdef u32 k
    total = 0
    cash = {}
    required = {}
    for k in range(m.account_top):
        a = &m.accounts[k]
        if not a.is_open:
            continue
        ensure(hold_of(a) == hold.get(k, 0) - a.credit, "account hold = its holds - credit", k)
        ensure(a.unrealized == unrealized.get(k, 0), "unrealized = sum of its positions", k)
        total += a.cash
        cash[a.member_id] = cash.get(a.member_id, 0) + a.cash
        required[a.member_id] = required.get(a.member_id, 0) + required_of(a)
    ensure(total == m.deposits, "cash = deposits less withdrawals", total)
    for member in cash:
        k = member
        ensure(m.members[k].cash == cash[member], "member cash = sum of accounts", member)
        ensure(m.members[k].cash - m.members[k].excess == required[member], "member required = sum",
               member)
    return 0


cdef int check_slots(Market* m) except -1:
    """Check slots, windows, id hash, expiries and the counts of open orders."""
    cdef u32 slot = m.order_free
    cdef u32 free_slots = 0
    cdef u32 known = 0
    cdef u32 quotes = 0
    cdef u32 k, i
    cdef Order* o
    open_orders = {}
    while slot:
        ensure(state_of(&m.orders[slot]) == FREE, "free slots are free", slot)
        free_slots += 1
        slot = m.orders[slot].next
    remembered = set()
    for k in range(m.account_top):
        if m.accounts[k].is_open:
            remembered.update([m.accounts[k].ring[i].slot for i in range(LIMIT_IDEMPOTENCY_WINDOW)])
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        if state_of(o) == FREE:
            continue
        if is_live(o):
            account = owner_of(m, o)
            open_orders[account] = open_orders.get(account, 0) + 1
        if features_of(m, slot) & ORDER_FEATURE_QUOTE:
            quotes += 1
            continue
        known += 1
        if not is_live(o):
            ensure(slot in remembered, "a finished order's slot is remembered", slot)
        ensure(is_aged(o) == (slot not in remembered), "aged = out of the window", slot)
        ensure(find_key(m, owner_of(m, o), o.key_lo, o.key_hi) == slot, "ids are found", slot)
    ensure([m.expiry_at[m.expiries[k].slot] for k in range(m.expiry_count)]
           == list(range(m.expiry_count)), "the heap knows where its orders are", m.expiry_count)
    for k in range(1, m.expiry_count):
        i = (k - 1) // 2
        ensure((m.expiries[i].due, m.expiries[i].slot) < (m.expiries[k].due, m.expiries[k].slot),
               "the next expiry is first", k)
    expiring = [slot for slot in range(1, m.order_top)
                if state_of(&m.orders[slot]) != FREE and (m.orders[slot].traits >> 24) & EXPIRES]
    until = [slot for slot in range(1, m.order_top) if is_live(&m.orders[slot])
             and tif_of(&m.orders[slot]) == TIME_IN_FORCE_GTD]
    ensure(expiring == until and len(until) == m.expiry_count, "GTD orders expire", until)
    check_ids(m, known)
    ensure(known + quotes + free_slots == m.order_top - 1, "every slot accounted for", known)
    for k in range(m.account_top):
        ensure(m.accounts[k].open_orders == open_orders.get(k, 0), "open orders counted", k)
        ensure(m.accounts[k].most == (0 if m.accounts[k].killed else m.accounts[k].max_order),
               "who is killed may enter nothing", k)
    return 0


cdef int check_ids(Market* m, u32 known) except -1:
    """Check that the id hash has so many ids, that a search reaches each, and that windows know
    their ids' places."""
    cdef Bucket* bucket
    cdef Known* one
    cdef u64 at
    cdef u32 i, k
    held = 0
    for i in range(m.bucket_mask // sizeof(Bucket) + 1):
        for k in range(8):
            if m.buckets[i].tags[k] == 0:
                continue
            held += 1
            at = home_of(m, m.buckets[i].slots[k])
            while at != i * sizeof(Bucket):
                ensure(bucket_of(m, at).passed == 1, "a key passed", at)
                at = (at + sizeof(Bucket)) & m.bucket_mask
    ensure(known == held, "ids counted", (known, held))
    for k in range(m.account_top):
        for i in range(LIMIT_IDEMPOTENCY_WINDOW if m.accounts[k].is_open else 0):
            one = &m.accounts[k].ring[i]
            bucket = &m.buckets[one.place // sizeof(Bucket)]
            at = (one.place & 14) >> 1
            ensure(one.slot == 0 or (bucket.slots[at] == one.slot and bucket.tags[at] != 0),
                   "a window knows places", k)
    return 0


cdef int check_groups(Market* m) except -1:
    """Check that partners name each other, REDUCE_ONLY orders only reduce, and books count both."""
    cdef u32 slot, partner, k
    cdef Order* o
    cdef Position* p
    books = {}
    across = {}
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        if state_of(o) == FREE or not features_of(m, slot) & FOLLOWED_FEATURES:
            continue
        p = &m.positions[o.position]
        books[instrument_of(p)] = books.get(instrument_of(p), 0) + 1
        partner = partner_of(m, slot)
        if partner and instrument_of(&m.positions[m.orders[partner].position]) != instrument_of(p):
            across[instrument_of(p)] = across.get(instrument_of(p), 0) + 1
        ensure(partner == 0 or partner_of(m, partner) == slot, "partners name each other", slot)
        if features_of(m, slot) & ORDER_FEATURE_REDUCE_ONLY:
            ensure(room_to_reduce(m, p, o.position, side_of(o), 0) >= 0, "it only reduces", slot)
    for k in range(m.instrument_count):
        ensure(m.stops[k].followed == books.get(k, 0), "what is followed is counted", k)
        ensure(m.stops[k].across == across.get(k, 0), "groups of two instruments counted", k)
        ensure(m.stops[k].followed == 0 or m.instruments[k].watched & WATCH_QUOTES, "watched", k)
    return 0


cdef int check_market(Market* m) except -1:
    """Check everything; AssertionError names the first broken invariant."""
    cdef u32 k
    cdef dict sums = {}
    ensure(m.broken == 0, "not broken", m.broken)
    for k in range(m.instrument_count):
        check_book(m, k, sums)
    check_positions(m, sums)
    check_credits(m)
    check_allowances(m)
    check_slots(m)
    check_extras(m)
    check_groups(m)
    for k in range(1, m.timer_count):
        ensure((m.timers[k - 1].due, m.timers[k - 1].session)
               < (m.timers[k].due, m.timers[k].session), "timers sorted", k)
    ensure(m.halt_count == sum([m.safety[k].resume_at != 0 for k in range(m.instrument_count)]),
           "halts that end by themselves counted", m.halt_count)
    for k in range(m.instrument_count):
        ensure(m.safety[k].resume_at == 0 or m.instruments[k].state == TRADING_STATE_HALTED,
               "what resumes is halted", k)
        ensure((m.instruments[k].watched & (WATCH_BREAKER | WATCH_LIMITS)) == watch_of(m, k),
               "an instrument with protections is watched", k)
    for k in range(1, m.corrected_count):
        ensure(m.corrected[k - 1] < m.corrected[k], "a trade is corrected once", k)
    for k in range(m.leg_change_count):
        ensure(m.leg_changes[k].sequence >= (m.leg_changes[k - 1].sequence if k else m.legs_known),
               "changes of legs are known in order", k)
    ensure(m.stated.count == 0 or m.stated.count < m.composites[m.stated.combination].legs,
           "a correction that was begun lacks a leg", m.stated.count)
    return 0
