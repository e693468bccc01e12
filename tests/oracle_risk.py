"""The oracle's risk: every figure from first principles, from orders and net positions."""

from collections.abc import Iterable, Sequence

from oracle_combinations import Effect, effects, mark_of
from oracle_matching import cancel_order
from oracle_state import Account, Instrument, Market, Order, Position, Rejected

from exchange.messages import CancelReason, EventKind, Feature, Reason, Side

Working = tuple[int, int, int | None]  # side, leaves, price; in a leg no price of its own


def working(
    m: Market, account: Account, number: int, without: Order | None = None
) -> list[Working]:
    """What works in an instrument: its own orders, and those of combinations it is a leg of."""
    found: list[Working] = []
    for own, position in account.positions.items():
        instrument = m.instruments[own]
        if own != number and all(leg != number for leg, _ in instrument.legs):
            continue
        for order in position.orders.values():
            if order is not without:
                found += [
                    (side, lots, order.price if at == own else None)
                    for at, side, lots in effects(instrument, order.side, order.leaves)
                    if at == number
                ]
    return found


def side_lots(m: Market, account: Account, number: int, side: int) -> int:
    return sum(lots for of, lots, _ in working(m, account, number) if of == side)


def hold(m: Market, instrument: Instrument, net: int, orders: list[Working]) -> int:
    """Micro-dollars that a position and its working orders bind."""
    buys = sells = adverse = 0
    scale, mark = instrument.tick_scale, mark_of(m, instrument)
    for side, leaves, price in orders:
        distance = 0 if price is None else price * scale - mark
        if side == Side.BUY:
            buys += leaves
            adverse += leaves * max(0, distance)
        else:
            sells += leaves
            adverse += leaves * max(0, -distance)
    worst = max(abs(net + buys), abs(net - sells))
    return instrument.rate * worst + adverse * instrument.multiplier


def spreads(m: Market) -> list[tuple[int, int, int]]:
    """Credit of a pair and both legs of every spread that has one, the largest credit first."""
    found = []
    for one in m.instruments:
        if one.credit:
            legs = [number for number, _ in one.legs]
            amount = min(one.credit, *(m.instruments[number].rate for number in legs))
            found.append((-amount, one.number, *legs))
    return [(-amount, one, other) for amount, _, one, other in sorted(found)]


def leaning(m: Market, account: Account, number: int, changes: Sequence[Effect]) -> int:
    """Most lots that a position could come to be long, less most that it could come to be short,
    with ``changes`` of what works."""
    net = (account.positions.get(number) or Position()).net
    lots = [side_lots(m, account, number, side) for side in (Side.BUY, Side.SELL)]
    for at, side, more in changes:
        lots[side] += more if at == number else 0
    return max(0, net + lots[Side.BUY]) - max(0, lots[Side.SELL] - net)


def credit(m: Market, account: Account, changes: Sequence[Effect] = ()) -> int:
    """What lots long in one leg of a spread and short in the other need not hold. Each lot is in
    one pair at most: the spread with the largest credit takes what it can, then the next."""
    left: dict[int, int] = {}
    total = 0
    for amount, *legs in spreads(m):
        for leg in legs:
            if leg not in left:
                left[leg] = leaning(m, account, leg, changes)
        one, other = (left[leg] for leg in legs)
        if one * other < 0:
            pairs = min(abs(one), abs(other))
            total += pairs * amount
            left[legs[0]] -= pairs if one > 0 else -pairs
            left[legs[1]] += pairs if one > 0 else -pairs
    return total


def account_hold(m: Market, account: Account) -> int:
    holds = sum(
        hold(m, m.instruments[number], position.net, working(m, account, number))
        for number, position in account.positions.items()
    )
    return holds - credit(m, account)


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
    m: Market, account: Account, instrument: Instrument, side: int, lots: int, old: Order | None
) -> None:
    """``lots`` would work on ``side`` in place of ``old``. Raises POSITION_LIMIT."""
    rise = lots - (old.leaves if old else 0)
    if old and rise <= 0:
        return
    for number, way, more in effects(instrument, side, rise):
        net = (account.positions.get(number) or Position()).net
        limit = m.instruments[number].position_limit
        total = (net if way == Side.BUY else -net) + side_lots(m, account, number, way) + more
        if total > limit:
            raise Rejected(Reason.POSITION_LIMIT, limit, total)


def reduces(
    m: Market, account: Account, instrument: Instrument, wish: Working, old: Order | None
) -> bool:
    """Whether an order could only make positions smaller: of a combination, each of its legs."""
    side, lots, _ = wish
    for number, way, more in effects(instrument, side, lots):
        if m.instruments[number].legs:
            continue
        net = (account.positions.get(number) or Position()).net
        opposite = net < 0 if way == Side.BUY else net > 0
        after = sum(lot for s, lot, _ in working(m, account, number, old) if s == way) + more
        if not opposite or after > abs(net):
            return False
    return True


def rise_of(
    m: Market, account: Account, instrument: Instrument, wish: Working, old: Order | None
) -> int:
    """By how much the account's requirement would rise with ``wish`` in place of ``old``."""
    rise = 0
    for number, side, lots in effects(instrument, wish[0], wish[1]):
        one = m.instruments[number]
        net = (account.positions.get(number) or Position()).net
        price = wish[2] if number == instrument.number else None
        then = [*working(m, account, number, without=old), (side, lots, price)]
        rise += hold(m, one, net, then) - hold(m, one, net, working(m, account, number))
    changes = [*effects(instrument, wish[0], wish[1])]
    changes += effects(instrument, old.side, -old.leaves) if old else ()
    return rise - credit(m, account, changes) + credit(m, account)


def judge_margin(
    m: Market,
    account: Account,
    instrument: Instrument,
    wish: Working,
    old: Order | None,
) -> None:
    """Would the collateral still cover it? Raises MARGIN, MEMBER_MARGIN."""
    rise = rise_of(m, account, instrument, wish, old)
    judge_rise(m, account, rise, reduces(m, account, instrument, wish, old))


def judge_rise(m: Market, account: Account, rise: int, reducing: bool) -> None:
    """The requirement would rise by so much; in a deficit only what reduces passes."""
    need = required(m, account)
    if need > account.cash:
        if reducing:
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
        if (need > account.cash) != account.in_deficit:
            account.in_deficit = not account.in_deficit
            kind = EventKind.DEFICIT_STARTED if account.in_deficit else EventKind.DEFICIT_ENDED
            m.emit(kind, account=number, a=need, b=account.cash)
        review_loss(m, number, account)


def review_loss(m: Market, number: int, account: Account) -> None:
    """Once the day's loss reaches the limit: orders go, and only what reduces may come in."""
    loss = account.loss_base - account.cash - unrealized(m, account)
    off = Feature.LOSS_LIMIT in m.features_off
    if not account.loss_limit or account.loss_reached or loss < account.loss_limit or off:
        return
    account.loss_reached = True
    m.emit(EventKind.LOSS_LIMIT_REACHED, account=number, a=account.loss_limit, b=loss)
    for order in m.orders_by_slot():
        if order.account == number:
            cancel_order(m, order, CancelReason.LOSS_LIMIT)
