"""The clearing house's records, expiries and defaults as an operator of a market meets them."""

import contextlib
import json
import threading
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from live import CODE, Live, opened_live, until

from contracts.calendar import Month
from contracts.index import methodology
from exchange.app import Market, clerk, desk, requests, requests_market, wishes
from exchange.app.patience import Patience
from exchange.app.wishes import RequestRefused
from exchange.clearing.matters import Due, Dues, Lots
from exchange.clearing.moves import pay
from exchange.intake import Item
from exchange.messages import EVENT_FIELDS, Event, Reason, TradingState, wire

MONTH = Month(2026, 11)
DAYS = [MONTH.first_day + timedelta(days=n) for n in range(MONTH.days)]
START = datetime(2026, 11, 2, 12, tzinfo=UTC)
OVER_NS = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * 10**9  # the month is
CUT_NS = int(datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()) * 10**9  # of revisions

PAID = '{"operation": "pay_capital", "amount": 5000000, "person": "owner"}'
NO_FACTORS = '{"operation":"record_factors"}'


live = opened_live  # a fixture


def record(operation: str, **fields: object) -> requests.PutRecord:
    return requests.PutRecord(record=json.dumps({"operation": operation, **fields}))


async def test_a_default_freezes_the_member_and_cancels_its_orders(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    loser, other = await live.client(1), await live.client(2)
    listed = live.market.desk.instruments.by_code[CODE]
    price = listed.mark // listed.tick_scale
    await loser.enter(CODE, "buy", 3, price - 5)
    await loser.enter(CODE, "sell", 2, price + 5)
    await other.enter(CODE, "buy", 1, price - 6)
    operations = live.market.operations
    declared = record("declare_default", member=1, person="ann", reason="unpaid")
    result = await operations.perform(declared)
    (ruling,) = result["rulings"]
    assert ruling["facts"]["frozen"] == [1]
    await until(lambda: not loser.orders)
    assert len(other.orders) == 1
    refused = await loser.enter(CODE, "buy", 1, price)
    assert isinstance(refused, wire.Rejected) and refused.name == "ACCOUNT_KILLED"
    with pytest.raises(RequestRefused, match="duplicate"):
        await operations.perform(declared)
    await other.enter(CODE, "sell", 1, price)
    killed, cleared = [], operations._house.cleared

    async def look(*seconds: float) -> None:
        killed.append(live.market.engine.account(1)["killed"])
        await cleared(*seconds)

    monkeypatch.setattr(operations._house, "cleared", look)
    hedged = await operations.perform(
        requests.Hedge(default=1, code=CODE, side="buy", lots=1, price=str(price / 1000))
    )
    assert (hedged["account"], hedged["lots"]) == (1, 1)
    assert all(killed), "the member could trade until clearing had booked the hedge"
    texts = [text for one in live.market.tape.read(0, 0, 0) for _, text in one.texts]
    (name,) = [text for text in texts if text.startswith("hedge-1-")]
    assert len(name) == len("hedge-1-") + 16  # no client enters an order of its own by that id
    refused = await loser.enter(CODE, "sell", 1, price)  # the switch was thrown again
    assert isinstance(refused, wire.Rejected) and refused.name == "ACCOUNT_KILLED"
    with pytest.raises(RequestRefused, match="no default 2"):
        await operations.perform(
            requests.Hedge(default=2, code=CODE, side="sell", lots=4, price="2.5")
        )


@pytest.mark.parametrize("how", ["implied", "stop"])
async def test_a_hedge_answers_the_lots_of_its_own_order(live: Live, how: str) -> None:
    """Those at an implied price are its own, those of a stop order that it triggers are not."""
    await live.client(1)
    other, third, market = await live.client(2), await live.client(3), live.market
    perform, far = market.operations.perform, "H100F27"
    price = market.desk.instruments.by_code[CODE].mark // 1000
    if how == "implied":
        spread = f"{CODE}-{far}"
        await perform(requests_market.ListContract(code=spread))
        await perform(requests_market.SetImplied(code=spread, on=True))
        await other.query_instruments()
        beyond = market.desk.instruments.by_code[far].mark // 1000
        told = [await other.enter(spread, "sell", 4, price - beyond),
                await third.enter(far, "sell", 4, beyond)]  # fmt: skip
    else:
        told = [await other.enter(CODE, "sell", 2, price),
                await other.enter(CODE, "sell", 5, price + 1),
                await third.enter(CODE, "buy", 5, price + 1, stop_price=price)]  # fmt: skip
    assert all(isinstance(one, wire.Accepted) for one in told), told
    await perform(record("declare_default", member=1, person="ann", reason="unpaid"))
    order = requests.Hedge(default=1, code=CODE, side="buy", lots=4, price=f"{price / 1000}",
                           request_id="h")  # fmt: skip
    hedged, again = await perform(order), await perform(order)
    held = market.clearing.net(1, market.desk.instruments.by_code[CODE].id)
    assert hedged["lots"] == again["lots"] == held == (4 if how == "implied" else 2)
    if how == "stop":
        assert market.clearing.net(3, market.desk.instruments.by_code[CODE].id) == 5


async def test_a_book_that_is_closed_is_hedged_no_more(live: Live) -> None:
    """Nothing could offer the lots again: the next steps are those of the loss."""
    await live.client(1)
    other, market = await live.client(2), live.market
    price = market.desk.instruments.by_code[CODE].mark // 1000
    await other.enter(CODE, "sell", 4, price)
    await market.operations.perform(
        record("declare_default", member=1, person="ann", reason="unpaid")
    )
    await market.operations.perform(requests.Deposit(account=1, amount="1", request_id="d9"))
    await until(lambda: market.clearing.default_stage(1) == "closed")
    order = requests.Hedge(default=1, code=CODE, side="buy", lots=4, price=f"{price / 1000}")
    with pytest.raises(RequestRefused, match="default 1 is closed"):
        await market.operations.perform(order)
    assert market.clearing.net(1, market.desk.instruments.by_code[CODE].id) == 0


async def test_no_account_is_opened_for_a_member_in_default(live: Live) -> None:
    """Neither by name, nor for a deposit or a key of an account of the member's number."""
    perform = live.market.operations.perform
    await perform(requests.OpenAccount(account=4, member=5))
    await perform(record("declare_default", member=5, person="ann", reason="unpaid"))
    for wanted in (
        requests.OpenAccount(account=6, member=5), requests.OpenAccount(account=5),
        requests.Deposit(account=5, amount="1"), requests.CreateKey(account=5),
    ):  # fmt: skip
        with pytest.raises(RequestRefused, match=r"unknown_member.*2204.*observed 5"):
            await perform(wanted)
    assert not live.market.desk.accounts.keys() & {5, 6}
    assert 5 not in [key["account"] for key in (await perform(requests.ListKeys()))["keys"]]
    opened = await perform(requests.OpenAccount(account=4, member=5, if_missing=True))
    assert not opened["opened"]
    await perform(requests.Deposit(account=4, amount="1"))  # what an estate pays


async def test_a_hedge_is_traded_once_under_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was not answered asks again, before and after a restart, and when the account that held
    the instrument holds none of it any more."""

    def order(lots: int, request_id: str, price: str = "") -> requests.Hedge:
        return requests.Hedge(default=1, code=CODE, side="buy", lots=lots, price=price or limit,
                              request_id=request_id)  # fmt: skip

    def unheard(items: list[Item]) -> None:
        submit(items)
        if len(items) == 4:  # they are on their way when he has given up
            monkeypatch.setattr(market.desk, "_submit", submit)
            raise TimeoutError

    def traded() -> list[str]:
        texts = [text for one in live.market.tape.read(0, 0, 0) for _, text in one.texts]
        return [text for text in texts if text.startswith("hedge-1-")]

    async with Live.open(tmp_path) as live:
        for account, member in ((1, 1), (3, 1)):
            opened = requests.OpenAccount(account=account, member=member)
            await live.market.operations.perform(opened)
        other, market, operations = await live.client(2), live.market, live.market.operations
        listed = market.desk.instruments.by_code[CODE]
        limit = f"{listed.mark // 1000 / 1000}"
        for account in (1, 3):
            await operations.perform(requests.Deposit(account=account, amount="9000000"))
        await operations.perform(record("declare_default", member=1, person="ann", reason="unpaid"))
        await other.enter(CODE, "sell", 9, listed.mark // listed.tick_scale)
        submit = market.desk._submit
        monkeypatch.setattr(market.desk, "_submit", unheard)
        with pytest.raises(TimeoutError):
            await operations.perform(order(2, "h1"))
        again = await operations.perform(order(2, "h1", f"{limit}0"))
        first = {"default": 1, "code": CODE, "account": 1, "lots": 2, "request_id": "h1"}
        assert again == first | {"traded_before": True}
        with pytest.raises(RequestRefused, match=r"DUPLICATE_DIFFERENT.*lots 2"):
            await operations.perform(order(3, "h1"))
        with pytest.raises(desk.WishRejected, match="PRICE_LIMIT"):  # spends no id
            await operations.perform(order(1, "h2", "9.5"))
        assert (await operations.perform(order(1, "h2")))["lots"] == 1
        with pytest.raises(RequestRefused, match="ASCII"):
            await operations.perform(order(1, "h²"))
        with pytest.raises(RequestRefused, match="ask for a `hedge`"):
            await operations.perform(record("hedge", **first | {"side": "buy", "price": limit}))
        assert len(traded()) == 3 and market.clearing.net(1, listed.id) == 3
    async with Live.open(tmp_path) as live:
        assert await live.market.operations.perform(order(2, "h1")) == again
        assert len(traded()) == 3 and live.market.clearing.net(1, listed.id) == 3


async def test_an_auction_closes_and_moves_its_lots_by_itself(live: Live) -> None:
    """Nobody asks for it: the deadline passes, the awards are there, the mark has not moved."""
    loser, other = await live.client(1), await live.client(2)
    await live.client(3)
    market, operations = live.market, live.market.operations
    listed = market.desk.instruments.by_code[CODE]
    price = listed.mark // listed.tick_scale
    await other.enter(CODE, "sell", 20, price)
    await loser.enter(CODE, "buy", 20, price)
    await operations.perform(record("declare_default", member=1, person="ann", reason="unpaid"))
    offered = record("open_auction", default=1, instrument=CODE, within_seconds=1, person="ann")
    await operations.perform(offered)
    for account, lots, ticks in ((3, 15, price - 10), (2, 18, price - 20)):
        bid = record("auction_bid", auction=1, account=account, lots=lots, price=f"{ticks / 1000}")
        await operations.perform(bid)
    await until(lambda: market.clearing.net(1, listed.id) == 0)
    assert [market.clearing.net(account, listed.id) for account in (2, 3)] == [-15, 15]
    assert listed.mark == price * listed.tick_scale
    assert market.clearing.divergences == ()
    with pytest.raises(RequestRefused, match="takes two people"):
        await operations.perform(record("allocate", default=1))


async def test_a_default_that_a_crash_cuts_short_is_frozen_by_the_restart(tmp_path: Path) -> None:
    """The record is durable and nothing that follows of it has been done: all of it is, once."""
    async with Live.open(tmp_path) as live:
        client = await live.client(1)
        listed = live.market.desk.instruments.by_code[CODE]
        await client.enter(CODE, "buy", 3, listed.mark // listed.tick_scale - 5)
        facts = {"operation": "declare_default", "member": 1, "person": "ann", "reason": "unpaid"}
        await live.market.desk.perform([wishes.put_record(json.dumps(facts))])
        await live.market.operations.cleared()
        live.market.operations.checkpoint = nothing_more  # type: ignore[method-assign]
        assert [due.kind for due in live.market.clearing.dues()] == ["kill"]
    async with Live.open(tmp_path) as live:
        await until(lambda: not live.market.clearing.dues())
        assert live.market.engine.account(1)["killed"]
        assert live.market.engine.account(1)["open_orders"] == 0
        (default,) = live.market.clearing.matter("defaults")["defaults"]
        assert default["stage"] == "declared"


async def nothing_more() -> None:
    """As in a process that is gone."""


async def test_capital_and_fund_move_by_commands_with_ids(live: Live) -> None:
    await live.client(1)
    operations = live.market.operations
    await operations.perform(record("pay_capital", amount=5_000_000, person="owner"))
    assert live.market.clearing.capital() == 5_000_000
    with pytest.raises(RequestRefused, match="amount"):
        await operations.perform(record("pay_capital", amount=-5_000_001, person="owner"))
    with pytest.raises(RequestRefused, match="none of"):
        await operations.perform(record("pay_capitol"))


async def test_a_record_asked_for_again_is_ruled_as_it_was(tmp_path: Path) -> None:
    """Who has lost the answer learns it, a refusal too, also from the next server."""

    def ask(amount: object, id: str) -> requests.PutRecord:
        facts = {"operation": "pay_capital", "amount": amount, "person": "ann"}
        return requests.PutRecord(record=json.dumps(facts), request_id=id)

    async with Live.open(tmp_path) as live:
        perform = live.market.operations.perform
        first = await perform(ask(7_000_000, "in"))
        assert first["rulings"][0]["facts"] == {"capital": 7_000_000}
        for amount in (-8_000_000, "no number"):
            with pytest.raises(RequestRefused) as refused:
                await perform(ask(amount, f"out {amount}"))
            with pytest.raises(RequestRefused) as again:
                await perform(ask(amount, f"out {amount}"))
            assert str(again.value) == str(refused.value)
        with pytest.raises(RequestRefused, match="DUPLICATE_DIFFERENT"):
            await perform(ask(7_000_001, "in"))
    async with Live.open(tmp_path) as live:
        assert await live.market.operations.perform(ask(7_000_000, "in")) == {
            **first, "recorded_before": True
        }  # fmt: skip
        assert live.market.clearing.capital() == 7_000_000


async def test_what_a_clearing_asks_for_that_is_behind_the_log_is_not_done(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a deleted ledger is rebuilt: the end of the log may have called it off."""
    operations, clearing, engine = market.operations, market.clearing, market.engine
    await operations.perform(requests.Deposit(account=1, amount="36000"))
    interest = record("accrue_interest", credit_bp=1_000, debit_bp=0)
    assert "interest" in str((await operations.perform(interest))["dues_refused"])
    assert "FUNDS" in str(operations.state()["dues_refused"])
    (out, _), (going, apply) = clearing.dues(), (threading.Event(), clearing.apply)
    monkeypatch.setattr(clearing, "apply", lambda frames: going.wait(10) and apply(frames))
    await operations.perform(requests.Deposit(account=0, amount="100"))
    with monkeypatch.context() as hasty:
        hasty.setattr(clerk, "CAUGHT_UP_SECONDS", 0.05)
        await operations.checkpoint()
    assert engine.account(0)["cash"] == 100_000_000
    going.set()
    await operations.cleared()
    await operations.checkpoint()
    assert engine.account(0)["cash"] == 100_000_000 - out.amount
    assert not clearing.dues() and operations.dues_refused == {}


async def test_a_request_id_is_of_one_record(live: Live) -> None:
    """The same again, in any order of its fields, is done once; another one is refused by name."""
    perform, clearing = live.market.operations.perform, live.market.clearing
    paid = '{"operation": "pay_capital", "amount": 5000000, "person": "owner"}'
    again = '{"person":"owner","amount":"5","operation":"pay_capital"}'
    for text in (paid, again):
        await perform(requests.PutRecord(record=text, request_id="x"))
        assert clearing.capital() == 5_000_000
    for other in (paid.replace("5000000", "7000000"), paid.replace("owner", "ann")):
        with pytest.raises(RequestRefused, match="DUPLICATE_DIFFERENT"):
            await perform(requests.PutRecord(record=other, request_id="x"))
    assert clearing.capital() == 5_000_000


@pytest.mark.parametrize("operation", ["record_factors", "record_fixing", "adopt_margin"])
async def test_what_has_a_request_of_its_own_is_put_by_no_other(live: Live, operation: str) -> None:
    """It would go past that request's checks, and gateways publish what the log has."""
    sequence = live.market.hub.sequence
    with pytest.raises(RequestRefused, match=f"{operation} is a request of its own: `hourbook"):
        await live.market.operations.perform(record(operation))
    assert live.market.hub.sequence == sequence


async def test_a_market_outlives_factors_that_are_none(tmp_path: Path) -> None:
    """The log of one that took them still starts."""
    async with Live.open(tmp_path) as live:
        await live.market.desk.perform([wishes.Wish(wishes.put_record(PAID).command, NO_FACTORS)])
        assert await live.market.operations.perform(record("pay_capital", amount=1, person="ann"))
    async with Live.open(tmp_path) as live:
        assert not live.market.desk.factors


@pytest.fixture
def clock() -> "Clock":
    return Clock(START)


@pytest.fixture
async def market(tmp_path: Path, clock: "Clock") -> AsyncIterator[Market]:
    opened = await Market.start(tmp_path, clock=clock)
    yield opened
    await opened.stop()


async def test_a_cash_contract_expires_at_the_mean_of_its_fixings(
    market: Market, clock: "Clock"
) -> None:
    operations = market.operations
    with pytest.raises(RequestRefused, match="trades until 2026-11-30"):
        await operations.perform(requests.Expire(code="H100X26"))
    await last_day(market)
    before = market.desk.sequence
    with pytest.raises(RequestRefused, match="20261130 is fixed when it is over, UTC"):
        await operations.perform(fixing(DAYS[-1], "2.500000"))
    clock.now = OVER_NS - 1
    with pytest.raises(RequestRefused, match="20261130 is fixed when it is over, UTC"):
        await operations.perform(fixing(DAYS[-1], ""))
    assert market.desk.sequence == before
    clock.now = OVER_NS
    for n, day in enumerate(DAYS):
        if n == len(DAYS) - 1:
            with pytest.raises(RequestRefused, match="no fixing of 2026-11-30"):
                await operations.perform(requests.Expire(code="H100X26"))
        await operations.perform(fixing(day, "2.500000" if n % 2 else "2.600000"))
    clock.now = CUT_NS - 1
    with pytest.raises(RequestRefused, match="HBX-H100 count until 2026-12-01 12:00 UTC"):
        await operations.perform(requests.Expire(code="H100X26"))
    await operations.perform(fixing(DAYS[0], "2.300000", revision=1))  # an expiry is for good
    clock.now = CUT_NS
    await operations.perform(fixing(DAYS[0], "9.000000", revision=2))
    result = await operations.perform(requests.Expire(code="H100X26"))
    assert (result["price"], result["rule"], result["fixings"]) == ("2.540000", "MEAN", 30)
    assert market.desk.instruments.by_code["H100X26"].state == TradingState.EXPIRED
    live = await operations.perform(requests.State())
    every = await operations.perform(requests.State(every=True))
    assert live["expired"] == every["expired"] == 1
    gone = [one for one in every["instruments"] if one not in live["instruments"]]
    assert [(one["code"], one["state"]) for one in gone] == [("H100X26", "EXPIRED")]
    with pytest.raises(RequestRefused, match="has expired"):
        await operations.perform(requests.Expire(code="H100X26"))


@pytest.mark.parametrize("late", [True, False])
async def test_withheld_fixings_follow_the_ladder_of_the_index(
    market: Market, clock: "Clock", late: bool
) -> None:
    """Too few: the mean of what there is, then nothing until two people set a price. A revision
    from the cut on changes none of it."""
    operations, short = (
        market.operations,
        methodology.load().index("HBX-H100").settlement.short_days,
    )
    await last_day(market)
    clock.now = OVER_NS
    for n, day in enumerate(DAYS):
        await operations.perform(fixing(day, "2.600000" if n < short - 1 else ""))
    clock.now = CUT_NS - (not late)
    await operations.perform(fixing(DAYS[-1], "2.900000", revision=1))
    clock.now = CUT_NS
    if late:
        with pytest.raises(RequestRefused, match="UNDETERMINED"):
            await operations.perform(requests.Expire(code="H100X26"))
        with pytest.raises(RequestRefused, match="20261130, its last trading day, is not settled"):
            await operations.perform(requests.Expire(code="H100X26", at_settlement=True))
        return
    result = await operations.perform(requests.Expire(code="H100X26"))
    assert (result["rule"], result["fixings"]) == ("SHORT_MEAN", short)
    assert len(result["withheld"]) == len(DAYS) - short
    mean = Fraction(2_600_000 * (short - 1) + 2_900_000, short)
    assert result["price"] == f"{round(mean) / 1_000_000:.6f}"


async def test_no_contract_expires_by_prices_of_a_date_that_is_not_settled(
    market: Market, clock: "Clock"
) -> None:
    """The last trading day's is one of the five whose mean it settles at."""
    perform, clock.now = market.operations.perform, OVER_NS
    for day in DAYS:
        await perform(fixing(day, ""))
    for number in (20261123, 20261124, 20261125, 20261127, 20261130):
        await perform(requests.Settle())
        await perform(requests.OpenDay(date=number))
    clock.now = CUT_NS
    with pytest.raises(RequestRefused, match="20261130, its last trading day, is not settled"):
        await perform(requests.Expire(code="H100X26"))
    await perform(requests.Settle())
    assert (await perform(requests.Expire(code="H100X26")))["rule"] == "MARKET_MEAN"


async def last_day(market: Market) -> None:
    await market.operations.perform(requests.Settle())
    await market.operations.perform(requests.OpenDay(date=20261130))


def fixing(day: date, price: str, revision: int = 0) -> requests.RecordFixing:
    return requests.RecordFixing(
        index="HBX-H100", date=_number(day), state="PUBLISHED" if price else "WITHHELD",
        price=price, revision=revision, inputs_hash="ab" * 32, tape_hash="cd" * 32,
    )  # fmt: skip


class Clock:
    """Log time that a test sets."""

    def __init__(self, start: datetime) -> None:
        self.now = int(start.timestamp()) * 10**9

    def __call__(self) -> int:
        return self.now


def _number(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


# A house that is short of money


NOTHING = Event(**dict.fromkeys(EVENT_FIELDS, 0))


class Crash(Exception):
    """The market is gone before the next command."""


class Till:
    """A desk, and the clearing behind it, of dues alone: the house pays what it has."""

    def __init__(self, dues: list[Due], cash: int, steps: int) -> None:
        self.open, self.money, self.steps = {due.id: due for due in dues}, cash, steps
        self.position, self.sequence, self.tries = (0, 0, 0), 0, 0

    async def perform(self, asked: list[wishes.Wish]) -> None:
        (wish,) = asked
        if not self.steps:
            raise Crash
        self.steps -= 1
        self.tries += 1
        due = self.open[json.loads(wish.text)["id"]]
        if due.kind == "fee":
            self.money += due.amount
        if due.kind == "withdraw" and due.account == 0:
            if due.amount > self.money:
                raise desk.WishRejected(wish, Reason.FUNDS, NOTHING)
            self.money -= due.amount
        del self.open[due.id]

    def dues(self) -> list[Due]:
        matter = Dues()
        for due in self.open.values():
            matter.ask(due)
        return matter.in_order()

    def cash(self, account: int) -> int:
        assert account == 0
        return self.money

    def refresh(self) -> None: ...


INTEREST = [Due("interest 1 out", "withdraw", 0, 70), Due("interest 1 5", "deposit", 5, 70)]
NEXT = [Due("interest 2 6", "fee", 6, 20), Due("interest 2 out", "withdraw", 0, 30),
        Due("interest 2 5", "deposit", 5, 30)]  # fmt: skip


@pytest.mark.parametrize(
    ("cash", "first", "paid"),
    [
        (50, 40, ["true-up", "interest 1"]),  # the second interest waits for its turn
        (0, 40, ["true-up"]),  # what is on its way through the house pays no interest
        (90, 40, ["true-up", "interest 1", "interest 2"]),
        (-30, 40, []),  # nor what comes after it
        (-20, 40, ["true-up"]),  # what a later charge has brought
    ],
)
async def test_who_is_paid_by_a_house_that_is_short_hangs_on_no_crash(
    cash: int, first: int, paid: list[str]
) -> None:
    through = pay("delivery 1 true-up", 8, 9, first)
    dues = [*INTEREST, *through, *NEXT]
    for crash in range(len(dues) + 6):
        till = Till(dues, cash, crash)
        for _ in range(2):  # it crashes, and is there again
            with contextlib.suppress(Crash):
                await clerk.Clerk(till, till)._perform_dues()  # type: ignore[arg-type]
            till.steps = 99
        done = {due.id for due in dues} - till.open.keys()
        assert {id for id in done if id.endswith((" in", " 5"))} == {
            {"true-up": "delivery 1 true-up in"}.get(what, f"{what} 5") for what in paid
        }, crash
        assert till.money >= min(cash, 0)


async def test_what_stays_refused_is_tried_ever_more_rarely() -> None:
    """The pauses grow up to a bound; with the money it is done at once. Who asks himself is told,
    and lengthens no pause."""
    till = Till(INTEREST, 0, 10_000)
    till.cash = lambda account: till.money  # type: ignore[method-assign]
    house, tried = clerk.Clerk(till, till), []  # type: ignore[arg-type]
    for checkpoint in range(400):
        before, refused = till.tries, await house.perform_dues()
        assert refused == till.tries - before <= 1
        tried += [checkpoint] * refused
        assert "FUNDS" in house.refused["interest 1 out"]
        assert bool(house.stubborn()) == (checkpoint >= 7)
    assert tried == [0, 1, 3, 7, 15, 31, 63, *range(127, 400, 64)]
    assert "FUNDS" in (await house._perform_dues())["interest 1 out"]
    assert till.tries == len(tried) + 1
    till.money = 69
    assert await house.perform_dues() == 0
    till.money = 70
    assert await house.perform_dues() is None
    assert (till.open, till.money, house.refused, house.stubborn()) == ({}, 0, {}, {})


async def test_a_member_that_is_paid_is_asked_at_once() -> None:
    """A pause ends for a withdrawal that may pass now, and for lots of an account with more."""
    lots = Lots(kind=0, other=8, sells=False, instrument=1, price=1)
    for due, enough in (
        (Due("fund 1 7", "withdraw", 7, 100), 100),
        (Due("t", "transfer", 7, 1, lots), 61),
    ):
        cash = {7: 60, 8: 60}
        waits = Patience(cash.__getitem__)
        for left in (1, 2, 4):
            for _ in range(left):
                waits.begin([due])
            waits.refused(due, RequestRefused("no"))
            waits.end()
        assert waits.begin([due])
        cash[7] = enough - 1
        assert waits.begin([due])
        cash[7] = enough
        assert not waits.begin([due])
        assert not waits.begin([])
        waits.done("t")
