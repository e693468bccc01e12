"""The store: one SQLite file that an auditor can read with any SQLite tool.

Write-ahead log, synchronous FULL. One SQLite transaction books a batch of frames and moves the
stored point of the stream with it: after a crash either both are there or neither, so every event
is applied exactly once. Journal and postings are append-only (triggers refuse anything else) and
every journal row's hash covers the one before it.

sqlite-utils makes the schema and answers queries; the hot path is sqlite3 itself.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from exchange.clearing import transfer_store
from exchange.clearing.absent import absent
from exchange.clearing.docket import MATTERS
from exchange.clearing.ledger import (
    ADJUSTING,
    GENESIS,
    MOVING,
    TAKEN_BACK,
    Entry,
    EntryKind,
    Ledger,
    ledger_name,
    link,
)
from exchange.clearing.matters import Matters
from exchange.clearing.state import (
    Activity,
    Changes,
    Divergence,
    Instrument,
    Point,
    State,
    Trading,
    gather,
)
from exchange.clearing.transfers import Book, Row
from exchange.messages import HOUSE_ACCOUNT, AccountKind

with absent("pandas"):  # it takes longer than all the rest; no table here has a type of pandas'
    from sqlite_utils import Database

# Higher with every change of what is stored, be it tables, matters or their meaning: the market
# then makes the books again from the log, and a build that knows another one does not read them.
STORE_VERSION: Final = 10

_TABLES: Final[dict[str, tuple[dict[str, Any], tuple[str, ...]]]] = {
    "progress": (
        {"id": int, "version": int, "epoch": int, "sequence": int, "event_index": int,
         "business_date": int, "entries": int, "head": bytes},
        ("id",),
    ),
    "accounts": ({"account": int, "member": int, "kind": int}, ("account",)),
    "instruments": (
        {"instrument": int, "code": str, "multiplier": int, "tick_scale": int, "price_step": int,
         "mark": int, "settlement_price": int, "settlement_date": int, "expired": int},
        ("instrument",),
    ),
    "journal": (
        {"number": int, "kind": int, "stamp": int, "business_date": int, "instrument": int,
         "price": int, "quantity": int, "buyer": int, "seller": int, "hash": bytes},
        ("number",),
    ),
    "postings": (
        {"number": int, "line": int, "debit": int, "credit": int, "amount": int},
        ("number", "line"),
    ),
    "balances": ({"ledger_account": int, "name": str, "balance": int}, ("ledger_account",)),
    "positions": (
        {"account": int, "instrument": int, "net": int, "cost": int},
        ("instrument", "account"),  # a settlement writes one instrument's: they lie together
    ),
    "movements": (
        {"business_date": int, "account": int, "kind": int, "amount": "any"},  # text beyond 64 bits
        ("account", "business_date", "kind"),  # a statement reads one account
    ),
    "trading": (
        {"business_date": int, "instrument": int, "trades": int, "volume": int, "value": int,
         "last_price": int},
        ("business_date", "instrument"),
    ),
    "activity": (
        {"business_date": int, "account": int, "lots": int, "maker_fees": int, "taker_fees": int,
         "first": int, "last": int},
        ("business_date", "account"),
    ),
    "divergences": (
        {"sequence": int, "event_index": int, "what": str, "account": int, "instrument": int,
         "ours": int, "engine": int},
        (),
    ),
    "rulings": (
        {"number": int, "line": int, "stamp": int, "business_date": int, "operation": str,
         "outcome": str, "facts": str},
        ("number", "line"),
    ),
    "matters": ({"name": str, "state": str}, ("name",)),
}  # fmt: skip


def _listed(kinds: Iterable[EntryKind]) -> str:
    """Kinds as SQL has a list."""
    return f"({', '.join(f'{kind:d}' for kind in kinds)})"


AT_TICKS: Final = (EntryKind.TRADE, EntryKind.BUST, EntryKind.ADJUSTMENT)  # others: clearing prices
_VIEWS: Final = {
    # What changed hands, at clearing prices; of a combination both its own trade and its legs. An
    # adjustment moves no lots: its price is the change, of ``adjusted`` lots.
    "cleared_legs": f"""
        with legs as (
            select number, business_date, buyer, seller, instrument,
                   case when kind in {_listed(TAKEN_BACK)} then -quantity
                        when kind in {_listed(ADJUSTING)} then 0 else quantity end as lots,
                   iif(kind in {_listed(ADJUSTING)}, quantity, 0) as adjusted,
                   iif(kind in {_listed(AT_TICKS)}, price * tick_scale, price) as price
            from journal join instruments using (instrument)
            where kind in {_listed(MOVING + ADJUSTING)})
        select number as match_number, business_date, buyer as account, instrument, lots, adjusted,
               price from legs
        union all
        select number, business_date, seller, instrument, -lots, -adjusted, price from legs""",
    "settlement_prices": f"""
        select business_date, instrument, quantity as cycle, price
        from journal where kind in ({EntryKind.SETTLEMENT:d}, {EntryKind.EXPIRY:d})""",
}

# Of few entries: an index of trades by account would cost more than to book them.
_INDEXES: Final = tuple(
    f"create index settlements_by_{name} on journal ({columns})"
    f" where kind in ({EntryKind.SETTLEMENT:d}, {EntryKind.EXPIRY:d})"
    for name, columns in (("number", "number"), ("instrument", "instrument, business_date"))
)
# From date to date, as the key goes, whatever lies between.
ACTIVE: Final = """
    with recursive dates (date) as (
        select min(business_date) from activity
        union all
        select (select min(business_date) from activity where business_date > date) from dates
        where date is not null)
    select first, last from dates cross join activity
    where business_date = date and account = ? order by date"""
LEGS: Final = f"""
    select kind, instrument, price, quantity, buyer, seller from journal
    where number between ?1 and ?2 and ?3 in (buyer, seller)
    and kind in {_listed(MOVING + ADJUSTING)} order by number"""

_WRITES: Final = {
    "accounts": "insert or replace into accounts values (?, ?, ?)",
    "instruments": "insert or replace into instruments values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "journal": "insert into journal values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "postings": "insert into postings values (?, ?, ?, ?, ?)",
    "balances": "insert or replace into balances values (?, ?, ?)",
    "positions": "insert or replace into positions values (?, ?, ?, ?)",
    # Money in and out of one account sums up without a bound; a sum beyond 64 bits turns REAL.
    "movements": "insert into movements values (?, ?, ?, ?) on conflict do update set amount ="
    " case typeof(amount + excluded.amount) when 'integer' then amount + excluded.amount"
    " else exact_sum(amount, excluded.amount) end",
    "trading": "insert or replace into trading values (?, ?, ?, ?, ?, ?)",
    "activity": "insert or replace into activity values (?, ?, ?, ?, ?, ?, ?)",
    "divergences": "insert into divergences values (?, ?, ?, ?, ?, ?, ?)",
    "rulings": "insert into rulings values (?, ?, ?, ?, ?, ?, ?)",
    "matters": "insert or replace into matters values (?, ?)",
}


class OtherVersion(ValueError):
    """Another build wrote the file, and lays it out differently."""


class Damaged(sqlite3.DatabaseError):
    """Each page of the file can be read, and what they say together is not so: a copy of more than
    one moment, say. Nothing is lost, for all of it is made of the log."""


def discard(path: Path) -> None:
    """Delete a store that nobody has open."""
    # The log first: a log left beside a new file would be taken for the new file's own.
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class Store:
    """The open file. One writer; any number of readers beside it."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        mode = "ro" if read_only else "rwc"
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,  # transactions begin where this file says so
            check_same_thread=False,  # the owner serializes its threads
        )
        with ExitStack() as unless_whole:
            unless_whole.callback(self._connection.close)
            self.database = Database(self._connection)
            if not read_only:
                self._connection.create_function("exact_sum", 2, _exact_sum, deterministic=True)
                self._connection.execute("pragma journal_mode = wal")
                self._connection.execute("pragma synchronous = full")
                if not self.database["progress"].exists():
                    self._create()
            unless_whole.pop_all()

    def _create(self) -> None:
        self._connection.execute("begin immediate")
        for name, (columns, key) in _TABLES.items():
            made = self.database.create_table_sql(
                name, columns, pk=key or None, not_null=set(columns), strict=True
            )
            # A key of several columns is the table itself, not an index beside it.
            options = ", without rowid" if len(key) > 1 else ""
            self._connection.execute(made.rstrip().removesuffix(";") + options)
        # Most rulings are of dues that are done, and a statement asks for those of calls.
        self._connection.execute("create index rulings_by_operation on rulings (operation)")
        for index in _INDEXES:
            self._connection.execute(index)
        for name, query in _VIEWS.items():
            self.database.create_view(name, query)
        transfer_store.create(self._connection)
        for table_name in ("journal", "postings", "rulings"):
            for verb in ("update", "delete"):
                self._connection.execute(
                    f"create trigger {table_name}_{verb} before {verb} on {table_name}"
                    f" begin select raise(abort, '{table_name} is append-only'); end"
                )
        self._connection.execute(
            "insert into progress values (1, ?, 0, 0, 0, 0, 0, ?)", (STORE_VERSION, GENESIS)
        )
        self._connection.execute(  # the house's own account is open from the start
            "insert into accounts values (?, 0, ?)", (HOUSE_ACCOUNT, AccountKind.HOUSE.value)
        )
        self._connection.execute("commit")

    def rows(self, query: str, values: tuple[int | str, ...] = ()) -> Iterator[dict[str, Any]]:
        """Rows of a query, as dictionaries."""
        return iter(self.database.query(query, values))

    def load(self, book: Book | None = None) -> State:
        """The state as of the last committed batch. Raises OtherVersion.

        ``book`` is one that was loaded before: what it has need not be folded again.
        """
        self._connection.execute("begin")  # one snapshot, should a writer commit meanwhile
        try:
            return self._load(book)
        finally:
            self._connection.execute("rollback")

    def _load(self, book: Book | None) -> State:
        progress = next(self.rows("select * from progress"))
        if progress["version"] != STORE_VERSION:
            raise OtherVersion(
                f"{self.path} has the layout {progress['version']} of another build, not"
                f" {STORE_VERSION}; the market rebuilds it when it starts"
            )
        date = progress["business_date"]
        state = State(
            point=(progress["epoch"], progress["sequence"], progress["event_index"]),
            business_date=date,
            entries=progress["entries"],
            ledger=Ledger(head=progress["head"]),
        )
        state.ledger.balances = self.balances()
        for row in self.rows("select * from positions"):
            state.positions.add(**row)
        for row in self.rows("select * from accounts"):
            state.members[row["account"]] = row["member"], row["kind"]
        for row in self.rows("select * from instruments"):
            state.instruments[row["instrument"]] = Instrument(**row)
        for row in self.rows("select * from trading where business_date = ?", (date,)):
            state.trading[row["instrument"]] = Trading(
                row["trades"], row["volume"], row["value"], row["last_price"]
            )
        for row in self.rows("select * from activity where business_date = ?", (date,)):
            state.activity[row["account"]] = Activity(
                row["lots"], row["maker_fees"], row["taker_fees"], row["first"], row["last"]
            )
        state.divergences = self.divergences()
        state.matters = self.matters()
        if book is None:
            state.book = transfer_store.resume(self._connection, Book())
        else:
            state.book = transfer_store.fold(self._connection, book)
        return state

    def matters(self) -> Matters:
        """What each matter knew when the last batch was committed."""
        rows = {row["name"]: row["state"] for row in self.rows("select * from matters")}
        return Matters(MATTERS, rows)

    def book(self) -> Book:
        """The transfers' book, folded from its rows. AssertionError if they contradict it."""
        return transfer_store.fold(self._connection, Book())

    def transfers(self) -> Iterator[Row]:
        """Every row of the transfers, in order."""
        for rows, _, _ in transfer_store.batches(self._connection):
            yield from rows

    def point(self) -> Point:
        """The stored position: the last event of the last committed batch."""
        row = next(self.rows("select epoch, sequence, event_index from progress"))
        return row["epoch"], row["sequence"], row["event_index"]

    def trades(self, date: int, upto: int = 0) -> Iterator[tuple[int, int, int, int, int]]:
        """(match number, stamp, instrument, price ticks, lots) of a date, the last trade first.

        ``upto``: a stamp that none is later than; 0: any.
        """
        query = (
            "select kind, number, stamp, business_date, instrument, price, quantity from journal"
            " order by number desc"
        )
        for kind, number, stamp, day, instrument, price, lots in self._connection.execute(query):
            if day != date:
                return
            if kind == EntryKind.TRADE and (not upto or stamp <= upto):
                yield number, stamp, instrument, price, lots

    def legs(self, account: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(EntryKind, instrument, signed lots, adjusted lots, price) of what changed hands, as
        ``cleared_legs`` has it but for the price, which is that of the entry; in order. Reads the
        stretches of the journal in which the account was active."""
        for first, last in self._connection.execute(ACTIVE, (account,)).fetchall():
            for kind, instrument, price, quantity, *sides in self._connection.execute(
                LEGS, (first, last, account)
            ):
                for side, sign in zip(sides, (1, -1), strict=True):
                    if side == account:
                        lots = sign * (-quantity if kind in TAKEN_BACK else quantity)
                        moved, adjusted = (0, lots) if kind in ADJUSTING else (lots, 0)
                        yield kind, instrument, moved, adjusted, price

    def movements(self, account: int) -> Iterator[tuple[int, int, int]]:
        """(business date, Movement, micro-dollars) of an account."""
        query = "select business_date, kind, amount from movements where account = ?"
        for date, kind, amount in self._connection.execute(query, (account,)):
            yield date, kind, int(amount)

    def balances(self) -> defaultdict[int, int]:
        """Every ledger account's balance."""
        rows = self.rows("select ledger_account, balance from balances")
        return defaultdict(int, ((row["ledger_account"], row["balance"]) for row in rows))

    def divergences(self) -> list[Divergence]:
        """All that were found, oldest first."""
        found = []
        for row in self.rows("select * from divergences order by rowid"):
            row["index"] = row.pop("event_index")
            found.append(Divergence(**row))
        return found

    def write(self, state: State, changes: Changes, before: Point) -> None:
        """Commit a batch: ``changes``, and ``state``'s point in place of ``before``.

        Nothing is written unless all of it is. RuntimeError if the stored point is not
        ``before``: somebody else writes this file.
        """
        execute = self._connection.execute
        execute("begin immediate")
        try:
            moved = execute(
                "update progress set epoch = ?, sequence = ?, event_index = ?, business_date = ?,"
                " entries = ?, head = ? where epoch = ? and sequence = ? and event_index = ?",
                (*state.point, state.business_date, state.entries, state.ledger.head, *before),
            ).rowcount
            if moved != 1:
                raise RuntimeError(f"{self.path}: not at {before}: another writer is at work")
            for name, rows in _rows(state, changes):
                if rows:
                    self._connection.executemany(_WRITES[name], rows)
            transfer_store.write(self._connection, state.book)
            execute("commit")
        except BaseException:
            if self._connection.in_transaction:
                execute("rollback")
            raise

    def entries(self) -> Iterator[tuple[Entry, bytes]]:
        """Every journal entry with its stored hash, in order."""
        postings = iter(
            self._connection.execute(
                "select number, debit, credit, amount from postings order by number, line"
            )
        )
        posting = next(postings, None)
        for row in self._connection.execute("select * from journal order by number"):
            number, kind, stamp, date, instrument, price, quantity, buyer, seller, digest = row
            lines = []
            while posting is not None and posting[0] == number:
                lines.append(posting[1:])
                posting = next(postings, None)
            yield (
                Entry(
                    number, EntryKind(kind), stamp, date, instrument, price, quantity, buyer,
                    seller, lines,
                ),
                digest,
            )  # fmt: skip
        assert posting is None, f"posting of an entry that is not there: {posting}"

    def close(self) -> None:
        """Close the file."""
        self.database.close()


def _held(amount: int) -> int | str:
    """An amount as SQLite can hold it: text where 64 bits are too few."""
    return amount if abs(amount) < 1 << 63 else str(amount)


def _exact_sum(one: int | str, other: int | str) -> int | str:
    """The sum of two amounts as ``_held`` gives them."""
    return _held(int(one) + int(other))


def _rows(state: State, changes: Changes) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """The rows of a batch, by table."""
    ledger, positions = state.ledger.balances, state.positions
    touched = {account for row in changes.postings for account in row[2:4]}
    yield "accounts", [(a, *state.members[a]) for a in changes.accounts]
    yield "instruments", [astuple(state.instruments[i]) for i in changes.instruments]
    yield "journal", changes.journal
    yield "postings", list(changes.postings)
    yield "balances", [(a, ledger_name(a), ledger[a]) for a in touched]
    held: list[tuple[int, int, int, int]] = []
    for key, account in sorted((key, account) for account, key in changes.positions):
        position = positions.get(account, key)
        held.append((account, key, position.net, position.cost))
    yield "positions", held
    yield "movements", [(*key, _held(amount)) for key, amount in changes.movements().items()]
    yield "trading", [(*key, *astuple(t)) for key, t in changes.trading.items()]
    yield "activity", [(date, a, *astuple(done)) for (date, a), done in changes.activity.items()]
    yield "divergences", [astuple(d) for d in changes.divergences]
    yield "rulings", changes.rulings
    yield "matters", state.matters.encoded()


def audit(store: Store, state: State) -> None:
    """Recompute everything from the journal alone; AssertionError names the first difference."""
    ledger = Ledger()
    moved: defaultdict[tuple[int, int], defaultdict[int, int]] = defaultdict(
        lambda: defaultdict(int)
    )
    entries = 0
    for entry, digest in store.entries():
        assert link(ledger.head, entry) == digest, f"hash of entry {entry.number}"
        ledger.post(entry)
        entries += 1
        for debit, credit, amount in entry.postings:
            for account, delta in ((debit, -amount), (credit, amount)):
                moved[entry.business_date, entry.kind][account] += delta
    ledger.check()
    assert (ledger.head, entries) == (state.ledger.head, state.entries), "head of the journal"
    assert ledger.balances == state.ledger.balances, "balances"
    lines = gather(moved)
    for row in store.rows("select * from movements"):
        lines[row["business_date"], row["account"], row["kind"]] -= int(row["amount"])
    assert not any(lines.values()), "movements are not the sum of the postings"
    for row in store.rows("select instrument, sum(net) as net from positions group by instrument"):
        assert row["net"] == 0, f"positions of instrument {row['instrument']}"
    book = store.book()
    book.check()
    assert (book.head, book.count) == (state.book.head, state.book.count), "head of the transfers"
    assert not list(store.rows(_POSITIONS_DIFFER)), "positions are not the sum of what was cleared"


# A combination's trade moves no position: its legs do.
_POSITIONS_DIFFER: Final = f"""
    with moved as (
        select instrument, buyer, seller,
               iif(kind in {_listed(TAKEN_BACK)}, -quantity, quantity) as lots
        from journal
        where kind in {_listed(MOVING)}
              and instrument in (select instrument from positions)
              and instrument not in
                  (select instrument from journal where kind = {EntryKind.EXPIRY:d})
    )
    select account, instrument, sum(net) from (
        select account, instrument, net from positions
        union all select buyer, instrument, -lots from moved
        union all select seller, instrument, lots from moved
    ) group by account, instrument having sum(net) != 0"""
