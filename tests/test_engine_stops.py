"""Stops by example, on engine and oracle: waiting, election, cascades, throttled slices."""

from typing import Any

import pytest
from differences import Machine
from generator import pack
from oracle import Oracle
from test_engine_rules import (
    BUY,
    FOK,
    IOC,
    MARKET,
    PROTECTED,
    SECOND,
    SELF_TRADES,
    SELL,
    START,
    Desk,
    words,
)

from exchange.engine import Engine
from exchange.messages import (
    Breaker,
    CancelReason,
    CommandFlag,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    HaltCause,
    Limit,
    Mode,
    OrderFeature,
    Reason,
    SelfTrade,
    TimeInForce,
    TradingState,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
STOP = int(OrderFeature.STOP)
RESTING = int(EventFlag.RESTING)


class Floor(Desk):
    """The desk, with a way to enter stops."""

    def stop(
        self, account: int, side: int, quantity: int, trigger: int, price: int = 0, **more: int
    ) -> int:
        """A stop that waits: with a price a stop-limit, else one at the market. Gives its id."""
        if not price:
            more = {"flags": MARKET, "tif": IOC, **more}
        accepted, waiting = self.enter(
            account, side, quantity, price, spare=STOP, target_hi=trigger, **more
        )
        assert (accepted.kind, accepted.leaves) == (EventKind.ORDER_ACCEPTED, 0)
        assert accepted.b >> 16 & 0xFF == STOP
        assert (waiting.kind, waiting.b) == (EventKind.ORDER_WAITING, trigger)
        assert (waiting.quantity, waiting.leaves) == (quantity, 0)
        return accepted.order_id

    def print_at(self, price: int, lots: int = 1, **more: int) -> list[Event]:
        """Accounts 3 and 4 trade with each other."""
        self.rest(3, SELL, lots, price, **more)
        return self.enter(4, BUY, lots, price, **more)


def elected(events: list[Event]) -> list[int]:
    return [event.order_id for event in events if event.kind == EventKind.ORDER_ELECTED]


@both
def test_a_stop_waits_unseen_and_is_elected_by_a_trade_at_its_trigger(
    machine: type[Machine],
) -> None:
    desk = Floor(machine())
    desk.rest(2, SELL, 5, 107)
    order = desk.stop(1, BUY, 4, 105)
    assert desk.machine.book(0) == ([], [(107, 5, 1)])
    assert elected(desk.print_at(104)) == []
    assert words(desk.print_at(105)) == [
        ("ORDER_ACCEPTED", 4, 1, 0),
        ("TRADE", 4, 1, 0),
        ("ORDER_ELECTED", 1, 4, 0),
        ("TRADE", 1, 4, 0),
    ]
    assert elected(desk.print_at(105)) == []
    assert desk.name(CommandKind.CANCEL, 1, order)[0].reason == Reason.TOO_LATE


@both
@pytest.mark.parametrize(
    ("side", "trigger", "price", "fires"),
    [(BUY, 105, 104, False), (BUY, 105, 106, True), (SELL, 95, 96, False), (SELL, 95, 94, True)],
)
def test_through_the_trigger_counts_and_short_of_it_does_not(
    machine: type[Machine], side: int, trigger: int, price: int, fires: bool
) -> None:
    desk = Floor(machine())
    order = desk.stop(1, side, 1, trigger)
    assert (elected(desk.print_at(price)) == [order]) == fires


@both
def test_only_a_later_trade_elects(machine: type[Machine]) -> None:
    """A trigger that the last trade has passed already waits for the next one."""
    desk = Floor(machine())
    desk.print_at(110)
    order = desk.stop(1, BUY, 1, 105)
    assert elected(desk.print_at(106)) == [order]


@both
def test_buys_before_sells_then_the_nearest_trigger_then_the_oldest(
    machine: type[Machine],
) -> None:
    desk = Floor(machine())
    far, near = desk.stop(1, BUY, 1, 104), desk.stop(1, BUY, 1, 101)
    low, high = desk.stop(1, SELL, 1, 106), desk.stop(1, SELL, 1, 109)
    near_too = desk.stop(2, BUY, 1, 101)
    assert elected(desk.print_at(105)) == [near, near_too, far, high, low]


@both
def test_a_cascade_comes_in_the_order_of_the_prints(machine: type[Machine]) -> None:
    """Each stop's trade elects the next; what an earlier print reached comes before it."""
    desk = Floor(machine())
    for price in (103, 104, 105):
        desk.rest(2, SELL, 1, price)
    third = desk.stop(1, BUY, 1, 104)
    second = desk.stop(1, BUY, 1, 103)
    also_first = desk.stop(4, BUY, 1, 102, price=60 + 42)
    first = desk.stop(1, BUY, 1, 101)
    events = desk.print_at(102)
    assert elected(events) == [first, also_first, second, third]
    trades = [event.price for event in events if event.kind == EventKind.TRADE]
    assert trades == [102, 103, 104, 105]
    assert desk.machine.book(0) == ([(102, 1, 1)], [])


@both
def test_a_stop_limit_rests_what_it_cannot_trade(machine: type[Machine]) -> None:
    desk = Floor(machine())
    desk.rest(2, SELL, 2, 106)
    desk.stop(1, BUY, 5, 105, price=107)
    events = desk.print_at(105)
    assert [(e.quantity, e.leaves) for e in events if e.kind == EventKind.ORDER_ELECTED] == [(5, 3)]
    assert desk.machine.book(0) == ([(107, 3, 1)], [])


AT_MARKET = [
    ({}, [("ORDER_ELECTED", 1, 9, 0), ("TRADE", 1, 2, 7), ("TRADE", 1, 2, 5),
          ("ORDER_CANCELLED", 1, 5, "MARKET_REMAINDER", "", 0)], []),
    ({"flags": MARKET | PROTECTED, "price": 1}, [
        ("ORDER_ELECTED", 1, 9, 0), ("TRADE", 1, 2, 7),
        ("ORDER_CANCELLED", 1, 7, "MARKET_REMAINDER", "", 0)], []),
    ({"tif": TimeInForce.GTC}, [("ORDER_ELECTED", 1, 9, 7), ("TRADE", 1, 2, 7)], [(106, 7, 1)]),
    ({"tif": TimeInForce.GTC, "flags": MARKET | PROTECTED, "price": 2}, [
        ("ORDER_ELECTED", 1, 9, 5), ("TRADE", 1, 2, 7), ("TRADE", 1, 2, 5)], [(108, 5, 1)]),
]  # fmt: skip


@both
@pytest.mark.parametrize(("terms", "expected", "bids"), AT_MARKET)
def test_a_stop_at_the_market_is_the_market_order_of_its_terms(
    machine: type[Machine],
    terms: dict[str, int],
    expected: list[tuple[Any, ...]],
    bids: list[tuple[int, int, int]],
) -> None:
    desk = Floor(machine())
    for price in (106, 108):
        desk.rest(2, SELL, 2, price)
    fields = {"flags": MARKET, "tif": IOC, "price": 0, **terms}
    desk.enter(1, BUY, 9, spare=STOP, target_hi=105, **fields)
    assert words(desk.print_at(105)[2:]) == expected
    assert desk.machine.book(0)[0] == bids


@both
def test_fok_and_ioc_say_what_happens_once_it_is_elected(machine: type[Machine]) -> None:
    desk = Floor(machine())
    desk.rest(2, SELL, 2, 106)
    desk.stop(1, BUY, 3, 105, price=106, tif=FOK)
    desk.stop(1, BUY, 3, 105, price=106, tif=IOC)
    assert words(desk.print_at(105)[2:]) == [
        ("ORDER_ELECTED", 1, 3, 0),
        ("ORDER_CANCELLED", 1, 3, "FOK_UNFILLED", "", 0),
        ("ORDER_ELECTED", 1, 3, 0),
        ("TRADE", 1, 2, 1),
        ("ORDER_CANCELLED", 1, 1, "IOC_REMAINDER", "", 0),
    ]


@both
def test_a_market_stop_that_meets_nothing_is_cancelled(machine: type[Machine]) -> None:
    desk = Floor(machine())
    desk.stop(1, BUY, 3, 105, tif=TimeInForce.GTC)
    assert words(desk.print_at(105)[2:]) == [
        ("ORDER_ELECTED", 1, 3, 0),
        ("ORDER_CANCELLED", 1, 3, "MARKET_REMAINDER", "", 0),
    ]


# --- while it waits


@both
def test_a_stop_holds_the_margin_of_its_worst_price(machine: type[Machine]) -> None:
    """At the market the day's far limit, 150; the mark is 100 and the rate 50."""
    desk = Floor(machine())
    free = desk.free(1)
    order = desk.stop(1, BUY, 2, 105)
    assert free - desk.free(1) == 2 * 50 + 2 * 20 * 50
    desk.stop(1, BUY, 2, 105, price=110)
    assert free - desk.free(1) == 4 * 50 + 2 * 20 * (50 + 10)
    desk.name(CommandKind.CANCEL, 1, order)
    assert free - desk.free(1) == 2 * 50 + 2 * 20 * 10
    desk.do(pack(CommandKind.MARK, price=1100))
    assert free - desk.free(1) == 2 * 50


@both
def test_cancel_reduce_and_replace_of_a_stop_that_waits(machine: type[Machine]) -> None:
    desk = Floor(machine())
    first, second, third = (desk.stop(1, BUY, 5, 105, price=106) for _ in range(3))
    assert words(desk.name(CommandKind.CANCEL, 1, third)) == [
        ("ORDER_CANCELLED", 1, 5, "REQUESTED", "", 0)
    ]
    assert words(desk.name(CommandKind.REDUCE, 1, first, quantity=2)) == [
        ("ORDER_REDUCED", 1, 2, "REQUESTED", "", 3)
    ]
    kept = desk.name(CommandKind.REPLACE, 1, first, quantity=2, price=106)
    assert words(kept) == [("ORDER_REPLACED", 1, 2, 0)]
    assert (kept[0].reason, kept[0].b) == (1, 3)
    moved = desk.name(CommandKind.REPLACE, 1, first, quantity=2, price=107)
    assert words(moved) == [("ORDER_REPLACED", 1, 2, 0), ("ORDER_WAITING", 1, 2, 0)]
    assert elected(desk.print_at(105)) == [second, first]


@both
def test_a_replaced_market_stop_has_a_limit(machine: type[Machine]) -> None:
    desk = Floor(machine())
    desk.rest(2, SELL, 5, 108)
    order = desk.stop(1, BUY, 5, 105)
    desk.name(CommandKind.REPLACE, 1, order, quantity=4, price=107)
    desk.print_at(105)
    assert desk.machine.position(1, 0)["net"] == 0


@both
def test_a_stop_goes_on_under_a_new_id_with_its_trigger(machine: type[Machine]) -> None:
    desk = Floor(machine())
    order = desk.stop(1, BUY, 5, 105, price=106)
    terms = {"flags": int(CommandFlag.NEW_ID), "key_lo": 7, "quantity": 6, "price": 107}
    gone, accepted, waiting = desk.name(CommandKind.REPLACE, 1, order, **terms)
    assert gone.reason == CancelReason.REPLACED
    assert (accepted.b >> 16, waiting.b) == (STOP, 105)
    assert elected(desk.print_at(105)) == [accepted.order_id]


@both
def test_day_and_gtd_end_a_stop_that_waits(machine: type[Machine]) -> None:
    desk = Floor(machine())
    desk.stop(1, BUY, 5, 105, price=106, tif=TimeInForce.DAY)
    due = START + SECOND
    desk.stop(1, BUY, 6, 105, price=106, tif=TimeInForce.GTD, target_lo=due)
    assert desk.machine.next_deadline() == due
    desk.stamp = due
    events = desk.do(pack(CommandKind.CLOSE_DAY, quantity=20261121))
    assert [(e.quantity, e.reason) for e in events if e.kind == EventKind.ORDER_CANCELLED] == [
        (6, CancelReason.TIME_EXPIRED),
        (5, CancelReason.DAY_ENDED),
    ]
    assert desk.machine.position(1, 0)["hold"] == 0


@both
def test_expiry_of_the_instrument_ends_a_stop(machine: type[Machine]) -> None:
    desk = Floor(machine())
    desk.stop(1, SELL, 5, 95)
    desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CLOSED))
    assert words(desk.do(pack(CommandKind.EXPIRE, price=1000)))[1] == (
        "ORDER_CANCELLED", 1, 5, "INSTRUMENT_EXPIRED", "", 0,
    )  # fmt: skip


@both
def test_an_elected_stop_outside_the_limits_falls_dormant(machine: type[Machine]) -> None:
    desk = Floor(machine())
    desk.stop(1, BUY, 5, 105, price=140)
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=80, target_hi=120))
    assert words(desk.print_at(105)[2:]) == [
        ("ORDER_ELECTED", 1, 5, 0),
        ("ORDER_DORMANT", 1, 5, 0),
    ]
    returned = desk.do(pack(CommandKind.SET_LIMITS, target_lo=80, target_hi=150))[1]
    assert (returned.kind, returned.leaves) == (EventKind.ORDER_RETURNED, 5)


BAD: list[tuple[dict[str, int], Reason, tuple[int, int]]] = [
    ({"target_hi": 151}, Reason.TRIGGER, (150, 151)),
    ({"target_hi": -5}, Reason.TRIGGER, (50, -5)),
    ({"spare": STOP | OrderFeature.ICEBERG}, Reason.COMBINATION, (0, 0)),
    ({"flags": int(CommandFlag.POST_ONLY)}, Reason.COMBINATION, (0, 0)),
    ({"spare": 64}, Reason.SYNTAX, (0, 0)),
]


@both
@pytest.mark.parametrize(("fields", "reason", "figures"), BAD)
def test_bad_stops(
    machine: type[Machine], fields: dict[str, int], reason: Reason, figures: tuple[int, int]
) -> None:
    desk = Floor(machine())
    before = desk.machine.state_bytes(False)
    (event,) = desk.enter(1, BUY, 5, 100, **{"spare": STOP, "target_hi": 105, **fields})
    assert (event.reason, (event.a, event.b)) == (reason, figures)
    assert desk.machine.state_bytes(False) == before


@both
def test_features_are_part_of_a_repeat(machine: type[Machine]) -> None:
    desk = Floor(machine())
    fields = {"spare": STOP, "target_hi": 105, "key_lo": 7}
    first, _ = desk.enter(1, BUY, 5, 106, **fields)
    (again,) = desk.enter(1, BUY, 5, 106, **fields)
    assert (again.flags & EventFlag.DUPLICATE, again.b, again.leaves) == (4, first.b, 5)
    (other,) = desk.enter(1, BUY, 5, 106, **{**fields, "spare": 8})
    assert other.reason == Reason.DUPLICATE_DIFFERENT


# --- self-trade prevention


@both
@pytest.mark.parametrize("mode", SELF_TRADES)
def test_an_elected_stop_never_trades_with_its_own(machine: type[Machine], mode: SelfTrade) -> None:
    """The same as the order that comes in by itself: his 5, own 4, his 3, and 10 come in."""
    desk = Floor(machine())
    desk.rest(2, SELL, 5, 106)
    desk.rest(1, SELL, 4, 106)
    desk.rest(3, SELL, 3, 106)
    desk.stop(1, BUY, 10, 105, price=106, stp=mode)
    tail = [("ORDER_ELECTED", *row[1:]) if row[0] == "ORDER_ACCEPTED" else row
            for row in SELF_TRADES[mode]]  # fmt: skip
    assert words(desk.print_at(105)[2:]) == tail


# --- halts and slices


@both
def test_stops_elected_when_trading_ends_wait_for_it(machine: type[Machine]) -> None:
    """A cancel-only market lets none in, and goes on where it was."""
    desk = Floor(machine())
    orders = crowd(desk, Limit.ELECTIONS + 2, range(105, 106))
    assert elected(desk.print_at(105)) == orders[: Limit.ELECTIONS]
    assert desk.machine.next_deadline() == START + Limit.ELECTION_NS
    desk.do(pack(CommandKind.SET_MODE, tif=Mode.CANCEL_ONLY))
    assert desk.machine.next_deadline() == 0
    desk.do(pack(CommandKind.SET_MODE, tif=Mode.NORMAL))
    assert elected(desk.print_at(105)) == []  # not before they are due
    desk.do(pack(CommandKind.SET_MODE, tif=Mode.CANCEL_ONLY))
    desk.stamp += SECOND
    assert elected(desk.do(pack(CommandKind.ADVANCE_TIME))) == []
    desk.name(CommandKind.CANCEL, 8, orders[-1])
    assert elected(desk.do(pack(CommandKind.SET_MODE, tif=Mode.NORMAL))) == orders[-2:-1]
    assert desk.machine.next_deadline() == 0


def crowd(desk: Floor, count: int, triggers: range, instrument: int = 0) -> list[int]:
    """As many sell stops of account 8 at each trigger, and bids of account 2 for them all."""
    fields = {"account": 8, "side": SELL, "quantity": 1, "price": 60, "spare": STOP}
    key, bids = instrument << 32, count * len(triggers)
    desk.do(
        pack(CommandKind.SET_RISK, instrument=instrument, quantity=1 << 20, session=1 << 20),
        pack(CommandKind.OPEN_ACCOUNT, account=8, instrument=8, session=8, quantity=20_000,
             target_hi=1),
        pack(CommandKind.DEPOSIT, account=8, price=1 << 40),
        pack(CommandKind.DEPOSIT, account=2, price=1 << 40),
        pack(CommandKind.ENTER, account=2, instrument=instrument, quantity=bids, price=90,
             key_lo=key + 1),
    )  # fmt: skip
    events = desk.do(
        *(
            pack(CommandKind.ENTER, **fields, instrument=instrument, target_hi=trigger,
                 key_lo=key + number, key_hi=trigger)
            for trigger in triggers
            for number in range(count)
        )
    )  # fmt: skip
    return [event.order_id for event in events if event.kind == EventKind.ORDER_WAITING]


def list_another(desk: Floor) -> None:
    """Instrument 1, as instrument 0."""
    desk.do(
        pack(CommandKind.LIST, instrument=1, price=1000, quantity=2, session=10, account=1,
             operator=1, target_lo=50, target_hi=150),
        pack(CommandKind.SET_STATE, instrument=1, tif=TradingState.CONTINUOUS),
    )  # fmt: skip


def test_ten_thousand_stops_come_in_by_slices_in_their_order() -> None:
    """Ten slices, half a millisecond of log time apart; between them others trade."""
    desk = Floor(Engine())
    orders = crowd(desk, 1000, range(105, 95, -1))
    assert len(orders) == 10_000
    seen: list[int] = []
    events = desk.print_at(94)
    while True:
        slice_of = elected(events)
        assert len(slice_of) <= Limit.ELECTIONS
        seen += slice_of
        if not desk.machine.next_deadline():
            break
        desk.stamp = desk.machine.next_deadline()
        events = desk.do(pack(CommandKind.ADVANCE_TIME))
    assert seen == orders
    assert desk.stamp == START + 9 * Limit.ELECTION_NS
    assert desk.machine.position(8, 0)["net"] == -10_000


@both
def test_elected_stops_that_expire_when_they_are_due_do_not_come_in(machine: type[Machine]) -> None:
    """Orders go before elected stops of the same stamp: the last one leaves nothing that is due."""
    desk = Floor(machine())
    due = START + Limit.ELECTION_NS
    first = crowd(desk, Limit.ELECTIONS, range(105, 106))
    expiring = {"tif": TimeInForce.GTD, "target_lo": due}
    late = [desk.stop(1, SELL, 1, 105, price=60, **expiring) for _ in range(3)]
    resting = desk.rest(3, BUY, 1, 70, **expiring)
    assert elected(desk.print_at(105)) == first
    assert desk.machine.next_deadline() == due
    desk.stamp = due
    events = desk.do(pack(CommandKind.ADVANCE_TIME))
    assert [e.order_id for e in events[:-1]] == [*late, resting]
    assert {e.reason for e in events[:-1]} == {CancelReason.TIME_EXPIRED}
    assert desk.machine.next_deadline() == 0


def test_slices_of_two_instruments_are_due_at_one_stamp() -> None:
    """The lower number goes first, and what it leaves over does not keep the other waiting."""
    desk = Floor(Engine())
    list_another(desk)
    one = crowd(desk, 2 * Limit.ELECTIONS + 1, range(105, 106))
    other = crowd(desk, Limit.ELECTIONS + 1, range(105, 106), instrument=1)
    assert elected(desk.print_at(105)) == one[: Limit.ELECTIONS]
    assert elected(desk.print_at(105, instrument=1)) == other[: Limit.ELECTIONS]
    desk.stamp += Limit.ELECTION_NS
    events = desk.do(pack(CommandKind.ADVANCE_TIME))
    assert elected(events) == [*one[Limit.ELECTIONS : -1], other[-1]]
    assert desk.machine.next_deadline() == desk.stamp + Limit.ELECTION_NS
    desk.stamp += Limit.ELECTION_NS
    assert elected(desk.do(pack(CommandKind.ADVANCE_TIME))) == one[-1:]


def test_a_session_ends_before_its_elected_stops_of_the_same_stamp_come_in() -> None:
    desk, grace_ms = Floor(Engine()), 1
    (opened,) = desk.do(
        pack(CommandKind.LOGON, account=1, quantity=grace_ms,
             flags=CommandFlag.CANCEL_ON_DISCONNECT)
    )  # fmt: skip
    first = crowd(desk, Limit.ELECTIONS, range(105, 106))
    late = desk.stop(1, SELL, 1, 105, price=60, session=opened.order_id)
    desk.do(pack(CommandKind.LOGOFF, account=1, session=opened.order_id))
    due = desk.stamp + grace_ms * 1_000_000
    desk.stamp = due - Limit.ELECTION_NS
    assert elected(desk.print_at(105)) == first
    assert desk.machine.next_deadline() == due
    desk.stamp = due
    ended, cancelled, _ = desk.do(pack(CommandKind.ADVANCE_TIME))
    assert ended.kind == EventKind.SESSION_ENDED
    assert (cancelled.order_id, cancelled.reason) == (late, CancelReason.DISCONNECTED)


def test_a_halt_that_ends_may_halt_stops_that_are_due_later() -> None:
    """Instrument 0 goes on, its elected stop moves the price too far, and the whole product halts:
    the stop that instrument 1 has left over waits for it to trade again, and no longer."""
    desk, halt_ns = Floor(Engine()), 600_000
    list_another(desk)
    many = crowd(desk, Limit.ELECTIONS + 1, range(105, 106), instrument=1)
    breaker = {"target_lo": 60 * SECOND}
    desk.do(
        pack(CommandKind.SET_BREAKER, tif=Breaker.CIRCUIT, price=20, quantity=1, **breaker),
        pack(CommandKind.SET_BREAKER, tif=Breaker.VELOCITY, price=5, target_hi=halt_ns, **breaker),
    )
    stop = desk.stop(1, SELL, 2, 94)
    desk.print_at(100)
    for price in (94, 93, 70):
        desk.rest(2, BUY, 1, price)
    halted = desk.enter(4, SELL, 1, 94)[-1]
    assert (halted.kind, halted.reason) == (EventKind.STATE_CHANGED, HaltCause.VELOCITY)
    desk.stamp += halt_ns - Limit.ELECTION_NS + 1  # what is left over is due after the halt
    assert elected(desk.print_at(105, instrument=1)) == many[:-1]
    desk.stamp += SECOND
    events = desk.do(pack(CommandKind.ADVANCE_TIME))
    assert elected(events) == [stop]
    causes = [(e.instrument, e.reason) for e in events if e.kind == EventKind.STATE_CHANGED]
    assert causes == [(0, HaltCause.NONE), *((n, HaltCause.CIRCUIT_BREAKER) for n in (0, 1))]
    resumed = pack(CommandKind.SET_STATE, instrument=1, tif=TradingState.CONTINUOUS)
    assert elected(desk.do(resumed)) == many[-1:]
