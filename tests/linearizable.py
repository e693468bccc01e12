"""Whether what concurrent clients saw can be told as one story: a check of linearizability.

The log tells a story: one total order of commands. It is a witness, not an axiom. A history is
accepted if, in the log's order,

1. the oracle, given the commands one by one, answers every operation as its client was answered,
   queries by its own state at the sequence that they name;
2. real time is kept: an operation that completed before another was invoked comes before it;
3. nothing happens that nobody asked for, before it was asked for, or twice; an operation that was
   answered with a reject has no effect. One without an answer (*unknown*) may have happened or not.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from oracle import Oracle
from oracle_state import WORKING

from exchange.journal.frame import Frame, unpack_texts
from exchange.messages import (
    COMMAND,
    COMMAND_BYTES,
    EVENT,
    EVENT_FIELDS,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    wire,
)
from exchange.sim.history import QUERIES, Operation

COMMAND_OF = {
    "enter": CommandKind.ENTER,
    "cancel": CommandKind.CANCEL,
    "reduce": CommandKind.REDUCE,
    "replace": CommandKind.REPLACE,
}
EVENT_OF: dict[type, EventKind] = {
    wire.Accepted: EventKind.ORDER_ACCEPTED,
    wire.Rejected: EventKind.REJECTED,
    wire.Cancelled: EventKind.ORDER_CANCELLED,
    wire.Reduced: EventKind.ORDER_REDUCED,
    wire.Replaced: EventKind.ORDER_REPLACED,
}
Name = tuple[int, int, str]  # account, command kind, the client's id


class NotLinearizable(AssertionError):
    """The history cannot be told as the log's story."""


class Told(msgspec.Struct, frozen=True):
    """One client's command as it stands in the log, and what the oracle makes of it."""

    sequence: int
    events: list[Event]

    @property
    def has_effect(self) -> bool:
        """Whether anything changed: neither a reject nor a first answer repeated."""
        first = self.events[0]
        return first.kind != EventKind.REJECTED and not first.flags & EventFlag.DUPLICATE


class Books(msgspec.Struct, frozen=True):
    """What queries may be answered at one sequence, by account."""

    orders: dict[int, dict[str, str]]  # order id -> leaves
    cash: dict[int, int]
    nets: dict[int, dict[int, int]]


class Witness:
    """The log's story, told by the oracle. ``at`` are the sequences that queries named."""

    def __init__(self, frames: Iterable[Frame], at: set[int]) -> None:
        self.commands: dict[Name, list[Told]] = defaultdict(list)
        self.books: dict[int, Books] = {}
        self.last = 0
        oracle = Oracle()
        for frame in frames:
            first = frame.opening.first_sequence
            texts = dict(unpack_texts(frame.texts))
            assert first == self.last + 1, "the log has a gap"
            events = by_sequence(oracle.apply(frame.commands, first, frame.opening.stamp))
            for number in range(frame.opening.count):
                record = COMMAND.unpack_from(frame.commands, number * COMMAND_BYTES)
                kind, account, text = record[0], record[5], texts.get(first + number)
                if kind in COMMAND_OF.values() and text is not None:
                    told = Told(first + number, events[first + number])
                    self.commands[account, kind, text].append(told)
            self.last = frame.last_sequence
            if self.last in at:
                self.books[self.last] = books_of(oracle)


def by_sequence(events: bytes) -> dict[int, list[Event]]:
    found: dict[int, list[Event]] = defaultdict(list)
    for row in EVENT.iter_unpack(events):
        found[row[0]].append(Event(**dict(zip(EVENT_FIELDS, row, strict=True))))
    return found


def books_of(oracle: Oracle) -> Books:
    accounts = oracle.market.accounts
    return Books(
        {
            number: {
                str(order.order_id): str(order.leaves)
                for position in account.positions.values()
                for order in position.orders.values()
                if order.place in WORKING
            }
            for number, account in accounts.items()
        },
        {number: account.cash for number, account in accounts.items()},
        {
            number: {i: p.net for i, p in account.positions.items() if p.net}
            for number, account in accounts.items()
        },
    )


def check(
    operations: list[Operation], frames: Iterable[Frame], codes: dict[str, int], *, strangers: bool
) -> int:
    """Raise NotLinearizable, or return how many operations have a place in the story.

    ``codes`` are the instruments' numbers; ``strangers`` says that others traded as well, whose
    commands are not in the history.
    """
    asked = {op.sequence for op in operations if op.kind in QUERIES and op.sequence is not None}
    story = Witness(frames, asked)
    places: list[tuple[Operation, int]] = []
    for operation in operations:
        if operation.kind in QUERIES:
            place = check_query(operation, story, codes)
        else:
            place = check_answer(operation, story)
        if place is not None:
            places.append((operation, place))
    check_real_time(places, operations)
    check_effects(operations, story, strangers=strangers)
    return len(places)


def fail(operation: Operation, why: str) -> NotLinearizable:
    asked = f"{operation.client} {operation.kind} {operation.key} {operation.fields}"
    return NotLinearizable(f"{asked}, answered {operation.answer}: {why}")


def check_answer(operation: Operation, story: Witness) -> int | None:
    """Return the sequence at which a command took place; None if it has no place of its own."""
    answer = operation.answer
    if answer is None or operation.sequence is None:
        return None  # unknown, or refused before it could be sequenced
    name = (operation.account, COMMAND_OF[operation.kind], operation.key)
    for told in story.commands[name]:
        if told.sequence == operation.sequence:
            break
    else:
        raise fail(operation, "the log has no such command there")
    index = answer.index  # type: ignore[union-attr]
    if not isinstance(index, int) or index >= len(told.events):
        raise fail(operation, "the command has no such event")
    check_event(operation, told.events[index])
    return told.sequence


def check_event(operation: Operation, event: Event) -> None:
    answer: Any = operation.answer
    found: dict[str, object] = {"kind": EVENT_OF[type(answer)], "account": operation.account}
    expected: dict[str, object] = {"kind": event.kind, "account": event.account}
    if isinstance(answer, wire.Rejected):
        found["reason"], expected["reason"] = answer.number, event.reason
    else:
        found |= {"order": answer.order_id, "quantity": answer.quantity,
                  "duplicate": answer.duplicate}  # fmt: skip
        expected |= {"order": str(event.order_id), "quantity": str(event.quantity),
                     "duplicate": bool(event.flags & EventFlag.DUPLICATE)}  # fmt: skip
        if hasattr(answer, "leaves_quantity"):
            # Of a change that is answered again the log does not say what works by now.
            again = answer.duplicate and not isinstance(answer, wire.Accepted)
            found["leaves"] = answer.leaves_quantity
            expected["leaves"] = None if again else str(event.leaves)
    if found != expected:
        raise fail(operation, f"the oracle says {expected}")


def check_query(operation: Operation, story: Witness, codes: dict[str, int]) -> int | None:
    answer = operation.answer
    if answer is None or isinstance(answer, wire.Rejected):
        return None
    sequence = operation.sequence
    if sequence is None or sequence not in story.books:
        raise fail(operation, f"the log has no state at {sequence}")
    books, account = story.books[sequence], operation.account
    found: object
    if isinstance(answer, wire.Orders):
        found = {order.order_id: order.leaves_quantity for order in answer.orders}
        expected: object = books.orders[account]
    else:
        assert isinstance(answer, wire.AccountReport)
        nets = {codes[p.instrument]: int(p.net) for p in answer.positions if int(p.net)}
        micros = round(float(answer.cash) * 1_000_000)  # exact: far below 2**53
        found = (micros, nets)
        expected = (books.cash[account], books.nets[account])
    if found != expected:
        raise fail(operation, f"the oracle says {expected}")
    return sequence


def check_real_time(places: list[tuple[Operation, int]], operations: list[Operation]) -> None:
    """Whatever had completed when an operation was invoked comes before it in the log.

    A command's place is its own; a query sees everything up to its place, and may share it. A
    repeat may be answered by what came late for the first, which was invoked before.
    """
    first: dict[tuple[int, str, str], int] = {}
    for operation in operations:
        first.setdefault((operation.account, operation.kind, operation.key), operation.invoked_ns)
    done: list[tuple[int, int, Operation]] = sorted(
        ((op.completed_ns, place, op) for op, place in places if op.completed_ns is not None),
        key=lambda item: item[:2],
    )
    times = [time for time, _, _ in done]
    highest: list[tuple[int, Operation]] = []
    for _, place, operation in done:
        if not highest or place > highest[-1][0]:
            highest.append((place, operation))
        else:
            highest.append(highest[-1])
    for operation, place in places:
        invoked = operation.invoked_ns
        if operation.is_repeat and not getattr(operation.answer, "duplicate", False):
            invoked = first[operation.account, operation.kind, operation.key]
        before = bisect_left(times, invoked)
        if before == 0:
            continue
        floor, earlier = highest[before - 1]
        is_query = operation.kind in QUERIES
        if place < floor or (place == floor and not is_query and earlier is not operation):
            raise fail(operation, f"it is told at {place}, before {earlier.answer} at {floor}")


def check_effects(operations: list[Operation], story: Witness, *, strangers: bool) -> None:
    """Nothing unasked, nothing twice, nothing before its time, nothing after a reject."""
    asked: dict[Name, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.kind not in QUERIES:
            name = (operation.account, int(COMMAND_OF[operation.kind]), operation.key)
            asked[name].append(operation)
    floor = Floor(operations)
    for name, tellings in story.commands.items():
        wishes = asked.get(name)
        if wishes is None:
            if strangers:
                continue
            raise NotLinearizable(f"nobody asked for {name} at {tellings[0].sequence}")
        effects = [told for told in tellings if told.has_effect]
        if len(effects) > 1:
            raise fail(wishes[0], f"it happened at {[told.sequence for told in effects]}")
        invoked = min(op.invoked_ns for op in wishes)
        if tellings[0].sequence <= floor.at(invoked):
            raise fail(wishes[0], f"it is told at {tellings[0].sequence}, before it was asked")
        refused = all(op.outcome == "fail" for op in wishes)
        if effects and refused and effects[0].sequence not in {op.sequence for op in wishes}:
            raise fail(wishes[0], f"it was refused, and yet happened at {effects[0].sequence}")


class Floor:
    """The highest place known to be over at a time: a completed command's own, a query's too."""

    def __init__(self, operations: list[Operation]) -> None:
        known = sorted(
            (op.completed_ns, op.sequence)
            for op in operations
            if op.completed_ns is not None and op.sequence is not None
        )
        self._times = [time for time, _ in known]
        self._places: list[int] = []
        for _, place in known:
            self._places.append(max(place, self._places[-1] if self._places else 0))

    def at(self, time_ns: int) -> int:
        """Everything up to this sequence was over before that time."""
        before = bisect_right(self._times, time_ns - 1)
        return self._places[before - 1] if before else 0


def frames_of(chunks: Iterable[list[Frame]]) -> Iterator[Frame]:
    for chunk in chunks:
        yield from chunk
