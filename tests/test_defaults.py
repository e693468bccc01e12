"""A member's default end to end: a real engine, the stream, the auction, the waterfall."""

import random
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import pytest
from clearing_house import RATE, House
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.clearing import Clearing
from exchange.clearing.default.matter import APPROVAL_NS, Defaults
from exchange.clearing.default.payout import CAPITAL
from exchange.clearing.default.records import (
    ApproveAllocation,
    AuctionBid,
    DeclareDefault,
    OpenAuction,
    PayCapital,
    PortClient,
    ProposeAllocation,
    SizeFund,
)
from exchange.clearing.delivery import dvp
from exchange.clearing.members.registry import Registry
from exchange.messages import (
    EVENT,
    AccountKind,
    CancelReason,
    Command,
    CommandFlag,
    CommandKind,
    EventKind,
    Side,
    TimeInForce,
)

LOSER, CLIENT, SAFE, RICH, POOR = 10, 11, 20, 30, 40  # accounts of members 1, 1, 2, 3, 4
MEMBERS: Final = {LOSER: 1, CLIENT: 1, SAFE: 2, RICH: 3, POOR: 4}
DEPOSIT: Final = 60_000_000_000
CAPITAL_PAID: Final = 5_000_000_000
HOURS: Final = 744
DAY: Final = 20261118
SECOND: Final = 10**9


def start(path: Path, lots: int = 100) -> House:
    """LOSER is long ``lots`` of H100Z26 at 2.500, RICH short; CLIENT long 10; the fund is paid."""
    house = House(Clearing.open(path))
    for account, member in MEMBERS.items():
        kind = AccountKind.CLIENT if account == CLIENT else AccountKind.HOUSE
        house.open(account, member, kind, DEPOSIT)
    house.list(0, "H100Z26", date(2026, 11, 2))
    house.day(DAY)
    house.trade(LOSER, RICH, lots, 2_500)
    house.trade(CLIENT, RICH, 10, 2_500)
    house.trade(SAFE, POOR, 20, 2_500)
    assert house.record(PayCapital(amount=CAPITAL_PAID, person="owner"))[0] == "accepted"
    assert house.record(SizeFund(person="risk"))[0] == "accepted"
    house.pay()
    return house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = start(tmp_path / "clearing.db")
    yield made
    made.clearing.close()


def defaults(house: House) -> Defaults:
    return house.clearing._state.matters.get(Defaults)


def fund(house: House) -> dict[int, int]:
    return defaults(house).fund(house.clearing._state)


def crash(house: House, price: int = 1_500_000) -> None:
    """The day settles far below: LOSER owes more than it has."""
    house.send(house.market.settle(0, price))


def kill(house: House, account: int, *, killed: bool) -> None:
    flags = CommandFlag.KILLED if killed else 0
    house.send(Command(kind=CommandKind.SET_ACCOUNT, account=account, flags=flags))


def declare(house: House) -> dict[str, Any]:
    outcome, facts = house.record(DeclareDefault(member=1, person="risk", reason="unpaid"))
    assert outcome == "declared"
    for account in facts["freeze"]:
        kill(house, account, killed=True)
    return facts


def bid(house: House, account: int, lots: int, price: int) -> str:
    return house.record(AuctionBid(auction=1, account=account, lots=lots, price=price))[0]


def auction(house: House, bids: list[tuple[int, int, int]]) -> dict[str, Any]:
    """Open it for LOSER's position, take sealed bids, close it by time; the closing's facts."""
    deadline = house.market.stamp + 3_600 * SECOND
    record = OpenAuction(default=1, instrument=0, deadline=deadline, person="risk")
    assert house.record(record)[0] == "opened"
    for one in bids:
        assert bid(house, *one) == "accepted"
    house.at(deadline)
    return house.rulings("auction")[-1][2]


def execute(house: House, facts: dict[str, Any]) -> None:
    """The manager takes the awards to the book: each winner rests, the defaulter's lots hit it.

    Marked to the award first, so that the distance to the mark is a loss and not a hold: a book
    that is in deficit may always be reduced, one that is not might lack the margin for it.
    """
    kill(house, LOSER, killed=False)  # its keys stay revoked: only the manager trades it
    sell = facts["net"] > 0
    ours, theirs = (Side.SELL, Side.BUY) if sell else (Side.BUY, Side.SELL)
    for won in facts["awards"]:
        ticks = won["price"] // 1_000
        house.send(Command(kind=CommandKind.MARK, instrument=0, price=won["price"]))
        house.send(house.market.enter(won["account"], theirs, ticks, won["lots"]))
        house.send(house.market.enter(LOSER, ours, ticks, won["lots"], tif=TimeInForce.IOC))
    kill(house, LOSER, killed=True)


def settle(house: House, price: int) -> None:
    """Settle once more, so that nothing of the defaulter's trades is unpaid."""
    house.send(house.market.settle(0, price, cycle=2))


def allocate(house: House, **more: Any) -> dict[str, Any]:
    outcome, facts = house.record(ProposeAllocation(default=1, person="risk", **more))
    assert outcome == "proposed", facts
    outcome, facts = house.record(ApproveAllocation(default=1, person="chief"))
    assert outcome == "allocated"
    return facts


# The fund


def test_the_fund_is_sized_called_and_given_back(house: House) -> None:
    (first,) = house.rulings("size_fund")
    price, scenario = 2_500_000, first[2]["scenario"]
    assert scenario == "generation_shock"  # H100 falls 45 % there
    losses = {1: 110, 2: 20}  # LOSER and CLIENT stand behind one member
    beyond = [lots * (price * HOURS * 45 // 100 - RATE) for lots in losses.values()]
    assert first[2]["size"] == sum(beyond)
    assert sum(fund(house).values()) == first[2]["size"]
    registry = house.clearing._state.matters.get(Registry)
    margin = {m: registry.gross_margin(m, house.clearing._state) for m in (1, 2, 3, 4)}
    assert margin == {1: 110 * RATE, 2: 20 * RATE, 3: 110 * RATE, 4: 20 * RATE}
    house.trade(RICH, LOSER, 100, 2_500)  # the books shrink, and so does the fund
    before = sum(fund(house).values())
    facts = house.record(SizeFund(person="risk"))[1]
    house.pay()
    assert set(facts["returned"]) & {"1", "3"}
    assert before - sum(fund(house).values()) == sum(facts["returned"].values()) - sum(
        facts["called"].values()
    )
    house.agree()


def test_clients_are_margined_gross(house: House) -> None:
    """The member is long in its own account and short in its client's: nothing is netted."""
    house.trade(SAFE, CLIENT, 30, 2_500)
    state = house.clearing._state
    registry = state.matters.get(Registry)
    assert registry.own(1, state) == [LOSER]
    assert registry.clients(1, state) == [CLIENT]
    assert state.positions.get(CLIENT, 0).net == -20
    assert registry.gross_margin(1, state) == (100 + 20) * RATE


# The steps


def test_a_default_from_the_declaration_to_the_last_cent(house: House) -> None:
    resting = house.market.enter(LOSER, Side.SELL, 3_900, 5)
    house.send(resting)
    crash(house)
    assert house.clearing.cash(LOSER) < 0
    facts = declare(house)
    assert (facts["freeze"], facts["clients"], facts["margin"]) == ([LOSER], [CLIENT], 0)
    events = house.send(  # cancels pass a kill switch
        Command(
            kind=CommandKind.CANCEL, account=LOSER, side=Side.UNSTATED,
            flags=CommandFlag.BY_CLIENT_ID, target_lo=resting.key_lo, key_lo=house.market.key(),
        )
    )  # fmt: skip
    (gone,) = EVENT.iter_unpack(events)
    assert (gone[2], gone[4]) == (EventKind.ORDER_CANCELLED, CancelReason.REQUESTED)
    port = PortClient(default=1, account=CLIENT, member=2, person="risk", accepted_by="two")
    assert house.record(port)[0] == "ported"
    owed = -house.clearing.cash(LOSER)
    sold = auction(house, [(SAFE, 60, 1_500_000), (RICH, 100, 1_480_000)])
    assert [(a["account"], a["lots"]) for a in sold["awards"]] == [(SAFE, 60), (RICH, 40)]
    assert sold["junior"] == [4]  # POOR did not bid
    assert house.record(ProposeAllocation(default=1, person="risk"))[0] == "book_not_empty"
    execute(house, sold)
    settle(house, 1_500_000)
    held, whole = fund(house), house.clearing._state.ledger
    loss = owed + 40 * 20_000 * HOURS
    assert -house.clearing.cash(LOSER) == loss
    before = sum(whole.cash(account) for account in (0, *MEMBERS))
    found = allocate(house)
    house.pay()
    layers = found["layers"]
    assert found["loss"] == loss == sum(layers.values())
    assert layers["defaulter_fund"] == held[1]
    assert layers["own_capital"] == CAPITAL_PAID
    assert layers["survivors_fund"] == loss - held[1] - CAPITAL_PAID
    assert found["survivors_fund"].get("4") == min(held[4], layers["survivors_fund"])
    assert house.clearing.cash(LOSER) == 0
    after = sum(house.clearing.cash(account) for account in (0, *MEMBERS))
    assert after - before == loss  # what came out of fund and capital
    assert (
        sum(held.values())
        + CAPITAL_PAID
        - sum(fund(house).values())
        - dvp.balance(house.clearing._state.book, CAPITAL)
        == loss
    )
    house.agree()
    called = house.record(SizeFund(person="risk"))[1]["called"]  # replenish
    assert "1" not in called
    assert "2" in called  # CLIENT stands behind member 2 now


def test_a_loss_within_the_margin_costs_nobody_else(house: House) -> None:
    declare(house)
    margin = house.clearing.cash(LOSER)
    sold = auction(house, [(SAFE, 100, 2_400_000)])
    execute(house, sold)
    settle(house, 2_450_000)
    before = fund(house)
    found = allocate(house)
    assert found["layers"]["defaulter_margin"] == found["loss"] == 100 * 100_000 * HOURS
    assert house.dues() == []
    assert fund(house) == before
    assert house.clearing.cash(LOSER) == margin - found["loss"]
    assert house.record(ApproveAllocation(default=1, person="x"))[0] == "proposal_state"


def test_steps_out_of_order_are_refused_by_name(house: House) -> None:
    port = PortClient(default=1, account=CLIENT, member=2, person="risk", accepted_by="two")
    assert house.record(port)[0] == "unknown_default"
    assert bid(house, SAFE, 1, 1) == "unknown_proposal"
    assert house.record(PayCapital(amount=-CAPITAL_PAID - 1, person="owner"))[0] == "amount"
    record = DeclareDefault(member=9, person="risk", reason="")
    assert house.record(record)[0] == "unknown_member"
    crash(house)
    declare(house)
    again = DeclareDefault(member=1, person="risk", reason="")
    assert house.record(again)[0] == "duplicate"
    for account, member, why in (
        (LOSER, 2, "unknown_account"), (CLIENT, 1, "unknown_member"), (CLIENT, 9, "unknown_member"),
    ):  # fmt: skip
        wrong = PortClient(
            default=1, account=account, member=member, person="risk", accepted_by="two"
        )
        assert house.record(wrong)[0] == why
    alone = PortClient(default=1, account=CLIENT, member=2, person="risk", accepted_by="risk")
    assert house.record(alone)[0] == "four_eyes"
    past = OpenAuction(default=1, instrument=0, deadline=1, person="risk")
    assert house.record(past)[0] == "expired"
    sold = auction(house, [(SAFE, 100, 1_500_000)])
    assert bid(house, RICH, 1, 1) == "expired"
    execute(house, sold)
    empty = OpenAuction(
        default=1, instrument=0, deadline=house.market.stamp + SECOND, person="risk"
    )
    assert house.record(empty)[0] == "open_position"
    settle(house, 1_500_000)
    assert house.record(ProposeAllocation(default=1, person="risk"))[0] == "proposed"
    outcome, facts = house.record(ApproveAllocation(default=1, person="risk"))
    assert (outcome, facts["number"]) == ("four_eyes", 2219)
    house.at(house.market.stamp + APPROVAL_NS)
    assert house.rulings("allocation")[-1][1] == "expired"
    assert house.record(ApproveAllocation(default=1, person="chief"))[0] == "proposal_state"
    assert fund(house)[1] > 0


def test_a_bid_is_its_accounts_own(house: House) -> None:
    crash(house)
    declare(house)
    deadline = house.market.stamp + SECOND
    house.record(OpenAuction(default=1, instrument=0, deadline=deadline, person="risk"))
    own = AuctionBid(auction=1, account=SAFE, lots=1, price=1_000)
    assert house.record(own, RICH)[0] == "not_yours"
    assert house.record(own, SAFE)[0] == "accepted"
    assert bid(house, LOSER, 1, 1) == "unknown_account"
    assert bid(house, SAFE, 101, 1) == "quantity"
    assert bid(house, SAFE, 1, 0) == "price_range"


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_whatever_the_loss_its_layers_are_the_loss(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Every depth of the waterfall, and a rebuild from the stream comes to the same."""
    draw = random.Random(seed)
    path = tmp_path_factory.mktemp("default") / "clearing.db"
    house = start(path, draw.randint(60, 105))
    price = draw.choice((2_300_000, 1_700_000, 1_200_000, 1_000_000))
    crash(house, price)
    declare(house)
    lots = house.clearing.net(LOSER, 0)
    asked = max(1_000, price // 1_000 - draw.randint(0, 900)) * 1_000
    sold = auction(house, [(SAFE, lots, asked)])
    execute(house, sold)
    settle(house, price)
    gains = {RICH: draw.choice((0, 10**9, 10**12))}
    state = house.clearing._state
    margin = defaults(house).defaults[0].margin
    lost = margin - house.clearing.cash(LOSER)
    held = sum(fund(house).values()) + dvp.balance(state.book, CAPITAL)
    cash = sum(house.clearing.cash(account) for account in (0, *MEMBERS))
    found = allocate(house, gains=gains, assessment_cap_pct=draw.choice((0, 20, 275)))
    house.pay()
    layers = found["layers"]
    assert sum(layers.values()) == found["loss"] == max(0, lost)
    if lost > margin:
        assert house.clearing.cash(LOSER) == -layers["uncovered"]
    spent = layers["defaulter_fund"] + layers["own_capital"] + layers["survivors_fund"]
    left = sum(fund(house).values()) + dvp.balance(house.clearing._state.book, CAPITAL)
    assert held - left == spent
    assert sum(house.clearing.cash(account) for account in (0, *MEMBERS)) - cash == spent
    house.agree()
    rulings = [house.rulings(name) for name in ("approve_allocation", "auction", "size_fund")]
    entries, head = state.entries, house.clearing.ledger_hash
    house.clearing.rebuild(house.market.frames)
    assert [house.rulings(n) for n in ("approve_allocation", "auction", "size_fund")] == rulings
    assert (house.clearing._state.entries, house.clearing.ledger_hash) == (entries, head)
    assert house.dues() == []
    house.clearing.close()
