"""Dead man's switches: who is not heard of again in time has no orders left of that session."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import venue as market
from test_batches import told
from venue import RICH, THIRD, Venue, enter

from exchange.gateway import deadlines
from exchange.gateway.session import Session
from exchange.messages import EVENT, EventKind, wire
from exchange.messages.wire_mass import MassCancelled

MS = 1_000_000


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    async with market.running(tmp_path) as opened:
        yield opened


async def hold(venue: Venue, session: Session, timeout_ms: int) -> wire.AnyResponse:
    request = {"op": "cancel_after", "request_id": "h", "timeout_ms": timeout_ms}
    (answer,) = await venue.say(session, request)
    return answer


async def pass_time(venue: Venue, milliseconds: int) -> None:
    """Let time pass and the gateway look at its clock."""
    venue.now_ns += milliseconds * MS
    venue.hub.expire()
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
    assert [row[2] for row in rows[-2:]] == [EventKind.MASS_CANCELLED, EventKind.ORDER_CANCELLED]


async def test_who_may_and_how_many(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    request = {"op": "cancel_after", "request_id": "h", "timeout_ms": 1_000}
    assert told(await venue.say(venue.connect(), request)) == ["AUTH_REQUIRED h"]
    reader, guard = venue.connect(), venue.connect()
    await venue.say(reader, venue.logon(RICH, "read"))
    assert told(await venue.say(reader, request)) == ["SCOPE h"]
    await venue.say(guard, venue.logon(RICH, "cancel_only"))
    monkeypatch.setattr(deadlines, "SWITCHES", 1)
    assert told(await venue.say(guard, request)) == ["cancel_after h"]
    full = await venue.say(await venue.trader(THIRD), request)
    assert told(full) == ["SESSIONS_FULL h"]
