"""Implied prices by example and by vector, on engine and oracle."""

import json
from pathlib import Path
from typing import Any

import pytest
from differences import Machine
from generator import pack
from test_engine_combinations import BUY, SELL, SPREAD, Desk, both, kinds, rejects

from exchange.messages import CommandFlag, CommandKind, EventKind, Reason, TimeInForce
from exchange.messages import TradingState as State

BOOKS = {"near": 0, "far": 2, "spread": SPREAD}  # months of equal hours
SIDES = {"bid": BUY, "ask": SELL}


def desk_of(machine: type[Machine], on: bool = True) -> Desk:
    """Instrument 3 is the spread of 0 and 2; its prices imply others."""
    desk = Desk(machine(), near=0, far=2)
    if on:
        desk.do(pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1))
    return desk


def cases(shared: Path) -> list[dict[str, Any]]:
    read = json.loads((shared / "vectors" / "implied.json").read_text())
    return [case for case in read["cases"] if case["kind"] == "implied_quote"]


@both
def test_the_vectors(machine: type[Machine], shared: Path) -> None:
    """Each implied quote as what an order that takes it gets: its price and lots, no more."""
    looked_at = 0
    for case in cases(shared):
        for name, (price, lots) in case["expected"]["implied"].items():
            desk = desk_of(machine)
            for number in range(3):
                desk.do(
                    pack(
                        CommandKind.SET_LIMITS, instrument=number, target_lo=0, target_hi=90_000
                    )
                )  # fmt: skip
            for account in range(1, 5):
                desk.do(pack(CommandKind.DEPOSIT, account=account, price=1 << 50))
            book, _, side = name.partition("_")
            for quote, (at, most) in case["inputs"].items():
                where, _, way = quote.partition("_")
                if where != book:
                    owner = 2 + list(BOOKS).index(where)
                    assert not rejects(desk.enter(owner, BOOKS[where], SIDES[way], most, at))
            events = desk.enter(
                1, BOOKS[book], 1 - SIDES[side], lots + 7, price, tif=TimeInForce.IOC
            )  # fmt: skip
            mine = [e for e in events if e.kind == EventKind.ORDER_EXECUTED and e.account == 1]
            assert [(e.price, e.quantity) for e in mine] == [(price, lots)], case
            looked_at += 1
    assert looked_at == 9


@both
def test_an_outright_trades_with_a_spread_and_the_other_month(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 4, 2690)
    events = desk.enter(1, 0, BUY, 6, 2650)
    assert kinds(events) == [
        "ORDER_ACCEPTED", *["ORDER_EXECUTED"] * 3, "LEG_TRADE", "LEG_TRADE",
    ]  # fmt: skip
    me, spread, far, near_leg, far_leg = events[1:]
    assert (me.instrument, me.price, me.quantity, me.leaves) == (0, 2650, 4, 2)
    assert (spread.account, spread.price, spread.leaves) == (2, -40, 1)
    assert (far.account, far.price, far.leaves) == (3, 2690, 0)
    assert (near_leg.price, near_leg.account, near_leg.key_hi, near_leg.flags) == (
        2_650_000,
        1,
        2,
        0,
    )
    assert (far_leg.price, far_leg.account, far_leg.key_hi) == (2_690_000, 2, 3)
    assert (near_leg.a, near_leg.b, far_leg.a, far_leg.b) == (-80, -40, -40, -40)
    assert (desk.held(1), desk.held(2), desk.held(3)) == ([4, 0, 0], [-4, 0, 4], [0, 0, -4])
    assert desk.machine.book(0)[0] == [(2650, 2, 1)]


@both
def test_real_orders_come_first_at_a_price(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 5, 2690)
    desk.enter(4, 0, SELL, 1, 2650)
    events = desk.enter(1, 0, BUY, 2, 2650)
    assert [e.kind for e in events[1:3]] == [EventKind.TRADE, EventKind.ORDER_EXECUTED]


@both
@pytest.mark.parametrize("book", ["off", "halted", "own", "resting", "fok"])
def test_when_nothing_is_implied(machine: type[Machine], book: str) -> None:
    """Switched off, a leg halted, one's own orders on either side, fill-or-kill."""
    desk = desk_of(machine, on=book != "off")
    desk.enter(1 if book == "own" else 2, SPREAD, SELL, 5, -40)
    desk.enter(2 if book == "resting" else 3, 2, SELL, 5, 2690)
    if book == "halted":
        desk.do(desk.state(2, State.HALTED))
    tif = TimeInForce.FOK if book == "fok" else TimeInForce.GTC
    events = desk.enter(1, 0, BUY, 2, 2650, tif=tif)
    assert EventKind.ORDER_EXECUTED not in {event.kind for event in events}


@both
def test_post_only_sees_what_is_implied(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 5, 2690)
    post_only = int(CommandFlag.POST_ONLY)
    refused = rejects(desk.enter(1, 0, BUY, 2, 2651, flags=post_only))
    assert refused == [(Reason.POST_ONLY, 2650, 2651)]
    assert rejects(desk.enter(1, 0, BUY, 2, 2649, flags=post_only)) == []


@both
def test_the_switch_is_for_calendar_spreads(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    for number, legs in ((0, 0), (4, 3), (5, 3)):
        command = pack(CommandKind.SET_IMPLIED, instrument=number, tif=1)
        assert rejects(desk.do(command)) == [(Reason.NOT_IMPLIED, 0, legs)]
    assert rejects(desk.do(pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=2))) == [
        (Reason.PARAMETER_RANGE, 0, 0)
    ]
