"""Market makers' protection: how many lots an account's quotes may trade within a window.

There is one for each (account, product), up to LIMIT_PROTECTIONS of an account; the table has room
for those of all accounts. A window begins with the first lot traded after the last window has
passed. Once its lots are traded, the protection blocks quotes until it is set again.
"""

from exchange.engine.events cimport blank
from exchange.engine.guards cimport bad_owner
from exchange.engine.lifecycle cimport cancel_for, reject
from exchange.engine.risk cimport position_of
from exchange.engine.state cimport Account, Event, Position, account_of, i64, instrument_of
from exchange.engine.vocabulary cimport *


cdef Protection* protection_of(Market* m, u32 account, u32 product) noexcept nogil:
    """An account's protection in a product; NULL if it has none."""
    cdef u32 at = m.protection_heads[account]
    while at:
        if m.protections[at].product == product:
            return &m.protections[at]
        at = m.protections[at].next
    return NULL


cdef u32 protections_of(Market* m, u32 account) noexcept nogil:
    """How many protections an account has."""
    cdef u32 at = m.protection_heads[account]
    cdef u32 count = 0
    while at:
        count += 1
        at = m.protections[at].next
    return count


cdef void count_quote(Market* m, u32 slot, u32 lots) noexcept nogil:
    """Count a quote's traded lots, in a new window if the last one has passed."""
    cdef Position* p = &m.positions[m.orders[slot].position]
    cdef Protection* one = protection_of(
        m, account_of(p), m.instruments[instrument_of(p)].product)
    if one == NULL or one.lots == 0:
        return
    if m.stamp - one.start >= one.window:
        one.start = m.stamp
        one.traded = 0
    one.traded += lots


cdef void tell(Market* m, Protection* one) noexcept nogil:
    cdef Event* e = blank(m, EVENT_KIND_PROTECTION_CHANGED, 0, 0, one.product, one.account)
    e.quantity = one.lots
    e.leaves = one.blocked
    e.a = one.window
    e.b = one.traded


cdef void protect(Market* m, u32 account, u32 product) noexcept nogil:
    """If the account's quotes have traded the protection's lots: block it, and cancel all of the
    account's quotes in the product, by instrument, bid before ask."""
    cdef Protection* one = protection_of(m, account, product)
    cdef Account* a = &m.accounts[account]
    cdef u32 i, at, slot
    cdef int side
    if one == NULL or one.lots == 0 or one.blocked or one.traded < one.lots:
        return
    one.blocked = 1
    tell(m, one)
    for i in range(a.positions_length):
        at = position_of(a, i)
        if at == 0 or m.instruments[i].product != product:
            continue
        for side in range(2):
            slot = m.stands[at].quotes[side]
            if slot:
                cancel_for(m, slot, CANCEL_REASON_PROTECTION)


cdef void set_protection(Market* m, Command* c) noexcept nogil:
    """SET_PROTECTION: nothing is counted yet, and nothing blocked any more."""
    cdef i64 window = <i64>c.target_lo
    cdef Protection* one
    if bad_owner(m, c, False):
        return
    if (c.instrument >= LIMIT_PRODUCTS or c.quantity > LIMIT_QUANTITY or window < 0
            or window > <i64>1 << 50 or (c.quantity == 0) != (window == 0)):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    one = protection_of(m, c.account, c.instrument)
    if one == NULL:
        if protections_of(m, c.account) >= LIMIT_PROTECTIONS:
            reject(m, c, REASON_PROTECTIONS_FULL, LIMIT_PROTECTIONS, LIMIT_PROTECTIONS)
            return
        one = &m.protections[m.protection_top]
        one.account = c.account
        one.product = c.instrument
        one.next = m.protection_heads[c.account]
        m.protection_heads[c.account] = m.protection_top
        m.protection_top += 1
    one.lots = c.quantity
    one.window = window
    one.blocked = 0
    one.traded = 0
    one.start = 0
    tell(m, one)
