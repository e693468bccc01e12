"""Accounts, deposits, withdrawals and fees, deficits, loss limits, the business day, checkpoints.

The sum that must be zero: cash of all accounts − (deposits − withdrawals).
"""

from libc.stdlib cimport calloc, free

from exchange.engine.events cimport blank
from exchange.engine.ids cimport has_slot
from exchange.engine.lifecycle cimport (
    Gathered, answered, cancel_all_of, cancel_gathered, is_beyond_loss, keep_receipt,
    none_gathered, reject,
)
from exchange.engine.risk cimport add_overflows, charge, position_of, required_of
from exchange.engine.safety cimport is_on
from exchange.engine.state cimport (
    Account, Command, Event, KILLED_BY_SETTING, Known, LOSS_REACHED, Losses, Market, Member,
    Position, i64, set_killed, u32, u64, u8,
)
from exchange.engine.vocabulary cimport *


cdef inline bint unknown_account(Market* m, Command* c) noexcept nogil:
    if c.account >= m.account_capacity or not m.accounts[c.account].is_open:
        reject(m, c, REASON_UNKNOWN_ACCOUNT, 0, 0)
        return True
    return False


cdef void compare_deficit(Market* m, u32 account) noexcept nogil:
    """DEFICIT_STARTED, DEFICIT_ENDED, LOSS_LIMIT_REACHED: what has changed since the last time."""
    cdef Gathered orders = none_gathered()
    compare(m, account, &orders)
    free(orders.keys)


cdef void compare(Market* m, u32 account, Gathered* orders) noexcept nogil:
    """`compare_deficit` of one among many accounts. `orders`: gathered once for all of them."""
    cdef Account* a = &m.accounts[account]
    cdef u8 now = a.excess < 0
    cdef Event* e
    if now != a.in_deficit:
        a.in_deficit = now
        e = blank(m, EVENT_KIND_DEFICIT_STARTED if now else EVENT_KIND_DEFICIT_ENDED, 0, 0, 0,
                  account)
        e.a = required_of(a)
        e.b = a.cash
    if m.losses[account].limit:
        compare_loss(m, account, orders)


cdef void compare_loss(Market* m, u32 account, Gathered* orders) noexcept nogil:
    """LOSS_LIMIT_REACHED, once: its orders are cancelled, and only what reduces may come in."""
    cdef Account* a = &m.accounts[account]
    cdef Losses* losses = &m.losses[account]
    cdef i64 loss = losses.base - a.cash - a.unrealized
    cdef Event* e
    if losses.reached or not is_beyond_loss(m, account) or not is_on(m, FEATURE_LOSS_LIMIT):
        return
    losses.reached = 1
    set_killed(a, a.killed | LOSS_REACHED)
    e = blank(m, EVENT_KIND_LOSS_LIMIT_REACHED, 0, 0, 0, account)
    e.a = losses.limit
    e.b = loss
    if a.open_orders:
        cancel_gathered(m, orders, account, CANCEL_REASON_LOSS_LIMIT)


cdef inline void count_losses_from_now(Market* m, u32 account) noexcept nogil:
    m.losses[account].base = m.accounts[account].cash + m.accounts[account].unrealized


cdef void compare_deficits(Market* m, u32 instrument) noexcept nogil:
    """`compare_deficit` for all accounts with a position record in the instrument, in order."""
    cdef u32 i
    cdef Gathered orders = none_gathered()
    for i in range(m.account_top):
        if position_of(&m.accounts[i], instrument):
            compare(m, i, &orders)
    free(orders.keys)


cdef void open_account(Market* m, Command* c) noexcept nogil:
    cdef i64 interval = <i64>c.target_lo
    cdef i64 burst = <i64>c.target_hi
    cdef Account* a
    cdef Event* e
    if c.account >= m.account_capacity:
        reject(m, c, REASON_ACCOUNTS_FULL, m.account_capacity, c.account)
        return
    a = &m.accounts[c.account]
    if a.is_open:
        reject(m, c, REASON_ACCOUNT_EXISTS, 0, 0)
        return
    if (c.instrument >= LIMIT_MEMBERS or c.tif > ACCOUNT_KIND_BOX or c.operator != CURRENCY_USD
            or c.quantity < 1 or c.quantity > LIMIT_ORDERS or burst < 1 or burst > <i64>1 << 50
            or interval < 0 or interval > (<i64>1 << 50) // burst):
        reject(m, c, REASON_PARAMETER_RANGE, 0, 0)
        return
    a.ring = <Known*>calloc(LIMIT_IDEMPOTENCY_WINDOW, sizeof(Known))
    if a.ring == NULL:
        m.broken = 1
        return
    a.is_open = 1
    a.member = &m.members[c.instrument]
    a.member_id = c.instrument
    a.group = c.session
    a.kind = c.tif
    a.currency = <u8>c.operator
    a.max_open_orders = c.quantity
    a.max_order = LIMIT_QUANTITY
    a.interval = interval
    a.burst = burst
    a.tolerance = (burst - 1) * interval
    set_killed(a, m.killed | m.members_killed[c.instrument])
    if c.account >= m.account_top:
        m.account_top = c.account + 1
    e = blank(m, EVENT_KIND_ACCOUNT_OPENED, 0, c.tif, c.instrument, c.account)
    e.quantity = c.quantity
    e.leaves = c.session
    e.a = interval
    e.b = burst


cdef bint refuse_money(Market* m, Command* c, Account* a) noexcept nogil:
    """PARAMETER_RANGE, ASSET_MISMATCH, MONEY_RANGE, FUNDS, ORDERS_FULL."""
    cdef i64 most = LIMIT_MONEY
    cdef Member* member = a.member
    cdef bint passes
    if c.price < 1 or c.price > most:
        reject(m, c, REASON_PARAMETER_RANGE, most, c.price)
        return True
    if c.tif != a.currency:
        reject(m, c, REASON_ASSET_MISMATCH, a.currency, c.tif)
        return True
    if c.kind == COMMAND_KIND_DEPOSIT:
        passes = a.cash <= most - c.price and m.deposits <= most - c.price
    elif c.kind == COMMAND_KIND_WITHDRAW:
        passes = a.cash >= c.price - most and m.deposits >= c.price - most
    else:
        passes = a.cash >= c.price - most and m.accounts[0].cash <= most - c.price
    if not passes:
        reject(m, c, REASON_MONEY_RANGE, most, c.price)
        return True
    if c.kind == COMMAND_KIND_WITHDRAW:
        if c.price > a.excess:
            reject(m, c, REASON_FUNDS, a.excess, c.price)
            return True
        if c.price > member.excess:
            reject(m, c, REASON_FUNDS, member.excess, c.price)
            return True
    if (c.key_lo or c.key_hi) and not has_slot(m, &m.accounts[c.account]):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
        return True
    return False


cdef void move_money(Market* m, Command* c) noexcept nogil:
    """DEPOSIT, WITHDRAW, FEE."""
    cdef u32 first = m.index
    cdef i64 amount = c.price
    cdef u8 kind = EVENT_KIND_DEPOSITED
    cdef Account* a
    cdef Event* e
    if unknown_account(m, c) or answered(m, c, c.account):
        return
    a = &m.accounts[c.account]
    if refuse_money(m, c, a):
        return
    if c.kind != COMMAND_KIND_FEE:  # a deposit is no gain, a withdrawal no loss
        m.losses[c.account].base += amount if c.kind == COMMAND_KIND_DEPOSIT else -amount
    if c.kind == COMMAND_KIND_DEPOSIT:
        m.deposits += amount
    else:
        amount = -amount
        if c.kind == COMMAND_KIND_WITHDRAW:
            kind = EVENT_KIND_WITHDRAWN
            m.deposits += amount
        else:
            kind = EVENT_KIND_FEE_CHARGED
            charge(m, &m.accounts[0], 0, 0, -amount)
    charge(m, a, 0, 0, amount)
    e = blank(m, kind, 0, 0, 0, c.account)
    e.price = c.price
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    e.a = amount
    e.b = a.cash
    compare_deficit(m, c.account)
    keep_receipt(m, c, c.account, first)


cdef void set_account(Market* m, Command* c) noexcept nogil:
    cdef Account* a
    cdef Event* e
    if unknown_account(m, c):
        return
    if c.price < 0 or c.price > <i64>LIMIT_MONEY:
        reject(m, c, REASON_PARAMETER_RANGE, <i64>LIMIT_MONEY, c.price)
        return
    a = &m.accounts[c.account]
    m.losses[c.account].limit = c.price
    m.losses[c.account].reached = 0
    count_losses_from_now(m, c.account)
    a.max_order = c.quantity if c.quantity else LIMIT_QUANTITY
    set_killed(a, (a.killed & ~<u8>(KILLED_BY_SETTING | LOSS_REACHED))
               | (KILLED_BY_SETTING if c.flags & COMMAND_FLAG_KILLED else 0))
    e = blank(m, EVENT_KIND_ACCOUNT_CHANGED, 0, 0, 0, c.account)
    e.price = c.price
    e.quantity = c.quantity
    e.leaves = a.killed & KILLED_BY_SETTING


cdef void record(Market* m, Command* c) noexcept nogil:
    """RECORD: RECORDED, nothing else; the log numbers what only clearing judges."""
    cdef u32 first = m.index
    cdef Event* e
    if unknown_account(m, c) or answered(m, c, c.account):
        return
    if (c.key_lo or c.key_hi) and not has_slot(m, &m.accounts[c.account]):
        reject(m, c, REASON_ORDERS_FULL, m.order_capacity, m.order_capacity)
        return
    e = blank(m, EVENT_KIND_RECORDED, 0, 0, 0, c.account)
    e.key_lo = c.key_lo
    e.key_hi = c.key_hi
    keep_receipt(m, c, c.account, first)


cdef void open_day(Market* m, Command* c) noexcept nogil:
    cdef u32 i
    if m.day_open or c.quantity <= m.business_date:
        reject(m, c, REASON_DAY_STATE, m.business_date, c.quantity)
        return
    m.day_open = 1
    m.business_date = c.quantity
    m.day_first = m.sequence
    m.corrected_count = 0
    m.leg_change_count = 0
    m.legs_known = m.sequence
    m.stated.count = 0
    for i in range(m.account_top):
        count_losses_from_now(m, i)
    blank(m, EVENT_KIND_DAY_OPENED, 0, 0, 0, 0).quantity = c.quantity


cdef void close_day(Market* m, Command* c) noexcept nogil:
    if not m.day_open or c.quantity != m.business_date:
        reject(m, c, REASON_DAY_STATE, m.business_date, c.quantity)
        return
    m.day_open = 0
    blank(m, EVENT_KIND_DAY_CLOSED, 0, 0, 0, 0).quantity = c.quantity
    cancel_all_of(m, 0, CANCEL_REASON_DAY_ENDED)


cdef void upgrade(Market* m, Command* c) noexcept nogil:
    if c.quantity <= m.rules_version or c.quantity > VERSION_RULES:
        reject(m, c, REASON_RULES_VERSION, VERSION_RULES, c.quantity)
        return
    m.rules_version = c.quantity
    blank(m, EVENT_KIND_UPGRADED, 0, 0, 0, 0).quantity = c.quantity


cdef inline u64 mix(u64 x) noexcept nogil:
    """The splitmix64 finalizer."""
    x = (x ^ (x >> 30)) * <u64>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <u64>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef void checkpoint(Market* m) noexcept nogil:
    """CHECKPOINTED: totals and a hash (`fold`) that clearing computes from its own tables, too."""
    cdef Event* e
    cdef Position* p
    cdef i64 cash = 0
    cdef i64 longs = 0
    cdef u64 fold = 0
    cdef u32 i
    for i in range(m.account_top):
        if m.accounts[i].is_open:
            if add_overflows(cash, m.accounts[i].cash, &cash):
                m.broken = 2
            fold += mix(mix(<u64>1 << 56 | i) + <u64>m.accounts[i].cash)
    for i in range(1, m.position_top):
        p = &m.positions[i]
        if p.net:
            fold += mix(mix(<u64>2 << 56 | p.who) + <u64>p.net)
            if p.net > 0:
                longs += p.net
    if cash != m.deposits:
        m.broken = 3
    e = blank(m, EVENT_KIND_CHECKPOINTED, 0, 0, 0, 0)
    e.price = longs
    e.a = cash
    e.b = <i64>fold
