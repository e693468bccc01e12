"""Sessions (connections, as the log knows them), the timers of cancel-on-disconnect, and all else
that is due at a stamp (`fire_due`).

A session id is slot | generation << 16. Timers are kept sorted by (due, session).
"""

from libc.stdlib cimport free, qsort
from libc.string cimport memmove

from exchange.engine.events cimport blank
from exchange.engine.lifecycle cimport (
    Gathered, cancel_for, cancel_gathered, none_gathered, reject,
)
from exchange.engine.instruments cimport resume
from exchange.engine.safety cimport next_resume
from exchange.engine.state cimport (
    Command, Event, Instrument, Market, Order, SESSION_FREE, SESSION_GRACE, SESSION_ONLINE, Session,
    Timer, i64, is_live, put_state, standing, u32, u64,
)
from exchange.engine.aftermath cimport aftermath
from exchange.engine.stops cimport next_slice
from exchange.engine.vocabulary cimport *


cdef enum:
    NEVER = 0x7FFFFFFFFFFFFFFF


cdef inline u32 id_of(Market* m, u32 slot) noexcept nogil:
    return slot | (m.sessions[slot].standing & <u32>0xFFFF0000)


cdef inline u32 state_in(Session* s) noexcept nogil:
    return s.standing & 0xFFFF


cdef inline void put_in(Session* s, u32 state) noexcept nogil:
    s.standing = standing(s.standing, state)
    s.entitled = 0


cdef int by_due(const void* x, const void* y) noexcept nogil:
    cdef Timer* one = <Timer*>x
    cdef Timer* two = <Timer*>y
    if one.due != two.due:
        return -1 if one.due < two.due else 1
    return -1 if one.session < two.session else 1


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


cdef void end_session(Market* m, u32 slot, Gathered* orders) noexcept nogil:
    """SESSION_ENDED, its orders are cancelled if it is cancel-on-disconnect, and its slot goes to
    the end of the free queue. `orders`: gathered for all sessions that the command ends."""
    cdef Session* s = &m.sessions[slot]
    cdef Event* e = blank(m, EVENT_KIND_SESSION_ENDED, 0, 0, 0, s.account)
    cdef u32 session = id_of(m, slot)
    e.order_id = session
    if s.cancel_on_disconnect and m.accounts[s.account].open_orders:
        cancel_gathered(m, orders, session, CANCEL_REASON_DISCONNECTED)
    put_in(s, SESSION_FREE)
    s.killed = 0
    s.next = 0
    if m.session_free_tail:
        m.sessions[m.session_free_tail].next = slot
    else:
        m.session_free_head = slot
    m.session_free_tail = slot


cdef inline i64 grace_end(Market* m, u32 slot) noexcept nogil:
    return m.stamp + <i64>m.sessions[slot].grace_ms * 1_000_000


cdef bint lose_session(Market* m, u32 slot) noexcept nogil:
    """SESSION_LOST: an online session's connection is gone. If it is cancel-on-disconnect it is in
    grace from now on and the caller must start its timer (True); else it ends (False)."""
    cdef Session* s = &m.sessions[slot]
    cdef Event* e = blank(m, EVENT_KIND_SESSION_LOST, 0, 0, 0, s.account)
    e.order_id = id_of(m, slot)
    if s.cancel_on_disconnect:
        e.a = grace_end(m, slot)
        put_in(s, SESSION_GRACE)
        return True
    end_session(m, slot, NULL)
    return False


cdef inline i64 due_timer(Market* m, u32 fired) noexcept nogil:
    """When the first timer that has not fired is due; NEVER if there is none."""
    return m.timers[fired].due if fired < m.timer_count else NEVER


cdef bint resumes_now(Market* m, Instrument* book, Instrument* other, u32 fired) noexcept nogil:
    """Whether a book's halt is over, and due before all else, `other`'s elected stops included."""
    cdef i64 due = m.safety[book - m.instruments].resume_at
    return (due <= m.stamp and (m.expiry_count == 0 or due < m.expiries[0].due)
            and due < due_timer(m, fired)
            and (other == NULL or due < m.stops[other - m.instruments].due))


cdef bint enters_now(Market* m, Instrument* book, u32 fired) noexcept nogil:
    """Whether a book's elected stops may come in, and are due before all else but halts."""
    cdef i64 due = m.stops[book - m.instruments].due
    return (due <= m.stamp and (m.expiry_count == 0 or due < m.expiries[0].due)
            and due < due_timer(m, fired))


cdef void fire_due(Market* m) noexcept nogil:
    """Do what is due at the present stamp: sessions whose grace is over end, GTD orders expire,
    elected stops come in, halts end. The earliest due is first; of equal ones, in this order, then
    by id."""
    cdef u32 fired = 0
    cdef i64 due
    # To find either is to look at every instrument, and thousands of orders may expire at once. The
    # end of a session or order lets none trade and elects nothing: at most it takes the last stop.
    cdef Instrument* halted = next_resume(m)
    cdef Instrument* elected = next_slice(m)
    # gathered once: no new order is entered before all this is done
    cdef Gathered ending = none_gathered()
    while True:
        if elected != NULL and m.stops[elected - m.instruments].elected.head == 0:
            elected = next_slice(m)
        if halted != NULL and resumes_now(m, halted, elected, fired):
            resume(m, halted)
            halted = next_resume(m)
            elected = next_slice(m)
            continue
        if elected != NULL and enters_now(m, elected, fired):
            aftermath(m, elected, m.index)
            halted = next_resume(m)
            elected = next_slice(m)
            continue
        due = m.expiries[0].due if m.expiry_count else NEVER
        if fired < m.timer_count and m.timers[fired].due <= due:
            if m.timers[fired].due > m.stamp:
                break
            end_session(m, m.timers[fired].session & 0xFFFF, &ending)
            fired += 1
        elif m.expiry_count and due <= m.stamp:
            cancel_for(m, m.expiries[0].slot, CANCEL_REASON_TIME_EXPIRED)
        else:
            break
    free(ending.keys)
    m.timer_count -= fired
    memmove(m.timers, &m.timers[fired], m.timer_count * sizeof(Timer))


cdef inline Session* known(Market* m, Command* c) noexcept nogil:
    """The session that the command names, if it has not ended and is the account's; else NULL."""
    cdef u32 slot = c.session & 0xFFFF
    cdef Session* s = &m.sessions[slot]
    if slot == 0 or slot >= m.session_top or state_in(s) == SESSION_FREE:
        return NULL
    if id_of(m, slot) != c.session or s.account != c.account:
        return NULL
    return s


cdef void part_from_sessions(Market* m, u32 slot) noexcept nogil:
    """The generations of a session slot start anew: live orders of all its sessions so far are of
    none from now on, for a new session may get any of their ids."""
    cdef Order* o
    cdef u32 k
    for k in range(1, m.order_top):
        o = &m.orders[k]
        if is_live(o) and o.session & 0xFFFF == slot:
            o.session = 0


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
            part_from_sessions(m, slot)
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
    if lose_session(m, c.session & 0xFFFF):
        start_timer(m, grace_end(m, c.session & 0xFFFF), c.session)


cdef void recovered(Market* m, Command* c) noexcept nogil:
    """RECOVERED, after a restart: connections are lost, CONTINUOUS instruments are HALTED."""
    cdef Event* e = blank(m, EVENT_KIND_RECOVERED, 0, 0, 0, 0)
    cdef u32 i
    e.quantity = c.quantity
    for i in range(1, m.session_top):
        if state_in(&m.sessions[i]) == SESSION_ONLINE and lose_session(m, i):
            m.timers[m.timer_count].due = grace_end(m, i)
            m.timers[m.timer_count].session = id_of(m, i)
            m.timer_count += 1
    qsort(m.timers, m.timer_count, sizeof(Timer), by_due)
    for i in range(m.instrument_count):
        if m.instruments[i].state == TRADING_STATE_CONTINUOUS:
            put_state(m, &m.instruments[i], TRADING_STATE_HALTED)
            m.instruments[i].halt_cause = HALT_CAUSE_RECOVERY
            e = blank(m, EVENT_KIND_STATE_CHANGED, 0, HALT_CAUSE_RECOVERY, i, 0)
            e.quantity = TRADING_STATE_HALTED
            e.leaves = TRADING_STATE_CONTINUOUS
