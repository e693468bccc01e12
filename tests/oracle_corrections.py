"""The oracle's corrections: a trade of the open day taken back, or given another price; one of a
combination with all its legs, which are priced as they were when it was made."""

from typing import NamedTuple

from oracle_combinations import leg_prices, legs_of, terms_of
from oracle_features import follow
from oracle_instruments import living, notional_fits, price_fits
from oracle_risk import review, side_lots
from oracle_state import Instrument, LegTerms, Market, Position, Record, Rejected, signed

from exchange.messages import INDEX_BITS, EventFlag, EventKind, Limit, Reason, Side, TradingState

FEE_MAX = 1 << 32


def combination_of(m: Market, c: Record) -> Instrument:
    """Of a leg of a trade with an implied price: the living combination that has it at its place,
    if all legs before it have been stated. Raises LEG_ALONE."""
    number, place, stated = c.key_hi, c.spare, m.stated
    begun = stated and (stated.match, stated.kind, stated.combination, len(stated.legs))
    if number < len(m.instruments):
        one = m.instruments[number]
        fits = place <= len(one.legs) and one.legs[place - 1][0] == c.instrument
        follows = place == 1 or begun == (c.target_lo, c.kind, number, place - 1)
        if fits and follows and one.state != TradingState.EXPIRED:
            return one
    raise Rejected(Reason.LEG_ALONE, 0, place)


def trade_of(m: Market, c: Record) -> tuple[Instrument, Position, Position]:
    """The instrument and both sides' positions of the trade that the command says there was."""
    instrument = living(m, c)
    if c.spare:
        combination_of(m, c)
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
    m: Market, c: Record, kind: EventKind, price: int, replaced: int, cash: int, b: int,
    legs: int = 0,
) -> None:  # fmt: skip
    m.corrected.add(c.target_lo)
    m.emit(
        kind,
        flags=EventFlag.SELL if c.side == Side.SELL else 0,
        reason=legs,
        instrument=c.instrument,
        account=c.account,
        order_id=c.target_lo,
        price=price,
        quantity=c.quantity,
        key=(replaced & (1 << 64) - 1, c.session),
        a=cash,
        b=b,
    )


def exposed(m: Market, c: Record, instrument: Instrument, side: int, lots: int) -> int:
    """The instrument's bound once lots that the taker had on ``side`` are taken back. Raises
    PARAMETER_RANGE."""
    bound = max(
        instrument.bound,
        furthest(m, c.account, instrument, 1 - side) + lots,
        furthest(m, c.session, instrument, side) + lots,
    )  # fmt: skip
    if (
        not notional_fits(instrument.low, instrument.high, instrument.tick_value, bound)
        or not price_fits(instrument.mark, instrument.multiplier, bound)
        or instrument.rate * bound > Limit.MONEY
    ):
        raise Rejected(Reason.PARAMETER_RANGE)
    return bound


def take_back(
    m: Market, c: Record, instrument: Instrument, side: int, lots: int, value: int
) -> None:
    """Lots and cost of both sides, as if they had never traded; ``value`` of a lot."""
    bought = lots if side == Side.BUY else -lots
    for number, change in ((c.account, bought), (c.session, -bought)):
        position = m.accounts[number].positions[instrument.number]
        position.net -= change
        position.cost -= change * value


def bust(m: Market, c: Record) -> None:
    instrument, _, _ = trade_of(m, c)
    if instrument.legs:
        bust_whole(m, c, instrument)
        return
    cash, maker_cash, lots = signed(c.target_hi), signed(c.key_lo), c.quantity
    if max(abs(cash), abs(maker_cash)) > lots * FEE_MAX or cash + maker_cash > 0:
        raise Rejected(Reason.PARAMETER_RANGE)
    instrument.bound = exposed(m, c, instrument, c.side, lots)
    take_back(m, c, instrument, c.side, lots, c.price * instrument.tick_value)
    for number, paid in ((c.account, cash), (c.session, maker_cash), (0, -cash - maker_cash)):
        m.accounts[number].pay(-paid)
    first = len(m.rows)
    say(m, c, EventKind.TRADE_BUSTED, c.price, 0, -cash, -maker_cash)
    review(m, [c.account])
    review(m, [c.session])
    follow(m, first)


class Leg(NamedTuple):
    """What one leg of a combination's trade was; ``side`` is the taker's."""

    instrument: Instrument
    side: int
    lots: int
    terms: LegTerms
    price: int  # in clearing units


def legs_then(m: Market, c: Record, combination: Instrument, price: int) -> tuple[list[Leg], int]:
    """The legs of a trade at ``price`` when the trade was made, and what they left for its taker
    to pay for all lots. Raises LEGS_FORGOTTEN, PARAMETER_RANGE."""
    sequence = c.target_lo >> INDEX_BITS
    if sequence <= m.legs_known:
        raise Rejected(Reason.LEGS_FORGOTTEN, m.legs_known, sequence)
    legs = legs_of(m, combination)
    terms = [
        next(
            (one for one in m.leg_changes if one.sequence >= sequence and one.number == leg.number),
            terms_of(m, leg),
        )
        for leg, _ in legs
    ]
    prices, residual = leg_prices(m, combination, price, terms)
    found = []
    for (leg, ratio), one, at in zip(legs, terms, prices, strict=True):
        lots = c.quantity * abs(ratio)
        if lots > Limit.QUANTITY or abs(at) * leg.multiplier * lots > Limit.MONEY:
            raise Rejected(Reason.PARAMETER_RANGE)
        found.append(Leg(leg, c.side if ratio > 0 else 1 - c.side, lots, one, at))
    owed = residual * c.quantity * (1 if c.side == Side.BUY else -1)
    if abs(owed) > Limit.MONEY:
        raise Rejected(Reason.PARAMETER_RANGE)
    return found, owed


def say_leg(
    m: Market, c: Record, kind: EventKind, leg: Leg, place: int, legs: int, parent: int, **more: int
) -> None:
    m.emit(
        kind,
        flags=EventFlag.SELL if leg.side == Side.SELL else 0,
        reason=place | legs << 8,
        instrument=leg.instrument.number,
        account=c.account,
        order_id=c.target_lo + place,
        price=leg.price,
        quantity=leg.lots,
        leaves=parent,
        key=(more.pop("replaced", 0) & (1 << 64) - 1, c.session),
        **more,
    )


def say_residual(m: Market, c: Record, price: int, parent: int, cash: int) -> None:
    """Cash that the taker gets of the maker."""
    m.accounts[c.account].pay(cash)
    m.accounts[c.session].pay(-cash)
    m.emit(
        EventKind.RESIDUAL_CORRECTED,
        flags=EventFlag.SELL if c.side == Side.SELL else 0,
        instrument=c.instrument,
        account=c.account,
        order_id=c.target_lo,
        price=price,
        quantity=c.quantity,
        leaves=parent,
        key=(0, c.session),
        a=cash,
        b=-cash,
    )


def bust_whole(m: Market, c: Record, combination: Instrument) -> None:
    """A combination's trade, all its legs, and what they left of its price."""
    legs, owed = legs_then(m, c, combination, c.price)
    bounds = [exposed(m, c, leg.instrument, leg.side, leg.lots) for leg in legs]
    fees = sum(leg.lots * leg.terms.taker_fee for leg in legs)
    maker_fees = sum(leg.lots * leg.terms.maker_fee for leg in legs)
    cash, maker_cash = -fees - owed, -maker_fees + owed
    if max(abs(cash), abs(maker_cash)) > Limit.MONEY:
        raise Rejected(Reason.PARAMETER_RANGE)
    for moved, said in ((cash, c.target_hi), (maker_cash, c.key_lo)):
        if moved != signed(said):
            raise Rejected(Reason.TRADE_DIFFERENT, moved, signed(said))
    first = parent = len(m.rows)
    say(m, c, EventKind.TRADE_BUSTED, c.price, 0, 0, 0, len(legs))
    for place, (leg, bound) in enumerate(zip(legs, bounds, strict=True), 1):
        leg.instrument.bound = bound
        take_back(m, c, leg.instrument, leg.side, leg.lots, leg.price * leg.instrument.multiplier)
        fee, maker_fee = leg.lots * leg.terms.taker_fee, leg.lots * leg.terms.maker_fee
        for number, paid in ((c.account, fee), (c.session, maker_fee), (0, -fee - maker_fee)):
            m.accounts[number].pay(paid)
        say_leg(m, c, EventKind.LEG_BUSTED, leg, place, len(legs), parent, a=fee, b=maker_fee)
    if owed:
        say_residual(m, c, c.price, parent, owed)
    review(m, [c.account])
    review(m, [c.session])
    follow(m, first)


def adjust_whole(m: Market, c: Record, combination: Instrument, price: int) -> None:
    """A combination's trade at another price: each leg at the price that it would have had."""
    before, owed = legs_then(m, c, combination, c.price)
    after, owed_now = legs_then(m, c, combination, price)
    parent = len(m.rows)
    say(m, c, EventKind.TRADE_ADJUSTED, price, c.price, 0, 0, len(before))
    for place, (leg, now) in enumerate(zip(before, after, strict=True), 1):
        if now.price == leg.price:
            continue
        move_cost(m, c, leg.instrument, leg.side, leg.lots * (now.price - leg.price))
        say_leg(m, c, EventKind.LEG_ADJUSTED, now, place, len(before), parent, replaced=leg.price)
    if owed != owed_now:
        say_residual(m, c, price, parent, owed - owed_now)


def move_cost(m: Market, c: Record, instrument: Instrument, side: int, units: int) -> None:
    """``units``: lots x the rise of the price in clearing units."""
    change = units * instrument.multiplier * (1 if side == Side.BUY else -1)
    m.accounts[c.account].positions[instrument.number].cost += change
    m.accounts[c.session].positions[instrument.number].cost -= change


def adjusted(m: Market, c: Record) -> tuple[Instrument, int]:
    """The instrument and the new price. Raises what trade_of does, then of the price."""
    instrument, _, _ = trade_of(m, c)
    price = signed(c.target_hi)
    if price % instrument.price_step:
        raise Rejected(Reason.TICK, instrument.price_step, price)
    if not instrument.low <= price <= instrument.high:
        limit = instrument.low if price < instrument.low else instrument.high
        raise Rejected(Reason.PRICE_LIMIT, limit, price)
    if abs(price) * c.quantity * instrument.tick_value > Limit.MONEY:
        raise Rejected(Reason.PARAMETER_RANGE)
    return instrument, price


def adjust(m: Market, c: Record) -> None:
    instrument, price = adjusted(m, c)
    if instrument.legs:
        adjust_whole(m, c, instrument, price)
    else:
        units = c.quantity * (price - c.price) * instrument.tick_scale
        move_cost(m, c, instrument, c.side, units)
        say(m, c, EventKind.TRADE_ADJUSTED, price, c.price, 0, 0)
    review(m, [c.account])
    review(m, [c.session])
