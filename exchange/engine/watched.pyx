"""The plain order's way once more, in a book that something watches.

A month of a real market is watched: by its price band, a most value of an order, a limit over all
months, a level of positions that is told, a breaker; and while stops wait, icebergs or quotes rest
in it, or combinations may imply a price. An order that trades with none of these and that none of
these refuses needs no ladder of guards: it goes as a plain one does (plain.pxd), and what follows
from its trades follows. Compiled apart, so that an order where nothing watches does not pay for it.
"""

from exchange.engine.extras cimport stops_of
from exchange.engine.implied cimport is_implied
from exchange.engine.months cimport is_allowed
from exchange.engine.plain cimport enter_plain, replace_plain
from exchange.engine.safety cimport is_on, safety_of, within_band
from exchange.engine.state cimport (
    Safety, WATCH_BREAKER, WATCH_HIDDEN, WATCH_IMPLIED, WATCH_LIMITS, WATCH_QUOTES, WATCH_STEPS,
    WATCH_STOPS, i128, u32,
)
from exchange.engine.vocabulary cimport *

cdef bint is_in_value(Market* m, Safety* s, Instrument* book, Command* c) noexcept nogil:
    cdef i128 value
    if s.order_value == 0 or not is_on(m, FEATURE_ORDER_VALUE):
        return True
    value = <i128>c.price * book.tick_value * c.quantity
    return -<i128>s.order_value <= value <= <i128>s.order_value


cdef bint lets_pass(Market* m, Instrument* book, Position* p, Command* c, u8 side, i64 rise,
                    bint trades) noexcept nogil:
    """What watches a book, if it lets any order pass, neither refuses a limit order on its grid, of
    which `rise` lots more work than did, nor has to be told of it but of its trades."""
    cdef Safety* s = safety_of(m, book)
    cdef u32 watched = book.watched
    if trades and watched & ~<u32>TRADED_BESIDE:
        return False
    if watched & (WATCH_STOPS | WATCH_STEPS | WATCH_QUOTES) and (
            stops_of(m, book).elected.head  # it may come in now
            or c.quantity % book.lot_step
            or m.stands[p - m.positions].reducing):  # it may have to give way
        return False
    if within_band(m, book, side, c.price) != c.price or not is_in_value(m, s, book, c):
        return False
    if watched & WATCH_IMPLIED and is_implied(m, book, side, c.price):
        return False
    return (s.all_months == 0 or rise <= 0 or not is_on(m, FEATURE_ALL_MONTHS_LIMIT)
            or is_allowed(m, p, side, rise))


cdef void rested_beside(Market* m, Instrument* book) noexcept nogil:
    """The round after an order that came to rest, which finds nothing to do: a snapshot is the same
    whichever way the order went."""
    if book.watched & WATCH_QUOTES or (m.extra_count and book.watched & WATCH_IMPLIED):
        m.rounds += 1
        if stops_of(m, book).followed == 0:
            book.watched &= ~<u32>WATCH_QUOTES


cdef bint enter_watched(Market* m, Command* c, Instrument* book) noexcept nogil:
    return may_pass(book) and enter_plain(m, c, True)


cdef bint replace_watched(Market* m, Command* c, Instrument* book) noexcept nogil:
    return may_pass(book) and replace_plain(m, c, True)
