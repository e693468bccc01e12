"""Daily settlement: the price proposed for a day, and the check of the variation margin paid.

Integer arithmetic throughout; prices are clearing units (millionths of a dollar per GPU-hour)
or any other unit, as long as one call uses one unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from exchange.clearing.novation import Position


class DailyPrice(NamedTuple):
    """A proposed settlement price, and the tier of the rule that gave it."""

    tier: int
    price: int


def clamp(price: int, bid: int | None, ask: int | None) -> int:
    """``price`` moved into the quote; a side that is None does not bind."""
    if bid is not None and price < bid:
        return bid
    if ask is not None and price > ask:
        return ask
    return price


def nearest_tick(value: int, quantity: int, tick: int, prior: int) -> int:
    """``value / quantity`` to the nearest multiple of ``tick``.

    An exact half goes to the tick nearer the prior price, to the lower one if both are as near.
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
    """The settlement price a day's market supports.

    Tier 1: trades in the window; their volume-weighted average (``value`` = sum of price x lots,
    ``quantity`` = lots) to the nearest tick. Tier 2: a trade today or a two-sided quote; the last
    trade, or else the prior price, moved into the quote. Tier 3: neither; the prior price plus
    the change of the preceding month, moved to a lone bid or ask.
    """
    if quantity:
        return DailyPrice(1, nearest_tick(value, quantity, tick, prior))
    if last_trade is not None or (bid is not None and ask is not None):
        return DailyPrice(2, clamp(prior if last_trade is None else last_trade, bid, ask))
    return DailyPrice(3, clamp(prior + preceding_month_change, bid, ask))


@dataclass(slots=True)
class Settlement:
    """A settlement (or expiry) of one instrument while its POSITION_SETTLED events arrive."""

    number: int
    instrument: int
    price: int
    cycle: int
    expiry: bool
    paid: dict[int, int] = field(default_factory=dict)  # account -> variation, micro-dollars

    def passed_over(self, held: Mapping[int, Position]) -> list[int]:
        """Accounts whose position should have been settled, but no event came for it."""
        return [
            account
            for account, position in held.items()
            if account not in self.paid and (position.net or position.cost)
        ]
