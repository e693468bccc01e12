"""Records of transfers: what an operator moves between accounts of the book of transfers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

import msgspec

from exchange.clearing.matters import ACCEPTED, At, Matter, Ruling
from exchange.clearing.moves import refused
from exchange.clearing.outcomes import Transfer
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.clearing.transfers import ID_CHARS, NEARLY_FULL, Account
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State

OWN_ACCOUNTS: Final = frozenset(
    {
        "market",
        "outside",
        "capital",
        "fund",
        "escrow",
        "payable",
        "returned",
        "site",
        "hours",
        "custody",
        "pledged",
    }
)
BATCH_MAX: Final = 8_190  # transfers of one record
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_CHARS, pattern=r"^[ -~]+\Z")]


class OpenLedgerAccount(Record, frozen=True, kw_only=True, tag="open_ledger_account"):
    """Opens an account of the book; the limit "debits" forbids an overdraft."""

    id: Name
    ledger: Name = "USD"
    limit: Literal["", "debits", "credits"] = ""


class MakeTransfers(Record, frozen=True, kw_only=True, tag="make_transfers"):
    """A batch of transfers, applied in order; the ruling has the outcome of each."""

    batch: list[Transfer]


class Transferring(Matter):
    """The end of the next hold; accounts and rows are in the book."""

    name: ClassVar[str] = "transferring"
    records: ClassVar[tuple[type[Record], ...]] = (OpenLedgerAccount, MakeTransfers)
    soonest: int = 0  # log time of the next release of a hold; 0: none

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Open an account, or apply a batch; only for the operator."""
        operation = str(record.__struct_config__.tag)
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        if isinstance(record, OpenLedgerAccount):
            if _is_own(record.id):
                return refused(operation, Denial.NOT_YOURS, "the clearing house's own", record.id)
            if not state.book.open(Account(record.id, record.ledger, record.limit)):
                return refused(operation, Denial.DUPLICATE, 1, record.id)
            return Ruling(operation, ACCEPTED, msgspec.structs.asdict(record))
        taken = next((name for t in record.batch for name in _names(t) if _is_own(name)), None)
        if taken is not None:
            return refused(operation, Denial.NOT_YOURS, "the clearing house's own", taken)
        if len(record.batch) > BATCH_MAX:
            return refused(operation, Denial.QUANTITY, BATCH_MAX, len(record.batch))
        outcomes = state.book.apply(record.batch, at.stamp)
        self.soonest = state.book.soonest
        facts: dict[str, Any] = {"outcomes": [o.name.lower() for o in outcomes]}
        if state.book.left < NEARLY_FULL:
            facts["rows_left"] = state.book.left
        return Ruling(operation, ACCEPTED, facts)

    def passed(self, at: At, state: "State") -> Sequence[Ruling]:
        """Update the end of the next hold, after the book has released the previous one."""
        if self.soonest and at.stamp >= self.soonest:
            self.soonest = state.book.soonest
            state.matters.touch(Transferring)
        return ()


def _names(transfer: Transfer) -> tuple[str, ...]:
    return transfer.id, transfer.pending_id, transfer.debit, transfer.credit


def _is_own(name: str) -> bool:
    """Return whether a name is reserved for clearing: its accounts, and every id with a space.

    So nobody else can move what deliveries and defaults hold in the book, or use an id of theirs.
    """
    return " " in name or name.partition("/")[0] in OWN_ACCOUNTS
