"""Auctions by the rules of docs/reference/engine.md, on the engine and on the oracle."""

from random import Random

import pytest
from differences import Machine, restored
from generator import pack
from oracle import Oracle
from test_matching_vectors import Desk

from exchange.engine import Engine
from exchange.messages import (
    CancelReason,
    CommandFlag,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Limit,
    Mode,
    OrderFeature,
    SelfTrade,
    TimeInForce,
    TradingState,
)

machines = pytest.mark.parametrize("machine", [Oracle, Engine])
BUY, SELL = 0, 1
REPRICED = 2


class Floor(Desk):
    """A desk whose instrument collects; accounts 1 to 4, of which 1 and 4 are one group."""

    def __init__(self, machine: Machine, state: TradingState = TradingState.AUCTION) -> None:
        super().__init__(machine, rate=10)
        self.keys = 0
        for account in range(1, 5):
            group = 1 if account == 4 else account
            self.do(
                pack(CommandKind.OPEN_ACCOUNT, account=account, instrument=account, session=group,
                     quantity=1000, target_hi=1),
                pack(CommandKind.DEPOSIT, account=account, price=1 << 40),
            )  # fmt: skip
        self.do(pack(CommandKind.SET_STATE, tif=state))

    def enter(self, account: int, side: int, price: int, lots: int, **fields: int) -> Event:
        self.keys += 1
        command = {"account": account, "side": side, "price": price, "quantity": lots, **fields}
        return self.do(pack(CommandKind.ENTER, key_lo=self.keys, **command))[0]

    def move(self, state: TradingState) -> list[Event]:
        events = self.do(pack(CommandKind.SET_STATE, tif=state))
        self.machine.check()
        return events


def told(events: list[Event], kind: EventKind) -> list[Event]:
    return [event for event in events if event.kind == kind]


@machines
def test_orders_cross_and_then_trade_at_one_price(machine: type[Machine]) -> None:
    floor = Floor(machine(), TradingState.PRE_OPEN)
    floor.enter(1, BUY, 105, 5)
    floor.enter(2, SELL, 95, 3)
    assert floor.machine.book(0) == ([(105, 5, 1)], [(95, 3, 1)])
    events = floor.move(TradingState.CONTINUOUS)
    assert [event.kind for event in events] == [
        EventKind.STATE_CHANGED, EventKind.AUCTION_UNCROSSED, EventKind.TRADE,
        EventKind.LEVEL_TAKEN, EventKind.LEVEL_TAKEN,
    ]  # fmt: skip
    trade = events[2]
    assert (trade.price, trade.quantity, trade.flags) == (105, 3, EventFlag.AUCTION)
    assert floor.machine.book(0) == ([(105, 2, 1)], [])
    assert floor.machine.position(1, 0)["net"] == 3
    assert floor.machine.position(2, 0)["net"] == -3


@machines
def test_a_closing_auction_trades_and_closes(machine: type[Machine]) -> None:
    floor = Floor(machine())
    floor.enter(1, BUY, 105, 5)
    floor.enter(2, SELL, 95, 5)
    assert told(floor.move(TradingState.CLOSED), EventKind.TRADE)
    assert floor.machine.instrument(0)["state"] == TradingState.CLOSED


@machines
@pytest.mark.parametrize("state", [TradingState.CLOSED, TradingState.HALTED])
def test_what_was_collected_stays_through_a_pause(
    machine: type[Machine], state: TradingState
) -> None:
    floor = Floor(machine(), TradingState.PRE_OPEN)
    floor.enter(1, BUY, 105, 5)
    floor.enter(2, SELL, 95, 5)
    assert not told(floor.move(state), EventKind.TRADE)
    cancel = pack(CommandKind.CANCEL, account=1, side=2, flags=CommandFlag.BY_CLIENT_ID,
                  target_lo=1)  # fmt: skip
    assert floor.do(cancel)[0].kind == EventKind.ORDER_CANCELLED
    floor.move(TradingState.CONTINUOUS)
    assert floor.machine.book(0) == ([], [(95, 5, 1)])


@machines
def test_cash_fees_and_holds_after_an_auction(machine: type[Machine]) -> None:
    floor = Floor(machine())
    floor.do(pack(CommandKind.SET_RISK, price=10, quantity=1000, session=1000, target_lo=1,
                  target_hi=2))  # fmt: skip
    floor.enter(1, BUY, 105, 5)
    floor.enter(2, SELL, 95, 5)
    trade = told(floor.move(TradingState.CONTINUOUS), EventKind.TRADE)[0]
    assert (trade.a, trade.b) == (-8, -7)  # 5 lots at 1 + 2, the odd one is the buyer's
    assert floor.machine.account(0)["cash"] == 15
    assert floor.machine.position(1, 0)["hold"] == floor.machine.position(2, 0)["hold"] == 50


@machines
@pytest.mark.parametrize("mode", list(SelfTrade))
def test_one_group_loses_the_lots_and_the_rest_trades(
    machine: type[Machine], mode: SelfTrade
) -> None:
    floor = Floor(machine())
    floor.enter(1, BUY, 105, 5, stp=mode)
    floor.enter(4, SELL, 95, 3, stp=mode)
    floor.enter(2, SELL, 96, 4, stp=mode)
    events = floor.move(TradingState.CONTINUOUS)
    lost = [(e.order_id & 0xFF, e.quantity, e.leaves, e.reason) for e in events
            if e.kind in (EventKind.ORDER_REDUCED, EventKind.ORDER_CANCELLED)]  # fmt: skip
    assert lost == [(1, 3, 2, CancelReason.SELF_TRADE), (2, 3, 0, CancelReason.SELF_TRADE)]
    assert [(e.quantity, e.leaves) for e in told(events, EventKind.TRADE)] == [(2, 0)]
    assert floor.machine.book(0) == ([], [(96, 2, 1)])


@machines
def test_the_last_of_a_level_is_cancelled_where_others_have_traded(
    machine: type[Machine],
) -> None:
    floor = Floor(machine())
    floor.enter(2, BUY, 100, 10)
    floor.enter(4, BUY, 100, 6, stp=SelfTrade.CANCEL_BOTH)
    floor.enter(1, SELL, 100, 16, stp=SelfTrade.CANCEL_BOTH)
    events = floor.move(TradingState.CONTINUOUS)
    assert [event.quantity for event in told(events, EventKind.TRADE)] == [10]
    assert [event.quantity for event in told(events, EventKind.ORDER_CANCELLED)] == [6, 6]
    assert floor.machine.book(0) == ([], [])
    floor.enter(3, BUY, 100, 1)
    floor.machine.check()
    assert floor.machine.book(0) == ([(100, 1, 1)], [])


@machines
def test_good_for_auction_ends_with_it(machine: type[Machine]) -> None:
    floor = Floor(machine())
    floor.enter(1, BUY, 90, 5, tif=TimeInForce.GFA)
    floor.enter(2, SELL, 110, 5)
    gone = told(floor.move(TradingState.CONTINUOUS), EventKind.ORDER_CANCELLED)
    assert [(e.reason, e.quantity) for e in gone] == [(CancelReason.AUCTION_ENDED, 5)]
    assert floor.machine.book(0) == ([], [(110, 5, 1)])


@machines
def test_what_is_good_for_an_auction_ends_with_it_where_it_fell_dormant(
    machine: type[Machine],
) -> None:
    floor = Floor(machine())
    low, high = (floor.machine.instrument(0)[name] for name in ("low", "high"))
    floor.enter(1, BUY, 100, 5, tif=TimeInForce.GFA)
    floor.enter(2, SELL, 99, 5)
    floor.do(pack(CommandKind.SET_LIMITS, target_lo=low, target_hi=99))
    gone = told(floor.move(TradingState.CONTINUOUS), EventKind.ORDER_CANCELLED)
    assert [(e.reason, e.account, e.flags & EventFlag.RESTING) for e in gone] == [
        (CancelReason.AUCTION_ENDED, 1, 0)
    ]
    assert not told(
        floor.do(pack(CommandKind.SET_LIMITS, target_lo=low, target_hi=high)), EventKind.TRADE
    )


@machines
def test_market_orders_go_first_and_their_rest_becomes_a_limit(machine: type[Machine]) -> None:
    floor = Floor(machine())
    floor.enter(1, BUY, 105, 5)
    market = floor.enter(2, BUY, 0, 8, flags=CommandFlag.MARKET)
    assert market.price == 2000  # held and shown at the far limit
    floor.enter(3, SELL, 95, 6)
    events = floor.move(TradingState.CONTINUOUS)
    assert [e.account for e in told(events, EventKind.TRADE)] == [2]
    again = told(events, EventKind.ORDER_REPLACED)[0]
    assert (again.price, again.leaves, again.reason) == (105, 2, REPRICED)
    assert floor.machine.book(0) == ([(105, 7, 2)], [])


@machines
def test_limits_that_move_cancel_market_orders(machine: type[Machine]) -> None:
    floor = Floor(machine())
    floor.enter(1, BUY, 0, 8, flags=CommandFlag.MARKET)
    events = floor.do(pack(CommandKind.SET_LIMITS, target_hi=1500))
    assert events[-1].reason == CancelReason.LIMITS_MOVED


@machines
def test_an_iceberg_counts_whole_and_keeps_showing_a_part(machine: type[Machine]) -> None:
    floor = Floor(machine())
    floor.enter(1, BUY, 428, 100, spare=OrderFeature.ICEBERG, target_hi=10)
    floor.enter(2, BUY, 428, 20)
    floor.enter(3, SELL, 427, 60)
    events = floor.move(TradingState.CONTINUOUS)
    assert [(e.account, e.quantity) for e in told(events, EventKind.TRADE)] == [(1, 60)]
    assert floor.machine.book(0) == ([(428, 30, 2)], [])
    assert [e.a for e in told(events, EventKind.LEVEL_TAKEN)] == [60]  # the seller's alone


@machines
@pytest.mark.parametrize(("mark", "price"), [(428, 429), (427, 427)])
def test_a_stop_that_is_reached_joins(machine: type[Machine], mark: int, price: int) -> None:
    floor = Floor(machine())
    floor.do(pack(CommandKind.MARK, price=mark))
    floor.enter(1, BUY, 428, 60)
    floor.enter(2, SELL, 427, 60)
    floor.enter(2, SELL, 429, 20)
    floor.enter(3, BUY, 430, 60, spare=OrderFeature.STOP, target_hi=428)
    events = floor.move(TradingState.CONTINUOUS)
    assert {e.price for e in told(events, EventKind.TRADE)} == {price}
    assert bool(told(events, EventKind.ORDER_ELECTED)) == (mark == 428)


@machines
def test_an_auction_elects_stops_so_many_times(machine: type[Machine]) -> None:
    """Each stop that joins moves the price to where the next is reached; the rest come in later."""
    rounds, low = int(Limit.AUCTION_ROUNDS), 400
    floor = Floor(machine())
    floor.enter(1, BUY, low, 1)
    for above in range(rounds + 6):
        floor.enter(2, SELL, low + above, 1)
    for above in range(1, rounds + 4):
        stop = {"spare": OrderFeature.STOP, "target_hi": low + above - 1}
        floor.enter(3, BUY, low + above, 500, **stop)
    events = floor.move(TradingState.CONTINUOUS)
    (uncrossed,) = told(events, EventKind.AUCTION_UNCROSSED)
    joined = told(events[: events.index(uncrossed)], EventKind.ORDER_ELECTED)
    assert [e.price for e in joined] == [low + 1 + above for above in range(rounds)]
    assert (uncrossed.price, uncrossed.a) == (low + rounds, rounds + 1)
    later = told(events[events.index(uncrossed) :], EventKind.ORDER_ELECTED)
    assert [e.price for e in later] == [low + rounds + above for above in (1, 2, 3)]


@machines
@pytest.mark.parametrize("trigger", [100, 95])
def test_a_price_that_is_not_the_auctions_elects_no_stop(
    machine: type[Machine], trigger: int
) -> None:
    """100 is found first, and then 95, with the stop that joins: a MARKET stop, which does not,
    comes in only if a trade reaches it."""
    floor = Floor(machine())
    floor.do(pack(CommandKind.MARK, price=100))
    floor.enter(1, BUY, 100, 5)
    floor.enter(1, BUY, 95, 20)
    floor.enter(2, SELL, 100, 5)
    floor.enter(2, SELL, 101, 9)
    terms = {"tif": int(TimeInForce.IOC), "flags": int(CommandFlag.MARKET)}
    waits = floor.enter(3, BUY, 0, 2, spare=OrderFeature.STOP, target_hi=trigger, **terms)
    joins = floor.enter(2, SELL, 95, 20, spare=OrderFeature.STOP, target_hi=100)
    events = floor.move(TradingState.CONTINUOUS)
    assert {e.price for e in told(events, EventKind.TRADE) if e.flags & EventFlag.AUCTION} == {95}
    elected = [e.order_id for e in told(events, EventKind.ORDER_ELECTED)]
    assert elected == [joins.order_id, *([waits.order_id] if trigger == 95 else [])]
    if trigger == 100:  # it waits as before, and is elected by the next trade there
        later = floor.do(
            pack(CommandKind.ENTER, account=1, price=100, quantity=1, key_lo=99, side=BUY)
        )
        assert [e.order_id for e in told(later, EventKind.ORDER_ELECTED)] == [waits.order_id]
        floor.machine.check()


@machines
def test_a_volatile_market_is_collected_with_what_rests(machine: type[Machine]) -> None:
    floor = Floor(machine(), TradingState.PRE_OPEN)
    floor.move(TradingState.CONTINUOUS)
    floor.enter(1, BUY, 95, 5)
    floor.enter(2, SELL, 105, 5)
    volatile = pack(CommandKind.SET_STATE, tif=TradingState.AUCTION, quantity=12)
    assert floor.do(volatile)[0].reason == 12
    floor.enter(3, BUY, 106, 2)
    shown = floor.do(pack(CommandKind.INDICATE))[0]
    assert (shown.leaves, shown.price, shown.a, shown.b) == (1, 105, 2, -3)
    assert [e.price for e in told(floor.move(TradingState.CONTINUOUS), EventKind.TRADE)] == [105]
    assert floor.machine.book(0) == ([(95, 5, 1)], [(105, 3, 1)])


def test_an_image_of_a_crossed_book() -> None:
    floor = Floor(engine := Engine())
    floor.enter(1, BUY, 105, 5, tif=TimeInForce.GFA)
    floor.enter(2, SELL, 95, 3)
    floor.enter(3, SELL, 0, 4, flags=CommandFlag.MARKET)
    other = restored(engine)
    assert other.book(0) == engine.book(0)
    state = pack(CommandKind.SET_STATE, tif=TradingState.CONTINUOUS)
    assert other.apply(state, 999, 1) == engine.apply(state, 999, 1)


GTD, DAY, MARKET = TimeInForce.GTD, TimeInForce.DAY, CommandFlag.MARKET


@machines
def test_what_was_good_till_a_time_ends_while_it_is_collected(machine: type[Machine]) -> None:
    """A limit order, a market order and a stop; none of them is in the auction."""
    floor = Floor(machine())
    due = floor.stamp + 1_000
    life = {"tif": GTD, "target_lo": due}
    stop = {"spare": OrderFeature.STOP, "target_hi": 90}
    ends = [
        floor.enter(1, BUY, 105, 5, **life),
        floor.enter(2, SELL, 0, 4, flags=MARKET, **life),
        floor.enter(2, SELL, 80, 3, **stop, **life),
    ]
    floor.enter(3, SELL, 95, 2)
    assert floor.machine.next_deadline() == due
    floor.stamp = due
    gone = told(floor.do(pack(CommandKind.INDICATE)), EventKind.ORDER_CANCELLED)
    assert [e.order_id for e in gone] == [order.order_id for order in ends]
    assert {e.reason for e in gone} == {CancelReason.TIME_EXPIRED}
    assert [bool(e.flags & EventFlag.RESTING) for e in gone] == [True, True, False]
    assert not told(floor.move(TradingState.CONTINUOUS), EventKind.TRADE)
    assert floor.machine.book(0) == ([], [(95, 2, 1)])
    assert floor.machine.next_deadline() == 0


@machines
def test_what_a_market_order_has_left_keeps_its_time(machine: type[Machine]) -> None:
    """It rests at the auction's price, and ends when the order was to end."""
    floor = Floor(machine())
    due = floor.stamp + 1_000
    market = floor.enter(1, BUY, 0, 8, flags=MARKET, tif=GTD, target_lo=due)
    floor.enter(2, SELL, 95, 6)
    floor.move(TradingState.CONTINUOUS)
    assert floor.machine.book(0) == ([(95, 2, 1)], [])
    floor.stamp = due
    (gone,) = told(floor.do(pack(CommandKind.ADVANCE_TIME)), EventKind.ORDER_CANCELLED)
    assert (gone.order_id, gone.quantity) == (market.order_id, 2)
    assert gone.reason == CancelReason.TIME_EXPIRED


@machines
@pytest.mark.parametrize("state", [TradingState.PRE_OPEN, TradingState.AUCTION])
def test_the_days_orders_end_with_it_while_they_are_collected(
    machine: type[Machine], state: TradingState
) -> None:
    floor = Floor(machine(), state)
    floor.do(pack(CommandKind.OPEN_DAY, quantity=20261121))
    limit = floor.enter(1, BUY, 105, 5, tif=DAY)
    market = floor.enter(2, SELL, 0, 4, flags=MARKET, tif=DAY)
    floor.enter(3, SELL, 95, 2)  # good till it is cancelled
    gone = floor.do(pack(CommandKind.CLOSE_DAY, quantity=20261121))[1:]
    assert [(e.order_id, e.reason) for e in gone] == [
        (limit.order_id, CancelReason.DAY_ENDED), (market.order_id, CancelReason.DAY_ENDED),
    ]  # fmt: skip
    assert not told(floor.move(TradingState.CONTINUOUS), EventKind.TRADE)
    assert floor.machine.book(0) == ([], [(95, 2, 1)])


@machines
@pytest.mark.parametrize("market", [0, 8])
def test_good_for_auction_ends_where_nothing_else_was_collected(
    machine: type[Machine], market: int
) -> None:
    floor = Floor(machine())
    floor.enter(1, BUY, 0 if market else 90, 5, tif=TimeInForce.GFA, flags=market and MARKET)
    (gone,) = told(floor.move(TradingState.CONTINUOUS), EventKind.ORDER_CANCELLED)
    assert (gone.reason, gone.quantity) == (CancelReason.AUCTION_ENDED, 5)
    assert floor.machine.book(0) == ([], [])


def test_many_accounts_buy_and_sell_in_one_auction() -> None:
    """More than the pass has room for at first, on both sides of most; and some meet themselves."""
    floors = [Floor(Oracle()), Floor(Engine())]
    draw = Random(20261121)
    accounts = range(5, 405)
    for floor in floors:
        for account in accounts:
            floor.do(
                pack(CommandKind.OPEN_ACCOUNT, account=account, instrument=account % 50,
                     session=account // 2, quantity=1000, target_hi=1),
                pack(CommandKind.DEPOSIT, account=account, price=1 << 40),
            )  # fmt: skip
        floor.do(pack(CommandKind.SET_RISK, price=10, quantity=1 << 30, session=1 << 20,
                      target_lo=2, target_hi=3))  # fmt: skip
    for account in (*accounts, *accounts):
        for side in (BUY, SELL):
            price, lots = draw.randint(96, 104), draw.randint(1, 9)
            for floor in floors:
                floor.enter(account, side, price, lots)
    slow, fast = (floor.move(TradingState.CONTINUOUS) for floor in floors)
    assert fast == slow
    assert len(told(fast, EventKind.TRADE)) > 600
    assert told(fast, EventKind.ORDER_CANCELLED)
    oracle, engine = (floor.machine for floor in floors)
    for account in accounts:
        assert oracle.position(account, 0).items() <= engine.position(account, 0).items()
        assert oracle.account(account).items() <= engine.account(account).items()


@machines
def test_an_order_whose_id_was_forgotten_leaves_its_slot_and_its_id(machine: type[Machine]) -> None:
    """Its account's window had gone on while it waited: once it has traded, the slot is the next
    one's, and the id may come again."""
    floor = Floor(machine())
    first = floor.enter(1, BUY, 105, 5)
    records = (pack(CommandKind.RECORD, account=1, key_lo=1000 + n) for n in range(300))
    floor.do(*records)
    floor.enter(2, SELL, 95, 5)
    floor.move(TradingState.CONTINUOUS)
    floor.keys = 0
    again = floor.enter(1, BUY, 90, 5)
    assert (again.kind, again.key_lo) == (EventKind.ORDER_ACCEPTED, first.key_lo)
    assert not again.flags & EventFlag.DUPLICATE
    other = floor.enter(3, BUY, 90, 5)  # the account itself takes the slot of its own oldest id
    assert other.order_id == first.order_id + (1 << 32)
    floor.machine.check()


# --- cancel-only


def mode(floor: Floor, mode: Mode) -> list[EventKind]:
    events = floor.do(pack(CommandKind.SET_MODE, tif=mode))
    floor.machine.check()
    return [EventKind(event.kind) for event in events]


@machines
def test_an_auction_waits_while_the_market_is_cancel_only(machine: type[Machine]) -> None:
    """Nothing trades: orders stay collected, whatever the state, and may be cancelled."""
    floor = Floor(machine())
    floor.enter(1, BUY, 105, 5)
    floor.enter(2, SELL, 95, 3)
    gone = floor.enter(3, SELL, 95, 4)
    mode(floor, Mode.CANCEL_ONLY)
    for state in (TradingState.CLOSED, TradingState.PRE_OPEN, TradingState.CONTINUOUS):
        assert [event.kind for event in floor.move(state)] == [EventKind.STATE_CHANGED]
    assert floor.machine.book(0) == ([(105, 5, 1)], [(95, 7, 2)])
    (event,) = floor.do(pack(CommandKind.CANCEL, account=3, side=2, target_lo=gone.order_id))
    assert event.kind == EventKind.ORDER_CANCELLED
    assert mode(floor, Mode.NORMAL) == [
        EventKind.MODE_CHANGED, EventKind.AUCTION_UNCROSSED, EventKind.TRADE,
        EventKind.LEVEL_TAKEN, EventKind.LEVEL_TAKEN,
    ]  # fmt: skip
    assert floor.machine.book(0) == ([(105, 2, 1)], [])
    assert mode(floor, Mode.NORMAL) == [EventKind.MODE_CHANGED]


@machines
def test_dormant_orders_trade_with_nobody_while_the_market_is_cancel_only(
    machine: type[Machine],
) -> None:
    floor = Floor(machine(), TradingState.CONTINUOUS)
    floor.enter(1, BUY, 110, 5)
    narrow, wide = (
        pack(CommandKind.SET_LIMITS, target_lo=0, target_hi=high) for high in (108, 200)
    )
    floor.do(narrow)
    floor.enter(2, SELL, 105, 3)
    mode(floor, Mode.CANCEL_ONLY)
    assert len(floor.do(wide)) == 1
    floor.move(TradingState.HALTED)
    assert len(floor.move(TradingState.CONTINUOUS)) == 1
    assert mode(floor, Mode.NORMAL) == [
        EventKind.MODE_CHANGED, EventKind.ORDER_RETURNED, EventKind.TRADE,
    ]  # fmt: skip
    floor.do(narrow)
    mode(floor, Mode.CANCEL_ONLY)
    floor.do(wide)
    (returned,) = told(floor.move(TradingState.AUCTION), EventKind.ORDER_RETURNED)
    assert returned.leaves == 2  # it is collected
