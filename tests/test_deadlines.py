"""Dead man's switches: who is not heard of again in time has no orders left of that session."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
import venue as market
from live import CODE, Live, clock_ns, until
from test_batches import told
from venue import RICH, THIRD, Venue, enter

from exchange.gateway import deadlines
from exchange.gateway.session import Session
from exchange.gateway.view import View
from exchange.journal.room import RESERVE_BYTES, admits
from exchange.messages import EVENT, EventKind, wire
from exchange.messages.wire_mass import MassCancelled
from exchange.sequencer import LogFull
from exchange.sim.holds import Story

MS = 1_000_000


venue = market.venue  # a fixture


async def hold(venue: Venue, session: Session, timeout_ms: int) -> wire.AnyResponse:
    answer = (await venue.say(session, holding(timeout_ms)))[-1]
    assert isinstance(answer, wire.Rejected) or (
        isinstance(answer, wire.CancelAfterSet) and answer.session == session.engine_session
    )
    return answer


def holding(timeout_ms: int) -> dict[str, Any]:
    return {"op": "cancel_after", "request_id": "h", "timeout_ms": timeout_ms}


async def pass_time(venue: Venue, milliseconds: int) -> None:
    """Let time pass and the market look at its clock; the log's time follows."""
    venue.now_ns += milliseconds * MS
    for _ in range(2):
        venue.switches.look()
        await venue.settle()


async def test_the_orders_of_the_session_go_and_no_others(venue: Venue) -> None:
    trader, other = await venue.trader(RICH), await venue.trader(RICH)
    rival = await venue.trader(THIRD)
    held = await hold(venue, trader, 5_000)
    assert isinstance(held, wire.CancelAfterSet)
    assert held.due_ms == venue.now_ns // MS + 5_000
    await venue.say(trader, enter("a"), enter("b"))
    await venue.say(other, enter("c"))
    await venue.say(rival, enter("d"))
    venue.heard(trader)
    await pass_time(venue, 4_999)
    assert venue.heard(trader) == []
    await pass_time(venue, 1)
    head, *gone = venue.heard(trader)
    assert isinstance(head, MassCancelled) and head.orders == 2
    assert head.request_id == f"after.{trader.engine_session}.{held.due_ms}"
    assert told(gone) == ["cancelled a", "cancelled b"]
    await pass_time(venue, 60_000)
    assert venue.heard(trader) == [], "once and no more"
    assert told(await venue.say(trader, enter("e"))) == ["accepted e"], "it trades on"


async def test_it_is_held_moved_and_taken_back(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    await venue.say(trader, enter("a"))
    for _ in range(3):
        await hold(venue, trader, 2_000)
        await pass_time(venue, 1_500)
    assert isinstance(await hold(venue, trader, 0), wire.CancelAfterSet)
    await pass_time(venue, 60_000)
    assert venue.heard(trader) == []
    for wrong, limit in ((999, "1000"), (3_600_001, "3600000"), (-1, "1000")):
        refused = await hold(venue, trader, wrong)
        assert isinstance(refused, wire.Rejected)
        assert (refused.name, refused.field, refused.limit, refused.observed) == (
            "PARAMETER_RANGE", "timeout_ms", limit, str(wrong),
        )  # fmt: skip


async def test_it_outlives_the_connection_and_waits_for_room(venue: Venue) -> None:
    trader, other = await venue.trader(RICH), await venue.trader(RICH)
    await venue.say(trader, enter("a"))
    await hold(venue, trader, 2_000)
    venue.hub.disconnect(trader)  # a session without cancel_on_disconnect: its order works on
    await pass_time(venue, 1_000)
    assert "cancelled a" not in told(venue.heard(other))
    venue.full = True
    await pass_time(venue, 1_000)
    assert venue.heard(other) == []
    venue.full = False
    await pass_time(venue, 0)
    assert told(venue.heard(other))[-1] == "cancelled a"


async def test_what_it_does_is_in_the_log(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    await venue.say(trader, enter("a"))
    await hold(venue, trader, 1_000)
    await pass_time(venue, 1_000)
    rows: list[Any] = [
        row
        for released in venue.sequencer.tape.read(0, 0, 0)
        for row in EVENT.iter_unpack(released.events)
    ]
    assert [row[2] for row in rows[-4:]] == [
        EventKind.RECORDED, EventKind.TIME_ADVANCED,
        EventKind.MASS_CANCELLED, EventKind.ORDER_CANCELLED,
    ]  # fmt: skip


async def test_a_client_heard_in_time_by_the_log_is_not_cut_off(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    await venue.say(trader, enter("a"))
    await hold(venue, trader, 1_000)
    venue.now_ns += 999 * MS
    trader.receive(json.dumps(holding(1_000)), 0)  # stamped in time, and not known of yet
    venue.sequencer._advance(asyncio.get_running_loop())
    await pass_time(venue, 1)
    assert "cancelled a" not in told(venue.heard(trader))
    await pass_time(venue, 999)
    assert told(venue.heard(trader))[-1] == "cancelled a"


async def test_a_disk_that_takes_no_time_takes_cancels(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader = await venue.trader(RICH)
    await venue.say(trader, enter("a"))
    await hold(venue, trader, 1_000)
    put = venue.sequencer.submit

    def submit(source: int, record: bytes, **more: Any) -> None:
        if not admits(record[0], RESERVE_BYTES, 0):
            raise LogFull(0)
        put(source, record, **more)

    monkeypatch.setattr(venue.switches, "_submit", submit)
    venue.now_ns += 1_000 * MS
    venue.switches.look()
    venue.submitted += 1
    await venue.settle()
    assert told(venue.heard(trader))[-1] == "cancelled a"


@pytest.mark.parametrize("seed", range(4))
async def test_any_run_of_holds_stops_and_waits_throws_what_the_log_says(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    now_ns = market.START_NS
    for life in range(3):
        async with market.running(tmp_path, fresh=not life) as venue:
            venue.now_ns, venue.nonce = now_ns, life * 1_000
            traders = [await venue.trader(rng.choice((RICH, THIRD))) for _ in range(3)]
            for number in range(20):
                trader = rng.choice(traders)
                if rng.random() < 0.5:
                    await hold(venue, trader, rng.choice((0, 1_000, 1_500, 4_000)))
                await venue.say(trader, enter(f"{seed}.{life}.{number}", quantity="1"))
                await pass_time(venue, rng.randrange(1_200))
            now_ns = venue.now_ns + rng.randrange(6_000) * MS
    async with market.running(tmp_path, fresh=False) as venue:
        venue.now_ns = now_ns + 10_000 * MS
        await pass_time(venue, 0)
        story = Story(venue.sequencer.tape.read(0, 0, 0))
        assert story.ought and sorted(story.done) == sorted(story.ought)
        view = View()
        for one in venue.sequencer.tape.read(0, 0, 0):
            view.take(one.epoch, one.stamp, one.events, dict(one.texts))
            again = View.unpack(view.pack())
            assert sorted(again.deadlines) == sorted(view.deadlines)
            assert list(again.deadlines.thrown) == list(view.deadlines.thrown)
        assert b"cancel_after" not in view.pack()  # what holds say passes


async def test_it_outlives_the_market(tmp_path: Path) -> None:
    async with asyncio.timeout(30), Live.open(tmp_path) as live:
        client = await live.client(1)
        await client.subscribe(f"state.{CODE}")
        price = client.states[CODE].low_limit
        await client.enter(CODE, "buy", 1, price, client_order_id="a")
        held = await client.cancel_after(1_000)
    async with asyncio.timeout(30), Live.open(tmp_path) as live:
        client = await live.client(1)
        await until(lambda: not client.orders)
        assert held.due_ms is not None and clock_ns() // MS >= held.due_ms
        kinds = [row[2] for one in live.market.tape.read(0, 0, 0)
                 for row in EVENT.iter_unpack(one.events)]  # fmt: skip
        assert kinds.count(EventKind.MASS_CANCELLED) == 1


async def test_who_may_and_how_many(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    request = holding(1_000)
    assert told(await venue.say(venue.connect(), request)) == ["AUTH_REQUIRED h"]
    reader, guard = venue.connect(), venue.connect()
    await venue.say(reader, venue.logon(RICH, "read"))
    assert told(await venue.say(reader, request)) == ["SCOPE h"]
    await venue.say(guard, venue.logon(RICH, "cancel_only"))
    monkeypatch.setattr(deadlines, "SWITCHES", 1)
    assert told(await venue.say(guard, request)) == ["cancel_after h"]
    first, second = await venue.trader(THIRD), await venue.trader(THIRD)
    await venue.say(first, enter("a"), request)
    assert told(await venue.say(second, request))[-1:] == ["cancel_after h"]
    await pass_time(venue, 0)
    assert "cancelled a" in told(venue.heard(second)), "one more throws the one due first"
