"""A share of this process's time for each who asks: one who has spent his own is read no further
until he has some again. Nothing is refused for it, and nobody else waits for him. Sans-IO.
"""

import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

IN_HAND_NS: Final = 100_000_000  # of his time that one may spend at once
ADDRESS_ONE_IN: Final = 20  # an address has one part in so many of the time
LOOPBACK_ONE_IN: Final = 2  # this machine's own is many programs'
MEMBER_ONE_IN: Final = 4  # an account that may trade, beside its addresses
OWNERS_SWEPT: Final = 4_096  # remembered at least, before those who have all in hand are forgotten
OWED_NS: Final = 4_000_000_000  # that one has to wait, at most: less than pings and logons have
_NS: Final = 1_000_000_000
Owner: TypeAlias = tuple[Literal["address", "account"], str | int]


class Pace:
    """What each owner has spent."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._full: dict[Owner, int] = {}  # when one will have all in hand again
        self._sweep_at = OWNERS_SWEPT

    def spend(self, owner: Owner, spent_ns: int, one_in: int) -> float:
        """Note what an owner's asking took; return the seconds until he is read again, 0 if he has
        time left. ``one_in``: his is one part in so many."""
        now, known = self._clock_ns(), self._full
        in_hand = IN_HAND_NS * one_in
        full = max(known.get(owner, 0), now) + spent_ns * one_in
        known[owner] = full = min(full, now + in_hand + OWED_NS)
        if len(known) > self._sweep_at:
            self._full = {one: at for one, at in known.items() if at > now}
            self._sweep_at = OWNERS_SWEPT + 2 * len(self._full)
        return max(0, full - now - in_hand) / _NS
