"""What one command may not be made to do, however many orders and sessions there are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from differences import Machine, difference
from generator import pack
from oracle import Oracle
from test_engine_rules import BUY, DATE, IOC, SECOND, SELL, START, Desk

from exchange.engine import Engine
from exchange.messages import (
    EVENT,
    CommandFlag,
    CommandKind,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
    Selection,
    TradingState,
    TransferKind,
)

REDUCES, ICEBERG = int(OrderFeature.REDUCE_ONLY), int(OrderFeature.ICEBERG)
GROUPED = int(OrderFeature.GROUPED)
MOST = int(Limit.REDUCING)


class Crowd(Desk):
    """The desk with room for many orders of many lots."""

    def __init__(self) -> None:
        super().__init__(Engine())
        self.do(pack(CommandKind.SET_RISK, quantity=100_000, session=100_000))

    def open(self, account: int) -> int:
        """One more account, that may have many orders."""
        fields = {"instrument": account, "session": account, "quantity": 5_000, "target_hi": 1}
        self.do(pack(CommandKind.OPEN_ACCOUNT, account=account, **fields))
        self.do(pack(CommandKind.DEPOSIT, account=account, price=1 << 40))
        return account

    def reducing(self, account: int, side: int, price: int, count: int, **more: int) -> None:
        """Orders of a lot each that only reduce, in one batch."""
        batch = []
        for _ in range(count):
            self.key += 1
            fields = {"account": account, "side": side, "quantity": 1, "price": price}
            fields |= {"spare": REDUCES, "key_lo": self.key}
            batch.append(pack(CommandKind.ENTER, **{**fields, **more}))
        assert all(event.kind == EventKind.ORDER_ACCEPTED for event in self.do(*batch))


def test_as_many_orders_that_only_reduce_as_may_be() -> None:
    """Of one account in one instrument; too many icebergs are told first."""
    desk = Crowd()
    long, short, other = desk.open(5), desk.open(6), desk.open(7)
    desk.rest(short, SELL, 3 * MOST, 100)
    desk.enter(long, BUY, 3 * MOST, 100)
    desk.reducing(long, SELL, 110, MOST)
    (event,) = desk.enter(long, SELL, 1, 110, spare=REDUCES)
    assert (event.reason, event.a, event.b) == (Reason.REDUCING_FULL, MOST, MOST)
    desk.rest(long, SELL, 1, 110)  # any other may come in
    desk.reducing(short, BUY, 90, 1)  # and so may another account's
    for _ in range(Limit.ICEBERGS):
        desk.enter(other, SELL, 2, 120, spare=ICEBERG, target_hi=1)
    both = {"spare": REDUCES | ICEBERG, "target_hi": 1}
    assert desk.enter(long, SELL, 2, 120, **both)[0].reason == Reason.ICEBERGS_FULL
    desk.enter(other, BUY, 1, 110, tif=IOC)  # one of them trades, and there is room for one
    assert desk.enter(long, SELL, 1, 110, spare=REDUCES)[0].kind == EventKind.ORDER_ACCEPTED


def test_as_many_groups_of_two_instruments_as_may_be() -> None:
    """A sweep cancels no more orders elsewhere; within one instrument any number may be grouped."""
    desk, most = Crowd(), int(Limit.GROUPS)
    desk.do(pack(CommandKind.SET_RISK, quantity=1 << 20, session=1 << 20))
    number = {"instrument": 1}
    listing = {"price": 1000, "quantity": 2, "session": 10, "target_lo": 50, "target_hi": 150}
    desk.do(
        pack(CommandKind.LIST, account=1, operator=1, **listing, **number),
        pack(CommandKind.SET_RISK, quantity=1 << 20, session=1 << 20, **number),
        pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS, **number),
        pack(CommandKind.OPEN_ACCOUNT, account=5, instrument=5, quantity=1 << 20, target_hi=1),
        *(pack(CommandKind.DEPOSIT, account=n, price=1 << 50) for n in (3, 5)),
    )
    order = {"account": 5, "side": SELL, "quantity": 1, "price": 120}
    keys = range(1, most + 4)
    first = desk.do(*(pack(CommandKind.ENTER, key_lo=n, key_hi=4, **order, **number) for n in keys))
    bound = [
        pack(CommandKind.ENTER, key_lo=n, key_hi=1, spare=GROUPED, target_hi=one.order_id, **order)
        for n, one in zip(keys, first, strict=True)
    ]
    assert all(event.kind == EventKind.ORDER_ACCEPTED for event in desk.do(*bound[:most]))
    (event,) = desk.do(bound[most])
    assert (event.reason, event.a, event.b) == (Reason.GROUPS_FULL, most, most)
    other = {"spare": GROUPED, "target_hi": first[most].order_id}
    assert desk.enter(5, SELL, 1, 120, **other, **number)[0].kind == EventKind.ORDER_ACCEPTED
    desk.enter(3, BUY, 1, 120, tif=IOC)  # one trades, and there is room for one
    assert desk.do(bound[most + 1])[0].kind == EventKind.ORDER_ACCEPTED
    desk.rest(3, BUY, 2 * MOST, 110)
    desk.enter(5, SELL, 2 * MOST, 110)
    fields = {"spare": REDUCES, "account": 5, "side": BUY, "quantity": 1, "price": 100}
    desk.do(*(pack(CommandKind.ENTER, key_lo=n, key_hi=2, **fields) for n in range(MOST)))
    both = {**fields, "spare": REDUCES | GROUPED, "target_hi": first[most + 2].order_id}
    assert desk.do(pack(CommandKind.ENTER, key_lo=1, key_hi=3, **both))[0].reason == (
        Reason.REDUCING_FULL
    )


MOVED = """
from test_engine_bounds import transferred
print(transferred())
"""


def transferred() -> tuple[int, int]:
    """Lots change hands off the book until both are flat, in a batch whose events have to move
    while the first one's orders give way: how many orders each has left."""
    desk = Crowd()
    long, short = desk.open(5), desk.open(6)
    desk.rest(short, SELL, MOST, 100)
    desk.enter(long, BUY, MOST, 100)
    desk.reducing(long, SELL, 110, MOST)
    desk.reducing(short, BUY, 90, MOST)
    fields = {"side": BUY, "tif": TransferKind.BLOCK, "price": 1000, "quantity": MOST}
    desk.do(
        pack(CommandKind.TRANSFER, account=short, target_lo=long, **fields),
        *(pack(CommandKind.ADVANCE_TIME) for _ in range(40)),
    )
    account = desk.machine.account
    return account(long)["open_orders"], account(short)["open_orders"]


def test_events_that_move_are_not_read_where_they_were() -> None:
    """Memory that is given back is overwritten, so that what is read from it shows."""
    done = subprocess.run(
        [sys.executable, "-c", MOVED], cwd=Path(__file__).parent, check=False,
        env=os.environ | {"MALLOC_PERTURB_": "165", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "(0, 0)\n"), done.stderr


def crowded(losing: bool) -> list[tuple[int, bytes]]:
    """Sixty accounts with a session each, whose orders lie in turns; then all sessions end at one
    stamp, or all that bought lose as much as they may in a day."""
    accounts = range(1, 61)
    opening = []
    for number in accounts:
        fields = {"instrument": number, "session": number, "quantity": 100, "target_hi": 1}
        opening.append(pack(CommandKind.OPEN_ACCOUNT, account=number, **fields))
        opening.append(pack(CommandKind.DEPOSIT, account=number, price=1 << 40))
    listing = {"price": 1000, "quantity": 2, "session": 10, "account": 1, "operator": 1}
    opening += [
        pack(CommandKind.LIST, **listing, target_lo=50, target_hi=150),
        pack(CommandKind.SET_RISK, price=50, quantity=1000, session=500),
        pack(CommandKind.OPEN_DAY, quantity=DATE),
        pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS),
    ]
    flags = int(CommandFlag.CANCEL_ON_DISCONNECT)
    for number in accounts:
        fields = {"quantity": 1000 - number, "flags": flags, "key_lo": number}
        opening.append(pack(CommandKind.LOGON, account=number, **fields))
    orders = []
    for turn in range(3):
        for number in accounts:
            fields = {"account": number, "session": number | 1 << 16, "quantity": 1}
            fields |= {"key_lo": 1000 * number + turn, "side": number % 2, "price": 100}
            if turn:
                fields["price"] = 60 + 80 * (number % 2)
            orders.append(pack(CommandKind.ENTER, **fields))
    steps = [(START, b"".join(opening)), (START, b"".join(orders))]
    if not losing:
        steps.append((START, pack(CommandKind.RECOVERED, quantity=2)))
        return [*steps, (START + 2 * SECOND, pack(CommandKind.ADVANCE_TIME))]
    limits = [pack(CommandKind.SET_ACCOUNT, account=n, price=200 + n % 3 * 200) for n in accounts]
    marks = [(START, pack(CommandKind.MARK, price=price)) for price in (800, 1200)]
    return [*steps, (START, b"".join(limits)), *marks]


@pytest.mark.parametrize("losing", [False, True])
def test_many_end_at_once(losing: bool) -> None:
    """Each with its own orders, in the order of their slots."""
    steps, engine = crowded(losing), Engine()
    assert difference(steps, Oracle(), engine) == ""
    assert sum(engine.account(number)["open_orders"] == 0 for number in range(1, 61)) >= 20
    engine.check()


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("owner", [1, 2])
def test_a_session_id_that_comes_round_ends_no_orders_of_the_first(
    machine: type[Machine], owner: int
) -> None:
    """Order 7 of account 1 has the first session's id, which another account or the same gets when
    all generations of the slot have passed."""
    market, first = machine(), 1 << 16 | 1
    steps = crowded(losing=False)[:1]
    market.apply(steps[0][1], 1, START)
    logoff = pack(CommandKind.LOGOFF, account=1, session=first)
    order = {"account": 1, "session": first, "price": 90, "quantity": 5, "key_lo": 7}
    market.apply(pack(CommandKind.ENTER, **order), 1000, START)
    market.apply(pack(CommandKind.LOGON, account=2), 1001, START)
    other = 1 << 16 | 2  # in a slot of its own, whose orders stay its own
    apart = {"account": 2, "session": other, "price": 80, "quantity": 5, "key_lo": 7}
    market.apply(pack(CommandKind.ENTER, **apart), 1001, START)
    logon = pack(CommandKind.LOGON, account=1, session=first)
    market.apply(logoff + logon + logoff, 1001, START)  # without CANCEL_ON_DISCONNECT now
    for generation in range(2, 1 << 16):
        session = generation << 16 | 1
        turn = pack(CommandKind.LOGON, account=2)
        market.apply(turn + pack(CommandKind.LOGOFF, account=2, session=session), 1001, START)
    again = pack(CommandKind.LOGON, account=owner, flags=CommandFlag.CANCEL_ON_DISCONNECT)
    (event,) = EVENT.iter_unpack(market.apply(again, 1001, START))
    assert event[7] == first
    order = {**order, "account": owner, "key_lo": 8}
    market.apply(pack(CommandKind.ENTER, **order), 1001, START)
    market.apply(pack(CommandKind.LOGOFF, account=owner, session=first), 1001, START)
    market.apply(pack(CommandKind.ADVANCE_TIME), 1001, START + SECOND)
    assert [market.account(number)["open_orders"] for number in (1, 2)] == [1, 1]
    named = {"account": 1, "tif": Selection.SESSION, "side": 2, "target_lo": first}
    (event,) = EVENT.iter_unpack(
        market.apply(pack(CommandKind.MASS_CANCEL, **named), 1002, START + SECOND)
    )
    assert event[9] == 0
    (event,) = EVENT.iter_unpack(
        market.apply(pack(CommandKind.CANCEL, account=1, side=2, target_lo=7,
                          flags=CommandFlag.BY_CLIENT_ID), 1003, START + SECOND)
    )  # fmt: skip
    assert (event[2], event[13]) == (EventKind.ORDER_CANCELLED, 0)
    named = {"account": 2, "tif": Selection.SESSION, "side": 2, "target_lo": other}
    head, event = EVENT.iter_unpack(
        market.apply(pack(CommandKind.MASS_CANCEL, **named), 1004, START + SECOND)
    )
    assert (head[9], event[13]) == (1, other)
    market.check()


FEE = 1 << 32  # the most of one lot
BEYOND = {
    "fees of a whole position": pack(
        CommandKind.SET_RISK, quantity=1 << 28, session=1, target_lo=FEE, target_hi=FEE
    ),
    "the value of a tick": pack(
        CommandKind.LIST, instrument=1, quantity=(1 << 32) - 1, session=(1 << 32) - 1, account=1,
        operator=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("what", BEYOND)
def test_amounts_that_money_could_not_hold_are_refused(machine: type[Machine], what: str) -> None:
    (event,) = Desk(machine()).do(BEYOND[what])
    assert (event.kind, event.reason) == (EventKind.REJECTED, Reason.PARAMETER_RANGE)


@pytest.mark.parametrize("machine", [Oracle, Engine])
def test_a_bust_moves_no_more_than_money_can_hold(machine: type[Machine]) -> None:
    """However many lots: two amounts whose sum would wrap are no fees."""
    desk = Desk(machine())
    desk.rest(1, SELL, 5, 100)
    trade = desk.enter(2, BUY, 5, 100)[1]
    lots = int(Limit.QUANTITY)
    fields = {"price": 0, "quantity": lots, "target_hi": lots << 32, "key_lo": lots << 32}
    fields["target_lo"] = trade.sequence << 20 | trade.index
    (event,) = desk.do(pack(CommandKind.BUST, account=2, session=1, side=BUY, **fields))
    assert (event.kind, event.reason) == (EventKind.REJECTED, Reason.PARAMETER_RANGE)


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("kind", [CommandKind.BUST, CommandKind.ADJUST])
def test_a_correction_of_the_lowest_price_there_is_is_refused(
    machine: type[Machine], kind: CommandKind
) -> None:
    """The one number whose absolute value 64 bits cannot hold."""
    desk = Desk(machine())
    desk.rest(1, SELL, 4, 100)
    trade = desk.enter(2, BUY, 4, 100)[1]
    match = trade.sequence << 20 | trade.index
    fields = {"price": -1 << 63, "quantity": 4, "target_lo": match}
    fields["target_hi"] = 101 if kind == CommandKind.ADJUST else 0
    (event,) = desk.do(pack(kind, account=2, session=1, side=BUY, **fields))
    assert (event.kind, event.reason) == (EventKind.REJECTED, Reason.PARAMETER_RANGE)


@pytest.mark.parametrize("machine", [Oracle, Engine])
@pytest.mark.parametrize("price", [-1 << 62, 1 << 60, 3 << 60])
@pytest.mark.parametrize("most", [0, 1 << 60])
def test_a_value_beyond_128_bits_is_told_as_any_other(
    machine: type[Machine], price: int, most: int
) -> None:
    """Where 0 is the only price, the value of a tick and the lots of an order may be any number.
    Here the product is 2**150 or more, and its lower 128 bits are 0."""
    desk = Desk(machine())
    number = {"instrument": 1}
    desk.do(
        pack(CommandKind.LIST, quantity=1 << 31, session=1 << 29, account=1, operator=1, **number),
        pack(CommandKind.SET_RISK, quantity=1, session=(1 << 31) - 1, **number),
        pack(CommandKind.SET_PROTECTIONS, target_lo=most, **number),
        pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS, **number),
    )
    (event,) = desk.enter(1, BUY, 1 << 30, price, **number)
    assert (event.reason, event.a, event.b) == (Reason.NOTIONAL, Limit.MONEY, (1 << 63) - 1)
