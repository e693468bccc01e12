"""The settlement prices of a date: each month's price, the tier of its rule, and its inputs.

The months of a product are priced in time order, since one may depend on the month before:

    tier 1   trades in the window before the close: their average
    tier 4   no such trade, but trades in calendar spreads with the month as far leg and a near leg
             priced already: the blend of the prices that they imply, moved into the month's quote
    tier 2   a trade of the date or a two-sided quote: the last trade, or else the prior price,
             moved into the quote
    tier 3   neither: the prior price plus the change of the preceding month
    tier 5   past its last trading day: the price does not change
    tier 0   a price approved by two persons replaces the computed one

No computed price is below one price step, so that the limits around it have room for an order.
Prices are in clearing units; the arithmetic is in integers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from contracts import symbol
from exchange.clearing.settlement import SpreadPrice, clamp, daily_price, spread_blend

WINDOW_NS: Final = 300 * 1_000_000_000  # before the close; five minutes, since trading is thin
OVERRIDDEN: Final = 0
BLENDED: Final = 4
ENDED: Final = 5
TIERS: Final = {
    OVERRIDDEN: "approved by two",
    1: "window average",
    2: "last or prior, in the quote",
    3: "preceding month",
    BLENDED: "spreads",
    ENDED: "trades no more",
}


class Traded(NamedTuple):
    """Trades of one instrument in the window: ``value`` = sum of price ticks x lots."""

    trades: int = 0
    lots: int = 0
    value: int = 0


NONE_TRADED: Final = Traded()


@dataclass(frozen=True, slots=True)
class Month:
    """The inputs of one instrument's price at the close. ``bid`` and ``ask`` are in ticks."""

    instrument: int
    code: str
    prior: int
    tick: int  # smallest step of a price, clearing units
    scale: int  # clearing units per price tick
    window: Traded = NONE_TRADED
    last: int | None = None  # the day's last trade, in ticks
    bid: int | None = None
    ask: int | None = None
    settled: int | None = None  # the price at which the date's settlement has settled it
    ended: bool = False  # its last trading day is over


@dataclass(frozen=True, slots=True)
class Priced:
    """A settlement price, its tier and its inputs; prices are in clearing units."""

    instrument: int
    code: str
    tier: int
    price: int
    prior: int
    window_trades: int
    window_lots: int
    last: int | None
    bid: int | None
    ask: int | None
    preceding_change: int
    spreads: list[str] = field(default_factory=list)  # codes of the spreads that counted
    proposed: int | None = None  # the computed price, if an approved one replaced it

    @property
    def rule(self) -> str:
        """The description of the tier."""
        return TIERS[self.tier]


def settle_day(
    months: Sequence[Month],
    spreads: Mapping[str, Traded] | None = None,
    approved: Mapping[int, int] | None = None,
) -> list[Priced]:
    """Return a price for every month, by product in time order.

    ``spreads`` has the date's trades by code, in ticks of their months; ``approved`` the prices
    approved by two persons, by instrument. A month that is settled already keeps its price, unless
    another was approved, so that later months are priced as they would have been then.
    """
    found: list[Priced] = []
    for group in _by_product(months):
        settled: dict[str, int] = {}
        change = 0
        for month in group:
            priced = _price(month, _implied(month, settled, spreads or {}), change)
            if approved and month.instrument in approved:
                priced = _override(priced, approved[month.instrument])
            elif month.settled is not None:
                priced = replace(priced, price=month.settled)
            found.append(priced)
            settled[month.code] = priced.price
            change = priced.price - month.prior
    return found


def is_spread(code: str) -> bool:
    """Return whether a code is that of a calendar spread."""
    return isinstance(_parsed(code), symbol.Spread)


def is_combination(code: str) -> bool:
    """Return whether a code is that of a combination, which is not settled itself."""
    found = _parsed(code)
    return found is not None and not isinstance(found, symbol.Outright)


def _parsed(code: str) -> symbol.Code | None:
    try:
        return symbol.parse(code)
    except symbol.CodeError:
        return None


def _by_product(months: Sequence[Month]) -> Iterator[list[Month]]:
    """Yield the months of each product in time order; an instrument with another code alone."""
    groups: dict[str, list[tuple[symbol.Outright, Month]]] = {}
    alone = []
    for month in months:
        try:
            code = symbol.parse_outright(month.code)
        except symbol.CodeError:
            alone.append([month])
            continue
        groups.setdefault(code.root, []).append((code, month))
    for _, group in sorted(groups.items()):
        yield [month for _, month in sorted(group, key=lambda pair: pair[0].expiry)]
    yield from sorted(alone, key=lambda group: group[0].instrument)


def _implied(
    month: Month, settled: Mapping[str, int], spreads: Mapping[str, Traded]
) -> dict[str, SpreadPrice]:
    """Return the prices that traded spreads imply for the month as their far leg, by code."""
    found = {}
    for code, traded in sorted(spreads.items()):
        near, _, far = code.partition("-")
        if far == month.code and near in settled and traded.lots:
            legs = symbol.parse(code).legs
            apart = _months(legs[1]) - _months(legs[0])
            value = settled[near] * traded.lots - traded.value * month.scale
            found[code] = SpreadPrice(value, traded.lots, apart)
    return found


def _months(leg: symbol.Outright) -> int:
    return leg.expiry.year * 12 + leg.expiry.month


def _price(month: Month, implied: Mapping[str, SpreadPrice], change: int) -> Priced:
    scale = month.scale
    last, bid, ask = (None if t is None else t * scale for t in (month.last, month.bid, month.ask))
    blend = spread_blend(list(implied.values()), tick=month.tick, prior=month.prior)
    if month.ended:
        tier, price, implied = ENDED, month.prior, {}
    elif blend is not None and not month.window.lots:
        tier, price = BLENDED, clamp(blend, bid, ask)
    else:
        implied = {}
        tier, price = daily_price(
            month.prior, month.window.value * scale, month.window.lots, tick=month.tick,
            last_trade=last, bid=bid, ask=ask, preceding_month_change=change,
        )  # fmt: skip
    return Priced(
        month.instrument, month.code, tier, max(price, month.tick), month.prior,
        month.window.trades, month.window.lots, last, bid, ask, change, list(implied),
    )  # fmt: skip


def _override(priced: Priced, price: int) -> Priced:
    return Priced(
        priced.instrument, priced.code, OVERRIDDEN, price, priced.prior, priced.window_trades,
        priced.window_lots, priced.last, priced.bid, priced.ask, priced.preceding_change,
        priced.spreads, priced.price,
    )  # fmt: skip
