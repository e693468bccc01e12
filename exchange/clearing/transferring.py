"""Transfers as a matter of the stream: what an operator moves between accounts of the book."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from exchange.clearing.matters import ACCEPTED, At, Matter, Ruling
from exchange.clearing.moves import refused
from exchange.clearing.outcomes import Transfer
from exchange.clearing.records import Record
from exchange.clearing.refusals import Denial
from exchange.clearing.transfers import Account
from exchange.messages import HOUSE_ACCOUNT

if TYPE_CHECKING:
    from exchange.clearing.state import State

BATCH_MAX = 8_190  # transfers of one record


class OpenLedgerAccount(Record, frozen=True, kw_only=True, tag="open_ledger_account"):
    """Opens an account of the book. ``limit``: "debits" forbids an overdraft."""

    id: str
    ledger: str = "USD"
    limit: Literal["", "debits", "credits"] = ""


class MakeTransfers(Record, frozen=True, kw_only=True, tag="make_transfers"):
    """A batch of transfers, judged in order; the ruling has an outcome for each."""

    batch: list[Transfer]


class Transferring(Matter):
    """Knows nothing itself: accounts and rows are the book's."""

    name: ClassVar[str] = "transferring"
    records: ClassVar[tuple[type[Record], ...]] = (OpenLedgerAccount, MakeTransfers)

    def rule(self, record: Any, at: At, state: "State") -> Ruling:
        """Open an account, or judge a batch. Both are the operator's alone."""
        operation = str(record.__struct_config__.tag)
        if at.account != HOUSE_ACCOUNT:
            return refused(operation, Denial.NOT_YOURS, HOUSE_ACCOUNT, at.account)
        if isinstance(record, OpenLedgerAccount):
            if not state.book.open(Account(record.id, record.ledger, record.limit)):
                return refused(operation, Denial.DUPLICATE, 1, record.id)
            return Ruling(operation, ACCEPTED, msgspec.structs.asdict(record))
        if len(record.batch) > BATCH_MAX:
            return refused(operation, Denial.QUANTITY, BATCH_MAX, len(record.batch))
        outcomes = state.book.apply(record.batch, at.stamp)
        return Ruling(operation, ACCEPTED, {"outcomes": [o.name.lower() for o in outcomes]})
