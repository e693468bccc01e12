# The full self-check. See check.pyx.

from exchange.engine.state cimport Market

cdef int check_market(Market* m) except -1
