"""Compares two logs command by command, however each was cut into batches.

Each log is replayed by this build. If commands and stamps are equal, events can differ only if
something before them did; if the recorded digests differ all the same, two builds wrote the logs.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from exchange.history.picture import Picture
from exchange.history.records import command_at, event_column, event_fields, event_row
from exchange.history.walk import Progress, batches, open_log, time_text
from exchange.history.words import command_line, event_line, member_name
from exchange.journal.frame import Frame, unpack_notes, unpack_texts
from exchange.journal.head import Head
from exchange.messages import COMMAND_BYTES, EVENT_BYTES, CommandKind

Batch = tuple[Frame, bytes]


class Told(NamedTuple):
    """One command as a log has it, with its events."""

    sequence: int
    stamp: int
    epoch: int
    command: bytes
    events: bytes
    text: str | None


class Difference(msgspec.Struct):
    """One kind of difference: how often it occurs, where first, and its description."""

    kind: str
    count: int
    sequence: int
    words: list[str]


class Comparison:
    """The differences found so far, by kind, in order of first occurrence."""

    def __init__(self) -> None:
        self.picture = Picture()  # of the first log
        self.other = Picture()
        self.found: dict[str, Difference] = {}
        self.commands = 0  # compared
        self.last = 0  # last sequence of the two batches looked at last, if they were equal

    def note(self, kind: str, sequence: int, words: list[str], count: int = 1) -> None:
        """Count a difference; the description of the first of its kind is kept."""
        known = self.found.get(kind)
        if known is None:
            self.found[kind] = Difference(kind, count, sequence, words)
        else:
            known.count += count

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data; ``first`` is the earliest difference, or None."""
        ordered = sorted(self.found.values(), key=lambda one: one.sequence)
        told = [msgspec.structs.asdict(one) for one in ordered]
        return {
            "same": not told,
            "commands_compared": self.commands,
            "first": told[0] if told else None,
            "differences": told,
        }


def compare(first: Path, second: Path, progress: Progress | None = None) -> Comparison:
    """Compare two logs up to the end of the longer one. Raises the reader's errors."""
    found = Comparison()
    readers = open_log(first), open_log(second)
    total, done = readers[0].total_bytes, 0
    ours, theirs = batches(first), batches(second)
    waiting: tuple[deque[Told], deque[Told]] = (deque(), deque())
    digests: list[tuple[bytes, bytes] | None] = [None]
    while True:
        one = next(ours, None) if not waiting[0] else None
        other = next(theirs, None) if not waiting[1] else None
        for batch, picture in ((one, found.picture), (other, found.other)):
            if batch is not None:
                picture.take(*batch)
        if one is not None:
            done += one[0].length
            if progress is not None:
                progress(done, total)
        if one is not None and other is not None and _same(one, other, digests, found):
            continue
        waiting[0].extend(_told(one))
        waiting[1].extend(_told(other))
        if not waiting[0] or not waiting[1]:
            break
        while waiting[0] and waiting[1]:
            _compare(waiting[0].popleft(), waiting[1].popleft(), found)
    _rest(found, "only in the first log", waiting[0], ours, found.picture)
    _rest(found, "only in the second log", waiting[1], theirs, found.other)
    _heads(readers[0].head, readers[1].head, found)
    return found


def _same(
    one: Batch, other: Batch, digests: list[tuple[bytes, bytes] | None], found: Comparison
) -> bool:
    """Whether two batches are equal. Also compares the recorded digests of the batch before."""
    (a, events_a), (b, events_b) = one, other
    same = (
        a.opening.first_sequence == b.opening.first_sequence
        and a.opening.stamp == b.opening.stamp
        and a.opening.epoch == b.opening.epoch
        and a.commands == b.commands
        and events_a == events_b
        and a.texts == b.texts
    )
    recorded = (a.opening.previous_events, b.opening.previous_events)
    if digests[0] is not None and recorded[0] != recorded[1]:
        _other_digest(a.opening.first_sequence - 1, found)
    ours, theirs = unpack_notes(a.notes), unpack_notes(b.notes)
    if ours and theirs and ours.sequence == theirs.sequence and ours != theirs:
        _other_state(ours.sequence, found)
    digests[0] = recorded if same else None
    if same:
        found.commands += a.opening.count
    found.last = a.last_sequence if same else 0
    return same


def _other_digest(sequence: int, found: Comparison) -> None:
    words = [
        f"the batch that ends at #{sequence} has the same commands and stamps in both,",
        "but other events were recorded: two builds wrote them, or one log was edited",
    ]
    found.note("recorded digest", sequence, words)


def _other_state(sequence: int, found: Comparison) -> None:
    """Note another recorded state, unless what came before explains it."""
    if found.found.keys() <= {"recorded state"}:
        words = [
            f"everything up to #{sequence} is the same in both, but another state was recorded",
            "behind it: two builds wrote them, or one log was edited",
        ]
        found.note("recorded state", sequence, words)


def _heads(one: Head | None, other: Head | None, found: Comparison) -> None:
    """Compare what two clean closes recorded of the last batch, which no frame follows."""
    if one is None or other is None or not one.sequence == other.sequence == found.last:
        return
    if one.events_digest and other.events_digest and one.events_digest != other.events_digest:
        _other_digest(one.sequence, found)
    if one.state_hash and other.state_hash and one.state_hash != other.state_hash:
        _other_state(one.sequence, found)


def _told(batch: Batch | None) -> Iterator[Told]:
    """Yield the commands of a batch, each with its events."""
    if batch is None:
        return
    frame, events = batch
    opening, texts = frame.opening, dict(unpack_texts(frame.texts))
    sequences = event_column(events, "sequence").tolist()
    at = 0
    for number in range(opening.count):
        sequence, start = opening.first_sequence + number, at
        while at < len(sequences) and sequences[at] == sequence:
            at += 1
        yield Told(
            sequence,
            opening.stamp,
            opening.epoch,
            frame.commands[number * COMMAND_BYTES : (number + 1) * COMMAND_BYTES],
            events[start * EVENT_BYTES : at * EVENT_BYTES],
            texts.get(sequence),
        )


def _compare(a: Told, b: Told, found: Comparison) -> None:
    assert a.sequence == b.sequence, "both logs begin at 1 and have no gaps"
    found.commands += 1
    if a.command != b.command:
        _commands(a, b, found)
    if a.stamp != b.stamp:
        words = [
            f"stamped {time_text(a.stamp)} and {time_text(b.stamp)}",
            "timers and throttles go by the stamp: what follows may differ for that alone",
        ]
        found.note("stamp", a.sequence, words)
    if a.epoch != b.epoch:
        words = [f"epoch {a.epoch} and {b.epoch}: one was restarted more often before this"]
        found.note("epoch", a.sequence, words)
    if a.text != b.text:
        found.note("text", a.sequence, [f"first: {a.text}", f"second: {b.text}"])
    if a.events != b.events:
        _events(a, b, found)


def _commands(a: Told, b: Told, found: Comparison) -> None:
    one, other = command_at(a.command, 0), command_at(b.command, 0)
    fields = {
        name: (getattr(one, name), getattr(other, name))
        for name in one.__struct_fields__
        if getattr(one, name) != getattr(other, name)
    }
    kinds = sorted({member_name(CommandKind, one.kind), member_name(CommandKind, other.kind)})
    words = [
        f"first: {command_line(one, found.picture)}",
        f"second: {command_line(other, found.other)}",
        *(f"{name}: {ours} and {theirs}" for name, (ours, theirs) in fields.items()),
    ]
    found.note(f"command {' / '.join(kinds)}", a.sequence, words)


def _events(a: Told, b: Told, found: Comparison) -> None:
    command = command_at(a.command, 0)
    same = a.command == b.command
    why = (
        "the same command gave other events: state, stamp or rules differ before it"
        if same
        else "another command, so other events"
    )
    words = [why]
    for at in range(0, max(len(a.events), len(b.events)), EVENT_BYTES):
        if a.events[at : at + EVENT_BYTES] != b.events[at : at + EVENT_BYTES]:
            words += _both(a.events, b.events, at // EVENT_BYTES, found)
            break
    name = member_name(CommandKind, command.kind)
    found.note(f"events of {name}" if same else "events of other commands", a.sequence, words)


def _both(ours: bytes, theirs: bytes, number: int, found: Comparison) -> list[str]:
    words, rows = [], []
    for label, events, picture in (("first", ours, found.picture), ("second", theirs, found.other)):
        if number * EVENT_BYTES < len(events):
            row = event_row(events, number)
            rows.append(event_fields(row, events, number))
            words.append(f"{label}: {event_line(row, picture)}")
        else:
            words.append(f"{label}: no further event")
    if len(rows) == 2 and rows[0]["kind"] == rows[1]["kind"]:
        words += [
            f"{name}: {value} and {rows[1][name]}"
            for name, value in rows[0].items()
            if value != rows[1][name]
        ]
    return words


def _rest(
    found: Comparison, kind: str, waiting: "deque[Told]", more: Iterator[Batch], picture: Picture
) -> None:
    """Count what one log has beyond the end of the other."""
    count, first = len(waiting), waiting[0] if waiting else None
    for frame, events in more:
        picture.take(frame, events)
        count += frame.opening.count
        first = first or next(_told((frame, events)))
    if first is not None:
        line = command_line(command_at(first.command, 0), picture)
        words = [f"{count} commands from #{first.sequence} on; the first is {line}"]
        found.note(kind, first.sequence, words, count)
