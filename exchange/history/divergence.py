"""Explains a divergence between the log and a replay, down to the field of one event.

The log keeps only a digest of every batch's events, which identifies the batch. The events
themselves are on the tape (DIR/tape), if the build that wrote the log wrote it as well: the tape is
used only if its events have the recorded digest. Without it, only the batch can be named.
"""

import os
from pathlib import Path
from typing import Any, Final

from exchange.engine import Engine
from exchange.history.picture import Picture
from exchange.history.records import (
    TRADE,
    TWO_SIDED,
    EventRow,
    command_at,
    event_column,
    event_fields,
    event_row,
)
from exchange.history.walk import open_log, time_text
from exchange.history.words import command_line, event_line, member_name
from exchange.journal.errors import Diverged, JournalError
from exchange.journal.frame import Frame, digest, unpack_notes
from exchange.journal.tape import (
    FILE_NAME,
    PREAMBLE,
    RECORD_BYTES,
    TAPE_NAME,
    unpack_head,
)
from exchange.messages import (
    EVENT_BYTES,
    EVENT_FIELDS,
    Command,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
)

COMMANDS_SHOWN: Final = 20  # of a divergent batch
_COPIED: Final = {  # fields that the first event of such a command copies from it
    CommandKind.ENTER: ("account", "instrument", "price", "quantity", "key_lo", "key_hi"),
    CommandKind.DEPOSIT: ("account", "price", "key_lo", "key_hi"),
    CommandKind.WITHDRAW: ("account", "price", "key_lo", "key_hi"),
    CommandKind.FEE: ("account", "price", "key_lo", "key_hi"),
    CommandKind.SETTLE: ("instrument", "price", "quantity"),
    CommandKind.MARK: ("instrument", "price"),
}


def recorded_events(directory: Path, first_sequence: int) -> bytes | None:
    """Return the tape's events of the batch that begins there; None if it has no such batch."""
    path = directory / TAPE_NAME / FILE_NAME
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        offset = PREAMBLE.size
        while head := unpack_head(os.pread(file, RECORD_BYTES, offset)):
            if head.first_sequence == first_sequence:
                return os.pread(file, head.events_bytes, offset + RECORD_BYTES)
            if head.first_sequence > first_sequence:
                break
            offset += head.length
        return None
    finally:
        os.close(file)


def explain(directory: Path, diverged: Diverged) -> dict[str, Any]:
    """Return what differs: the batch, the command, the event and its fields, and a likely cause.

    ``words`` are lines of text for people; the other keys hold the same as data. Where the log
    cannot be read from its beginning, as when old segments are archived elsewhere, only the batch
    is named, and why.
    """
    try:
        return _explained(directory, diverged)
    except JournalError as error:
        return _named(diverged) | {
            "words": [
                f"the batch that differs has the sequences {diverged.first_sequence} to"
                f" {diverged.last_sequence}; which of its commands and why would be told by the"
                f" log from its beginning: {error}"
            ]
        }


def _explained(directory: Path, diverged: Diverged) -> dict[str, Any]:
    engine, picture = Engine(), Picture()
    number, agreed = 0, 0  # frames up to here; the last sequence whose state was equal
    reader = open_log(directory)
    for chunk in reader.chunks():
        for frame in chunk:
            notes = unpack_notes(frame.notes)
            if notes is not None and notes.sequence < diverged.last_sequence:
                agreed = notes.sequence
            opening = frame.opening
            replayed = engine.apply(frame.commands, opening.first_sequence, opening.stamp)
            number += 1
            picture.take(frame, replayed)
            if opening.first_sequence == diverged.first_sequence:
                batch = _batch(frame, number, diverged)
                if diverged.what == "state":
                    return _state(batch, agreed)
                return _events(directory, frame, replayed, batch, diverged, picture)
    reader.finish()
    raise AssertionError("a divergence is of a batch in the log")


def _named(diverged: Diverged) -> dict[str, Any]:
    return {
        "what": diverged.what,
        "first_sequence": diverged.first_sequence,
        "last_sequence": diverged.last_sequence,
        "recorded": diverged.expected.hex(),
        "replayed": diverged.found.hex(),
    }


def _batch(frame: Frame, number: int, diverged: Diverged) -> dict[str, Any]:
    time = time_text(frame.opening.stamp)
    return _named(diverged) | {"batch": number, "last_sequence": frame.last_sequence, "time": time}


def _state(batch: dict[str, Any], agreed: int) -> dict[str, Any]:
    since = (
        f"the state was equal at sequence {agreed}" if agreed else "no state was recorded before"
    )
    batch["agreed_upto"] = agreed
    batch["words"] = [
        f"every event agrees up to sequence {batch['last_sequence']}, but the state hash there does"
        " not",
        f"{since}: between the two, this build keeps something that no event has shown yet",
        "either the engine's state gained or lost a field, or the recorded hash was altered",
    ]
    return batch


def _events(
    directory: Path,
    frame: Frame,
    replayed: bytes,
    batch: dict[str, Any],
    diverged: Diverged,
    picture: Picture,
) -> dict[str, Any]:
    words = [
        f"the first batch that differs is number {batch['batch']}, sequences"
        f" {batch['first_sequence']} to {batch['last_sequence']}, stamped {batch['time']}; every"
        " batch before it gives the recorded events"
    ]
    batch["words"] = words
    recorded = recorded_events(directory, frame.opening.first_sequence)
    if recorded is None or digest(recorded) != diverged.expected:
        why = "there is no tape" if recorded is None else "the tape is of another build's events"
        words.append(
            f"the log keeps a digest of a batch's events, and {why}: which of the batch's"
            f" {frame.opening.count} commands it is cannot be told from the log alone"
        )
        words += [f"  #{n} {line}" for n, line in _commands(frame, picture)]
        return batch
    at = _first_difference(recorded, replayed)
    there, here = _row(recorded, at), _row(replayed, at)
    told = there if here is None or (there is not None and there[0] <= here[0]) else here
    assert told is not None, "the digests differ, so some event does"
    sequence = told[0]
    command = command_at(frame.commands, sequence - frame.opening.first_sequence)
    batch["sequence"], batch["index"] = sequence, told[1]
    batch["command"] = command_line(command, picture)
    batch["fields"] = _fields(recorded, replayed, at, there, here)
    words.append(f"the first command that differs is #{sequence}: {batch['command']}")
    words += [
        f"  recorded: {event_line(there, picture) if there else 'no further event'}",
        f"  this build: {event_line(here, picture) if here else 'no further event'}",
    ]
    words += [
        f"  {name} of event {told[1]}: recorded {was}, this build gives {now}"
        for name, (was, now) in batch["fields"].items()
    ]
    words.append(_verdict(recorded, sequence, command))
    return batch


def _commands(frame: Frame, picture: Picture) -> list[tuple[int, str]]:
    first, count = frame.opening.first_sequence, frame.opening.count
    shown = [
        (first + n, command_line(command_at(frame.commands, n), picture))
        for n in range(min(count, COMMANDS_SHOWN))
    ]
    if count > COMMANDS_SHOWN:
        shown.append((first + COMMANDS_SHOWN, f"... and {count - COMMANDS_SHOWN} more"))
    return shown


def _first_difference(recorded: bytes, replayed: bytes) -> int:
    for at in range(0, max(len(recorded), len(replayed)), EVENT_BYTES):
        if recorded[at : at + EVENT_BYTES] != replayed[at : at + EVENT_BYTES]:
            return at // EVENT_BYTES
    raise AssertionError("the events are equal")


def _row(events: bytes, number: int) -> EventRow | None:
    return event_row(events, number) if number * EVENT_BYTES < len(events) else None


def _fields(
    recorded: bytes, replayed: bytes, at: int, there: EventRow | None, here: EventRow | None
) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ between the two events: name, recorded, replayed."""
    if there is None or here is None:
        return {}
    was = event_fields(there, recorded, at)
    now = event_fields(here, replayed, at)
    if (there[2] in TWO_SIDED) != (here[2] in TWO_SIDED):  # their fields have other names
        return {"kind": (member_name(EventKind, there[2]), member_name(EventKind, here[2]))}
    return {name: (was[name], now[name]) for name in was if was[name] != now[name]}


def _verdict(recorded: bytes, sequence: int, command: Command) -> str:
    """Return the likely cause: whether the recorded answer fits the command. If not, it was
    altered. A market order's own price is not in its answer."""
    sequences = event_column(recorded, "sequence").tolist()
    try:
        copied = _COPIED[CommandKind(command.kind)]
        row = event_row(recorded, sequences.index(sequence))
    except (ValueError, KeyError):
        return "either this build's rules differ, or the log was edited; compare with another copy"
    fields = dict(zip(EVENT_FIELDS, row, strict=True))
    if row[2] == TRADE or fields["flags"] & EventFlag.DUPLICATE:
        return "this build's rules differ from those that wrote the log"
    at_market = command.kind == CommandKind.ENTER and command.flags & CommandFlag.MARKET
    odd = [
        name
        for name in copied
        if fields[name] != getattr(command, name) and not (at_market and name == "price")
    ]
    if odd:
        return (
            f"the recorded answer names another {', '.join(odd)} than the command in the log: the"
            " command was altered after it was answered, and the log chained anew"
        )
    return "the recorded answer fits the command: this build's rules differ from the writer's"
