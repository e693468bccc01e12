"""What follows from the trades of a command, once its order has found its place.

Called at the end of every command that may trade in a watched book, never from inside a match: the
book is whole. The order of what follows is part of the rules (docs/reference/engine.md): each round
looks at the trades since the last one, then lets at most one elected stop come in, whose trades the
next round looks at. So nothing here recurs, and a round ends with a whole book as it began.
"""

from exchange.engine.extras cimport stops_of
from exchange.engine.safety cimport look_at_trades
from exchange.engine.state cimport Event, WATCH_BREAKER, WATCH_STOPS, event_of
from exchange.engine.stops cimport come_in, elect
from exchange.engine.vocabulary cimport EVENT_KIND_TRADE, LIMIT_ELECTIONS, LIMIT_ELECTION_NS


cdef void elect_by_trades(Market* m, Instrument* book, u32 first) noexcept nogil:
    """Every trade of this book among the command's events from index `first` on, in order."""
    cdef u32 number = <u32>(book - m.instruments)
    cdef Event* e
    cdef u32 i
    for i in range(first, m.index):
        e = event_of(m, i)
        if <unsigned char>e.what == EVENT_KIND_TRADE and <u32>e.who == number:
            elect(m, book, e.price)


cdef void aftermath(Market* m, Instrument* book, u32 first) noexcept nogil:
    """What follows from the trades among the command's events from index `first` on."""
    cdef u32 elections = 0
    cdef u32 heard
    while True:
        heard = m.index
        if book.watched & WATCH_BREAKER:
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
