"""Mass quotes and their protection by example, on engine and oracle."""

import pytest
from differences import Machine, restored
from generator import pack
from oracle import Oracle
from test_engine_mass import LAST, Street
from test_engine_rules import BUY, DATE, IOC, NEW_ID, SECOND, SELL, words

from exchange.engine import Engine
from exchange.messages import (
    CancelReason,
    CommandFlag,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    OrderFeature,
    Reason,
    SelfTrade,
    TradingState,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
QUOTE = int(OrderFeature.QUOTE)


class Maker(Street):
    """The street, where account 1 quotes."""

    def quote(self, bid: int, bid_lots: int, ask: int, ask_lots: int, **more: int) -> list[Event]:
        fields = {
            "account": 1, "price": bid, "quantity": bid_lots, "target_lo": ask,
            "target_hi": ask_lots,
        }  # fmt: skip
        return self.do(pack(CommandKind.MASS_QUOTE, **{**fields, **more}))

    def protect(self, lots: int, window: int, product: int = 0) -> Event:
        (event,) = self.do(
            pack(
                CommandKind.SET_PROTECTION, account=1, instrument=product, quantity=lots,
                target_lo=window,
            )
        )  # fmt: skip
        return event


@both
def test_both_sides_in_one_command(machine: type[Machine]) -> None:
    desk = Maker(machine())
    head, bid, ask = desk.quote(99, 5, 101, 6, key_lo=7)
    assert (head.kind, head.price, head.quantity, head.a, head.leaves) == (
        EventKind.QUOTED, 99, 5, 101, 6,
    )  # fmt: skip
    assert [(e.kind, e.b >> 16, e.leaves) for e in (bid, ask)] == [
        (EventKind.ORDER_ACCEPTED, QUOTE, 5),
        (EventKind.ORDER_ACCEPTED, QUOTE, 6),
    ]
    assert ask.flags & LAST
    assert desk.machine.book(0) == ([(99, 5, 1)], [(101, 6, 1)])


@both
def test_an_unchanged_side_keeps_its_place_and_says_nothing(machine: type[Machine]) -> None:
    desk = Maker(machine())
    _, bid, ask = desk.quote(99, 5, 101, 6)
    desk.rest(3, BUY, 5, 99)
    assert [event.kind for event in desk.quote(99, 5, 101, 6)] == [EventKind.QUOTED]
    smaller = desk.quote(99, 4, 102, 6)
    assert [(e.order_id, e.reason) for e in smaller[1:]] == [(bid.order_id, 1), (ask.order_id, 0)]
    trade = desk.enter(4, SELL, 5, 99)[1]
    assert (trade.key_lo, trade.quantity) == (bid.order_id, 4)


@both
def test_a_larger_or_moved_side_goes_to_the_back(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.quote(99, 5, 101, 6)
    other = desk.rest(3, BUY, 5, 99)
    assert desk.quote(99, 6, 101, 6)[1].reason == 0
    assert desk.enter(4, SELL, 5, 99)[1].key_lo == other


@both
def test_a_side_that_traded_and_moves_begins_anew(machine: type[Machine]) -> None:
    desk = Maker(machine())
    _, bid, _ = desk.quote(99, 5, 101, 6)
    desk.enter(4, SELL, 2, 99)
    events = desk.quote(98, 5, 101, 6)
    assert words(events)[1:] == [
        ("ORDER_CANCELLED", 1, 3, "QUOTE", "resting", 0),
        ("ORDER_ACCEPTED", 1, 5, 5),
    ]
    assert events[2].order_id != bid.order_id
    assert desk.machine.book(0) == ([(98, 5, 1)], [(101, 6, 1)])


@both
def test_both_sides_may_jump_over_the_old_ones(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.quote(99, 5, 101, 6)
    assert len(desk.quote(103, 5, 105, 6)) == 3
    assert desk.machine.book(0) == ([(103, 5, 1)], [(105, 6, 1)])
    desk.quote(95, 5, 97, 6)
    assert desk.machine.book(0) == ([(95, 5, 1)], [(97, 6, 1)])


@both
@pytest.mark.parametrize("price", [-(1 << 63), -(1 << 60), 1 << 60, (1 << 63) - 1])
def test_the_price_of_a_side_without_lots_is_any_number(machine: type[Machine], price: int) -> None:
    """It is never multiplied: the checked build would stop where that overflows."""
    desk = Maker(machine())
    assert len(desk.quote(99, 5, price, 0)) == 2
    assert desk.machine.book(0) == ([(99, 5, 1)], [])
    assert len(desk.quote(price, 0, 101, 6)) == 3
    assert desk.machine.book(0) == ([], [(101, 6, 1)])


@both
def test_a_side_may_be_taken_back_in_any_state(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.quote(99, 5, 101, 6)
    assert words(desk.quote(0, 0, 101, 6))[1] == ("ORDER_CANCELLED", 1, 5, "QUOTE", "resting", 0)
    desk.do(pack(CommandKind.SET_STATE, tif=TradingState.HALTED))
    assert words(desk.quote(99, 5, 101, 6)) == [("NOT_TRADING", 0)]
    assert len(desk.quote(0, 0, 0, 0)) == 2
    assert desk.machine.book(0) == ([], [])


@both
def test_what_a_quote_may_not_be(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.rest(3, SELL, 5, 103)
    desk.rest(3, BUY, 5, 97)
    for fields in ({"side": 1}, {"tif": 2}, {"stp": 4}, {"spare": 1}, {"target_hi": 1 << 32}):
        assert desk.quote(99, 5, 101, 6, **fields)[0].reason == Reason.SYNTAX
    wrong = int(CommandFlag.MARKET)
    assert desk.quote(99, 5, 101, 6, flags=wrong)[0].reason == Reason.SYNTAX
    cases: list[tuple[tuple[int, int, int, int], Reason, int, int]] = [
        ((101, 5, 101, 5), Reason.CROSSED, 101, 101),
        ((103, 5, 104, 5), Reason.POST_ONLY, 103, 103),
        ((96, 5, 97, 5), Reason.POST_ONLY, 97, 97),
        ((99, 501, 101, 5), Reason.QUANTITY_RANGE, 500, 501),
        ((99, 5, 151, 5), Reason.PRICE_LIMIT, 150, 151),
    ]
    before = desk.machine.state_bytes(buckets=False)
    for given, *expected in cases:
        (event,) = desk.quote(*given)
        assert [event.reason, event.a, event.b] == expected
    assert desk.quote(99, 5, 101, 5, instrument=9)[0].reason == Reason.UNKNOWN_INSTRUMENT
    assert desk.machine.state_bytes(buckets=False) == before


@both
def test_a_repeat_is_answered(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.quote(99, 5, 101, 6, key_lo=7)
    desk.enter(4, SELL, 5, 99)
    (again,) = desk.quote(99, 5, 101, 6, key_lo=7)
    assert (again.kind, again.flags & 4) == (EventKind.QUOTED, 4)
    assert desk.quote(98, 5, 101, 6, key_lo=7)[0].reason == Reason.DUPLICATE_DIFFERENT


@both
def test_margin_is_that_of_the_larger_side(machine: type[Machine]) -> None:
    """And each quote takes the place of the last one in what it needs."""
    desk = Maker(machine())
    desk.quote(99, 20, 101, 30)
    assert desk.machine.account(1)["hold"] == 30 * 50
    desk.do(pack(CommandKind.WITHDRAW, account=1, price=100_000 - 2_000))
    (event,) = desk.quote(99, 41, 101, 41)
    assert (event.reason, event.b) == (Reason.MARGIN, 41 * 50)
    assert len(desk.quote(99, 40, 101, 40)) == 3


@both
def test_it_counts_as_open_orders(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.do(
        pack(CommandKind.OPEN_ACCOUNT, account=6, instrument=6, session=6, quantity=2, target_hi=1),
        pack(CommandKind.DEPOSIT, account=6, price=100_000),
    )
    assert len(desk.quote(99, 5, 101, 6, account=6)) == 3
    assert len(desk.quote(98, 5, 102, 6, account=6)) == 3
    (event,) = desk.quote(98, 5, 102, 6, account=6, instrument=1)
    assert (event.reason, event.a, event.b) == (Reason.OPEN_ORDERS, 2, 2)


@both
@pytest.mark.parametrize("flags", [0, NEW_ID])
def test_a_side_is_cancelled_by_its_order_id_but_not_replaced(
    machine: type[Machine], flags: int
) -> None:
    desk = Maker(machine())
    _, bid, _ = desk.quote(99, 5, 101, 6)
    (event,) = desk.name(
        CommandKind.REPLACE, 1, bid.order_id, price=98, quantity=5, flags=flags, key_lo=8
    )
    assert event.reason == Reason.QUOTE
    assert desk.name(CommandKind.CANCEL, 1, bid.order_id)[0].quantity == 5
    assert desk.name(CommandKind.CANCEL, 1, bid.order_id)[0].reason == Reason.NOT_FOUND
    assert len(desk.quote(99, 5, 101, 6)) == 2


@both
@pytest.mark.parametrize("mode", SelfTrade)
def test_self_trade_prevention_of_quotes(machine: type[Machine], mode: SelfTrade) -> None:
    desk = Maker(machine())
    desk.quote(99, 5, 101, 6)
    desk.enter(1, BUY, 4, 101, stp=mode, tif=IOC)
    left = {0: 6, 1: 0, 2: 0, 3: 2}[mode]
    assert desk.machine.position(1, 0)["working_sell"] == left
    assert desk.machine.position(1, 0)["net"] == 0


@both
def test_the_day_and_the_connection_end_quotes(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.quote(99, 5, 101, 6, tif=1)
    assert len(desk.do(pack(CommandKind.CLOSE_DAY, quantity=20261121))) == 3
    cod = int(CommandFlag.CANCEL_ON_DISCONNECT)
    session = desk.do(pack(CommandKind.LOGON, account=1, flags=cod))[0].order_id
    desk.quote(99, 5, 101, 6, session=session)
    desk.do(pack(CommandKind.LOGOFF, account=1, session=session))
    desk.stamp += 1
    gone = [e.reason for e in desk.do(pack(CommandKind.ADVANCE_TIME))][1:3]
    assert gone == [CancelReason.DISCONNECTED] * 2


# --- protection


@both
def test_a_quote_works_as_long_as_the_last_one_said(machine: type[Machine]) -> None:
    """Of another tif a side begins anew, even where nothing else of it has changed."""
    desk = Maker(machine())
    desk.quote(99, 5, 101, 6)
    _, *events = desk.quote(99, 5, 101, 6, tif=1)
    new = [e.b & 0xFF for e in events if e.kind == EventKind.ORDER_ACCEPTED]
    assert new == [1, 1]
    assert len(desk.quote(99, 5, 101, 6, tif=1)) == 1
    desk.do(pack(CommandKind.CLOSE_DAY, quantity=DATE))
    assert desk.machine.book(0) == ([], [])


@both
def test_what_a_returning_quote_takes_counts_for_its_protection(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.protect(3, SECOND)
    desk.quote(60, 0, 95, 4)
    desk.do(pack(CommandKind.SET_LIMITS, target_lo=100, target_hi=150))
    desk.rest(3, BUY, 3, 100)
    events = desk.do(pack(CommandKind.SET_LIMITS, target_lo=50, target_hi=150))
    assert [EventKind(event.kind).name for event in events] == [
        "LIMITS_CHANGED", "ORDER_RETURNED", "TRADE", "PROTECTION_CHANGED", "ORDER_CANCELLED",
    ]  # fmt: skip


@both
def test_protection_takes_every_quote_of_the_product(machine: type[Machine]) -> None:
    """At once, in one command, by instrument, bid before ask; then quoting waits for a reset."""
    desk = Maker(machine())
    assert desk.protect(8, 10 * SECOND, product=7).leaves == 0
    quotes = [desk.quote(99, 5, 101, 6, instrument=number) for number in (1, 2, 0)]
    desk.enter(3, SELL, 5, 99, instrument=1)
    head, trade, told, *gone = desk.enter(3, BUY, 4, 101, instrument=1)
    assert (trade.kind, told.kind) == (EventKind.TRADE, EventKind.PROTECTION_CHANGED)
    assert (told.instrument, told.account, told.leaves, told.b) == (7, 1, 1, 9)
    assert [e.order_id for e in gone] == [
        quotes[0][2].order_id, quotes[1][1].order_id, quotes[1][2].order_id,
    ]  # fmt: skip
    assert {e.reason for e in gone} == {CancelReason.PROTECTION}
    assert head.leaves == 0
    assert desk.machine.book(0) == ([(99, 5, 1)], [(101, 6, 1)])
    (event,) = desk.quote(99, 5, 101, 6, instrument=2)
    assert (event.reason, event.a, event.b) == (Reason.QUOTES_BLOCKED, 8, 9)
    assert len(desk.quote(0, 0, 0, 0, instrument=2)) == 1
    assert desk.rest(1, BUY, 5, 90, instrument=2)  # an order is no quote
    desk.protect(8, 10 * SECOND, product=7)
    assert len(desk.quote(99, 5, 101, 6, instrument=2)) == 3


@both
@pytest.mark.parametrize(("wait", "blocked"), [(10 * SECOND - 1, True), (10 * SECOND, False)])
def test_lots_count_within_the_window(machine: type[Machine], wait: int, blocked: bool) -> None:
    """It begins with the first lot after the last one has passed."""
    desk = Maker(machine())
    desk.protect(8, 10 * SECOND)
    desk.quote(99, 20, 101, 20)
    desk.stamp += 3 * SECOND
    desk.enter(3, SELL, 5, 99)
    desk.stamp += wait
    events = desk.enter(3, SELL, 5, 99)
    assert (events[-1].kind == EventKind.ORDER_CANCELLED) is blocked


@both
def test_orders_do_not_count(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.protect(3, SECOND)
    desk.quote(90, 5, 110, 6)
    desk.rest(1, BUY, 5, 99)
    assert len(desk.enter(3, SELL, 5, 99)) == 2


@both
def test_a_protection_is_refused(machine: type[Machine]) -> None:
    desk = Maker(machine())
    for lots, window, product in (
        (5, 0, 0),
        (0, 5, 0),
        (5, -1, 0),
        (1 << 31, 5, 0),
        (5, 5, 1 << 16),
    ):
        assert desk.protect(lots, window, product).reason == Reason.PARAMETER_RANGE
    (event,) = desk.do(pack(CommandKind.SET_PROTECTION, account=99))
    assert event.reason == Reason.UNKNOWN_ACCOUNT


@both
def test_a_mass_cancel_and_a_kill_take_quotes(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.quote(99, 5, 101, 6)
    assert desk.mass_cancel()[0].quantity == 2
    desk.quote(99, 5, 101, 6)
    assert desk.do(pack(CommandKind.KILL, account=1))[0].quantity == 2
    assert desk.quote(99, 5, 101, 6)[0].reason == Reason.ACCOUNT_KILLED


def test_quotes_are_restored() -> None:
    desk = Maker(Engine())
    desk.protect(8, 10 * SECOND)
    desk.quote(99, 5, 101, 6)
    desk.enter(3, SELL, 3, 99)
    copy = restored(desk.machine)
    fields = {"account": 1, "price": 98, "quantity": 5, "target_lo": 101, "target_hi": 6}
    batch = pack(CommandKind.MASS_QUOTE, **fields)
    batch += pack(CommandKind.ENTER, side=BUY, quantity=6, price=101, account=3, key_lo=5)
    batch += pack(CommandKind.MASS_QUOTE, **fields)
    assert copy.apply(batch, 900, 1) == desk.machine.apply(batch, 900, 1)


@both
def test_a_side_beyond_the_band_is_refused_unless_it_stands(machine: type[Machine]) -> None:
    """A quote never takes, but whoever hits it would trade at its price."""
    desk = Maker(machine())
    quoted = desk.quote(99, 5, 120, 5)
    desk.do(pack(CommandKind.SET_PROTECTIONS, price=5))
    (event,) = desk.quote(106, 5, 120, 5)
    assert (event.kind, event.reason, event.a, event.b) == (
        EventKind.REJECTED, Reason.PRICE_BAND, 105, 106,
    )  # fmt: skip
    (event,) = desk.quote(90, 5, 93, 5)
    assert (event.reason, event.a, event.b) == (Reason.PRICE_BAND, 95, 93)
    assert event.flags & EventFlag.SELL
    assert len(desk.quote(99, 5, 120, 4)) == 2  # far away is not its concern
    desk.do(pack(CommandKind.SET_PROTECTIONS))
    assert len(desk.quote(110, 5, 120, 4)) == 2
    desk.do(pack(CommandKind.CANCEL, account=1, side=2, target_lo=quoted[2].order_id))
    desk.do(pack(CommandKind.SET_PROTECTIONS, price=5), pack(CommandKind.MARK, price=80))
    assert len(desk.quote(110, 4, 0, 0)) == 2  # it keeps its place


@both
def test_a_side_counts_for_order_value_and_all_months(machine: type[Machine]) -> None:
    desk = Maker(machine())
    desk.do(pack(CommandKind.SET_PROTECTIONS, target_lo=20_000))
    (event,) = desk.quote(99, 10, 101, 10)
    assert (event.reason, event.a, event.b) == (Reason.ORDER_VALUE, 20_000, 20_200)
    assert event.flags & EventFlag.SELL and event.quantity == 10
    desk.do(pack(CommandKind.SET_PROTECTIONS, target_hi=12))
    desk.quote(99, 10, 101, 10)
    (event,) = desk.quote(99, 13, 101, 10)
    assert (event.reason, event.a, event.b) == (Reason.ALL_MONTHS_LIMIT, 12, 13)
    desk.do(pack(CommandKind.SET_PROTECTIONS, target_hi=5))
    assert len(desk.quote(99, 9, 101, 10)) == 2  # no rise, though above it still


@both
@pytest.mark.parametrize("state", [TradingState.PRE_OPEN, TradingState.AUCTION])
def test_while_orders_are_collected_a_quote_is_refused_and_taken_back(
    machine: type[Machine], state: TradingState
) -> None:
    """The sides that stand are collected as they are; to take them back is no quote."""
    desk = Maker(machine())
    desk.quote(99, 5, 101, 6)
    desk.do(pack(CommandKind.SET_STATE, tif=state))
    (event,) = desk.quote(98, 5, 102, 6)
    assert (event.reason, event.a, event.b) == (
        Reason.NOT_TRADING, TradingState.CONTINUOUS, state,
    )  # fmt: skip
    desk.enter(3, BUY, 4, 103)
    cancelled = desk.quote(0, 0, 0, 0)
    assert [event.kind for event in cancelled[1:]] == [EventKind.ORDER_CANCELLED] * 2
    uncrossed = desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS))
    assert EventKind.TRADE not in [event.kind for event in uncrossed]


@both
def test_a_quote_that_stands_trades_in_the_auction(machine: type[Machine]) -> None:
    desk = Maker(machine())
    _, _, ask = desk.quote(99, 5, 101, 6)
    desk.do(pack(CommandKind.SET_STATE, tif=TradingState.AUCTION))
    desk.enter(3, BUY, 4, 103)
    events = desk.do(pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS))
    trades = [event for event in events if event.kind == EventKind.TRADE]
    assert [(e.key_lo, e.quantity) for e in trades] == [(ask.order_id, 4)]
    assert len(desk.quote(99, 5, 101, 2)) == 1  # two lots are left, as they are
