# Instruments traded together at one price. See combinations.pyx.

from exchange.engine.state cimport (
    Account, Command, Composite, Instrument, Market, Position, i64, u32, u8,
)
from exchange.engine.vocabulary cimport LIMIT_BOOK_ORDERS

cdef void charge_legs(Market* m, Position* p) noexcept nogil
cdef void rehold_all(Market* m, Instrument* book, Position* p) noexcept nogil
cdef void list_combination(Market* m, Command* c) noexcept nogil
cdef bint has_living(Market* m, u32 instrument) noexcept nogil
cdef bint bad_made_marks(Market* m, u32 instrument, i64 mark, bint settles) noexcept nogil
cdef void move_made_marks(Market* m, u32 instrument) noexcept nogil
cdef void expire_made(Market* m, u32 instrument) noexcept nogil
cdef void return_made(Market* m, u32 instrument) noexcept nogil
cdef bint reduces(Market* m, Composite* made, Account* account, u8 side, i64 more) noexcept nogil
cdef u32 missing_positions(Market* m, Account* account, u32 instrument) noexcept nogil
cdef u32 open_missing(Market* m, u32 account, u32 instrument) noexcept nogil
cdef bint bad_legs_risk(Market* m, Command* c, Position* p, Account* account, u8 side,
                        i64 adverse, i64 lots, i64 before, u32 instrument) noexcept nogil


cdef inline i64 book_capacity(Composite* made) noexcept nogil:
    """Working orders that a book has room for. One of a combination may cause as many events as it
    has legs and three: its return, its trade, each leg's, the residual. A book of more could give
    trades an index that match numbers have no room for."""
    return LIMIT_BOOK_ORDERS / (made.legs + 3) if made.legs else LIMIT_BOOK_ORDERS


cdef inline bint contains(Composite* made, u32 instrument) noexcept nogil:
    """Whether an instrument is a leg."""
    cdef u32 i
    for i in range(made.legs):
        if made.leg[i] == instrument:
            return True
    return False


cdef inline u8 side_in(u8 side, int ratio) noexcept nogil:
    """The side on which an order of `side` trades a leg of this ratio."""
    return side if ratio > 0 else 1 - side


cdef inline i64 times(int ratio) noexcept nogil:
    """Lots of a leg for one lot of the combination."""
    return ratio if ratio > 0 else -ratio
