"""The log alone must answer: books, orders, fills, bulletins, open interest, large traders.

Every answer is compared with a plain computation of its own or with clearing's. Budget: 12 seconds.
"""

import csv
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from history_market import ACCOUNTS, CODES, DAYS, two_days

from exchange.clearing import Clearing
from exchange.gateway.decode import ORDER, REQUEST
from exchange.history import view, walk
from exchange.history.audit import FIELDS, Trail
from exchange.history.bulletin import Bulletin
from exchange.history.picture import Picture
from exchange.history.records import event_column, event_row
from exchange.history.table import COLUMNS, rows
from exchange.journal.frame import Frame, unpack_texts
from exchange.journal.tape import Released
from exchange.messages import (
    EVENT,
    INDEX_BITS,
    CommandKind,
    EventFlag,
    EventKind,
    OrderFeature,
    TransferKind,
)

CHECKOUT = Path(__file__).parents[1]
Row = dict[str, str]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_days(seed=4).write(tmp_path_factory.mktemp("answers") / "market")


@pytest.fixture(scope="module")
def released(market: Path) -> list[Released]:
    """What the log releases, made from the log alone."""
    batches: list[Released] = []

    def take(frame: Frame, events: bytes) -> None:
        opening = frame.opening
        texts = unpack_texts(frame.texts)
        batches.append(
            Released(
                opening.epoch, opening.first_sequence, opening.count, opening.stamp, events, texts
            )
        )

    walk.walk(market, take)
    return batches


@pytest.fixture(scope="module")
def clearing(
    released: list[Released], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Clearing]:
    """The double-entry ledger of the log."""
    house = Clearing.open(tmp_path_factory.mktemp("ledger") / "ledger.db")
    house.apply(released)
    yield house
    house.close()


@pytest.fixture(scope="module")
def trail(market: Path) -> list[Row]:
    made: list[Row] = []
    trail = Trail(lambda row: made.append(dict(zip(FIELDS, map(str, row), strict=True))))
    walk.walk(market, trail.take)
    return made


@pytest.fixture(scope="module")
def bulletin(market: Path) -> Bulletin:
    collected = Bulletin()
    walk.walk(market, collected.take)
    collected.finish()
    return collected


def events_upto(released: list[Released], sequence: int) -> Iterator[tuple[int, ...]]:
    for batch in released:
        for row in EVENT.iter_unpack(batch.events):
            if row[0] > sequence:
                return
            yield row


def depth(released: list[Released], sequence: int, instrument: int) -> dict[str, dict[int, int]]:
    """The book by the events alone, as docs/reference/engine.md says how."""
    book: dict[bool, Counter[int]] = {False: Counter(), True: Counter()}
    for row in events_upto(released, sequence):
        kind, flags, price, lots, leaves = row[2], row[3], row[8], row[9], row[10]
        if row[5] != instrument or flags & EventFlag.DUPLICATE:
            continue
        sell, resting = bool(flags & EventFlag.SELL), flags & EventFlag.RESTING
        if kind in (EventKind.ORDER_ACCEPTED, EventKind.ORDER_RETURNED):
            book[sell][price] += leaves
        elif kind == EventKind.ORDER_REPLACED:
            book[sell][price] += leaves
            if resting:
                book[sell][row[13]] -= row[14]
        elif kind == EventKind.TRADE:
            book[not sell][price] -= lots
        elif kind == EventKind.ORDER_DORMANT:
            book[sell][price] -= leaves
        elif kind in (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED) and resting:
            book[sell][price] -= lots
    return {
        name: {price: lots for price, lots in book[side].items() if lots}
        for name, side in (("bids", False), ("asks", True))
    }


# 1. The book at any sequence


@pytest.mark.parametrize("part", [0.1, 0.33, 0.5, 0.61, 0.8, 1.0])
def test_the_book_at_any_sequence(market: Path, released: list[Released], part: float) -> None:
    sequence = int(released[-1].last_sequence * part)
    picture = Picture()
    engine = walk.walk(market, picture.take, until=sequence)
    for number, code in enumerate(CODES):
        shown = view.book(engine, picture, code)
        expected = depth(released, sequence, number)
        for side in ("bids", "asks"):
            levels = {
                round(float(level["price"]) * 1_000): level["quantity"] for level in shown[side]
            }
            assert levels == expected[side]
        prices = [float(level["price"]) for level in shown["bids"]]
        assert prices == sorted(prices, reverse=True)


def test_position_and_margin_of_anybody_at_any_sequence(
    market: Path, released: list[Released]
) -> None:
    sequence = released[-1].last_sequence // 2
    picture = Picture()
    engine = walk.walk(market, picture.take, until=sequence)
    net: Counter[tuple[int, int]] = Counter()
    for row in events_upto(released, sequence):
        if row[2] == EventKind.TRADE:
            lots = -row[9] if row[3] & EventFlag.SELL else row[9]
            net[row[6], row[5]] += lots
            net[row[12] & 0xFFFF_FFFF, row[5]] -= lots
    for account in ACCOUNTS:
        shown = view.account(engine, picture, account)
        held = {p["instrument"]: p["net"] for p in shown["positions"]}
        assert {c: n for c, n in held.items() if n} == {
            CODES[instrument]: lots
            for (owner, instrument), lots in net.items()
            if owner == account and lots
        }
        dollars = {n: float(shown[n].replace(",", "")) for n in ("cash", "required", "free")}
        assert dollars["free"] == pytest.approx(dollars["cash"] - dollars["required"])


# 2. All orders of an account in a window


def test_all_orders_of_an_account_in_a_window(market: Path, trail: list[Row]) -> None:
    frames = [frame for frame, _ in walk.batches(market)]
    start, end = (walk.time_text(frames[n].opening.stamp) for n in (120, 260))
    entered: dict[str, list[int]] = defaultdict(list)
    for frame in frames:
        if not start <= walk.time_text(frame.opening.stamp) <= end:
            continue
        for number in range(frame.opening.count):
            record = frame.commands[number * 64 : number * 64 + 64]
            if record[0] == CommandKind.ENTER:
                account = str(int.from_bytes(record[8:12], "little"))
                entered[account].append(frame.opening.first_sequence + number)
    for account in map(str, ACCOUNTS):
        found = [
            int(row["sequence"])
            for row in trail
            if row["record_type"] == "ENTER"
            and row["account"] == account
            and start <= row["time"] <= end
        ]
        assert found == entered[account]
        assert found


# 3. Every fill joins exactly two orders and two ledger chains


def test_every_fill_joins_two_orders_and_two_ledger_chains(
    trail: list[Row], clearing: Clearing
) -> None:
    accepted = {r["order_id"]: r for r in trail if r["record_type"] == "ORDER_ACCEPTED"}
    fills: dict[str, list[Row]] = defaultdict(list)
    for row in trail:
        if row["record_type"] == "TRADE":
            fills[row["match_number"]].append(row)
    assert len(fills) > 100
    clearing.audit()  # hash chain, postings, balances and positions of the whole ledger
    entries = {entry.number: entry for entry, _ in clearing._store.entries() if entry.quantity}
    legs = Counter(
        row["match_number"] for row in clearing._store.rows("select match_number from cleared_legs")
    )
    assert set(legs.values()) == {2}
    assert set(legs) == set(map(int, fills))
    for match, sides in fills.items():
        assert len(sides) == len({row["order_id"] for row in sides}) == 2
        entry = entries[int(match)]
        accounts = {"BUY": entry.buyer, "SELL": entry.seller}
        for row in sides:
            order = accepted[row["order_id"]]
            assert (order["account"], order["side"]) == (row["account"], row["side"])
            assert order["instrument"] == row["instrument"] == CODES[entry.instrument]
            assert accounts[row["side"]] == int(row["account"])
            assert int(row["last_quantity"]) == entry.quantity
        paid = sum(float(row["fee"]) for row in sides)
        assert paid == pytest.approx(sum(amount for _, _, amount in entry.postings) / 1e6)


# 4. Bulletin volume = trades


def test_bulletin_volume_is_the_trades(
    released: list[Released], clearing: Clearing, bulletin: Bulletin
) -> None:
    traded: Counter[tuple[int, str]] = Counter()
    date = 0
    for row in events_upto(released, 1 << 60):
        if row[2] == EventKind.DAY_OPENED:
            date = row[9]
        elif row[2] == EventKind.TRADE:
            traded[date, CODES[row[5]]] += row[9]
    told = {
        (row["business_date"], row["instrument"]): row
        for day in bulletin.days
        for row in bulletin.rows(day)
    }
    assert {key: row["volume"] for key, row in told.items()} == dict(traded)
    assert [day.date for day in bulletin.days] == list(DAYS)
    for booked in clearing._store.rows("select * from trading"):
        shown = told[booked["business_date"], CODES[booked["instrument"]]]
        assert (shown["trades"], shown["volume"]) == (booked["trades"], booked["volume"])
        assert round(float(shown["close"]) * 1_000) == booked["last_price"]
    for booked in clearing._store.rows("select * from settlement_prices where cycle = 1"):
        shown = told[booked["business_date"], CODES[booked["instrument"]]]
        if not shown["deliveries"]:  # an expiry settles again, at its final price
            assert round(float(shown["settlement_price"]) * 1e6) == booked["price"]
    for shown in told.values():
        assert shown["low"] <= min(shown["open"], shown["close"])
        assert shown["high"] >= max(shown["open"], shown["close"])


# 5. Open interest rolls forward


def test_open_interest_rolls_forward(market: Path, clearing: Clearing, bulletin: Bulletin) -> None:
    for before, after in pairwise([None, *bulletin.days]):
        assert after is not None
        for number, line in after.lines.items():
            was = before.lines[number].open_interest if before else 0
            assert line.open_interest == was + line.opened - line.closed - line.delivered
    last = {line.code: line.open_interest for line in clearing.open_interest()}
    shown = {row["instrument"]: row["open_interest"] for row in bulletin.rows(bulletin.days[-1])}
    assert shown == last
    assert sum(line.delivered for line in bulletin.days[-1].lines.values()) > 0, "one expired"
    closed = _cuts(market)
    for day in bulletin.days[:1]:  # the engine's own positions where the date was closed
        engine = walk.replay(market, until=closed[day.date]).engine
        for number, line in day.lines.items():
            nets = [engine.position(account, number)["net"] for account in ACCOUNTS]
            assert sum(net for net in nets if net > 0) == line.open_interest > 0


def _cuts(market: Path) -> dict[int, int]:
    """Sequence of every DAY_CLOSED, by date."""
    cuts = {}
    for _, events in walk.batches(market):
        for number, kind in enumerate(events[12::80]):
            if kind == EventKind.DAY_CLOSED:
                row = event_row(events, number)
                cuts[row[9]] = row[0]
    return cuts


# 6. Large-trader rows sum to the open interest, per side


@pytest.mark.parametrize("lots", [1, 10, 25, 1_000])
def test_large_traders_sum_to_the_open_interest(bulletin: Bulletin, lots: int) -> None:
    for day in bulletin.days:
        long: Counter[str] = Counter()
        short: Counter[str] = Counter()
        for row in bulletin.large_traders(day, lots):
            long[row["instrument"]] += row["long"]
            short[row["instrument"]] += row["short"]
            if "below" not in row["account"]:
                assert row["long"] + row["short"] >= lots
                assert row["member"] == str((int(row["account"]) + 1) // 2)
        interest = {
            row["instrument"]: row["open_interest"]
            for row in bulletin.rows(day)
            if row["open_interest"]
        }
        assert dict(long) == dict(short) == interest
        for row in bulletin.concentration(day):
            assert 0 < row["top_4_long"] <= row["top_8_long"] <= 100


# 7. The export is verified by an independent script


def write_csv(path: Path, fields: Any, rows: list[Row]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def verify(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(CHECKOUT / "docs/verify_audit.py"), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_verifies_no_trail_without_a_row(tmp_path: Path) -> None:
    done = verify(write_csv(tmp_path / "trail.csv", FIELDS, []))
    assert (done.returncode, "it has no row" in done.stderr) == (1, True)


def test_an_independent_script_verifies_the_export(
    trail: list[Row], bulletin: Bulletin, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "trail.csv", FIELDS, trail)
    shown = bulletin.rows(bulletin.days[0])
    prices = write_csv(tmp_path / "bulletin.csv", list(shown[0]), shown)
    done = verify(file, prices)
    assert done.returncode == 0, done.stderr
    assert f"{len(trail)} rows" in done.stdout
    shown[0]["volume"] += 1
    assert "trades sum to" in verify(file, write_csv(prices, list(shown[0]), shown)).stderr


@pytest.mark.parametrize(
    ("field", "kind", "says"),
    [("row", "ENTER", "was to come next"), ("sequence", "CANCEL", "was to come next"),
     ("last_quantity", "TRADE", "cumulative"), ("side", "TRADE", "side"),
     ("quantity", "ORDER_CANCELLED", "should be left"), ("", "TRADE", "row"),
     ("time", "ENTER", "UTC")],
)  # fmt: skip
def test_a_tampered_export_is_refused(
    trail: list[Row], tmp_path: Path, field: str, kind: str, says: str
) -> None:
    rows = [dict(row) for row in trail]
    at = next(n for n, row in enumerate(rows) if n > 200 and row["record_type"] == kind)
    if not field:
        del rows[at]
    elif field == "side":
        rows[at]["side"] = "BUY" if rows[at]["side"] == "SELL" else "SELL"
    elif field == "time":
        rows[at]["time"] = rows[at]["time"][:-1]
    else:
        rows[at][field] = str(int(rows[at][field]) + 1)
    done = verify(write_csv(tmp_path / "trail.csv", FIELDS, rows))
    assert done.returncode == 1
    assert says in done.stderr


# What the page says of the fields


def page_rows(name: str) -> dict[str, list[str]]:
    """The rows of a page's tables whose first cell is one code word."""
    lines = (CHECKOUT / "docs/reference" / name).read_text().splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:2] == "| "]
    return {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`")}


def test_the_audit_page_names_every_field_and_what_is_absent() -> None:
    page = page_rows("audit.md")
    assert [name for name in page if name in FIELDS] == list(FIELDS)
    names = {kind.name for kind in (*EventKind, *CommandKind, *TransferKind)}
    assert not any("ALLOCAT" in name for name in names)  # the page says that there are none
    asked = {one.name for one in OrderFeature} - {"ALL_OR_NONE", "QUOTE"}  # refused; a quote's
    assert asked == {name for name in re.findall("`([A-Z_]+)`", "".join(page["features"]))}
    persons = re.findall("person `([a-z]+)`", page["client_order_key"][1])
    assert [name.encode() for name in persons] == [ORDER, REQUEST]


def test_the_export_page_names_every_column() -> None:
    page = page_rows("export.md")
    assert [name for name in page if name in {c.name for c in COLUMNS}] == [c.name for c in COLUMNS]
    assert {name: page[name][0] for name in page if name in {c.name for c in COLUMNS}} == {
        column.name: column.type for column in COLUMNS
    }


# The rows themselves


def test_rows_are_contiguous_and_say_who_did_what(trail: list[Row]) -> None:
    assert [int(row["row"]) for row in trail] == list(range(1, len(trail) + 1))
    came_in = [int(row["sequence"]) for row in trail if row["direction"] == "IN"]
    assert came_in == list(range(1, len(came_in) + 1))
    entered = next(r for r in trail if r["record_type"] == "ENTER" and r["manual"] == "Y")
    assert entered["operator"] == entered["account"]
    assert entered["msg_type"] == "D"
    assert entered["received"] < entered["time"]
    assert {r["cti"] for r in trail if r["account_kind"] == "HOUSE"} == {"2"}
    listed = next(r for r in trail if r["record_type"] == "LIST")
    assert (listed["account"], listed["instrument"]) == ("", CODES[0])
    assert json.loads(listed["text"])["code"] == CODES[0]
    accepted = [r for r in trail if r["record_type"] == "ORDER_ACCEPTED"]
    assert all(r["time_in_force"] and r["self_trade_mode"] for r in accepted)


def test_a_replacement_under_a_new_id_keeps_its_flow(trail: list[Row]) -> None:
    chained = [r for r in trail if r["order_flow_id"] not in ("", r["order_id"])]
    assert chained
    ids = {r["order_id"] for r in trail}
    for row in chained:
        assert row["order_flow_id"] in ids
        assert int(row["order_flow_id"]) != int(row["order_id"])


def test_the_table_has_every_command_and_every_event(
    market: Path, released: list[Released]
) -> None:
    picture, total = Picture(), 0

    def take(frame: Frame, events: bytes) -> None:
        nonlocal total
        picture.take(frame, events)
        columns = rows(frame, events, picture)
        assert len({len(column) for column in columns}) == 1
        total += len(columns[0])
        made = [
            dict(zip([c.name for c in COLUMNS], row, strict=True))
            for row in zip(*columns, strict=True)
        ]
        happened = [row for row in made if row["record"] == "event"]
        assert [row["sequence"] for row in happened] == event_column(events, "sequence").tolist()
        for row, number in zip(happened, range(len(happened)), strict=True):
            raw = event_row(events, number)
            assert (row["kind"], row["price"], row["a"]) == (
                EventKind(raw[2]).name,
                raw[8],
                raw[13],
            )
            if raw[2] == EventKind.TRADE:
                assert row["maker_order_id"] == raw[11]
                assert row["maker_account"] == raw[12] & 0xFFFF_FFFF
                assert row["key"] is None

    walk.walk(market, take)
    events = sum(len(batch.events) // 80 for batch in released)
    assert total == events + released[-1].last_sequence


def test_a_match_number_is_sequence_and_index(trail: list[Row]) -> None:
    for row in trail:
        if row["match_number"]:
            sequence, index, side = row["execution_id"].split("-")
            assert int(row["match_number"]) == int(sequence) << INDEX_BITS | int(index)
            assert (side == "T") == (row["aggressor"] == "Y")
