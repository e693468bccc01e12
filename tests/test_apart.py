"""Clearing in its own process, killed without warning: one waterfall, one cycle a date.

First a process that books a made-up market's stream, killed at every batch of a whole default and
of five dates; then a served market, of which server or clearing is killed at every step.
"""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from random import Random

import pytest
import test_defaults as default
from apart import Apart
from clearing_house import House
from test_crash_cycles import a_default, ends

from exchange.clearing import Clearing
from exchange.clearing.calling import AccrueInterest, CallMargin
from exchange.clearing.matters import ACCEPTED
from exchange.messages import CommandKind

DAYS = (20261118, 20261119, 20261120, 20261123, 20261124)
LISTED = 3
TRADERS = (default.CLIENT, default.SAFE, default.RICH, default.POOR)


def five_dates(house: House) -> None:
    """Each: trades, the close, a settlement of every expiry, interest, margin calls."""
    draw = Random(5)
    house.send(house.market.money(CommandKind.DEPOSIT, 0, default.DEPOSIT))
    for number, code in enumerate(("H100F27", "H100G27"), start=1):
        house.list(number, code, date(2026, 11, 2))
    for day in DAYS:
        if day != DAYS[0]:
            house.day(day)
        for _ in range(2):
            buyer, seller = draw.sample(TRADERS, 2)
            house.trade(buyer, seller, draw.randint(1, 5), draw.randint(2_450, 2_550),
                        draw.randrange(LISTED))  # fmt: skip
        house.close(day)
        for number in range(LISTED):
            price = draw.randint(2_400_000, 2_600_000)
            house.send(house.market.settle(number, price, house.clearing.next_cycle(number)))
        assert house.record(AccrueInterest(credit_bp=400, debit_bp=900))[0] == ACCEPTED
        house.pay()
        assert house.record(CallMargin())[0] == ACCEPTED


@pytest.mark.parametrize("cycle", [a_default, five_dates], ids=lambda value: value.__name__)
def test_a_process_killed_at_every_batch_books_each_once(
    cycle: Callable[[House], None], tmp_path: Path
) -> None:
    """Money, lots, fund, stages, dues and every row of the ledger are those of an undisturbed
    run."""
    whole = default.start(tmp_path / "whole.db")
    cycle(whole)
    wanted, head = ends(whole), whole.clearing.ledger_hash
    balance = whole.clearing.trial_balance()
    whole.clearing.close()
    house = Apart.follow(default.start(tmp_path / "begun.db"), tmp_path)
    try:
        cycle(house)
        assert (ends(house), house.clearing.ledger_hash) == (wanted, head)
        judge(house, cycle)
    finally:
        house.end()
    print(f"{cycle.__name__}: {house.kills} kills, {house.cut} while it was at work")
    assert house.kills > 20
    books = Clearing.open(house.clearing._store.path)
    books.audit()
    assert books.trial_balance() == balance
    books.close()


def judge(house: House, cycle: Callable[[House], None]) -> None:
    """One waterfall that is the loss; or one settlement a date and expiry."""
    rows = list(house.clearing._store.rows("select * from settlement_prices"))
    if cycle is five_dates:
        found = [(row["business_date"], row["instrument"]) for row in rows]
        assert sorted(found) == [(day, number) for day in DAYS for number in range(LISTED)]
        return
    (shared,) = house.rulings("allocate")
    assert shared[1] == ACCEPTED
    assert sum(shared[2]["layers"].values()) == shared[2]["loss"] > 0
    assert len(house.rulings("declare_default")) == 1
