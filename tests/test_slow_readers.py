"""What others meet of readers that are behind: counted work, never a time.

Budget: 5 seconds.
"""

import json
from functools import partial

import pytest
import venue as market
from venue import CODE, RICH, Venue, enter

from benches.calls import noted
from exchange.gateway import refreshes
from exchange.gateway.session import STALE_BYTES, Session
from exchange.journal.tape import Released

CHANNELS = [f"depth.{CODE}", f"top.{CODE}"]


venue = market.venue  # a fixture


async def reader(venue: Venue) -> Session:
    session = venue.connect()
    await venue.say(session, {"op": "subscribe", "request_id": "s", "channels": CHANNELS})
    return session


def fall_behind(session: Session) -> None:
    """As if its socket had not taken the last frame."""
    session.sending_bytes = 2 * STALE_BYTES


async def test_an_update_costs_less_for_a_reader_that_is_behind_than_for_one_that_reads(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of functions while a batch is released, of which none encodes for it alone."""
    counts: list[int] = []
    release = venue.hub.release

    def counted(released: Released) -> None:
        with noted() as names:
            release(released)
        counts.append(len(names))

    trader = await venue.trader(RICH)
    readers = [await reader(venue) for _ in range(8)]
    monkeypatch.setattr(venue.hub, "release", counted)

    async def cost(name: str) -> int:
        counts.clear()
        await venue.say(trader, enter(name))
        for one in readers:
            one.take()
        return sum(counts)

    await cost("a")  # the first order of a price is another update than those that follow
    alone = await cost("b")
    assert await cost("c") == alone
    readers.append(await reader(venue))
    keeps_up = await cost("d") - alone
    stuck = readers.pop()
    fall_behind(stuck)
    await cost("e")  # now it is known to be behind
    assert stuck.stale == set(CHANNELS)
    is_behind = await cost("f") - alone
    assert stuck.backlog_bytes == 2 * STALE_BYTES  # and nothing was queued for it
    assert 0 < is_behind <= keeps_up < 30, (alone, keeps_up, is_behind)


async def test_reports_leave_at_once_beside_a_reader_whose_socket_is_full(venue: Venue) -> None:
    stuck, trader = await reader(venue), await venue.trader(RICH)
    fall_behind(stuck)
    stuck.send_now = lambda: False
    sent: list[bytes] = []

    def send() -> bool:
        sent.append(trader.take())
        return True

    trader.send_now = send
    await venue.say(trader, enter("a"))
    assert b"accepted" in b"".join(sent)


async def test_readers_that_catch_up_together_share_the_snapshots_of_a_tick(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turns; a snapshot longer than a tick's bytes is paid for by the ticks that follow."""
    monkeypatch.setattr(refreshes, "REFRESH_BYTES", 10)
    venue.hub.tick()
    trader = await venue.trader(RICH)
    readers = [await reader(venue) for _ in range(4)]
    for one in readers:
        fall_behind(one)
    await venue.say(trader, enter("a"))
    assert all(one.stale == set(CHANNELS) for one in readers)
    asking = {one.number: one for one in readers}
    for one in readers:
        one.sending_bytes = 0
        one.wake = partial(asking.__setitem__, one.number, one)
    shown: list[tuple[int, str]] = []
    ticks = size = 0
    while any(one.stale for one in readers):
        asked = list(asking.values())
        asking.clear()
        for frame, number in [(one.take(), one.number) for one in asked]:
            for told in json.loads(frame or "[]"):
                shown.append((number, told["type"]))
                size += len(json.dumps(told, separators=(",", ":")))
        ticks += 1
        venue.hub.tick()
    first, *others = (one.number for one in readers)
    turns = [(number, kind) for kind in ("depth_snapshot", "top") for number in others]
    # The first had asked for both when the others came.
    assert shown == [(first, "depth_snapshot"), (first, "top"), *turns]
    last = size // len(shown)  # it is made at once, and nobody waits until it is paid for
    assert size - 3 * last < 10 * ticks < size + last
    await venue.say(trader, enter("b", price="2.640"))
    assert all(len(venue.heard(one)) == 1 for one in readers)  # depth; the top is as it was


async def test_one_that_waits_for_its_turn_and_leaves_is_forgotten(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshes, "REFRESH_BYTES", 1)
    trader, first, second = await venue.trader(RICH), await reader(venue), await reader(venue)
    for one in (first, second):
        fall_behind(one)
    await venue.say(trader, enter("a"))
    first.sending_bytes = second.sending_bytes = 0
    venue.hub.refreshes.tick()
    assert venue.heard(first) and not venue.heard(second)
    venue.hub.disconnect(second)
    assert set(venue.hub.refreshes._waiting) == {first.number}  # for its other channel
