# The plain way for commands as a gateway sends them. See asked.pyx.

from exchange.engine.plain cimport REST_FORM
from exchange.engine.state cimport Command, Market, u32, u64
from exchange.engine.vocabulary cimport *

cdef enum:
    POSTED = COMMAND_FLAG_POST_ONLY << 24  # the flag, in a command's first word

cdef bint enter_posted(Market* m, Command* c) noexcept nogil
cdef bint do_request(Market* m, Command* c) noexcept nogil


cdef inline bint do_asked(Market* m, Command* c) noexcept nogil:
    """Do a post-only order, or a request with an id or without its order's side, the plain way;
    False if it was not done."""
    if c.kind == COMMAND_KIND_ENTER:
        return (<u32*>c)[0] & <u32>REST_FORM == <u32>POSTED and enter_posted(m, c)
    if c.kind > COMMAND_KIND_REPLACE or (c.key_lo == 0 and c.side != SIDE_UNSTATED):
        return False
    return do_request(m, c)
