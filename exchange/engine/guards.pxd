# The guards of the order commands, in their documented precedence. Each says its own reject.

from exchange.engine.book cimport on_step, reaches, slot_of
from exchange.engine.lifecycle cimport reject
from exchange.engine.risk cimport absolute, adverse_per_lot, hold_with, required_of
from exchange.engine.state cimport (
    Account, CANCELLED, Command, DORMANT, FILLED, Instrument, Market, Member, Order, Position,
    SESSION_ONLINE, Session, WORKING, i128, i32, i64, likely, u32, u64, u8, unlikely,
)
from exchange.engine.vocabulary cimport *

cdef u32 target_of(Market* m, Command* c) noexcept nogil
cdef bint refuse_off_grid(Market* m, Command* c, Instrument* book) noexcept nogil
cdef bint refuse_quantity(Market* m, Command* c, Instrument* book) noexcept nogil


cdef inline bint refuse_session(Market* m, Command* c, bint blocked_if_killed) noexcept nogil:
    """UNKNOWN_ACCOUNT, SESSION_UNKNOWN, ACCOUNT_KILLED."""
    cdef Session* s
    cdef u32 slot = c.session & 0xFFFF
    if unlikely(c.account >= m.account_capacity or not m.accounts[c.account].is_open):
        reject(m, c, REASON_UNKNOWN_ACCOUNT, 0, 0)
        return True
    if c.session:
        s = &m.sessions[slot]
        if unlikely(slot >= m.session_top or s.state != SESSION_ONLINE
                    or s.generation != c.session >> 16 or s.account != c.account):
            reject(m, c, REASON_SESSION_UNKNOWN, 0, c.session)
            return True
    if blocked_if_killed and unlikely(m.accounts[c.account].killed):
        reject(m, c, REASON_ACCOUNT_KILLED, 0, 0)
        return True
    return False


cdef inline bint refuse_market_state(Market* m, Command* c, Instrument* book) noexcept nogil:
    """NOT_TRADING, CANCEL_ONLY, THROTTLED; a pass spends one token."""
    cdef Account* account = &m.accounts[c.account]
    cdef i64 tat
    if unlikely(book.state != TRADING_STATE_CONTINUOUS):
        reject(m, c, REASON_NOT_TRADING, TRADING_STATE_CONTINUOUS, book.state)
        return True
    if unlikely(m.mode != MODE_NORMAL):
        reject(m, c, REASON_CANCEL_ONLY, 0, 0)
        return True
    tat = account.tat if account.tat > m.stamp else m.stamp
    if unlikely(tat - m.stamp > account.tolerance):
        reject(m, c, REASON_THROTTLED, account.burst, tat - m.stamp - account.tolerance)
        return True
    account.tat = tat + account.interval
    return False


cdef inline bint refuse_grid(Market* m, Command* c, Instrument* book, bint priced) noexcept nogil:
    """QUANTITY_RANGE to PRICE_LIMIT: one cheap test passes, the slow ones say what was wrong."""
    cdef Account* account = &m.accounts[c.account]
    if unlikely(c.quantity == 0 or c.quantity > book.max_order
                or c.quantity > account.max_order):
        return refuse_quantity(m, c, book)
    if priced:
        if unlikely(c.price < book.low or c.price > book.high or not on_step(book, c.price)):
            return refuse_off_grid(m, c, book)
    if unlikely(book.lot_step != 1) and c.quantity % book.lot_step:
        reject(m, c, REASON_LOT, book.lot_step, c.quantity)
        return True
    return False


cdef inline bint refuse_risk(Market* m, Command* c, Instrument* book, Position* p, u8 side,
                             i64 price, i64 lots, i64 working) noexcept nogil:
    """POSITION_LIMIT, MARGIN, MEMBER_MARGIN for `lots` at `price` in place of `working` lots that
    the caller has taken out of the position (but not out of its hold)."""
    cdef Account* account = &m.accounts[c.account]
    cdef Member* member = &m.members[account.member]
    cdef i64 worst = (-p.net if side else p.net) + p.working[side] + lots
    cdef i64 rise, required
    cdef bint reducing
    if unlikely(worst > book.position_limit) and lots > working:
        reject(m, c, REASON_POSITION_LIMIT, book.position_limit, worst)
        return True
    rise = hold_with(book, p, side, lots, lots * adverse_per_lot(book, side, price)) - p.hold
    if rise <= 0:
        return False
    required = required_of(account)
    if likely(required + rise <= account.cash and member.required + rise <= member.cash):
        return False
    reducing = p.net > 0 if side else p.net < 0
    if reducing and required > account.cash and p.working[side] + lots <= absolute(p.net):
        return False
    if required + rise > account.cash:
        reject(m, c, REASON_MARGIN, account.cash, required + rise)
    else:
        reject(m, c, REASON_MEMBER_MARGIN, member.cash, member.required + rise)
    return True
