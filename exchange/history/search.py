"""Finds events by account, instrument, reason, kind and time, using columns of a batch."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from exchange.history.picture import Picture
from exchange.history.records import (
    OF_ACCOUNT,
    OF_INSTRUMENT,
    TRANSFERRED,
    TWO_SIDED,
    EventRow,
    command_at,
    command_column,
    event_column,
    event_row,
    kinds_of,
    names_account,
    names_instrument,
)
from exchange.journal.frame import Frame
from exchange.messages import CancelReason, CommandKind, EventKind, Reason

_UNSURE = frozenset(
    {EventKind.REJECTED, EventKind.MASS_CANCELLED, EventKind.KILLED, EventKind.RESUMED}
)
_TAKEN = frozenset({EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED})
Found = Callable[[Frame, EventRow], None]


@dataclass
class Query:
    """A search. None means any value. Kinds and reasons are given by number.

    An account is found on either side of a trade. ``command_kinds`` selects all events of such
    commands; together with ``event_kinds`` one of the two is enough.
    """

    account: int | None = None
    code: str | None = None
    cancel_reason: int | None = None
    reject_reason: int | None = None
    event_kinds: frozenset[int] = frozenset()
    command_kinds: frozenset[int] = frozenset()
    first_sequence: int = 0
    first_stamp: int = 0
    picture: Picture = field(default_factory=Picture)
    counts: Counter[str] = field(default_factory=Counter)

    def search(self, frame: Frame, events: bytes, found: Found) -> None:
        """Call ``found`` with every matching event of a batch, in order, and count it by kind."""
        self.picture.take(frame, events)
        if frame.opening.stamp < self.first_stamp or frame.last_sequence < self.first_sequence:
            return
        kinds = kinds_of(events)
        numbers = self._candidates(frame, events, kinds)
        for number in numbers:
            row = event_row(events, number)
            if row[0] < self.first_sequence or not self._fits(frame, row):
                continue
            self.counts[EventKind(row[2]).name] += 1
            found(frame, row)

    def _candidates(self, frame: Frame, events: bytes, kinds: bytes) -> "range | list[int]":
        """Return the numbers of the events that the columns do not exclude."""
        numbers: range | list[int] = range(len(kinds))
        if self.account is not None:
            wanted = self.account
            owners = event_column(events, "account").tolist()
            makers = event_column(events, "maker_account").tolist()
            orders = event_column(events, "order_id").tolist()
            numbers = [
                n
                for n in numbers
                if (owners[n] == wanted and kinds[n] in OF_ACCOUNT)
                or (makers[n] == wanted and kinds[n] in TWO_SIDED)
                or (orders[n] == wanted and kinds[n] == TRANSFERRED)
            ]
        if self.code is not None:
            listed = self.picture.instruments.by_code.get(self.code)
            column = event_column(events, "instrument").tolist()
            numbers = [
                n
                for n in numbers
                if listed and column[n] == listed.id and kinds[n] in OF_INSTRUMENT
            ]
        if self.cancel_reason is not None or self.reject_reason is not None:
            reasons = event_column(events, "reason").tolist()
            pairs = self._reasons()
            numbers = [n for n in numbers if (kinds[n], reasons[n]) in pairs]
        if self.event_kinds or self.command_kinds:
            numbers = self._of_kinds(frame, events, kinds, numbers)
        return numbers

    def _reasons(self) -> set[tuple[int, int]]:
        pairs: set[tuple[int, int]] = set()
        if self.reject_reason is not None:
            pairs.add((int(EventKind.REJECTED), self.reject_reason))
        if self.cancel_reason is not None:
            pairs |= {(int(kind), self.cancel_reason) for kind in _TAKEN}
        return pairs

    def _of_kinds(
        self, frame: Frame, events: bytes, kinds: bytes, numbers: "range | list[int]"
    ) -> list[int]:
        if not self.command_kinds:
            return [n for n in numbers if kinds[n] in self.event_kinds]
        first = frame.opening.first_sequence
        commands = bytes(command_column(frame.commands, "kind"))
        sequences = event_column(events, "sequence").tolist()
        return [
            n
            for n in numbers
            if kinds[n] in self.event_kinds or commands[sequences[n] - first] in self.command_kinds
        ]

    def _fits(self, frame: Frame, row: EventRow) -> bool:
        """Whether the fields compared apply to this event; for some kinds its command decides."""
        if row[2] not in _UNSURE:
            return True
        command = command_at(frame.commands, row[0] - frame.opening.first_sequence)
        wish = command.kind, command.tif
        if self.code is not None and not names_instrument(row, *wish):
            return False
        return self.account is None or row[6] != self.account or names_account(row, *wish)


def kinds_named(name: str) -> tuple[frozenset[int], frozenset[int]]:
    """Return (event kinds, command kinds) of a name. KeyError: there is neither."""
    wanted = name.upper().replace("-", "_")
    events = frozenset({EventKind[wanted].value} if wanted in EventKind.__members__ else ())
    commands = frozenset({CommandKind[wanted].value} if wanted in CommandKind.__members__ else ())
    if not events and not commands:
        raise KeyError(name)
    return events, commands


def reason_named(name: str) -> tuple[int | None, int | None]:
    """Return (cancel reason, reject reason) of a name. KeyError: there is neither."""
    wanted = name.upper().replace("-", "_")
    cancel = CancelReason.__members__.get(wanted)
    reject = Reason.__members__.get(wanted)
    if cancel is None and reject is None:
        raise KeyError(name)
    return cancel and int(cancel), reject and int(reject)
