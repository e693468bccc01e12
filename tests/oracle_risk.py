"""The oracle's risk: every figure from first principles, from orders and net positions."""

from collections.abc import Iterable

from oracle_state import Account, Instrument, Market, Order, Position, Rejected

from exchange.messages import EventKind, Reason, Side

Working = tuple[int, int, int]  # side, leaves, price


def working(position: Position, without: Order | None = None) -> list[Working]:
    return [(o.side, o.leaves, o.price) for o in position.orders.values() if o is not without]


def side_lots(position: Position, side: int) -> int:
    return sum(o.leaves for o in position.orders.values() if o.side == side)


def hold(instrument: Instrument, net: int, orders: list[Working]) -> int:
    """Micro-dollars that a position and its working orders bind."""
    buys = sells = adverse = 0
    scale, mark = instrument.tick_scale, instrument.mark
    for side, leaves, price in orders:
        distance = price * scale - mark
        if side == Side.BUY:
            buys += leaves
            adverse += leaves * max(0, distance)
        else:
            sells += leaves
            adverse += leaves * max(0, -distance)
    worst = max(abs(net + buys), abs(net - sells))
    return instrument.rate * worst + adverse * instrument.multiplier


def account_hold(m: Market, account: Account) -> int:
    return sum(
        hold(m.instruments[number], position.net, working(position))
        for number, position in account.positions.items()
    )


def unrealized(m: Market, account: Account) -> int:
    return sum(
        position.net * m.instruments[number].mark * m.instruments[number].multiplier - position.cost
        for number, position in account.positions.items()
    )


def required(m: Market, account: Account) -> int:
    return account_hold(m, account) + max(0, -unrealized(m, account))


def member_accounts(m: Market, member: int) -> list[Account]:
    return [account for account in m.accounts.values() if account.member == member]


def member_figures(m: Market, member: int) -> tuple[int, int]:
    """Required and cash of all accounts of a member."""
    accounts = member_accounts(m, member)
    return sum(required(m, a) for a in accounts), sum(a.cash for a in accounts)


def judge_position(
    instrument: Instrument, position: Position, side: int, lots: int, old: Order | None
) -> None:
    """``lots`` would work on ``side`` in place of ``old``. Raises POSITION_LIMIT."""
    rise = lots - (old.leaves if old else 0)
    if old and rise <= 0:
        return
    net = position.net if side == Side.BUY else -position.net
    total = net + side_lots(position, side) + rise
    if total > instrument.position_limit:
        raise Rejected(Reason.POSITION_LIMIT, instrument.position_limit, total)


def judge_margin(
    m: Market,
    account: Account,
    instrument: Instrument,
    wish: Working,
    old: Order | None,
) -> None:
    """Would the collateral still cover it? Raises MARGIN, MEMBER_MARGIN."""
    position = account.positions.get(instrument.number) or Position()
    side, lots, _ = wish
    now = hold(instrument, position.net, working(position))
    then = hold(instrument, position.net, [*working(position, without=old), wish])
    rise = then - now
    need = required(m, account)
    if need > account.cash:
        opposite = position.net < 0 if side == Side.BUY else position.net > 0
        after = side_lots(position, side) - (old.leaves if old else 0) + lots
        if opposite and after <= abs(position.net):
            return
        raise Rejected(Reason.MARGIN, account.cash, need + max(0, rise))
    if rise <= 0:
        return
    if need + rise > account.cash:
        raise Rejected(Reason.MARGIN, account.cash, need + rise)
    member_need, member_cash = member_figures(m, account.member)
    if member_need + rise > member_cash:
        raise Rejected(Reason.MEMBER_MARGIN, member_cash, member_need + rise)


def review(m: Market, accounts: Iterable[int]) -> None:
    """Tell which of the accounts came into deficit or out of it since the last telling."""
    for number in accounts:
        account = m.accounts[number]
        need = required(m, account)
        if (need > account.cash) == account.in_deficit:
            continue
        account.in_deficit = not account.in_deficit
        kind = EventKind.DEFICIT_STARTED if account.in_deficit else EventKind.DEFICIT_ENDED
        m.emit(kind, account=number, a=need, b=account.cash)
