"""The oracle's mass quotes, and the protection of those who make them."""

from oracle_features import follow, tell_protection
from oracle_matching import cancel_order, put_in, take_out
from oracle_orders import (
    common,
    judge_fields,
    judge_open,
    keep_receipt,
    need_slot,
    repeated,
)
from oracle_protections import judge_all_months, judge_band, judge_value
from oracle_risk import credit, hold, judge_position, member_figures, reduces, required, working
from oracle_state import (
    Account,
    Instrument,
    Market,
    Order,
    Place,
    Position,
    Protection,
    Record,
    Rejected,
    signed,
)

from exchange.messages import (
    CancelReason,
    CommandFlag,
    EventFlag,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
    Side,
    TimeInForce,
    TradingState,
)

U32_MAX = (1 << 32) - 1
WINDOW_MAX = 1 << 50
Sides = list[Record]  # the command as either side's, its price and quantity in their places


def quote_of(position: Position, side: int) -> Order | None:
    """The side's order, if it has one."""
    for order in position.orders.values():
        if order.features & OrderFeature.QUOTE and order.side == side:
            return order
    return None


def keeps(order: Order, c: Record) -> bool:
    """Whether the side only becomes smaller, or stays."""
    placed = order.place is Place.BOOK and (order.price, order.tif) == (c.price, c.tif)
    return placed and c.quantity <= order.leaves


def judge_prices(
    m: Market, account: Account, instrument: Instrument, position: Position, sides: Sides
) -> None:
    for c in sides:
        if c.quantity:
            with_side(c, judge_value, m, c, account, instrument)
            with_side(c, judge_fields, c, account, instrument)
    bid, ask = sides
    if bid.quantity and ask.quantity and bid.price >= ask.price:
        raise Rejected(Reason.CROSSED, ask.price, bid.price)
    for c in sides:
        old = quote_of(position, c.side)
        if c.quantity and not (old and keeps(old, c)):
            with_side(c, judge_band, m, instrument, c.side, c.price)
    for c in sides:
        own = quote_of(position, 1 - c.side)
        book = [order for order in instrument.side(1 - c.side) if order is not own]
        if not c.quantity or not book:
            continue
        best = book[0].price
        if c.price >= best if c.side == Side.BUY else c.price <= best:
            with_side(c, refuse, Reason.POST_ONLY, best, c.price)


def refuse(reason: Reason, a: int, b: int) -> None:
    raise Rejected(reason, a, b)


def with_side(c: Record, judge: object, *given: object) -> None:
    """What a guard of one side says, told with that side's figures."""
    try:
        judge(*given)  # type: ignore[operator]
    except Rejected as why:
        why.told = c
        raise


def judge_extent(
    m: Market, account: Account, instrument: Instrument, position: Position, sides: Sides
) -> None:
    """Raises ALL_MONTHS_LIMIT and POSITION_LIMIT of a side, MARGIN and MEMBER_MARGIN of both."""
    old = [quote_of(position, c.side) for c in sides]
    number, net = instrument.number, position.net
    for c, order in zip(sides, old, strict=True):
        rise = c.quantity - (order.leaves if order else 0)
        with_side(c, judge_all_months, m, account, instrument, c.side, rise)
    for c, order in zip(sides, old, strict=True):
        if c.quantity > (order.leaves if order else 0):
            with_side(c, judge_position, m, account, instrument, c.side, c.quantity, order)
    works = working(m, account, number)
    then = [*works, *((c.side, c.quantity, c.price) for c in sides)]
    for order in old:
        if order is not None:
            then.remove((order.side, order.leaves, order.price))
    rise = hold(m, instrument, net, then) - hold(m, instrument, net, works)
    changes = [(number, c.side, c.quantity) for c in sides]
    changes += [(number, order.side, -order.leaves) for order in old if order is not None]
    rise -= credit(m, account, changes) - credit(m, account)
    need = required(m, account)
    if need > account.cash:
        for c, order in zip(sides, old, strict=True):
            if c.quantity and not (order and keeps(order, c)):
                wish = c.side, c.quantity, c.price
                if not reduces(m, account, instrument, wish, order):
                    with_side(c, refuse, Reason.MARGIN, account.cash, need + max(0, rise))
        return
    if rise <= 0:
        return
    if need + rise > account.cash:
        raise Rejected(Reason.MARGIN, account.cash, need + rise)
    member_need, member_cash = member_figures(m, account.member)
    if member_need + rise > member_cash:
        raise Rejected(Reason.MEMBER_MARGIN, member_cash, member_need + rise)


def judge_quote(
    m: Market, c: Record, instrument: Instrument, position: Position, sides: Sides
) -> None:
    """Every guard after the instrument: one that only takes back has but the last."""
    account = m.accounts[c.account]
    if any(side.quantity for side in sides):
        if instrument.state != TradingState.CONTINUOUS:
            raise Rejected(Reason.NOT_TRADING, TradingState.CONTINUOUS, instrument.state)
        judge_open(m, c, account, instrument)
        protection = account.protections.get(instrument.product)
        if protection and protection.blocked:
            raise Rejected(Reason.QUOTES_BLOCKED, protection.lots, protection.traded)
        judge_prices(m, account, instrument, position, sides)
        fresh = sum(s.quantity > 0 and quote_of(position, s.side) is None for s in sides)
        if fresh and account.open_orders() + fresh > account.max_open:
            raise Rejected(Reason.OPEN_ORDERS, account.max_open, account.open_orders())
        judge_extent(m, account, instrument, position, sides)
    need_slot(m, c)


def sides_of(c: Record) -> Sides:
    ask = c._replace(side=Side.SELL, price=signed(c.target_lo), quantity=c.target_hi, flags=0)
    return [c._replace(flags=0), ask]


def mass_quote(m: Market, c: Record) -> None:
    common(m, c)
    wrong = c.side or c.tif > TimeInForce.DAY or c.stp > 3 or c.spare
    if wrong or c.flags & ~int(CommandFlag.MANUAL) or c.target_hi > U32_MAX:
        raise Rejected(Reason.SYNTAX)
    if repeated(m, c):
        return
    if c.instrument >= len(m.instruments):
        raise Rejected(Reason.UNKNOWN_INSTRUMENT, len(m.instruments), c.instrument)
    instrument, sides = m.instruments[c.instrument], sides_of(c)
    if instrument.legs:
        raise Rejected(Reason.NOT_OUTRIGHT, 0, len(instrument.legs))
    position = m.position(c.account, c.instrument)
    judge_quote(m, c, instrument, position, sides)
    if any(side.quantity for side in sides):
        position = m.accounts[c.account].positions.setdefault(c.instrument, position)
    first = len(m.rows)
    row = m.emit(
        EventKind.QUOTED,
        instrument=c.instrument,
        account=c.account,
        price=c.price,
        quantity=c.quantity,
        leaves=c.target_hi,
        key=c.key,
        a=signed(c.target_lo),
        b=c.session,
    )
    moved = [take_back(m, side, quote_of(position, side.side)) for side in sides]
    for side, (order, stands) in zip(sides, moved, strict=True):
        if side.quantity and not stands:
            put_down(m, side, order)
    follow(m, first)
    keep_receipt(m, c, row)


def take_back(m: Market, c: Record, order: Order | None) -> tuple[Order | None, bool]:
    """First for both sides: the order that is left of the last quote, and whether it stands."""
    if order is None:
        return None, False
    again = order.executed or order.tif != c.tif
    if not c.quantity or (again and not keeps(order, c)):
        cancel_order(m, order, CancelReason.QUOTE)
        return None, False
    order.session = c.session
    stays = keeps(order, c)
    if stays and c.quantity == order.leaves:
        return order, True
    m.tell(
        EventKind.ORDER_REPLACED,
        order,
        order.executed + c.quantity,
        price=c.price,
        leaves=c.quantity,
        reason=int(stays),
        a=order.price,
        b=order.leaves,
    )
    if not stays:
        take_out(m, order, Place.INCOMING)
    order.price = order.limit = c.price
    order.leaves = c.quantity
    return order, stays


def put_down(m: Market, c: Record, order: Order | None) -> None:
    """Then for both sides: a new order, or the old one at its new place."""
    if order is None:
        m.accepted += 1
        order = Order(
            m.take_slot(), c.account, c.instrument, c.side, c.price, c.quantity, c.tif, c.stp,
            c.session, c.key, (), c.price, features=int(OrderFeature.QUOTE), serial=m.accepted,
            in_window=False,
        )  # fmt: skip
        m.slots[order.slot] = order
        m.tell(
            EventKind.ORDER_ACCEPTED,
            order,
            c.quantity,
            flags=EventFlag.POST_ONLY,
            leaves=c.quantity,
            b=c.tif | c.stp << 8 | OrderFeature.QUOTE << 16,
        )
    put_in(m, order)


def set_protection(m: Market, c: Record) -> None:
    account = common(m, c)
    window = signed(c.target_lo)
    if (
        c.instrument >= Limit.PRODUCTS
        or c.quantity > Limit.QUANTITY
        or not 0 <= window <= WINDOW_MAX
        or (c.quantity == 0) != (window == 0)
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    if c.instrument not in account.protections and len(account.protections) >= Limit.PROTECTIONS:
        raise Rejected(Reason.PROTECTIONS_FULL, Limit.PROTECTIONS, Limit.PROTECTIONS)
    protection = Protection(c.quantity, window)
    account.protections[c.instrument] = protection
    tell_protection(m, c.account, c.instrument, protection)
