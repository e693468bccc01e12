"""A market that follows its calendar: one whole day on a virtual clock, killed on the way.

Budget: 25 seconds.
"""

import asyncio
import json
import signal
import subprocess
from collections import defaultdict
from collections.abc import Coroutine
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from live import market_in
from overrides import override
from served import COMMAND

from contracts import calendar, registry
from contracts.sessions import in_force, steps
from exchange.app import Market, requests, wishes
from exchange.app.schedule import STATES
from exchange.app.schedule import Schedule as Follower
from exchange.app.settings import Limits, Schedule, Settings
from exchange.app.wishes import RequestRefused, Wish, note
from exchange.messages import EVENT, Command, CommandKind, EventKind, HaltCause, Side, TradingState
from exchange.messages.dates import number_of
from exchange.sequencer import LogFull
from exchange.sim.disk import SimDisk
from exchange.sim.host import Host, HostFaults
from exchange.sim.loop import NS, SimLoop
from exchange.sim.net import Network, Weather
from exchange.sim.virtual import virtual

CODE, LAST = "H100Z26", "H100X26"  # LAST trades until 30 November
MARKET = Settings(
    limits=Limits(watch_seconds=60, checkpoint_seconds=3_600, clearing_pause_seconds=1.0),
    schedule=Schedule(follow=True),
)
PRE_OPEN, AUCTION, CONTINUOUS, HALTED, CLOSED = (
    TradingState.PRE_OPEN, TradingState.AUCTION, TradingState.CONTINUOUS, TradingState.HALTED,
    TradingState.CLOSED,
)  # fmt: skip


def stamp(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS


EVE = stamp("2026-11-22T22:00")  # Sunday; Monday's session begins at 22:30
KILLS = ("22T22:40:07", "22T22:59:59.990", "23T12:00", "23T21:57", "23T22:00:00.004")


class Happened(NamedTuple):
    """One event and its log time."""

    stamp: int
    kind: int
    instrument: int
    quantity: int
    reason: int
    a: int


class Day:
    """A simulated market, and what is in its log in the end."""

    def __init__(self, folder: Path, settings: Settings = MARKET, epoch: int = EVE) -> None:
        self.loop, disk = SimLoop(Random(1)), SimDisk(Random(2))
        self.net = Network(self.loop, Random(3), Weather())
        self.epoch = epoch
        self.host = Host(
            self.loop, disk, self.net, folder, Random(4), epoch, {"settings": settings}
        )
        self.host.faults = HostFaults(restart_ms=50)
        self.events: list[Happened] = []

    async def until(self, at: int) -> None:
        """Wait for a moment."""
        await asyncio.sleep(max(0, at - self.epoch - self.loop.now_ns) / NS)

    async def market(self) -> Market:
        """The market that serves, once one does."""
        host = self.host
        while host.market is None or host.process is None or not host.process.alive:
            await asyncio.sleep(0.01)
        return host.market

    async def ask(self, request: requests.AnyRequest) -> None:
        market = await self.market()
        await self.host.ask(market.operations.perform(request), 30)

    async def enter(
        self, account: int, side: Side, over_mark: int, lots: int = 5, code: str = CODE
    ) -> None:
        market = await self.market()
        listed = market.desk.instruments.by_code[code]
        command = Command(
            kind=CommandKind.ENTER, account=account, side=side, quantity=lots,
            instrument=listed.id, price=listed.mark // listed.tick_scale + over_mark,
            key_lo=market.desk.sequence + 1,
        )  # fmt: skip
        await self.host.ask(market.desk.perform([Wish(command, note("enter"))]), 30)

    async def end(self, living: asyncio.Task[None]) -> None:
        """Keep what the log says, and stop."""
        market = await self.market()
        await self.host.ask(market.operations.cleared(), 30)
        assert not market.clearing.divergences
        self.events = [
            Happened(one.stamp, row[2], row[5], row[9], row[4], row[13])
            for one in market.tape.read(0, 0, 0)
            for row in EVENT.iter_unpack(one.events)
        ]
        await self.host.stop()
        await living

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it to its end on the virtual clock."""
        with virtual(self.host.clock_ns, Random(5)), self.host.files.tracked():
            try:
                self.loop.run_until_complete(work)
            finally:
                self.loop.close()

    def of(self, *kinds: EventKind) -> list[Happened]:
        return [one for one in self.events if one.kind in kinds]

    def states(self) -> dict[int, list[Happened]]:
        """Changes of state by instrument, without those that a restart brought and took back."""
        found: defaultdict[int, list[Happened]] = defaultdict(list)
        for one in self.of(EventKind.STATE_CHANGED):
            if one.quantity == HALTED and one.reason == HaltCause.RECOVERY:
                continue
            before = found[one.instrument][-1:]
            if before and (before[0].quantity, before[0].reason) == (one.quantity, one.reason):
                continue  # reopened
            found[one.instrument].append(one)
        return found


def test_a_whole_day_with_kills_between_its_transitions(tmp_path: Path) -> None:
    day = Day(tmp_path)

    async def main() -> None:
        living = asyncio.create_task(day.host.run())
        for account in (1, 2):
            await day.ask(requests.Deposit(account=account, amount="5000000"))
        for kill in KILLS:
            at = int(datetime.fromisoformat(f"2026-11-{kill}+00:00").timestamp() * 1000)
            if kill == KILLS[1]:
                await day.enter(1, Side.SELL, 0)
                await day.enter(2, Side.BUY, 2)
            if kill == KILLS[4]:
                await day.enter(1, Side.SELL, 3, 7)
                await day.enter(2, Side.BUY, 3, 7)
            await day.until(at * 1_000_000)
            await day.market()
            day.host.kill("between two transitions")
        await day.until(stamp("2026-11-23T22:05"))
        await day.end(living)

    day.run(main())
    assert day.host.lives == len(KILLS) + 1
    wanted = [
        (PRE_OPEN, HaltCause.OPENING, "22T22:30"), (AUCTION, HaltCause.OPENING, "22T22:55"),
        (CONTINUOUS, HaltCause.NONE, "22T23:00"), (AUCTION, HaltCause.CLOSING, "23T21:55"),
        (CLOSED, HaltCause.NONE, "23T22:00"),
    ]  # fmt: skip
    states = day.states()
    assert len(states) == 48
    for changes in states.values():
        assert [(one.quantity, one.reason) for one in changes] == [w[:2] for w in wanted]
        for one, (*_, at) in zip(changes, wanted, strict=True):
            assert 0 <= one.stamp - stamp(f"2026-11-{at}") < NS
    assert [one.quantity for one in day.of(EventKind.DAY_OPENED)] == [20261123]
    assert [one.quantity for one in day.of(EventKind.DAY_CLOSED)] == [20261123]
    settled = [one.instrument for one in day.of(EventKind.INSTRUMENT_SETTLED)]
    assert sorted(settled) == sorted(states)
    auctions = [one.a for one in day.of(EventKind.AUCTION_UNCROSSED) if one.a]
    assert auctions == [5, 7]


def test_indicative_prices_tick_once_each(tmp_path: Path) -> None:
    day = Day(tmp_path, epoch=stamp("2026-11-23T21:50"))

    async def main() -> None:
        living = asyncio.create_task(day.host.run())
        for kill in ("21:56", "21:57:00.003", "21:58:15.001"):
            at = datetime.fromisoformat(f"2026-11-23T{kill}+00:00").timestamp()
            await day.until(int(at * 1000) * 1_000_000)
            await day.market()
            day.host.kill("around a tick")
        await day.until(stamp("2026-11-23T22:01"))
        await day.end(living)

    day.run(main())
    by_instrument = defaultdict(list)
    for one in day.of(EventKind.AUCTION_INDICATED):
        by_instrument[one.instrument].append(one.stamp // (15 * NS))
    assert len(by_instrument) == 48
    for ticks in by_instrument.values():
        assert all(before < after for before, after in pairwise(ticks))
        assert 15 <= len(ticks) <= 19


def test_a_restart_on_another_day_settles_the_old_one_first(tmp_path: Path) -> None:
    day = Day(tmp_path, epoch=stamp("2026-11-23T21:00"))

    async def main() -> None:
        living = asyncio.create_task(day.host.run())
        await day.market()
        day.host.faults = HostFaults(restart_ms=1)
        day.host.jump_ns = 20 * 3_600 * NS  # it is down over the close and the next open
        day.host.kill("for a day")
        await day.until(stamp("2026-11-23T21:00:10"))
        await day.end(living)

    day.run(main())
    opened = [one.quantity for one in day.of(EventKind.DAY_OPENED)]
    assert opened == [20261123, 20261124]
    kinds = [one.kind for one in day.events]
    last_settled = len(kinds) - kinds[::-1].index(EventKind.INSTRUMENT_SETTLED)
    assert last_settled < len(kinds) - kinds[::-1].index(EventKind.DAY_OPENED)
    for changes in day.states().values():
        assert changes[-1].quantity == CLOSED or changes[-1].quantity == CONTINUOUS


@pytest.mark.parametrize(
    ("down", "was"), [("21:00", CONTINUOUS), ("21:56", AUCTION)]
)  # fmt: skip
def test_what_had_its_last_session_while_the_market_was_down_is_closed(
    tmp_path: Path, down: str, was: TradingState
) -> None:
    """And what its closing auction had collected trades before its date is settled."""
    epoch = stamp(f"2026-11-30T{down}")
    day = Day(tmp_path, epoch=epoch)
    seen: dict[str, int] = {}

    async def main() -> None:
        living = asyncio.create_task(day.host.run())
        await day.market()
        for account, side in ((1, Side.SELL), (2, Side.BUY)):
            await day.ask(requests.Deposit(account=account, amount="5000000"))
            if was == AUCTION:
                await day.enter(account, side, 0, code=LAST)
        listed = (await day.market()).desk.instruments.by_code
        seen["before"] = listed[LAST].state
        day.host.faults = HostFaults(restart_ms=1)
        day.host.jump_ns = 20 * 3_600 * NS
        day.host.kill("over its last close")
        await day.until(epoch + 10 * NS)
        listed = (await day.market()).desk.instruments.by_code
        seen.update((code, listed[code].state) for code in (LAST, CODE))
        seen["number"] = listed[LAST].id
        await day.end(living)

    day.run(main())
    assert (seen["before"], seen[LAST], seen[CODE]) == (was, CLOSED, CONTINUOUS)
    kinds = [one.kind for one in day.events if one.instrument == seen["number"]]
    assert kinds.count(EventKind.TRADE) == (was == AUCTION)
    last = max(at for at, kind in enumerate(kinds) if kind == EventKind.INSTRUMENT_SETTLED)
    assert EventKind.TRADE not in kinds[last:]


def test_an_operators_halt_holds_and_an_unsettled_day_keeps_the_next_one_out(
    tmp_path: Path,
) -> None:
    settings = Settings(limits=MARKET.limits, schedule=Schedule(follow=True, settle=False))
    day = Day(tmp_path, settings, stamp("2026-11-23T21:50"))
    seen: list[TradingState] = []

    async def look() -> None:
        seen.append((await day.market()).desk.instruments.by_code[CODE].state)

    async def main() -> None:
        living = asyncio.create_task(day.host.run())
        await day.ask(requests.Halt(code=CODE))
        await day.until(stamp("2026-11-23T21:56"))
        await look()  # still halted
        await day.ask(requests.Resume(code=CODE))
        await day.until(stamp("2026-11-23T22:00:30"))
        await look()  # closed by the next step
        await day.until(stamp("2026-11-23T22:31"))
        await look()  # nobody has settled
        await day.ask(requests.Settle())
        await day.until(stamp("2026-11-23T22:31:30"))
        await look()  # late, but in the pre-open
        await day.end(living)

    day.run(main())
    assert seen == [HALTED, CLOSED, CLOSED, PRE_OPEN]
    assert [one.quantity for one in day.of(EventKind.DAY_OPENED)] == [20261123, 20261124]


def test_a_market_made_on_a_weekend_waits_for_its_session(tmp_path: Path) -> None:
    day = Day(tmp_path, epoch=stamp("2026-11-21T12:00"))

    async def main() -> None:
        living = asyncio.create_task(day.host.run())
        market = await day.market()
        assert market.desk.business_date == 20261123 and market.desk.day_open
        assert {one.state for one in market.desk.instruments.by_id.values()} == {CLOSED}
        assert wishes.as_date(market.desk.business_date).weekday() == 0
        await day.until(stamp("2026-11-21T12:01"))
        await day.end(living)

    day.run(main())
    assert not day.of(EventKind.STATE_CHANGED)


def test_a_served_market_follows_its_calendar_if_its_settings_say_so(tmp_path: Path) -> None:
    data, config = tmp_path / "market", tmp_path / "hourbook.toml"
    config.write_text("[schedule]\nfollow = true\n")

    def asked(*arguments: str) -> Any:
        command = [*COMMAND, *arguments, "--data", str(data), "--json"]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    serve = [*COMMAND, "serve", "--data", str(data), "--port", "0", "--config", str(config)]
    begun = datetime.now(UTC)
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        state = asked("admin", "state")
        days, numbers, wanted = calendar.load(), set(), set()
        for now in (begun, datetime.now(UTC)):  # a step may have come in between
            numbers.add(number_of(days.date_on(now)))
            spec = registry.load().spec("H100", now.date())
            step = in_force(steps(spec, days, days.begun(now).day), now)
            assert step is not None
            wanted.add(STATES[step.phase][0].name)
        assert state["business_date"] in numbers and state["day_open"]
        first, second = [i for i in state["instruments"] if i["code"].startswith("H100")][1:3]
        assert {first["state"], second["state"]} <= wanted
        listed = asked("admin", "list", f"{first['code']}-{second['code']}")
        assert listed["legs"] == {first["code"]: 1, second["code"]: -1}
        assert asked("admin", "protect", first["code"], "--band", "0.050")["protected"] == 1
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline())["stopped"] is True


async def test_a_first_combination_may_be_listed_while_a_look_waits(tmp_path: Path) -> None:
    monday = stamp("2026-11-23T15:00")
    async with market_in(tmp_path, clock=lambda: monday, settings=MARKET) as market:
        request = requests.ListContract(code="H100Z26-H100F27")
        listing = asyncio.create_task(market.operations.perform(request))
        await asyncio.sleep(0)  # it has the turn
        look = Follower(market.desk, market.operations, lambda: monday, settles=True)
        await look.look()
        await listing
        assert market.desk.instruments.by_code[request.code].state == CONTINUOUS


@pytest.mark.parametrize("settles", [True, False])
async def test_a_market_suspended_over_a_close_trades_in_the_next_session(
    tmp_path: Path, settles: bool
) -> None:
    """A machine that slept, or whose clock was set forward: what was open is closed late, and no
    operator closed it. If an operator settles, nothing trades on the old date meanwhile."""
    now = stamp("2026-11-23T20:00")
    settings = Settings(schedule=Schedule(follow=True, settle=settles))
    async with market_in(tmp_path, clock=lambda: now, settings=settings) as market:
        follower = Follower(market.desk, market.operations, lambda: now, settles=settles)
        listed = market.desk.instruments.by_code[CODE]
        assert listed.state == CONTINUOUS
        now = stamp("2026-11-24T10:00")
        await follower.look()
        if not settles:
            assert (listed.state, market.desk.business_date) == (CLOSED, 20261123)
            await market.operations.perform(requests.Settle())
            await follower.look()
        assert (listed.state, market.desk.business_date) == (CONTINUOUS, 20261124)


async def test_what_was_resumed_after_its_last_session_is_closed_when_the_next_begins(
    tmp_path: Path,
) -> None:
    now = stamp("2026-11-30T21:59")
    settings = Settings(schedule=Schedule(follow=True))
    async with market_in(tmp_path, clock=lambda: now, settings=settings) as market:
        follower = Follower(market.desk, market.operations, lambda: now, settles=True)
        last, other = (market.desk.instruments.by_code[code] for code in (LAST, CODE))
        now = stamp("2026-11-30T22:10")
        await follower.look()
        assert (last.state, other.state) == (CLOSED, CLOSED)
        with pytest.raises(RequestRefused, match="no business date is open"):
            await market.operations.perform(requests.Resume(code="H100"))
        resumed = [wishes.set_state(one.code, one.id, CONTINUOUS) for one in (last, other)]
        await market.desk.perform(resumed)  # as logs of earlier builds have it
        await follower.look()
        assert (last.state, other.state) == (CONTINUOUS, CONTINUOUS)
        now = stamp("2026-11-30T22:31")
        await follower.look()
        assert (last.state, other.state) == (CLOSED, PRE_OPEN)


async def test_a_volatility_auction_at_the_close_goes_on_as_the_closing_auction(
    tmp_path: Path,
) -> None:
    """And the market's other auctions are told their indicative prices meanwhile."""
    now = stamp("2026-11-23T21:54")
    settings = Settings(schedule=Schedule(follow=True))
    async with market_in(tmp_path, clock=lambda: now, settings=settings) as market:
        follower = Follower(market.desk, market.operations, lambda: now, settles=True)
        listed, other = (market.desk.instruments.by_code[code] for code in (CODE, LAST))
        await market.operations.perform(requests.Auction(code=CODE))
        now = stamp("2026-11-23T21:55:20")
        await follower.look()
        assert (listed.state, listed.cause) == (AUCTION, HaltCause.VOLATILITY)
        assert (other.state, other.cause) == (AUCTION, HaltCause.CLOSING)
        assert market.desk.indicated == now
        now = stamp("2026-11-23T22:00:01")
        await follower.look()
        assert (listed.state, other.state, market.desk.day_open) == (CLOSED, CLOSED, False)


@pytest.mark.parametrize("looks", [True, False])
async def test_a_correction_of_the_settled_date_is_booked_before_the_next_one_opens(
    tmp_path: Path, looks: bool
) -> None:
    """By the schedule that settles, whether it looks in between or the next date is due first."""
    now = stamp("2026-11-23T21:00")
    settings = Settings(schedule=Schedule(follow=True))
    async with market_in(tmp_path, clock=lambda: now, settings=settings) as market:
        follower = Follower(market.desk, market.operations, lambda: now, settles=True)
        listed = market.desk.instruments.by_code[CODE]
        now = stamp("2026-11-23T22:05")
        await follower.look()
        await override(market.operations, CODE, "2.900", correction=True)
        if looks:
            await follower.look()
            assert (listed.settlement_price, market.desk.business_date) == (2_900_000, 20261123)
        now = stamp("2026-11-23T22:35")
        await follower.look()
        assert (listed.settlement_price, market.desk.business_date) == (2_900_000, 20261124)
        assert listed.state == PRE_OPEN


async def test_listings_that_a_crash_left_without_a_date_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = stamp("2026-11-23T15:00")
    with monkeypatch.context() as patch:
        patch.setattr(wishes, "open_day", lambda _: wishes.checkpoint())
        market = await Market.start(tmp_path, clock=lambda: now)
        assert market.desk.instruments.by_id and not market.desk.business_date
        await market.stop()
    settings = Settings(schedule=Schedule(follow=True))
    async with market_in(tmp_path, clock=lambda: now, settings=settings) as market:
        listed = market.desk.instruments.by_code[CODE]
        assert (listed.state, market.desk.business_date) == (CONTINUOUS, 20261123)


async def test_a_date_opened_early_is_the_next_business_date(tmp_path: Path) -> None:
    now = stamp("2026-12-24T15:00")  # a Thursday; Friday is a holiday
    settings = Settings(schedule=Schedule(follow=True))
    async with market_in(tmp_path, clock=lambda: now, settings=settings) as market:
        await market.operations.perform(requests.Settle())
        opened = await market.operations.perform(requests.OpenDay())
        assert opened["business_date"] == 20261228


async def test_a_step_that_comes_while_a_look_waits_is_carried_out_after_it(
    tmp_path: Path,
) -> None:
    """An operator's request may take seconds, and the open is among them."""
    loop = asyncio.get_running_loop()
    before, begun = stamp("2026-11-23T22:59:59"), loop.time()

    def clock() -> int:
        return before + int((loop.time() - begun) * NS)

    async with market_in(tmp_path, clock=lambda: before) as market:
        await market.operations.perform(requests.Settle())
        await market.operations.perform(requests.OpenDay(date=20261124))
        listed = market.desk.instruments.by_code[CODE]
        await market.operations.perform(requests.Auction(code=CODE, cause="opening"))
        begun = loop.time()
        async with market.operations.one_at_a_time:
            follower = Follower(market.desk, market.operations, clock, settles=True)
            following = asyncio.create_task(follower.run())
            await asyncio.sleep(1.1)
        async with asyncio.timeout(5):
            while listed.state != CONTINUOUS:
                await asyncio.sleep(0.01)
        following.cancel()


async def test_what_holds_the_schedule_up_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full for an hour fills no log of its own with it."""
    tries: list[Exception] = [LogFull(7), LogFull(8), TimeoutError("late"), LogFull(9), LogFull(9)]
    schedule = Follower.__new__(Follower)
    schedule.looked, told = asyncio.Event(), iter(tries)

    async def look() -> None:
        if (error := next(told, None)) is None:
            raise asyncio.CancelledError
        raise error

    monkeypatch.setattr(schedule, "look", look)
    monkeypatch.setattr("exchange.app.schedule.RETRY_SECONDS", 0)
    with pytest.raises(asyncio.CancelledError):
        await schedule.run()
    assert [line.getMessage().partition(": ")[2][:8] for line in caplog.records] == [
        "LOG_FULL", "late", "LOG_FULL",
    ]  # fmt: skip
