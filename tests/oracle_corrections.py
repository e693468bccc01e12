"""The oracle's corrections: a trade of the open day taken back, or given another price."""

from oracle_features import follow
from oracle_instruments import living, notional_fits, outright, price_fits
from oracle_risk import review, side_lots
from oracle_state import Instrument, Market, Position, Record, Rejected, signed

from exchange.messages import INDEX_BITS, EventFlag, EventKind, Limit, Reason, Side

FEE_MAX = 1 << 32


def trade_of(m: Market, c: Record) -> tuple[Instrument, Position, Position]:
    """The instrument and both sides' positions of the trade that the command says there was."""
    instrument = living(m, c)
    outright(instrument)
    if not m.day_open:
        raise Rejected(Reason.DAY_STATE, m.business_date)
    match, sequence = c.target_lo, c.target_lo >> INDEX_BITS
    sides = [
        m.accounts[n].positions.get(instrument.number) if n in m.accounts else None
        for n in (c.account, c.session)
    ]
    taker, maker = sides
    if not m.day_first < sequence < m.sequence or taker is None or maker is None or taker is maker:
        raise Rejected(Reason.TRADE_UNKNOWN, m.day_first, sequence)
    if match in m.corrected:
        raise Rejected(Reason.ALREADY_CORRECTED)
    if len(m.corrected) >= Limit.CORRECTIONS:
        raise Rejected(Reason.CORRECTIONS_FULL, Limit.CORRECTIONS, len(m.corrected))
    value = abs(c.price) * c.quantity * instrument.tick_value
    if c.side > Side.SELL or not 1 <= c.quantity <= Limit.QUANTITY or value > Limit.MONEY:
        raise Rejected(Reason.PARAMETER_RANGE)
    return instrument, taker, maker


def furthest(m: Market, number: int, instrument: Instrument, side: int) -> int:
    """Lots of a side that an account's position and all its orders could come to."""
    account = m.accounts[number]
    net = account.positions[instrument.number].net
    return (net if side == Side.BUY else -net) + side_lots(m, account, instrument.number, side)


def say(
    m: Market, c: Record, kind: EventKind, price: int, replaced: int, cash: int, b: int
) -> None:
    m.corrected.add(c.target_lo)
    m.emit(
        kind,
        flags=EventFlag.SELL if c.side == Side.SELL else 0,
        instrument=c.instrument,
        account=c.account,
        order_id=c.target_lo,
        price=price,
        quantity=c.quantity,
        key=(replaced & (1 << 64) - 1, c.session),
        a=cash,
        b=b,
    )
    review(m, [c.account])
    review(m, [c.session])


def bust(m: Market, c: Record) -> None:
    instrument, taker, maker = trade_of(m, c)
    cash, maker_cash = signed(c.target_hi), signed(c.key_lo)
    lots, other = c.quantity, 1 - c.side
    bound = max(
        instrument.bound,
        furthest(m, c.account, instrument, other) + lots,
        furthest(m, c.session, instrument, c.side) + lots,
    )  # fmt: skip
    if (
        max(abs(cash), abs(maker_cash)) > lots * FEE_MAX
        or cash + maker_cash > 0
        or not notional_fits(instrument.low, instrument.high, instrument.tick_value, bound)
        or not price_fits(instrument.mark, instrument.multiplier, bound)
        or instrument.rate * bound > Limit.MONEY
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    instrument.bound = bound
    bought = lots if c.side == Side.BUY else -lots
    for number, position, change, paid in (
        (c.account, taker, bought, cash), (c.session, maker, -bought, maker_cash),
    ):  # fmt: skip
        position.net -= change
        position.cost -= change * c.price * instrument.tick_value
        m.accounts[number].pay(-paid)
    m.accounts[0].pay(cash + maker_cash)
    first = len(m.rows)
    say(m, c, EventKind.TRADE_BUSTED, c.price, 0, -cash, -maker_cash)
    follow(m, first)


def adjust(m: Market, c: Record) -> None:
    instrument, taker, maker = trade_of(m, c)
    price = signed(c.target_hi)
    if price % instrument.price_step:
        raise Rejected(Reason.TICK, instrument.price_step, price)
    if not instrument.low <= price <= instrument.high:
        limit = instrument.low if price < instrument.low else instrument.high
        raise Rejected(Reason.PRICE_LIMIT, limit, price)
    if abs(price) * c.quantity * instrument.tick_value > Limit.MONEY:
        raise Rejected(Reason.PARAMETER_RANGE)
    bought = c.quantity if c.side == Side.BUY else -c.quantity
    change = bought * (price - c.price) * instrument.tick_value
    taker.cost += change
    maker.cost -= change
    say(m, c, EventKind.TRADE_ADJUSTED, price, c.price, 0, 0)
