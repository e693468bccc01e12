# The credit of calendar spreads. See credits.pyx.

from exchange.engine.state cimport Account, Command, Market, i64, u32, u64, u8

cdef void recredit(Market* m, Account* account) noexcept nogil
cdef i64 credit_with(Market* m, Account* account, u32 instrument, i64 buys,
                     i64 sells) noexcept nogil
cdef bint refuse_credit(Market* m, Command* c) noexcept nogil
cdef bint set_credit(Market* m, u32 instrument, u64 credit) noexcept nogil
cdef void end_credit(Market* m, u32 combination) noexcept nogil
cdef void compare_spread(Market* m, u32 combination) noexcept nogil
cdef bint adopt_credits(Market* m) noexcept nogil


cdef inline i64 credit_gain(Market* m, Account* account, u32 instrument, u8 side,
                            i64 lots) noexcept nogil:
    """By how much an account's credit would rise if `lots` more worked on a side."""
    return credit_with(m, account, instrument, 0 if side else lots,
                       lots if side else 0) - account.credit
