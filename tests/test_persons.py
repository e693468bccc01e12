"""Who is a person, where two are needed: whose a key is, and whether it still is one."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from live import market_in
from test_corrections import Clock

from exchange.app import Market, requests
from exchange.app.wishes import RequestRefused
from exchange.gateway import auth
from exchange.sequencer import QueueFull

LIFT = requests.Kill(account=1, lift=True, reason="mended")
MINUTE = 60


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    async with market_in(tmp_path, clock=Clock()) as started:
        await started.operations.perform(requests.OpenAccount(account=1))
        yield started


@pytest.fixture
def rotated(market: Market) -> Callable[..., Any]:
    async def rotate(key_id: str, overlap_seconds: int = MINUTE) -> str:
        request = requests.RotateKey(key_id=key_id, overlap_seconds=overlap_seconds)
        return str((await market.operations.perform(request))["key_id"])

    return rotate


def made(market: Market, scope: Any = "admin") -> str:
    return auth.create_key(market.directory, 0, scope)[0]


async def proposed(market: Market, by: str) -> requests.Approve:
    answer = await market.operations.perform(LIFT, by)
    return requests.Approve(proposal=answer["proposal"])


async def refused(market: Market, request: requests.AnyRequest, person: str) -> str:
    with pytest.raises(RequestRefused) as why:
        await market.operations.perform(request, person)
    return str(why.value)


async def test_all_keys_of_a_chain_of_rotations_are_one_person(
    market: Market, rotated: Callable[..., Any]
) -> None:
    """Whichever proposes, and with a link of the chain revoked; another person approves still."""
    first, bert = made(market), made(market)
    second = await rotated(first)
    third, fork = await rotated(second), await rotated(first)
    await market.operations.perform(requests.RevokeKey(key_id=second))
    mine = (first, third, fork)
    for by in mine:
        approve = await proposed(market, by)
        for key in mine:
            told = await refused(market, approve, key)
            assert "another person must approve it" in told and by in told
    assert (await market.operations.perform(approve, await rotated(bert)))["proposed_by"] == fork
    listed = (await market.operations.perform(requests.ListKeys()))["keys"]
    assert {key["person"] for key in listed} == {first, bert}


async def test_an_account_that_a_switch_stops_is_not_told_to_be_free(market: Market) -> None:
    """Whichever stops it; one of a session is the session's alone."""
    perform, free = market.operations.perform, requests.SetAccount(account=1)
    await perform(requests.OpenAccount(account=2, member=7))
    told: list[Any] = []
    kills = [requests.Kill(account=1), requests.Kill(scope="member", member=7),
             requests.Kill(scope="exchange")]  # fmt: skip
    for kill in kills:
        await perform(kill)
        told += [(await perform(requests.SetAccount(account=n)))["killed_by"] for n in (1, 2)]
    assert told == [["account"], [], ["account"], ["member"], ["account", "exchange"],
                    ["member", "exchange"]]  # fmt: skip
    anne, bert = made(market), made(market)
    for kill in kills:
        lift = await perform(msgspec.structs.replace(kill, lift=True, reason="mended"), anne)
        await perform(requests.Approve(proposal=lift["proposal"]), bert)
    assert await perform(free) == {"account": 1, "killed": False, "killed_by": []}
    thrown = await perform(requests.SetAccount(account=1, killed=True))
    assert thrown == {"account": 1, "killed": True, "killed_by": ["setting"]}


@pytest.mark.parametrize("ends", ["revoked", "expired"])
async def test_of_a_key_that_is_gone_nothing_is_approved(
    market: Market, rotated: Callable[..., Any], ends: str
) -> None:
    """Neither what it proposed, nor by it; nor does it propose, or fill up what waits."""
    anne, bert = made(market), made(market)
    hers, his = await proposed(market, anne), await proposed(market, bert)
    if ends == "revoked":
        await market.operations.perform(requests.RevokeKey(key_id=anne))
    else:
        await rotated(anne, 0)
    told = await refused(market, hers, bert)
    assert f"key {anne}" in told and "propose it again" in told
    for request in (his, LIFT):
        assert f"key {anne} is good no longer" in await refused(market, request, anne)
    waiting = (await market.operations.perform(requests.ListProposals()))["proposals"]
    assert [one["by"] for one in waiting] == [bert]


async def test_a_key_that_is_rotated_again_ends_when_that_was_first_said(tmp_path: Path) -> None:
    """And once it has ended it counts as revoked: nothing follows it any more."""
    clock = Clock()
    async with market_in(tmp_path, clock=clock) as market:
        key_id = made(market, "trade")
        ends = [
            (await market.operations.perform(requests.RotateKey(key_id=key_id, overlap_seconds=s)))[
                "replaced_until_ms"
            ]
            for s in (MINUTE, 60 * MINUTE)
        ]
        assert ends == [clock.now // 10**6 + MINUTE * 1_000] * 2
        clock.now += MINUTE * 10**9
        again = requests.RotateKey(key_id=key_id)
        assert f"no key {key_id} that is good" in await refused(market, again, "socket")
        assert len(auth.list_keys(tmp_path)) == 3


@pytest.mark.parametrize("scope", ["admin", "clear"])
async def test_nobody_makes_himself_a_second_name_over_http(market: Market, scope: Any) -> None:
    """A key of either scope proposes: with a new one, or another's, one person would be two."""
    anne, other = made(market), made(market, scope)
    for request in (
        requests.CreateKey(account=0, scope=scope), requests.RotateKey(key_id=other)
    ):  # fmt: skip
        assert "on the market's own machine" in await refused(market, request, anne)
    assert len(auth.list_keys(market.directory)) == 2


async def test_a_clock_set_back_brings_no_proposal_back(tmp_path: Path) -> None:
    """What the log's own time has left behind is over, also after a restart."""
    clock = Clock()
    async with market_in(tmp_path, clock=clock) as market:
        await market.operations.perform(requests.OpenAccount(account=1))
        anne, bert = made(market), made(market)
        hers = await proposed(market, anne)
        assert "no account 2 is open" in await refused(
            market, requests.Kill(account=2, lift=True, reason="none"), anne
        )
        clock.now += 10 * MINUTE * 10**9
        his = await proposed(market, bert)
    clock.now -= 60 * MINUTE * 10**9
    async with market_in(tmp_path, clock=clock) as market:
        assert "expired" in await refused(market, hers, bert)
        assert [one["by"] for one in market.operations._approvals.waiting()] == [bert]
        assert (await market.operations.perform(his, anne))["approved_by"] == anne


async def test_an_approval_that_the_queue_has_no_room_for_leaves_the_proposal(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The approval and what it does are taken together, and stand in one batch."""
    anne, bert = made(market), made(market)
    await market.operations.perform(requests.Kill(account=1))
    approve = await proposed(market, anne)
    before = market.desk.sequence
    with monkeypatch.context() as patch, pytest.raises(QueueFull):
        patch.setattr("exchange.intake.QUEUE_COMMANDS", 1)
        await market.operations.perform(approve, bert)
    assert (market.desk.sequence, [*market.desk.proposals]) == (before, [approve.proposal])
    assert market.engine.account(1)["killed"]
    await market.operations.perform(approve, bert)
    assert not market.engine.account(1)["killed"]
    *_, last = market.tape.read(1, before, 0)
    assert last.count == 2


@pytest.mark.parametrize(
    "kill",
    [requests.Kill(account=1), requests.Kill(scope="member", member=1),
     requests.Kill(scope="exchange")],
)  # fmt: skip
async def test_a_switch_that_is_thrown_again_is_lifted_by_no_older_proposal(
    tmp_path: Path, kill: requests.Kill
) -> None:
    """Of the second reason who proposed before it knew nothing; also after a restart."""
    lift = msgspec.structs.replace(kill, lift=True, reason="mended")
    clock = Clock()
    async with market_in(tmp_path, clock=clock) as market:
        perform = market.operations.perform
        await perform(requests.OpenAccount(account=1))
        anne, bert = made(market), made(market)
        await perform(kill)
        first, second = [await perform(lift, anne) for _ in range(2)]
        await perform(requests.Approve(proposal=first["proposal"]), bert)
        await perform(kill)
    async with market_in(tmp_path, clock=clock) as market:
        stale = requests.Approve(proposal=second["proposal"])
        assert "thrown again after proposal" in await refused(market, stale, bert)
        assert market.desk.killed_by(1) == [kill.scope]
        again = await market.operations.perform(lift, anne)
        await market.operations.perform(requests.Approve(proposal=again["proposal"]), bert)
        assert market.desk.killed_by(1) == []
