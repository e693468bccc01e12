# Lots that change hands off the book. See offbook.pyx.

from exchange.engine.state cimport Command, Market

cdef void transfer_lots(Market* m, Command* c) noexcept nogil
