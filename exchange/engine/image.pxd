# The canonical bytes of a market. See image.pyx.

from exchange.engine.state cimport Market

cdef bytes image_of(Market* m, bint buckets)
