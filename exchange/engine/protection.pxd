# Market makers' protection: how many lots an account's quotes may trade in a window. See
# protection.pyx.

from exchange.engine.state cimport Command, Instrument, Market, Protection, u32

cdef Protection* protection_of(Market* m, u32 account, u32 product) noexcept nogil
cdef void count_quote(Market* m, u32 slot, u32 lots) noexcept nogil
cdef void set_protection(Market* m, Command* c) noexcept nogil
cdef void protect(Market* m, u32 account, u32 product) noexcept nogil
