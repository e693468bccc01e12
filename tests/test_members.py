"""Members: who may sign what, positions that change hands once or never, a lender's box."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clearing_house import RATE, House

from exchange.app import wishes
from exchange.clearing import Clearing
from exchange.clearing.calling import Pledge, ValueAsset
from exchange.clearing.default.records import DeclareDefault
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.members.box import box
from exchange.clearing.members.offbook import GIVE_UP_NS, MOVE_NS, SIGN_NS, Move, OffBook, Transfer
from exchange.clearing.members.records import GiveUp, Register, Sign
from exchange.clearing.pricing import Prices
from exchange.messages import AccountKind, Command, CommandKind, Limit

BROKER, CLIENT, CLEARER, BOX = 10, 11, 20, 30  # of members 1, 2 (with CLEARER as its own), 2, 3
DEPOSIT = 50_000_000_000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(Clearing.open(tmp_path / "clearing.db"))
    made.open(BROKER, 1, AccountKind.HOUSE, DEPOSIT)
    made.open(CLIENT, 2, AccountKind.CLIENT, DEPOSIT)
    made.open(CLEARER, 2, AccountKind.HOUSE, DEPOSIT)
    made.open(BOX, 3, AccountKind.BOX, DEPOSIT)
    made.list(0, "H100Z26", date(2026, 11, 2))
    made.day(20261118)
    made.trade(BROKER, BOX, 60, 2_500)
    yield made
    made.clearing.close()


def give_up(**changes: Any) -> GiveUp:
    plain = GiveUp(
        account=BROKER, taker=CLIENT, instrument=0, lots=20, price=2_500_000, match_number=7
    )
    return msgspec.structs.replace(plain, **changes)


def block(**changes: Any) -> Register:
    plain = Register(account=BROKER, other=BOX, instrument=0, lots=50, price=2_510_000)
    return msgspec.structs.replace(plain, **changes)


def transfers(house: House) -> list[Transfer]:
    """All that are pending or remembered, by number."""
    matter = house.clearing._state.matters.get(OffBook)
    assert not matter.pending.keys() & matter.ended.keys()
    known = matter.pending | matter.ended
    return [known[number] for number in sorted(known)]


def final(house: House) -> list[Move]:
    return [transfer.move for transfer in transfers(house) if transfer.stage == "final"]


def stages(house: House) -> list[str]:
    return [transfer.stage for transfer in transfers(house)]


def sign(house: House, account: int, transfer: int = 1, *, accept: bool = True) -> str:
    record = Sign(account=account, transfer=transfer, accept=accept)
    return house.record(record, account)[0]


def test_a_give_up_needs_both_clearing_members(house: House) -> None:
    """The broker clears for itself, so its asking is its member's word; the taker's is CLEARER."""
    outcome, facts = house.record(give_up(), BROKER)
    assert (outcome, facts["needed"], facts["signed"]) == ("open", [BROKER, CLEARER], [BROKER])
    assert sign(house, CLIENT) == "not_yours"
    assert final(house) == []
    assert sign(house, CLEARER) == "final"
    assert final(house) == [Move(1, "give_up", 0, BROKER, CLIENT, 20, 2_500_000)]
    assert sign(house, CLEARER) == "proposal_state"
    assert len(final(house)) == 1


@pytest.mark.parametrize("end", ["refused", "expired"])
def test_a_give_up_refused_or_timed_out_moves_nothing_ever(house: House, end: str) -> None:
    house.record(give_up(), BROKER)
    if end == "refused":
        assert sign(house, CLEARER, accept=False) == "refused"
    else:
        house.at(house.market.stamp + GIVE_UP_NS)
        assert house.rulings("transfer")[-1][1] == "expired"
    assert sign(house, CLEARER) == "proposal_state"
    house.reopen()
    assert sign(house, CLEARER) == "proposal_state"
    assert final(house) == []
    assert house.record(give_up(), BROKER)[0] == "open"  # it may be asked for anew


def test_a_give_up_of_lots_that_are_given_or_not_there_is_refused(house: House) -> None:
    assert house.record(give_up(lots=61))[0] == "quantity"
    assert house.record(give_up(lots=-5))[0] == "quantity"  # the broker is long
    assert house.record(give_up(lots=0))[0] == "quantity"
    assert house.record(give_up(taker=99))[0] == "unknown_account"
    assert house.record(give_up(taker=BROKER))[0] == "same_owner"
    assert house.record(give_up(instrument=4))[0] == "unknown_instrument"
    assert house.record(give_up(), CLIENT)[0] == "not_yours"
    house.record(give_up())
    sign(house, CLEARER)
    assert house.record(give_up())[0] == "quantity"  # the same trade's lots, a second time
    assert len(final(house)) == 1


def test_a_trade_is_given_up_in_parts_to_several(house: House) -> None:
    """To each once; what is on its way is not held any more."""
    house.open(40, 4, AccountKind.HOUSE, DEPOSIT)
    assert house.record(give_up())[0] == "open"
    assert house.record(give_up(taker=CLEARER, lots=25))[0] == "open"
    outcome, facts = house.record(give_up(taker=40, lots=16))
    assert (outcome, facts["limit"], facts["observed"]) == ("quantity", 15, 16)
    assert house.record(give_up(taker=40, lots=15))[0] == "open"
    assert house.record(give_up(lots=1))[0] == "quantity"  # it was asked before
    for signer, transfer in ((CLEARER, 1), (CLEARER, 2), (40, 3)):
        assert sign(house, signer, transfer) == "final"
    assert house.record(give_up(match_number=8, lots=1))[0] == "quantity"
    house.pay()
    assert [house.clearing.net(a, 0) for a in (BROKER, CLIENT, CLEARER, 40)] == [0, 20, 25, 15]
    assert stages(house) == ["moved"] * 3
    house.agree()


@pytest.mark.parametrize("record", [give_up(), block()])
def test_what_the_engine_does_not_move_in_a_day_is_off(
    house: House, record: GiveUp | Register
) -> None:
    """The taker has no margin for it: it is not asked for ever, and may be agreed anew."""
    taker, signer = (CLIENT, CLEARER) if isinstance(record, GiveUp) else (BROKER, BOX)
    house.record(record)
    sign(house, signer)
    house.send(house.market.money(CommandKind.FEE, taker, 2 * DEPOSIT))
    house.pay_what_is_there()
    (due,) = house.dues()
    (transfer,) = transfers(house)
    assert transfer.deadline - house.market.stamp <= MOVE_NS
    house.at(transfer.deadline - 1)
    assert (stages(house), house.dues()) == (["final"], [due])
    house.at(transfer.deadline)
    assert (stages(house), house.dues()) == (["unmoved"], [])
    assert house.rulings("transfer")[-1][1:] == ("unmoved", {"transfer": 1})
    house.reopen()
    house.send(house.market.money(CommandKind.DEPOSIT, taker, 2 * DEPOSIT))
    assert house.record(record)[0] == "open"
    house.send(wishes.due(due).command)  # it was on its way all the same
    assert stages(house) == ["moved", "open"]
    house.agree()


def test_nothing_changes_hands_once_it_is_assigned_who_delivers(house: House) -> None:
    """What was not final by the last notice ends there, and so does what has not moved."""
    house.list(1, "H100PZ26", date(2026, 11, 2))
    house.trade(BROKER, BOX, 60, 2_500, 1)
    cutoff = house.clearing._state.matters.get(Deliveries).expiries[1].terms.cutoff_ns
    house.market.stamp = cutoff - SIGN_NS // 2
    records = [give_up(instrument=1), block(instrument=1), block(instrument=1, lots=70)]
    assert [house.record(record)[0] for record in records] == ["open"] * 3
    assert sign(house, BOX, 3) == "final"
    house.market.stamp = cutoff - 1_000_000
    assert sign(house, BOX, 2) == "final"  # at the cutoff itself
    house.pay(but=("transfer 3",))
    house.at(cutoff + 1)
    assert stages(house) == ["expired", "moved", "unmoved"]
    assert house.dues() == []
    for record in records:
        outcome, facts = house.record(msgspec.structs.replace(record, lots=0))
        assert (outcome, facts["limit"]) == ("late", cutoff)
        assert facts["observed"] > cutoff
    assert house.record(give_up())[0] == house.record(block())[0] == "open"  # of the other one


def test_nothing_is_agreed_in_a_cash_contract_after_its_last_trading_day(house: House) -> None:
    """H100Z26 ends on 31 December. What is fixed by then would be dealt in at 10 % from it."""
    prices = house.clearing._state.matters.get(Prices)
    assert prices.last_days[0] == 20261231
    for day, after in ((20261118, 20261231), (20261231, 20270104)):
        assert house.record(block())[0] == "open"
        house.close(day)
        house.send(house.market.settle(0, 2_500_000))
        house.day(after)
    for record in (block(), block(kind="efp", related="an invoice", lots=8)):
        outcome, facts = house.record(record)
        assert (outcome, facts["limit"], facts["observed"]) == ("late", 20261231, 20270104)
    assert house.record(give_up())[0] == "open"  # of a trade of the last day


def test_each_side_of_a_trade_is_given_up_by_itself(house: House) -> None:
    assert house.record(give_up())[0] == "open"
    short = give_up(account=BOX, taker=CLEARER, lots=-20)
    assert house.record(short)[0] == "open"
    assert house.record(short)[0] == "quantity"
    assert sign(house, CLEARER, 2) == "final"
    back = give_up(account=CLEARER, taker=BROKER, lots=-20)
    assert house.record(back)[0] == "quantity"  # nothing has moved yet
    house.pay()
    assert house.record(back)[0] == "open"  # what was taken over is another's to give up


def test_a_give_up_does_not_cost_more_than_who_gives_can_lose(house: House) -> None:
    """Its cash less the margin of what it keeps; the taker's gain is not the house's to pay."""
    hours, kept = 744, 30 * RATE
    spare = DEPOSIT - kept
    most = spare // (30 * hours)  # clearing units below the mark
    wrong = house.record(give_up(lots=30, price=2_500_000 - most - 1), BROKER)
    assert (wrong[0], wrong[1]["limit"]) == ("amount", spare)
    assert wrong[1]["observed"] == 30 * hours * (most + 1)
    assert house.record(give_up(account=BOX, lots=-20, price=9_000_000), BOX)[0] == "amount"
    assert house.record(give_up(account=BOX, lots=-20, price=1), BOX)[0] == "open"  # it gains
    assert house.record(give_up(lots=30, price=2_500_000 - most), BROKER)[0] == "open"
    second = give_up(lots=30, price=2_500_000 - most, match_number=8)
    assert house.record(second, BROKER)[0] == "open"
    assert sign(house, CLEARER, 2) == "final"
    assert sign(house, CLEARER, 3) == "amount"  # the first has taken it
    assert sign(house, CLEARER, 3, accept=False) == "refused"
    house.pay(but=("transfer 1",))
    house.send(house.market.settle(0, 2_500_000))
    assert house.clearing.cash(BROKER) == DEPOSIT - 30 * hours * most >= kept
    house.send(house.market.money(CommandKind.FEE, BROKER, house.clearing.cash(BROKER) - RATE))
    short = give_up(lots=10, price=2_480_000, match_number=11)  # its margin is missing already
    assert house.record(short, BROKER)[0] == "open"
    wrong = house.record(give_up(lots=10, price=2_479_000, match_number=9), BROKER)
    assert (wrong[0], wrong[1]["limit"]) == ("amount", RATE)
    house.send(house.market.money(CommandKind.FEE, BROKER, 2 * RATE))
    assert sign(house, CLEARER, 4) == "amount"
    assert house.record(give_up(lots=10, price=2_500_001, match_number=10), BROKER)[0] == "open"
    told = [house.rulings(name) for name in ("give_up", "sign_transfer")]
    house.clearing.rebuild(house.market.frames)
    assert [house.rulings(name) for name in ("give_up", "sign_transfer")] == told
    house.agree()


@pytest.mark.parametrize("price", [0, -1, Limit.PRICE + 1, 1 << 63])
def test_a_give_up_at_a_price_that_no_trade_has_is_refused(house: House, price: int) -> None:
    outcome, facts = house.record(give_up(price=price))
    assert (outcome, facts["limit"], facts["observed"]) == ("price_range", Limit.PRICE, price)
    assert house.record(give_up(price=price, lots=61))[0] == "quantity"
    assert house.record(give_up(price=int(Limit.PRICE)))[0] == "open"


def test_a_member_in_default_moves_nothing_off_the_book(house: House) -> None:
    """Not even what its other side has signed already; it may still say no."""
    for record in (give_up(), block(), block(account=BOX, other=BROKER)):
        assert house.record(record)[0] == "open"
    house.record(DeclareDefault(member=1, person="risk", reason="unpaid"))
    for signer, transfer in ((CLEARER, 1), (BOX, 2), (BROKER, 3)):
        outcome, facts = house.record(Sign(account=signer, transfer=transfer), signer)
        assert (outcome, facts["number"], facts["observed"]) == ("unknown_member", 2204, 1)
    for record in (
        give_up(match_number=8), give_up(account=BOX, taker=BROKER, lots=-1), block(),
        block(account=BOX, other=BROKER, lots=1),
    ):  # fmt: skip
        assert house.record(record)[0] == "unknown_member"
    assert house.record(give_up(taker=99))[0] == "unknown_account"
    assert sign(house, BROKER, 3, accept=False) == "refused"
    assert final(house) == []


def test_months_together_are_no_lots_to_hand_on(house: House) -> None:
    house.list(1, "H100F27", date(2026, 11, 2))
    spread = Command(
        kind=CommandKind.LIST_COMBINATION, instrument=2, quantity=0xF1, key_lo=1 << 16,
        target_lo=-500 & (1 << 64) - 1, target_hi=500,
    )  # fmt: skip
    house.send(spread, texts=[(0, '{"code": "H100Z26-H100F27"}')])
    for record in (block(instrument=2, price=0), give_up(instrument=2)):
        assert house.record(record)[0] == "unknown_instrument"


def test_a_block_needs_the_other_sides_signature_in_time(house: House) -> None:
    assert house.record(block(), BROKER)[0] == "open"
    assert sign(house, BROKER) == "duplicate"
    assert sign(house, BOX) == "final"
    assert house.record(block(lots=-50))[0] == "open"
    house.at(house.market.stamp + SIGN_NS)
    assert sign(house, BOX, 2) == "proposal_state"
    assert final(house) == [Move(1, "block", 0, BOX, BROKER, 50, 2_510_000)]
    (priced,) = house.clearing.settlement_prices()
    assert priced.price == 2_500_000  # what was made off the book is in no settlement price
    assert house.clearing.open_interest()[0].volume == 60


def test_a_block_too_small_unfair_or_with_oneself_is_refused(house: House) -> None:
    assert house.record(block(lots=49))[0] == "quantity"
    assert house.record(block(price=2_750_001))[0] == "price_range"
    assert house.record(block(account=CLIENT, other=CLEARER))[0] == "same_owner"
    assert house.record(block(kind="efp", lots=8))[0] == "open_position"
    small = block(kind="efp", lots=8, related="8 GPUs at alpha/one, December")
    assert house.record(small)[0] == "open"
    assert sign(house, BOX) == "final"
    assert final(house)[0].kind == "efp"


def test_there_are_so_many_transfers_at_a_time_and_no_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of those at work, not of a market's life: each that ends makes room."""
    monkeypatch.setattr("exchange.clearing.members.offbook.PENDING_MAX", 1)
    monkeypatch.setattr("exchange.clearing.members.offbook.ENDED_MAX", 2)
    for number in (1, 2, 3):
        assert house.record(block())[0] == "open"
        outcome, facts = house.record(block())
        assert (outcome, facts["limit"], facts["observed"]) == ("full", 1, 1)
        assert sign(house, BOX, number, accept=False) == "refused"
    assert [transfer.move.id for transfer in transfers(house)] == [2, 3], "the last two that ended"
    house.reopen()
    assert sign(house, BOX, 1) == "unknown_proposal"
    assert sign(house, BOX, 3) == "proposal_state"
    assert house.record(block())[1]["transfer"] == 4, "a number is given once"


def test_a_lender_sees_a_box_and_nothing_of_others(house: House) -> None:
    house.send(Command(kind=CommandKind.MARK, instrument=0, price=2_450_000))
    seen = box(house.clearing._state, BOX)
    hours, gain = 744, 60 * 50_000 * 744
    assert (seen.cash, seen.margin, seen.unrealized) == (DEPOSIT, 60 * RATE, gain)
    assert seen.liquidity == DEPOSIT + gain - 60 * RATE
    assert seen.coverage_percent == DEPOSIT * 100 // (60 * RATE)
    assert seen.exposure == -60 * 2_450_000 * hours
    assert seen.worst_move_e4 == seen.liquidity * 10_000 // (60 * 2_450_000 * hours)
    assert [h.net for h in seen.holdings] == [-60]
    house.record(ValueAsset(asset="T-BILL", price=10**9, haircut_bp=100))
    house.record(Pledge(id="p", account=BOX, asset="T-BILL", units=2))
    richer = box(house.clearing._state, BOX)
    assert (richer.collateral, richer.liquidity - seen.liquidity) == (1_980_000_000,) * 2
    assert "H100Z26" in seen.text()
    assert asdict(seen)["member"] == 3
    with pytest.raises(ValueError, match="no box"):
        box(house.clearing._state, BROKER)
    with pytest.raises(KeyError):
        box(house.clearing._state, 99)
