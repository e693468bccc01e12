"""Surveillance returns the seeded positives and no more. Budget: 6 seconds.

A lively random market is the noise; each pattern is then played once, and each near miss.
"""

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest
from history_market import DAYS, Item, Script
from recorded import record_of
from test_history_lives import SPREAD, implied

from exchange.history.patterns import Finding, Match, RoundTrips, Thresholds
from exchange.history.spoofing import Spoofing
from exchange.history.surveillance import PATTERNS, Surveillance
from exchange.history.walk import NS, walk
from exchange.messages import (
    AccountKind,
    CommandFlag,
    CommandKind,
    EventKind,
    KillScope,
    OrderFeature,
    Side,
    TimeInForce,
    TradingState,
)

BUY, SELL = Side.BUY, Side.SELL
SECOND = 4  # batches, a quarter of a second each


class Looked:
    """Counts the lines of Python that run inside ``with``: a loop's again for each round."""

    def __init__(self) -> None:
        self.lines = 0

    def __enter__(self) -> None:
        sys.settrace(self._count)

    def __exit__(self, *raised: object) -> None:
        sys.settrace(None)

    def _count(self, frame: FrameType, event: str, told: object) -> Any:
        self.lines += event == "line"
        return self._count


def ids_of(rows: list[dict[str, int]]) -> list[int]:
    return [row["order_id"] for row in rows if row["kind"] == EventKind.ORDER_ACCEPTED]


def cancel(script: Script, account: int, order_id: int) -> Item:
    record = record_of(
        CommandKind.CANCEL, account=account, side=Side.UNSTATED, target_lo=order_id,
        key_lo=script.key(), key_hi=7,
    )  # fmt: skip
    return record, None


def quiet(script: Script, seconds: int) -> None:
    for _ in range(seconds * SECOND):
        script.say((record_of(CommandKind.ADVANCE_TIME), None))


def trade(script: Script, buyer: int, seller: int, lots: int, price: int) -> None:
    """A trade in the second instrument, which nobody else uses."""
    script.say(script.enter(seller, SELL, price, lots, instrument=1))
    rows = script.say(script.enter(buyer, BUY, price, lots, instrument=1, tif=TimeInForce.IOC))
    assert [row["quantity"] for row in rows if row["kind"] == EventKind.TRADE] == [lots]


def spoof(script: Script, lots: int, wait: int) -> None:
    """Account 3 shows lots to sell, buys two, waits, cancels."""
    shown = ids_of(script.say(script.enter(3, SELL, 2_540, lots, instrument=1)))
    trade(script, 3, 4, 2, 2_500)
    quiet(script, wait)
    script.say(cancel(script, 3, shown[0]))


def begin() -> Script:
    script = Script(seed=9)
    script.set_up()
    return script


def findings(script: Script, directory: Path) -> list[tuple[str, int, int]]:
    watch = Surveillance()
    walk(script.write(directory / "market"), watch.take)
    watch.finish()
    assert len(watch.rows()) == len(watch.findings)
    return [(found.pattern, found.account, found.lots) for found in watch.findings]


def test_a_round_trip_is_found_and_its_near_misses_are_not(tmp_path: Path) -> None:
    script = begin()
    trade(script, 1, 3, 5, 2_500)
    trade(script, 3, 1, 4, 2_500)  # other lots
    trade(script, 3, 1, 5, 2_502)  # two ticks away
    trade(script, 1, 3, 5, 2_506)  # the same way again
    trade(script, 3, 5, 5, 2_500)  # another account
    trade(script, 3, 1, 5, 2_501)
    quiet(script, 61)
    trade(script, 3, 1, 5, 2_506)  # too late
    assert findings(script, tmp_path) == [("round_trip", 1, 5)]


def test_a_trade_that_goes_back_in_parts_is_found(tmp_path: Path) -> None:
    """With its last lots; two that go back in one trade are one finding."""
    script = begin()
    trade(script, 1, 3, 10, 2_500)
    trade(script, 3, 1, 4, 2_501)
    trade(script, 3, 1, 3, 2_502)  # two ticks away
    trade(script, 3, 1, 6, 2_499)
    quiet(script, 61)
    trade(script, 1, 3, 2, 2_500)
    trade(script, 1, 3, 3, 2_500)
    trade(script, 3, 1, 5, 2_500)
    quiet(script, 61)
    trade(script, 1, 3, 10, 2_500)
    trade(script, 3, 1, 4, 2_500)
    quiet(script, 61)
    trade(script, 3, 1, 6, 2_500)  # too late
    assert findings(script, tmp_path) == [("round_trip", 1, 10), ("round_trip", 1, 5)]


def test_trades_that_never_go_back_are_forgotten() -> None:
    round_trips = RoundTrips(Thresholds())
    for second in range(1_000):
        one_way = Match(second * NS, second, 0, 2_500, 1, (1, 2), (3, 4))
        round_trips.traded(one_way, DAYS[0], print)
    for kept in (round_trips._open, round_trips._equal):
        assert sum(map(len, kept.values())) <= 61


def test_a_busy_minute_of_two_accounts_is_judged_in_passing() -> None:
    """Whatever stands against a trade or an account: neither all trades of the minute nor all
    orders of the account are looked at for each trade."""
    draw, found = Random(1), list[Finding]()
    round_trips, spoofing = RoundTrips(Thresholds()), Spoofing(Thresholds())
    for order_id in range(1, 4_001):
        row = (order_id, 0, 1, 0, 0, 0, 1, order_id, 2_400, 1, 1, 0, 0, 0, 0)
        spoofing.accepted(row, 0, DAYS[0], found.append)
    looked = Looked()
    for number in range(3_000):
        buyer, price = draw.choice((1, 2)), draw.randrange(2_300, 2_700)
        stamp, sequence = 10 * NS + number * NS // 1_000, 5_000 + number
        match = Match(
            stamp, sequence, 0, price, draw.randint(1, 50), (buyer, 3 - buyer), (5_000, 5_001)
        )
        with looked:
            round_trips.traded(match, DAYS[0], found.append)
            spoofing.traded(match)
    assert looked.lines < 3_000 * 150  # the other way: thousands for each trade
    assert len(found) == 1_515  # of 3,000 trades, some of which bring several back


def test_spoofing_is_found_and_its_near_misses_are_not(tmp_path: Path) -> None:
    script = begin()
    spoof(script, 8, 1)
    quiet(script, 70)
    spoof(script, 7, 1)  # less than four for one
    quiet(script, 70)
    spoof(script, 8, 6)  # cancelled too late
    quiet(script, 70)
    shown = ids_of(script.say(script.enter(3, SELL, 2_540, 8, instrument=1)))
    quiet(script, 6)
    trade(script, 3, 4, 2, 2_500)  # it had stood there for long
    script.say(cancel(script, 3, shown[0]))
    quiet(script, 70)
    shown = ids_of(script.say(script.enter(3, SELL, 2_540, 8, instrument=1)))
    trade(script, 3, 4, 2, 2_500)
    rows = script.say(script.enter(5, BUY, 2_540, 1, instrument=1))  # what was shown was real
    assert any(row["kind"] == EventKind.TRADE for row in rows)
    script.say(cancel(script, 3, shown[0]))
    assert findings(script, tmp_path) == [("spoofing", 3, 8)]


def test_a_trade_is_suspected_whatever_the_account_traded_just_before(tmp_path: Path) -> None:
    """A lot bought behind four, or a trade the other way, hides no other trade of these seconds."""
    script = begin()
    first = ids_of(script.say(script.enter(3, SELL, 2_540, 4, instrument=1)))
    trade(script, 3, 4, 1, 2_500)
    more = ids_of(script.say(script.enter(3, SELL, 2_540, 40, instrument=1)))
    trade(script, 3, 4, 10, 2_501)
    script.say(cancel(script, 3, more[0]))
    script.say(cancel(script, 3, first[0]))
    quiet(script, 70)
    asks = ids_of(script.say(script.enter(3, SELL, 2_540, 8, instrument=1)))
    trade(script, 3, 4, 2, 2_500)
    bids = ids_of(script.say(script.enter(3, BUY, 2_460, 12, instrument=1)))
    trade(script, 4, 3, 3, 2_502)
    script.say(cancel(script, 3, bids[0]))
    script.say(cancel(script, 3, asks[0]))
    assert findings(script, tmp_path) == [
        ("spoofing", 3, 40), ("spoofing", 3, 4), ("spoofing", 3, 12), ("spoofing", 3, 8),
    ]  # fmt: skip


@pytest.mark.parametrize("dormant", [False, True])
def test_a_stop_is_shown_once_it_is_elected_and_a_dormant_order_is_not(
    tmp_path: Path, dormant: bool
) -> None:
    script = begin()
    stop = script.enter(
        3, SELL, 2_510, 8, instrument=1, spare=OrderFeature.STOP, target_hi=2_505,
    )  # fmt: skip
    (shown,) = ids_of(script.say(stop))
    quiet(script, 6)  # it waits, in no book
    trade(script, 1, 5, 1, 2_505)
    quiet(script, 1)
    if dormant:
        limits = {"instrument": 1, "target_lo": 2_400, "target_hi": 2_506}
        script.say((record_of(CommandKind.SET_LIMITS, **limits), None))
    trade(script, 3, 4, 2, 2_500)
    script.say(cancel(script, 3, shown))
    assert findings(script, tmp_path) == ([] if dormant else [("spoofing", 3, 8)])


def test_trades_that_one_withdrawal_completes_are_one_finding(tmp_path: Path) -> None:
    script = begin()
    (shown,) = ids_of(script.say(script.enter(3, SELL, 2_540, 8, instrument=1)))
    trade(script, 3, 4, 2, 2_500)
    moved = record_of(
        CommandKind.REPLACE, account=3, side=Side.UNSTATED, target_lo=shown, quantity=8,
        price=2_541, key_lo=script.key(), key_hi=7,
    )  # fmt: skip
    script.say((moved, None))
    trade(script, 3, 4, 1, 2_501)  # of what it has moved since, too
    script.say(cancel(script, 3, shown))
    assert findings(script, tmp_path) == [("spoofing", 3, 8)]


@pytest.mark.parametrize(
    ("price", "lots", "found"), [(2_503, 8, True), (2_502, 8, False), (2_503, 2, False)]
)
def test_marking_the_close(tmp_path: Path, price: int, lots: int, found: bool) -> None:
    """Eight of ten lots and three ticks are found; two ticks are not, nor a fifth of the lots."""
    script = begin()
    trade(script, 1, 3, 1, 2_500)
    quiet(script, 31)
    trade(script, 5, 4, 10 - lots, 2_501)
    trade(script, 2, 3, lots, price)
    script.settle(DAYS[0], (2_500_000, 2_503_000))
    expected = [("marking_the_close", 2, lots)] if found else []
    if lots == 2:  # then the other account has most of it, and its price did go
        expected = [("marking_the_close", 5, 8)]
    assert findings(script, tmp_path) == expected


def test_a_window_is_held_against_the_last_price_before_it(tmp_path: Path) -> None:
    """Of the next date that is where this one closed, not where it was half a minute before."""
    script = begin()
    trade(script, 1, 3, 1, 2_500)
    quiet(script, 31)
    trade(script, 5, 4, 5, 2_501)
    trade(script, 2, 3, 5, 2_503)  # half of the window's lots: nobody's doing
    script.settle(DAYS[0], (2_500_000, 2_503_000))
    script.open_day(DAYS[1])
    trade(script, 2, 3, 10, 2_503)
    script.settle(DAYS[1], (2_500_000, 2_503_000))
    assert findings(script, tmp_path) == []


@pytest.mark.parametrize(
    ("pairs", "trades", "messages"), [(100, 0, 200), (99, 0, 0), (100, 2, 202), (100, 3, 0)]
)
def test_stuffing(tmp_path: Path, pairs: int, trades: int, messages: int) -> None:
    """Two hundred messages within a second are found; 198 are not, nor with three trades."""
    script = begin()
    while script.stamp() % NS:
        script.say((record_of(CommandKind.ADVANCE_TIME), None))
    dealt = [
        script.enter(account, side, 2_500, 1, instrument=1)
        for _ in range(trades)
        for account, side in ((4, SELL), (1, BUY))
    ]
    for half in (pairs // 2, pairs - pairs // 2):
        wishes = (script.enter(4, SELL, 2_600 + n, 1, instrument=1) for n in range(half))
        rows = script.say(*dealt, *wishes)
        dealt = []
        shown = [row for row in rows if row["price"] >= 2_600 and row["account"] == 4]
        script.say(*(cancel(script, 4, row["order_id"]) for row in shown))
    expected = [("stuffing", 4, messages)] if messages else []
    assert findings(script, tmp_path) == expected


def test_a_second_is_of_its_own_date_and_place_however_late_it_is_judged(tmp_path: Path) -> None:
    """Who has stuffed and then sends nothing is judged with the next order, or at the end."""
    script = begin()
    while script.stamp() % NS:
        script.say((record_of(CommandKind.ADVANCE_TIME), None))
    for account in (3, 4):
        wishes = (
            script.enter(account, BUY, 2_400, 1, instrument=1, tif=TimeInForce.IOC)
            for _ in range(200)
        )
        script.say(*wishes)
    quiet(script, 2)
    trade(script, 1, 5, 5, 2_500)
    trade(script, 5, 1, 5, 2_500)
    script.settle(DAYS[0], (2_500_000, 2_500_000))
    script.open_day(DAYS[1])
    script.say(script.enter(3, BUY, 2_400, 1, instrument=1))
    watch = Surveillance()
    walk(script.write(tmp_path / "market"), watch.take)
    watch.finish()
    assert [(one["pattern"], one["account"], one["business_date"]) for one in watch.rows()] == [
        ("stuffing", 3, DAYS[0]), ("stuffing", 4, DAYS[0]), ("round_trip", 1, DAYS[0]),
    ]  # fmt: skip


def test_what_the_market_cancels_is_no_message_of_the_account(tmp_path: Path) -> None:
    """Two hundred orders end with the day, or by a kill switch; others by one mass cancel."""
    script = begin()
    wide = record_of(
        CommandKind.SET_RISK, instrument=1, price=150_000_000, quantity=5_000, session=50,
        target_lo=1_000_000, target_hi=3_000_000,
    )  # fmt: skip
    script.say((wide, None))
    for account, tif in ((3, TimeInForce.DAY), (4, TimeInForce.GTC), (5, TimeInForce.GTC)):
        for _ in range(4):
            wishes = (
                script.enter(account, BUY, 2_400, 1, instrument=1, tif=tif) for _ in range(50)
            )
            script.say(*wishes)
            quiet(script, 1)
    all_of_it = record_of(
        CommandKind.MASS_CANCEL, account=4, instrument=1, side=Side.UNSTATED, tif=1,
        key_lo=script.key(), key_hi=9,
    )  # fmt: skip
    killed = record_of(CommandKind.KILL, account=5, tif=KillScope.ACCOUNT)
    ended = script.say((all_of_it, None)) + script.say((killed, None))
    assert sum(row["kind"] == EventKind.ORDER_CANCELLED for row in ended) == 400
    script.settle(DAYS[0], (2_500_000, 2_500_000))
    assert findings(script, tmp_path) == []


def test_a_command_is_one_message_whatever_it_answers(tmp_path: Path) -> None:
    """An IOC that finds nobody is accepted and cancelled; a quote changes both of its sides."""
    script = begin()
    for account, count in ((3, 199), (4, 200)):
        while script.stamp() % NS:
            script.say((record_of(CommandKind.ADVANCE_TIME), None))
        wishes = (
            script.enter(account, BUY, 2_400, 1, instrument=1, tif=TimeInForce.IOC)
            for _ in range(count)
        )
        script.say(*wishes)
        quiet(script, 1)
        while script.stamp() % NS:
            script.say((record_of(CommandKind.ADVANCE_TIME), None))
        script.say(*(quote(script, 5, 2_490 - n % 2, 2_510 + n % 2) for n in range(199)))
    assert findings(script, tmp_path) == [("stuffing", 4, 200)]


def quote(script: Script, account: int, bid: int = 0, ask: int = 0, lots: int = 1) -> Item:
    """A quote of those prices; without prices the quote is withdrawn."""
    record = record_of(
        CommandKind.MASS_QUOTE, account=account, instrument=1, price=bid, quantity=bool(bid) * 2,
        target_lo=ask, target_hi=bool(ask) * lots, key_lo=script.key(), key_hi=9,
    )  # fmt: skip
    return record, None


@pytest.mark.parametrize(
    ("kind", "lots", "found"),
    [
        (CommandKind.REDUCE, 32, [("spoofing", 3, 32)]),
        (CommandKind.REDUCE, 40, [("spoofing", 3, 40)]),
        (CommandKind.REDUCE, 7, []),
        (CommandKind.REPLACE, 8, [("spoofing", 3, 32)]),
        (CommandKind.REPLACE, 33, []),
    ],
)
@pytest.mark.parametrize("new_id", [False, True])
def test_what_is_shown_may_be_withdrawn_by_fewer_lots(
    tmp_path: Path, kind: CommandKind, lots: int, found: list[tuple[str, int, int]], new_id: bool
) -> None:
    """A reduction, or a replacement by fewer lots, is withdrawn like a cancel of these lots."""
    script = begin()
    (shown,) = ids_of(script.say(script.enter(3, SELL, 2_540, 40, instrument=1)))
    trade(script, 3, 4, 2, 2_500)
    flags = CommandFlag.NEW_ID if new_id and kind == CommandKind.REPLACE else 0
    record = record_of(
        kind, account=3, side=Side.UNSTATED, target_lo=shown, quantity=lots, flags=flags,
        price=2_560 if kind == CommandKind.REPLACE else 0, key_lo=script.key(), key_hi=7,
    )  # fmt: skip
    script.say((record, None))
    assert findings(script, tmp_path) == found


def test_a_quote_may_show_what_it_withdraws(tmp_path: Path) -> None:
    script = begin()
    for ask, lots in ((2_540, 8), (2_540, 7)):
        script.say(quote(script, 3, 2_500, ask, lots))
        script.say(script.enter(4, SELL, 2_500, 2, instrument=1, tif=TimeInForce.IOC))
        script.say(quote(script, 3))
        quiet(script, 70)
    assert findings(script, tmp_path) == [("spoofing", 3, 8)]


@pytest.mark.parametrize(("parts", "shown"), [((2, 3), 8), ((3, 2), 8), ((5,), 8), ((3, 2), 20)])
def test_all_lots_of_an_order_count_in_whatever_parts_they_trade(
    tmp_path: Path, parts: tuple[int, ...], shown: int
) -> None:
    script = begin()
    (order,) = ids_of(script.say(script.enter(3, SELL, 2_540, shown, instrument=1)))
    script.say(*(script.enter(4, SELL, 2_500, lots, instrument=1) for lots in parts))
    script.say(script.enter(3, BUY, 2_500, 5, instrument=1, tif=TimeInForce.IOC))
    script.say(cancel(script, 3, order))
    assert findings(script, tmp_path) == ([("spoofing", 3, 20)] if shown == 20 else [])


@pytest.mark.parametrize(("closed", "found"), [(True, True), (False, False)])
def test_a_close_is_when_trading_ends_however_late_it_is_settled(
    tmp_path: Path, closed: bool, found: bool
) -> None:
    script = begin()
    trade(script, 1, 3, 1, 2_500)
    quiet(script, 31)
    trade(script, 2, 3, 20, 2_505)
    if closed:
        state = record_of(CommandKind.SET_STATE, instrument=1, tif=TradingState.CLOSED)
        script.say((state, None))
    quiet(script, 120)
    script.settle(DAYS[0], (2_500_000, 2_505_000))
    assert findings(script, tmp_path) == ([("marking_the_close", 2, 20)] if found else [])


def test_two_house_accounts_of_one_member_do_not_trade_unnoticed(tmp_path: Path) -> None:
    """B81: house accounts of a member have one owner; its clients' accounts have their own."""
    script = begin()
    for account in (7, 8):
        opened = record_of(
            CommandKind.OPEN_ACCOUNT, account=account, instrument=4, session=account,
            tif=AccountKind.HOUSE, quantity=200, target_hi=1,
        )  # fmt: skip
        paid = record_of(
            CommandKind.DEPOSIT, account=account, price=400_000_000_000, key_lo=script.key(),
            key_hi=9,
        )  # fmt: skip
        script.say((opened, None), (paid, None))
    trade(script, 3, 4, 5, 2_500)  # two clients of one member
    trade(script, 1, 7, 5, 2_500)  # houses of two members
    trade(script, 7, 8, 6, 2_500)
    assert findings(script, tmp_path) == [("one_owner", 7, 6)]


def test_trades_through_implied_prices_are_trades(tmp_path: Path) -> None:
    """Of one owner, back and forth, and behind a show on the other side."""
    script = implied()
    for account, member in ((7, 1), (8, 1)):  # houses of the member of account 1
        opened = record_of(
            CommandKind.OPEN_ACCOUNT, account=account, instrument=member, session=account,
            tif=AccountKind.HOUSE, quantity=200, target_hi=1,
        )  # fmt: skip
        paid = record_of(
            CommandKind.DEPOSIT, account=account, price=400_000_000_000, key_lo=script.key(),
            key_hi=9,
        )  # fmt: skip
        script.say((opened, None), (paid, None))

    def through(taker: int, side: Side, near: int, far: int) -> None:
        """Lots of the spread trade with an order of either leg."""
        script.say(script.enter(near, 1 - side, 2_500, 2))
        script.say(script.enter(far, side, 2_490, 2, instrument=1))
        rows = script.say(script.enter(taker, side, 10, 2, instrument=SPREAD))
        assert sum(row["kind"] == EventKind.LEG_TRADE for row in rows) == 2

    through(7, BUY, 8, 3)
    quiet(script, 70)
    through(3, BUY, 4, 5)
    through(3, SELL, 4, 6)
    quiet(script, 70)
    (shown,) = ids_of(script.say(script.enter(3, SELL, 30, 8, instrument=SPREAD)))
    through(3, BUY, 4, 5)
    script.say(cancel(script, 3, shown))
    assert findings(script, tmp_path) == [
        ("one_owner", 7, 2), ("round_trip", 3, 2), ("spoofing", 3, 8),
    ]  # fmt: skip


@pytest.mark.parametrize(("trades", "found"), [(3, []), (2, [("stuffing", 5, 210)])])
def test_who_trades_through_implied_prices_stuffs_no_book(
    tmp_path: Path, trades: int, found: list[tuple[str, int, int]]
) -> None:
    """Of 210 messages a hundredth and more are three trades."""
    script = implied()
    wishes = [
        script.enter(5, BUY, 10 if n < trades else -20, 1, instrument=SPREAD, tif=TimeInForce.IOC)
        for n in range(210)
    ]
    script.say(script.enter(4, SELL, 2_500, 9), script.enter(6, BUY, 2_490, 9, instrument=1))
    rows = script.say(*wishes)
    assert sum(row["kind"] == EventKind.LEG_TRADE for row in rows) == 2 * trades
    assert findings(script, tmp_path) == found


def test_the_seeded_ones_are_found_in_a_busy_market_and_no_more(tmp_path: Path) -> None:
    """Hundreds of honest orders, makers on one side and takers on the other, around them."""
    script, draw = begin(), Random(5)

    def honest(batches: int) -> None:
        for _ in range(batches):
            script.say(
                *(
                    script.enter(
                        account, account % 2, 2_490 + draw.randint(0, 20), draw.randint(1, 9)
                    )
                    for account in draw.choices((1, 2, 3, 4, 5), k=4)
                )
            )

    honest(60)
    trade(script, 1, 3, 5, 2_500)
    honest(8)
    trade(script, 3, 1, 5, 2_500)
    honest(40)
    quiet(script, 60)
    spoof(script, 20, 1)
    honest(40)
    quiet(script, 60)
    trade(script, 2, 5, 12, 2_510)
    script.settle(DAYS[0], (2_500_000, 2_505_000))
    found = findings(script, tmp_path)
    assert found == [("round_trip", 1, 5), ("spoofing", 3, 20), ("marking_the_close", 2, 12)]


def test_the_command_prints_what_was_found(tmp_path: Path) -> None:
    script = begin()
    spoof(script, 8, 1)
    market = script.write(tmp_path / "market")
    command = [sys.executable, "-m", "exchange.cli", "log", "surveillance", str(market)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["patterns"] == list(PATTERNS)
    (found,) = told["findings"]
    assert (found["instrument"], found["account"], found["member"]) == ("H200Z26", 3, 2)
    assert found["first_sequence"] < found["last_sequence"]
    none = subprocess.run([*command, "--pattern", "stuffing"], capture_output=True, check=False)
    assert none.returncode == 0
