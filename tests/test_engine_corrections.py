"""Bust and adjust by example, on engine and oracle: cash, positions and costs back exactly."""

from typing import Any

import pytest
from differences import Machine, restored
from generator import pack
from oracle import Oracle
from test_engine_rules import BUY, DATE, SELL, Desk

from exchange.engine import Engine
from exchange.messages import (
    INDEX_BITS,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Limit,
    Reason,
    TradingState,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
MAKER_FEE, TAKER_FEE = -2, 5


def traded(desk: Desk, quantity: int = 10, price: int = 100, side: int = BUY) -> Event:
    """Account 3 rests, account 4 takes: the TRADE."""
    desk.rest(3, 1 - side, quantity, price)
    _, trade = desk.enter(4, side, quantity, price)
    assert trade.kind == EventKind.TRADE
    return trade


def correction(trade: Event, kind: CommandKind, **more: int) -> bytes:
    bust = kind == CommandKind.BUST
    fields = {
        "side": 1 if trade.flags & EventFlag.SELL else 0,
        "account": trade.account,
        "session": trade.key_hi & 0xFFFFFFFF,
        "price": trade.price,
        "quantity": trade.quantity,
        "target_lo": trade.sequence << INDEX_BITS | trade.index,
        "target_hi": trade.a if bust else 0,
        "key_lo": (trade.b if bust else 0) & (1 << 64) - 1,
    }
    return pack(kind, **{**fields, **more})


def bust(desk: Desk, trade: Event, **more: int) -> list[Event]:
    return desk.do(correction(trade, CommandKind.BUST, **more))


def adjust(desk: Desk, trade: Event, price: int, **more: int) -> list[Event]:
    return desk.do(correction(trade, CommandKind.ADJUST, **{"target_hi": price, **more}))


def figures(desk: Desk) -> list[Any]:
    """Money and positions of everybody."""
    accounts = [desk.machine.account(n) for n in range(5)]
    names = ("cash", "hold", "unrealized", "required")
    positions = [desk.machine.position(n, 0) for n in range(5)]
    return [[a[name] for name in names] for a in accounts] + [
        (p["net"], p["cost"], p["hold"]) for p in positions
    ]


@both
@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_bust_puts_everything_back(machine: type[Machine], side: int) -> None:
    desk = Desk(machine(), MAKER_FEE, TAKER_FEE)
    before = figures(desk)
    trade = traded(desk, price=103, side=side)
    assert figures(desk) != before
    (event,) = bust(desk, trade)
    assert figures(desk) == before
    assert (event.kind, event.account, event.key_hi) == (EventKind.TRADE_BUSTED, 4, 3)
    assert event.order_id == trade.sequence << INDEX_BITS | trade.index
    assert (event.price, event.quantity) == (103, 10)
    assert (event.a, event.b) == (10 * TAKER_FEE, 10 * MAKER_FEE)
    assert bool(event.flags & EventFlag.SELL) == (side == SELL)


@both
def test_a_bust_after_an_intraday_settlement_gives_the_variation_back(
    machine: type[Machine],
) -> None:
    desk = Desk(machine(), MAKER_FEE, TAKER_FEE)
    before = figures(desk)
    trade = traded(desk)
    desk.do(pack(CommandKind.SETTLE, price=1070, quantity=1))
    bust(desk, trade)
    desk.do(pack(CommandKind.SETTLE, price=1070, quantity=2))
    desk.do(pack(CommandKind.MARK, price=1000))
    assert figures(desk) == before


@both
def test_a_bust_is_of_one_trade_of_many(machine: type[Machine]) -> None:
    desk = Desk(machine())
    first, second = traded(desk, 10, 100), traded(desk, 4, 105)
    bust(desk, first)
    assert desk.machine.position(4, 0)["net"] == 4
    assert desk.machine.position(4, 0)["cost"] == 4 * 105 * 20
    bust(desk, second)
    assert desk.machine.position(4, 0)["net"] == desk.machine.position(4, 0)["cost"] == 0


@both
def test_an_adjustment_moves_only_the_price(machine: type[Machine]) -> None:
    desk = Desk(machine(), MAKER_FEE, TAKER_FEE)
    other = Desk(machine(), MAKER_FEE, TAKER_FEE)
    trade = traded(desk, price=120)
    traded(other, price=110)
    (event,) = adjust(desk, trade, 110)
    assert figures(desk) == figures(other)
    assert (event.kind, event.price, event.key_lo, event.a, event.b) == (
        EventKind.TRADE_ADJUSTED, 110, 120, 0, 0,
    )  # fmt: skip


@both
def test_a_correction_may_end_in_deficit_and_says_so(machine: type[Machine]) -> None:
    """The buyer took all the money out that it could: a dearer price is more than it has."""
    desk = Desk(machine())
    trade = traded(desk, 10, 100)
    desk.do(pack(CommandKind.WITHDRAW, account=4, price=desk.free(4)))
    told = adjust(desk, trade, 150)
    assert [EventKind(e.kind).name for e in told] == ["TRADE_ADJUSTED", "DEFICIT_STARTED"]
    assert (told[1].account, told[1].a - told[1].b) == (4, 10 * 50 * 20)


@both
@pytest.mark.parametrize("kind", [CommandKind.BUST, CommandKind.ADJUST])
def test_what_is_refused_in_order_of_precedence(machine: type[Machine], kind: CommandKind) -> None:
    desk = Desk(machine())
    trade = traded(desk)

    def refused(**more: int) -> tuple[str, int, int]:
        state = desk.machine.state_bytes()
        (event,) = desk.do(correction(trade, kind, **{"target_hi": 100, **more}))
        assert event.kind == EventKind.REJECTED
        assert desk.machine.state_bytes() == state
        return Reason(event.reason).name, event.a, event.b

    wrong = {"instrument": 9, "target_lo": 0, "quantity": 0, "account": 99}
    number = trade.sequence
    assert refused(**wrong) == ("UNKNOWN_INSTRUMENT", 1, 9)
    wrong["instrument"] = 0
    assert refused(**wrong)[0] == "TRADE_UNKNOWN"
    wrong["account"] = 4
    assert refused(**wrong)[2] == 0
    future = (number + 1000) << INDEX_BITS
    assert refused(target_lo=future)[0] == "TRADE_UNKNOWN"
    assert refused(session=2)[0] == "TRADE_UNKNOWN"  # never was in the instrument
    assert refused(session=4)[0] == "TRADE_UNKNOWN"  # both sides
    assert refused(quantity=0) == refused(side=2) == ("PARAMETER_RANGE", 0, 0)
    assert refused(quantity=Limit.QUANTITY, price=1 << 40)[0] == "PARAMETER_RANGE"
    if kind == CommandKind.ADJUST:
        assert refused(target_hi=151) == ("PRICE_LIMIT", 150, 151)
    else:
        assert refused(target_hi=1) == ("PARAMETER_RANGE", 0, 0)  # a sum that no fees make
    assert desk.do(correction(trade, kind, target_hi=0 if kind == 55 else 90))[0].kind >= 60
    for again in (CommandKind.BUST, CommandKind.ADJUST):
        (event,) = desk.do(correction(trade, again, quantity=0))
        assert event.reason == Reason.ALREADY_CORRECTED


@both
def test_a_trade_is_corrected_on_its_own_day_alone(machine: type[Machine]) -> None:
    desk = Desk(machine())
    trade = traded(desk)
    desk.do(pack(CommandKind.CLOSE_DAY, quantity=DATE))
    (event,) = bust(desk, trade)
    assert (event.reason, event.a) == (Reason.DAY_STATE, DATE)
    desk.do(pack(CommandKind.OPEN_DAY, quantity=DATE + 1))
    opened = desk.sequence - 1
    (event,) = bust(desk, trade)
    assert (event.reason, event.a, event.b) == (Reason.TRADE_UNKNOWN, opened, trade.sequence)


@both
def test_nothing_of_an_expired_instrument_is_corrected(machine: type[Machine]) -> None:
    desk = Desk(machine())
    trade = traded(desk)
    desk.do(
        pack(CommandKind.SET_STATE, tif=TradingState.CLOSED), pack(CommandKind.EXPIRE, price=1000)
    )
    assert bust(desk, trade)[0].reason == Reason.STATE


@both
def test_a_day_has_so_many_corrections(machine: type[Machine]) -> None:
    desk = Desk(machine())
    trade = traded(desk)
    trades = [
        correction(trade, CommandKind.ADJUST, target_hi=100, target_lo=trade.sequence << 20 | n)
        for n in range(2, Limit.CORRECTIONS + 3)
    ]
    *done, refused = desk.do(*trades)
    assert {event.kind for event in done} == {EventKind.TRADE_ADJUSTED}
    assert (refused.reason, refused.a) == (Reason.CORRECTIONS_FULL, Limit.CORRECTIONS)


def test_an_image_remembers_what_was_corrected() -> None:
    desk = Desk(Engine())
    trade = traded(desk)
    bust(desk, trade)
    desk.machine = restored(desk.machine)
    assert bust(desk, trade)[0].reason == Reason.ALREADY_CORRECTED
