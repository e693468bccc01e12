"""Wishes about instruments: listings, auctions, combinations, protections. Pure functions."""

from collections.abc import Mapping
from datetime import date
from typing import Final

from contracts.spec import Combination
from contracts.spec import Instrument as Terms
from exchange.app.wishes import Wish, note
from exchange.clearing.margin.parameters import MarginParameters, lot_rates
from exchange.marketdata.instruments import Instrument, Protections, Risk, Window
from exchange.messages import Breaker, CombinationRule, Command, CommandKind

MICROS: Final = 1_000_000
_U32: Final = (1 << 32) - 1
_U64: Final = (1 << 64) - 1
_PERCENT: Final = 100


def listing(
    instrument: Terms,
    number: int,
    mark_micros: int,
    day: date,
    margin: MarginParameters | None = None,
    *,
    product: int = 0,
) -> list[Wish]:
    """List an instrument under its number (they have no gaps) with its first mark, limits, risk
    figures and protections."""
    low, high = instrument.limits(settlement_micros=mark_micros)
    command = Command(
        kind=CommandKind.LIST,
        instrument=number,
        price=mark_micros,
        quantity=instrument.multiplier,
        session=instrument.tick_scale,
        account=instrument.price_step,
        operator=instrument.lot_step,
        target_lo=low & _U64,
        target_hi=high & _U64,
        key_lo=product,
    )
    return [
        Wish(command, instrument.to_json()),
        risk(instrument, number, mark_micros, day, margin),
        protect(instrument.code, number, protections_of(instrument, mark_micros)),
    ]


def risk(
    instrument: Terms,
    number: int,
    price_micros: int,
    day: date,
    margin: MarginParameters | None = None,
) -> Wish:
    """Set an instrument's limits and fees, and its margin rate for a price and a day."""
    figures = Risk(
        rate_of(instrument, price_micros, day, margin),
        instrument.position_limit_on(day),
        instrument.max_order,
        instrument.maker_fee,
        instrument.taker_fee,
    )
    return set_risk(instrument.code, number, figures)


def rate_of(
    instrument: Terms, price_micros: int, day: date, margin: MarginParameters | None
) -> int:
    """Return what a lot holds for a price and a day, in micro-dollars: the contract's minimum
    margin or, if the margin parameters cover the product and require more, theirs."""
    rate = instrument.margin_rate(price_micros=price_micros, on=day)
    if margin is None or not margin.covers(instrument.code):
        return rate
    lot = lot_rates(margin, instrument.code, instrument.multiplier, price_micros, day)
    return max(rate, lot.hold)


def limits(instrument: Terms, number: int, settlement_micros: int) -> Wish:
    """Set the price limits around a settlement price."""
    return set_limits(
        instrument.code, number, *instrument.limits(settlement_micros=settlement_micros)
    )


def indicate(code: str, number: int) -> Wish:
    """Publish the price and quantity at which an instrument's auction would trade now."""
    command = Command(kind=CommandKind.INDICATE, instrument=number)
    return Wish(command, note("indicate", code=code))


def set_implied(code: str, number: int, *, on: bool) -> Wish:
    """Turn the implied prices of a combination and its legs on or off."""
    command = Command(kind=CommandKind.SET_IMPLIED, instrument=number, tif=int(on))
    return Wish(command, note("implied", code=code, on=on))


def protections_of(terms: Terms, price_micros: int) -> Protections:
    """Return the protections of an instrument's terms, with the band for a settlement price: at
    least a price step if the terms have one, since 0 is none."""
    ticks = abs(price_micros) // terms.tick_scale * terms.band_percent // _PERCENT
    least = terms.price_step if terms.band_percent else 0
    return Protections(
        band=max(ticks // terms.price_step * terms.price_step, least),
        accountability=terms.accountability_level,
        order_value=terms.order_value_limit * MICROS,
        all_months=terms.all_months_limit,
    )


def protect(code: str, number: int, held_to: Protections) -> Wish:
    """Set an instrument's protections; 0 means none."""
    command = Command(
        kind=CommandKind.SET_PROTECTIONS,
        instrument=number,
        price=held_to.band,
        quantity=held_to.accountability,
        target_lo=held_to.order_value,
        target_hi=held_to.all_months,
    )
    return Wish(command, note("protect", code=code, **held_to._asdict()))


def set_breaker(code: str, number: int, which: Breaker, window: Window) -> Wish:
    """Set one of an instrument's breakers; a variation of 0 removes it."""
    command = Command(
        kind=CommandKind.SET_BREAKER,
        instrument=number,
        tif=which,
        price=window.variation,
        quantity=int(window.product),
        target_lo=window.span_ns,
        target_hi=window.halt_ns,
    )
    return Wish(command, note("breaker", code=code, window=which.name, **window._asdict()))


def set_limits(code: str, number: int, low_ticks: int, high_ticks: int) -> Wish:
    """Set an instrument's price limits."""
    command = Command(
        kind=CommandKind.SET_LIMITS,
        instrument=number,
        target_lo=low_ticks & _U64,
        target_hi=high_ticks & _U64,
    )
    return Wish(command, note("limits", code=code))


def set_risk(code: str, number: int, figures: Risk) -> Wish:
    """Set an instrument's margin rate, limits, fees and credit."""
    command = Command(
        kind=CommandKind.SET_RISK,
        instrument=number,
        price=figures.rate,
        quantity=figures.position_limit,
        session=figures.max_order,
        target_lo=figures.maker_fee & _U64,
        target_hi=figures.taker_fee & _U64,
        key_lo=figures.credit,
    )
    return Wish(command, note("risk", code=code))


def list_combination(
    combination: Combination, number: int, legs: Mapping[str, Instrument]
) -> list[Wish]:
    """List a combination of listed legs. Margin and fees are those of the legs; it has none."""
    ratios = numbers = 0
    for place, leg in enumerate(combination.legs):
        ratios |= (leg.ratio & 15) << 4 * place
        numbers |= legs[leg.code].id << 16 * place
    within = {code: (leg.low_ticks, leg.high_ticks) for code, leg in legs.items()}
    low, high = combined_limits(combination, within)
    price = numbers >> 128
    command = Command(
        kind=CommandKind.LIST_COMBINATION,
        instrument=number,
        tif=CombinationRule.AVERAGE if combination.averaged else CombinationRule.DIFFERENCE,
        quantity=ratios & _U32,
        session=ratios >> 32,
        key_lo=numbers & _U64,
        key_hi=numbers >> 64 & _U64,
        price=price - (1 << 64) if price >> 63 else price,
        target_lo=low & _U64,
        target_hi=high & _U64,
    )
    figures = combined_risk(
        combination, {code: leg.risk.position_limit for code, leg in legs.items()}
    )
    return [
        Wish(command, combination.to_json()),
        set_risk(combination.code, number, figures),
    ]


def combined_risk(combination: Combination, limits: Mapping[str, int]) -> Risk:
    """Return a combination's limits by its terms and its legs' position limits, which are given by
    code."""
    most = min(limits[leg.code] // abs(leg.ratio) for leg in combination.legs)
    return Risk(position_limit=most, max_order=combination.max_order)


def combined_limits(
    combination: Combination, limits: Mapping[str, tuple[int, int]]
) -> tuple[int, int]:
    """Return the lowest and highest price of a combination in ticks, by its legs' ``limits``, which
    are given by code."""
    low = high = 0
    for leg in combination.legs:
        weight = leg.ratio * (leg.multiplier if combination.averaged else 1)
        ends = [weight * end for end in limits[leg.code]]
        low, high = low + min(ends), high + max(ends)
    hours = combination.net_hours if combination.averaged else 1
    step = combination.price_step
    return -(-low // (hours * step)) * step, high // (hours * step) * step
