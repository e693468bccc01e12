"""Lots that change hands off the book, by example, on engine and oracle."""

from typing import Any

import pytest
from differences import Machine, restored
from generator import pack
from oracle import Oracle
from test_engine_rules import BUY, SELL, Desk

from exchange.engine import Engine
from exchange.messages import (
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Limit,
    Reason,
    TradingState,
    TransferKind,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
GIVE_UP, BLOCK, EFP, PORTING = TransferKind
MARK = 1000


def transfer(
    desk: Desk, kind: int = BLOCK, giver: int = 3, taker: int = 4, lots: int = 10, **more: int
) -> list[Event]:
    """Account 4 takes 10 lots of account 3 at the mark, bought unless ``side`` says otherwise."""
    fields = {"tif": kind, "account": taker, "target_lo": giver, "quantity": lots, "price": MARK}
    return desk.do(pack(CommandKind.TRANSFER, **{**fields, **more}))


def held(desk: Desk, account: int) -> tuple[int, int]:
    position = desk.machine.position(account, 0)
    return position["net"], position["cost"]


def long(desk: Desk, account: int = 3, lots: int = 10, price: int = 100) -> None:
    """The account buys of account 2."""
    desk.rest(2, SELL, lots, price)
    desk.enter(account, BUY, lots, price)


def refused(desk: Desk, *given: Any, **more: Any) -> tuple[str, int, int]:
    state = desk.machine.state_bytes()
    (event,) = transfer(desk, *given, **more)
    assert event.kind == EventKind.REJECTED
    assert desk.machine.state_bytes() == state
    return Reason(event.reason).name, event.a, event.b


@both
@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("kind", [BLOCK, EFP])
def test_a_trade_agreed_moves_lots_and_costs_and_nothing_else(
    machine: type[Machine], kind: int, side: int
) -> None:
    desk = Desk(machine(), maker_fee=1, taker_fee=5)
    cash = [desk.machine.account(n)["cash"] for n in range(5)]
    (event,) = transfer(desk, kind, side=side, price=1013)
    sign = 1 if side == BUY else -1
    assert held(desk, 4) == (sign * 10, sign * 10 * 1013 * 2)
    assert held(desk, 3) == (-sign * 10, -sign * 10 * 1013 * 2)
    assert [desk.machine.account(n)["cash"] for n in range(5)] == cash
    assert (event.kind, event.reason) == (EventKind.LOTS_TRANSFERRED, kind)
    assert (event.account, event.order_id, event.instrument) == (4, 3, 0)
    assert (event.price, event.quantity, event.a, event.b) == (1013, 10, sign * 10, -sign * 10)
    assert bool(event.flags & EventFlag.SELL) == (side == SELL)


@both
@pytest.mark.parametrize("kind", [GIVE_UP, PORTING])
def test_lots_handed_on_leave_the_giver_with_nothing(machine: type[Machine], kind: int) -> None:
    desk = Desk(machine())
    long(desk, price=103)
    transfer(desk, kind, price=1030)
    assert held(desk, 3) == (0, 0)
    assert held(desk, 4) == (10, 10 * 1030 * 2)
    assert desk.machine.account(3)["required"] == 0
    assert refused(desk, kind) == ("NOT_HELD", 0, 10)
    assert refused(desk, kind, giver=2) == ("NOT_HELD", -10, 10)  # it is short
    transfer(desk, kind, giver=2, side=SELL)
    assert held(desk, 4)[0] == held(desk, 2)[0] == 0


@both
def test_a_request_is_done_once(machine: type[Machine]) -> None:
    desk = Desk(machine())
    (first,) = transfer(desk, key_lo=7, key_hi=9)
    assert (first.key_lo, first.key_hi) == (7, 9)
    (again,) = transfer(desk, key_lo=7, key_hi=9)
    assert again.flags & EventFlag.DUPLICATE
    assert (again.kind, again.order_id, again.quantity) == (first.kind, 3, 10)
    (other,) = transfer(desk, key_lo=7, key_hi=9, giver=2)
    assert other.reason == Reason.DUPLICATE_DIFFERENT
    assert held(desk, 4)[0] == 10


@both
def test_what_is_refused_in_order_of_precedence(machine: type[Machine]) -> None:
    desk = Desk(machine())
    wrong: dict[str, Any] = {"giver": 99, "taker": 99, "instrument": 9, "kind": 5, "lots": 0}
    assert refused(desk, **wrong) == ("UNKNOWN_ACCOUNT", 0, 0)
    wrong["taker"] = 0
    assert refused(desk, **wrong) == ("UNKNOWN_ACCOUNT", 0, 99)
    wrong["giver"] = 4
    assert refused(desk, **wrong)[0] == "HOUSE_ACCOUNT"
    wrong["taker"] = 4
    assert refused(desk, **wrong) == ("UNKNOWN_INSTRUMENT", 1, 9)
    wrong["instrument"] = 0
    for right in ({"giver": 3}, {"kind": 1}, {"lots": 10}):
        assert refused(desk, **wrong) == ("PARAMETER_RANGE", 0, 0)
        wrong.update(right)
    assert refused(desk, **wrong) == ("NOT_HELD", 0, 10)
    wrong["kind"] = BLOCK
    assert refused(desk, **wrong, side=2)[0] == "PARAMETER_RANGE"
    wide = wrong | {"lots": Limit.QUANTITY, "price": 1 << 40}
    assert refused(desk, **wide)[0] == "PARAMETER_RANGE"
    assert refused(desk, **wrong | {"giver": 0})[0] == "HOUSE_ACCOUNT"
    assert refused(desk, lots=1001) == ("POSITION_LIMIT", 1000, 1001)
    desk.do(
        pack(CommandKind.SET_STATE, tif=TradingState.CLOSED), pack(CommandKind.EXPIRE, price=MARK)
    )
    assert refused(desk)[0] == "STATE"


@both
@pytest.mark.parametrize("state", [TradingState.HALTED, TradingState.CLOSED])
def test_the_books_state_does_not_matter(machine: type[Machine], state: TradingState) -> None:
    desk = Desk(machine())
    desk.do(pack(CommandKind.SET_STATE, tif=state))
    assert transfer(desk)[0].kind == EventKind.LOTS_TRANSFERRED


@both
def test_margin_is_asked_of_the_taker_and_of_both_sides_of_a_block(machine: type[Machine]) -> None:
    """100 lots bind 5,000; at a price 1 over the mark the buyer is 200 under it at once."""
    desk = Desk(machine())
    free = desk.free(4)
    desk.do(pack(CommandKind.WITHDRAW, account=4, price=free - 5199))
    assert refused(desk, lots=100, price=MARK + 1) == ("MARGIN", 5199, 5200)
    other = {"giver": 4, "taker": 3, "side": SELL}
    assert refused(desk, lots=100, price=MARK + 1, **other) == ("MARGIN", 5199, 5200)
    long(desk, 3, 100)
    assert refused(desk, GIVE_UP, lots=100, price=MARK + 1) == ("MARGIN", 5199, 5200)
    (event,) = transfer(desk, GIVE_UP, lots=100, price=MARK - 1)
    assert event.kind == EventKind.LOTS_TRANSFERRED
    assert desk.machine.account(4)["required"] == 5000


@both
def test_a_giver_needs_no_margin_and_its_deficit_is_told(machine: type[Machine]) -> None:
    """It gives away at 970 what it bought at 1,000: its loss is 600, and it has 50 left."""
    desk = Desk(machine())
    long(desk)
    desk.do(pack(CommandKind.WITHDRAW, account=3, price=desk.free(3)))
    told = transfer(desk, GIVE_UP, lots=9, price=970)
    assert [EventKind(e.kind).name for e in told] == ["LOTS_TRANSFERRED", "DEFICIT_STARTED"]
    assert (told[1].account, told[1].a, told[1].b) == (3, 50 + 9 * 30 * 2, 500)


@both
def test_in_a_deficit_only_what_reduces_passes(machine: type[Machine]) -> None:
    desk = Desk(machine())
    long(desk, 4, 20)
    desk.do(pack(CommandKind.WITHDRAW, account=4, price=desk.free(4)))
    desk.do(pack(CommandKind.MARK, price=MARK - 50))
    assert refused(desk, lots=1)[0] == "MARGIN"
    assert refused(desk, lots=21, side=SELL)[0] == "MARGIN"
    assert transfer(desk, lots=20, side=SELL)[0].kind == EventKind.LOTS_TRANSFERRED


@both
def test_two_accounts_of_one_member_share_what_it_has(machine: type[Machine]) -> None:
    """Each has enough alone; a third account's debt leaves the member 110,000 for both."""
    desk = Desk(machine())
    desk.do(
        pack(CommandKind.OPEN_ACCOUNT, account=5, instrument=1, session=5, quantity=9, target_hi=1),
        pack(CommandKind.FEE, account=5, price=90_000),
    )
    pair = {"giver": 2, "taker": 1, "lots": 1000}
    assert refused(desk, **pair, price=MARK + 10) == ("MEMBER_MARGIN", 110_000, 120_000)
    assert transfer(desk, **pair, price=MARK + 5)[0].kind == EventKind.LOTS_TRANSFERRED


@both
def test_a_missing_position_record_is_made_for_both(machine: type[Machine]) -> None:
    desk = Desk(machine())
    assert held(desk, 3) == held(desk, 4) == (0, 0)
    transfer(desk, lots=1)
    transfer(desk, lots=2, side=SELL)
    assert held(desk, 3) == (1, MARK * 2)
    assert held(desk, 4) == (-1, -MARK * 2)


def test_an_image_knows_what_was_done() -> None:
    desk = Desk(Engine())
    transfer(desk, key_lo=7)
    desk.machine = restored(desk.machine)
    assert transfer(desk, key_lo=7)[0].flags & EventFlag.DUPLICATE
