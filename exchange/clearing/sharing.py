"""Sharing whole units by weight, by largest remainder.

Each share is floored; the units left go one each by descending remainder, equal remainders to the
smaller id (text ids compare as text, numbers as numbers). Hence, for weights that sum to W > 0:

    sum of shares = total          |share - total x weight / W| < 1
    total <= W  implies  share <= weight      so nobody gives more than it has
"""

from collections.abc import Mapping
from typing import TypeVar

Id = TypeVar("Id", int, str)


def share(total: int, weights: Mapping[Id, int]) -> dict[Id, int]:
    """Return the shares of ``total`` units by ``weights``, by ascending id.

    AssertionError for a negative number, or for units to share without any weight.
    """
    whole = sum(weights.values())
    assert total >= 0 and all(weight >= 0 for weight in weights.values()), "nothing is negative"
    assert whole or not total, f"{total} units and nobody to share them"
    shares, left = {}, []
    for owner in sorted(weights):
        shares[owner], rest = divmod(total * weights[owner], whole) if whole else (0, 0)
        left.append((-rest, owner))
    for _, owner in sorted(left)[: total - sum(shares.values())]:
        shares[owner] += 1
    assert sum(shares.values()) == total, "a unit is lost"
    return shares


def mapped(weights: Mapping[Id, int]) -> dict[Id, int]:
    """Return 0 for every id of ``weights``, by ascending id."""
    return dict.fromkeys(sorted(weights), 0)
