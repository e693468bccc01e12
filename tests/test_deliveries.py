"""Deliveries end to end: a real engine, the stream, and what clearing makes of it."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Final

import msgspec
import pytest
from clearing_house import FACTOR, House, factors

from contracts.grades.delivery import invoice_cents
from contracts.hardware import gpu_class
from exchange.clearing import Clearing
from exchange.clearing.delivery import dvp, page, story
from exchange.clearing.delivery.matter import Deliveries
from exchange.clearing.delivery.records import (
    Alternative,
    Attest,
    NameConsignee,
    SetJurisdiction,
    Tender,
)
from exchange.clearing.delivery.slices import DAY_S
from exchange.clearing.delivery.terms import DAY_NS
from exchange.clearing.expiry import FixingRecorded
from exchange.clearing.outcomes import Transfer, TransferKind
from exchange.clearing.projection import Projection
from exchange.clearing.transferring import MakeTransfers, OpenLedgerAccount
from exchange.clearing.transfers import Account
from exchange.messages import Command, CommandKind, TradingState

SHORT, OLD, NEW, OTHER = 1, 2, 3, 4
DEPOSIT: Final = 10**12
LAST: Final = 2_612_000  # the last settlement price
LOTS: Final = 8
WHOLE: Final = LOTS * DAY_S
MONTH_DAYS: Final = 31


def tender(lots: int = LOTS, account: int = SHORT, version: int = 1) -> Tender:
    return Tender(
        account=account, instrument=0, lots=lots, grade="H100-NODE", provider="alpha",
        facility="one", factor_version=version,
    )  # fmt: skip


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """H100PZ26 is listed; OLD bought 8 lots on the first day, NEW 20 on the second, of SHORT."""
    clearing = Clearing.open(tmp_path / "clearing.db")
    made = House(clearing)
    for account in (SHORT, OLD, NEW, OTHER):
        made.open(account, account, 1, DEPOSIT)
    terms = made.list(0, "H100PZ26", date(2026, 11, 2))
    made.day(20261118)
    made.trade(OLD, SHORT, 8, 2_500)
    made.close(20261118)
    made.day(20261119)
    made.trade(NEW, SHORT, 20, 2_550)
    made.close(20261119)
    assert made.record(factors())[0] == "accepted"
    assert terms.last_notice_day == date(2026, 11, 27)
    yield made
    made.clearing.close()


def deliveries(house: House) -> Deliveries:
    return house.clearing._state.matters.get(Deliveries)


def noticed(house: House) -> int:
    """Log time once notice may be given."""
    start = deliveries(house).expiries[0].terms.notice_from_ns
    house.at(start)
    return start


def cut_off(house: House) -> None:
    """The last notice passes."""
    house.at(deliveries(house).expiries[0].terms.cutoff_ns + 1)


def expire(house: House) -> None:
    """The contract is closed and settled for good."""
    house.day(20261130)
    house.send(
        Command(kind=CommandKind.SET_STATE, instrument=0, tif=TradingState.CLOSED),
        Command(kind=CommandKind.EXPIRE, instrument=0, price=LAST),
    )


def assigned(house: House, lots: int = LOTS) -> None:
    """SHORT tenders and the contract expires; the invoices stand."""
    noticed(house)
    assert house.record(tender(lots))[0] == "accepted"
    cut_off(house)
    expire(house)


def begun(house: House) -> int:
    """OLD's 8 lots are invoiced and paid into escrow; the begin of the month."""
    assigned(house)
    house.pay()
    begin = deliveries(house).expiries[0].terms.begin_ns
    house.at(begin)
    return begin


def attest(account: int, day: int, available: int = WHOLE, lost: int = 0) -> Attest:
    return Attest(account=account, delivery=1, day=day, available=available, lost=lost)


def cash(house: House) -> dict[int, int]:
    return {account: house.clearing.cash(account) for account in (0, SHORT, OLD, NEW)}


# Notice


def test_what_is_none_of_a_deliverys_does_not_have_them_stored_again(house: House) -> None:
    """All of them would be written, with every day they had, for each record of a client's."""
    state, record = house.clearing._state, Command(kind=CommandKind.RECORD, account=OLD, key_lo=99)
    house.market.apply(record, texts=[(0, '{"operation":"cancel_after"}')])
    Projection(state).apply(house.market.frames[-1])
    assert state.matters.changed == set()


def test_an_intent_above_the_short_late_or_with_another_factor_is_refused(house: House) -> None:
    """Bad inputs of a notice, each by name, with limit and what was seen."""
    before = msgspec.json.encode(deliveries(house).expiries)

    def outcome(intent: Tender, account: int = 0) -> tuple[str, object, object]:
        name, facts = house.record(intent, account)
        return name, facts.get("limit"), facts.get("observed")

    terms = deliveries(house).expiries[0].terms
    assert outcome(tender())[:2] == ("early", terms.notice_from_ns)
    noticed(house)
    assert outcome(tender(), OTHER) == ("not_yours", OTHER, SHORT)
    assert outcome(msgspec.structs.replace(tender(), instrument=9))[0] == "unknown_instrument"
    assert outcome(tender(29)) == ("exceeds_short", 28, 29)
    assert outcome(tender(8, OLD)) == ("exceeds_short", 0, 8)
    assert outcome(tender(version=2)) == ("factor_version", 1, 2)
    assert outcome(tender(4)) == ("delivery_unit", 8, 4)
    assert outcome(tender(0)) == ("delivery_unit", 8, 0)
    nowhere = msgspec.structs.replace(tender(), facility="two")
    assert outcome(nowhere)[0] == "factor_bounds"
    assert msgspec.json.encode(deliveries(house).expiries) == before
    assert outcome(tender(24), SHORT)[0] == "accepted"
    assert outcome(tender(8)) == ("exceeds_short", 4, 8)
    house.market.stamp = terms.cutoff_ns
    assert outcome(tender(8))[0] == "late"
    assert [d.lots for d in deliveries(house).deliveries] == [8, 16]  # the last notice passed


def test_an_intent_is_of_whole_units_of_its_grade(house: House) -> None:
    """Eight lots are a node, and no cluster of 64; a table that does not say so is as it was."""
    house.record(factors(grade="H100-C64"))
    noticed(house)
    house.day(20261120)
    house.trade(NEW, SHORT, 60, 2_500)  # 88 short
    cluster = [msgspec.structs.replace(tender(lots), grade="H100-C64") for lots in (8, 72, 64)]
    told = [house.record(intent) for intent in cluster]
    assert [name for name, _ in told] == ["delivery_unit", "delivery_unit", "accepted"]
    assert [facts["limit"] for _, facts in told[:2]] == [64, 64]
    assert house.record(tender())[0] == "accepted"
    house.record(factors(2, "H100-C64", schema=1, delivery_unit_lots=msgspec.UNSET))
    assert house.record(msgspec.structs.replace(cluster[0], factor_version=2))[0] == "accepted"
    rulings = house.rulings("tender")
    house.clearing.rebuild(house.market.frames)
    assert house.rulings("tender") == rulings


def test_a_cluster_is_delivered_to_one_or_to_nobody(house: House) -> None:
    """OLD and NEW are older and have too few for 64; who bought back too much has none left."""
    house.record(factors(grade="H100-C64"))
    noticed(house)
    house.day(20261120)
    house.trade(OTHER, SHORT, 130, 2_500)  # 158 short
    house.close(20261120)
    for lots, grade in ((128, "H100-C64"), (8, "H100-NODE")):
        assert house.record(msgspec.structs.replace(tender(lots), grade=grade))[0] == "accepted"
    house.day(20261123)
    house.trade(SHORT, OTHER, 58, 2_500)  # 100 short: one cluster, a node, and 24 of no notice
    cut_off(house)
    found = deliveries(house).deliveries
    assert [(d.buyer, d.lots, d.grade) for d in found] == [
        (OTHER, 64, "H100-C64"), (OLD, 8, "H100-NODE"),
    ]  # fmt: skip
    assert deliveries(house).expiries[0].untendered == {SHORT: 24}


def test_a_notice_at_the_cutoff_itself_is_in_time(house: House) -> None:
    house.market.stamp = deliveries(house).expiries[0].terms.cutoff_ns - 1_000_000
    assert house.record(tender())[0] == "accepted"
    assert house.market.stamp == deliveries(house).expiries[0].terms.cutoff_ns


# Assignment


def test_the_oldest_long_is_assigned_and_the_rest_is_cash(house: House) -> None:
    assigned(house, 16)
    found = deliveries(house).deliveries
    assert [(d.buyer, d.lots, d.stage) for d in found] == [
        (OLD, 8, "invoiced"), (NEW, 8, "invoiced"),
    ]  # fmt: skip
    assert found[0].invoice == invoice_cents(price_micros=LAST, hours=744, lots=8, factor_e4=FACTOR)
    (row,) = [facts for _, outcome, facts in house.rulings("assignment") if outcome == "assigned"]
    assert row["cash"] == {str(NEW): 12}
    assert row["untendered"] == {str(SHORT): 8}
    assert house.market.engine.position(OLD, 0)["net"] == 0
    house.pay()
    house.agree()


def test_who_buys_back_after_its_notice_delivers_what_it_is_still_short(house: House) -> None:
    noticed(house)
    assert house.record(tender(16))[0] == "accepted"
    assert house.record(tender(8))[0] == "accepted"
    house.day(20261124)
    house.trade(SHORT, NEW, 19, 2_500)  # 28 short become 9
    house.close(20261124)
    cut_off(house)
    found = deliveries(house)
    assert [(d.seller, d.buyer, d.lots) for d in found.deliveries] == [(SHORT, OLD, 8)]
    assert found.expiries[0].untendered == {}
    (row,) = [facts for _, outcome, facts in house.rulings("assignment")]
    assert row["cash"] == {str(NEW): 1}


def test_a_short_that_does_not_tender_pays_the_longs_left_over(house: House) -> None:
    assigned(house, 16)
    (row,) = [facts for _, outcome, facts in house.rulings("assignment") if outcome == "penalties"]
    penalty = invoice_cents(price_micros=LAST, hours=744, lots=8) // 10
    assert row["paid"] == {str(NEW): penalty}
    before = cash(house)
    house.pay(but=("delivery",))
    after = cash(house)
    assert after[NEW] - before[NEW] == penalty * 10_000
    assert before[SHORT] - after[SHORT] == penalty * 10_000
    assert after[0] == before[0]


def test_one_whom_the_law_bars_is_passed_over_and_settled_in_cash(house: House) -> None:
    law = SetJurisdiction(enabled=True, denied_countries=("XB",))
    assert house.record(law)[0] == "accepted"
    for account, country in ((OLD, "XB"), (NEW, "XC")):
        house.record(NameConsignee(account=account, country=country, parent_country=country))
    assigned(house)
    assert [d.buyer for d in deliveries(house).deliveries] == [NEW]
    (row,) = [facts for _, outcome, facts in house.rulings("assignment") if outcome == "assigned"]
    assert row["barred"] == [OLD]
    assert deliveries(house).consignees[NEW].tpp_received > 0


@pytest.mark.parametrize(("code", "barred"), [("H100PZ26", [OLD]), ("H100PF27", [])])
def test_what_was_received_counts_in_its_own_year_alone(
    house: House, code: str, barred: list[int]
) -> None:
    """OLD has had more than half of its year's processing performance. It is the year of December,
    not of January, and both are assigned before the month begins."""
    node = gpu_class("H100-SXM").tpp * LOTS
    house.record(SetJurisdiction(enabled=True, tpp_per_consignee=2 * node))
    for account, received in ((OLD, node + 1), (NEW, 0)):
        named = NameConsignee(account=account, country="XC", parent_country="XC",
                              tpp_received=received)  # fmt: skip
        house.record(named)
    if code != "H100PZ26":
        house.list(1, code, date(2026, 11, 2))
        house.day(20261120)
        house.trade(OLD, SHORT, LOTS, 2_500, 1)
        house.close(20261120)
    number = max(deliveries(house).expiries)
    house.reopen()
    house.at(deliveries(house).expiries[number].terms.cutoff_ns + 1)
    rows = [facts for _, outcome, facts in house.rulings("assignment") if outcome == "assigned"]
    assert [row["barred"] for row in rows if row["instrument"] == number] == [barred]


def test_what_is_assigned_is_added_to_the_year_of_its_month(house: House) -> None:
    received = 10**6
    for account, so_far in ((OLD, received), (NEW, 0)):
        house.record(NameConsignee(account=account, country="XC", parent_country="XC",
                                   tpp_received=so_far))  # fmt: skip
    assigned(house)
    found, node = deliveries(house), gpu_class("H100-SXM").tpp * LOTS
    assert (found.consignees[OLD].tpp_received, found.years[OLD]) == (received + node, 2026)
    assert (found.consignees[NEW].tpp_received, found.years[NEW]) == (0, 2026)


def test_an_expiry_before_the_last_notice_is_cash_for_everybody(house: House) -> None:
    noticed(house)
    house.record(tender())
    expire(house)
    assert house.rulings("assignment")[-1][1] == "settled_in_cash"
    cut_off(house)
    assert deliveries(house).deliveries == []
    assert house.dues() == []


# The month


def test_a_month_delivered_whole_pays_the_invoice_to_the_cent(house: House) -> None:
    """Days 1 to 28 by both sides, the last three on the seller's word when the deadline passes."""
    before = cash(house)
    begin = begun(house)
    (delivery,) = deliveries(house).deliveries
    paid_in = cash(house)
    for day in range(1, MONTH_DAYS + 1):
        house.at(begin + day * DAY_NS)
        assert house.record(attest(SHORT, day))[1]["said"] == "held"
        if day <= 28:
            assert house.record(attest(OLD, day, WHOLE - WHOLE // 100))[1]["said"] == "agreed"
        if day % 10 == 0:
            house.reopen()
    house.at(begin + (MONTH_DAYS + 2) * DAY_NS)
    house.pay()
    delivery = deliveries(house).deliveries[0]
    assert delivery.stage == "delivered"
    assert [one.attested_s for one in delivery.slices] == [WHOLE] * MONTH_DAYS
    moved = delivery.invoice * 10_000
    fee = LOTS * deliveries(house).expiries[0].terms.fee
    after = cash(house)
    assert paid_in[OLD] == before[OLD] - moved - fee + _variation(house, OLD)
    assert after[SHORT] - paid_in[SHORT] == moved
    assert after[OLD] == paid_in[OLD]
    weeks = [f["cents"] for _, outcome, f in house.rulings("delivery") if outcome == "week_paid"]
    assert len(weeks) == 5
    assert sum(weeks) == delivery.invoice
    book = house.clearing._state.book
    assert dvp.balance(book, f"hours/{OLD}") == WHOLE * MONTH_DAYS
    assert dvp.balance(book, f"site/{delivery.id}") == -WHOLE * MONTH_DAYS
    for account in ("escrow/1", "payable/1", "returned/1", dvp.MARKET):
        assert dvp.balance(book, account) == 0
    house.agree()
    rulings, head = house.rulings("delivery"), house.clearing.ledger_hash
    house.clearing.rebuild(house.market.frames)
    assert (house.rulings("delivery"), house.clearing.ledger_hash) == (rulings, head)
    house.clearing.audit()


def test_days_that_were_over_when_the_escrow_came_in_can_still_be_attested(house: House) -> None:
    """A contract that expired six days into its month: nobody has failed for saying nothing."""
    noticed(house)
    house.record(tender())
    cut_off(house)
    begin = deliveries(house).expiries[0].terms.begin_ns
    house.at(begin + 6 * DAY_NS)
    expire(house)
    house.pay()
    escrowed = deliveries(house).deliveries[0].begun
    assert house.clearing.deadline() == escrowed + 2 * DAY_NS
    for day in range(1, 7):
        assert house.record(attest(SHORT, day))[1]["said"] == "held"
    house.reopen()
    house.at(escrowed + 2 * DAY_NS)
    (delivery,) = deliveries(house).deliveries
    assert [one.attested_s for one in delivery.slices] == [WHOLE] * 6
    assert delivery.stage == "delivering"
    house.at(begin + 12 * DAY_NS)  # days 7 to 9, of which nobody says anything
    assert deliveries(house).deliveries[0].stage == "failing"
    house.agree()


def _variation(house: House, account: int) -> int:
    """What the expiry paid an account."""
    rows = house.clearing._store.rows(
        "select amount from movements where account = ? and kind = 5", (account,)
    )
    return sum(row["amount"] for row in rows)


def test_hours_that_were_not_there_go_back_and_lost_ones_are_trued_up(house: House) -> None:
    begin = begun(house)
    before = cash(house)
    for day in range(1, MONTH_DAYS + 1):
        house.at(begin + day * DAY_NS)
        available = WHOLE // 2 if day == 3 else WHOLE
        lost = available * 8 // 100
        house.record(attest(SHORT, day, available, lost))
        house.record(attest(OLD, day, available, lost))
    house.at(0)
    house.pay()
    delivery = deliveries(house).deliveries[0]
    assert delivery.stage == "delivered"
    back = delivery.slices[2].returned
    assert back == delivery.parts[2] - delivery.parts[2] // 2
    (facts,) = [f for _, outcome, f in house.rulings("delivery") if outcome == "delivered"]
    true_up = facts["true_up"]
    assert true_up > 0
    after = cash(house)
    assert after[OLD] - before[OLD] == (back + true_up) * 10_000
    assert after[SHORT] - before[SHORT] == (delivery.invoice - back - true_up) * 10_000
    assert after[0] == before[0]
    house.agree()


def test_where_the_sides_differ_the_hold_is_voided_and_the_house_decides(house: House) -> None:
    begin = begun(house)
    house.at(begin + DAY_NS)
    book = house.clearing._state.book
    house.record(attest(SHORT, 1))
    assert sum(book.accounts[f"hours/{OLD}"].totals()) == WHOLE  # held
    assert house.record(attest(OLD, 1, WHOLE // 2))[1]["said"] == "disputed"
    assert sum(book.accounts[f"hours/{OLD}"].totals()) == 0  # both legs voided
    found = house.clearing.delivery(1)
    assert found is not None and story.days(found)[0].state == "disputed"
    assert "day 1, disputed: 192 of 192 GPU-hours" in page.page(found)
    assert book.accounts["escrow/1"].debits_pending == 0
    house.at(begin + 4 * DAY_NS)
    assert deliveries(house).deliveries[0].slices == []  # nobody's word counts yet
    assert house.record(attest(0, 1, WHOLE * 3 // 4))[1]["said"] == "decided"
    house.at(0)
    assert deliveries(house).deliveries[0].slices[0].attested_s == WHOLE * 3 // 4
    assert dvp.balance(book, f"hours/{OLD}") == WHOLE * 3 // 4
    house.at(begin + 2 * DAY_NS)
    house.record(attest(SHORT, 2))
    house.record(attest(OLD, 2, 0))
    house.at(begin + 7 * DAY_NS)  # five days after the day's end the buyer's figure stands
    assert deliveries(house).deliveries[0].slices[1].attested_s == 0


def test_a_leg_that_fails_takes_the_other_with_it(house: House) -> None:
    """The hours' account is of another ledger: the chain fails, and no cash is held."""
    begun(house)
    book = house.clearing._state.book
    book.open(Account("hours/99", "USD"))
    escrow = book.accounts["escrow/1"].totals()
    assert not dvp.hold(book, 1, "x", 99, (1, 1, 1), house.market.stamp)
    assert book.accounts["escrow/1"].totals() == escrow
    assert not dvp.end(book, "x", house.market.stamp, post=True)
    assert dvp.hold(book, 1, "y", OLD, (1, 1, 1), house.market.stamp)
    assert dvp.end(book, "y", house.market.stamp, post=False)
    assert book.accounts["escrow/1"].totals() == escrow
    book.check()


def test_nobody_else_moves_what_is_in_escrow(house: House) -> None:
    """Accounts and ids of clearing's own are no operator's to use, before or after it does."""
    begun(house)
    taken = (
        Transfer(id="t", debit="escrow/1", credit="mine", amount=1),
        Transfer(id="t", debit="mine", credit="fund/7", amount=1),
        Transfer(id="dvp 1.1.1 earned", debit="mine", credit="yours", amount=1),
        Transfer(id="t", pending_id="dvp 1.1.1 earned", kind=TransferKind.VOID),
    )
    before = house.clearing._state.book.head
    for transfer in taken:
        assert house.record(MakeTransfers(batch=[transfer]))[0] == "not_yours"
    assert house.record(OpenLedgerAccount(id="escrow/2"))[0] == "not_yours"
    assert house.clearing._state.book.head == before


def test_a_seller_that_stops_is_bought_in_at_the_next_fixing(house: House) -> None:
    before = cash(house)
    begin = begun(house)
    for day in range(1, 11):
        house.at(begin + day * DAY_NS)
        house.record(attest(SHORT, day))
        house.record(attest(OLD, day))
    for day in range(11, 14):
        house.at(begin + (day + 2) * DAY_NS)
    delivery = deliveries(house).deliveries[0]
    assert (delivery.stage, len(delivery.slices)) == ("failing", 13)
    assert delivery.missing_hours == 21 * 24
    fixing = FixingRecorded(index="HBX-H100", date=20261216, revision=0, state="WITHHELD")
    house.record(fixing)
    assert deliveries(house).deliveries[0].stage == "failing"
    house.record(msgspec.structs.replace(fixing, revision=1, state="REVISED", price="3.000000"))
    house.pay()
    delivery = deliveries(house).deliveries[0]
    assert delivery.stage == "failed"
    terms = {"hours": 21 * 24, "lots": LOTS, "factor_e4": FACTOR}
    dearer = invoice_cents(price_micros=3_000_000 - LAST, **terms)
    penalty = round(invoice_cents(price_micros=LAST * 10, **terms) / 100)
    earned = sum(delivery.parts[:10])
    fee = LOTS * deliveries(house).expiries[0].terms.fee
    after = cash(house)
    got = after[SHORT] - before[SHORT] - _variation(house, SHORT)
    assert abs(got - (earned - dearer - penalty) * 10_000 + fee + _penalty(house)) <= 10_000
    moved = sum(after.values()) - sum(before.values())
    assert moved == 0  # fees went to the house, which is among them
    book = house.clearing._state.book
    assert dvp.balance(book, "escrow/1") == dvp.balance(book, dvp.MARKET) == 0
    house.agree()


def _penalty(house: House) -> int:
    """What SHORT paid for the units that it did not tender."""
    paid = [f["paid"] for _, outcome, f in house.rulings("assignment") if outcome == "penalties"]
    return sum(sum(one.values()) for one in paid) * 10_000


def test_a_month_under_the_floor_has_failed_and_is_paid_back(house: House) -> None:
    begin = begun(house)
    for day in range(1, MONTH_DAYS + 1):
        house.at(begin + day * DAY_NS)
        house.record(attest(SHORT, day, WHOLE, WHOLE // 4))
        house.record(attest(OLD, day, WHOLE, WHOLE // 4))
    house.at(0)
    delivery = deliveries(house).deliveries[0]
    assert (delivery.stage, delivery.refund) == ("failing", delivery.invoice)
    assert delivery.missing_hours == 744


def test_a_buyer_that_does_not_pay_in_pays_the_penalty_and_gets_late_money_back(
    house: House,
) -> None:
    assigned(house)
    escrow = next(due for due in house.dues() if due.id.endswith("escrow"))
    before = cash(house)
    house.pay(but=("delivery 1 escrow", "penalty"))
    house.at(deliveries(house).expiries[0].terms.begin_ns)
    assert deliveries(house).deliveries[0].stage == "unpaid"
    house.pay(but=("penalty",))
    penalty = deliveries(house).deliveries[0].invoice // 10 * 10_000
    fee = LOTS * deliveries(house).expiries[0].terms.fee
    assert cash(house)[SHORT] - before[SHORT] == penalty - fee
    now = cash(house)
    lo, hi = escrow.key
    house.send(
        Command(kind=CommandKind.WITHDRAW, account=OLD, price=escrow.amount, key_lo=lo, key_hi=hi)
    )
    house.pay()
    assert cash(house)[OLD] == now[OLD]
    found = house.clearing.statement(OLD)  # in and out again, both of the delivery
    assert (found.withdrawals, found.delivery) == (0, now[OLD] - before[OLD])
    house.agree()


def test_an_invoice_that_comes_late_leaves_the_buyer_a_day(house: House) -> None:
    noticed(house)
    house.record(tender())
    late = deliveries(house).expiries[0].terms.begin_ns + DAY_NS
    house.at(late)
    expire(house)
    house.at(late + DAY_NS // 2)
    assert deliveries(house).deliveries[0].stage == "invoiced"
    house.at(late + 2 * DAY_NS)
    assert deliveries(house).deliveries[0].stage == "unpaid"


def test_both_sides_may_agree_to_deliver_otherwise(house: House) -> None:
    begin = begun(house)
    for day in (1, 2):
        house.at(begin + day * DAY_NS)
        house.record(attest(SHORT, day))
        house.record(attest(OLD, day))
    house.at(0)
    before = cash(house)
    assert house.record(_alternative(SHORT))[0] == "accepted"
    assert house.record(_alternative(SHORT))[0] == "duplicate"
    assert house.record(_alternative(OTHER))[0] == "not_yours"
    assert house.record(_alternative(OLD))[0] == "agreed"
    house.pay()
    delivery = deliveries(house).deliveries[0]
    earned = sum(delivery.parts[:2])
    assert cash(house)[SHORT] - before[SHORT] == earned * 10_000
    assert cash(house)[OLD] - before[OLD] == (delivery.invoice - earned) * 10_000
    house.agree()


def test_two_agreements_are_none(house: House) -> None:
    """What both have signed is one text; who is alone so far may think of another."""
    begun(house)
    ours, theirs = "site beta, same hours", "site beta, twice the hours"
    assert house.record(_alternative(SHORT, ours))[1]["terms"] == ours
    house.reopen()
    outcome, facts = house.record(_alternative(OLD, theirs))
    assert (outcome, facts) == ("terms", {"number": 2242, "limit": ours, "observed": theirs})
    assert house.record(_alternative(SHORT, ours))[0] == "duplicate"
    assert house.record(_alternative(SHORT, theirs))[0] == "accepted"
    assert house.record(_alternative(OLD, ours))[0] == "terms"
    outcome, facts = house.record(_alternative(OLD, theirs))
    assert (outcome, facts["terms"]) == ("agreed", theirs)
    assert deliveries(house).deliveries[0].stage == "alternative"
    house.agree()


def _alternative(account: int, agreement: str = "site beta, same hours") -> Alternative:
    return Alternative(account=account, delivery=1, agreement=agreement)


def test_an_attestation_out_of_place_is_refused(house: House) -> None:
    assert house.record(attest(SHORT, 1))[0] == "unknown_delivery"
    begin = begun(house)
    house.at(begin + DAY_NS)
    assert house.record(attest(SHORT, 2))[0] == "day_range"  # it has not ended
    assert house.record(attest(NEW, 1))[0] == "not_yours"
    assert house.record(attest(SHORT, 1, WHOLE + 1))[0] == "hours_range"
    assert house.record(attest(SHORT, 1, 5, 6))[0] == "hours_range"
    house.record(attest(SHORT, 1))
    assert house.record(attest(SHORT, 1, 5))[0] == "duplicate"
    assert len(json.dumps(deliveries(house).deliveries[0].slices)) == 2
