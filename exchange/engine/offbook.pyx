"""TRANSFER: lots change hands off the book, at a price that both sides have agreed elsewhere.

`account` takes the lots on `side`, the account in `target_lo` takes the other side or hands them
on. Net and cost of both move by equal and opposite amounts, so the sums stay zero; no cash moves,
no fee is due, and volume, last price, bands and breakers do not count it.
"""

from exchange.engine.accounts cimport compare_deficit
from exchange.engine.aftermath cimport follow
from exchange.engine.events cimport emit, what
from exchange.engine.guards cimport bad_risk
from exchange.engine.ids cimport has_slot
from exchange.engine.instruments cimport bad_mark, exceeds, exceeds_bound, refuse_outright
from exchange.engine.lifecycle cimport answered, keep_receipt, reject
from exchange.engine.positions cimport has_records, open_position
from exchange.engine.months cimport refuse_all_months, withdraw_all
from exchange.engine.risk cimport execute, position_of
from exchange.engine.safety cimport tell_levels
from exchange.engine.state cimport (
    Account, Command, Event, Instrument, Market, Position, WATCH_QUOTES, i64, pair, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *


cdef inline bint is_open(Market* m, u64 account) noexcept nogil:
    return account < m.account_top and m.accounts[account].is_open


cdef inline bint is_agreed(u8 kind) noexcept nogil:
    """Whether both sides make the trade (BLOCK, EFP); if not, one only hands on lots it has."""
    return kind == TRANSFER_KIND_BLOCK or kind == TRANSFER_KIND_EFP


cdef bint refuse_terms(Market* m, Command* c, Instrument* book) noexcept nogil:
    """PARAMETER_RANGE of side, kind, accounts, quantity or price."""
    if (c.side <= SIDE_SELL and TRANSFER_KIND_GIVE_UP <= c.tif <= TRANSFER_KIND_PORTING
            and c.target_lo != c.account and 1 <= c.quantity <= LIMIT_QUANTITY
            and not bad_mark(c.price, book.multiplier, max(book.bound, <i64>c.quantity))
            and not exceeds(book.mark, book.multiplier, c.quantity)):
        return False
    reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
    return True


cdef bint refuse_side(Market* m, Command* c, Instrument* book, u32 number, u8 side,
                      i64* rise) noexcept nogil:
    """ALL_MONTHS_LIMIT to MEMBER_MARGIN of one side, as of an order that trades; sets `rise`."""
    cdef Account* account = &m.accounts[number]
    cdef Position* p = &m.positions[position_of(account, c.instrument)]
    cdef i64 adverse = c.price - book.mark
    cdef i64 lots = c.quantity
    adverse = lots * book.multiplier * max(<i64>0, -adverse if side else adverse)
    return (refuse_all_months(m, c, book, account, side, lots)
            or bad_risk(m, c, book, p, account, side, adverse, lots, 0, rise))


cdef bint refuse_giver(Market* m, Command* c, Instrument* book, u32 giver) noexcept nogil:
    """NOT_HELD, PARAMETER_RANGE of an account that hands lots on, which it must have."""
    cdef Position* p = &m.positions[position_of(&m.accounts[giver], c.instrument)]
    cdef i64 held = -p.net if c.side else p.net
    cdef i64 bound = max(book.bound, p.exposure[1 - c.side] + c.quantity)
    if held < c.quantity:
        reject(m, c, REASON_NOT_HELD, held, c.quantity)
        return True
    # without the lots, its orders on the other side expose it to more
    if exceeds_bound(book, book.rate, bound):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return True
    return False


cdef bint refuse_both(Market* m, Command* c, Instrument* book, u32 giver) noexcept nogil:
    """The limits and margin of the taker; of a BLOCK or EFP, of the other side, too, and of their
    member if it is the same."""
    cdef Account* taker = &m.accounts[c.account]
    cdef Account* other = &m.accounts[giver]
    cdef i64 rise = 0
    cdef i64 more = 0
    if refuse_side(m, c, book, c.account, c.side, &rise):
        return True
    if not is_agreed(c.tif):
        return False
    if refuse_side(m, c, book, giver, 1 - c.side, &more):
        return True
    # each side fits alone; if they are of one member, both must fit together
    if taker.member != other.member or rise <= 0 or more <= 0:
        return False
    if rise + more <= taker.member.excess:
        return False
    reject(m, c, REASON_MEMBER_MARGIN, taker.member.cash,
           taker.member.cash - taker.member.excess + rise + more)
    return True


cdef bint refuse_room(Market* m, Command* c, u32 giver) noexcept nogil:
    """ORDERS_FULL, POSITIONS_FULL."""
    cdef u32 missing = ((position_of(&m.accounts[c.account], c.instrument) == 0)
                        + (position_of(&m.accounts[giver], c.instrument) == 0))
    if (c.key_lo or c.key_hi) and not has_slot(m, &m.accounts[c.account]):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
    elif missing and not has_records(m, missing):
        reject(m, c, REASON_POSITIONS_FULL, m.position_capacity, m.position_capacity)
    else:
        return False
    return True


cdef inline u32 record_of(Market* m, u32 account, u32 instrument) noexcept nogil:
    cdef u32 at = position_of(&m.accounts[account], instrument)
    return at if at else open_position(m, account, instrument)


cdef void move_lots(Market* m, Command* c, Instrument* book, u32 giver) noexcept nogil:
    """Move the lots in both positions, which raises `bound` if need be: LOTS_TRANSFERRED."""
    cdef i64 value = c.quantity * c.price * book.multiplier
    cdef u32 taker_at = record_of(m, c.account, c.instrument)
    cdef u32 giver_at = record_of(m, giver, c.instrument)
    cdef Position* p = &m.positions[giver_at]
    cdef Event* e
    if taker_at == 0 or giver_at == 0:  # no memory: the engine stops
        return
    book.bound = max(book.bound, p.exposure[1 - c.side] + c.quantity)
    execute(m, book, &m.positions[taker_at], c.side, c.quantity, value, 0)
    execute(m, book, p, 1 - c.side, c.quantity, value, 0)
    withdraw_all(m)
    e = emit(m, what(EVENT_KIND_LOTS_TRANSFERRED, c.side << 1, c.tif),
             pair(c.instrument, c.account))
    e.order_id = giver
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = 0
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    e.a = m.positions[taker_at].net
    e.b = p.net


cdef void transfer_lots(Market* m, Command* c) noexcept nogil:
    """TRANSFER: a give-up, a block trade, an exchange for physical, or porting."""
    cdef u32 first = m.index
    cdef u32 giver = <u32>c.target_lo
    cdef Instrument* book
    if not is_open(m, c.account):
        reject(m, c, REASON_UNKNOWN_ACCOUNT, 0, 0)
        return
    if answered(m, c, c.account):
        return
    if not is_open(m, c.target_lo):
        reject(m, c, REASON_UNKNOWN_ACCOUNT, 0, <i64>c.target_lo)
        return
    if c.account == 0 or giver == 0:
        reject(m, c, REASON_HOUSE_ACCOUNT, 0, 0)
        return
    if refuse_outright(m, c):
        return
    book = &m.instruments[c.instrument]
    if (refuse_terms(m, c, book)
            or (not is_agreed(c.tif) and refuse_giver(m, c, book, giver))
            or refuse_both(m, c, book, giver) or refuse_room(m, c, giver)):
        return
    move_lots(m, c, book, giver)
    compare_deficit(m, c.account)
    compare_deficit(m, giver)
    if book.watched & WATCH_QUOTES:
        follow(m, book, first)
    tell_levels(m, book, c.account, giver)
    keep_receipt(m, c, c.account, first)
