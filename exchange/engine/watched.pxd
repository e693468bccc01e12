# The plain order's way in a book that its protections watch. See watched.pyx.

from exchange.engine.state cimport Command, Market

cdef bint enter_watched(Market* m, Command* c) noexcept nogil
cdef bint replace_watched(Market* m, Command* c) noexcept nogil
