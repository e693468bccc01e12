# The limit of an account over all months of a product, and the allowances that save summing them.
# See months.pyx.

from exchange.engine.state cimport (
    Account, Allowance, Command, Instrument, Market, Position, account_of, i64, u32, u64, u8,
)

cdef bint refuse_all_months(Market* m, Command* c, Instrument* book, Account* account, u8 side,
                            i64 rise) noexcept nogil
cdef int check_allowances(Market* m) except -1


cdef inline u64* times_given(Market* m) noexcept nogil:
    """The count of givings and withdrawals of allowances: position 0, nobody's, keeps it."""
    return &m.allowances[0].given[0]


cdef inline void withdraw_all(Market* m) noexcept nogil:
    """Void all allowances: positions that no guard looked at, or limits, have changed."""
    times_given(m)[0] += 1
    m.allowances[0].given[1] = times_given(m)[0]


cdef inline void withdraw(Market* m, u32 account) noexcept nogil:
    """Void all allowances of an account."""
    times_given(m)[0] += 1
    m.withdrawn[account] = times_given(m)[0]


cdef inline bint is_good(Market* m, Allowance* a, u32 account, u8 side) noexcept nogil:
    """Whether an allowance was given and has not been withdrawn since."""
    return a.given[side] > m.withdrawn[account] and a.given[side] > m.allowances[0].given[1]


cdef inline bint is_allowed(Market* m, Position* p, u8 side, i64 rise) noexcept nogil:
    """Whether an allowance covers `rise` lots more on a side, so that no sum is needed."""
    cdef Allowance* a = &m.allowances[p - m.positions]
    return p.exposure[side] + rise <= a.most[side] and is_good(m, a, account_of(p), side)
