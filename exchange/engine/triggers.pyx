"""The stops of one side in the order of their election: by nearness of the trigger, then by age.

A pairing heap whose links are in the orders' Extras: `child` is the first child; `sibling` is the
next child of the same parent; `before` is the previous child of that parent, or of a first child
the parent. To remove any order takes amortized logarithmic time.
"""

from exchange.engine.state cimport Extra, i64, side_of, u8


cdef inline bint sooner(Market* m, u32 x, u32 y) noexcept nogil:
    """Whether `x` is elected before `y` of the same side: ages differ."""
    cdef i64 one = m.extras[x].trigger
    cdef i64 other = m.extras[y].trigger
    if one == other:
        return m.extras[x].age < m.extras[y].age
    return one > other if side_of(&m.orders[x]) else one < other


cdef u32 meld(Market* m, u32 x, u32 y) noexcept nogil:
    """Merge two heaps, either of which may be 0: the later root becomes a child of the sooner."""
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
    """Merge a list of siblings into one heap: in pairs, then from the last pair to the first."""
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
    """Insert a stop, whose trigger and age are set."""
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
