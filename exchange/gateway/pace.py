"""Shares of this process's processor time, per address or account. Sans-IO.

An owner that has used up its share is not read until it has time again. No request is refused for
it, and no other owner waits.
"""

import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

IN_HAND_NS: Final = 100_000_000  # processor time that an owner can save up and spend at once
ADDRESS_ONE_IN: Final = 20  # an address may use one part in so many of the time
LOOPBACK_ONE_IN: Final = 2  # the same for loopback, which many programs may share
MEMBER_ONE_IN: Final = 4  # the same for an account that may trade, in addition to its addresses
OWNERS_SWEPT: Final = 4_096  # owners above which those with nothing to pay back are dropped
OWED_NS: Final = 4_000_000_000  # longest wait; below the timeouts of pings and logons
_NS: Final = 1_000_000_000
Owner: TypeAlias = tuple[Literal["address", "account"], str | int]


class Pace:
    """The processor time that each owner has used."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._full: dict[Owner, int] = {}  # when an owner's savings will be full again
        self._sweep_at = OWNERS_SWEPT

    def spend(self, owner: Owner, spent_ns: int, one_in: int) -> float:
        """Charge an owner ``spent_ns``; return the seconds until it may be read again, 0 if it has
        time left. Its share of the time is one part in ``one_in``."""
        now, known = self._clock_ns(), self._full
        in_hand = IN_HAND_NS * one_in
        full = max(known.get(owner, 0), now) + spent_ns * one_in
        known[owner] = full = min(full, now + in_hand + OWED_NS)
        if len(known) > self._sweep_at:
            self._full = {one: at for one, at in known.items() if at > now}
            self._sweep_at = OWNERS_SWEPT + 2 * len(self._full)
        return max(0, full - now - in_hand) / _NS
