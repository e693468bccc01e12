"""What follows from the trades of a command, once its order has found its place.

Called at the end of every command that may trade in a watched book, never from inside a match: the
book is whole. The order of what follows is part of the rules (docs/reference/engine.md).
"""


cdef void aftermath(Market* m, Instrument* book) noexcept nogil:
    """Nothing follows yet."""
