"""The documentation is executed: python blocks against a live market, shell blocks in a shell.

A block fenced ``python`` or ``shell`` is run, page by page and in order; ``sh``, ``text`` and the
like are for reading. Budget: 120 seconds.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import today
from history_market import two_days
from recorded import EXCHANGE_ID
from served import CHECKOUT, COMMAND, serving

BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES: Final = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
# What a page shows below what it runs; an ellipsis stands for what differs each time.
LINES: Final = r"(?:(?!```).*\n)*"
SHOWN: Final = re.compile(f"^```shell\\n{LINES}```\\n\\n```text\\n({LINES})```$", re.MULTILINE)
WRITTEN_ADDRESS: Final = "ws://localhost:8000"


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of a language, with expiries that are listed today."""
    found = BLOCK.findall(today.dated(page.read_text()))
    return [text for kind, text in found if kind == language]


def name(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def hourbook_on_path(folder: Path) -> dict[str, str]:
    """An environment in which ``hourbook`` is this checkout's."""
    command = folder / "bin" / "hourbook"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(CHECKOUT)}


@pytest.fixture(scope="module")
def funded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market of two accounts with money, and the key of one. A page has a copy of it."""
    folder = tmp_path_factory.mktemp("funded")
    for arguments in (["deposit", "1", "5000000"], ["deposit", "2", "5000000"]):
        command = [*COMMAND, "admin", *arguments, "--data", str(folder / "market")]
        subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True)
    created = [*COMMAND, "keys", "create", "1", "--data", str(folder / "market")]
    key = subprocess.run(created, cwd=CHECKOUT, capture_output=True, check=True).stdout
    (folder / "key.json").write_bytes(key)
    assert set(json.loads(key)) == {"key_id", "secret"}
    return folder


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name)
def test_python_blocks_run_against_a_live_market(page: Path, funded: Path, tmp_path: Path) -> None:
    warnings = ["-W", "error"]
    if "ccxt" in page.name:
        pytest.importorskip("ccxt", reason="ccxt is not installed: pip install '.[dev]'")
        warnings += ["-W", "ignore::DeprecationWarning"]  # of what ccxt asks of aiohttp
    shutil.copytree(funded, tmp_path, dirs_exist_ok=True)
    data = tmp_path / "market"
    environment = hourbook_on_path(tmp_path)
    with serving(data, "--deribit") as server:
        address = server.ready["ws"].removesuffix("/ws")
        script = "\n".join(blocks(page, "python")).replace(WRITTEN_ADDRESS, address)
        done = subprocess.run(
            [sys.executable, *warnings, "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "shell")], ids=name)
def test_shell_blocks_run(page: Path, tmp_path: Path) -> None:
    lines = "\n".join(blocks(page, "shell")).splitlines()
    script = "\n".join(line for line in lines if not line.startswith("hourbook serve"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=hourbook_on_path(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in SHOWN.findall(today.dated(page.read_text())):
        assert re.search(re.escape(shown).replace("…", ".*"), done.stdout), done.stdout


def test_a_market_that_has_not_stopped_yet_is_copied_as_the_page_says(tmp_path: Path) -> None:
    """It has no head."""
    market = two_days(batches=2).write(tmp_path / "market")
    (market / "exchange.id").write_text(EXCHANGE_ID.hex())
    (market / "head").unlink()
    page = CHECKOUT / "docs/howto/keep-a-log.md"
    (copy,) = (block for block in blocks(page, "shell") if block.startswith("mkdir copy"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", copy],
        cwd=tmp_path,
        env=hourbook_on_path(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [p for p in PAGES if " > key.json" in p.read_text()], ids=name)
def test_a_key_is_written_where_only_its_owner_can_read_it(page: Path) -> None:
    lines = [
        line
        for kind in ("shell", "sh")
        for block in blocks(page, kind)
        for line in block.splitlines()
    ]
    made = next(at for at, line in enumerate(lines) if " > key.json" in line)
    assert any(line.startswith("umask 077") for line in lines[:made])
