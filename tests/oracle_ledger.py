"""The ledger as its rules read: slow, no totals kept, everything summed from what was applied."""

from dataclasses import dataclass, field

from exchange.clearing.outcomes import SPENDS_ID, Outcome, Transfer, TransferKind

PLAIN, PENDING, POST, VOID, REVERSE = (TransferKind(n) for n in range(5))
O = Outcome  # noqa: E741 - read on every line
SECOND = 1_000_000_000
RESOLVED = {
    POST: O.PENDING_TRANSFER_ALREADY_POSTED,
    VOID: O.PENDING_TRANSFER_ALREADY_VOIDED,
    TransferKind.EXPIRE: O.PENDING_TRANSFER_EXPIRED,
}


@dataclass(frozen=True)
class Done:
    """An applied transfer, as far as anything later depends on it."""

    asked: Transfer
    kind: TransferKind
    debit: str
    credit: str
    amount: int
    stamp: int


@dataclass
class Oracle:
    """``accounts``: id -> (ledger, limit)."""

    accounts: dict[str, tuple[str, str]]
    most: int
    done: list[Done] = field(default_factory=list)
    spent: set[str] = field(default_factory=set)

    def find(self, id: str) -> Done | None:
        return next((d for d in self.done if d.asked.id == id), None)

    def ends(self, id: str) -> list[TransferKind]:
        """How a hold ended: nothing, or one kind."""
        kinds = (POST, VOID, TransferKind.EXPIRE)
        return [d.kind for d in self.done if d.kind in kinds and d.asked.pending_id == id]

    def totals(self, account: str) -> tuple[int, int, int, int]:
        found = [0, 0, 0, 0]
        for d in self.done:
            open_hold = d.kind == PENDING and not self.ends(d.asked.id)
            moved = d.kind in (PLAIN, POST, REVERSE)
            for place, side in ((0, d.debit), (2, d.credit)):
                if side == account:
                    found[place] += d.amount * open_hold
                    found[place + 1] += d.amount * moved
        return found[0], found[1], found[2], found[3]

    def advance(self, stamp: int) -> None:
        due = [
            (d.stamp + d.asked.timeout * SECOND, place, d)
            for place, d in enumerate(self.done)
            if d.kind == PENDING and d.asked.timeout and not self.ends(d.asked.id)
        ]
        for when, _, d in sorted(due, key=lambda row: row[:2]):
            if when <= stamp:
                asked = Transfer(f"expiry {d.asked.id}", pending_id=d.asked.id)
                self.done.append(Done(asked, TransferKind.EXPIRE, d.debit, d.credit, 0, stamp))

    def apply(self, batch: list[Transfer], stamp: int) -> list[Outcome]:
        self.advance(stamp)
        outcomes: list[Outcome] = []
        chains: list[list[Transfer]] = [[]]
        for t in batch:
            chains[-1].append(t)
            if not t.linked:
                chains.append([])
        for chain in filter(None, chains):
            outcomes += self.chain(chain, stamp)
        return outcomes

    def chain(self, chain: list[Transfer], stamp: int) -> list[Outcome]:
        before, answers = list(self.done), []
        closed = not chain[-1].linked
        for place, t in enumerate(chain):
            is_open = place == len(chain) - 1 and not closed
            outcome = O.LINKED_EVENT_CHAIN_OPEN if is_open else self.judge(t, stamp)
            answers.append(outcome)
            if outcome not in (O.OK, O.EXISTS):
                self.done = before
                answers = [O.LINKED_EVENT_FAILED] * len(chain)
                if not closed:
                    answers[-1] = O.LINKED_EVENT_CHAIN_OPEN
                answers[place] = outcome
                if outcome in SPENDS_ID:
                    self.spent.add(t.id)
                return answers
        return answers

    def judge(self, t: Transfer, stamp: int) -> Outcome:
        if not t.id or len(t.id) > 64 or not t.id.isascii():
            return O.ID_FORMAT
        if t.id in self.spent:
            return O.ID_ALREADY_FAILED
        known = self.find(t.id)
        if known is not None:
            return self.known(t, known)
        if t.kind in (PLAIN, PENDING):
            return self.movement(t, stamp)
        return self.reversal(t, stamp) if t.kind == REVERSE else self.resolution(t, stamp)

    def known(self, t: Transfer, known: Done) -> Outcome:
        first = known.asked
        asked = self.find(t.pending_id)
        given = asked.amount if t.amount is None and asked and t.kind > PENDING else t.amount
        reached = given is not None and (
            given == known.amount or (given > known.amount and t.balancing != "")
        )
        free = t.kind > PENDING
        same = {
            O.EXISTS_WITH_DIFFERENT_FLAGS: (t.kind, t.linked, t.balancing)
            == (first.kind, first.linked, first.balancing),
            O.EXISTS_WITH_DIFFERENT_PENDING_ID: t.pending_id == first.pending_id,
            O.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID: t.debit in ({"", known.debit} if free
                                                                   else {known.debit}),
            O.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID: t.credit in ({"", known.credit} if free
                                                                     else {known.credit}),
            O.EXISTS_WITH_DIFFERENT_AMOUNT: reached,
            O.EXISTS_WITH_DIFFERENT_TIMEOUT: t.timeout == first.timeout,
        }  # fmt: skip
        return next((outcome for outcome, holds in same.items() if not holds), O.EXISTS)

    def movement(self, t: Transfer, stamp: int) -> Outcome:
        if t.pending_id:
            return O.PENDING_ID_MUST_NOT_BE_GIVEN
        if t.amount is None or t.amount < 0 or t.amount > self.most:
            return O.AMOUNT_RANGE
        if t.debit == t.credit:
            return O.ACCOUNTS_MUST_BE_DIFFERENT
        if t.timeout and t.kind == PLAIN:
            return O.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
        if t.debit not in self.accounts:
            return O.DEBIT_ACCOUNT_NOT_FOUND
        if t.credit not in self.accounts:
            return O.CREDIT_ACCOUNT_NOT_FOUND
        if self.accounts[t.debit][0] != self.accounts[t.credit][0]:
            return O.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER
        amount = t.amount
        if t.balancing == "debit":
            amount = min(amount, max(0, self.free(t.debit)))
        if t.balancing == "credit":
            amount = min(amount, max(0, self.room(t.credit)))
        refused = self.overflow(t.debit, t.credit, amount, t.kind == PENDING)
        if refused is None and not 0 <= t.timeout < 1 << 31:
            refused = O.OVERFLOWS_TIMEOUT
        refused = refused or self.funds(t.debit, t.credit, amount)
        if refused is not None:
            return refused
        self.done.append(Done(t, TransferKind(t.kind), t.debit, t.credit, amount, stamp))
        return O.OK

    def free(self, account: str) -> int:
        pending, posted, _, credited = self.totals(account)
        return credited - posted - pending

    def room(self, account: str) -> int:
        _, debited, pending, posted = self.totals(account)
        return debited - posted - pending

    def funds(self, debit: str, credit: str, amount: int) -> Outcome | None:
        if self.accounts[debit][1] == "debits" and amount > self.free(debit):
            return O.EXCEEDS_CREDITS
        if self.accounts[credit][1] == "credits" and amount > self.room(credit):
            return O.EXCEEDS_DEBITS
        return None

    def overflow(self, debit: str, credit: str, amount: int, pending: bool) -> Outcome | None:
        left, right = self.totals(debit)[:2], self.totals(credit)[2:]
        place = 0 if pending else 1
        if left[place] + amount > self.most:
            return O.OVERFLOWS_DEBITS_PENDING if pending else O.OVERFLOWS_DEBITS_POSTED
        if right[place] + amount > self.most:
            return O.OVERFLOWS_CREDITS_PENDING if pending else O.OVERFLOWS_CREDITS_POSTED
        if sum(left) + amount > self.most:
            return O.OVERFLOWS_DEBITS
        return O.OVERFLOWS_CREDITS if sum(right) + amount > self.most else None

    def resolution(self, t: Transfer, stamp: int) -> Outcome:
        if not t.pending_id:
            return O.PENDING_ID_MUST_BE_GIVEN
        if t.pending_id == t.id:
            return O.PENDING_ID_MUST_BE_DIFFERENT
        if t.balancing:
            return O.FLAGS_COMBINATION
        if t.amount is not None and not 0 <= t.amount <= self.most:
            return O.AMOUNT_RANGE
        if t.timeout:
            return O.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
        hold = self.find(t.pending_id)
        if hold is None:
            return O.PENDING_TRANSFER_NOT_FOUND
        if hold.kind != PENDING:
            return O.PENDING_TRANSFER_NOT_PENDING
        if t.debit not in ("", hold.debit):
            return O.PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID
        if t.credit not in ("", hold.credit):
            return O.PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID
        amount = hold.amount if t.amount is None else t.amount
        if amount > hold.amount:
            return O.EXCEEDS_PENDING_TRANSFER_AMOUNT
        if t.kind == VOID and amount < hold.amount:
            return O.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT
        for end in self.ends(t.pending_id):
            return RESOLVED[end]
        self.done.append(Done(t, TransferKind(t.kind), hold.debit, hold.credit, amount, stamp))
        return O.OK

    def reversal(self, t: Transfer, stamp: int) -> Outcome:
        if not t.pending_id:
            return O.PENDING_ID_MUST_BE_GIVEN
        if t.pending_id == t.id:
            return O.PENDING_ID_MUST_BE_DIFFERENT
        if t.balancing or t.amount is not None or t.debit or t.credit:
            return O.FLAGS_COMBINATION
        if t.timeout:
            return O.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER
        first = self.find(t.pending_id)
        if first is None:
            return O.REVERSED_TRANSFER_NOT_FOUND
        if first.kind not in (PLAIN, POST):
            return O.REVERSED_TRANSFER_NOT_POSTED
        if any(d.kind == REVERSE and d.asked.pending_id == t.pending_id for d in self.done):
            return O.TRANSFER_ALREADY_REVERSED
        refused = self.overflow(first.credit, first.debit, first.amount, False)
        refused = refused or self.funds(first.credit, first.debit, first.amount)
        if refused is not None:
            return refused
        self.done.append(Done(t, REVERSE, first.credit, first.debit, first.amount, stamp))
        return O.OK
