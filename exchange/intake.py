"""Commands waiting for the sequencer: bounded queues, one per source, served in turn.

Groups, which are commands that belong together, go first: all of a group are accepted or none, and
a group goes into one batch, so that no crash can separate it. Invariant: ``queued`` is the sum of
all queues, and no queue is empty.
"""

from array import array
from collections.abc import Callable
from typing import Final, Protocol

from exchange.journal.frame import Texts
from exchange.journal.room import RESERVE_BYTES, admits
from exchange.messages import COMMAND_BYTES, Limit, Reason

# Plain integers: looking up an enumeration's member is slow, and happens once per command.
QUEUE_COMMANDS: Final = int(Limit.QUEUE_COMMANDS)
# Of one source, so that no source alone can fill the queue
SOURCE_COMMANDS: Final = QUEUE_COMMANDS // 4

Item = tuple[bytes, int, str | None]  # record, ingress time, text


class QueueFull(Exception):
    """A named reject: the command was not accepted. ``observed`` commands wait, of at most
    ``limit``."""

    reason = Reason.QUEUE_FULL

    def __init__(self, limit: int, observed: int) -> None:
        super().__init__(f"{self.reason.name}: {observed} commands wait, the limit is {limit}")
        self.limit = limit
        self.observed = observed


class LogFull(QueueFull):
    """A named reject: the disk of the log is full and this command is not urgent.

    ``limit`` is the reserve that the log keeps ahead of itself, ``observed`` what is left of it,
    both in bytes.
    """

    reason = Reason.LOG_FULL

    def __init__(self, observed: int) -> None:
        Exception.__init__(
            self, f"{self.reason.name}: the log's disk is full; {observed} bytes are set aside"
        )
        self.limit = RESERVE_BYTES
        self.observed = observed


class Closed(Exception):
    """The sequencer accepts no more commands: it is closing, closed or stopped by a failure."""

    reason: Final = Reason.QUEUE_FULL


class Log(Protocol):
    """What is needed of the log while its disk is full: the bytes still reserved."""

    @property
    def room(self) -> int: ...


class _Source:
    """The waiting commands of one source; the first ``taken`` are in the batch being built."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.items: list[Item] = []
        self.taken = 0

    def is_empty(self) -> bool:
        """Whether all of them are taken."""
        return self.taken == len(self.items)


class Intake:
    """The queues. ``closing``: nothing is accepted. ``full``: the disk is, only urgent commands
    are."""

    def __init__(self, log: Log, begun: Callable[[], None], *, full: bool) -> None:
        """``begun`` is called when a command is queued and none waited before."""
        self._log = log
        self._begun = begun
        self.full = full
        self.closing = False
        self.queued = 0
        self._sources: dict[int, _Source] = {}  # those with commands
        self._ring: list[_Source] = []  # the same, the next to be served first
        self._groups: list[list[Item]] = []  # groups, the next first
        self._grouped = 0  # commands in the groups

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
        if not queued:  # otherwise the loop knows already, or waits for the disk
            self._begun()

    def submit_all(self, items: list[Item]) -> None:
        """Queue a group of commands, in a row: all of them, or none if this raises as ``submit``
        does. A group larger than a batch continues in the next one."""
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
        """Take at most ``size`` commands from the queues: groups first, then one of each source in
        turn."""
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
        """Return the groups that fit into ``size``; of a group larger than a batch the part that
        fits."""
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
