"""The pause before the next attempt to connect."""

from collections.abc import Callable
from typing import Final

import msgspec

DOUBLINGS_MAX: Final = 32  # keeps the power of two small after any number of attempts


class Backoff(msgspec.Struct, frozen=True):
    """Pauses that double from ``first_s`` up to ``most_s`` seconds. Each is drawn evenly between
    half of it and all of it, so that clients disconnected together do not reconnect together."""

    first_s: float = 0.1
    most_s: float = 10.0

    def seconds(self, attempt: int, chance: Callable[[], float]) -> float:
        """Return the pause before attempt 0, 1, 2 …; ``chance`` returns a number in [0, 1)."""
        longest = min(self.most_s, self.first_s * (1 << min(attempt, DOUBLINGS_MAX)))
        return longest * (1 + chance()) / 2
