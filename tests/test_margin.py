"""The margin rule: the hold's formula, DEFICIT, and that no trade, cancel or reduce raises
``required`` (docs/concepts/margin.md), all against the engine itself.
"""

import random

import pytest
from clearing_market import (
    ACCOUNTS,
    INSTRUMENTS,
    MULTIPLIER,
    TICK_SCALE,
    TestMarket,
    open_market,
    random_command,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.messages import (
    EVENT,
    HOUSE_ACCOUNT,
    Command,
    CommandFlag,
    CommandKind,
    EventKind,
    Reason,
    Side,
)

PEOPLE = (HOUSE_ACCOUNT, *ACCOUNTS)
RATE = 150_000_000  # of clearing_market's instruments, micro-dollars per lot
ORDERS = (CommandKind.ENTER, CommandKind.CANCEL, CommandKind.REDUCE, CommandKind.REPLACE)


def required(market: TestMarket) -> dict[int, int]:
    return {account: market.engine.account(account)["required"] for account in PEOPLE}


def cash(market: TestMarket, account: int) -> int:
    return int(market.engine.account(account)["cash"])


def kinds(events: bytes) -> list[int]:
    return [event[2] for event in EVENT.iter_unpack(events)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), steps=st.integers(50, 300))
def test_no_trade_cancel_or_reduce_raises_required(seed: int, steps: int) -> None:
    """One command at a time: whoever did not send it never needs more for it, and the sender only
    what the margin rule let pass.
    """
    draw, market = random.Random(seed), open_market()
    for _ in range(steps):
        command = random_command(market, draw)
        before, had = required(market), cash(market, command.account)
        deficit = before[command.account] > had
        events = market.apply(command)
        if command.kind not in ORDERS:
            continue
        after = required(market)
        for account in PEOPLE:
            if account != command.account or command.kind in (
                CommandKind.CANCEL,
                CommandKind.REDUCE,
            ):
                assert after[account] <= before[account], (command, account)
        # An order that reduces in DEFICIT passes with its adverse distance; see the page.
        if not deficit:
            assert after[command.account] <= max(before[command.account], had), command
        if EventKind.REJECTED in kinds(events):
            assert after == before
    market.engine.check()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), steps=st.integers(20, 200))
def test_required_is_its_formula(seed: int, steps: int) -> None:
    draw, market = random.Random(seed), open_market()
    market.apply(*(random_command(market, draw) for _ in range(steps)))
    engine = market.engine
    for account in ACCOUNTS:
        hold = unrealized = 0
        for instrument in range(INSTRUMENTS):
            position, mark = (
                engine.position(account, instrument),
                engine.instrument(instrument)["mark"],
            )
            net = position["net"]
            longest, shortest = net + position["working_buy"], net - position["working_sell"]
            adverse = position["hold"] - RATE * max(abs(longest), abs(shortest))
            assert adverse >= 0
            hold += position["hold"]
            unrealized += net * mark * MULTIPLIER - position["cost"]
        assert engine.account(account)["required"] == hold + max(0, -unrealized)


# The worked example of docs/concepts/margin.md.


def example() -> TestMarket:
    market = TestMarket()
    for account, deposit in ((1, 2_000_000_000), (2, 100_000_000_000)):
        market.open_account(account, deposit)
    market.list_instrument(0, fees=(0, 0))
    market.apply(market.open_day(20261201))
    return market


def needs(market: TestMarket) -> int:
    return int(market.engine.account(1)["required"])


def first(events: bytes) -> tuple[int, ...]:
    return next(EVENT.iter_unpack(events))


def test_the_worked_example() -> None:
    market = example()
    market.apply(market.enter(1, Side.BUY, 2_505, 10))
    assert needs(market) == 1_536_000_000
    market.apply(market.enter(1, Side.SELL, 2_510, 4))
    assert needs(market) == 1_536_000_000
    market.apply(market.enter(2, Side.SELL, 2_505, 6))
    assert needs(market) == 1_536_000_000
    rejected = first(market.apply(market.enter(1, Side.BUY, 2_500, 4)))
    assert (rejected[2], rejected[4]) == (EventKind.REJECTED, Reason.MARGIN)
    assert rejected[13:] == (2_000_000_000, 2_136_000_000)
    events = market.apply(Command(kind=CommandKind.MARK, price=2_300 * TICK_SCALE))
    assert kinds(events) == [EventKind.MARKED, EventKind.DEFICIT_STARTED]
    assert needs(market) == 2_976_000_000
    rejected = first(market.apply(market.enter(1, Side.SELL, 2_290, 3)))
    assert (rejected[4], rejected[14]) == (Reason.MARGIN, 2_976_000_000 + 21_600_000)
    assert first(market.apply(market.enter(1, Side.SELL, 2_290, 2)))[2] == EventKind.ORDER_ACCEPTED


@pytest.mark.parametrize("lots", [1, 3, 4])
def test_cancel_and_reduce_pass_in_deficit(lots: int) -> None:
    market = example()
    market.apply(market.enter(1, Side.BUY, 2_505, 4))
    market.apply(Command(kind=CommandKind.MARK, price=1_100 * TICK_SCALE))
    before = needs(market)
    assert before > cash(market, 1)
    market.apply(
        Command(
            kind=CommandKind.REDUCE, side=Side.UNSTATED, account=1, quantity=lots,
            target_lo=market.keys, flags=CommandFlag.BY_CLIENT_ID, key_lo=market.key(),
        )
    )  # fmt: skip
    assert needs(market) < before
