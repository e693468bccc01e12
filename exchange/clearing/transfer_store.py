"""The book of transfers in SQLite: rows, account totals and the hash chain of batches.

One SQLite transaction for each batch has its rows, the resulting totals, the hash that chains the
batch to all before it, and the sequence that caused it: after a crash all of it is there or none.
Everything follows from the rows: ``fold`` folds them and checks the rest against the result.
``resume`` reads what a start needs (totals, open holds and the end of the chain) and checks these
against each other.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

from msgspec.structs import astuple

from exchange.clearing.bulk import insert
from exchange.clearing.outcomes import TransferKind
from exchange.clearing.transfers import GENESIS, Account, Book, Row, link

_SCHEMA: Final = (
    "create table transfer_accounts (id text primary key, ledger text not null,"
    " bound text not null, debits_pending integer not null, debits_posted integer not null,"
    " credits_pending integer not null, credits_posted integer not null) strict, without rowid",
    "create table transfers (number integer primary key, stamp integer not null,"
    " outcome integer not null, kind integer not null, flags integer not null,"
    " id text unique not null, debit text not null, credit text not null,"
    " amount integer not null, pending_id text not null, timeout integer not null,"
    " ledger text not null) strict",
    "create table transfer_batches (last integer primary key, sequence integer not null,"
    " hash blob not null) strict",
    "create table transfer_holds (id text primary key) strict, without rowid",  # those open
    "create index transfers_by_pending on transfers (pending_id) where pending_id != ''",
)
_APPEND_ONLY: Final = tuple(
    f"create trigger {table}_{verb} before {verb} on {table}"
    f" begin select raise(abort, '{table} is append-only'); end"
    for table in ("transfers", "transfer_batches")
    for verb in ("update", "delete")
)
_PENDING: Final = int(TransferKind.PENDING)
_ENDS: Final = {
    int(TransferKind.POST): "posted", int(TransferKind.VOID): "voided",
    int(TransferKind.EXPIRE): "expired",
}  # fmt: skip
_OF_HOLDS: Final = frozenset({_PENDING, *_ENDS})
INSERT_ROW: Final = "insert into transfers values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
PUT_ACCOUNT: Final = "insert or replace into transfer_accounts values (?, ?, ?, ?, ?, ?, ?)"
INSERT_BATCH: Final = "insert into transfer_batches values (?, ?, ?)"
BY_ID: Final = (
    f"select * from transfers where id = ? and number <= ? and kind != {TransferKind.EXPIRE:d}"
)
BY_PENDING: Final = (
    "select kind from transfers where pending_id = ? and pending_id != '' and number <= ?"
    " and outcome = 0"
)
BEHIND: Final = "select * from transfers where number > ? order by number"
HOLDS: Final = "select t.* from transfer_holds cross join transfers t using (id) order by number"


def create(connection: sqlite3.Connection) -> None:
    """Create the tables, inside the caller's transaction."""
    for statement in (*_SCHEMA, *_APPEND_ONLY):
        connection.execute(statement)


def write(connection: sqlite3.Connection, book: Book) -> None:
    """Write what the book has gathered since the last call, inside the caller's transaction."""
    rows, accounts, sealed = book.take()
    put(connection, rows, accounts)
    connection.executemany(INSERT_BATCH, sealed)


def put(connection: sqlite3.Connection, rows: Sequence[Row], accounts: Iterable[Account]) -> None:
    """Write rows, the totals of accounts, and the changes of the open holds."""
    insert(connection, INSERT_ROW, [astuple(row) for row in rows])
    if any(row.kind in _OF_HOLDS for row in rows):
        begun = [(row.id,) for row in rows if row.kind == _PENDING and not row.outcome]
        ended = [(row.pending_id,) for row in rows if row.kind in _ENDS and not row.outcome]
        connection.executemany("insert into transfer_holds values (?)", begun)
        connection.executemany("delete from transfer_holds where id = ?", ended)
    connection.executemany(
        PUT_ACCOUNT,
        [
            (a.id, a.ledger, a.limit, a.debits_pending, a.debits_posted, a.credits_pending,
             a.credits_posted)
            for a in accounts
        ],
    )  # fmt: skip


def batches(
    connection: sqlite3.Connection, after: int = 0
) -> Iterator[tuple[list[Row], int, bytes]]:
    """Yield (rows, sequence, hash) of every batch after the row ``after``, in order."""
    rows = connection.execute(
        "select t.*, (select min(last) from transfer_batches where last >= t.number) as batch"
        " from transfers t where number > ? order by number",
        (after,),
    )
    found = connection.execute("select * from transfer_batches where last > ?", (after,))
    heads = {last: (sequence, head) for last, sequence, head in found}
    for last, group in groupby(rows, key=lambda row: row[-1]):
        yield [Row(*row[:-1]) for row in group], *heads[last]


class Stored:
    """The first ``count`` rows of a file, looked up one at a time."""

    def __init__(self, connection: sqlite3.Connection, count: int) -> None:
        self._connection, self._count = connection, count

    def row(self, id: str) -> Row | None:
        """Return the row of an id, except for expiries."""
        found = self._connection.execute(BY_ID, (id, self._count)).fetchone()
        return None if found is None else Row(*found)

    def ended(self, id: str) -> str | None:
        """Return how a hold ended; None if it has not, or there is none."""
        return next((_ENDS[kind] for kind in self._after(id) if kind in _ENDS), None)

    def is_reversed(self, id: str) -> bool:
        """Return whether a transfer was reversed."""
        return int(TransferKind.REVERSE) in self._after(id)

    def _after(self, id: str) -> list[int]:
        """Return the kinds of the rows that were applied to an earlier one."""
        found = self._connection.execute(BY_PENDING, (id, self._count))
        return [kind for (kind,) in found]


def resume(connection: sqlite3.Connection, book: Book) -> Book:
    """Let an empty book continue after the stored rows, without folding them.

    AssertionError if totals, open holds and the last batch contradict each other.
    """
    for row in connection.execute("select * from transfer_accounts order by id"):
        book.open(Account(*row))
    ends = "select last, hash from transfer_batches order by last desc limit 2"
    (count, head), (first, before) = [*connection.execute(ends), (0, GENESIS), (0, GENESIS)][:2]
    rows = [Row(*row) for row in connection.execute(BEHIND, (first,))]
    assert [row.number for row in rows] == [*range(first + 1, count + 1)], "the last transfers"
    if rows:
        assert link(before, rows) == head, f"hash of the batch that ends with transfer {count}"
    holds = [Row(*row) for row in connection.execute(HOLDS)]
    pending: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in holds:
        assert row.kind == _PENDING and not row.outcome, f"{row.id} is no hold"
        pending[row.debit][0] += row.amount
        pending[row.credit][1] += row.amount
    for id, account in book.accounts.items():
        found = [account.debits_pending, account.credits_pending]
        assert found == pending[id], f"holds of {id}: {pending[id]}, its totals say {found}"
    book.check()
    book.resume(count, head, holds, Stored(connection, count))
    book.take()
    return book


def fold(connection: sqlite3.Connection, book: Book) -> Book:
    """Fold the stored rows into a book that is empty or has the first of them.

    AssertionError if the store contradicts itself.
    """
    stored = list(connection.execute("select * from transfer_accounts order by id"))
    for id, ledger, limit, *_ in stored:
        book.open(Account(id, ledger, limit))
    for rows, _, head in batches(connection, book.count):
        book.replay(rows)
        assert book.head == head, f"hash of the batch that ends with transfer {rows[-1].number}"
    for id, _, _, *totals in stored:
        found = book.accounts[id].totals()
        assert found == tuple(totals), f"totals of {id}: {totals}, rows say {found}"
    book.take()
    return book
