"""Channels of single events (trades, states, published data), and the check that none is missing.

After all that a released batch had for a channel comes a mark. It names the previous mark and has a
count and a checksum of the messages between. If they disagree, the channel is subscribed again from
the last good mark: missed messages arrive then, and known ones are not delivered twice.
"""

from typing import TypeAlias

import msgspec

from exchange.messages.wire import (
    AuctionResult,
    ChannelMark,
    FactorsPublished,
    IndexFixing,
    IndicativePrice,
    InstrumentState,
    PublicCorrection,
    PublicTrade,
    PublicTransfer,
    SettlementPrice,
)
from exchange.messages.wire_market import mark_parts, text_checksum

AnyTrade: TypeAlias = PublicTrade | PublicCorrection | PublicTransfer
AnyState: TypeAlias = InstrumentState | IndicativePrice | AuctionResult
AnyPrint: TypeAlias = SettlementPrice | IndexFixing | FactorsPublished
AnyOnce: TypeAlias = AnyTrade | AnyState | AnyPrint


class Missed(msgspec.Struct, frozen=True):
    """A channel could not be continued: its messages after sequence ``after`` and up to ``upto``
    can only be read from the market's history."""

    channel: str
    after: int
    upto: int


def channel_of(message: AnyOnce) -> str:
    """Return the channel of a message."""
    if isinstance(message, AnyTrade):
        return f"trades.{message.instrument}"
    if isinstance(message, AnyState):
        return f"state.{message.instrument}"
    if isinstance(message, SettlementPrice):
        return "settlements"
    return "fixings" if isinstance(message, IndexFixing) else "factors"


class Marked:
    """One channel. ``sequence`` is that of the last good mark, None before the first."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.sequence: int | None = None
        self.repairs = 0
        self._whole = channel.startswith("state.")  # its first message replaces all before
        self._told: set[tuple[int, int | None]] = set()  # positions delivered since that mark
        self._count = self._checksum = 0

    def take(self, message: AnyOnce) -> bool:
        """Count a message; return whether it is new."""
        self._count += 1
        self._checksum = text_checksum(mark_parts(message), self._checksum)
        place = (message.sequence, getattr(message, "index", None))
        if place in self._told or (self.sequence is not None and place[0] <= self.sequence):
            return False
        self._told.add(place)
        return True

    def close(self, mark: ChannelMark) -> Missed | bool:
        """Check a mark; return True if all is well, False if the channel must be repaired, or what
        is lost."""
        count, checksum, known = self._count, self._checksum, self.sequence
        self._count = self._checksum = 0
        if not mark.count:
            self._settle(mark.sequence)
            if known is not None and mark.sequence > known and not self._whole:
                return Missed(self.channel, known, mark.sequence)
            return True
        whole = (count, checksum) == (mark.count, mark.checksum)
        if known is not None and mark.sequence <= known:
            return True  # a repetition
        if known is not None and (mark.previous_sequence > known or not whole):
            self.repairs += 1
            return False
        self._settle(mark.sequence)
        return True

    def _settle(self, sequence: int) -> None:
        self.sequence = max(sequence, self.sequence or 0)
        self._told = {place for place in self._told if place[0] > self.sequence}
