# Mass quotes. See quotes.pyx.

from exchange.engine.state cimport Command, Market

cdef void mass_quote(Market* m, Command* c) noexcept nogil
