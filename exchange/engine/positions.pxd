# Position records: how they are taken and come back. See positions.pyx.

from libc.stdlib cimport realloc
from libc.string cimport memset

from exchange.engine.state cimport Account, Market, Position, instrument_of, pair, u32, unlikely

cdef void vacate_expired(Market* m) noexcept nogil


cdef inline bint has_records(Market* m, u32 missing) noexcept nogil:
    """Whether there is room for so many more position records."""
    return m.position_top - m.vacant + missing <= m.position_capacity


cdef inline bint make_room(Market* m, Account* account, u32 instrument) noexcept nogil:
    """Let an account's index of its records reach to an instrument; False without memory, and then
    the engine has stopped."""
    cdef u32 length = 2 * account.positions_length
    cdef u32* grown
    if length <= instrument:
        length = instrument + 1
    grown = <u32*>realloc(account.positions, length * sizeof(u32))
    if grown == NULL:
        m.broken = 1
        return False
    memset(&grown[account.positions_length], 0, (length - account.positions_length) * sizeof(u32))
    account.positions = grown
    account.positions_length = length
    return True


cdef inline u32 open_position(Market* m, u32 account_id, u32 instrument) noexcept nogil:
    """Make the position record of (account, instrument), for which the caller has asked for room.
    Returns its number; 0 without memory, and then the engine has stopped."""
    cdef Account* account = &m.accounts[account_id]
    cdef u32 at = m.position_free
    cdef Position* p
    if instrument >= account.positions_length and not make_room(m, account, instrument):
        return 0
    if unlikely(at != 0):
        m.position_free = instrument_of(&m.positions[at])
        m.vacant -= 1
    else:
        at = m.position_top
        m.position_top = at + 1
    account.positions[instrument] = at
    p = &m.positions[at]
    p.who = pair(instrument, account_id)
    p.owner = account
    return at
