"""Matters: the subjects on which clearing decides, each a pure function of the released stream.

A matter is a Struct whose fields are its whole state. It rules on the records that it names, may
watch events, and sees log time, so that its deadlines depend on the log alone. A ruling is a row of
the store; ``number`` is that of the event that caused it.

Only the engine moves cash and lots: a matter asks for a ``Due``, the operator's desk turns it into
a command with the due's id, and the due is done when the event of that command comes back.
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
OFF_NS: Final = 86_400 * 10**9  # a command is on its way for less


class At(NamedTuple):
    """The place in the log of a decision."""

    number: int  # the causing event: sequence << INDEX_BITS | index
    stamp: int  # log time, nanoseconds
    business_date: int
    account: int = HOUSE_ACCOUNT  # that sent the command; the house's is an operator
    text: str = ""  # of the command


class Ruling(NamedTuple):
    """A decision: its outcome is ``accepted``, a named event, or a named refusal."""

    operation: str
    outcome: str
    facts: dict[str, Any]


def refused(operation: str, denial: Denial, limit: object = 0, observed: object = 0) -> Ruling:
    """Return the ruling of a refused record: name and number, limit and observed value."""
    facts: dict[str, Any] = {"number": int(denial), "limit": limit, "observed": observed}
    return Ruling(operation, denial.name.lower(), facts)


class Lots(msgspec.Struct, frozen=True):
    """The other fields of a due of lots: see TRANSFER in docs/reference/engine.md."""

    kind: int  # TransferKind
    other: int  # account
    sells: bool  # the account that takes them
    instrument: int
    price: int  # clearing price


class Due(msgspec.Struct, frozen=True):
    """A command that clearing requests. By its ``id`` it happens at most once."""

    id: str
    kind: Literal["deposit", "withdraw", "fee", "transfer", "kill"]
    account: int
    amount: int  # micro-dollars, or lots of a transfer; > 0; of a kill 1
    lots: "Lots | None" = None  # of a transfer, which ``account`` takes

    @property
    def key(self) -> tuple[int, int]:
        """The request key of its command, by which its event is recognized."""
        digest = blake2b(self.id.encode("ascii"), digest_size=16, person=b"request").digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


class Off(msgspec.Struct, frozen=True):
    """A due that was called off, kept as long as its command may still be on its way."""

    due: Due
    until: int  # log time


class Matter(msgspec.Struct):
    """One subject. Subclasses are mutable Structs of plain data whose fields all have defaults."""

    name: ClassVar[str] = ""
    records: ClassVar[tuple[type[Record], ...]] = ()
    watches: ClassVar[tuple[EventKind, ...]] = ()

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Rule on a record of one of ``records``."""
        raise NotImplementedError(f"{self.name} names records and does not rule on them")

    def would(self, record: Any, at: At, state: "State") -> Ruling:
        """Return what ``rule`` would decide now, without any change. For records by two, which are
        checked when they are proposed."""
        raise NotImplementedError(f"{self.name} has no record by two")

    def saw(self, event: Event, at: At, state: "State") -> Sequence[Ruling] | None:
        """See an event of one of ``watches`` after it was booked. Returns None if the matter has
        not changed, so that it is not stored again."""
        return ()

    def passed(self, at: At, state: "State") -> Sequence[Ruling]:
        """See that log time has reached ``at.stamp``, before the events of that stamp.

        A matter that changes here without a ruling must call ``Matters.touch``.
        """
        return ()


AMatter = TypeVar("AMatter", bound=Matter)


class Dues(Matter, dict=True):
    """The dues that are open, and those called off a short time ago, by id."""

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
        """Add a due. AssertionError if another due of that id is open."""
        assert due.amount > 0, f"a due of nothing: {due}"
        assert self.open.setdefault(due.id, due) == due, f"another due of the id {due.id}"
        self._by_key()[due.key] = due.id

    def in_order(self) -> list[Due]:
        """Return the open dues, oldest first, but those that the house pays of its own money last:
        they must not use up what one account has paid for another."""
        return sorted(self.open.values(), key=_is_from_the_house)

    def call_off(self, id: str, stamp: int) -> None:
        """Call off a due, if it is open. If its command is executed within a day nevertheless, its
        purpose is still known, and a withdrawal is paid back. The caller touches this matter."""
        due = self.open.pop(id, None)
        if due is not None:
            self.off[id] = Off(due, stamp + OFF_NS)

    def passed(self, at: At, state: "State") -> Sequence[Ruling]:
        """Forget dues that were called off so long ago that their commands are not on their way."""
        over = list(itertools.takewhile(lambda id: self.off[id].until <= at.stamp, self.off))
        for id in over:
            self._by_key().pop(self.off.pop(id).due.key, None)
        if over:
            state.matters.touch(Dues)
        return ()

    def of(self, event: Event) -> Due | None:
        """Return the due that an event has executed, including one that was called off; or None."""
        id = self._by_key().get((event.key_lo, event.key_hi)) if self.open or self.off else None
        if id in self.off:
            return self.off[id].due
        return None if id is None else self.open.get(id)

    def _by_key(self) -> dict[tuple[int, int], str]:
        """Return ids by request key: derived from the state and not stored."""
        if "by_key" not in self.__dict__:
            known = [*(one.due for one in self.off.values()), *self.open.values()]
            self.__dict__["by_key"] = {due.key: due.id for due in known}
        found: dict[tuple[int, int], str] = self.__dict__["by_key"]
        return found

    def saw(self, event: Event, at: At, state: "State") -> Sequence[Ruling]:
        """End the due that an event has executed. A due that the engine refuses stays open."""
        if event.kind == EventKind.KILLED:  # has no key, and is idempotent
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
    """All matters of a market, in the order in which they see time and events.

    ``rows`` are the stored results of ``encoded``; a matter without a row starts empty. No matter
    sees TRADE events; positions show their effect.
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
        """Return the market's matter of a type."""
        found = self.all[kind.name]
        assert isinstance(found, kind)
        return found

    def touch(self, kind: type[Matter]) -> None:
        """Mark a matter as changed by another matter, or by time without a ruling."""
        self.changed.add(kind.name)

    @property
    def watched(self) -> frozenset[int]:
        """The kinds of events that some matter watches."""
        return frozenset(self._of_event)

    def rule(self, text: str, at: At, state: "State") -> Ruling | None:
        """Rule on a record's text; None if no matter names its operation."""
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
        """Return the ruling that a record by two would get now, without any change."""
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
        """Show log time to the matters that have deadlines."""
        at = At(sequence << INDEX_BITS, stamp, state.business_date)
        rulings: list[Ruling] = []
        for matter in self._timed:
            found = matter.passed(at, state)
            if found:
                self.changed.add(matter.name)
                rulings += found
        return rulings

    def encoded(self) -> list[tuple[str, str]]:
        """Return (name, JSON) of every matter that changed since the last call."""
        rows = [(n, msgspec.json.encode(self.all[n]).decode()) for n in sorted(self.changed)]
        self.changed.clear()
        return rows
