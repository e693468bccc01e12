"""The canonical bytes of all state that can change a later event: what a state hash is taken of.

Left out are sequence and stamp, and what follows from the rest (ladders, id hash, best prices).
Free slots are chained in the order in which they will be taken, with their generations, and so are
free position records. `IMAGE` is the number of the layout. Not an image to restore from: that is
snapshot.pyx.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy

from exchange.engine.risk cimport hold_of
from exchange.engine.state cimport (
    Safety, Window, Account, Composite, Extra, FREE, Instrument, LegTerms, Market, Order, Position,
    Stated, Protection, Session, Stops, account_of, i64, instrument_of, is_featured, state_of, u32,
    u64, working_of,
)
from exchange.engine.vocabulary cimport *

IMAGE = 1


cdef bytes numbers(tuple values):
    return b"".join([(<object>v).to_bytes(8, "little", signed=True) for v in values])


cdef u64 write_orders(Market* m, char* to) noexcept nogil:
    """Write all slots from 1: a whole order, then its Extra if it is FEATURED; of a free slot its
    generation and the next free one. Returns how many bytes that is; `to` NULL: writes nothing."""
    cdef u64 used = 0
    cdef Extra extra
    cdef u32 slot
    cdef u32[2] free_slot
    for slot in range(1, m.order_top):
        if state_of(&m.orders[slot]) != FREE:
            if to != NULL:
                memcpy(to + used, &m.orders[slot], sizeof(Order))
            used += sizeof(Order)
            if is_featured(&m.orders[slot]):
                extra = m.extras[slot]
                extra.child = 0  # the heap's shape changes no event
                extra.sibling = 0
                extra.before = 0
                if to != NULL:
                    memcpy(to + used, &extra, sizeof(Extra))
                used += sizeof(Extra)
            continue
        free_slot[0] = m.orders[slot].generation
        free_slot[1] = m.orders[slot].next
        if to != NULL:
            memcpy(to + used, free_slot, sizeof(free_slot))
        used += sizeof(free_slot)
    return used


cdef bytes image_of_instrument(Instrument* i):
    return numbers((
        i.low, i.high, i.price_step, i.mark, i.rate, i.position_limit, i.multiplier, i.tick_scale,
        i.maker_fee, i.taker_fee, i.bound, i.max_order, i.lot_step, <i64>i.last_settled,
        i.dormant.head, i.dormant.tail, i.state, i.halt_cause, i.product,
    ))


cdef bytes image_of_stops(Stops* stops):
    return numbers((stops.waiting.head, stops.waiting.tail, stops.elected.head,
                    stops.elected.tail, stops.due))


cdef bytes image_of_composite(Composite* made):
    cdef u32 k
    return numbers((made.anchor, made.legs, made.rule, made.implied)) + b"".join(
        [numbers((made.leg[k], made.ratio[k])) for k in range(made.legs)])


cdef bytes image_of_protection(Protection* one):
    return numbers((
        one.account, one.product, one.lots, one.blocked, one.traded, one.window, one.start,
    ))


cdef bytes image_of_account(Account* a, bint buckets):
    cdef u32 k
    ring = numbers(tuple([a.ring[<u32>(a.ring_head + k) % LIMIT_IDEMPOTENCY_WINDOW].slot
                          for k in range(LIMIT_IDEMPOTENCY_WINDOW)]))
    return numbers((
        a.cash, hold_of(a), a.unrealized, a.tat if buckets else 0, a.interval, a.burst, a.member_id,
        a.group, a.open_orders, a.max_open_orders, a.max_order, a.killed, a.kind, a.currency,
        a.in_deficit,
    )) + ring


cdef bytes positions_of(Market* m):
    """Position records from 1, eight numbers each, without an object for each of a million; of a
    free one the first is the next free one and the second is VACANT."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, <u64>(m.position_top - 1) * 8 * sizeof(i64))
    cdef i64* to = <i64*><char*>out
    cdef Position* p
    cdef u32 k
    for k in range(1, m.position_top):
        p = &m.positions[k]
        to[0] = instrument_of(p)
        to[1] = account_of(p)
        to[2] = p.net
        to[3] = working_of(p, 0)
        to[4] = working_of(p, 1)
        to[5] = p.adverse
        to[6] = p.cost
        to[7] = p.hold
        to += 8
    return out


cdef bytes image_of(Market* m, bint buckets):
    """All parts, each in the order of ids; the orders, maybe a million, are written in place."""
    cdef bytes head = numbers((
        IMAGE, m.rules_version, m.business_date, m.day_open, m.mode, m.deposits, m.order_top,
        m.order_free, m.position_top, m.instrument_count, m.account_top, m.session_top,
        m.session_free_head, m.session_free_tail, m.timer_count, <i64>m.day_first,
        m.killed, m.ages,
    ))
    cdef bytes rest = after_orders(m, buckets)
    cdef u64 orders = write_orders(m, NULL)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, len(head) + orders + len(rest))
    cdef char* to = out
    memcpy(to, <char*>head, len(head))
    memcpy(to + len(head) + orders, <char*>rest, len(rest))
    to += len(head)
    with nogil:
        write_orders(m, to)
    return out


cdef bytes image_of_window(Window* w):
    cdef u32 k
    if w.variation == 0:
        return numbers((0,))
    parts = [(w.low[k], w.high[k]) for k in range(LIMIT_WINDOW_PARTS)]
    return numbers((w.variation, w.span, w.halt, w.part, w.whole_product)
                   + tuple([price for pair in parts for price in pair]))


cdef bytes image_of_protections(Market* m):
    cdef Safety* s
    cdef u32 k
    cdef list parts = [numbers((m.features_off,))]
    for k in range(m.instrument_count):
        s = &m.safety[k]
        parts.append(numbers((s.band, s.order_value, s.all_months, s.last, s.resume_at,
                              s.accountability, s.traded)))
        parts.append(image_of_window(&s.windows[0]) + image_of_window(&s.windows[1]))
    for k in range(m.account_top):
        if m.losses[k].limit:
            parts.append(numbers((k, m.losses[k].limit, m.losses[k].base, m.losses[k].reached)))
    told = [k for k in range(1, m.position_top) if m.accountable[k]]
    return b"".join(parts) + numbers((len(told), *told))


cdef bytes after_orders(Market* m, bint buckets):
    cdef list parts = [positions_of(m)]
    cdef u32 k
    for k in range(m.instrument_count):
        parts.append(image_of_instrument(&m.instruments[k]))
        parts.append(image_of_stops(&m.stops[k]))
        parts.append(image_of_composite(&m.composites[k]))
    for k in range(m.account_top):
        if m.accounts[k].is_open:
            parts.append(numbers((k,)) + image_of_account(&m.accounts[k], buckets))
    for k in range(m.session_top):
        parts.append((<char*>&m.sessions[k].account)[:sizeof(Session) - sizeof(u64)])
    for k in range(m.timer_count):
        parts.append(numbers((m.timers[k].due, m.timers[k].session)))
    for k in range(1, m.protection_top):
        parts.append(image_of_protection(&m.protections[k]))
    killed = [k for k in range(LIMIT_MEMBERS) if m.members_killed[k]]
    if killed:
        parts.append(numbers((len(killed), *killed)))
    gathering = [k for k in range(m.instrument_count) if m.auctions[k] != NULL]
    if gathering:  # what waits where, and in which order, follows from the orders
        parts.append(numbers((-1, len(gathering), *gathering)))
    if m.expiry_count:
        due = sorted([(m.expiries[k].due, m.expiries[k].slot) for k in range(m.expiry_count)])
        parts.append(numbers((m.expiry_count,)))
        parts.extend([numbers(one) for one in due])
    parts.append(image_of_protections(m))
    if m.corrected_count:
        parts.append(numbers((m.corrected_count,)))
        parts.append((<char*>m.corrected)[:m.corrected_count * sizeof(u64)])
    if m.leg_change_count:
        parts.append(numbers((-2, <i64>m.legs_known, m.leg_change_count)))
        parts.append((<char*>m.leg_changes)[:m.leg_change_count * sizeof(LegTerms)])
    credited = [(m.combined[k], m.composites[m.combined[k]].credit)
                for k in range(m.combined_count) if m.composites[m.combined[k]].credit]
    if credited:
        parts.append(numbers((-3, len(credited))))
        parts.extend([numbers(one) for one in credited])
    if m.stated.count:
        parts.append(numbers((-4, <i64>m.stated.match, m.stated.combination, m.stated.kind,
                              m.stated.lots, m.stated.count)))
        parts.append((<char*>m.stated.legs)[:m.stated.count * sizeof(Stated)])
    if m.position_free:
        parts.append(numbers((-5, m.position_free)))
    return b"".join(parts)
