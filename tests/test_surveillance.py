"""Surveillance returns the seeded positives and no more. Budget: 6 seconds.

A lively random market is the noise; each pattern is then played once, and each near miss.
"""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from history_market import DAYS, Item, Script
from recorded import record_of

from exchange.history.surveillance import (
    PATTERNS,
    Match,
    RoundTrips,
    Surveillance,
    Thresholds,
)
from exchange.history.walk import NS, walk
from exchange.messages import CommandKind, EventKind, Side, TimeInForce

BUY, SELL = Side.BUY, Side.SELL
SECOND = 4  # batches, a quarter of a second each


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


def test_trades_that_never_go_back_are_forgotten() -> None:
    round_trips = RoundTrips(Thresholds())
    for second in range(1_000):
        one_way = Match(second * NS, second, 0, 2_500, 1, (1, 2), (3, 4))
        round_trips.traded(one_way, DAYS[0], print)
    assert sum(map(len, round_trips._open.values())) <= 61


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
