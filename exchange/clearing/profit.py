"""Profit by average cost: for reports alone, never cash.

A reducing trade realizes its lots against the average cost of what is held; crossing zero begins
anew at the trade's price. Costs are integers: what an average would split, the lots that stay keep.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class AverageCost:
    """Signed lots, what they cost in all, and what was realized so far; units of price x lots."""

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
        """Signed lots of an earlier trade turn out to have cost ``change`` more each."""
        self.realized -= lots * change

    def unrealized(self, price: int) -> int:
        """What the lots held gain at ``price``."""
        return self.net * price - self.cost
