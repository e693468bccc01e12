"""Filtered historical simulation of whole portfolios, for comparison with their requirements.

The scan moves each product's expiries by a range. This moves all products together, as they moved
over the periods of a history, filtered to the current volatility, and takes the loss of the same
rank. It uses floats, is shown beside the requirement and decides nothing. A product without a
history is assumed to lose as much as the largest move of the others in the same period.
"""

from collections.abc import Iterable, Mapping
from math import ceil

import numpy as np

from contracts.history import Panel
from contracts.symbol import PHYSICAL_SUFFIX
from exchange.clearing.margin import model, rules

Exposure = Mapping[str, int]  # by product: micro-dollars of signed value, price x hours x lots


def weeks(panel: Panel, steps: int) -> dict[str, model.Floats]:
    """Return each product's filtered log moves over the same overlapping periods of ``steps``."""
    return {
        name: model.filtered(model.changes(series.levels), steps)
        for name, series in sorted(panel.products.items())
    }


def shortfall(
    exposures: Iterable[Exposure], moves: Mapping[str, model.Floats], confidence_bp: int
) -> list[int]:
    """Return every portfolio's loss at the confidence: micro-dollars, rounded up, at least 0."""
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
