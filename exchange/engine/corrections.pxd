# BUST and ADJUST: trades of the open day taken back or given another price. See corrections.pyx.

from exchange.engine.state cimport Command, Instrument, Market, Position, i64, u32, u64, u8

cdef void bust(Market* m, Command* c) noexcept nogil
cdef void adjust(Market* m, Command* c) noexcept nogil
cdef void note(Market* m, u64 match) noexcept nogil
cdef i64 bound_without(Position* taker, Position* maker, Instrument* book, u8 side,
                       i64 lots) noexcept nogil
cdef Position* held(Market* m, u32 account, u32 instrument) noexcept nogil
