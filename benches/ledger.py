"""Durable transfers per second compared with raw SQLite, and the end of a day at full size.

    hourbook bench ledger                 transfers, batches of 1, 100, 1,000 and 8,000
    hourbook bench ledger --day           10,000 accounts x 100 instruments x 1,000,000 positions

A batch counts once it is durable: both sides use SQLite's write-ahead log with synchronous FULL.
Raw SQLite writes the same rows, account totals and batch marks, computed beforehand. Both take
turns batch by batch on the same disk. ``core`` is the ledger alone in CPU time of one core, which
does not depend on the disk or on other load.
"""

import argparse
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from msgspec.structs import astuple

from benches.rows import Row, bench_parser, folder, publish, row, whole
from benches.transfer_file import Transfers
from exchange.clearing import transfer_store
from exchange.clearing.outcomes import Outcome, Transfer
from exchange.clearing.transfers import Account, Book

BATCHES: Final = (1, 100, 1_000, 8_000)
ACCOUNTS: Final = 1_000
PER_BATCH_SIZE: Final = {1: 400, 100: 20_000, 1_000: 100_000, 8_000: 160_000}
ROUNDS: Final = 3
STAMP: Final = 1_800_000_000_000_000_000


def transfers_of(count: int, seed: int = 6) -> list[Transfer]:
    """Return transfers among a thousand accounts, one in ten a hold."""
    draw = random.Random(seed)
    names = [f"cash/{number}" for number in range(ACCOUNTS)]
    return [
        Transfer(f"t{seed}-{number:08d}", debit, credit, draw.randrange(1, 10**6),
                 int(draw.random() < 0.1))
        for number in range(count)
        for debit, credit in [draw.sample(names, 2)]
    ]  # fmt: skip


def accounts() -> list[Account]:
    return [Account(f"cash/{number}") for number in range(ACCOUNTS)]


Written = tuple[list[Any], list[Any], list[Any]]  # rows, totals, marks of batches


class Raw:
    """The same rows written by SQLite alone, one transaction per batch."""

    def __init__(self, path: Path) -> None:
        store = Transfers(path)  # the same schema
        store.open(*accounts())
        store.close()
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("pragma journal_mode = wal")
        self.connection.execute("pragma synchronous = full")

    def write(self, written: Written) -> None:
        rows, totals, marks = written
        execute = self.connection.executemany
        self.connection.execute("begin immediate")
        execute(transfer_store.INSERT_ROW, rows)
        execute(transfer_store.PUT_ACCOUNT, totals)
        execute(transfer_store.INSERT_BATCH, marks)
        self.connection.execute("commit")


def judged(batches: Sequence[Sequence[Transfer]]) -> list[Written]:
    """Return what a book makes of the batches: the rows that raw SQLite writes."""
    book = Book()
    for account in accounts():
        book.open(account)
    book.take()
    made = []
    for batch in batches:
        outcomes = book.apply(batch, STAMP)
        if set(outcomes) != {Outcome.OK}:
            raise RuntimeError("the bench's own transfers were refused")
        rows, changed, sealed = book.take()
        totals = [(a.id, a.ledger, a.limit, *a.totals()) for a in changed]
        made.append(([astuple(one) for one in rows], totals, sealed))
    return made


def time_round(folder: Path, size: int, count: int, number: int) -> tuple[float, float, float]:
    """Return the seconds of the ledger and of raw SQLite for the same transfers, and the ledger's
    CPU.

    Raises RuntimeError if the two files do not end with the same rows.
    """
    asked = transfers_of(count, number)
    batches = [asked[at : at + size] for at in range(0, count, size)]
    rows = judged(batches)
    ours, raw = Transfers(folder / f"ours{size}-{number}"), Raw(folder / f"raw{size}-{number}")
    ours.open(*accounts())
    took, core = [0.0, 0.0], 0.0
    for turn, (batch, written) in enumerate(zip(batches, rows, strict=True)):
        for which in (turn % 2, 1 - turn % 2):
            started = time.perf_counter()
            if which == 0:
                worked = time.process_time()
                ours.apply(batch, STAMP)
                core += time.process_time() - worked
            else:
                raw.write(written)
            took[which] += time.perf_counter() - started
    query = "select count(*), sum(amount) from transfers"
    if (found := ours.connection.execute(query).fetchone()) != raw.connection.execute(
        query
    ).fetchone() or found[0] != count:
        raise RuntimeError(f"the ledger wrote {found}, not {count} transfers as raw SQLite did")
    ours.close()
    raw.connection.close()
    return took[0], took[1], core


def transfer_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rates of both, and their ratio, by batch size."""
    with tempfile.TemporaryDirectory(dir=options.disk) as name:
        for size in options.batches:
            count = max(size, PER_BATCH_SIZE.get(size, 100 * size) // options.divide)
            done = [time_round(Path(name), size, count, n) for n in range(options.rounds)]
            raw = f"ledger.{size}_a_batch.raw_sqlite"
            yield row(raw, median(count / theirs for _, theirs, _ in done), "transfers/s")
            ratio = median(theirs / ours for ours, theirs, _ in done)
            rate = median(count / ours for ours, _, _ in done)
            yield Row(f"ledger.{size}_a_batch.durable", float(f"{rate:.6g}"), "transfers/s",
                      round(ratio, 4), raw)  # fmt: skip
            core = median(count / worked for *_, worked in done)
            yield row(f"ledger.{size}_a_batch.core", core, "transfers / s of a core")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("ledger", "Time the ledger.", ROUNDS)
    parser.add_argument(
        "--batches",
        type=whole,
        nargs="+",
        default=list(BATCHES),
        help="transfers in one durable write (1, 100, 1000 and 8000)",
    )
    parser.add_argument(
        "--divide", type=whole, default=1, help="make this many times fewer transfers (%(default)s)"
    )
    parser.add_argument(
        "--disk", type=folder, help="a folder on the disk to time (the one for temporary files)"
    )
    parser.add_argument("--day", action="store_true", help="time the end of a day instead")
    parser.add_argument(
        "--accounts", type=whole, default=10_000, help="with --day: how many (%(default)s)"
    )
    parser.add_argument(
        "--instruments", type=whole, default=100, help="with --day: how many (%(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.day:
        from benches import end_of_day  # noqa: PLC0415 - numpy and a large market

        rows = end_of_day.rows(options.accounts, options.instruments, options.disk)
    else:
        rows = transfer_rows(options)
    publish(rows, as_json=options.json, record=options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
