"""The fifteen invariants of a ledger, and for each a mutant that breaks those it declares.

Every invariant is an experiment on an empty ledger; what it compares with is what was applied, not
what was asked. The unchanged ledger passes all, each mutant fails exactly those named beside it.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from benches.transfer_file import Transfers
from exchange.clearing.outcomes import Outcome, Transfer, TransferKind
from exchange.clearing.transfer_store import batches, create
from exchange.clearing.transfers import GENESIS, SECOND, Account, Book, Row, link

TABLE: Final = Path(__file__).parent / "tables" / "ledger.json"
NAMED: Final = {i["id"]: i["invariant"] for i in json.loads(TABLE.read_text())["invariants"]}
START: Final = 1_800_000_000 * SECOND
POST, VOID, REVERSE = (int(k) for k in (TransferKind.POST, TransferKind.VOID, TransferKind.REVERSE))
MEMORY: Final = ":memory:"


class Subject(Transfers):
    """The ledger under test. ``meeting``: where a mutant's threads wait for each other between
    two steps that the ledger itself takes under one lock."""

    meeting: threading.Barrier | None = None

    def meet(self) -> None:
        if self.meeting is not None:
            self.meeting.wait(timeout=10)

    def balance(self, id: str) -> int:
        account = self.book.accounts[id]
        return account.credits_posted - account.debits_posted


Make = Callable[[], Subject]


def ready(make: Make) -> Subject:
    """A ledger with a bank, two accounts that may not overdraw, two that may, and hours."""
    ledger = make()
    ledger.open(
        Account("bank"), Account("A", limit="debits"), Account("B", limit="debits"),
        Account("C"), Account("G", "GPUH"), Account("H", "GPUH"),
    )  # fmt: skip
    ledger.apply([Transfer("fund A", "bank", "A", 100), Transfer("fund B", "bank", "B", 50)], START)
    return ledger


def lively(ledger: Subject) -> None:
    """Some of everything: holds posted, voided and expired, chains, refusals, hours."""
    steps = [
        [Transfer("h1", "A", "C", 30, 1), Transfer("h2", "A", "C", 7, 1, timeout=1)],
        [Transfer("x1", kind=POST, pending_id="h1", amount=13), Transfer("h3", "B", "C", 5, 1)],
        [Transfer("x3", kind=VOID, pending_id="h3"), Transfer("no", "B", "A", 999)],
        [Transfer("l1", "A", "C", 3, linked=True), Transfer("l2", "B", "C", 999)],
        [Transfer("g1", "G", "H", 24), Transfer("plain", "A", "B", 11)],
    ]
    for place, batch in enumerate(steps):
        ledger.apply(batch, START + (place + 1) * SECOND, place + 1)


def rows_of(ledger: Subject) -> list[Row]:
    return [row for rows, _, _ in batches(ledger.connection) for row in rows]


def together(ledger: Subject, works: list[Callable[[], Any]], meet: bool = True) -> list[Any]:
    """Do all at once, each in its thread; an exception is a result."""
    if meet:
        ledger.meeting = threading.Barrier(len(works))

    def done(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (sqlite3.Error, AssertionError) as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        results = list(pool.map(done, works))
    ledger.meeting = None
    return results


# The experiments.


def balanced(make: Make) -> None:
    ledger = ready(make)
    lively(ledger)
    sums: dict[str, int] = {}
    for account in ledger.book.accounts.values():
        debits, credits = sum(account.totals()[:2]), sum(account.totals()[2:])
        sums[account.ledger] = sums.get(account.ledger, 0) + debits - credits
    assert sums == {"USD": 0, "GPUH": 0}


def append_only(make: Make) -> None:
    ledger = ready(make)
    seen: list[Row] = []
    for step in (lambda: lively(ledger), lambda: ledger.apply(
            [Transfer("late", "A", "B", 1)], START + 99 * SECOND)):  # fmt: skip
        step()
        rows = rows_of(ledger)
        assert rows[: len(seen)] == seen
        seen = rows
    assert ledger.apply([Transfer("h9", "A", "C", 3, 1)], START + 100 * SECOND) == [Outcome.OK]
    ledger.apply([Transfer("x9", kind=POST, pending_id="h9", amount=1)], START + 101 * SECOND)
    assert rows_of(ledger)[: len(seen) + 1][-1].amount == 3


def chained(make: Make) -> None:
    ledger = ready(make)
    ledger.apply([Transfer("a", "A", "B", 1)], START)
    ledger.apply([Transfer("b", "A", "B", 1)], START)
    head = GENESIS
    for rows, _, stored in batches(ledger.connection):
        head = link(head, rows)
        assert head == stored
    assert head == ledger.head


def duplicate_changes_nothing(make: Make) -> None:
    ledger = ready(make)
    asked = Transfer("a", "A", "B", 5)
    assert ledger.apply([asked], START) == [Outcome.OK]
    before = ledger.balance("A"), len(rows_of(ledger))
    assert ledger.apply([asked], START) == [Outcome.EXISTS]
    assert (ledger.balance("A"), len(rows_of(ledger))) == before


def duplicates_at_once(make: Make) -> None:
    ledger = ready(make)
    asked = Transfer("a", "A", "B", 1)
    found = together(ledger, [lambda: ledger.apply([asked], START)] * 64)
    assert [error for error in found if isinstance(error, Exception)] == []
    assert sorted(o.name for (o,) in found) == ["EXISTS"] * 63 + ["OK"]
    assert (ledger.balance("A"), ledger.balance("B")) == (99, 51)


def no_lost_update(make: Make) -> None:
    ledger, ids = ready(make), count()

    def credit() -> Outcome:
        return ledger.apply([Transfer(f"t{next(ids)}", "bank", "C", 3)], START)[0]

    for _ in range(25):
        assert together(ledger, [credit] * 20) == [Outcome.OK] * 20
    assert ledger.balance("C") == 500 * 3


def value_conserved(make: Make) -> None:
    ledger, ids = ready(make), count()

    def drain() -> Outcome:  # most are refused
        return ledger.apply([Transfer(f"d{next(ids)}", "A", "C", 40)], START)[0]

    def back() -> Outcome:
        return ledger.apply([Transfer(f"b{next(ids)}", "C", "B", 1)], START)[0]

    together(ledger, [drain, back] * 5, meet=False)
    assert sum(map(ledger.balance, ("bank", "A", "B", "C"))) == 0


def balances_are_the_journal(make: Make) -> None:
    ledger = ready(make)
    lively(ledger)
    found = ledger.connection.execute(
        "select id, credits_posted - debits_posted from transfer_accounts"
    )
    stored = dict(found.fetchall())
    sums = dict.fromkeys(stored, 0)
    for row in rows_of(ledger):
        if row.outcome == Outcome.OK and row.kind in (TransferKind.PLAIN, POST, REVERSE):
            sums[row.debit] -= row.amount
            sums[row.credit] += row.amount
    assert stored == sums


def no_overdraft_at_once(make: Make) -> None:
    ledger, ids = ready(make), count()

    def withdraw() -> Outcome:
        return ledger.apply([Transfer(f"w{next(ids)}", "A", "bank", 10)], START)[0]

    found = together(ledger, [withdraw] * 20)
    assert sorted(found) == [Outcome.OK] * 10 + [Outcome.EXCEEDS_CREDITS] * 10
    assert ledger.balance("A") == 0


def no_drift(make: Make) -> None:
    ledger = ready(make)
    large = (1 << 58) + 1
    ledger.apply([Transfer("large", "bank", "C", large)], START)
    ledger.apply([Transfer(f"s{n}", "bank", "C", 1) for n in range(1_000)], START)
    assert ledger.balance("C") == large + 1_000


def no_mixing(make: Make) -> None:
    ledger = ready(make)
    assert ledger.apply([Transfer("m", "C", "G", 5)], START) == [
        Outcome.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER
    ]
    assert (ledger.balance("C"), ledger.balance("G")) == (0, 0)


def reversal_compensates(make: Make) -> None:
    ledger = ready(make)
    ledger.apply([Transfer("a", "A", "B", 5)], START)
    before = rows_of(ledger)
    assert ledger.apply([Transfer("r", kind=REVERSE, pending_id="a")], START) == [Outcome.OK]
    *kept, last = rows_of(ledger)
    assert kept == before
    assert (last.debit, last.credit, last.amount) == ("B", "A", 5)
    assert (ledger.balance("A"), ledger.balance("B")) == (100, 50)


def rebuilds(make: Make) -> None:
    ledger = ready(make)
    lively(ledger)
    live, again = ledger.book, type(ledger.book)()
    for account in live.accounts.values():
        again.open(Account(account.id, account.ledger, account.limit))
    for rows, _, _ in batches(ledger.connection):
        again.replay(rows)
    for id, account in live.accounts.items():
        assert again.accounts[id].totals() == account.totals()
    assert (again.head, again.count) == (live.head, live.count)
    for id in ("h1", "h2", "h3", "no", "l1", "l2", "g1"):
        assert (again.find(id), again.held(id)) == (live.find(id), live.held(id))


def order_only_rises(make: Make) -> None:
    ledger = ready(make)
    lively(ledger)
    last: dict[str, tuple[int, int]] = {}
    for row in rows_of(ledger):
        for account in (row.debit, row.credit):
            assert last.get(account, (0, 0)) < (row.number, row.stamp)
            assert last.get(account, (0, 0))[1] <= row.stamp
            last[account] = row.number, row.stamp


def refused_stays_refused(make: Make) -> None:
    ledger = ready(make)
    asked = Transfer("a", "B", "C", 60)
    assert ledger.apply([asked], START) == [Outcome.EXCEEDS_CREDITS]
    ledger.apply([Transfer("more", "bank", "B", 100)], START)
    assert ledger.apply([asked], START) == [Outcome.ID_ALREADY_FAILED]
    assert (ledger.balance("B"), ledger.balance("C")) == (150, 0)


EXPERIMENTS: Final[dict[str, Callable[[Make], None]]] = {
    f"INV{place:02d}": experiment
    for place, experiment in enumerate(
        (balanced, append_only, chained, duplicate_changes_nothing, duplicates_at_once,
         no_lost_update, value_conserved, balances_are_the_journal, no_overdraft_at_once, no_drift,
         no_mixing, reversal_compensates, rebuilds, order_only_rises, refused_stays_refused), 1
    )
}  # fmt: skip


# The mutants. Each names the invariants that it breaks; its own is the one it is filed under.


class OneLeg(Subject):
    class book_type(Book):
        def _move(self, row: Row, sign: int) -> None:
            super()._move(row, sign)
            if row.kind == TransferKind.PLAIN and row.ledger == "GPUH":
                self.accounts[row.credit].credits_posted -= sign * row.amount


class WithoutTriggers(Subject):
    def _create(self) -> None:
        create(self.connection)
        for table in ("transfers", "transfer_batches"):
            for verb in ("update", "delete"):
                self.connection.execute(f"drop trigger {table}_{verb}")


class UpdatesInPlace(WithoutTriggers):
    def _write(self) -> None:
        posts = [row for row in self.book.fresh if row.kind == POST]
        super()._write()
        for row in posts:
            self.connection.execute(
                "update transfers set amount = ? where id = ?", (row.amount, row.pending_id)
            )


class HashesAlone(Subject):
    class book_type(Book):
        def _link(self, rows: Sequence[Row]) -> bytes:
            return link(GENESIS, rows)


class WithoutLookUp(Subject):
    class book_type(Book):
        def _judge(self, t: Transfer, stamp: int, fresh: list[Row]) -> Outcome:
            known = self._rows.get(t.id)
            applied = known is not None and known.outcome == Outcome.OK
            self._rows.pop(t.id, None) if applied else None
            return super()._judge(t, stamp, fresh)


class LooksUpTooEarly(Subject):
    class book_type(Book):
        blind = False

        def _judge(self, t: Transfer, stamp: int, fresh: list[Row]) -> Outcome:
            self._rows.pop(t.id, None) if self.blind else None
            return super()._judge(t, stamp, fresh)

    def apply(self, batch: Any, stamp: int, sequence: int = 0) -> list[Outcome]:
        known = self.book.find(batch[0].id)
        self.meet()
        assert isinstance(self.book, LooksUpTooEarly.book_type)
        self.book.blind = known is None and self.meeting is not None
        return super().apply(batch, stamp, sequence)


class WritesWhatItRead(Subject):
    def apply(self, batch: Any, stamp: int, sequence: int = 0) -> list[Outcome]:
        account = self.book.accounts.get(batch[0].credit)
        read = None if account is None else account.credits_posted
        self.meet()
        outcomes = super().apply(batch, stamp, sequence)
        if self.meeting is not None and account is not None and read is not None:
            account.credits_posted = read + batch[0].amount
        return outcomes


class CreditsFirst(Subject):
    class book_type(Book):
        def _movement(self, t: Transfer, stamp: int) -> Row | Outcome:
            found = super()._movement(t, stamp)
            if found is Outcome.EXCEEDS_CREDITS and t.amount == 40:
                self.accounts[t.credit].credits_posted += t.amount
            return found


class RoundsItsCache(Subject):
    def _write(self) -> None:
        super()._write()
        self.connection.execute(
            "update transfer_accounts set debits_posted = debits_posted / 10 * 10"
        )


class ChecksFundsTooEarly(Subject):
    def apply(self, batch: Any, stamp: int, sequence: int = 0) -> list[Outcome]:
        account = self.book.accounts.get(batch[0].debit)
        if self.meeting is None or account is None or not account.limit:
            return super().apply(batch, stamp, sequence)
        if account.free < batch[0].amount:
            return [Outcome.EXCEEDS_CREDITS]
        self.meet()
        with self._lock:
            account.limit = ""
            outcomes = self.book.apply(batch, stamp)
            account.limit = "debits"
            self._commit()
        return outcomes


class Floats(Subject):
    class book_type(Book):
        def open(self, account: Account) -> bool:
            account.credits_posted = float(account.credits_posted)  # type: ignore[assignment]
            return super().open(account)


class ComparesNoLedgers(Subject):
    class book_type(Book):
        def _movement(self, t: Transfer, stamp: int) -> Row | Outcome:
            debit, credit = self.accounts.get(t.debit), self.accounts.get(t.credit)
            if debit is None or credit is None:
                return super()._movement(t, stamp)
            own, credit.ledger = credit.ledger, debit.ledger
            found = super()._movement(t, stamp)
            credit.ledger = own
            return found


class DeletesOnReversal(WithoutTriggers):
    def _write(self) -> None:
        reversed_ids = [(r.pending_id,) for r in self.book.fresh if r.kind == REVERSE]
        super()._write()
        self.connection.executemany("delete from transfers where id = ?", reversed_ids)


class KeepsRefusalsToItself(Subject):
    class book_type(Book):
        def _spend(self, t: Transfer, outcome: Outcome, stamp: int, fresh: list[Row]) -> None:
            row = Row(
                0, stamp, int(outcome), t.kind, t.flags, t.id, t.debit, t.credit, 0, "", 0, ""
            )
            self._rows[t.id] = row


class WallClock(Subject):
    class book_type(Book):
        def _movement(self, t: Transfer, stamp: int) -> Row | Outcome:
            found = super()._movement(t, stamp)
            if isinstance(found, Row) and t.id == "plain":  # the clock was set back meanwhile
                found = replace(found, stamp=found.stamp - 3_600 * SECOND)
            return found


class ForgetsOutcomes(Subject):
    class book_type(Book):
        def _known(self, t: Transfer, row: Row) -> Outcome:
            return Outcome.EXISTS if row.outcome != Outcome.OK else super()._known(t, row)


MUTANTS: Final[dict[str, tuple[type[Subject], set[str]]]] = {
    "INV01": (OneLeg, {"INV08"}),
    "INV02": (UpdatesInPlace, {"INV13"}),
    "INV03": (HashesAlone, set()),
    "INV04": (WithoutLookUp, {"INV05"}),
    "INV05": (LooksUpTooEarly, set()),
    "INV06": (WritesWhatItRead, set()),
    "INV07": (CreditsFirst, set()),
    "INV08": (RoundsItsCache, set()),
    "INV09": (ChecksFundsTooEarly, set()),
    "INV10": (Floats, set()),
    "INV11": (ComparesNoLedgers, set()),
    "INV12": (DeletesOnReversal, set()),
    "INV13": (KeepsRefusalsToItself, set()),
    "INV14": (WallClock, set()),
    "INV15": (ForgetsOutcomes, set()),
}


@pytest.fixture
def open_ledgers() -> Iterator[Callable[[type[Subject]], Make]]:
    """Makes ledgers in memory, and closes them in the end."""
    opened: list[Subject] = []

    def maker(kind: type[Subject]) -> Make:
        def make() -> Subject:
            opened.append(kind(MEMORY))
            return opened[-1]

        return make

    yield maker
    for ledger in opened:
        ledger.close()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_ledger_keeps(name: str, open_ledgers: Callable[[type[Subject]], Make]) -> None:
    assert set(EXPERIMENTS) == set(NAMED) == set(MUTANTS)
    EXPERIMENTS[name](open_ledgers(Subject))


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_breaks_what_it_declares(
    name: str, open_ledgers: Callable[[type[Subject]], Make]
) -> None:
    mutant, also = MUTANTS[name]
    broken = set()
    for invariant, experiment in EXPERIMENTS.items():
        try:
            experiment(open_ledgers(mutant))
        except (AssertionError, sqlite3.Error):
            broken.add(invariant)
    assert broken == {name} | also
