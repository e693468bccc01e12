# The plain order's way in a book that something watches. See watched.pyx.

from exchange.engine.state cimport Command, Instrument, Market, Position, i64, u8

cdef bint enter_watched(Market* m, Command* c, Instrument* book) noexcept nogil
cdef bint replace_watched(Market* m, Command* c, Instrument* book) noexcept nogil
cdef void rested_beside(Market* m, Instrument* book) noexcept nogil
cdef bint lets_pass(Market* m, Instrument* book, Position* p, Command* c, u8 side, i64 rise,
                    bint trades) noexcept nogil
