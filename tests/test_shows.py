"""A queue's snapshot of several messages: one a turn, what follows behind them, nothing else waits.

Budget: 5 seconds.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import venue as market
from venue import CODE, RICH, THIRD, Venue, enter

from clients.book import BookState, QueueBook
from clients.decimals import PriceScale
from exchange.gateway import session as session_module
from exchange.gateway.session import BACKLOG_BYTES, CLOSE_SLOW, STALE_BYTES, Session
from exchange.marketdata import pictures
from exchange.messages import Side, wire
from exchange.messages.wire_market import QueueDelta, QueueSnapshot

QUEUE, DEPTH = f"queue.{CODE}", f"depth.{CODE}"


@pytest.fixture
async def venue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Venue]:
    """A book of seven bids, of which a message holds three."""
    monkeypatch.setattr(pictures, "SNAPSHOT_ORDERS", 3)
    async with market.running(tmp_path) as opened:
        trader = await opened.trader(RICH)
        for number in range(7):
            await opened.say(trader, enter(f"o{number}", price=f"2.6{number}0"))
        yield opened


def subscribe(*channels: str) -> dict[str, Any]:
    return {"op": "subscribe", "request_id": "s", "channels": list(channels)}


async def reader(venue: Venue, *channels: str) -> tuple[Session, list[wire.AnyResponse]]:
    session = venue.connect()
    return session, await venue.say(session, subscribe(*channels))


def rest_of(venue: Venue, session: Session) -> list[list[wire.AnyResponse]]:
    """Frame by frame, what a connection is still told."""
    frames = []
    while frame := venue.heard(session):
        frames.append(frame)
    return frames


def copy_of(*frames: list[wire.AnyResponse]) -> QueueBook:
    """A client's queue of what it was told."""
    book = QueueBook(CODE, PriceScale("0.001", 3))
    for message in (one for frame in frames for one in frame):
        if isinstance(message, QueueSnapshot | QueueDelta):
            book.apply(message)
    return book


def truth(venue: Venue) -> list[tuple[int, int, int]]:
    return venue.hub.feed.queues[0].entries(Side.BUY)


async def test_parts_are_of_one_sequence_and_what_came_meanwhile_is_behind(venue: Venue) -> None:
    public, first = await reader(venue, QUEUE, DEPTH)
    assert [type(one).__name__ for one in first] == ["Subscribed", "DepthSnapshot", "QueueSnapshot"]
    trader = await venue.trader(THIRD)
    assert len(await venue.say(trader, enter("a"))) == 1  # an acceptance
    second = venue.heard(public)
    await venue.say(trader, enter("b"))
    third = venue.heard(public)
    # Other channels go on at once; the queue's own deltas come with the last part.
    assert [type(one).__name__ for one in second] == ["DepthDelta", "QueueSnapshot"]
    expected = ["DepthDelta", "QueueSnapshot", "QueueDelta", "QueueDelta"]
    assert [type(one).__name__ for one in third] == expected
    assert not rest_of(venue, public) and not public.backlog_bytes
    parts = [one for one in first + second + third if isinstance(one, QueueSnapshot)]
    assert [(one.part, one.parts, len(one.bids)) for one in parts] == [
        (1, 3, 3), (2, 3, 3), (3, 3, 1),
    ]  # fmt: skip
    (sequence,) = {one.sequence for one in parts}
    follows = [one for one in third if isinstance(one, QueueDelta)]
    assert follows[0].previous_sequence == sequence
    assert copy_of(first, second, third).bids() == truth(venue)


async def test_who_leaves_or_asks_again_is_told_no_more_of_the_old_one(venue: Venue) -> None:
    public, _ = await reader(venue, QUEUE)
    leaving = {"op": "unsubscribe", "request_id": "u", "channels": [QUEUE]}
    trader = await venue.trader(THIRD)
    await venue.say(trader, enter("a"))
    assert public.backlog_bytes  # behind the snapshot
    (told,) = await venue.say(public, leaving)
    assert isinstance(told, wire.Unsubscribed) and not public.backlog_bytes
    assert not rest_of(venue, public)
    await venue.say(public, subscribe(QUEUE))
    await venue.say(trader, enter("b"))
    again = await venue.say(public, subscribe(QUEUE))
    parts = [one for frame in [again, *rest_of(venue, public)] for one in frame[-1:]]
    assert [one.part for one in parts if isinstance(one, QueueSnapshot)] == [1, 2, 3]
    assert copy_of(parts).bids() == truth(venue)


async def test_who_falls_behind_meanwhile_begins_anew(venue: Venue) -> None:
    public, first = await reader(venue, QUEUE)
    public.sending_bytes = 2 * STALE_BYTES  # as if its socket had not taken the last frame
    trader = await venue.trader(THIRD)
    await venue.say(trader, enter("a"))
    assert public.stale == {QUEUE} and not public.shows.channels
    public.sending_bytes = 0
    frames = rest_of(venue, public)
    parts = [one for frame in frames for one in frame if isinstance(one, QueueSnapshot)]
    assert len(parts) == 3 and len({one.sequence for one in parts}) == 1
    book = copy_of(first, *frames)
    assert book.state is BookState.LIVE and book.bids() == truth(venue)


async def test_who_is_evicted_is_told_no_more(venue: Venue) -> None:
    public, _ = await reader(venue, QUEUE)
    await venue.say(await venue.trader(THIRD), enter("a"))
    public.push(b"x" * (BACKLOG_BYTES + 1))
    venue.hub.beat()
    assert public.closing == (CLOSE_SLOW, "slow reader")
    assert not rest_of(venue, public) and not public.backlog_bytes


async def test_readers_that_are_told_at_any_pace_see_the_queue_as_it_is(venue: Venue) -> None:
    chance, trader = Random(7), await venue.trader(THIRD)
    readers = [(await reader(venue, QUEUE)) for _ in range(4)]
    heard = {session.number: [first] for session, first in readers}
    for number in range(60):
        price = f"2.6{chance.randint(0, 6)}{chance.randint(0, 9)}"
        await venue.say(trader, enter(f"n{number}", price=price))
        for session, _ in readers:
            if chance.random() < 0.1:
                heard[session.number] = [await venue.say(session, subscribe(QUEUE))]
            elif chance.random() < 0.5:
                heard[session.number].append(venue.heard(session))
    for session, _ in readers:
        book = copy_of(*heard[session.number], *rest_of(venue, session))
        assert book.state is BookState.LIVE and book.bids() == truth(venue)


async def test_snapshots_of_many_channels_come_a_turn_each(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much one `subscribe` begins, little of it waits for a reader that takes it all."""
    monkeypatch.setattr(session_module, "EAGER_BYTES", 1_000)
    monkeypatch.setattr(pictures, "SNAPSHOT_ORDERS", 100)
    kinds, periods = ("depth", "top", "queue", "statistics"), ("", ".100ms", ".1s")
    names = [f"{kind}.{CODE}{period}" for kind in kinds for period in periods]
    public = venue.connect()
    public.receive(json.dumps(subscribe(*names)), 0)
    assert public.backlog_bytes < 2_500
    first = venue.heard(public)
    trader = await venue.trader(THIRD)
    await venue.say(trader, enter("a"))
    frames = [first, *rest_of(venue, public)]
    said = [getattr(one, "channel", None) or f"depth.{CODE}" for frame in frames
            for one in frame if not isinstance(one, wire.Subscribed)]  # fmt: skip
    assert list(dict.fromkeys(said)) == names and len(frames) > 6
    assert copy_of(*[[one for one in frame if getattr(one, "channel", "") == QUEUE]
                     for frame in frames]).bids() == truth(venue)  # fmt: skip
    assert public.closing is None and not public.backlog_bytes


async def test_a_queue_is_made_once_for_all_who_ask_before_it_changes(venue: Venue) -> None:
    one, other = venue.hub.snapshot(QUEUE), venue.hub.snapshot(QUEUE)
    assert one is other
    await venue.say(await venue.trader(THIRD), enter("a"))
    assert venue.hub.snapshot(QUEUE) is not one
