"""The commands that wait for the sequencer: bounded queues, one of each source, that take turns.

Before them go those that belong together: all of them are taken or none, and into one batch, so
that no crash comes between. Invariant: ``queued`` is the sum of all queues, and no queue is empty.
"""

from array import array
from collections.abc import Callable
from typing import Final, Protocol

from exchange.journal.frame import Texts
from exchange.journal.room import RESERVE_BYTES, admits
from exchange.messages import COMMAND_BYTES, Limit, Reason

# Plain integers: an enumeration's member is slow to look up, once a command.
QUEUE_COMMANDS: Final = int(Limit.QUEUE_COMMANDS)
SOURCE_COMMANDS: Final = QUEUE_COMMANDS // 4  # of one source: it alone cannot fill the queue

Item = tuple[bytes, int, str | None]  # record, ingress time, text


class QueueFull(Exception):
    """A named reject: the command was not taken. ``observed`` commands wait, ``limit`` may."""

    reason = Reason.QUEUE_FULL

    def __init__(self, limit: int, observed: int) -> None:
        super().__init__(f"{self.reason.name}: {observed} commands wait, the limit is {limit}")
        self.limit = limit
        self.observed = observed


class LogFull(QueueFull):
    """A named reject: the disk of the log is full and this command is not urgent.

    ``limit`` is the reserve that the log wants ahead of itself, ``observed`` what it has, in bytes.
    """

    reason = Reason.LOG_FULL

    def __init__(self, observed: int) -> None:
        Exception.__init__(
            self, f"{self.reason.name}: the log's disk is full; {observed} bytes are set aside"
        )
        self.limit = RESERVE_BYTES
        self.observed = observed


class Closed(Exception):
    """The sequencer takes no more commands: it is closing, closed or stopped by a failure."""

    reason: Final = Reason.QUEUE_FULL


class Log(Protocol):
    """What a full disk leaves to decide by."""

    @property
    def room(self) -> int: ...


class _Source:
    """The commands of one source that wait; ``taken`` of them are in the batch being made."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.items: list[Item] = []
        self.taken = 0

    def is_empty(self) -> bool:
        """Whether all that waited is taken."""
        return self.taken == len(self.items)


class Intake:
    """``closing``: nothing is taken any more. ``full``: the disk is, and only the urgent is."""

    def __init__(self, log: Log, begun: Callable[[], None], *, full: bool) -> None:
        """``begun`` is called when the first command waits."""
        self._log = log
        self._begun = begun
        self.full = full
        self.closing = False
        self.queued = 0
        self._sources: dict[int, _Source] = {}  # those with commands
        self._ring: list[_Source] = []  # the same, next first
        self._groups: list[list[Item]] = []  # what belongs together, next first
        self._grouped = 0  # commands of these

    def submit(
        self, source: int, record: bytes, *, ingress_ns: int = 0, text: str | None = None
    ) -> None:
        """Queue one command of ``source`` (a connection's number).

        Raises QueueFull, LogFull, Closed.
        """
        if self.closing:
            raise Closed("the sequencer takes no more commands")
        if len(record) != COMMAND_BYTES:
            raise ValueError(f"a command record has {COMMAND_BYTES} bytes, not {len(record)}")
        queued = self.queued
        if queued >= QUEUE_COMMANDS:
            raise QueueFull(QUEUE_COMMANDS, queued)
        if self.full and not admits(record[0], self._log.room, queued):
            raise LogFull(self._log.room)
        self._queue(source, (record, ingress_ns, text))
        self.queued = queued + 1
        if not queued:  # else the loop knows, or waits for the disk
            self._begun()

    def submit_all(self, items: list[Item]) -> None:
        """Queue commands that belong together, in a row: all of them, or none where it raises as
        ``submit`` does. More than a batch has room for go into the next as well.
        """
        if self.closing:
            raise Closed("the sequencer takes no more commands")
        queued, grouped = self.queued, self._grouped + len(items)
        if queued + len(items) > QUEUE_COMMANDS:
            raise QueueFull(QUEUE_COMMANDS, queued)
        if grouped > SOURCE_COMMANDS:
            raise QueueFull(SOURCE_COMMANDS, self._grouped)
        for place, item in enumerate(items):
            if self.full and not admits(item[0][0], self._log.room, queued + place):
                raise LogFull(self._log.room)
        if items:
            self._groups.append(items)
            self.queued, self._grouped = queued + len(items), grouped
            if not queued:
                self._begun()

    def _queue(self, number: int, item: Item) -> None:
        source = self._sources.get(number)
        if source is None:
            source = self._sources[number] = _Source(number)
            self._ring.append(source)
        elif len(source.items) >= SOURCE_COMMANDS:
            raise QueueFull(SOURCE_COMMANDS, len(source.items))
        source.items.append(item)

    def take(self, size: int) -> list[Item]:
        """Take at most ``size`` commands off the queues: what belongs together, and then one of
        each source in turn.
        """
        items = self._take_groups(size)
        size = min(size - len(items), self.queued - self._grouped)
        ring, self.queued = self._ring, self.queued - size
        while size:
            served, ring = ring[:size], ring[size:]
            size -= len(served)
            for source in served:
                items.append(source.items[source.taken])
                source.taken += 1
                if not source.is_empty():
                    ring.append(source)
        for source in self._ring:
            if source.is_empty():
                del self._sources[source.number]
            del source.items[: source.taken]
            source.taken = 0
        self._ring = ring
        return items

    def _take_groups(self, size: int) -> list[Item]:
        """Groups that fit into what is left of a batch; of one beyond any batch what fits."""
        items: list[Item] = []
        while self._groups and (not items or len(self._groups[0]) <= size - len(items)):
            group = self._groups.pop(0)
            items += group[:size]
            if len(group) > size:
                self._groups.insert(0, group[size:])
                break
        self.queued -= len(items)
        self._grouped -= len(items)
        return items


def columns(items: list[Item], first: int) -> tuple[list[bytes], bytes, Texts]:
    """Return the records, the packed ingress times, and the texts by sequence from ``first`` on."""
    records: list[bytes] = []
    ingress: list[int] = []
    texts: Texts = []
    sequence = first
    for record, when, text in items:
        records.append(record)
        ingress.append(when)
        if text is not None:
            texts.append((sequence, text))
        sequence += 1
    return records, array("Q", ingress).tobytes(), texts
