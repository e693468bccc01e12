"""Intraday cycles: due by log time, at prices that stay, each exactly once whatever is killed."""

import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from clearing_house import House
from clearing_market import ACCOUNTS, DAY, INSTRUMENTS, open_market, random_command
from live import Running, market_in, until
from recorded import crashed_copy, frame_bounds

from exchange.app import Market, requests, wishes
from exchange.app.settings import Limits, Settings
from exchange.app.wishes import RequestRefused, Wish, note
from exchange.clearing import Clearing
from exchange.clearing.cycles import DAY_SECONDS, SECOND, Cycles, ScheduleCycles
from exchange.messages import Command, CommandKind, Side

NOON, FOUR = 12 * 3_600 * SECOND, 16 * 3_600 * SECOND


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A market that has traded; its log time is shortly after midnight of the epoch."""
    market, draw = open_market(), random.Random(4)
    for _ in range(20):
        market.apply(*(random_command(market, draw) for _ in range(20)))
    opened = House(Clearing.open(tmp_path / "clearing.db"), market)
    opened.clearing.apply(market.frames)
    yield opened
    opened.clearing.close()


def cycles(house: House) -> Cycles:
    return house.clearing.cycles()


def outcomes(house: House) -> list[str]:
    return [outcome for _, outcome, _ in house.rulings("intraday_cycle")]


def settle(house: House, upto: int = INSTRUMENTS) -> None:
    """Settle the first instruments that the cycle has left."""
    prices = house.clearing.cycle_prices()
    for priced in prices[:upto]:
        number = priced.instrument
        house.send(house.market.settle(number, priced.price, house.clearing.next_cycle(number)))


def test_a_schedule_is_times_of_the_day_in_utc(house: House) -> None:
    outcome, facts = house.record(ScheduleCycles(times=("16:00", "12:00", "12:00")))
    assert (outcome, facts) == ("accepted", {"times": 2, "next": NOON})
    wrong_ones = ("12", "1200", "T12:00", "noon", "12:00:01", "12:00+02:00", "25:00")
    for wrong in [(one,) for one in wrong_ones]:
        assert house.record(ScheduleCycles(times=wrong))[0] == "malformed"
    assert house.record(ScheduleCycles(times=("12:00",) * 25))[0] == "full"
    assert house.record(ScheduleCycles(times=("12:00",)), account=1)[0] == "not_yours"
    assert cycles(house).times == [12 * 3_600, 16 * 3_600]
    assert house.clearing.deadline() == NOON
    house.at(FOUR)
    assert cycles(house).deadline == DAY_SECONDS * SECOND + NOON  # tomorrow
    assert house.record(ScheduleCycles(times=()))[1] == {"times": 0, "next": 0}


@pytest.mark.parametrize("done", range(INSTRUMENTS + 1))
def test_a_cycle_killed_after_any_step_is_finished_once(house: House, done: int) -> None:
    """Trades, a bust of what was traded and another price come in between, and move nothing."""
    house.record(ScheduleCycles(times=("12:00", "16:00")))
    assert house.clearing.cycle_prices() == []
    house.at(NOON + 5 * SECOND)
    house.at(NOON + 6 * SECOND)  # log time passes it once
    planned = house.clearing.cycle_prices()
    assert [p.instrument for p in planned] == list(range(INSTRUMENTS))
    assert any(p.price != p.prior for p in planned)
    settle(house, done)
    house.market.apply(house.market.enter(1, Side.SELL, 2_400, 1),
                       house.market.enter(2, Side.BUY, 2_400, 1))  # fmt: skip
    house.clearing.apply(house.market.frames[-1:])
    house.reopen()
    assert house.clearing.cycle_prices() == planned[done:]
    settle(house)
    assert outcomes(house) == ["due", "done"]
    assert cycles(house).due is None and house.clearing.settled() == set()
    query = "select instrument, cycle, price from settlement_prices order by instrument"
    rows = [tuple(row.values()) for row in house.clearing._store.rows(query)]
    assert rows == [(p.instrument, 1, p.price) for p in planned]
    house.close(DAY)
    settle_rest = sorted(set(range(INSTRUMENTS)) - house.clearing.settled())
    assert settle_rest == list(range(INSTRUMENTS))  # the date's own settlement is still to come
    assert [house.clearing.next_cycle(number) for number in settle_rest] == [2] * INSTRUMENTS
    house.agree()


def test_a_later_cycle_and_the_end_of_the_date_overtake_one(house: House) -> None:
    house.record(ScheduleCycles(times=("12:00", "16:00")))
    house.at(NOON)
    settle(house, 1)
    house.at(FOUR)
    assert outcomes(house) == ["due", "overtaken", "due"]
    due = cycles(house).due
    assert due is not None and due.left == {0: 2, 1: 1, 2: 1}
    house.close(DAY)
    assert (outcomes(house)[-1], house.clearing.cycle_prices()) == ("overtaken", [])
    house.at(DAY_SECONDS * SECOND + NOON)  # no date is open: nobody is asked to pay
    assert outcomes(house)[-1] == "overtaken"
    assert {a: house.clearing.cash(a) for a in ACCOUNTS} == {
        a: house.market.engine.account(a)["cash"] for a in ACCOUNTS
    }


def test_a_time_that_passes_unused_is_gone_after_a_restart_too(house: House) -> None:
    """Nobody is asked to pay while no date is open, nor when one opens after a restart."""
    house.record(ScheduleCycles(times=("12:00",)))
    house.close(DAY)
    house.at(NOON)
    tomorrow = DAY_SECONDS * SECOND + NOON
    beside = Clearing.open(house.clearing._store.path, read_only=True)
    assert house.clearing.deadline() == beside.deadline() == tomorrow
    beside.close()
    house.reopen()
    house.day(DAY + 1)
    house.at(FOUR)
    assert outcomes(house) == []


def test_where_nobody_holds_anything_there_is_nothing_to_pay(tmp_path: Path) -> None:
    house = House(Clearing.open(tmp_path / "clearing.db"), open_market())
    house.clearing.apply(house.market.frames)
    house.record(ScheduleCycles(times=("12:00",)))
    house.at(NOON)
    assert (outcomes(house), house.clearing.cycle_prices()) == (["empty"], [])
    house.clearing.close()


# A market that keeps its own schedule.

CODES = ("H100Z26", "H100F27", "H200Z26")


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = int(datetime(2026, 11, 20, 11, 59, tzinfo=UTC).timestamp()) * SECOND

    def __call__(self) -> int:
        return self.now


def running(directory: Path, clock: Clock, watch: float) -> Running:
    limits = Limits(watch_seconds=watch, clearing_pause_seconds=0.01)
    return market_in(directory, clock=clock, settings=Settings(limits=limits))


async def trade(market: Market) -> None:
    """Account 2 buys some of everything from account 1, above the mark."""
    for account in (1, 2):
        await market.operations.perform(requests.Deposit(account=account, amount="1000000"))
    for code in CODES:
        listed = market.desk.instruments.by_code[code]
        for account, side in ((1, Side.SELL), (2, Side.BUY)):
            command = Command(
                kind=CommandKind.ENTER, account=account, side=side, quantity=3,
                price=listed.mark // listed.tick_scale + 7, instrument=listed.id,
                key_lo=market.desk.sequence + 1,
            )  # fmt: skip
            await market.desk.perform([Wish(command, note("enter"))])


def paid(market: Market) -> list[Any]:
    query = (
        "select business_date, cycle, price, instrument from settlement_prices order by instrument"
    )
    with market.clearing._lock:
        return [tuple(row.values()) for row in market.clearing._store.rows(query)]


async def finished(directory: Path, clock: Clock) -> tuple[list[Any], list[int]]:
    """Start a market on a directory, let it finish its cycle, and say what was paid to whom."""
    async with running(directory, clock, 0.02) as market:
        await until(lambda: len(paid(market)) == len(CODES) and not market.clearing.cycle_is_due())
        await market.operations.checkpoint()
        await market.operations.cleared()
        assert not market.clearing.divergences and market.clearing.is_balanced()
        with pytest.raises(
            RequestRefused, match=r"no intraday cycle is due; the next one is at 2026-"
        ):
            await market.operations.perform(requests.RunCycle())
        return paid(market), [market.clearing.cash(account) for account in (1, 2)]


async def test_a_market_killed_anywhere_pays_its_cycle_once(tmp_path: Path) -> None:
    """The log is cut after every batch of a cycle, the ledger kept or lost: all end the same."""
    clock, whole = Clock(), tmp_path / "whole"
    async with running(whole, clock, 60) as market:
        schedule = '{"operation": "schedule_cycles", "times": ["12:00"]}'
        await market.operations.perform(requests.PutRecord(record=schedule))
        await trade(market)
        clock.now += 61 * SECOND
        started = len(frame_bounds(whole))
        await market.operations.checkpoint()
        await market.operations.cleared()
        planned = market.clearing.cycle_prices()
        assert [(p.code, p.rule) for p in planned] == [(c, "window average") for c in CODES]
        for p in planned:  # one by one, where the market itself settles them in one batch
            await market.desk.perform([wishes.settle(p.code, p.instrument, p.price, 1)])
        await market.operations.cleared()
        right = paid(market), [market.clearing.cash(account) for account in (1, 2)]
    assert len(right[0]) == len(CODES) and right[1][0] != right[1][1]
    bounds = frame_bounds(whole)
    assert len(bounds) > started + len(CODES)
    for number, (_, end) in enumerate(bounds[started - 1 : started + 1 + len(CODES)]):
        cut = crashed_copy(whole, tmp_path / f"cut{number}")
        (segment,) = (cut / "log").iterdir()
        segment.write_bytes(segment.read_bytes()[:end])
        shutil.copy(whole / "exchange.id", cut)
        if number % 2:
            shutil.copy(whole / "ledger.db", cut)
        assert await finished(cut, clock) == right


class Killed(Exception):
    """The process ends here."""


def looks(market: Market) -> int:
    with market.clearing._lock:
        return len(list(market.clearing._store.rows(
            "select number from rulings where operation = 'call_margin'"
        )))  # fmt: skip


async def killed_before_the_look(market: Market, request: requests.AnyRequest) -> None:
    """All is settled, and nobody has been called."""

    async def killed() -> dict[str, Any]:
        raise Killed

    market.operations._house._call_margin = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await market.operations.perform(request)
    assert (len(paid(market)) > 0, looks(market)) == (True, 0)


async def test_a_settlement_killed_before_its_look_makes_it_when_asked_again(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with running(tmp_path, clock, 60) as market:
        await trade(market)
        await killed_before_the_look(market, requests.Settle())
        settled = paid(market)
    async with running(tmp_path, clock, 0.02) as market:
        finished = await market.operations.perform(requests.Settle())
        assert (finished["settlement_prices"], finished["margin_calls"]) == ({}, {})
        assert (paid(market), looks(market)) == (settled, 1)
        with pytest.raises(RequestRefused, match="is settled already"):
            await market.operations.perform(requests.Settle())
        assert looks(market) == 1


async def test_a_cycle_killed_before_its_look_makes_it_after_the_restart(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock, 60) as market:
        schedule = '{"operation": "schedule_cycles", "times": ["12:00"]}'
        await market.operations.perform(requests.PutRecord(record=schedule))
        await trade(market)
        clock.now += 61 * SECOND
        await market.operations.checkpoint()
        await killed_before_the_look(market, requests.RunCycle())
        assert market.clearing.cycles().due is None
    async with running(tmp_path, clock, 0.02) as market:
        await until(lambda: looks(market) == 1)
        await market.operations.checkpoint()
        with pytest.raises(RequestRefused, match="no intraday cycle is due"):
            await market.operations.perform(requests.RunCycle())
        assert looks(market) == 1
