"""Trades with an implied price busted and adjusted leg by leg, on engine and oracle."""

from collections.abc import Callable
from typing import Any

import pytest
from differences import Machine, restored
from generator import pack
from test_engine_combinations import BUY, FLY, SELL, SPREAD, STRIP, Desk, both, kinds, rejects
from test_engine_implied import desk_of, implied_in
from test_engine_whole import figures

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
from exchange.messages import TradingState as State

U64, TICK = (1 << 64) - 1, 1000


def a_month(machine: type[Machine]) -> Desk:
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 4, 2690)
    return desk


def a_butterfly(machine: type[Machine]) -> Desk:
    desk = implied_in(machine, FLY)
    for account, number, side, price in ((2, 0, SELL, 2640), (3, 1, BUY, 2630), (4, 2, SELL, 2660)):
        desk.enter(account, number, side, 9, price)
    return desk


def its_middle(machine: type[Machine]) -> Desk:
    desk = implied_in(machine, FLY)
    for account, number, side, price in ((2, FLY, BUY, 25), (3, 0, SELL, 2640), (4, 2, SELL, 2660)):
        desk.enter(account, number, side, 3, price)
    return desk


def a_strip(machine: type[Machine]) -> Desk:
    desk = implied_in(machine, STRIP)
    for account, number, price in ((2, 0, 2640), (3, 1, 2650), (4, 2, 2661)):
        desk.enter(account, number, SELL, 5, price)
    return desk


# Who rests, what account 1 then enters, and a change of each leg's price.
Case = tuple[Callable[[type[Machine]], Desk], tuple[int, int, int, int], tuple[int, ...]]
CASES: list[Case] = [
    (a_month, (0, BUY, 6, 2650), (3, 0)),
    (a_butterfly, (FLY, BUY, 4, 50), (0, 0, -7)),
    (its_middle, (1, BUY, 4, 2638), (1, -2, 3)),
    (a_strip, (STRIP, BUY, 2, 2651), (5, 5, 5)),
]
cases = pytest.mark.parametrize("case", CASES, ids=[case[0].__name__ for case in CASES])


def traded(case: Case, machine: type[Machine]) -> tuple[Desk, list[list[Any]], list[Event]]:
    """The market, its figures before the trade, and the events of the trade."""
    desk = case[0](machine)
    before = figures(desk)
    events = desk.enter(1, *case[1])
    assert kinds(events).count("LEG_TRADE") > 1 and figures(desk) != before
    return desk, before, events


def legwise(events: list[Event], shifts: tuple[int, ...] = (), **more: int) -> list[bytes]:
    """A BUST of each leg of the trade that these are the events of; with shifts of the legs' prices
    an ADJUST."""
    head = next(event for event in events if event.kind == EventKind.ORDER_EXECUTED)
    legs = [event for event in events if event.kind == EventKind.LEG_TRADE]
    out = []
    for place, leg in enumerate(legs, 1):
        price = leg.price // TICK
        fields = {
            "side": 1 if leg.flags & EventFlag.SELL else 0, "spare": place,
            "instrument": leg.instrument, "account": leg.account, "session": leg.key_hi,
            "price": price, "quantity": leg.quantity,
            "target_lo": head.sequence << INDEX_BITS | head.index,
            "target_hi": (price + shifts[place - 1] if shifts else leg.a) & U64,
            "key_lo": 0 if shifts else leg.b & U64, "key_hi": head.b,
        }  # fmt: skip
        kind = CommandKind.ADJUST if shifts else CommandKind.BUST
        out.append(pack(kind, **{**fields, **more}))
    return out


@both
@cases
def test_a_bust_takes_every_leg_back_with_the_last(machine: type[Machine], case: Case) -> None:
    """Between its own two accounts, fees and all, whatever was settled since."""
    desk, before, events = traded(case, machine)
    *first, last = legwise(events)
    after = figures(desk)
    stated = desk.do(*first)
    assert kinds(stated) == ["LEG_STATED"] * len(first) and figures(desk) == after
    busted = desk.do(last)
    assert figures(desk) == before
    legs = [event for event in events if event.kind == EventKind.LEG_TRADE]
    match = events[1].sequence << INDEX_BITS | events[1].index
    told = [
        (e.kind, e.instrument, e.account, e.key_hi, e.price, e.quantity, e.reason) for e in busted
    ]
    assert told == [
        (EventKind.LEG_BUSTED, e.instrument, e.account, e.key_hi, e.price, e.quantity, e.reason)
        for e in legs
    ]
    assert [(e.a, e.b, e.order_id) for e in busted] == [
        (-e.a, -e.b, match + place) for place, e in enumerate(legs, 1)
    ]
    assert desk.do(first[0])[0].reason == Reason.ALREADY_CORRECTED


@both
@cases
def test_an_adjustment_moves_costs_alone(machine: type[Machine], case: Case) -> None:
    """By each leg's change of price, from one of its accounts to the other."""
    desk, _, events = traded(case, machine)
    shifts = case[2]
    cash, positions = figures(desk)
    told = desk.do(*legwise(events, shifts))
    legs = [event for event in events if event.kind == EventKind.LEG_TRADE]
    assert kinds(told) == ["LEG_STATED"] * (len(legs) - 1) + ["LEG_ADJUSTED"] * len(legs)
    assert [(e.price, e.key_lo) for e in told[-len(legs) :]] == [
        (e.price + shift * TICK, e.price) for e, shift in zip(legs, shifts, strict=True)
    ]
    moved = {(n, leg): 0 for n in range(1, 5) for leg in range(3)}
    for leg, shift in zip(legs, shifts, strict=True):
        multiplier = desk.machine.instrument(leg.instrument)["multiplier"]
        bought = -leg.quantity if leg.flags & EventFlag.SELL else leg.quantity
        change = bought * shift * TICK * multiplier
        moved[leg.account, leg.instrument] += change
        moved[leg.key_hi, leg.instrument] -= change
    now = figures(desk)
    assert now[0] == cash
    assert now[1] == [
        (net, cost + moved[at]) for (net, cost), at in zip(positions, moved, strict=True)
    ]


@both
def test_what_is_no_leg_of_such_a_trade(machine: type[Machine]) -> None:
    """Out of order, of another combination or trade, in other lots, beyond what fees can be."""
    desk, _, events = traded(CASES[1], machine)
    first, second, third = legwise(events)
    alone = [(Reason.LEG_ALONE, 0, 2)]
    state = desk.machine.state_bytes()
    assert rejects(desk.do(second)) == alone
    assert rejects(desk.do(legwise(events, key_hi=SPREAD)[1])) == alone
    assert rejects(desk.do(legwise(events, key_hi=999, spare=9)[0])) == [(Reason.LEG_ALONE, 0, 9)]
    assert rejects(desk.do(legwise(events, quantity=0)[0])) == [(Reason.PARAMETER_RANGE, 0, 0)]
    assert rejects(desk.do(legwise(events, key_lo=1 << 40)[0])) == [(Reason.PARAMETER_RANGE, 0, 0)]
    assert desk.machine.state_bytes() == state
    desk.do(first)
    assert desk.machine.state_bytes() != state
    state = desk.machine.state_bytes()
    wrong = legwise(events, quantity=3)
    assert rejects(desk.do(wrong[1])) == [(Reason.TRADE_DIFFERENT, 8, 3)]
    other = legwise(events, target_lo=events[1].sequence << INDEX_BITS)
    assert rejects(desk.do(other[1])) == alone
    assert rejects(desk.do(legwise(events, (0, 0, 0))[1])) == alone
    assert rejects(desk.do(legwise(events, (0, 5000, 0))[1], third))[0] == alone[0]
    assert desk.machine.state_bytes() == state
    desk.do(second)
    assert rejects(desk.do(legwise(events, key_lo=1 << 40)[2])) == [(Reason.PARAMETER_RANGE, 0, 0)]
    assert kinds(desk.do(third)) == ["LEG_BUSTED"] * 3


@both
@pytest.mark.parametrize("field", ["target_hi", "key_lo"])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_a_bust_may_say_of_a_legs_cash(machine: type[Machine], field: str, sign: int) -> None:
    """2**32 a lot, either way: fees are no more."""
    desk, _, events = traded(CASES[0], machine)
    lots = next(event.quantity for event in events if event.kind == EventKind.LEG_TRADE)
    for amount, answer in ((lots << 32, "LEG_STATED"), ((lots << 32) + 1, "REJECTED")):
        wish = legwise(events, (), **{field: sign * amount & U64})[0]
        assert kinds(desk.do(wish)) == [answer]


@both
def test_another_correction_or_day_forgets_what_was_stated(machine: type[Machine]) -> None:
    desk, _, events = traded(CASES[0], machine)
    first, last = legwise(events)
    desk.do(first, *legwise(events, (0, 0))[:1])
    assert rejects(desk.do(last)) == [(Reason.LEG_ALONE, 0, 2)]
    desk.do(first)
    desk.do(desk.state(SPREAD, State.CLOSED), desk.state(2, State.CLOSED))
    desk.do(pack(CommandKind.EXPIRE, instrument=2, price=2_650_000))
    assert rejects(desk.do(first)) == [(Reason.LEG_ALONE, 0, 1)]  # and with it the combination


@both
def test_a_bust_beyond_what_a_position_may_be_moves_nothing(machine: type[Machine]) -> None:
    """Judged with the last leg, of all of them."""
    desk, _, events = traded(CASES[0], machine)
    big = (1 << 60) // (2700 * TICK * 744)
    huge = legwise(events, quantity=min(big, int(Limit.QUANTITY)))
    state = desk.machine.state_bytes()
    told = desk.do(*huge)
    assert kinds(told)[0] == "LEG_STATED" and rejects(told[1:]) == [(Reason.PARAMETER_RANGE, 0, 0)]
    desk.do(*legwise(events))
    assert desk.machine.state_bytes() != state


@both
def test_orders_that_only_reduce_give_way_in_every_leg(machine: type[Machine]) -> None:
    desk, _, events = traded(CASES[0], machine)
    desk.enter(1, 0, SELL, 4, 2700, spare=OrderFeature.REDUCE_ONLY)
    desk.enter(2, 2, SELL, 4, 2700, spare=OrderFeature.REDUCE_ONLY)
    told = desk.do(*legwise(events))
    assert [e.account for e in told if e.kind == EventKind.ORDER_CANCELLED] == [1, 2]


def test_an_image_remembers_what_was_stated() -> None:
    desk, before, events = traded(CASES[2], Engine)
    *first, last = legwise(events)
    desk.do(*first)
    desk.machine = restored(desk.machine)
    desk.do(last)
    assert figures(desk) == before


@both
def test_a_bust_counts_for_the_limit_over_all_months(machine: type[Machine]) -> None:
    """What comes back works against the limit, whatever other months were allowed before."""
    desk, _, events = traded(CASES[0], machine)  # account 1 bought 4 lots of month 0
    for number in range(3):
        desk.do(pack(CommandKind.SET_PROTECTIONS, instrument=number, target_hi=10))
    for number, lots in ((1, 1), (1, 1), (0, 6)):
        desk.enter(1, number, SELL, lots, 2700)
    desk.do(*legwise(events))
    over = desk.enter(1, 1, SELL, 4, 2700)[0]
    assert (over.reason, over.a, over.b) == (Reason.ALL_MONTHS_LIMIT, 10, 12)
