"""Transfers that may be refused: the ledger's rules for what people ask of it.

The engine's own deltas are booked by ``exchange.clearing.ledger`` and never refused. Whatever else
moves between accounts (collateral, escrow, GPU-hours) is a transfer: integers, one ledger (unit of
account) each, judged one after the other in the order of the batch. Pure: no clock, no files.

Invariants, each held by a test and a mutant (tests/test_ledger_invariants.py):
    every row moves as much to the credit side as to the debit side, in one ledger
    rows are only added; the hash of a batch of rows covers the hash before it
    an id is answered once: known ones get their first outcome, refused ones stay refused
    debits_posted, credits_posted, *_pending = the sums of the rows; all >= 0
    an account with a limit never passes it; a hold ends once: posted, voided or expired
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Final, Protocol

import msgspec

from exchange.clearing.outcomes import SPENDS_ID, Outcome, Transfer, TransferKind

AMOUNT_MAX: Final = 1 << 60  # of one amount and of every total of an account
TRANSFERS_MAX: Final = 1 << 24  # rows of one ledger
NEARLY_FULL: Final = 1 << 20  # so many left are told of
ID_CHARS: Final = 64
TIMEOUT_MAX: Final = (1 << 31) - 1  # seconds
SECOND: Final = 1_000_000_000
GENESIS: Final = bytes(32)

_PLAIN: Final = int(TransferKind.PLAIN)
_PENDING: Final = int(TransferKind.PENDING)
_POST: Final = int(TransferKind.POST)
_VOID: Final = int(TransferKind.VOID)
_REVERSE: Final = int(TransferKind.REVERSE)
_EXPIRE: Final = int(TransferKind.EXPIRE)
_OK: Final = int(Outcome.OK)
OK: Final = Outcome.OK  # an attribute of an enumeration is looked up slowly
_STATE_OF: Final = {_POST: "posted", _VOID: "voided", _EXPIRE: "expired"}
_RESOLVED: Final = {
    "posted": Outcome.PENDING_TRANSFER_ALREADY_POSTED,
    "voided": Outcome.PENDING_TRANSFER_ALREADY_VOIDED,
    "expired": Outcome.PENDING_TRANSFER_EXPIRED,
}


class Account:
    """One account: its ledger, what bounds it, and its four totals.

    ``limit``: "debits" keeps debits, pending ones included, within posted credits (no overdraft);
    "credits" the other way round; "" bounds nothing.
    """

    __slots__ = ("credits_pending", "credits_posted", "debits_pending", "debits_posted", "id",
                 "ledger", "limit")  # fmt: skip

    def __init__(self, id: str, ledger: str = "USD", limit: str = "", *totals: int) -> None:
        self.id, self.ledger, self.limit = id, ledger, limit
        (self.debits_pending, self.debits_posted, self.credits_pending, self.credits_posted) = (
            totals or (0, 0, 0, 0)
        )

    def totals(self) -> tuple[int, int, int, int]:
        """Debits pending and posted, credits pending and posted."""
        return (
            self.debits_pending, self.debits_posted, self.credits_pending, self.credits_posted
        )  # fmt: skip

    @property
    def free(self) -> int:
        """What may still be debited without passing posted credits."""
        return max(self.credits_posted - self.debits_posted - self.debits_pending, 0)

    @property
    def room(self) -> int:
        """What may still be credited without passing posted debits."""
        return max(self.debits_posted - self.credits_posted - self.credits_pending, 0)


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One line of the transfers' journal: what was applied, or an id that a refusal spent."""

    number: int  # 1, 2, 3, ...
    stamp: int
    outcome: int
    kind: int
    flags: int
    id: str
    debit: str
    credit: str
    amount: int  # what moved; of a balancing transfer perhaps less than asked for
    pending_id: str
    timeout: int
    ledger: str


class Older(Protocol):
    """The rows before those that a book has in memory; holds that are open it has, all the same."""

    def row(self, id: str) -> Row | None:
        """The row of an id, but for expiries."""

    def ended(self, id: str) -> str | None:
        """How a hold ended; None: it has not, or there is none."""

    def is_reversed(self, id: str) -> bool:
        """Whether a transfer was compensated."""


class Book:
    """Accounts, rows and ids. ``apply`` judges; ``replay`` folds rows that were judged before."""

    def __init__(self, *, amount_max: int = AMOUNT_MAX, transfers_max: int = TRANSFERS_MAX) -> None:
        self.accounts: dict[str, Account] = {}
        self.head = GENESIS
        self.count = 0  # rows so far
        self.fresh: list[Row] = []  # rows of the batch in work
        self.opened: list[Account] = []  # since ``take``
        self.sequence = 0  # of the command in work: what is applied next is filed under it
        self.sealed: list[tuple[int, int, bytes]] = []  # since ``take``: last row, sequence, hash
        self._amount_max, self._transfers_max = amount_max, transfers_max
        self._full = False  # whether the batch in work may come to the limit
        self._rows: dict[str, Row] = {}  # by id
        self._holds: dict[str, str] = {}  # id of a pending transfer -> "", or how it ended
        self._reversed: set[str] = set()
        self._deadlines: list[tuple[int, int, str]] = []
        self._older: Older | None = None

    def resume(self, count: int, head: bytes, holds: Iterable[Row], older: Older) -> None:
        """Go on behind ``count`` rows, which ``older`` has; its accounts are open, with what these
        rows have moved, and so are ``holds``."""
        self.count, self.head, self._older = count, head, older
        for row in holds:
            self._rows[row.id], self._holds[row.id] = row, ""
            self._run(row)

    def open(self, account: Account) -> bool:
        """Add an account; False if its id is taken."""
        if account.id in self.accounts:
            return False
        self.accounts[account.id] = account
        self.opened.append(account)
        return True

    def advance(self, stamp: int) -> list[Row]:
        """Log time has come to ``stamp``: holds whose time is over are released, oldest first."""
        rows = self._expire(stamp)
        self._seal(rows)
        return rows

    @property
    def left(self) -> int:
        """Rows that may still be added by others than the clearing house itself."""
        return max(0, self._transfers_max - self.count)

    def apply(self, batch: Sequence[Transfer], stamp: int, *, own: bool = False) -> list[Outcome]:
        """Judge a batch in order; linked transfers stand or fall with the one after them.

        ``own``: the clearing house's, which a full ledger takes all the same.
        """
        fresh = self._expire(stamp)
        self._full = not own and self.count + len(batch) > self._transfers_max
        outcomes: list[Outcome] = []
        start = -1  # of the open chain: place in ``outcomes``
        kept, broken = 0, False
        last = len(batch) - 1
        for place, transfer in enumerate(batch):
            linked = transfer.linked
            if linked and start < 0:
                start, kept, broken = place, len(fresh), False
            if broken:
                outcome = Outcome.LINKED_EVENT_FAILED
            elif linked and place == last:
                outcome = Outcome.LINKED_EVENT_CHAIN_OPEN
            else:
                outcome = self._judge(transfer, stamp, fresh)
            if start >= 0:
                if outcome and outcome not in _FINE and not broken:
                    broken = True
                    self._undo(fresh, kept)
                    outcomes[start:] = [Outcome.LINKED_EVENT_FAILED] * (place - start)
                if not linked:
                    start, broken = -1, False
                elif broken and place == last:
                    outcome = Outcome.LINKED_EVENT_CHAIN_OPEN
            if outcome and outcome in SPENDS_ID:  # hashing an enumeration's member is slow
                self._spend(transfer, outcome, stamp, fresh)
            outcomes.append(outcome)
        self._seal(fresh)
        return outcomes

    def replay(self, rows: Iterable[Row]) -> None:
        """Fold the rows of one batch, as ``apply`` or ``advance`` made them."""
        fresh: list[Row] = []
        for row in rows:
            self._enter(row, fresh)
        self._seal(fresh)

    @property
    def soonest(self) -> int:
        """When an open hold's time is over next; 0: no time is running."""
        while self._deadlines and not self.held(self._deadlines[0][2]):
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else 0

    def find(self, id: str) -> Row | None:
        """The row of an id."""
        row = self._rows.get(id)
        return row if row is not None or self._older is None else self._older.row(id)

    def held(self, id: str) -> bool:
        """Whether a pending transfer still holds its amount."""
        return self._holds.get(id) == ""

    def take(self) -> tuple[list[Row], list[Account], list[tuple[int, int, bytes]]]:
        """What a store has to write: rows, accounts and sealed batches since the last call."""
        rows, opened, sealed = self.fresh, self.opened, self.sealed
        self.fresh, self.opened, self.sealed = [], [], []
        moved = dict.fromkeys([row.debit for row in rows])
        moved.update(dict.fromkeys([row.credit for row in rows]))
        accounts = self.accounts
        return rows, [*opened, *(accounts[id] for id in moved if id in accounts)], sealed

    def check(self) -> None:
        """AssertionError unless every ledger balances and no total is negative."""
        sums: dict[str, list[int]] = {}
        for account in self.accounts.values():
            totals = account.totals()
            assert min(totals) >= 0, f"{account.id}: {totals}"
            assert account.limit != "debits" or sum(totals[:2]) <= totals[3], account.id
            assert account.limit != "credits" or sum(totals[2:]) <= totals[1], account.id
            found = sums.setdefault(account.ledger, [0, 0])
            found[0] += totals[0] - totals[2]
            found[1] += totals[1] - totals[3]
        assert not any(map(any, sums.values())), f"ledgers do not balance: {sums}"

    # Judging: precedence is the order of Outcome's numbers (docs/reference/ledger.md).

    def _judge(self, t: Transfer, stamp: int, fresh: list[Row]) -> Outcome:
        """Judge one transfer and, if nothing speaks against it, enter its row."""
        kind = t.kind
        id = t.id
        if not (0 < len(id) <= ID_CHARS and id.isascii()):
            return Outcome.ID_FORMAT
        known = self._rows.get(id)
        if known is None and self._older is not None:
            known = self._older.row(id)
        if known is not None:
            return self._known(t, known)
        if self._full and self.count >= self._transfers_max and kind not in (_POST, _VOID):
            return Outcome.LEDGER_FULL
        if 0 <= kind <= _PENDING:
            found = self._movement(t, stamp)
        elif kind == _REVERSE:
            found = self._reversal(t, stamp)
        elif kind in (_POST, _VOID):
            found = self._resolution(t, stamp)
        else:
            return Outcome.FLAGS_COMBINATION
        if isinstance(found, Outcome):
            return found
        self._enter(found, fresh)
        return OK

    def _movement(self, t: Transfer, stamp: int) -> Row | Outcome:
        """A plain or pending transfer."""
        amount, kind, limit = t.amount, t.kind, self._amount_max
        if t.pending_id:
            return Outcome.PENDING_ID_MUST_NOT_BE_GIVEN
        if amount is None or not 0 <= amount <= limit:
            return Outcome.AMOUNT_RANGE
        if t.debit == t.credit:
            return Outcome.ACCOUNTS_MUST_BE_DIFFERENT
        timeout = t.timeout
        if timeout and kind != _PENDING:
            return Outcome.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
        debit = self.accounts.get(t.debit)
        if debit is None:
            return Outcome.DEBIT_ACCOUNT_NOT_FOUND
        credit = self.accounts.get(t.credit)
        if credit is None:
            return Outcome.CREDIT_ACCOUNT_NOT_FOUND
        if debit.ledger != credit.ledger:
            return Outcome.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER
        if t.balancing:
            amount = min(amount, debit.free if t.balancing == "debit" else credit.room)
        outcome = _overflow(debit, credit, amount, kind, limit)
        if outcome:
            return outcome
        if not 0 <= timeout <= TIMEOUT_MAX:
            return Outcome.OVERFLOWS_TIMEOUT
        if debit.limit == "debits" and amount > (
            debit.credits_posted - debit.debits_posted - debit.debits_pending
        ):
            return Outcome.EXCEEDS_CREDITS
        if credit.limit == "credits" and amount > (
            credit.debits_posted - credit.credits_posted - credit.credits_pending
        ):
            return Outcome.EXCEEDS_DEBITS
        return Row(self.count + 1, stamp, _OK, kind, t.flags, t.id, t.debit, t.credit, amount, "",
                   timeout, debit.ledger)  # fmt: skip

    def _resolution(self, t: Transfer, stamp: int) -> Row | Outcome:
        """The end of a hold: it is posted, all or part of it, or voided."""
        if not t.pending_id:
            return Outcome.PENDING_ID_MUST_BE_GIVEN
        if t.pending_id == t.id:
            return Outcome.PENDING_ID_MUST_BE_DIFFERENT
        if t.balancing:
            return Outcome.FLAGS_COMBINATION
        if t.amount is not None and not 0 <= t.amount <= self._amount_max:
            return Outcome.AMOUNT_RANGE
        if t.timeout:
            return Outcome.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
        hold = self.find(t.pending_id)
        if hold is None or hold.outcome != _OK:
            return Outcome.PENDING_TRANSFER_NOT_FOUND
        if hold.kind != _PENDING:
            return Outcome.PENDING_TRANSFER_NOT_PENDING
        if t.debit and t.debit != hold.debit:
            return Outcome.PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID
        if t.credit and t.credit != hold.credit:
            return Outcome.PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID
        amount = hold.amount if t.amount is None else t.amount
        if amount > hold.amount:
            return Outcome.EXCEEDS_PENDING_TRANSFER_AMOUNT
        if t.kind == _VOID and amount != hold.amount:
            return Outcome.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT
        ended = self._holds.get(t.pending_id)
        if ended is None and self._older is not None:
            ended = self._older.ended(t.pending_id)
        if ended:
            return _RESOLVED[ended]
        return Row(self.count + 1, stamp, _OK, t.kind, t.flags, t.id, hold.debit, hold.credit,
                   amount, t.pending_id, 0, hold.ledger)  # fmt: skip

    def _reversal(self, t: Transfer, stamp: int) -> Row | Outcome:
        """Compensation: the exact mirror of what was posted before, once."""
        if not t.pending_id:
            return Outcome.PENDING_ID_MUST_BE_GIVEN
        if t.pending_id == t.id:
            return Outcome.PENDING_ID_MUST_BE_DIFFERENT
        if t.balancing or t.amount is not None or t.debit or t.credit:
            return Outcome.FLAGS_COMBINATION
        if t.timeout:
            return Outcome.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
        first = self.find(t.pending_id)
        if first is None or first.outcome != _OK:
            return Outcome.REVERSED_TRANSFER_NOT_FOUND
        if first.kind not in (_PLAIN, _POST):
            return Outcome.REVERSED_TRANSFER_NOT_POSTED
        older = self._older
        if first.id in self._reversed or (older is not None and older.is_reversed(first.id)):
            return Outcome.TRANSFER_ALREADY_REVERSED
        debit, credit = self.accounts[first.credit], self.accounts[first.debit]
        outcome = _overflow(debit, credit, first.amount, _PLAIN, self._amount_max)
        if outcome:
            return outcome
        if debit.limit == "debits" and first.amount > debit.free:
            return Outcome.EXCEEDS_CREDITS
        if credit.limit == "credits" and first.amount > credit.room:
            return Outcome.EXCEEDS_DEBITS
        return Row(self.count + 1, stamp, _OK, _REVERSE, t.flags, t.id, debit.id, credit.id,
                   first.amount, first.id, 0, first.ledger)  # fmt: skip

    def _known(self, t: Transfer, row: Row) -> Outcome:
        """What an id is answered that was seen before: its first outcome, or what differs."""
        if row.outcome != _OK:
            return Outcome.ID_ALREADY_FAILED
        if t.flags != row.flags:
            return Outcome.EXISTS_WITH_DIFFERENT_FLAGS
        if t.pending_id != row.pending_id:
            return Outcome.EXISTS_WITH_DIFFERENT_PENDING_ID
        resolves = row.kind in (_POST, _VOID, _REVERSE)
        if t.debit != row.debit and (t.debit or not resolves):
            return Outcome.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID
        if t.credit != row.credit and (t.credit or not resolves):
            return Outcome.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID
        amount = t.amount
        if amount is None and resolves and (first := self.find(row.pending_id)) is not None:
            amount = first.amount
        # Of a balancing transfer only what moved is kept: as much or more may have been asked.
        if amount is None or amount < row.amount or (amount > row.amount and not t.balancing):
            return Outcome.EXISTS_WITH_DIFFERENT_AMOUNT
        if t.timeout != row.timeout:
            return Outcome.EXISTS_WITH_DIFFERENT_TIMEOUT
        return Outcome.EXISTS

    # Moving: a row and nothing else changes balances.

    def _enter(self, row: Row, fresh: list[Row]) -> None:
        """Add a row and move what it says."""
        fresh.append(row)
        self.count += 1
        if row.kind != _EXPIRE:
            self._rows[row.id] = row
        if row.outcome == _OK:
            self._move(row, 1)

    def _move(self, row: Row, sign: int) -> None:
        """Add a row's effect to its two accounts, or with ``sign`` -1 take it back."""
        kind, amount = row.kind, sign * row.amount
        debit, credit = self.accounts[row.debit], self.accounts[row.credit]
        if kind == _PENDING:
            debit.debits_pending += amount
            credit.credits_pending += amount
            if sign > 0:
                self._holds[row.id] = ""
            else:
                del self._holds[row.id]
            return
        if kind != _PLAIN and kind in _STATE_OF:
            held = sign * self._rows[row.pending_id].amount
            debit.debits_pending -= held
            credit.credits_pending -= held
            self._holds[row.pending_id] = _STATE_OF[kind] if sign > 0 else ""
            if kind != _POST:
                return
        elif kind == _REVERSE:
            (self._reversed.add if sign > 0 else self._reversed.discard)(row.pending_id)
        debit.debits_posted += amount
        credit.credits_posted += amount

    def _undo(self, fresh: list[Row], kept: int) -> None:
        """Take back the rows after the first ``kept``: their chain has failed."""
        while len(fresh) > kept:
            row = fresh.pop()
            self.count -= 1
            if row.outcome == _OK:
                self._move(row, -1)
            del self._rows[row.id]

    def _spend(self, t: Transfer, outcome: Outcome, stamp: int, fresh: list[Row]) -> None:
        """Keep the id of a refusal that another day might not have met."""
        row = Row(self.count + 1, stamp, int(outcome), t.kind, t.flags, t.id, t.debit[:ID_CHARS],
                  t.credit[:ID_CHARS], 0, t.pending_id[:ID_CHARS], 0, "")  # fmt: skip
        self._enter(row, fresh)

    def _expire(self, stamp: int) -> list[Row]:
        """Enter the expiry of every hold due by ``stamp``, in (due, number) order."""
        rows: list[Row] = []
        while self._deadlines and self._deadlines[0][0] <= stamp:
            _, number, id = heappop(self._deadlines)
            hold = self._rows.get(id)
            if hold is not None and hold.number == number and self._holds.get(id) == "":
                row = Row(self.count + 1, stamp, _OK, _EXPIRE, 0, f"§{self.count + 1}",
                          hold.debit, hold.credit, 0, id, 0, hold.ledger)  # fmt: skip
                self._enter(row, rows)
        return rows

    def _seal(self, fresh: list[Row]) -> None:
        """Chain the rows of a finished batch to all before them; its holds' times begin to run,
        which those of a chain that failed never do."""
        if fresh:
            for row in fresh:
                if row.timeout:  # of a hold alone
                    self._run(row)
            self.head = self._link(fresh)
            self.fresh += fresh
            self.sealed.append((self.count, self.sequence, self.head))

    def _run(self, row: Row) -> None:
        """A hold's time begins to run, if it has one."""
        if row.timeout:
            heappush(self._deadlines, (row.stamp + row.timeout * SECOND, row.number, row.id))

    def _link(self, rows: Sequence[Row]) -> bytes:
        return link(self.head, rows)


_FINE: Final = frozenset({Outcome.OK, Outcome.EXISTS})


def link(previous: bytes, rows: Sequence[Row]) -> bytes:
    """The hash of a batch of rows: over the hash before it and every field of every row."""
    return blake2b(previous + msgspec.msgpack.encode(rows), digest_size=32).digest()


def _overflow(
    debit: Account, credit: Account, amount: int, kind: int, limit: int
) -> Outcome | None:
    """Which total would pass the limit: pending, posted, then their sum; debit side first."""
    if (
        debit.debits_pending + debit.debits_posted + amount <= limit
        and credit.credits_pending + credit.credits_posted + amount <= limit
    ):
        return None  # no total is negative: what holds for the sums holds for their parts
    if kind == _PENDING:
        if debit.debits_pending + amount > limit:
            return Outcome.OVERFLOWS_DEBITS_PENDING
        if credit.credits_pending + amount > limit:
            return Outcome.OVERFLOWS_CREDITS_PENDING
    else:
        if debit.debits_posted + amount > limit:
            return Outcome.OVERFLOWS_DEBITS_POSTED
        if credit.credits_posted + amount > limit:
            return Outcome.OVERFLOWS_CREDITS_POSTED
    if debit.debits_pending + debit.debits_posted + amount > limit:
        return Outcome.OVERFLOWS_DEBITS
    if credit.credits_pending + credit.credits_posted + amount > limit:
        return Outcome.OVERFLOWS_CREDITS
    return None
