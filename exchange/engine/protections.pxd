# The commands that set what safety.pyx enforces. See protections.pyx.

from exchange.engine.state cimport Command, Market

cdef void set_protections(Market* m, Command* c) noexcept nogil
cdef void set_breaker(Market* m, Command* c) noexcept nogil
cdef void set_feature(Market* m, Command* c) noexcept nogil
