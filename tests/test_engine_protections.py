"""Protections by example, on engine and oracle: bands, breakers, levels, limits, kill flags."""

from typing import Any

import pytest
from differences import Machine, restored
from generator import pack
from oracle import Oracle
from test_engine_rules import BUY, DATE, IOC, MARKET, SECOND, SELL, START, Desk

from exchange.engine import Engine
from exchange.messages import (
    Breaker,
    CancelReason,
    CombinationRule,
    CommandFlag,
    CommandKind,
    Event,
    EventKind,
    Feature,
    HaltCause,
    Mode,
    OrderFeature,
    Reason,
    TimeInForce,
    TradingState,
    TransferKind,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
MINUTE = 60 * SECOND


def protect(desk: Desk, **fields: int) -> None:
    (event,) = desk.do(pack(CommandKind.SET_PROTECTIONS, **fields))
    assert event.kind == EventKind.PROTECTIONS_CHANGED


def arm(desk: Desk, which: Breaker, variation: int, span: int, wait: int, whole: int = 0) -> None:
    fields = {"tif": which, "price": variation, "target_lo": span, "target_hi": wait}
    (event,) = desk.do(pack(CommandKind.SET_BREAKER, quantity=whole, **fields))
    assert event.kind == EventKind.BREAKER_CHANGED


def turn(desk: Desk, feature: Feature, on: bool) -> None:
    (event,) = desk.do(pack(CommandKind.SET_FEATURE, tif=feature, quantity=on))
    assert (event.kind, event.reason, event.quantity) == (EventKind.FEATURE_CHANGED, feature, on)


def trade(desk: Desk, price: int, lots: int = 1) -> list[Event]:
    """3 rests, 4 takes; the taker's events."""
    desk.rest(3, SELL, lots, price)
    return desk.enter(4, BUY, lots, price)


def reason(events: list[Event]) -> tuple[Any, int, int]:
    (event,) = events
    assert event.kind == EventKind.REJECTED
    return Reason(event.reason), event.a, event.b


@both
def test_the_band_moves_with_the_reference(machine: type[Machine]) -> None:
    desk = Desk(machine())
    protect(desk, price=5)
    assert reason(desk.enter(1, BUY, 1, 106)) == (Reason.PRICE_BAND, 105, 106)  # mark 100
    assert reason(desk.enter(1, SELL, 1, 94)) == (Reason.PRICE_BAND, 95, 94)
    low = desk.rest(1, BUY, 1, 60)  # far away and passive
    trade(desk, 104)
    assert reason(desk.enter(1, BUY, 1, 110)) == (Reason.PRICE_BAND, 109, 110)
    desk.rest(1, BUY, 1, 108)  # a better bid moves it on
    desk.rest(1, BUY, 1, 113)
    desk.name(CommandKind.CANCEL, 1, low)
    replaced = desk.name(CommandKind.REPLACE, 1, desk.rest(1, BUY, 1, 90), price=119, quantity=1)
    assert reason(replaced) == (Reason.PRICE_BAND, 118, 119)
    turn(desk, Feature.BANDS, on=False)
    desk.rest(1, BUY, 1, 140)
    turn(desk, Feature.BANDS, on=True)
    assert reason(desk.enter(1, BUY, 1, 150)) == (Reason.PRICE_BAND, 145, 150)


@both
def test_a_settlement_is_the_next_reference(machine: type[Machine]) -> None:
    desk = Desk(machine())
    protect(desk, price=5)
    trade(desk, 104)
    desk.do(pack(CommandKind.SETTLE, price=905, quantity=1))  # 90.5 ticks
    assert reason(desk.enter(1, BUY, 1, 100)) == (Reason.PRICE_BAND, 95, 100)


@both
def test_a_market_order_trades_no_further_than_the_band(machine: type[Machine]) -> None:
    desk = Desk(machine())
    protect(desk, price=5)
    for price in (101, 104, 108):
        desk.rest(3, SELL, 1, price)
    events = desk.enter(4, BUY, 3, 0, flags=MARKET, tif=IOC)
    assert [e.price for e in events if e.kind == EventKind.TRADE] == [101, 104]
    assert events[-1].reason == CancelReason.MARKET_REMAINDER


@both
@pytest.mark.parametrize("tif", [0, IOC])
def test_a_band_beyond_the_whole_ladder_lets_no_market_order_trade(
    machine: type[Machine], tif: int
) -> None:
    """A limit order at the end of the ladder is refused: one without a limit may do no more."""
    desk = Desk(machine())
    protect(desk, price=5)
    desk.do(pack(CommandKind.MARK, price=1400))
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=50, target_hi=120))
    desk.rest(3, BUY, 1, 120)
    assert reason(desk.enter(4, SELL, 1, 120)) == (Reason.PRICE_BAND, 135, 120)
    taken, gone = desk.enter(4, SELL, 1, 0, flags=MARKET, tif=tif)
    assert (taken.kind, taken.price, taken.leaves) == (EventKind.ORDER_ACCEPTED, 0, 0)
    assert (gone.kind, gone.reason) == (
        EventKind.ORDER_CANCELLED,
        CancelReason.MARKET_REMAINDER,
    )
    assert desk.machine.book(0)[0] == [(120, 1, 1)]


@both
def test_a_market_stop_elected_where_no_price_is_within_the_band_waits(
    machine: type[Machine],
) -> None:
    """What is to rest falls dormant at the band's price, and is back with the limits."""
    desk = Desk(machine())
    fields = {"spare": int(OrderFeature.STOP), "target_hi": 119, "flags": MARKET}
    desk.enter(4, SELL, 1, 0, **fields)
    desk.enter(4, SELL, 1, 0, tif=IOC, **fields)
    desk.rest(1, BUY, 1, 100)
    arm(desk, Breaker.CIRCUIT, 5, MINUTE, 0)
    trade(desk, 130)
    trade(desk, 119)  # elects both, and halts before they come in
    protect(desk, price=5)
    desk.do(pack(CommandKind.SETTLE, price=1400, quantity=1))
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=50, target_hi=120))
    desk.stamp += MINUTE
    events = desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS))
    assert [(e.reason, e.price) for e in events if e.kind == EventKind.ORDER_CANCELLED] == [
        (CancelReason.MARKET_REMAINDER, 50)
    ]
    (asleep,) = [e for e in events if e.kind == EventKind.ORDER_DORMANT]
    assert (asleep.account, asleep.price) == (4, 135)
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=50, target_hi=150))
    assert desk.machine.book(0) == ([(100, 1, 1)], [(135, 1, 1)])


@both
def test_an_order_may_be_worth_so_much(machine: type[Machine]) -> None:
    desk = Desk(machine())
    protect(desk, target_lo=20_000)  # ten lots at 100 ticks of 20
    desk.rest(1, BUY, 10, 100)
    assert reason(desk.enter(1, BUY, 10, 101)) == (Reason.ORDER_VALUE, 20_000, 20_200)
    assert reason(desk.enter(1, BUY, 501, 101))[0] == Reason.QUANTITY_RANGE  # comes first
    assert reason(desk.enter(1, BUY, 11, 200))[0] == Reason.ORDER_VALUE  # before PRICE_LIMIT
    wild = desk.enter(1, BUY, (1 << 32) - 1, -(1 << 62))  # a value beyond all words
    assert reason(wild)[0] == Reason.QUANTITY_RANGE
    turn(desk, Feature.ORDER_VALUE, on=False)
    desk.rest(1, BUY, 11, 100)


@both
def test_all_months_together_are_limited(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.do(
        pack(
            CommandKind.LIST, instrument=1, price=1000, quantity=2, session=10, account=1,
            operator=1, target_lo=50, target_hi=150,
        ),
        pack(CommandKind.SET_RISK, instrument=1, price=50, quantity=1000, session=500),
        pack(CommandKind.SET_STATE, instrument=1, tif=TradingState.CONTINUOUS),
    )  # fmt: skip
    for number in (0, 1):
        protect(desk, instrument=number, target_hi=10)
    desk.rest(1, BUY, 6, 90)
    assert reason(desk.enter(1, BUY, 5, 90, instrument=1)) == (Reason.ALL_MONTHS_LIMIT, 10, 11)
    desk.rest(1, BUY, 4, 90, instrument=1)
    desk.rest(1, SELL, 10, 110, instrument=1)  # the other side counts by itself


def list_months(desk: Desk) -> None:
    """Months 1 and 2 beside month 0, and a limit of 30 lots over all three."""
    for number in (1, 2):
        listed = pack(
            CommandKind.LIST, instrument=number, price=1000, quantity=2, session=10, account=1,
            operator=1, target_lo=50, target_hi=150,
        )  # fmt: skip
        risk = pack(CommandKind.SET_RISK, instrument=number, price=50, quantity=1000, session=500)
        desk.do(listed, risk, opened(number))
    for number in range(3):
        protect(desk, instrument=number, target_hi=30)


def opened(number: int) -> bytes:
    return pack(CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS)


@both
def test_the_limit_over_all_months_is_exact_in_any_order(machine: type[Machine]) -> None:
    """Whichever month asks next, and whatever it was allowed before: lot 31 is one too many."""
    desk = Desk(machine())
    list_months(desk)
    for lot in range(30):
        desk.rest(1, BUY, 1, 90 - lot, instrument=lot * lot % 3)
    for number in range(3):
        over = desk.enter(1, BUY, 1, 90, instrument=number)
        assert reason(over) == (Reason.ALL_MONTHS_LIMIT, 30, 31)
    protect(desk, instrument=2)  # a month without a limit grows unasked, and counts
    desk.rest(1, BUY, 5, 90, instrument=2)
    for number in range(2):
        over = desk.enter(1, BUY, 1, 90, instrument=number)
        assert reason(over) == (Reason.ALL_MONTHS_LIMIT, 30, 36)


@both
def test_the_limit_over_all_months_binds_combinations_leg_by_leg(machine: type[Machine]) -> None:
    desk = Desk(machine())
    list_months(desk)
    for number, ratios, rule in ((3, 0x111, CombinationRule.AVERAGE), (4, 0xF1, 0)):
        desk.do(
            pack(
                CommandKind.LIST_COMBINATION, instrument=number, tif=rule, quantity=ratios,
                key_lo=1 << 16 | 2 << 32, target_lo=-100, target_hi=200,
            ),
            pack(CommandKind.SET_RISK, instrument=number, quantity=1000, session=500),
            opened(number),
        )  # fmt: skip
    strip = desk.enter(1, BUY, 11, 90, instrument=3)
    assert reason(strip) == (Reason.ALL_MONTHS_LIMIT, 30, 33)
    resting = desk.rest(1, BUY, 9, 90, instrument=3)
    spread = desk.enter(1, BUY, 4, -50, instrument=4)  # buys the first month, sells the second
    assert reason(spread) == (Reason.ALL_MONTHS_LIMIT, 30, 31)
    desk.rest(1, BUY, 3, -50, instrument=4)
    assert reason(desk.enter(1, BUY, 1, 90))[0] == Reason.ALL_MONTHS_LIMIT  # its legs count
    more = desk.name(CommandKind.REPLACE, 1, resting, price=91, quantity=10)
    assert reason(more) == (Reason.ALL_MONTHS_LIMIT, 30, 33)
    desk.name(CommandKind.REPLACE, 1, resting, price=91, quantity=8)
    desk.rest(1, BUY, 3, 90)
    sold = desk.enter(1, BUY, 1, -50, instrument=4)
    assert reason(sold) == (Reason.ALL_MONTHS_LIMIT, 30, 31)


@both
def test_the_breaker_halts_and_trading_resumes_by_itself(machine: type[Machine]) -> None:
    desk = Desk(machine())
    arm(desk, Breaker.CIRCUIT, 10, 60 * MINUTE, 2 * MINUTE)
    trade(desk, 100)
    desk.stamp += 55 * MINUTE
    assert trade(desk, 110)[-1].kind == EventKind.TRADE
    *_, halted = trade(desk, 111)
    assert (halted.kind, halted.reason) == (EventKind.STATE_CHANGED, HaltCause.CIRCUIT_BREAKER)
    assert (halted.quantity, halted.price, halted.a) == (TradingState.HALTED, 111, 110)
    assert halted.b == desk.stamp + 2 * MINUTE == desk.machine.next_deadline()
    assert reason(desk.enter(1, BUY, 1, 100))[0] == Reason.NOT_TRADING
    desk.stamp += 2 * MINUTE
    resumed, *_ = desk.do(pack(CommandKind.ADVANCE_TIME))
    assert (resumed.quantity, resumed.reason) == (TradingState.CONTINUOUS, HaltCause.NONE)
    assert trade(desk, 130)[-1].kind == EventKind.TRADE  # the window began anew


@both
def test_a_trade_leaves_the_window(machine: type[Machine]) -> None:
    desk = Desk(machine())
    arm(desk, Breaker.VELOCITY, 3, 16 * SECOND, 5 * SECOND)
    trade(desk, 100)
    desk.stamp += 17 * SECOND
    assert trade(desk, 110)[-1].kind == EventKind.TRADE
    desk.stamp += 2 * SECOND
    assert trade(desk, 114)[-1].reason == HaltCause.VELOCITY
    assert desk.machine.next_deadline() == desk.stamp + 5 * SECOND


@both
def test_an_auction_trips_nothing_and_the_windows_begin_with_its_price(
    machine: type[Machine],
) -> None:
    desk = Desk(machine())
    for which in Breaker:
        arm(desk, which, 10, 60 * MINUTE, MINUTE)
    trade(desk, 100)
    desk.do(pack(CommandKind.SET_STATE, tif=TradingState.AUCTION))
    desk.rest(3, SELL, 1, 130)
    desk.rest(4, BUY, 1, 130)
    events = desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS))
    assert [e.kind for e in events].count(EventKind.STATE_CHANGED) == 1
    assert trade(desk, 140)[-1].kind == EventKind.TRADE
    (halted,) = [e for e in trade(desk, 141) if e.kind == EventKind.STATE_CHANGED]
    assert (halted.quantity, halted.price, halted.a) == (TradingState.HALTED, 141, 140)


@both
def test_an_operator_who_steps_in_ends_the_timer(machine: type[Machine]) -> None:
    desk = Desk(machine())
    arm(desk, Breaker.CIRCUIT, 1, 60 * MINUTE, 2 * MINUTE)
    trade(desk, 100)
    trade(desk, 105)
    desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CLOSED))
    assert desk.machine.next_deadline() == 0
    desk.stamp += 5 * MINUTE
    assert len(desk.do(pack(CommandKind.ADVANCE_TIME))) == 1


@both
def test_a_lead_month_halts_its_product(machine: type[Machine]) -> None:
    desk = Desk(machine())
    for number, product in ((1, 0), (2, 7)):
        desk.do(
            pack(
                CommandKind.LIST, instrument=number, price=1000, quantity=2, session=10, account=1,
                operator=1, target_lo=50, target_hi=150, key_lo=product,
            ),
            pack(CommandKind.SET_STATE, instrument=number, tif=TradingState.CONTINUOUS),
        )  # fmt: skip
    arm(desk, Breaker.CIRCUIT, 1, 60 * MINUTE, 0, whole=1)
    trade(desk, 100)
    told = [e for e in trade(desk, 105) if e.kind == EventKind.STATE_CHANGED]
    assert [e.instrument for e in told] == [0, 1]
    assert [e.b for e in told] == [0, 0]  # until somebody resumes


@both
def test_an_auction_that_a_halt_overtook_is_held_when_that_ends(machine: type[Machine]) -> None:
    """The market was cancel-only when the months opened; the first to trade halts the others."""
    desk = Desk(machine())
    list_months(desk)
    for number in (0, 1):
        protect(desk, instrument=number)
        for state in (TradingState.CLOSED, TradingState.PRE_OPEN):
            desk.do(pack(CommandKind.SET_STATE, instrument=number, tif=state))
    arm(desk, Breaker.CIRCUIT, 1, 60 * MINUTE, MINUTE, whole=1)
    desk.rest(1, BUY, 5, 100)
    desk.rest(3, SELL, 5, 100)
    desk.rest(4, SELL, 5, 105)
    stop = {"flags": CommandFlag.MARKET, "spare": OrderFeature.STOP, "target_hi": 100}
    desk.enter(3, BUY, 2, 0, tif=TimeInForce.IOC, **stop)
    desk.rest(1, BUY, 7, 104, instrument=1)
    desk.rest(3, SELL, 7, 104, instrument=1)
    desk.do(pack(CommandKind.SET_MODE, tif=Mode.CANCEL_ONLY), opened(0), opened(1))
    halted = desk.do(pack(CommandKind.SET_MODE, tif=Mode.NORMAL))
    assert [e.instrument for e in halted if e.kind == EventKind.AUCTION_UNCROSSED] == [0]
    assert desk.machine.book(1) == ([(104, 7, 1)], [(104, 7, 1)])
    desk.stamp += MINUTE
    ended = desk.do(pack(CommandKind.ADVANCE_TIME))
    assert [(e.instrument, e.a) for e in ended if e.kind == EventKind.AUCTION_UNCROSSED] == [(1, 7)]
    assert desk.machine.book(1) == ([], [])


@both
def test_accountability_tells_and_refuses_nothing(machine: type[Machine]) -> None:
    desk = Desk(machine())
    protect(desk, quantity=10)
    assert [e.kind for e in trade(desk, 100, 10)][-1] == EventKind.TRADE
    told = [e for e in trade(desk, 100, 1) if e.kind == EventKind.ACCOUNTABILITY_PASSED]
    assert [(e.account, e.a, e.b) for e in told] == [(4, 10, 11), (3, 10, -11)]
    assert trade(desk, 100, 1)[-1].kind == EventKind.TRADE  # once


@both
def test_accountability_is_of_lots_handed_over_as_well(machine: type[Machine]) -> None:
    desk = Desk(machine())
    protect(desk, quantity=10)
    fields = {"tif": TransferKind.BLOCK, "account": 4, "target_lo": 3, "price": 1000}
    events = desk.do(pack(CommandKind.TRANSFER, quantity=10, **fields))
    assert [e.kind for e in events] == [EventKind.LOTS_TRANSFERRED]
    _, *told = desk.do(pack(CommandKind.TRANSFER, quantity=1, **fields))
    assert [(EventKind(e.kind), e.account, e.a, e.b) for e in told] == [
        (EventKind.ACCOUNTABILITY_PASSED, 4, 10, 11),
        (EventKind.ACCOUNTABILITY_PASSED, 3, 10, -11),
    ]


@both
def test_the_daily_loss_trips_once(machine: type[Machine]) -> None:
    """Marks at -9,999, -10,000, -10,050 and -9,000 of a limit of 10,000."""
    desk = Desk(machine())
    trade(desk, 100, 1)
    desk.do(pack(CommandKind.SETTLE, price=1000, quantity=1))
    desk.do(pack(CommandKind.SET_ACCOUNT, account=4, price=100))
    desk.rest(4, BUY, 1, 60)
    trips = []
    for mark in (951, 950, 949, 955):  # two micro-dollars a step of one lot
        events = desk.do(pack(CommandKind.MARK, price=mark))
        trips.append([e.kind for e in events if e.kind != EventKind.MARKED])
    assert trips == [[], [EventKind.LOSS_LIMIT_REACHED, EventKind.ORDER_CANCELLED], [], []]
    assert reason(desk.enter(4, BUY, 1, 60))[0] == Reason.LOSS_LIMIT
    assert reason(desk.enter(4, SELL, 2, 100))[0] == Reason.LOSS_LIMIT
    desk.rest(4, SELL, 1, 100)  # only reduces
    desk.do(pack(CommandKind.SET_ACCOUNT, account=4, price=100))  # explicitly enabled again
    desk.rest(4, BUY, 1, 60)


@both
def test_the_loss_is_of_the_day_and_not_of_money_taken_out(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.do(pack(CommandKind.SET_ACCOUNT, account=4, price=100))
    events = desk.do(pack(CommandKind.WITHDRAW, account=4, price=5_000))
    assert [e.kind for e in events] == [EventKind.WITHDRAWN]
    trade(desk, 100, 1)
    desk.do(pack(CommandKind.MARK, price=960))
    desk.do(
        pack(CommandKind.CLOSE_DAY, quantity=DATE), pack(CommandKind.OPEN_DAY, quantity=DATE + 1)
    )
    assert len(desk.do(pack(CommandKind.MARK, price=920))) == 1
    assert len(desk.do(pack(CommandKind.MARK, price=910))) == 2


@both
def test_a_feature_that_is_off_refuses_new_orders(machine: type[Machine]) -> None:
    desk = Desk(machine())
    turn(desk, Feature.STOPS, on=False)
    stop = {"spare": 4, "target_hi": 110}
    assert reason(desk.enter(1, BUY, 1, 110, **stop)) == (Reason.FEATURE_OFF, 0, 4)
    turn(desk, Feature.STOPS, on=True)
    assert desk.enter(1, BUY, 1, 110, **stop)[0].kind == EventKind.ORDER_ACCEPTED
    (event,) = desk.do(pack(CommandKind.SET_FEATURE, tif=31))
    assert event.reason == Reason.PARAMETER_RANGE


@both
def test_several_faults_at_once_return_the_earliest_check(
    machine: type[Machine],
) -> None:
    """Maximum quantity, order value, daily limit, band: undone one by one."""
    desk = Desk(machine())
    protect(desk, price=5, target_lo=20_000)
    found = [
        reason(desk.enter(1, BUY, lots, price))[0]
        for lots, price in ((501, 160), (500, 160), (1, 160), (1, 120))
    ]
    assert found == [
        Reason.QUANTITY_RANGE, Reason.ORDER_VALUE, Reason.PRICE_LIMIT, Reason.PRICE_BAND,
    ]  # fmt: skip


def test_an_image_has_it_all() -> None:
    desk = Desk(Engine())
    protect(desk, price=5, quantity=3, target_lo=50_000, target_hi=100)
    arm(desk, Breaker.CIRCUIT, 3, 60 * MINUTE, MINUTE)
    desk.do(pack(CommandKind.SET_ACCOUNT, account=4, price=100))
    trade(desk, 100, 5)
    trade(desk, 105)
    assert restored(desk.machine).next_deadline() == START + MINUTE
