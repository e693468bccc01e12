"""Records of hedges: orders that the manager of a default enters for the defaulter.

The record and its order are logged in one batch, the record right before the order. So a repeat of
the request id is recognized, and the result of the hedge is what the next sequence traded.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from exchange.clearing.default.matter import Defaults
from exchange.clearing.matters import ACCEPTED, At, Matter, Ruling
from exchange.clearing.moves import refused
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State

HEDGE: Final = "hedge"


class Hedged(Record, frozen=True, kw_only=True, tag=HEDGE):
    """A hedge on one of the defaulter's own accounts; ``price`` is its limit as requested, in
    dollars per GPU-hour."""

    request_id: str
    default: int
    code: str
    side: Literal["buy", "sell"]
    lots: int
    price: str
    account: int


class Hedges(Matter):
    """Rules on hedges; it has no state, since the rulings keep them."""

    name: ClassVar[str] = "hedges"
    records: ClassVar[tuple[type[Record], ...]] = (Hedged,)

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Decide on a record."""
        if at.account != HOUSE_ACCOUNT:
            return refused(HEDGE, Denial.NOT_YOURS, at.account, HOUSE_ACCOUNT)
        defaults = len(state.matters.get(Defaults).defaults)
        if not 1 <= record.default <= defaults:
            return refused(HEDGE, Denial.UNKNOWN_DEFAULT, defaults, record.default)
        facts = {name: getattr(record, name) for name in Hedged.__struct_fields__}
        del facts["nonce"]
        return Ruling(HEDGE, ACCEPTED, facts)
