"""The guards' slow half: which reject to emit, once a cheap test of guards.pxd has failed.

Each `refuse_…` emits at most one reject; its docstring names the reasons in their order of
precedence. One that returns a bint returns True if it rejected the command; the others always
reject.
"""

from exchange.engine.ids cimport owner_of
from exchange.engine.implied cimport refuse_implied
from exchange.engine.state cimport (
    CANCELLED, Composite, FREE, PAST_CANCELLED, RECEIPT, WATCH_IMPLIED, is_live,
)
from exchange.engine.safety cimport refuse_loss, value_of

cdef enum:  # by OrderState, what a target is no order in, or one that nothing is left to say of
    GONE = 1 << FREE | 1 << CANCELLED | 1 << RECEIPT | 1 << PAST_CANCELLED


cdef bint refuse_owner(Market* m, Command* c, bint blocked_if_killed) noexcept nogil:
    """UNKNOWN_ACCOUNT, SESSION_UNKNOWN; then, if switches block this command: ACCOUNT_KILLED,
    SESSION_KILLED, LOSS_LIMIT, MEMBER_KILLED, EXCHANGE_KILLED. A command may have no session."""
    cdef Session* s = &m.sessions[c.session & 0xFFFF]
    cdef u32 killed
    if c.account >= m.account_top or not m.accounts[c.account].is_open:
        reject(m, c, REASON_UNKNOWN_ACCOUNT, 0, 0)
    elif c.session and not (s.entitled == (<u64*>c)[1] or is_killed_session(s, c)):
        reject(m, c, REASON_SESSION_UNKNOWN, 0, c.session)
    elif not blocked_if_killed:
        return False
    else:
        killed = m.accounts[c.account].killed
        if killed & (KILLED_BY_SETTING | KILLED_ACCOUNT):
            reject(m, c, REASON_ACCOUNT_KILLED, 0, 0)
        elif c.session and s.killed:
            reject(m, c, REASON_SESSION_KILLED, 0, c.session)
        elif killed & LOSS_REACHED and refuse_loss(m, c):
            return True
        elif killed & KILLED_MEMBER:
            reject(m, c, REASON_MEMBER_KILLED, 0, m.accounts[c.account].member_id)
        elif killed & ~<u32>LOSS_REACHED:
            reject(m, c, REASON_EXCHANGE_KILLED, 0, 0)
        else:
            return False
    return True


cdef inline bint is_killed_session(Session* s, Command* c) noexcept nogil:
    """Whether the command's session is online and the account's, but killed: `entitled` is 0."""
    return (s.killed and s.account == c.account
            and s.standing == standing(c.session, SESSION_ONLINE))


cdef u32 closed_leg(Market* m, u32 instrument) noexcept nogil:
    """The number of a combination's first leg that is not CONTINUOUS; LIMIT_INSTRUMENTS if none."""
    cdef Composite* made = &m.composites[instrument]
    cdef u32 i
    for i in range(made.legs):
        if m.instruments[made.leg[i]].state != TRADING_STATE_CONTINUOUS:
            return made.leg[i]
    return LIMIT_INSTRUMENTS


cdef bint refuse_untimely(Market* m, Command* c, Instrument* book) noexcept nogil:
    """NOT_TRADING (also of a leg), CANCEL_ONLY, THROTTLED; else spend a token. PRE_OPEN and AUCTION
    take orders, too."""
    cdef Account* account = &m.accounts[c.account]
    cdef i64 tat = account.tat if account.tat > m.stamp else m.stamp
    cdef u32 leg = closed_leg(m, <u32>(book - m.instruments))
    cdef bint collecting = (book.state == TRADING_STATE_PRE_OPEN
                            or book.state == TRADING_STATE_AUCTION)
    if book.state != TRADING_STATE_CONTINUOUS and not collecting:
        reject(m, c, REASON_NOT_TRADING, TRADING_STATE_CONTINUOUS, book.state)
    elif leg < m.instrument_count:
        reject(m, c, REASON_NOT_TRADING, TRADING_STATE_CONTINUOUS, m.instruments[leg].state)
    elif m.mode != MODE_NORMAL:
        reject(m, c, REASON_CANCEL_ONLY, 0, 0)
    elif tat - m.stamp > account.tolerance:
        reject(m, c, REASON_THROTTLED, account.burst, tat - m.stamp - account.tolerance)
    else:
        account.tat = tat + account.interval
        return False
    return True


cdef void refuse_target(Market* m, Command* c, u32 slot) noexcept nogil:
    """NOT_FOUND, TOO_LATE or SIDE_MISMATCH of the target; `slot` is 0 if none was found."""
    cdef Order* o = &m.orders[slot]
    if slot == 0 or GONE >> state_of(o) & 1 or owner_of(m, o) != c.account:
        reject(m, c, REASON_NOT_FOUND, 0, 0)
    elif not is_live(o):
        reject(m, c, REASON_TOO_LATE, 0, 0)
    else:
        reject(m, c, REASON_SIDE_MISMATCH, side_of(o), c.side)


cdef void refuse_quantity(Market* m, Command* c, Instrument* book) noexcept nogil:
    """QUANTITY_RANGE or ACCOUNT_MAX_QUANTITY."""
    if c.quantity == 0 or c.quantity > book.max_order:
        reject(m, c, REASON_QUANTITY_RANGE, book.max_order, c.quantity)
    else:
        reject(m, c, REASON_ACCOUNT_MAX_QUANTITY, m.accounts[c.account].max_order, c.quantity)


cdef void refuse_off_grid(Market* m, Command* c, Instrument* book) noexcept nogil:
    """NOTIONAL, TICK, LOT or PRICE_LIMIT of a price that is not on the ladder."""
    cdef i64 notional = value_of(book, c.price, c.quantity)
    if notional > <i64>LIMIT_MONEY:
        reject(m, c, REASON_NOTIONAL, <i64>LIMIT_MONEY, notional)
    elif c.price % book.price_step:
        reject(m, c, REASON_TICK, book.price_step, c.price)
    elif c.quantity % book.lot_step:
        reject(m, c, REASON_LOT, book.lot_step, c.quantity)
    elif c.price < book.low:
        reject(m, c, REASON_PRICE_LIMIT, book.low, c.price)
    else:
        reject(m, c, REASON_PRICE_LIMIT, book.high, c.price)


cdef bint refuse_distance(Market* m, Command* c, Instrument* book) noexcept nogil:
    """TICK, LOT, PRICE_LIMIT of a MARKET order, whose price is a number of ticks."""
    if c.price % book.price_step:
        reject(m, c, REASON_TICK, book.price_step, c.price)
    elif c.quantity % book.lot_step:
        reject(m, c, REASON_LOT, book.lot_step, c.quantity)
    elif c.price < 0:
        reject(m, c, REASON_PRICE_LIMIT, 0, c.price)
    else:
        return False
    return True


cdef bint refuse_post_only(Market* m, Command* c, Instrument* book, u8 side, i32 at,
                           u32 lots) noexcept nogil:
    """NOT_IN_AUCTION, POST_ONLY (also if an implied price would be reached by an order that comes
    in with so many lots)."""
    if collects(book):
        reject(m, c, REASON_NOT_IN_AUCTION, 0, book.state)
    elif reaches(side, at, book.best[1 - side]):
        reject(m, c, REASON_POST_ONLY, price_of(book, book.best[1 - side]), c.price)
    else:
        return book.watched & WATCH_IMPLIED and refuse_implied(m, c, book, side, lots)
    return True


cdef bint refuse_display(Market* m, Command* c, Instrument* book, u64 quantity,
                         u64 display) noexcept nogil:
    """DISPLAY: more than the order, off the lot step, or so little that it is refilled too
    often."""
    cdef u64 parts = LIMIT_REFILLS + 1
    if display > quantity:
        reject(m, c, REASON_DISPLAY, <i64>quantity, <i64>display)
    elif display % book.lot_step:
        reject(m, c, REASON_DISPLAY, book.lot_step, <i64>display)
    elif display * parts < quantity:
        reject(m, c, REASON_DISPLAY, <i64>((quantity + parts - 1) / parts), <i64>display)
    else:
        return False
    return True


cdef bint refuse_trigger(Market* m, Command* c, Instrument* book) noexcept nogil:
    """TRIGGER: off the price step, or outside the day's limits."""
    cdef i64 trigger = <i64>c.target_hi
    if trigger % book.price_step:
        reject(m, c, REASON_TRIGGER, book.price_step, trigger)
    elif trigger < book.low:
        reject(m, c, REASON_TRIGGER, book.low, trigger)
    elif trigger > book.high:
        reject(m, c, REASON_TRIGGER, book.high, trigger)
    else:
        return False
    return True


cdef bint refuse_extent(Market* m, Command* c, Instrument* book) noexcept nogil:
    """NOT_IN_AUCTION, MINIMUM, EXPIRY, AUCTION_ONLY, TRIGGER, DISPLAY."""
    if collects(book) and not c.spare & ORDER_FEATURE_STOP and (
            not rests(c.tif) or c.flags & COMMAND_FLAG_PROTECTED or minimum_of(c)):
        reject(m, c, REASON_NOT_IN_AUCTION, 0, book.state)
    elif minimum_of(c) > c.quantity:
        reject(m, c, REASON_MINIMUM, c.quantity, <i64>c.target_hi)
    elif c.tif == TIME_IN_FORCE_GTD and <i64>c.target_lo <= m.stamp:
        reject(m, c, REASON_EXPIRY, m.stamp, <i64>c.target_lo)
    elif c.tif == TIME_IN_FORCE_GFA and not collects(book):
        reject(m, c, REASON_AUCTION_ONLY, TRADING_STATE_AUCTION, book.state)
    elif c.spare & ORDER_FEATURE_STOP:
        return refuse_trigger(m, c, book)
    elif c.spare & ORDER_FEATURE_ICEBERG:
        return refuse_display(m, c, book, c.quantity, c.target_hi)
    else:
        return False
    return True


cdef i32 market_slot(Instrument* book, u8 side, u8 tif, i64 ticks, bint protected) noexcept nogil:
    """The ladder slot up to which a MARKET order may trade.

    That is the day's far limit; but if it is protected or may rest (market-to-limit), `ticks` past
    the best opposite price; the caller gives 0 ticks for one that is not protected.
    """
    cdef i64 far = 0 if side else book.slots - 1
    cdef i64 best = book.best[1 - side]
    cdef i64 steps = ticks / book.price_step
    if collects(book) or not has_opposite(book, side) or not (protected or rests(tif)):
        return <i32>far
    if steps > book.slots:
        return <i32>far
    if side:
        return <i32>(best - steps if best - steps > far else far)
    return <i32>(best + steps if best + steps < far else far)


cdef i32 beyond_all(Instrument* book, u8 side) noexcept nogil:
    """The ladder slot of a MARKET order whose limit would follow from the best opposite price, but
    there is none: it meets nobody, not even an implied price."""
    return <i32>book.slots if side else -1


cdef bint refuse_margin(Market* m, Command* c, Position* p, Account* account, u8 side, i64 lots,
                        i64 rise) noexcept nogil:
    """MARGIN or MEMBER_MARGIN for `rise` micro-dollars more. In an account in DEFICIT an order
    passes if it only reduces the position; in any other, if it needs no more."""
    cdef bint in_deficit = account.excess < 0
    cdef bint reducing = p.net > 0 if side else p.net < 0
    if rise <= 0 and not in_deficit:
        return False
    if in_deficit and reducing and working_of(p, side) + lots <= absolute(p.net):
        return False
    refuse_combined_margin(m, c, account, rise)
    return True


cdef void refuse_combined_margin(Market* m, Command* c, Account* account,
                                 i64 rise) noexcept nogil:
    """MARGIN or MEMBER_MARGIN, whichever a rise of the requirement by `rise` violates."""
    cdef i64 required = required_of(account)
    if account.excess < 0 and rise < 0:
        rise = 0
    if required + rise > account.cash:
        reject(m, c, REASON_MARGIN, account.cash, required + rise)
    else:
        reject(m, c, REASON_MEMBER_MARGIN, account.member.cash,
               account.member.cash - account.member.excess + rise)
