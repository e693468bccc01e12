# The buffer of a batch's events, in the order in which they happened.
#
# Invariants: events lie contiguously from `events` to `next_event`; behind `end_event` is room for
# `set_aside` more, which the plain way fills without a check.

from exchange.engine.state cimport (
    Event, Market, ensure, pair, prefetch, u16, u32, u64, u8, unlikely,
)
from exchange.engine.vocabulary cimport EVENT_FLAG_LAST_IN_COMMAND

cdef bint lend_events(Market* m, u64 room) noexcept
cdef void make_room(Market* m, u64 events) noexcept nogil
cdef void grow_events(Market* m) noexcept nogil


cdef inline u32 what(u8 kind, u32 flags, u32 reason) noexcept nogil:
    """The field `what` of an event."""
    return kind | flags << 8 | reason << 16


cdef inline Event* new_event(Market* m, u32 index, u64 who) noexcept nogil:
    """The next event with sequence, index and who set; the caller knows that there is room."""
    cdef Event* e = m.next_event
    ensure(m, e < m.end_event + m.set_aside)
    m.next_event = e + 1
    prefetch(e + 4)
    e.sequence = m.sequence
    e.index = index
    e.who = who
    return e


cdef inline Event* emit(Market* m, u32 what, u64 who) noexcept nogil:
    """The next event with sequence, index, what and who; the caller writes every other field."""
    if unlikely(m.next_event >= m.end_event):
        grow_events(m)
    cdef u32 index = m.index
    cdef Event* e = new_event(m, index, who)
    m.index = index + 1
    e.what = what
    return e


cdef inline void end_command(Market* m) noexcept nogil:
    """Mark the last event as the command's last; indices start again."""
    (m.next_event - 1).what |= EVENT_FLAG_LAST_IN_COMMAND << 8
    m.index = 0


cdef inline Event* blank(Market* m, u8 kind, u8 flags, u16 reason, u32 instrument,
                         u32 account) noexcept nogil:
    """The next event with every other field zero."""
    cdef Event* e = emit(m, what(kind, flags, reason), pair(instrument, account))
    e.order_id = 0
    e.price = 0
    e.quantity = 0
    e.leaves = 0
    e.key_lo = 0
    e.key_hi = 0
    e.a = 0
    e.b = 0
    return e


cdef inline Event* event_of(Market* m, u32 index) noexcept nogil:
    """The present command's event of this index; the pointer holds until the next event."""
    return m.next_event - (m.index - index)
