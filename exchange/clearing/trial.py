"""The trial balance: every account of the ledger and of the transfers' book, with their sums."""

from collections import defaultdict
from dataclasses import dataclass

from exchange.clearing.ledger import ledger_name
from exchange.clearing.state import State
from exchange.clearing.statements import dollars, table

USD = "USD"


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """All accounts of the ledger, and of the book of transfers, which has a ledger for each unit.

    ``debits`` equals ``credits``, and every sum in ``book_sums`` and ``pending_sums`` is zero; else
    there is a fault. Balances are debit-positive; those of the book are the posted ones.
    """

    sequence: int
    business_date: int
    accounts: list[tuple[str, int]]  # (name, balance), by ledger account id
    debits: int
    credits: int
    entries: int
    ledger_hash: str
    book: list[tuple[str, str, int]]  # (name, ledger, balance), by ledger and name
    book_sums: dict[str, int]  # by ledger: posted debits less posted credits
    pending_sums: dict[str, int]  # by ledger: pending debits less pending credits
    book_hash: str

    @property
    def is_balanced(self) -> bool:
        """Whether every sum that must be zero is zero."""
        sums = (*self.book_sums.values(), *self.pending_sums.values())
        return self.debits == self.credits and not any(sums)

    def text(self) -> str:
        """Return the balances as text tables with their sums."""
        rows = [(name, *_sides(balance)) for name, balance in self.accounts]
        rows.append(("total", dollars(self.debits), dollars(self.credits)))
        parts = [table(("account", "debit USD", "credit USD"), rows)]
        for ledger in self.book_sums:
            lines = [(name, balance) for name, of, balance in self.book if of == ledger]
            rows = [(name, *_sides(balance, ledger)) for name, balance in lines]
            debits = sum(balance for _, balance in lines if balance > 0)
            credits = sum(-balance for _, balance in lines if balance < 0)
            rows.append(("total", amount(debits, ledger), amount(credits, ledger)))
            parts.append(table((f"book, {ledger}", "debit", "credit"), rows))
        return "\n\n".join(parts)


def amount(units: int, ledger: str) -> str:
    """Return units of a ledger as text: dollars with decimals, others as whole numbers."""
    return dollars(units) if ledger == USD else f"{units:,}"


def _sides(balance: int, ledger: str = USD) -> tuple[str, str]:
    debit = amount(balance, ledger) if balance > 0 else ""
    return debit, amount(-balance, ledger) if balance < 0 else ""


def trial_balance(state: State) -> TrialBalance:
    """Return every account's balance."""
    balances = sorted(state.ledger.balances.items())
    book = sorted(state.book.accounts.values(), key=lambda account: (account.ledger, account.id))
    posted, pending = defaultdict[str, int](int), defaultdict[str, int](int)
    for account in book:
        posted[account.ledger] += account.debits_posted - account.credits_posted
        pending[account.ledger] += account.debits_pending - account.credits_pending
    return TrialBalance(
        sequence=state.point[1],
        business_date=state.business_date,
        accounts=[(ledger_name(account), balance) for account, balance in balances],
        debits=sum(balance for _, balance in balances if balance > 0),
        credits=-sum(balance for _, balance in balances if balance < 0),
        entries=state.entries,
        ledger_hash=state.ledger.head.hex(),
        book=[(a.id, a.ledger, a.debits_posted - a.credits_posted) for a in book],
        book_sums=dict(posted),
        pending_sums=dict(pending),
        book_hash=state.book.head.hex(),
    )
