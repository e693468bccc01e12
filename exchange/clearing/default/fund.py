"""The size of the default fund: the largest members' losses beyond margin, under stress.

A scenario moves the price of every product by a share of it; a member's loss is that of all its
accounts' positions together, rounded up. The size is, in the worst scenario, the sum of the
``cover`` largest losses beyond margin (Cover-2: two). Contributions are shares by initial margin,
by largest remainder.

The scenarios are judgements and change only with SCENARIOS_VERSION. Two of them move the hardware
generations apart: a successor that makes an old chip's hour worth only its electricity, and a
shortage in which old hours hold their price and the newest fall.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from exchange.clearing.sharing import Id, share

E4: Final = 10_000
COVER: Final = 2
SCENARIOS_VERSION: Final = 1


class Scenario(NamedTuple):
    """Price moves of a stressed week by product, at 1e-4; ``other`` applies to all the rest."""

    name: str
    moves: Mapping[str, int]
    other: int = 0

    def move(self, product: str) -> int:
        """Return the move of a product; a physical one (H100P) moves as its cash twin (H100)."""
        return self.moves.get(product.removesuffix("P"), self.other)


SCENARIOS: Final = (
    Scenario("week_fall_40", {}, -4_000),
    Scenario("week_rise_40", {}, 4_000),
    Scenario(
        "generation_shock",
        {"A100": -6_000, "H100": -4_500, "H200": -4_000, "MI300": -4_000, "B200": -1_500,
         "GB200": 1_000},
        -4_000,
    ),
    Scenario(
        "old_hours_hold",
        {"A100": 2_500, "H100": 1_500, "H200": 1_000, "MI300": 0, "B200": -2_500, "GB200": -3_000},
        0,
    ),
)  # fmt: skip


class Exposure(NamedTuple):
    """One member's position in one instrument: signed lots at a clearing price."""

    product: str
    net: int
    price: int
    multiplier: int


def stress_loss(book: Sequence[Exposure], scenario: Scenario) -> int:
    """Return the loss of positions in a scenario, in micro-dollars, rounded up; 0 for a gain."""
    change = sum(
        line.net * line.price * line.multiplier * scenario.move(line.product) for line in book
    )
    return max(0, -(change // E4))


def fund_size(
    scenarios: Sequence[Mapping[Id, int]], margin: Mapping[Id, int], cover: int = COVER
) -> int:
    """Return the worst scenario's sum of the ``cover`` largest losses beyond margin.

    ``scenarios`` has one mapping for each scenario: the loss by member. A member missing in
    ``margin`` has a margin of 0.
    """
    worst = 0
    for losses in scenarios:
        beyond = sorted(
            (max(0, loss - margin.get(m, 0)) for m, loss in losses.items()), reverse=True
        )
        worst = max(worst, sum(beyond[:cover]))
    return worst


class FundSize(NamedTuple):
    """A fund's size by stress, the scenario that determines it, and each member's contribution."""

    size: int
    scenario: str
    uncovered: dict[str, int]  # by scenario: the sum of the largest losses beyond margin
    contributions: dict[int, int]
    margin: dict[int, int]
    losses: dict[str, dict[int, int]]  # by scenario and member


def size_by_stress(
    books: Mapping[int, Sequence[Exposure]],
    margin: Mapping[int, int],
) -> FundSize:
    """Return the fund that the members' positions and margins require, in micro-dollars.

    Contributions are by margin; if nobody has margin, in equal parts.
    """
    losses = {
        scenario.name: {member: stress_loss(book, scenario) for member, book in books.items()}
        for scenario in SCENARIOS
    }
    uncovered = {name: fund_size([by], margin) for name, by in losses.items()}
    worst = max(uncovered, key=lambda name: uncovered[name], default="")
    size = uncovered.get(worst, 0)
    weights = {member: margin.get(member, 0) for member in books}
    if not sum(weights.values()):
        weights = dict.fromkeys(books, 1)
    contributions = share(size, weights) if weights else {}
    return FundSize(size, worst, uncovered, contributions, dict(margin), losses)
