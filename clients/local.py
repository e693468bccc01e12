"""The base of all local copies of a channel: whether a copy can be trusted, and how it is repaired.

A copy is WAITING until a snapshot arrives, then LIVE. A message must follow what is known (its
``previous_sequence`` not after the copy's own), and the copy must then have the message's checksum;
otherwise the copy becomes STALE. A stale copy shows nothing, ignores messages, and asks
(``REPAIR``) to be subscribed again: the next snapshot makes it LIVE. A message that only repeats
what is known is ignored. A copy whose connection broke is PAUSED: it shows nothing either, and
continues if the exchange can continue from where it stopped.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from clients.errors import BadChecksum, Corrupt, Gap


class BookState(Enum):
    """Whether the copy can be trusted."""

    WAITING = "waiting"
    LIVE = "live"
    STALE = "stale"
    PAUSED = "paused"


class Step(Enum):
    """The effect of a message on the copy."""

    APPLIED = "applied"
    IGNORED = "ignored"
    REPAIR = "repair"  # the copy is stale: subscribe again


class Delta(Protocol):
    """The fields of every message of changes."""

    @property
    def sequence(self) -> int: ...
    @property
    def previous_sequence(self) -> int: ...
    @property
    def checksum(self) -> int: ...


class Local(ABC):
    """A local copy of one channel of one instrument."""

    def __init__(self, channel: str, instrument: str) -> None:
        self.channel = channel
        self.instrument = instrument
        self.state = BookState.WAITING
        self.sequence = 0  # of the last message applied
        self.fault: Corrupt | None = None  # why it is or was last stale
        self.repairs = 0  # snapshots that ended a stale state
        self._was_stale = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.channel} {self.state.value} at {self.sequence}>"

    @property
    def is_live(self) -> bool:
        """Whether the copy equals the exchange's as of ``sequence``."""
        return self.state is BookState.LIVE

    @abstractmethod
    def checksum(self) -> int:
        """Return the checksum that the exchange's messages must have."""

    @abstractmethod
    def _clear(self) -> None: ...

    def forget(self) -> None:
        """The subscription ended: wait for a new snapshot."""
        self._clear()
        self.state = BookState.WAITING
        self.sequence = 0

    def pause(self) -> None:
        """The connection is gone: keep what a resumed channel can continue from."""
        if self.is_live:
            self.state = BookState.PAUSED
        elif self.state is not BookState.PAUSED:
            self.forget()

    def resume(self) -> None:
        """The channel continues where it stopped."""
        if self.state is BookState.PAUSED:
            self.state = BookState.LIVE

    def _begin(self) -> None:
        """Prepare for a snapshot."""
        self._was_stale = self.state is BookState.STALE
        self._clear()

    def _complete(self, sequence: int, checksum: int) -> Step:
        """Finish a snapshot."""
        self.sequence = sequence
        self.state = BookState.LIVE
        step = self._verify(checksum)
        if self._was_stale and step is Step.APPLIED:
            self.repairs += 1
        return step

    def _follow(self, delta: Delta, change: Callable[[], None]) -> Step:
        """Apply a message of changes by calling ``change``, unless they are known already."""
        if not self.is_live or delta.sequence < self.sequence:
            return Step.IGNORED
        if delta.previous_sequence > self.sequence:
            return self._spoil(Gap(self.channel, self.sequence, delta.previous_sequence))
        if delta.sequence != self.sequence:
            change()
            self.sequence = delta.sequence
        return self._verify(delta.checksum)

    def _verify(self, checksum: int) -> Step:
        if self.checksum() != checksum:
            return self._spoil(BadChecksum(self.channel, self.sequence))
        return Step.APPLIED

    def _spoil(self, fault: Corrupt) -> Step:
        self._clear()
        self.state = BookState.STALE
        self.fault = fault
        return Step.REPAIR
