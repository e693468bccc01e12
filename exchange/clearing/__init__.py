"""The clearing house: a projection of the released stream into a double-entry ledger."""

from exchange.clearing.house import Clearing
from exchange.clearing.projection import Frame
from exchange.clearing.state import Divergence, Point

__all__ = ["Clearing", "Divergence", "Frame", "Point"]
