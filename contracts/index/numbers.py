"""Integer arithmetic of the index: logarithms, medians, weights. No float anywhere.

Prices are millionths of a dollar per GPU-hour, logarithms billionths of a nat, weights billionths
of the whole. ``ln`` and ``exp`` are decimal's, which are correctly rounded: the same inputs give
the same fixing on every machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final

NANOS: Final = 1_000_000_000
_EXACT: Final = Context(prec=40, rounding=ROUND_HALF_EVEN)
_ONE: Final = Decimal(1)


@lru_cache(1 << 16)
def log_nanos(price_micros: int) -> int:
    """Natural logarithm of a price in dollars, in billionths; ValueError below one millionth."""
    if price_micros < 1:
        raise ValueError(f"no logarithm of {price_micros} micros")
    log = _EXACT.ln(Decimal(price_micros).scaleb(-6))
    return int(log.scaleb(9).quantize(_ONE, context=_EXACT))


def price_micros(log: int) -> int:
    """The price of a logarithm in billionths: rounded once, half to even."""
    return int(_EXACT.exp(Decimal(log).scaleb(-9)).scaleb(6).quantize(_ONE, context=_EXACT))


def divide(number: int, by: int) -> int:
    """``number / by``, half to even; ``by`` is positive."""
    quotient, rest = divmod(number, by)
    return quotient + (2 * rest > by or (2 * rest == by and quotient % 2))


def median(values: Iterable[int]) -> int:
    """The middle value; of two middle ones their mean, half to even. ValueError for none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no median of nothing")
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return divide(ordered[middle - 1] + ordered[middle], 2)


def weighted_median(votes: Iterable[tuple[int, int]]) -> int:
    """The value at which half of the weight is reached, of (value, weight) pairs.

    Where exactly half lies at or below a value, the mean of it and the next. ValueError for none.
    """
    ordered = sorted(vote for vote in votes if vote[1] > 0)
    if not ordered:
        raise ValueError("no median of nothing")
    half = sum(weight for _, weight in ordered)
    reached = 0
    for place, (value, weight) in enumerate(ordered):
        reached += 2 * weight
        if reached > half:
            return value
        if reached == half:
            return divide(value + ordered[place + 1][0], 2)
    raise AssertionError("weights are positive")


def spread(values: Sequence[int]) -> int:
    """Robust standard deviation: 1.4826 x the median absolute deviation. 0 for fewer than two."""
    if len(values) < 2:
        return 0
    centre = median(values)
    return divide(14_826 * median(abs(value - centre) for value in values), 10_000)


def capped_weights(
    weights: Mapping[str, int], routes: Mapping[str, str], cap_percent: int
) -> dict[str, int]:
    """Shares of the whole in billionths, rounded down, no route's above the cap.

    ``routes`` says through whom a provider's price reaches the panel: itself, or an aggregator.
    What a cap takes goes to the other routes in proportion; where there are too few routes for the
    cap, all have the same share. Rounded down and not topped up: no share depends on a name.
    """
    totals: dict[str, Fraction] = {}
    for provider, weight in weights.items():
        route = routes[provider]
        totals[route] = totals.get(route, Fraction(0)) + weight
    shares = _capped_shares(totals, Fraction(cap_percent, 100))
    return {
        provider: int(shares[routes[provider]] * weight / totals[routes[provider]] * NANOS)
        for provider, weight in weights.items()
    }


def _capped_shares(totals: Mapping[str, Fraction], cap: Fraction) -> dict[str, Fraction]:
    if len(totals) * cap <= 1:
        return {route: Fraction(1, len(totals)) for route in totals}
    capped: set[str] = set()
    while True:
        free = sum((total for route, total in totals.items() if route not in capped), Fraction(0))
        left = 1 - len(capped) * cap
        over = {
            route
            for route, total in totals.items()
            if route not in capped and total * left > cap * free
        }
        if not over:
            return {
                route: cap if route in capped else total * left / free
                for route, total in totals.items()
            }
        capped |= over
