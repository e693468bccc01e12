"""Profit by average cost, for reports only; it moves no cash.

A reducing trade realizes its lots against the average cost of those held; a position that crosses
zero starts anew at the trade's price. Costs are integers: the remainder of a division stays with
the lots that are kept.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class AverageCost:
    """Signed lots, their total cost, and the profit realized so far, in units of price x lots."""

    net: int = 0
    cost: int = 0
    realized: int = 0

    def trade(self, lots: int, price: int) -> None:
        """Add a trade of signed lots."""
        if self.net * lots < 0:
            closing = min(abs(lots), abs(self.net)) * (1 if lots > 0 else -1)
            share = -self.cost * closing // self.net  # of the lots that go
            self.realized += -closing * price - share
            self.cost -= share
            self.net += closing
            lots -= closing
        self.net += lots
        self.cost += lots * price

    def adjust(self, lots: int, change: int) -> None:
        """Adjust signed lots of an earlier trade, each of which costs ``change`` more."""
        self.realized -= lots * change

    def unrealized(self, price: int) -> int:
        """Return the gain of the lots held at ``price``."""
        return self.net * price - self.cost
