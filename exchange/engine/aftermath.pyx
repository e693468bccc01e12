"""What follows from the trades of a command, once its own order has rested or ended.

Called at the end of every command that may trade in a watched book, never during a match, so the
book is consistent. The order of what follows is part of the rules (docs/reference/engine.md, "After
a command's trades"). It is done in rounds. Each looks at the events since the last one: first for
quotes whose protection is spent and for REDUCE_ONLY orders (`follow`), then for breakers and
accountability, then for stops to elect. Then at most one elected stop comes in, and the next round
looks at its trades. So there is no recursion.
"""

from exchange.engine.events cimport event_of
from exchange.engine.extras cimport stops_of
from exchange.engine.groups cimport (
    features_of, partner_of, room_alone, room_to_reduce, shared_lots,
)
from exchange.engine.lifecycle cimport cancel_for, shrink
from exchange.engine.protection cimport protect
from exchange.engine.risk cimport position_of
from exchange.engine.safety cimport look_at_trades
from exchange.engine.state cimport (
    Event, Stand, WATCH_BREAKER, WATCH_IMPLIED, WATCH_LEGS, WATCH_QUOTES, WATCH_STOPS, i64,
    lots_of, side_of, u8,
)
from exchange.engine.stops cimport come_in, elect
from exchange.engine.vocabulary cimport *


cdef void elect_by_trades(Market* m, Instrument* book, u32 first) noexcept nogil:
    """Elect stops by every trade of this book among the events from index `first` on, in order."""
    cdef u32 number = <u32>(book - m.instruments)
    cdef Event* e
    cdef u32 i
    for i in range(first, m.index):
        e = event_of(m, i)
        if <unsigned char>e.what == EVENT_KIND_TRADE and <u32>e.who == number:
            elect(m, book, e.price)


cdef i64 room_of(Market* m, u32 at, u8 side) noexcept nogil:
    """`room_to_reduce` if it is negative; else some number that is not, found faster."""
    cdef i64 room = room_alone(&m.positions[at], side)
    return room if room >= 0 else room_to_reduce(m, &m.positions[at], at, side, 0)


cdef i64 give_way(Market* m, u32 slot, u32 at, u8 side, i64 wanted) noexcept nogil:
    """Take `wanted` lots off a REDUCE_ONLY order, or cancel it; returns the room there is then.

    It is cancelled if it has no more than that, or if less would not help: of two that are grouped
    on one side the larger counts, and a partner that is not REDUCE_ONLY stays as large as it is.
    """
    cdef i64 lots = lots_of(m, slot)
    cdef u32 partner = partner_of(m, slot)
    if wanted >= lots or (lots - wanted < shared_lots(m, partner, at, side)
                          and not features_of(m, partner) & ORDER_FEATURE_REDUCE_ONLY):
        cancel_for(m, slot, CANCEL_REASON_REDUCE_ONLY)
    else:
        lots = wanted
        shrink(m, slot, <u32>wanted, CANCEL_REASON_REDUCE_ONLY)
    return room_of(m, at, side) if partner else lots - wanted


cdef void trim(Market* m, u32 account, u32 instrument) noexcept nogil:
    """REDUCE_ONLY orders of a position give way, the newest first, until all that works on their
    side would only reduce it.

    Once a round for each position is enough: nothing that a round does takes room away.
    """
    cdef u32 at = position_of(&m.accounts[account], instrument)
    cdef Stand* stand = &m.stands[at]
    cdef u32 slot = stand.reducing_tail
    cdef u32 before
    cdef i64[2] room
    cdef u8 side
    if slot == 0 or stand.looked_at == m.rounds:
        return
    stand.looked_at = m.rounds
    for side in range(2):
        room[side] = room_of(m, at, side)
    while slot and (room[0] < 0 or room[1] < 0):
        before = m.extras[slot].prev
        side = side_of(&m.orders[slot])
        if room[side] < 0:
            room[side] = give_way(m, slot, at, side, -room[side])
        slot = before


cdef void follow(Market* m, Instrument* book, u32 first) noexcept nogil:
    """Look at the events from index `first` on: cancel the quotes of accounts whose protection is
    spent, then `trim` every position whose net or working lots have changed."""
    cdef Event* e
    cdef u32 i, k, account, maker, instrument
    cdef u32 end = m.index
    cdef u8 kind
    for i in range(first, end):
        e = event_of(m, i)
        kind = <u8>e.what
        if kind == EVENT_KIND_TRADE or kind == EVENT_KIND_LEG_TRADE:
            maker = <u32>e.key_hi
            instrument = <u32>e.who
            protect(m, <u32>(e.who >> 32), m.instruments[instrument].product)
            protect(m, maker, m.instruments[instrument].product)
    m.rounds += 1
    for i in range(first, end):
        e = event_of(m, i)  # read all fields before `trim`: its events may move the buffer
        kind = <u8>e.what
        account = <u32>(e.who >> 32)
        instrument = <u32>e.who
        if (kind == EVENT_KIND_TRADE or kind == EVENT_KIND_TRADE_BUSTED
                or kind == EVENT_KIND_LEG_TRADE or kind == EVENT_KIND_LEG_BUSTED):
            maker = <u32>e.key_hi
            trim(m, account, instrument)
            trim(m, maker, instrument)
        elif kind == EVENT_KIND_LOTS_TRANSFERRED:
            maker = <u32>e.order_id
            trim(m, account, instrument)
            trim(m, maker, instrument)
        elif kind <= EVENT_KIND_ORDER_RETURNED or kind == EVENT_KIND_ORDER_ELECTED:
            trim(m, account, instrument)
            for k in range(m.composites[instrument].legs):
                trim(m, account, m.composites[instrument].leg[k])
    if stops_of(m, book).followed == 0:
        book.watched &= ~<u32>WATCH_QUOTES


cdef void aftermath(Market* m, Instrument* book, u32 first) noexcept nogil:
    """Do what follows from the trades among the command's events from index `first` on."""
    cdef u32 elections = 0
    cdef u32 heard
    while True:
        # trades in or through legs may change positions that have REDUCE_ONLY orders elsewhere
        if book.watched & WATCH_QUOTES or (m.extra_count
                                           and book.watched & (WATCH_LEGS | WATCH_IMPLIED)):
            follow(m, book, first)
        heard = m.index
        if book.watched & (WATCH_BREAKER | WATCH_LEGS | WATCH_IMPLIED):
            look_at_trades(m, book, first)
        if book.watched & WATCH_STOPS:
            elect_by_trades(m, book, first)
        first = heard
        if stops_of(m, book).elected.head == 0 or stops_of(m, book).due > m.stamp:
            return
        if elections == LIMIT_ELECTIONS or not book.trades:
            stops_of(m, book).due = m.stamp + <long long>LIMIT_ELECTION_NS
            return
        come_in(m, book, stops_of(m, book).elected.head)
        elections += 1
