"""What channels say once (trades, states, prints), and the proof that nothing of it is missing.

After all that a released batch had for a channel comes a mark. It names the mark before and has a
count and a checksum of what came between. If they disagree the channel is joined again from the
last mark that was good: what was missed comes then, and what came already is not told twice.
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
    """A channel could not go on where it stopped: what it said after ``after`` and up to
    ``upto``, two sequences, is in the market's history alone."""

    channel: str
    after: int
    upto: int


def channel_of(message: AnyOnce) -> str:
    """The channel that a message came on."""
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
        self._whole = channel.startswith("state.")  # its first message makes up for all before
        self._told: set[tuple[int, int | None]] = set()  # places told since that mark
        self._count = self._checksum = 0

    def take(self, message: AnyOnce) -> bool:
        """Take a message in; return whether it is news."""
        self._count += 1
        self._checksum = text_checksum(mark_parts(message), self._checksum)
        place = (message.sequence, getattr(message, "index", None))
        if place in self._told or (self.sequence is not None and place[0] <= self.sequence):
            return False
        self._told.add(place)
        return True

    def close(self, mark: ChannelMark) -> Missed | bool:
        """Take a mark in; return whether all is well, or what is gone for good."""
        count, checksum, known = self._count, self._checksum, self.sequence
        self._count = self._checksum = 0
        if not mark.count:
            self._settle(mark.sequence)
            if known is not None and mark.sequence > known and not self._whole:
                return Missed(self.channel, known, mark.sequence)
            return True
        whole = (count, checksum) == (mark.count, mark.checksum)
        if known is not None and mark.sequence <= known:
            return True  # a repeat
        if known is not None and (mark.previous_sequence > known or not whole):
            self.repairs += 1
            return False
        self._settle(mark.sequence)
        return True

    def _settle(self, sequence: int) -> None:
        self.sequence = max(sequence, self.sequence or 0)
        self._told = {place for place in self._told if place[0] > self.sequence}
