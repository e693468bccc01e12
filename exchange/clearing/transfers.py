"""The book of transfers, in memory: accounts, rows, and the rules by which transfers are refused.

What the engine did is booked by ``exchange.clearing.ledger`` and never refused. All else that moves
between accounts (collateral, escrow, GPU-hours) is a transfer: an integer amount in one ledger
(unit of account). The transfers of a batch are judged one after the other, in order. There is no
clock and no file here.

Invariants, each with a test and a mutant (tests/test_ledger_invariants.py):
    every row moves as much to the credit side as to the debit side, in one ledger
    rows are only added; the hash of a batch of rows covers the hash before it
    an id is used once: a known one gets its first outcome again, a refused one stays refused
    debits_posted, credits_posted, *_pending = the sums of the rows; all >= 0
    an account never exceeds its limit; a hold ends once: posted, voided or expired
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Final, Protocol

import msgspec

from exchange.clearing.outcomes import SPENDS_ID, Outcome, Transfer, TransferKind

AMOUNT_MAX: Final = 1 << 60  # of one amount and of every total of an account
TRANSFERS_MAX: Final = 1 << 24  # rows of one ledger
NEARLY_FULL: Final = 1 << 20  # rulings report when fewer rows are left
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
    """One account: its ledger, its limit, and its four totals.

    The limit "debits" keeps debits, pending ones included, within posted credits (no overdraft);
    "credits" is the reverse; "" is no limit.
    """

    __slots__ = ("credits_pending", "credits_posted", "debits_pending", "debits_posted", "id",
                 "ledger", "limit")  # fmt: skip

    def __init__(self, id: str, ledger: str = "USD", limit: str = "", *totals: int) -> None:
        self.id, self.ledger, self.limit = id, ledger, limit
        (self.debits_pending, self.debits_posted, self.credits_pending, self.credits_posted) = (
            totals or (0, 0, 0, 0)
        )

    def totals(self) -> tuple[int, int, int, int]:
        """Return debits pending and posted, credits pending and posted."""
        return (
            self.debits_pending, self.debits_posted, self.credits_pending, self.credits_posted
        )  # fmt: skip

    @property
    def free(self) -> int:
        """The amount that may still be debited within posted credits."""
        return max(self.credits_posted - self.debits_posted - self.debits_pending, 0)

    @property
    def room(self) -> int:
        """The amount that may still be credited within posted debits."""
        return max(self.debits_posted - self.credits_posted - self.credits_pending, 0)


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One row of the book: a transfer that was applied, an expiry, or an id spent by a refusal."""

    number: int  # 1, 2, 3, ...
    stamp: int
    outcome: int
    kind: int
    flags: int
    id: str
    debit: str
    credit: str
    amount: int  # that moved; for a balancing transfer perhaps less than requested
    pending_id: str
    timeout: int
    ledger: str


class Older(Protocol):
    """The rows before those that a book has in memory. Open holds are in memory in any case."""

    def row(self, id: str) -> Row | None:
        """Return the row of an id, except for expiries."""

    def ended(self, id: str) -> str | None:
        """Return how a hold ended; None if it has not, or there is none."""

    def is_reversed(self, id: str) -> bool:
        """Return whether a transfer was reversed."""


class Book:
    """Accounts, rows and ids. ``apply`` judges transfers; ``replay`` folds rows judged before."""

    def __init__(self, *, amount_max: int = AMOUNT_MAX, transfers_max: int = TRANSFERS_MAX) -> None:
        self.accounts: dict[str, Account] = {}
        self.head = GENESIS
        self.count = 0  # rows so far
        self.fresh: list[Row] = []  # rows since ``take``
        self.opened: list[Account] = []  # since ``take``
        self.sequence = 0  # of the present command, under which the next batch is sealed
        self.sealed: list[tuple[int, int, bytes]] = []  # since ``take``: last row, sequence, hash
        self._amount_max, self._transfers_max = amount_max, transfers_max
        self._full = False  # whether the present batch may reach the limit of rows
        self._rows: dict[str, Row] = {}  # by id
        self._holds: dict[str, str] = {}  # id of a pending transfer -> "", or how it ended
        self._reversed: set[str] = set()
        self._deadlines: list[tuple[int, int, str]] = []
        self._older: Older | None = None

    def resume(self, count: int, head: bytes, holds: Iterable[Row], older: Older) -> None:
        """Continue after ``count`` rows, which ``older`` has. The accounts are open with the totals
        of these rows; ``holds`` are those still open."""
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
        """Release the holds whose time ends by ``stamp``, oldest first; return their rows."""
        rows = self._expire(stamp)
        self._seal(rows)
        return rows

    @property
    def left(self) -> int:
        """The rows that others than the clearing house itself may still add."""
        return max(0, self._transfers_max - self.count)

    def apply(self, batch: Sequence[Transfer], stamp: int, *, own: bool = False) -> list[Outcome]:
        """Judge a batch in order; a linked transfer is applied only together with the next one.

        ``own``: the clearing house's own transfers, which are accepted even if the ledger is full.
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
        """The earliest end of an open hold's time; 0 if none has one."""
        while self._deadlines and not self.held(self._deadlines[0][2]):
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else 0

    def find(self, id: str) -> Row | None:
        """Return the row of an id, or None."""
        row = self._rows.get(id)
        return row if row is not None or self._older is None else self._older.row(id)

    def held(self, id: str) -> bool:
        """Return whether a pending transfer still holds its amount."""
        return self._holds.get(id) == ""

    def take(self) -> tuple[list[Row], list[Account], list[tuple[int, int, bytes]]]:
        """Return what is to be stored: rows, accounts and sealed batches since the last call."""
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
        """Judge one transfer, and enter its row if it is not refused."""
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
        """Return the row of a plain or pending transfer, or its refusal."""
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
        """Return the row that posts a hold, all or part of it, or voids it; or the refusal."""
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
        """Return the row that reverses a posted transfer, or the refusal."""
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
        """Return the outcome of a known id: EXISTS, that it failed before, or what differs."""
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
        # A balancing transfer's row has only the amount moved; as much or more was requested.
        if amount is None or amount < row.amount or (amount > row.amount and not t.balancing):
            return Outcome.EXISTS_WITH_DIFFERENT_AMOUNT
        if t.timeout != row.timeout:
            return Outcome.EXISTS_WITH_DIFFERENT_TIMEOUT
        return Outcome.EXISTS

    # Moving: a row and nothing else changes balances.

    def _enter(self, row: Row, fresh: list[Row]) -> None:
        """Add a row and apply its effect."""
        fresh.append(row)
        self.count += 1
        if row.kind != _EXPIRE:
            self._rows[row.id] = row
        if row.outcome == _OK:
            self._move(row, 1)

    def _move(self, row: Row, sign: int) -> None:
        """Add a row's effect to its two accounts, or with ``sign`` -1 undo it."""
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
        """Undo the rows after the first ``kept``, whose chain has failed."""
        while len(fresh) > kept:
            row = fresh.pop()
            self.count -= 1
            if row.outcome == _OK:
                self._move(row, -1)
            del self._rows[row.id]

    def _spend(self, t: Transfer, outcome: Outcome, stamp: int, fresh: list[Row]) -> None:
        """Add the row of a refusal that spends its id."""
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
        """Chain the rows of a finished batch to all before it, and start its holds' times. So the
        time of a hold whose chain failed never starts."""
        if fresh:
            for row in fresh:
                if row.timeout:  # only a hold has one
                    self._run(row)
            self.head = self._link(fresh)
            self.fresh += fresh
            self.sealed.append((self.count, self.sequence, self.head))

    def _run(self, row: Row) -> None:
        """Start a hold's time, if it has one."""
        if row.timeout:
            heappush(self._deadlines, (row.stamp + row.timeout * SECOND, row.number, row.id))

    def _link(self, rows: Sequence[Row]) -> bytes:
        return link(self.head, rows)


_FINE: Final = frozenset({Outcome.OK, Outcome.EXISTS})


def link(previous: bytes, rows: Sequence[Row]) -> bytes:
    """Return the hash of a batch, over the previous hash and all fields of all rows."""
    return blake2b(previous + msgspec.msgpack.encode(rows), digest_size=32).digest()


def _overflow(
    debit: Account, credit: Account, amount: int, kind: int, limit: int
) -> Outcome | None:
    """Return which total would exceed the limit, or None: pending, posted, then their sum, the
    debit side first."""
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
