"""Margin calls with deadlines, collateral with haircuts, interest: by the log alone."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clearing_house import House
from clearing_market import DAY, MULTIPLIER, TestMarket

from exchange.clearing import Clearing
from exchange.clearing.calling import (
    AccrueInterest,
    CallMargin,
    Calls,
    Pledge,
    Release,
    ValueAsset,
    interest,
)
from exchange.clearing.outcomes import Transfer, TransferKind
from exchange.clearing.transferring import MakeTransfers, OpenLedgerAccount
from exchange.clearing.transfers import ID_CHARS, SECOND, Book, Row
from exchange.messages import CommandKind, Side

DEPOSIT = 2_000_000_000
DROP = 300_000  # clearing units: 10 lots of it are 2,160 dollars


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Account 2 is long ten lots against account 1, and the price has fallen too far for it."""
    market = TestMarket()
    opened = House(Clearing.open(tmp_path / "clearing.db"), market)
    for account in (1, 2):
        market.open_account(account, DEPOSIT)
    market.list_instrument(0, (0, 0))
    market.apply(market.open_day(DAY))
    opened.clearing.apply(market.frames)
    opened.send(market.enter(1, Side.SELL, 2_500, 10))
    opened.send(market.enter(2, Side.BUY, 2_500, 10))
    opened.send(market.settle(0, 2_500_000 - DROP))
    yield opened
    opened.clearing.close()


SHORT = 10 * DROP * MULTIPLIER - DEPOSIT  # what account 2 then owes


def calls(house: House) -> Calls:
    return house.clearing._state.matters.get(Calls)


def test_a_shortfall_is_a_receivable_and_a_call(house: House) -> None:
    assert house.clearing.cash(2) == -SHORT < 0
    assert house.clearing.cash(1) == DEPOSIT + 10 * DROP * MULTIPLIER  # the market was paid
    assert house.record(CallMargin())[1]["calls"] == {"2": SHORT}
    house.send(house.market.money(CommandKind.DEPOSIT, 2, SHORT - 1))
    assert 2 in calls(house).open
    house.send(house.market.money(CommandKind.DEPOSIT, 2, 1))
    assert house.rulings("margin_call")[-1][1] == "met"
    assert calls(house).open == {}
    house.agree()


def test_a_deadline_is_missed_once_by_the_logs_clock(house: House) -> None:
    house.record(CallMargin(within_seconds=60))
    deadline = calls(house).open[2].deadline
    house.at(deadline - 2_000_000)
    assert house.rulings("margin_call") == []
    house.reopen()
    house.at(deadline + 1)
    house.at(deadline + SECOND)
    ((_, outcome, facts),) = house.rulings("margin_call")
    assert (outcome, facts["account"], facts["missing"]) == ("missed", 2, SHORT)
    house.record(CallMargin(within_seconds=9_999))  # a later look gives no new time
    assert calls(house).open[2].deadline == deadline


def test_a_deadline_is_clearings_until_it_is_missed(house: House) -> None:
    """By it an idle market knows that something is to be decided."""
    assert house.clearing.deadline() == 0
    house.record(CallMargin(within_seconds=60))
    deadline = house.clearing.deadline()
    assert deadline == calls(house).open[2].deadline == house.market.stamp + 60 * SECOND
    house.at(deadline)
    assert (house.rulings("margin_call")[-1][1], house.clearing.deadline()) == ("missed", 0)


def test_a_holds_time_is_clearings_deadline_too(house: House) -> None:
    """The first that is over releases its amount; what beside the writer is read agrees."""
    for name in ("from", "to"):
        house.record(OpenLedgerAccount(id=name))
    holds = [Transfer(f"h{seconds}", "from", "to", 7, TransferKind.PENDING, timeout=seconds)
             for seconds in (90, 60, 0)]  # fmt: skip
    assert house.record(MakeTransfers(batch=holds))[1] == {"outcomes": ["ok"] * 3}
    begun = house.market.stamp
    beside = Clearing.open(house.clearing._store.path, read_only=True)
    for seconds, following in ((60, 90), (90, 0)):
        deadline = house.clearing.deadline()
        assert deadline == begun + seconds * SECOND
        beside.recall()
        assert beside.deadline() == deadline
        house.at(deadline - 1)
        assert house.clearing._state.book.held(f"h{seconds}")
        house.at(deadline + 1)
        assert not house.clearing._state.book.held(f"h{seconds}")
        house.reopen()
        assert house.clearing.deadline() == (begun + following * SECOND if following else 0)
    beside.close()
    assert house.clearing._state.book.held("h0")


def test_who_reads_beside_the_writer_folds_a_row_of_the_book_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading all of them again for each question would take the longer the more there were."""
    folded: list[str] = []
    replay = Book.replay

    def counted(book: Book, rows: Iterable[Row]) -> None:
        kept = list(rows)
        folded.extend(row.id for row in kept)
        replay(book, kept)

    for name in ("from", "to"):
        house.record(OpenLedgerAccount(id=name))
    beside = Clearing.open(house.clearing._store.path, read_only=True)
    monkeypatch.setattr(Book, "replay", counted)
    for turn in range(3):
        held = Transfer(f"h{turn}", "from", f"to{turn}", 7, TransferKind.PENDING, timeout=60)
        house.record(OpenLedgerAccount(id=held.credit))
        house.record(MakeTransfers(batch=[held, Transfer(f"p{turn}", "to", "from", 1)]))
        house.at(house.market.stamp + 61 * SECOND)
        beside.refresh()
        assert beside.trial_balance() == house.clearing.trial_balance()
        assert [id for id in folded if id.endswith(str(turn))][:2] == [f"h{turn}", f"p{turn}"]
    assert len(folded) == 9  # of each turn a hold, a payment and the hold's end
    beside.close()


@pytest.mark.parametrize("seconds", [-5, 0, 7 * 86_400 + 1, 10**12])
def test_a_call_gives_a_week_at_most_and_no_time_gone_by(house: House, seconds: int) -> None:
    outcome, facts = house.record(CallMargin(within_seconds=seconds))
    assert (outcome, facts["limit"], facts["observed"]) == ("expired", 7 * 86_400, seconds)
    assert calls(house).open == {} and house.clearing.look_is_due()
    assert house.record(CallMargin(within_seconds=7 * 86_400))[0] == "accepted"
    assert "called" in house.clearing.statement(2).text()


def test_a_release_sent_again_is_answered_as_it_was(house: House) -> None:
    """Also when what is left is needed by now."""
    house.record(ValueAsset(asset="T-BILL", price=SHORT, haircut_bp=0))
    house.record(Pledge(id="p", account=2, asset="T-BILL", units=2))
    release = Release(id="r", account=2, asset="T-BILL", units=1)
    assert house.record(release)[1]["outcome"] == "ok"
    outcome, facts = house.record(release)
    assert (outcome, facts["outcome"], facts["collateral"]) == ("accepted", "exists", SHORT)
    other = Release(id="r", account=2, asset="T-BILL", units=2)
    outcome, facts = house.record(other)
    assert (outcome, facts["observed"]) == ("amount", "exists_with_different_amount")
    assert house.record(Release(id="s", account=2, asset="T-BILL", units=1))[0] == "amount"
    house.agree()


def test_collateral_counts_less_its_haircut(house: House) -> None:
    house.record(CallMargin())
    bill: Any = {"asset": "T-BILL", "units": 1}
    assert house.record(Pledge(id="p", account=2, **bill))[0] == "asset_mismatch"
    assert house.record(ValueAsset(asset="T-BILL", price=99_999_999, haircut_bp=10_001))[0] == (
        "amount"
    )
    house.record(ValueAsset(asset="T-BILL", price=99_999_999, haircut_bp=200))
    assert house.record(Pledge(id="p", account=77, **bill))[0] == "unknown_account"
    outcome, facts = house.record(Pledge(id="p", account=2, **bill))
    assert (outcome, facts["collateral"]) == ("accepted", 99_999_999 * 9_800 // 10_000)
    again = house.record(Pledge(id="p", account=2, **bill))[1]
    assert (again["outcome"], again["collateral"]) == ("exists", facts["collateral"])
    assert 2 in calls(house).open
    house.record(Pledge(id="more", account=2, asset="T-BILL", units=1))
    assert calls(house).open == {}  # 196 dollars for the 160 that were missing
    assert house.record(Release(id="r", account=2, **bill))[0] == "amount"
    house.send(house.market.money(CommandKind.DEPOSIT, 2, SHORT))
    assert house.record(Release(id="r2", account=2, **bill))[0] == "accepted"
    assert house.record(Release(id="r3", account=2, asset="T-BILL", units=2))[0] == "amount"
    house.reopen()
    assert calls(house).collateral(2, house.clearing._state) == facts["collateral"]
    house.clearing.audit()
    house.agree()


@pytest.mark.parametrize("asset", ["", "x" * 41, "T-BILL\n", "T\x1bBILL", "T\u00dcBILL"])
def test_an_asset_has_a_name_that_accounts_can_have(house: House, asset: str) -> None:
    outcome, facts = house.record(ValueAsset(asset=asset, price=1, haircut_bp=0))
    assert (outcome, list(facts)) == ("malformed", ["why"])
    assert calls(house).assets == {}
    assert house.record(ValueAsset(asset="x" * 40, price=1, haircut_bp=0))[0] == "accepted"
    assert house.record(Pledge(id="p", account=2, asset="x" * 40, units=1))[0] == "accepted"
    assert max(map(len, house.clearing._state.book.accounts)) <= ID_CHARS


def test_interest_is_paid_once_a_date_and_sums_to_zero(house: House) -> None:
    house.send(house.market.money(CommandKind.DEPOSIT, 0, 10**9))
    before = {account: house.clearing.cash(account) for account in (0, 1, 2)}
    assert house.record(AccrueInterest(credit_bp=400, debit_bp=10_001))[0] == "amount"
    assert house.record(AccrueInterest(credit_bp=400, debit_bp=900, days=0))[0] == "quantity"
    _, facts = house.record(AccrueInterest(credit_bp=400, debit_bp=900))
    assert facts == {"paid": interest(before[1], 400, 1), "charged": interest(SHORT, 900, 1)}
    house.reopen()
    house.pay()
    after = {account: house.clearing.cash(account) for account in (0, 1, 2)}
    assert after[1] - before[1] == facts["paid"] == 462_222
    assert before[2] - after[2] == facts["charged"] == 40_000
    assert sum(after.values()) == sum(before.values())
    assert house.record(AccrueInterest(credit_bp=400, debit_bp=900))[0] == "duplicate"
    house.agree()


def test_only_the_operator_may(house: House) -> None:
    for record in (CallMargin(), AccrueInterest(credit_bp=1, debit_bp=1)):
        assert house.record(record, account=2)[0] == "not_yours"
