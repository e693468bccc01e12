"""Drives two machines with the same commands and says in words where they first differ."""

from collections.abc import Callable, Sequence
from typing import Protocol

from exchange.engine import Engine
from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    COMMAND_FIELDS,
    EVENT,
    EVENT_BYTES,
    EVENT_FIELDS,
    TRADE,
    TRADE_FIELDS,
    CancelReason,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Reason,
)
from exchange.messages import TradingState as State

Views = dict[str, int]
Levels = list[tuple[int, int, int]]


class Machine(Protocol):
    """The face that the compiled engine and the oracle share."""

    def apply(self, commands: bytes, first_sequence: int, stamp_ns: int) -> bytes: ...
    def next_deadline(self) -> int: ...
    def state_bytes(self, buckets: bool = True) -> bytes: ...
    def check(self) -> None: ...
    def account(self, account_id: int) -> Views: ...
    def position(self, account_id: int, instrument_id: int) -> Views: ...
    def instrument(self, instrument_id: int) -> Views: ...
    def book(self, instrument_id: int, levels: int = 0) -> tuple[Levels, Levels]: ...
    def counts(self) -> Views: ...


def restored(machine: Machine) -> Machine:
    """The engine, made anew from its image; the oracle as it is."""
    if not isinstance(machine, Engine):
        return machine
    other = Engine()
    other.restore(machine.snapshot())
    other.check()
    assert other.state_bytes() == machine.state_bytes()
    assert other.snapshot() == machine.snapshot()
    return other


def decoded(events: bytes) -> list[Event]:
    """The events by their names."""
    return [Event(**dict(zip(EVENT_FIELDS, e, strict=True))) for e in EVENT.iter_unpack(events)]


Step = tuple[int, bytes]  # the stamp of a batch and its commands


def records(commands: bytes) -> list[bytes]:
    """The commands one by one."""
    return [commands[i : i + COMMAND_BYTES] for i in range(0, len(commands), COMMAND_BYTES)]


def events_of(events: bytes) -> list[bytes]:
    """The events one by one."""
    return [events[i : i + EVENT_BYTES] for i in range(0, len(events), EVENT_BYTES)]


def _name(kinds: type[CommandKind] | type[EventKind], number: int) -> str:
    return kinds(number).name if number in list(kinds) else f"kind {number}"


def command_in_words(record: bytes) -> str:
    """The command's name and every field that is not zero."""
    fields = dict(zip(COMMAND_FIELDS, COMMAND.unpack(record), strict=True))
    kind = _name(CommandKind, fields.pop("kind"))
    return " ".join([kind, *(f"{name}={value}" for name, value in fields.items() if value)])


def event_in_words(event: bytes) -> str:
    """The event's name, its flags and reason by name, and every field that is not zero."""
    if not event:
        return "nothing"
    kind = EVENT.unpack(event)[2]
    layout, names = (TRADE, TRADE_FIELDS) if kind == EventKind.TRADE else (EVENT, EVENT_FIELDS)
    fields = dict(zip(names, layout.unpack(event), strict=True))
    del fields["kind"]
    words: dict[str, object] = dict(fields)
    words["flags"] = EventFlag(fields["flags"]).name or ""
    reason = fields["reason"]
    if kind == EventKind.REJECTED and reason in list(Reason):
        words["reason"] = Reason(reason).name
    elif kind in (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED) and reason:
        words["reason"] = CancelReason(reason).name
    elif kind == EventKind.STATE_CHANGED:
        words["quantity"] = State(fields["quantity"]).name
    shown = (f"{name}={value}" for name, value in words.items() if value)
    return " ".join([_name(EventKind, kind), *shown])


def first_difference(commands: bytes, first_sequence: int, left: bytes, right: bytes) -> str:
    """The first event in which two answers to one batch differ, and its command."""
    at = next(
        i
        for i in range(0, max(len(left), len(right)), EVENT_BYTES)
        if left[i : i + EVENT_BYTES] != right[i : i + EVENT_BYTES]
    )
    one, other = left[at : at + EVENT_BYTES], right[at : at + EVENT_BYTES]
    sequence = min(EVENT.unpack(event)[0] for event in (one, other) if event)
    return (
        f"command {sequence}: {command_in_words(records(commands)[sequence - first_sequence])}\n"
        f"  oracle: {event_in_words(one)}\n  engine: {event_in_words(other)}"
    )


def difference(steps: Sequence[Step], left: Machine, right: Machine) -> str:
    """Where two fresh machines first answer differently, in words; empty if nowhere."""
    sequence = 1
    for stamp, commands in steps:
        one = left.apply(commands, sequence, stamp)
        other = right.apply(commands, sequence, stamp)
        if one != other:
            return first_difference(commands, sequence, one, other)
        sequence += len(commands) // COMMAND_BYTES
    return ""


def shrink(steps: Sequence[Step], differs: Callable[[list[Step]], bool]) -> list[Step]:
    """A short list of single commands that still differs; ``steps`` itself if that needs batches.

    Leaves out ever smaller runs of commands, as long as what is left still differs.
    """
    single = [(stamp, record) for stamp, commands in steps for record in records(commands)]
    if not differs(single):
        return list(steps)
    run = len(single) // 2
    while run:
        start = 0
        while start < len(single):
            shorter = single[:start] + single[start + run :]
            if differs(shorter):
                single = shorter
            else:
                start += run
        run //= 2
    return single
