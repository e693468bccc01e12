# Protections: price bands, order values, circuit breakers, accountability levels, loss limits. See
# safety.pyx; the commands that set them: protections.pyx.

from exchange.engine.state cimport Account, Command, Instrument, Market, Safety, i32, i64, u32, u8

cdef i64 value_of(Instrument* book, i64 price, u32 lots) noexcept nogil
cdef bint refuse_value(Market* m, Command* c, Instrument* book, Account* account) noexcept nogil
cdef bint refuse_band(Market* m, Command* c, Instrument* book, u8 side, i64 price) noexcept nogil
cdef i64 within_band(Market* m, Instrument* book, u8 side, i64 limit) noexcept nogil
cdef bint refuse_loss(Market* m, Command* c) noexcept nogil
cdef void look_at_trades(Market* m, Instrument* book, u32 first) noexcept nogil
cdef void tell_levels(Market* m, Instrument* book, u32 account, u32 other) noexcept nogil
cdef void forget_halt(Market* m, Instrument* book) noexcept nogil
cdef void clear_windows(Safety* s) noexcept nogil
cdef Instrument* next_resume(Market* m) noexcept nogil
cdef u32 watch_of(Market* m, u32 instrument) noexcept nogil


cdef inline Safety* safety_of(Market* m, Instrument* book) noexcept nogil:
    return &m.safety[book - m.instruments]


cdef inline bint is_on(Market* m, u32 feature) noexcept nogil:
    return not m.features_off >> feature & 1
