"""The oracle's accounts: opening, money in and out, sessions and their timers."""

from oracle_instruments import resume
from oracle_matching import cancel_order
from oracle_orders import keep_receipt, need_slot, repeated
from oracle_protections import count_losses_from_now
from oracle_risk import member_figures, required, review
from oracle_state import Account, Market, Order, Record, Rejected, Session
from oracle_stops import aftermath, trades_now

from exchange.messages import (
    AccountKind,
    CancelReason,
    CommandFlag,
    CommandKind,
    Currency,
    EventKind,
    Limit,
    Reason,
)

THROTTLE_MAX = 1 << 50
SESSION_SLOT_BITS = 16
SESSIONS, ORDERS, STOPS, HALTS = 0, 1, 2, 3  # which comes first of what is due at the same stamp


def open_account(m: Market, c: Record) -> None:
    interval, burst = c.target_lo, c.target_hi
    if c.account >= Limit.ACCOUNTS:
        raise Rejected(Reason.ACCOUNTS_FULL, Limit.ACCOUNTS, c.account)
    if c.account in m.accounts:
        raise Rejected(Reason.ACCOUNT_EXISTS)
    if (
        c.instrument >= Limit.MEMBERS
        or c.tif >= len(AccountKind)
        or c.operator >= len(Currency)
        or not 1 <= c.quantity <= Limit.ORDERS
        or not 1 <= burst <= THROTTLE_MAX
        or interval * burst > THROTTLE_MAX
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    m.accounts[c.account] = Account(
        c.instrument, c.session, c.tif, c.operator, c.quantity, interval, burst
    )
    m.emit(
        EventKind.ACCOUNT_OPENED,
        account=c.account,
        instrument=c.instrument,
        quantity=c.quantity,
        leaves=c.session,
        reason=c.tif,
        a=interval,
        b=burst,
    )


def known_account(m: Market, c: Record) -> Account:
    """Raises UNKNOWN_ACCOUNT."""
    if c.account not in m.accounts:
        raise Rejected(Reason.UNKNOWN_ACCOUNT)
    return m.accounts[c.account]


def judge_money(m: Market, c: Record, account: Account, change: int) -> None:
    """Guards of an amount of money after the known key."""
    if not 1 <= c.price <= Limit.MONEY:
        raise Rejected(Reason.PARAMETER_RANGE, Limit.MONEY, c.price)
    if c.tif != account.currency:
        raise Rejected(Reason.ASSET_MISMATCH, account.currency, c.tif)
    raised = [] if change < 0 else [account.cash + c.price, m.deposited + c.price]
    if c.kind == CommandKind.FEE:
        raised.append(m.accounts[0].cash + c.price)
    if any(balance > Limit.MONEY for balance in raised) or (
        change < 0 and account.cash + change < -Limit.MONEY
    ):
        raise Rejected(Reason.MONEY_RANGE, Limit.MONEY, c.price)
    if c.kind == CommandKind.WITHDRAW:
        free = account.cash - required(m, account)
        if c.price > free:
            raise Rejected(Reason.FUNDS, free, c.price)
        need, cash = member_figures(m, account.member)
        if c.price > cash - need:
            raise Rejected(Reason.FUNDS, cash - need, c.price)


MONEY_EVENTS = {
    CommandKind.DEPOSIT: EventKind.DEPOSITED,
    CommandKind.WITHDRAW: EventKind.WITHDRAWN,
    CommandKind.FEE: EventKind.FEE_CHARGED,
}


def move_money(m: Market, c: Record) -> None:
    account = known_account(m, c)
    if repeated(m, c):
        return
    change = c.price if c.kind == CommandKind.DEPOSIT else -c.price
    judge_money(m, c, account, change)
    need_slot(m, c)
    account.cash += change
    if c.kind == CommandKind.FEE:
        m.accounts[0].cash += c.price
    else:
        m.deposited += change
        account.loss_base += change
    kind = MONEY_EVENTS[CommandKind(c.kind)]
    row = m.emit(kind, account=c.account, price=c.price, key=c.key, a=change, b=account.cash)
    review(m, [c.account])
    keep_receipt(m, c, row)


def set_account(m: Market, c: Record) -> None:
    account = known_account(m, c)
    if not 0 <= c.price <= Limit.MONEY:
        raise Rejected(Reason.PARAMETER_RANGE, Limit.MONEY, c.price)
    account.killed = bool(c.flags & CommandFlag.KILLED)
    account.max_order = c.quantity if c.quantity != Limit.QUANTITY else 0  # binds nobody
    account.loss_limit, account.loss_reached = c.price, False
    count_losses_from_now(m, account)
    m.emit(
        EventKind.ACCOUNT_CHANGED,
        account=c.account,
        price=c.price,
        quantity=c.quantity,
        leaves=int(account.killed),
    )


def record(m: Market, c: Record) -> None:
    known_account(m, c)
    if repeated(m, c):
        return
    need_slot(m, c)
    keep_receipt(m, c, m.emit(EventKind.RECORDED, account=c.account, key=c.key))


# --- sessions and time


def new_session_id(m: Market) -> int:
    """Raises SESSIONS_FULL."""
    if m.ended_slots:
        slot = m.ended_slots.popleft()
    elif len(m.session_generations) < Limit.SESSIONS:
        slot = len(m.session_generations)
        m.session_generations.append(0)
    else:
        raise Rejected(Reason.SESSIONS_FULL, Limit.SESSIONS, Limit.SESSIONS)
    generation = m.session_generations[slot] % 0xFFFF + 1  # 16 bits, zero skipped
    if m.session_generations[slot] == 0xFFFF:  # its ids come round
        for order in m.orders_by_slot():
            if order.session & 0xFFFF == slot:
                order.session = 0
    m.session_generations[slot] = generation
    return slot | generation << SESSION_SLOT_BITS


def logon(m: Market, c: Record) -> None:
    known_account(m, c)
    if c.session:
        session = m.sessions.get(c.session)
        if session is None or session.account != c.account:
            raise Rejected(Reason.SESSION_UNKNOWN, 0, c.session)
        if session.online:
            raise Rejected(Reason.SESSION_LIVE, 0, c.session)
    session_id = c.session or new_session_id(m)
    stays = bool(c.flags & CommandFlag.CANCEL_ON_DISCONNECT)
    killed = c.session != 0 and m.sessions[c.session].killed
    m.sessions[session_id] = Session(session_id, c.account, stays, c.quantity, killed=killed)
    m.emit(
        EventKind.SESSION_OPENED,
        account=c.account,
        order_id=session_id,
        quantity=c.quantity,
        leaves=int(stays),
        key=c.key,
    )


def end_session(m: Market, session: Session) -> None:
    del m.sessions[session.session_id]
    m.ended_slots.append(session.slot)
    m.emit(EventKind.SESSION_ENDED, account=session.account, order_id=session.session_id)


def lose_session(m: Market, session: Session) -> None:
    session.online = False
    if session.cancel_on_disconnect:
        session.due = m.stamp + session.grace_ms * 1_000_000
    m.emit(
        EventKind.SESSION_LOST,
        account=session.account,
        order_id=session.session_id,
        a=session.due,
    )
    if not session.cancel_on_disconnect:
        end_session(m, session)


def logoff(m: Market, c: Record) -> None:
    session = m.sessions.get(c.session)
    if session is None or not session.online or session.account != c.account:
        raise Rejected(Reason.SESSION_UNKNOWN, 0, c.session)
    lose_session(m, session)


def next_due(m: Market) -> tuple[int, int, int] | None:
    """The first thing that a stamp brings: (stamp, SESSIONS, ORDERS or STOPS, session id, slot
    or instrument)."""
    lost = [(s.due, SESSIONS, s.session_id) for s in m.sessions.values() if not s.online]
    orders = [(o.expiry, ORDERS, o.slot) for o in m.orders_by_slot() if o.expiry]
    stops = [(i.due, STOPS, i.number) for i in m.instruments if i.elected and trades_now(m, i)]
    halts = [(i.resume_at, HALTS, i.number) for i in m.instruments if i.resume_at]
    return min(lost + orders + stops + halts, default=None)


def end_grace(m: Market, session: Session) -> None:
    """A lost session ends, and its account's working orders of that id go."""
    end_session(m, session)
    for order in m.orders_by_slot():
        if (order.session, order.account) == (session.session_id, session.account):
            cancel_order(m, order, CancelReason.DISCONNECTED)


def fire_timers(m: Market) -> None:
    """What is due happens in the order of (stamp, sessions before orders before stops,
    id)."""
    while (due := next_due(m)) is not None and due[0] <= m.stamp:
        if due[1] == SESSIONS:
            end_grace(m, m.sessions[due[2]])
        elif due[1] == STOPS:
            aftermath(m, m.instruments[due[2]], len(m.rows))
        elif due[1] == HALTS:
            resume(m, m.instruments[due[2]])
        else:
            order = m.slots[due[2]]
            assert isinstance(order, Order)
            cancel_order(m, order, CancelReason.TIME_EXPIRED)
