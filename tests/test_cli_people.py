"""What the command line says to people: values as they read them, and help for every argument.

Budget: 30 seconds.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import today
from typer.testing import CliRunner

from exchange.cli.output import plain
from exchange.cli.root import app

CODE, NEXT = today.listed()[2:4]
PYTHON = re.compile(r"\b(None|True|False)\b|[\[{(]['\"0-9]")  # a value as Python writes it


def said(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market with an account that has money."""
    data = tmp_path_factory.mktemp("kept") / "market"
    said("admin", "deposit", "1", "1000", "--data", data)
    return data


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (True, "yes"),
        (False, "no"),
        (None, "-"),
        ("", "-"),
        ([], "-"),
        ({}, "-"),
        (0, "0"),
        ("None", "None"),
        (("a", None), "a, -"),
        ({"drop": 2, "gap": 0}, "drop 2, gap 0"),
        ({"enter": {"most": 3, "least": 1}, "on": True}, "enter most 3, least 1; on yes"),
    ],
)
def test_a_value_is_written_for_people(value: object, read: str) -> None:
    assert plain(value) == read


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("admin state --data KEPT", "day open           yes"),
        ("admin account 2 --data KEPT", "opened   yes"),
        ("admin kill 1 --data KEPT", "killed    yes"),
        (f"admin list {CODE}-{NEXT} --data KEPT", f"legs              {CODE} 1, {NEXT} -1"),
        ("admin implied --off --data KEPT", "changed  -"),
        ("admin feature stops --data KEPT", "on       no"),
        ("admin proposals --data KEPT", "none"),
        ("clear default capital 2000 --person ann --data KEPT", "capital  2,000.000000 USD"),
        ("clear default size-fund --person ann --data KEPT", "size               0.000000 USD"),
        ("clear schedule 16:00 --data KEPT", "T16:00:00.000Z"),
        ("replay KEPT --verify --account 1", "divergence           -"),
        (f"replay KEPT --book {CODE}", "none"),
        ("config show", "serve.deribit                     false"),
        ("index rules HBX-H100", "venues                  neocloud, marketplace"),
        ("contracts list --on 2025-01-02", "none"),
        (f"contracts diff {CODE} {CODE}", "no difference"),
    ],
)
def test_no_value_is_printed_as_python_has_it(
    kept: Path, tmp_path: Path, command: str, line: str
) -> None:
    shutil.copytree(kept, tmp_path / "market")
    words = [str(tmp_path / "market") if word == "KEPT" else word for word in command.split()]
    told = said(*words)
    assert line in told and not PYTHON.search(told), told


def test_json_keeps_the_values(kept: Path) -> None:
    told: dict[str, Any] = json.loads(said("replay", kept, "--verify", "--json"))
    assert (told["verified"], told["divergence"], told["tail_dropped"]) == (True, None, None)
