"""The guards that hardly ever fire, and the search for a command's target."""

from exchange.engine.ids cimport find_key


cdef u32 target_of(Market* m, Command* c) noexcept nogil:
    """The slot of the live order that CANCEL, REDUCE or REPLACE names; 0 after a reject."""
    cdef u32 slot
    cdef Order* o
    if c.flags & COMMAND_FLAG_BY_CLIENT_ID:
        slot = find_key(m, c.account, c.target_lo, c.target_hi)
        o = &m.orders[slot]
    else:
        slot = <u32>c.target_lo
        o = &m.orders[slot]
        if slot >= m.order_top or o.generation != c.target_lo >> 32:
            slot = 0
    if likely(slot != 0 and (o.state == WORKING or o.state == DORMANT)
              and m.positions[o.position].account == c.account):
        if unlikely(c.side != SIDE_UNSTATED and c.side != o.side):
            reject(m, c, REASON_SIDE_MISMATCH, o.side, c.side)
            return 0
        return slot
    if slot and o.state == FILLED and m.positions[o.position].account == c.account:
        reject(m, c, REASON_TOO_LATE, 0, 0)
    else:
        reject(m, c, REASON_NOT_FOUND, 0, 0)
    return 0


cdef bint refuse_quantity(Market* m, Command* c, Instrument* book) noexcept nogil:
    """One of the two quantity guards fails: say which."""
    if c.quantity == 0 or c.quantity > book.max_order:
        reject(m, c, REASON_QUANTITY_RANGE, book.max_order, c.quantity)
    else:
        reject(m, c, REASON_ACCOUNT_MAX_QUANTITY, m.accounts[c.account].max_order, c.quantity)
    return True


cdef bint refuse_off_grid(Market* m, Command* c, Instrument* book) noexcept nogil:
    """The price is not on the ladder: NOTIONAL, TICK, LOT or PRICE_LIMIT."""
    cdef i128 notional = <i128>c.price * book.tick_value * c.quantity
    if notional < 0:
        notional = -notional
    if notional > <i64>LIMIT_MONEY:
        if notional > <i64>0x7FFFFFFFFFFFFFFF:
            notional = <i64>0x7FFFFFFFFFFFFFFF
        reject(m, c, REASON_NOTIONAL, <i64>LIMIT_MONEY, <i64>notional)
    elif c.price % book.price_step:
        reject(m, c, REASON_TICK, book.price_step, c.price)
    elif c.quantity % book.lot_step:
        reject(m, c, REASON_LOT, book.lot_step, c.quantity)
    elif c.price < book.low:
        reject(m, c, REASON_PRICE_LIMIT, book.low, c.price)
    else:
        reject(m, c, REASON_PRICE_LIMIT, book.high, c.price)
    return True
