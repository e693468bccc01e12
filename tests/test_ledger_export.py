"""The ledger's export, added up by beancount: another program, other arithmetic."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from clearing_house import House
from clearing_market import open_market, random_day

from exchange.clearing import Clearing
from exchange.clearing.outcomes import Transfer
from exchange.clearing.transferring import MakeTransfers, OpenLedgerAccount

load_string = pytest.importorskip(
    "beancount.loader", reason="no wheel of beancount for this Python"
).load_string


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    market = open_market()
    random_day(market, random.Random(9), batches=12)
    opened = House(Clearing.open(tmp_path / "clearing.db"), market)
    opened.clearing.apply(market.frames)
    yield opened
    opened.clearing.close()


def test_beancount_agrees_with_every_balance(house: House) -> None:
    for id, ledger in (("till/1", "USD"), ("reserve/1", "USD"), ("gpuh/a", "GPUH"),
                       ("gpuh/b", "GPUH"), ("Gpuh/b", "GPUH")):  # fmt: skip
        assert house.record(OpenLedgerAccount(id=id, ledger=ledger))[0] == "accepted"
    assert house.record(OpenLedgerAccount(id="gpuh/b"))[0] == "duplicate"
    assert house.record(OpenLedgerAccount(id="gpuh/b\n"))[0] == "malformed"  # a line of its own
    batch = [
        Transfer("m1", "till/1", "reserve/1", 1_234_567),
        Transfer("h1", "gpuh/a", "gpuh/b", 720),
        Transfer("hold", "gpuh/a", "Gpuh/b", 9, kind=1),
        Transfer("no", "gpuh/a", "reserve/1", 1),
        Transfer("x", kind=2, pending_id="hold", amount=4),
    ]
    outcome, facts = house.record(MakeTransfers(batch=batch))
    assert (outcome, facts["outcomes"]) == (
        "accepted",
        ["ok", "ok", "ok", "accounts_must_have_the_same_ledger", "ok"],
    )
    assert house.record(MakeTransfers(batch=batch), account=2)[0] == "not_yours"
    house.reopen()
    house.clearing.audit()
    text = "\n".join(house.clearing.beancount())
    loaded, errors, _ = load_string(text)
    assert errors == []
    kinds = [type(one).__name__ for one in loaded]
    accounts = len(house.clearing.trial_balance().accounts) + 5
    assert kinds.count("Balance") == kinds.count("Open") == accounts
    assert kinds.count("Transaction") > 50
    changed = text.replace("1.234567 USD", "1.234568 USD", 1)
    assert load_string(changed)[1] != []


def test_an_empty_ledger_is_an_empty_file(tmp_path: Path) -> None:
    opened = Clearing.open(tmp_path / "clearing.db")
    assert load_string("\n".join(opened.beancount()))[1] == []
    opened.close()
