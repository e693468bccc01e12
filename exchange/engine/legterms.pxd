# What the legs of a combination traded by. See legterms.pyx.

from exchange.engine.state cimport LegTerms, Market, u32, u64

cdef LegTerms terms_now(Market* m, u32 instrument) noexcept nogil
cdef LegTerms terms_then(Market* m, u32 instrument, u64 sequence) noexcept nogil
cdef void note_change(Market* m, u32 instrument) noexcept nogil
