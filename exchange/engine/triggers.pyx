"""The stops of one side by what elects them first: the trigger nearest to the market, then age.

A pairing heap whose links are in the orders' Extras: `child` is the first child, `sibling` the next
one of its parent, `before` the one before that, or the parent of a first child. Any order leaves it
in time that grows with the logarithm of their number, taken over many.
"""

from exchange.engine.state cimport Extra, Order, i64, side_of, u8


cdef inline bint sooner(Market* m, u32 x, u32 y) noexcept nogil:
    """Whether `x` is elected before `y` of the same side: ages differ."""
    cdef i64 one = m.extras[x].trigger
    cdef i64 other = m.extras[y].trigger
    if one == other:
        return m.extras[x].age < m.extras[y].age
    return one > other if side_of(&m.orders[x]) else one < other


cdef u32 meld(Market* m, u32 x, u32 y) noexcept nogil:
    """Two heaps, either may be 0, as one: the later root becomes a child of the sooner."""
    cdef u32 child
    if x == 0 or y == 0:
        return x | y
    if sooner(m, y, x):
        x, y = y, x
    child = m.extras[x].child
    m.extras[y].sibling = child
    m.extras[y].before = x
    if child:
        m.extras[child].before = y
    m.extras[x].child = y
    return x


cdef u32 meld_children(Market* m, u32 first) noexcept nogil:
    """The heaps of a list of siblings as one: in pairs, then from the last pair to the first."""
    cdef u32 pairs = 0
    cdef u32 x, y, following
    while first:
        x = first
        y = m.extras[x].sibling
        first = m.extras[y].sibling if y else 0
        m.extras[x].sibling = 0
        m.extras[x].before = 0
        if y:
            m.extras[y].sibling = 0
            m.extras[y].before = 0
        x = meld(m, x, y)
        m.extras[x].sibling = pairs
        pairs = x
    while pairs:
        following = m.extras[pairs].sibling
        m.extras[pairs].sibling = 0
        first = meld(m, first, pairs)
        pairs = following
    return first


cdef void add_trigger(Market* m, Stops* stops, u32 slot) noexcept nogil:
    """A stop that has its trigger and its age."""
    cdef u8 side = side_of(&m.orders[slot])
    cdef Extra* extra = &m.extras[slot]
    extra.child = 0
    extra.sibling = 0
    extra.before = 0
    stops.root[side] = meld(m, stops.root[side], slot)


cdef void remove_trigger(Market* m, Stops* stops, u32 slot) noexcept nogil:
    cdef u8 side = side_of(&m.orders[slot])
    cdef Extra* extra = &m.extras[slot]
    cdef u32 children = meld_children(m, extra.child)
    if stops.root[side] == slot:
        stops.root[side] = children
    else:
        if m.extras[extra.before].child == slot:
            m.extras[extra.before].child = extra.sibling
        else:
            m.extras[extra.before].sibling = extra.sibling
        if extra.sibling:
            m.extras[extra.sibling].before = extra.before
        stops.root[side] = meld(m, stops.root[side], children)
    extra.child = 0
    extra.sibling = 0
    extra.before = 0
