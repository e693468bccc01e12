"""The threat model names tests that are there, and every room."""

import re
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[1]
MODEL: Final = (CHECKOUT / "THREAT_MODEL.md").read_text()
ROOMS: Final = (
    "gateway", "sequencer", "journal", "engine", "clearing", "app", "contracts", "marketdata",
    "history", "clients", "sim", "cli",
)  # fmt: skip


def test_every_test_that_it_names_is_there() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", MODEL)
    assert len(named) > 30
    for file, test in named:
        text = (CHECKOUT / "tests" / file).read_text()
        assert re.search(rf"^(async )?def {test}\(", text, re.MULTILINE), f"{file}::{test}"


def test_every_room_has_its_place() -> None:
    headings = " ".join(re.findall(r"^## (.+)$", MODEL, re.MULTILINE))
    assert [room for room in ROOMS if room not in headings] == []
    assert MODEL.count("**Left.**") == MODEL.count("\n## ")
