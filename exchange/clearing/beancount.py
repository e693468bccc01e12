"""The ledger as a beancount file: plain text that another program adds up again.

Every journal entry and every transfer that moved something is one transaction with its number; the
file ends with the balance of every account, tolerance zero. `bean-check FILE` is silent if it
agrees. Dollars have six decimals; other ledgers are whole units.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

from exchange.clearing.ledger import OWNER_BITS, Code, Entry, EntryKind
from exchange.clearing.outcomes import Outcome, TransferKind
from exchange.clearing.state import State
from exchange.clearing.transfers import Book, Row
from exchange.messages.dates import date_of

_NAMES: Final = {
    Code.BANK: "Assets:Bank",
    Code.CASH: "Liabilities:Cash",
    Code.HOUSE_FEES: "Income:Fees",
    Code.VM_CLEARING: "Equity:Variation-Clearing",
    Code.SUSPENSE: "Equity:Suspense",
}
_MOVING: Final = (TransferKind.PLAIN, TransferKind.POST, TransferKind.REVERSE)
_MICROS: Final = 1_000_000


def account_name(account: int) -> str:
    """The beancount account of a ledger account."""
    code = Code(account >> OWNER_BITS)
    owner = account & (1 << OWNER_BITS) - 1
    return f"{_NAMES[code]}:{owner}" if code is Code.CASH else _NAMES[code]


def book_names(book: Book) -> dict[str, str]:
    """The beancount account of every account of the book; unlike ids get unlike names."""
    names: dict[str, str] = {}
    for id in sorted(book.accounts):
        parts = (re.sub(r"[^A-Za-z0-9]", "-", part).strip("-") for part in id.split("/"))
        name = ":".join(["Equity:Book", *(part[:1].upper() + part[1:] for part in parts if part)])
        while name in names.values():
            name += "-2"
        names[id] = name
    return names


def commodity(ledger: str) -> str:
    """The commodity of a ledger."""
    return "G" + re.sub(r"[^A-Z0-9]", "-", ledger.upper())[:20] + "X" if ledger != "USD" else ledger


def amount(units: int, ledger: str = "USD") -> str:
    """An amount with its commodity."""
    if ledger != "USD":
        return f"{units} {commodity(ledger)}"
    whole, micros = divmod(abs(units), _MICROS)
    return f"{'-' if units < 0 else ''}{whole}.{micros:06d} USD"


def _day(number: int, stamp: int) -> date:
    """A business date; before the first one the date of the stamp."""
    if number:
        return date_of(number)
    return datetime.fromtimestamp(stamp // 1_000_000_000, UTC).date()


def lines(
    state: State, entries: Iterable[tuple[Entry, bytes]], rows: Iterable[Row]
) -> Iterator[str]:
    """The file, line by line."""
    yield 'option "title" "Hourbook ledger"'
    yield 'option "operating_currency" "USD"'
    last = date.min
    names, body = book_names(state.book), []
    first = date.max
    for entry, digest in entries:
        if not entry.postings:
            continue
        day = _day(entry.business_date, entry.stamp)
        first, last = min(first, day), max(last, day)
        kind = EntryKind(entry.kind).name.lower()
        body.append(f'{day} * "{kind}"\n  number: "{entry.number}"\n  hash: "{digest.hex()}"')
        for debit, credit, moved in entry.postings:
            body.append(f"  {account_name(debit)}  {amount(moved)}")
            body.append(f"  {account_name(credit)}  {amount(-moved)}")
    for row in rows:
        if row.outcome != Outcome.OK or row.kind not in _MOVING or not row.amount:
            continue
        day = _day(0, row.stamp)
        first, last = min(first, day), max(last, day)
        body.append(f'{day} * "transfer"\n  number: "{row.number}"')
        body.append(f"  {names[row.debit]}  {amount(row.amount, row.ledger)}")
        body.append(f"  {names[row.credit]}  {amount(-row.amount, row.ledger)}")
    if not body:
        return
    balances = sorted(state.ledger.balances.items())
    for account, _ in balances:
        yield f"{first} open {account_name(account)} USD"
    for id, name in names.items():
        yield f"{first} open {name} {commodity(state.book.accounts[id].ledger)}"
    yield from body
    end = last + timedelta(days=1)
    for account, balance in balances:
        whole, currency = amount(balance).split()
        yield f"{end} balance {account_name(account)} {whole} ~ 0 {currency}"
    for id, name in names.items():
        held = state.book.accounts[id]
        units, currency = amount(held.debits_posted - held.credits_posted, held.ledger).split()
        yield f"{end} balance {name} {units} ~ 0 {currency}"
