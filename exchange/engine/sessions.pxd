# LOGON, LOGOFF, RECOVERED, and all that is due at a stamp. See sessions.pyx.

from exchange.engine.state cimport Command, Market

cdef void fire_due(Market* m) noexcept nogil
cdef void logon(Market* m, Command* c) noexcept nogil
cdef void logoff(Market* m, Command* c) noexcept nogil
cdef void recovered(Market* m, Command* c) noexcept nogil
