# The stops of one side in the order of their election: a pairing heap. See triggers.pyx.

from exchange.engine.state cimport Market, Stops, u32

cdef void add_trigger(Market* m, Stops* stops, u32 slot) noexcept nogil
cdef void remove_trigger(Market* m, Stops* stops, u32 slot) noexcept nogil
