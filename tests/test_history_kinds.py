"""What a log tells of every kind of command and event, not of orders and trades alone."""

from pathlib import Path

import pytest
from history_market import CODES, LISTING, Script
from recorded import record_of

from exchange.history import search, walk
from exchange.history.audit import FIELDS, Trail
from exchange.history.picture import Picture
from exchange.history.records import EventRow, command_at
from exchange.history.table import COLUMNS, rows
from exchange.history.whatif import Changes, what_if
from exchange.history.words import command_line, event_line
from exchange.journal.frame import Frame
from exchange.messages import (
    EVENT,
    INDEX_BITS,
    CommandKind,
    EventKind,
    KillScope,
    OrderFeature,
    Selection,
    Side,
    TimeInForce,
    TradingState,
    TransferKind,
)

BUY, SELL = Side.BUY, Side.SELL
QUOTER, STOPPED, MAKER, TAKER = 1, 3, 4, 5
SPREAD, CODE = 2, "H100Z26-H200Z26"  # the first instrument less the second


def told() -> Script:
    """A stop, an iceberg, a quote, mass acts, a combination, an auction and a transfer."""
    script = Script()
    script.set_up()

    def do(kind: CommandKind, **fields: int) -> None:
        script.say((record_of(kind, **fields), None))

    def enter(account: int, side: int, price: int, lots: int, **more: int) -> None:
        script.say(script.enter(account, side, price, lots, **more))

    combined = record_of(
        CommandKind.LIST_COMBINATION, instrument=SPREAD, quantity=0xF1, key_lo=1 << 16,
        target_lo=-1_000 % 2**64, target_hi=1_000,
    )  # fmt: skip
    script.say((combined, LISTING.format(code=CODE, product="H100")))
    do(CommandKind.SET_RISK, instrument=SPREAD, quantity=100, session=50)
    do(CommandKind.SET_STATE, instrument=SPREAD, tif=TradingState.CONTINUOUS)
    do(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1)
    do(CommandKind.SET_PROTECTIONS, instrument=0, quantity=1)
    do(CommandKind.SET_BREAKER, instrument=0, price=500, target_lo=60 * 10**9)
    enter(STOPPED, BUY, 2_520, 2, spare=OrderFeature.STOP, target_hi=2_510)
    enter(MAKER, SELL, 2_510, 2)
    enter(TAKER, BUY, 2_510, 2)
    enter(MAKER, SELL, 2_515, 10, spare=OrderFeature.ICEBERG, target_hi=3)
    enter(TAKER, BUY, 2_515, 4)
    do(CommandKind.SET_PROTECTION, account=QUOTER, instrument=0, quantity=50, target_lo=10**9)
    do(CommandKind.MASS_QUOTE, account=QUOTER, price=2_490, quantity=5, target_lo=2_540,
       target_hi=5, key_lo=script.key())  # fmt: skip
    enter(MAKER, SELL, 5, 3, instrument=SPREAD)
    enter(TAKER, BUY, 5, 3, instrument=SPREAD)
    chosen = Selection.INSTRUMENT
    do(CommandKind.MASS_CANCEL, account=QUOTER, side=2, tif=chosen, key_lo=script.key())
    do(CommandKind.MASS_CANCEL, account=QUOTER, side=2, key_lo=script.key())
    do(CommandKind.TRANSFER, account=MAKER, target_lo=TAKER, quantity=1, price=2_500_000,
       tif=TransferKind.BLOCK, key_lo=script.key())  # fmt: skip
    pair = OrderFeature.GROUPED | OrderFeature.REDUCE_ONLY
    enter(MAKER, SELL, 2_505, 1, instrument=1, spare=pair, target_hi=1)
    enter(MAKER, SELL, 2_505, 3, instrument=1, tif=TimeInForce.GTD,
          target_lo=1_800_000_000 * 10**9, target_hi=2)  # fmt: skip
    do(CommandKind.SET_STATE, instrument=0, tif=TradingState.AUCTION)
    enter(MAKER, SELL, 2_500, 4)
    enter(TAKER, BUY, 2_505, 4)
    do(CommandKind.INDICATE, instrument=0)
    do(CommandKind.SET_STATE, instrument=0, tif=TradingState.CONTINUOUS)
    do(CommandKind.KILL, tif=KillScope.ACCOUNT, account=TAKER)
    do(CommandKind.RESUME, tif=KillScope.MEMBER, quantity=1)
    do(CommandKind.CANCEL, account=MAKER, side=2, target_lo=1, key_lo=script.key())
    do(CommandKind.LIST, instrument=9, account=STOPPED)  # refused; its price step is 3
    for _ in range(2):  # the second of each is answered as the first was
        do(CommandKind.MASS_CANCEL, account=STOPPED, side=2, key_lo=7)
        do(CommandKind.DEPOSIT, account=STOPPED, price=5_000_000, key_lo=8)
    return script


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return told().write(tmp_path_factory.mktemp("kinds") / "market")


def found(directory: Path, **wanted: int | str) -> list[EventRow]:
    query, kept = search.Query(**wanted), []  # type: ignore[arg-type]

    def keep(_: Frame, row: EventRow) -> None:
        kept.append(row)

    walk.walk(directory, lambda frame, events: query.search(frame, events, keep))
    return kept


def names(found_rows: list[EventRow]) -> set[str]:
    return {EventKind(row[2]).name for row in found_rows}


def test_a_search_by_instrument_finds_whatever_is_of_one(market: Path) -> None:
    of_first = {
        "INSTRUMENT_LISTED", "RISK_CHANGED", "STATE_CHANGED", "ORDER_ACCEPTED", "TRADE",
        "PROTECTIONS_CHANGED", "BREAKER_CHANGED", "ORDER_WAITING", "ORDER_ELECTED",
        "ORDER_REFILLED", "QUOTED", "ORDER_CANCELLED", "LEG_TRADE", "MASS_CANCELLED",
        "LOTS_TRANSFERRED", "AUCTION_INDICATED", "AUCTION_UNCROSSED", "LEVEL_TAKEN",
        "ACCOUNTABILITY_PASSED",
    }  # fmt: skip
    of_it = found(market, code=CODES[0])
    assert names(of_it) == of_first
    assert {row[5] for row in of_it} == {0}
    assert sum(row[2] == EventKind.MASS_CANCELLED for row in of_it) == 1  # of two
    assert names(found(market, code=CODE)) >= {"LEG_LISTED", "IMPLIED_CHANGED", "TRADE"}


def test_a_search_by_account_finds_no_event_without_one(market: Path) -> None:
    everything: list[EventRow] = []
    walk.walk(market, lambda _, events: everything.extend(EVENT.iter_unpack(events)))
    assert names(found(market, account=0)) == set()  # the house did nothing
    stopped = found(market, account=STOPPED)
    assert {"ORDER_WAITING", "ORDER_ELECTED", "TRADE"} <= names(stopped)
    refused = [row for row in everything if row[2] == EventKind.REJECTED and row[6] == STOPPED]
    assert len(refused) == 1  # the listing
    assert refused[0] not in stopped
    assert {"MASS_CANCELLED", "QUOTED", "PROTECTION_CHANGED"} <= names(
        found(market, account=QUOTER)
    )
    assert {"KILLED", "LOTS_TRANSFERRED", "LEG_TRADE"} <= names(found(market, account=TAKER))


def test_other_parameters_leave_groups_whole_and_correct_no_trade_that_is_gone(
    tmp_path: Path,
) -> None:
    script = Script()
    script.set_up()

    def enter(account: int, side: int, price: int, lots: int, **more: int) -> list[dict[str, int]]:
        return script.say(script.enter(account, side, price, lots, **more))

    enter(TAKER, BUY, 2_400, 1)  # without it every later order has another id
    (first,) = enter(STOPPED, SELL, 2_520, 2)
    grouped = {"spare": OrderFeature.GROUPED, "target_hi": first["order_id"]}
    enter(STOPPED, BUY, 2_480, 2, **grouped)
    taken = [EventKind(row["kind"]).name for row in enter(MAKER, SELL, 2_480, 2)]
    assert taken == ["ORDER_ACCEPTED", "TRADE", "ORDER_CANCELLED"]
    enter(TAKER, SELL, 2_500, 3)
    (trade,) = [row for row in enter(MAKER, BUY, 2_500, 3) if row["kind"] == EventKind.TRADE]
    bust = record_of(
        CommandKind.BUST, account=MAKER, session=TAKER, price=2_500, quantity=3,
        target_lo=trade["sequence"] << INDEX_BITS | trade["index"],
        target_hi=trade["a"] % 2**64, key_lo=trade["b"] % 2**64,
    )  # fmt: skip
    assert [row["kind"] for row in script.say((bust, None))] == [EventKind.TRADE_BUSTED]
    told = what_if(script.write(tmp_path / "market"), Changes(without=frozenset({TAKER})))
    assert (told["orders_rejected"], told["others_rejected"], told["commands_changed"]) == (0, 0, 3)
    assert {one["difference"] for one in told["profit"]} == {"0.00"}


def test_the_audit_trail_says_whose_and_of_what_each_command_was(market: Path) -> None:
    told: list[dict[str, object]] = []
    trail = Trail(lambda row: told.append(dict(zip(FIELDS, row, strict=True))))
    walk.walk(market, trail.take)

    def of(kind: str, *fields: str) -> list[tuple[object, ...]]:
        found = [row for row in told if row["record_type"] == kind]
        return [tuple(row[name] for name in fields) for row in found]

    who = ("account", "instrument", "msg_type")
    assert of("MASS_QUOTE", *who) == [(QUOTER, CODES[0], "i")]
    assert of("QUOTED", *who) == [(QUOTER, CODES[0], "b")]
    bid_and_ask = ("price", "quantity", "ask_price", "ask_quantity")
    quoted = [("2.490", 5, "2.540", 5)]
    assert of("MASS_QUOTE", *bid_and_ask) == of("QUOTED", *bid_and_ask) == quoted
    chosen = [(QUOTER, CODES[0]), (QUOTER, "")]
    assert of("MASS_CANCEL", *who[:2])[:2] == of("MASS_CANCELLED", *who[:2])[:2] == chosen
    priced = [("LIST", "INSTRUMENT_LISTED"), ("SETTLE", "INSTRUMENT_SETTLED")]
    priced += [("MARK", "MARKED"), ("EXPIRE", "INSTRUMENT_EXPIRED")]
    for command, event in priced:
        answered = [row for row in of(event, "instrument", "price") if row[0] in CODES]
        assert set(answered) <= set(of(command, "instrument", "price")), event
    assert of("INSTRUMENT_LISTED", "price")[0] == ("2.500000",)
    repeated = ("cash", "duplicate")
    assert of("DEPOSITED", *repeated)[-2:] == [("5.000000", ""), ("0.000000", "Y")]
    assert of("MASS_CANCELLED", "duplicate")[-2:] == [("",), ("Y",)]
    assert of("KILL", "account") == of("KILLED", "account") == [(TAKER,)]
    assert of("RESUME", "account") == of("RESUMED", "account") == [("",)]  # a member's
    assert of("SET_BREAKER", *who[:2]) == of("BREAKER_CHANGED", *who[:2]) == [("", CODES[0])]
    assert of("INDICATE", "instrument") == of("AUCTION_UNCROSSED", "instrument") == [(CODES[0],)]
    assert of("REJECTED", *who)[-1] == ("", "#9", "8")  # the listing; nobody's
    assert set(of("ACCOUNTABILITY_PASSED", "instrument")) == {(CODES[0],)}
    special = ("features", "trigger", "display", "minimum", "expires", "group_order_id")
    assert set(of("ENTER", *special)) == {
        ("", "", "", "", "", ""),
        ("STOP", "2.510", "", "", "", ""),
        ("ICEBERG", "", 3, "", "", ""),
        ("REDUCE_ONLY|GROUPED", "", "", "", "", 1),
        ("", "", "", 2, "2027-01-15T08:00:00.000Z", ""),
    }
    assert of("ORDER_WAITING", "trigger") == of("ORDER_ELECTED", "trigger") == [("2.510",)]


def test_the_export_has_the_code_of_whatever_is_of_an_instrument(market: Path) -> None:
    picture = Picture()
    made: list[dict[str, object]] = []

    def take(frame: Frame, events: bytes) -> None:
        picture.take(frame, events)
        columns = zip(*rows(frame, events, picture), strict=True)
        made.extend(dict(zip([c.name for c in COLUMNS], row, strict=True)) for row in columns)

    walk.walk(market, take)

    def of(kind: str, *fields: str) -> list[tuple[object, ...]]:
        return [tuple(row[name] for name in fields) for row in made if row["kind"] == kind]

    first, second = CODES
    assert of("LEG_TRADE", "code", "side", "maker_account", "key") == [
        (first, "BUY", MAKER, None), (second, "SELL", MAKER, None),
    ]  # fmt: skip
    assert of("MASS_QUOTE", "code", "tif", "side") == [(first, "GTC", None)]
    assert of("MASS_CANCEL", "code")[:2] == of("MASS_CANCELLED", "code")[:2] == [(first,), (None,)]
    assert of("ORDER_ELECTED", "code", "side") == [(first, "BUY")]
    assert of("SET_BREAKER", "code") == of("AUCTION_UNCROSSED", "code") == [(first,)]
    assert {"STOP", "ICEBERG", ""} <= {spare for (spare,) in of("ENTER", "spare")}
    assert of("REJECTED", "code")[-2:] == [(None,), ("#9",)]  # a cancel, and the listing


def test_a_command_in_words_says_of_what_and_by_whom(market: Path) -> None:
    picture, lines = Picture(), set[str]()

    def take(frame: Frame, events: bytes) -> None:
        picture.take(frame, events)
        for number in range(frame.opening.count):
            lines.add(command_line(command_at(frame.commands, number), picture))

    walk.walk(market, take)
    first = CODES[0]
    assert lines >= {
        f"MASS_QUOTE {first}, account 1", f"MASS_CANCEL {first}, account 1", "RESUME",
        "MASS_CANCEL, account 1", f"SET_BREAKER {first}", f"INDICATE {first}", "KILL, account 5",
        "ENTER by account 3: buy 2 H100Z26 at 2.520, GTC, stop at 2.510, self-trade CANCEL_NEWEST",
        "ENTER by account 4: sell 3 H200Z26 at 2.505, GTD, good till 2027-01-15T08:00:00.000Z,"
        " at least 2, self-trade CANCEL_NEWEST",
        "OPEN_ACCOUNT, account 3", f"SET_IMPLIED {CODE}", "LOGON, account 1", "OPEN_DAY",
    }  # fmt: skip


def test_an_event_in_words_says_of_what_and_by_whom(tmp_path: Path) -> None:
    script, picture, lines = told(), Picture(), set[str]()
    sell = {"target_lo": 2_545, "target_hi": 5, "key_lo": 700}
    for quote in (sell, sell, {"key_lo": 701}):
        script.say((record_of(CommandKind.MASS_QUOTE, account=QUOTER, **quote), None))
    for state in (TradingState.AUCTION, TradingState.CONTINUOUS):
        script.say((record_of(CommandKind.SET_STATE, instrument=1, tif=state), None))
    script.say((record_of(CommandKind.RECORD, account=STOPPED, key_lo=702), "a note"))
    made: list[tuple[object, ...]] = []

    def write(row: list[object]) -> None:
        named = dict(zip(FIELDS, row, strict=True))
        if named["record_type"] == "QUOTED" and named["duplicate"]:
            made.append((named["ask_price"], named["ask_quantity"]))

    trail = Trail(write)

    def take(frame: Frame, events: bytes) -> None:
        picture.take(frame, events)
        trail.take(frame, events)
        lines.update(event_line(row, picture) for row in EVENT.iter_unpack(events))

    walk.walk(script.write(tmp_path / "market"), take)
    first, second = CODES
    assert lines >= {
        f"QUOTED account 1, {first}: buy 5 at 2.490, sell 5 at 2.540",
        f"QUOTED account 1, {first}: sell 5 at 2.545",
        f"QUOTED account 1, {first}: the first answer again",
        f"QUOTED account 1, {first}: withdrawn",
        "PROTECTION_CHANGED account 1, product 0: 0 of 50 lots within 1,000,000,000 ns",
        f"AUCTION_INDICATED {first}: 4 lots at 2.500, surplus +0",
        f"AUCTION_UNCROSSED {first}: 4 lots at 2.500, surplus +0",
        f"AUCTION_UNCROSSED {second}: no price",
        f"LEVEL_TAKEN {first}: 4 lots to buy at 2.505",
        f"LEVEL_TAKEN {first}: 4 lots to sell at 2.500",
        "RECORDED account 3",
        f"INSTRUMENT_LISTED {first} at 2.500000",
        f"INSTRUMENT_LISTED {CODE}",
    }
    assert made == [("", "")]  # a repeated answer has the bid alone
