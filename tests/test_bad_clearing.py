"""Bad input around clearing: a named reject, and no change of state.

Notices of delivery are in test_deliveries.py, approvals by one person in test_defaults.py.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from clearing_house import RATE, House

from exchange.clearing import Clearing
from exchange.clearing.default.records import AuctionBid
from exchange.clearing.members.records import Register, Sign
from exchange.messages import (
    EVENT,
    AccountKind,
    Command,
    CommandKind,
    EventKind,
    Reason,
    Side,
    TradingState,
)

ONE, TWO = 1, 2
CASH = 10 * RATE


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(Clearing.open(tmp_path / "clearing.db"))
    for account in (ONE, TWO):
        made.open(account, account, AccountKind.CLIENT, CASH)
    made.list(0, "H100Z26", date(2026, 11, 2))
    made.day(20261118)
    yield made
    made.clearing.close()


def buy(house: House, lots: int, **more: Any) -> Command:
    return house.market.enter(ONE, Side.BUY, 2_500, lots, **more)


def answer(house: House, command: Command) -> tuple[int, int]:
    """(kind, reason) of a command's first event; a reject leaves the state as it was."""
    before = house.market.engine.state_bytes(buckets=False)
    events = house.market.apply(command)
    house.clearing.apply(house.market.frames[-1:])
    first = next(EVENT.iter_unpack(events))
    if first[2] == EventKind.REJECTED:
        assert house.market.engine.state_bytes(buckets=False) == before
    return first[2], first[4]


def rejected(reason: Reason) -> tuple[int, int]:
    return EventKind.REJECTED, reason


def test_b70_an_account_that_is_not_the_senders(house: House) -> None:
    bid = AuctionBid(auction=1, account=TWO, lots=1, price=1)
    deal = Register(account=TWO, other=ONE, instrument=0, lots=60, price=2_500_000)
    for record in (bid, deal, Sign(account=TWO, transfer=1)):
        assert house.record(record, ONE)[0] == "not_yours"


def test_b72_money_of_another_asset(house: House) -> None:
    euros = Command(kind=CommandKind.DEPOSIT, account=ONE, price=5, tif=1, key_lo=99)
    assert answer(house, euros) == rejected(Reason.ASSET_MISMATCH)


def test_b80_an_order_never_trades_with_its_own_account(house: House) -> None:
    house.send(house.market.enter(ONE, Side.SELL, 2_500, 2))
    events = house.send(buy(house, 2))
    assert EventKind.TRADE not in [row[2] for row in EVENT.iter_unpack(events)]


def test_b82_above_free_margin_and_two_that_fit_only_singly(house: House) -> None:
    assert answer(house, buy(house, 11)) == rejected(Reason.MARGIN)
    assert answer(house, buy(house, 6))[0] == EventKind.ORDER_ACCEPTED
    assert answer(house, buy(house, 6)) == rejected(Reason.MARGIN)


def test_b83_working_orders_count_towards_the_position_limit(house: House) -> None:
    house.send(
        Command(kind=CommandKind.SET_RISK, instrument=0, price=RATE, quantity=5, session=100)
    )
    assert answer(house, buy(house, 3))[0] == EventKind.ORDER_ACCEPTED
    assert answer(house, buy(house, 3)) == rejected(Reason.POSITION_LIMIT)


def test_b95_halted_twice_and_resumed_without_a_halt(house: House) -> None:
    halt = Command(kind=CommandKind.SET_STATE, instrument=0, tif=TradingState.HALTED)
    resume = Command(kind=CommandKind.SET_STATE, instrument=0, tif=TradingState.CONTINUOUS)
    assert answer(house, resume) == rejected(Reason.STATE)
    assert answer(house, halt)[0] == EventKind.STATE_CHANGED
    assert answer(house, halt) == rejected(Reason.STATE)
