"""Integer arithmetic of the index: logarithms, medians, weights. No floats are used.

Prices are millionths of a dollar per GPU-hour, logarithms billionths of a nat, weights billionths
of the whole. ``ln`` and ``exp`` are those of ``decimal``, which are correctly rounded, so that the
same inputs give the same fixing on every machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Final

from msgspec import Meta

NANOS: Final = 1_000_000_000
# Beyond the logarithm of any price that is read, and of the ratio of any two of them: what a tape
# may state, so that ``price_micros`` has a result.
LOG_MAX: Final = 40 * NANOS
Log = Annotated[int, Meta(ge=-LOG_MAX, le=LOG_MAX)]  # billionths of a nat
Weight = Annotated[int, Meta(ge=1, le=NANOS)]  # billionths of the whole
_EXACT: Final = Context(prec=40, rounding=ROUND_HALF_EVEN)
_ONE: Final = Decimal(1)


@lru_cache(1 << 16)
def log_nanos(price_micros: int) -> int:
    """Return the natural logarithm of a price in dollars, in billionths; the price is in millionths
    of a dollar. ValueError if it is below 1."""
    if price_micros < 1:
        raise ValueError(f"no logarithm of {price_micros} micros")
    log = _EXACT.ln(Decimal(price_micros).scaleb(-6))
    return int(log.scaleb(9).quantize(_ONE, context=_EXACT))


def price_micros(log: int) -> int:
    """Return the price (millionths) of a logarithm in billionths, rounded once, half to even."""
    return int(_EXACT.exp(Decimal(log).scaleb(-9)).scaleb(6).quantize(_ONE, context=_EXACT))


def divide(number: int, by: int) -> int:
    """Return ``number / by``, rounded half to even; ``by`` must be positive."""
    quotient, rest = divmod(number, by)
    return quotient + (2 * rest > by or (2 * rest == by and quotient % 2))


def median(values: Iterable[int]) -> int:
    """Return the middle value, or the mean (half to even) of two; ValueError without values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no median of nothing")
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return divide(ordered[middle - 1] + ordered[middle], 2)


def weighted_median(votes: Iterable[tuple[int, int]]) -> int:
    """Return the value at which half of the weight is reached, of (value, weight) pairs.

    If exactly half lies at or below a value, the result is the mean (half to even) of it and the
    next. Pairs without positive weight are ignored; ValueError if none is left.
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
    """Return 1.4826 x the median absolute deviation; 0 for fewer than two values."""
    if len(values) < 2:
        return 0
    centre = median(values)
    return divide(14_826 * median(abs(value - centre) for value in values), 10_000)


def capped_weights(
    weights: Mapping[str, int], routes: Mapping[str, str], cap_percent: int
) -> dict[str, int]:
    """Return each provider's share of the whole in billionths, with no route above the cap.

    ``routes`` maps each provider to where its price comes from: itself, or an aggregator. Weight
    above the cap goes to the other routes in proportion; with too few routes for the cap, all get
    the same share. Shares are rounded down and not adjusted to a sum of one, since the choice of
    whom to adjust would depend on names.
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
