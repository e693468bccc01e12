"""Settlement prices of a business date and of an intraday cycle, from the state and the store."""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from exchange.clearing.cycles import Cycles, last_prices, spreads_traded
from exchange.clearing.prices import (
    NONE_TRADED,
    WINDOW_NS,
    Month,
    Priced,
    Traded,
    settle_day,
)
from exchange.clearing.pricing import Corrected, Prices
from exchange.clearing.state import State

if TYPE_CHECKING:
    from exchange.clearing.store import Store

Quotes = Mapping[int, tuple[int | None, int | None]]
_NO_QUOTE: Final = (None, None)


def closing(state: State, store: "Store", quotes: Quotes) -> list[Priced]:
    """Return the settlement price of every listed expiry, with its tier and inputs.

    ``quotes`` has best bid and ask in price ticks at the close. While the date is open the window
    ends with the last trade.
    """
    prices = state.matters.get(Prices)
    window, last = _traded(
        store, state.business_date, prices.closed, prices.corrected, last_prices(state)
    )
    final = frozenset(prices.final)
    ended = prices.ended(state.business_date)
    months = list(_months(state, prices.prior(state), window, last, quotes, ended, final))
    return settle_day(months, spreads_traded(state), prices.approved)


def intraday(state: State, store: "Store") -> list[Priced]:
    """Return the prices of the intraday cycle that is due, for the instruments it has left.

    They rest on the log as of the time when the cycle fell due, and are the same whenever asked.
    """
    cycle = state.matters.get(Cycles).due
    if cycle is None:
        return []
    prices = state.matters.get(Prices)
    corrected = {match: one for match, one in prices.corrected.items() if one.number < cycle.number}
    window, last = _traded(
        store, cycle.business_date, cycle.stamp, corrected, cycle.last, cycle.number
    )
    ended = prices.ended(cycle.business_date)
    months = list(_months(state, cycle.prior, window, last, {}, ended))
    return [p for p in settle_day(months, cycle.spreads) if p.instrument in cycle.left]


def _traded(
    store: "Store",
    date: int,
    upto: int,
    corrected: Mapping[int, Corrected],
    last: Mapping[int, int],
    before: int = 0,
) -> tuple[dict[int, Traded], Mapping[int, int]]:
    """Return the trades in the window that ends at the stamp ``upto`` (0: at the last trade), and
    the last prices.

    The last prices are ``last`` unless a trade was corrected: a busted one is ignored, an adjusted
    one counts at its new price. Only trades with match numbers below ``before`` count; 0: all.
    """
    window: dict[int, Traded] = {}
    found: dict[int, int] = {}
    for match, stamp, instrument, price, lots in store.trades(date, upto):
        if before and match >= before:
            continue
        upto = upto or stamp
        inside = stamp >= upto - WINDOW_NS
        if not inside and not corrected:
            break
        changed = corrected.get(match)
        if changed is not None:
            if changed.price is None:
                continue
            price = changed.price
        found.setdefault(instrument, price)
        if inside:
            trades, total, value = window.get(instrument, NONE_TRADED)
            window[instrument] = Traded(trades + 1, total + lots, value + price * lots)
    return window, found if corrected else last


def _months(
    state: State,
    prior: Mapping[int, int],
    window: Mapping[int, Traded],
    last: Mapping[int, int],
    quotes: Quotes,
    ended: Collection[int],
    final: Collection[int] = (),
) -> Iterator[Month]:
    """Yield the inputs of every expiry's price. ``ended`` are instruments past their last trading
    day, ``final`` those that were settled since the close."""
    for number, price in sorted(prior.items()):
        listed = state.instruments[number]
        bid, ask = quotes.get(number, _NO_QUOTE)
        yield Month(
            number, listed.code, price, listed.price_step * listed.tick_scale, listed.tick_scale,
            window.get(number, NONE_TRADED), last.get(number), bid, ask,
            listed.settlement_price if number in final else None, number in ended,
        )  # fmt: skip
