"""Orders that only reduce and groups of two by example, on engine and oracle."""

from operator import attrgetter

import pytest
from differences import Machine, restored
from generator import pack
from oracle import Oracle
from test_engine_rules import BUY, IOC, MARKET, NEW_ID, SECOND, SELL, Desk, words

from exchange.engine import Engine
from exchange.messages import (
    CancelReason,
    CommandKind,
    Event,
    EventKind,
    OrderFeature,
    Reason,
    SelfTrade,
    TimeInForce,
    TradingState,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
REDUCES, GROUPED = int(OrderFeature.REDUCE_ONLY), int(OrderFeature.GROUPED)
FOK = int(TimeInForce.FOK)


class Holder(Desk):
    """The desk where account 1 is long 10 lots, bought from account 3 at 100."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.rest(3, SELL, 10, 100)
        self.enter(1, BUY, 10, 100)

    def grouped(self, side: int, quantity: int, price: int, other: int, **more: int) -> int:
        fields = {"spare": GROUPED, "target_hi": other, **more}
        return self.rest(1, side, quantity, price, **fields)


def refusal(events: list[Event]) -> tuple[Reason, int, int]:
    (event,) = events
    return Reason(event.reason), event.a, event.b


# --- reduce-only


@both
def test_what_would_not_reduce_is_refused(machine: type[Machine]) -> None:
    """Also what would flip the position, and what others of the side would reduce already."""
    desk = Holder(machine())
    assert refusal(desk.enter(1, BUY, 1, 90, spare=REDUCES)) == (Reason.REDUCE_ONLY, 0, 1)
    assert refusal(desk.enter(2, SELL, 1, 110, spare=REDUCES)) == (Reason.REDUCE_ONLY, 0, 1)
    assert refusal(desk.enter(1, SELL, 11, 110, spare=REDUCES)) == (Reason.REDUCE_ONLY, 10, 11)
    desk.rest(1, SELL, 4, 110)
    assert refusal(desk.enter(1, SELL, 7, 110, spare=REDUCES)) == (Reason.REDUCE_ONLY, 6, 7)
    (event,) = desk.enter(1, SELL, 6, 111, spare=REDUCES)
    assert event.b >> 16 == REDUCES


@both
def test_it_needs_no_margin_even_in_deficit(machine: type[Machine]) -> None:
    desk = Holder(machine())
    desk.do(pack(CommandKind.FEE, account=1, price=99_990))
    assert desk.enter(1, SELL, 10, 110, spare=REDUCES)[0].leaves == 10


@both
@pytest.mark.parametrize("tif", [0, IOC])
def test_a_position_closed_by_another_order_takes_it_along(
    machine: type[Machine], tif: int
) -> None:
    """The newest gives way first, at once and whole where nothing is left to reduce."""
    desk = Holder(machine())
    old = desk.rest(1, SELL, 4, 110, spare=REDUCES)
    new = desk.rest(1, SELL, 4, 109, spare=REDUCES)
    desk.rest(3, BUY, 9, 95)
    events = desk.enter(1, SELL, 5, 95, tif=tif)
    assert words(events)[2:] == [("ORDER_REDUCED", 1, 3, "REDUCE_ONLY", "resting", 1)]
    assert events[2].order_id == new
    events = desk.enter(1, SELL, 4, 95, tif=tif)
    assert words(events)[2:] == [
        ("ORDER_CANCELLED", 1, 1, "REDUCE_ONLY", "resting", 0),
        ("ORDER_REDUCED", 1, 3, "REDUCE_ONLY", "resting", 1),
    ]
    assert [event.order_id for event in events[2:]] == [new, old]


@both
@pytest.mark.parametrize(
    ("more", "told"),
    [
        (2, ("ORDER_REDUCED", 1, 1, "REDUCE_ONLY", "resting", 8)),
        (3, ("ORDER_CANCELLED", 1, 9, "REDUCE_ONLY", "resting", 0)),
    ],
)
def test_what_reduces_goes_whole_where_fewer_lots_are_of_no_use(
    machine: type[Machine], more: int, told: tuple[str, int, int, str, str, int]
) -> None:
    """The other of its group has 8, and of the two the larger counts."""
    desk = Holder(machine())
    desk.grouped(SELL, 8, 112, desk.rest(1, SELL, 9, 110, spare=REDUCES))
    assert words(desk.enter(1, SELL, more, 115))[1:] == [told]


@both
def test_a_resting_order_of_the_side_takes_its_room(machine: type[Machine]) -> None:
    """So no sweep can ever flip the position, not for a moment."""
    desk = Holder(machine())
    desk.rest(1, SELL, 10, 110, spare=REDUCES)
    assert words(desk.enter(1, SELL, 8, 108))[1:] == [
        ("ORDER_REDUCED", 1, 8, "REDUCE_ONLY", "resting", 2)
    ]
    desk.enter(3, BUY, 20, 120)
    assert desk.machine.position(1, 0)["net"] == 0


@both
def test_as_maker_it_reduces_and_the_rest_follows(machine: type[Machine]) -> None:
    desk = Holder(machine())
    desk.rest(1, SELL, 6, 110, spare=REDUCES)
    desk.rest(1, SELL, 4, 111)
    desk.enter(3, BUY, 8, 111)
    assert desk.machine.position(1, 0)["net"] == 2
    desk.enter(3, BUY, 2, 111)
    assert desk.machine.book(0)[1] == []


@both
@pytest.mark.parametrize("new_id", [0, NEW_ID])
def test_a_replacement_still_only_reduces(machine: type[Machine], new_id: int) -> None:
    desk = Holder(machine())
    order = desk.rest(1, SELL, 4, 110, spare=REDUCES)
    changes = {"price": 109, "flags": new_id, "key_lo": 9}
    events = desk.name(CommandKind.REPLACE, 1, order, quantity=11, **changes)
    assert refusal(events) == (Reason.REDUCE_ONLY, 10, 11)
    *_, last = desk.name(CommandKind.REPLACE, 1, order, quantity=10, **changes)
    assert last.leaves == 10
    assert words(desk.enter(1, SELL, 1, 108))[1][3] == "REDUCE_ONLY"


@both
@pytest.mark.parametrize("mode", SelfTrade)
def test_self_trade_prevention_of_what_reduces(machine: type[Machine], mode: SelfTrade) -> None:
    """It composes: the group of accounts never trades with itself, the position is not flipped."""
    desk = Holder(machine())
    desk.rest(1, SELL, 4, 110, spare=REDUCES)
    desk.enter(1, BUY, 6, 110, stp=mode)
    left = {0: 4, 1: 0, 2: 0, 3: 0}[mode]
    assert desk.machine.position(1, 0)["working_sell"] == left


# --- groups


@both
@pytest.mark.parametrize("lots", [1, 5])
def test_a_trade_of_one_cancels_the_other(machine: type[Machine], lots: int) -> None:
    """Wholly or in part: the other goes in the same command, right after the trade if whole."""
    desk = Holder(machine())
    one = desk.rest(1, SELL, 5, 110)
    other = desk.grouped(BUY, 5, 90, one)
    events = desk.enter(3, BUY, lots, 110)
    assert words(events)[1:] == [
        ("TRADE", 3, lots, 0),
        ("ORDER_CANCELLED", 1, 5, "GROUP", "resting", 0),
    ]
    assert events[2].order_id == other


@both
def test_one_sweep_never_takes_both(machine: type[Machine]) -> None:
    desk = Holder(machine())
    one = desk.rest(1, SELL, 5, 110)
    desk.grouped(SELL, 5, 110, one)
    desk.grouped(SELL, 5, 112, desk.rest(1, SELL, 5, 111))
    desk.rest(4, SELL, 5, 112)
    events = words(desk.enter(3, BUY, 15, 112))
    assert events == [
        ("ORDER_ACCEPTED", 3, 15, 0),
        ("TRADE", 3, 5, 10),
        ("ORDER_CANCELLED", 1, 5, "GROUP", "resting", 0),
        ("TRADE", 3, 5, 5),
        ("ORDER_CANCELLED", 1, 5, "GROUP", "resting", 0),
        ("TRADE", 3, 5, 0),
    ]
    assert desk.machine.position(1, 0)["net"] == 0


@both
@pytest.mark.parametrize("prices", [(110, 110), (110, 112), (112, 110)])
@pytest.mark.parametrize("asked", [{"tif": FOK}, {"target_hi": 8}, {"target_hi": 8, "tif": IOC}])
def test_what_must_trade_at_once_counts_one_of_a_group(
    machine: type[Machine], prices: tuple[int, int], asked: dict[str, int]
) -> None:
    desk = Holder(machine())
    one = desk.rest(1, SELL, 5, prices[0])
    desk.grouped(SELL, 5, prices[1], one)
    reason = "MINIMUM_UNFILLED" if "target_hi" in asked else "FOK_UNFILLED"
    for _ in range(2):  # counting leaves nothing behind
        assert words(desk.enter(3, BUY, 10, 112, **asked))[1:] == [
            ("ORDER_CANCELLED", 3, 10, reason, "", 0)
        ]
    desk.rest(4, SELL, 5, 112)
    traded = words(desk.enter(3, BUY, 10, 112, **asked))[1:]
    assert sum(row[2] for row in traded if row[0] == "TRADE") == 10
    assert ("ORDER_CANCELLED", 1, 5, "GROUP", "resting", 0) in traded


@both
def test_an_iceberg_of_a_group_is_counted_with_what_it_hides(machine: type[Machine]) -> None:
    desk = Holder(machine())
    fields = {"spare": int(OrderFeature.ICEBERG), "target_hi": 1}
    (berg,) = desk.enter(1, SELL, 6, 110, **fields)
    desk.grouped(SELL, 4, 110, berg.order_id)
    assert words(desk.enter(3, BUY, 7, 110, tif=FOK))[1][3] == "FOK_UNFILLED"
    traded = [row for row in words(desk.enter(3, BUY, 6, 110, tif=FOK)) if row[0] == "TRADE"]
    assert sum(row[2] for row in traded) == 6


def call(desk: Desk) -> None:
    desk.do(pack(CommandKind.SET_STATE, tif=TradingState.AUCTION))


def uncross(desk: Desk, state: int = TradingState.CONTINUOUS) -> list[Event]:
    """What follows STATE_CHANGED and AUCTION_UNCROSSED, which says what was indicated."""
    (told,) = desk.do(pack(CommandKind.INDICATE))
    _, found, *events = desk.do(pack(CommandKind.SET_STATE, tif=state))
    fields = attrgetter("price", "leaves", "a", "b")
    assert fields(told) == fields(found)
    traded = [event.quantity for event in events if event.kind == EventKind.TRADE]
    assert sum(traded) <= found.a
    return events


@both
@pytest.mark.parametrize("lots", [1, 10, 20])
@pytest.mark.parametrize("prices", [(95, 96), (96, 95), (95, 95)])
def test_an_auction_trades_one_of_a_group(
    machine: type[Machine], prices: tuple[int, int], lots: int
) -> None:
    """The first of the two: the price counts no other, so what only reduces flips nothing."""
    desk = Holder(machine())
    call(desk)
    one = desk.rest(1, SELL, 10, prices[0], spare=REDUCES)
    other = desk.grouped(SELL, 10, prices[1], one, spare=GROUPED | REDUCES)
    first, second = (one, other) if prices[0] <= prices[1] else (other, one)
    desk.rest(3, BUY, lots, 100)
    trade, gone, *_ = uncross(desk)
    assert words([trade, gone]) == [
        ("TRADE", 3, min(lots, 10), max(lots - 10, 0)),
        ("ORDER_CANCELLED", 1, 10, "GROUP", "resting", 0),
    ]
    assert (trade.key_lo, gone.order_id) == (first, second)
    assert desk.machine.position(1, 0)["net"] == max(10 - lots, 0)
    left = 10 - lots
    assert desk.machine.book(0) == (
        [(100, -left, 1)] if left < 0 else [],
        [(min(prices), left, 1)] if left > 0 else [],
    )


@both
def test_the_lots_of_a_second_one_leave_no_crossed_book(machine: type[Machine]) -> None:
    """Counted, they would move the price to 95 and leave 97 and 96 behind."""
    desk = Holder(machine())
    call(desk)
    one = desk.rest(3, BUY, 5, 100)
    desk.rest(3, BUY, 9, 97, spare=GROUPED, target_hi=one)
    desk.rest(4, BUY, 4, 96)
    desk.rest(1, SELL, 5, 94)
    desk.rest(1, SELL, 7, 96)
    events = uncross(desk)
    assert [event.quantity for event in events if event.kind == EventKind.TRADE] == [5, 4]
    assert desk.machine.book(0) == ([], [(96, 3, 1)])


@both
def test_a_market_order_is_the_first_of_a_group(machine: type[Machine]) -> None:
    desk = Holder(machine())
    call(desk)
    one = desk.rest(1, SELL, 3, 90)
    desk.rest(1, SELL, 4, 0, flags=MARKET, spare=GROUPED, target_hi=one)
    desk.rest(4, SELL, 1, 0, flags=MARKET)
    desk.rest(3, BUY, 6, 95)
    assert words(uncross(desk))[:3] == [
        ("TRADE", 3, 4, 2),
        ("ORDER_CANCELLED", 1, 3, "GROUP", "resting", 0),
        ("TRADE", 3, 1, 1),
    ]


@both
def test_what_one_of_a_group_loses_to_its_owner_counts(machine: type[Machine]) -> None:
    """All of the first meets a buy of the same owner: the second, not in the price, goes too."""
    desk = Holder(machine())
    call(desk)
    one = desk.rest(1, SELL, 4, 95)
    desk.grouped(SELL, 6, 96, one)
    desk.rest(1, BUY, 5, 100)
    desk.rest(3, BUY, 2, 99)
    assert words(uncross(desk))[:3] == [
        ("ORDER_REDUCED", 1, 4, "SELF_TRADE", "resting", 1),
        ("ORDER_CANCELLED", 1, 4, "SELF_TRADE", "resting", 0),
        ("ORDER_CANCELLED", 1, 6, "GROUP", "resting", 0),
    ]
    assert desk.machine.book(0) == ([(100, 1, 1), (99, 2, 1)], [])


@both
@pytest.mark.parametrize("market", [0, MARKET])
@pytest.mark.parametrize(("bought", "sold"), [(3, 5), (5, 3), (4, 4)])
def test_two_of_a_group_that_cross_meet_before_the_others(
    machine: type[Machine], bought: int, sold: int, market: int
) -> None:
    """What is left of one is alone then, and is all that the price counted."""
    desk = Holder(machine())
    call(desk)
    one = desk.rest(1, SELL, sold, 95)
    price = 0 if market else 96
    desk.grouped(BUY, bought, price, one, flags=market)
    desk.rest(3, BUY, 1, 99)
    desk.rest(4, SELL, 1, 94)
    events = uncross(desk)
    lost = min(bought, sold)
    assert [(e.quantity, e.leaves) for e in events[:2]] == [
        (lost, bought - lost),
        (lost, sold - lost),
    ]
    assert all(e.reason == CancelReason.SELF_TRADE for e in events[:2])
    assert sum(row[2] for row in words(events) if row[0] == "TRADE") == 1
    desk.machine.check()


@both
def test_an_auction_takes_the_other_of_a_group_off_the_other_side(machine: type[Machine]) -> None:
    """They do not cross, so one auction can trade one of them at most."""
    desk = Holder(machine())
    call(desk)
    one = desk.rest(1, SELL, 4, 95)
    desk.rest(3, BUY, 2, 101)
    desk.grouped(BUY, 5, 90, one)
    desk.rest(4, BUY, 3, 100)
    desk.rest(2, SELL, 3, 96)
    events = words(uncross(desk))
    assert [row for row in events if row[0] != "LEVEL_TAKEN"] == [
        ("TRADE", 3, 2, 0),
        ("ORDER_CANCELLED", 1, 5, "GROUP", "resting", 0),
        ("TRADE", 4, 2, 1),
        ("TRADE", 4, 1, 0),
    ]
    assert desk.machine.book(0) == ([], [(96, 2, 1)])


@both
def test_a_stop_that_joins_an_auction_takes_the_others_place(machine: type[Machine]) -> None:
    """A bracket: the price elects the stop, which comes before the limit order then."""
    desk = Holder(machine())
    stop = desk.enter(1, SELL, 10, 90, spare=int(OrderFeature.STOP), target_hi=95)[0].order_id
    desk.grouped(SELL, 10, 92, stop)
    call(desk)
    desk.rest(3, BUY, 10, 93)
    desk.rest(4, SELL, 3, 92)
    events = desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS))
    kinds = [EventKind(event.kind).name for event in events]
    assert kinds[:5] == [
        "STATE_CHANGED", "ORDER_ELECTED", "AUCTION_UNCROSSED", "TRADE", "ORDER_CANCELLED",
    ]  # fmt: skip
    assert desk.machine.position(1, 0)["net"] == 0


@both
@pytest.mark.parametrize("lots", [3, 8])
def test_an_incoming_order_of_a_group_cancels_the_other(machine: type[Machine], lots: int) -> None:
    desk = Holder(machine())
    desk.rest(3, BUY, 3, 95)
    one = desk.rest(1, BUY, 5, 90)
    events = desk.enter(1, SELL, lots, 95, spare=GROUPED, target_hi=one)
    assert words(events)[2:] == [("ORDER_CANCELLED", 1, 5, "GROUP", "resting", 0)]
    assert events[0].leaves == lots - 3


@both
def test_a_cancelled_order_leaves_the_other_alone(machine: type[Machine]) -> None:
    """And that one may be grouped anew."""
    desk = Holder(machine())
    one = desk.rest(1, SELL, 5, 110)
    desk.name(CommandKind.CANCEL, 1, desk.grouped(BUY, 5, 90, one))
    assert len(desk.enter(3, BUY, 1, 110)) == 2
    other = desk.grouped(BUY, 5, 90, one)
    assert refusal(desk.enter(1, BUY, 5, 90, spare=GROUPED, target_hi=one))[0] == Reason.GROUP
    *_, new = desk.name(CommandKind.REPLACE, 1, other, price=91, quantity=2, flags=NEW_ID, key_lo=9)
    assert new.b >> 16 == GROUPED
    events = desk.enter(3, BUY, 1, 110)
    assert (events[2].order_id, events[2].quantity) == (new.order_id, 2)


@both
def test_groups_cross_instruments(machine: type[Machine]) -> None:
    desk = Holder(machine())
    desk.do(
        pack(
            CommandKind.LIST, instrument=1, price=1000, quantity=2, session=10, account=1,
            operator=1, target_lo=50, target_hi=150,
        ),
        pack(CommandKind.SET_RISK, instrument=1, price=50, quantity=1000, session=500),
        pack(CommandKind.SET_STATE, instrument=1, tif=3),
    )  # fmt: skip
    one = desk.rest(1, BUY, 5, 90, instrument=1)
    desk.grouped(BUY, 5, 90, one)
    (gone,) = [e for e in desk.enter(3, SELL, 5, 90) if e.instrument == 1]
    assert gone.order_id == one


@both
def test_a_bracket_reduces_once(machine: type[Machine]) -> None:
    """Two that only reduce the same lots, grouped: the larger counts, one sweep takes one."""
    desk = Holder(machine())
    one = desk.rest(1, SELL, 10, 110, spare=REDUCES)
    desk.grouped(SELL, 10, 105, one, spare=GROUPED | REDUCES)
    assert refusal(desk.enter(1, SELL, 1, 110, spare=REDUCES)) == (Reason.REDUCE_ONLY, 0, 1)
    desk.rest(3, BUY, 2, 100)
    events = words(desk.enter(1, SELL, 2, 100))
    assert [row[:4] for row in events[2:]] == [
        ("ORDER_REDUCED", 1, 2, "REDUCE_ONLY"),
        ("ORDER_REDUCED", 1, 2, "REDUCE_ONLY"),
    ]
    desk.enter(3, BUY, 20, 120, tif=IOC)
    assert desk.machine.position(1, 0)["net"] == 0


@both
def test_a_returning_order_takes_one_of_a_group(machine: type[Machine]) -> None:
    """Two dormant orders of a group come back into one bid: one trades, the other is gone."""
    desk = Holder(machine())
    one = desk.rest(1, SELL, 5, 140)
    desk.grouped(SELL, 5, 141, one)
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=50, target_hi=120))
    desk.do(pack(CommandKind.SET_STATE, tif=4))
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=50, target_hi=150))
    desk.do(pack(CommandKind.SET_STATE, tif=3))
    events = desk.enter(3, BUY, 20, 145, tif=IOC)
    assert [row[0] for row in words(events)] == [
        "ORDER_ACCEPTED", "TRADE", "ORDER_CANCELLED", "ORDER_CANCELLED",
    ]  # fmt: skip


@both
def test_what_a_group_may_not_be(machine: type[Machine]) -> None:
    desk = Holder(machine())
    mine, his = desk.rest(1, SELL, 5, 110), desk.rest(3, SELL, 5, 110)
    for other in (0, 99, his, mine + (1 << 32), 1 << 63):
        assert refusal(desk.enter(1, BUY, 5, 90, spare=GROUPED, target_hi=other))[0] == Reason.GROUP
    for tif in (IOC, FOK):
        events = desk.enter(1, BUY, 5, 90, spare=GROUPED, target_hi=mine, tif=tif)
        assert refusal(events)[0] == Reason.COMBINATION
    (event,) = desk.enter(1, BUY, 5, 90, spare=64)
    assert event.reason == Reason.SYNTAX
    market = desk.enter(1, BUY, 5, 0, spare=GROUPED, target_hi=mine, flags=MARKET, tif=IOC)
    assert refusal(market)[0] == Reason.COMBINATION


@both
def test_the_same_order_with_another_feature_is_another(machine: type[Machine]) -> None:
    desk = Holder(machine())
    fields = {"key_lo": 777}
    desk.rest(1, SELL, 5, 110, spare=REDUCES, **fields)
    (again,) = desk.enter(1, SELL, 5, 110, spare=REDUCES, **fields)
    assert (again.flags & 4, again.b >> 16) == (4, REDUCES)
    assert refusal(desk.enter(1, SELL, 5, 110, **fields))[0] == Reason.DUPLICATE_DIFFERENT


@both
def test_a_time_that_ends_one_leaves_the_other(machine: type[Machine]) -> None:
    desk = Holder(machine())
    one = desk.rest_until(1, desk.stamp + SECOND)
    other = desk.grouped(SELL, 5, 110, one)
    desk.stamp += SECOND
    desk.do(pack(CommandKind.ADVANCE_TIME))
    assert len(desk.enter(3, BUY, 1, 110)) == 2
    assert desk.name(CommandKind.CANCEL, 1, other)[0].quantity == 4


def test_special_orders_are_restored() -> None:
    desk = Holder(Engine())
    one = desk.rest(1, SELL, 5, 110, spare=REDUCES)
    desk.grouped(SELL, 5, 111, one, spare=GROUPED | REDUCES)
    desk.rest(1, SELL, 4, 112, spare=REDUCES)
    copy = restored(desk.machine)
    batch = pack(CommandKind.ENTER, side=BUY, quantity=9, price=115, account=3, key_lo=5)
    assert copy.apply(batch, 900, 1) == desk.machine.apply(batch, 900, 1)
