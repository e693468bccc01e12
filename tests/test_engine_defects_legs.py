"""Defects of engines that trade several books at once, each as a test; on engine and oracle.

What holds of one book must hold across legs: who may trade with whom, at which price, in which
state, and what it binds. What is asserted is the rule of docs/reference/engine.md.
"""

import pytest
from differences import Machine
from generator import pack
from test_engine_combinations import (
    BUY,
    FLY,
    MARK,
    RATE,
    SELL,
    SPREAD,
    STRIP,
    Desk,
    both,
    kinds,
    rejects,
)
from test_engine_implied import desk_of, executions

from exchange.messages import (
    INDEX_BITS,
    Breaker,
    CancelReason,
    CommandFlag,
    CommandKind,
    Event,
    EventKind,
    Feature,
    KillScope,
    OrderFeature,
    Reason,
    SelfTrade,
    TimeInForce,
    TradingState,
)

NEAR, FAR = 0, 2  # legs of the spread of `desk_of`: months of equal hours
MARKET = int(CommandFlag.MARKET)


def ended(events: list[Event]) -> list[tuple[int, int, CancelReason]]:
    """Account, instrument and why, of every order that was cancelled."""
    gone = [event for event in events if event.kind == EventKind.ORDER_CANCELLED]
    return [(e.account, e.instrument, CancelReason(e.reason)) for e in gone]


# --- self-trade prevention


@both
@pytest.mark.parametrize("mode", SelfTrade)
def test_an_own_spread_is_no_way_round_the_own_order(
    machine: type[Machine], mode: SelfTrade
) -> None:
    """The spread and the far month of one group would sell to it: it meets its own order in the
    near month, as ever, and never itself through the legs."""
    desk = desk_of(machine)
    desk.enter(1, SPREAD, SELL, 5, -40)
    desk.enter(3, FAR, SELL, 5, 2690)
    desk.enter(1, NEAR, SELL, 2, 2651)
    events = desk.enter(1, NEAR, BUY, 3, 2651, stp=mode, tif=TimeInForce.IOC)
    traded = {EventKind.TRADE, EventKind.ORDER_EXECUTED, EventKind.LEG_TRADE}
    assert not traded & {EventKind(event.kind) for event in events}
    assert desk.held(1) == [0, 0, 0]


@both
def test_a_stranger_s_spread_is_taken_where_the_own_one_is_older(machine: type[Machine]) -> None:
    """Only the oldest order at the best price implies: while it is one's own the price is not
    there, and the real order behind it is what trades."""
    desk = desk_of(machine)
    desk.enter(1, SPREAD, SELL, 1, -40)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, FAR, SELL, 5, 2690)
    desk.enter(4, NEAR, SELL, 5, 2652)
    events = desk.enter(1, NEAR, BUY, 1, 2652)
    assert [(e.key_hi & 0xFFFFFFFF, e.price) for e in events if e.kind == EventKind.TRADE] == [
        (4, 2652)
    ]
    desk.do(pack(CommandKind.MASS_CANCEL, account=1, side=2))
    assert executions(desk.enter(1, NEAR, BUY, 1, 2652))[1][0] == 2


# --- bands, breakers, limits


@both
def test_legs_move_no_band_and_trip_no_breaker(machine: type[Machine]) -> None:
    """Prices of legs are made from a settlement: they say nothing of the leg's own market."""
    desk = Desk(machine())
    band = {"instrument": 1, "price": 20}
    span = {"target_lo": 1 << 40, "target_hi": 1 << 40}
    desk.do(
        pack(CommandKind.SET_PROTECTIONS, **band),
        pack(CommandKind.SET_BREAKER, instrument=1, tif=Breaker.CIRCUIT, **{"price": 5, **span}),
    )
    for price in (-200, 200):  # the far leg trades at 2850, then at 2450
        desk.enter(2, SPREAD, SELL, 1, price)
        events = desk.enter(1, SPREAD, BUY, 1, price)
        assert kinds(events)[:4] == ["ORDER_ACCEPTED", "TRADE", "LEG_TRADE", "LEG_TRADE"]
    assert desk.machine.instrument(1)["state"] == TradingState.CONTINUOUS
    assert rejects(desk.enter(1, 1, BUY, 1, 2671)) == [(Reason.PRICE_BAND, 2670, 2671)]


@both
def test_a_market_order_takes_no_implied_price_beyond_the_band(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    desk.do(pack(CommandKind.SET_PROTECTIONS, instrument=NEAR, price=20))
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, FAR, SELL, 5, 2715)  # implies 2675 in the near month
    events = desk.enter(1, NEAR, BUY, 1, 0, flags=MARKET, tif=TimeInForce.IOC)
    assert executions(events) == []
    desk.do(pack(CommandKind.SET_FEATURE, tif=Feature.BANDS))
    events = desk.enter(1, NEAR, BUY, 1, 0, flags=MARKET, tif=TimeInForce.IOC)
    assert executions(events)[0] == (1, NEAR, 2675, 1)


@both
def test_no_price_is_implied_beyond_the_days_limits(machine: type[Machine]) -> None:
    """Of its own book: 3300 is the near month's last price."""
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, 20)
    desk.enter(3, FAR, SELL, 5, 3281)
    events = desk.enter(1, NEAR, BUY, 1, 0, flags=MARKET, tif=TimeInForce.IOC)
    assert executions(events) == []
    desk.enter(4, FAR, SELL, 5, 3280)
    events = desk.enter(1, NEAR, BUY, 1, 0, flags=MARKET, tif=TimeInForce.IOC)
    assert executions(events)[0][2] == 3300


# --- kill switches and states


@both
@pytest.mark.parametrize("scope", [KillScope.ACCOUNT, KillScope.MEMBER, KillScope.EXCHANGE])
def test_a_kill_takes_the_orders_of_all_books_and_what_they_bind(
    machine: type[Machine], scope: KillScope
) -> None:
    """One command: its spread, strip and outright go, the legs are free, and nothing is implied."""
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(2, STRIP, BUY, 2, 2600)
    desk.enter(2, FAR, SELL, 5, 2690)
    desk.enter(3, FAR, SELL, 5, 2690)
    assert desk.required(2) > 0
    events = desk.do(pack(CommandKind.KILL, tif=scope, account=2, quantity=2))
    mine = [(instrument, why) for account, instrument, why in ended(events) if account == 2]
    killed = CancelReason.KILLED
    assert mine == [(SPREAD, killed), (STRIP, killed), (FAR, killed)]
    assert desk.required(2) == 0
    for number in (*range(3), SPREAD, STRIP):
        position = desk.machine.position(2, number)
        assert (position["working_buy"], position["working_sell"], position["hold"]) == (0, 0, 0)
    refused = rejects(desk.enter(2, SPREAD, BUY, 1, -40))
    assert refused[0][0].name == f"{scope.name}_KILLED"
    if scope != KillScope.EXCHANGE:
        assert executions(desk.enter(1, NEAR, BUY, 1, 2660)) == []


@both
def test_one_halted_leg_stops_the_whole_and_no_cancel(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    (spread,) = desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, FAR, SELL, 5, 2690)
    desk.do(desk.state(FAR, TradingState.HALTED))
    assert executions(desk.enter(1, NEAR, BUY, 1, 2660)) == []
    halted = (Reason.NOT_TRADING, TradingState.CONTINUOUS, TradingState.HALTED)
    assert rejects(desk.enter(4, SPREAD, BUY, 1, -40)) == [halted]
    name = {"account": 2, "side": 2, "target_lo": spread.order_id}
    assert kinds(desk.do(pack(CommandKind.REDUCE, quantity=1, **name))) == ["ORDER_REDUCED"]
    assert kinds(desk.do(pack(CommandKind.CANCEL, **name))) == ["ORDER_CANCELLED"]
    assert desk.machine.position(2, NEAR)["working_sell"] == 0


@both
@pytest.mark.parametrize("state", [TradingState.PRE_OPEN, TradingState.AUCTION])
def test_a_combination_is_not_collected_nor_traded_while_a_leg_is(
    machine: type[Machine], state: TradingState
) -> None:
    """No auction of a combination, and no order of one while a leg collects for its own; quotes
    of a combination are refused by name as well."""
    desk = desk_of(machine)
    refused = (Reason.STATE, TradingState.CONTINUOUS, state)
    assert rejects(desk.do(desk.state(SPREAD, state))) == [refused]
    quote = pack(
        CommandKind.MASS_QUOTE, instrument=SPREAD, account=1, price=-50, quantity=1,
        target_lo=(1 << 64) - 40, target_hi=1, key_lo=77,
    )  # fmt: skip
    assert rejects(desk.do(quote)) == [(Reason.NOT_OUTRIGHT, 0, 2)]
    desk.do(desk.state(FAR, state))
    expected = (Reason.NOT_TRADING, TradingState.CONTINUOUS, state)
    assert rejects(desk.enter(1, SPREAD, BUY, 1, -40)) == [expected]
    gfa = desk.enter(1, SPREAD, BUY, 1, -40, tif=TimeInForce.GFA)
    assert rejects(gfa) == [expected]


# --- margin


@both
@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("number", [SPREAD, STRIP, FLY])
def test_an_order_of_a_combination_holds_what_its_legs_will(
    machine: type[Machine], number: int, side: int
) -> None:
    """No more than the sum of its legs, and a trade of it never asks for more."""
    desk = Desk(machine())
    desk.do(*[desk.risk(leg, target_lo=0, target_hi=0) for leg in range(3)])
    price = {SPREAD: 0, STRIP: 2650, FLY: 0}[number]
    lots = {SPREAD: 2, STRIP: 3, FLY: 4}[number] * 5  # of all legs together
    desk.enter(1, number, side, 5, price)
    assert desk.required(1) == RATE * lots
    desk.enter(2, number, 1 - side, 5, price)
    assert [desk.required(account) for account in (1, 2)] == [RATE * lots] * 2
    desk.enter(1, number, 1 - side, 5, price)  # the way back binds nothing more
    assert desk.required(1) == RATE * lots


@both
def test_in_deficit_a_combination_must_reduce_in_every_leg(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.enter(2, SPREAD, SELL, 3, 0)
    desk.enter(1, SPREAD, BUY, 3, 0)
    desk.enter(3, 0, SELL, 2, 2650)
    desk.enter(1, 0, BUY, 2, 2650)  # long 5 near, short 3 far
    money = desk.machine.account(1)
    desk.do(pack(CommandKind.WITHDRAW, account=1, price=money["cash"] - money["required"]))
    desk.do(pack(CommandKind.MARK, instrument=1, price=MARK + 1000))
    assert desk.machine.account(1)["in_deficit"]
    assert rejects(desk.enter(1, SPREAD, SELL, 4, 0))[0][0] == Reason.MARGIN
    assert rejects(desk.enter(1, SPREAD, BUY, 1, 0))[0][0] == Reason.MARGIN
    assert rejects(desk.enter(1, SPREAD, SELL, 3, 0)) == []


@both
def test_orders_that_only_reduce_see_what_legs_trade(machine: type[Machine]) -> None:
    """A spread trade closes the near position that such an order was to reduce: it gives way."""
    desk = Desk(machine())
    desk.enter(2, 0, SELL, 3, 2650)
    desk.enter(1, 0, BUY, 3, 2650)
    desk.enter(1, 0, SELL, 3, 2700, spare=OrderFeature.REDUCE_ONLY)
    desk.enter(3, SPREAD, BUY, 2, 0)
    events = desk.enter(1, SPREAD, SELL, 2, 0)
    lost = [(e.quantity, e.leaves) for e in events if e.kind == EventKind.ORDER_REDUCED]
    assert lost == [(2, 1)] and desk.held(1) == [1, 2, 0]


# --- what accounts are held to


def passed(events: list[Event]) -> list[tuple[int, int, int]]:
    """Instrument, account and net, of every position beyond its level."""
    told = [event for event in events if event.kind == EventKind.ACCOUNTABILITY_PASSED]
    return [(event.instrument, event.account, event.b) for event in told]


@both
def test_a_position_built_by_a_combination_is_accounted_for(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.do(pack(CommandKind.SET_PROTECTIONS, instrument=0, quantity=3))
    desk.enter(1, SPREAD, BUY, 9, 0)
    assert not passed(desk.enter(2, SPREAD, SELL, 3, 0))
    assert passed(desk.enter(2, SPREAD, SELL, 2, 0)) == [(0, 2, -5), (0, 1, 5)]
    assert not passed(desk.enter(2, SPREAD, SELL, 1, 0))  # once


@both
def test_a_position_built_at_an_implied_price_is_accounted_for(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    for leg in (NEAR, FAR):
        desk.do(pack(CommandKind.SET_PROTECTIONS, instrument=leg, quantity=4))
    desk.enter(1, SPREAD, SELL, 5, -40)
    desk.enter(3, FAR, SELL, 5, 2690)
    events = desk.enter(4, NEAR, BUY, 5, 2650)
    assert executions(events)
    assert sorted(passed(events)) == [(NEAR, 1, -5), (NEAR, 4, 5), (FAR, 1, 5), (FAR, 3, -5)]


@both
def test_after_a_loss_what_reduces_every_leg_may_come_in(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.enter(1, SPREAD, BUY, 5, 0)
    desk.enter(2, SPREAD, SELL, 5, 0)
    desk.do(pack(CommandKind.SET_ACCOUNT, account=1, price=100))
    events = desk.do(pack(CommandKind.MARK, instrument=0, price=MARK - 1000))
    assert "LOSS_LIMIT_REACHED" in kinds(events)
    for side, lots in ((BUY, 1), (SELL, 6)):
        assert desk.enter(1, SPREAD, side, lots, 0)[0].reason == Reason.LOSS_LIMIT
    assert desk.enter(1, SPREAD, SELL, 4, 0)[0].leaves == 4
    assert desk.enter(1, SPREAD, SELL, 2, 0)[0].reason == Reason.LOSS_LIMIT
    assert desk.enter(1, SPREAD, SELL, 1, 0)[0].leaves == 1


# --- what legs traded by


def prices(events: list[Event], kind: EventKind) -> list[tuple[int, int, int]]:
    return [(e.instrument, e.quantity, e.price) for e in events if e.kind == kind]


CHANGES = {
    "fees": Desk.risk(0, target_lo=50, target_hi=70),
    "anchor": pack(CommandKind.SETTLE, instrument=0, price=MARK + 3_000, quantity=1),
    "limits": pack(CommandKind.SET_LIMITS, instrument=1, target_lo=2000, target_hi=2640),
}


@both
@pytest.mark.parametrize("change", CHANGES)
def test_a_timers_trade_is_taken_back_by_what_it_traded_by(
    machine: type[Machine], change: str
) -> None:
    """A leg's halt ends, and a combination trades by it, under the sequence of a command that
    changes what the leg trades by: the trade came first."""
    desk = Desk(machine())
    desk.enter(1, SPREAD, BUY, 3, 50)
    near = {"instrument": SPREAD, "target_lo": -100}
    desk.do(pack(CommandKind.SET_LIMITS, target_hi=10, **near))  # the bid is dormant
    desk.enter(2, SPREAD, SELL, 3, 5)
    desk.do(pack(CommandKind.SET_BREAKER, price=5, target_lo=1 << 40, target_hi=60))
    for price in (2650, 2670):
        desk.enter(3, 0, SELL, 1, price)
        desk.enter(4, 0, BUY, 1, price)
    desk.do(pack(CommandKind.SET_LIMITS, target_hi=100, **near))  # it waits for the leg
    before = [desk.machine.account(n)["cash"] for n in range(5)]
    costs = [desk.machine.position(n, 0)["cost"] for n in range(5)]
    desk.stamp += 61
    events = desk.do(CHANGES[change])
    (trade,) = [event for event in events if event.kind == EventKind.TRADE]
    moved = [e for e in events if e.kind in (EventKind.LEG_TRADE, EventKind.RESIDUAL_POSTED)]
    bust = pack(
        CommandKind.BUST, instrument=SPREAD, account=trade.account,
        session=trade.key_hi & 0xFFFFFFFF, side=BUY, price=trade.price, quantity=trade.quantity,
        target_lo=trade.sequence << INDEX_BITS | trade.index,
        target_hi=sum(event.a for event in moved) & (1 << 64) - 1,
        key_lo=sum(event.b for event in moved) & (1 << 64) - 1,
    )  # fmt: skip
    busted = desk.do(bust)
    assert prices(busted, EventKind.LEG_BUSTED) == prices(events, EventKind.LEG_TRADE)
    assert desk.held(1) == desk.held(2) == [0, 0, 0]
    if change != "anchor":  # a settlement has moved cash, and every cost
        assert [desk.machine.account(n)["cash"] for n in range(5)] == before
        assert [desk.machine.position(n, 0)["cost"] for n in range(5)] == costs
