"""Settlement prices that people set: two of them, each a record of its own.

One proposes a price for an instrument and date, another approves it within the time. A date that
is settled stays settled: another price for it needs a proposal that says it is a correction, and
is settled as the next cycle of that date. This matter also knows when a date closed and which
cycles have been settled.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from exchange.clearing.matters import ACCEPTED, At, Matter, Ruling
from exchange.clearing.moves import refused
from exchange.clearing.records import ApprovePrice, ProposePrice, Record
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT, Event, EventKind, Limit

if TYPE_CHECKING:
    from exchange.clearing.state import State

APPROVAL_NS: Final = 600 * 1_000_000_000  # a proposal that nobody approves by then is void


class Proposed(msgspec.Struct, frozen=True):
    """A proposal as it stands."""

    record: ProposePrice
    stamp: int
    approved_by: str = ""


class Prices(Matter):
    """Proposals of the business date, the cycles settled, and when the date closed."""

    name: ClassVar[str] = "prices"
    records: ClassVar[tuple[type[Record], ...]] = (ProposePrice, ApprovePrice)
    watches: ClassVar[tuple[EventKind, ...]] = (
        EventKind.DAY_CLOSED,
        EventKind.DAY_OPENED,
        EventKind.INSTRUMENT_SETTLED,
    )
    closed: int = 0  # stamp of the date's close; 0 while it is open
    proposals: dict[int, Proposed] = msgspec.field(default_factory=dict)  # by event number
    cycles: dict[int, int] = msgspec.field(default_factory=dict)  # instrument -> last settled

    def saw(self, event: Event, at: At, state: "State") -> list[Ruling]:
        """Keep the close, forget the day before, and use up what a settlement has used."""
        if event.kind == EventKind.DAY_CLOSED:
            self.closed = at.stamp
        elif event.kind == EventKind.DAY_OPENED:
            self.closed, self.proposals, self.cycles = 0, {}, {}
        else:
            self.cycles[event.instrument] = event.quantity
        return []

    def approved(self) -> dict[int, tuple[int, int]]:
        """(price, cycle) that two persons want and that is not settled yet, by instrument."""
        return {
            p.record.instrument: (p.record.price, p.record.cycle)
            for p in self.proposals.values()
            if p.approved_by and p.record.cycle > self.cycles.get(p.record.instrument, 0)
        }

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """A proposal or an approval."""
        if isinstance(record, ProposePrice):
            return self._propose(record, at, state)
        return self._approve(record, at)

    def _propose(self, record: ProposePrice, at: At, state: "State") -> Ruling:
        operation, done = "propose_price", self.cycles.get(record.instrument, 0)
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        if record.instrument not in state.instruments:
            return refused(operation, Denial.UNKNOWN_INSTRUMENT, 0, record.instrument)
        if record.business_date != state.business_date:
            observed = record.business_date
            return refused(operation, Denial.SETTLED, state.business_date, observed)
        if not 0 < record.price <= Limit.PRICE:
            return refused(operation, Denial.PRICE_RANGE, int(Limit.PRICE), record.price)
        if record.cycle != done + 1 or record.correction != bool(done):
            return refused(operation, Denial.SETTLED, done, record.cycle)
        self.proposals[at.number] = Proposed(record, at.stamp)
        return Ruling(operation, ACCEPTED, {"proposal": at.number})

    def _approve(self, record: ApprovePrice, at: At) -> Ruling:
        operation, number = "approve_price", record.proposal
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        proposed = self.proposals.get(number)
        if proposed is None:
            return refused(operation, Denial.UNKNOWN_PROPOSAL, 0, number)
        if proposed.approved_by:
            return refused(operation, Denial.PROPOSAL_STATE, 0, number)
        if record.person == proposed.record.person:
            return refused(operation, Denial.FOUR_EYES, 2, 1)
        if at.stamp - proposed.stamp > APPROVAL_NS:
            return refused(operation, Denial.EXPIRED, APPROVAL_NS, at.stamp - proposed.stamp)
        self.proposals[number] = Proposed(proposed.record, proposed.stamp, record.person)
        asked = proposed.record
        return Ruling(
            operation,
            ACCEPTED,
            {"instrument": asked.instrument, "cycle": asked.cycle, "price": asked.price},
        )
