"""The plain order's way once more, in a book that its protections watch, and nothing else.

A month of a real market has them: a price band, a most value of an order, a limit over all months,
a level of positions that is told, a breaker. An order that they let pass needs no ladder of guards:
it goes as a plain one does (plain.pxd), and what follows from its trades follows. Compiled apart,
so that an order where nothing watches does not pay for it.
"""

from exchange.engine.plain cimport enter_plain, replace_plain

cdef bint enter_watched(Market* m, Command* c) noexcept nogil:
    return enter_plain(m, c, True)


cdef bint replace_watched(Market* m, Command* c) noexcept nogil:
    return replace_plain(m, c, True)
