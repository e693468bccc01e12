"""Finds one order's history in the log: every command that names it and every event about it.

An order is named by its order id, or by its account and the digest of its client order id. The
search works on columns of commands and events, so that only matching records are unpacked. A second
replay then stops before each step to record the book and the account at that time.
"""

from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any, Final

import msgspec

from exchange.engine import Engine
from exchange.history.picture import Picture
from exchange.history.records import (
    COMMAND_PLACES,
    CORRECTIONS,
    EVENT_PLACES,
    SPECIAL,
    EventRow,
    command_at,
    event_column,
    event_row,
    kinds_of,
    where,
)
from exchange.history.walk import Progress, visit, walk
from exchange.journal.frame import Frame
from exchange.messages import (
    COMMAND_BYTES,
    EVENT_BYTES,
    INDEX_BITS,
    Command,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
)

STEPS_MAX: Final = 500  # steps kept; the totals count all of them
_ORDER_AT: Final = (EVENT_PLACES["order_id"], EVENT_PLACES["maker_order_id"])
_KEY_AT: Final = (COMMAND_PLACES["key_lo"], COMMAND_PLACES["target_lo"])
_ORDER_EVENTS: Final = frozenset(
    k
    for k in EventKind
    if k < EventKind.SESSION_OPENED or k in SPECIAL or k == EventKind.ORDER_EXECUTED
)
_RESTS: Final = frozenset(
    {
        EventKind.ORDER_ACCEPTED,
        EventKind.ORDER_REPLACED,
        EventKind.ORDER_RETURNED,
        EventKind.ORDER_ELECTED,
        EventKind.ORDER_REFILLED,
        EventKind.ORDER_EXECUTED,
    }
)
_ENDED: Final = frozenset({EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED})
_LEGS_CORRECTED: Final = frozenset({EventKind.LEG_BUSTED, EventKind.LEG_ADJUSTED})
CORRECTED: Final = CORRECTIONS | _LEGS_CORRECTED  # of a trade, or of a leg of one
TARGETED: Final = frozenset({CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE})


class Step(msgspec.Struct):
    """One command that concerned the order, and its events that did.

    ``own``: the order's account named it; otherwise another account, another order or the market
    caused the events.
    ``before`` is the state of book and account before it; None if it was not recorded. ``moved`` is
    what the command's earlier events added to the price at which the order comes to rest: lots and
    orders, below zero for what left it.
    """

    sequence: int
    stamp: int
    ingress: int
    command: Command
    own: bool
    events: list[EventRow]
    before: dict[str, Any] | None = None
    moved: tuple[int, int] = (0, 0)


class Life(msgspec.Struct):
    """The history of an order. ``quantity`` = ``executed`` + ``cancelled`` + ``leaves``."""

    account: int
    key: tuple[int, int]
    order_id: int | None = None  # None: never accepted
    instrument: int | None = None
    sell: bool = False
    quantity: int = 0
    executed: int = 0
    cancelled: int = 0
    leaves: int = 0
    steps: list[Step] = []
    steps_left_out: int = 0
    entered_again: list[int] = []  # orders that its client id, once forgotten, was given to later

    @property
    def state(self) -> str:
        """``rejected``, ``working``, ``filled`` or ``cancelled``."""
        if self.order_id is None:
            return "rejected"
        if self.leaves:
            return "working"
        return "cancelled" if self.cancelled else "filled"


class _Trace:
    """Collects the steps while the log is walked."""

    def __init__(self, order_id: int | None, account: int | None, key: tuple[int, int] | None):
        self.order_id, self.account, self.key = order_id, account, key
        self.life: Life | None = None
        self.again: list[int] = []
        self.matches: set[int] = set()  # match numbers of its trades
        self.picture = Picture()

    def take(self, frame: Frame, events: bytes) -> None:
        self.picture.take(frame, events)
        rows: dict[int, list[EventRow]] = {}
        own: set[int] = set()
        if self.order_id is None:
            self._by_key(frame, events, rows, own)
        if self.order_id is not None:
            self._by_order(frame, events, rows)
            self._by_match(events, rows)
        if self.order_id is not None and self.key is not None:
            self._by_key(frame, events, rows, own)
        for sequence in sorted(rows):
            self._step(frame, events, sequence, rows[sequence], sequence in own)

    def _by_order(self, frame: Frame, events: bytes, rows: dict[int, list[EventRow]]) -> None:
        """Collect events that name the order id; its acceptance gives the account and key.

        A reject that names the id before any order has it, or one that no order ever has, is of no
        order's life.
        """
        assert self.order_id is not None
        for number in where(events, self.order_id, EVENT_BYTES, *_ORDER_AT):
            row = event_row(events, number)
            if row[2] not in _ORDER_EVENTS or self.order_id not in (row[7], row[11]):
                continue
            if row[2] != EventKind.TRADE and row[7] != self.order_id:
                continue  # another kind of event: these bytes are a key
            if self.key is None and row[2] == EventKind.ORDER_ACCEPTED:
                self.account, self.key = row[6], (row[11], row[12])
            if self.key is None:
                continue
            rows.setdefault(row[0], []).append(row)
            if row[2] in (EventKind.TRADE, EventKind.ORDER_EXECUTED):
                first = row[1] if row[2] == EventKind.TRADE else row[1] - row[4]
                self.matches.add(row[0] << INDEX_BITS | first)

    def _by_match(self, events: bytes, rows: dict[int, list[EventRow]]) -> None:
        """Collect corrections of the order's trades; of the legs of one, those of its account."""
        kinds = kinds_of(events)
        if not self.matches or CORRECTED.isdisjoint(kinds):
            return
        for number, kind in enumerate(kinds):
            if kind in CORRECTED:
                row = event_row(events, number)
                of_leg = kind in _LEGS_CORRECTED
                match = row[7] - (row[4] & 0xFF) if of_leg else row[7]
                if match in self.matches and (not of_leg or self.account in (row[6], row[12])):
                    rows.setdefault(row[0], []).append(row)

    def _by_key(
        self, frame: Frame, events: bytes, rows: dict[int, list[EventRow]], own: set[int]
    ) -> None:
        """Collect commands that carry the client id's digest, as their own id or as their
        target, until it is given to another order."""
        assert self.key is not None
        numbers = where(frame.commands, self.key[0], COMMAND_BYTES, *_KEY_AT)
        sequences = event_column(events, "sequence") if numbers else memoryview(b"")
        for number in numbers:
            command = command_at(frame.commands, number)
            if command.account != self.account or not _names(command, self.key):
                continue
            sequence = frame.opening.first_sequence + number
            start, end = bisect_left(sequences, sequence), bisect_right(sequences, sequence)
            answers = [event_row(events, at) for at in range(start, end)]
            self.again += [row[7] for row in answers if self._is_again(row)]
            if self.again:
                continue
            own.add(sequence)
            known = rows.setdefault(sequence, [])
            for row in answers:
                if self.order_id is None and row[2] == EventKind.ORDER_ACCEPTED:
                    self.order_id = row[7] if (row[11], row[12]) == self.key else None
                if row[2] == EventKind.REJECTED and row not in known:
                    known.append(row)

    def _is_again(self, row: EventRow) -> bool:
        """Whether this accepts another order under the same client id."""
        accepted = row[2] == EventKind.ORDER_ACCEPTED and (row[11], row[12]) == self.key
        known = self.order_id in (None, row[7]) or row[7] in self.again
        return accepted and not known and not row[3] & EventFlag.DUPLICATE

    def _step(
        self, frame: Frame, events: bytes, sequence: int, rows: list[EventRow], own: bool
    ) -> None:
        number = sequence - frame.opening.first_sequence
        command = command_at(frame.commands, number)
        if not rows:
            return
        if self.life is None:
            assert self.account is not None and self.key is not None
            self.life = Life(account=self.account, key=self.key)
        life = self.life
        by_id = command.kind in TARGETED and not command.flags & CommandFlag.BY_CLIENT_ID
        named = by_id and command.target_lo == self.order_id
        own = own or (named and command.account == life.account)
        for row in rows:
            _count(life, row)
        if len(life.steps) < STEPS_MAX:
            ingress = int.from_bytes(frame.ingress[8 * number : 8 * number + 8], "little")
            stamp = frame.opening.stamp
            step = Step(sequence, stamp, ingress, command, own, rows)
            if resting := [row for row in rows if row[2] in _RESTS and row[10]]:
                step.moved = _moved(events, resting[-1])
            life.steps.append(step)
        else:
            life.steps_left_out += 1


def _moved(events: bytes, own: EventRow) -> tuple[int, int]:
    """Return the lots and orders that the events of a command before ``own`` added at its price, as
    docs/reference/engine.md has the depth follow from events."""
    sequences, lots, orders = event_column(events, "sequence"), 0, 0
    side = own[3] & EventFlag.SELL
    for at in range(bisect_left(sequences, own[0]), bisect_right(sequences, own[0])):
        row = event_row(events, at)
        kind, sells, resting = row[2], row[3] & EventFlag.SELL, row[3] & EventFlag.RESTING
        if row[1] >= own[1]:
            break
        if (row[5], row[8]) != (own[5], own[8]):
            continue
        if kind == EventKind.TRADE and sells != side:
            lots, orders = lots - row[9], orders - (not row[12] >> 32)
        elif sells != side or row[7] == own[7]:
            continue
        elif kind in _RESTS and kind != EventKind.ORDER_EXECUTED and row[10]:
            lots, orders = lots + row[10], orders + 1
        elif kind in _ENDED and resting:  # without an iceberg's hidden lots
            lots, orders = lots - row[9] + row[14], orders - (not row[10])
        elif kind == EventKind.ORDER_DORMANT:
            lots, orders = lots - row[10], orders - 1
    return lots, orders


def _names(command: Command, key: tuple[int, int]) -> bool:
    """Whether a command has ``key`` as the id of its order, or as its target by client id."""
    enters = command.kind == CommandKind.ENTER or (
        command.kind == CommandKind.REPLACE and bool(command.flags & CommandFlag.NEW_ID)
    )
    if enters and (command.key_lo, command.key_hi) == key:
        return True
    by_client_id = bool(command.flags & CommandFlag.BY_CLIENT_ID)
    aimed = command.kind in TARGETED and by_client_id
    return aimed and (command.target_lo, command.target_hi) == key


def _count(life: Life, row: EventRow) -> None:
    """Apply an event to the order's totals."""
    kind, flags, quantity = row[2], row[3], row[9]
    if flags & EventFlag.DUPLICATE:
        return
    if kind == EventKind.ORDER_ACCEPTED:
        life.order_id, life.instrument = row[7], row[5]
        life.sell, life.quantity, life.leaves = bool(flags & EventFlag.SELL), quantity, quantity
    elif kind in (EventKind.TRADE, EventKind.ORDER_EXECUTED):
        life.executed += quantity
        life.leaves -= quantity
    elif kind in (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED):
        life.cancelled += quantity
        life.leaves -= quantity
    elif kind == EventKind.ORDER_REPLACED:  # quantity is the new total, executed lots included
        life.quantity = quantity + life.cancelled
        life.leaves = quantity - life.executed


def trace(
    directory: Path,
    *,
    order_id: int | None = None,
    account: int | None = None,
    key: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> tuple[Life | None, Picture]:
    """Find an order by its id, or by account and client id digest. Return None if it is not in the
    log, and the picture at the end of the log.

    Raises what ``walk`` raises.
    """
    assert (order_id is None) != (key is None), "named one way"
    trace = _Trace(order_id, account, key)
    walk(directory, trace.take, progress=progress)
    life = trace.life
    if life is not None:
        life.entered_again = trace.again
        _look_around(directory, life)
    return life, trace.picture


def _look_around(directory: Path, life: Life) -> None:
    """Record the book and the account before each step."""
    steps = {step.sequence: step for step in life.steps}

    def look(engine: Engine, sequence: int) -> None:
        step = steps[sequence]
        known = life.instrument if life.instrument is not None else step.command.instrument
        before: dict[str, Any] = {}
        try:
            before["account"] = engine.account(life.account)
            before["instrument"] = engine.instrument(known)
        except KeyError:  # not open or not listed yet, which the reject states
            step.before = before
            return
        before["position"] = engine.position(life.account, known)
        # Where the order came to rest, its queue is wanted, however deep in the book its price is.
        levels = 0 if any(row[2] in _RESTS and row[10] for row in step.events) else 1
        before["bids"], before["asks"] = engine.book(known, levels)
        step.before = before

    visit(directory, steps, look)
