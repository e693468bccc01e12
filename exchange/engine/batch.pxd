# A batch of commands. See batch.pyx.

from exchange.engine.state cimport Market, i64, u64, u8

cdef void apply_batch(Market* m, const u8* records, u64 count, u64 first, i64 stamp) noexcept nogil
