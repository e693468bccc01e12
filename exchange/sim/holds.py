"""A plain model of dead man's switches, computed from the log, to compare the market with.

A session's switch is due a fixed time after the stamp of its last record. Once a later batch's
stamp has passed that, one mass cancel with the switch's name must follow, and the orders that its
session had entered before may cause no more events.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from exchange.journal.frame import Frame
from exchange.journal.tape import Released
from exchange.messages import COMMAND, EVENT, HOUSE_ACCOUNT, CommandKind, EventFlag, EventKind

MS: Final = 1_000_000  # nanoseconds
_OF_ORDERS: Final = frozenset(
    {EventKind.TRADE, EventKind.LEG_TRADE, *(k for k in EventKind if k.name.startswith("ORDER_"))}
)


class Thrown(NamedTuple):
    """A mass cancel made by a switch."""

    session: int
    due_ms: int
    account: int
    sequence: int
    name: str


class Story:
    """The switches in released batches. AssertionError if one fires too early."""

    def __init__(self, batches: Iterable[Released]) -> None:
        self.held: dict[int, int] = {}  # due time in ms by session, of switches not due yet
        self.ought: set[tuple[int, int]] = set()  # (session, due) of switches whose time has come
        self.thrown: list[Thrown] = []
        self.fates: Counter[str] = Counter()
        self._epochs: dict[int, int] = {}  # epoch of the last record, by session
        for batch in batches:
            self._take(batch)

    @property
    def first_due_ns(self) -> int:
        """When the first switch that has not fired is or was due; 0 if there is none."""
        late = (due for _, due in self.ought.difference(self.done))
        return min((*self.held.values(), *late), default=0) * MS

    @property
    def done(self) -> list[tuple[int, int]]:
        """Session and due time of the switches that fired."""
        return [(one.session, one.due_ms) for one in self.thrown]

    def _take(self, batch: Released) -> None:
        stamp_ms, texts = batch.stamp // MS, dict(batch.texts)
        for session, due in list(self.held.items()):
            if due <= stamp_ms:
                self.ought.add((session, self.held.pop(session)))
        for row in EVENT.iter_unpack(batch.events):
            text = texts.get(row[0], "")
            if row[2] == EventKind.RECORDED and row[6] != HOUSE_ACCOUNT:
                self._record(json.loads(text), stamp_ms, batch.epoch)
            elif row[2] == EventKind.MASS_CANCELLED and text.startswith("after."):
                session, due = map(int, text.split(".")[1:])
                one = Thrown(session, due, row[6], row[0], text)
                assert one.due_ms <= stamp_ms, f"{text} is thrown at {stamp_ms}"
                late = batch.epoch != self._epochs[one.session]
                self.fates["switch thrown by a later life" if late else "switch thrown"] += 1
                self.thrown.append(one)

    def _record(self, said: dict[str, int], stamp_ms: int, epoch: int) -> None:
        session, timeout_ms = said["session"], said["timeout_ms"]
        if self.held.pop(session, None) is not None:
            self.fates["switch renewed" if timeout_ms else "switch taken back"] += 1
        if timeout_ms:
            self.held[session] = stamp_ms + timeout_ms
            self._epochs[session] = epoch


def orders_taken(frames: Iterable[Frame], events: bytes, thrown: Iterable[Thrown]) -> set[int]:
    """Return the orders that were entered in a session before its switch fired.

    ``events`` are the relevant events of ``frames``. AssertionError if one of these orders has a
    later event.
    """
    sessions = {
        frame.opening.first_sequence + number: record[6]
        for frame in frames
        for number, record in enumerate(COMMAND.iter_unpack(frame.commands))
        if record[0] == CommandKind.ENTER
    }
    switched = {one.sequence: one for one in thrown}
    entered: dict[int, list[int]] = defaultdict(list)  # orders by session
    taken: dict[int, Thrown] = {}
    for row in EVENT.iter_unpack(events):
        sequence, kind = row[0], row[2]
        if kind == EventKind.MASS_CANCELLED and sequence in switched:
            one = switched[sequence]
            taken |= dict.fromkeys(entered.pop(one.session, ()), one)
        elif kind in _OF_ORDERS and not row[3] & EventFlag.DUPLICATE:
            if kind == EventKind.ORDER_ACCEPTED and sequence in sessions:
                entered[sessions[sequence]].append(row[7])
            orders = (row[7], row[11]) if kind == EventKind.TRADE else (row[7],)
            for by in (taken[order] for order in orders if order in taken):
                assert by.sequence == sequence, f"{EventKind(kind).name} {row} after {by.name}"
    return set(taken)
