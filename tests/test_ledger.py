"""The ledger's rules: the vectors, the precedence, and random batches against a slow oracle."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import test_deliveries
from clearing_house import House
from oracle_ledger import Oracle
from test_defaults import start
from test_deliveries import OLD, SHORT, attest, begun, deliveries

from benches.transfer_file import Transfers
from exchange.clearing.bulk import insert
from exchange.clearing.calling import Pledge, Release, ValueAsset
from exchange.clearing.delivery.terms import DAY_NS
from exchange.clearing.outcomes import SPENDS_ID, Outcome, Transfer, TransferKind
from exchange.clearing.transfer_store import (
    BEHIND,
    BY_ID,
    BY_PENDING,
    HOLDS,
    create,
    fold,
    resume,
    write,
)
from exchange.clearing.transferring import MakeTransfers, OpenLedgerAccount
from exchange.clearing.transfers import SECOND, TRANSFERS_MAX, Account, Book

delivering = test_deliveries.house  # a fixture
Stored = Callable[[], sqlite3.Connection]
TABLE = Path(__file__).parent / "tables" / "ledger.json"
CASES = json.loads(TABLE.read_text())["cases"]
START = 1_800_000_000 * SECOND
TOTALS = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")


@pytest.fixture
def stored() -> Iterator[Stored]:
    """Makes empty files of transfers."""
    with ExitStack() as opened:

        def make() -> sqlite3.Connection:
            made = sqlite3.connect(":memory:", isolation_level=None)
            create(opened.enter_context(closing(made)))
            return made

        yield make


def transfer(given: dict[str, Any]) -> Transfer:
    """A vector's transfer."""
    fields = dict(given)
    kind = TransferKind[fields.pop("kind", "plain").upper()]
    if fields.get("balancing"):
        fields["balancing"] = "debit"
    return Transfer(**fields, kind=int(kind))


def shown(book: Book) -> dict[str, dict[str, int]]:
    return {
        id: dict(zip(TOTALS, account.totals(), strict=True))
        for id, account in book.accounts.items()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_vectors(case: dict[str, Any]) -> None:
    inputs, stamp = case["inputs"], START
    results: list[Any] = []
    book = Book(amount_max=inputs.get("amount_max", 1 << 60))
    for a in inputs["accounts"]:
        limit = "debits" if a.get("no_overdraft") else ""
        assert book.open(Account(a["id"], a.get("currency", "USD"), limit))
    for step in inputs["steps"]:
        if "batch" in step:
            outcomes = book.apply([transfer(t) for t in step["batch"]], stamp)
            results.append([outcome.name.lower() for outcome in outcomes])
        else:
            stamp += step["advance_s"] * SECOND
            book.advance(stamp)
            results.append(shown(book))
        book.check()
    assert results == case["expected"]["results"]
    assert shown(book) == case["expected"]["final"]


def test_the_table_is_the_vectors(shared: Path) -> None:
    vectors = json.loads((shared / "vectors/ledger.json").read_text())
    assert [c["id"] for c in CASES] == [c["id"] for c in vectors["cases"]]
    for case, vector in zip(CASES, vectors["cases"], strict=True):
        assert case.items() <= vector.items()


# Precedence: whatever is wrong further down, the first thing wrong is what is answered.

O = Outcome  # noqa: E741 - read on every line
POST, VOID, REVERSE = (int(kind) for kind in (TransferKind.POST, TransferKind.VOID,
                                              TransferKind.REVERSE))  # fmt: skip
LONG = "x" * 65


def precedence_book() -> Book:
    """A book whose limits are all near: 900 of 1,000 are posted, 50 held."""
    book = Book(amount_max=1_000)
    for account in (Account("A", limit="debits"), Account("B"), Account("C", limit="credits"),
                    Account("G", "GPUH"), Account("BK")):  # fmt: skip
        book.open(account)
    done = book.apply(
        [
            Transfer("f", "BK", "A", 900),
            Transfer("d", "B", "A", 20),
            Transfer("h", "A", "B", 50, kind=1),
            Transfer("v", "A", "B", 5, kind=1),
            Transfer("e", "A", "B", 5, kind=1, timeout=1),
            Transfer("p", "A", "B", 5, kind=1),
            Transfer("p-post", kind=POST, pending_id="p"),
            Transfer("v-void", kind=VOID, pending_id="v"),
            Transfer("r", kind=REVERSE, pending_id="d"),
        ],
        START,
    )
    assert done == [O.OK] * 9
    assert book.apply([Transfer("spent", "ZZ", "B", 1)], START + 2 * SECOND) == [
        O.DEBIT_ACCOUNT_NOT_FOUND
    ]
    return book


@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        (Transfer("", "A", "A", -1), O.ID_FORMAT),
        (Transfer(LONG, "A", "A", -1), O.ID_FORMAT),
        (Transfer("é", "A", "A", -1), O.ID_FORMAT),
        (Transfer("spent", "A", "A", -1, kind=1), O.ID_ALREADY_FAILED),
        (Transfer("f", "A", "A", -1, kind=1, pending_id="h", timeout=1),
         O.EXISTS_WITH_DIFFERENT_FLAGS),
        (Transfer("f", "A", "B", 1, pending_id="h", timeout=1),
         O.EXISTS_WITH_DIFFERENT_PENDING_ID),
        (Transfer("f", "A", "B", 1, timeout=1), O.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID),
        (Transfer("f", "BK", "B", 1, timeout=1), O.EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID),
        (Transfer("f", "BK", "A", 1, timeout=1), O.EXISTS_WITH_DIFFERENT_AMOUNT),
        (Transfer("f", "BK", "A", 900, timeout=1), O.EXISTS_WITH_DIFFERENT_TIMEOUT),
        (Transfer("f", "BK", "A", 900), O.EXISTS),
        (Transfer("p-post", "B", "A", kind=POST, pending_id="p"),
         O.EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID),
        (Transfer("p-post", kind=POST, pending_id="p", amount=5), O.EXISTS),
        (Transfer("n", "A", "A", -1, pending_id="h", timeout=1), O.PENDING_ID_MUST_NOT_BE_GIVEN),
        (Transfer("n", amount=-1, kind=POST, balancing="debit"), O.PENDING_ID_MUST_BE_GIVEN),
        (Transfer("n", amount=-1, kind=POST, balancing="debit", pending_id="n"),
         O.PENDING_ID_MUST_BE_DIFFERENT),
        (Transfer("n", amount=-1, kind=VOID, balancing="debit", pending_id="h"),
         O.FLAGS_COMBINATION),
        (Transfer("n", amount=1, kind=REVERSE, pending_id="f"), O.FLAGS_COMBINATION),
        (Transfer("n", "A", "B", 1, kind=5), O.FLAGS_COMBINATION),
        (Transfer("n", "A", "B", 1, kind=-1), O.FLAGS_COMBINATION),
        (Transfer("n", "A", "A", -1, timeout=1), O.AMOUNT_RANGE),
        (Transfer("n", "A", "A", 1_001, timeout=1), O.AMOUNT_RANGE),
        (Transfer("n", "A", "A", timeout=1), O.AMOUNT_RANGE),
        (Transfer("n", "ZZ", "ZZ", 1, timeout=1), O.ACCOUNTS_MUST_BE_DIFFERENT),
        (Transfer("n", "ZZ", "YY", 1, timeout=1), O.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER),
        (Transfer("n", kind=POST, pending_id="zz", timeout=1),
         O.TIMEOUT_RESERVED_FOR_PENDING_TRANSFER),
        (Transfer("n", "ZZ", "YY", 999), O.DEBIT_ACCOUNT_NOT_FOUND),
        (Transfer("n", "G", "YY", 999), O.CREDIT_ACCOUNT_NOT_FOUND),
        (Transfer("n", "A", "G", 999), O.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER),
        (Transfer("n", "B", "A", 999, kind=POST, pending_id="zz"), O.PENDING_TRANSFER_NOT_FOUND),
        (Transfer("n", kind=POST, pending_id="spent"), O.PENDING_TRANSFER_NOT_FOUND),
        (Transfer("n", "B", "A", 999, kind=POST, pending_id="f"), O.PENDING_TRANSFER_NOT_PENDING),
        (Transfer("n", "B", "A", 999, kind=POST, pending_id="p"),
         O.PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID),
        (Transfer("n", "A", "A", 999, kind=POST, pending_id="p"),
         O.PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID),
        (Transfer("n", "A", "B", 6, kind=VOID, pending_id="p"), O.EXCEEDS_PENDING_TRANSFER_AMOUNT),
        (Transfer("n", amount=4, kind=VOID, pending_id="p"),
         O.PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT),
        (Transfer("n", kind=VOID, pending_id="p"), O.PENDING_TRANSFER_ALREADY_POSTED),
        (Transfer("n", kind=POST, pending_id="v"), O.PENDING_TRANSFER_ALREADY_VOIDED),
        (Transfer("n", kind=POST, pending_id="e"), O.PENDING_TRANSFER_EXPIRED),
        (Transfer("n", kind=REVERSE, pending_id="zz"), O.REVERSED_TRANSFER_NOT_FOUND),
        (Transfer("n", kind=REVERSE, pending_id="h"), O.REVERSED_TRANSFER_NOT_POSTED),
        (Transfer("n", kind=REVERSE, pending_id="d"), O.TRANSFER_ALREADY_REVERSED),
        (Transfer("n", kind=REVERSE, pending_id="f"), O.EXCEEDS_CREDITS),
        (Transfer("n", "A", "C", 960, kind=1, timeout=1 << 31), O.OVERFLOWS_DEBITS_PENDING),
        (Transfer("n", "G", "B", 960, kind=1), O.ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER),
        (Transfer("n", "BK", "B", 960, kind=1), O.OVERFLOWS_CREDITS_PENDING),
        (Transfer("n", "BK", "C", 101), O.OVERFLOWS_DEBITS_POSTED),
        (Transfer("n", "B", "A", 101), O.OVERFLOWS_CREDITS_POSTED),
        (Transfer("n", "A", "C", 940), O.OVERFLOWS_DEBITS),
        (Transfer("n", "C", "B", 950), O.OVERFLOWS_CREDITS),
        (Transfer("n", "A", "C", 860, kind=1, timeout=1 << 31), O.OVERFLOWS_TIMEOUT),
        (Transfer("n", "A", "C", 860), O.EXCEEDS_CREDITS),
        (Transfer("n", "B", "C", 5), O.EXCEEDS_DEBITS),
    ],
)  # fmt: skip
def test_precedence(asked: Transfer, outcome: Outcome, stored: Stored) -> None:
    for book in (precedence_book(), started(precedence_book(), stored(), amount_max=1_000)):
        before = shown(book)
        (found,) = book.apply([asked], START + 3 * SECOND)
        assert found.name == outcome.name
        assert shown(book) == before
        (again,) = book.apply([asked], START + 4 * SECOND)
        assert again == (O.ID_ALREADY_FAILED if outcome in SPENDS_ID else outcome)


# A start


def started(book: Book, connection: sqlite3.Connection, amount_max: int = 1 << 60) -> Book:
    """The book as a start has it, once all of it is written."""
    write(connection, book)
    return resume(connection, Book(amount_max=amount_max))


@pytest.mark.parametrize("seed", range(6))
def test_a_book_that_is_started_again_and_again_judges_as_one_that_never_stopped(
    seed: int, stored: Stored
) -> None:
    draw, connection = random.Random(seed), stored()
    whole, book = Book(), Book()
    for id, (ledger, limit) in NAMES.items():
        for one in (whole, book):
            one.open(Account(id, ledger, limit))
    ids = [f"t{number}" for number in range(420)]
    for step in range(200):
        stamp = START + step * SECOND // 4
        batch = [random_transfer(draw, 20, 2 * step) for _ in range(draw.randrange(1, 9))]
        assert book.apply(batch, stamp) == whole.apply(batch, stamp)
        if draw.random() < 0.3:
            book = started(book, connection)
            assert (book.head, book.count, book.soonest) == (whole.head, whole.count, whole.soonest)
            assert shown(book) == shown(whole) and len(book._rows) == sum(map(book.held, ids))
        for id in draw.sample(ids, 5):
            assert (book.find(id), book.held(id)) == (whole.find(id), whole.held(id))
    whole.take()
    book = fold(connection, started(book, connection))  # as who reads beside the writer
    assert shown(book) == shown(fold(connection, Book())) == shown(whole)


def test_a_start_searches_and_finds_what_does_not_belong_together(stored: Stored) -> None:
    """Nothing it asks reads all rows; and of what was changed behind its back it says what."""
    for query, values in ((BY_ID, ("h", 9)), (BY_PENDING, ("h", 9)), (HOLDS, ()), (BEHIND, (3,))):
        plan = stored().execute(f"explain query plan {query}", values)
        assert all(step.startswith(("SEARCH", "SCAN transfer_holds")) or "ORDER BY" in step
                   for *_, step in plan)  # fmt: skip
    for change, said in (
        ("update transfer_accounts set debits_posted = debits_posted + 1", "do not balance"),
        ("delete from transfer_holds where id = 'h'", "holds of A"),
        ("insert into transfer_holds values ('v')", "holds of A"),
        ("insert into transfer_holds values ('f')", "f is no hold"),
        ("update transfers set stamp = 5 where id = 'spent'", "hash of the batch that ends"),
        ("delete from transfers where id = 'spent'", "the last transfers"),
    ):
        connection = stored()
        started(precedence_book(), connection)
        for name in ("update", "delete"):
            connection.execute(f"drop trigger transfers_{name}")
        connection.execute(change)
        with pytest.raises(AssertionError, match=said):
            resume(connection, Book(amount_max=1_000))


def test_what_no_database_could_hold_is_refused_and_kept_short(tmp_path: Path) -> None:
    """Ids like an expiry's own, numbers beyond 64 bits, names without end: all are answered."""
    ledger = Transfers(tmp_path / "t.db")
    ledger.open(Account("A"), Account("B"))
    assert ledger.apply([Transfer("h" * 64, "A", "B", 5, 1, timeout=1)], START) == [O.OK]
    batch = [
        Transfer("§3", "A", "B", 1),
        Transfer("big", "A", "B", 1 << 70),
        Transfer("late", "Z" * 9_999, "B", 1, 1, timeout=1 << 99),
        Transfer("later", "A", "B", 1, 1, timeout=1 << 99),
        Transfer("expiry of h", "A", "B", 1),
    ]
    assert ledger.apply(batch, START + 2 * SECOND) == [
        O.ID_FORMAT, O.AMOUNT_RANGE, O.DEBIT_ACCOUNT_NOT_FOUND, O.OVERFLOWS_TIMEOUT, O.OK,
    ]  # fmt: skip
    ledger.close()
    again = Transfers(tmp_path / "t.db")
    assert (again.book.count, again.head) == (ledger.book.count, ledger.book.head)
    assert again.apply([batch[2]], START + 3 * SECOND) == [O.ID_ALREADY_FAILED]
    again.close()


def test_a_full_ledger_says_so() -> None:
    book = Book(transfers_max=1)
    book.open(Account("A"))
    book.open(Account("B"))
    batch = [Transfer("a", "A", "B", 1), Transfer("b", "A", "B", 1), Transfer("a", "A", "B", 1)]
    assert book.apply(batch, START) == [O.OK, O.LEDGER_FULL, O.EXISTS]
    assert book.apply(batch[1:2], START, own=True) == [O.OK]
    assert TRANSFERS_MAX > 1_000_000


def test_what_a_full_ledger_holds_can_be_ended() -> None:
    book = Book(transfers_max=2)
    book.open(Account("A"))
    book.open(Account("B"))
    holds = [Transfer(id, "A", "B", 1, int(TransferKind.PENDING)) for id in "abc"]
    assert book.apply(holds, START) == [O.OK, O.OK, O.LEDGER_FULL]
    ends = [Transfer("p", kind=POST, pending_id="a"), Transfer("v", kind=VOID, pending_id="b"),
            Transfer("r", kind=REVERSE, pending_id="p")]  # fmt: skip
    assert book.apply(ends, START) == [O.OK, O.OK, O.LEDGER_FULL]


def test_delivery_against_payment_moves_both_or_neither() -> None:
    """Hours against dollars: one chain over two ledgers."""
    book = Book()
    for account in (Account("usd/buyer", limit="debits"), Account("usd/seller"),
                    Account("usd/bank"), Account("gpuh/buyer", "GPUH"),
                    Account("gpuh/seller", "GPUH", "debits"),
                    Account("gpuh/plant", "GPUH")):  # fmt: skip
        book.open(account)
    book.apply([Transfer("pay in", "usd/bank", "usd/buyer", 1_000),
                Transfer("attested", "gpuh/plant", "gpuh/seller", 24)], START)  # fmt: skip

    def slice_(day: int, hours: int, price: int) -> list[Outcome]:
        return book.apply(
            [Transfer(f"hours {day}", "gpuh/seller", "gpuh/buyer", hours, linked=True),
             Transfer(f"money {day}", "usd/buyer", "usd/seller", price)], START)  # fmt: skip

    assert slice_(1, 24, 600) == [O.OK, O.OK]
    before = shown(book)
    assert slice_(2, 24, 100) == [O.EXCEEDS_CREDITS, O.LINKED_EVENT_FAILED]  # no hours left
    assert shown(book) == before
    book.apply([Transfer("attested 3", "gpuh/plant", "gpuh/seller", 24)], START)
    assert slice_(3, 24, 401) == [O.LINKED_EVENT_FAILED, O.EXCEEDS_CREDITS]  # no money left
    assert book.accounts["gpuh/seller"].free == 24
    assert book.accounts["usd/seller"].credits_posted == 600
    book.check()


def test_a_repeated_chain_is_answered_and_not_applied_again() -> None:
    book = Book()
    book.open(Account("A"))
    book.open(Account("B"))
    chain = [Transfer("a", "A", "B", 1, linked=True), Transfer("b", "A", "B", 2)]
    assert book.apply(chain, START) == [O.OK, O.OK]
    assert book.apply(chain, START) == [O.EXISTS, O.EXISTS]
    assert book.accounts["B"].credits_posted == 3


def test_a_failed_chain_leaves_no_timeout_to_the_hold_that_comes_under_its_id() -> None:
    """For ever is for ever, and a fold of the rows, as after a restart, says the same."""
    live, again = Book(), Book()
    for book in (live, again):
        book.open(Account("A"))
        book.open(Account("B"))
    chain = [Transfer("h", "A", "B", 5, 1, timeout=10, linked=True), Transfer("x", "A", "A", 5)]
    assert live.apply(chain, START) == [O.LINKED_EVENT_FAILED, O.ACCOUNTS_MUST_BE_DIFFERENT]
    assert live.apply([Transfer("h", "A", "B", 5, 1)], START) == [O.OK]
    again.replay(live.take()[0])
    assert live.advance(START + 20 * SECOND) == again.advance(START + 20 * SECOND) == []
    assert live.held("h")
    assert (live.head, shown(live)) == (again.head, shown(again))


def test_a_batch_is_filed_under_the_command_that_caused_it(tmp_path: Path) -> None:
    """However many commands are written at once, as in a rebuild: here to the fund, one each."""
    house = start(tmp_path / "clearing.db")
    query = "select sequence from transfer_batches order by last"
    live = [row["sequence"] for row in house.clearing._store.rows(query)]
    assert len(set(live)) == len(live) > 3
    caused = "select number >> 20 as sequence from rulings where outcome = 'contributed'"
    assert {row["sequence"] for row in house.clearing._store.rows(caused)} <= set(live)
    house.clearing.rebuild(house.market.frames)
    assert [row["sequence"] for row in house.clearing._store.rows(query)] == live
    house.clearing.close()


# Random batches, judged by both.

NAMES = {"A": ("USD", "debits"), "B": ("USD", ""), "C": ("USD", "credits"), "D": ("USD", "debits"),
         "G": ("GPUH", ""), "H": ("GPUH", "debits")}  # fmt: skip


def random_transfer(draw: random.Random, ids: int, first: int = 0) -> Transfer:
    """One of a small world: few accounts, few ids, small amounts, so that rules meet."""
    kind = draw.choices(range(5), (8, 6, 4, 2, 2))[0]
    id, other = (f"t{first + draw.randrange(ids)}" for _ in range(2))
    linked = draw.random() < 0.25
    if kind > TransferKind.PENDING:
        amount = draw.choice((None, None, draw.randrange(30))) if kind != REVERSE else None
        return Transfer(id, amount=amount, kind=kind, pending_id=other, linked=linked)
    debit, credit = draw.choices([*NAMES, "Z"], (9, 9, 4, 4, 2, 2, 0.3), k=2)
    timeout = draw.choice((0, 0, 1, 3)) if kind == TransferKind.PENDING else 0
    balancing = draw.choices(("", "debit", "credit"), (8, 1, 1))[0]
    return Transfer(
        id, debit, credit, draw.randrange(40), kind, "", timeout, linked,
        balancing,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_random_batches_agree_with_the_oracle(seed: int) -> None:
    draw = random.Random(seed)
    book, oracle = Book(amount_max=150), Oracle(dict(NAMES), 150)
    for id, (ledger, limit) in NAMES.items():
        book.open(Account(id, ledger, limit))
    seen: set[Outcome] = set()
    for stamp in range(START, START + 40 * SECOND, SECOND // 2):
        batch = [random_transfer(draw, 90) for _ in range(draw.randrange(1, 6))]
        outcomes = book.apply(batch, stamp)
        assert [o.name for o in outcomes] == [o.name for o in oracle.apply(batch, stamp)], batch
        assert {id: a.totals() for id, a in book.accounts.items()} == {
            id: oracle.totals(id) for id in NAMES
        }
        book.check()
        seen.update(outcomes)
    assert len(seen) > 12
    rows, _, _ = book.take()
    assert [row.number for row in rows] == list(range(1, book.count + 1))


def test_a_ledger_that_is_full_delivers_and_takes_nothing_new(delivering: House) -> None:
    """Clearing's own transfers are not counted against the operator's limit."""
    house = delivering
    book = house.clearing._state.book
    house.record(OpenLedgerAccount(id="a"))
    house.record(OpenLedgerAccount(id="b"))
    house.record(ValueAsset(asset="T-BILL", price=1_000_000, haircut_bp=0))
    pledge = Pledge(id="p", account=OLD, asset="T-BILL", units=1)
    assert house.record(pledge)[0] == "accepted"
    book._transfers_max = book.count + 1
    one = Transfer("x", "a", "b", 1)
    _, facts = house.record(MakeTransfers(batch=[one, msgspec.structs.replace(one, id="y")]))
    assert facts == {"outcomes": ["ok", "ledger_full"], "rows_left": 0}
    outcome, facts = house.record(msgspec.structs.replace(pledge, id="q"))
    assert (outcome, facts["limit"], facts["observed"]) == ("full", book._transfers_max, book.count)
    begin = begun(house)
    house.at(begin + DAY_NS)
    for account in (SHORT, OLD):
        house.record(attest(account, 1))
    house.at(begin + 2 * DAY_NS)
    assert len(deliveries(house).deliveries[0].slices) == 1
    release = Release(id="r", account=OLD, asset="T-BILL", units=1)
    assert house.record(release)[0] == "accepted"
    book.check()


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 127, 128, 129, 300])
def test_many_rows_are_inserted_in_their_order(count: int) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table t (key integer primary key, amount integer, name text)")
        kept = "insert into t values (?, ?, ?) on conflict do update set amount = excluded.amount"
        insert(connection, kept, [(row % 200, row, f"n{row}") for row in range(count)])
        found = connection.execute("select * from t order by key").fetchall()
    last = {row % 200: row for row in range(count)}
    assert found == [(key, last[key], f"n{key}") for key in sorted(last)]
    with pytest.raises(AssertionError):
        insert(connection, "insert into t (key) select ?", [(row,) for row in range(16)])
