"""The margin of deliveries under way, in random months of them, against the rules of
docs/reference/margin.md alone; and who is called for it."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clearing_house import House
from test_deliveries import LAST, OLD, SHORT, WHOLE, assigned, attest, begun, deliveries, house
from test_delivery_cash import (
    CAP,
    CENT,
    DAYS,
    FIXED,
    FLOOR,
    HOURS,
    TOLERANCE,
    Course,
    Months,
    cents,
)
from test_delivery_month import BEGIN, Operator, operator, run
from test_delivery_month import assigned as by_operator
from test_margin_market import product, version

from exchange.app import requests
from exchange.clearing.calling import CallMargin, Pledge, Release, ValueAsset
from exchange.clearing.delivery.terms import DAY_NS
from exchange.clearing.expiry import FixingRecorded
from exchange.clearing.margin.matter import AdoptMargin
from exchange.marketdata.instruments import micros_text
from exchange.messages import AccountKind, CommandKind

__all__ = ["house", "operator"]  # fixtures
SCAN, STEP = 1_250, 400  # of a lot of the spot month, at 1e-4
RATE = SCAN + STEP


def adopt(house: House, number: int = 1, **changed: Any) -> None:
    on = house.clearing._state.business_date or 20261118
    products = (product("H100P", notice_days=10, **changed),)
    terms = msgspec.structs.replace(version(number), effective=on, products=products)
    assert house.record(AdoptMargin(parameters=terms))[0] == "accepted"


def up(value: int, share: int) -> int:
    return -(-value * share // 10_000)


def undelivered(house: House) -> dict[int, int]:
    """What `clear margin` says of deliveries, by account."""
    found: dict[int, int] = {}
    for one in house.clearing.margins():
        assert one.requirement == sum(part.total for part in one.parts) - one.credit
        found[one.account] = sum(part.undelivered for part in one.parts)
    return {account: amount for account, amount in found.items() if amount}


def charge(course: Course, prices: dict[int, int]) -> dict[int, int]:
    """By account: the buyer's until it has paid, and the seller's until the delivery ends."""
    if course.stage not in ("invoiced", "delivering", "failing"):
        return {}
    invoice = cents(course.price, HOURS, course.lots) * CENT
    buyer = {course.buyer: up(invoice, RATE)} if course.stage == "invoiced" else {}
    days = len(course.settled)
    while days and not course.settled[days - 1][0]:
        days -= 1
    hours, owed = 24 * (DAYS - days), 0
    there = sum(there for there, _ in course.settled)
    if course.stage == "failing":
        _, hours, owed = course.missing
    elif there:
        lost = sum(lost for _, lost in course.settled)
        realized = (there - lost) / (there * FIXED)
        if realized < FLOOR:
            hours, owed = HOURS, course.earned
        else:
            short = min(max(0 * FIXED, 1 - realized - TOLERANCE), CAP)
            owed = cents(course.price * short, there // 3_600, 1)
    now = prices[max(prices)] if prices else 0
    owed += cents(max(0, now - course.price), hours, course.lots)
    value = cents(course.price, hours, course.lots) * CENT
    return {course.seller: owed * CENT + up(value, RATE), **buyer}


class Margined(Months):
    """Months in which every account's margin is compared at every step."""

    seen: frozenset[str] = frozenset()

    def compare(self) -> None:
        super().compare()
        wanted: dict[int, int] = {}
        for course in self.courses.values():
            for account, amount in charge(course, self.prices).items():
                wanted[account] = wanted.get(account, 0) + amount
                self.seen |= {course.stage}
        assert undelivered(self.house) == wanted


@pytest.mark.parametrize("seed", range(100, 108))
def test_what_is_promised_needs_margin_until_it_is_kept(tmp_path: Path, seed: int) -> None:
    months = Margined(tmp_path / "clearing.db", seed)
    house = months.house
    months.expire()
    adopt(house)
    months.compare()
    house.pay(but=("delivery",))
    months.pay()
    months.live()
    house.pay()
    assert undelivered(house) == {} and {"invoiced", "delivering"} <= months.seen
    house.agree()
    house.clearing.close()


def standing(house: House, account: int) -> tuple[int | None, int | None]:
    found = house.statement(account).standing
    assert found is not None
    return found.required, found.liquidity


def test_a_lot_keeps_its_margin_through_the_expiry(house: House) -> None:
    """The seller's lots are of the spot month until they expire, and promised after that."""
    adopt(house, liquidity_bp=0, daily_volume=1_000_000)
    assigned(house)
    promised = up(cents(LAST, HOURS, 8) * CENT, RATE)
    requirement = {one.account: one.requirement for one in house.clearing.margins()}
    assert requirement == {SHORT: promised, OLD: promised}
    assert standing(house, SHORT)[0] == promised
    house.pay()  # the escrow, for one: the buyer has kept its side
    assert undelivered(house) == {SHORT: promised}
    required, liquidity = standing(house, OLD)
    assert required == 0 and liquidity == house.clearing.cash(OLD)


def test_a_seller_without_its_margin_is_called_and_gets_no_collateral_back(house: House) -> None:
    adopt(house)
    begun(house)
    need = undelivered(house)[SHORT]
    assert house.record(CallMargin())[1]["calls"] == {}
    house.send(house.market.money(CommandKind.WITHDRAW, SHORT, house.clearing.cash(SHORT)))
    assert house.record(CallMargin(within_seconds=60))[1]["calls"] == {str(SHORT): need}
    house.record(ValueAsset(asset="BILL", price=need, haircut_bp=0))
    assert house.record(Pledge(id="p", account=SHORT, asset="BILL", units=1))[1]["met"]
    release = Release(id="r", account=SHORT, asset="BILL", units=1)
    outcome, facts = house.record(release)
    assert (outcome, facts["limit"], facts["observed"]) == ("amount", 0, need)
    for day in range(1, DAYS + 1):  # the charge goes down with every day that is delivered
        before = undelivered(house)
        house.at(deliveries(house).expiries[0].terms.day_end_ns(day))
        for account in (SHORT, OLD):
            assert house.record(attest(account, day))[0] == "accepted"
        house.at(0)
        assert undelivered(house).get(SHORT, 0) < before[SHORT]
    house.reopen()
    assert undelivered(house) == {} and house.record(release)[0] == "accepted"
    house.pay()
    house.agree()


def test_what_the_seller_owes_already_is_called_before_the_month_is_over(house: House) -> None:
    """Hours that cost more, and a month under its floor: what was earned would have to go back."""
    adopt(house)
    start = begun(house)
    whole = undelivered(house)[SHORT]
    fixing = FixingRecorded(index="HBX-H100", date=20261201, revision=0, state="PUBLISHED",
                            price="3.612")  # fmt: skip
    assert house.record(fixing)[0] == "accepted"
    dearer = cents(1_000_000, HOURS, 8) * CENT
    assert undelivered(house)[SHORT] == whole + dearer
    house.at(start + DAY_NS)
    for account in (SHORT, OLD):
        house.record(attest(account, 1, WHOLE, WHOLE // 2))
    house.at(0)
    earned = deliveries(house).deliveries[0].slices[0].payable
    assert earned and undelivered(house)[SHORT] == whole + dearer + earned * CENT


def test_a_lender_sees_the_margin_of_what_its_box_delivers(house: House) -> None:
    house.open(9, 9, int(AccountKind.BOX), 0)
    adopt(house)
    begun(house)
    deliveries(house).deliveries[0].seller = 9  # as after a port
    seen = house.clearing.box(9)
    assert seen.margin == undelivered(house)[9] == -seen.liquidity
    deliveries(house).deliveries[0].buyer = 9  # with itself: both sides are its own
    deliveries(house).deliveries[0].stage = "invoiced"
    whole = deliveries(house).deliveries[0].invoice * CENT
    assert house.clearing.box(9).margin == 2 * up(whole, RATE)


def test_the_charge_is_never_below_the_penalty(house: House) -> None:
    bands = version().products[0].bands[:1]
    low = msgspec.structs.replace(bands[0], scan_bp=200)
    adopt(house, bands=(low,), floor_bp=100, spread_bp=0, delivery_bp=0, delivery_spread_bp=0)
    begun(house)
    assert undelivered(house)[SHORT] == up(cents(LAST, HOURS, 8) * CENT, 1_000)


def test_who_delivers_what_is_not_covered_is_named(house: House) -> None:
    adopt(house)
    begun(house)
    terms = version(2, house.clearing._state.business_date, products=(product("H100"),))
    assert house.record(AdoptMargin(parameters=terms))[0] == "accepted"
    names = ["H100PZ26"]  # the buyer has paid
    assert house.clearing.uncovered() == {SHORT: names}
    assert house.clearing.margins() == []
    assert house.record(CallMargin())[1]["unknown"] == {str(SHORT): names}
    assert standing(house, SHORT) == (None, None)


async def test_the_commands_show_and_call_it(operator: Operator) -> None:
    """With the parameters that are proposed today: 12.5 % of scan and 4 % of the spot month."""
    await by_operator(operator)
    operations, clearing = operator.market.operations, operator.market.clearing
    proposed = json.loads(await run("clear", "calibrate", "--effective", "2026-11-30", "--json"))
    parameters = json.dumps(proposed["parameters"])
    await operations.perform(requests.AdoptMargin(parameters=parameters))
    await operator.at(BEGIN)
    data = str(operator.market.directory)
    shown = json.loads(await run("clear", "margin", "--data", data, "--json"))
    (seller,) = shown["accounts"]  # the buyers have paid
    (part,) = seller["parts"]
    invoices = [operator.delivery(number)["invoice"] * CENT for number in (1, 2, 3)]
    assert seller["account"] == 7 and part["product"] == "H100P"
    assert part["undelivered"] == sum(up(invoice, RATE) for invoice in invoices)
    assert part["undelivered"] == seller["requirement"] > seller["maintenance"] > 0
    assert seller["hold"] == 0  # of the engine
    words = (await run("clear", "margin", "--data", data)).split()
    assert "undelivered" in words and f"{part['undelivered'] / 1e6:,.6f}" in words
    free = micros_text(clearing.cash(7))
    await operations.perform(requests.Withdraw(account=7, amount=free))
    settled = await operations.perform(requests.Settle())
    assert settled["margin_calls"] == {"7": micros_text(part["undelivered"])}
    statement = json.loads(await run("clear", "statement", "7", "--data", data, "--json"))
    assert statement["standing"]["required"] == part["undelivered"]
