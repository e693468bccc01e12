"""The oracle's mass cancel and kill switches: one command, one event per order, by slot."""

from collections.abc import Callable

from oracle_matching import cancel_order
from oracle_orders import common, keep_receipt, need_slot, repeated
from oracle_state import Account, Market, Order, Record, Rejected, Row

from exchange.messages import (
    CancelReason,
    CommandFlag,
    EventKind,
    KillScope,
    Limit,
    Reason,
    Selection,
    Side,
)

U32_MAX = (1 << 32) - 1
EITHER = Selection.INSTRUMENT | Selection.PRODUCT


def is_stopped(m: Market, account: Account) -> bool:
    """Whether a switch that is not a session's stops the account."""
    return account.killed or account.stopped or account.member in m.killed_members or m.killed


def sweep(m: Market, row: Row, reason: CancelReason, wanted: Callable[[Order], bool]) -> None:
    """Cancels the orders that are wanted; ``row`` is told how many they are."""
    orders = [order for order in m.orders_by_slot() if wanted(order)]
    row.quantity = len(orders)
    for order in orders:
        cancel_order(m, order, reason)


def mass_cancel(m: Market, c: Record) -> None:
    common(m, c)
    by = c.tif
    if c.side > Side.UNSTATED or by >= 8 or c.flags & ~int(CommandFlag.MANUAL):
        raise Rejected(Reason.SYNTAX)
    if c.target_lo > U32_MAX or (c.target_lo and not by & Selection.SESSION):
        raise Rejected(Reason.SYNTAX)
    if by & EITHER == EITHER:
        raise Rejected(Reason.COMBINATION)
    if repeated(m, c):
        return
    if by & Selection.INSTRUMENT and c.instrument >= len(m.instruments):
        raise Rejected(Reason.UNKNOWN_INSTRUMENT, len(m.instruments), c.instrument)
    need_slot(m, c)

    def wanted(order: Order) -> bool:
        product = m.instruments[order.instrument].product
        return (
            order.account == c.account
            and c.side in (Side.UNSTATED, order.side)
            and (not by & Selection.INSTRUMENT or order.instrument == c.instrument)
            and (not by & Selection.PRODUCT or product == c.instrument)
            and (not by & Selection.SESSION or order.session == c.target_lo)
        )

    row = m.emit(
        EventKind.MASS_CANCELLED,
        reason=by,
        instrument=c.instrument,
        account=c.account,
        leaves=c.side,
        key=c.key,
        a=c.session,
        b=c.target_lo,
    )
    sweep(m, row, CancelReason.MASS_CANCELLED, wanted)
    keep_receipt(m, c, row)


def judge_scope(m: Market, c: Record) -> KillScope:
    """Raises SYNTAX, UNKNOWN_ACCOUNT, SESSION_UNKNOWN, PARAMETER_RANGE."""
    if c.tif >= len(KillScope):
        raise Rejected(Reason.SYNTAX)
    scope = KillScope(c.tif)
    if scope in (KillScope.ACCOUNT, KillScope.SESSION) and c.account not in m.accounts:
        raise Rejected(Reason.UNKNOWN_ACCOUNT)
    if scope is KillScope.SESSION:
        session = m.sessions.get(c.session)
        if session is None or session.account != c.account:
            raise Rejected(Reason.SESSION_UNKNOWN, 0, c.session)
    if scope is KillScope.MEMBER and c.quantity >= Limit.MEMBERS:
        raise Rejected(Reason.PARAMETER_RANGE, Limit.MEMBERS - 1, c.quantity)
    return scope


def switch(m: Market, c: Record, kind: EventKind, on: bool) -> Row:
    """Throws or lifts the switch of a scope."""
    scope = judge_scope(m, c)
    if scope is KillScope.ACCOUNT:
        m.accounts[c.account].stopped = on
        return m.emit(kind, reason=scope, account=c.account)
    if scope is KillScope.SESSION:
        m.sessions[c.session].killed = on
        return m.emit(kind, reason=scope, account=c.account, order_id=c.session)
    if scope is KillScope.MEMBER:
        m.killed_members = m.killed_members - {c.quantity} | ({c.quantity} if on else set())
        return m.emit(kind, reason=scope, leaves=c.quantity)
    m.killed = on
    return m.emit(kind, reason=scope)


def kill(m: Market, c: Record) -> None:
    row = switch(m, c, EventKind.KILLED, on=True)

    def wanted(order: Order) -> bool:
        if c.tif == KillScope.ACCOUNT:
            return order.account == c.account
        if c.tif == KillScope.SESSION:
            return order.account == c.account and order.session == c.session
        return c.tif == KillScope.EXCHANGE or m.accounts[order.account].member == c.quantity

    sweep(m, row, CancelReason.KILLED, wanted)


def resume(m: Market, c: Record) -> None:
    switch(m, c, EventKind.RESUMED, on=False)
