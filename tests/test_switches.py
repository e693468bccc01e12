"""Kill switches of a session, an account, a member and everybody: one throws, two lift."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live import Live
from overrides import people
from test_conduct import do, refused

from exchange.app import requests
from exchange.messages import wire
from exchange.messages.wire_mass import Killed

CODE = "H100Z26"


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with Live.open(tmp_path) as opened:
        people(tmp_path, "anne", "bert")
        yield opened


async def lifted(live: Live, **whom: Any) -> dict[str, Any]:
    """Have two people lift a switch, which neither of them can do alone."""
    lift = requests.Kill(lift=True, reason="mended", **whom)
    assert "state the reason" in await refused(live, requests.Kill(lift=True, **whom))
    assert "under an admin key" in await refused(live, lift, "socket")
    proposed = await do(live, lift, "anne")
    approve = requests.Approve(proposal=proposed["proposal"])
    assert "another person" in await refused(live, approve, "anne")
    done = await do(live, approve, "bert")
    assert (done["proposed_by"], done["approved_by"], done["scope"]) == (
        "anne", "bert", whom["scope"],
    )  # fmt: skip
    return done


async def outcome(live: Live, client: Any) -> str:
    """What becomes of an order: ``accepted``, or the name of its reject."""
    instrument = live.market.hub.feed.instruments.by_code[CODE]
    middle = (instrument.low_ticks + instrument.high_ticks) // 2
    told = await client.enter(CODE, "buy", 1, middle)
    return told.name if isinstance(told, wire.Rejected) else "accepted"


@pytest.mark.parametrize("scope", ["session", "account", "member", "exchange"])
async def test_one_person_stops_and_two_let_go_on(live: Live, scope: str) -> None:
    first, other = await live.client(1), await live.client(2)
    session = live.market.hub.sessions[next(iter(live.market.hub.sessions))].engine_session
    whom: dict[str, Any] = {
        "session": {"account": 1, "session": session},
        "account": {"account": 1},
        "member": {"member": live.market.hub.accounts.by_id[1].member},
        "exchange": {},
    }[scope]
    assert await outcome(live, first) == await outcome(live, other) == "accepted"
    stopped = await do(live, requests.Kill(scope=scope, **whom), "anne")  # type: ignore[arg-type]
    everybody = scope == "exchange"
    assert stopped["killed"] and stopped["orders"] == 1 + everybody
    told = [await outcome(live, client) for client in (first, other)]
    assert told == [f"{scope.upper()}_KILLED", "EXCHANGE_KILLED" if everybody else "accepted"]
    assert first.orders == {}, "what it had is cancelled"
    await lifted(live, scope=scope, **whom)
    assert await outcome(live, first) == await outcome(live, other) == "accepted"


@pytest.mark.parametrize("scope", ["session", "account"])
async def test_a_client_stops_itself_and_cannot_let_itself_go_on(live: Live, scope: Any) -> None:
    client = await live.client(1)
    await outcome(live, client)
    told = await client.kill(scope)
    assert isinstance(told, Killed) and (told.scope, told.orders) == (scope, 1)
    again = await client.kill(scope)
    assert isinstance(again, Killed) and again.orders == 0
    assert await outcome(live, client) == f"{scope.upper()}_KILLED"
    assert not hasattr(client, "lift") and "resume" not in {
        str(kind.__struct_config__.tag) for kind in wire.AnyRequest.__args__
    }
