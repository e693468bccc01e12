"""Coming back after a long absence, slice by slice; and losing a key while connected."""

import asyncio
import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import venue as market
from live import Live
from venue import RICH, THIRD, Venue, enter

from exchange.app.requests import ListKeys, RevokeKey
from exchange.app.wishes import RequestRefused
from exchange.gateway import resume
from exchange.gateway import session as session_room
from exchange.gateway.access import Key
from exchange.gateway.auth import revoke_key
from exchange.gateway.server import Gateway
from exchange.gateway.session import CLOSE_REVOKED, CLOSE_SLOW, Session, Stage
from exchange.messages import EVENT, EventKind, wire
from exchange.messages.wire_mass import MassCancelled

venue = market.venue  # a fixture


def heard(venue: Venue, session: Session) -> list[wire.AnyResponse]:
    """All that a connection is told while its sender has nothing else to do."""
    told = []
    while True:
        told += venue.heard(session)
        if not venue.hub.resume(session):
            return told + venue.heard(session)


async def test_a_long_absence_is_made_up_for_in_slices_while_trading_goes_on(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SLICE_EVENTS", 1)
    witness, seller = await venue.trader(RICH), await venue.trader(THIRD)
    for number in range(30):
        await venue.say(seller, enter(f"s{number}", side="sell", quantity="1"))
        await venue.say(witness, enter(f"b{number}", quantity="1"))
    back = venue.connect()
    told = await venue.say(back, venue.logon(RICH, after=[0, 0, 0]))
    assert back.trading_account < 0  # nothing may be entered yet
    assert not any(isinstance(t, wire.LoggedOn) for t in told)
    for number in range(30, 40):  # live trading while it catches up: no gap, nothing twice
        await venue.say(seller, enter(f"s{number}", side="sell", quantity="1"))
        await venue.say(witness, enter(f"b{number}", quantity="1"))
        told += venue.heard(back)
        venue.hub.resume(back)
    told += heard(venue, back)
    venue.heard(witness)
    reports = [t for t in told if not isinstance(t, wire.LoggedOn)]
    places = [(t.sequence, t.index) for t in reports]  # type: ignore[union-attr]
    assert places == sorted(set(places))
    assert len([t for t in reports if isinstance(t, wire.Accepted)]) == 40
    assert len([t for t in reports if isinstance(t, wire.Execution)]) == 40
    (answer,) = [t for t in told if isinstance(t, wire.LoggedOn)]
    place = (answer.sequence, answer.index)
    cut = told.index(answer)
    assert all((t.sequence, t.index) < place for t in told[:cut])  # type: ignore[union-attr]
    assert all((t.sequence, t.index) > place for t in told[cut + 1 :])  # type: ignore[union-attr]
    live = await venue.say(back, enter("own", quantity="1"))
    assert live == venue.heard(witness) and len(live) == 1
    assert back.trading_account == RICH


async def test_one_who_is_away_reads_no_faster_than_it_takes(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "STALE_BYTES", 2_000)
    trader = await venue.trader(RICH)
    for number in range(40):
        await venue.say(trader, enter(f"b{number}", quantity="1"))
    back = venue.connect()
    back.receive(json.dumps(venue.logon(RICH, after=[0, 0, 0])), 0)
    await venue.settle()
    for _ in range(5):
        assert venue.hub.resume(back)  # still behind: nothing was taken
        assert back.backlog_bytes < 4_000
    told = heard(venue, back)
    assert len([t for t in told if isinstance(t, wire.Accepted)]) == 40
    assert isinstance(told[-1], wire.LoggedOn)


async def test_what_one_batch_means_makes_nobody_late_however_much_it_is(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither who reads all there is nor who comes back for it; who reads nothing is."""
    monkeypatch.setattr(session_room, "BACKLOG_BYTES", 1 << 12)
    trader, idle = await venue.trader(RICH), await venue.trader(RICH)
    (first, *_) = await venue.say(trader, enter("first", price="2.100"))
    assert isinstance(first, wire.Accepted)
    for number in range(60):
        await venue.say(trader, enter(f"b{number}", price="2.100"))
        venue.heard(idle)
    told = await venue.say(trader, {"op": "mass_cancel", "request_id": "m"})
    assert [type(one) for one in told] == [MassCancelled] + [wire.Cancelled] * 61
    orders = [enter(f"c{number}", price="2.100") for number in range(60)]
    assert len(await venue.say(trader, json.dumps(orders))) == 60
    assert idle.closing == (CLOSE_SLOW, "slow reader")
    await venue.say(trader, {"op": "mass_cancel", "request_id": "n"})
    assert trader.closing is None
    back = venue.connect()
    place = [1, first.sequence, first.index]
    missed = await venue.say(back, venue.logon(RICH, after=place))
    missed += heard(venue, back)
    assert back.closing is None and back.stage is Stage.READY
    assert sum(isinstance(one, wire.Cancelled) for one in missed) == 121
    listed = [{"op": "instruments", "request_id": f"q{number}"} for number in range(20)]
    assert len(await venue.say(back, *listed)) < 20  # who asks without reading goes
    assert back.closing == (CLOSE_SLOW, "slow reader")


async def test_one_who_leaves_while_catching_up_is_logged_off(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SLICE_EVENTS", 1)
    trader = await venue.trader(RICH)
    for number in range(10):
        await venue.say(trader, enter(f"b{number}", quantity="1"))
    back = venue.connect()
    await venue.say(back, venue.logon(RICH, after=[0, 0, 0]))
    assert back.stage is Stage.LOGGING_ON and back.engine_session
    venue.hub.disconnect(back)
    await venue.settle()
    again = venue.connect()
    answer = (await venue.say(again, venue.logon(RICH, resume_session=back.engine_session)))[0]
    assert isinstance(answer, wire.Rejected) and answer.name == "SESSION_UNKNOWN"
    assert await venue.say(trader, enter("still", quantity="1"))


async def test_a_revoked_key_loses_its_connections_at_the_next_beat(venue: Venue) -> None:
    trader, other = await venue.trader(RICH), await venue.trader(THIRD)
    assert trader.key is not None
    revoke_key(venue.directory, trader.key.key_id)
    venue.hub.beat()
    assert trader.closing == (CLOSE_REVOKED, "the key was revoked")
    assert other.closing is None


async def test_keys_that_cannot_be_read_stop_no_heartbeat(
    venue: Venue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trader = await venue.trader(RICH)
    assert trader.key is not None
    with closing(sqlite3.connect(":memory:")) as empty, monkeypatch.context() as patch:
        patch.setattr(venue.hub.keys, "_database", empty)
        venue.hub.beat()
    assert isinstance(venue.heard(trader)[-1], wire.Heartbeat) and trader.closing is None
    assert "no such table: keys" in caplog.text
    revoke_key(venue.directory, trader.key.key_id)
    venue.hub.beat()
    assert trader.closing == (CLOSE_REVOKED, "the key was revoked")


async def test_a_gateway_whose_heartbeats_fail_ends(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(venue.hub, "tick", fail)
    running = asyncio.create_task(Gateway(venue.hub).run())
    done, _ = await asyncio.wait([running], timeout=10)
    running.cancel()
    assert done, "it goes on without them"
    assert isinstance(running.exception(), ZeroDivisionError)


async def test_an_operator_revokes_a_key_and_its_connection_ends_at_once(tmp_path: Path) -> None:
    async with Live.open(tmp_path) as live:
        operations = live.market.operations
        await live.client(1)
        (key,) = [
            k for k in (await operations.perform(ListKeys()))["keys"] if k["scope"] == "trade"
        ]
        assert set(key) == set(Key.__struct_fields__)
        (session,) = live.market.hub.sessions.values()
        done = await operations.perform(RevokeKey(key_id=key["key_id"]))
        assert done == {"key_id": key["key_id"], "revoked": True}
        assert session.closing == (CLOSE_REVOKED, "the key was revoked")
        with pytest.raises(RequestRefused, match="hourbook keys list"):
            await operations.perform(RevokeKey(key_id=key["key_id"]))


@pytest.mark.parametrize("seed", range(20))
async def test_a_logon_is_answered_behind_what_its_account_had_queued(
    venue: Venue, seed: int
) -> None:
    """One connection is lost, or lives on, with orders in the queue while the next logs on."""
    chance = random.Random(seed)
    old, other = await venue.trader(RICH), await venue.trader(THIRD)
    venue.heard(old)
    for number in range(chance.randint(1, 300)):  # and more of them than of anybody else
        old.receive(json.dumps(enter(f"o{number}", quantity="1")), 0)
        if chance.random() < 0.2:
            other.receive(json.dumps(enter(f"x{number}", quantity="1")), 0)
    if chance.random() < 0.5:
        venue.hub.disconnect(old)
    new = venue.connect()
    session = chance.choice((0, old.engine_session))  # not known any more, if that has ended
    told = await venue.say(new, venue.logon(RICH, resume_session=session, after=[0, 0, 0]))
    if session:
        (refused,) = told
        assert isinstance(refused, wire.Rejected) and refused.sequence is not None
        ended = old.stage is Stage.CLOSED
        assert refused.name == ("SESSION_UNKNOWN" if ended else "SESSION_LIVE")
        answered = refused.sequence
    else:
        assert isinstance(told[-1], wire.LoggedOn)
        answered = told[-1].sequence
    sequences = [
        row[0]
        for released in venue.sequencer.tape.read(0, 0, 0)
        for row in EVENT.iter_unpack(released.events)
        if row[2] == EventKind.ORDER_ACCEPTED and row[6] == RICH
    ]
    assert max(sequences) < answered


async def test_a_heartbeat_never_overtakes_what_was_missed(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SLICE_EVENTS", 1)
    witness = await venue.trader(RICH)
    for number in range(10):
        await venue.say(witness, enter(f"b{number}", quantity="1"))
    back = venue.connect()
    back.receive(json.dumps(venue.logon(RICH, after=[0, 0, 0])), 0)
    venue.hub.beat()  # before the logon is answered
    told = venue.heard(back)
    for number in range(10, 20):
        await venue.say(witness, enter(f"b{number}", quantity="1"))
        venue.hub.beat()
        told += await venue.say(back, {"op": "heartbeat"})
        venue.hub.resume(back)
    told += heard(venue, back)
    venue.hub.beat()
    told += venue.heard(back)
    beats = [t for t in told if isinstance(t, wire.Heartbeat)]
    assert (beats[0].sequence, beats[0].epoch) == (0, 0)
    assert 0 < beats[-2].sequence < beats[-1].sequence == venue.hub.sequence
    reports = [t for t in told if isinstance(t, wire.Accepted)]
    assert [t.client_order_id for t in reports] == [f"b{number}" for number in range(20)]
    seen = 0
    for one in told:
        if isinstance(one, wire.Heartbeat):
            assert one.sequence >= seen
            seen = one.sequence
        elif isinstance(one, wire.Accepted):
            assert one.sequence > seen
