# The plain order's way in a book that something watches. See watched.pyx.

from exchange.engine.state cimport (
    Command, Instrument, Market, Position, WATCH_BREAKER, WATCH_HIDDEN, WATCH_IMPLIED,
    WATCH_LIMITS, WATCH_QUOTES, WATCH_STEPS, WATCH_STOPS, i64, u32, u8,
)

cdef enum:
    TRADED_BESIDE = WATCH_BREAKER | WATCH_LIMITS | WATCH_STOPS | WATCH_STEPS
    RESTED_BESIDE = TRADED_BESIDE | WATCH_HIDDEN | WATCH_IMPLIED | WATCH_QUOTES

cdef bint enter_watched(Market* m, Command* c, Instrument* book) noexcept nogil
cdef bint replace_watched(Market* m, Command* c, Instrument* book) noexcept nogil
cdef void rested_beside(Market* m, Instrument* book) noexcept nogil
cdef bint lets_pass(Market* m, Instrument* book, Position* p, Command* c, u8 side, i64 rise,
                    bint trades) noexcept nogil


cdef inline bint may_pass(Instrument* book) noexcept nogil:
    """Orders may come in, and nothing watches the book that all orders have to heed."""
    return book.trades and not book.watched & ~<u32>RESTED_BESIDE
