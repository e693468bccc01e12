"""The end of a default: losses that come later, what is repaid to whom, what is written off."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import test_deliveries as delivery
from clearing_house import House
from oracle_default import Books
from test_crash_cycles import physical
from test_defaults import (
    CLIENT,
    DEPOSIT,
    LOSER,
    MEMBERS,
    POOR,
    RICH,
    SAFE,
    allocate,
    auction,
    crash,
    declare,
    defaults,
    fund,
    house,
    port,
    settle,
    start,
    tear_up,
)

from exchange.clearing.calling import AccrueInterest, Pledge, Release, ValueAsset
from exchange.clearing.default.payout import CAPITAL
from exchange.clearing.default.records import (
    Allocate,
    AuctionBid,
    CloseDefault,
    DeclareDefault,
    DistributeRecovery,
    OpenAuction,
    PayCapital,
    SizeFund,
)
from exchange.clearing.delivery import dvp
from exchange.clearing.records import write
from exchange.messages import EVENT, AccountKind, Command, CommandKind, Reason, Side

__all__ = ["house"]  # a fixture
UNIT = 1_000_000_000  # micro-dollars
SECOND = 12  # LOSER's other account


def capital(house: House) -> int:
    return dvp.balance(house.clearing._state.book, CAPITAL)


def end(house: House) -> tuple[str, dict[str, Any]]:
    return house.record(CloseDefault(default=1, proposed_by="risk", approved_by="chief"))


def distribute(house: House) -> tuple[str, dict[str, Any]]:
    return house.record(DistributeRecovery(default=1, proposed_by="risk", approved_by="chief"))


def deposit(house: House, account: int, amount: int) -> None:
    house.send(house.market.money(CommandKind.DEPOSIT, account, amount))


def fee(house: House, account: int, amount: int) -> None:
    house.send(house.market.money(CommandKind.FEE, account, amount))


def replenish(house: House) -> None:
    """Everybody can pay, and does."""
    for account in (SAFE, RICH, POOR):
        deposit(house, account, 10 * DEPOSIT)
    house.record(SizeFund(person="risk"))
    house.pay()


def sold(house: House, price: int, settled: int = 1_500_000, ported: bool = True) -> None:
    """The client is ported, or sells what it has; the book is auctioned to SAFE and settled."""
    if ported:
        assert house.record(port())[0] == "ported"
    else:
        house.trade(RICH, CLIENT, 10, settled // 1_000)
    house.pay()
    auction(house, [(SAFE, house.clearing.net(LOSER, 0), price)])
    settle(house, settled)
    house.pay()


def books(house: House) -> Books:
    members = {2: SAFE, 3: RICH, 4: POOR}
    cash = {account: house.clearing.cash(account) for account in (0, SECOND, *MEMBERS)}
    (default,) = defaults(house).defaults
    estate = [*default.accounts, *(a for a in (CLIENT,) if cash[a] < 0)]
    return Books(cash, fund(house), capital(house), members, 1, estate, set(default.junior))


def same(house: House, wanted: Books) -> None:
    """Every account, the fund and the capital are what the oracle has."""
    assert {a: house.clearing.cash(a) for a in wanted.cash} == wanted.cash
    assert (fund(house), capital(house)) == (wanted.fund, wanted.capital)
    house.agree()


def refresh(wanted: Books, house: House) -> None:
    """Take in what was paid in meanwhile, by whom the oracle need not know."""
    found = books(house)
    wanted.cash, wanted.fund, wanted.capital = found.cash, found.fund, found.capital


@pytest.mark.parametrize("seed", [*range(9), 14])  # 14: a second loss comes to the caps
def test_who_bore_the_last_loss_is_paid_first(tmp_path: Path, seed: int) -> None:
    """Losses in one or two goes, recoveries before and after the end, a crash between the steps."""
    draw = random.Random(seed)
    path = tmp_path / "clearing.db"
    house = start(path, draw.randint(60, 105))
    house.open(SECOND, 1, AccountKind.HOUSE, draw.choice((0, 4 * UNIT)))
    poor = draw.random() < 0.4  # the client: nobody takes it, and it owes
    if poor:
        house.send(house.market.money(CommandKind.WITHDRAW, CLIENT, DEPOSIT - 4 * UNIT))

    def restart() -> None:
        if draw.random() < 0.4:
            house.reopen()
        elif draw.random() < 0.3:
            house.clearing.rebuild(house.market.frames)
            house.__post_init__()

    crash(house, draw.choice((2_300_000, 1_700_000, 1_200_000)))
    declare(house)
    price = house.clearing._state.instruments[0].mark
    sold(house, max(1_000_000, price - draw.choice((0, 300_000))), price, ported=not poor)
    gains = {RICH: draw.choice((0, 7 * UNIT + 1)), POOR: 3 * UNIT}
    gains |= {CLIENT: UNIT} if house.clearing.cash(CLIENT) < 0 else {}  # of whom nothing is cut
    wanted, uncovered, goes = books(house), 0, draw.choice((1, 2, 3))
    margin = defaults(house).defaults[0].margin
    for times in range(goes):
        per_cent = draw.choice((0, 20, 275))
        if times:
            later = max(0, books(house).net) + draw.randint(1, 60 * UNIT)
            fee(house, draw.choice((LOSER, SECOND)), later)
            assert house.rulings("default")[-1][1] == "owes"
            refresh(wanted, house)
        uncovered = wanted.share(per_cent, gains)
        found = allocate(house, gains=gains, assessment_cap_pct=per_cent)
        assert found["layers"]["uncovered"] == uncovered
        assert found["layers"]["defaulter_margin"] <= (0 if times else margin)
        restart()
        house.pay()
        same(house, wanted)
        if draw.random() < 0.5:
            replenish(house)
            refresh(wanted, house)
    replenish(house)
    if uncovered:
        assert end(house)[0] == "amount"
        house.record(PayCapital(amount=uncovered + 5, person="owner"))
        deposit(house, LOSER, draw.choice((1, uncovered, uncovered + 9 * UNIT)))
    refresh(wanted, house)
    assert end(house)[0] == "ended"
    assert [row[1] for row in house.rulings("default")].count("owes") == goes - 1
    assert defaults(house).defaults[0].margin == margin
    for _ in range(3):
        before = wanted.total()
        wanted.end()
        restart()
        house.pay()
        assert wanted.total() == before
        same(house, wanted)
        deposit(house, LOSER, draw.randint(1, 80 * UNIT))
        refresh(wanted, house)
        if not any(sum(parts.values()) for parts in wanted.bore.values()):
            assert distribute(house)[0] == "amount"
            break
        assert distribute(house)[0] == "distributed"
    house.pay()
    head, kept = house.clearing.ledger_hash, house.clearing.matter("defaults")
    house.clearing.rebuild(house.market.frames)
    assert (house.clearing.ledger_hash, house.clearing.matter("defaults")) == (head, kept)
    house.clearing.close()


def why(answer: tuple[str, dict[str, Any]]) -> tuple[str, object, object]:
    """A refusal: its name, limit and observed value."""
    return answer[0], answer[1]["limit"], answer[1]["observed"]


def test_what_is_open_keeps_a_default_from_ending_by_name(house: House) -> None:
    """In the order of the page; the client that nobody takes is the last to leave."""
    assert end(house)[0] == "unknown_default"
    house.record(ValueAsset(asset="T-BILL", price=UNIT, haircut_bp=0))
    for account, units in ((LOSER, 10), (CLIENT, 5)):
        house.record(Pledge(id=f"p{account}", account=account, asset="T-BILL", units=units))
    crash(house, 1_200_000)
    declare(house)
    alone = CloseDefault(default=1, proposed_by="risk", approved_by="risk")
    assert house.record(alone)[0] == "four_eyes"
    assert why(end(house)) == ("default_state", "replenished", "declared")
    auction(house, [(SAFE, 100, 1_200_000)])
    settle(house, 1_200_000)
    allocate(house)
    assert house.record(again())[0] == "proposal_state"  # what the layers pay is on its way
    house.pay()
    assert why(end(house)) == ("default_state", "replenished", "allocated")
    assert why(distribute(house)) == ("default_state", "ended", "allocated")
    for account in (SAFE, RICH):
        deposit(house, account, 10 * DEPOSIT)
    spare = house.market.engine.account(POOR)
    house.send(house.market.money(CommandKind.WITHDRAW, POOR, spare["cash"] - spare["hold"]))
    house.record(SizeFund(person="risk"))
    house.pay_what_is_there()
    assert why(end(house)) == ("account_not_empty", f"{CLIENT} H100Z26", 10)
    house.trade(RICH, CLIENT, 10, 1_199)
    assert why(end(house)) == ("account_not_empty", f"{CLIENT} H100Z26", 0)  # not settled
    house.send(house.market.settle(0, 1_200_000, cycle=3))
    assert why(end(house)) == ("account_not_empty", f"{CLIENT} T-BILL", 5)
    house.record(Release(id="r1", account=CLIENT, asset="T-BILL", units=5))
    assert why(end(house)) == ("account_not_empty", f"{LOSER} T-BILL", 10)
    house.record(Release(id="r2", account=LOSER, asset="T-BILL", units=10))
    assert why(end(house)) == ("proposal_state", "moved", "fund 2 4")
    deposit(house, POOR, DEPOSIT)
    house.pay()
    house.send(Command(kind=CommandKind.RESUME, account=LOSER))
    assert why(end(house)) == ("proposal_state", "moved", "default 1 10 again 1 freeze")
    house.pay()
    fee(house, LOSER, 7)
    assert why(end(house)) == ("amount", 0, 7)
    deposit(house, LOSER, 7)
    assert list(defaults(house).defaults[0].steps) == ["port"]  # CLIENT has cash there
    facts = end(house)[1]
    assert (facts["repaid"], facts["written_off"], facts["left"]) == ({}, 0, 0)
    assert why(distribute(house)) == ("proposal_state", "moved", f"recovery 1 1 {CLIENT} freeze")
    house.pay()
    assert why(distribute(house)) == ("amount", 1, 0)
    assert why(end(house)) == ("default_state", "replenished", "ended")


def again(default: int = 1, **more: Any) -> Allocate:
    return Allocate(default=default, proposed_by="risk", approved_by="chief", **more)


def test_who_is_in_default_stays_so_after_the_end(house: House) -> None:
    crash(house)
    declare(house)
    auction(house, [(SAFE, 100, 1_500_000)])
    settle(house, 1_500_000)
    allocate(house)
    house.pay()
    replenish(house)
    house.record(port())
    assert why(end(house)) == ("proposal_state", "moved", f"port 1 {CLIENT} freeze")
    house.pay()
    assert end(house)[0] == "ended"
    repeated = DeclareDefault(member=1, person="risk", reason="")
    assert house.record(repeated)[0] == "duplicate"
    assert 1 not in house.record(SizeFund(person="risk"))[1]["called"]
    house.pay()
    house.record(DeclareDefault(member=4, person="risk", reason="unpaid"))
    house.pay()
    house.record(OpenAuction(default=2, instrument=0, person="risk"))
    for account in (LOSER, CLIENT):
        bought = AuctionBid(auction=2, account=account, lots=1, price=1_500_000)
        assert house.record(bought)[0] == "unknown_account"
    for account in (LOSER, CLIENT):  # be it that two people let it trade
        house.send(Command(kind=CommandKind.RESUME, account=account))
        assert [(due.kind, due.account) for due in house.dues()] == [("kill", account)]
        assert house.rulings("default")[-1][1] == "frozen_again"
        house.reopen()
        house.pay()
        assert house.market.engine.account(account)["killed"]


def test_a_client_that_owes_sells_what_it_has_pledged_before_its_member_answers(
    house: House,
) -> None:
    """Who is not a defaulter's keeps what it has pledged as long as it owes."""
    house.record(ValueAsset(asset="T-BILL", price=UNIT, haircut_bp=0))
    for account, units in ((CLIENT, 2), (SAFE, 2)):
        house.record(Pledge(id=f"p{account}", account=account, asset="T-BILL", units=units))
    for account in (CLIENT, SAFE):
        free = house.market.engine.account(account)
        house.send(house.market.money(CommandKind.WITHDRAW, account, free["cash"] - free["hold"]))
    crash(house)
    declare(house)
    out = Release(id="r", account=CLIENT, asset="T-BILL", units=2)
    assert house.record(out)[0] == "amount"  # it holds lots yet
    house.trade(RICH, CLIENT, 10, 1_500)
    house.trade(RICH, SAFE, 20, 1_500)
    auction(house, [(RICH, 100, 1_500_000)])
    settle(house, 1_500_000)
    owed = [-house.clearing.cash(account) for account in (LOSER, CLIENT)]
    assert allocate_would(house)["loss"] == owed[0]
    assert house.record(out)[0] == "accepted"
    kept = Release(id="k", account=SAFE, asset="T-BILL", units=2)
    assert house.clearing.cash(SAFE) < 0 and house.record(kept)[0] == "amount"
    deposit(house, CLIENT, 2 * UNIT)
    assert allocate(house)["loss"] == sum(owed) - 2 * UNIT
    house.pay()
    assert [house.clearing.cash(account) for account in (LOSER, CLIENT)] == [0, 0]
    replenish(house)
    assert end(house)[0] == "ended"
    house.pay()
    assert house.market.engine.account(CLIENT)["killed"]
    house.send(Command(kind=CommandKind.RESUME, account=CLIENT))
    assert [due.account for due in house.dues()] == [CLIENT]
    deposit(house, CLIENT, UNIT)
    house.trade(RICH, CLIENT, 1, 1_500)  # before it is frozen again
    house.pay()
    house.send(Command(kind=CommandKind.RESUME, account=CLIENT))
    assert house.dues() == []  # it holds lots, and may have to close them
    house.agree()


def allocate_would(house: House) -> dict[str, Any]:
    return house.clearing.would(write(again())).facts


def test_what_nobody_covers_bears_no_interest_and_is_written_off_by_capital_alone(
    house: House,
) -> None:
    """Two limits: what the waterfall left uncovered, and what the house has; each by name."""
    crash(house, 1_000_000)
    declare(house)
    sold(house, 500_000, 1_000_000, ported=False)
    uncovered = allocate(house, assessment_cap_pct=0)["layers"]["uncovered"]
    assert uncovered > 0
    house.pay()
    assert house.record(AccrueInterest(credit_bp=0, debit_bp=900))[1]["charged"] == 0
    replenish(house)
    assert why(end(house)) == ("amount", 0, uncovered)  # there is no capital
    house.record(PayCapital(amount=uncovered + 3, person="owner"))
    fee(house, LOSER, 2)
    assert why(end(house)) == ("amount", uncovered, uncovered + 2)  # 2 were never shared
    deposit(house, LOSER, 2)
    out = house.market.money(CommandKind.WITHDRAW, CLIENT, house.clearing.cash(CLIENT))
    (refused,) = EVENT.iter_unpack(house.market.apply(out))
    house.book()
    assert refused[4] == Reason.FUNDS  # its member owes, and that is held against it
    assert end(house)[1]["written_off"] == uncovered
    house.pay()
    house.send(msgspec.structs.replace(out, key_lo=house.market.key()))
    assert (house.clearing.cash(LOSER), capital(house)) == (0, 3)
    fee(house, LOSER, 1)
    assert why(distribute(house)) == ("amount", 0, 1)
    deposit(house, LOSER, uncovered + 2)
    assert next(iter(distribute(house)[1]["repaid"].values())) == {"0": uncovered}
    house.pay()
    assert capital(house) == uncovered + 3
    house.agree()


def test_a_clients_debt_that_was_shared_bears_no_interest_either(house: House) -> None:
    """It would be a further loss of the same default, for others to bear and the house to get."""
    crash(house)
    declare(house)
    house.send(house.market.enter(RICH, Side.BUY, 1_500, 10))
    house.send(house.market.enter(CLIENT, Side.SELL, 1_500, 10))
    auction(house, [(RICH, 100, 1_400_000)])
    settle(house, 1_500_000)
    fee(house, CLIENT, 200 * UNIT)
    allocate(house, assessment_cap_pct=0)
    house.pay()
    owed = house.clearing.cash(CLIENT)
    assert owed < 0
    house.record(AccrueInterest(credit_bp=0, debit_bp=1_000, days=36))
    house.pay()
    assert house.clearing.cash(CLIENT) == owed
    assert house.rulings("default")[-1][1] != "owes"


def test_what_somebody_gets_back_that_defaults_itself_is_its_estates(house: House) -> None:
    """Its own loss is not shared yet: it is margin."""
    crash(house, 1_200_000)
    declare(house)
    sold(house, 1_200_000, 1_200_000)
    bore = allocate(house)["survivors_fund"]
    house.pay()
    replenish(house)
    house.record(DeclareDefault(member=3, person="risk", reason="unpaid"))
    house.pay()
    margin = defaults(house).defaults[1].margin
    deposit(house, LOSER, 80 * UNIT)
    facts = end(house)[1]
    back = {m: n for parts in facts["repaid"].values() for m, n in parts.items() if m != "0"}
    assert back == bore and "3" in back
    stands = house.statement(RICH)
    assert stands.standing is not None
    assert [(one.layer, one.borne, one.repaid) for one in stands.standing.defaults] == [
        ("junior_fund", bore["3"], bore["3"])
    ]
    assert "junior fund" in stands.text()
    own = house.clearing.statement(0).standing
    assert own is not None and [one.layer for one in own.defaults] == ["own_capital"]
    house.reopen()
    house.pay()
    assert defaults(house).defaults[1].margin == margin + back["3"]
    assert house.clearing.cash(LOSER) == facts["left"]
    assert not any(house.clearing.losses(2).borne.values())
    house.agree()


def test_lots_that_come_back_open_a_default_again_that_was_shared_or_ended(house: House) -> None:
    """Somebody lets the account trade: nothing else would ever close what it bought."""
    crash(house)
    declare(house)
    sold(house, 1_500_000)
    allocate(house)
    house.pay()
    for cycle, stage in ((3, "allocated"), (5, "replenished"), (7, "ended")):
        if stage != "allocated":
            replenish(house)
        if stage == "ended":
            outcome, facts = end(house)
            assert (outcome, facts["unpaid"]) == ("ended", {}) and facts["repaid"]
        deposit(house, LOSER, 50 * UNIT)
        house.send(Command(kind=CommandKind.RESUME, account=LOSER))
        house.trade(LOSER, RICH, 3, 1_500)
        house.pay()
        if stage == "replenished":
            assert why(end(house)) == ("book_not_empty", f"{LOSER} H100Z26 0", 3)
        house.send(house.market.settle(0, 1_500_000, cycle=cycle))
        assert house.rulings("default")[-1][1] == "reopened"
        house.record(OpenAuction(default=1, instrument=0, person="risk"))
        house.at(defaults(house).auctions[-1].deadline)
        tear_up(house)
        house.pay()
        house.send(house.market.settle(0, 1_500_000, cycle=cycle + 1))
        default = defaults(house).defaults[0]
        assert (default.stage, set(default.steps)) == ("closed", {"allocate"})
        assert allocate(house)["loss"] == 0
    replenish(house)
    facts = end(house)[1]
    house.pay()
    assert (facts["repaid"], facts["unpaid"]) == ({}, {})
    assert house.clearing.cash(LOSER) == facts["left"] > 50 * UNIT
    house.agree()


def test_a_delivery_that_is_not_paid_after_the_loss_was_shared_is_shared_as_well(
    tmp_path: Path,
) -> None:
    """The seller has its penalty in full; the default does not end before the delivery has."""
    house = physical(tmp_path / "clearing.db")
    house.record(PayCapital(amount=5 * UNIT, person="owner"))
    delivery.deliveries(house).begun = 1  # an earlier one is closed
    delivery.assigned(house)
    house.pay(but=("delivery 2 escrow",))
    buyer, seller = delivery.OLD, delivery.SHORT
    house.send(house.market.money(CommandKind.WITHDRAW, buyer, house.clearing.cash(buyer)))
    house.record(DeclareDefault(member=buyer, person="risk", reason="unpaid"))
    house.pay(but=("delivery 2 escrow",))
    assert allocate(house)["loss"] == 0
    house.record(SizeFund(person="risk"))
    assert why(end(house)) == ("delivery_state", "ended", "2 invoiced")
    before = house.clearing.cash(seller)
    house.at(delivery.deliveries(house).expiries[0].terms.begin_ns)
    house.pay()
    penalty = house.rulings("delivery")[-1][2]["penalty"] * 10_000
    _, outcome, facts = house.rulings("default")[-1]
    assert (outcome, facts["owed"]) == ("owes", penalty)
    assert house.clearing.cash(seller) - before == penalty > 0
    assert why(end(house)) == ("amount", 0, penalty)
    house.reopen()
    house.at(facts["allocate_by"])
    overdue = {"default": 1, "step": "allocate", "deadline": facts["allocate_by"]}
    assert house.rulings("default")[-1][1:] == ("overdue", overdue)
    layers = allocate(house)["layers"]
    assert {name: taken for name, taken in layers.items() if taken} == {"own_capital": penalty}
    house.pay()
    assert (house.clearing.cash(buyer), capital(house)) == (0, 5 * UNIT - penalty)
    house.record(SizeFund(person="risk"))
    assert end(house)[1]["unpaid"] == {"own_capital": penalty}
    deposit(house, buyer, penalty + 3)
    assert distribute(house)[1]["repaid"] == {"own_capital": {"0": penalty}}
    house.reopen()
    house.pay()
    assert (house.clearing.cash(buyer), capital(house)) == (3, 5 * UNIT)
    house.agree()
    house.clearing.close()


def test_a_fund_that_is_sized_does_not_share_what_has_come_to_be_owed(house: House) -> None:
    """Until that is shared the house's capital and the fund stay, and its deadline with them."""
    crash(house)
    declare(house)
    sold(house, 1_400_000)
    allocate(house)
    house.pay()
    house.record(PayCapital(amount=7 * UNIT, person="owner"))
    fee(house, LOSER, 5 * UNIT)
    by = house.rulings("default")[-1][2]["allocate_by"]
    for account in (SAFE, RICH, POOR):
        deposit(house, account, 10 * DEPOSIT)
    assert house.record(SizeFund(person="risk"))[1]["replenishes"] == [1]
    house.pay()
    assert defaults(house).defaults[0].steps == {"allocate": by}
    out = house.record(PayCapital(amount=-7 * UNIT, person="owner"))
    assert why(out) == ("default_state", "allocated", "1 replenished")
    assert house.record(SizeFund(person="risk"))[1]["returned"] == {}
    house.at(by)
    overdue = {"default": 1, "step": "allocate", "deadline": by}
    assert house.rulings("default")[-1][1:] == ("overdue", overdue)
    layers = allocate(house)["layers"]
    assert {name: taken for name, taken in layers.items() if taken} == {"own_capital": 5 * UNIT}
    house.pay()
    assert [row[1] for row in house.rulings("default")].count("owes") == 1
    assert list(defaults(house).defaults[0].steps) == ["replenish"]
    house.agree()
