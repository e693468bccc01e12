# The guards of the order commands: the ladder of guards is their sequence, in the precedence that
# docs/reference/engine.md documents. A `bad_…` returns True if it emitted a reject, whose possible
# reasons its docstring names in their order; it is a cheap test, and guards.pyx has the slow half.

from exchange.engine.book cimport has_opposite, on_step, price_of, reaches, slot_of
from exchange.engine.credits cimport credit_gain
from exchange.engine.ids cimport find_key
from exchange.engine.lifecycle cimport reject
from exchange.engine.risk cimport absolute, adverse_per_lot, required_of
from exchange.engine.state cimport (
    Account, Command, Instrument, KILLED_ACCOUNT, KILLED_BY_SETTING, KILLED_MEMBER,
    LOSS_REACHED, Market, Order, Position, SESSION_ONLINE, Session, WATCH_CREDIT, collects,
    i32, i64, likely, side_of, standing, state_of, u32, u64, u8, unlikely, working_of,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    TARGET_FEATURES = 14  # GROUPED STOP ICEBERG: each gives target_hi a meaning of its own

cdef void refuse_target(Market* m, Command* c, u32 slot) noexcept nogil
cdef void refuse_off_grid(Market* m, Command* c, Instrument* book) noexcept nogil
cdef bint refuse_distance(Market* m, Command* c, Instrument* book) noexcept nogil
cdef bint refuse_extent(Market* m, Command* c, Instrument* book) noexcept nogil
cdef bint refuse_display(Market* m, Command* c, Instrument* book, u64 quantity,
                         u64 display) noexcept nogil
cdef i32 beyond_all(Instrument* book, u8 side) noexcept nogil
cdef i32 market_slot(Instrument* book, u8 side, u8 tif, i64 ticks, bint protected) noexcept nogil
cdef bint refuse_post_only(Market* m, Command* c, Instrument* book, u8 side, i32 at,
                           u32 lots) noexcept nogil
cdef void refuse_quantity(Market* m, Command* c, Instrument* book) noexcept nogil
cdef bint refuse_owner(Market* m, Command* c, bint blocked_if_killed) noexcept nogil
cdef bint refuse_untimely(Market* m, Command* c, Instrument* book) noexcept nogil
cdef void refuse_combined_margin(Market* m, Command* c, Account* account,
                                 i64 rise) noexcept nogil
cdef bint refuse_margin(Market* m, Command* c, Position* p, Account* account, u8 side, i64 lots,
                        i64 rise) noexcept nogil


cdef inline bint rests(u8 tif) noexcept nogil:
    """Whether what cannot trade at once waits in the book."""
    return tif <= TIME_IN_FORCE_DAY or tif >= TIME_IN_FORCE_GTD


cdef inline u64 minimum_of(Command* c) noexcept nogil:
    """The minimum of an ENTER in lots: `target_hi`, unless a feature gives that another meaning."""
    return 0 if c.spare & TARGET_FEATURES else c.target_hi


cdef inline bint bad_owner(Market* m, Command* c, bint blocked_if_killed) noexcept nogil:
    """UNKNOWN_ACCOUNT to EXCHANGE_KILLED: see `refuse_owner`."""
    # an entitled session's account is open
    if likely(m.sessions[c.session & 0xFFFF].entitled == (<u64*>c)[1]
              and not (blocked_if_killed and m.accounts[c.account].killed)):
        return False
    return refuse_owner(m, c, blocked_if_killed)


cdef inline bint bad_time(Market* m, Command* c, Instrument* book,
                          Account* account) noexcept nogil:
    """NOT_TRADING, CANCEL_ONLY, THROTTLED; a pass spends one token."""
    cdef i64 now = m.stamp
    cdef i64 tat = account.tat if account.tat > now else now
    if likely(book.trades and tat - now <= account.tolerance):
        account.tat = tat + account.interval
        return False
    return refuse_untimely(m, c, book)


cdef inline bint bad_grid(Market* m, Command* c, Instrument* book, Account* account,
                          i32* at) noexcept nogil:
    """QUANTITY_RANGE, ACCOUNT_MAX_QUANTITY, NOTIONAL, TICK, LOT, PRICE_LIMIT.

    Sets `at` to the ladder slot of the price, or of a MARKET order's limit.
    """
    if unlikely(c.quantity - 1 >= book.max_order or c.quantity > account.max_order):
        refuse_quantity(m, c, book)
        return True
    if likely(not c.flags & COMMAND_FLAG_MARKET):
        at[0] = slot_of(book, c.price)
        if unlikely(<u64>c.price - <u64>book.low > book.range
                    or (book.price_step != 1 and not on_step(book, c.price))):
            refuse_off_grid(m, c, book)
            return True
    else:
        if refuse_distance(m, c, book):
            return True
        at[0] = market_slot(book, c.side, c.tif, c.price,
                            (c.flags & COMMAND_FLAG_PROTECTED) != 0)
    if unlikely(book.lot_step != 1) and c.quantity % book.lot_step:
        reject(m, c, REASON_LOT, book.lot_step, c.quantity)
        return True
    return False


cdef inline bint bad_post_only(Market* m, Command* c, Instrument* book, u8 side,
                               i32 at) noexcept nogil:
    """NOT_IN_AUCTION, POST_ONLY of a new post-only order."""
    if likely(not c.flags & COMMAND_FLAG_POST_ONLY):
        return False
    return refuse_post_only(m, c, book, side, at, c.quantity)


cdef inline bint bad_risk(Market* m, Command* c, Instrument* book, Position* p, Account* account,
                          u8 side, i64 adverse, i64 lots, i64 working, i64* rise) noexcept nogil:
    """POSITION_LIMIT, MARGIN, MEMBER_MARGIN for `lots` with `adverse` in place of `working` lots,
    which the caller has taken out of the position but not out of its hold. Sets `rise`, by how much
    the account's requirement would rise."""
    cdef i64 worst = p.exposure[side] + lots
    cdef i64 other = p.exposure[1 - side]
    cdef i64 more
    if unlikely(worst > book.position_limit) and lots > working:
        reject(m, c, REASON_POSITION_LIMIT, book.position_limit, worst)
        return True
    more = book.rate * (worst if worst > other else other) + p.adverse + adverse - p.hold
    if unlikely(book.watched & WATCH_CREDIT):
        more -= credit_gain(m, account, <u32>(book - m.instruments), side, lots)
    rise[0] = more
    if likely(account.excess >= 0 and more <= account.excess and more <= account.member.excess):
        return False
    return refuse_margin(m, c, p, account, side, lots, more)
