# Mass cancel and the kill switches. See mass.pyx.

from exchange.engine.state cimport Command, Market

cdef void mass_cancel(Market* m, Command* c) noexcept nogil
cdef void kill(Market* m, Command* c) noexcept nogil
cdef void resume(Market* m, Command* c) noexcept nogil
