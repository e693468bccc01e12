"""Daily settlement: the rules of the settlement price, and a settlement in progress.

The arithmetic is in integers; prices are clearing units (millionths of a dollar per GPU-hour), or
any other unit if all prices of a call have the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm
from typing import NamedTuple

from exchange.clearing.novation import Position


class DailyPrice(NamedTuple):
    """A computed settlement price, and the tier of its rule."""

    tier: int
    price: int


def clamp(price: int, bid: int | None, ask: int | None) -> int:
    """Return ``price`` moved into the quote; a side that is None does not limit it."""
    if bid is not None and price < bid:
        return bid
    if ask is not None and price > ask:
        return ask
    return price


def nearest_tick(value: int, quantity: int, tick: int, prior: int) -> int:
    """Return ``value / quantity`` rounded to the nearest multiple of ``tick``.

    An exact half is rounded to the tick nearer to the prior price, or to the lower one if both are
    as near.
    """
    whole = quantity * tick
    ticks, rest = divmod(value, whole)
    up = 2 * rest > whole or (2 * rest == whole and 2 * prior > (2 * ticks + 1) * tick)
    return (ticks + up) * tick


def daily_price(
    prior: int,
    value: int = 0,
    quantity: int = 0,
    *,
    tick: int = 1,
    last_trade: int | None = None,
    bid: int | None = None,
    ask: int | None = None,
    preceding_month_change: int = 0,
) -> DailyPrice:
    """Return the settlement price by the trades and quotes of a date, and its tier.

    Tier 1: trades in the window; their volume-weighted average (``value`` = sum of price x lots,
    ``quantity`` = lots) to the nearest tick. Tier 2: a trade of the date or a two-sided quote; the
    last trade, or else the prior price, moved into the quote. Tier 3: neither; the prior price plus
    the change of the preceding month, moved to a lone bid or ask.
    """
    if quantity:
        return DailyPrice(1, nearest_tick(value, quantity, tick, prior))
    if last_trade is not None or (bid is not None and ask is not None):
        return DailyPrice(2, clamp(prior if last_trade is None else last_trade, bid, ask))
    return DailyPrice(3, clamp(prior + preceding_month_change, bid, ask))


class SpreadPrice(NamedTuple):
    """The price that a calendar spread implies for its far month: that of the near month less the
    spread's.

    ``value`` = sum of (implied price x lots), so ``value / lots`` is the implied price.
    """

    value: int
    lots: int
    months_apart: int


def spread_blend(spreads: Sequence[SpreadPrice], *, tick: int = 1, prior: int = 0) -> int | None:
    """Return the far month's price by all spreads, each weighted by its lots divided by the months
    between its legs; None without lots. It is rounded once, as by ``nearest_tick``.
    """
    common = lcm(*(spread.months_apart for spread in spreads))
    value = sum(s.value * (common // s.months_apart) for s in spreads)
    weight = sum(s.lots * (common // s.months_apart) for s in spreads)
    return nearest_tick(value, weight, tick, prior) if weight else None


@dataclass(slots=True)
class Settlement:
    """The settlement or expiry of an instrument while its POSITION_SETTLED events arrive."""

    number: int
    instrument: int
    price: int
    cycle: int
    expiry: bool
    multiplier: int
    held: Mapping[int, Position]  # by account
    paid: dict[int, int] = field(default_factory=dict)  # account -> variation, micro-dollars

    def passed_over(self) -> list[int]:
        """Return the accounts with a position to be settled for which no event came."""
        return [
            account
            for account, position in self.held.items()
            if account not in self.paid and (position.net or position.cost)
        ]
