"""What the command line says to people: values as they read them, and help.

Budget: 10 seconds.
"""

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
import today
from served import CHECKOUT
from typer.testing import CliRunner

from clients import bots
from clients.bots import options
from exchange.app import requests
from exchange.cli.bench import BENCHES
from exchange.cli.conduct import Feature
from exchange.cli.operator import show_proposals
from exchange.cli.output import plain
from exchange.cli.root import app
from exchange.cli.rulings import show_rulings

CODE, NEXT = today.listed()[2:4]
PYTHON = re.compile(r"\b(None|True|False)\b|[\[{]['\"0-9]")  # a value as Python writes it


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


def test_a_time_that_there_is_none_of_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a schedule that has ended, say."""
    facts = {"times": 0, "next": 0}
    ruling = {"operation": "schedule_cycles", "outcome": "accepted", "facts": facts}
    show_rulings({"rulings": [ruling]}, as_json=False)
    assert capsys.readouterr().out.splitlines()[-1] == "next   -"


def test_a_proposal_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A switch that is to be lifted is not shown as one that is to be thrown."""
    request = msgspec.to_builtins(requests.Kill(account=1, lift=True, reason="mended, tried"))
    one = {"proposal": "a1", "by": "b2", "expires": "2026-11-23T18:03:28+00:00", "request": request}
    show_proposals({"proposals": [one]}, False)
    assert (
        capsys.readouterr()
        .out.splitlines()[1]
        .endswith(
            "operation kill; scope account; account 1; session 0; member 0; lift yes;"
            " reason mended, tried"
        )
    )


def test_json_keeps_the_values(kept: Path) -> None:
    told: dict[str, Any] = json.loads(said("replay", kept, "--verify", "--json"))
    assert (told["verified"], told["divergence"], told["tail_dropped"]) == (True, None, None)


class Built(Exception):
    """The parser of a benchmark, in place of its run."""


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise Built(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    module = importlib.import_module(f"benches.{name}")
    with pytest.raises(Built) as built:
        [*module.main(*([[]] if signature(module.main).parameters else []))]
    (parser,) = built.value.args
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def helps(parser: argparse.ArgumentParser) -> dict[str, str | None]:
    return {action.dest: action.help for action in parser._actions}


@pytest.mark.parametrize("name", ["core", *BENCHES])
def test_every_argument_of_every_benchmark_has_help(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = benchmark(name, monkeypatch)
    assert parser.prog == f"hourbook bench {name}" and parser.description
    told = helps(parser)
    assert {"json", "record"} < told.keys()
    assert [argument for argument, text in told.items() if not text] == []
    assert not PYTHON.search(parser.format_help())


@pytest.mark.parametrize("name", ["core", *BENCHES])
def test_a_number_that_makes_no_sense_ends_no_benchmark_in_a_traceback(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted is 1 or more; only a seed, and what is passed over, may be 0."""
    numbers = {one.dest for one in benchmark(name, monkeypatch)._actions if one.type is int}
    assert numbers <= {"seed", "skip", "tail"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay", "--rounds", "0"], "argument --rounds: 0: it is a whole number, 1 or more"),
        (["replay", "--rounds", "x"], "argument --rounds: x: it is"),
        (["soak", "--rate", "0"], "--rate above 0"),
        (["soak", "--seconds", "1"], "--seconds is 4 or more"),
        (["soak", "--plot", "none"], "argument --plot: none: there is no such folder"),
    ],
)
def test_a_benchmark_says_what_is_wrong_before_it_begins(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert CliRunner().invoke(app, ["bench", *arguments]).exit_code == 2
    assert said in capfd.readouterr().err


def test_a_benchmark_whose_rows_nobody_reads_ends_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "exchange.cli", "bench", "contracts", "--json"]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (3, b"")


@pytest.mark.parametrize("bot", [found.name for found in iter_modules(bots.__path__)])
def test_every_argument_of_every_bot_has_help(bot: str) -> None:
    add = getattr(importlib.import_module(f"clients.bots.{bot}"), "arguments", None)
    assert [name for name, text in helps(options.parser("", add)).items() if not text] == []


def test_a_benchmark_tells_its_own_options(capfd: pytest.CaptureFixture[str]) -> None:
    assert CliRunner().invoke(app, ["bench", "ledger", "--help"]).exit_code == 0
    assert "--divide" in capfd.readouterr().out


def test_every_feature_can_be_turned_off() -> None:
    known = get_type_hints(requests.SetFeature)["feature"]
    assert get_args(known) == get_args(Feature)
