"""The oracle's protections: bands, order values, breakers, accountability, limits of losses and of
all months, and what turns them off. Windows are lists of trades; nothing is summed ahead."""

from oracle_combinations import effects
from oracle_risk import reduces, side_lots, unrealized
from oracle_state import (
    Account,
    Instrument,
    Market,
    Position,
    Record,
    Rejected,
    Row,
    Window,
    signed,
)

from exchange.messages import (
    Breaker,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Feature,
    HaltCause,
    Limit,
    OrderFeature,
    Reason,
    Side,
    TradingState,
)

SPAN_MAX = 1 << 50
CAUSES = {Breaker.CIRCUIT: HaltCause.CIRCUIT_BREAKER, Breaker.VELOCITY: HaltCause.VELOCITY}
FEATURES = {Breaker.CIRCUIT: Feature.CIRCUIT_BREAKER, Breaker.VELOCITY: Feature.VELOCITY}


def is_on(m: Market, feature: Feature) -> bool:
    return feature not in m.features_off


# --- orders


def judge_value(m: Market, c: Record, account: Account, instrument: Instrument) -> None:
    """Raises ORDER_VALUE, unless the quantity is wrong, which comes first."""
    value = abs(c.price) * c.quantity * instrument.tick_value
    most = min(instrument.max_order, account.max_order or Limit.QUANTITY)
    if not 1 <= c.quantity <= most or value > Limit.MONEY or c.flags & CommandFlag.MARKET:
        return
    if instrument.order_value and is_on(m, Feature.ORDER_VALUE) and value > instrument.order_value:
        raise Rejected(Reason.ORDER_VALUE, instrument.order_value, value)


def within_band(m: Market, instrument: Instrument, side: int, price: int) -> int:
    if not instrument.band or instrument.collected or not is_on(m, Feature.BANDS):
        return price
    reference = instrument.last
    if reference is None:
        reference = instrument.mark // instrument.tick_scale
    if instrument.bids and instrument.bids[0].price > reference:
        reference = instrument.bids[0].price
    elif instrument.asks and instrument.asks[0].price < reference:
        reference = instrument.asks[0].price
    if side == Side.BUY:
        return min(price, reference + instrument.band)
    return max(price, reference - instrument.band)


def bound_by_band(m: Market, instrument: Instrument, side: int, price: int) -> int:
    """How far a MARKET order trades that could go as far as ``price``, on the price step; it may be
    outside the day's limits."""
    within, step = within_band(m, instrument, side, price), instrument.price_step
    return within // step * step if side == Side.BUY else -(-within // step) * step


def judge_band(m: Market, instrument: Instrument, side: int, price: int) -> None:
    most = within_band(m, instrument, side, price)
    if most != price:
        raise Rejected(Reason.PRICE_BAND, most, price)


def judge_features(m: Market, c: Record) -> None:
    off = sum(1 << feature for feature in m.features_off if c.spare >> feature & 1)
    if off:
        raise Rejected(Reason.FEATURE_OFF, 0, off)


def judge_through(m: Market, c: Record, instrument: Instrument) -> None:
    """The band of an ENTER; stops wait, and MARKET orders are bound by it instead."""
    if not c.spare & OrderFeature.STOP and not c.flags & CommandFlag.MARKET:
        judge_band(m, instrument, c.side, c.price)


def judge_all_months(
    m: Market, account: Account, instrument: Instrument, side: int, rise: int
) -> None:
    """Of a combination leg by leg, with all that work on the leg's side of its product."""
    if not instrument.legs:
        judge_month(m, account, instrument, side, rise)
    works = list(effects(instrument, side, rise))[1:]
    for number, way, _ in works:
        leg = m.instruments[number]
        together = [lots for other, at, lots in works
                    if at == way and m.instruments[other].product == leg.product]  # fmt: skip
        judge_month(m, account, leg, way, sum(together))


def judge_month(m: Market, account: Account, instrument: Instrument, side: int, rise: int) -> None:
    most = instrument.all_months
    if not most or rise <= 0 or not is_on(m, Feature.ALL_MONTHS_LIMIT):
        return
    total = rise
    for number, position in account.positions.items():
        other = m.instruments[number]
        if other.product == instrument.product and not other.legs:
            total += position.net if side == Side.BUY else -position.net
            total += side_lots(m, account, number, side)
    if total > most:
        raise Rejected(Reason.ALL_MONTHS_LIMIT, most, total)


def judge_loss(m: Market, c: Record) -> None:
    """Raises LOSS_LIMIT of an account that reached it, but for an ENTER that only reduces."""
    account = m.accounts[c.account]
    if not account.loss_reached:
        return
    if c.kind == CommandKind.ENTER and c.side <= Side.SELL and c.instrument < len(m.instruments):
        wish = c.side, c.quantity, None
        if reduces(m, account, m.instruments[c.instrument], wish, None):
            return
    raise Rejected(Reason.LOSS_LIMIT, account.loss_limit, loss_of(m, account))


def loss_of(m: Market, account: Account) -> int:
    return account.loss_base - account.cash - unrealized(m, account)


def count_losses_from_now(m: Market, account: Account) -> None:
    account.loss_base = account.cash + unrealized(m, account)


# --- trades


def part_of(window: Window, stamp: int) -> int:
    return stamp // (window.span // Limit.WINDOW_PARTS)


def trips(window: Window, stamp: int, price: int) -> int | None:
    """The price that a trade has gone beyond; None if it has not, and then it joins the window."""
    part = part_of(window, stamp)
    window.trades = [t for t in window.trades if part - t[0] < Limit.WINDOW_PARTS]
    prices = [price, *(t[1] for t in window.trades)]
    low, high = min(prices), max(prices)
    if price - low > window.variation:
        return low + window.variation
    if high - price > window.variation:
        return high - window.variation
    window.trades.append((part, price))
    return None


def halt(
    m: Market, instrument: Instrument, cause: HaltCause, price: int, limit: int, wait: int
) -> None:
    resume = m.stamp + wait if wait else 0
    m.emit(
        EventKind.STATE_CHANGED,
        instrument=instrument.number,
        reason=cause,
        price=price,
        quantity=TradingState.HALTED,
        leaves=instrument.state,
        a=limit,
        b=resume,
    )
    instrument.state, instrument.resume_at = TradingState.HALTED, resume
    for window in instrument.windows:
        window.trades = []


def look_at_trade(m: Market, instrument: Instrument, row: Row) -> None:
    instrument.last = row.price
    if row.flags & EventFlag.AUCTION:  # the windows begin anew with its price
        for window in instrument.windows:
            window.trades = []
    tell_levels(m, instrument, row.account, row.key[1] & 0xFFFFFFFF)
    for which in Breaker:
        window = instrument.windows[which]
        if instrument.state != TradingState.CONTINUOUS:
            return
        if not window.variation or not is_on(m, FEATURES[which]):
            continue
        limit = trips(window, m.stamp, row.price)
        if limit is None:
            continue
        halted = [instrument]
        if window.whole_product:
            halted += [i for i in m.instruments if i is not instrument and not i.legs]
        for other in halted:
            if other.product == instrument.product and other.state == TradingState.CONTINUOUS:
                halt(m, other, CAUSES[which], row.price, limit, window.halt)


def look_at_trades(m: Market, instrument: Instrument, rows: list[Row]) -> None:
    watched = instrument.band and is_on(m, Feature.BANDS)
    watched = watched or (instrument.accountability and is_on(m, Feature.ACCOUNTABILITY))
    for which in Breaker:
        armed = instrument.windows[which].variation and is_on(m, FEATURES[which])
        watched = watched or armed
    for row in rows:
        if row.kind == EventKind.LEG_TRADE:
            tell_levels(m, m.instruments[row.instrument], row.account, row.key[1] & 0xFFFFFFFF)
        if watched and row.kind == EventKind.TRADE and row.instrument == instrument.number:
            look_at_trade(m, instrument, row)


def tell_levels(m: Market, instrument: Instrument, *accounts: int) -> None:
    if instrument.accountability and is_on(m, Feature.ACCOUNTABILITY):
        for number in accounts:
            tell_level(m, instrument, number)


def tell_level(m: Market, instrument: Instrument, number: int) -> None:
    position: Position = m.accounts[number].positions[instrument.number]
    beyond = abs(position.net) > instrument.accountability
    if beyond and not position.accountable:
        m.emit(
            EventKind.ACCOUNTABILITY_PASSED,
            flags=EventFlag.SELL if position.net < 0 else 0,
            instrument=instrument.number,
            account=number,
            a=instrument.accountability,
            b=position.net,
        )
    position.accountable = beyond


# --- commands


def set_protections(m: Market, c: Record, instrument: Instrument) -> None:
    value, months = signed(c.target_lo), signed(c.target_hi)
    if (
        not 0 <= c.price <= Limit.PRICE
        or not 0 <= value <= Limit.MONEY
        or not 0 <= months <= Limit.POSITION
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    instrument.band, instrument.accountability = c.price, c.quantity
    instrument.order_value, instrument.all_months = value, months
    m.emit(
        EventKind.PROTECTIONS_CHANGED,
        instrument=c.instrument,
        price=c.price,
        quantity=c.quantity,
        a=value,
        b=months,
    )


def set_breaker(m: Market, c: Record, instrument: Instrument) -> None:
    span, wait = signed(c.target_lo), signed(c.target_hi)
    if (
        c.tif >= len(Breaker)
        or not 0 <= c.price <= Limit.PRICE
        or c.quantity > 1
        or not Limit.WINDOW_PARTS <= span <= SPAN_MAX
        or not 0 <= wait <= SPAN_MAX
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    on = Window(c.price, span, wait, bool(c.quantity))
    instrument.windows[c.tif] = on if c.price else Window()  # one that is off says no more
    for window in instrument.windows:
        window.trades = []
    m.emit(
        EventKind.BREAKER_CHANGED,
        reason=c.tif,
        instrument=c.instrument,
        price=c.price,
        quantity=c.quantity,
        a=span,
        b=wait,
    )


def set_feature(m: Market, c: Record) -> None:
    if c.tif not in set(Feature) or c.quantity > 1:
        raise Rejected(Reason.PARAMETER_RANGE, 0, c.tif)
    feature = Feature(c.tif)
    m.features_off = m.features_off - {feature} if c.quantity else m.features_off | {feature}
    m.emit(EventKind.FEATURE_CHANGED, reason=c.tif, quantity=c.quantity)
