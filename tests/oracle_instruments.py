"""The oracle's instruments: list, limits, risk parameters, states, marks, settlement, expiry."""

from oracle_auction import COLLECTING, uncross
from oracle_combinations import decode, made_of, mark_of, note_change, sound, weight
from oracle_matching import cancel_order
from oracle_orders import return_dormant
from oracle_protections import set_breaker, set_protections
from oracle_risk import review
from oracle_state import Instrument, Market, Place, Record, Rejected, signed
from oracle_stops import aftermath, trades_now

from exchange.messages import (
    CancelReason,
    CommandKind,
    EventFlag,
    EventKind,
    HaltCause,
    Limit,
    Mode,
    Reason,
    Side,
    TradingState,
)

MOVES = {
    TradingState.CLOSED: (TradingState.PRE_OPEN, TradingState.AUCTION, TradingState.CONTINUOUS),
    TradingState.PRE_OPEN: (
        TradingState.AUCTION, TradingState.CONTINUOUS, TradingState.HALTED, TradingState.CLOSED,
    ),
    TradingState.AUCTION: (
        TradingState.PRE_OPEN, TradingState.CONTINUOUS, TradingState.HALTED, TradingState.CLOSED,
    ),
    TradingState.CONTINUOUS: (
        TradingState.PRE_OPEN, TradingState.AUCTION, TradingState.HALTED, TradingState.CLOSED,
    ),
    TradingState.HALTED: (
        TradingState.PRE_OPEN, TradingState.AUCTION, TradingState.CONTINUOUS, TradingState.CLOSED,
    ),
}  # fmt: skip
CAUSES = (0, HaltCause.OPENING, HaltCause.CLOSING, HaltCause.VOLATILITY)
RATE_MAX = 1 << 40
FEE_MAX = 1 << 32
CYCLES = range(1, 100)
U32 = (1 << 32) - 1


def ladder_fits(m: Market, low: int, high: int, step: int) -> bool:
    inside = -Limit.PRICE <= low <= high <= Limit.PRICE
    whole = low % step == 0 and high % step == 0
    return inside and whole and (high - low) // step + 1 <= Limit.LADDER_LEVELS


def notional_fits(low: int, high: int, tick_value: int, lots: int) -> bool:
    return max(abs(low), abs(high)) * tick_value * lots <= Limit.MONEY


def price_fits(price: int, multiplier: int, lots: int) -> bool:
    return abs(price) <= Limit.PRICE and abs(price) * multiplier * lots <= Limit.MONEY


def listed(m: Market, c: Record) -> Instrument:
    """Raises UNKNOWN_INSTRUMENT."""
    if c.instrument >= len(m.instruments):
        raise Rejected(Reason.UNKNOWN_INSTRUMENT, len(m.instruments), c.instrument)
    return m.instruments[c.instrument]


def living(m: Market, c: Record) -> Instrument:
    """Raises UNKNOWN_INSTRUMENT, STATE."""
    instrument = listed(m, c)
    if instrument.state == TradingState.EXPIRED:
        raise Rejected(Reason.STATE, 0, TradingState.EXPIRED)
    return instrument


def list_instrument(m: Market, c: Record) -> None:
    multiplier, scale, step, lot_step = c.quantity, c.session, c.account, c.operator
    low, high = signed(c.target_lo), signed(c.target_hi)
    if len(m.instruments) >= Limit.INSTRUMENTS:
        raise Rejected(Reason.INSTRUMENTS_FULL, Limit.INSTRUMENTS, len(m.instruments))
    if c.instrument != len(m.instruments):
        raise Rejected(Reason.STATE, len(m.instruments), c.instrument)
    if (
        min(multiplier, scale, step, lot_step) < 1
        or not ladder_fits(m, low, high, step)
        or multiplier * scale > Limit.MONEY
        or not notional_fits(low, high, multiplier * scale, 1)
        or not price_fits(c.price, multiplier, 1)
        or c.key_lo >= Limit.PRODUCTS
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    m.instruments.append(
        Instrument(
            c.instrument, c.price, multiplier, scale, step, lot_step, low, high, c.key_lo,
            anchor=c.price,
        )
    )  # fmt: skip
    m.emit(
        EventKind.INSTRUMENT_LISTED,
        instrument=c.instrument,
        price=c.price,
        quantity=multiplier,
        leaves=scale,
        order_id=step,
        reason=lot_step,
        key=(c.key_lo, 0),
        a=low,
        b=high,
    )


def set_limits(m: Market, c: Record) -> None:
    instrument = living(m, c)
    low, high = signed(c.target_lo), signed(c.target_hi)
    fits = ladder_fits(m, low, high, instrument.price_step)
    if not fits or not notional_fits(low, high, instrument.tick_value, instrument.bound):
        raise Rejected(Reason.PARAMETER_RANGE)
    if trades_now(m, instrument):
        judge_size(m, instrument)
    note_change(m, instrument)
    m.emit(EventKind.LIMITS_CHANGED, instrument=instrument.number, a=low, b=high)
    instrument.low, instrument.high = low, high
    for order in [*instrument.bids, *instrument.asks]:
        if not low <= order.price <= high:
            m.tell(EventKind.ORDER_DORMANT, order, order.leaves, leaves=order.shown)
            instrument.side(order.side).remove(order)
            instrument.dormant.append(order)
            order.place = Place.DORMANT
    far = instrument.high, instrument.low
    for side in (Side.BUY, Side.SELL):
        for order in [o for o in instrument.market if o.side == side and o.price != far[side]]:
            cancel_order(m, order, CancelReason.LIMITS_MOVED)
    return_dormant(m, instrument)


def judge_credit(m: Market, c: Record, instrument: Instrument) -> None:
    """A spread's credit: of two months of one product, at most what the cheaper holds; or as it
    was. Raises PARAMETER_RANGE, CREDITS_FULL."""
    if not instrument.legs or c.key_lo in (0, instrument.credit):
        return
    legs = [m.instruments[number] for number, _ in instrument.legs]
    if (
        sorted(ratio for _, ratio in instrument.legs) != [-1, 1]
        or legs[0].product != legs[1].product
        or c.key_lo > min(leg.rate for leg in legs)
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    others = sum(one.credit > 0 for one in m.instruments if one is not instrument)
    if others >= Limit.CREDITS:
        raise Rejected(Reason.CREDITS_FULL, Limit.CREDITS, others)


def set_risk(m: Market, c: Record) -> None:
    instrument = living(m, c)
    rate, maker, taker = c.price, signed(c.target_lo), signed(c.target_hi)
    bound = max(instrument.bound, c.quantity, c.session)
    ratios = [abs(ratio) for _, ratio in instrument.legs]
    if (
        (ratios and (maker or taker or c.session * max(ratios) > Limit.QUANTITY))
        or not 0 <= rate <= RATE_MAX
        or max(abs(maker), abs(taker)) > FEE_MAX
        or maker + taker < 0
        or (abs(maker) + abs(taker)) * bound > Limit.MONEY
        or c.session > Limit.QUANTITY
        or not notional_fits(instrument.low, instrument.high, instrument.tick_value, bound)
        or not price_fits(mark_of(m, instrument), instrument.multiplier, bound)
        or rate * bound > Limit.MONEY
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    judge_credit(m, c, instrument)
    note_change(m, instrument)
    touched = [instrument.number]
    if instrument.legs and (c.key_lo or instrument.credit):
        touched += [number for number, _ in instrument.legs]
        instrument.credit = c.key_lo
    instrument.rate, instrument.position_limit, instrument.max_order = rate, c.quantity, c.session
    instrument.maker_fee, instrument.taker_fee, instrument.bound = maker, taker, bound
    m.emit(
        EventKind.RISK_CHANGED,
        instrument=instrument.number,
        price=rate,
        quantity=c.quantity,
        leaves=c.session,
        key=(instrument.credit, 0),
        a=maker,
        b=taker,
    )
    review(m, sorted({account for number in touched for account in m.holders(number)}))


def list_combination(m: Market, c: Record) -> None:
    low, high = signed(c.target_lo), signed(c.target_hi)
    if len(m.instruments) >= Limit.INSTRUMENTS:
        raise Rejected(Reason.INSTRUMENTS_FULL, Limit.INSTRUMENTS, len(m.instruments))
    if c.instrument != len(m.instruments):
        raise Rejected(Reason.STATE, len(m.instruments), c.instrument)
    legs = decode(c)
    if not sound(m, c, legs):
        raise Rejected(Reason.PARAMETER_RANGE)
    found = [(m.instruments[number], ratio) for number, ratio in legs]
    hours, first = weight(c.tif, found), found[0][0]
    made = Instrument(
        c.instrument, 0, 1, hours * first.tick_scale, first.price_step, first.lot_step, low, high,
        rule=c.tif, legs=legs,
    )  # fmt: skip
    if (
        hours > U32
        or made.tick_value > Limit.MONEY
        or not ladder_fits(m, low, high, first.price_step)
        or not notional_fits(low, high, made.tick_value, 1)
        or not price_fits(mark_of(m, made), 1, 1)
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    m.instruments.append(made)
    m.emit(
        EventKind.INSTRUMENT_LISTED,
        instrument=c.instrument,
        price=mark_of(m, made),
        quantity=hours,
        leaves=first.tick_scale,
        order_id=first.price_step,
        reason=first.lot_step,
        a=low,
        b=high,
    )
    for place, (number, ratio) in enumerate(legs, 1):
        m.emit(
            EventKind.LEG_LISTED,
            instrument=c.instrument,
            order_id=number,
            price=ratio,
            quantity=place,
            leaves=len(legs),
            reason=c.tif,
        )


def outright(instrument: Instrument) -> None:
    """Raises NOT_OUTRIGHT."""
    if instrument.legs:
        raise Rejected(Reason.NOT_OUTRIGHT, 0, len(instrument.legs))


def mark_fits(m: Market, instrument: Instrument, price: int, settles: bool) -> bool:
    """Whether a mark fits an instrument and all that is made of it."""
    if not price_fits(price, instrument.multiplier, instrument.bound):
        return False
    before = instrument.mark, instrument.anchor
    instrument.mark = price
    instrument.anchor = price if settles else instrument.anchor
    fits = all(price_fits(mark_of(m, one), 1, one.bound) for one in made_of(m, instrument.number))
    instrument.mark, instrument.anchor = before
    return fits


def change_state(m: Market, instrument: Instrument, state: int, cause: HaltCause) -> None:
    before, instrument.state = instrument.state, state
    instrument.resume_at = 0
    m.emit(
        EventKind.STATE_CHANGED,
        instrument=instrument.number,
        quantity=state,
        leaves=before,
        reason=cause,
    )


def set_state(m: Market, c: Record) -> None:
    instrument = listed(m, c)
    gathers = instrument.legs and c.tif in COLLECTING
    if gathers or c.tif not in MOVES.get(TradingState(instrument.state), ()):
        raise Rejected(Reason.STATE, instrument.state, c.tif)
    collecting = c.tif in COLLECTING
    if c.quantity not in (CAUSES if collecting else (0,)):
        raise Rejected(
            Reason.PARAMETER_RANGE, HaltCause.VOLATILITY if collecting else 0, c.quantity
        )
    halts = c.tif == TradingState.HALTED
    cause = HaltCause.OPERATOR if halts else HaltCause(c.quantity)
    ended = instrument.state == TradingState.AUCTION and c.tif == TradingState.CLOSED
    if (ended or c.tif == TradingState.CONTINUOUS) and m.mode == Mode.NORMAL:
        judge_size(m, instrument)
    first = len(m.rows)
    change_state(m, instrument, c.tif, cause)
    if collecting:
        instrument.collected = True
    elif ended or c.tif == TradingState.CONTINUOUS:
        hold_auction(m, instrument, first)
    return_dormant(m, instrument)
    if c.tif == TradingState.CONTINUOUS:
        for combination in made_of(m, instrument.number):
            return_dormant(m, combination)


def hold_auction(m: Market, instrument: Instrument, first: int) -> None:
    """It waits while the market is cancel-only."""
    if m.mode == Mode.NORMAL:
        uncross(m, instrument)
        aftermath(m, instrument, first)


def judge_size(m: Market, instrument: Instrument) -> None:
    """Of a command that ends an auction or lets orders return. Raises BOOK_FULL."""
    size = auction_size(m, instrument)
    if (instrument.collected or instrument.dormant) and size > Limit.BOOK_ORDERS:
        raise Rejected(Reason.BOOK_FULL, Limit.BOOK_ORDERS, size)


def auction_size(m: Market, instrument: Instrument) -> int:
    """The instrument's orders; dormant ones count twice, and those that its auction may trade, and
    stops, three times."""
    orders = [order for order in m.orders_by_slot() if order.instrument == instrument.number]
    if 3 * len(orders) <= Limit.BOOK_ORDERS:
        return len(orders)
    if not instrument.collected:
        return len(orders) + len(instrument.dormant)
    seen = [order for order in orders if order.place in (Place.BOOK, Place.MARKET)]
    buys = [order.price for order in seen if order.side == Side.BUY]
    sells = [order.price for order in seen if order.side == Side.SELL]
    crossed = [price for price in buys if sells and price >= min(sells)]
    crossed += [price for price in sells if buys and price <= max(buys)]
    stops = sum(order.place == Place.WAITING for order in orders)
    return len(orders) + 2 * (len(crossed) + stops) + len(instrument.dormant)


def set_mode(m: Market, c: Record) -> None:
    if c.tif >= len(Mode):
        raise Rejected(Reason.PARAMETER_RANGE, Mode.CANCEL_ONLY, c.tif)
    if m.mode != Mode.NORMAL and c.tif == Mode.NORMAL:
        waiting = sum(
            auction_size(m, one)
            for one in m.instruments
            if one.state == TradingState.CONTINUOUS
            and (one.collected or one.dormant or one.elected)
        )
        if waiting > Limit.BOOK_ORDERS:
            raise Rejected(Reason.BOOK_FULL, Limit.BOOK_ORDERS, waiting)
    before, m.mode = m.mode, c.tif
    m.emit(EventKind.MODE_CHANGED, quantity=c.tif)
    if before == m.mode or m.mode != Mode.NORMAL:
        return
    for instrument in m.instruments:
        if instrument.state == TradingState.CONTINUOUS:
            hold_auction(m, instrument, len(m.rows))
            return_dormant(m, instrument)


def protect(m: Market, c: Record) -> None:
    """SET_PROTECTIONS, SET_BREAKER."""
    effect = set_protections if c.kind == CommandKind.SET_PROTECTIONS else set_breaker
    instrument = living(m, c)
    outright(instrument)
    effect(m, c, instrument)


def resume(m: Market, instrument: Instrument) -> None:
    """A halt ends by itself. An auction that waited for the market's mode when it began is held."""
    first = len(m.rows)
    change_state(m, instrument, TradingState.CONTINUOUS, HaltCause.NONE)
    hold_auction(m, instrument, first)
    return_dormant(m, instrument)
    for combination in made_of(m, instrument.number):
        return_dormant(m, combination)


def mark(m: Market, c: Record) -> None:
    instrument = living(m, c)
    outright(instrument)
    if not mark_fits(m, instrument, c.price, settles=False):
        raise Rejected(Reason.PARAMETER_RANGE)
    instrument.mark = c.price
    m.emit(EventKind.MARKED, instrument=instrument.number, price=c.price)
    review(m, m.holders(instrument.number))


def settle_positions(m: Market, instrument: Instrument, price: int) -> None:
    """Unrealized profit becomes cash; the variations of all accounts sum to zero."""
    instrument.mark = instrument.anchor = price
    total = 0
    for number in m.holders(instrument.number):
        account = m.accounts[number]
        position = account.positions[instrument.number]
        value = position.net * price * instrument.multiplier
        variation = value - position.cost
        position.cost = value
        account.pay(variation)
        total += variation
        if position.net or variation:
            m.emit(
                EventKind.POSITION_SETTLED,
                flags=EventFlag.SELL if position.net < 0 else 0,
                instrument=instrument.number,
                account=number,
                quantity=abs(position.net),
                price=price,
                a=variation,
                b=account.cash,
            )
    assert total == 0, "variations sum to zero"


def settle(m: Market, c: Record) -> None:
    instrument = living(m, c)
    outright(instrument)
    if not m.business_date:
        raise Rejected(Reason.DAY_STATE)
    fits = mark_fits(m, instrument, c.price, settles=True)
    if not fits or c.quantity not in CYCLES:
        raise Rejected(Reason.PARAMETER_RANGE)
    this = m.business_date * 100 + c.quantity
    if this <= instrument.last_settled:
        raise Rejected(Reason.ALREADY_SETTLED, instrument.last_settled, this)
    note_change(m, instrument)
    instrument.last_settled = this
    instrument.last = None
    m.emit(
        EventKind.INSTRUMENT_SETTLED,
        instrument=instrument.number,
        price=c.price,
        quantity=c.quantity,
        leaves=m.business_date,
    )
    settle_positions(m, instrument, c.price)
    review(m, m.holders(instrument.number))


def cancel_orders_of(m: Market, instrument: Instrument) -> None:
    for order in m.orders_by_slot():
        if order.instrument == instrument.number:
            cancel_order(m, order, CancelReason.INSTRUMENT_EXPIRED)


def expire(m: Market, c: Record) -> None:
    instrument = living(m, c)
    outright(instrument)
    if instrument.state == TradingState.CONTINUOUS:
        raise Rejected(Reason.STATE, TradingState.HALTED, TradingState.CONTINUOUS)
    if not price_fits(c.price, instrument.multiplier, instrument.bound):
        raise Rejected(Reason.PARAMETER_RANGE)
    instrument.resume_at = 0
    m.emit(EventKind.INSTRUMENT_EXPIRED, instrument=instrument.number, price=c.price)
    cancel_orders_of(m, instrument)
    instrument.collected = False
    ended = [instrument.number]
    for combination in made_of(m, instrument.number):
        ended.append(combination.number)
        change_state(m, combination, TradingState.EXPIRED, HaltCause.NONE)
        combination.implied = False
        combination.credit = 0
        cancel_orders_of(m, combination)
    instrument.state = TradingState.EXPIRED
    settle_positions(m, instrument, c.price)
    for number in m.holders(instrument.number):
        position = m.accounts[number].positions[instrument.number]
        position.net = position.cost = 0
    review(m, m.holders(instrument.number))
    for account in m.accounts.values():
        for number in ended:
            account.positions.pop(number, None)
