"""How an account stands, as its statement says: collateral, margin, calls and their course; and the
trial balance of ledger and book.
"""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from clearing_house import RATE, House
from test_margin_market import version

from exchange.clearing import Clearing
from exchange.clearing.calling import (
    AccrueInterest,
    CallMargin,
    Calls,
    Pledge,
    Release,
    ValueAsset,
)
from exchange.clearing.default.records import DeclareDefault
from exchange.clearing.ledger import Movement
from exchange.clearing.margin.matter import AdoptMargin
from exchange.clearing.standing import Standing
from exchange.clearing.statements import CASH_LINES, Statement
from exchange.clearing.transfers import SECOND
from exchange.messages import AccountKind, CommandKind

LONG, SHORT = 1, 2
CASH = 30 * RATE
LOTS = 10
DATE = 20261118
HOURS = 744


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Account 1 is long ten lots of account 2's, margined by parameters in force."""
    made = House(Clearing.open(tmp_path / "clearing.db"))
    for account in (LONG, SHORT):
        made.open(account, account, AccountKind.HOUSE, CASH)
    made.list(0, "H100Z26", date(2026, 11, 2))
    made.record(AdoptMargin(parameters=version(1, DATE)))
    made.day(DATE)
    made.trade(LONG, SHORT, LOTS, 2_500)
    yield made
    made.clearing.close()


def stands(house: House, account: int = LONG) -> Standing:
    found = house.statement(account).standing
    assert found is not None
    return found


def test_liquidity_is_cash_and_collateral_less_what_is_required(house: House) -> None:
    required = {r.account: int(r.requirement) + int(r.loss) for r in house.clearing.margins()}
    before = stands(house)
    assert before.required == required[LONG] > 0
    assert before.liquidity == CASH - required[LONG]
    assert (before.collateral, before.collateral_value) == ([], 0)
    house.record(ValueAsset(asset="T-BILL", price=990_000_001, haircut_bp=150))
    house.record(Pledge(id="p", account=LONG, asset="T-BILL", units=3))
    after = stands(house)
    (line,) = after.collateral
    assert line.counts == after.collateral_value == 3 * 990_000_001 * 9_850 // 10_000
    assert after.liquidity == before.liquidity + line.counts
    # The engine's own guard looks at cash alone: what is spare by collateral cannot be withdrawn.
    house.market.apply(house.market.money(CommandKind.WITHDRAW, LONG, CASH))
    house.clearing.apply(house.market.frames[-1:])
    assert house.clearing.cash(LONG) == CASH
    assert "T-BILL" in house.clearing.statement(LONG).text()
    assert "T-BILL" in house.clearing.statement_page(LONG)
    assert house.statement(LONG, 20260101).standing is None  # known for now alone


def test_without_parameters_nothing_is_required(tmp_path: Path) -> None:
    house = House(Clearing.open(tmp_path / "clearing.db"))
    house.open(LONG, LONG, AccountKind.CLIENT, CASH)
    found = stands(house)
    assert (found.required, found.liquidity, found.fee_version) == (None, None, 0)
    house.clearing.close()


def test_the_course_of_a_call_to_the_default(house: House) -> None:
    """Called, looked at again, missed, and declared: each step with its stamp and deadline."""
    house.close(DATE)
    house.send(house.market.settle(0, 2_500_000 - 600_000))
    house.record(CallMargin(within_seconds=600))
    call = stands(house)
    assert call.call == -(call.liquidity or 0) > 0
    house.send(house.market.money(CommandKind.DEPOSIT, LONG, 1_000_000))
    house.record(CallMargin(within_seconds=9_000))
    house.at(call.call_deadline + SECOND)
    house.record(DeclareDefault(member=LONG, person="ann", reason="unpaid"))
    found = stands(house)
    steps = [(step.step, step.missing, step.deadline) for step in found.calls]
    left = call.call - 1_000_000
    assert steps == [
        ("called", call.call, call.call_deadline),
        ("changed", left, call.call_deadline),
        ("missed", left, 0),
        ("default", 0, 0),
    ]
    assert [s.stamp for s in found.calls] == sorted({s.stamp for s in found.calls})
    assert stands(house, SHORT).calls == []
    text, page = house.clearing.statement(LONG).text(), house.clearing.statement_page(LONG)
    for shown in ("called", "missed", "default"):
        assert shown in text and f"<td>{shown}</td>" in page
    assert "class=alarm" in page and asdict(found)["calls"][2]["step"] == "missed"


def test_a_call_that_is_met_says_so(house: House) -> None:
    house.close(DATE)
    house.send(house.market.settle(0, 2_500_000 - 600_000))
    house.record(CallMargin())
    house.send(house.market.money(CommandKind.DEPOSIT, LONG, stands(house).call))
    assert [step.step for step in stands(house).calls] == ["called", "met"]
    assert stands(house).call == 0


def test_a_call_that_variation_has_met_is_met_when_collateral_is_released(house: House) -> None:
    house.record(ValueAsset(asset="T-BILL", price=10_000_000, haircut_bp=0))
    house.record(Pledge(id="p", account=LONG, asset="T-BILL", units=3))
    house.send(house.market.settle(0, 2_500_000 - 600_000))
    house.record(CallMargin())
    house.trade(SHORT, LONG, LOTS, 2_400)
    house.send(house.market.settle(0, 2_400_000, cycle=2))
    assert house.record(Release(id="r", account=LONG, asset="T-BILL", units=1))[0] == "accepted"
    assert [step.step for step in stands(house).calls] == ["called", "met"]
    assert stands(house).call == 0


def test_every_cash_line_adds_up_and_interest_sums_to_zero(house: House) -> None:
    house.send(house.market.money(CommandKind.DEPOSIT, 0, CASH))
    house.close(DATE)
    house.send(house.market.settle(0, 2_480_000))
    house.record(AccrueInterest(credit_bp=400, debit_bp=900))
    house.pay()
    whole = [house.clearing.statement(account) for account in (0, LONG, SHORT)]
    for found in whole:
        assert found.opening + sum(getattr(found, line) for line in CASH_LINES) == found.closing
    assert [found.interest > 0 for found in whole] == [False, True, True]
    assert sum(found.interest for found in whole) == sum(found.variation for found in whole) == 0
    assert whole[1].variation == -LOTS * 20_000 * HOURS
    assert isinstance(whole[1], Statement) and "interest" in whole[1].text()
    kinds = {Movement(row["kind"]) for row in house.clearing._store.rows("select * from movements")}
    assert Movement.INTEREST in kinds
    house.clearing.audit()


def test_the_trial_balance_has_every_unit_of_the_book_and_each_sums_to_zero(house: House) -> None:
    house.record(ValueAsset(asset="T-BILL", price=990_000_000, haircut_bp=150))
    house.record(Pledge(id="p", account=LONG, asset="T-BILL", units=3))
    found = house.clearing.trial_balance()
    assert ("pledged/1/T-BILL", "T-BILL", -3) in found.book
    assert ("custody/T-BILL", "T-BILL", 3) in found.book
    assert set(found.book_sums) == {ledger for _, ledger, _ in found.book} >= {"T-BILL"}
    assert found.is_balanced and not any(found.book_sums.values())
    assert "book, T-BILL" in found.text() and found.book_hash != found.ledger_hash
    house.clearing._state.book.accounts["custody/T-BILL"].debits_posted += 1  # a broken book
    assert not house.clearing.trial_balance().is_balanced


def test_a_product_that_nobody_holds_needs_no_parameters(house: House) -> None:
    """It may be listed after the version in force was adopted: calls, requirements and statements
    go on; once somebody holds it, without him."""
    required = stands(house).required
    house.list(1, "A100Z26", date(2026, 11, 2))
    assert house.record(CallMargin())[0] == "accepted"
    assert [r.account for r in house.clearing.margins()] == [LONG, SHORT]
    assert stands(house).required == required
    house.trade(LONG, SHORT, 1, 2_500, 1)
    assert house.clearing.margins() == []
    assert house.clearing.uncovered() == {LONG: ["A100Z26"], SHORT: ["A100Z26"]}


def test_an_account_that_cannot_be_judged_is_named_and_the_others_are_called(house: House) -> None:
    """What it was called for stays; who owes is called for that, whatever else it must have."""
    other, owing, codes = 3, 4, ["A100F27", "A100Z26"]
    for account in (other, owing):
        house.open(account, account, AccountKind.HOUSE, CASH)
    house.trade(other, SHORT, LOTS, 2_500)
    for number, code in enumerate(codes, start=1):
        house.list(number, code, date(2026, 11, 2))
    house.trade(LONG, SHORT, 1, 2_500, 1)
    house.trade(owing, SHORT, 1, 2_500, 2)
    house.send(house.market.money(CommandKind.FEE, other, CASH - 12 * RATE))
    house.send(house.market.money(CommandKind.FEE, owing, CASH + 5))
    outcome, facts = house.record(CallMargin(within_seconds=60))
    assert outcome == "accepted"
    assert facts["calls"].keys() == {str(other), str(owing)} and facts["calls"][str(owing)] == 5
    assert facts["unknown"] == {
        str(LONG): codes[:1], str(SHORT): codes, str(owing): codes[1:],
    }  # fmt: skip
    house.trade(other, SHORT, 1, 2_500, 1)  # not known any more
    house.send(house.market.money(CommandKind.DEPOSIT, other, 1))
    house.send(house.market.money(CommandKind.FEE, owing, 2))
    level = house.clearing._state.matters.get(Calls).open[other].level
    again = house.record(CallMargin())[1]
    missing = level - house.clearing.cash(other)
    assert again["calls"] == {str(other): missing, str(owing): 7}
    assert again["deadlines"] == facts["deadlines"]
    house.send(house.market.money(CommandKind.DEPOSIT, other, missing))
    assert stands(house, other).call == 0


def test_what_an_account_must_have_is_known_whatever_the_others_hold(house: House) -> None:
    """Its statement and its releases ask for its own positions alone."""
    other = 3
    bill: Any = {"account": other, "asset": "T-BILL", "units": 1}
    house.open(other, other, AccountKind.HOUSE, CASH)
    house.record(ValueAsset(asset="T-BILL", price=1_000_000, haircut_bp=0))
    house.record(Pledge(id="p", **bill))
    house.trade(other, SHORT, 1, 2_500)
    before = {r.account: int(r.requirement + r.loss) for r in house.clearing.margins()}
    house.list(1, "A100Z26", date(2026, 11, 2))
    house.trade(LONG, SHORT, 1, 2_500, 1)
    assert [stands(house, one).required for one in (LONG, SHORT, other)] == [
        None, None, before[other],
    ]  # fmt: skip
    assert house.record(Release(id="r", **bill))[0] == "accepted"
    assert house.record(Pledge(id="q", account=LONG, asset="T-BILL", units=1))[0] == "accepted"
    release = Release(id="s", account=LONG, asset="T-BILL", units=1)
    assert house.record(release)[0] == "unknown_instrument"


def test_a_statement_does_not_go_through_all_that_was_ever_ruled(house: House) -> None:
    """It looks up the steps of its account's calls, however many others were called."""
    asked: list[str] = []
    connection = house.clearing._store._connection
    connection.set_trace_callback(asked.append)
    house.clearing.statement(LONG)
    connection.set_trace_callback(None)
    (query,) = [one for one in asked if "rulings" in one]
    plan = [row[-1].partition(" (")[0] for row in connection.execute(f"explain query plan {query}")]
    assert plan == ["SEARCH call_steps USING PRIMARY KEY", "SEARCH rulings USING PRIMARY KEY"]
