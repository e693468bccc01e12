"""What operators see of a serving market, and how it stops. Budget: 20 seconds."""

import ast
import asyncio
import gc
import json
import logging
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from live import CODE, Live, clock_ns, market_in, opened_live, until
from prometheus_client.parser import text_string_to_metric_families
from served import CHECKOUT, COMMAND, STOP_SECONDS

from clients.aio import AsyncClient
from clients.errors import HourbookError
from exchange.app import Market, capacity, logs, wishes
from exchange.app.requests import Settle
from exchange.app.settings import Limits, Serve, Settings
from exchange.clearing import Clearing
from exchange.engine import Engine
from exchange.gateway import access, server
from exchange.gateway.metrics import STAGES, Metrics
from exchange.journal.replay import replay
from exchange.messages import EVENT, EventKind, Limit, Mode, wire

live = opened_live  # a fixture


async def get(live: Live, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{live.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def figures_of(live: Live) -> dict[str, float]:
    """Every sample by its name and labels as they are written."""
    status, text = await get(live, "/metrics")
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def trade(live: Live) -> tuple[AsyncClient, AsyncClient]:
    """Two clients, one trade of three lots, one reject of each kind."""
    maker, taker = await live.client(1), await live.client(2)
    listed = live.market.desk.instruments.by_code[CODE]
    price = listed.mark // listed.tick_scale
    await maker.enter(CODE, "buy", 3, price)
    await taker.enter(CODE, "sell", 3, price)
    refused = await taker.enter(CODE, "sell", 3, listed.high_ticks + 1)
    assert isinstance(refused, wire.Rejected) and refused.name == "PRICE_LIMIT"
    async with aiohttp.ClientSession() as session, session.ws_connect(live.addresses.ws) as socket:
        await socket.send_str("no json")
        assert "SYNTAX" in await socket.receive_str()
    return maker, taker


async def test_metrics_say_what_happened(live: Live) -> None:
    before = await figures_of(live)
    await trade(live)
    await live.market.operations.cleared()
    market, now = live.market, await figures_of(live)
    assert now["hourbook_trades_total"] - before["hourbook_trades_total"] == 1
    assert now['hourbook_rejects_total{reason="PRICE_LIMIT"}'] == 1
    assert now['hourbook_rejects_total{reason="SYNTAX"}'] == 1
    assert now["hourbook_sequence"] == market.sequencer.durable_upto == market.hub.sequence
    for name in ("durable", "reported", "clearing"):
        assert now[f"hourbook_{name}_sequence"] == now["hourbook_sequence"], name
    commands = now["hourbook_commands_total"]
    assert commands == now["hourbook_batch_commands_sum"]
    assert 5 <= commands - before.get("hourbook_commands_total", 0) < now["hourbook_sequence"]
    assert now["hourbook_fsync_seconds_count"] >= now["hourbook_batch_commands_count"]
    assert now['hourbook_connections{stage="ready"}'] == 2
    assert now["hourbook_ledger_balanced"] == now["hourbook_mode_normal"] == 1
    assert now["hourbook_ready"] == now["hourbook_day_open"] == 1
    assert now["hourbook_clearing_lag_commands"] == now["hourbook_queue_commands"] == 0
    followed = {now[f'hourbook_request_seconds_count{{stage="{stage}"}}'] for stage in STAGES}
    assert len(followed) == 1 and followed.pop() >= 1
    assert now["process_resident_memory_bytes"] > 1 << 20
    used = {
        what: now[f'hourbook_capacity_used_ratio{{what="{what}"}}'] * int(Limit[what.upper()])
        for what in capacity.NAMES
    }
    counts = market.engine.counts()
    assert round(used["positions"]) == counts["positions"] + 1  # record 0 stands for none
    assert {what: round(used[what]) for what in ("accounts", "instruments")} == {
        what: counts[what] for what in ("accounts", "instruments")
    }
    assert round(used["orders"]) > counts["slots"] > 0


async def test_a_restart_counts_from_zero_and_not_the_log_again(tmp_path: Path) -> None:
    async with Live.open(tmp_path) as live:
        await trade(live)
    async with Live.open(tmp_path) as live:
        now = await figures_of(live)
        assert now["hourbook_trades_total"] == 0
        assert now["hourbook_sequence"] > now["hourbook_commands_total"]


async def test_a_client_that_is_closed_is_counted_by_its_code(live: Live) -> None:
    await live.client(1)
    (session,) = live.market.hub.sessions.values()
    session.close(4008, "slow reader")
    assert (await figures_of(live))['hourbook_connections_closed_total{code="4008"}'] == 1


async def test_every_metric_is_in_the_reference_and_every_one_there_exists(live: Live) -> None:
    page = (CHECKOUT / "docs/reference/operations.md").read_text()
    _, text = await get(live, "/metrics")
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    own = {
        name: kind
        for name, kind in kinds.items()
        if name.startswith("hourbook_") and not name.endswith("_created")
    }
    assert dict(re.findall(r"^\| `(hourbook_\w+)` \| (\w+) \|", page, re.MULTILINE)) == own


def test_every_metric_that_an_alert_asks_for_exists() -> None:
    reference = (CHECKOUT / "docs/reference/operations.md").read_text()
    known = set(re.findall(r"^\| `(hourbook_\w+)`", reference, re.MULTILINE))
    asked = set(
        re.findall(r"hourbook_\w+", (CHECKOUT / "docs/howto/watch-a-market.md").read_text())
    )
    assert {name.removesuffix("_bucket") for name in asked} - known == set()
    assert len(asked) >= 10


def test_every_alert_has_a_row_that_says_what_to_do() -> None:
    page = (CHECKOUT / "docs/howto/watch-a-market.md").read_text()
    alerts = re.findall(r"- alert: (\w+)", page)
    rows = re.findall(r"^\| (.*?) \|", page.partition("## When one rings")[2], re.MULTILINE)
    assert sorted(alerts) == sorted(name for row in rows[1:] for name in row.split(", "))


def logged() -> Iterator[tuple[str, str]]:
    """What the sources log above level info: the level, and the text with its placeholders."""
    levels = {"warning", "error", "critical", "exception"}
    for path in sorted((CHECKOUT / "exchange").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                if node.func.attr in levels and ("_log" in owner or "getLogger" in owner):
                    (text, *_) = node.args
                    assert isinstance(text, ast.Constant) and isinstance(text.value, str)
                    yield node.func.attr, text.value


def test_every_line_that_is_logged_above_info_is_in_the_reference() -> None:
    """A text of placeholders alone, an exception's own, has a row that no program can find."""
    page = (CHECKOUT / "docs/reference/operations.md").read_text()
    told: list[tuple[re.Pattern[str], str]] = []
    for message, level in re.findall(r"^\| (`.*?) \| ([a-z, ]+) \| ", page, re.MULTILINE):
        for span in re.findall(r"``` (.+?) ```|`([^`]+)`", message):
            if re.search(r"[a-z]{3}", text := span[0] or span[1]):
                told.append((re.compile(re.sub(r"\b[A-Z]+\b", ".+", re.escape(text))), level))
    found = list(logged())
    assert len(found) > 40
    for level, text in found:
        line = re.sub(r"%[rsd]", "x", text)
        levels = [said for pattern, said in told if pattern.fullmatch(line)]
        wanted = "error" if level == "exception" else level
        assert any(wanted in said for said in levels) or not re.search("[a-z]{3}", text), text


async def test_ready_follows_the_market_and_health_the_process(live: Live) -> None:
    assert json.loads((await get(live, "/ready"))[1])["ok"] is True
    await live.market.desk.perform([wishes.set_mode(Mode.CANCEL_ONLY, "a test")])
    status, text = await get(live, "/ready")
    assert status == 503
    assert [n for n, good in json.loads(text)["checks"].items() if not good] == ["mode_normal"]
    status, text = await get(live, "/health")
    assert (status, set(json.loads(text)["checks"])) == (
        200, {"sequencer", "desk", "clearing", "watch", "switches", "gateway"},
    )  # fmt: skip


async def test_a_settled_day_is_no_want_of_readiness(live: Live) -> None:
    await live.market.operations.perform(Settle())
    assert (await get(live, "/ready"))[0] == 200
    assert (await figures_of(live))["hourbook_day_open"] == 0


async def test_a_part_that_ended_is_unhealthy_and_not_ready(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(clearing: Clearing, frames: object) -> None:
        raise OSError("the ledger's disk is gone")

    await live.market.operations.cleared()
    monkeypatch.setattr(Clearing, "apply", broken)
    await live.fund(9)
    await until(lambda: not live.market.healthy()["clearing"])
    status, text = await get(live, "/health")
    assert (status, json.loads(text)["checks"]["clearing"]) == (503, False)
    assert (await get(live, "/ready"))[0] == 503
    with pytest.raises(OSError, match="disk is gone"):  # told here, else the stop raises it
        await live.market.failed()


async def test_a_ledger_that_is_off_makes_the_market_cancel_only(tmp_path: Path) -> None:
    settings = Settings(limits=Limits(watch_seconds=0.01))
    async with market_in(tmp_path, clock=clock_ns, settings=settings) as market:
        assert market.balanced
        market.clearing._state.ledger.balances[1 << 32] += 1
        await until(lambda: market.desk.mode == Mode.CANCEL_ONLY)
        assert not market.balanced and not market.ready()["ledger_balanced"]
        market.clearing._state.ledger.balances[1 << 32] -= 1


@pytest.mark.parametrize(
    ("remote", "let_in"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False),
     ("", False), ("name", False)],
)  # fmt: skip
def test_metrics_are_for_this_machine(remote: str, let_in: bool) -> None:
    assert access.is_loopback(remote) is let_in


async def test_metrics_can_be_off(tmp_path: Path) -> None:
    settings = Settings(serve=Serve(metrics="off"))
    async with market_in(tmp_path, clock=clock_ns, settings=settings) as market:
        live = Live(market, await market.listen("127.0.0.1", 0))
        assert (await get(live, "/metrics"))[0] == 404
        assert (await get(live, "/ready"))[0] == 200


def test_a_match_through_several_books_is_one_trade() -> None:
    metrics = Metrics()
    places = ((EventKind.TRADE, 0), *((EventKind.ORDER_EXECUTED, place) for place in (0, 1, 2)))
    rows = [
        EVENT.pack(7, index, kind, 0, place, *bytes(10))
        for index, (kind, place) in enumerate((*places, *places))
    ]
    metrics.released(1, b"".join(rows))
    assert b"hourbook_trades_total 4.0" in metrics.text()


def test_one_request_at_a_time_is_followed_and_not_too_often() -> None:
    metrics = Metrics()
    metrics.follow("a", 0, 1_000)
    assert not metrics.probing
    metrics.reported({7: "b"}, 10, 2_000, 3_000)
    assert not metrics.probing
    metrics.reported({8: "a"}, 20, 2_000, 3_000)
    metrics.reported({}, 21, 2_000, 3_000)
    assert not metrics.probing  # one was followed just now
    metrics.reported({}, 20 + 10_000_000, 2_000, 3_000)
    assert metrics.probing


# Stopping


async def test_a_stop_reports_what_was_queued_and_refuses_the_rest(tmp_path: Path) -> None:
    market = await Market.start(tmp_path, clock=clock_ns)
    live = Live(market, await market.listen("127.0.0.1", 0))
    client = await live.client(1)
    listed = market.desk.instruments.by_code[CODE]
    price = listed.mark // listed.tick_scale
    queued = [asyncio.create_task(client.enter(CODE, "buy", 1, price)) for _ in range(20)]
    await until(lambda: market.sequencer.queued > 0 or any(task.done() for task in queued))
    stopping = asyncio.create_task(market.stop())
    await asyncio.sleep(0)
    assert not market.ready()["staying"]
    told = await asyncio.gather(*queued, return_exceptions=True)
    accepted = [t for t in told if isinstance(t, wire.Accepted)]
    others = [t for t in told if not isinstance(t, wire.Accepted)]
    assert all(isinstance(t, HourbookError) or t.name == "QUEUE_FULL" for t in others)  # type: ignore[union-attr]
    final = await stopping
    await live._clients.aclose()
    report = replay(tmp_path, Engine)
    assert report.divergence is None and report.state_hash.hex() == final
    async with market_in(tmp_path, clock=clock_ns) as again:
        quotes = await again.desk.quotes.read()
        assert bool(accepted) is (listed.id in quotes and quotes[listed.id][0] == price)
        kinds = [
            released.events[at + 12]
            for released in again.tape.read(0, 0, 0)
            for at in range(0, len(released.events), 80)
        ]
        before_restart = kinds[: len(kinds) - kinds[::-1].index(EventKind.RECOVERED) - 1]
        assert EventKind.CHECKPOINTED in before_restart[-3:]


async def test_a_connection_that_has_ended_leaves_nothing_for_the_collector(live: Live) -> None:
    """Which a serving process has look so seldom that a day's connections would add up."""
    ours = {"Link", "Session", "MaskedSocket", "_Arrival", "_Guard", "Shows"}

    def seen() -> dict[int, str]:
        kinds = ((id(one), type(one)) for one in gc.get_objects())
        return {at: k.__name__ for at, k in kinds if k.__name__ in ours and "exchange." in str(k)}

    def left() -> set[str]:
        return {name for at, name in seen().items() if at not in before}

    gc.collect()
    gc.disable()
    before = seen()  # of other tests' markets
    try:
        for trader in await trade(live):
            await trader.subscribe(f"depth.{CODE}", f"queue.{CODE}")
            assert left()
            await trader.close()
        async with aiohttp.ClientSession() as http:
            socket = await http.ws_connect(live.addresses.ws)
            socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: not left())
    finally:
        gc.enable()


async def test_a_stop_cuts_those_who_do_not_answer_and_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many they are: aiohttp's own wait for them ends later."""
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.2)
    ask = '{"op": "subscribe", "request_id": "s", "channels": ["depth.H100Z26"]}'
    async with aiohttp.ClientSession() as http:
        async with Live.open(tmp_path) as live:
            sockets = [await http.ws_connect(live.addresses.ws, autoclose=False) for _ in range(50)]
            for socket in sockets:  # nothing is read of them any more
                await socket.send_str(ask)
            before = asyncio.get_running_loop().time()
        assert 0.2 <= asyncio.get_running_loop().time() - before < 8  # one after the other: 10
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_served_market_stops_in_order_and_logs_no_secret(
    tmp_path: Path, number: signal.Signals
) -> None:
    data = tmp_path / "market"
    command = [*COMMAND, "serve", "--data", str(data), "--port", "0", "--log-format", "json"]
    process = subprocess.Popen(
        command, cwd=CHECKOUT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    created = [*COMMAND, "keys", "create", "1", "--data", str(data)]
    key = json.loads(subprocess.run(created, cwd=CHECKOUT, capture_output=True, check=True).stdout)
    with urllib.request.urlopen(ready["http"].removesuffix("/api/v1") + "/ready") as answer:
        assert answer.status == 200
    posted = urllib.request.Request(ready["http"] + "/admin", b"{}", {"Hourbook-Key": "guess"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(posted)
    refused.value.close()
    process.send_signal(number)
    said, logged = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 0
    final = json.loads(said)
    lines = [json.loads(line) for line in logged.splitlines()]
    assert [line["message"] for line in lines] == ["serving", "stopping", "stopped"]
    assert {line["level"] for line in lines} == {"info"}
    assert lines[-1]["state_hash"] == final["state_hash"] == replayed(data)
    secrets = {key["secret"], json.loads((data / "admin.key").read_text())["secret"]}
    assert not any(secret in logged for secret in secrets)


def replayed(data: Path) -> str:
    report = replay(data, Engine)
    assert report.divergence is None
    return report.state_hash.hex()


def test_a_line_hides_what_is_named_like_a_secret_and_keeps_its_facts() -> None:
    facts: dict[str, Any] = {"key_id": "abc", "secret": "s3cret", "signature": "f00", "n": 1}
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "made %d", "args": (2,), "facts": facts}
    )
    line = json.loads(logs.JsonLines().format(record))
    assert (line["message"], line["key_id"], line["n"]) == ("made 2", "abc", 1)
    assert line["secret"] == line["signature"] == logs.HIDDEN
    text = logs.TextLines().format(record)
    assert "s3cret" not in text and text.endswith("key_id=abc secret=hidden signature=hidden n=1")


def test_a_line_carries_its_traceback() -> None:
    try:
        raise ValueError("wrong")
    except ValueError as error:
        caught = (type(error), error, error.__traceback__)
    record = logging.makeLogRecord({"name": "x", "levelname": "ERROR", "msg": "m"})
    record.exc_info = caught
    assert "ValueError: wrong" in json.loads(logs.JsonLines().format(record))["traceback"]
    assert "ValueError: wrong" in logs.TextLines().format(record)
