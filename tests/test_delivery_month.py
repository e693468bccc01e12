"""A whole month of deliveries on a running market, on the market's own clock and signed logs.

Three buyers of one seller: the first is served all month, the second until the seller stops, the
third until both sides agree to deliver otherwise.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
import pytest
from attested import encoded, gpus_of, key_of, opening, roster, site, steps, write
from clearing_house import FACTOR, factors
from test_clearing_desk import Clock
from typer.testing import CliRunner

from contracts import goodput
from contracts.goodput import events as ev
from contracts.goodput.events import Event
from contracts.grades.delivery import invoice_cents
from contracts.grades.present import Present, present
from contracts.grades.roster import Node
from contracts.refusals import Refusal, Refused
from exchange.app import Market, requests, wishes
from exchange.app.wishes import RequestRefused, Wish
from exchange.clearing import Clearing, records
from exchange.clearing.delivery import page, story
from exchange.clearing.delivery.slices import DAY_S
from exchange.cli.root import app
from exchange.messages import HOUSE_ACCOUNT, Command, CommandKind, Side

CODE: Final = "H100PZ26"
SELLER, WHOLE, LEFT, OTHER = 7, 8, 9, 10
DAYS: Final = 31
LOTS: Final = 8
DAY_NS: Final = 86_400 * 10**9
HOUR_NS: Final = 3_600 * 10**9
BEGIN: Final = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * 10**9
SITE: Final = site("alpha")
NODES: Final = {WHOLE: "alpha-00", LEFT: "alpha-01", OTHER: "alpha-02"}
STOPS, AGREED, SHORT_DAY = 10, 15, 20  # days: LEFT's last, OTHER's last, half of WHOLE's hours


def day_log(folder: Path, node: str, day: int, hours: int = 24) -> Path:
    """A node's signed log of one UTC day: ``hours`` of steps, and then its power is gone."""
    at = BEGIN + (day - 1) * DAY_NS
    end = at + hours * HOUR_NS
    last = steps(hours, at, seconds=3_600)
    events = [*opening(node, at=at), *last, ev.Checkpoint(end, hours)]
    if hours < 24:
        events += [ev.Disruption(end, "power"), ev.Close(at + DAY_NS)]
    else:
        events += [ev.JobEnd(end), ev.Close(end)]
    return write(folder / f"{node}-{day}-{hours}.log", events)


def seen(folder: Path, node: str, day: int, hours: int = 24) -> Present:
    computed = goodput.compute(day_log(folder, node, day, hours))
    begin = BEGIN + (day - 1) * DAY_NS
    return present([computed], SITE, (begin, begin + DAY_NS), LOTS)


class Operator:
    """A market on a clock that the test moves, and who asks it for things."""

    def __init__(self, market: Market, clock: Clock) -> None:
        self.market, self.clock = market, clock

    async def put(self, operation: str, **fields: object) -> dict[str, Any]:
        text = json.dumps({"operation": operation, **fields})
        return await self.market.operations.perform(requests.PutRecord(record=text))

    async def at(self, stamp: int) -> None:
        """Time passes; what it brings is done, and what clearing then asks for."""
        self.clock.now = max(self.clock.now, stamp)
        for _ in range(2):
            await self.market.operations.checkpoint()
            await self.market.operations.cleared()

    def delivery(self, number: int) -> dict[str, Any]:
        found = self.market.clearing.delivery(number)
        assert found is not None
        return found

    async def attest(self, number: int, day: int, hours: Present) -> None:
        found = self.delivery(number)
        for account in (found["seller"], found["buyer"]):
            await self.put("attest", account=account, delivery=number, day=day, **hours._asdict())


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    clock = Clock(datetime(2026, 11, 20, 12, tzinfo=UTC))
    market = await Market.start(tmp_path / "market", clock=clock)
    await market.listen("127.0.0.1", 0)
    yield Operator(market, clock)
    await market.stop()


async def trade(operator: Operator, number: int, day: int, buyer: int) -> None:
    """SELLER sells to the buyer on that date of November, which is then settled."""
    operations, desk = operator.market.operations, operator.market.desk
    operator.clock.now = int(datetime(2026, 11, day, 12, tzinfo=UTC).timestamp()) * 10**9
    if desk.business_date != 20261100 + day:
        await operations.perform(requests.OpenDay(date=20261100 + day))
    for account, side in ((SELLER, Side.SELL), (buyer, Side.BUY)):
        name = f"order-{account}-{day}"
        lo, hi = wishes.digest(name, b"order")
        command = Command(
            kind=CommandKind.ENTER, account=account, side=side, price=2_500, quantity=LOTS,
            instrument=number, key_lo=lo, key_hi=hi,
        )  # fmt: skip
        await desk.perform([Wish(command, name)])
    await operations.perform(requests.Settle())


async def assigned(operator: Operator) -> None:
    """Traded on three dates, tendered, assigned and expired: the invoices are in escrow."""
    operations = operator.market.operations
    for account in (SELLER, *NODES):
        await operations.perform(requests.Deposit(account=account, amount="1000000"))
    with pytest.raises(RequestRefused, match="not in the listing cycle"):
        await operations.perform(requests.ListContract(code="H100PZ20", price="2.5"))
    listed = await operations.perform(requests.ListContract(code=CODE, price="2.500"))
    assert listed["last_trading_day"] == "2026-11-25"
    for day, buyer in ((20, WHOLE), (23, LEFT), (24, OTHER)):
        await trade(operator, listed["instrument"], day, buyer)
    published = Command(kind=CommandKind.RECORD, account=HOUSE_ACCOUNT)  # whatever the schedule
    await operator.market.desk.perform([Wish(published, records.write(factors()))])
    tender = {"account": SELLER, "instrument": CODE, "lots": 3 * LOTS, "grade": "H100-NODE",
              "provider": "alpha", "facility": "one", "factor_version": 1}  # fmt: skip
    await operator.put("tender", **tender)
    await operations.perform(requests.OpenDay(date=20261125))
    await operations.perform(requests.Settle())
    with pytest.raises(RequestRefused, match="after its last notice"):
        await operations.perform(requests.Expire(code=CODE))
    await operator.at(operator.market.clearing.deadline())  # the last notice has passed
    assert [operator.delivery(n)["buyer"] for n in (1, 2, 3)] == [WHOLE, LEFT, OTHER]
    assert operator.delivery(1)["events"][0]["facts"]["deadline"] == BEGIN
    await operations.perform(requests.OpenDay(date=20261130))
    await operations.perform(requests.Expire(code=CODE))


async def month(operator: Operator, folder: Path) -> None:
    """Every day of December, by the logs of both sides."""
    for day in range(1, DAYS + 1):
        await operator.at(BEGIN + day * DAY_NS)
        half = 12 if day == SHORT_DAY else 24
        await operator.attest(1, day, seen(folder, NODES[WHOLE], day, half))
        if day <= STOPS:
            await operator.attest(2, day, seen(folder, NODES[LEFT], day))
        if day <= AGREED:
            await operator.attest(3, day, seen(folder, NODES[OTHER], day))
        elif day == AGREED + 1:
            for account in (SELLER, OTHER):
                await operator.put("alternative_delivery", account=account, delivery=3,
                                   agreement="site beta, the same hours")  # fmt: skip
        if day == STOPS + 6:
            await operator.market.operations.perform(requests.RecordFixing(
                index="HBX-H100", date=20261216, state="PUBLISHED", price="3.100000",
                inputs_hash="00" * 32, tape_hash="00" * 32,
            ))  # fmt: skip
    await operator.at(BEGIN + (DAYS + 2) * DAY_NS)


async def test_a_month_of_deliveries_ends_to_the_cent(operator: Operator, tmp_path: Path) -> None:
    market, clearing = operator.market, operator.market.clearing
    await assigned(operator)
    paid_in = {account: clearing.cash(account) for account in (SELLER, *NODES)}
    await month(operator, tmp_path)
    one, two, three = (operator.delivery(n) for n in (1, 2, 3))
    assert [d["stage"] for d in (one, two, three)] == ["delivered", "failed", "alternative"]
    price, invoice = one["price"], one["invoice"]
    assert invoice == invoice_cents(price_micros=price, hours=744, lots=LOTS, factor_e4=FACTOR)
    half = one["parts"][SHORT_DAY - 1]
    returned = half - half // 2
    (end,) = [e["facts"] for e in one["events"] if e["outcome"] == "delivered"]
    got = {n: clearing.cash(n) - paid_in[n] for n in (SELLER, *NODES)}
    assert got[WHOLE] == (returned + end["true_up"]) * 10_000
    (bought,) = [e["facts"] for e in two["events"] if e["outcome"] == "bought_in"]
    terms = {"hours": 21 * 24, "lots": LOTS, "factor_e4": FACTOR}
    assert bought["dearer"] == invoice_cents(price_micros=3_100_000 - price, **terms)
    earned_two, earned_three = sum(two["parts"][:STOPS]), sum(three["parts"][:AGREED])
    assert got[LEFT] == (invoice - earned_two + bought["dearer"] + bought["penalty"]) * 10_000
    assert got[OTHER] == (three["invoice"] - earned_three) * 10_000
    judge_pages(one, two, three)
    escrows = invoice + two["invoice"] + three["invoice"]
    assert sum(got.values()) == escrows * 10_000  # all that was paid in came out again
    weeks = [e for e in one["events"] if e["outcome"] == "week_paid"]
    assert len(weeks) == 5
    await market.operations.checkpoint()
    assert market.operations.state()["divergences"] == 0 and clearing.is_balanced()
    assert clearing.dues() == []
    clearing.audit()
    before = (clearing.ledger_hash, clearing.matter("deliveries"))
    clearing.rebuild(market.tape.read(0, 0, 0))
    assert (clearing.ledger_hash, clearing.matter("deliveries")) == before


def judge_pages(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    """Every day of the month is drawn, with its state, its hours and its money."""
    whole, left, other = map(story.days, (one, two, three))
    assert {line.state for line in whole} == {"paid"}
    assert [line.day for line in whole if line.there_s < LOTS * DAY_S] == [SHORT_DAY]
    assert [line.state for line in left] == ["paid"] * STOPS + ["failed"] * (DAYS - STOPS)
    assert [line.state for line in other] == ["paid"] * AGREED + ["ended"] * (DAYS - AGREED)
    for found, lines in ((one, whole), (two, left), (three, other)):
        assert sum(line.earned for line in lines) == sum(s[2] for s in found["slices"])
        drawn = page.page(found)
        assert drawn.count("GPU-hours were there") >= DAYS
        for line in lines:
            assert f"day {line.day}, {line.state}:" in drawn
        assert sum(line.earned + line.returned for line in lines) == found["invoice"]
    assert story.owed(two).keys() == {"buy-in", "penalty"}
    assert ">penalty</text>" in page.page(two) and "penalty" not in page.page(one)


async def test_every_stage_has_its_deadline_and_the_month_its_picture(
    operator: Operator, tmp_path: Path
) -> None:
    """As the command shows it, of the ledger beside the market."""
    await assigned(operator)
    await operator.at(BEGIN)
    logs = [day_log(tmp_path, NODES[WHOLE], day, hours) for day, hours in ((1, 24), (2, 12))]
    (tmp_path / "roster.json").write_bytes(encoded(roster(SITE)))
    data = str(operator.market.directory)
    for day, log in enumerate(logs, start=1):
        await operator.at(BEGIN + day * DAY_NS)
        for account in (SELLER, WHOLE):
            said = await run(
                "clear",
                "attest",
                "1",
                str(day),
                str(log),
                "--account",
                str(account),
                "--roster",
                str(tmp_path / "roster.json"),
                "--data",
                data,
            )
            assert "attest accepted" in said
    await judge_same_logs(logs[0], tmp_path, data)
    await operator.at(0)
    told = await run("clear", "delivery", "1", "--data", data)
    print(told)
    found = json.loads(await run("clear", "delivery", "1", "--data", data, "--json"))
    stages = {e["outcome"]: e["facts"] for e in found["events"] if e["operation"] == "delivery"}
    assert list(stages) == ["assigned", "invoiced", "escrowed", "slice"]
    assert all(facts["deadline"] > 0 for facts in stages.values())
    assert "|#=" in told and "earned" in told
    await operator.at(BEGIN + 3 * DAY_NS)
    await operator.put("attest", account=SELLER, delivery=1, day=3, available=LOTS * DAY_S)
    file = tmp_path / "delivery.html"
    await run("clear", "delivery", "1", "--data", data, "--html", str(file))
    drawn = file.read_text()
    for day, state in ((1, "settled"), (2, "settled"), (3, "attested"), (4, "to come")):
        assert f"day {day}, {state}:" in drawn or state == "to come"
    assert "next by itself" in drawn and "<h2>Stages</h2>" in drawn


async def judge_same_logs(log: Path, folder: Path, data: str) -> None:
    """A node's log of a day that counts for one delivery does not count for another of its site,
    unless it shows the GPUs of both."""
    other = day_log(folder, NODES[LEFT], 1)
    options = ("--account", str(SELLER), "--roster", str(folder / "roster.json"), "--data", data)
    twice = await asyncio.to_thread(
        CliRunner().invoke, app, ("clear", "attest", "2", "1", str(log), *options)
    )
    assert "count for delivery 1: no GPU counts twice" in str(twice.exception)
    wrong = folder / "other.json"
    for changes, said in (({"grade": "A100-NODE"}, "A100-NODE 2026-12"),
                          ({"expiry": "2026-11"}, "H100-NODE 2026-11")):  # fmt: skip
        wrong.write_bytes(encoded(roster(SITE, **changes)))
        ask = ("clear", "attest", "2", "1", str(log), *options[:3], str(wrong), *options[4:])
        other_sites = await asyncio.to_thread(CliRunner().invoke, app, ask)
        assert f"the roster of {said}, and delivery 2 of H100-NODE 2026-12" in str(
            other_sites.exception
        )
    for number in ("2", "3"):
        both = ("clear", "attest", number, "1", str(log), str(other), *options)
        # The story of no delivery but its own is read: a site may have hundreds
        with patch.object(
            Clearing, "delivery", autospec=True, side_effect=Clearing.delivery
        ) as read:
            assert "attest accepted" in await run(*both)
        assert [call.args[1] for call in read.call_args_list] == [int(number)]


async def run(*arguments: str) -> str:
    done = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.stdout


def test_hours_are_those_of_the_sites_own_nodes_and_count_once(tmp_path: Path) -> None:
    whole = seen(tmp_path, NODES[WHOLE], 1)
    assert (whole.available, whole.lost) == (LOTS * DAY_S, 0)
    assert seen(tmp_path, NODES[WHOLE], 1, 12).available == LOTS * DAY_S // 2
    window = (BEGIN, BEGIN + DAY_NS)
    first = goodput.compute(day_log(tmp_path, NODES[WHOLE], 1))
    other = goodput.compute(day_log(tmp_path, NODES[LEFT], 1))
    assert present([first, other], SITE, window, LOTS).available == LOTS * DAY_S  # 16 GPUs, 8 sold
    both = present([first, other], SITE, window, 2 * LOTS)
    assert (both.available, both.digest) == (
        2 * LOTS * DAY_S,
        present([other, first], SITE, window, 16).digest,
    )
    node = NODES[WHOLE]
    older = [ev.Hardware(at, node, "A100-SXM", gpus_of(node)) for at in (BEGIN, BEGIN + HOUR_NS)]
    lesser = log_of(tmp_path, "lesser", [opening(node, at=BEGIN)[0], *older])
    for logs, place, when, why in (
        ([first, first], SITE, window, Refusal.GPU_TWICE),
        ([lesser], SITE, window, Refusal.UNKNOWN_GPU),
        ([first], site("beta"), window, Refusal.UNKNOWN_NODE),
        ([first], SITE, (BEGIN + 1, BEGIN + DAY_NS), Refusal.STALE),
    ):  # fmt: skip
        with pytest.raises(Refused) as refused:
            present(logs, place, when, LOTS)
        assert refused.value.reason == why


def log_of(folder: Path, name: str, events: Sequence[Event]) -> goodput.Computed:
    return goodput.compute(write(folder / name, [*events, ev.Close(events[-1].at)]))


def test_gpus_count_while_they_are_there_and_no_more_at_once_than_were_sold(tmp_path: Path) -> None:
    spare = gpus_of(NODES[WHOLE], 9)  # a ninth, pledged to take the place of a broken one
    named = Node(NODES[WHOLE], key_of(NODES[WHOLE]).public, spare)
    pledged = msgspec.structs.replace(SITE, nodes=(named, *SITE.nodes[1:]))
    window, node, noon = (BEGIN, BEGIN + DAY_NS), NODES[WHOLE], BEGIN + DAY_NS // 2
    start = opening(node, at=BEGIN)
    ran = [*start, *steps(12, BEGIN, seconds=3_600), ev.JobEnd(noon)]
    for name, after, hours in (
        ("swapped", spare[1:], 8 * 24),
        ("smaller", spare[:6], 8 * 12 + 6 * 12),
        ("left", (), 8 * 12),
    ):
        changed = ev.Hardware(noon, node, "H100-SXM", after)
        last = ev.Hardware(BEGIN + DAY_NS, node, "H100-SXM", after)
        computed = log_of(tmp_path, name, [*ran, changed, last])
        assert present([computed], pledged, window, 16).available == hours * 3_600, name
    morning = [
        log_of(tmp_path, one, [*opening(one, at=BEGIN), *ran[len(start) :]])
        for one in (node, NODES[LEFT])
    ]
    assert present(morning, SITE, window, 8).available == 8 * 12 * 3_600  # not 16 for half a day
    assert present(morning, SITE, window, 12).available == 12 * 12 * 3_600
