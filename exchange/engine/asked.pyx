"""The plain way for commands as a gateway sends them: requests with an id of their own (`asked`) or
without their order's side, replacements that keep the order's id, and post-only orders (`posted`).

Each function does what its counterpart in plain.pxd does and a little more: it remembers the
request id, if there is one, with its answer, or changes an order under its own id; an order that
would trade is left to the ladder of guards. Compiled apart, so that commands without these do not
pay for them. As in plain.pxd, a function does its command whole, or on any doubt changes nothing
and returns False.
"""

from exchange.engine.book cimport line_up, slot_of, take_out
from exchange.engine.events cimport new_event, what
from exchange.engine.ids cimport slots_left
from exchange.engine.lifecycle cimport remember_request
from exchange.engine.plain cimport (
    Move, adverse_of, cancel_side, crosses, enter_limit, has_token, hold_more, is_amount,
    is_covered, is_entitled, is_free_to_enter, is_new, is_on_grid, named, reduce_side,
    take_token,
)
from exchange.engine.risk cimport put_back, rehold_plainly
from exchange.engine.state cimport (
    Event, Order, Position, copy_key, i64, instrument_of, put_halves, put_pair, side_of,
    trades_plainly, u32, u8,
)
from exchange.engine.vocabulary cimport *
from exchange.engine.watched cimport lets_pass, may_pass, rested_beside


cdef inline bint is_asked(Market* m, Command* c) noexcept nogil:
    """Whether the session is entitled and the request id, if there is one, is new and can be
    remembered."""
    cdef Move to
    if not is_entitled(m, c):
        return False
    if c.key_lo == 0:
        return c.key_hi == 0
    return slots_left(m) and is_new(m, c, &to)


cdef inline void remember(Market* m, Command* c) noexcept nogil:
    """Remember the request id, if there is one; its answer is the last event."""
    if c.key_lo:
        remember_request(m, c, c.account, m.next_event - 1)


cdef inline void tell_replaced(Market* m, Command* c, Position* p, Order* o, u32 slot, u32 leaves,
                               u8 side, bint kept) noexcept nogil:
    """ORDER_REPLACED, the command's one event; `o` still has its old terms."""
    cdef Event* e = new_event(m, 0, p.who)
    cdef u32 flags = <u32>side << 1 | EVENT_FLAG_RESTING | EVENT_FLAG_LAST_IN_COMMAND
    e.what = what(EVENT_KIND_ORDER_REPLACED, flags, kept)
    put_halves(&e.order_id, o.generation, slot)
    e.price = c.price
    put_pair(&e.quantity, c.quantity, leaves)
    e.a = o.price
    e.b = o.leaves
    copy_key(&e.key_lo, &o.key_lo)


cdef inline bint amend_side(Market* m, Command* c, Order* o, u32 slot, u8 side) noexcept nogil:
    cdef i64 leaves = <i64>c.quantity - o.executed
    cdef i64 before = o.leaves
    cdef bint kept = c.price == o.price and leaves <= before
    cdef i64 adverse = 0
    cdef Move to
    to.account = &m.accounts[c.account]
    to.p = &m.positions[o.position]
    to.book = &m.instruments[instrument_of(to.p)]
    if (leaves <= 0 or not has_token(m, to.account)
            or not is_amount(c, to.book, to.account) or not is_on_grid(c, to.book, &to.at)
            or crosses(&to, side)):
        return False
    if not trades_plainly(to.book) and not (may_pass(to.book) and lets_pass(
            m, to.book, to.p, c, side, leaves - before, False)):
        return False
    if not kept:
        if to.p.adverse:  # 0: no order of the position is adverse
            adverse = adverse_of(to.book, side, o.price, before)
        to.adverse = adverse_of(to.book, side, c.price, leaves)
        if not is_covered(&to, side, leaves, True, before, adverse):
            return False
    take_token(m, to.account)
    tell_replaced(m, c, to.p, o, slot, <u32>leaves, side, kept)
    if kept:
        to.book.levels[to.at].quantity -= before - leaves
        o.leaves = <u32>leaves
        put_back(m, to.book, to.p, side, o.price, before - leaves)
        rehold_plainly(m, to.book, to.p)
        return True
    take_out(m, to.book, o, side, slot_of(to.book, o.price))
    o.price = c.price
    o.leaves = <u32>leaves
    line_up(m, to.book, o, slot, <u32>leaves, side, to.at)
    hold_more(&to, side, leaves - before, to.adverse - adverse)
    rested_beside(m, to.book)
    return True


cdef inline bint change_side(Market* m, Command* c, Order* o, u32 slot, u8 side) noexcept nogil:
    if c.kind == COMMAND_KIND_CANCEL:
        return cancel_side(m, o, slot, side)
    if c.kind == COMMAND_KIND_REDUCE:
        return reduce_side(m, c, o, slot, side)
    return amend_side(m, c, o, slot, side)


cdef bint enter_posted(Market* m, Command* c) noexcept nogil:
    """ENTER of a post-only limit order, GTC or DAY, that crosses nothing."""
    if not is_free_to_enter(m, c):
        return False
    return enter_limit(m, c, &m.accounts[c.account], True, True)


cdef bint do_request(Market* m, Command* c) noexcept nogil:
    """A request, with an id or without its order's side, on a limit order in the book: CANCEL,
    REDUCE by less than its leaves, or a REPLACE that keeps the order's id and does not trade.
    Whether it was one and is done."""
    cdef u32 form = 0
    cdef u8 side
    cdef u32 slot
    cdef Order* o
    if c.kind == COMMAND_KIND_REPLACE:
        form = (<u32*>c)[0] & <u32>POSTED
        if c.stp > SELF_TRADE_DECREMENT:
            return False
    if c.kind < COMMAND_KIND_CANCEL or not is_asked(m, c):
        return False
    o = named(m, c, form, False, &slot)
    if o == NULL:
        return False
    side = side_of(o)
    if c.side != side and c.side != SIDE_UNSTATED:
        return False
    if not (change_side(m, c, o, slot, 1) if side else change_side(m, c, o, slot, 0)):
        return False
    remember(m, c)
    return True
