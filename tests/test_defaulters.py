"""Members that do not pay: what a default leaves them to bid and to pay with, calls of the fund."""

from clearing_house import House
from test_defaults import (
    DEPOSIT,
    LOSER,
    POOR,
    RICH,
    SAFE,
    allocate,
    auction,
    bid,
    crash,
    declare,
    defaults,
    fund,
    house,
    settle,
    tear_up,
)

from exchange.app import wishes
from exchange.clearing.calling import Pledge, Release, ValueAsset
from exchange.clearing.default.records import (
    Allocate,
    AuctionBid,
    DeclareDefault,
    OpenAuction,
    SizeFund,
)
from exchange.clearing.matters import Dues
from exchange.clearing.records import write
from exchange.messages import TRADE, TRADE_FIELDS, Command, CommandKind, EventKind, Side, Trade

__all__ = ["house"]  # a fixture
UNIT = 1_000_000_000  # micro-dollars


def flatten(house: House, price: int = 1_500_000) -> None:
    """LOSER's book is sold to the last lot, and settled."""
    house.send(Command(kind=CommandKind.RESUME, account=LOSER))
    house.trade(RICH, LOSER, house.clearing.net(LOSER, 0), price // 1_000)
    house.pay()
    settle(house, price)
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


def test_a_bid_is_refused_for_the_first_of_what_is_wrong(house: House) -> None:
    """In the order of the page: which auction, its deadline, whose bid."""
    crash(house)
    declare(house)
    wrong = AuctionBid(auction=1, account=LOSER, lots=0, price=0)
    outcome, facts = house.record(wrong)
    assert (outcome, facts["limit"], facts["observed"]) == ("unknown_proposal", 0, 1)
    deadline = house.record(OpenAuction(default=1, instrument=0, person="risk"))[1]["deadline"]
    assert house.record(wrong)[0] == "unknown_account"
    assert bid(house, 99, 0, 0) == bid(house, 0, 10, 1_500_000) == "unknown_account"
    assert bid(house, SAFE, 0, 0) == "quantity"
    house.at(deadline)
    assert house.record(wrong)[0] == "expired"
    outcome, facts = house.record(AuctionBid(auction=7, account=LOSER, lots=0, price=0))
    assert (outcome, facts["limit"], facts["observed"]) == ("unknown_proposal", 1, 7)


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


def test_a_smaller_fund_takes_open_calls_back_before_they_come(house: House) -> None:
    """Members that have not paid are called for what the fund still needs of them, no more."""
    for account in (LOSER, RICH):
        house.send(house.market.money(CommandKind.DEPOSIT, account, DEPOSIT))
    house.trade(LOSER, RICH, 40, 2_500)
    paid = fund(house)
    called = house.record(SizeFund(person="risk"))[1]["called"]
    assert set(called) == {"1", "3"}
    due = defaults(house).calls[0].by
    house.trade(RICH, LOSER, 20, 2_500)
    facts = house.record(SizeFund(person="risk"))[1]
    wanted = house.clearing.sizing().contributions
    calls = {call.member: call for call in defaults(house).calls}
    assert {m: calls[m].due.amount for m in (1, 3)} == {m: wanted[m] - paid[m] for m in (1, 3)}
    assert [calls[m].by for m in (1, 3)] == [due, due]
    assert {m: int(called[m]) - less for m, less in facts["called_off"].items()} == {
        str(m): calls[m].due.amount for m in (1, 3)
    }
    assert [d.id for d in house.dues() if d.kind == "withdraw"] == [
        call.due.id for call in defaults(house).calls
    ]
    house.reopen()
    house.trade(RICH, LOSER, 120, 2_500)  # flat: nothing is needed, and nothing is called for
    facts = house.record(SizeFund(person="risk"))[1]
    assert set(facts["called_off"]) >= {"1", "3"}
    house.pay()
    assert {m: there for m, there in fund(house).items() if there} == {
        m: there for m, there in house.clearing.sizing().contributions.items() if there
    }
    house.agree()


def test_a_call_that_was_taken_back_and_is_paid_all_the_same_goes_back(house: House) -> None:
    """Its command was on its way; what was called off is forgotten when none can be any more."""
    house.send(house.market.money(CommandKind.DEPOSIT, RICH, DEPOSIT))
    house.trade(LOSER, RICH, 30, 2_500)
    house.record(SizeFund(person="risk"))
    (called,) = [due for due in house.dues() if due.account == RICH]
    house.trade(RICH, LOSER, 30, 2_500)
    house.record(SizeFund(person="risk"))
    assert called not in house.dues()
    before = house.clearing.cash(RICH), fund(house)[3]
    house.reopen()
    house.send(wishes.due(called).command)
    house.pay()
    assert (house.clearing.cash(RICH), fund(house)[3]) == before
    house.agree()
    dues = house.clearing._state.matters.get(Dues)
    assert {off.due.kind for off in dues.off.values()} == {"withdraw"}  # LOSER's never came
    house.at(max(off.until for off in dues.off.values()))
    assert dues.off == {}
    house.reopen()
    assert house.clearing._state.matters.get(Dues).off == {}


def test_what_a_defaulter_pays_late_and_gets_back_is_its_margin_once(house: House) -> None:
    """Its call was on its way at the declaration; cash that was taken and returned is not new."""
    for account in (LOSER, RICH):
        house.send(house.market.money(CommandKind.DEPOSIT, account, DEPOSIT))
    house.trade(LOSER, RICH, 20, 2_500)
    house.record(SizeFund(person="risk"))
    (called,) = [due for due in house.dues() if due.account == LOSER]
    margin = declare(house)["margin"]
    assert margin == house.clearing.cash(LOSER) > called.amount > 0
    house.send(wishes.due(called).command)
    assert defaults(house).defaults[0].margin == house.clearing.cash(LOSER) < margin
    house.pay(but=("fund 2 3", "fund 2 2", "fund 2 4"))
    assert defaults(house).defaults[0].margin == house.clearing.cash(LOSER) == margin
    house.reopen()
    auction(house, [(SAFE, 120, 2_400_000)])
    settle(house, 2_400_000)
    found = allocate(house)
    assert found["loss"] == margin - house.clearing.cash(LOSER) > 0
    assert found["layers"]["defaulter_margin"] == found["loss"]
    house.agree()


def test_a_defaulter_that_pays_more_late_than_it_had_has_no_loss(house: House) -> None:
    """It was paid out of what it won since; the loss is shared before it gets the payment back."""
    house.send(house.market.money(CommandKind.DEPOSIT, RICH, DEPOSIT))
    house.trade(LOSER, RICH, 20, 2_500)
    house.record(SizeFund(person="risk"))
    (called,) = [due for due in house.dues() if due.account == LOSER]
    house.send(house.market.settle(0, 2_300_000))
    assert 0 < declare(house)["margin"] < called.amount
    house.send(house.market.settle(0, 2_500_000, cycle=2))
    auction(house, [(SAFE, 120, 2_500_000)])
    house.send(wishes.due(called).command)
    assert defaults(house).defaults[0].margin < 0
    house.send(house.market.settle(0, 2_500_000, cycle=3))
    assert allocate(house)["loss"] == 0
    house.pay(but=("fund",))
    house.agree()


def test_a_closed_book_is_open_again_when_a_trade_of_it_is_taken_back(house: House) -> None:
    """Its lots can be auctioned, and the loss shared; nothing else would ever empty it."""
    declare(house)
    house.send(Command(kind=CommandKind.RESUME, account=LOSER))
    house.send(house.market.enter(LOSER, Side.SELL, 2_500, 100))
    sold = house.send(house.market.enter(RICH, Side.BUY, 2_500, 100))
    house.pay()
    settle(house, 2_500_000)
    assert defaults(house).defaults[0].stage == "closed"
    trade = next(row for row in TRADE.iter_unpack(sold) if row[2] == EventKind.TRADE)
    house.send(wishes.bust(Trade(**dict(zip(TRADE_FIELDS, trade, strict=True)))).command)
    default, (_, outcome, facts) = defaults(house).defaults[0], house.rulings("default")[-1]
    assert (outcome, default.stage, default.steps["close"]) == (
        "reopened", "declared", facts["close_by"],
    )  # fmt: skip
    assert "allocate" not in default.steps
    house.reopen()
    facts = house.record(OpenAuction(default=1, instrument=0, person="risk"))[1]
    assert bid(house, SAFE, 100, 2_000_000) == "accepted"
    house.at(facts["deadline"])
    house.pay(but=("fund",))
    house.send(house.market.settle(0, 2_500_000, cycle=3))
    assert [stage.stage for stage in defaults(house).defaults[0].history][-3:] == [
        "auction opened", "auction closed", "closed",
    ]  # fmt: skip
    assert allocate(house)["loss"] > 0
    house.pay()
    house.agree()


def test_what_is_torn_up_and_cannot_move_is_offered_again(house: House) -> None:
    """RICH has bought its lots back meanwhile: whom a tear-up hits only ever reduces."""
    declare(house)
    auction(house, [])
    assert tear_up(house)[1]["torn"] == {str(RICH): 85, str(POOR): 15}
    house.send(house.market.money(CommandKind.DEPOSIT, SAFE, DEPOSIT))
    house.trade(RICH, SAFE, 110, 2_500)
    house.pay_what_is_there()
    assert [house.clearing.net(a, 0) for a in (LOSER, RICH, POOR)] == [85, 0, -5]
    assert [due.lots.other for due in house.dues() if due.lots] == [RICH]
    assert tear_up(house)[0] == "proposal_state"
    outcome, facts = house.record(OpenAuction(default=1, instrument=0, person="risk"))
    assert (outcome, facts["net"], house.dues()) == ("opened", 85, [])
    house.reopen()
    house.at(facts["deadline"])
    assert tear_up(house)[1]["torn"] == {str(SAFE): 81, str(POOR): 4}
    house.pay()
    assert house.clearing.net(LOSER, 0) == 0
    house.agree()


def test_an_award_that_has_not_moved_when_the_book_is_closed_is_off(house: House) -> None:
    """It would move lots at its old price, should the account ever hold any again."""
    declare(house)
    house.send(house.market.money(CommandKind.WITHDRAW, POOR, DEPOSIT - 17 * UNIT))
    facts = house.record(OpenAuction(default=1, instrument=0, person="risk"))[1]
    assert bid(house, POOR, 100, 2_600_000) == "accepted"
    house.at(facts["deadline"])
    house.pay_what_is_there()
    assert [due.id for due in house.dues()] == ["award 1 1"]
    house.send(Command(kind=CommandKind.RESUME, account=LOSER))
    house.trade(RICH, LOSER, 100, 2_500)
    house.pay_what_is_there()
    settle(house, 2_500_000)
    assert (defaults(house).defaults[0].stage, house.dues()) == ("closed", [])


def test_who_has_no_margin_and_orders_that_work_is_torn_up_all_the_same(house: House) -> None:
    """POOR owes, and its bids hold as much as its short does: it is asked for no margin."""
    declare(house)
    auction(house, [])
    house.send(house.market.enter(POOR, Side.BUY, 1_500, 40))
    owed = house.clearing.cash(POOR) + UNIT
    house.send(house.market.money(CommandKind.FEE, POOR, owed))
    assert house.market.engine.account(POOR)["in_deficit"]
    assert tear_up(house)[1]["torn"] == {str(RICH): 85, str(POOR): 15}
    house.pay_what_is_there()
    assert [house.clearing.net(a, 0) for a in (LOSER, RICH, POOR)] == [0, -25, -5]
    assert house.dues() == []
    house.agree()


def test_a_second_default_is_assessed_on_what_the_first_has_used(house: House) -> None:
    """The fund is empty, before it is sized again and after, until its calls are paid."""
    crash(house, 1_200_000)
    declare(house)
    flatten(house, 1_200_000)
    house.send(house.market.money(CommandKind.FEE, LOSER, 90 * UNIT))
    before = fund(house)
    first = allocate(house, assessment_cap_pct=0)
    house.pay()
    assert first["survivors_fund"] == {str(m): there for m, there in before.items() if m > 1}
    assert not any(fund(house).values())
    house.record(DeclareDefault(member=4, person="risk", reason="unpaid"))
    house.pay()
    house.send(Command(kind=CommandKind.RESUME, account=POOR))
    house.trade(POOR, RICH, 20, 1_200)
    house.pay()
    house.send(house.market.settle(0, 1_200_000, cycle=3))
    loss = house.clearing.cash(POOR) + 500 * UNIT
    house.send(house.market.money(CommandKind.FEE, POOR, loss))
    second = Allocate(default=2, proposed_by="risk", approved_by="chief")

    def caps() -> dict[str, int]:
        found = house.clearing.would(write(second)).facts
        assert (found["survivors_fund"], found["layers"]["survivors_fund"]) == ({}, 0)
        return dict(found["assessments"])

    wanted = {str(m): before[m] * 275 // 100 for m in (2, 3)}
    assert caps() == wanted
    called = house.record(SizeFund(person="risk"))[1]["called"]
    assert caps() == {m: amount * 275 // 100 for m, amount in called.items()} != wanted
    kept = caps()
    house.reopen()
    assert house.record(second)[1]["assessments"] == kept
    house.record(SizeFund(person="risk"))
    house.pay(but=("fund",))
    house.send(house.market.money(CommandKind.FEE, POOR, UNIT))  # nobody is assessed once more
    assert house.record(second)[1]["layers"]["uncovered"] == 500 * UNIT - sum(kept.values()) + UNIT
    head, matter = house.clearing.ledger_hash, house.clearing.matter("defaults")
    house.clearing.rebuild(house.market.frames)
    assert (house.clearing.ledger_hash, house.clearing.matter("defaults")) == (head, matter)
    house.agree()
