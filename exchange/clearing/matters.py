"""Matters: what clearing decides by itself, each a pure function of the released stream.

A matter is a Struct whose fields are all it knows. It rules on the records it names, may watch
events, and is told the log's time so that its deadlines pass by the log and by nothing else. A
ruling is a row that an auditor reads; ``number`` names the event that caused it.

What moves cash is the engine's to do: a matter leaves a ``Due``, the desk turns it into a command
with the due's id, and the due is done when the event of that command comes back.
"""

import itertools
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, TypeVar

import msgspec

from exchange.clearing.records import ByTwo, Malformed, Record, read
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT, INDEX_BITS, Event, EventKind, KillScope

if TYPE_CHECKING:
    from exchange.clearing.state import State

ACCEPTED: Final = "accepted"
MALFORMED: Final = "malformed"
OFF_NS: Final = 86_400 * 10**9  # no command is on its way for longer


class At(NamedTuple):
    """Where in the log something is decided."""

    number: int  # the causing event: sequence << INDEX_BITS | index
    stamp: int  # log time, nanoseconds
    business_date: int
    account: int = HOUSE_ACCOUNT  # that sent the command; the house: an operator
    text: str = ""  # that came with the command


class Ruling(NamedTuple):
    """What was decided: ``accepted``, a named event, or a named refusal, and its facts."""

    operation: str
    outcome: str
    facts: dict[str, Any]


def refused(operation: str, denial: Denial, limit: object = 0, observed: object = 0) -> Ruling:
    """The ruling that a record does not stand: number and name, limit and what was seen."""
    facts: dict[str, Any] = {"number": int(denial), "limit": limit, "observed": observed}
    return Ruling(operation, denial.name.lower(), facts)


class Lots(msgspec.Struct, frozen=True):
    """What a transfer moves besides its lots: see TRANSFER in docs/reference/engine.md."""

    kind: int  # TransferKind
    other: int  # account
    sells: bool  # the account that takes them
    instrument: int
    price: int  # clearing price


class Due(msgspec.Struct, frozen=True):
    """A command that clearing asks for. ``id`` makes it happen once."""

    id: str
    kind: Literal["deposit", "withdraw", "fee", "transfer", "kill"]
    account: int
    amount: int  # micro-dollars, or lots of a transfer; > 0; of a kill 1
    lots: "Lots | None" = None  # of a transfer, which ``account`` takes

    @property
    def key(self) -> tuple[int, int]:
        """The request key of its command, by which its event is known again."""
        digest = blake2b(self.id.encode("ascii"), digest_size=16, person=b"request").digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


class Off(msgspec.Struct, frozen=True):
    """A due that was called off; known as long as its command may still be on its way."""

    due: Due
    until: int  # log time


class Matter(msgspec.Struct):
    """One subject. Subclasses: mutable Structs of plain data, all fields with defaults."""

    name: ClassVar[str] = ""
    records: ClassVar[tuple[type[Record], ...]] = ()
    watches: ClassVar[tuple[EventKind, ...]] = ()

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Decide on a record of one of ``records``."""
        raise NotImplementedError(f"{self.name} names records and does not rule on them")

    def would(self, record: Any, at: At, state: "State") -> Ruling:
        """What ``rule`` would decide now; nothing changes. Of records by two, which are looked at
        when one proposes them."""
        raise NotImplementedError(f"{self.name} has no record by two")

    def saw(self, event: Event, at: At, state: "State") -> Sequence[Ruling] | None:
        """An event of one of ``watches``, after it was booked. None: nothing here has changed, so
        that nothing is stored again."""
        return ()

    def passed(self, at: At, state: "State") -> Sequence[Ruling]:
        """Log time has come to ``at.stamp``; called before the events of that stamp.

        Who changes here and rules on nothing says so: ``Matters.touch``.
        """
        return ()


AMatter = TypeVar("AMatter", bound=Matter)


class Dues(Matter, dict=True):
    """Commands asked for and not done yet, by id."""

    name: ClassVar[str] = "dues"
    watches: ClassVar[tuple[EventKind, ...]] = (
        EventKind.DEPOSITED,
        EventKind.WITHDRAWN,
        EventKind.FEE_CHARGED,
        EventKind.LOTS_TRANSFERRED,
        EventKind.KILLED,
    )
    open: dict[str, Due] = {}
    off: dict[str, Off] = {}  # oldest first
    done: int = 0

    def ask(self, due: Due) -> None:
        """Add a due; one that is open already must be the same."""
        assert due.amount > 0, f"a due of nothing: {due}"
        assert self.open.setdefault(due.id, due) == due, f"another due of the id {due.id}"
        self._by_key()[due.key] = due.id

    def in_order(self) -> list[Due]:
        """What is open, oldest first, but what the house pays of its own after all else: what
        somebody else has paid in for somebody must not be used up by it."""
        return sorted(self.open.values(), key=_is_from_the_house)

    def call_off(self, id: str, stamp: int) -> None:
        """Ask for a due no more. Should it be done within a day yet, it is known what for, and
        what was taken out goes back. The caller touches this matter."""
        due = self.open.pop(id, None)
        if due is not None:
            self.off[id] = Off(due, stamp + OFF_NS)

    def passed(self, at: At, state: "State") -> Sequence[Ruling]:
        """Forget what was called off so long ago that it is not on its way."""
        over = list(itertools.takewhile(lambda id: self.off[id].until <= at.stamp, self.off))
        for id in over:
            self._by_key().pop(self.off.pop(id).due.key, None)
        if over:
            state.matters.touch(Dues)
        return ()

    def of(self, event: Event) -> Due | None:
        """The due that an event is the doing of, be it one that was called off."""
        id = self._by_key().get((event.key_lo, event.key_hi)) if self.open or self.off else None
        if id in self.off:
            return self.off[id].due
        return None if id is None else self.open.get(id)

    def _by_key(self) -> dict[tuple[int, int], str]:
        """Ids by request key: made of what is known, and no part of what is stored."""
        if "by_key" not in self.__dict__:
            known = [*(one.due for one in self.off.values()), *self.open.values()]
            self.__dict__["by_key"] = {due.key: due.id for due in known}
        found: dict[tuple[int, int], str] = self.__dict__["by_key"]
        return found

    def saw(self, event: Event, at: At, state: "State") -> Sequence[Ruling]:
        """A due's event has come: it is done. One that the engine refuses stays open."""
        if event.kind == EventKind.KILLED:  # has no key: throwing a switch twice changes nothing
            of_account = event.reason == KillScope.ACCOUNT
            dues = [d for d in self.open.values() if d.kind == "kill" and of_account]
            found = next((due for due in dues if due.account == event.account), None)
        else:
            found = self.of(event)
        if found is None:
            return ()
        self._by_key().pop(found.key, None)
        if self.off.pop(found.id, None) is not None:
            if found.kind == "withdraw":
                self.ask(Due(f"{found.id} late", "deposit", found.account, found.amount))
            return (Ruling("due", "late", {"id": found.id}),)
        del self.open[found.id]
        self.done += 1
        return (Ruling("due", "done", {"id": found.id}),)


def _is_from_the_house(due: Due) -> bool:
    return due.kind != "fee" and due.id.startswith(("interest ", "discount "))


class Matters:
    """All matters of a market, in the order in which they are told of time and events.

    ``rows`` are what ``encoded`` gave when the state was stored; a matter without one begins anew.
    TRADE events are shown to nobody: positions tell of them.
    """

    def __init__(
        self, types: Sequence[type[Matter]], rows: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        matters = [
            msgspec.json.decode(rows[kind.name], type=kind) if kind.name in rows else kind()
            for kind in types
        ]
        self.all = {matter.name: matter for matter in matters}
        assert len(self.all) == len(matters), "two matters of one name"
        self.changed: set[str] = set()
        self._of_record = {kind: matter for matter in matters for kind in matter.records}
        self._of_event: dict[int, list[Matter]] = {}
        for matter in matters:
            for kind in matter.watches:
                self._of_event.setdefault(int(kind), []).append(matter)
        self._timed = [m for m in matters if type(m).passed is not Matter.passed]

    def get(self, kind: type[AMatter]) -> AMatter:
        """The market's matter of a type."""
        found = self.all[kind.name]
        assert isinstance(found, kind)
        return found

    def touch(self, kind: type[Matter]) -> None:
        """Say that a matter was changed by another one, or by time without a ruling."""
        self.changed.add(kind.name)

    @property
    def watched(self) -> frozenset[int]:
        """Kinds of events that some matter wants to see."""
        return frozenset(self._of_event)

    def rule(self, text: str, at: At, state: "State") -> Ruling | None:
        """Decide on a record's text; None if no matter names its operation."""
        record = read(text)
        if isinstance(record, Malformed):
            return Ruling(record.operation, MALFORMED, {"why": record.why})
        matter = None if record is None else self._of_record.get(type(record))
        if record is None or matter is None:
            return None
        if isinstance(record, ByTwo):
            persons = {record.proposed_by, record.approved_by} - {""}
            if len(persons) != 2:
                operation = str(record.__struct_config__.tag)
                return refused(operation, Denial.FOUR_EYES, 2, len(persons))
        self.changed.add(matter.name)
        return matter.rule(record, at, state)

    def would(self, text: str, at: At, state: "State") -> Ruling:
        """What would become of a record by two if it were approved now; nothing changes."""
        record = read(text)
        if isinstance(record, Malformed):
            return Ruling(record.operation, MALFORMED, {"why": record.why})
        assert isinstance(record, ByTwo), "a record by two"
        return self._of_record[type(record)].would(record, at, state)

    def saw(self, event: Event, at: At, state: "State") -> list[Ruling]:
        """Show an event to the matters that watch its kind."""
        rulings: list[Ruling] = []
        for matter in self._of_event.get(event.kind, ()):
            found = matter.saw(event, at, state)
            if found is not None:
                self.changed.add(matter.name)
                rulings += found
        return rulings

    def passed(self, stamp: int, sequence: int, state: "State") -> list[Ruling]:
        """Tell the matters that have deadlines what time it is."""
        at = At(sequence << INDEX_BITS, stamp, state.business_date)
        rulings: list[Ruling] = []
        for matter in self._timed:
            found = matter.passed(at, state)
            if found:
                self.changed.add(matter.name)
                rulings += found
        return rulings

    def encoded(self) -> list[tuple[str, str]]:
        """(name, JSON) of every matter that changed since the last call."""
        rows = [(n, msgspec.json.encode(self.all[n]).decode()) for n in sorted(self.changed)]
        self.changed.clear()
        return rows
