"""Sessions: connections as the log knows them, and the timers of cancel-on-disconnect.

A session id is slot | generation << 16. Timers are kept sorted by (due, session).
"""

from libc.string cimport memmove

from exchange.engine.events cimport blank
from exchange.engine.lifecycle cimport cancel_all_of, cancel_for, reject
from exchange.engine.instruments cimport resume
from exchange.engine.safety cimport next_resume
from exchange.engine.state cimport (
    Command, Event, Instrument, Market, SESSION_FREE, SESSION_GRACE, SESSION_ONLINE, Session, Timer,
    i64, put_state, standing, u32, u64,
)
from exchange.engine.aftermath cimport aftermath
from exchange.engine.stops cimport next_slice
from exchange.engine.vocabulary cimport *


cdef inline u32 id_of(Market* m, u32 slot) noexcept nogil:
    return slot | (m.sessions[slot].standing & <u32>0xFFFF0000)


cdef inline u32 state_in(Session* s) noexcept nogil:
    return s.standing & 0xFFFF


cdef inline void put_in(Session* s, u32 state) noexcept nogil:
    s.standing = standing(s.standing, state)
    s.entitled = 0


cdef void start_timer(Market* m, i64 due, u32 session) noexcept nogil:
    cdef u32 at = m.timer_count
    while at > 0 and (m.timers[at - 1].due > due or (
            m.timers[at - 1].due == due and m.timers[at - 1].session > session)):
        m.timers[at] = m.timers[at - 1]
        at -= 1
    m.timers[at].due = due
    m.timers[at].session = session
    m.timer_count += 1


cdef void stop_timer(Market* m, u32 session) noexcept nogil:
    cdef u32 at
    for at in range(m.timer_count):
        if m.timers[at].session == session:
            m.timer_count -= 1
            memmove(&m.timers[at], &m.timers[at + 1], (m.timer_count - at) * sizeof(Timer))
            return


cdef void end_session(Market* m, u32 slot) noexcept nogil:
    """SESSION_ENDED; its slot goes to the end of the free queue."""
    cdef Session* s = &m.sessions[slot]
    cdef Event* e = blank(m, EVENT_KIND_SESSION_ENDED, 0, 0, 0, s.account)
    cdef u32 session = id_of(m, slot)
    e.order_id = session
    if s.cancel_on_disconnect:
        cancel_all_of(m, 0, session, CANCEL_REASON_DISCONNECTED)
    put_in(s, SESSION_FREE)
    s.killed = 0
    s.next = 0
    if m.session_free_tail:
        m.sessions[m.session_free_tail].next = slot
    else:
        m.session_free_head = slot
    m.session_free_tail = slot


cdef void lose_session(Market* m, u32 slot) noexcept nogil:
    """An online session's connection is gone: end it, or give it its grace."""
    cdef Session* s = &m.sessions[slot]
    cdef Event* e = blank(m, EVENT_KIND_SESSION_LOST, 0, 0, 0, s.account)
    cdef i64 due = m.stamp + <i64>s.grace_ms * 1_000_000
    e.order_id = id_of(m, slot)
    if s.cancel_on_disconnect:
        e.a = due
        put_in(s, SESSION_GRACE)
        start_timer(m, due, id_of(m, slot))
    else:
        end_session(m, slot)


cdef bint resumes_now(Market* m, Instrument* book) noexcept nogil:
    """Whether its halt ends at the present stamp, and before all else that is due."""
    cdef i64 due = m.safety[book - m.instruments].resume_at
    cdef Instrument* other = next_slice(m)
    return (due <= m.stamp and (m.expiry_count == 0 or due < m.expiries[0].due)
            and (m.timer_count == 0 or due < m.timers[0].due)
            and (other == NULL or due < m.stops[other - m.instruments].due))


cdef void fire_due(Market* m) noexcept nogil:
    """What is due at the present stamp: sessions whose grace is over end, orders that worked until
    a time are cancelled, elected stops come in, halts end; by (due, in this order, id)."""
    cdef u32 session
    cdef i64 due
    cdef Instrument* book
    while True:
        book = next_resume(m)
        if book != NULL and resumes_now(m, book):
            resume(m, book)
            continue
        book = next_slice(m)
        if book != NULL and m.stops[book - m.instruments].due <= m.stamp:
            due = m.stops[book - m.instruments].due
            if ((m.expiry_count == 0 or due < m.expiries[0].due)
                    and (m.timer_count == 0 or due < m.timers[0].due)):
                aftermath(m, book, m.index)
                continue
        due = m.expiries[0].due if m.expiry_count else <i64>0x7FFFFFFFFFFFFFFF
        if m.timer_count and m.timers[0].due <= due:
            if m.timers[0].due > m.stamp:
                return
            session = m.timers[0].session
            m.timer_count -= 1
            memmove(&m.timers[0], &m.timers[1], m.timer_count * sizeof(Timer))
            end_session(m, session & 0xFFFF)
        elif m.expiry_count and due <= m.stamp:
            cancel_for(m, m.expiries[0].slot, CANCEL_REASON_TIME_EXPIRED)
        else:
            return


cdef inline Session* known(Market* m, Command* c) noexcept nogil:
    """The session the command names if it has not ended and is of the command's account."""
    cdef u32 slot = c.session & 0xFFFF
    cdef Session* s = &m.sessions[slot]
    if slot == 0 or slot >= m.session_top or state_in(s) == SESSION_FREE:
        return NULL
    if id_of(m, slot) != c.session or s.account != c.account:
        return NULL
    return s


cdef void logon(Market* m, Command* c) noexcept nogil:
    cdef Session* s
    cdef Event* e
    cdef u32 slot = c.session & 0xFFFF
    if c.account >= m.account_capacity or not m.accounts[c.account].is_open:
        reject(m, c, REASON_UNKNOWN_ACCOUNT, 0, 0)
        return
    if c.session:
        s = known(m, c)
        if s == NULL:
            reject(m, c, REASON_SESSION_UNKNOWN, 0, c.session)
            return
        if state_in(s) == SESSION_ONLINE:
            reject(m, c, REASON_SESSION_LIVE, 0, c.session)
            return
        stop_timer(m, c.session)
    else:
        slot = m.session_free_head
        if slot:
            m.session_free_head = m.sessions[slot].next
            if m.session_free_head == 0:
                m.session_free_tail = 0
        elif m.session_top < m.session_capacity:
            slot = m.session_top
            m.session_top += 1
        else:
            reject(m, c, REASON_SESSIONS_FULL, m.session_capacity, m.session_capacity)
            return
        s = &m.sessions[slot]
        s.standing += <u32>1 << 16
        if s.standing >> 16 == 0:
            s.standing += <u32>1 << 16
        s.killed = 0
    s.account = c.account
    put_in(s, SESSION_ONLINE)
    s.entitled = 0 if s.killed else <u64>id_of(m, slot) << 32 | c.account
    s.next = 0
    s.grace_ms = c.quantity
    s.cancel_on_disconnect = (c.flags & COMMAND_FLAG_CANCEL_ON_DISCONNECT) != 0
    e = blank(m, EVENT_KIND_SESSION_OPENED, 0, 0, 0, c.account)
    e.order_id = id_of(m, slot)
    e.quantity = c.quantity
    e.leaves = s.cancel_on_disconnect
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi


cdef void logoff(Market* m, Command* c) noexcept nogil:
    cdef Session* s = known(m, c)
    if s == NULL or state_in(s) != SESSION_ONLINE:
        reject(m, c, REASON_SESSION_UNKNOWN, 0, c.session)
        return
    lose_session(m, c.session & 0xFFFF)


cdef void recovered(Market* m, Command* c) noexcept nogil:
    """After a restart: every connection is gone, and trading waits for its schedule."""
    cdef Event* e = blank(m, EVENT_KIND_RECOVERED, 0, 0, 0, 0)
    cdef u32 i
    e.quantity = c.quantity
    for i in range(1, m.session_top):
        if state_in(&m.sessions[i]) == SESSION_ONLINE:
            lose_session(m, i)
    for i in range(m.instrument_count):
        if m.instruments[i].state == TRADING_STATE_CONTINUOUS:
            put_state(m, &m.instruments[i], TRADING_STATE_HALTED)
            m.instruments[i].halt_cause = HALT_CAUSE_RECOVERY
            e = blank(m, EVENT_KIND_STATE_CHANGED, 0, HALT_CAUSE_RECOVERY, i, 0)
            e.quantity = TRADING_STATE_HALTED
            e.leaves = TRADING_STATE_CONTINUOUS
