"""Clearing against the engine: the same cash, the same positions, to the last micro-dollar."""

import gc
import itertools
import json
import os
import pickle
import random
import re
import sqlite3
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clearing_market import (
    ACCOUNTS,
    DAY,
    DEPOSIT,
    INSTRUMENTS,
    MULTIPLIER,
    TestMarket,
    open_market,
    random_day,
)

from exchange.clearing import Clearing, Point
from exchange.clearing.ledger import (
    BANK,
    HOUSE_FEES,
    SUSPENSE,
    VM_CLEARING,
    Entry,
    EntryKind,
    Ledger,
    cash_of,
)
from exchange.clearing.projection import Projection
from exchange.clearing.state import Changes, State
from exchange.clearing.statements import dollars
from exchange.clearing.store import Store
from exchange.journal.frame import EXCHANGE_ID_BYTES, pack_texts
from exchange.journal.tape import Released, Tape
from exchange.messages import (
    EVENT,
    EVENT_BYTES,
    HOUSE_ACCOUNT,
    INDEX_BITS,
    Command,
    CommandKind,
    EventKind,
    Side,
)

PEOPLE = (HOUSE_ACCOUNT, *ACCOUNTS)


@pytest.fixture
def clearing(tmp_path: Path) -> Iterator[Clearing]:
    opened = Clearing.open(tmp_path / "clearing.db")
    yield opened
    opened.close()


def assert_equal_to_engine(clearing: Clearing, market: TestMarket) -> None:
    for account in PEOPLE:
        assert clearing.cash(account) == market.engine.account(account)["cash"]
        for instrument in range(INSTRUMENTS):
            net = market.engine.position(account, instrument)["net"]
            assert clearing.net(account, instrument) == net
    balance = clearing.trial_balance()
    assert balance.debits == balance.credits
    assert dict(balance.accounts).get("vm_clearing", 0) == 0
    assert dict(balance.accounts).get("suspense", 0) == 0
    assert clearing.divergences == ()


def events_of(frames: list[Released], kind: EventKind) -> list[tuple[Any, ...]]:
    return [e for f in frames for e in EVENT.iter_unpack(f.events) if e[2] == kind]


# Double entry.


def entry(*postings: tuple[int, int, int]) -> Entry:
    return Entry(1, EntryKind.DEPOSIT, 0, DAY, 0, 0, 0, 1, 0, postings)


@pytest.mark.parametrize(
    "posting", [(BANK, cash_of(1), 0), (BANK, cash_of(1), -5), (BANK, BANK, 5)]
)
def test_what_is_no_posting_is_not_booked(posting: tuple[int, int, int]) -> None:
    with pytest.raises(AssertionError, match="not a posting"):
        Ledger().post(entry(posting))


def test_the_changes_of_a_batch_must_sum_to_zero() -> None:
    changes = Changes()
    changes.book(entry((BANK, cash_of(1), 700), (cash_of(1), HOUSE_FEES, 20)), bytes(32))
    changes.check()
    assert changes.movements() == {(DAY, 1, 1): 680, (DAY, 0, 4): 20}
    changes.moved[DAY, EntryKind.DEPOSIT][BANK] += 1
    with pytest.raises(AssertionError, match="do not balance"):
        changes.check()


def test_postings_balance_and_chain() -> None:
    ledger = Ledger()
    first = ledger.post(entry((BANK, cash_of(1), 700), (cash_of(1), HOUSE_FEES, 20)))
    assert ledger.balances == {BANK: 700, cash_of(1): -680, HOUSE_FEES: -20}
    assert (ledger.cash(1), ledger.cash(HOUSE_ACCOUNT)) == (680, 20)
    ledger.check()
    assert ledger.post(entry((BANK, cash_of(1), 700))) != first
    ledger.post(entry((SUSPENSE, VM_CLEARING, 1)))
    with pytest.raises(AssertionError, match="vm_clearing holds -1"):
        ledger.check()


# One day by hand.


def one_trade(fees: tuple[int, int] = (1_000_000, 2_500_000)) -> TestMarket:
    """Account 2 buys 10 lots from account 1 at 2,500 ticks; the mark moves to 2.6 dollars."""
    market = TestMarket()
    for account in (1, 2):
        market.open_account(account)
    market.list_instrument(0, fees)
    market.apply(market.open_day(DAY))
    market.apply(
        market.enter(1, Side.SELL, 2_500, 10),
        market.enter(2, Side.BUY, 2_501, 10),
        Command(kind=CommandKind.MARK, price=2_600_000),
    )
    return market


def test_a_trade_is_two_legs_against_the_house(clearing: Clearing, tmp_path: Path) -> None:
    market = one_trade()
    clearing.apply(market.frames)
    assert (clearing.net(1, 0), clearing.net(2, 0)) == (-10, 10)
    assert clearing.cash(1) == DEPOSIT - 10 * 1_000_000
    assert clearing.cash(2) == DEPOSIT - 10 * 2_500_000
    assert clearing.cash(HOUSE_ACCOUNT) == 35_000_000
    rows = sqlite3.connect(tmp_path / "clearing.db")
    legs = rows.execute("select match_number, account, lots, price / 1000 from cleared_legs")
    trade = events_of(market.frames, EventKind.TRADE)[0]
    match_number = trade[0] << INDEX_BITS | trade[1]
    assert sorted(legs) == [(match_number, 1, -10, 2_500), (match_number, 2, 10, 2_500)]
    rows.close()
    clearing.audit()


def test_the_worked_postings(clearing: Clearing, tmp_path: Path) -> None:
    """The two transactions of docs/concepts/clearing.md."""
    market = one_trade()
    market.apply(market.settle(0, 2_510_500))
    clearing.apply(market.frames)
    store = Store(tmp_path / "clearing.db", read_only=True)
    booked = [(entry.kind, list(entry.postings)) for entry, _ in store.entries()]
    store.close()
    assert booked[2:] == [
        (
            EntryKind.TRADE,
            [(cash_of(2), HOUSE_FEES, 25_000_000), (cash_of(1), HOUSE_FEES, 10_000_000)],
        ),
        (
            EntryKind.SETTLEMENT,
            [(cash_of(1), VM_CLEARING, 75_600_000), (VM_CLEARING, cash_of(2), 75_600_000)],
        ),
    ]


def test_the_page_lists_every_table_and_view(clearing: Clearing, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "clearing.db")) as store:
        made = store.execute("select name from sqlite_master where type in ('table', 'view')")
        names = {name for (name,) in made if not name.startswith("sqlite_")}
    page = (Path(__file__).parents[1] / "docs/concepts/clearing.md").read_text()
    rows = page.partition("| table or view | holds |")[2].partition("\n\n")[0].splitlines()
    listed = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows if row.startswith("| `")]
    assert {name for row in listed for name in row} == names


def test_a_store_that_is_dropped_is_closed(tmp_path: Path) -> None:
    """As by a start that fails later: Python 3.13 warns of a database that nobody closed."""
    store = Store(tmp_path / "clearing.db")
    connection = store.database.conn
    del store
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        connection.execute("select 1")


def test_statement_adds_up(clearing: Clearing) -> None:
    market = one_trade()
    market.apply(market.settle(0, 2_510_500))
    market.apply(Command(kind=CommandKind.CLOSE_DAY, quantity=DAY), market.open_day(DAY + 1))
    market.apply(
        market.money(CommandKind.WITHDRAW, 2, 1_234_567),
        market.money(CommandKind.FEE, 2, 50_000),
        Command(kind=CommandKind.MARK, price=2_510_000),
    )
    clearing.apply(market.frames)
    variation = 10 * MULTIPLIER * 10_500
    first, second = clearing.statement(2, DAY), clearing.statement(2, DAY + 1)
    whole = clearing.statement(2)
    assert clearing.statement(2, 0).deposits == DEPOSIT  # paid in before the first date
    assert (first.opening, first.deposits) == (DEPOSIT, 0)
    assert (first.fees, first.variation) == (-25_000_000, variation)
    assert (second.withdrawals, second.fees, second.variation) == (-1_234_567, -50_000, 0)
    assert second.opening == first.closing
    assert second.closing == whole.closing == clearing.cash(2)
    assert whole.deposits == DEPOSIT
    assert (first.holdings, first.unrealized) == ([], 0)
    assert second.unrealized == -10 * MULTIPLIER * 500
    assert whole.profit == variation - 25_050_000 - 10 * MULTIPLIER * 500
    assert [asdict(h) for h in whole.holdings] == [
        {"code": "H100-0", "net": 10, "mark": 2_510_000, "unrealized": whole.unrealized}
    ]
    house = clearing.statement(HOUSE_ACCOUNT)
    assert (house.fees_earned, house.closing) == (35_050_000, 35_050_000)
    with pytest.raises(KeyError):
        clearing.statement(99)
    text = whole.text()
    assert "H100-0" in text and dollars(whole.closing) in text
    json.dumps(asdict(whole))


def test_a_trial_balance_reads_well(clearing: Clearing) -> None:
    clearing.apply(one_trade().frames)
    lines = clearing.trial_balance().text().splitlines()
    assert lines[0].split() == ["account", "debit", "USD", "credit", "USD"]
    assert lines[-1].split() == ["total", dollars(2 * DEPOSIT), dollars(2 * DEPOSIT)]
    assert ["cash/1", dollars(DEPOSIT - 10_000_000)] in [line.split() for line in lines]
    (line,) = clearing.open_interest()
    assert (line.code, line.settlement_price, line.trades, line.volume, line.open_interest) == (
        "H100-0", 2_500_000, 1, 10, 10,
    )  # fmt: skip


def proposal(
    clearing: Clearing, quote: tuple[int | None, int | None] = (None, None)
) -> tuple[int, int]:
    (found,) = clearing.settlement_prices({0: quote})
    return found.tier, found.price


def test_the_proposal_is_the_days_average(clearing: Clearing) -> None:
    market = one_trade()
    clearing.apply(market.frames)
    assert proposal(clearing) == (1, 2_500_000)
    market.apply(market.enter(1, Side.SELL, 2_507, 10), market.enter(2, Side.BUY, 2_507, 10))
    clearing.apply(market.frames[-1:])
    assert proposal(clearing) == (1, 2_503_000)  # 2,503.5: the half nearer the prior 2,500
    market.apply(market.settle(0, 2_503_000))
    market.apply(Command(kind=CommandKind.CLOSE_DAY, quantity=DAY), market.open_day(DAY + 1))
    clearing.apply(market.frames[-2:])
    assert proposal(clearing) == (3, 2_503_000)
    assert proposal(clearing, (2_600, None)) == (3, 2_600_000)
    assert proposal(clearing, (2_400, 2_450)) == (2, 2_450_000)


def test_a_repeated_request_moves_no_money_again(clearing: Clearing) -> None:
    market = one_trade()
    deposit = market.money(CommandKind.DEPOSIT, 1, 5_000_000)
    events = market.apply(deposit, deposit)
    assert len(events) == 2 * EVENT_BYTES
    clearing.apply(market.frames)
    assert clearing.cash(1) == market.engine.account(1)["cash"] == DEPOSIT - 10_000_000 + 5_000_000
    assert clearing.divergences == ()


def test_an_expiry_closes_every_position(clearing: Clearing) -> None:
    market = one_trade()
    market.apply(
        Command(kind=CommandKind.SET_STATE, tif=0),
        Command(kind=CommandKind.EXPIRE, price=2_488_123),
        Command(kind=CommandKind.CHECKPOINT),
    )
    clearing.apply(market.frames)
    assert clearing.net(1, 0) == clearing.net(2, 0) == 0
    assert clearing.cash(1) - DEPOSIT + 10_000_000 == 10 * MULTIPLIER * (2_500_000 - 2_488_123)
    assert clearing.open_interest()[0].open_interest == 0
    assert clearing.divergences == ()
    clearing.audit()


# Random days.


@pytest.mark.parametrize("seed", range(4))
def test_random_days_agree_with_the_engine(clearing: Clearing, seed: int) -> None:
    draw, market = random.Random(seed), open_market()
    for _ in range(3):
        start = len(market.frames) if clearing.position[1] else 0
        random_day(market, draw, batches=40)
        clearing.apply(market.frames[start:])
        assert_equal_to_engine(clearing, market)
    market.engine.check()
    last = EVENT.unpack_from(market.frames[-1].events, len(market.frames[-1].events) - EVENT_BYTES)
    assert clearing.position == (1, *last[:2])
    checkpoint = events_of(market.frames, EventKind.CHECKPOINTED)[-1]
    assert clearing.totals() == (checkpoint[13], checkpoint[14])
    assert len(events_of(market.frames, EventKind.TRADE)) > 100
    assert len(events_of(market.frames, EventKind.DEFICIT_STARTED)) > 0
    clearing.audit()


def test_open_again_rebuild_and_any_batching_give_the_same(tmp_path: Path) -> None:
    market = open_market()
    random_day(market, random.Random(7), batches=30)
    one, many = Clearing.open(tmp_path / "one.db"), Clearing.open(tmp_path / "many.db")
    one.apply(market.frames)
    for at in range(0, len(market.frames), 3):
        many.apply(market.frames[max(at - 2, 0) : at + 3])  # some of it for the second time
    many.close()
    many = Clearing.open(tmp_path / "many.db")
    before = (one.trial_balance(), one.statement(1), one.open_interest(), one.position)
    assert before == (many.trial_balance(), many.statement(1), many.open_interest(), many.position)
    one.rebuild(iter(market.frames))
    assert before == (one.trial_balance(), one.statement(1), one.open_interest(), one.position)
    assert one.ledger_hash == many.ledger_hash
    one.audit()
    reader = Clearing.open(tmp_path / "many.db", read_only=True)
    assert reader.trial_balance() == many.trial_balance()
    for opened in (one, many, reader):
        opened.close()


def test_the_tape_is_enough(clearing: Clearing, tmp_path: Path) -> None:
    """Clearing resumes from its own position, wherever it last stopped."""
    market = open_market()
    random_day(market, random.Random(5), batches=20)
    tape = Tape(tmp_path, bytes(EXCHANGE_ID_BYTES))
    tape.settle()
    for frame in market.frames:
        tape.append(frame, pack_texts(frame.texts))
    while frames := list(itertools.islice(tape.read(*clearing.position), 7)):
        clearing.apply(frames)
    assert clearing.position == tape.last
    assert_equal_to_engine(clearing, market)
    assert [line.code for line in clearing.open_interest()] == ["H100-0", "H100-1", "H100-2"]


# What must not happen.


def corrupted(market: TestMarket, kind: EventKind, place: int, change: int) -> list[Released]:
    """The market's frames with one field of the first event of ``kind`` changed."""
    frames = list(market.frames)
    for at, frame in enumerate(frames):
        events = list(EVENT.iter_unpack(frame.events))
        for row, fields in enumerate(events):
            if fields[2] == kind:
                wrong = (*fields[:place], fields[place] + change, *fields[place + 1 :])
                events[row] = wrong
                packed = b"".join(EVENT.pack(*e) for e in events)
                frames[at] = msgspec.structs.replace(frame, events=packed)
                return frames
    raise LookupError(kind)


@pytest.mark.parametrize(
    ("kind", "place", "what"),
    [
        (EventKind.POSITION_SETTLED, 13, {"variation", "cash", "sum of variation"}),
        (EventKind.POSITION_SETTLED, 14, {"cash"}),
        (EventKind.POSITION_SETTLED, 9, {"position"}),
        (EventKind.DEPOSITED, 14, {"cash"}),
        (EventKind.CHECKPOINTED, 13, {"sum of cash"}),
        (EventKind.CHECKPOINTED, 14, {"fold"}),
        (EventKind.CHECKPOINTED, 8, {"open interest"}),
    ],
)
def test_a_difference_is_reported_and_kept(
    tmp_path: Path, kind: EventKind, place: int, what: set[str]
) -> None:
    market = one_trade()
    market.apply(market.settle(0, 2_510_500), Command(kind=CommandKind.CHECKPOINT))
    clearing = Clearing.open(tmp_path / "clearing.db")
    clearing.apply(corrupted(market, kind, place, 1))
    found = clearing.divergences
    assert what <= {divergence.what for divergence in found}
    if "sum of variation" in what:
        balances = dict(clearing.trial_balance().accounts)
        assert (balances["vm_clearing"], balances["suspense"]) == (0, 1)
    else:
        assert {divergence.what for divergence in found} == what
    assert abs(found[0].engine - found[0].ours) == 1
    clearing.close()
    again = Clearing.open(tmp_path / "clearing.db")
    assert again.divergences == found
    again.close()


def test_a_batch_is_gone_with_its_projection() -> None:
    """Its rows are no cycle: no batch waits in memory for the collector of cycles."""
    gc.disable()
    try:
        projection = Projection(State())
        gone = weakref.ref(projection)
        projection.apply(open_market().frames[0])
        del projection
        assert gone() is None
    finally:
        gc.enable()


def test_the_texts_of_a_batch_are_gone_through_once() -> None:
    """However many records it has: what clients ask for with a text cannot hold clearing up."""

    class Counted(list[tuple[int, str]]):
        times = 0

        def __iter__(self) -> Iterator[tuple[int, str]]:
            self.times += 1
            return super().__iter__()

    market, projection = open_market(), Projection(State())
    for frame in market.frames:
        projection.apply(frame)
    records = [Command(kind=CommandKind.RECORD, account=1, key_lo=market.key()) for _ in range(9)]
    market.apply(*records, texts=[(n, '{"operation":"cancel_after"}') for n in range(9)])
    last = market.frames[-1]
    texts = Counted(last.texts)
    projection.apply(msgspec.structs.replace(last, texts=texts))
    assert texts.times <= 1


def test_a_gap_is_refused_and_leaves_nothing(clearing: Clearing) -> None:
    frames = one_trade().frames
    clearing.apply(frames[:2])
    before = clearing.trial_balance(), clearing.position
    with pytest.raises(ValueError, match="gap"):
        clearing.apply([frames[2], frames[4]])
    assert (clearing.trial_balance(), clearing.position) == before
    clearing.apply(frames[2:])
    clearing.audit()


def test_a_second_writer_is_found_out(tmp_path: Path) -> None:
    frames = one_trade().frames
    first, second = Clearing.open(tmp_path / "c.db"), Clearing.open(tmp_path / "c.db")
    first.apply(frames[:3])
    with pytest.raises(RuntimeError, match="another writer"):
        second.apply(frames)
    second.apply(frames)  # it has read the store again and goes on from there
    second.audit()
    first.close()
    second.close()


def test_the_journal_is_append_only_and_its_hashes_tell(tmp_path: Path) -> None:
    clearing = Clearing.open(tmp_path / "c.db")
    clearing.apply(one_trade().frames)
    rows = sqlite3.connect(tmp_path / "c.db")
    for change in ("update postings set amount = 1", "delete from journal"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            rows.execute(change)
    rows.execute("drop trigger postings_update")
    rows.execute("update postings set amount = amount + 1 where number = 1")
    rows.execute("update postings set amount = amount + 1 where line = 1")
    rows.commit()
    rows.close()
    with pytest.raises(AssertionError, match="hash of entry"):
        clearing.audit()
    clearing.close()


CHILD = """
import pickle, sys
from pathlib import Path
from exchange.clearing import Clearing
clearing = Clearing.open(Path(sys.argv[2]))
for frame in pickle.loads(Path(sys.argv[1]).read_bytes()):
    if frame.first_sequence > clearing.position[1]:
        print("next", flush=True)
        clearing.apply([frame])
print("done", flush=True)
"""


def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 of a child in the middle, again and again: no event is lost and none is doubled."""
    draw, market = random.Random(11), open_market()
    random_day(market, draw, batches=120, size=6)
    (tmp_path / "frames").write_bytes(pickle.dumps(market.frames))
    path = tmp_path / "killed.db"
    command = [sys.executable, "-c", CHILD, str(tmp_path / "frames"), str(path)]
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    points: list[Point] = []
    lines: list[str] = []
    while "done\n" not in lines:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
        ) as child:
            assert child.stdout is not None
            lines += itertools.islice(child.stdout, draw.randint(5, 20))
            time.sleep(draw.random() * 0.001)  # somewhere in the batch after that line
            child.kill()
        opened = Clearing.open(path)
        points.append(opened.position)
        opened.audit()
        opened.close()
    assert points == sorted(points)
    assert len(set(points)) > 5, "it was never killed in the middle"
    whole = Clearing.open(tmp_path / "whole.db")
    whole.apply(market.frames)
    killed = Clearing.open(path)
    assert killed.trial_balance() == whole.trial_balance()
    assert killed.position == whole.position
    assert_equal_to_engine(killed, market)
    whole.close()
    killed.close()
