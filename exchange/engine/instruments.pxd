# An instrument's life: list, limits, risk, state, mark, settle, expire. See instruments.pyx.

from exchange.engine.state cimport Command, Instrument, Market, i32

cdef bint build_ladder(Market* m, Instrument* book) noexcept nogil
cdef i32 lowest(Instrument* book) noexcept nogil
cdef void list_instrument(Market* m, Command* c) noexcept nogil
cdef void set_limits(Market* m, Command* c) noexcept nogil
cdef void set_risk(Market* m, Command* c) noexcept nogil
cdef void set_state(Market* m, Command* c) noexcept nogil
cdef void mark(Market* m, Command* c) noexcept nogil
cdef void settle(Market* m, Command* c) noexcept nogil
cdef void expire(Market* m, Command* c) noexcept nogil
