"""Trades of combinations taken back or adjusted whole, on engine and oracle: legs and residual."""

from typing import Any

import pytest
from differences import Machine, restored
from generator import pack
from test_engine_combinations import (
    BUY,
    FLY,
    MARK,
    SELL,
    SPREAD,
    STRIP,
    Desk,
    both,
    rejects,
)

from exchange.engine import Engine
from exchange.messages import (
    INDEX_BITS,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
)

U64 = (1 << 64) - 1


def whole(events: list[Event], kind: CommandKind = CommandKind.BUST, **more: int) -> bytes:
    """BUST or ADJUST of the combination's trade that these are the events of."""
    trade = next(event for event in events if event.kind == EventKind.TRADE)
    moved = [e for e in events if e.kind in (EventKind.LEG_TRADE, EventKind.RESIDUAL_POSTED)]
    fields = {
        "side": 1 if trade.flags & EventFlag.SELL else 0,
        "instrument": trade.instrument,
        "account": trade.account,
        "session": trade.key_hi & 0xFFFFFFFF,
        "price": trade.price,
        "quantity": trade.quantity,
        "target_lo": trade.sequence << INDEX_BITS | trade.index,
        "target_hi": sum(event.a for event in moved) & U64,
        "key_lo": sum(event.b for event in moved) & U64,
    }
    return pack(kind, **{**fields, **more})


def figures(desk: Desk) -> list[list[Any]]:
    """Cash and positions of everybody, the house included."""
    positions = [desk.machine.position(n, leg) for n in range(1, 5) for leg in range(3)]
    return [
        [desk.machine.account(number)["cash"] for number in range(5)],
        [(position["net"], position["cost"]) for position in positions],
    ]


def changes_of_terms(desk: Desk) -> list[bytes]:
    """Another anchor, other limits and other fees for a leg."""
    return [
        pack(CommandKind.SET_LIMITS, instrument=1, target_lo=2600, target_hi=2655),
        desk.risk(0, target_lo=-5, target_hi=70),
        pack(CommandKind.MARK, instrument=1, price=MARK - 7),
    ]


@both
@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("number, price", [(SPREAD, -40), (STRIP, 2661), (FLY, 1000)])
def test_a_bust_takes_every_leg_and_the_residual_back(
    machine: type[Machine], number: int, price: int, side: int
) -> None:
    """To the micro-dollar, whatever the legs have come to trade by since."""
    desk = Desk(machine())
    desk.do(pack(CommandKind.SETTLE, instrument=1, price=MARK + 1001, quantity=1))
    before = figures(desk)
    desk.enter(2, number, 1 - side, 2, price)
    events = desk.enter(1, number, side, 2, price)
    assert figures(desk) != before
    desk.do(*changes_of_terms(desk))
    busted = desk.do(whole(events))
    assert figures(desk) == before
    legs = [event for event in events if event.kind == EventKind.LEG_TRADE]
    back = [event for event in busted if event.kind == EventKind.LEG_BUSTED]
    match = events[1].sequence << INDEX_BITS | events[1].index
    assert busted[0].kind == EventKind.TRADE_BUSTED and busted[0].reason == len(legs)
    assert [(e.instrument, e.price, e.quantity, e.reason) for e in back] == [
        (e.instrument, e.price, e.quantity, e.reason) for e in legs
    ]
    assert [(e.a, e.b, e.order_id) for e in back] == [
        (-e.a, -e.b, match + place) for place, e in enumerate(legs, 1)
    ]
    residual = [e.a for e in events if e.kind == EventKind.RESIDUAL_POSTED]
    assert [-e.a for e in busted if e.kind == EventKind.RESIDUAL_CORRECTED] == residual
    again = desk.do(whole(events))
    assert rejects(again) == [(Reason.ALREADY_CORRECTED, 0, 0)]


@both
def test_a_bust_after_the_settlement_leaves_what_the_next_one_pays_back(
    machine: type[Machine],
) -> None:
    desk = Desk(machine())
    desk.enter(2, SPREAD, SELL, 2, -40)
    events = desk.enter(1, SPREAD, BUY, 2, -40)
    settled = [pack(CommandKind.SETTLE, instrument=n, price=MARK + 5, quantity=1) for n in (0, 1)]
    desk.do(*settled)
    desk.do(whole(events))
    desk.do(*[pack(CommandKind.SETTLE, instrument=n, price=MARK + 9, quantity=2) for n in (0, 1)])
    cash, positions = figures(desk)
    assert cash == [0] + [10_000_000_000] * 4 and positions == [(0, 0)] * 12


@both
@pytest.mark.parametrize("number, price, other", [(SPREAD, -40, 55), (STRIP, 2661, 2700)])
def test_an_adjustment_moves_what_the_other_price_would_have(
    machine: type[Machine], number: int, price: int, other: int
) -> None:
    """The books are those of a market in which it had traded at the other price."""
    sides = []
    for first in (price, other):
        desk = Desk(machine())
        desk.do(pack(CommandKind.SETTLE, instrument=1, price=MARK + 1001, quantity=1))
        desk.enter(2, number, SELL, 2, first)
        events = desk.enter(1, number, BUY, 2, first)
        if first == price:
            desk.do(*changes_of_terms(desk))
            told = desk.do(whole(events, CommandKind.ADJUST, target_hi=other))
            assert told[0].kind == EventKind.TRADE_ADJUSTED
            assert (told[0].price, told[0].key_lo) == (other, price & U64)
            assert sum(event.a + event.b for event in told) == 0
        sides.append(figures(desk))
    assert sides[0] == sides[1]


@both
def test_what_is_no_trade_of_a_combination(machine: type[Machine]) -> None:
    """In order: a leg alone, legs that came to other sums, a leg beyond what a position may be."""
    desk = Desk(machine())
    desk.enter(2, FLY, SELL, 2, 5)
    events = desk.enter(1, FLY, BUY, 2, 5)
    leg = events[2]
    alone = whole(
        events, instrument=leg.instrument, target_lo=leg.sequence << INDEX_BITS | leg.index,
        price=2650, spare=1,
    )  # fmt: skip
    state = desk.machine.state_bytes()
    assert rejects(desk.do(alone)) == [(Reason.LEG_ALONE, 0, 1)]
    moved = -2 * 20 * 4
    wrong: list[tuple[dict[str, int], tuple[Reason, int, int]]] = [
        ({"target_hi": 7}, (Reason.TRADE_DIFFERENT, moved, 7)),
        ({"key_lo": 7}, (Reason.TRADE_DIFFERENT, moved // 2, 7)),
        ({"quantity": 1}, (Reason.TRADE_DIFFERENT, moved // 2, moved)),
        ({"quantity": (1 << 31) - 1, "price": 0}, (Reason.PARAMETER_RANGE, 0, 0)),
    ]
    for fields, expected in wrong:
        assert rejects(desk.do(whole(events, CommandKind.BUST, **fields))) == [expected]
    assert rejects(desk.do(whole(events, session=4)))[0][0] == Reason.TRADE_UNKNOWN
    assert rejects(desk.do(whole(events, CommandKind.ADJUST, target_hi=6001)))[0][0] == 507
    assert desk.machine.state_bytes() == state


@both
def test_too_many_changes_of_legs_are_forgotten(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.enter(2, SPREAD, SELL, 1, 0)
    events = desk.enter(1, SPREAD, BUY, 1, 0)
    desk.do(*[desk.risk(0)] * Limit.LEG_CHANGES)
    assert desk.do(whole(events, quantity=2))[0].reason == Reason.TRADE_DIFFERENT
    known = desk.sequence
    desk.do(desk.risk(0))
    expected = (Reason.LEGS_FORGOTTEN, known, events[0].sequence)
    assert rejects(desk.do(whole(events))) == [expected]


@both
def test_orders_that_only_reduce_give_way_in_every_leg(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.enter(2, SPREAD, SELL, 2, 0)
    events = desk.enter(1, SPREAD, BUY, 2, 0)
    desk.enter(1, 0, SELL, 2, 2700, spare=OrderFeature.REDUCE_ONLY)
    desk.enter(2, 1, SELL, 2, 2700, spare=OrderFeature.REDUCE_ONLY)
    told = desk.do(whole(events))
    gone = [e.account for e in told if e.kind == EventKind.ORDER_CANCELLED]
    assert gone == [1, 2]


def test_an_image_remembers_what_legs_traded_by() -> None:
    desk = Desk(Engine())
    before = figures(desk)
    desk.enter(2, SPREAD, SELL, 2, -40)
    events = desk.enter(1, SPREAD, BUY, 2, -40)
    desk.do(*changes_of_terms(desk))
    desk.machine = restored(desk.machine)
    desk.do(whole(events))
    assert figures(desk) == before
