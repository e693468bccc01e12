"""Steps of the generator apart: combinations, protections, corrections, transfers."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from packing import MASK, pack

from exchange.messages import (
    INDEX_BITS,
    CommandKind,
    EventFlag,
    Feature,
    OrderFeature,
    TimeInForce,
    TradingState,
)

if TYPE_CHECKING:
    from generator import Generator

SECOND_NS: Final = 1_000_000_000
COMBINATIONS_MAX: Final = 4


def combine(g: "Generator") -> bytes:
    """List a combination of what trades and open it."""
    if len(g.trading) - len(g.outrights) >= COMBINATIONS_MAX:
        return g._state()
    return combination(g, g.outrights)


def imply(g: "Generator") -> bytes:
    """Switch implied prices: mostly on, mostly of a combination."""
    whole = [number for number in g.trading if number not in g.outrights]
    number = g.random.choice(whole) if whole else g._instrument()
    on = g.random.choices((1, 0, 2), (80, 15, 5))[0]
    return pack(CommandKind.SET_IMPLIED, instrument=number, tif=on)


def credit(g: "Generator") -> bytes:
    """Another credit, mostly of a spread; now and then more than a leg's rate."""
    whole = [number for number in g.trading if number not in g.outrights]
    number = g.random.choice(whole) if whole else g._instrument()
    return pack(
        CommandKind.SET_RISK,
        instrument=number,
        price=g.random.choice((0, 0, 10)),
        quantity=g.random.choice((60, 200, 1 << 20)),
        session=g.random.choice((15, 30)),
        key_lo=g.random.choice((0, 5, 7, 10, 10, 60, 100, 1000, 1001)),
    )


def combination(g: "Generator", outrights: list[int]) -> bytes:
    draw, number = g.random, g.listed
    ratios = draw.choice(((1, -1), (1, -1), (1, 1), (1, -2, 1), (1, 1, 1), (2, -1), (-1, 3)))
    rule = all(ratio > 0 for ratio in ratios) and draw.random() < 0.9
    legs = draw.sample(outrights, min(len(outrights), len(ratios)))
    if ratios == (1, -1) and draw.random() < 0.8:  # months of one product: it may have a credit
        months = [one for one in outrights if g.products.get(one) == g.products.get(legs[0])]
        legs = draw.sample(months, 2) if len(months) > 1 else legs
    if draw.random() < 0.03:
        legs = [draw.randrange(g.listed + 1) for _ in ratios]
    centre = g.centre * (1 if rule else sum(ratios[: len(legs)]))
    half = g.spread * 3 * g.step
    numbers = sum(leg << 16 * place for place, leg in enumerate(legs))
    words = [(ratio & 15) << 4 * place for place, ratio in enumerate(ratios[: len(legs)])]
    listing = pack(
        CommandKind.LIST_COMBINATION,
        instrument=number,
        tif=rule,
        quantity=sum(words),
        key_lo=numbers,
        target_lo=centre - half,
        target_hi=centre + half,
    )
    risk = partial(
        pack,
        CommandKind.SET_RISK,
        instrument=number,
        price=draw.choice((0, 10, 100)),
        quantity=draw.choice((20, 60, 200, 1 << 20)),
        session=draw.choice((15, 30)),
    )
    spared = risk(key_lo=draw.choice((0, 7, 10, 100))) if ratios == (1, -1) else b""
    return listing + risk() + spared + pack(
        CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS
    ) + pack(CommandKind.SET_IMPLIED, instrument=number, tif=1)  # fmt: skip


def protect(g: "Generator") -> bytes:
    """Bands and breakers so tight that they bite, mostly; now and then none."""
    draw, step = g.random, g.step
    number = g._instrument()
    if number in g.products and draw.random() < 0.2:  # one limit over all months of a product
        months = [one for one, of in g.products.items() if of == g.products[number]]
        limit = draw.choice((30, 100, 300))
        return b"".join(
            pack(CommandKind.SET_PROTECTIONS, instrument=one, target_hi=limit) for one in months
        )
    if draw.random() < 0.5:
        return pack(
            CommandKind.SET_PROTECTIONS,
            instrument=number,
            price=draw.choice((0, 0, 1, g.spread, 2 * g.spread)) * step,
            quantity=draw.choice((0, 5, 15, 60)),
            target_lo=draw.choice((0, 0, g.wealth // 40, g.wealth // 10)),
            target_hi=draw.choice((0, 0, 30, 100)),
        )
    return pack(
        CommandKind.SET_BREAKER,
        instrument=number,
        tif=draw.randrange(2),
        price=draw.choice((0, 0, 1, g.spread, 3 * g.spread)) * step,
        quantity=draw.random() < 0.3,
        target_lo=draw.choice((16, 1_000, SECOND_NS, 100 * SECOND_NS)),
        target_hi=draw.choice((0, 1, 1, 5_000_000, 5_000_000, SECOND_NS, 90 * SECOND_NS)),
    )


def feature(g: "Generator") -> bytes:
    feature = g.random.choice((*Feature, 31))
    on = g.random.random() < 0.7
    return pack(CommandKind.SET_FEATURE, tif=feature, quantity=on)


def correct(g: "Generator") -> bytes:
    """Bust or adjust a trade, mostly a recent one; now and then one that never was."""
    if not g.trades:
        return g._clock()
    draw = g.random
    row = g.trades[-1 - min(draw.randrange(40) // draw.randint(1, 20), len(g.trades) - 1)]
    kind = draw.choice((CommandKind.BUST, CommandKind.ADJUST))
    bust = kind == CommandKind.BUST
    return pack(
        kind,
        side=1 if row[3] & EventFlag.SELL else 0,
        spare=draw.random() < 0.02,
        instrument=row[5],
        account=row[6],
        session=g._account() if draw.random() < 0.02 else row[12] & MASK["I"],
        price=row[8] if draw.random() < 0.97 else g._price(row[5]),
        quantity=row[9],
        target_lo=row[0] << INDEX_BITS | row[1],
        target_hi=row[13] if bust else g._price(row[5]),
        key_lo=row[14] & MASK["Q"] if bust else 0,
    )


def correct_legs(g: "Generator") -> bytes:
    """The legs of a trade with an implied price, in order; now and then one is missing or wrong."""
    if not g.chains:
        return correct(g)
    draw = g.random
    first, *legs = g.chains[-1 - min(draw.randrange(30), len(g.chains) - 1)]
    kind = draw.choice((CommandKind.BUST, CommandKind.ADJUST))
    out = []
    for row in legs:
        new = g._price(row[5]) if draw.random() < 0.7 else row[8] // g.tick_scale
        out.append(
            pack(
                kind if draw.random() < 0.97 else CommandKind.BUST,
                side=1 if row[3] & EventFlag.SELL else 0,
                spare=row[4] & 0xFF,
                instrument=row[5],
                account=row[6],
                session=row[12] & MASK["I"],
                price=row[8] // g.tick_scale,
                quantity=row[9] if draw.random() < 0.97 else g._lots(),
                target_lo=first[0] << INDEX_BITS | first[1],
                target_hi=row[13] if kind == CommandKind.BUST else new,
                key_lo=row[14] & MASK["Q"] if kind == CommandKind.BUST else 0,
                key_hi=first[14] if draw.random() < 0.97 else draw.randrange(g.listed + 2),
            )
        )
    if draw.random() < 0.1:
        out.pop(draw.randrange(len(out)))
    return b"".join(out)


def transfer(g: "Generator") -> bytes:
    """Lots off the book, at about the price of a trade; now and then to oneself."""
    draw, number = g.random, g._instrument()
    return pack(
        CommandKind.TRANSFER,
        tif=draw.choice((1, 1, 2, 2, 3, 4, 4, draw.randrange(6))),
        side=draw.randrange(2),
        instrument=number,
        account=g._account() or g._account(),
        target_lo=g._account() or g._account() or draw.randrange(12),
        price=g._price(number) * g.tick_scale + draw.randrange(2),
        quantity=g._lots(),
        key_lo=g._request(),
    )


def twin(g: "Generator") -> bytes:
    """Group an order with a working one of its book, mostly of its side, then ask for lots at once:
    mostly more than one of the two has."""
    draw = g.random
    known = [one for one in g.working if g.traded_in[one] in g.outrights]
    if not known:
        return g._enter()
    other = draw.choice(known)
    side, price = g.asked[other]
    keys = g._key(), g._key()
    order = partial(pack, CommandKind.ENTER, instrument=g.traded_in[other], stp=draw.randrange(4))
    bound = order(
        side=side if draw.random() < 0.8 else 1 - side,
        account=g.working[other][0],
        price=price + draw.choice((-1, 0, 0, 1)) * g.step,
        quantity=g._lots(),
        spare=OrderFeature.GROUPED,
        target_hi=other,
        key_lo=keys[0],
    )
    fok = draw.random() < 0.6
    taker = order(
        side=1 - side,
        account=g._account(),
        price=price + draw.choice((-1, 0, 1, 2)) * g.step * (1 if side else -1),
        quantity=g._lots() + g._lots(),
        tif=TimeInForce.FOK if fok else draw.choice((TimeInForce.GTC, TimeInForce.IOC)),
        target_hi=0 if fok else g._lots(),
        key_lo=keys[1],
    )
    return g._sent(bound) + g._sent(taker)


def fall(g: "Generator") -> bytes:
    """Limits leave an order behind that is good for an auction, then the auction ends."""
    draw, number, unit = g.random, g._instrument(), g.spread * g.step
    centre = g.centres.get(number, g.centre)
    key, side = g._key(), draw.randrange(2)
    order = pack(
        CommandKind.ENTER,
        side=side,
        tif=TimeInForce.GFA,
        instrument=number,
        account=g._account(),
        price=centre + (-2 if side else 2) * unit,
        quantity=g._lots(),
        key_lo=key,
    )
    limits = partial(pack, CommandKind.SET_LIMITS, instrument=number)
    call, end = (
        pack(CommandKind.SET_STATE, instrument=number, tif=state)
        for state in (TradingState.AUCTION, TradingState.CONTINUOUS)
    )
    narrow = limits(target_lo=centre - unit, target_hi=centre + unit)
    wide = limits(target_lo=centre - 3 * unit, target_hi=centre + 3 * unit)
    return call + g._sent(order) + narrow + (end if draw.random() < 0.8 else b"") + wide


ACTS: Final[Mapping[str, Callable[["Generator"], bytes]]] = {
    "combine": combine,
    "credit": credit,
    "imply": imply,
    "protect": protect,
    "feature": feature,
    "correct": correct,
    "correct_legs": correct_legs,
    "transfer": transfer,
    "twin": twin,
    "fall": fall,
}
