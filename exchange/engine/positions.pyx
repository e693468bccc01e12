"""Position records: an account's first order or transfer in an instrument takes one, and EXPIRE
gives back all of its instrument and of the combinations that end with it.

From then on every command refuses the instrument, so only orders that have finished and are still
remembered name its records: they become PAST, and keep account and instrument themselves. A free
record is VACANT and leads to the next; the last that came back is the first to be taken, and of one
EXPIRE's that with the lowest number.
"""

from libc.string cimport memset

from exchange.engine.state cimport (
    CANCELLED, FILLED, Market, Order, PAST_CANCELLED, PAST_FILLED, Position, Stand, VACANT,
    account_of, ensure, instrument_of, is_live, is_vacant, pair, set_order_state, state_of, u32, u8,
    working_of,
)
from exchange.engine.vocabulary cimport TRADING_STATE_EXPIRED


cdef inline bint is_over(Market* m, Position* p) noexcept nogil:
    return m.instruments[instrument_of(p)].state == TRADING_STATE_EXPIRED


cdef void part_from_orders(Market* m) noexcept nogil:
    """Finished orders in what has expired name no record any more: they become PAST."""
    cdef Order* o
    cdef Position* p
    cdef u32 slot
    cdef u8 state
    for slot in range(1, m.order_top):
        o = &m.orders[slot]
        state = state_of(o)
        if state != FILLED and state != CANCELLED:
            ensure(m, not is_live(o) or not is_over(m, &m.positions[o.position]))
            continue
        p = &m.positions[o.position]
        if is_over(m, p):
            set_order_state(o, PAST_FILLED if state == FILLED else PAST_CANCELLED)
            o.prev = account_of(p)
            o.position = instrument_of(p)


cdef void vacate(Market* m, u32 at) noexcept nogil:
    """Give back a record that holds nothing. Beside it nothing is left to clear: there is no order
    for its Stand or its Charged, and EXPIRE has withdrawn all allowances."""
    cdef Position* p = &m.positions[at]
    cdef Stand* stand = &m.stands[at]
    ensure(m, p.net == 0 and p.cost == 0 and p.hold == 0 and p.adverse == 0
           and working_of(p, 0) == 0 and working_of(p, 1) == 0)
    ensure(m, stand.reducing == 0 and stand.quotes[0] == 0 and stand.quotes[1] == 0
           and m.charged[at].lots[0] == 0 and m.charged[at].lots[1] == 0)
    p.owner.positions[instrument_of(p)] = 0
    memset(p, 0, sizeof(Position))
    m.accountable[at] = 0
    p.who = pair(m.position_free, VACANT)
    m.position_free = at
    m.vacant += 1


cdef void vacate_expired(Market* m) noexcept nogil:
    """Give back every record in an instrument that has expired: the last act of EXPIRE."""
    cdef u32 at = m.position_top
    part_from_orders(m)
    while at > 1:
        at -= 1
        if not is_vacant(&m.positions[at]) and is_over(m, &m.positions[at]):
            vacate(m, at)
