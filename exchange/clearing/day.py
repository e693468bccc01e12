"""A business date's prices, of what the stream and the store hold: at its close, and at noon."""

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
    """The price of every expiry that is listed, with its tier and inputs.

    ``quotes``: best bid and ask in price ticks when the date closed. Of an open date the window
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
    """The prices of the intraday cycle that is due, of what the log held when it fell due: asked
    at any later time they are the same. Only of what somebody holds and the cycle has left."""
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
    """What traded in the window that ends at ``upto`` (0: with the last trade), and each last
    price: ``last``, unless a trade was corrected. One taken back counts nowhere, one adjusted at
    its new price. ``before``: only trades of lower numbers count, whatever their stamp; 0: all."""
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
    """``ended``: instruments that trade no more; ``final``: what the date's own settlement has
    settled."""
    for number, price in sorted(prior.items()):
        listed = state.instruments[number]
        bid, ask = quotes.get(number, _NO_QUOTE)
        yield Month(
            number, listed.code, price, listed.price_step * listed.tick_scale, listed.tick_scale,
            window.get(number, NONE_TRADED), last.get(number), bid, ask,
            listed.settlement_price if number in final else None, number in ended,
        )  # fmt: skip
