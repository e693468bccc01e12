# The plain way in a book that is watched. See watched.pyx.

from exchange.engine.state cimport (
    Command, Instrument, Market, Position, WATCH_BREAKER, WATCH_HIDDEN, WATCH_IMPLIED,
    WATCH_LIMITS, WATCH_QUOTES, WATCH_STEPS, WATCH_STOPS, i64, u32, u8,
)

cdef enum:
    # what may watch a book in which a plain order trades, and one in which it comes to rest
    TRADED_BESIDE = WATCH_BREAKER | WATCH_LIMITS | WATCH_STOPS | WATCH_STEPS
    RESTED_BESIDE = TRADED_BESIDE | WATCH_HIDDEN | WATCH_IMPLIED | WATCH_QUOTES

cdef bint enter_watched(Market* m, Command* c, Instrument* book) noexcept nogil
cdef bint replace_watched(Market* m, Command* c, Instrument* book) noexcept nogil
cdef void rested_beside(Market* m, Instrument* book) noexcept nogil
cdef bint lets_pass(Market* m, Instrument* book, Position* p, Command* c, u8 side, i64 rise,
                    bint trades) noexcept nogil


cdef inline bint may_pass(Instrument* book) noexcept nogil:
    """Whether it trades, and is watched by nothing that a resting plain order has to heed."""
    return book.trades and not book.watched & ~<u32>RESTED_BESIDE
