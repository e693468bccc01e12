"""A batch of commands, applied one after another: which function does each.

Each command is offered first to the plain functions (plain.pxd), then to those for a gateway's
requests (asked.pyx); each of these does it whole or changes nothing. What they decline goes to
`operate`, whose functions test every guard in its documented precedence: the ladder of guards.
While a command is done, the memory that later ones need is prefetched.
"""

from exchange.engine.accounts cimport (
    checkpoint, close_day, move_money, open_account, open_day, record, set_account, upgrade,
)
from exchange.engine.asked cimport do_asked
from exchange.engine.auction cimport indicate
from exchange.engine.changes cimport cancel, reduce_order, replace
from exchange.engine.combinations cimport list_combination
from exchange.engine.corrections cimport adjust, bust
from exchange.engine.events cimport blank, end_command
from exchange.engine.ids cimport bucket_of, hash_of, reserve_ids, slot_in, tagged
from exchange.engine.implied cimport set_implied
from exchange.engine.instruments cimport (
    expire, list_instrument, mark, set_limits, set_mode, set_risk, set_state, settle,
)
from exchange.engine.lifecycle cimport reject
from exchange.engine.mass cimport kill, mass_cancel, resume
from exchange.engine.offbook cimport transfer_lots
from exchange.engine.orders cimport enter
from exchange.engine.plain cimport cancel_plain, enter_plain, reduce_plain, replace_plain
from exchange.engine.protection cimport set_protection
from exchange.engine.protections cimport set_breaker, set_feature, set_protections
from exchange.engine.quotes cimport mass_quote
from exchange.engine.sessions cimport fire_due, logoff, logon, recovered
from exchange.engine.state cimport (
    Bucket, Command, Market, i64, likely, prefetch, read_again, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *

cdef enum:
    AHEAD = 16  # how many commands ahead a command itself is prefetched: a batch is not in cache
    NEAR = 10  # how many commands ahead the hash cells of its ids are prefetched
    STEP = 8  # commands whose orders are prefetched together, once orders no longer fit the cache
    NEAR_SLOTS = 3 << 14  # up to so many orders, cache holds them: theirs are not prefetched


cdef void operate_orders(Market* m, Command* c) noexcept nogil:
    """Mass acts, quotes, corrections, combinations, transfers, protections; or UNKNOWN_COMMAND."""
    cdef u8 kind = c.kind
    if kind == COMMAND_KIND_MASS_CANCEL:
        mass_cancel(m, c)
    elif kind == COMMAND_KIND_MASS_QUOTE:
        mass_quote(m, c)
    elif kind == COMMAND_KIND_SET_PROTECTION:
        set_protection(m, c)
    elif kind == COMMAND_KIND_KILL:
        kill(m, c)
    elif kind == COMMAND_KIND_RESUME:
        resume(m, c)
    elif kind == COMMAND_KIND_INDICATE:
        indicate(m, c)
    elif kind == COMMAND_KIND_BUST:
        bust(m, c)
    elif kind == COMMAND_KIND_ADJUST:
        adjust(m, c)
    elif kind == COMMAND_KIND_LIST_COMBINATION:
        list_combination(m, c)
    elif kind == COMMAND_KIND_TRANSFER:
        transfer_lots(m, c)
    elif kind == COMMAND_KIND_SET_PROTECTIONS:
        set_protections(m, c)
    elif kind == COMMAND_KIND_SET_BREAKER:
        set_breaker(m, c)
    elif kind == COMMAND_KIND_SET_FEATURE:
        set_feature(m, c)
    elif kind == COMMAND_KIND_SET_IMPLIED:
        set_implied(m, c)
    else:
        reject(m, c, REASON_UNKNOWN_COMMAND, 0, kind)


cdef void operate(Market* m, Command* c) noexcept nogil:
    """Do any command by its ladder of guards: its effect, or one reject."""
    cdef u8 kind = c.kind
    if kind == COMMAND_KIND_ENTER:
        enter(m, c)
    elif kind == COMMAND_KIND_CANCEL:
        cancel(m, c)
    elif kind == COMMAND_KIND_REDUCE:
        reduce_order(m, c)
    elif kind == COMMAND_KIND_REPLACE:
        replace(m, c)
    elif kind == COMMAND_KIND_LOGON:
        logon(m, c)
    elif kind == COMMAND_KIND_LOGOFF:
        logoff(m, c)
    elif kind == COMMAND_KIND_ADVANCE_TIME:
        blank(m, EVENT_KIND_TIME_ADVANCED, 0, 0, 0, 0).a = m.stamp
    elif kind == COMMAND_KIND_RECOVERED:
        recovered(m, c)
    elif kind == COMMAND_KIND_LIST:
        list_instrument(m, c)
    elif kind == COMMAND_KIND_SET_LIMITS:
        set_limits(m, c)
    elif kind == COMMAND_KIND_SET_RISK:
        set_risk(m, c)
    elif kind == COMMAND_KIND_SET_STATE:
        set_state(m, c)
    elif kind == COMMAND_KIND_MARK:
        mark(m, c)
    elif kind == COMMAND_KIND_SETTLE:
        settle(m, c)
    elif kind == COMMAND_KIND_EXPIRE:
        expire(m, c)
    elif kind == COMMAND_KIND_OPEN_ACCOUNT:
        open_account(m, c)
    elif COMMAND_KIND_DEPOSIT <= kind <= COMMAND_KIND_FEE:
        move_money(m, c)
    elif kind == COMMAND_KIND_SET_ACCOUNT:
        set_account(m, c)
    elif kind == COMMAND_KIND_OPEN_DAY:
        open_day(m, c)
    elif kind == COMMAND_KIND_CLOSE_DAY:
        close_day(m, c)
    elif kind == COMMAND_KIND_UPGRADE:
        upgrade(m, c)
    elif kind == COMMAND_KIND_SET_MODE:
        set_mode(m, c)
    elif kind == COMMAND_KIND_RECORD:
        record(m, c)
    elif kind == COMMAND_KIND_CHECKPOINT:
        checkpoint(m)
    else:
        operate_orders(m, c)


cdef inline bint do_plainly(Market* m, Command* c) noexcept nogil:
    """Do an order command the plain way; False if it is not plain, and then nothing has changed."""
    cdef u8 kind = <u8>(<u32*>c)[0]  # load the whole word: its other bytes are tested next
    if likely(kind == COMMAND_KIND_ENTER):
        return enter_plain(m, c, False)
    if likely(kind == COMMAND_KIND_CANCEL):
        return cancel_plain(m, c)
    if likely(kind == COMMAND_KIND_REPLACE):
        return replace_plain(m, c, False)
    return kind == COMMAND_KIND_REDUCE and reduce_plain(m, c)


cdef inline void prefetch_cells(Market* m, Command* c) noexcept nogil:
    """Prefetch the hash cells of the command's own id and of the id that it names."""
    prefetch(bucket_of(m, hash_of(c.account, c.key_lo)))
    prefetch(bucket_of(m, hash_of(c.account, c.target_lo)))


cdef inline void prefetch_orders(Market* m, Command* c) noexcept nogil:
    """Prefetch the orders that STEP commands name, if their ids are where they belong."""
    cdef int k
    cdef u64 hash
    cdef Bucket* bucket
    for k in range(NEAR - STEP, NEAR):
        if c[k].target_lo:
            hash = hash_of(c[k].account, c[k].target_lo)
            bucket = bucket_of(m, hash)
            prefetch(&m.orders[slot_in(bucket, tagged(bucket.tags, hash))])


cdef inline void copy_commands(Command* to, const Command* of, u64 count) noexcept nogil:
    cdef u64 k
    for k in range(count):
        to[k] = of[k]


cdef void apply_batch(Market* m, const u8* records, u64 count, u64 first, i64 stamp) noexcept nogil:
    cdef Command* c = <Command*>records
    cdef Command* end = c + count
    cdef Command* stop
    # a copy of the last NEAR commands: prefetching reads that many beyond the one in hand
    cdef Command[2 * NEAR] tail
    m.next_event = m.events
    m.sequence = first
    m.index = 0
    if stamp > m.stamp:
        m.stamp = stamp
    if m.order_top + count > m.id_room:
        reserve_ids(m, count)
    if m.timer_count or m.expiry_count or m.elected_count or m.halt_count:
        fire_due(m)
    if m.index:  # timers made events: the first command's follow them, under one sequence
        operate(m, c)
        end_command(m)
        m.sequence += 1
        c += 1
    count = end - c
    count = count if count < NEAR else <u64>NEAR
    end -= count
    copy_commands(tail, end, count)
    while True:
        if c == end:
            if count == 0:
                break
            c = tail
            end = tail + count
            count = 0
        stop = end
        if m.order_top > NEAR_SLOTS:
            prefetch_orders(m, c)
            if end - c > STEP:
                stop = c + STEP
        read_again()
        while True:
            prefetch(c + AHEAD)
            prefetch_cells(m, c + NEAR)
            if not do_plainly(m, c) and not do_asked(m, c):
                operate(m, c)
                end_command(m)
            read_again()
            m.sequence += 1
            c += 1
            if c == stop:
                break
