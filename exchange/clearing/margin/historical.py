"""Filtered historical simulation of whole books: what a requirement is held against.

The scan moves a product's expiries by a range. This moves all products together, as they did move
over the weeks of a history, filtered to the volatility of now, and takes the loss of the same rank.
Floats: it is shown beside the requirement and decides nothing. Products without a history move as
the worst of the others did that week, against whichever side they are held.
"""

from collections.abc import Iterable, Mapping
from math import ceil

import numpy as np

from contracts.history import Panel
from contracts.symbol import PHYSICAL_SUFFIX
from exchange.clearing.margin import model, rules

Exposure = Mapping[str, int]  # by product: micro-dollars of signed value, price x hours x lots


def weeks(panel: Panel, steps: int) -> dict[str, model.Floats]:
    """Each product's filtered moves over the same overlapping periods."""
    return {
        name: model.filtered(model.changes(series.levels), steps)
        for name, series in sorted(panel.products.items())
    }


def shortfall(
    exposures: Iterable[Exposure], moves: Mapping[str, model.Floats], confidence_bp: int
) -> list[int]:
    """The loss of every book at the confidence, micro-dollars, rounded up, at least 0."""
    ratios = {name: np.expm1(of) for name, of in moves.items()}
    worst = np.max([np.abs(ratio) for ratio in ratios.values()], axis=0)
    found = []
    for exposure in exposures:
        loss = np.zeros(len(worst))
        for product, value in exposure.items():
            ratio = ratios.get(product.removesuffix(PHYSICAL_SUFFIX))
            loss += abs(value) * worst if ratio is None else -value * ratio
        found.append(rules.historical([ceil(one) for one in loss.tolist()], confidence_bp))
    return found
