"""Implied prices by example, on engine and oracle; by vector: test_implied_vectors.py.

Budget: 5 seconds.
"""

from collections import Counter
from random import Random

import pytest
from differences import Machine
from generator import pack
from oracle import Oracle
from test_engine_combinations import (
    BUY,
    FLY,
    RATE,
    SCALE,
    SELL,
    SPREAD,
    STRIP,
    Desk,
    both,
    combine,
    kinds,
    rejects,
)

from exchange.engine import Engine
from exchange.messages import (
    CancelReason,
    CombinationRule,
    CommandFlag,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
    TimeInForce,
)
from exchange.messages import TradingState as State

BOOKS = {"near": 0, "far": 2, "spread": SPREAD}  # months of equal hours


def desk_of(machine: type[Machine], on: bool = True) -> Desk:
    """Instrument 3 is the spread of 0 and 2; its prices imply others."""
    desk = Desk(machine(), near=0, far=2)
    if on:
        desk.do(pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1))
    return desk


@both
def test_an_outright_trades_with_a_spread_and_the_other_month(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 4, 2690)
    events = desk.enter(1, 0, BUY, 6, 2650)
    assert kinds(events) == [
        "ORDER_ACCEPTED", *["ORDER_EXECUTED"] * 3, "LEG_TRADE", "LEG_TRADE",
    ]  # fmt: skip
    me, spread, far, near_leg, far_leg = events[1:]
    assert (me.instrument, me.price, me.quantity, me.leaves) == (0, 2650, 4, 2)
    assert (spread.account, spread.price, spread.leaves) == (2, -40, 1)
    assert (far.account, far.price, far.leaves) == (3, 2690, 0)
    assert (near_leg.price, near_leg.account, near_leg.key_hi, near_leg.flags) == (
        2_650_000,
        1,
        2,
        0,
    )
    assert (far_leg.price, far_leg.account, far_leg.key_hi) == (2_690_000, 2, 3)
    assert (near_leg.a, near_leg.b, far_leg.a, far_leg.b) == (-80, -40, -40, -40)
    assert (desk.held(1), desk.held(2), desk.held(3)) == ([4, 0, 0], [-4, 0, 4], [0, 0, -4])
    assert desk.machine.book(0)[0] == [(2650, 2, 1)]


@both
def test_no_implied_price_costs_the_house(machine: type[Machine]) -> None:
    """A rebate is paid out of the fee of who took. The leg between the resting orders has none."""
    desk = desk_of(machine)
    desk.do(*[desk.risk(number, target_lo=-15, target_hi=20) for number in (0, 2)])
    house = desk.machine.account(0)["cash"]
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 5, 2690)
    near, far = desk.enter(1, 0, BUY, 5, 2650)[-2:]
    assert (near.a, near.b, far.a, far.b) == (-5 * 20, 5 * 15, 0, 0)
    assert desk.machine.account(0)["cash"] == house + 5 * 5


@both
def test_real_orders_come_first_at_a_price(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 5, 2690)
    desk.enter(4, 0, SELL, 1, 2650)
    events = desk.enter(1, 0, BUY, 2, 2650)
    assert [e.kind for e in events[1:3]] == [EventKind.TRADE, EventKind.ORDER_EXECUTED]


@both
@pytest.mark.parametrize("book", ["off", "halted", "own", "resting", "fok"])
def test_when_nothing_is_implied(machine: type[Machine], book: str) -> None:
    """Switched off, a leg halted, one's own orders on either side, fill-or-kill."""
    desk = desk_of(machine, on=book != "off")
    desk.enter(1 if book == "own" else 2, SPREAD, SELL, 5, -40)
    desk.enter(2 if book == "resting" else 3, 2, SELL, 5, 2690)
    if book == "halted":
        desk.do(desk.state(2, State.HALTED))
    tif = TimeInForce.FOK if book == "fok" else TimeInForce.GTC
    events = desk.enter(1, 0, BUY, 2, 2650, tif=tif)
    assert EventKind.ORDER_EXECUTED not in {event.kind for event in events}


@both
def test_post_only_sees_what_is_implied(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 5, 2690)
    post_only = int(CommandFlag.POST_ONLY)
    refused = rejects(desk.enter(1, 0, BUY, 2, 2651, flags=post_only))
    assert refused == [(Reason.POST_ONLY, 2650, 2651)]
    assert rejects(desk.enter(1, 0, BUY, 2, 2649, flags=post_only)) == []


@both
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize(
    ("tif", "protected"), [(TimeInForce.GTC, 0), (TimeInForce.GTC, 1), (TimeInForce.IOC, 1)]
)
def test_a_limit_that_follows_the_best_price_meets_nobody_without_one(
    machine: type[Machine], tif: TimeInForce, protected: int, stop: bool
) -> None:
    """Not the implied price either: it would be any price of the day."""
    desk = desk_of(machine)
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 4, 3200)  # implies 3160
    flags = int(CommandFlag.MARKET) | (int(CommandFlag.PROTECTED) if protected else 0)
    terms = {"flags": flags, "tif": int(tif), "price": 5 * protected}
    if stop:
        terms |= {"spare": int(OrderFeature.STOP), "target_hi": 2650}

    def ask() -> list[Event]:
        """The order comes in, by itself or elected by a trade."""
        terms["key_lo"] = desk.key = desk.key + 1
        order = {"account": 1, "quantity": 2, "side": BUY, **terms}
        events = desk.do(pack(CommandKind.ENTER, **order))
        if stop:
            desk.enter(4, 0, BUY, 1, 2650)
            events = desk.enter(3, 0, SELL, 1, 2650, tif=TimeInForce.IOC)[2:]
        return events

    events = ask()
    assert kinds(events) == ["ORDER_ELECTED" if stop else "ORDER_ACCEPTED", "ORDER_CANCELLED"]
    assert (events[1].quantity, events[1].reason) == (2, CancelReason.MARKET_REMAINDER)
    desk.enter(4, 0, SELL, 1, 3161)
    assert executions(ask())[0] == (1, 0, 3160, 2)


def unequal(machine: type[Machine]) -> tuple[Desk, int]:
    """Account 1 bids 5 lots of a spread of months of unequal hours, which bind all but a dollar of
    what it has; -10 is implied for it."""
    desk = Desk(machine())
    desk.do(pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1))
    desk.enter(2, 0, SELL, 5, 2690)
    desk.enter(3, 1, BUY, 5, 2700)
    bid = desk.enter(1, SPREAD, BUY, 5, -20)[0].order_id
    free = desk.machine.account(1)["cash"] - desk.required(1)
    desk.do(pack(CommandKind.WITHDRAW, account=1, price=free - 1_000_000))
    return desk, bid


@both
@pytest.mark.parametrize("new_id", [0, int(CommandFlag.NEW_ID)])
@pytest.mark.parametrize("post_only", [0, int(CommandFlag.POST_ONLY)])
def test_a_replace_meets_what_is_implied_with_its_old_hold_free(
    machine: type[Machine], new_id: int, post_only: int
) -> None:
    """The order holds nothing when it comes in anew: so one that is post-only is refused."""
    desk, bid = unequal(machine)
    fields = {"account": 1, "side": 2, "target_lo": bid, "price": -10, "quantity": 5}
    replace = pack(CommandKind.REPLACE, **fields, flags=new_id | post_only, key_lo=999)
    events = desk.do(replace)
    if post_only:
        assert rejects(events) == [(Reason.POST_ONLY, -10, -10)]
    else:
        assert executions(events) == [(1, SPREAD, -10, 5), (2, 0, 2690, 5), (3, 1, 2700, 5)]


@both
def test_a_dormant_order_returns_with_its_hold_free(machine: type[Machine]) -> None:
    desk, _ = unequal(machine)
    limits = {"instrument": SPREAD, "target_hi": 6000}
    desk.do(pack(CommandKind.SET_LIMITS, **limits, target_lo=-15))
    desk.enter(2, 0, SELL, 5, 2680)  # now -20 is implied
    events = desk.do(pack(CommandKind.SET_LIMITS, **limits, target_lo=-3000))
    assert executions(events) == [(1, SPREAD, -20, 5), (2, 0, 2680, 5), (3, 1, 2700, 5)]


@both
@pytest.mark.parametrize("short", [12, 1, 0])
@pytest.mark.parametrize("own", [0, 1])
def test_what_an_order_keeps_after_an_implied_price_is_covered_too(
    machine: type[Machine], own: int, short: int
) -> None:
    """Its ten lots hold 20 dollars, and one each if the spread has a rate of its own. The one that
    is implied costs 12 more, since its legs trade far from their anchors: without them the price is
    not there, and the order never falls short."""
    held, after = 20 + 10 * own, 32 + 9 * own
    dollars = max(held, after - short)
    desk = Desk(machine())
    desk.do(
        pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1),
        *[pack(CommandKind.DEPOSIT, account=n, price=1_000_000_000_000) for n in (2, 3)],
        *[desk.risk(number) for number in (0, 1)],  # no fees
        desk.risk(SPREAD, price=own * RATE),
    )
    desk.enter(2, 0, SELL, 1, 3150)
    desk.enter(3, 1, BUY, 1, 3150)
    cash = desk.machine.account(1)["cash"]
    desk.do(pack(CommandKind.WITHDRAW, account=1, price=cash - dollars * 1_000_000))
    events = desk.enter(1, SPREAD, BUY, 10, 0)
    assert bool(executions(events)) == (short == 0)
    account = desk.machine.account(1)
    assert account["required"] == 1_000_000 * (held if short else after)
    assert account["required"] <= account["cash"]


# Dollars that two orders need together: 60 of account 5's spread, and what 6 adds by its sale
TOGETHER = {
    "alone": 60 + 5,
    "a bid of 6 works": 60 + 4,
    "its limit is 25 ticks below the mark": 60 + 5 + 93,
    "it holds the far month, with a credit": 60,
    "6 is of another member": 60,
}


@both
@pytest.mark.parametrize("case", TOGETHER)
@pytest.mark.parametrize("short", [0, 1])
def test_two_orders_of_a_member_do_not_count_on_the_same_margin(
    machine: type[Machine], short: int, case: str
) -> None:
    """Account 5 bids for the spread, 6 sells the near month to it, far from the anchors. Each has
    enough; what their member has of that 7 has lost, or a dollar more."""
    desk, free = Desk(machine()), TOGETHER[case] - short
    desk.do(pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1))
    for number in (5, 6, 7):
        member = 8 if number == 6 and "another" in case else 7
        desk.do(
            pack(
                CommandKind.OPEN_ACCOUNT, account=number, instrument=member, session=number,
                quantity=1000, target_hi=1,
            ),
            pack(CommandKind.DEPOSIT, account=number, price=20_000_000_000),
        )  # fmt: skip
    desk.do(*[desk.risk(number) for number in range(3)])  # no fees
    desk.enter(2, 2, SELL, 10, 2650)
    desk.enter(7, 2, BUY, 10, 2650)
    if "works" in case:
        desk.enter(6, 0, BUY, 1, 2651)  # holds a dollar, and its distance from the mark
    if "credit" in case:
        desk.do(desk.risk(SPREAD, price=0, key_lo=RATE))
        desk.enter(4, 1, SELL, 5, 2650)
        desk.enter(6, 1, BUY, 5, 2650)
    desk.enter(5, SPREAD, BUY, 5, 0)
    desk.enter(3, 1, BUY, 5, 3150)  # now 3150 is implied in the near month
    for number in (5, 6, 7):
        spare = desk.machine.account(number)["cash"] - desk.required(number)
        left = 0 if number == 7 else 744_000_000
        desk.do(pack(CommandKind.WITHDRAW, account=number, price=spare - left))
    of_member = [n for n in (5, 6, 7) if desk.machine.account(n)["member"] == 7]
    lost = (len(of_member) - 1) * 744_000_000 - free * 1_000_000
    desk.do(pack(CommandKind.FEE, account=7, price=lost))
    events = desk.enter(6, 0, SELL, 5, 2625 if "below" in case else 3150)
    assert rejects(events) == []
    assert bool(executions(events)) == (not short)
    accounts = [desk.machine.account(number) for number in of_member]
    excess = sum(account["cash"] - account["required"] for account in accounts)
    distance = 93 * ("below" in case)  # which the price was better than the limit
    assert excess == (59_000_000 if short else distance * 1_000_000)


@pytest.mark.parametrize("seed", range(4))
def test_no_order_brings_its_account_into_deficit(seed: int) -> None:
    """Account 1 has little more than its orders of the spread hold; the months trade far from their
    anchors, where what is implied costs more."""
    draw, desk = Random(seed), Desk(Engine())
    mark = draw.choice((2150, 3150))
    desk.do(
        pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1),
        *[pack(CommandKind.DEPOSIT, account=n, price=1_000_000_000_000) for n in (2, 3, 4)],
        *[desk.risk(number) for number in (0, 1)],  # no fees
        *[pack(CommandKind.MARK, instrument=number, price=mark * SCALE) for number in (0, 1)],
    )
    met = 0
    for _ in range(400):
        for number in (0, 1):
            price = mark + draw.randint(-6, 6)
            desk.enter(draw.randint(2, 4), number, draw.randrange(2), draw.randint(1, 5), price)
        desk.do(pack(CommandKind.MASS_CANCEL, account=1, side=2))
        lots = draw.randint(1, 12)
        spare = desk.machine.account(1)["cash"] - desk.required(1)
        spare -= int(lots * 2 * RATE * draw.uniform(1, 5))
        kind = CommandKind.WITHDRAW if spare > 0 else CommandKind.DEPOSIT
        desk.do(pack(kind, account=1, price=abs(spare)))
        events = desk.enter(1, SPREAD, draw.randrange(2), lots, draw.randint(-8, 8))
        account = desk.machine.account(1)
        assert account["required"] <= account["cash"]
        met += bool(executions(events))
    assert met > 10


@both
def test_a_post_only_order_that_keeps_its_place_meets_nobody(machine: type[Machine]) -> None:
    """A price that has come to be implied since is no reason against making it smaller."""
    desk = desk_of(machine, on=False)
    bid = desk.enter(1, 0, BUY, 5, 2650)[0].order_id
    desk.enter(2, SPREAD, SELL, 5, -40)
    desk.enter(3, 2, SELL, 5, 2690)
    desk.do(pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=1))
    fields = {"account": 1, "side": 2, "target_lo": bid, "flags": CommandFlag.POST_ONLY}
    (event,) = desk.do(pack(CommandKind.REPLACE, **fields, price=2650, quantity=3))
    assert (event.kind, event.reason, event.leaves) == (EventKind.ORDER_REPLACED, 1, 3)


@both
def test_the_switch_is_of_combinations(machine: type[Machine]) -> None:
    desk = desk_of(machine)
    on = pack(CommandKind.SET_IMPLIED, instrument=0, tif=1)
    assert rejects(desk.do(on)) == [(Reason.NOT_IMPLIED, 0, 0)]
    assert rejects(desk.do(pack(CommandKind.SET_IMPLIED, instrument=SPREAD, tif=2))) == [
        (Reason.PARAMETER_RANGE, 0, 0)
    ]


def executions(events: list[Event]) -> list[tuple[int, int, int, int]]:
    """Account, instrument, price and lots of each order's part."""
    executed = [event for event in events if event.kind == EventKind.ORDER_EXECUTED]
    return [(e.account, e.instrument, e.price, e.quantity) for e in executed]


def leg_trades(events: list[Event]) -> list[tuple[int, int, int, int, int]]:
    """Instrument, who buys, who sells, clearing price and lots of each leg."""
    out = []
    for e in events:
        if e.kind == EventKind.LEG_TRADE:
            sides = (e.account, e.key_hi) if not e.flags & EventFlag.SELL else (e.key_hi, e.account)
            out.append((e.instrument, *sides, e.price, e.quantity))
    return out


def implied_in(machine: type[Machine], number: int) -> Desk:
    """A market whose only implied prices are those of one combination."""
    desk = Desk(machine())
    desk.do(pack(CommandKind.SET_IMPLIED, instrument=number, tif=1))
    return desk


@both
def test_three_legs_make_a_butterfly(machine: type[Machine]) -> None:
    """One lot of it is two of the middle month; a lot too few of those stays in the book."""
    desk = implied_in(machine, FLY)
    desk.enter(2, 0, SELL, 9, 2640)
    desk.enter(3, 1, BUY, 5, 2630)
    desk.enter(4, 2, SELL, 9, 2660)
    events = desk.enter(1, FLY, BUY, 4, 50)
    assert executions(events) == [
        (1, FLY, 40, 2),
        (2, 0, 2640, 2),
        (3, 1, 2630, 4),
        (4, 2, 2660, 2),
    ]
    assert leg_trades(events) == [
        (0, 1, 2, 2_640_000, 2), (1, 3, 1, 2_630_000, 4), (2, 1, 4, 2_660_000, 2),
    ]  # fmt: skip
    assert EventKind.RESIDUAL_POSTED not in {event.kind for event in events}
    assert (events[0].leaves, desk.machine.book(1)[0]) == (2, [(2630, 1, 1)])


@both
@pytest.mark.parametrize("price, side, told", [(25, BUY, 2638), (25, SELL, 2637), (26, BUY, 2637)])
def test_a_price_between_ticks_is_rounded_against_who_comes(
    machine: type[Machine], price: int, side: int, told: int
) -> None:
    """The middle month of a butterfly is half of what the others leave: bids down, asks up. Who
    trades the butterfly gets the better of it."""
    desk = implied_in(machine, FLY)
    desk.enter(2, FLY, side, 3, price)
    desk.enter(3, 0, 1 - side, 3, 2640)
    desk.enter(4, 2, 1 - side, 3, 2660)
    assert desk.enter(1, 1, side, 1, told)[1:] == []  # half a lot of it does not trade
    desk.do(pack(CommandKind.MASS_CANCEL, account=1, side=2))
    events = desk.enter(1, 1, side, 4, told)
    assert executions(events)[:2] == [(1, 1, told, 4), (2, FLY, price, 2)]
    paid = sum(
        price * lots * (1 if buyer == 2 else -1)
        for _, buyer, seller, price, lots in leg_trades(events)
        if 2 in (buyer, seller)
    )
    agreed = price * 1000 * 2 * (1 if side == BUY else -1)
    assert agreed - paid in (0, 2000)
    assert desk.held(2) == ([2, -4, 2] if side == BUY else [-2, 4, -2])


@both
def test_a_strip_and_its_months(machine: type[Machine]) -> None:
    """Weighted by hours, flat price up for the buyer; the months pay what was quoted, no more."""
    desk = implied_in(machine, STRIP)
    for account, number, price in ((2, 0, 2640), (3, 1, 2650), (4, 2, 2661)):
        desk.enter(account, number, SELL, 5, price)
    hours = [744, 720, 744]
    flat = -(-sum(h * p for h, p in zip(hours, (2640, 2650, 2661), strict=True)) // sum(hours))
    assert rejects(desk.enter(1, STRIP, BUY, 1, flat - 1)) == []
    desk.do(pack(CommandKind.MASS_CANCEL, account=1, side=2))
    events = desk.enter(1, STRIP, BUY, 2, flat)
    assert executions(events)[0] == (1, STRIP, flat, 2)
    assert [leg[3] for leg in leg_trades(events)] == [2_640_000, 2_650_000, 2_661_000]
    desk.do(pack(CommandKind.MASS_CANCEL, account=4, side=2))
    desk.enter(4, STRIP, BUY, 2, 2655)
    rest = 2655 * sum(hours) - 2640 * 744 - 2650 * 720
    events = desk.enter(1, 2, SELL, 1, rest // 744)
    assert executions(events)[:2] == [(1, 2, rest // 744, 1), (4, STRIP, 2655, 1)]


@both
def test_a_ratio_spread_between_generations(machine: type[Machine]) -> None:
    """Two of one for three of the other, and both ways out of it."""
    desk = Desk(machine())
    ratio = 6
    desk.do(
        combine(ratio, {0: 2, 2: -3}, CombinationRule.DIFFERENCE),
        desk.risk(ratio, price=0), desk.state(ratio, State.CONTINUOUS),
        pack(CommandKind.SET_IMPLIED, instrument=ratio, tif=1),
    )  # fmt: skip
    desk.enter(2, 0, SELL, 7, 2650)
    desk.enter(3, 2, BUY, 7, 2600)
    events = desk.enter(1, ratio, BUY, 5, -2500)
    assert executions(events) == [(1, ratio, -2500, 2), (2, 0, 2650, 4), (3, 2, 2600, 6)]
    desk.do(*[pack(CommandKind.MASS_CANCEL, account=n, side=2) for n in (1, 2, 3)])
    desk.enter(2, ratio, SELL, 2, -2500)
    desk.enter(3, 0, BUY, 4, 2650)
    events = desk.enter(1, 2, SELL, 7, 2600)
    assert executions(events) == [(1, 2, 2600, 6), (2, ratio, -2500, 2), (3, 0, 2650, 4)]
    assert desk.held(1) == [4, 0, -12] and desk.held(2) == [-8, 0, 6] and events[0].leaves == 1


@both
def test_own_orders_imply_nothing_among_many(machine: type[Machine]) -> None:
    """Any two of the four of one self-trade group, and there is no such price."""
    for owners in ((1, 3, 4), (2, 2, 4), (2, 3, 3), (2, 3, 1)):
        desk = implied_in(machine, FLY)
        for owner, number, side, price in zip(
            owners, (0, 1, 2), (SELL, BUY, SELL), (2640, 2630, 2660), strict=True
        ):
            desk.enter(owner, number, side, 4, price)
        assert executions(desk.enter(1, FLY, BUY, 1, 100)) == []


@both
def test_an_order_trades_so_often_with_implied_prices(machine: type[Machine]) -> None:
    """Then what is left of it rests; the next one takes what still implies a price."""
    desk, most = desk_of(machine), int(Limit.IMPLIED_TRADES)
    for number in (0, 2, SPREAD):
        desk.do(desk.risk(number, quantity=1 << 20, session=1 << 20, price=0))
    desk.enter(2, SPREAD, SELL, 2 * most, 0)
    fields = {"instrument": 2, "side": SELL, "price": 2650, "quantity": 1}
    desk.do(
        *[
            pack(CommandKind.ENTER, account=3 + number % 2, key_lo=1000 + number, **fields)
            for number in range(most + 1)
        ]
    )
    events = desk.enter(1, 0, BUY, most + 1, 2650)
    assert len(executions(events)) == 3 * most and events[0].leaves == 1
    assert [lots for _, lots, _ in desk.machine.book(2)[1]] == [1]
    assert len(executions(desk.enter(1, 0, BUY, 1, 2650))) == 3


HOW: list[dict[str, int]] = [
    {}, {}, {}, {"flags": CommandFlag.POST_ONLY}, {"tif": TimeInForce.IOC},
]  # fmt: skip
MET = EventKind.ORDER_EXECUTED, EventKind.TRADE, EventKind.ORDER_REPLACED, EventKind.REJECTED
FAIR = {0: 2650, 1: 2655, 2: 2660, SPREAD: -10, STRIP: 2655, FLY: 0}


def dense(draw: Random, number: int, working: list[tuple[int, int]]) -> bytes:
    """A session's order around prices that its book's others imply, or its change of one."""
    book, side = draw.choice(list(FAIR)), draw.randrange(2)
    account = draw.randint(1, 4)
    fields = {"quantity": draw.randint(1, 4), "price": FAIR[book] + draw.randint(-6, 6)}
    if not working or draw.random() < 0.5:
        working.append((account, number))
        how = draw.choice(HOW)
        fields |= {"instrument": book, "side": side, **how}
        kind = CommandKind.ENTER
    else:
        account, named = draw.choice(working[-40:])
        kind = draw.choice([CommandKind.CANCEL, CommandKind.REPLACE, CommandKind.REPLACE])
        flags = CommandFlag.BY_CLIENT_ID
        if kind == CommandKind.CANCEL:
            fields = {}
        elif draw.random() < 0.5:
            flags |= CommandFlag.NEW_ID
            working.append((account, number))
        fields |= {"side": 2, "target_lo": named, "flags": flags}
    return pack(kind, account=account, session=1 << 16 | account, key_lo=number, **fields)


@pytest.mark.parametrize("seed", range(6))
def test_a_dense_flow_of_months_and_what_is_made_of_them(seed: int) -> None:
    """Sessions whose every order meets prices of its own book, implied ones, both or none."""
    desks = Desk(Oracle()), Desk(Engine())
    found: Counter[int] = Counter()
    for desk in desks:
        desk.do(
            *[pack(CommandKind.SET_IMPLIED, instrument=n, tif=1) for n in (SPREAD, STRIP, FLY)],
            *[pack(CommandKind.LOGON, account=n, quantity=1000) for n in range(1, 5)],
        )
    working: list[tuple[int, int]] = []
    draw = Random(seed)
    for number in range(1000, 1480, 4):
        batch = [dense(draw, number + k, working) for k in range(4)]
        for desk in desks:
            desk.stamp += 1_000_000_000
        events, same = [desk.do(*batch) for desk in desks]
        assert events == same
        found.update(event.kind for event in events)
    for number in range(5):
        said, other = (desk.machine.account(number) for desk in desks)
        assert said == {name: other[name] for name in said}
    assert min(found[kind] for kind in MET) > 10, found
