"""The demo: real clients, a settled day, and a proof that can fail. Budget: 30 seconds."""

import asyncio
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import today
from served import CHECKOUT, COMMAND

from clients.aio import AsyncClient
from exchange.cli import market, signals
from exchange.cli.output import Failure
from exchange.messages.wire import Accepted
from exchange.sim.demo import Demo
from exchange.sim.participants import PRODUCTS, fair_ticks
from exchange.sim.proof import Check

DEMO: Final = [*COMMAND, "demo", "--seconds", "5"]


def test_five_seconds_of_market_are_proven() -> None:
    done = subprocess.run(
        DEMO, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "state hash equal" in done.stdout
    assert "  NO " not in done.stdout
    assert all(product in done.stdout for product in PRODUCTS)
    readme = (CHECKOUT / "README.md").read_text()
    (shown,) = re.findall(r"^```text\n([\d,]+ commands.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert outline(done.stdout) == outline(shown)


def outline(text: str) -> list[str]:
    """The lines of what the demo prints, without their figures, rejects and columns' widths."""
    lines = [" ".join(line.split()) for line in text.strip().splitlines()]
    kept = [line for line in lines if not re.match(r"rejected:|[-\d ]*-|.*[A-Z]\d\d", line)]
    return [re.sub(r"-?\d[\d,.]*", "N", line) for line in kept if line]


def test_the_proof_as_json() -> None:
    done = subprocess.run(
        [*DEMO[:-1], "3", "--json", "--seed", "7"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    proof = json.loads(done.stdout)
    assert proof["holds"]
    assert {product: len(months) for product, months in proof["curve"].items()} == dict.fromkeys(
        PRODUCTS, 12
    )
    assert proof["trades"] > 100
    assert sum(result["profit"] for result in proof["results"]) == 0
    assert all(check["expected"] == check["found"] for check in proof["checks"])


async def traded(directory: Path) -> Demo:
    running = await Demo.open(directory, 1)
    await running.trade(2, asyncio.Event(), None)
    return running


async def test_the_proof_fails_on_a_wrong_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await traded(tmp_path) as running:
        clearing = type(running.market.clearing)
        right = clearing.cash

        def short_by_one(self: Any, account: int) -> int:
            return right(self, account) - (account == 3)

        monkeypatch.setattr(clearing, "cash", short_by_one)
        proof = await running.settle_and_prove()
        assert not proof.holds
        assert [check.name for check in proof.checks if not check.holds] == [
            "clearing's cash is the engine's, in every account"
        ]
        assert "NO   clearing's cash" in proof.text()


async def test_a_visitor_trades_in_the_next_day(tmp_path: Path) -> None:
    async with await traded(tmp_path) as running:
        assert (await running.settle_and_prove()).holds
        visit, code = await running.invite(), today.code()
        async with AsyncClient(visit.ws, visit.key_id, visit.secret) as client:
            await client.subscribe(f"depth.{code}")
            async with asyncio.timeout(10):
                while client.book(code).best_ask is None:
                    await asyncio.sleep(0.05)
            best = client.book(code).best_ask
            assert best is not None
            outcome = await client.enter(code, "buy", 1, best[0])
            assert isinstance(outcome, Accepted)
            assert f'"{visit.key_id}", "{visit.secret}"' in visit.text()


def test_serve_invites_and_stops_on_a_signal() -> None:
    command = [*DEMO[:-1], "3", "--serve", "--json"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["holds"]
        assert json.loads(process.stdout.readline())["ws"].startswith("ws://")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


async def test_a_day_that_is_interrupted_is_proven_but_for_its_hedges(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = asyncio.Event()
    monkeypatch.setattr(signals, "stop_signal", lambda: stopped)
    asyncio.get_running_loop().call_later(1.5, stopped.set)
    with pytest.raises(Failure, match="interrupted") as end:
        await market._demo(seconds=60, seed=1, stay=True, as_json=True)
    assert end.value.code == 130
    proof = json.loads(capsys.readouterr().out)
    assert proof["holds"] and "GPUs" not in str(proof["checks"])


async def test_a_day_that_is_stopped_while_a_late_hedge_is_waited_for_is_not_whole(
    tmp_path: Path,
) -> None:
    async with await Demo.open(tmp_path, 1) as running:
        stopped, told = asyncio.Event(), list[int]()
        for at, one in enumerate(running._participants):
            role = msgspec.structs.replace(one.role, run=lambda client, day, _: day.over.wait())
            running._participants[at] = one._replace(role=role)
        asyncio.get_running_loop().call_later(0.5, stopped.set)
        await running.trade(0.1, stopped, lambda done, *_: told.append(done))
        assert told[-1] == 1000 and not running.is_whole
        assert (await running.settle_and_prove()).holds


@pytest.mark.parametrize("product", PRODUCTS)
def test_fair_prices_follow_level_curve_and_day(product: str) -> None:
    level = fair_ticks(product, 0, 0)
    assert abs(fair_ticks(product, 0, 500) - level) < level // 10
    assert fair_ticks(product, 11, 0) < level
    assert fair_ticks(product, 0, 1000) > 0


def test_a_check_shows_both_figures_when_they_differ() -> None:
    assert Check("sum", 0, 0).text() == "  yes  sum"
    assert Check("sum", 0, 5).text() == "  NO   sum: 0 expected, 5 found"
