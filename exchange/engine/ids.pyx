"""How the id hash grows; everything else about it is inline in ids.pxd."""

from exchange.engine.state cimport Cell, Market, release_pages, take_pages, u32, u64


cdef void reserve_ids(Market* m, u64 commands) noexcept nogil:
    """Make room for the ids of a batch, at most one a command, so that no command has to check."""
    cdef u64 most = m.order_top + commands
    if most > m.order_capacity:
        most = m.order_capacity
    while m.cell_room < most and not m.broken:
        grow_cells(m)


cdef void grow_cells(Market* m) noexcept nogil:
    """Double the cells. Tags hold the whole hash, so cells move without a look at their orders."""
    cdef Cell* old = m.cells
    cdef u32 count = m.cell_mask + 1
    cdef u32 mask, i, k
    m.cells = <Cell*>take_pages(<size_t>count * 2 * sizeof(Cell), True)
    if m.cells == NULL:
        m.cells = old
        m.broken = 1
        return
    m.cell_mask = 2 * count - 1
    m.cell_room *= 2
    mask = m.cell_mask
    for k in range(count):
        if old[k].slot:
            i = old[k].tag & mask
            while m.cells[i].slot:
                i = (i + 1) & mask
            m.cells[i] = old[k]
    release_pages(old)
