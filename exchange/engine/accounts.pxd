# Accounts, money in and out, deficits, loss limits, the day, checkpoints. See accounts.pyx.

from exchange.engine.state cimport Command, Market, u32

cdef void compare_deficit(Market* m, u32 account) noexcept nogil
cdef void compare_deficits(Market* m, u32 instrument) noexcept nogil
cdef void open_account(Market* m, Command* c) noexcept nogil
cdef void move_money(Market* m, Command* c) noexcept nogil
cdef void set_account(Market* m, Command* c) noexcept nogil
cdef void record(Market* m, Command* c) noexcept nogil
cdef void open_day(Market* m, Command* c) noexcept nogil
cdef void close_day(Market* m, Command* c) noexcept nogil
cdef void upgrade(Market* m, Command* c) noexcept nogil
cdef void checkpoint(Market* m) noexcept nogil
