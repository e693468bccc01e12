"""The acceptance vectors of combinations and of what holds their prices, on engine and oracle.

Every case of the table runs here or stands in ELSEWHERE with the reason. Names inside the table are
the table's own.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from differences import Machine
from generator import pack
from test_engine_combinations import BUY, SELL, SPREAD, both, combine, rejects
from test_engine_combinations import Desk as Combined
from test_engine_implied import BOOKS, desk_of
from test_matching_vectors import Desk, order

from exchange.messages import (
    Breaker,
    CombinationRule,
    CommandKind,
    Event,
    EventKind,
    HaltCause,
    Reason,
    TimeInForce,
    TradingState,
)

TABLE = Path(__file__).parent / "tables" / "implied.json"
Case = dict[str, Any]
CASES: list[Case] = json.loads(TABLE.read_text())["cases"]
ELSEWHERE = {
    "C1": "protection: test_matching_vectors.py",
    "C6": "protection: test_matching_vectors.py",
    "G1": "pro-rata allocation, another market's: here real orders come first, then time",
}
HERE = ("implied_quote", "banding", "circuit_breaker", "limit_move", "allocation")
RICH, HOURS_NS = 1 << 58, 3600 * 10**9
WIDE = 1 << 20  # above all prices of the table


def of_kind(kind: str) -> pytest.MarkDecorator:
    chosen = [case for case in CASES if case["kind"] == kind and case["id"] not in ELSEWHERE]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case["id"])


def test_every_case_runs() -> None:
    assert len(CASES) == 13
    assert {case["id"] for case in CASES if case["kind"] not in HERE} == {"C1", "C6"}


def hall(machine: type[Machine], mark: int) -> Desk:
    """One instrument whose accounts are rich enough for any price of the table."""
    desk = Desk(machine(), high=WIDE)
    desk.do(pack(CommandKind.MARK, price=mark))
    for account in (1, 2):
        desk.open(account, RICH)
    return desk


@both
@of_kind("implied_quote")
def test_an_implied_quote(machine: type[Machine], case: Case) -> None:
    """What an order that takes it gets: its price and lots, no more."""
    for name, (price, lots) in case["expected"]["implied"].items():
        desk = desk_of(machine)
        for number in range(3):
            desk.do(pack(CommandKind.SET_LIMITS, instrument=number, target_hi=90_000))
        for account in range(1, 5):
            desk.do(pack(CommandKind.DEPOSIT, account=account, price=1 << 50))
        book, _, side = name.partition("_")
        for quote, (at, most) in case["inputs"].items():
            where, _, way = quote.partition("_")
            if where != book:
                owner = 2 + list(BOOKS).index(where)
                quoted = BUY if way == "bid" else SELL
                assert not rejects(desk.enter(owner, BOOKS[where], quoted, most, at))
        taker = SELL if side == "bid" else BUY
        events = desk.enter(1, BOOKS[book], taker, lots + 7, price, tif=TimeInForce.IOC)
        mine = [e for e in events if e.kind == EventKind.ORDER_EXECUTED and e.account == 1]
        assert [(e.price, e.quantity) for e in mine] == [(price, lots)]


@both
@of_kind("banding")
def test_banding(machine: type[Machine], case: Case) -> None:
    """Each order by itself, as a better order of the book would move the reference."""
    given, told = case["inputs"], []
    words = {0: "accept", Reason.PRICE_BAND: "reject_band", Reason.PRICE_LIMIT: "reject_limit"}
    for key, (side, price) in enumerate(given["orders"], 1):
        desk = hall(machine, given["reference"])
        if given["limit_low"] is not None:
            low, high = given["limit_low"], given["limit_high"]
            desk.do(pack(CommandKind.SET_LIMITS, target_lo=low, target_hi=high))
        desk.do(pack(CommandKind.SET_PROTECTIONS, price=given["band"]))
        (event,) = desk.do(order(side, 1, price, key, account=1))
        told.append(words[event.reason if event.kind == EventKind.REJECTED else 0])
    assert told == case["expected"]["results"]


def print_at(desk: Desk, price: int, key: int) -> list[Event]:
    """A trade of one lot; what follows it."""
    assert desk.accepts(order("sell", 1, price, key, account=2))
    _, trade, *rest = desk.do(order("buy", 1, price, key, account=1))
    assert (trade.kind, trade.price) == (EventKind.TRADE, price)
    return rest


@both
@of_kind("circuit_breaker")
def test_circuit_breaker(machine: type[Machine], case: Case) -> None:
    """A trade at either edge stands and goes on; one beyond it halts, and says what it passed."""
    given, expected = case["inputs"], case["expected"]
    tick = given["tick"]
    variant = given["prior_settle"] * given["pct_bp"] // 10_000 // tick * tick
    assert variant == expected["variant"]
    at = given.get("trade_price", expected["upper"])
    assert at == expected["upper"] and not expected.get("triggered", False)
    for edge, beyond in ((at, 1), (expected["lower"], -1)):
        for past in (0, beyond):
            desk = hall(machine, given["prior_settle"])
            fields = {"price": variant, "target_lo": HOURS_NS, "target_hi": 120 * 10**9}
            desk.do(pack(CommandKind.SET_BREAKER, tif=Breaker.CIRCUIT, **fields))
            for key, price in enumerate((given["window_low"], given["window_high"]), 1):
                assert print_at(desk, price, key) == []
            after = [(e.reason, e.price, e.a) for e in print_at(desk, edge + past, 9)]
            halted = [(HaltCause.CIRCUIT_BREAKER, edge + past, edge)] if past else []
            assert after == halted


@both
@of_kind("limit_move")
def test_limit_move(machine: type[Machine], case: Case) -> None:
    """It came when the limits had room for it; a day without leaves it waiting, uncancelled."""
    given, told = case["inputs"]["order"], []
    desk = hall(machine, given["price"])
    assert desk.accepts(order(given["side"], given["qty"], given["price"], 1, account=1))
    for day in case["inputs"]["days"]:
        low, high = day["low"], day["high"]
        events = desk.do(pack(CommandKind.SET_LIMITS, target_lo=low, target_hi=high))
        assert not [event for event in events if event.kind == EventKind.ORDER_CANCELLED]
        bids, _ = desk.machine.book(0)
        told.append({"actionable": bids != [], "traded": 0})
        if incoming := day["incoming"]:
            side, lots, price = incoming["side"], incoming["qty"], incoming["price"]
            events = desk.do(order(side, lots, price, 2, account=2))
            traded = sum(event.quantity for event in events if event.kind == EventKind.TRADE)
            told[-1]["traded"] = traded
    assert told == case["expected"]["days"]


@both
@of_kind("allocation")
def test_allocation(machine: type[Machine], case: Case) -> None:
    """An outright and spreads whose prices imply the same: whoever takes all takes every lot."""
    desk, given = Combined(machine()), case["inputs"]
    second = SPREAD + 3
    desk.do(
        combine(second, {0: 1, 2: -1}, CombinationRule.DIFFERENCE),
        *[desk.risk(number, session=1000) for number in (0, 1, 2, SPREAD, second)],
        desk.state(second, TradingState.CONTINUOUS),
        *[pack(CommandKind.SET_IMPLIED, instrument=n, tif=1) for n in (SPREAD, second)],
    )
    outright, *implied = given["sources"]
    desk.enter(2, 0, SELL, outright["qty"], 2650)
    for source, (spread, far) in zip(implied, ((SPREAD, 1), (second, 2)), strict=True):
        desk.enter(3, spread, SELL, source["qty"], 0)
        desk.enter(4, far, SELL, source["qty"], 2650)
    events = desk.enter(1, 0, BUY, given["aggressor"], 2650)
    taken = {outright["id"]: sum(e.quantity for e in events if e.kind == EventKind.TRADE)}
    for source, spread in zip(implied, (SPREAD, second), strict=True):
        executed = [e for e in events if e.kind == EventKind.ORDER_EXECUTED and e.account == 1]
        taken[source["id"]] = sum(e.quantity for e in executed if e.b == spread)
    assert taken == case["expected"]["allocated"]
    assert sum(taken.values()) == case["expected"]["total"]
