"""How long a gateway may take to come to serve, and what becomes of one that hangs on the way."""

import asyncio
import os
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from served import COMMAND
from several import Gateway, stopped_before_it_serves

from exchange.app import gateways
from exchange.app.gateway_link import Hello, Listening, Status, Wire
from exchange.app.lives import Lives
from exchange.app.settings import Settings
from exchange.cli.output import Exit
from exchange.journal.tape import Standing
from exchange.sequencer import LogFull

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/cmdline").exists(), reason="finds the gateways in /proc"
)


async def test_a_gateway_may_take_its_time_to_start_as_long_as_it_moves() -> None:
    lives, most = Lives(), 3
    lives.start(0)
    life = lives.begin(wire := Wire(Gateway(Path(), 1)), 0)
    for sequence in range(1, 5):
        for _ in range(most):
            assert lives.stuck(most) == []
        lives.stand(life, Status(sequence, 0, {}, {}, {}))
    for _ in range(most):
        lives.stand(life, Status(4, 0, {}, {}, {}))  # it says so, and stays where it is
        assert lives.stuck(most) == []
    assert lives.stuck(most) == [0]
    lives.serve(life)
    assert lives.stuck(most) == [] and lives.beat(most) == []
    lives.end(wire)


async def test_what_was_reported_falls_by_no_gateway_that_starts_again() -> None:
    """Not while it reads what there is, and not while none serves."""
    market: Any = SimpleNamespace(
        settings=Settings(), stopping=False, metrics=SimpleNamespace(add=lambda *_: None),
        tape=SimpleNamespace(exchange_id=bytes(16), standing=Standing((0, 0, 0), 0, [])),
    )  # fmt: skip
    front = gateways.Gateways(market)

    def serve(which: int, sequence: int) -> Wire:
        wire = Wire(front)
        front.heard(wire, Hello(which))
        front.heard(wire, Status(sequence, 0, {}, {}, {}))
        front.heard(wire, Listening())
        return wire

    first, second = serve(0, 70), serve(1, 71)
    assert front.sequence == 70
    front.lost(first)
    assert front.sequence == 71
    front.heard(again := Wire(front), Hello(0))
    for sequence in (0, 12):
        front.heard(again, Status(sequence, 0, {}, {}, {}))
        assert front.sequence == 71
    front.lost(second)
    assert front.sequence == 71
    front.heard(again, Status(73, 0, {}, {}, {}))
    front.heard(again, Listening())
    assert front.sequence == 73


async def test_a_port_whose_connections_have_just_ended_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:  # a market without gateways
        port = before.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            before.accept()[0].close()  # first: the system keeps its end for a minute
            assert client.recv(1) == b""
    front = gateways.Gateways(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
    front._all_listen.set()
    assert await front.listen("127.0.0.1", port) == port


async def test_a_market_whose_gateway_hangs_at_the_start_ends_and_says_so(tmp_path: Path) -> None:
    flags = ["--port", "0", "--gateways", "1", "--log-level", "error"]
    server = await asyncio.create_subprocess_exec(
        *COMMAND, "serve", "--data", str(tmp_path), *flags,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"HOURBOOK_LIMITS_GATEWAY_START_SECONDS": "1"},
    )  # fmt: skip
    await stopped_before_it_serves(tmp_path, 0)
    async with asyncio.timeout(20):
        said, why = await server.communicate()
    assert (server.returncode, said) == (Exit.UNUSABLE, b"")
    assert why.decode().splitlines()[-1] == (
        "hourbook: gateway 0 came no nearer to serving for 1 s (limits.gateway_start_seconds)"
        " and was killed: see what it logged"
    )


async def test_however_often_a_full_queue_refuses_one_timer_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = 0

    def refuse(*arguments: object) -> None:
        nonlocal tried
        tried += 1
        raise LogFull(0)

    monkeypatch.setattr(gateways, "RETRY_SECONDS", 0.01)
    market: Any = SimpleNamespace(settings=Settings(), sequencer=SimpleNamespace(submit=refuse))
    front = gateways.Gateways(market)
    for _ in range(100):  # batches that are released meanwhile
        front._log_off(1, 1)
    tried, loop = 0, asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(10):
        while tried < 3:
            await asyncio.sleep(0.001)
    assert tried <= 2 + (loop.time() - begun) / 0.01
