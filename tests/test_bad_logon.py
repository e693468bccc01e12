"""Logons that are refused, and what a connection may do before one. Ids as in test_bad_input.py."""

from typing import Any

import pytest
import venue as market
from venue import RICH, THIRD, Venue, enter, reject

from exchange.gateway.session import CLOSE_POLICY, LOGON_LIMIT, MALFORMED_LIMIT
from exchange.messages import Reason, wire

R = Reason
CANCEL = {"op": "cancel", "request_id": "r", "client_order_id": "x"}


venue = market.venue  # a fixture


@pytest.mark.parametrize(
    "request_",
    [
        enter("x"),
        CANCEL,
        {"op": "account", "request_id": "q"},
        {"op": "orders", "request_id": "q"},
    ],
)
async def test_nothing_private_before_a_logon_b01(venue: Venue, request_: Any) -> None:
    assert (await reject(venue, venue.connect(), request_)).name == "AUTH_REQUIRED"


async def test_an_unknown_key_is_answered_as_a_bad_signature_is_b02_b03(venue: Venue) -> None:
    good = venue.logon(RICH)
    answers = []
    for key_id in (good["key_id"], "0123456789abcdef"):
        told = []
        for _ in range(7):
            logon = {**venue.logon(RICH), "key_id": key_id, "signature": "00"}
            told.append(await reject(venue, venue.connect(), logon))
        answers.append(told)
    assert answers[0] == answers[1]
    assert [told.name for told in answers[0]] == ["BAD_SIGNATURE"] * 5 + ["KEY_LOCKED"] * 2
    assert (await reject(venue, venue.connect(), venue.logon(RICH))).name == "KEY_LOCKED"


@pytest.mark.parametrize("change", [str.upper, lambda s: s + " ", lambda s: "", lambda s: "é"])
async def test_a_signature_is_compared_exactly_b05(venue: Venue, change: Any) -> None:
    logon = venue.logon(RICH)
    logon["signature"] = change(logon["signature"])
    assert (await reject(venue, venue.connect(), logon)).name == "BAD_SIGNATURE"


@pytest.mark.parametrize("field", ["timestamp_ms", "nonce", "resume_session"])
async def test_a_signature_covers_every_field_it_names_b04(venue: Venue, field: str) -> None:
    logon = venue.logon(RICH)
    logon[field] = logon.get(field, 0) + 1
    assert (await reject(venue, venue.connect(), logon)).name == "BAD_SIGNATURE"


@pytest.mark.parametrize(
    ("shift", "reason"), [(1_001, R.TIMESTAMP), (1_000, R.TIMESTAMP), (-5_001, R.TIMESTAMP)]
)
async def test_the_time_window_b06_b07(venue: Venue, shift: int, reason: Reason) -> None:
    now = venue.now_ns // 1_000_000
    logon = venue.logon(RICH, timestamp_ms=now + shift)
    assert (await reject(venue, venue.connect(), logon)).name == reason.name
    for inside in (999, -5_000):
        session = venue.connect()
        answers = await venue.say(session, venue.logon(RICH, timestamp_ms=now + inside))
        assert isinstance(answers[-1], wire.LoggedOn)


async def test_nonces_rise_strictly_b08_b09(venue: Venue) -> None:
    await venue.trader(RICH, nonce=7)
    for used in (7, 6):
        told = await reject(venue, venue.connect(), venue.logon(RICH, nonce=used))
        assert told.name == "NONCE"
    await venue.trader(RICH, nonce=2**64 - 1)
    for last in (2**64 - 1, 2**64):
        told = await reject(venue, venue.connect(), venue.logon(RICH, nonce=last))
        assert told.name == "NONCE"


@pytest.mark.parametrize("nonce", [1.5, -1, "7"])
async def test_a_nonce_is_a_whole_number_b10(venue: Venue, nonce: Any) -> None:
    logon = {**venue.logon(RICH), "nonce": nonce}
    assert (await reject(venue, venue.connect(), logon)).name == "SYNTAX"


async def test_a_reading_key_enters_nothing_b11(venue: Venue) -> None:
    reader = venue.connect()
    await venue.say(reader, venue.logon(RICH, "read"))
    assert (await reject(venue, reader, enter("x"))).name == "SCOPE"
    assert (await reject(venue, reader, CANCEL)).name == "SCOPE"


async def test_logon_twice_and_to_sessions_that_are_not_ones_own(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    assert (await reject(venue, trader, venue.logon(RICH))).name == "SESSION_LIVE"
    live = venue.logon(RICH, resume_session=trader.engine_session)
    assert (await reject(venue, venue.connect(), live)).name == "SESSION_LIVE"
    foreign = venue.logon(THIRD, resume_session=trader.engine_session)
    assert (await reject(venue, venue.connect(), foreign)).name == "SESSION_UNKNOWN"
    assert (await reject(venue, venue.connect(), venue.logon(77))).name == "UNKNOWN_ACCOUNT"


async def test_an_answer_to_a_logon_is_heard_by_its_connection_alone(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    await reject(venue, venue.connect(), venue.logon(RICH, resume_session=12_345))
    assert venue.heard(trader) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"grace_ms": 2**32}, R.PARAMETER_RANGE),
        ({"grace_ms": -1}, R.SYNTAX),
        ({"resume_session": 2**32}, R.PARAMETER_RANGE),
        ({"resume_session": -1}, R.SYNTAX),
        ({"nonce": -1}, R.SYNTAX),
        ({"timestamp_ms": -1}, R.SYNTAX),
        ({"after": [2**70, 1, 1]}, R.PARAMETER_RANGE),
        ({"after": [1, -1, 1]}, R.SYNTAX),
        ({"after": [1, 10**9, 0]}, R.NOT_FOUND),
        ({"after": [1, 1, 500]}, R.NOT_FOUND),
        ({"after": [1, 1]}, R.SYNTAX),
        ({"after": {"epoch": 1}}, R.SYNTAX),
    ],
)
async def test_logon_figures_out_of_range(venue: Venue, fields: Any, reason: Reason) -> None:
    told = await reject(venue, venue.connect(), {**venue.logon(RICH), **fields})
    assert (told.name, told.field) == (reason.name, next(iter(fields)))


async def test_abuse_closes_the_connection(venue: Venue) -> None:
    session = venue.connect()
    for _ in range(LOGON_LIMIT):
        await venue.say(session, {**venue.logon(RICH), "signature": "no"})
    assert session.closing is not None and session.closing[0] == CLOSE_POLICY
    session = venue.connect()
    await venue.say(session, *["no json"] * MALFORMED_LIMIT)
    assert session.closing is not None and session.closing[0] == CLOSE_POLICY
