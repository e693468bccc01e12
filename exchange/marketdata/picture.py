"""The base of all pictures, and the parts of a channel's name.

A picture is the maintained content of one channel for one instrument. It is created when the
channel gets a subscriber, and ``tell`` returns its changes: after every batch, or, for a conflated
channel, at every tick of its period. Its deltas carry absolute figures, so that one may
be applied to any state between the two sequences that it names.
"""

from abc import ABC, abstractmethod
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
    """The parts of a channel's name: ``kind.CODE``, then the levels, then the period."""

    kind: str
    code: str
    top: int = 0  # number of best levels; 0: all
    group: int = 1  # ticks per level
    period: int = 0  # in ticks of the feed; 0: after every batch


def parse(channel: str) -> Name:
    """Parse a channel's name. KeyError if no channel can have it. The code is not checked."""
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
    """What pictures are built from."""

    time: int
    depths: dict[int, Depth]
    queues: dict[int, Queues]
    instruments: Instruments
    statistics: Statistics


class Picture(ABC):
    """The content of one channel. ``sequence`` is that of its last message."""

    counts: ClassVar[bool] = False  # whether it shows statistics of the day rather than orders

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        self.channel = channel
        self.period = name.period
        self.instrument: Instrument = source.instruments.by_code[name.code]
        self.depth = source.depths[self.instrument.id]
        self.source = source
        self.sequence = self.depth.sequence
        self._seen = self.depth.sequence  # of the last change that was looked at

    def note(  # noqa: B027 - those that read the depth anew need none
        self, levels: Sides, entries: tuple[list[Entry], list[Entry]]
    ) -> None:
        """Note the changes of a batch: the new state of levels and of orders."""

    @abstractmethod
    def tell(self) -> Response | None:
        """Return the message with all changes since the last call; None without any."""

    @abstractmethod
    def snapshot(self) -> Sequence[Response]:
        """Return the whole content, as of the last message."""

    @abstractmethod
    def heartbeat(self) -> Response:
        """Return a message without changes, which proves the channel alive."""

    def _is_news(self, sequence: int) -> bool:
        """Whether what it shows may have changed since the last call; ``sequence`` is that of the
        last change. What nothing has changed is not read again at every tick."""
        seen, self._seen = self._seen, sequence
        return seen != sequence

    def _advance(self, sequence: int) -> int:
        """Set the next message's sequence; return the previous one."""
        previous, self.sequence = self.sequence, sequence
        return previous
