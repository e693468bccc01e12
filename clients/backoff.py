"""How long to wait before the next attempt to connect."""

from collections.abc import Callable
from typing import Final

import msgspec

DOUBLINGS_MAX: Final = 32  # keeps the power of two small however long the exchange is away


class Backoff(msgspec.Struct, frozen=True):
    """Waits double from ``first_s`` up to ``most_s``, each drawn evenly between its half and
    itself, so that clients cut off together do not come back together.
    """

    first_s: float = 0.1
    most_s: float = 10.0

    def seconds(self, attempt: int, chance: Callable[[], float]) -> float:
        """The wait before attempt 0, 1, 2 …; ``chance`` gives a number in [0, 1)."""
        longest = min(self.most_s, self.first_s * (1 << min(attempt, DOUBLINGS_MAX)))
        return longest * (1 + chance()) / 2
