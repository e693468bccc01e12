"""Defects that matching engines are known for, each as a test; on engine and oracle.

What is asserted is always the rule of docs/reference/engine.md that such a defect would break.
"""

import pytest
from differences import Machine, restored
from generator import pack
from oracle import Oracle
from test_engine_icebergs import Sea
from test_engine_rules import BUY, IOC, NEW_ID, SECOND, SELL, START, Desk, words
from test_engine_stops import Floor, elected

from exchange.engine import Engine
from exchange.messages import (
    CommandKind,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
    SelfTrade,
    TimeInForce,
    TradingState,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
STOP, ICEBERG = int(OrderFeature.STOP), int(OrderFeature.ICEBERG)


def makers(events: list) -> list[int]:  # type: ignore[type-arg]
    return [event.key_lo for event in events if event.kind == EventKind.TRADE]


@both
def test_a_trade_is_at_the_resting_price(machine: type[Machine]) -> None:
    """Not at the price of who comes in."""
    desk = Desk(machine())
    desk.rest(2, SELL, 5, 101)
    assert desk.enter(1, BUY, 5, 109)[1].price == 101
    desk.rest(2, BUY, 5, 99)
    assert desk.enter(1, SELL, 5, 91)[1].price == 99


@both
def test_a_partial_execution_leaves_the_maker_in_front(machine: type[Machine]) -> None:
    desk = Desk(machine())
    first, second = desk.rest(2, SELL, 5, 101), desk.rest(3, SELL, 5, 101)
    assert makers(desk.enter(1, BUY, 2, 101)) == [first]
    assert makers(desk.enter(1, BUY, 4, 101)) == [first, second]


@both
@pytest.mark.parametrize("new_id", [0, NEW_ID])
def test_a_replace_that_crosses_trades_and_never_rests_crossed(
    machine: type[Machine], new_id: int
) -> None:
    desk = Desk(machine())
    desk.rest(2, SELL, 3, 105)
    bid = desk.rest(1, BUY, 5, 95)
    terms = {"quantity": 5, "price": 106, "flags": new_id, "key_lo": 7}
    assert any(e.kind == EventKind.TRADE for e in desk.name(CommandKind.REPLACE, 1, bid, **terms))
    assert desk.machine.book(0) == ([(106, 2, 1)], [])


@both
def test_the_best_price_follows_a_cancel(machine: type[Machine]) -> None:
    """No stale top: the next order meets what is there, and the old price is free for the other
    side."""
    desk = Desk(machine())
    best = desk.rest(2, SELL, 5, 101)
    desk.rest(2, SELL, 5, 103)
    desk.name(CommandKind.CANCEL, 2, best)
    assert desk.rest(1, BUY, 1, 102)
    assert desk.enter(1, BUY, 1, 103)[1].price == 103


@both
def test_a_cancel_from_the_middle_keeps_the_queue(machine: type[Machine]) -> None:
    desk = Desk(machine())
    ids = [desk.rest(2, SELL, 1, 101) for _ in range(5)]
    desk.name(CommandKind.CANCEL, 2, ids[1])
    desk.name(CommandKind.CANCEL, 2, ids[3])
    assert makers(desk.enter(1, BUY, 3, 101)) == [ids[0], ids[2], ids[4]]


@both
def test_a_filled_order_cannot_be_cancelled_nor_its_id_used_again(machine: type[Machine]) -> None:
    desk = Desk(machine())
    order = desk.rest(2, SELL, 1, 101, key_lo=7)
    desk.enter(1, BUY, 1, 101)
    assert words(desk.name(CommandKind.CANCEL, 2, order)) == [("TOO_LATE", 0)]
    assert words(desk.enter(2, SELL, 2, 101, key_lo=7)) == [("DUPLICATE_DIFFERENT", 0)]


@both
def test_a_live_id_twice_is_one_order(machine: type[Machine]) -> None:
    """A second order of the same id would link itself into the queue twice."""
    desk = Desk(machine())
    desk.rest(2, SELL, 1, 101, key_lo=7)
    desk.enter(2, SELL, 1, 101, key_lo=7)
    assert desk.machine.book(0)[1] == [(101, 1, 1)]


@both
def test_a_slot_taken_again_has_another_id(machine: type[Machine]) -> None:
    """An old handle never reaches the order that has its slot now."""
    desk = Desk(machine())
    old = desk.rest(1, BUY, 1, 90)
    desk.name(CommandKind.CANCEL, 1, old)
    for key in range(Limit.IDEMPOTENCY_WINDOW - 1):
        desk.do(pack(CommandKind.RECORD, account=1, key_lo=key, key_hi=9))
    new = desk.rest(1, BUY, 1, 90)
    assert new & 0xFFFFFFFF == old & 0xFFFFFFFF
    assert words(desk.name(CommandKind.CANCEL, 1, old)) == [("NOT_FOUND", 0)]
    assert words(desk.name(CommandKind.CANCEL, 1, new))[0][0] == "ORDER_CANCELLED"


@both
def test_an_ioc_remainder_never_rests(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.rest(2, SELL, 1, 101)
    desk.enter(1, BUY, 5, 101, tif=IOC)
    assert desk.machine.book(0) == ([], [])


@both
def test_a_taker_stopped_by_its_own_never_rests_against_it(machine: type[Machine]) -> None:
    """The remainder does not come to rest and meet its own order later."""
    desk = Desk(machine())
    desk.rest(1, SELL, 1, 101)
    for mode in (SelfTrade.CANCEL_NEWEST, SelfTrade.CANCEL_BOTH):
        desk.enter(1, BUY, 5, 101, stp=mode)
        assert desk.machine.book(0)[0] == []


@both
def test_a_price_beyond_the_ladder_is_refused_by_name(machine: type[Machine]) -> None:
    """Never dropped in silence."""
    desk = Desk(machine())
    assert desk.enter(1, BUY, 1, 1 << 40)[0].reason == Reason.PRICE_LIMIT
    assert desk.enter(1, BUY, 1, -(1 << 62))[0].reason == Reason.NOTIONAL


@both
def test_replaced_quantity_is_the_total(machine: type[Machine]) -> None:
    """After 2 of 5 traded, a total of 4 leaves 2."""
    desk = Desk(machine())
    order = desk.rest(2, SELL, 5, 101)
    desk.enter(1, BUY, 2, 101)
    (event,) = desk.name(CommandKind.REPLACE, 2, order, quantity=4, price=101)
    assert (event.quantity, event.leaves, event.b) == (4, 2, 3)


@both
def test_ties_of_price_are_ties_of_arrival(machine: type[Machine]) -> None:
    """A heap without a tie-break would not keep this order, whatever the number."""
    desk = Desk(machine())
    ids = [desk.rest(2 + k % 2, SELL, 1, 101) for k in range(40)]
    assert makers(desk.enter(1, BUY, 40, 101)) == ids


# --- stops


@both
def test_an_unfired_stop_can_be_cancelled(machine: type[Machine]) -> None:
    desk = Floor(machine())
    order = desk.stop(1, BUY, 5, 105)
    assert words(desk.name(CommandKind.CANCEL, 1, order))[0][0] == "ORDER_CANCELLED"
    assert elected(desk.print_at(110)) == []
    assert desk.machine.position(1, 0)["hold"] == 0


@both
def test_a_stop_fires_once(machine: type[Machine]) -> None:
    """Its remainder, taken out and in again by a replace, is a plain order."""
    desk = Floor(machine())
    order = desk.stop(1, SELL, 5, 95, price=94)
    assert elected(desk.print_at(95)) == [order]
    desk.name(CommandKind.REPLACE, 1, order, quantity=5, price=98)
    assert desk.machine.book(0) == ([], [(98, 5, 1)])
    assert elected(desk.enter(2, BUY, 1, 98)) == []


@both
def test_equal_stops_fire_in_the_order_of_arrival(machine: type[Machine]) -> None:
    desk = Floor(machine())
    ids = [desk.stop(1 + k % 2, SELL, 1, 95) for k in range(40)]
    desk.name(CommandKind.CANCEL, 2, ids[7])
    assert elected(desk.print_at(94)) == ids[:7] + ids[8:]


@both
def test_a_trade_while_halted_cannot_be_so_no_stop_fires(machine: type[Machine]) -> None:
    desk = Floor(machine())
    order = desk.stop(1, SELL, 5, 95)
    desk.do(pack(CommandKind.SET_STATE, tif=TradingState.HALTED))
    assert words(desk.enter(2, BUY, 1, 90)) == [("NOT_TRADING", 0)]
    desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS))
    assert elected(desk.print_at(95)) == [order]


@both
def test_two_stops_do_not_feed_each_other_for_ever(machine: type[Machine]) -> None:
    """Each is elected once, however their trades swing."""
    desk = Floor(machine())
    for price in (90, 92, 94):
        desk.rest(3, BUY, 1, price)
    for price in (106, 108, 110):
        desk.rest(3, SELL, 1, price)
    for k in range(3):
        desk.stop(1, BUY, 1, 101 + k)
        desk.stop(2, SELL, 1, 107 - k)
    desk.rest(4, SELL, 1, 101)
    assert len(elected(desk.enter(2, BUY, 1, 101))) == 6


# --- icebergs


@both
@pytest.mark.parametrize("mode", list(SelfTrade))
def test_a_self_trade_strands_no_hidden_lots(machine: type[Machine], mode: SelfTrade) -> None:
    """Whatever is left of an iceberg shows something, and can be traded or cancelled whole."""
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 10, 105, 3)
    desk.enter(1, BUY, 3, 105, stp=mode)
    left = desk.machine.position(1, 0)["working_sell"]
    shown = sum(lots for _, lots, _ in desk.machine.book(0)[1])
    assert shown == min(left, 3)
    if left:
        assert sum(e.quantity for e in desk.name(CommandKind.CANCEL, 1, ice)) == left
    assert desk.machine.position(1, 0)["working_sell"] == 0


@both
def test_a_gtd_iceberg_expires_with_its_hidden_lots(machine: type[Machine]) -> None:
    desk = Sea(machine())
    due = START + SECOND
    desk.ice(1, SELL, 10, 105, 3, tif=TimeInForce.GTD, target_lo=due)
    desk.enter(2, BUY, 4, 105)
    desk.stamp = due
    event = desk.do(pack(CommandKind.ADVANCE_TIME))[0]
    assert (event.kind, event.quantity, event.b) == (EventKind.ORDER_CANCELLED, 6, 4)
    assert desk.machine.book(0) == ([], [])


@both
def test_an_elected_stop_sweeps_an_iceberg_to_its_end(machine: type[Machine]) -> None:
    desk = Floor(machine())
    desk.enter(2, SELL, 10, 106, spare=ICEBERG, target_hi=3)
    desk.stop(1, BUY, 10, 105)
    desk.print_at(105)
    assert desk.machine.position(1, 0)["net"] == 10
    assert desk.machine.book(0) == ([], [])


@both
def test_the_state_that_snapshots_carry_has_all_of_it(machine: type[Machine]) -> None:
    """What hides and what waits is part of the state: two markets that differ in it differ."""
    seen = set()
    for trigger, display in ((105, 3), (106, 3), (105, 4)):
        desk = Floor(machine())
        desk.enter(2, SELL, 10, 120, spare=ICEBERG, target_hi=display)
        desk.stop(1, BUY, 5, trigger, price=110)
        seen.add(desk.machine.state_bytes())
    assert len(seen) == 3


def test_an_engine_restored_with_stops_and_icebergs_goes_on_alike() -> None:
    """Hidden lots, triggers and their order survive; the next print elects the same."""
    desk = Floor(Engine())
    desk.enter(2, SELL, 10, 106, spare=ICEBERG, target_hi=3)
    desk.enter(2, SELL, 10, 140, spare=ICEBERG, target_hi=3)
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=60, target_hi=120))
    ids = [desk.stop(1, BUY, 1, 105 - k % 3) for k in range(9)]
    desk.name(CommandKind.CANCEL, 1, ids[4])
    other = restored(desk.machine)
    twin = Floor.__new__(Floor)
    twin.__dict__.update(desk.__dict__, machine=other)
    assert twin.print_at(105) == desk.print_at(105)
    assert other.state_bytes() == desk.machine.state_bytes()
