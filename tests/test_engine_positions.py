"""Position records come back when their instrument expires, on engine and oracle: how many there
are, what is still remembered of orders that named one, and lives of many cycles.

Budget: 4 seconds.
"""

import numpy as np
import pytest
from differences import Machine, restored
from generator import pack
from oracle import Oracle
from packing import COMMAND_ROWS
from test_engine_combinations import BUY, MARK, SELL, SPREAD, STRIP, Desk, rejects

from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    EVENT_BYTES,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
    TimeInForce,
    TradingState,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
NEXT = 6  # the first number that the desk has not listed
LIVING, CYCLES = 3, 40


def expire(number: int) -> list[bytes]:
    """Halt an instrument and let it expire."""
    return [
        Desk.state(number, TradingState.HALTED),
        pack(CommandKind.EXPIRE, instrument=number, price=MARK),
    ]


def list_month(desk: Desk, number: int) -> None:
    """A month as the desk's first, open."""
    listing = {"instrument": number, "price": MARK, "quantity": 744, "session": 1000, "account": 1}
    limits = {"operator": 1, "target_lo": 2000, "target_hi": 3300}
    desk.do(pack(CommandKind.LIST, **listing, **limits), desk.risk(number))
    desk.do(desk.state(number, TradingState.CONTINUOUS))


def records(machine: Machine) -> int:
    return machine.counts()["positions"]


@both
def test_a_month_takes_its_combinations_records_along(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.enter(1, SPREAD, BUY, 2, -40)
    desk.enter(2, SPREAD, SELL, 2, -40)
    desk.enter(3, STRIP, BUY, 1, 2650)
    assert records(desk.machine) == 2 * 3 + 4
    desk.do(*expire(0))
    assert records(desk.machine) == 2 + 2  # of 1 and 2 the far month, of 3 what the strip had more
    assert desk.held(1) == [0, -2, 0] and desk.held(2) == [0, 2, 0]
    desk.do(*expire(1))
    assert records(desk.machine) == 1
    desk.do(*expire(2))
    assert records(desk.machine) == 0


@both
def test_what_takes_no_part_keeps_its_records(machine: type[Machine]) -> None:
    """Of a refused EXPIRE, and of a SETTLE to nothing."""
    desk = Desk(machine())
    desk.enter(1, 0, BUY, 2, 2650)
    refused = desk.do(pack(CommandKind.EXPIRE, instrument=0, price=MARK))
    assert rejects(refused) == [(Reason.STATE, TradingState.HALTED, TradingState.CONTINUOUS)]
    desk.do(pack(CommandKind.SETTLE, instrument=0, price=MARK, quantity=1))
    desk.do(pack(CommandKind.MASS_CANCEL, account=1, side=2))
    assert records(desk.machine) == 1


def ended(desk: Desk) -> list[tuple[bytes, int, Reason]]:
    """Orders of account 1 that end in every way there is, the last two with their month: what
    entered them, their ids, and why it is too late for them."""
    last = {"account": 1, "instrument": 0, "quantity": 2}
    wishes = [
        {"side": BUY, "price": 2650},
        {"side": SELL, "price": 2700},
        {"side": BUY, "price": 2649, "tif": TimeInForce.IOC},
        {"side": SELL, "price": 2701, "flags": int(CommandFlag.POST_ONLY)},
        {"instrument": SPREAD, "side": BUY, "price": -90},
    ]
    commands = [pack(CommandKind.ENTER, **{**last, **w}, key_lo=k) for k, w in enumerate(wishes, 1)]
    ids = [desk.do(command)[0].order_id for command in commands]
    desk.enter(2, 0, SELL, 2, 2650)
    desk.do(pack(CommandKind.CANCEL, account=1, side=2, target_lo=ids[1]))
    reasons = [Reason.TOO_LATE, *[Reason.NOT_FOUND] * 4]
    return list(zip(commands, ids, reasons, strict=True))


@both
def test_ids_of_ended_orders_are_remembered_without_their_records(machine: type[Machine]) -> None:
    """As long as any others are; others have taken their records by then."""
    desk = Desk(machine())
    orders = ended(desk)
    before = {command: desk.do(command) for command, _, _ in orders}
    desk.do(*expire(0))
    list_month(desk, NEXT)
    for account, side in ((4, BUY), (3, SELL), (2, SELL)):
        desk.enter(account, NEXT, side, 2, 2650)
    desk.machine = restored(desk.machine)
    for number, (command, order_id, reason) in enumerate(orders, 1):
        (told,) = desk.do(command)
        was = before[command][0]
        assert told.flags & EventFlag.DUPLICATE and told.order_id == order_id
        fields = ("kind", "flags", "instrument", "account", "price", "quantity", "a", "b")
        assert [getattr(told, n) for n in fields] == [getattr(was, n) for n in fields]
        other = pack(CommandKind.ENTER, account=1, instrument=1, price=1, quantity=1, key_lo=number)
        assert rejects(desk.do(other)) == [(Reason.DUPLICATE_DIFFERENT, 0, 0)]
        name = {"side": 2, "target_lo": order_id}
        key = {"side": 2, "target_lo": number, "flags": int(CommandFlag.BY_CLIENT_ID)}
        for kind in (CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE):
            asked = [pack(kind, account=1, quantity=1, **named) for named in (name, key)]
            assert [rejects(desk.do(one)) for one in asked] == [[(reason, 0, 0)]] * 2
            for account in (2, 3, 4):  # nor is it anybody else's
                asked = [pack(kind, account=account, quantity=1, **named) for named in (name, key)]
                expected = [[(Reason.NOT_FOUND, 0, 0)]] * 2
                assert [rejects(desk.do(one)) for one in asked] == expected
    forgotten = range(1, Limit.IDEMPOTENCY_WINDOW + 1)
    desk.do(*[pack(CommandKind.RECORD, account=1, key_lo=1 << 40 | number) for number in forgotten])
    late = [rejects(desk.do(command))[0][0] for command, _, _ in orders]
    assert late == [Reason.NOT_TRADING] * 5


@both
def test_a_replaced_order_of_a_month_that_is_over_is_answered_in_its_month(
    machine: type[Machine],
) -> None:
    """A REPLACE names no instrument: the order it made says which one it was."""
    desk = Desk(machine())
    (accepted,) = desk.enter(1, 1, BUY, 1, 2600)
    replace = pack(
        CommandKind.REPLACE, account=1, side=2, target_lo=accepted.order_id, quantity=2,
        price=2601, flags=int(CommandFlag.NEW_ID), key_lo=7,
    )  # fmt: skip
    order_id = desk.do(replace)[1].order_id
    desk.do(*expire(1))
    (told,) = desk.do(replace)
    assert (told.kind, told.instrument, told.account) == (EventKind.ORDER_ACCEPTED, 1, 1)
    assert told.order_id == order_id and told.flags & EventFlag.DUPLICATE


@both
def test_who_takes_a_record_starts_from_nothing(machine: type[Machine]) -> None:
    """Accountability was told, quotes stood and lots only reduced where it came from."""
    desk = Desk(machine())
    level = {"quantity": 1}
    desk.do(pack(CommandKind.SET_PROTECTIONS, instrument=0, **level))
    desk.enter(1, 0, BUY, 2, 2650)
    told = desk.enter(2, 0, SELL, 2, 2650)
    assert [e.account for e in told if e.kind == EventKind.ACCOUNTABILITY_PASSED] == [2, 1]
    desk.enter(1, 0, SELL, 1, 2660, spare=OrderFeature.REDUCE_ONLY)
    quote = {"price": 2640, "quantity": 1, "target_lo": 2655, "target_hi": 1}
    desk.do(pack(CommandKind.MASS_QUOTE, account=2, instrument=0, **quote))
    desk.do(*expire(0))
    list_month(desk, NEXT)
    desk.do(pack(CommandKind.SET_PROTECTIONS, instrument=NEXT, **level))
    desk.machine = restored(desk.machine)
    desk.enter(3, NEXT, BUY, 2, 2650)
    told = desk.enter(4, NEXT, SELL, 2, 2650)
    assert [e.account for e in told if e.kind == EventKind.ACCOUNTABILITY_PASSED] == [4, 3]
    assert records(desk.machine) == 2
    desk.do(pack(CommandKind.MASS_QUOTE, account=4, instrument=NEXT, **quote))
    assert desk.machine.position(4, NEXT)["working_buy"] == 1


class Life:
    """Months one after another, each traded by all accounts, LIVING of them at a time."""

    def __init__(self, machine: Machine, accounts: int) -> None:
        self.machine, self.sequence, self.accounts, self.month = machine, 1, accounts, 0
        numbers = np.arange(1, accounts + 1, dtype="u4")
        opening = {"account": numbers, "quantity": 1000, "target_hi": 1, "session": numbers}
        self.many(CommandKind.OPEN_ACCOUNT, **opening)
        self.many(CommandKind.DEPOSIT, account=numbers, price=1 << 20)

    def do(self, batch: bytes) -> bytes:
        events = self.machine.apply(batch, self.sequence, 1)
        self.sequence += len(batch) // COMMAND_BYTES
        assert EventKind.REJECTED not in np.frombuffer(events, "u1")[12::EVENT_BYTES]
        return events

    def many(self, kind: CommandKind, **fields: object) -> None:
        """A command of each account; a field is one number or an array of them."""
        batch = np.zeros(self.accounts, COMMAND_ROWS)
        batch["kind"] = kind
        for name, values in fields.items():
            batch[name] = values
        self.do(batch.tobytes())

    def cycle(self) -> None:
        """List a month, trade it, and let the oldest expire."""
        month, numbers = self.month, np.arange(1, self.accounts + 1, dtype="u4")
        listing = {"price": 5, "quantity": 1, "session": 1, "account": 1, "operator": 1}
        self.do(
            pack(CommandKind.LIST, instrument=month, target_lo=1, target_hi=10, **listing)
            + pack(CommandKind.SET_RISK, instrument=month, quantity=1 << 30, session=100)
            + pack(CommandKind.SET_STATE, instrument=month, tif=TradingState.CONTINUOUS)
        )
        wish = {"account": numbers, "instrument": month, "price": 3, "quantity": 1}
        self.many(CommandKind.ENTER, **wish, side=numbers % 2, key_lo=1 + month)
        self.month += 1
        if month >= LIVING:
            oldest = month - LIVING
            halt = pack(CommandKind.SET_STATE, instrument=oldest, tif=TradingState.HALTED)
            self.do(halt + pack(CommandKind.EXPIRE, instrument=oldest, price=month % 7))


@pytest.mark.parametrize("machine, accounts", [(Oracle, 6), (Engine, 6), (Engine, 2_000)])
def test_a_market_lives_for_many_cycles_with_as_many_records(
    machine: type[Machine], accounts: int
) -> None:
    """All accounts trade all months, and only what lives has records."""
    life, seen, touched = Life(machine(), accounts), set(), set()
    for number in range(CYCLES):
        life.cycle()
        if number >= LIVING:
            seen.add(records(life.machine))
            if isinstance(life.machine, Engine):
                touched.add(life.machine.memory()["positions"])
        if number % 16 == 15:
            life.machine = restored(life.machine)
    assert seen == {LIVING * accounts}
    assert len(touched) == (machine is Engine)
    life.machine.check()
    if isinstance(life.machine, Engine):
        assert life.machine.taken()["positions"] == LIVING * accounts + 1


def test_a_life_on_engine_and_oracle_is_the_same() -> None:
    """Event for event, also after an image has been taken and read."""
    slow, fast = Life(Oracle(), 9), Life(Engine(), 9)
    for _ in range(12):
        for life in (slow, fast):
            life.cycle()
        fast.machine = restored(fast.machine)
        nets = [
            [[m.position(a, i)["net"] for a in range(10)] for i in range(slow.month)]
            for m in (slow.machine, fast.machine)
        ]
        assert nets[0] == nets[1]
    cash = [[m.account(a)["cash"] for a in range(10)] for m in (slow.machine, fast.machine)]
    assert cash[0] == cash[1] and any(cash[0])
