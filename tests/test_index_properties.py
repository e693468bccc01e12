"""What holds for every panel: names and order play no part, scale passes through, nobody rules.

Budget: 20 seconds.
"""

import math
from fractions import Fraction
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from index_panel import BASE_DAYS, CODE, SELLERS, day, fixed, observed, with_provider

from contracts.index import methodology as rules
from contracts.index.fixing import Fixing, State
from contracts.index.numbers import (
    NANOS,
    capped_weights,
    divide,
    log_nanos,
    median,
    price_micros,
    spread,
    weighted_median,
)
from contracts.index.observations import Observation

NOW = BASE_DAYS
EXAMPLES = settings(max_examples=60, deadline=None)


class Panel(NamedTuple):
    """Levels of the base days, and each seller's quotes (thousandths) on the day."""

    levels: list[int]
    quotes: list[list[int]]

    def observations(self, names: tuple[str, ...] = SELLERS, scale: int = 1) -> list[Observation]:
        base = [
            observed(day(number), name, level * scale / 1_000)
            for number in range(NOW)
            for name, level in zip(names, self.levels, strict=False)
        ]
        return base + [
            observed(day(NOW), name, price * scale / 1_000, place=str(place))
            for name, prices in zip(names, self.quotes, strict=False)
            for place, price in enumerate(prices)
        ]


@st.composite
def panels(draw: st.DrawFn) -> Panel:
    """Sellers around one level, of whom some reprice a little, some wildly, some vanish."""
    sellers = draw(st.integers(7, len(SELLERS)))
    levels = [draw(st.integers(2_400, 3_600)) for _ in range(sellers)]
    quotes = []
    for level in levels:
        factor = draw(st.sampled_from([100, 100, 100, 101, 98, 90, 125, 70, 130, 20, 900]))
        listed = draw(st.sampled_from([1, 1, 1, 2, 3, 0]))
        quotes.append([max(1, level * factor // 100 + step) for step in range(listed)])
    return Panel(levels, quotes)


def of(observations: list[Observation]) -> Fixing:
    return fixed(observations, NOW)[NOW]


@EXAMPLES
@given(panels(), st.randoms(use_true_random=False))
def test_order_and_names_play_no_part(panel: Panel, random: object) -> None:
    assert hasattr(random, "shuffle")
    plain = of(panel.observations())
    shuffled = panel.observations()
    random.shuffle(shuffled)
    assert of(shuffled) == plain
    names = list(SELLERS)
    random.shuffle(names)
    renamed = of(panel.observations(tuple(names)))
    assert (renamed.state, renamed.reason) == (plain.state, plain.reason)
    assert (renamed.price_micros, renamed.gates) == (plain.price_micros, plain.gates)


@EXAMPLES
@given(panels(), st.integers(2, 40))
def test_scale_passes_through(panel: Panel, scale: int) -> None:
    plain, scaled = of(panel.observations()), of(panel.observations(scale=scale))
    assert (scaled.state, scaled.reason) == (plain.state, plain.reason)
    if plain.price_micros is not None and scaled.price_micros is not None:
        # logarithms have nine decimals, and the price is rounded once
        error = abs(scaled.price_micros - scale * plain.price_micros)
        assert error <= scale * (1 + plain.price_micros * 20 / NANOS)


@EXAMPLES
@given(panels(), st.data())
def test_one_seller_moves_a_fixing_by_no_more_than_its_stated_influence(
    panel: Panel, data: st.DataObject
) -> None:
    """Whatever it quotes on the day, or if it quotes nothing: any pair of its choices."""
    together = data.draw(st.booleans())  # three that come through one aggregator, or one alone
    methodology = rules.load()
    for name in SELLERS[:3] if together else ():
        methodology = with_provider(methodology, name, route="spheron")
    first = 0 if together else data.draw(st.integers(0, len(panel.levels) - 1))
    fixings = []
    for _ in range(2):
        quotes = list(panel.quotes)
        for seller in range(first, first + (3 if together else 1)):
            price = data.draw(st.sampled_from([1, 500, 1_500, 2_300, 2_990, 3_010, 4_000, 10**9]))
            quotes[seller] = [price] * data.draw(st.integers(0, 2))
        observations = Panel(panel.levels, quotes).observations()
        fixings.append(fixed(observations, NOW, methodology=methodology)[NOW])
    one, other = fixings
    if one.price_micros is not None and other.price_micros is not None:
        moved = abs(math.log(one.price_micros / other.price_micros))
        for fixing in fixings:
            assert moved <= fixing.gates["influence_bp"] / 10_000 + 2e-6
            assert fixing.gates["influence_bp"] <= 150, "the gate's promise"


@EXAMPLES
@given(panels())
def test_a_fixing_is_a_number_or_a_reason(panel: Panel) -> None:
    fixing = of(panel.observations())
    if fixing.price_micros is None:
        assert (fixing.state, bool(fixing.reason)) == (State.WITHHELD, True)
    else:
        assert (fixing.state, fixing.reason) == (State.PUBLISHED, "")
        prices = [vote.log for vote in fixing.votes]
        assert fixing.log is not None
        assert min(prices) - NANOS < fixing.log < max(prices) + NANOS


@given(st.integers(1, 400_000_000))
def test_a_price_is_its_logarithm_and_back(micros: int) -> None:
    assert price_micros(log_nanos(micros)) == micros


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**9))
def test_division_is_half_to_even(number: int, by: int) -> None:
    assert divide(number, by) == round(Fraction(number, by))


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=30))
def test_medians_agree_with_one_another(values: list[int]) -> None:
    assert weighted_median([(value, 7) for value in values]) == median(values)
    assert spread(values) >= 0
    assert spread([value + 10**6 for value in values]) == spread(values)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), min_size=1, max_size=12))
def test_a_weighted_median_is_that_of_the_votes_repeated(votes: list[tuple[int, int]]) -> None:
    repeated = [value for value, weight in votes for _ in range(weight)]
    assert weighted_median(votes) == median(repeated)


@given(
    st.lists(st.tuples(st.sampled_from([100, 60, 25]), st.integers(0, 7)), min_size=1, max_size=12),
    st.integers(20, 60),
)
def test_no_route_is_above_the_cap(sellers: list[tuple[int, int]], cap: int) -> None:
    weights = {f"seller{n}": weight for n, (weight, _) in enumerate(sellers)}
    routes = {f"seller{n}": f"route{route}" for n, (_, route) in enumerate(sellers)}
    shares = capped_weights(weights, routes, cap)
    total: dict[str, int] = {}
    for seller, share in shares.items():
        total[routes[seller]] = total.get(routes[seller], 0) + share
    assert NANOS - len(sellers) <= sum(shares.values()) <= NANOS
    limit = max(cap * NANOS // 100, NANOS // len(total))
    assert max(total.values()) <= limit
    assert rules.load().indices[CODE].weight_cap_percent == 35
