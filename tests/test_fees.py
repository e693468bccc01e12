"""Fee tiers: by last month's lots, from a schedule in the log, and the sum is zero."""

import asyncio
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from clearing_house import House
from clearing_market import TestMarket, signed
from hypothesis import given, settings
from hypothesis import strategies as st
from live import CODE, Live
from typer.testing import CliRunner

from exchange.app import requests
from exchange.clearing import Clearing, records
from exchange.clearing.fees import NO_TIER, AdoptFees, Tier, month_after, month_before
from exchange.clearing.ledger import Movement
from exchange.clearing.reading import Reading
from exchange.cli.root import app
from exchange.messages import (
    EVENT,
    INDEX_BITS,
    Command,
    CommandKind,
    EventKind,
    Side,
    TimeInForce,
)

MAKER, TAKER = 100_000, 700_000  # micro-dollars a lot
TIERS = (Tier(0, 0, 0), Tier(10, 2_500, 1_000), Tier(100, 10_000, 3_333))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Four accounts and two instruments; of the second one the maker gets a rebate."""
    market = TestMarket()
    opened = House(Clearing.open(tmp_path / "clearing.db"), market)
    for account in (1, 2, 3, 4):
        market.open_account(account, 10**12)
    market.list_instrument(0, (MAKER, TAKER))
    market.list_instrument(1, (-MAKER, TAKER))
    opened.clearing.apply(market.frames)
    yield opened
    opened.clearing.close()


def adopt(version: int = 1, effective: int = 20261201, tiers: Any = TIERS) -> AdoptFees:
    return AdoptFees(version=version, effective=effective, tiers=tiers)


def trade(house: House, buyer: int, seller: int, lots: int, instrument: int = 0) -> bytes:
    """``seller`` is the maker; the taker's match."""
    market = house.market
    house.send(market.enter(seller, Side.SELL, 2_500, lots, instrument=instrument))
    return house.send(
        market.enter(buyer, Side.BUY, 2_500, lots, instrument=instrument, tif=TimeInForce.IOC)
    )


def lines(house: House, kind: Movement) -> dict[int, int]:
    query = "select account, sum(amount) as paid from movements where kind = ? group by account"
    return {r["account"]: r["paid"] for r in house.clearing._store.rows(query, (int(kind),))}


def test_a_tier_is_of_last_months_lots_and_pays_back_its_share(house: House) -> None:
    assert house.record(adopt())[0] == "accepted"
    house.day(20261130)
    trade(house, 1, 2, 50)  # 1 takes, 2 makes
    trade(house, 1, 2, 10)
    trade(house, 1, 3, 40, 1)
    house.close(20261130)
    assert house.dues() == []  # November has no version, and October no lots
    house.day(20261201)
    fees = house.clearing.fees()
    assert [fees.tier(a, 20261201).from_lots for a in (1, 2, 3, 4)] == [100, 10, 10, 0]
    trade(house, 2, 1, 7)  # 2 takes: 10 %; 1 makes: all back
    trade(house, 3, 4, 5, 1)  # 3 takes: 10 %; 4 makes: a rebate, and no tier
    house.close(20261201)
    house.reopen()
    back = {1: 7 * MAKER, 2: 7 * TAKER // 10, 3: 5 * TAKER // 10}
    assert [(due.id, due.amount) for due in house.dues()] == [
        ("discount 20261201 out", sum(back.values())),
        *((f"discount 20261201 {account}", share) for account, share in back.items()),
    ]
    before = {a: house.clearing.cash(a) for a in range(5)}
    house.pay()
    paid = {a: house.clearing.cash(a) - before[a] for a in range(5)}
    assert paid == {0: -sum(back.values()), **back, 4: 0}
    assert lines(house, Movement.FEE_DISCOUNTS) == {0: -sum(back.values()), **back}
    assert house.clearing.statement(2).fee_discounts == back[2]
    house.clearing.audit()
    house.agree()


def test_fees_of_a_busted_trade_are_not_discounted(house: House) -> None:
    house.record(adopt(tiers=(Tier(0, 5_000, 5_000),)))
    house.day(20261201)
    (match,) = [r for r in EVENT.iter_unpack(trade(house, 1, 2, 8)) if r[2] == EventKind.TRADE]
    trade(house, 1, 2, 3)
    busted = Command(
        kind=CommandKind.BUST, instrument=0, account=1, session=2, side=Side.BUY, price=2_500,
        quantity=8, target_lo=match[0] << INDEX_BITS | match[1], target_hi=signed(-8 * TAKER),
        key_lo=signed(-8 * MAKER),
    )  # fmt: skip
    house.send(busted)
    (maker, taker), cash = (3 * MAKER, 3 * TAKER), house.clearing.cash
    before = cash(1), cash(2)
    done = house.clearing._state.activity
    assert (done[1].taker_fees, done[2].maker_fees) == (taker, maker)
    assert {a: done[a].lots for a in done} == {1: 3, 2: 3}
    house.close(20261201)
    house.pay()
    assert (cash(1) - before[0], cash(2) - before[1]) == (taker // 2, maker // 2)
    assert house.clearing.fees().lots == {202612: {1: 3, 2: 3}}
    house.day(20261202)
    assert house.clearing._state.activity == {}
    (candle,), _ = Reading(house.clearing._store.path).candles(0, 86_400, 0, 100)
    assert (candle.volume, candle.trades) == (11, 2)  # as printed


@pytest.mark.parametrize(
    ("wrong", "outcome"),
    [
        ({"version": 2}, "duplicate"),
        ({"effective": 20261130}, "late"),
        ({"effective": 20269999}, "malformed"),  # every later version would have to wait for it
        ({"effective": 1 << 80}, "malformed"),
        ({"tiers": ()}, "quantity"),
        ({"tiers": (Tier(5, 0, 0),)}, "quantity"),
        ({"tiers": (Tier(0, 0, 0), Tier(9, 0, 0), Tier(8, 0, 0))}, "quantity"),
        ({"tiers": (Tier(0, 0, 10_001),)}, "malformed"),
        ({"tiers": (Tier(0, 0, 0),) * 17}, "malformed"),
    ],
)
def test_a_senseless_schedule_is_refused(house: House, wrong: dict[str, Any], outcome: str) -> None:
    house.day(20261130)
    assert house.record(adopt(**wrong))[0] == outcome
    assert house.record(adopt(), account=1)[0] == "not_yours"
    assert house.clearing.fees().adopted == []


def test_versions_follow_one_another_by_their_dates(house: House) -> None:
    house.day(20261130)
    house.record(adopt(1, 20261201))
    assert house.record(adopt(2, 20261201))[0] == "late"
    house.record(adopt(2, 20270101, (Tier(0, 1, 1),)))
    fees = house.clearing.fees()
    found = [fees.in_force(day) for day in (20261130, 20261201, 20261231, 20270101)]
    assert [one and one.version for one in found] == [None, 1, 1, 2]
    assert fees.tier(1, 20261130) == NO_TIER
    house.close(20261130)
    house.day(20270104)
    assert house.record(adopt(3, 20270201))[0] == "accepted"
    assert [one.version for one in house.clearing.fees().adopted] == [2, 3]


def test_what_the_house_cannot_pay_stays_due(house: House) -> None:
    """Its fees are gone: the withdrawal is refused, and nothing is lost."""
    house.record(adopt(tiers=(Tier(0, 10_000, 10_000),)))
    house.day(20261201)
    trade(house, 1, 2, 3)
    earned = house.clearing.cash(0)
    house.send(house.market.money(CommandKind.WITHDRAW, 0, earned))
    house.close(20261201)
    house.pay_what_is_there()
    assert "discount 20261201 out" in [due.id for due in house.dues()]
    house.clearing.audit()


def test_who_is_in_which_tier_now_and_next_month(house: House) -> None:
    """The open date counts at once; a version to come has its own places."""
    house.record(adopt())
    house.record(adopt(2, 20270101, (Tier(0, 0, 0), Tier(4, 100, 100))))
    house.day(20261130)
    trade(house, 1, 2, 50)
    house.close(20261130)
    house.day(20261201)
    trade(house, 1, 3, 4)
    date, traders = house.clearing.fee_tiers()
    assert (date, [tuple(one) for one in traders]) == (
        20261201, [(1, 50, 2, 4, 2), (2, 50, 2, 0, 1), (3, 0, 1, 4, 2), (4, 0, 1, 0, 1)],
    )  # fmt: skip
    house.close(20261201)
    assert house.clearing.fee_tiers()[1] == traders  # counted once


async def test_the_command_shows_tiers_and_who_is_in_them(tmp_path: Path) -> None:
    async with asyncio.timeout(60), Live.open(tmp_path) as live:
        operations = live.market.operations
        none = await run("clear", "fees", "--data", str(tmp_path))
        assert "no fee tiers" in none
        record = records.write(adopt(effective=20261201))
        await operations.perform(requests.PutRecord(record=record))
        for account in (1, 2):
            await operations.perform(requests.Deposit(account=account, amount="1000000"))
        maker, taker = await live.client(1), await live.client(2)
        listed = live.market.desk.instruments.by_code[CODE]
        price = listed.mark // listed.tick_scale
        await maker.enter(CODE, "sell", 12, price)
        await taker.enter(CODE, "buy", 12, price)
        await operations.perform(requests.Settle())
        await operations.perform(requests.OpenDay(date=20261201))
        await operations.cleared()
        said = await run("clear", "fees", "--data", str(tmp_path))
        assert "version 1: in force, from 20261201 on" in said and "33.33 %" in said
        found = json.loads(await run("clear", "fees", "--data", str(tmp_path), "--json"))
        later = records.write(adopt(2, effective=20261202))
        await operations.perform(requests.PutRecord(record=later))
        await operations.perform(requests.Settle())
        await operations.perform(requests.OpenDay(date=20261202))
        await operations.cleared()
        said = await run("clear", "fees", "--data", str(tmp_path))
        assert "version 2: in force" in said and "version 1" not in said
        assert [one["from_lots"] for one in found["adopted"][0]["tiers"]] == [0, 10, 100]
        assert [(one["account"], one["lots_last_month"], one["tier"], one["next_tier"])
                for one in found["accounts"]] == [(1, 12, 2, 1), (2, 12, 2, 1)]  # fmt: skip


async def run(*arguments: str) -> str:
    done = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.stdout


@settings(max_examples=25, deadline=None)
@given(st.integers(200_001, 999_912))
def test_the_month_before(drawn: int) -> None:
    month = drawn - drawn % 100 + drawn % 12 + 1
    found = month_before(month)
    assert 1 <= found % 100 <= 12
    assert found // 100 * 12 + found % 100 == month // 100 * 12 + month % 100 - 1
    assert month_after(found) == month


def test_who_holds_lots_of_a_cash_contract_when_it_expires_pays_its_final_fee(
    tmp_path: Path,
) -> None:
    """On either side, by the terms of the listing, once; of a physical one who delivers pays."""
    house = House(Clearing.open(tmp_path / "clearing.db"))
    for account in (1, 2, 3, 4):
        house.open(account, account, 1, 10**11)
    terms = [
        house.list(n, code, date(2026, 11, 2)) for n, code in ((0, "H100X26"), (1, "H100PX26"))
    ]
    house.day(20261130)
    for number in (0, 1):
        for buyer, seller, lots in ((1, 2, 7), (3, 2, 5), (4, 1, 2), (2, 4, 2)):
            house.trade(buyer, seller, lots, 2_500, number)
    house.close(20261130)
    fee, cash = terms[0].final_fee, {a: house.clearing.cash(a) for a in (0, 1, 2, 3, 4)}
    assert fee == 100_000
    for number in (0, 1):
        house.send(
            Command(kind=CommandKind.SET_STATE, instrument=number),
            Command(kind=CommandKind.EXPIRE, instrument=number, price=2_500_000),
        )
    due = {due.id: (due.kind, due.account, due.amount) for due in house.dues()}
    assert due == {
        f"final 0 {account} fee": ("fee", account, lots * fee)
        for account, lots in ((1, 5), (2, 10), (3, 5))
    }
    assert house.rulings("final_fee") == [
        ("final_fee", "asked", {"instrument": 0, "fee": fee, "accounts": 3, "total": 20 * fee})
    ]
    house.pay()
    paid = {a: house.clearing.cash(a) - held for a, held in cash.items()}
    assert paid == {0: 20 * fee, 1: -5 * fee, 2: -10 * fee, 3: -5 * fee, 4: 0}
    assert house.statement(2).fees == -10 * fee
    house.agree()
    rebuilt = Clearing.open(tmp_path / "again.db")
    rebuilt.rebuild(house.market.frames)
    assert rebuilt.ledger_hash == house.clearing.ledger_hash and rebuilt.dues() == []
    rebuilt.audit()
    house.clearing.close()
    rebuilt.close()
