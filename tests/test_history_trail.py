"""The audit trail of market orders, auctions and operators' commands, and the script that checks
it.

Budget: 4 seconds.
"""

import csv
from pathlib import Path

import pytest
from history_market import DAYS, LISTING, Script
from recorded import record_of
from test_history_answers import verify
from test_history_lives import CODE, SPREAD, ask, begun, entered, implied

from exchange.history import view, walk
from exchange.history.audit import FIELDS, Trail
from exchange.history.bulletin import Bulletin
from exchange.history.picture import Picture
from exchange.history.surveillance import Surveillance
from exchange.history.words import event_line
from exchange.journal.frame import Frame
from exchange.messages import (
    EVENT,
    INDEX_BITS,
    CommandFlag,
    CommandKind,
    EventKind,
    Side,
    TimeInForce,
    TradingState,
)

BUY, SELL = Side.BUY, Side.SELL
Row = dict[str, str]


def trail(directory: Path) -> list[Row]:
    made: list[Row] = []
    rows = Trail(lambda row: made.append(dict(zip(FIELDS, map(str, row), strict=True))))
    walk.walk(directory, rows.take)
    return made


def of(rows: list[Row], kind: str, *fields: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in fields) for row in rows if row["record_type"] == kind]


def written(path: Path, rows: list[Row]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_market_order_that_rests_has_its_price_and_then_a_limit(tmp_path: Path) -> None:
    script, market = begun(), CommandFlag.MARKET
    entered(script, 3, SELL, 2_503, 4)
    mine = entered(script, 4, BUY, 0, 9, flags=market)
    ask(script, CommandKind.REPLACE, 4, mine, price=2_499, quantity=9)
    ask(script, CommandKind.CANCEL, 4, mine)
    entered(script, 4, BUY, 0, 1, flags=market, tif=TimeInForce.IOC)  # nobody sells
    rows = [row for row in trail(script.write(tmp_path / "market")) if row["account"] == "4"]
    shown = ("order_type", "price", "leaves")
    assert of(rows, "ENTER", *shown) == [("MARKET", "", "")] * 2
    assert of(rows, "ORDER_ACCEPTED", *shown) == [("MARKET", "2.503", "5"), ("MARKET", "", "0")]
    assert of(rows, "ORDER_REPLACED", *shown) == [("LIMIT", "2.499", "5")]
    assert of(rows, "ORDER_CANCELLED", *shown) == [("LIMIT", "2.499", "0"), ("MARKET", "", "0")]


def called() -> tuple[Script, int]:
    """An auction with one trade; its match number. What is left of its buyer has a limit."""
    script = begun()
    call, end = (
        (record_of(CommandKind.SET_STATE, instrument=0, tif=state), None)
        for state in (TradingState.AUCTION, TradingState.CONTINUOUS)
    )
    script.say(call)
    entered(script, 3, SELL, 2_490, 4)
    entered(script, 4, BUY, 0, 6, flags=CommandFlag.MARKET)
    (trade,) = [row for row in script.say(end) if row["kind"] == EventKind.TRADE]
    return script, trade["sequence"] << INDEX_BITS | trade["index"]


def test_nobody_is_the_aggressor_of_an_auction(tmp_path: Path) -> None:
    script, match = called()
    moved = {"target_lo": match, "target_hi": -800_000 % 2**64, "key_lo": -800_000 % 2**64}
    bust = record_of(CommandKind.BUST, account=4, session=3, price=2_490, quantity=4, **moved)
    assert script.say((bust, None))[0]["kind"] == EventKind.TRADE_BUSTED
    entered(script, 3, SELL, 2_503, 4)
    entered(script, 5, BUY, 2_503, 4)
    market = script.write(tmp_path / "market")
    rows = trail(market)
    assert of(rows, "TRADE", "side", "aggressor") == [
        ("BUY", ""), ("SELL", ""), ("BUY", "Y"), ("SELL", "N"),
    ]  # fmt: skip
    assert of(rows, "TRADE_BUSTED", "side", "aggressor") == [("BUY", ""), ("SELL", "")]
    assert of(rows, "ORDER_REPLACED", "order_type", "price") == [("LIMIT", "2.490")]
    day = Bulletin()
    walk.walk(market, day.take)
    day.finish()
    told = [{name: str(cell) for name, cell in row.items()} for row in day.rows(day.days[-1])]
    file, volumes = written(tmp_path / "trail.csv", rows), tmp_path / "bulletin.csv"
    done = verify(file, written(volumes, told))
    assert done.returncode == 0, done.stderr
    left_out = verify(file, written(volumes, told[1:])).stderr
    assert "H100Z26: 4 lots traded on 20261201, and no row of the bulletin" in left_out
    rows[-1]["aggressor"] = ""
    assert "aggressor" in verify(written(file, rows)).stderr


def test_a_trail_of_nothing_is_not_verified(tmp_path: Path) -> None:
    (tmp_path / "trail.csv").write_text(",".join(FIELDS) + "\n")
    nothing = verify(tmp_path / "trail.csv")
    assert nothing.returncode == 1
    assert nothing.stdout == "" and "it has no row" in nothing.stderr


def test_a_repeated_answer_states_nothing_that_it_does_not_have(tmp_path: Path) -> None:
    script = begun()
    mine = entered(script, 3, SELL, 2_503, 4)
    named = {"account": 3, "side": Side.UNSTATED, "target_lo": mine}
    reduce = record_of(CommandKind.REDUCE, quantity=1, key_lo=700, **named)
    cancel = record_of(CommandKind.CANCEL, key_lo=701, **named)
    for record in (reduce, reduce, cancel, cancel):
        script.say((record, None))
    market = script.write(tmp_path / "market")
    shown = ("leaves", "reason", "duplicate")
    rows = trail(market)
    assert of(rows, "ORDER_REDUCED", *shown) == [("3", "REQUESTED", ""), ("", "", "Y")]
    assert of(rows, "ORDER_CANCELLED", *shown) == [("0", "REQUESTED", ""), ("", "", "Y")]
    lines, picture = list[str](), Picture()

    def take(frame: Frame, events: bytes) -> None:
        picture.take(frame, events)
        lines.extend(event_line(row, picture) for row in EVENT.iter_unpack(events))

    walk.walk(market, take)
    assert [line for line in lines if line.endswith("again")] == [
        f"{kind} account 3, order {mine}, the first answer again"
        for kind in ("ORDER_REDUCED", "ORDER_CANCELLED")
    ]


def test_a_trail_with_a_long_text_is_verified(tmp_path: Path) -> None:
    """A request of an operator has up to a MiB, and a table of factors is in the log as signed."""
    script = begun()
    script.say((record_of(CommandKind.RECORD, key_lo=script.key()), "factor," * 100_000))
    file = written(tmp_path / "trail.csv", trail(script.write(tmp_path / "market")))
    assert verify(file).returncode == 0, verify(file).stderr


def test_a_command_without_an_id_has_no_key(tmp_path: Path) -> None:
    """The key bytes of a listing hold a product or legs, those of SET_RISK a credit, of a LOGON the
    connection."""
    script = implied()
    credit = record_of(CommandKind.SET_RISK, instrument=SPREAD, price=5, quantity=9, key_lo=77)
    logon = record_of(CommandKind.LOGON, account=3, key_lo=9, key_hi=7)  # a connection
    refused = record_of(CommandKind.LIST, instrument=9, key_lo=3)
    script.say((credit, None), (logon, None), (refused, None))
    rows = trail(script.write(tmp_path / "market"))
    for kind in ("LIST", "LIST_COMBINATION", "SET_RISK", "LOGON"):
        assert set(of(rows, kind, "client_order_key")) == {("",)}, kind
    assert of(rows, "REJECTED", "client_order_key")[-1] == ("",)
    assert all(key for (key,) in of(rows, "DEPOSIT", "client_order_key"))


def test_orders_and_legs_of_a_trade_with_an_implied_price_have_its_number(tmp_path: Path) -> None:
    script = implied()
    for lots in (2, 1):  # the incoming order trades twice, so its trades have two numbers
        entered(script, 3, Side.SELL, 2_500, lots)
    entered(script, 4, Side.BUY, 2_490, 5, instrument=1)
    entered(script, 5, Side.BUY, 12, 3, instrument=SPREAD)
    rows = trail(script.write(tmp_path / "market"))
    orders = of(rows, "ORDER_EXECUTED", "match_number", "account")
    legs = of(rows, "LEG_TRADE", "match_number", "account")
    assert len({match for match, _ in orders}) == 2
    assert sorted(orders) == sorted(set(legs)), "three accounts each, in two trades"
    assert all(match for match, _ in orders)
    assert verify(written(tmp_path / "trail.csv", rows)).returncode == 0
    astray = [{**row, "account": "9"} if row["record_type"] == "LEG_TRADE" else row for row in rows]
    refused = verify(written(tmp_path / "astray.csv", astray))
    assert refused.returncode and "legs" in refused.stderr


@pytest.mark.parametrize("price", [2_600_000, 2_400_000])
def test_the_mark_of_a_combination_is_of_its_legs(tmp_path: Path, price: int) -> None:
    script = implied()
    script.say((record_of(CommandKind.MARK, instrument=0, price=price), None))
    later = record_of(
        CommandKind.LIST_COMBINATION, instrument=SPREAD + 1, quantity=0x1F, key_lo=1 << 16,
        target_lo=-1_000 % 2**64, target_hi=1_000,
    )  # fmt: skip
    script.say((later, LISTING.format(code="OTHER", product="H100")))
    market = script.write(tmp_path / "market")
    picture = Picture()
    engine = walk.walk(market, picture.take)
    worth = "0.100000" if price > 2_500_000 else "-0.100000"
    assert view.book(engine, picture, CODE)["mark"] == worth
    assert view.book(engine, picture, "H100Z26")["mark"] == f"{price / 1e6:.6f}"
    listed = of(trail(market), "INSTRUMENT_LISTED", "instrument", "price")
    assert listed[2:] == [(CODE, ""), ("OTHER", "")]


def test_a_date_begins_with_its_own_event_and_not_with_its_batch(tmp_path: Path) -> None:
    """What came before it in the batch is of the date before."""
    script = begun()
    script.settle(DAYS[0], (2_500_000, 2_500_000))
    paid = record_of(CommandKind.DEPOSIT, account=3, price=5, key_lo=script.key())
    opened = record_of(CommandKind.OPEN_DAY, quantity=DAYS[1])
    listed = record_of(
        CommandKind.LIST, instrument=2, price=2_500_000, quantity=744, session=1_000, account=1,
        operator=1, target_lo=2_000, target_hi=3_000,
    )  # fmt: skip
    text = LISTING.format(code="B200Z26", product="B200")
    script.say((paid, None), (opened, None), (listed, text))
    market = script.write(tmp_path / "market")
    dates = [row["business_date"] for row in trail(market)[-6:]]
    assert dates == [str(DAYS[0])] * 3 + [str(DAYS[1])] * 3
    told = Bulletin()
    walk.walk(market, told.take)
    told.finish()
    codes = [[row["instrument"] for row in told.rows(day)] for day in told.days]
    assert codes == [["H100Z26", "H200Z26"], ["H100Z26", "H200Z26", "B200Z26"]]


def test_a_finding_is_of_the_date_on_which_it_happened(tmp_path: Path) -> None:
    script = begun()
    entered(script, 1, SELL, 2_500, 5)
    entered(script, 3, BUY, 2_500, 5)
    entered(script, 3, SELL, 2_500, 5)
    closed = record_of(CommandKind.CLOSE_DAY, quantity=DAYS[0])
    back = script.enter(1, BUY, 2_500, 5)
    script.say((closed, None), back, (record_of(CommandKind.OPEN_DAY, quantity=DAYS[1]), None))
    watch = Surveillance()
    walk.walk(script.write(tmp_path / "market"), watch.take)
    watch.finish()
    assert [(f.pattern, f.business_date) for f in watch.findings] == [("round_trip", DAYS[0])]
