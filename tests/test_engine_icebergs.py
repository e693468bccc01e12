"""Icebergs by example, on engine and oracle: what is shown, refills, and what takes from where."""

from typing import Any

import pytest
from differences import Machine
from generator import pack
from oracle import Oracle
from test_engine_rules import BUY, FOK, IOC, MARKET, NEW_ID, SELL, Desk, words

from exchange.engine import Engine
from exchange.messages import (
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
    SelfTrade,
    TimeInForce,
)

both = pytest.mark.parametrize("machine", [Oracle, Engine])
ICEBERG = int(OrderFeature.ICEBERG)
SHOWN = (1 << 32) - 1


class Sea(Desk):
    """The desk, with a way to enter icebergs."""

    def ice(
        self, account: int, side: int, quantity: int, price: int, display: int, **more: int
    ) -> int:
        """An iceberg that rests whole; gives its id."""
        (event,) = self.enter(
            account, side, quantity, price, spare=ICEBERG, target_hi=display, **more
        )
        assert (event.quantity, event.leaves) == (quantity, min(display, quantity))
        assert (event.b >> 16 & 0xFF, event.b >> 32) == (ICEBERG, display)
        return event.order_id


@both
def test_depth_has_what_is_shown(machine: type[Machine]) -> None:
    desk = Sea(machine())
    desk.ice(1, SELL, 10, 105, 3)
    desk.rest(2, SELL, 4, 105)
    assert desk.machine.book(0) == ([], [(105, 7, 2)])
    assert desk.machine.position(1, 0)["working_sell"] == 10


@both
def test_a_refill_goes_behind_its_price(machine: type[Machine]) -> None:
    """3 of 10 shown, his 4 behind: 5 trade 3 and 2, then the next 3 stand behind his last 2."""
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 10, 105, 3)
    other = desk.rest(2, SELL, 4, 105)
    _, first, refilled, second = desk.enter(3, BUY, 5, 105)
    assert (first.quantity, first.key_lo, first.key_hi >> 32) == (3, ice, 7)
    assert (refilled.kind, refilled.order_id) == (EventKind.ORDER_REFILLED, ice)
    assert (refilled.quantity, refilled.leaves) == (7, 3)
    assert (second.quantity, second.key_lo, second.key_hi >> 32) == (2, other, 2)
    assert [e.key_lo for e in desk.enter(3, BUY, 3, 105) if e.kind == EventKind.TRADE] == [
        other, ice,
    ]  # fmt: skip


@both
def test_one_order_takes_all_of_it(machine: type[Machine]) -> None:
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 10, 105, 4)
    assert words(desk.enter(2, BUY, 12, 105)) == [
        ("ORDER_ACCEPTED", 2, 12, 2),
        ("TRADE", 2, 4, 8),
        ("ORDER_REFILLED", 1, 6, 4),
        ("TRADE", 2, 4, 4),
        ("ORDER_REFILLED", 1, 2, 2),
        ("TRADE", 2, 2, 2),
    ]
    assert desk.name(CommandKind.CANCEL, 1, ice)[0].reason == Reason.TOO_LATE
    assert desk.machine.book(0) == ([(105, 2, 1)], [])


@both
def test_an_incoming_iceberg_trades_whole_and_shows_a_part_of_the_rest(
    machine: type[Machine],
) -> None:
    desk = Sea(machine())
    desk.rest(2, SELL, 4, 105)
    events = desk.enter(1, BUY, 10, 105, spare=ICEBERG, target_hi=5)
    assert words(events) == [("ORDER_ACCEPTED", 1, 10, 5), ("TRADE", 1, 4, 6)]
    assert desk.machine.book(0) == ([(105, 5, 1)], [])


@both
def test_a_partial_execution_keeps_the_place(machine: type[Machine]) -> None:
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 10, 105, 4)
    desk.rest(2, SELL, 4, 105)
    desk.enter(3, BUY, 1, 105)
    trade = desk.enter(3, BUY, 1, 105)[1]
    assert (trade.key_lo, trade.key_hi >> 32) == (ice, 8)


@both
@pytest.mark.parametrize(
    ("quantity", "filled"), [(14, 14), (15, 0)], ids=["just enough", "one too many"]
)
def test_fok_counts_what_is_hidden(machine: type[Machine], quantity: int, filled: int) -> None:
    desk = Sea(machine())
    desk.ice(1, SELL, 10, 105, 3)
    desk.rest(2, SELL, 4, 105)
    desk.enter(3, BUY, quantity, 105, tif=FOK)
    assert desk.machine.position(3, 0)["net"] == filled


@both
def test_fok_meets_its_own_before_what_is_hidden(machine: type[Machine]) -> None:
    """3 shown, then its own order: the 7 hidden ones would come behind that."""
    desk = Sea(machine())
    desk.ice(1, SELL, 10, 105, 3)
    desk.rest(3, SELL, 4, 105)
    assert words(desk.enter(3, BUY, 4, 105, tif=FOK))[1] == (
        "ORDER_CANCELLED", 3, 4, "FOK_UNFILLED", "", 0,
    )  # fmt: skip
    desk.enter(3, BUY, 10, 105, tif=FOK, stp=SelfTrade.CANCEL_OLDEST)
    assert desk.machine.position(3, 0)["net"] == 10


# --- changes


@both
def test_a_cancel_says_how_many_were_hidden(machine: type[Machine]) -> None:
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 10, 105, 3)
    (event,) = desk.name(CommandKind.CANCEL, 1, ice)
    assert (event.quantity, event.b, event.flags & EventFlag.RESTING) == (10, 7, 8)
    assert desk.machine.position(1, 0)["hold"] == 0


REDUCTIONS = [(5, 5, 3, 2), (7, 7, 3, 0), (8, 7, 2, 0)]  # lots: hidden ones, then shown, hidden


@both
@pytest.mark.parametrize(("lots", "taken", "shown", "left"), REDUCTIONS)
def test_a_reduction_takes_hidden_lots_first_and_keeps_the_place(
    machine: type[Machine], lots: int, taken: int, shown: int, left: int
) -> None:
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 10, 105, 3)
    desk.rest(2, SELL, 4, 105)
    (event,) = desk.name(CommandKind.REDUCE, 1, ice, quantity=lots)
    assert (event.kind, event.quantity) == (EventKind.ORDER_REDUCED, lots)
    assert (event.leaves, event.b) == (shown + left, taken)
    assert desk.machine.book(0) == ([], [(105, shown + 4, 2)])
    assert desk.enter(3, BUY, 1, 105)[1].key_lo == ice


@both
def test_a_replace_that_makes_it_smaller_keeps_the_place(machine: type[Machine]) -> None:
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 10, 105, 3)
    desk.rest(2, SELL, 4, 105)
    (event,) = desk.name(CommandKind.REPLACE, 1, ice, quantity=5, price=105)
    assert (event.reason, event.leaves) == (1, 3)
    assert (event.b & SHOWN, event.b >> 32) == (3, 7)
    (event,) = desk.name(CommandKind.REPLACE, 1, ice, quantity=9, price=105)
    assert (event.reason, event.leaves) == (0, 3)
    assert (event.b & SHOWN, event.b >> 32) == (3, 2)
    assert desk.machine.book(0) == ([], [(105, 7, 2)])


@both
def test_a_new_id_shows_as_much_as_the_old_one(machine: type[Machine]) -> None:
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 10, 105, 3)
    terms = {"flags": NEW_ID, "key_lo": 7, "quantity": 12, "price": 106}
    gone, accepted = desk.name(CommandKind.REPLACE, 1, ice, **terms)
    assert (gone.quantity, gone.b) == (10, 7)
    assert (accepted.quantity, accepted.leaves, accepted.b >> 32) == (12, 3, 3)


@both
def test_dormant_icebergs_keep_what_they_hide(machine: type[Machine]) -> None:
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 10, 140, 3)
    (dormant,) = desk.do(pack(CommandKind.SET_LIMITS, target_lo=80, target_hi=120))[1:]
    assert (dormant.quantity, dormant.leaves) == (10, 3)
    (event,) = desk.name(CommandKind.REDUCE, 1, ice, quantity=2)
    assert (event.leaves, event.b) == (8, 2)
    (returned,) = desk.do(pack(CommandKind.SET_LIMITS, target_lo=80, target_hi=150))[1:]
    assert (returned.quantity, returned.leaves) == (8, 3)


BAD: list[tuple[dict[str, int], Reason, tuple[int, int]]] = [
    ({"target_hi": 11}, Reason.DISPLAY, (10, 11)),
    ({"target_hi": 0}, Reason.DISPLAY, (1, 0)),
    ({"quantity": 129, "target_hi": 2}, Reason.DISPLAY, (3, 2)),
    ({"tif": IOC}, Reason.COMBINATION, (0, 0)),
    ({"tif": FOK}, Reason.COMBINATION, (0, 0)),
]


@both
@pytest.mark.parametrize(("fields", "reason", "figures"), BAD)
def test_bad_displays(
    machine: type[Machine], fields: dict[str, int], reason: Reason, figures: tuple[int, int]
) -> None:
    desk = Sea(machine())
    terms = {"quantity": 10, "price": 100, "spare": ICEBERG, "target_hi": 3, **fields}
    (event,) = desk.do(pack(CommandKind.ENTER, account=1, key_lo=7, **terms))
    assert (event.reason, (event.a, event.b)) == (reason, figures)


@both
def test_a_replace_may_not_ask_for_too_many_refills(machine: type[Machine]) -> None:
    desk = Sea(machine())
    ice = desk.ice(1, SELL, 128, 105, 2)
    (event,) = desk.name(CommandKind.REPLACE, 1, ice, quantity=129, price=105)
    assert (event.reason, event.a, event.b) == (Reason.DISPLAY, 3, 2)


@both
def test_icebergs_full(machine: type[Machine]) -> None:
    desk = Sea(machine())
    desk.do(pack(CommandKind.SET_RISK, quantity=100_000, session=500))
    ids = [desk.ice(1, SELL, 2, 105, 1) for _ in range(Limit.ICEBERGS)]
    (event,) = desk.enter(1, SELL, 2, 105, spare=ICEBERG, target_hi=1)
    assert (event.reason, event.a, event.b) == (Reason.ICEBERGS_FULL, 256, 256)
    desk.name(CommandKind.CANCEL, 1, ids[0])
    desk.ice(1, SELL, 2, 105, 1)


# --- self-trade prevention

SELF_TRADES: dict[SelfTrade, list[tuple[Any, ...]]] = {
    SelfTrade.CANCEL_NEWEST: [("ORDER_CANCELLED", 1, 5, "SELF_TRADE", "", 0)],
    SelfTrade.CANCEL_OLDEST: [
        ("ORDER_CANCELLED", 1, 10, "SELF_TRADE", "resting", 0),
        ("TRADE", 1, 4, 1),
    ],
    SelfTrade.CANCEL_BOTH: [
        ("ORDER_CANCELLED", 1, 10, "SELF_TRADE", "resting", 0),
        ("ORDER_CANCELLED", 1, 5, "SELF_TRADE", "", 0),
    ],
    SelfTrade.DECREMENT: [
        ("ORDER_REDUCED", 1, 5, "SELF_TRADE", "resting", 5),
        ("ORDER_CANCELLED", 1, 5, "SELF_TRADE", "", 0),
    ],
}


@both
@pytest.mark.parametrize("mode", SELF_TRADES)
def test_meeting_an_iceberg_of_its_own(machine: type[Machine], mode: SelfTrade) -> None:
    """Own 10, 3 shown, then his 4; 5 come in. All of an order counts, shown or not."""
    desk = Sea(machine())
    desk.ice(1, SELL, 10, 105, 3)
    desk.rest(2, SELL, 4, 105)
    assert words(desk.enter(1, BUY, 5, 105, stp=mode))[1:] == SELF_TRADES[mode]
    shown = desk.machine.book(0)[1]
    left = {SelfTrade.CANCEL_NEWEST: 7, SelfTrade.DECREMENT: 7, SelfTrade.CANCEL_BOTH: 4}
    assert shown == ([(105, left[mode], 2 if left[mode] == 7 else 1)] if mode in left else [])


@both
def test_a_market_to_limit_iceberg_rests_a_part(machine: type[Machine]) -> None:
    desk = Sea(machine())
    desk.rest(2, SELL, 4, 105)
    desk.enter(1, BUY, 10, 0, spare=ICEBERG, target_hi=2, flags=MARKET, tif=TimeInForce.GTC)
    assert desk.machine.book(0) == ([(105, 2, 1)], [])


@both
def test_a_post_only_iceberg_is_judged_like_any_order(machine: type[Machine]) -> None:
    desk = Sea(machine())
    desk.rest(2, SELL, 4, 105)
    flags = int(CommandFlag.POST_ONLY)
    (event,) = desk.enter(1, BUY, 10, 105, spare=ICEBERG, target_hi=2, flags=flags)
    assert event.reason == Reason.POST_ONLY
