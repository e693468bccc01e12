"""Pages against the code: requests, refusals, outcomes, messages, and every command line."""

import ast
import re
from enum import IntEnum
from typing import Any

import msgspec
import pytest
import typer.main
from served import CHECKOUT

from exchange.app import requests
from exchange.clearing.margin.parameters import MarginFault
from exchange.clearing.outcomes import Outcome
from exchange.clearing.refusals import Denial
from exchange.cli.root import app

REFERENCE = CHECKOUT / "docs" / "reference"
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
ROOT: Any = typer.main.get_command(app)
# The first words of signed texts, and a placeholder.
NO_COMMANDS = ("attestation segment 1", "probe report 1", "factor table 1", "head 1", "bench NAME")
# A command line on a page: from the start of a line of a block, or between backticks.
SHOWN = re.compile(r"(?:^|`|\$ )(?:[A-Z_]+=\S+ )?hourbook ([a-z][^`\n]*)", re.MULTILINE)


@pytest.mark.parametrize("numbers", [Denial, MarginFault])
def test_every_refusal_of_clearing_is_documented_under_its_number(numbers: type[IntEnum]) -> None:
    page = (REFERENCE / {Denial: "clearing.md", MarginFault: "margin.md"}[numbers]).read_text()
    rows = re.findall(r"^\| (\d{4}) \| ([A-Z_]+) \|", page, re.MULTILINE)
    assert rows == [(str(one.value), one.name) for one in numbers]


def test_every_outcome_of_a_transfer_is_documented_under_its_number() -> None:
    page = (REFERENCE / "ledger.md").read_text().partition("## Outcomes")[2]
    told: list[str] = []
    for numbers, names in re.findall(r"^\| (\d[\d, to]*) \| ([A-Z_, ]+?) \|", page, re.MULTILINE):
        first, *_, last = 2 * re.findall(r"\d+", numbers)
        assert len(names.split(", ")) == int(last) - int(first) + 1
        told += names.split(", ")
    assert len(told) == len(Outcome)
    for name, outcome in zip(told, Outcome, strict=True):
        assert outcome.name.endswith(name)  # a name that begins with _ leaves out what came before


def texts() -> set[str]:
    """Every text in the sources, with an x for what is put into it."""
    found = set()
    for path in (CHECKOUT / "exchange").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (one.value if isinstance(one, ast.Constant) else "x" for one in node.values)
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_the_messages_of_a_failing_disk_are_those_that_the_sources_have() -> None:
    page = (CHECKOUT / "docs" / "howto" / "keep-a-log.md").read_text()
    rows = re.findall(r"^\| (`.*?) \| ", page.partition("## When the disk fails")[2], re.MULTILINE)
    shown = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert len(shown) > 15
    sources = texts()
    for text in shown:
        inner = re.sub(r"\b(?:[A-Z]+|\d+|\w+\\\.db)\b", ".+", re.escape(text))
        assert any(re.search(inner, source) for source in sources), text


def test_every_page_can_be_reached_from_another() -> None:
    pages = {
        page.resolve() for page in (*PAGES, CHECKOUT / "CHANGELOG.md", CHECKOUT / "THREAT_MODEL.md")
    }
    led = {
        (page.parent / target).resolve()
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())
    }
    assert pages - led == {CHECKOUT / "README.md"}


def test_every_decision_is_listed_by_its_title() -> None:
    folder = CHECKOUT / "docs" / "decisions"
    listed = re.findall(
        r"^\| (\d+) \| \[(.+)\]\((.+)\) \|$", (folder / "README.md").read_text(), re.M
    )
    assert listed == [
        (*path.read_text().splitlines()[0].removeprefix("# ").split(". ", 1), path.name)
        for path in sorted(folder.glob("0*.md"))
    ]


def operations() -> dict[str, Any]:
    """The operators' requests by their names."""
    structs = (one for one in vars(requests).values() if isinstance(one, type))
    tagged = (one for one in structs if issubclass(one, msgspec.Struct))
    return {
        str(tag): one
        for one in tagged
        if (tag := one.__struct_config__.tag) not in (None, "Request")
    }


def test_every_request_of_operators_is_documented_field_by_field() -> None:
    page = (REFERENCE / "admin.md").read_text().partition("## Requests")[2]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|(.*?)\| ", page, re.MULTILINE)
    told = {name: fields for names, fields in rows for name in re.findall(r"\w+", names)}
    assert told.keys() - {"operation"} == operations().keys()
    for name, request in operations().items():
        for field in request.__struct_fields__:
            assert f"`{field}`" in told[name], (name, field)


def fault(words: list[str]) -> str:
    """What is wrong with a command line; empty if nothing is."""
    command = ROOT
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):
            return ""  # of a group as a whole
        if words[0] not in command.commands:
            return f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    options = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
    takes_more = command.context_settings.get("ignore_unknown_options", False)
    return "" if takes_more else ", ".join(sorted(options - known))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_command_line_that_a_page_shows_can_be_parsed(page: Any) -> None:
    for shown in SHOWN.findall(page.read_text()):
        line = re.sub(r"'[^']*'|\"[^\"]*\"", "X", shown.replace("\\|", " "))
        words = re.split(r"  +#|[|>;&)\]]| \(|[.:,]( |$)", line)[0].replace("[", "")
        if not words.startswith(NO_COMMANDS):
            assert fault(words.split()) == "", shown
