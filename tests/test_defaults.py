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
from exchange.clearing.default.matter import Defaults
from exchange.clearing.default.payout import CAPITAL
from exchange.clearing.default.records import (
    Allocate,
    AuctionBid,
    DeclareDefault,
    OpenAuction,
    PayCapital,
    PortClient,
    SizeFund,
    TearUp,
)
from exchange.clearing.default.stages import TIMES
from exchange.clearing.delivery import dvp
from exchange.clearing.members.registry import Registry
from exchange.clearing.sharing import share
from exchange.messages import (
    EVENT,
    AccountKind,
    CancelReason,
    Command,
    CommandKind,
    EventKind,
    Side,
)

LOSER, CLIENT, SAFE, HAVEN, RICH, POOR = 10, 11, 20, 21, 30, 40
MEMBERS: Final = {LOSER: 1, CLIENT: 1, SAFE: 2, HAVEN: 2, RICH: 3, POOR: 4}
DEPOSIT: Final = 60_000_000_000
CAPITAL_PAID: Final = 5_000_000_000
HOURS: Final = 744
DAY: Final = 20261118
SECOND: Final = 10**9


def start(path: Path, lots: int = 100) -> House:
    """LOSER is long ``lots`` of H100Z26 at 2.500, RICH short; CLIENT long 10; the fund is paid."""
    house = House(Clearing.open(path))
    for account, member in MEMBERS.items():
        kind = AccountKind.CLIENT if account in (CLIENT, HAVEN) else AccountKind.HOUSE
        house.open(account, member, kind, 0 if account == HAVEN else DEPOSIT)
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


def declare(house: House) -> dict[str, Any]:
    outcome, facts = house.record(DeclareDefault(member=1, person="risk", reason="unpaid"))
    assert outcome == "declared"
    house.pay(but=("fund",))
    return facts


def bid(house: House, account: int, lots: int, price: int) -> str:
    return house.record(AuctionBid(auction=1, account=account, lots=lots, price=price))[0]


def auction(house: House, bids: list[tuple[int, int, int]]) -> dict[str, Any]:
    """Open it for LOSER's position, take sealed bids, close it by time; the closing's facts."""
    outcome, facts = house.record(OpenAuction(default=1, instrument=0, person="risk"))
    assert outcome == "opened"
    for one in bids:
        assert bid(house, *one) == "accepted"
    house.at(facts["deadline"])
    house.pay()
    return house.rulings("auction")[-1][2]


def settle(house: House, price: int) -> None:
    """Settle once more, so that nothing of the defaulter's trades is unpaid."""
    house.send(house.market.settle(0, price, cycle=2))


def allocate(house: House, **more: Any) -> dict[str, Any]:
    outcome, facts = house.record(
        Allocate(default=1, proposed_by="risk", approved_by="chief", **more)
    )
    assert outcome == "allocated", facts
    return facts


def tear_up(house: House) -> tuple[str, dict[str, Any]]:
    both = {"proposed_by": "risk", "approved_by": "chief"}
    return house.record(TearUp(default=1, instrument=0, **both))


def port(to: int = HAVEN, account: int = CLIENT, by: str = "chief") -> PortClient:
    return PortClient(default=1, account=account, to=to, proposed_by="risk", approved_by=by)


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


def test_nothing_of_the_fund_is_returned_before_the_loss_is_shared(house: House) -> None:
    """One person's sizing, of a market without the defaulter's book, would release what survivors
    paid in for this loss, and lower the caps of their assessments."""
    crash(house)
    declare(house)
    before = fund(house)
    _, facts = house.record(SizeFund(person="risk"))
    house.pay()
    assert facts["returned"] == facts["called_off"] == {} and set(facts["kept"]) == {"2", "3", "4"}
    assert fund(house) == before
    auction(house, [(RICH, 100, 1_400_000)])
    settle(house, 1_500_000)
    house.record(SizeFund(person="risk"))
    house.pay()
    assert fund(house) == before
    used = allocate(house)["survivors_fund"]  # 3 alone has bid
    assert {m: used[str(m)] for m in (2, 4)} == {m: before[m] for m in (2, 4)}
    _, facts = house.record(SizeFund(person="risk"))
    assert facts["kept"] == {} and facts["replenishes"] == [1]
    house.pay()
    house.agree()


def test_the_house_leaves_its_capital_in_until_the_loss_is_shared(house: House) -> None:
    crash(house)
    declare(house)
    out = PayCapital(amount=-1, person="owner")
    outcome, facts = house.record(out)
    assert (outcome, facts["limit"]) == ("default_state", "allocated")
    assert facts["observed"] == "1 declared"
    assert house.record(PayCapital(amount=1, person="owner"))[0] == "accepted"
    auction(house, [(RICH, 100, 1_400_000)])
    settle(house, 1_500_000)
    assert house.record(out)[1]["observed"] == "1 closed"
    assert allocate(house)["layers"]["own_capital"] == CAPITAL_PAID + 1
    house.pay()
    assert house.record(PayCapital(amount=2, person="owner"))[0] == "accepted"
    assert house.record(out)[0] == "accepted"
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
    assert (facts["frozen"], facts["clients"], facts["margin"]) == ([LOSER], [CLIENT], 0)
    assert facts["close_by"] - facts["port_by"] == TIMES["close"] - TIMES["port"]
    assert cancelled(house) == [(LOSER, CancelReason.KILLED)]
    owed = -house.clearing.cash(LOSER)
    sold = auction(house, [(SAFE, 60, 1_500_000), (RICH, 100, 1_480_000)])
    assert [(a["account"], a["lots"]) for a in sold["awards"]] == [(SAFE, 60), (RICH, 40)]
    assert sold["junior"] == [4]  # POOR did not bid
    assert [house.clearing.net(a, 0) for a in (LOSER, SAFE, RICH)] == [0, 80, -70]
    assert house.record(by_two(Allocate))[0] == "book_not_empty"  # 40 lots are unsettled
    settle(house, 1_500_000)
    assert house.rulings("default")[-1][1] == "closed"
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
    facts = house.record(SizeFund(person="risk"))[1]
    assert facts["replenishes"] == [1]
    assert "1" not in facts["called"]
    assert [one.stage for one in defaults(house).defaults[0].history] == [
        "declared", "auction opened", "auction closed", "closed", "allocated", "replenished",
    ]  # fmt: skip


def by_two(kind: type[Allocate] | type[TearUp], **fields: Any) -> Allocate | TearUp:
    return kind(default=1, proposed_by="risk", approved_by="chief", **fields)


def cancelled(house: House) -> list[tuple[int, int]]:
    """(account, reason) of every order that was cancelled."""
    events = (row for frame in house.market.frames for row in EVENT.iter_unpack(frame.events))
    return [(row[6], row[4]) for row in events if row[2] == EventKind.ORDER_CANCELLED]


def test_what_nobody_bids_for_is_torn_up_by_lots(house: House) -> None:
    """One bid for 30 of 100 lots; the shorts, 110 and 20, lose 59 and 11 of the other 70."""
    crash(house)
    declare(house)
    assert tear_up(house)[0] == "proposal_state"  # nobody was asked
    sold = auction(house, [(SAFE, 30, 1_450_000)])
    assert (sold["unsold"], house.clearing.net(LOSER, 0)) == (70, 70)
    cash = {account: house.clearing.cash(account) for account in MEMBERS}
    outcome, facts = tear_up(house)
    assert (outcome, facts["torn"]) == ("torn_up", {str(RICH): 59, str(POOR): 11})
    assert tear_up(house)[0] == "proposal_state"  # it has not moved yet
    house.pay()
    assert [house.clearing.net(a, 0) for a in (LOSER, RICH, POOR)] == [0, -51, -9]
    assert {account: house.clearing.cash(account) for account in MEMBERS} == cash
    assert tear_up(house)[0] == "open_position"
    settle(house, 1_500_000)
    found = allocate(house)
    assert sum(found["layers"].values()) == found["loss"]
    house.pay()
    house.agree()


def test_a_winner_without_the_margin_gets_nothing_and_the_lots_are_offered_again(
    house: House,
) -> None:
    crash(house)
    declare(house)
    house.record(OpenAuction(default=1, instrument=0, within_seconds=60, person="risk"))
    for account, lots in ((POOR, 100), (SAFE, 100)):
        assert bid(house, account, lots, 1_500_000) == "accepted"
    spare = house.market.engine.account(POOR)["cash"] - 25 * RATE
    house.send(
        house.market.money(CommandKind.WITHDRAW, POOR, spare - 20 * 1_000_000 * HOURS // 744)
    )
    house.at(house.market.stamp + 60 * SECOND)
    house.pay_what_is_there()
    assert house.clearing.net(LOSER, 0) == 100
    assert [due.id for due in house.dues()] == ["award 1 1"]
    outcome, facts = house.record(OpenAuction(default=1, instrument=0, person="risk"))
    assert (outcome, house.dues()) == ("opened", [])
    again = AuctionBid(auction=2, account=SAFE, lots=100, price=1_490_000)
    assert house.record(again)[0] == "accepted"
    house.at(facts["deadline"])
    house.pay()
    assert [house.clearing.net(a, 0) for a in (LOSER, SAFE)] == [0, 120]
    house.agree()


def test_a_second_default_falls_on_those_still_there(house: House) -> None:
    """The first takes RICH's bid; then RICH defaults too. No defaulter bids, pays or is junior."""
    crash(house)
    declare(house)
    auction(house, [(RICH, 100, 1_500_000)])
    settle(house, 1_500_000)
    allocate(house)
    house.pay()
    house.record(SizeFund(person="risk"))
    house.pay_what_is_there()
    house.trade(POOR, RICH, 200, 1_500)
    house.send(house.market.settle(0, 2_800_000, cycle=3))
    second = DeclareDefault(member=3, person="risk", reason="unpaid")
    assert house.record(second)[1]["default"] == 2
    house.pay(but=("fund",))
    record = OpenAuction(default=2, instrument=0, person="risk")
    deadline = house.record(record)[1]["deadline"]
    for account, said in ((LOSER, "unknown_account"), (RICH, "unknown_account"),
                          (SAFE, "accepted")):  # fmt: skip
        bought = AuctionBid(auction=2, account=account, lots=210, price=2_900_000)
        assert house.record(bought)[0] == said
    house.at(deadline)
    house.pay(but=("fund",))
    assert house.rulings("auction")[-1][2]["junior"] == [4]
    house.send(house.market.settle(0, 2_800_000, cycle=4))
    held = defaults(house).survivors(house.clearing._state)
    assert set(held) == {2, 4}
    outcome, found = house.record(
        Allocate(default=2, proposed_by="risk", approved_by="chief", assessment_cap_pct=550)
    )
    assert outcome == "allocated"
    assert sum(found["layers"].values()) == found["loss"] > 0
    assert set(found["survivors_fund"]) | set(found["assessments"]) <= {"2", "4"}
    house.pay(but=("fund",))
    house.agree()


def test_own_accounts_are_netted_and_a_short_book_is_bought_in(tmp_path: Path) -> None:
    """Two own accounts, short 60 and long 20: 40 are on offer, the lowest bid wins."""
    house = start(tmp_path / "clearing.db")
    house.trade(RICH, LOSER, 160, 2_500)
    second = 12
    house.open(second, 1, AccountKind.HOUSE, DEPOSIT)
    house.trade(second, RICH, 20, 2_500)
    declare(house)
    sold = auction(house, [(RICH, 40, 2_520_000), (SAFE, 40, 2_510_000)])
    assert (sold["net"], [(a["account"], a["lots"]) for a in sold["awards"]]) == (-40, [(SAFE, 40)])
    assert [house.clearing.net(a, 0) for a in (LOSER, second, SAFE)] == [0, 0, -20]
    settle(house, 2_500_000)
    assert allocate(house)["loss"] == 40 * 10_000 * HOURS
    house.agree()
    house.clearing.close()


def test_a_loss_within_the_margin_costs_nobody_else(house: House) -> None:
    declare(house)
    margin = house.clearing.cash(LOSER)
    auction(house, [(SAFE, 100, 2_400_000)])
    settle(house, 2_450_000)
    before = fund(house)
    found = allocate(house)
    assert found["layers"]["defaulter_margin"] == found["loss"] == 100 * 100_000 * HOURS
    assert house.dues() == []
    assert fund(house) == before
    assert house.clearing.cash(LOSER) == margin - found["loss"]
    assert house.record(by_two(Allocate))[0] == "default_state"


def test_what_is_paid_in_after_the_declaration_is_margin(house: House) -> None:
    """The estate sells collateral, say: the loss is the same, its margin bears more of it."""
    crash(house)
    declare(house)
    owed = -house.clearing.cash(LOSER)
    house.send(house.market.money(CommandKind.DEPOSIT, LOSER, 3_000_000))
    auction(house, [(SAFE, 100, 1_500_000)])
    settle(house, 1_500_000)
    layers = allocate(house)["layers"]
    assert (sum(layers.values()), layers["defaulter_margin"]) == (owed, 3_000_000)
    house.pay()
    assert house.clearing.cash(LOSER) == 0


def test_every_step_says_when_it_is_overdue(house: House) -> None:
    facts = declare(house)
    house.at(facts["port_by"])
    house.at(facts["close_by"])
    found = [row for _, outcome, row in house.rulings("default") if outcome == "overdue"]
    assert [(row["step"], row["deadline"]) for row in found] == [
        ("port", facts["port_by"]), ("close", facts["close_by"]),
    ]  # fmt: skip
    assert house.clearing.deadline() == 0
    assert auction(house, [(SAFE, 100, 2_400_000)])["unsold"] == 0  # it may still be done


def test_a_client_that_is_not_ported_is_overdue_however_soon_the_loss_is_shared(
    house: House,
) -> None:
    crash(house)
    facts = declare(house)
    auction(house, [(RICH, 100, 1_400_000)])
    settle(house, 1_500_000)
    allocate(house)
    house.pay()
    house.record(SizeFund(person="risk"))
    assert defaults(house).defaults[0].steps == {"port": facts["port_by"]}
    house.at(facts["port_by"])
    assert house.rulings("default")[-1][1:] == (
        "overdue", {"default": 1, "step": "port", "deadline": facts["port_by"]},
    )  # fmt: skip
    house.record(port())
    house.pay()
    assert defaults(house).defaults[0].steps == {} and house.rulings("default")[-1][1] == "ported"


def test_gains_since_the_declaration_may_be_cut_where_nothing_else_is_left(house: House) -> None:
    crash(house)
    declare(house)
    auction(house, [(SAFE, 100, 500_000)])
    settle(house, 1_500_000)
    gains = house.clearing.gains(1)
    assert set(gains) == {SAFE, RICH, POOR}  # CLIENT and LOSER only paid
    assert gains[RICH] == 110 * 1_000_000 * HOURS
    with pytest.raises(LookupError):
        house.clearing.gains(2)
    loss = allocate(house, gains=gains, assessment_cap_pct=0)
    cut = loss["layers"]["haircuts"]
    assert cut > 0 and loss["layers"]["uncovered"] == 0
    assert loss["haircuts"] == {str(a): n for a, n in share(cut, gains).items()}
    house.pay()
    assert house.clearing.cash(LOSER) == 0
    house.agree()


def test_a_contribution_that_does_not_come_is_overdue_and_called_off_by_a_default(
    house: House,
) -> None:
    house.trade(LOSER, RICH, 5, 2_500)
    for account in (LOSER, RICH, SAFE, POOR):
        free = house.market.engine.account(account)
        house.send(house.market.money(CommandKind.WITHDRAW, account, free["cash"] - free["hold"]))
    house.record(SizeFund(person="risk"))
    house.pay_what_is_there()
    (sized,) = house.rulings("size_fund", newest=1)
    assert sized[2]["called"] and len(house.dues()) == len(sized[2]["called"])
    house.at(sized[2]["deadline"])
    overdue = [facts for _, outcome, facts in house.rulings("default_fund") if outcome == "overdue"]
    assert {str(row["member"]): row["amount"] for row in overdue} == sized[2]["called"]
    house.record(DeclareDefault(member=1, person="risk", reason="fund unpaid"))
    assert not any(due.id.endswith(" 1") for due in house.dues() if due.id.startswith("fund"))


def test_a_defaulter_that_somebody_lets_trade_is_frozen_again(house: House) -> None:
    """As for a hedge: the switch is lifted, and clearing asks for it to be thrown."""
    declare(house)
    house.send(Command(kind=CommandKind.RESUME, account=LOSER))
    assert [due.kind for due in house.dues()] == ["kill"]
    house.trade(RICH, LOSER, 10, 2_500)
    house.pay()
    refused = house.market.apply(house.market.enter(LOSER, Side.SELL, 2_500, 1))
    (row,) = EVENT.iter_unpack(refused)
    assert row[2] == EventKind.REJECTED
    assert house.clearing.net(LOSER, 0) == 90


def test_steps_out_of_order_are_refused_by_name(house: House) -> None:
    assert house.record(port())[0] == "unknown_default"
    assert house.record(by_two(Allocate))[0] == "unknown_default"
    assert bid(house, SAFE, 1, 1) == "unknown_proposal"
    assert house.record(PayCapital(amount=-CAPITAL_PAID - 1, person="owner"))[0] == "amount"
    record = DeclareDefault(member=9, person="risk", reason="")
    assert house.record(record)[0] == "unknown_member"
    crash(house)
    declare(house)
    again = DeclareDefault(member=1, person="risk", reason="")
    assert house.record(again)[0] == "duplicate"
    assert house.record(port(), CLIENT)[0] == "not_yours"
    for wrong, why in (
        (port(account=LOSER), "unknown_account"),
        (port(to=99), "unknown_account"),
        (port(to=CLIENT), "unknown_member"),
        (port(by="risk"), "four_eyes"),
    ):
        assert house.record(wrong)[0] == why
    long = OpenAuction(default=1, instrument=0, within_seconds=10**9, person="risk")
    assert house.record(long)[0] == "expired"
    house.record(OpenAuction(default=1, instrument=0, person="risk"))
    assert house.record(OpenAuction(default=1, instrument=0, person="risk"))[0] == "duplicate"
    assert tear_up(house)[0] == "proposal_state"
    assert bid(house, SAFE, 100, 1_500_000) == "accepted"
    house.at(defaults(house).auctions[0].deadline)
    house.pay()
    assert bid(house, RICH, 1, 1) == "expired"
    empty = OpenAuction(default=1, instrument=0, person="risk")
    assert house.record(empty)[0] == "default_state"
    settle(house, 1_500_000)
    alone = Allocate(default=1, proposed_by="risk", approved_by="risk")
    outcome, facts = house.record(alone)
    assert (outcome, facts["number"]) == ("four_eyes", 2219)
    assert fund(house)[1] > 0
    stranger = by_two(Allocate, gains={LOSER: 1})
    assert house.record(stranger)[0] == "unknown_account"


def test_a_bid_is_its_accounts_own(house: House) -> None:
    crash(house)
    declare(house)
    house.record(OpenAuction(default=1, instrument=0, person="risk"))
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
    """Every depth of the waterfall, bids or none, and a rebuild from the stream: the same."""
    draw = random.Random(seed)
    path = tmp_path_factory.mktemp("default") / "clearing.db"
    house = start(path, draw.randint(60, 105))
    price = draw.choice((2_300_000, 1_700_000, 1_200_000, 1_000_000))
    crash(house, price)
    declare(house)
    if draw.random() < 0.5:
        house.record(port())
        house.pay()
    lots = house.clearing.net(LOSER, 0)
    asked = max(1_000, price // 1_000 - draw.randint(0, 900)) * 1_000
    auction(house, [(SAFE, draw.randint(1, lots), asked)])
    tear_up(house)
    house.pay()
    settle(house, price)
    house.pay()
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
    rulings = [house.rulings(name) for name in ("allocate", "auction", "size_fund", "default")]
    entries, head = state.entries, house.clearing.ledger_hash
    house.clearing.rebuild(house.market.frames)
    again = [house.rulings(name) for name in ("allocate", "auction", "size_fund", "default")]
    assert again == rulings
    assert (house.clearing._state.entries, house.clearing.ledger_hash) == (entries, head)
    assert house.dues() == []
    house.clearing.close()
