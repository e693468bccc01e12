"""ENTER: its ladder of guards in documented precedence, then the effect. Other order commands:
changes.pyx.

Every ENTER can be done here. plain.pxd does plain ones faster, to the same effect, and leaves the
others, and every order that it would not accept, to `enter`.
"""

from libc.string cimport memset

from exchange.engine.aftermath cimport aftermath
from exchange.engine.auction cimport join
from exchange.engine.book cimport (
    has_opposite, price_of, price_toward, reaches, rest, slot_within,
)
from exchange.engine.combinations cimport (
    bad_legs_risk, book_capacity, charge_legs, missing_positions, open_missing,
)
from exchange.engine.events cimport emit, what
from exchange.engine.expiry cimport start_expiry
from exchange.engine.extras cimport put_extra, stops_of
from exchange.engine.groups cimport (
    FOLLOWED_FEATURES, features_of, join_special, partner_of, room_to_reduce, shared_lots,
)
from exchange.engine.guards cimport (
    TARGET_FEATURES, beyond_all, bad_grid, bad_owner, bad_post_only, bad_risk, bad_time, minimum_of,
    refuse_extent, rests,
)
from exchange.engine.ids cimport (
    find_key, fingerprint, has_slot, take_new_slot,
)
from exchange.engine.implied cimport Source, find_source
from exchange.engine.lifecycle cimport answer_again, reject
from exchange.engine.matching cimport Incoming, run_special
from exchange.engine.months cimport refuse_all_months
from exchange.engine.positions cimport has_records, open_position
from exchange.engine.risk cimport adverse_per_lot, position_of, raise_hold, rehold
from exchange.engine.stops cimport start_waiting
from exchange.engine.safety cimport refuse_band, refuse_value, within_band
from exchange.engine.state cimport (
    WATCH_BREAKER, WATCH_LIMITS, AT_MARKET, Account, COMBINED, CREDITED, Command, Event, Instrument,
    Market, Order, PROTECTED_BY, Position, WATCH_CREDIT, WATCH_IMPLIED, WATCH_LEGS, WORKING,
    account_of, collects, conditions_of, i64, instrument_of, is_live, likely, order_id_of,
    traits_of, u16, u32, u8, unlikely,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    # masks of a command's first word, which is kind, side, tif, flags
    # bits that must be 0 in an ENTER: side > 1, tif > 7, unknown flags
    ENTER_FORM = 0x78F8FE00
    # bits that are 0 in a plain limit order, GTC or DAY: also tif > 1, all flags but MANUAL
    PLAIN_FORM = 0xFBFEFE00
    ENTER_FEATURES = 31  # REDUCE_ONLY GROUPED STOP ICEBERG ALL_OR_NONE


cdef bint bad_form(Market* m, Command* c) noexcept nogil:
    """SYNTAX, ID_FORMAT, COMBINATION, ALL_OR_NONE; asked only after a cheap test of `enter`."""
    cdef bint market = (c.flags & COMMAND_FLAG_MARKET) != 0
    cdef bint protected = (c.flags & COMMAND_FLAG_PROTECTED) != 0
    cdef bint post_only = (c.flags & COMMAND_FLAG_POST_ONLY) != 0
    cdef u8 shared = c.spare & TARGET_FEATURES
    if ((<u32*>c)[0] & <u32>ENTER_FORM or c.tif > TIME_IN_FORCE_GFA
            or c.stp > SELF_TRADE_DECREMENT or c.spare & ~ENTER_FEATURES
            or (market and not protected and c.price != 0)
            or (c.tif != TIME_IN_FORCE_GTD and c.target_lo != 0)):
        reject(m, c, REASON_SYNTAX, 0, 0)
        return True
    if c.key_lo == 0 and c.key_hi == 0:
        reject(m, c, REASON_ID_FORMAT, 0, 0)
        return True
    if ((post_only and (market or not rests(c.tif))) or (market and c.tif == TIME_IN_FORCE_FOK)
            or (protected and not market)
            or (minimum_of(c) and (post_only or c.tif == TIME_IN_FORCE_FOK))
            or shared & (shared - 1)  # more than one feature that needs target_hi
            or (c.spare & ORDER_FEATURE_STOP and (post_only or c.tif == TIME_IN_FORCE_GFA))
            or (c.spare & (ORDER_FEATURE_GROUPED | ORDER_FEATURE_ICEBERG) and not rests(c.tif))):
        reject(m, c, REASON_COMBINATION, 0, 0)
        return True
    if c.spare & ORDER_FEATURE_ALL_OR_NONE:
        reject(m, c, REASON_ALL_OR_NONE, 0, 0)
        return True
    return False


cdef inline bint bad_capacity(Market* m, Command* c, Instrument* book, u32 missing) noexcept nogil:
    """BOOK_FULL, ORDERS_FULL, POSITIONS_FULL; `missing`: new position records needed."""
    if likely(book.working_orders < LIMIT_BOOK_ORDERS and has_slot(m, &m.accounts[c.account])
              and (missing == 0 or has_records(m, missing))):
        return False
    if book.working_orders >= LIMIT_BOOK_ORDERS:
        reject(m, c, REASON_BOOK_FULL, LIMIT_BOOK_ORDERS, book.working_orders)
    elif not has_slot(m, &m.accounts[c.account]):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
    else:
        reject(m, c, REASON_POSITIONS_FULL, m.position_capacity, m.position_capacity)
    return True


cdef bint refuse_combined_room(Market* m, Command* c, Instrument* book) noexcept nogil:
    """BOOK_FULL of a combination, whose book has room for fewer orders than an outright's."""
    cdef i64 most = book_capacity(&m.composites[c.instrument])
    if book.working_orders < most:
        return False
    reject(m, c, REASON_BOOK_FULL, most, book.working_orders)
    return True


cdef bint refuse_across(Market* m, Command* c, Instrument* book, u32 partner) noexcept nogil:
    """GROUPS_FULL, if the group spans two instruments and either has no room for another such."""
    cdef Instrument* other = &m.instruments[instrument_of(&m.positions[m.orders[partner].position])]
    if other == book or (stops_of(m, book).across < LIMIT_GROUPS
                         and stops_of(m, other).across < LIMIT_GROUPS):
        return False
    reject(m, c, REASON_GROUPS_FULL, LIMIT_GROUPS, LIMIT_GROUPS)
    return True


cdef bint bad_room(Market* m, Command* c, Instrument* book, u32 partner) noexcept nogil:
    """ICEBERGS_FULL, REDUCING_FULL, GROUPS_FULL."""
    cdef u32 at
    if c.spare & ORDER_FEATURE_ICEBERG and stops_of(m, book).icebergs >= LIMIT_ICEBERGS:
        reject(m, c, REASON_ICEBERGS_FULL, LIMIT_ICEBERGS, LIMIT_ICEBERGS)
        return True
    at = position_of(&m.accounts[c.account], c.instrument)
    if c.spare & ORDER_FEATURE_REDUCE_ONLY and m.stands[at].reducing >= LIMIT_REDUCING:
        reject(m, c, REASON_REDUCING_FULL, LIMIT_REDUCING, LIMIT_REDUCING)
        return True
    return partner != 0 and refuse_across(m, c, book, partner)


cdef void make_special(Market* m, Event* accepted, u32 slot, Extra* extra) noexcept nogil:
    """Give a new order, not yet in any queue, its Extra; its ORDER_ACCEPTED tells the features."""
    put_extra(m, slot, extra)
    if extra.features & FOLLOWED_FEATURES:
        join_special(m, slot, extra.partner)
    accepted.b |= <i64>(extra.features & 0xFF) << 16 | <i64>extra.display << 32


cdef inline bint rests_at_once(Market* m, Instrument* book, Position* p, Terms* terms,
                               u32 lots) noexcept nogil:
    """Whether a new order has nothing to trade with, real or implied, and rests whole."""
    cdef Source s
    if not terms.rests or reaches(terms.side, terms.slot, book.best[1 - terms.side]):
        return False
    if not book.watched & WATCH_IMPLIED:
        return True
    rehold(m, book, p)  # `find_source` looks at the free margin, which must be up to date
    return not find_source(m, book, p.owner, terms.side, lots, terms.price, terms.price, &s)


cdef void place(Market* m, Command* c, Instrument* book, Account* account,
                Terms* terms) noexcept nogil:
    """Make the order: ORDER_ACCEPTED, then its trades; it waits, rests or ends."""
    cdef Position* p = &m.positions[terms.at]
    cdef u32 slot = take_new_slot(m, account, c.account, c.key_lo)
    cdef Order* o = &m.orders[slot]
    cdef u8 side = terms.side
    # POST_ONLY and MARKET stand four bits higher in an event
    cdef u32 conditions = conditions_of(terms.tif, c.stp)
    cdef u32 flags = side << 1 | (c.flags & (COMMAND_FLAG_POST_ONLY | COMMAND_FLAG_MARKET)) << 4
    cdef Incoming t
    cdef Event* e
    o.generation += 1
    o.leaves = c.quantity
    o.executed = 0
    o.position = terms.at
    o.key_lo = c.key_lo
    o.key_hi = c.key_hi
    o.price = terms.price
    o.fingerprint = fingerprint(c)
    o.session = c.session
    o.traits = traits_of(side, conditions, WORKING)
    e = emit(m, what(EVENT_KIND_ORDER_ACCEPTED, flags, 0), p.who)
    t.order_id = order_id_of(m, slot)
    e.order_id = t.order_id
    e.price = o.price
    e.quantity = c.quantity
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    e.a = c.session
    e.b = conditions
    if terms.expiry != 0:
        start_expiry(m, slot, terms.expiry)
    if book.watched & WATCH_LEGS:
        o.traits |= <u32>COMBINED << 24
    elif book.watched & WATCH_CREDIT:
        o.traits |= <u32>CREDITED << 24
    if terms.extra.features != 0:
        make_special(m, e, slot, &terms.extra)
        if terms.extra.features & ORDER_FEATURE_STOP:
            e.leaves = 0
            start_waiting(m, book, slot)
            return
    if unlikely(collects(book)):
        e.leaves = join(m, book, slot, c.flags & COMMAND_FLAG_MARKET)
        return
    if rests_at_once(m, book, p, terms, c.quantity):
        e.leaves = c.quantity
        book.working_orders += 1
        account.open_orders += 1
        p.exposure[side] += c.quantity
        p.adverse += terms.adverse
        if book.watched:
            rehold(m, book, p)
        else:  # the rise that the guards found still holds
            raise_hold(m, p, terms.rise)
        if book.watched & WATCH_LEGS:
            charge_legs(m, p)
        rest(m, book, slot, side, terms.slot)
        return
    e.leaves = 0
    t.slot = slot
    t.limit = terms.slot
    t.need = terms.need
    run_special(m, book, &t, m.index - 1, terms.remainder)


cdef void accept(Market* m, Command* c, Instrument* book, Account* account,
                 Terms* terms) noexcept nogil:
    """`place`, then `aftermath`: what follows from its trades."""
    cdef u32 first = m.index
    place(m, c, book, account, terms)
    if book.watched:
        aftermath(m, book, first)


cdef void specify_extra(Command* c, Extra* extra) noexcept nogil:
    """The Extra of a new order that has features."""
    memset(extra, 0, sizeof(Extra))
    extra.features = c.spare
    if c.spare & ORDER_FEATURE_ICEBERG:
        extra.display = <u32>c.target_hi
    if c.spare & ORDER_FEATURE_STOP:
        extra.trigger = <i64>c.target_hi
        if c.flags & COMMAND_FLAG_MARKET:
            extra.features |= AT_MARKET
        if c.flags & COMMAND_FLAG_PROTECTED:
            extra.features |= PROTECTED_BY
            extra.ticks = c.price


cdef u32 find_partner(Market* m, Command* c) noexcept nogil:
    """The slot of the order that `target_hi` names as the other of a group; 0 unless it is live, of
    this account, in no group, no quote and in no combination."""
    cdef u32 slot = <u32>c.target_hi
    cdef Order* o = &m.orders[slot]
    if (slot == 0 or slot >= m.order_top or o.generation != c.target_hi >> 32 or not is_live(o)
            or account_of(&m.positions[o.position]) != c.account):
        return 0
    if (features_of(m, slot) & ORDER_FEATURE_QUOTE or partner_of(m, slot)
            or m.composites[instrument_of(&m.positions[o.position])].legs):
        return 0
    return slot


cdef bint refuse_features(Market* m, Command* c, Account* account, Terms* terms) noexcept nogil:
    """GROUP, REDUCE_ONLY. Sets `terms.partner`, the other order of a group."""
    cdef u32 at = position_of(account, c.instrument)
    cdef i64 shared, room
    if c.spare & ORDER_FEATURE_GROUPED:
        terms.partner = find_partner(m, c)
        if terms.partner == 0:
            reject(m, c, REASON_GROUP, 0, 0)
            return True
    if c.spare & ORDER_FEATURE_REDUCE_ONLY:
        room = room_to_reduce(m, &m.positions[at], at, c.side, 0)
        shared = shared_lots(m, terms.partner, at, c.side)
        if room < 0 or c.quantity > room + shared:
            reject(m, c, REASON_REDUCE_ONLY, 0 if room < 0 else room + shared, c.quantity)
            return True
    return False


cdef void specify(Command* c, Instrument* book, Terms* terms) noexcept nogil:
    """Fill in `terms` from the command: features, expiry, minimum, and whether a remainder rests or
    for which reason it is cancelled. A MARKET order that cannot rest gets price 0."""
    terms.extra.features = c.spare
    if c.spare:
        specify_extra(c, &terms.extra)
        terms.extra.partner = terms.partner
    terms.rests = False
    terms.expiry = 0
    terms.remainder = 0
    terms.need = <u32>minimum_of(c)
    if c.tif == TIME_IN_FORCE_GTD:
        terms.expiry = <i64>c.target_lo
    if c.spare & ORDER_FEATURE_STOP or collects(book):
        return
    if c.flags & COMMAND_FLAG_MARKET:
        if (not rests(c.tif) or not has_opposite(book, c.side)
                or not book.low <= terms.price <= book.high):
            terms.remainder = CANCEL_REASON_MARKET_REMAINDER
            terms.price = 0
        if not has_opposite(book, c.side) and (rests(c.tif) or c.flags & COMMAND_FLAG_PROTECTED):
            terms.slot = beyond_all(book, c.side)
        return
    if c.tif == TIME_IN_FORCE_IOC:
        terms.remainder = CANCEL_REASON_IOC_REMAINDER
    elif c.tif == TIME_IN_FORCE_FOK:
        terms.remainder = CANCEL_REASON_FOK_UNFILLED
        terms.need = c.quantity
    else:
        terms.rests = terms.need == 0 and c.spare == 0


cdef void enter_combined(Market* m, Command* c, Instrument* book, Account* account,
                         Terms* terms) noexcept nogil:
    """ENTER in a combination, from the guard OPEN_ORDERS on: its lots work in every leg."""
    if c.spare:
        reject(m, c, REASON_NOT_OUTRIGHT, 0, m.composites[c.instrument].legs)
        return
    if account.open_orders >= account.max_open_orders:
        reject(m, c, REASON_OPEN_ORDERS, account.max_open_orders, account.open_orders)
        return
    if refuse_all_months(m, c, book, account, c.side, c.quantity):
        return
    terms.at = position_of(account, c.instrument)
    terms.adverse = c.quantity * adverse_per_lot(book, c.side, terms.price)
    if (bad_legs_risk(m, c, &m.positions[terms.at], account, c.side, terms.adverse, c.quantity, 0,
                      c.instrument)
            or refuse_combined_room(m, c, book)
            or bad_capacity(m, c, book, missing_positions(m, account, c.instrument))):
        return
    terms.at = open_missing(m, c.account, c.instrument)
    specify(c, book, terms)
    accept(m, c, book, account, terms)


cdef bint refuse_feature(Market* m, Command* c) noexcept nogil:
    """FEATURE_OFF: the order asks for a feature that is turned off."""
    cdef u32 off = c.spare & m.features_off
    if off:
        reject(m, c, REASON_FEATURE_OFF, 0, off)
    return off != 0


cdef bint refuse_through(Market* m, Command* c, Instrument* book) noexcept nogil:
    """PRICE_BAND; not of a stop, which waits, nor of a MARKET order, which `bind_market` limits."""
    if c.spare & ORDER_FEATURE_STOP or c.flags & COMMAND_FLAG_MARKET:
        return False
    return refuse_band(m, c, book, c.side, c.price)


cdef i64 bind_market(Market* m, Instrument* book, u8 side, i64 limit, Terms* terms) noexcept nogil:
    """The limit of a MARKET order, moved into the price band. It may lie outside the day's limits;
    sets `terms.slot` accordingly."""
    limit = price_toward(book, side, within_band(m, book, side, limit))
    terms.slot = slot_within(book, side, limit)
    return limit


cdef void enter(Market* m, Command* c) noexcept nogil:
    cdef Account* account
    cdef Instrument* book
    cdef Terms terms
    cdef bint special
    cdef u32 known
    cdef i64 price
    if bad_owner(m, c, True):
        return
    # one test of two bytes, the self-trade mode and the features above it
    special = ((<u32*>c)[0] & <u32>PLAIN_FORM or (<u16*>&c.stp)[0] > SELF_TRADE_DECREMENT
               or c.key_lo == 0 or c.target_lo | c.target_hi)
    if unlikely(special) and bad_form(m, c):
        return
    known = find_key(m, c.account, c.key_lo, c.key_hi)
    if unlikely(known != 0):
        answer_again(m, c, c.account, known)
        return
    if unlikely(c.instrument >= m.instrument_count):
        reject(m, c, REASON_UNKNOWN_INSTRUMENT, m.instrument_count, c.instrument)
        return
    book = &m.instruments[c.instrument]
    special |= book.watched != 0
    account = &m.accounts[c.account]
    if (bad_time(m, c, book, account) or (unlikely(special) and book.watched & WATCH_LIMITS
                                          and refuse_value(m, c, book, account))
            or bad_grid(m, c, book, account, &terms.slot)):
        return
    terms.side = c.side
    terms.tif = c.tif
    price = c.price
    if unlikely(special):
        if c.flags & COMMAND_FLAG_MARKET:
            if c.spare & ORDER_FEATURE_STOP:  # once elected, it may trade at any price of the day
                terms.slot = 0 if c.side else book.slots - 1
            price = price_of(book, terms.slot)
            if book.watched & WATCH_BREAKER and not c.spare & ORDER_FEATURE_STOP:
                price = bind_market(m, book, c.side, price, &terms)
        if refuse_feature(m, c) or (book.watched & WATCH_BREAKER and refuse_through(m, c, book)):
            return
        if bad_post_only(m, c, book, c.side, terms.slot) or refuse_extent(m, c, book):
            return
        terms.partner = 0
        if book.watched & WATCH_LEGS:
            terms.price = price
            enter_combined(m, c, book, account, &terms)
            return
        if c.spare and refuse_features(m, c, account, &terms):
            return
    if unlikely(account.open_orders >= account.max_open_orders):
        reject(m, c, REASON_OPEN_ORDERS, account.max_open_orders, account.open_orders)
        return
    if (unlikely(special) and book.watched & WATCH_LIMITS
            and refuse_all_months(m, c, book, account, c.side, c.quantity)):
        return
    terms.at = position_of(account, c.instrument)
    terms.adverse = c.quantity * adverse_per_lot(book, c.side, price)
    # an account without a record is judged by position 0, which is all zeros
    if bad_risk(m, c, book, &m.positions[terms.at], account, c.side, terms.adverse, c.quantity, 0,
                &terms.rise):
        return
    if bad_capacity(m, c, book, terms.at == 0) or (special and bad_room(m, c, book, terms.partner)):
        return
    if unlikely(terms.at == 0):
        terms.at = open_position(m, c.account, c.instrument)
    terms.price = price
    specify(c, book, &terms)
    accept(m, c, book, account, &terms)
