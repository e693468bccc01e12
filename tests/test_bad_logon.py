"""Logons that are refused, beside the cases of test_bad_inputs.py."""

from typing import Any

import pytest
import venue as market
from venue import RICH, THIRD, Venue, reject

from exchange.gateway.session import CLOSE_POLICY, LOGON_LIMIT, MALFORMED_LIMIT
from exchange.messages import Reason

R = Reason


venue = market.venue  # a fixture


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
