"""The credit of calendar spreads by example, on engine and oracle, and that no trade needs money.

Month 0 and month 1 of one product, and their spread: the market of test_engine_combinations. A lot
of either month holds 1,000,000, a pair 600,000 less than two lots.
"""

from random import Random

import pytest
from differences import Machine, restored
from generator import pack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine_combinations import (
    BUY,
    MARK,
    RATE,
    SCALE,
    SELL,
    SPREAD,
    STAMP,
    STRIP,
    Desk,
    both,
    combine,
    kinds,
    rejects,
)

from exchange.engine import Engine
from exchange.messages import (
    CombinationRule,
    CommandFlag,
    CommandKind,
    EventKind,
    Limit,
    OrderFeature,
    Reason,
    Side,
    TradingState,
    TransferKind,
)

AT = MARK // SCALE  # the mark in ticks: no order has adverse distance
CREDIT = 600_000
PAIR = 2 * RATE - CREDIT
CASH = 10_000_000_000
TRADER, OTHER, THIRD = 1, 2, 3


def spared(desk: Desk, credit: int = CREDIT, number: int = SPREAD) -> list[str]:
    """Give a spread its credit."""
    return kinds(desk.do(desk.risk(number, price=0, key_lo=credit)))


def open_desk(machine: type[Machine]) -> Desk:
    desk = Desk(machine())
    assert spared(desk) == ["RISK_CHANGED"]
    return desk


def trade(desk: Desk, number: int, lots: int, price: int = AT) -> None:
    """The trader buys lots from the other account; sells them if below 0."""
    side = BUY if lots > 0 else SELL
    desk.enter(OTHER, number, 1 - side, abs(lots), price)
    desk.enter(TRADER, number, side, abs(lots), price)


def pairs(desk: Desk, lots: int) -> None:
    trade(desk, 0, lots)
    trade(desk, 1, -lots)


def free(desk: Desk, account: int = TRADER) -> int:
    figures = desk.machine.account(account)
    return figures["cash"] - figures["required"]


def cancel(key: int, account: int = TRADER) -> bytes:
    return pack(
        CommandKind.CANCEL, account=account, side=Side.UNSTATED, flags=CommandFlag.BY_CLIENT_ID,
        target_lo=key,
    )  # fmt: skip


def leave(desk: Desk, amount: int) -> None:
    """Withdraw all that is free but so much."""
    desk.do(pack(CommandKind.WITHDRAW, account=TRADER, price=free(desk) - amount))
    assert free(desk) == amount


@both
@pytest.mark.parametrize("price", [0, -40, 30])
def test_an_order_of_the_spread_holds_what_its_pairs_will(
    machine: type[Machine], price: int
) -> None:
    """Its adverse distance, then its loss, is all that there is besides."""
    desk = open_desk(machine)
    desk.enter(OTHER, SPREAD, SELL, 5, price)
    event = desk.enter(TRADER, SPREAD, BUY, 5, price)[0]
    assert event.kind == EventKind.ORDER_ACCEPTED
    assert desk.held(TRADER) == [5, -5, 0]
    loss = max(0, -desk.machine.account(TRADER)["unrealized"])
    assert desk.required(TRADER) == 5 * PAIR + loss
    assert desk.machine.account(TRADER)["credit"] == 5 * CREDIT
    assert desk.machine.account(TRADER)["hold"] == 5 * PAIR
    assert desk.machine.position(TRADER, 0)["hold"] == 5 * RATE


@both
def test_what_rests_is_credited_as_it_will_be(machine: type[Machine]) -> None:
    desk = open_desk(machine)
    desk.enter(TRADER, SPREAD, BUY, 5, 0)
    assert desk.required(TRADER) == 5 * PAIR
    desk.enter(TRADER, 0, BUY, 3, AT)
    assert desk.required(TRADER) == 5 * PAIR + 3 * RATE
    desk.enter(TRADER, 1, SELL, 4, AT)
    assert desk.required(TRADER) == 8 * PAIR + RATE
    desk.do(cancel(desk.key))
    assert desk.required(TRADER) == 5 * PAIR + 3 * RATE


@both
def test_legs_bought_and_sold_alone_pair_as_well(machine: type[Machine]) -> None:
    desk = open_desk(machine)
    trade(desk, 0, 7)
    trade(desk, 1, -4)
    assert desk.required(TRADER) == 4 * PAIR + 3 * RATE
    trade(desk, 1, -3)
    assert desk.required(TRADER) == desk.required(OTHER) == 7 * PAIR


@both
def test_who_has_nothing_free_may_still_get_out(machine: type[Machine]) -> None:
    """By a leg, by the spread, or by quoting both: what only reduces shrinks no credit."""
    desk = open_desk(machine)
    pairs(desk, 6)
    leave(desk, 100)
    for number, side, lots in ((0, SELL, 2), (1, BUY, 2), (SPREAD, SELL, 3)):
        events = desk.enter(TRADER, number, side, lots, 0 if number == SPREAD else AT)
        assert kinds(events) == ["ORDER_ACCEPTED"]
        assert desk.required(TRADER) == 6 * PAIR
    for number, side, lots in ((0, BUY, 2), (1, SELL, 2), (SPREAD, BUY, 3)):
        desk.enter(OTHER, number, side, lots, 0 if number == SPREAD else AT)
    assert desk.held(TRADER) == [1, -1, 0]
    assert desk.required(TRADER) == PAIR
    assert not desk.machine.account(TRADER)["in_deficit"]


@both
def test_an_order_that_could_turn_a_leg_over_is_asked_for_its_credit(
    machine: type[Machine],
) -> None:
    """6 long, 8 offered: 2 of the long lots may come to be short ones, and pair no more."""
    desk = open_desk(machine)
    pairs(desk, 6)
    leave(desk, 2 * CREDIT - 1)
    cash = desk.machine.account(TRADER)["cash"]
    need = 6 * PAIR + 2 * CREDIT
    assert rejects(desk.enter(TRADER, 0, SELL, 8, AT)) == [(Reason.MARGIN, cash, need)]
    assert kinds(desk.enter(TRADER, 0, SELL, 7, AT)) == ["ORDER_ACCEPTED"]
    assert desk.required(TRADER) == 6 * PAIR + CREDIT
    larger = pack(
        CommandKind.REPLACE, account=TRADER, side=Side.UNSTATED, flags=CommandFlag.BY_CLIENT_ID,
        target_lo=desk.key, price=AT, quantity=8,
    )  # fmt: skip
    assert rejects(desk.do(larger)) == [(Reason.MARGIN, cash, need)]
    bid = pack(
        CommandKind.MASS_QUOTE, account=TRADER, instrument=1, price=AT, quantity=8,
        target_lo=AT + 1, target_hi=1,
    )  # fmt: skip
    assert rejects(desk.do(bid)) == [(Reason.MARGIN, cash, 13 * RATE - 5 * CREDIT)]


@both
def test_the_worked_example(machine: type[Machine]) -> None:
    """The table of docs/concepts/margin.md, in dollars."""
    desk = Desk(machine())
    for month in (0, 1):
        desk.do(desk.risk(month, price=150))
    spared(desk, 100)
    told = []

    def then(account: int, number: int, side: int, lots: int, price: int) -> None:
        assert not rejects(desk.enter(account, number, side, lots, price))
        figures = desk.machine.account(TRADER)
        told.append((figures["hold"] + figures["credit"], figures["credit"], figures["hold"]))

    then(TRADER, SPREAD, BUY, 5, 0)
    then(OTHER, SPREAD, SELL, 5, 0)
    then(TRADER, 0, SELL, 5, AT)
    then(TRADER, 0, SELL, 3, AT)
    then(OTHER, 0, BUY, 8, AT)
    assert told == [
        (1500, 500, 1000), (1500, 500, 1000), (1500, 500, 1000), (1500, 200, 1300),
        (1200, 0, 1200),
    ]  # fmt: skip


@both
def test_a_member_is_credited_with_its_accounts(machine: type[Machine]) -> None:
    desk = Desk(machine())
    desk.do(
        pack(CommandKind.OPEN_ACCOUNT, account=5, instrument=TRADER, session=5, quantity=9,
             target_hi=1),
        pack(CommandKind.DEPOSIT, account=5, price=5),
    )  # fmt: skip
    spared(desk)
    pairs(desk, 6)
    leave(desk, 0)
    assert rejects(desk.enter(5, 0, BUY, 1, AT)) == [(Reason.MARGIN, 5, RATE)]
    desk.do(pack(CommandKind.DEPOSIT, account=5, price=RATE))
    desk.do(pack(CommandKind.FEE, account=TRADER, price=10))
    assert rejects(desk.enter(5, 0, BUY, 1, AT))[0][0] == Reason.MEMBER_MARGIN


@both
def test_the_largest_credit_takes_its_pairs_first(machine: type[Machine]) -> None:
    """Month 0 pairs with month 1 or with month 2: more pairs never mean less credit."""
    desk = open_desk(machine)
    number = STRIP + 2
    desk.do(combine(number, {0: 1, 2: -1}, CombinationRule.DIFFERENCE))
    assert spared(desk, 900_000, number) == ["RISK_CHANGED"]
    trade(desk, 0, 5)
    trade(desk, 1, -5)
    assert desk.machine.account(TRADER)["credit"] == 5 * CREDIT
    trade(desk, 2, -2)
    assert desk.machine.account(TRADER)["credit"] == 2 * 900_000 + 3 * CREDIT
    trade(desk, 2, -4)
    assert desk.machine.account(TRADER)["credit"] == 5 * 900_000
    spared(desk, CREDIT, number)  # of equal ones the lower number
    assert desk.machine.account(TRADER)["credit"] == 5 * CREDIT


@both
def test_of_equal_credits_the_lower_number_takes_its_pairs_first(machine: type[Machine]) -> None:
    """Even where the others would make more pairs of what it takes: month 3 sold and 0 bought, 1
    sold and 2 bought; the first spread pairs 0 with 1."""
    desk = open_desk(machine)
    month, others = STRIP + 2, (STRIP + 3, STRIP + 4)
    desk.do(
        pack(CommandKind.LIST, instrument=month, price=MARK, quantity=744, session=SCALE, account=1,
             operator=1, target_lo=2000, target_hi=3300),
        desk.risk(month), desk.state(month, TradingState.CONTINUOUS),
        combine(others[0], {0: 1, month: -1}, CombinationRule.DIFFERENCE),
        combine(others[1], {2: 1, 1: -1}, CombinationRule.DIFFERENCE),
    )  # fmt: skip
    assert [spared(desk, CREDIT, number) for number in others] == [["RISK_CHANGED"]] * 2
    for number, lots in ((0, 5), (1, -5), (2, 5), (month, -5)):
        trade(desk, number, lots)
    assert desk.machine.account(TRADER)["credit"] == 5 * CREDIT
    spared(desk, CREDIT - 1)
    assert desk.machine.account(TRADER)["credit"] == 10 * CREDIT


@both
def test_a_credit_counts_no_more_than_a_leg_holds(machine: type[Machine]) -> None:
    desk = open_desk(machine)
    pairs(desk, 5)
    desk.do(desk.risk(1, price=400_000))
    assert desk.required(TRADER) == 5 * RATE
    assert spared(desk) == ["RISK_CHANGED"]  # as it was
    assert rejects(desk.do(desk.risk(SPREAD, price=0, key_lo=CREDIT - 1)))
    desk.do(desk.risk(1, price=2 * RATE))
    assert desk.required(TRADER) == 15 * RATE - 5 * CREDIT


@both
def test_orders_that_rested_before_the_spread_had_a_credit(machine: type[Machine]) -> None:
    """Their cancels, reductions and trades count for it, and no more once it has none."""
    desk = Desk(machine())
    desk.enter(TRADER, 0, BUY, 5, AT)
    first = desk.key
    desk.enter(TRADER, 1, SELL, 9, AT)
    second = desk.key
    spared(desk)
    assert desk.required(TRADER) == 5 * PAIR + 4 * RATE
    reduce = pack(
        CommandKind.REDUCE, account=TRADER, side=Side.UNSTATED, quantity=6,
        flags=CommandFlag.BY_CLIENT_ID, target_lo=second,
    )  # fmt: skip
    desk.do(reduce)
    assert desk.required(TRADER) == 3 * PAIR + 2 * RATE
    desk.enter(OTHER, 0, SELL, 5, AT)
    assert desk.required(TRADER) == 3 * PAIR + 2 * RATE
    desk.do(cancel(second))
    assert desk.required(TRADER) == 5 * RATE
    desk.enter(TRADER, 1, SELL, 5, AT)
    spared(desk, 0)
    assert desk.required(TRADER) == 10 * RATE
    desk.do(cancel(desk.key), cancel(first))
    assert desk.required(TRADER) == 5 * RATE


@both
def test_an_operator_may_end_a_credit_and_who_is_short_then_is_told(
    machine: type[Machine],
) -> None:
    """Accounts of the legs, though none has ever had an order of the spread."""
    desk = open_desk(machine)
    pairs(desk, 6)
    leave(desk, 0)
    assert spared(desk, CREDIT - 1) == ["RISK_CHANGED", "DEFICIT_STARTED"]
    assert spared(desk, CREDIT) == ["RISK_CHANGED", "DEFICIT_ENDED"]
    assert spared(desk, 0) == ["RISK_CHANGED", "DEFICIT_STARTED"]
    assert kinds(desk.enter(TRADER, 0, SELL, 6, AT)) == ["ORDER_ACCEPTED"]


@both
def test_a_credit_ends_with_its_near_month(machine: type[Machine]) -> None:
    desk = open_desk(machine)
    pairs(desk, 6)
    leave(desk, 0)
    desk.do(desk.state(0, TradingState.HALTED))
    events = desk.do(pack(CommandKind.EXPIRE, instrument=0, price=MARK))
    assert kinds(events)[-1] == "POSITION_SETTLED"  # the far month alone holds less than a pair
    assert desk.required(TRADER) == 6 * RATE and free(desk) == 6 * (PAIR - RATE)
    assert desk.machine.instrument(SPREAD)["credit"] == 0
    assert rejects(desk.do(desk.risk(SPREAD, price=0, key_lo=1)))[0][0] == Reason.STATE


@both
def test_a_bust_ends_the_credit_of_its_lots(machine: type[Machine]) -> None:
    desk = open_desk(machine)
    trade(desk, 0, 6)
    sequence = desk.sequence
    trade(desk, 1, -6)
    leave(desk, 0)
    busted = desk.do(
        pack(
            CommandKind.BUST, instrument=1, account=TRADER, session=OTHER, side=SELL, quantity=6,
            price=AT, target_lo=(sequence + 1) << 20 | 1, target_hi=(1 << 64) - 120,
            key_lo=(1 << 64) - 60,
        )
    )  # fmt: skip
    assert kinds(busted) == ["TRADE_BUSTED"]
    assert desk.machine.account(TRADER)["credit"] == 0
    assert desk.required(TRADER) == 6 * RATE


@both
def test_lots_handed_on_leave_their_pairs(machine: type[Machine]) -> None:
    """Who takes lots on is judged with the pairs that they make or end."""
    desk = open_desk(machine)
    pairs(desk, 6)
    handed = {"tif": TransferKind.GIVE_UP, "instrument": 0, "price": MARK, "side": BUY}
    give = pack(CommandKind.TRANSFER, account=3, target_lo=TRADER, quantity=2, **handed)
    assert kinds(desk.do(give)) == ["LOTS_TRANSFERRED"]
    assert desk.required(TRADER) == 4 * PAIR + 2 * RATE
    leave(desk, PAIR - RATE - 1)
    block = handed | {"tif": TransferKind.BLOCK, "side": SELL}
    turned = pack(CommandKind.TRANSFER, account=TRADER, target_lo=3, quantity=9, **block)
    cash = desk.machine.account(TRADER)["cash"]
    assert rejects(desk.do(turned)) == [(Reason.MARGIN, cash, 11 * RATE - 4 * CREDIT + 4 * CREDIT)]


def bad_credits() -> list[tuple[bytes, int]]:
    """What refuses a credit, each after what lists the combination; PARAMETER_RANGE all."""
    difference = CombinationRule.DIFFERENCE
    twice = combine(SPREAD + 3, {0: 2, 1: -2}, difference)
    same = combine(SPREAD + 3, {0: 1, 1: 1}, CombinationRule.AVERAGE)
    other = pack(
        CommandKind.LIST, instrument=SPREAD + 3, price=MARK, quantity=744, session=SCALE,
        account=1, operator=1, target_lo=2000, target_hi=3300, key_lo=1,
    )  # fmt: skip
    other += pack(CommandKind.SET_RISK, instrument=SPREAD + 3, price=RATE)
    product = other + combine(SPREAD + 4, {0: 1, SPREAD + 3: -1}, difference)
    return [
        (b"", SPREAD + 1), (b"", SPREAD + 2), (twice, SPREAD + 3), (same, SPREAD + 3),
        (product, SPREAD + 4),
    ]  # fmt: skip


@both
def test_a_credit_is_of_two_months_of_one_product(machine: type[Machine]) -> None:
    refused = [(Reason.PARAMETER_RANGE, 0, 0)]
    for listing, number in bad_credits():
        desk = Desk(machine())
        assert not rejects(desk.do(listing)) if listing else True
        assert rejects(desk.do(desk.risk(number, price=0, key_lo=1))) == refused
        assert desk.machine.instrument(number)["credit"] == 0
    for beyond in (RATE + 1, (1 << 64) - 1):
        assert rejects(desk.do(desk.risk(SPREAD, price=0, key_lo=beyond))) == refused
    assert spared(desk, RATE) == ["RISK_CHANGED"]
    assert kinds(desk.do(desk.risk(0, key_lo=5))) == ["RISK_CHANGED"]  # an outright ignores it


@both
def test_only_so_many_spreads_have_a_credit(machine: type[Machine]) -> None:
    desk = Desk(machine())
    last = STRIP + 2 + Limit.CREDITS
    numbers = range(STRIP + 2, last + 1)
    desk.do(*(combine(n, {0: 1, 1: -1}, CombinationRule.DIFFERENCE) for n in numbers))
    desk.do(*(desk.risk(n, price=0, key_lo=n) for n in numbers[:-1]))
    full = [(Reason.CREDITS_FULL, Limit.CREDITS, Limit.CREDITS)]
    assert rejects(desk.do(desk.risk(last, price=0, key_lo=1))) == full
    assert spared(desk, 1, last - 1) == ["RISK_CHANGED"]
    assert spared(desk, 0, last - 1) == ["RISK_CHANGED"]
    assert spared(desk, 1, last) == ["RISK_CHANGED"]
    pairs(desk, 3)
    assert desk.machine.account(TRADER)["credit"] == 3 * (last - 2)
    restored(desk.machine)  # as many as there may be, in an image as well


def test_a_snapshot_knows_who_is_credited() -> None:
    desk = open_desk(Engine)
    pairs(desk, 6)
    desk.enter(TRADER, 0, BUY, 2, AT)
    other = restored(desk.machine)
    for machine in (desk.machine, other):
        machine.apply(cancel(desk.key), desk.sequence, STAMP)
        machine.check()
    assert other.state_bytes() == desk.machine.state_bytes()
    assert other.account(TRADER)["credit"] == 6 * CREDIT


# --- no trade needs money

MONTHS = 3
SPREADS = (SPREAD, STRIP + 2, STRIP + 3)  # months 0 and 1, 0 and 2, 2 and 1
BOOKS = (*range(MONTHS), *SPREADS, STRIP)
PEOPLE = range(1, 5)


def crowded(draw: Random) -> Desk:
    """Three months, three spreads of them with credits and implied prices, accounts with little
    money, no fees: nothing but orders and trades can change what is free."""
    desk = Desk(Engine())
    difference = CombinationRule.DIFFERENCE
    desk.do(combine(SPREADS[1], {0: 1, 2: -1}, difference))
    desk.do(combine(SPREADS[2], {2: 1, 1: -1}, difference))
    for number in range(MONTHS):
        desk.do(desk.risk(number, price=draw.choice((RATE, RATE, 3 * RATE))))
    for number in SPREADS:
        desk.do(
            desk.risk(number, price=0, key_lo=draw.randint(1, RATE)),
            desk.state(number, TradingState.CONTINUOUS),
        )
    # of equal hours: between others an implied price may cost who rests what is free besides
    desk.do(pack(CommandKind.SET_IMPLIED, instrument=SPREADS[1], tif=1))
    for account in PEOPLE:
        left = draw.randint(1, 40) * RATE
        desk.do(pack(CommandKind.WITHDRAW, account=account, price=CASH - left))
    return desk


def some_order(draw: Random, desk: Desk) -> bytes:
    """An order, a quote, or another price, size or end for one before."""
    account, number, side = draw.choice(PEOPLE), draw.choice(BOOKS), draw.randrange(2)
    at = (0 if number in SPREADS else AT) + draw.randint(-2, 2)
    lots, named = draw.randint(1, 12), draw.randint(101, max(101, desk.key))
    desk.key += 1
    told = {"account": account, "price": at, "quantity": lots, "key_lo": desk.key}
    asked = draw.random()
    if asked < 0.1 and number < MONTHS:
        ask = {"target_lo": at + draw.randint(1, 3), "target_hi": draw.randint(0, 9)}
        return pack(CommandKind.MASS_QUOTE, instrument=number, **told, **ask)
    if asked < 0.7:
        stp, tif = draw.randrange(4), draw.choice((0, 0, 0, 2))
        return pack(CommandKind.ENTER, instrument=number, side=side, stp=stp, tif=tif, **told)
    by_key = {"side": int(Side.UNSTATED), "flags": int(CommandFlag.BY_CLIENT_ID)}
    if asked < 0.85:
        by_key["flags"] |= CommandFlag.NEW_ID if asked < 0.77 else 0
        return pack(CommandKind.REPLACE, target_lo=named, **by_key, **told)
    kind = CommandKind.CANCEL if asked < 0.93 else CommandKind.REDUCE
    return pack(kind, target_lo=named, **by_key, **told)


def figures(desk: Desk) -> dict[int, tuple[int, int]]:
    found = {account: desk.machine.account(account) for account in PEOPLE}
    return {account: (one["required"], one["cash"]) for account, one in found.items()}


def play(seed: int) -> int:
    """Whoever did not send a command is never nearer to a deficit by it, and the sender only as far
    as its collateral goes. Gives how often who sent one had a credit."""
    draw = Random(seed)
    desk = crowded(draw)
    credited = 0
    for _ in range(400):
        record, before = some_order(draw, desk), figures(desk)
        events = desk.machine.apply(record, desk.sequence, STAMP)
        desk.sequence += 1
        sender, after = int.from_bytes(record[8:12], "little"), figures(desk)
        for account in PEOPLE:
            missing = after[account][0] - after[account][1]
            if account != sender or record[0] in (CommandKind.CANCEL, CommandKind.REDUCE):
                assert missing <= before[account][0] - before[account][1], (account, events)
            assert missing <= 0, (account, events)
        credited += desk.machine.account(sender)["credit"] > 0
    desk.machine.check()
    return credited


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32))
def test_no_account_comes_into_deficit_by_a_trade(seed: int) -> None:
    play(seed)


def test_many_of_those_have_a_credit() -> None:
    assert sum(play(seed) for seed in range(3)) > 100


@both
def test_a_stop_that_waited_when_the_credit_came_is_credited_once_it_works(
    machine: type[Machine],
) -> None:
    """An order without features takes the plain way, which knows of no credit, unless marked."""
    desk = Desk(machine())
    trade(desk, 1, -3)
    waits = desk.enter(TRADER, 0, BUY, 3, AT, spare=OrderFeature.STOP, target_hi=AT + 1)
    assert kinds(waits) == ["ORDER_ACCEPTED", "ORDER_WAITING"]
    key = desk.key
    assert spared(desk) == ["RISK_CHANGED"]
    desk.enter(OTHER, 0, SELL, 1, AT + 1)
    assert "ORDER_ELECTED" in kinds(desk.enter(THIRD, 0, BUY, 1, AT + 1))
    assert desk.machine.account(TRADER)["credit"] == 3 * CREDIT
    assert kinds(desk.do(cancel(key))) == ["ORDER_CANCELLED"]
    assert desk.machine.account(TRADER)["credit"] == 0
    if isinstance(desk.machine, Engine):
        desk.machine.check()
