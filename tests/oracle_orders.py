"""The oracle's order commands: known ids, guards, enter, cancel, reduce, replace."""

from oracle_auction import COLLECTING
from oracle_combinations import effects, judge_legs_open, open_legs
from oracle_features import (
    find_partner,
    follow,
    join,
    judge_reduction,
    room,
    shared,
    shared_by,
)
from oracle_icebergs import judge_display, judge_room, take_hidden
from oracle_implied import Source, best_source
from oracle_matching import RESTS, cancel_order, lose, position_of, send, take_out
from oracle_protections import (
    bound_by_band,
    is_on,
    judge_all_months,
    judge_band,
    judge_features,
    judge_loss,
    judge_through,
    judge_value,
)
from oracle_risk import judge_margin, judge_position
from oracle_state import (
    NO_KEY,
    Account,
    Instrument,
    Market,
    Order,
    Place,
    Position,
    Receipt,
    Record,
    Rejected,
    Row,
    signed,
)
from oracle_stops import (
    aftermath,
    begin_waiting,
    beyond_all,
    far_limit,
    follows_nothing,
    judge_trigger,
    market_limit,
    trades_now,
    wait,
)

from exchange.messages import (
    CancelReason,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Feature,
    Limit,
    Mode,
    OrderFeature,
    Reason,
    Side,
    TimeInForce,
    TradingState,
)

# Plain numbers: the complement of an IntFlag keeps no unknown bit.
ENTER_FLAGS = int(
    CommandFlag.POST_ONLY | CommandFlag.MARKET | CommandFlag.MANUAL | CommandFlag.PROTECTED
)
STOP, ICEBERG = OrderFeature.STOP, OrderFeature.ICEBERG
REDUCE_ONLY, GROUPED = OrderFeature.REDUCE_ONLY, OrderFeature.GROUPED
ENTER_FEATURES = int(REDUCE_ONLY | GROUPED | STOP | ICEBERG | OrderFeature.ALL_OR_NONE)
TARGET_FEATURES = int(GROUPED | STOP | ICEBERG)  # what ``target_hi`` is; else a minimum
TARGET_FLAGS = int(CommandFlag.BY_CLIENT_ID | CommandFlag.MANUAL)
REPLACE_FLAGS = TARGET_FLAGS | int(CommandFlag.POST_ONLY | CommandFlag.NEW_ID)
I64_MAX = (1 << 63) - 1


# --- identity


def fingerprint(c: Record) -> tuple[int, ...]:
    """What must be equal for a command to be a repeat."""
    flags = c.flags & ~int(CommandFlag.MANUAL)
    terms = (c.instrument, c.price, c.quantity, *c.target)
    return (c.kind, c.side, c.tif, flags, c.stp, c.spare, *terms)


def repeated(m: Market, c: Record) -> bool:
    """Answers a command whose key is known. Raises DUPLICATE_DIFFERENT."""
    entry = m.accounts[c.account].known.get(c.key) if c.key != NO_KEY else None
    if entry is None:
        return False
    if entry.fingerprint != fingerprint(c):
        raise Rejected(Reason.DUPLICATE_DIFFERENT)
    if isinstance(entry, Order):
        row = accepted_row(entry, c)
        row.leaves = entry.leaves
        if c.kind == CommandKind.ENTER:
            tell_features(row, c.spare, c.target_hi)
        row.flags |= EventFlag.DUPLICATE
        m.rows.append(row)
        return True
    first = entry.answer
    m.emit(
        EventKind(first.kind),
        flags=first.flags | EventFlag.DUPLICATE,
        instrument=first.instrument,
        account=c.account,
        order_id=first.order_id,
        price=first.price,
        quantity=first.quantity,
        key=c.key,
    )
    return True


def need_slot(m: Market, c: Record) -> None:
    """Room for the receipt of a request that has an id. Raises ORDERS_FULL."""
    if c.key != NO_KEY and m.slots_full(m.accounts[c.account]):
        raise Rejected(Reason.ORDERS_FULL, Limit.ORDERS, Limit.ORDERS)


def keep_receipt(m: Market, c: Record, answer: Row) -> None:
    if c.key != NO_KEY:
        slot = m.take_known_slot(m.accounts[c.account])
        m.remember(Receipt(slot, c.account, c.key, fingerprint(c), answer))


def accepted_row(order: Order, c: Record) -> Row:
    """ORDER_ACCEPTED of the order that ``c`` made or repeats."""
    flags = EventFlag.SELL if order.side == Side.SELL else 0
    flags |= EventFlag.MARKET if c.flags & CommandFlag.MARKET else 0
    flags |= EventFlag.POST_ONLY if c.flags & CommandFlag.POST_ONLY else 0
    return Row(
        EventKind.ORDER_ACCEPTED,
        flags=flags,
        instrument=order.instrument,
        account=order.account,
        order_id=order.order_id,
        price=c.price,
        quantity=c.quantity,
        key=order.key,
        a=order.session,
        b=order.tif | order.stp << 8,
    )


# --- guards


def common(m: Market, c: Record) -> Account:
    """Account, session, kill flag. The session must be online with this account."""
    if c.account not in m.accounts:
        raise Rejected(Reason.UNKNOWN_ACCOUNT)
    if c.session:
        session = m.sessions.get(c.session)
        if session is None or not session.online or session.account != c.account:
            raise Rejected(Reason.SESSION_UNKNOWN, 0, c.session)
    account = m.accounts[c.account]
    if c.kind in (CommandKind.ENTER, CommandKind.REPLACE, CommandKind.MASS_QUOTE):
        if account.killed or account.stopped:
            raise Rejected(Reason.ACCOUNT_KILLED)
        if c.session and m.sessions[c.session].killed:
            raise Rejected(Reason.SESSION_KILLED, 0, c.session)
        if is_on(m, Feature.LOSS_LIMIT):
            judge_loss(m, c)
        if account.member in m.killed_members:
            raise Rejected(Reason.MEMBER_KILLED, 0, account.member)
        if m.killed:
            raise Rejected(Reason.EXCHANGE_KILLED)
    return account


def find_target(m: Market, c: Record) -> Order:
    """The working order that a command names. Raises NOT_FOUND, TOO_LATE, SIDE_MISMATCH."""
    if c.flags & CommandFlag.BY_CLIENT_ID:
        entry = m.accounts[c.account].known.get(c.target)
    else:
        entry = m.slots.get(c.target_lo & 0xFFFFFFFF)
        if entry and (entry.order_id != c.target_lo or entry.account != c.account):
            entry = None
    if not isinstance(entry, Order) or entry.place is Place.CANCELLED:
        raise Rejected(Reason.NOT_FOUND)
    if entry.place is Place.FILLED:
        raise Rejected(Reason.TOO_LATE)
    if c.side not in (Side.UNSTATED, entry.side):
        raise Rejected(Reason.SIDE_MISMATCH, entry.side, c.side)
    return entry


def judge_open(m: Market, c: Record, account: Account, instrument: Instrument) -> None:
    """Trading state, mode, throttle. Raises NOT_TRADING, CANCEL_ONLY, THROTTLED."""
    if instrument.state != TradingState.CONTINUOUS and instrument.state not in COLLECTING:
        raise Rejected(Reason.NOT_TRADING, TradingState.CONTINUOUS, instrument.state)
    judge_legs_open(m, instrument)
    if m.mode == Mode.CANCEL_ONLY:
        raise Rejected(Reason.CANCEL_ONLY)
    arrival = max(account.tat, m.stamp)
    over = arrival - m.stamp - (account.burst - 1) * account.interval
    if over > 0:
        raise Rejected(Reason.THROTTLED, account.burst, over)
    account.tat = arrival + account.interval


def judge_fields(c: Record, account: Account, instrument: Instrument) -> None:
    """Quantity and price of an order by themselves."""
    market = c.kind == CommandKind.ENTER and c.flags & CommandFlag.MARKET
    if not 1 <= c.quantity <= instrument.max_order:
        raise Rejected(Reason.QUANTITY_RANGE, instrument.max_order, c.quantity)
    if account.max_order and c.quantity > account.max_order:
        raise Rejected(Reason.ACCOUNT_MAX_QUANTITY, account.max_order, c.quantity)
    notional = abs(c.price) * c.quantity * instrument.tick_value
    if notional > Limit.MONEY and not market:
        raise Rejected(Reason.NOTIONAL, Limit.MONEY, min(notional, I64_MAX))
    if c.price % instrument.price_step:
        raise Rejected(Reason.TICK, instrument.price_step, c.price)
    if c.quantity % instrument.lot_step:
        raise Rejected(Reason.LOT, instrument.lot_step, c.quantity)
    if market and c.price < 0:
        raise Rejected(Reason.PRICE_LIMIT, 0, c.price)
    if not market and c.price < instrument.low:
        raise Rejected(Reason.PRICE_LIMIT, instrument.low, c.price)
    if not market and c.price > instrument.high:
        raise Rejected(Reason.PRICE_LIMIT, instrument.high, c.price)


def judge_auction(c: Record, instrument: Instrument) -> None:
    """What an auction does not take. Raises NOT_IN_AUCTION."""
    at_once = (
        c.kind == CommandKind.ENTER
        and not c.spare & STOP
        and (c.tif not in RESTS or c.flags & CommandFlag.PROTECTED or minimum_of(c))
    )
    if instrument.collected and (at_once or c.flags & CommandFlag.POST_ONLY):
        raise Rejected(Reason.NOT_IN_AUCTION, 0, instrument.state)


def judge_post_only(
    m: Market, c: Record, side: int, instrument: Instrument, lots: int, old: Order | None = None
) -> None:
    """``lots`` come in when the order ``old`` has left; 0: the order only keeps its place."""
    if not c.flags & CommandFlag.POST_ONLY:
        return
    prices = [order.price for order in instrument.side(1 - side)[:1]]
    if lots:
        source = source_without(m, c, instrument, side, lots, old)
        prices += [source.price] if source else []
    for best in prices:
        if c.price >= best if side == Side.BUY else c.price <= best:
            raise Rejected(Reason.POST_ONLY, best, c.price)


def source_without(
    m: Market, c: Record, instrument: Instrument, side: int, lots: int, old: Order | None
) -> Source | None:
    """The best implied price once ``old`` holds nothing any more."""
    if old is None:
        return best_source(m, instrument, side, lots, c.account, c.price)
    position = position_of(m, old)
    held = position.orders
    position.orders = {number: o for number, o in held.items() if o is not old}
    source = best_source(m, instrument, side, lots, c.account, c.price)
    position.orders = held
    return source


def limit_of(m: Market, c: Record, instrument: Instrument) -> tuple[int, bool]:
    """The price an ENTER may trade up to, and whether what is left of it may rest there."""
    if not c.flags & CommandFlag.MARKET:
        return c.price, c.tif in RESTS
    if c.spare & STOP:  # it may trade at any price of the day
        return far_limit(instrument, c.side), True
    if instrument.collected:
        return far_limit(instrument, c.side), False
    limit, rests = market_limit(instrument, c.side, c.tif, ticks_of(c))
    limit = bound_by_band(m, instrument, c.side, limit)
    return limit, rests and instrument.low <= limit <= instrument.high


def minimum_of(c: Record) -> int:
    return 0 if c.spare & TARGET_FEATURES else c.target_hi


def ticks_of(c: Record) -> int | None:
    return c.price if c.flags & CommandFlag.PROTECTED else None


# --- commands


def judge_enter(m: Market, c: Record, account: Account) -> Instrument:
    """Every guard of ENTER after the known key; gives the instrument."""
    if c.instrument >= len(m.instruments):
        raise Rejected(Reason.UNKNOWN_INSTRUMENT, len(m.instruments), c.instrument)
    instrument = m.instruments[c.instrument]
    judge_open(m, c, account, instrument)
    judge_value(m, c, account, instrument)
    judge_fields(c, account, instrument)
    judge_features(m, c)
    judge_through(m, c, instrument)
    judge_auction(c, instrument)
    judge_post_only(m, c, c.side, instrument, c.quantity)
    if minimum_of(c) > c.quantity:
        raise Rejected(Reason.MINIMUM, c.quantity, signed(c.target_hi))
    if c.tif == TimeInForce.GTD and signed(c.target_lo) <= m.stamp:
        raise Rejected(Reason.EXPIRY, m.stamp, signed(c.target_lo))
    if c.tif == TimeInForce.GFA and not instrument.collected:
        raise Rejected(Reason.AUCTION_ONLY, TradingState.AUCTION, instrument.state)
    if c.spare & STOP:
        judge_trigger(c, instrument)
    if c.spare & ICEBERG:
        judge_display(m, c.quantity, c.target_hi, instrument)
    if c.spare and instrument.legs:
        raise Rejected(Reason.NOT_OUTRIGHT, 0, len(instrument.legs))
    partner = find_partner(m, c)
    if c.spare & REDUCE_ONLY:
        left = room(m, c.account, c.instrument, c.side)
        judge_reduction(left, c.quantity, shared(partner, c.account, c.instrument, c.side))
    if account.open_orders() >= account.max_open:
        raise Rejected(Reason.OPEN_ORDERS, account.max_open, account.open_orders())
    judge_all_months(m, account, instrument, c.side, c.quantity)
    limit, _ = limit_of(m, c, instrument)
    judge_position(m, account, instrument, c.side, c.quantity, None)
    judge_margin(m, account, instrument, (c.side, c.quantity, limit), None)
    legs = len(instrument.legs)
    most = Limit.BOOK_ORDERS // (legs + 3) if legs else Limit.BOOK_ORDERS
    if len(m.slots) >= most:  # else the book cannot be full
        orders = sum(o.instrument == instrument.number for o in m.orders_by_slot())
        if orders >= most:
            raise Rejected(Reason.BOOK_FULL, most, orders)
    if m.slots_full(account):
        raise Rejected(Reason.ORDERS_FULL, Limit.ORDERS, Limit.ORDERS)
    known = sum(len(other.positions) for other in m.accounts.values())
    new = [number for number, _, _ in effects(instrument, c.side, 1)
           if number not in account.positions]  # fmt: skip
    if new and known + len(new) > Limit.POSITIONS - 1:
        raise Rejected(Reason.POSITIONS_FULL, Limit.POSITIONS, Limit.POSITIONS)
    judge_room(m, c, instrument)
    return instrument


def enter(m: Market, c: Record) -> None:
    account = common(m, c)
    market = bool(c.flags & CommandFlag.MARKET)
    protected = bool(c.flags & CommandFlag.PROTECTED)
    if c.side > 1 or c.tif > TimeInForce.GFA or c.stp > 3 or c.flags & ~ENTER_FLAGS:
        raise Rejected(Reason.SYNTAX)
    if c.spare & ~ENTER_FEATURES:
        raise Rejected(Reason.SYNTAX)
    if (market and not protected and c.price) or (c.tif != TimeInForce.GTD and c.target_lo):
        raise Rejected(Reason.SYNTAX)
    if c.key == NO_KEY:
        raise Rejected(Reason.ID_FORMAT)
    post_only = bool(c.flags & CommandFlag.POST_ONLY)
    if (
        (post_only and (market or c.tif not in RESTS))
        or (market and c.tif == TimeInForce.FOK)
        or (protected and not market)
        or (minimum_of(c) and (post_only or c.tif == TimeInForce.FOK))
        or (c.spare & TARGET_FEATURES) not in (0, GROUPED, STOP, ICEBERG)
        or (c.spare & STOP and (post_only or c.tif == TimeInForce.GFA))
        or (c.spare & (GROUPED | ICEBERG) and c.tif not in RESTS)
    ):
        raise Rejected(Reason.COMBINATION)
    if c.spare & OrderFeature.ALL_OR_NONE:
        raise Rejected(Reason.ALL_OR_NONE)
    if repeated(m, c):
        return
    instrument = judge_enter(m, c, account)
    for number, _, _ in effects(instrument, c.side, 1):
        account.positions.setdefault(number, Position())
    limit, rests = limit_of(m, c, instrument)
    order = new_order(m, c, instrument.number, c.side, c.tif, limit)
    comes_in = not instrument.collected and not c.spare & STOP
    if market and comes_in and follows_nothing(instrument, c.side, c.tif, ticks_of(c)):
        order.limit = beyond_all(instrument, c.side)
    order.minimum = minimum_of(c)
    order.expiry = c.target_lo
    order.price = limit if rests or not market or instrument.collected else 0
    order.features = c.spare
    join(order, find_partner(m, c))
    if c.spare & STOP:
        order.trigger, order.market = signed(c.target_hi), market
        order.ticks = ticks_of(c)
    if c.spare & ICEBERG:
        order.display = c.target_hi
    accept(m, c, order, market and not rests)


def new_order(m: Market, c: Record, instrument: int, side: int, tif: int, limit: int) -> Order:
    m.accepted += 1
    return Order(
        m.take_known_slot(m.accounts[c.account]), c.account, instrument, side, limit, c.quantity,
        tif, c.stp, c.session, c.key, fingerprint(c), limit, serial=m.accepted,
    )  # fmt: skip


def accept(m: Market, c: Record, order: Order, market: bool) -> None:
    """A new order takes its place in the window, then comes in."""
    m.remember(order)
    first = len(m.rows)
    row = accepted_row(order, c)
    row.price = order.price
    tell_features(row, order.features, order.display)
    m.rows.append(row)
    if order.features & STOP:
        begin_waiting(m, order)
    else:
        send(m, order, row, market)
    aftermath(m, m.instruments[order.instrument], first)


def tell_features(row: Row, features: int, display: int) -> None:
    """``b`` of ORDER_ACCEPTED: tif, stp, what is special, and how much an iceberg shows."""
    row.b |= features << 16
    if features & ICEBERG:
        row.b |= display << 32


def cancel(m: Market, c: Record) -> None:
    common(m, c)
    if c.flags & ~TARGET_FLAGS or c.side > Side.UNSTATED:
        raise Rejected(Reason.SYNTAX)
    if repeated(m, c):
        return
    order = find_target(m, c)
    need_slot(m, c)
    keep_receipt(m, c, cancel_order(m, order, CancelReason.REQUESTED))


def reduce(m: Market, c: Record) -> None:
    common(m, c)
    if c.flags & ~TARGET_FLAGS or c.side > Side.UNSTATED:
        raise Rejected(Reason.SYNTAX)
    if repeated(m, c):
        return
    order = find_target(m, c)
    instrument = m.instruments[order.instrument]
    if c.quantity == 0:
        raise Rejected(Reason.QUANTITY_RANGE, instrument.max_order, 0)
    if c.quantity % instrument.lot_step:
        raise Rejected(Reason.LOT, instrument.lot_step, c.quantity)
    need_slot(m, c)
    row = lose(m, order, c.quantity, CancelReason.REQUESTED, CancelReason.REDUCED)
    keep_receipt(m, c, row)


def replace(m: Market, c: Record) -> None:
    account = common(m, c)
    new_id = bool(c.flags & CommandFlag.NEW_ID)
    if c.flags & ~REPLACE_FLAGS or c.side > Side.UNSTATED or c.stp > 3:
        raise Rejected(Reason.SYNTAX)
    if new_id and c.key == NO_KEY:
        raise Rejected(Reason.ID_FORMAT)
    if repeated(m, c):
        return
    order = find_target(m, c)
    instrument = m.instruments[order.instrument]
    if order.features & OrderFeature.QUOTE:
        raise Rejected(Reason.QUOTE)
    judge_open(m, c, account, instrument)
    judge_value(m, c, account, instrument)
    judge_fields(c, account, instrument)
    leaves = c.quantity if new_id else c.quantity - order.executed
    if leaves <= 0:
        need_slot(m, c)
        keep_receipt(m, c, cancel_order(m, order, CancelReason.REDUCED))
        return
    comes_in = new_id or not keeps_place(order, c, leaves)
    if comes_in:
        if order.place is not Place.WAITING:
            judge_band(m, instrument, order.side, c.price)
        judge_all_months(m, account, instrument, order.side, leaves - order.leaves)
    judge_auction(c, instrument)
    judge_post_only(m, c, order.side, instrument, leaves if comes_in else 0, order)
    if order.display and order.display * (Limit.REFILLS + 1) < leaves:
        raise Rejected(Reason.DISPLAY, -(-leaves // (Limit.REFILLS + 1)), order.display)
    if order.features & REDUCE_ONLY and comes_in:
        left = room(m, order.account, order.instrument, order.side, order)
        judge_reduction(left, leaves, shared_by(order))
    judge_position(m, account, instrument, order.side, leaves, order)
    if comes_in:
        judge_margin(m, account, instrument, (order.side, leaves, c.price), order)
    need_slot(m, c)
    if new_id:
        features, partner = order.features, order.partner
        cancel_order(m, order, CancelReason.REPLACED)
        new = new_order(m, c, instrument.number, order.side, order.tif, c.price)
        new.expiry = order.expiry
        new.display, new.trigger = order.display, order.trigger
        new.features = features
        join(new, partner)
        accept(m, c, new, market=False)
    else:
        keep_receipt(m, c, change(m, order, c, leaves))


def keeps_place(order: Order, c: Record, leaves: int) -> bool:
    """Whether the replacement only makes the order smaller."""
    placed = order.place in (Place.BOOK, Place.WAITING)
    return placed and c.price == order.price and leaves <= order.leaves


def change(m: Market, order: Order, c: Record, leaves: int) -> Row:
    """Give the order its new price and leaves: in its place, or as incoming."""
    keeps = keeps_place(order, c, leaves)
    first = len(m.rows)
    waits = order.place is Place.WAITING
    before = order.shown | order.hidden << 32
    if keeps:
        take_hidden(order, order.leaves - leaves)
    row = m.tell(
        EventKind.ORDER_REPLACED,
        order,
        c.quantity,
        price=c.price,
        leaves=0 if waits or not keeps else order.shown,
        reason=int(keeps),
        a=order.price,
        b=before,
    )
    if keeps:
        return row
    instrument = m.instruments[order.instrument]
    elected, due = order in instrument.elected, instrument.due
    take_out(m, order, Place.INCOMING)
    order.price = order.limit = c.price
    order.leaves = leaves
    if not waits:
        send(m, order, row)
        aftermath(m, instrument, first)
        return row
    order.market, order.ticks = False, None
    if elected:
        wait(m, order, order.age)
        instrument.elected.append(instrument.stops.pop())
        instrument.due = due
    else:
        begin_waiting(m, order)
    follow(m, first)
    return row


def return_dormant(m: Market, instrument: Instrument) -> None:
    """One pass over the dormant list: orders inside the limits come in again."""
    may_trade = trades_now(m, instrument) and open_legs(m, instrument)
    if not may_trade and instrument.state not in COLLECTING:
        return
    first = len(m.rows)
    for order in list(instrument.dormant):
        if order.place is Place.DORMANT and instrument.low <= order.price <= instrument.high:
            begun = len(m.rows)
            take_out(m, order, Place.INCOMING)
            send(m, order, m.tell(EventKind.ORDER_RETURNED, order, order.leaves))
            follow(m, begun)
    aftermath(m, instrument, first)
