"""A book of transfers in a file of its own, beside no ledger: what the ledger's bench times, and
what the experiments of tests/test_ledger_invariants.py are made on.
"""

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from exchange.clearing.outcomes import Outcome, Transfer
from exchange.clearing.transfer_store import create, fold, write
from exchange.clearing.transfers import GENESIS, Account, Book


class Transfers:
    """An open file of transfers. Its methods may be called from any thread."""

    book_type: type[Book] = Book

    def __init__(self, path: Path | str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute("pragma journal_mode = wal")
        self.connection.execute("pragma synchronous = full")
        self._lock = threading.Lock()
        named = "select count(*) from sqlite_master where name = 'transfers'"
        if not self.connection.execute(named).fetchone()[0]:
            self.connection.execute("begin immediate")
            self._create()
            self.connection.execute("commit")
        self.book = self._load()

    def _create(self) -> None:
        create(self.connection)

    def _load(self) -> Book:
        return fold(self.connection, self.book_type())

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @property
    def head(self) -> bytes:
        """The hash of the last batch, which covers all before it."""
        return self.book.head if self.book.count else GENESIS

    def open(self, *accounts: Account) -> None:
        """Open accounts, except for those that are open already."""
        with self._lock:
            for account in accounts:
                self.book.open(account)
            self._commit()

    def apply(self, batch: Sequence[Transfer], stamp: int, sequence: int = 0) -> list[Outcome]:
        """Apply a batch; once this returns, the result is durable.

        After an error of SQLite nothing of the batch was applied, and the book is read again.
        """
        with self._lock:
            self.book.sequence = sequence
            outcomes = self.book.apply(batch, stamp)
            self._commit()
            return outcomes

    def _commit(self) -> None:
        execute = self.connection.execute
        execute("begin immediate")
        try:
            self._write()
            execute("commit")
        except BaseException:
            if self.connection.in_transaction:
                execute("rollback")
            self.book = self._load()
            raise

    def _write(self) -> None:
        write(self.connection, self.book)
