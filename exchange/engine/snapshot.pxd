# The state as a memory image. See snapshot.pyx.

from exchange.engine.state cimport Market, u8

cdef bytes image_out(Market* m)
cdef Market* image_in(const u8[::1] image) except NULL
