"""Several gateways, each a process: any will do, and one that dies takes nothing along.

Budget: 60 seconds.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from served import COMMAND, serving
from several import (
    CODE,
    Crowd,
    Gateway,
    House,
    LogonRefused,
    Peer,
    Restarts,
    ask,
    gateway_pid,
    reborn,
    stopped_before_it_serves,
)

from exchange.app import requests
from exchange.app.bookkeeping import STREAM_NAME
from exchange.app.gateway_link import SOCKET_NAME, Left
from exchange.app.gateway_process import OWN_NAME
from exchange.gateway.auth import create_key
from exchange.gateway.seats import ADDRESS_CONNECTIONS, KEY_CONNECTIONS, Owner
from exchange.messages import EventKind
from exchange.messages.access import Scope

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(), reason="finds the gateways in /proc"
)
CASH = "50000000"
HOUR_NS = 3_600_000_000_000
BUYER, SELLER, HEDGER, SLOW, QUIET = 1, 2, 3, 4, 5
SILENCE_SECONDS = 4
START_SECONDS = 6  # for a gateway to come nearer to serving


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A market with two gateways and accounts with money."""
    directory = tmp_path_factory.mktemp("several")
    config = directory / "settings.toml"
    config.write_text(
        f"[limits]\ngateway_silence_seconds = {SILENCE_SECONDS}\n"
        f"gateway_start_seconds = {START_SECONDS}\n"
    )
    flags = ["--gateways", "2", "--log-level", "warning", "--config", str(config)]
    log = directory / "market.log"
    with log.open("w") as out, serving(directory / "market", *flags, log=out) as server:

        async def fund(data: Path) -> str:
            opened = requests.OpenAccount(
                account=SLOW, throttle_interval_ns=HOUR_NS, throttle_burst=3
            )
            await ask(data, opened)
            for account in (BUYER, SELLER, HEDGER, SLOW, QUIET):
                await ask(data, requests.Deposit(account=account, amount=CASH))
            listed = (await ask(data, requests.State()))["instruments"]
            return next(str(one["mark"]) for one in listed if one["code"] == CODE)

        mark = Decimal(asyncio.run(fund(directory / "market"))).quantize(Decimal("0.001"))
        away = str(mark - Decimal("0.050"))
        yield House(directory / "market", server.ready, str(mark), away, log)
        said = server.stop().splitlines()[-1]
        stopped = json.loads(said)
        replayed = subprocess.run(
            [*COMMAND, "replay", str(directory / "market"), "--verify", "--json"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert json.loads(replayed.stdout)["state_hash"] == stopped["state_hash"]


@pytest.fixture
async def crowd(house: House) -> AsyncIterator[Crowd]:
    """Clients of it, closed at the end of the test."""
    made = Crowd(house.data)
    yield made
    await made.close()


async def pump(peer: Peer, house: House, name: str, count: int) -> None:
    """Have orders under way, thirty at a time, half of which rest and half trade."""
    for number in range(count):
        side, price = ("buy", house.away) if number % 2 else ("sell", house.at)
        await peer.enter(f"{name}.{number}", side, price)
        if number % 30 == 29:
            await peer.until(lambda n=number: len(peer.of("accepted")) >= n - 29)


async def test_a_client_resumes_at_another_gateway_and_misses_nothing(
    house: House, crowd: Crowd
) -> None:
    data, at, away = house.data, house.at, house.away
    key = create_key(data, BUYER, "trade")
    watch = await crowd.join(create_key(data, BUYER, "read"), 1)
    maker = await crowd.join(create_key(data, SELLER, "trade"), 1)
    for number in range(40):
        await maker.enter(f"m.{number}", "sell", at)
    await maker.until(lambda: len(maker.of("accepted")) == 40)  # none trades behind the last order
    first = await crowd.join(key, 0, cancel_on_disconnect=True, grace_ms=60_000)
    for number in range(40):
        await first.enter(f"a.{number}", "buy", at)
    await first.until(lambda: len(first.of("accepted")) >= 10)
    for number in range(40, 60):
        await first.enter(f"a.{number}", "buy", away)
    await first.cut()  # some are answered, some are under way, some may never have left
    session = first.logged_on["session"]
    async with asyncio.timeout(20):  # until gateway 0 has seen the end
        while True:
            try:
                second = await crowd.join(key, 1, resume_session=session, after=first.last)
                break
            except LogonRefused as refused:
                assert refused.args == ("SESSION_LIVE",)
                await asyncio.sleep(0.02)
    await second.enter("a.last", "buy", away)
    await second.until(lambda: "a.last" in second.of("accepted"))
    await watch.until(lambda: "a.last" in watch.of("accepted"))
    assert first.places + second.places == watch.places
    accepted = first.of("accepted") + second.of("accepted")
    assert len(set(accepted)) == len(accepted) >= 11


async def test_a_gateway_that_is_killed_loses_nothing_and_nobody_else(
    house: House, crowd: Crowd
) -> None:
    data, away = house.data, house.away
    keys = [create_key(data, account, "trade") for account in (BUYER, SELLER, HEDGER)]
    watch = await crowd.join(create_key(data, BUYER, "read"), 1)
    watch_hedger = await crowd.join(create_key(data, HEDGER, "read"), 1)
    calm = await crowd.join(keys[1], 1)
    hit = await crowd.join(keys[0], 0, cancel_on_disconnect=True, grace_ms=60_000)
    left = await crowd.join(keys[2], 0, cancel_on_disconnect=True, grace_ms=0)
    await left.enter("left", "buy", away)
    await left.until(lambda: left.of("accepted") == ["left"])
    restarts = await Restarts.begin(house)
    flow = [
        asyncio.create_task(pump(hit, house, "h", 3_000)),
        asyncio.create_task(pump(calm, house, "c", 600)),
    ]
    async with asyncio.timeout(20):  # a tenth of the way, however fast this machine is
        while len(hit.of("accepted")) < 300:
            await asyncio.sleep(0.001)
    os.kill(gateway_pid(data, 0), signal.SIGKILL)
    with pytest.raises((TypeError, ConnectionResetError, aiohttp.ClientError)):  # cut off
        await flow[0]
    await flow[1]
    await calm.until(lambda: len(calm.of("accepted")) == 600)  # nobody noticed there
    assert 0 < len(hit.of("accepted")) < 3_000
    session = hit.logged_on["session"]
    again = await crowd.join(keys[0], 1, resume_session=session, after=hit.last)
    await again.enter("h.last", "buy", away)
    await again.until(lambda: "h.last" in again.of("accepted"))
    await watch.until(lambda: "h.last" in watch.of("accepted"))
    assert hit.places + again.places == watch.places
    accepted = hit.of("accepted") + again.of("accepted")
    assert len(set(accepted)) == len(accepted)
    assert accepted[:-1] == [f"h.{n}" for n in range(len(accepted) - 1)]  # in order, none left out
    await watch_hedger.until(lambda: "left" in watch_hedger.of("cancelled"))
    assert watch_hedger.reports[-1]["reason"] == "DISCONNECTED"
    await reborn(crowd, keys[2])
    assert await restarts.causes() == ["0 ended with exit code -9"]


async def test_throttle_kill_switch_and_revoked_key_hold_at_every_gateway(
    house: House, crowd: Crowd
) -> None:
    data, away = house.data, house.away
    keys = [create_key(data, SLOW, "trade") for _ in range(2)]
    peers = [await crowd.join(key, number) for number, key in enumerate(keys)]
    for number, tokens in enumerate((2, 1, 0)):
        peer = peers[number % 2]
        await peer.enter(f"t.{number}", "buy", away)
        for each in peers:
            await each.until(lambda p=each, n=number: f"t.{n}" in p.of("accepted"))
        assert peer.reports[-1]["tokens"] == tokens
    await peers[1].enter("t.3", "buy", away)
    await peers[1].until(lambda: "t.3" in peers[1].of("rejected"))
    assert peers[1].reports[-1]["name"] == "THROTTLED"
    killed = await ask(data, requests.Kill(scope="account", account=SLOW))
    assert killed["orders"] == 3
    for number, peer in enumerate(peers):
        await peer.enter(f"k.{number}", "buy", away)
        await peer.until(lambda p=peer, n=number: f"k.{n}" in p.of("rejected"))
        assert peer.reports[-1]["name"] == "ACCOUNT_KILLED"
    for key, peer in zip(keys, peers, strict=True):
        await ask(data, requests.RevokeKey(key_id=key[0]))
        assert await peer.drain() == 4003


async def test_both_gateways_serve_one_port_and_operators_through_it(house: House) -> None:
    for name in (SOCKET_NAME, STREAM_NAME, OWN_NAME.format(0), OWN_NAME.format(1)):
        assert (house.data / name).stat().st_mode & 0o777 == 0o600, name
    url = house.ready["http"].replace("/api/v1", "")
    alone = aiohttp.TCPConnector(force_close=True)  # each request a connection, dealt out anew
    async with aiohttp.ClientSession(connector=alone) as client:
        async with client.ws_connect(house.ready["ws"]):
            seen: set[int] = set()
            async with asyncio.timeout(20):
                while len(seen) < 2:  # one gateway has that connection, the other has not
                    async with client.get(f"{url}/api/v1/health") as answer:
                        seen.add((await answer.json())["connections"])
        for path in ("/health", "/ready"):
            async with client.get(url + path) as answer:
                assert answer.status == 200 and (await answer.json())["ok"], await answer.text()
    told = subprocess.run(
        [*COMMAND, "admin", "state", "--json", "--url", url, "--key", house.ready["admin_key"]],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(told.stdout)["mode"] == "NORMAL"


async def test_a_switch_set_at_one_gateway_is_held_at_another_and_previews_work(
    house: House, crowd: Crowd
) -> None:
    data, away = house.data, house.away
    key = create_key(data, HEDGER, "trade")
    order = {
        "op": "enter", "client_order_id": "d.2", "instrument": CODE, "side": "buy",
        "quantity": "1", "price": away,
    }  # fmt: skip
    first = await crowd.join(key, 0, cancel_on_disconnect=True, grace_ms=60_000)
    await first.say(op="preview", request_id="d.3", order=order)
    await first.until(lambda: first.answers)
    assert first.answers[0]["leaves_quantity"] == "1"
    due_ms = withdrawn_ms = 0
    while withdrawn_ms >= due_ms:  # once more where a slow machine took it back too late
        await first.enter(kept := f"d.0.{due_ms}", "buy", away)
        due_ms = (await switched(first, f"d.1.{due_ms}", 1_000))["due_ms"]
        session = first.logged_on["session"]
        await first.socket.close()
        second = await crowd.join(key, 1, resume_session=session, after=first.last)
        withdrawn_ms = (await switched(second, f"d.4.{due_ms}", 0))["time"] // 1_000_000
        if withdrawn_ms >= due_ms:
            first = await crowd.join(key, 0, cancel_on_disconnect=True, grace_ms=60_000)
    await asyncio.sleep(1.5)
    await second.enter("d.5", "buy", away)
    await second.until(lambda: "d.5" in second.of("accepted"))
    assert second.of("cancelled") == []  # what was set at the first gateway was taken back here
    await second.say(op="cancel_after", request_id="d.6", timeout_ms=1_000)
    await second.until(lambda: {kept, "d.5"} <= set(second.of("cancelled")))


async def switched(peer: Peer, request_id: str, timeout_ms: int) -> dict[str, Any]:
    """Set a dead man's switch, or take it back; the report of that."""

    def told() -> list[dict[str, Any]]:
        switches = [one for one in peer.reports if one["type"] == "cancel_after"]
        return [one for one in switches if one["request_id"] == request_id]

    await peer.say(op="cancel_after", request_id=request_id, timeout_ms=timeout_ms)
    await peer.until(told)
    return told()[0]


async def test_a_port_that_another_market_serves_is_not_shared(
    house: House, tmp_path: Path
) -> None:
    port = str(urlsplit(house.ready["http"]).port)
    command = [*COMMAND, "serve", "--data", str(tmp_path), "--port", port, "--gateways", "1"]
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode != 0 and "Address already in use" in refused.stderr
    assert refused.stdout == "" or "ws" not in json.loads(refused.stdout.splitlines()[0])


async def test_a_session_opened_for_a_gateway_that_died_meanwhile_is_lost(house: House) -> None:
    gateway = await Gateway(house.data, QUIET).open()
    number = gateway.log_on()
    gateway.wire.close()
    sessions: list[int] = []
    async with asyncio.timeout(10):
        async for row in gateway.events():
            if row[2] == EventKind.SESSION_OPENED and row[11] == number:
                sessions.append(row[7])
            elif row[2] == EventKind.SESSION_ENDED and row[7] in sessions:
                return


@pytest.mark.parametrize("dies", [False, True])
async def test_a_logon_comes_behind_what_its_account_sent_through_another_gateway(
    house: House, dies: bool
) -> None:
    """The other one is killed with commands under way, or is slow and sends them late."""
    for seed in range(12):
        rng = random.Random(seed)
        old, new = [await Gateway(house.data, HEDGER).open() for _ in range(2)]
        async with asyncio.timeout(10):
            session = await old.opened(old.log_on())
        late = partial(old.cancel, session, rng.randint(1, 10_000), seed)
        if dies:
            late()
            old.wire.flush()  # what the kernel has by then will be read, the rest is lost
            old.wire.abort()
        else:
            old.before_beat = late
        for _ in range(rng.choice((0, 0, 1))):
            await asyncio.sleep(0)
        number = new.log_on()
        new.wire.flush()
        seen, after = 0, None
        async with asyncio.timeout(10):
            async for row in new.events():
                if row[2] == EventKind.REJECTED and row[12] == seed and row[6] == HEDGER:
                    assert after is None, f"{seed}: behind the logon"
                    seen += 1
                elif row[2] == EventKind.SESSION_OPENED and row[11] == number:
                    after = row[7]
                    new.cancel(after, 1, 1_000)  # what is still under way is before this
                elif row[2] == EventKind.REJECTED and row[12] == 1_000:
                    break
        assert seen or dies
        old.wire.close()
        new.wire.close()


async def test_an_address_has_so_many_connections_at_all_gateways_together(house: House) -> None:
    first, second = [await Gateway(house.data, HEDGER).open() for _ in range(2)]
    far: Owner = ("address", "203.0.113.9")
    for number in range(ADDRESS_CONNECTIONS):
        assert await (first, second)[number % 2].seat(far) == number + 1
    for _ in range(2):  # one that is not let in is not counted
        assert await first.seat(far) == ADDRESS_CONNECTIONS + 1
    assert await first.seat(("address", "203.0.113.10")) == 1
    second.wire.say(Left(far))
    assert await second.seat(far) == ADDRESS_CONNECTIONS
    first.wire.close()  # and its connections with it
    async with asyncio.timeout(10):
        while (count := await second.seat(far)) > ADDRESS_CONNECTIONS:
            await asyncio.sleep(0.01)
    assert count == ADDRESS_CONNECTIONS // 2 + 1
    second.wire.close()


@pytest.mark.parametrize("scope", ["trade", "read"])  # the engine never hears of one that reads
async def test_a_key_has_so_many_connections_at_all_gateways_together(
    house: House, crowd: Crowd, scope: Scope
) -> None:
    key = create_key(house.data, QUIET, scope)
    peers = [await crowd.join(key, number % 2) for number in range(KEY_CONNECTIONS)]
    for gateway in (0, 1):  # one that is not let in is not counted
        late = Peer(house.data, key, gateway)
        with pytest.raises(LogonRefused, match="CONNECTIONS_FULL"):
            await late.connect()
        (told,) = [*late.answers, *late.reports]
        assert (told["field"], told["limit"], told["observed"]) == ("key_id", "16", "17")
        await late.close()
    await crowd.join(create_key(house.data, QUIET, scope), 0)  # another key of the account
    await peers[0].socket.close()
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(LogonRefused):
                await crowd.join(key, 1)
                break
            await asyncio.sleep(0.02)


async def test_a_gateway_that_hangs_is_killed_and_its_sessions_end(
    house: House, crowd: Crowd
) -> None:
    data, away = house.data, house.away
    keys = [create_key(data, account, "trade") for account in (HEDGER, SELLER)]
    hit = await crowd.join(keys[0], 0, cancel_on_disconnect=True, grace_ms=0)
    calm = await crowd.join(keys[1], 1)
    watch = await crowd.join(create_key(data, HEDGER, "read"), 1)
    await hit.enter("hung", "buy", away)
    await hit.until(lambda: hit.of("accepted") == ["hung"])
    restarts = await Restarts.begin(house)
    os.kill(gateway_pid(data, 0), signal.SIGSTOP)
    await calm.enter("calm", "buy", away)
    await calm.until(lambda: "calm" in calm.of("accepted"))  # nobody noticed there
    await crowd.join(keys[0], 1)  # is answered once the other has come to its end
    await watch.until(lambda: "hung" in watch.of("cancelled"))
    assert watch.reports[-1]["reason"] == "DISCONNECTED"
    await reborn(crowd, keys[0])
    assert await restarts.causes() == [
        f"0 did not answer for {SILENCE_SECONDS} s (limits.gateway_silence_seconds) and was killed"
    ]


async def test_a_gateway_that_hangs_before_it_serves_is_killed_and_started_again(
    house: House, crowd: Crowd
) -> None:
    key = create_key(house.data, QUIET, "read")
    restarts = await Restarts.begin(house)
    first = gateway_pid(house.data, 0)
    (house.data / OWN_NAME.format(0)).unlink()  # one that is killed leaves it behind
    os.kill(first, signal.SIGKILL)
    hung = await stopped_before_it_serves(house.data, 0, but=first)
    await crowd.join(key, 1)  # nobody noticed there
    await reborn(crowd, key)
    assert gateway_pid(house.data, 0) not in (first, hung)
    assert await restarts.causes() == ["0 ended with exit code -9"]
    assert restarts.late() >= 1
