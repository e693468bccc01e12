"""The ledger's store: one SQLite file, readable with any SQLite tool.

It uses a write-ahead log with ``synchronous = full``. One SQLite transaction books a batch of
frames and updates the stored point of the stream: after a crash both are there or neither, so every
event is applied exactly once. Journal, postings and rulings are append-only (by triggers), and the
hash of each journal row covers the one before it.

sqlite-utils creates the schema and answers queries; writing a batch uses sqlite3 directly.
"""

import sqlite3
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from exchange.clearing import transfer_store
from exchange.clearing.absent import absent
from exchange.clearing.bulk import insert
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
STORE_VERSION: Final = 17

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
    # The rulings that are steps of an account's margin calls: a statement reads those alone.
    "call_steps": (
        {"account": int, "number": int, "line": int}, ("account", "number", "line"),
    ),
    # Of operators' requests: the first command under each id, which is a digest of 16 bytes.
    "requests": ({"account": int, "key": bytes, "sequence": int}, ("account", "key")),
    "matters": ({"name": str, "state": str}, ("name",)),
}  # fmt: skip


def _listed(kinds: Iterable[EntryKind]) -> str:
    """Return kinds as a list in SQL."""
    return f"({', '.join(f'{kind:d}' for kind in kinds)})"


AT_TICKS: Final = (EntryKind.TRADE, EntryKind.BUST, EntryKind.ADJUSTMENT)  # others: clearing prices
_VIEWS: Final = {
    # All lots that changed hands, at clearing prices; of a combination both its own trade and its
    # legs. An adjustment moves no lots: its price is the change, of ``adjusted`` lots.
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

# Of a few kinds of entries only: an index of trades by account would cost more than booking them.
_INDEXES: Final = tuple(
    f"create index settlements_by_{name} on journal ({columns})"
    f" where kind in ({EntryKind.SETTLEMENT:d}, {EntryKind.EXPIRY:d})"
    for name, columns in (("number", "number"), ("instrument", "instrument, business_date"))
)
# Steps from date to date by the key, without reading the rows in between.
ACTIVE: Final = """
    with recursive dates (date) as (
        select min(business_date) from activity
        union all
        select (select min(business_date) from activity where business_date > date) from dates
        where date is not null)
    select first, last from dates cross join activity
    where business_date = date and account = ? order by date"""
STEPS: Final = """
    select stamp, business_date, operation, outcome, facts from call_steps
    cross join rulings using (number, line) where account = ? order by number, line"""
LEGS: Final = f"""
    select kind, instrument, price, quantity, buyer, seller from journal
    where number between ?1 and ?2 and ?3 in (buyer, seller)
    and kind in {_listed(MOVING + ADJUSTING)} order by number"""
MOVES: Final = f"""
    select kind, business_date, instrument, quantity, buyer, seller from journal
    where number between ? and ? and kind in {_listed((*MOVING, EntryKind.EXPIRY))}
    order by number"""

_WRITES: Final = {
    "accounts": "insert or replace into accounts values (?, ?, ?)",
    "instruments": "insert or replace into instruments values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "journal": "insert into journal values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "postings": "insert into postings values (?, ?, ?, ?, ?)",
    "balances": "insert or replace into balances values (?, ?, ?)",
    "positions": "insert or replace into positions values (?, ?, ?, ?)",
    # An account's deposits have no bound, and SQLite makes REAL of a sum beyond 64 bits.
    "movements": "insert into movements values (?, ?, ?, ?) on conflict do update set amount ="
    " case typeof(amount + excluded.amount) when 'integer' then amount + excluded.amount"
    " else exact_sum(amount, excluded.amount) end",
    "trading": "insert or replace into trading values (?, ?, ?, ?, ?, ?)",
    "activity": "insert or replace into activity values (?, ?, ?, ?, ?, ?, ?)",
    "divergences": "insert into divergences values (?, ?, ?, ?, ?, ?, ?)",
    "rulings": "insert into rulings values (?, ?, ?, ?, ?, ?, ?)",
    "call_steps": "insert into call_steps values (?, ?, ?)",
    "requests": "insert or ignore into requests values (?, ?, ?)",
    "matters": "insert or replace into matters values (?, ?)",
}


class OtherVersion(ValueError):
    """The file has the layout of another build, or none yet."""


class Damaged(sqlite3.DatabaseError):
    """The file can be read but contradicts itself: a copy of more than one moment, for example.
    Nothing is lost, since the file can be rebuilt from the log."""


def discard(path: Path) -> None:
    """Delete a store that nobody has open."""
    # The write-ahead log first: SQLite would apply one that is left to a new file.
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class Store:
    """An open store. It may have one writer and any number of readers."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        mode = "ro" if read_only else "rwc"
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,  # transactions begin where this file says so
            check_same_thread=False,  # the owner serializes access
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
        weakref.finalize(self, self._connection.close)  # a start that fails drops it

    def _create(self) -> None:
        self._connection.execute("begin immediate")
        for name, (columns, key) in _TABLES.items():
            made = self.database.create_table_sql(
                name, columns, pk=key or None, not_null=set(columns), strict=True
            )
            # A key of several columns is the table itself, not an index beside it.
            options = ", without rowid" if len(key) > 1 else ""
            self._connection.execute(made.rstrip().removesuffix(";") + options)
        # Most rulings are of dues that are done; queries ask for rulings on other operations.
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
        """Return the rows of a query as dictionaries."""
        return iter(self.database.query(query, values))

    def first(self, query: str, values: tuple[int | bytes, ...]) -> int | None:
        """Return the number in the first row of a query, or None without rows."""
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else int(row[0])

    def load(self, book: Book | None = None) -> State:
        """Return the state as of the last committed batch. Raises OtherVersion.

        ``book`` is the book of an earlier load, to which only later rows are added.
        """
        self._connection.execute("begin")  # one snapshot, should a writer commit meanwhile
        try:
            return self._load(book)
        finally:
            self._connection.execute("rollback")

    def _load(self, book: Book | None) -> State:
        if not self.database["progress"].exists():  # a kill at the first start left it so
            raise OtherVersion(f"{self.path} is empty; the market rebuilds it when it starts")
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
        """Return the matters as of the last committed batch."""
        rows = {row["name"]: row["state"] for row in self.rows("select * from matters")}
        return Matters(MATTERS, rows)

    def book(self) -> Book:
        """Return the book of transfers, folded from its rows. AssertionError if stored totals or
        hashes contradict them."""
        return transfer_store.fold(self._connection, Book())

    def transfers(self) -> Iterator[Row]:
        """Yield every row of the transfers, in order."""
        for rows, _, _ in transfer_store.batches(self._connection):
            yield from rows

    def point(self) -> Point:
        """Return the position of the last event of the last committed batch."""
        row = next(self.rows("select epoch, sequence, event_index from progress"))
        return row["epoch"], row["sequence"], row["event_index"]

    def trades(self, date: int, upto: int = 0) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield (match number, stamp, instrument, price ticks, lots) of a date, the latest trade
        first. Only trades up to the stamp ``upto``; 0: all.
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
        """Yield (EntryKind, instrument, signed lots, adjusted lots, price) of what an account
        cleared, in order.

        As the view ``cleared_legs``, except that the price is the entry's. It reads only the parts
        of the journal in which the account was active.
        """
        for first, last in self._connection.execute(ACTIVE, (account,)).fetchall():
            for kind, instrument, price, quantity, *sides in self._connection.execute(
                LEGS, (first, last, account)
            ):
                for side, sign in zip(sides, (1, -1), strict=True):
                    if side == account:
                        lots = sign * (-quantity if kind in TAKEN_BACK else quantity)
                        moved, adjusted = (0, lots) if kind in ADJUSTING else (lots, 0)
                        yield kind, instrument, moved, adjusted, price

    def before(self, date: int) -> int:
        """Return the number of the last entry before a business date; 0 if there is none."""
        query = "select number from journal where business_date < ? order by number desc limit 1"
        return next((number for (number,) in self._connection.execute(query, (date,))), 0)

    def moves(self, first: int, last: int) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Yield (EntryKind, business date, instrument, lots, buyer, seller) of the entries from one
        number to another that move lots, the sides of a bust swapped; and of expiries, with no
        lots."""
        for kind, *fields, lots, buyer, seller in self._connection.execute(MOVES, (first, last)):
            if kind == EntryKind.EXPIRY:
                lots = 0
            elif kind in TAKEN_BACK:
                buyer, seller = seller, buyer
            yield kind, *fields, lots, buyer, seller

    def movements(self, account: int) -> Iterator[tuple[int, int, int]]:
        """Yield (business date, Movement, micro-dollars) of an account."""
        query = "select business_date, kind, amount from movements where account = ?"
        for date, kind, amount in self._connection.execute(query, (account,)):
            yield date, kind, int(amount)

    def balances(self) -> defaultdict[int, int]:
        """Return the balance of every ledger account, in micro-dollars."""
        rows = self.rows("select ledger_account, balance from balances")
        return defaultdict(int, ((row["ledger_account"], row["balance"]) for row in rows))

    def divergences(self) -> list[Divergence]:
        """Return all divergences, oldest first."""
        found = []
        for row in self.rows("select * from divergences order by rowid"):
            row["index"] = row.pop("event_index")
            found.append(Divergence(**row))
        return found

    def write(self, state: State, changes: Changes, before: Point) -> None:
        """Commit a batch, all or nothing: ``changes``, and the point of ``state`` in place of
        ``before``. RuntimeError if the stored point is not ``before``: there is another writer.
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
                insert(self._connection, _WRITES[name], rows)
            transfer_store.write(self._connection, state.book)
            execute("commit")
        except BaseException:
            if self._connection.in_transaction:
                execute("rollback")
            raise

    def entries(self) -> Iterator[tuple[Entry, bytes]]:
        """Yield every journal entry with its stored hash, in order. AssertionError for a posting
        without its entry."""
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
    """Return an amount as SQLite can store it: as text beyond 64 bits."""
    return amount if abs(amount) < 1 << 63 else str(amount)


def _exact_sum(one: int | str, other: int | str) -> int | str:
    """Return the sum of two amounts, all as ``_held`` returns them."""
    return _held(int(one) + int(other))


def _rows(state: State, changes: Changes) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """Yield (table, rows) of a batch."""
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
    yield "call_steps", changes.steps
    yield "requests", changes.requests
    yield "matters", state.matters.encoded()


def audit(store: Store, state: State) -> None:
    """Recompute balances, movements, positions and hashes from the journal, and the book of
    transfers from its rows. AssertionError names the first difference."""
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


# A combination's own trade moves no position; its legs do.
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
