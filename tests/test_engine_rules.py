"""The rules of docs/reference/engine.md by example: what exactly happens, on engine and oracle.

Every test names its events in short words: kind, then what matters of it.
"""

from typing import Any

import pytest
from differences import Machine, decoded
from generator import pack
from oracle import Oracle

from exchange.engine import Engine
from exchange.messages import (
    COMMAND_BYTES,
    CancelReason,
    CommandFlag,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Reason,
    SelfTrade,
    TimeInForce,
    TradingState,
)

BUY, SELL = 0, 1
RESTS = int(EventFlag.RESTING)
IOC, FOK = int(TimeInForce.IOC), int(TimeInForce.FOK)
MARKET, PROTECTED = int(CommandFlag.MARKET), int(CommandFlag.PROTECTED)
BY_KEY, NEW_ID = int(CommandFlag.BY_CLIENT_ID), int(CommandFlag.NEW_ID)
START = 1_000_000_000_000
SECOND = 1_000_000_000
DATE = 20261121

both = pytest.mark.parametrize("machine", [Oracle, Engine])


class Desk:
    """Accounts 1 to 4 of their own groups, 1 and 2 of one member; instrument 0 is open.

    Multiplier 2, tick scale 10 (a tick and lot is 20), mark at 100 ticks, rate 50.
    """

    def __init__(self, machine: Machine, maker_fee: int = 0, taker_fee: int = 0) -> None:
        self.machine, self.sequence, self.stamp, self.key = machine, 1, START, 100
        for number, member in ((1, 1), (2, 1), (3, 3), (4, 4)):
            self.do(
                pack(
                    CommandKind.OPEN_ACCOUNT, account=number, instrument=member, session=number,
                    quantity=1000, target_hi=1,
                ),
                pack(CommandKind.DEPOSIT, account=number, price=100_000),
            )  # fmt: skip
        self.do(
            pack(
                CommandKind.LIST, price=1000, quantity=2, session=10, account=1, operator=1,
                target_lo=50, target_hi=150,
            ),
            pack(
                CommandKind.SET_RISK, price=50, quantity=1000, session=500,
                target_lo=maker_fee, target_hi=taker_fee,
            ),
            pack(CommandKind.OPEN_DAY, quantity=DATE),
            pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS),
        )  # fmt: skip

    def do(self, *commands: bytes) -> list[Event]:
        batch = b"".join(commands)
        events = self.machine.apply(batch, self.sequence, self.stamp)
        self.sequence += len(batch) // COMMAND_BYTES
        self.machine.check()
        return decoded(events)

    def enter(self, account: int, side: int, quantity: int, price: int, **more: int) -> list[Event]:
        self.key += 1
        fields = {"account": account, "side": side, "quantity": quantity, "price": price}
        return self.do(pack(CommandKind.ENTER, **{**fields, "key_lo": self.key, **more}))

    def name(self, kind: CommandKind, account: int, order_id: int, **more: int) -> list[Event]:
        fields = {"account": account, "target_lo": order_id, "side": 2}
        return self.do(pack(kind, **{**fields, **more}))

    def rest(self, account: int, side: int, quantity: int, price: int, **more: int) -> int:
        """An order that rests whole; gives its id."""
        (event,) = self.enter(account, side, quantity, price, **more)
        assert event.leaves == quantity
        return event.order_id

    def rest_until(self, account: int, due: int) -> int:
        """A bid at 90 that is good till `due`; gives its id."""
        return self.rest(account, BUY, 5, 90, tif=TimeInForce.GTD, target_lo=due)

    def free(self, account: int) -> int:
        figures = self.machine.account(account)
        return figures["cash"] - figures["required"]


def words(events: list[Event]) -> list[tuple[Any, ...]]:
    """(kind, account, quantity, leaves) and the reason and RESTING where they matter."""
    out: list[tuple[Any, ...]] = []
    for event in events:
        row: tuple[Any, ...] = (EventKind(event.kind).name, event.account, event.quantity)
        if event.kind in (EventKind.ORDER_CANCELLED, EventKind.ORDER_REDUCED):
            row += (CancelReason(event.reason).name, "resting" if event.flags & RESTS else "")
        elif event.kind == EventKind.REJECTED:
            row = (Reason(event.reason).name,)
        out.append((*row, event.leaves))
    return out


# --- self-trade prevention: his 5 lots, then own 4, then his 3; 10 come in

SELF_TRADES = {
    SelfTrade.CANCEL_NEWEST: [
        ("ORDER_ACCEPTED", 1, 10, 0),
        ("TRADE", 1, 5, 5),
        ("ORDER_CANCELLED", 1, 5, "SELF_TRADE", "", 0),
    ],
    SelfTrade.CANCEL_OLDEST: [
        ("ORDER_ACCEPTED", 1, 10, 2),
        ("TRADE", 1, 5, 5),
        ("ORDER_CANCELLED", 1, 4, "SELF_TRADE", "resting", 0),
        ("TRADE", 1, 3, 2),
    ],
    SelfTrade.CANCEL_BOTH: [
        ("ORDER_ACCEPTED", 1, 10, 0),
        ("TRADE", 1, 5, 5),
        ("ORDER_CANCELLED", 1, 4, "SELF_TRADE", "resting", 0),
        ("ORDER_CANCELLED", 1, 5, "SELF_TRADE", "", 0),
    ],
    SelfTrade.DECREMENT: [
        ("ORDER_ACCEPTED", 1, 10, 0),
        ("TRADE", 1, 5, 5),
        ("ORDER_CANCELLED", 1, 4, "SELF_TRADE", "resting", 0),
        ("ORDER_REDUCED", 1, 4, "SELF_TRADE", "", 1),
        ("TRADE", 1, 1, 0),
    ],
}


@both
@pytest.mark.parametrize("mode", SelfTrade)
def test_self_trade(machine: type[Machine], mode: SelfTrade) -> None:
    desk = Desk(machine())
    for account, lots in ((3, 5), (1, 4), (4, 3)):
        desk.rest(account, SELL, lots, 100)
    assert words(desk.enter(1, BUY, 10, 100, stp=mode)) == SELF_TRADES[mode]


@both
def test_decrement_leaves_the_larger_resting_order(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.rest(1, SELL, 6, 100)
    assert words(desk.enter(1, BUY, 4, 100, stp=SelfTrade.DECREMENT)) == [
        ("ORDER_ACCEPTED", 1, 4, 0),
        ("ORDER_REDUCED", 1, 4, "SELF_TRADE", "resting", 2),
        ("ORDER_CANCELLED", 1, 4, "SELF_TRADE", "", 0),
    ]


@both
@pytest.mark.parametrize("mode", SelfTrade)
def test_fill_or_kill_counts_what_it_may_trade(machine: type[Machine], mode: SelfTrade) -> None:
    """Own lots are skipped under CANCEL_OLDEST and end the count under any other mode."""
    desk = Desk(machine())
    for account, lots in ((3, 5), (1, 4), (4, 3)):
        desk.rest(account, SELL, lots, 100)
    fits = mode is SelfTrade.CANCEL_OLDEST
    events = words(desk.enter(1, BUY, 8, 100, tif=FOK, stp=mode))
    assert (events[-1] == ("ORDER_CANCELLED", 1, 8, "FOK_UNFILLED", "", 0)) is not fits
    assert len(events) == (4 if fits else 2)
    before = desk.enter(2, BUY, 5, 100, tif=FOK, stp=mode)
    assert len(before) == 2  # one trade, or nothing left at 100 but four and three


# --- market-to-limit, protection, minimum, good till a time


@both
def test_market_to_limit_rests_at_the_best_price_it_met(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.rest(1, SELL, 3, 100)
    desk.rest(1, SELL, 5, 101)
    first, trade = desk.enter(2, BUY, 8, 0, flags=MARKET)
    assert (first.price, first.leaves, trade.price, trade.quantity) == (100, 5, 100, 3)
    assert desk.machine.book(0) == ([(100, 5, 1)], [(101, 5, 1)])


@both
@pytest.mark.parametrize("tif", [TimeInForce.GTC, TimeInForce.IOC])
def test_without_an_opposite_side_nothing_rests(machine: type[Machine], tif: int) -> None:
    desk = Desk(machine())
    first, gone = desk.enter(2, BUY, 8, 3, flags=MARKET | PROTECTED, tif=tif)
    assert (first.price, first.leaves, gone.quantity) == (0, 0, 8)
    assert gone.reason == CancelReason.MARKET_REMAINDER


@both
def test_protection_ends_at_the_limits_of_the_day(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.rest(1, BUY, 3, 60)
    first, _ = desk.enter(2, SELL, 4, 1 << 40, flags=MARKET | PROTECTED)
    assert (first.price, first.leaves) == (50, 1)


@both
@pytest.mark.parametrize("tif", [TimeInForce.GTC, TimeInForce.IOC])
def test_a_minimum_trades_at_once_or_nothing_does(machine: type[Machine], tif: int) -> None:
    desk = Desk(machine())
    desk.rest(1, SELL, 3, 100)
    first, gone = desk.enter(2, BUY, 8, 100, tif=tif, target_hi=4)
    assert (first.leaves, gone.quantity, gone.reason) == (0, 8, CancelReason.MINIMUM_UNFILLED)
    first, trade, *_ = desk.enter(2, BUY, 8, 100, tif=tif, target_hi=3)
    assert trade.quantity == 3
    assert first.leaves == (5 if tif == TimeInForce.GTC else 0)


@both
def test_what_is_due_ends_before_the_commands_of_its_stamp(machine: type[Machine]) -> None:
    """By (due, slot); an order that was cancelled or filled has nothing left to end. They are the
    first events of the first command, were it the plainest."""
    desk = Desk(machine())
    session = desk.do(pack(CommandKind.LOGON, account=2))[0].order_id
    due = desk.stamp + SECOND
    later, sooner = desk.rest_until(1, due + 1), desk.rest_until(1, due)
    gone = desk.rest_until(1, due)
    desk.name(CommandKind.CANCEL, 1, gone)
    assert desk.machine.next_deadline() == due
    desk.stamp = due - 1
    assert len(desk.enter(2, BUY, 1, 80)) == 1
    desk.stamp = due + SECOND
    first, second, accepted = desk.enter(2, BUY, 1, 80, session=session)
    assert [first.order_id, second.order_id] == [sooner, later]
    assert first.reason == second.reason == CancelReason.TIME_EXPIRED
    assert (accepted.kind, accepted.index) == (EventKind.ORDER_ACCEPTED, 2)
    assert desk.machine.next_deadline() == 0
    desk.machine.check()


@both
def test_a_cancelled_order_takes_its_end_along(machine: type[Machine]) -> None:
    """On the plain order's way as on the other: nothing is due any more."""
    for logged_on in (False, True):
        desk = Desk(machine())
        session = desk.do(pack(CommandKind.LOGON, account=1))[0].order_id if logged_on else 0
        order = desk.rest_until(1, desk.stamp + SECOND)
        (gone,) = desk.name(CommandKind.CANCEL, 1, order, session=session)
        assert gone.kind == EventKind.ORDER_CANCELLED
        assert desk.machine.next_deadline() == 0
        desk.machine.check()


@both
def test_a_replaced_order_keeps_its_end(machine: type[Machine]) -> None:
    desk = Desk(machine())
    due = desk.stamp + SECOND
    order = desk.rest_until(1, due)
    desk.name(CommandKind.REPLACE, 1, order, price=91, quantity=7)
    desk.name(CommandKind.REPLACE, 1, order, price=92, quantity=7, flags=NEW_ID, key_lo=7)
    assert desk.machine.next_deadline() == due
    desk.stamp = due
    assert desk.enter(2, BUY, 1, 80)[0].reason == CancelReason.TIME_EXPIRED
    assert desk.machine.book(0)[0] == [(80, 1, 1)]


# --- replace


@both
def test_replace_keeps_the_place_only_if_no_larger_at_its_price(machine: type[Machine]) -> None:
    desk = Desk(machine())
    first, second = desk.rest(1, BUY, 5, 90), desk.rest(3, BUY, 5, 90)
    (smaller,) = desk.name(CommandKind.REPLACE, 1, first, price=90, quantity=4)
    assert (smaller.reason, smaller.leaves, smaller.a, smaller.b) == (1, 4, 90, 5)
    desk.enter(4, SELL, 1, 90, tif=IOC)
    assert desk.machine.book(0)[0] == [(90, 8, 2)]
    (larger,) = desk.name(CommandKind.REPLACE, 1, first, price=90, quantity=5)
    assert (larger.reason, larger.leaves, larger.b) == (0, 4, 3)  # one is executed
    trade = desk.enter(4, SELL, 1, 90, tif=IOC)[1]
    assert trade.key_lo == second


@both
def test_replace_may_trade_at_once_and_its_total_counts_what_traded(machine: type[Machine]) -> None:
    desk = Desk(machine())
    order = desk.rest(1, BUY, 6, 90)
    desk.enter(3, SELL, 2, 90, tif=IOC)
    desk.rest(3, SELL, 3, 95)
    assert words(desk.name(CommandKind.REPLACE, 1, order, price=95, quantity=6)) == [
        ("ORDER_REPLACED", 1, 6, 1),
        ("TRADE", 1, 3, 1),
    ]
    assert words(desk.name(CommandKind.REPLACE, 1, order, price=95, quantity=5)) == [
        ("ORDER_CANCELLED", 1, 1, "REDUCED", "resting", 0)
    ]


@both
def test_replace_with_a_new_id_is_a_new_order(machine: type[Machine]) -> None:
    desk = Desk(machine())
    order = desk.rest(1, BUY, 6, 90)
    desk.enter(3, SELL, 2, 90, tif=IOC)
    gone, new = desk.name(
        CommandKind.REPLACE, 1, order, price=90, quantity=3, flags=NEW_ID, key_lo=7, stp=2
    )
    assert words([gone, new]) == [
        ("ORDER_CANCELLED", 1, 4, "REPLACED", "resting", 0),
        ("ORDER_ACCEPTED", 1, 3, 3),
    ]
    assert (new.key_lo, new.b) == (7, 2 << 8)
    assert new.order_id != order


# --- dormant orders


@both
def test_orders_outside_the_limits_wait_and_return(machine: type[Machine]) -> None:
    desk = Desk(machine())
    far_bid, near_bid = desk.rest(1, BUY, 2, 60), desk.rest(1, BUY, 3, 70)
    ask = desk.rest(3, SELL, 4, 140)
    narrow = pack(CommandKind.SET_LIMITS, target_lo=80, target_hi=120)
    events = desk.do(narrow)
    assert words(events[1:]) == [
        ("ORDER_DORMANT", 1, 3, 3),  # bids best first, then asks
        ("ORDER_DORMANT", 1, 2, 2),
        ("ORDER_DORMANT", 3, 4, 4),
    ]
    assert desk.machine.book(0) == ([], [])
    assert desk.machine.account(1)["hold"] == 5 * 50
    assert words(desk.name(CommandKind.REDUCE, 1, far_bid, quantity=1)) == [
        ("ORDER_REDUCED", 1, 1, "REQUESTED", "", 1)
    ]
    assert words(desk.name(CommandKind.REPLACE, 3, ask, price=110, quantity=4)) == [
        ("ORDER_REPLACED", 3, 4, 4)
    ]
    assert words(desk.name(CommandKind.CANCEL, 1, near_bid)) == [
        ("ORDER_CANCELLED", 1, 3, "REQUESTED", "", 0)
    ]
    wide = pack(CommandKind.SET_LIMITS, target_lo=50, target_hi=150)
    assert words(desk.do(wide)[1:]) == [("ORDER_RETURNED", 1, 1, 1)]


@both
def test_a_returning_order_trades_as_an_incoming_one(machine: type[Machine]) -> None:
    desk = Desk(machine(), taker_fee=3)
    bid = desk.rest(1, BUY, 5, 140)
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=80, target_hi=120))
    desk.rest(3, SELL, 2, 120)
    halt = pack(CommandKind.SET_STATE, tif=TradingState.HALTED)
    wide = pack(CommandKind.SET_LIMITS, target_lo=80, target_hi=150)
    assert len(desk.do(halt, wide)) == 2  # nothing returns while it is halted
    events = desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS))
    assert words(events[1:]) == [("ORDER_RETURNED", 1, 5, 3), ("TRADE", 1, 2, 3)]
    trade = events[2]
    assert (trade.order_id, trade.price, trade.a, trade.b) == (bid, 120, -6, 0)


# --- ids


@both
def test_a_repeated_command_repeats_its_first_answer(machine: type[Machine]) -> None:
    desk = Desk(machine())
    enter = pack(CommandKind.ENTER, account=1, quantity=5, price=90, key_lo=7)
    by_hand = pack(
        CommandKind.ENTER, account=1, quantity=5, price=90, key_lo=7, flags=CommandFlag.MANUAL
    )
    (first,) = desk.do(enter)
    reduce = pack(
        CommandKind.REDUCE, account=1, side=2, quantity=2, key_lo=8, target_lo=first.order_id
    )
    (reduced,) = desk.do(reduce)
    for command in (enter, by_hand):
        (again,) = desk.do(command)
        assert again.flags == first.flags | EventFlag.DUPLICATE
        assert (again.order_id, again.quantity, again.leaves) == (first.order_id, 5, 3)
    (again,) = desk.do(reduce)
    assert again.flags == reduced.flags | EventFlag.DUPLICATE
    assert (again.kind, again.quantity, again.leaves, again.key_lo) == (reduced.kind, 2, 0, 8)
    assert desk.machine.book(0)[0] == [(90, 3, 1)]


@both
def test_an_id_is_remembered_for_256_acceptances_and_while_it_works(machine: type[Machine]) -> None:
    desk = Desk(machine())
    enter = [
        pack(CommandKind.ENTER, account=1, quantity=1, price=90, key_lo=key, tif=tif)
        for key, tif in ((1, 0), (2, IOC))
    ]
    works, done = desk.do(enter[0])[0], desk.do(enter[1])[0]
    records = [pack(CommandKind.RECORD, account=1, key_lo=1000 + n) for n in range(256)]
    desk.do(*records[:254])
    assert desk.do(enter[1])[0].flags & EventFlag.DUPLICATE
    desk.do(*records[254:])
    new = desk.do(enter[1])[0]
    assert not new.flags & EventFlag.DUPLICATE
    # the first of the requests left the window for it, and with its slot, in the next generation
    assert new.order_id == done.order_id + 1 + (1 << 32)
    assert desk.do(enter[0])[0].order_id == works.order_id  # it still works
    assert words(desk.name(CommandKind.CANCEL, 1, 1, flags=BY_KEY))[0][0] == "ORDER_CANCELLED"
    assert not desk.do(enter[0])[0].flags & EventFlag.DUPLICATE


# --- sessions and timers


@both
def test_cancel_on_disconnect(machine: type[Machine]) -> None:
    desk = Desk(machine())
    stays = int(CommandFlag.CANCEL_ON_DISCONNECT)
    logon = {"account": 1, "flags": stays, "quantity": 5000}
    session = desk.do(pack(CommandKind.LOGON, **logon))[0].order_id
    orders = [desk.rest(1, BUY, 1, 90, session=session) for _ in range(2)]
    desk.rest(1, BUY, 1, 90)
    logoff = pack(CommandKind.LOGOFF, account=1, session=session)
    (lost,) = desk.do(logoff)
    assert (lost.kind, lost.a) == (EventKind.SESSION_LOST, START + 5 * SECOND)
    assert desk.machine.next_deadline() == START + 5 * SECOND
    desk.do(pack(CommandKind.LOGON, session=session, **logon))  # back in time
    assert desk.machine.next_deadline() == 0
    desk.do(logoff)
    desk.stamp += 5 * SECOND
    events = desk.do(pack(CommandKind.ADVANCE_TIME))
    assert words(events) == [
        ("SESSION_ENDED", 1, 0, 0),
        ("ORDER_CANCELLED", 1, 1, "DISCONNECTED", "resting", 0),
        ("ORDER_CANCELLED", 1, 1, "DISCONNECTED", "resting", 0),
        ("TIME_ADVANCED", 0, 0, 0),
    ]
    assert [event.order_id for event in events[1:3]] == orders
    assert [event.index for event in events] == [0, 1, 2, 3]
    assert [event.flags & EventFlag.LAST_IN_COMMAND for event in events] == [0, 0, 0, 1]


@both
def test_a_restart_loses_sessions_and_halts(machine: type[Machine]) -> None:
    desk = Desk(machine())
    for account, flags in ((1, 0), (3, int(CommandFlag.CANCEL_ON_DISCONNECT))):
        desk.do(pack(CommandKind.LOGON, account=account, flags=flags, quantity=1))
    events = desk.do(pack(CommandKind.RECOVERED, quantity=2))
    kinds = [EventKind(event.kind).name for event in events]
    assert kinds == [
        "RECOVERED",
        "SESSION_LOST",
        "SESSION_ENDED",
        "SESSION_LOST",
        "STATE_CHANGED",
    ]
    assert desk.machine.instrument(0)["state"] == TradingState.HALTED


# --- money


@both
def test_holds_by_hand(machine: type[Machine]) -> None:
    """rate x the worse side, and for each order its distance from the mark where that is bad."""
    desk = Desk(machine())
    desk.rest(1, BUY, 3, 98)
    assert desk.machine.account(1)["hold"] == 3 * 50
    desk.rest(1, SELL, 4, 104)
    assert desk.machine.account(1)["hold"] == 4 * 50
    desk.do(pack(CommandKind.MARK, price=950))  # the bid at 98 is three ticks above it
    assert desk.machine.account(1)["hold"] == 4 * 50 + 3 * 3 * 20
    desk.do(pack(CommandKind.MARK, price=1045))  # between ticks: the ask is half a tick below
    assert desk.machine.account(1)["hold"] == 4 * 50 + 4 * 5 * 2


@both
def test_trades_fees_and_settlement_by_hand(machine: type[Machine]) -> None:
    desk = Desk(machine(), maker_fee=-1, taker_fee=4)
    desk.rest(3, SELL, 10, 102)
    trade = desk.enter(1, BUY, 4, 105, tif=IOC)[1]
    assert (trade.price, trade.a, trade.b) == (102, -16, 4)
    assert desk.machine.account(0)["cash"] == 12
    assert desk.machine.position(1, 0)["cost"] == 4 * 102 * 20
    assert desk.machine.account(1)["unrealized"] == -4 * 2 * 20
    settled = desk.do(pack(CommandKind.SETTLE, price=1035, quantity=1))
    assert [(e.account, e.quantity, e.a) for e in settled[1:]] == [(1, 4, 120), (3, 4, -120)]
    assert settled[2].flags & EventFlag.SELL
    assert desk.machine.account(1)["cash"] == 100_000 - 16 + 120
    assert desk.machine.account(3)["cash"] == 100_000 + 4 - 120
    assert desk.machine.account(1)["unrealized"] == 0
    (point,) = desk.do(pack(CommandKind.CHECKPOINT))
    assert (point.a, point.price) == (400_000, 4)


@both
def test_in_deficit_only_less_risk_is_taken(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.rest(3, SELL, 100, 100)
    desk.enter(1, BUY, 100, 100, tif=IOC)
    assert desk.free(1) == 100_000 - 100 * 50
    events = desk.do(pack(CommandKind.MARK, price=510))
    started = [e for e in events if e.kind == EventKind.DEFICIT_STARTED]
    assert [(e.account, e.a, e.b) for e in started] == [(1, 5_000 + 98_000, 100_000)]
    assert words(desk.enter(1, BUY, 1, 60)) == [("MARGIN", 0)]
    # a tick below the mark: 20 a lot more are needed, which only closing lots are spared
    assert words(desk.enter(1, SELL, 101, 50)) == [("MARGIN", 0)]
    # at the mark the hold of 200 short is that of 100 long, yet it would turn the position round
    assert words(desk.enter(1, SELL, 200, 51)) == [("MARGIN", 0)]
    order = desk.rest(1, SELL, 100, 50)
    assert words(desk.enter(1, SELL, 1, 50)) == [("MARGIN", 0)]
    desk.name(CommandKind.CANCEL, 1, order)
    events = desk.do(pack(CommandKind.MARK, price=900))
    assert [(e.account, e.a) for e in events[1:]] == [(1, 5_000 + 20_000)]
    assert events[1].kind == EventKind.DEFICIT_ENDED


@both
def test_a_member_is_judged_as_a_whole(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.do(pack(CommandKind.FEE, account=2, price=199_900))
    assert words(desk.enter(1, BUY, 2, 100)) == [("ORDER_ACCEPTED", 1, 2, 2)]
    assert words(desk.enter(1, BUY, 1, 100)) == [("MEMBER_MARGIN", 0)]


@both
def test_expiry_pays_out_and_clears(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.rest(3, SELL, 10, 100)
    desk.enter(1, BUY, 4, 100, tif=IOC)
    desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CLOSED))
    events = desk.do(pack(CommandKind.EXPIRE, price=1100))
    assert words(events) == [
        ("INSTRUMENT_EXPIRED", 0, 0, 0),
        ("ORDER_CANCELLED", 3, 6, "INSTRUMENT_EXPIRED", "resting", 0),
        ("POSITION_SETTLED", 1, 4, 0),
        ("POSITION_SETTLED", 3, 4, 0),
    ]
    assert [event.a for event in events[2:]] == [800, -800]
    assert desk.machine.position(1, 0)["net"] == 0
    assert desk.machine.account(1)["required"] == 0


@both
def test_day_orders_end_with_the_day(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.rest(1, BUY, 1, 90)
    day = desk.rest(1, BUY, 2, 90, tif=TimeInForce.DAY)
    events = desk.do(pack(CommandKind.CLOSE_DAY, quantity=DATE))
    assert [(e.order_id, e.reason) for e in events[1:]] == [(day, CancelReason.DAY_ENDED)]


@pytest.mark.parametrize("machine", [Oracle, Engine])
def test_money_beyond_64_bits_stops_the_machine(machine: type[Machine]) -> None:
    """Parameters at their ends, four losers of 2**61 each, one winner: no false figure."""
    desk, lots, top = Desk(machine()), 1 << 30, 1024
    desk.do(
        pack(
            CommandKind.LIST, instrument=1, quantity=1 << 20, session=1, account=1, operator=1,
            target_lo=-top, target_hi=top,
        ),
        pack(CommandKind.SET_RISK, instrument=1, quantity=lots, session=lots),
        pack(CommandKind.SET_STATE, instrument=1, tif=TradingState.CONTINUOUS),
    )  # fmt: skip

    def settle(cycle: int) -> bytes:
        return pack(CommandKind.SETTLE, instrument=1, price=-top, quantity=cycle)

    with pytest.raises(AssertionError, match=r"stopped|overflowed"):
        for cycle in range(1, 12, 2):
            loser = 10 + cycle
            desk.do(
                pack(
                    CommandKind.OPEN_ACCOUNT, account=loser, instrument=loser, session=loser,
                    quantity=10, target_hi=1,
                ),
                pack(CommandKind.MARK, instrument=1, price=top),
            )  # fmt: skip
            desk.rest(3, SELL, lots, top, instrument=1)
            desk.enter(loser, BUY, lots, top, instrument=1)
            desk.do(settle(cycle))
            desk.rest(3, BUY, lots, -top, instrument=1)
            desk.enter(loser, SELL, lots, -top, instrument=1)
            desk.do(settle(cycle + 1))
    if isinstance(desk.machine, Engine):
        with pytest.raises(AssertionError, match="stopped"):
            desk.machine.snapshot()
