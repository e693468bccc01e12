"""The oracle's combinations: several instruments traded together at one price, all legs or none.

A combination holds no position. Its orders work in each of its legs (`effects`), its trades are
trades of its legs at prices anchored on their last settlement (`leg_prices`), and what these leave
of the price agreed moves in cash in the same command.
"""

from collections.abc import Iterator

from oracle_state import Instrument, LegTerms, Market, Order, Record, Rejected

from exchange.messages import (
    CombinationRule,
    EventFlag,
    EventKind,
    Limit,
    Reason,
    Side,
    TradingState,
)

Legs = tuple[tuple[int, int], ...]  # instrument, ratio
Effect = tuple[int, int, int]  # instrument, side, lots
NIBBLE_BITS, WORD_BITS = 4, 16


def decode(c: Record) -> Legs:
    """The legs that LIST_COMBINATION packs: a ratio of 0 ends them."""
    ratios = c.quantity | c.session << 32
    numbers = c.key_lo | c.key_hi << 64 | (c.price & (1 << 64) - 1) << 128
    found = []
    for place in range(Limit.LEGS):
        ratio = ratios >> NIBBLE_BITS * place & 15
        if not ratio:
            break
        number = numbers >> WORD_BITS * place & 0xFFFF
        found.append((number, ratio - 16 if ratio > 7 else ratio))
    return tuple(found)


def legs_of(m: Market, combination: Instrument) -> list[tuple[Instrument, int]]:
    return [(m.instruments[number], ratio) for number, ratio in combination.legs]


def weight(rule: int, legs: list[tuple[Instrument, int]]) -> int:
    """GPU-hours that a tick of the price counts for."""
    if rule == CombinationRule.AVERAGE:
        return sum(ratio * leg.multiplier for leg, ratio in legs)
    return legs[-1][0].multiplier


def value_at_marks(m: Market, combination: Instrument) -> int:
    """Micro-dollars of a lot at which nobody gains by trading it: its mark."""
    legs = legs_of(m, combination)
    value = sum(ratio * leg.multiplier * leg.mark for leg, ratio in legs)
    if combination.rule == CombinationRule.DIFFERENCE:
        last = legs[-1][0].multiplier
        value -= sum(r * leg.anchor * (leg.multiplier - last) for leg, r in legs[:-1])
    return value


def mark_of(m: Market, instrument: Instrument) -> int:
    if instrument.state == TradingState.EXPIRED and instrument.legs:
        return 0
    return value_at_marks(m, instrument) if instrument.legs else instrument.mark


def terms_of(m: Market, leg: Instrument) -> LegTerms:
    """What a leg trades by now."""
    return LegTerms(
        m.sequence, leg.number, leg.anchor, leg.low, leg.high, leg.maker_fee, leg.taker_fee
    )


def note_change(m: Market, leg: Instrument) -> None:
    """What a leg traded by is about to change: trades of its combinations may yet be taken back.
    Where too many changes would have to be remembered all are forgotten."""
    if not m.day_open or not made_of(m, leg.number):
        return
    if len(m.leg_changes) >= Limit.LEG_CHANGES:
        m.leg_changes, m.legs_known = [], m.sequence
    m.leg_changes.append(terms_of(m, leg))


def leg_prices(
    m: Market, combination: Instrument, price: int, terms: list[LegTerms]
) -> tuple[list[int], int]:
    """Clearing prices of the legs of a lot traded at ``price`` ticks, within their limits, and the
    micro-dollars that its buyer owes besides."""
    legs = legs_of(m, combination)
    scale = legs[0][0].tick_scale
    total = price * combination.tick_value
    anchors = [one.anchor for one in terms]
    if combination.rule == CombinationRule.AVERAGE:
        hours = weight(combination.rule, legs)
        anchored = sum(r * leg.multiplier * a for (leg, r), a in zip(legs, anchors, strict=True))
        wanted = [anchor + (total - anchored) // hours for anchor in anchors]
    else:
        last, ratio = legs[-1]
        rest = price * scale - sum(r * a for (_, r), a in zip(legs[:-1], anchors, strict=False))
        wanted = [*anchors[:-1], rest // ratio]
        total = sum(r * leg.multiplier * a for (leg, r), a in zip(legs[:-1], anchors, strict=False))
        total += last.multiplier * rest
    prices = [
        min(max(at, one.low * scale), one.high * scale)
        for one, at in zip(terms, wanted, strict=True)
    ]
    paid = sum(r * leg.multiplier * p for (leg, r), p in zip(legs, prices, strict=True))
    return prices, total - paid


def effects(instrument: Instrument, side: int, lots: int) -> Iterator[Effect]:
    """What lots of an order work in: its own instrument, then its legs."""
    yield instrument.number, side, lots
    for number, ratio in instrument.legs:
        yield number, side if ratio > 0 else 1 - side, lots * abs(ratio)


def made_of(m: Market, number: int) -> list[Instrument]:
    """The living combinations in which an instrument is a leg."""
    return [
        one for one in m.instruments
        if one.state != TradingState.EXPIRED and number in (leg for leg, _ in one.legs)
    ]  # fmt: skip


def is_continuous(instrument: Instrument) -> bool:
    """Matching goes on: no auction waits for the market to be more than cancel-only."""
    return instrument.state == TradingState.CONTINUOUS and not instrument.collected


def open_legs(m: Market, instrument: Instrument) -> bool:
    return all(is_continuous(leg) for leg, _ in legs_of(m, instrument))


def judge_legs_open(m: Market, instrument: Instrument) -> None:
    """Raises NOT_TRADING with the state of the first leg that is not trading."""
    for leg, _ in legs_of(m, instrument):
        if leg.state != TradingState.CONTINUOUS:
            raise Rejected(Reason.NOT_TRADING, TradingState.CONTINUOUS, leg.state)


def leg_trade(
    m: Market, taker: Order, maker: Order, leg: Instrument, side: int, lots: int, price: int,
    parent: int, place: int, taker_rests: bool = False,
) -> None:  # fmt: skip
    """One leg between two accounts at a clearing price; ``side`` is the first one's."""
    second_fee = (max(0, leg.maker_fee) if taker_rests else leg.maker_fee) * lots
    first_fee = second_fee if taker_rests else leg.taker_fee * lots
    for order, sign, fee in ((taker, 1, first_fee), (maker, -1, second_fee)):
        change = lots * sign * (1 if side == Side.BUY else -1)
        account = m.accounts[order.account]
        position = account.positions[leg.number]
        position.net += change
        position.cost += change * price * leg.multiplier
        account.pay(-fee)
        m.accounts[0].pay(fee)
    m.emit(
        EventKind.LEG_TRADE,
        flags=EventFlag.SELL if side == Side.SELL else 0,
        reason=place,
        instrument=leg.number,
        account=taker.account,
        order_id=taker.order_id,
        price=price,
        quantity=lots,
        leaves=parent,
        key=(maker.order_id, maker.account),
        a=-first_fee,
        b=-second_fee,
    )


def trade_legs(m: Market, taker: Order, maker: Order, lots: int, parent: int) -> None:
    """The legs of a trade of a combination, then what they leave of its price."""
    combination = m.instruments[taker.instrument]
    legs = legs_of(m, combination)
    terms = [terms_of(m, leg) for leg, _ in legs]
    prices, residual = leg_prices(m, combination, maker.price, terms)
    for place, ((leg, ratio), price) in enumerate(zip(legs, prices, strict=True), 1):
        side = taker.side if ratio > 0 else 1 - taker.side
        of = place | len(legs) << 8
        leg_trade(m, taker, maker, leg, side, lots * abs(ratio), price, parent, of)
    if residual:
        owed = residual * lots * (1 if taker.side == Side.BUY else -1)
        m.accounts[taker.account].pay(-owed)
        m.accounts[maker.account].pay(owed)
        m.emit(
            EventKind.RESIDUAL_POSTED,
            flags=EventFlag.SELL if taker.side == Side.SELL else 0,
            instrument=combination.number,
            account=taker.account,
            order_id=taker.order_id,
            price=maker.price,
            quantity=lots,
            leaves=parent,
            key=(maker.order_id, maker.account),
            a=-owed,
            b=owed,
        )


def sound(m: Market, c: Record, legs: Legs) -> bool:
    """Whether legs can be one combination: outrights that live, each once, on one grid."""
    numbers = [number for number, _ in legs]
    if c.tif > CombinationRule.AVERAGE or len(legs) < 2 or len(set(numbers)) < len(legs):
        return False
    if max(numbers) >= len(m.instruments) or any(ratio == -8 for _, ratio in legs):
        return False
    found = [m.instruments[number] for number in numbers]
    if any(leg.legs or leg.state == TradingState.EXPIRED for leg in found):
        return False
    if len({(leg.tick_scale, leg.price_step, leg.lot_step) for leg in found}) > 1:
        return False
    return c.tif == CombinationRule.DIFFERENCE or all(ratio > 0 for _, ratio in legs)
