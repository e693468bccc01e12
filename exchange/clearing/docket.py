"""Which matters a market has, in the order in which they are told of time and events."""

from typing import Final

from exchange.clearing.margin.matter import MarginVersions
from exchange.clearing.matters import Dues, Matter

MATTERS: Final[tuple[type[Matter], ...]] = (
    Dues,
    MarginVersions,
)
