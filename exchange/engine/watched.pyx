"""The plain functions once more, for an instrument that is watched.

In a real market most instruments are watched: they have a price band, a limit of an order's value
or over all months, an accountability level, a breaker; or stops wait, icebergs or quotes rest in
the book, or combinations may imply a price. A limit order that none of these refuses, and that
trades with no special order, needs no ladder of guards: it goes the plain way (plain.pxd), and then
`aftermath` sees to what follows from its trades. Compiled apart from plain.pxd's other use, so that
an order in a book that is not watched does not pay for it.
"""

from exchange.engine.extras cimport stops_of
from exchange.engine.implied cimport is_implied
from exchange.engine.months cimport is_allowed
from exchange.engine.plain cimport enter_plain, replace_plain
from exchange.engine.safety cimport is_on, safety_of, within_band
from exchange.engine.state cimport (
    Safety, WATCH_IMPLIED, WATCH_QUOTES, WATCH_STEPS, WATCH_STOPS, i128, u32,
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
    """Whether a limit order on the grid may go the plain way in a watched book: no protection
    refuses it, and it meets nothing special.

    `rise` is by how many lots more it works than the order that it replaces; `trades`, whether it
    would trade at once. The caller has asked `may_pass`.
    """
    cdef Safety* s = safety_of(m, book)
    cdef u32 watched = book.watched
    if trades and watched & ~<u32>TRADED_BESIDE:
        return False
    if watched & (WATCH_STOPS | WATCH_STEPS | WATCH_QUOTES) and (
            stops_of(m, book).elected.head  # an elected stop may have to come in now
            or c.quantity % book.lot_step
            or m.stands[p - m.positions].reducing):  # REDUCE_ONLY orders may have to give way
        return False
    if within_band(m, book, side, c.price) != c.price or not is_in_value(m, s, book, c):
        return False
    if watched & WATCH_IMPLIED and is_implied(m, book, side, c.price):
        return False
    return (s.all_months == 0 or rise <= 0 or not is_on(m, FEATURE_ALL_MONTHS_LIMIT)
            or is_allowed(m, p, side, rise))


cdef void rested_beside(Market* m, Instrument* book) noexcept nogil:
    """Count the round of `follow` that `aftermath` would have made after an order that came to
    rest; it would have found nothing to do. So the state is the same whichever way an order went.
    """
    if book.watched & WATCH_QUOTES or (m.extra_count and book.watched & WATCH_IMPLIED):
        m.rounds += 1
        if stops_of(m, book).followed == 0:
            book.watched &= ~<u32>WATCH_QUOTES


cdef bint enter_watched(Market* m, Command* c, Instrument* book) noexcept nogil:
    return may_pass(book) and enter_plain(m, c, True)


cdef bint replace_watched(Market* m, Command* c, Instrument* book) noexcept nogil:
    return may_pass(book) and replace_plain(m, c, True)
