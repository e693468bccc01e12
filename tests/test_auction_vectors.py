"""The acceptance vectors of auctions: the rule by itself, and whole auctions of orders.

Names inside the table are the table's own. Its market orders that stay market orders are
Hourbook's GFA market orders: what is left of them is cancelled.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from differences import Machine
from generator import pack
from oracle import Oracle
from oracle_auction import Call, clear
from test_matching_vectors import SIDES, Desk

from exchange.engine import Engine
from exchange.engine.call import clearing_price
from exchange.messages import (
    CancelReason,
    CommandFlag,
    CommandKind,
    Event,
    EventKind,
    OrderFeature,
    SelfTrade,
    TimeInForce,
    TradingState,
)

TABLE = Path(__file__).parent / "tables" / "auctions.json"
Case = dict[str, Any]
CASES: list[Case] = json.loads(TABLE.read_text())["cases"]
# What no market of orders can be given: `test_price` has them on the oracle's and the core's rule.
RULE_ALONE = {
    "A4": "prices without an order",
    "X6": "prices without an order",
    "X8a": "prices without an order",
    "H3": "prices without an order",
    "H4": "prices without an order",
    "B5.1": "a band around the reference",
    "B5.3": "a band around the reference",
    "E3": "the reference as a price of its own",
}


def test_table_is_the_shared_one(shared: Path) -> None:
    assert TABLE.read_bytes() == (shared / "vectors" / TABLE.name).read_bytes()


def call_of(given: Case) -> Call:
    """What a case gives the rule; orders without a price are market orders."""
    variant = given["reference"], given["reference_is_candidate"], given["pressure_band_bp"]
    if "orders" not in given:
        bids, asks = ([tuple(level) for level in given[side]] for side in ("bids", "asks"))
        return Call(bids, asks, given["market_buy"], given["market_sell"], *variant)
    sides = [[o for o in given["orders"] if o["side"] == side] for side in ("buy", "sell")]
    priced = [[(o["price"], o["qty"]) for o in s if o["price"] is not None] for s in sides]
    market = [sum(o["qty"] for o in s if o["price"] is None) for s in sides]
    (bids, asks), (market_buy, market_sell) = priced, market
    return Call(bids, asks, market_buy, market_sell, *variant)


def with_stops(case: Case, rule: Any) -> tuple[tuple[int | None, int, int], list[str]]:
    """The rule, and again with every stop that its price elects, at the stop's limit."""
    call = call_of(case["inputs"])
    waiting = list(case["inputs"].get("stops", []))
    elected: list[str] = []
    while True:
        found = tuple(rule(call))
        reached = [
            stop
            for stop in waiting
            if found[0] is not None
            and (
                found[0] >= stop["trigger"]
                if stop["side"] == "buy"
                else found[0] <= stop["trigger"]
            )
        ]
        if not reached:
            return found, elected
        for stop in reached:
            waiting.remove(stop)
            elected.append(stop["id"])
            side = call.bids if stop["side"] == "buy" else call.asks
            side.append((stop["limit"], stop["qty"]))


@pytest.mark.parametrize("rule", [clear, lambda call: clearing_price(*call)], ids=["slow", "fast"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_price(rule: Any, case: Case) -> None:
    found, elected = with_stops(case, rule)
    expected = case["expected"]
    assert found == (expected["price"], expected["executed"], expected["surplus"])
    assert elected == expected.get("elected", [])


class Hall:
    """One instrument whose orders are collected, an account of its own for every order."""

    def __init__(self, machine: Machine, reference: int | None) -> None:
        self.desk = Desk(machine, high=4000)
        self.desk.do(
            pack(CommandKind.MARK, price=reference or 0),
            pack(CommandKind.SET_STATE, tif=TradingState.AUCTION),
        )
        self.names: dict[int, str] = {}

    def enter(
        self, name: str, side: str, kind: str, price: int | None, lots: int, **special: int
    ) -> None:
        account = len(self.names) + 1
        self.desk.open(account, 1 << 50)
        tif = TimeInForce.GFA if kind == "market" else TimeInForce.GTC
        accepted = self.desk.do(
            pack(
                CommandKind.ENTER, side=SIDES[side], account=account, price=price or 0,
                quantity=lots, flags=0 if kind == "limit" else CommandFlag.MARKET, tif=tif,
                stp=SelfTrade.CANCEL_NEWEST, key_lo=account, **special,
            )
        )[0]  # fmt: skip
        assert accepted.kind == EventKind.ORDER_ACCEPTED
        assert accepted.leaves == (0 if special else lots)
        self.names[accepted.order_id] = name

    def uncross(self) -> list[Event]:
        state = int(TradingState.CONTINUOUS)
        return self.desk.do(pack(CommandKind.SET_STATE, tif=state))


def outcome(events: list[Event]) -> tuple[int | None, int, int]:
    told = next(e for e in events if e.kind == EventKind.AUCTION_UNCROSSED)
    return told.price if told.leaves else None, told.a, told.b


def beyond_orders(case: Case) -> str:
    """Why no market of orders can be given a case; empty if one can."""
    given, call = case["inputs"], call_of(case["inputs"])
    if given["pressure_band_bp"] is not None:
        return "a band around the reference"
    priced = {price for price, lots in [*call.bids, *call.asks] if lots}
    if not {price for price, _ in [*call.bids, *call.asks]} <= priced:
        return "prices without an order"
    plain = {**given, "reference_is_candidate": False}
    if clear(call_of(plain)) != clear(call):
        return "the reference as a price of its own"
    return ""


def test_every_case_runs() -> None:
    """All of the table meet the rule; all that can be orders meet whole markets as well."""
    assert len(CASES) == 34
    assert {c["id"]: why for c in CASES if (why := beyond_orders(c))} == RULE_ALONE


WHOLE = [case for case in CASES if case["id"] not in RULE_ALONE]


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case["id"])
def test_auction(machine: type[Machine], case: Case) -> None:
    given, expected = case["inputs"], case["expected"]
    hall = Hall(machine(), given["reference"])
    if "orders" in given:
        for o in given["orders"]:
            hall.enter(o["id"], o["side"], o["type"], o["price"], o["qty"])
    else:
        for side, levels in (("buy", given["bids"]), ("sell", given["asks"])):
            for price, lots in levels:
                if lots:
                    hall.enter(f"{side}{price}", side, "limit", price, lots)
            if market := given[f"market_{side}"]:
                hall.enter(f"{side} market", side, "market", None, market)
    for stop in given.get("stops", []):
        special = {"spare": int(OrderFeature.STOP), "target_hi": stop["trigger"]}
        hall.enter(stop["id"], stop["side"], "limit", stop["limit"], stop["qty"], **special)
    indicated = hall.desk.do(pack(CommandKind.INDICATE))[0]
    events = hall.uncross()
    found = expected["price"], expected["executed"], expected["surplus"]
    assert outcome(events) == found
    elected = [hall.names[e.order_id] for e in events if e.kind == EventKind.ORDER_ELECTED]
    assert elected == expected.get("elected", [])
    if not elected:  # an indication elects no stops
        assert (indicated.price, indicated.a, indicated.b) == (found[0] or 0, *found[1:])
    trades = [
        [hall.names[e.order_id], hall.names[e.key_lo], e.quantity]
        for e in events
        if e.kind == EventKind.TRADE
    ]
    lots = sum(e.quantity for e in events if e.kind == EventKind.TRADE)
    assert lots == expected["executed"]
    prices = {e.price for e in events if e.kind == EventKind.TRADE}
    assert prices <= {expected["price"]}
    if "trades" in expected:
        assert trades == expected["trades"]
        assert left(hall, events) == by_level(expected["rest"])


def by_level(rest: list[list[Any]]) -> list[list[Any]]:
    """The table's remainders, market orders first, one entry for a price."""
    levels: dict[tuple[str, int | None], int] = {}
    for _, kind, price, lots in sorted(rest, key=lambda one: one[1] != "market"):
        levels[kind, price] = levels.get((kind, price), 0) + lots
    return [[kind, price, lots] for (kind, price), lots in levels.items()]


def left(hall: Hall, events: list[Event]) -> list[list[Any]]:
    """What is left, in the table's words and order: market orders, bids, asks."""
    gone = [
        ["market", None, e.quantity]
        for e in events
        if e.kind == EventKind.ORDER_CANCELLED and e.reason == CancelReason.AUCTION_ENDED
    ]
    bids, asks = hall.desk.machine.book(0)
    return [*gone, *(["limit", price, lots] for price, lots, _ in [*bids, *asks])]
