# Corrections of trades with an implied price, leg by leg. See legwise.pyx.

from exchange.engine.state cimport Command, Market, i64

cdef bint is_next_leg(Market* m, Command* c) noexcept nogil
cdef void state_leg(Market* m, Command* c, i64 now) noexcept nogil
