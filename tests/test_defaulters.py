"""A member in default: what is still its own to bid, to owe and to pay with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clearing_house import House
from test_defaults import (
    LOSER,
    RICH,
    SAFE,
    allocate,
    bid,
    crash,
    declare,
    defaults,
    settle,
    start,
)

from exchange.clearing import Clearing
from exchange.clearing.calling import Pledge, Release, ValueAsset
from exchange.clearing.default.records import DeclareDefault, OpenAuction
from exchange.messages import Command, CommandKind

UNIT = 1_000_000_000  # micro-dollars


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = start(tmp_path / "clearing.db")
    yield made
    made.clearing.close()


def flatten(house: House) -> None:
    """LOSER's book is sold to the last lot, and settled."""
    house.send(Command(kind=CommandKind.RESUME, account=LOSER))
    house.trade(RICH, LOSER, house.clearing.net(LOSER, 0), 1_500)
    house.pay()
    settle(house, 1_500_000)
    assert defaults(house).defaults[0].stage == "closed"


def test_a_bid_of_who_defaults_before_the_bids_are_opened_wins_nothing(house: House) -> None:
    crash(house)
    declare(house)
    facts = house.record(OpenAuction(default=1, instrument=0, person="risk"))[1]
    assert bid(house, SAFE, 100, 1_500_000) == "accepted"
    assert bid(house, RICH, 30, 1_400_000) == "accepted"
    house.record(DeclareDefault(member=2, person="risk", reason="unpaid"))
    house.at(facts["deadline"])
    house.pay(but=("fund",))
    closed = house.rulings("auction")[-1][2]
    assert [(a["account"], a["lots"]) for a in closed["awards"]] == [(RICH, 30)]
    assert (closed["unsold"], 2 in closed["junior"]) == (70, False)
    assert [house.clearing.net(a, 0) for a in (LOSER, SAFE, RICH)] == [70, 20, -80]


def test_what_a_defaulter_has_pledged_is_sold_for_what_it_owes(house: House) -> None:
    """It leaves when the book is empty, not before; what it brings is borne by nobody else."""
    house.record(ValueAsset(asset="T-BILL", price=UNIT, haircut_bp=0))
    house.record(Pledge(id="p", account=LOSER, asset="T-BILL", units=10))
    crash(house)
    declare(house)
    assert house.record(Release(id="early", account=LOSER, asset="T-BILL", units=10))[0] == "amount"
    flatten(house)
    owed = -house.clearing.cash(LOSER)
    assert owed > 10 * UNIT
    outcome, facts = house.record(Release(id="r", account=LOSER, asset="T-BILL", units=10))
    assert (outcome, facts["collateral"]) == ("accepted", 0)
    assert house.record(Release(id="more", account=LOSER, asset="T-BILL", units=1))[0] == "amount"
    house.send(house.market.money(CommandKind.DEPOSIT, LOSER, 10 * UNIT))
    layers = allocate(house)["layers"]
    assert (sum(layers.values()), layers["defaulter_margin"]) == (owed, 10 * UNIT)
    house.pay()
    assert house.clearing.cash(LOSER) == 0
    house.agree()
