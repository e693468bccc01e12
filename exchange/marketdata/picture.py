"""What every picture has: a channel's name taken apart, and what it tells of one instrument.

A picture is made when somebody joins its channel and asked to ``tell`` what is new: after every
batch, or, of a conflated channel, at every look of its period. Its deltas have absolute figures,
so that one may be applied to any state between the two sequences that it names.
"""

from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple, Protocol

from exchange.marketdata.depth import Depth
from exchange.marketdata.instruments import Instrument, Instruments
from exchange.marketdata.queues import Entry, Queues
from exchange.marketdata.statistics import Statistics
from exchange.messages.wire_base import Response
from exchange.messages.wire_market import DEPTH_GROUPS, DEPTH_TOPS, GROUP_LEVELS, PERIODS

PICTURED: Final = frozenset(("top", "depth", "queue", "statistics"))
_TOPS: Final = {f"top{count}": count for count in DEPTH_TOPS}
_GROUPS: Final = {f"by{ticks}": ticks for ticks in DEPTH_GROUPS}

Levels = list[tuple[int, int]]  # price in ticks, lots
Sides = tuple[Levels, Levels]


class Name(NamedTuple):
    """A channel's name, taken apart: ``kind.CODE``, then how it is cut, then its period."""

    kind: str
    code: str
    top: int = 0  # best levels; 0: all
    group: int = 1  # ticks of one level
    period: int = 0  # in looks; 0: after every batch


def parse(channel: str) -> Name:
    """Take a channel's name apart. KeyError for one that no channel can have."""
    kind, *parts = channel.split(".")
    top, group, period = 0, 1, 0
    if parts and parts[-1] in PERIODS and kind in PICTURED:
        period = PERIODS[parts.pop()]
    if parts and kind == "depth":
        if parts[-1] in _TOPS:
            top = _TOPS[parts.pop()]
        elif parts[-1] in _GROUPS:
            top, group = GROUP_LEVELS, _GROUPS[parts.pop()]
    return Name(kind, ".".join(parts), top, group, period)


class Source(Protocol):
    """What pictures are made of."""

    time: int
    depths: dict[int, Depth]
    queues: dict[int, Queues]
    instruments: Instruments
    statistics: Statistics


class Picture:
    """One channel's picture of one instrument. ``sequence`` is that of its last message."""

    counts: ClassVar[bool] = False  # figures of the day rather than orders

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        self.channel = channel
        self.period = name.period
        self.instrument: Instrument = source.instruments.by_code[name.code]
        self.depth = source.depths[self.instrument.id]
        self.source = source
        self.sequence = self.depth.sequence

    def note(self, levels: Sides, entries: tuple[list[Entry], list[Entry]]) -> None:
        """Take in what a batch changed: levels and orders as they are now."""

    def tell(self) -> Response | None:
        """Return what is new since the last time; None if nothing is."""
        raise NotImplementedError

    def snapshot(self) -> Sequence[Response]:
        """Return all of it, as of the last time that it told."""
        raise NotImplementedError

    def heartbeat(self) -> Response:
        """Return the message without news that proves the channel alive."""
        raise NotImplementedError

    def _advance(self, sequence: int) -> int:
        """Take the next message's sequence; return the one before it."""
        previous, self.sequence = self.sequence, sequence
        return previous
