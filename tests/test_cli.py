"""The command line, run as its users run it: as a process, by its exit codes and its output.

Budget: 150 seconds.
"""

import json
import os
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import today
import typer.main
from served import CHECKOUT, COMMAND, serving

from exchange.cli.root import app

CODE = today.code()


def run_hourbook(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command, however it ends."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def hourbook(*arguments: str | Path, code: int = 0) -> str:
    """Run a command; its stdout, or its stderr if it was to fail."""
    done = run_hourbook(*arguments)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stderr if code else done.stdout


def result(*arguments: str | Path) -> Any:
    return json.loads(hourbook(*arguments, "--json"))


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the command line that does something."""
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from commands(child, (*path, name))
    if not children:
        yield path


@pytest.mark.parametrize("path", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_has_help_and_a_place_in_the_reference(path: tuple[str, ...]) -> None:
    page = (CHECKOUT / "docs/reference/cli.md").read_text()
    assert f"hourbook {' '.join(path)}" in page
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    assert command.help
    assert [one.name for one in command.params if not one.help] == []
    for option in (o for p in command.params for o in p.opts if o.startswith("--")):
        assert option in page, option


def test_help_does_not_load_the_market() -> None:
    heavy = "{'aiohttp', 'sqlite_utils', 'rich', 'exchange.engine.core'}"
    code = f"import exchange.cli.root, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_a_market_does_not_load_pandas_nor_keep_it_from_others() -> None:
    code = "import sys, exchange.app; assert 'pandas' not in sys.modules; import pandas"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)


def test_contracts_are_listed_and_shown() -> None:
    day = ("--on", "2026-11-20")
    opened = result("contracts", "list", *day, "--opened")
    assert len(opened) == 48
    assert {i["product"] for i in opened} == {"A100", "H100", "H200", "B200"}
    listed = result("contracts", "list", *day)
    assert len([i for i in listed if i["kind"] == "outright"]) == 12 * 24
    quarters = result("contracts", "list", *day, "--product", "H100P", "--kind", "quarter")
    assert [i["code"] for i in quarters][:2] == ["H100P-1Q27", "H100P-2Q27"]
    assert result("contracts", "show", "H100Z26")["multiplier"] == 744
    assert "744 GPU-hours" in hourbook("contracts", "show", "H100Z26")
    assert "2160 GPU-hours net" in hourbook("contracts", "show", "H100-1Q27")
    assert "administrator" in hourbook("contracts", "show", "H100")
    physical = result("contracts", "show", "H100P")
    assert physical["schedule"]["last_trading"] == 3
    assert set(physical["index_facts"]) >= {"administrator", "data_sufficiency"}
    assert "H100Z26" in hourbook("contracts", "list", *day)
    assert "contracts list" in hourbook("contracts", "show", "GOLD", code=1)
    assert "2025 to 2040" in hourbook("contracts", "show", "H100Z45", code=1)
    assert "A100P" in hourbook("contracts", "list", "--product", "GOLD", code=1)
    planned = result("contracts", "schedule", "H100", "--date", "2026-11-23")
    assert [step["phase"] for step in planned["steps"]][0::4] == ["pre-open", "closed"]


def test_a_cycle_that_is_longer_than_the_calendar_is_listed_as_far_as_it_goes() -> None:
    """Whoever takes the list has less of it; stderr says so, and why."""
    for day, months in (("2038-11-01", 24), ("2038-12-01", 23), ("2039-06-01", 17)):
        done = run_hourbook("contracts", "list", "--on", day, "--product", "H100", "--json")
        kinds = Counter(one["kind"] for one in json.loads(done.stdout))
        assert (done.returncode, kinds["outright"], kinds["spread"]) == (0, months, months - 1)
        note = f"hourbook: the first {months} months only: calendar US knows 2025 to 2040"
        assert done.stderr.startswith(note) if months < 24 else done.stderr == ""
    for command in (("pages", "nowhere", "--on"), ("list", "--opened", "--on")):
        done = run_hourbook("contracts", *command, "2040-12-03")
        assert done.returncode == 1 and "Until then name an earlier day" in done.stderr
    assert not Path("nowhere").exists()


def test_contract_files_are_checked_and_compared(tmp_path: Path) -> None:
    assert result("contracts", "check") == {"versions": 12, "faults": []}
    shipped = CHECKOUT / "contracts/data/h100.toml"
    mine = tmp_path / "h100.toml"
    mine.write_text(shipped.read_text().replace('tick = "0.001"', 'tick = "0"'))
    done = run_hourbook("contracts", "check", mine)
    assert done.returncode == 1
    assert "h100.toml: version 1, lot.tick = '0' must be a power of ten" in done.stdout
    mine.write_text(shipped.read_text().replace("taker_fee = 400_000", "taker_fee = 500_000"))
    done = run_hourbook("contracts", "check", tmp_path, "--json")
    (fault,) = json.loads(done.stdout)["faults"]
    assert (fault["file"], fault["field"]) == ("H100 2026-01-01", "taker_fee")
    assert "in force; add a [[version]]" in fault["rule"]
    text = shipped.read_text()
    version = text[text.index("\n[[version]]") :].replace('"2026-01"', '"2029-03"')
    for effective, count in (("2027-03-01", 0), ("2026-06-01", 1)):
        mine.write_text(text + version.replace("2026-01-01", effective))
        done = run_hourbook("contracts", "check", mine, "--on", "2026-12-01")
        assert done.stdout.count("must begin after 2026-12-01") == count
        assert done.returncode == count
    mine.write_text(text.replace("taker_fee = 400_000", "taker_fee = 500_000"))
    done = run_hourbook("contracts", "diff", shipped, mine, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == [
        {"what": "H100 2026-01-01", "field": "taker_fee", "before": "400000", "after": "500000"}
    ]
    assert result("contracts", "diff", shipped, shipped) == []
    assert "last_trading_day" in run_hourbook("contracts", "diff", "H100Z26", "H100PZ26").stdout
    assert "no file" in hourbook("contracts", "check", tmp_path / "none", code=3)
    assert "at most 65536 bytes" in run_hourbook("contracts", "check", "/dev/zero").stdout
    for day in ("2040-12-31", "2041-01-02"):
        assert "2025 to 2040" in hourbook("contracts", "list", "--on", day, code=1)
    mine.write_text("tick")
    assert "contracts check" in hourbook("contracts", "diff", shipped, mine, code=1)
    pages = result("contracts", "pages", tmp_path / "pages", "--on", "2026-12-01")
    assert len(pages) == 12


def test_a_served_market_is_operated_and_stopped(tmp_path: Path) -> None:
    data = ("--data", tmp_path)
    with serving(tmp_path) as server:
        assert server.ready["ws"].startswith("ws://127.0.0.1:")
        key = json.loads(hourbook("keys", "create", "5", *data))
        assert set(key) == {"key_id", "secret"}
        assert result("admin", "deposit", "5", "250.25", *data)["cash"] == "250.250000"
        hourbook("admin", "halt", CODE, *data)
        assert "not listed" in hourbook("admin", "halt", "H100Z99", *data, code=1)
        state = result("admin", "state", *data)
        assert [i["code"] for i in state["instruments"] if i["state"] == "HALTED"] == [CODE]
        by_url = ("--url", server.ready["http"], "--key", server.ready["admin_key"])
        assert result("admin", "withdraw", "5", "50.25", *by_url)["cash"] == "200.000000"
        second = tmp_path / "second.json"
        second.write_text(hourbook("keys", "create", "0", "--scope", "admin", *data))
        propose = ("clear", "propose-price", CODE, "3.1", "--reason", "a wrong print")
        proposal = result(*propose, *by_url)["proposal"]
        assert "another person" in hourbook("admin", "approve", proposal, *by_url, code=1)
        other = ("--url", server.ready["http"], "--key", second)
        assert result("admin", "approve", proposal, *other)["price"] == "3.100000"
        lift = ("admin", "kill", "5", "--lift", "--reason", "a slip", *by_url)
        assert "killed    yes" in hourbook(*lift[:3], *data)
        assert "another person has to approve it: hourbook admin approve" in hourbook(*lift)
        assert result("clear", "settle", *data)["settlement_prices"][CODE] == "3.100000"
        last = json.loads(server.stop())
    assert last["stopped"]
    replayed = result("replay", tmp_path, "--verify")
    assert replayed["state_hash"] == last["state_hash"]
    assert replayed["verified"]


def test_a_market_nobody_serves_is_operated_through_its_log(tmp_path: Path) -> None:
    data = ("--data", tmp_path)
    hourbook("admin", "deposit", "5", "100", *data)
    hourbook("admin", "account", "6", "--member", "5", *data)
    hourbook("admin", "kill", "6", *data)
    hourbook("admin", "halt", today.code("B200"), *data)
    hourbook("admin", "mode", "cancel_only", *data)
    assert result("admin", "state", *data)["mode"] == "CANCEL_ONLY"
    propose = ("clear", "propose-price", CODE, "3.1", "--reason", "a wrong print")
    assert "an admin key of their own" in hourbook(*propose, *data, code=1)
    settled = result("clear", "settle", *data)
    assert CODE in settled["settlement_prices"]
    assert "settled already" in hourbook("clear", "settle", *data, code=1)
    hourbook("admin", "open-day", *data)
    hourbook("admin", "resume", today.code("B200"), *data)
    balance = result("clear", "trial-balance", *data)
    assert balance["debits"] == balance["credits"] == 100_000_000
    assert result("clear", "statement", "5", *data)["closing"] == 100_000_000
    assert "cash/5" in hourbook("clear", "trial-balance", *data)
    page, beans, asked = (tmp_path / name for name in ("5.html", "ledger.beancount", "call.json"))
    hourbook("clear", "statement", "5", "--html", page, *data)
    assert "<h1>Statement of account 5</h1>" in page.read_text()
    assert result("clear", "export", beans, *data)["lines"] == len(beans.read_text().splitlines())
    assert result("clear", "roll-forward", *data) == []
    asked.write_text('{"operation": "call_margin"}')
    assert "call_margin accepted" in hourbook("clear", "record", asked, *data)
    assert "closing" in hourbook("clear", "statement", "5", *data)
    assert "never opened" in hourbook("clear", "statement", "77", *data, code=1)
    replayed = result("replay", tmp_path, "--verify", "--until", "100")
    assert replayed["last_sequence"] == 100


def test_a_killed_market_comes_back_with_what_it_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        hourbook("admin", "deposit", "5", "100", "--data", tmp_path)
        server.stop(signal.SIGKILL)
    with serving(tmp_path):
        hourbook("admin", "deposit", "5", "1", "--data", tmp_path)
        said = result("admin", "deposit", "5", "1", "--data", tmp_path)
        assert said["cash"] == "102.000000"


def test_what_cannot_be_used_says_so(tmp_path: Path) -> None:
    assert "hourbook serve" in hourbook("admin", "state", "--data", tmp_path / "no", code=3)
    assert "data directory" in hourbook("replay", tmp_path / "no", code=3)
    nobody = ("--url", "http://127.0.0.1:9")
    assert "--key" in hourbook("admin", "state", *nobody, "--key", tmp_path / "no", code=3)
    key = tmp_path / "key.json"
    key.write_text('{"key_id": "a", "secret": "b"}')
    assert "127.0.0.1:9" in hourbook("admin", "state", *nobody, "--key", key, code=3)
    with serving(tmp_path):
        assert "held by another writer" in hourbook("serve", "--data", tmp_path, code=3)


def test_a_damaged_log_is_refused_with_its_place(tmp_path: Path) -> None:
    hourbook("admin", "deposit", "5", "100", "--data", tmp_path)
    (segment,) = (tmp_path / "log").iterdir()
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    assert "at byte" in hourbook("serve", "--data", tmp_path, code=3)
    assert "at byte" in hourbook("replay", tmp_path, "--verify", code=3)


@pytest.mark.parametrize(
    "arguments",
    [("admin", "mode", "sideways"), ("demo", "--seconds", "0"), ("nonsense",),
     ("clear", "propose-price", "H100Z26"), ("keys", "create", "5", "--scope", "all")],
    ids=" ".join,
)  # fmt: skip
def test_a_command_line_that_makes_no_sense_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert hourbook(*arguments, code=2)


def test_a_flow_is_run_and_counted(tmp_path: Path) -> None:
    record = struct.Struct("<BBHIqQQ")  # kind, side, symbol, quantity, price, order id, argument
    flow = tmp_path / "two.bin"
    flow.write_bytes(record.pack(1, 0, 0, 5, 100, 1, 0) + record.pack(1, 1, 0, 3, 100, 2, 0))
    told = result("flow", flow)
    assert (told["n"], told["trades"], told["volume"], told["resting_qty"]) == (2, 1, 3, 2)
    flow.write_bytes(record.pack(1, 0, 0, 5, 1, 1, 0) + record.pack(1, 1, 0, 3, 10**12, 2, 0))
    assert "symbol 0 cannot be listed" in hourbook("flow", flow, code=3)
    flow.write_bytes(b"short")
    assert "two.bin" in hourbook("flow", flow, code=3)


def test_progress_stays_off_what_is_no_terminal(tmp_path: Path) -> None:
    hourbook("admin", "deposit", "5", "100", "--data", tmp_path)
    done = subprocess.run(
        [*COMMAND, "replay", str(tmp_path)], cwd=CHECKOUT, capture_output=True, check=True
    )
    assert done.stderr == b""


def test_progress_shows_on_a_terminal(tmp_path: Path) -> None:
    hourbook("admin", "deposit", "5", "100", "--data", tmp_path)
    ours, theirs = os.openpty()
    try:
        subprocess.run(
            [*COMMAND, "replay", str(tmp_path)],
            cwd=CHECKOUT,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
            check=True,
        )
        assert b"replaying" in os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)
