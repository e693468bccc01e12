"""Combinations by example, on engine and oracle: listing, legs, residuals, margin, states.

Outrights 0 and 1 are months of 744 and 720 hours at 1e-6 a tick x 1000; 2 is a third of 744.
"""

import pytest
from differences import Machine, decoded
from generator import pack
from oracle import Oracle

from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    CombinationRule,
    CommandKind,
    Event,
    EventKind,
    Reason,
    SelfTrade,
    TimeInForce,
    TradingState,
)

BUY, SELL = 0, 1
HOURS, SCALE = (744, 720, 744), 1000
MARK = 2_650_000  # 2650 ticks
SPREAD, STRIP, FLY = 3, 4, 5
RATE = 1_000_000
STAMP = 1_000_000_000_000

both = pytest.mark.parametrize("machine", [Oracle, Engine])


def combine(number: int, legs: dict[int, int], rule: CombinationRule, **more: int) -> bytes:
    """LIST_COMBINATION of {instrument: ratio}."""
    ratios = sum((ratio & 15) << 4 * place for place, ratio in enumerate(legs.values()))
    numbers = sum(leg << 16 * place for place, leg in enumerate(legs))
    fields = {
        "instrument": number, "tif": rule, "quantity": ratios & 0xFFFFFFFF, "session": ratios >> 32,
        "key_lo": numbers & (1 << 64) - 1, "key_hi": numbers >> 64 & (1 << 64) - 1,
        "price": numbers >> 128, "target_lo": -3000, "target_hi": 6000,
    }  # fmt: skip
    return pack(CommandKind.LIST_COMBINATION, **{**fields, **more})


class Desk:
    """Accounts 1 to 4 with 10,000 dollars each, of their own groups and members."""

    def __init__(self, machine: Machine, near: int = 0, far: int = 1) -> None:
        self.machine, self.sequence, self.stamp, self.key = machine, 1, STAMP, 100
        for number in range(1, 5):
            self.do(
                pack(
                    CommandKind.OPEN_ACCOUNT, account=number, instrument=number, session=number,
                    quantity=1000, target_hi=1,
                ),
                pack(CommandKind.DEPOSIT, account=number, price=10_000_000_000),
            )  # fmt: skip
        for number, hours in enumerate(HOURS):
            self.do(
                pack(
                    CommandKind.LIST, instrument=number, price=MARK, quantity=hours,
                    session=SCALE, account=1, operator=1, target_lo=2000, target_hi=3300,
                ),
                self.risk(number, target_lo=10, target_hi=20),
                self.state(number, TradingState.CONTINUOUS),
            )  # fmt: skip
        self.do(
            combine(SPREAD, {near: 1, far: -1}, CombinationRule.DIFFERENCE),
            combine(STRIP, {0: 1, 1: 1, 2: 1}, CombinationRule.AVERAGE),
            combine(FLY, {0: 1, 1: -2, 2: 1}, CombinationRule.DIFFERENCE),
            pack(CommandKind.OPEN_DAY, quantity=20261121),
        )
        for number in (SPREAD, STRIP, FLY):
            self.do(self.risk(number, price=0), self.state(number, TradingState.CONTINUOUS))

    @staticmethod
    def risk(number: int, **more: int) -> bytes:
        fields = {"instrument": number, "price": RATE, "quantity": 1000, "session": 500}
        return pack(CommandKind.SET_RISK, **{**fields, **more})

    @staticmethod
    def state(number: int, state: TradingState) -> bytes:
        return pack(CommandKind.SET_STATE, instrument=number, tif=state)

    def do(self, *commands: bytes) -> list[Event]:
        batch = b"".join(commands)
        events = self.machine.apply(batch, self.sequence, self.stamp)
        self.sequence += len(batch) // COMMAND_BYTES
        self.machine.check()
        return decoded(events)

    def enter(
        self, account: int, number: int, side: int, quantity: int, price: int, **more: int
    ) -> list[Event]:
        self.key += 1
        fields = {"account": account, "instrument": number, "side": side, "quantity": quantity}
        return self.do(
            pack(CommandKind.ENTER, **{**fields, "price": price, "key_lo": self.key, **more})
        )

    def held(self, account: int) -> list[int]:
        return [self.machine.position(account, number)["net"] for number in range(3)]

    def required(self, account: int) -> int:
        return self.machine.account(account)["required"]


def rejects(events: list[Event]) -> list[tuple[Reason, int, int]]:
    return [(Reason(e.reason), e.a, e.b) for e in events if e.kind == EventKind.REJECTED]


def kinds(events: list[Event]) -> list[str]:
    return [EventKind(event.kind).name for event in events]


@both
def test_a_spread_trades_its_legs_from_the_near_settlement(machine: type[Machine]) -> None:
    """Near at its settlement, far at that less the spread; whoever buys is long near."""
    desk = Desk(machine())
    desk.enter(2, SPREAD, SELL, 5, -40)
    events = desk.enter(1, SPREAD, BUY, 3, -40)
    assert kinds(events) == ["ORDER_ACCEPTED", "TRADE", "LEG_TRADE", "LEG_TRADE"]
    parent, near, far = events[1:]
    assert (parent.instrument, parent.price, parent.quantity, parent.reason) == (SPREAD, -40, 3, 2)
    assert (near.instrument, near.flags & 2, near.price, near.quantity) == (0, 0, MARK, 3)
    assert (far.instrument, far.flags & 2, far.price, far.quantity) == (1, 2, MARK + 40_000, 3)
    assert [leg.reason for leg in (near, far)] == [1 | 2 << 8, 2 | 2 << 8]
    assert near.leaves == far.leaves == parent.index
    assert (near.a, near.b, far.a, far.b) == (-60, -30, -60, -30)
    assert (near.account, near.key_hi) == (1, 2)
    assert desk.held(1) == [3, -3, 0] and desk.held(2) == [-3, 3, 0]
    assert desk.machine.position(1, SPREAD)["net"] == 0
    far_gain = 3 * 720 * 40_000  # sold 40 ticks above its mark
    assert desk.machine.account(1)["unrealized"] == far_gain


@both
def test_a_strip_is_flat_and_leaves_less_than_an_hour_a_lot(machine: type[Machine]) -> None:
    """Months shift together by whole units; what the hours leave moves in cash, to nobody else."""
    desk = Desk(machine())
    desk.do(pack(CommandKind.SETTLE, instrument=1, price=MARK + 1001, quantity=1))
    desk.enter(2, STRIP, SELL, 2, 2660)
    before = [desk.machine.account(number)["cash"] for number in (1, 2, 0)]
    events = desk.enter(1, STRIP, BUY, 2, 2660)
    legs, posted = events[2:5], events[5]
    hours = sum(HOURS)
    paid = sum(leg.price * HOURS[leg.instrument] for leg in legs)
    residual = 2_660_000 * hours - paid
    assert 0 < residual < hours
    assert [leg.price - anchor for leg, anchor in zip(legs, (MARK, MARK + 1001, MARK), strict=True)]
    assert (posted.kind, posted.a, posted.b) == (
        EventKind.RESIDUAL_POSTED, -2 * residual, 2 * residual,
    )  # fmt: skip
    cash = [desk.machine.account(number)["cash"] for number in (1, 2, 0)]
    fees = [-20 * 6, -10 * 6, 30 * 6]
    assert [now - then for now, then in zip(cash, before, strict=True)] == [
        fees[0] + posted.a, fees[1] + posted.b, fees[2],
    ]  # fmt: skip


@both
def test_the_last_leg_divides_and_stays_within_its_limits(machine: type[Machine]) -> None:
    """Two lots of the middle month; a far price beyond the day's limits is paid in cash."""
    desk = Desk(machine())
    desk.enter(2, FLY, SELL, 1, 5)
    legs = [event for event in desk.enter(1, FLY, BUY, 1, 5) if event.kind == EventKind.LEG_TRADE]
    assert [leg.quantity for leg in legs] == [1, 2, 1]
    assert [leg.price for leg in legs] == [MARK, MARK, MARK + 5000]
    desk.enter(2, FLY, SELL, 1, 1000)
    events = desk.enter(1, FLY, BUY, 1, 1000)
    assert events[4].price == 3_300_000
    assert events[5].a == -(MARK + 1_000_000 - 3_300_000) * 744


@both
def test_an_order_works_in_its_legs_and_margin_is_theirs(machine: type[Machine]) -> None:
    desk = Desk(machine())
    (accepted,) = desk.enter(1, FLY, BUY, 4, -10)
    assert desk.machine.position(1, 1)["working_sell"] == 8
    assert desk.required(1) == RATE * (4 + 8 + 4)
    desk.enter(1, FLY, SELL, 1, 30, tif=TimeInForce.GTC)
    assert desk.required(1) == RATE * 16  # it can only take one of the two ways
    desk.do(pack(CommandKind.REDUCE, account=1, side=2, target_lo=accepted.order_id, quantity=3))
    assert desk.machine.position(1, 0)["working_buy"] == 1
    desk.do(pack(CommandKind.CANCEL, account=1, side=2, target_lo=accepted.order_id))
    assert desk.required(1) == RATE * 4


@both
def test_a_leg_refuses_for_the_combination(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.do(desk.risk(1, quantity=7))
    assert rejects(desk.enter(1, FLY, BUY, 4, 0)) == [(Reason.POSITION_LIMIT, 7, 8)]
    desk.do(desk.state(2, TradingState.HALTED))
    expected = (Reason.NOT_TRADING, TradingState.CONTINUOUS, TradingState.HALTED)
    assert rejects(desk.enter(1, FLY, BUY, 1, 0)) == [expected]
    assert rejects(desk.enter(1, SPREAD, BUY, 1, 0)) == []
    desk.do(desk.state(2, TradingState.CONTINUOUS))
    assert rejects(desk.enter(1, FLY, BUY, 1, 0)) == []
    price = 2640 - 2650 + 12  # an adverse distance is margin at once
    desk.enter(1, SPREAD, BUY, 1, price)
    assert desk.machine.position(1, SPREAD)["hold"] == 720 * SCALE * price


@both
@pytest.mark.parametrize("mode", SelfTrade)
def test_own_orders_never_trade_in_a_combination(machine: type[Machine], mode: SelfTrade) -> None:
    desk = Desk(machine())
    desk.enter(1, SPREAD, SELL, 5, 0)
    events = desk.enter(1, SPREAD, BUY, 3, 0, stp=mode)
    assert EventKind.TRADE not in {event.kind for event in events}
    left = {0: 5, 1: 3, 2: 0, 3: 2}[mode]
    assert desk.required(1) == RATE * 2 * left


@both
def test_the_mark_follows_the_legs(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.enter(1, SPREAD, BUY, 1, 100)
    assert desk.machine.position(1, SPREAD)["hold"] == 720 * SCALE * 100
    desk.do(pack(CommandKind.MARK, instrument=1, price=MARK - 60_000))
    assert desk.machine.position(1, SPREAD)["hold"] == 720 * SCALE * 40
    for kind in (CommandKind.MARK, CommandKind.SETTLE, CommandKind.EXPIRE):
        command = pack(kind, instrument=SPREAD, price=5, quantity=1)
        assert rejects(desk.do(command)) == [(Reason.NOT_OUTRIGHT, 0, 2)]


@both
def test_a_combination_ends_with_its_first_leg(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.enter(1, SPREAD, BUY, 1, 0)
    desk.enter(1, STRIP, BUY, 1, 2600)
    desk.do(desk.state(1, TradingState.HALTED))
    events = desk.do(pack(CommandKind.EXPIRE, instrument=1, price=MARK))
    ended = [e.instrument for e in events if e.kind == EventKind.STATE_CHANGED]
    assert ended == [SPREAD, STRIP, FLY]
    assert desk.required(1) == 0
    assert desk.machine.instrument(SPREAD)["state"] == TradingState.EXPIRED


@both
@pytest.mark.parametrize(
    "legs, more",
    [
        ({0: 1}, {}),
        ({0: 1, 9: -1}, {}),
        ({0: 1, SPREAD: -1}, {}),
        ({0: 1, 1: -8}, {}),
        ({0: 1, 1: -1}, {"tif": CombinationRule.AVERAGE}),
        ({0: 1, 1: -1}, {"tif": 2}),
        ({0: 1, 1: -1}, {"key_lo": 0}),
        ({0: 1, 1: -1}, {"target_lo": 10, "target_hi": 9}),
    ],
)
def test_what_cannot_be_combined(
    machine: type[Machine], legs: dict[int, int], more: dict[str, int]
) -> None:
    desk = Desk(machine())
    command = combine(6, legs, CombinationRule.DIFFERENCE, **more)
    assert rejects(desk.do(command)) == [(Reason.PARAMETER_RANGE, 0, 0)]


@both
def test_a_year_of_twelve_months(machine: type[Machine]) -> None:
    desk = Desk(machine())
    for number in range(6, 15):
        desk.do(
            pack(
                CommandKind.LIST, instrument=number, price=MARK, quantity=720, session=SCALE,
                account=1, operator=1, target_lo=2000, target_hi=3300,
            ),
            desk.risk(number),
            desk.state(number, TradingState.CONTINUOUS),
        )  # fmt: skip
    months = dict.fromkeys((0, 1, 2, *range(6, 15)), 1)
    events = desk.do(combine(15, months, CombinationRule.AVERAGE, target_lo=2000))
    assert kinds(events) == ["INSTRUMENT_LISTED", *["LEG_LISTED"] * 12]
    assert events[0].quantity == 744 * 2 + 720 * 10
    desk.do(desk.risk(15), desk.state(15, TradingState.CONTINUOUS))
    desk.enter(3, 15, SELL, 1, 2700)
    assert len(desk.enter(4, 15, BUY, 1, 2700)) == 2 + 12
    assert desk.machine.position(4, 14)["net"] == 1
