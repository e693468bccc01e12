"""Every row that concerns clearing has its test, and no vector is left out without a word."""

import json
import re
from pathlib import Path

import pytest
from clearing_rows import (
    BAD_INPUT,
    EXEMPT,
    FAULTS_OF_CLEARING,
    NOT_OURS_AND_RUN,
    VECTORS,
    Tests,
)
from faults import FAULTS

TESTS = Path(__file__).parent
TABLES = ("settlement", "margin", "ledger", "risk")  # of which the tests read a copy


def missing(places: Tests) -> list[str]:
    """Those of the tests that are not there."""
    found = []
    for place in places:
        file, _, name = place.partition("::")
        path = TESTS / f"{file}.py"
        source = path.read_text() if path.is_file() else ""
        if not re.search(rf"^(async )?def {name}\(", source, re.MULTILINE):
            found.append(place)
    return found


def test_a_test_that_is_not_there_is_missed() -> None:
    assert missing(("test_clearing_rows::test_nothing", "test_no_file::test_x")) == [
        "test_clearing_rows::test_nothing",
        "test_no_file::test_x",
    ]


@pytest.mark.parametrize("fault", FAULTS_OF_CLEARING)
def test_every_fault_of_clearing_has_its_test(fault: str) -> None:
    entry = FAULTS[fault]
    places = (entry,) if isinstance(entry, str) else entry
    assert missing(places) == []


@pytest.mark.parametrize("row", BAD_INPUT)
def test_every_bad_input_of_clearing_has_its_test(row: str) -> None:
    assert BAD_INPUT[row] and missing(BAD_INPUT[row]) == []


def test_the_rows_are_those_of_the_vectors(shared: Path) -> None:
    faults = json.loads((shared / "vectors/faults.json").read_text())["cases"]
    of_clearing = [c["id"] for c in faults if c["area"] == "clearing and ledger"]
    assert of_clearing == list(FAULTS_OF_CLEARING)
    known = {c["id"] for c in json.loads((shared / "vectors/bad_inputs.json").read_text())["cases"]}
    assert BAD_INPUT.keys() <= known


@pytest.mark.parametrize("file", VECTORS)
def test_no_vector_is_left_out_silently(shared: Path, file: str) -> None:
    cases = json.loads((shared / f"vectors/{file}.json").read_text())["cases"]
    ids = [case["id"] for case in cases]
    tested = [id for group in VECTORS[file] for id in group]
    exempt = [name.split()[1] for name in EXEMPT if name.split()[0] == file]
    assert sorted(tested + exempt) == sorted(ids)
    assert len(ids) == len(set(ids))
    for places in VECTORS[file].values():
        assert missing(places) == []
    if file in TABLES:
        table = json.loads((TESTS / f"tables/{file}.json").read_text())["cases"]
        assert [case["id"] for case in table] == ids
    if file == "delivery":
        assert set(NOT_OURS_AND_RUN) == {id for id in ids if id.startswith("K1")}


def test_what_is_left_out_is_named_with_its_reason() -> None:
    assert list(EXEMPT) == ["margin P2", "implied G1"]
    assert all(len(reason) > 20 for reason in EXEMPT.values())
