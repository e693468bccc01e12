"""Old logs are read for ever, new versions refused by name, and numbers keep their meaning."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import golden_logs
import msgspec
import pytest
from golden_logs import (
    FOLDER,
    RECIPES,
    VOCABULARY,
    extended,
    file_hashes,
    found_in,
    name_of,
    vocabulary,
)
from test_journal import reseal

from exchange.clearing.docket import MATTERS
from exchange.clearing.store import STORE_VERSION, Store
from exchange.engine import Engine
from exchange.journal import frame as frames
from exchange.journal.errors import NewerVersion
from exchange.journal.frame import digest
from exchange.journal.places import list_segments
from exchange.journal.retention import archive_upto, restore
from exchange.journal.storage import LocalStorage
from exchange.messages import RULES_VERSION, SCHEMA_VERSION, CommandKind
from exchange.sequencer import replay

LOGS = sorted(path for path in FOLDER.iterdir() if path.is_dir())


def expected_of(log: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((log / golden_logs.EXPECTED_NAME).read_text())
    return found


@pytest.fixture(params=LOGS, ids=lambda log: log.name)
def log(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_an_old_log_is_as_it_was_recorded(log: Path) -> None:
    assert file_hashes(log) == expected_of(log)["files"]


def test_an_old_log_replays_to_its_old_bytes(log: Path) -> None:
    """Events, texts, state, chain: all of it, whatever this build's own versions are."""
    expected, found = expected_of(log), found_in(log)
    versions = ("format", "schema", "rules")
    assert {k: v for k, v in found.items() if k not in versions} == {
        k: v for k, v in expected.items() if k not in versions
    }
    assert all(expected[name] <= found[name] for name in versions)


def test_an_old_log_archived_and_restored_replays_the_same(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(log, copy)
    storage, state = LocalStorage(copy), expected_of(log)["state_hash"]
    archive_upto(storage, 1 << 62)
    assert replay(copy, Engine).state_hash.hex() == state
    if any(segment.archived for segment in list_segments(storage)):
        restore(storage, storage)
    assert replay(copy, Engine).state_hash.hex() == state


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_present_versions_have_a_log_of_every_recipe(recipe: str) -> None:
    assert (FOLDER / name_of(recipe)).is_dir(), "see tests/golden/README.md"


def test_the_logs_hold_every_kind_of_command() -> None:
    kinds = {kind for log in LOGS for kind in expected_of(log)["kinds"]}
    missing = [kind.name for kind in CommandKind if kind not in kinds]
    assert not missing, "add a recipe to tests/golden_logs.py that says these, and record it"


def test_the_recorder_touches_nothing_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden_logs, "FOLDER", tmp_path)
    assert golden_logs.record("busy")
    (made,) = tmp_path.iterdir()
    assert found_in(made) == expected_of(made)
    (made / "log" / "mark").write_text("mine")
    before = file_hashes(made)
    assert not golden_logs.record("busy")
    assert file_hashes(made) == before


@pytest.mark.parametrize(
    ("at", "size", "what", "known"),
    [(4, 2, "format", frames.FORMAT_VERSION), (6, 2, "schema", SCHEMA_VERSION),
     (60, 4, "rules", RULES_VERSION)],
)  # fmt: skip
def test_a_newer_log_is_refused_by_name(
    tmp_path: Path, at: int, size: int, what: str, known: int
) -> None:
    """From its first frame on, whole and well chained as it is."""
    shutil.copytree(FOLDER / name_of("busy"), tmp_path / "newer")
    (path,) = (tmp_path / "newer/log").iterdir()
    data = path.read_bytes()
    end = frames.peek(data, 0)
    assert end is not None
    newer = bytearray(data[: end.length])
    newer[at : at + size] = (known + 1).to_bytes(size, "little")
    path.write_bytes(reseal(bytes(newer)) + data[end.length :])
    with pytest.raises(NewerVersion, match=f"{what} version {known + 1}") as caught:
        replay(tmp_path / "newer", Engine)
    assert (caught.value.known, caught.value.found) == (known, known + 1)
    assert "use the build that wrote it" in str(caught.value)


# What was released keeps its meaning


RELEASED: dict[str, Any] = json.loads(VOCABULARY.read_text())


@pytest.mark.parametrize("name", RELEASED["numbers"])
def test_a_number_keeps_its_meaning(name: str) -> None:
    """Members may be added with new numbers; none is renamed, removed or renumbered."""
    now = vocabulary()["numbers"][name]
    then = RELEASED["numbers"][name]
    assert {member: now.get(member) for member in then} == then
    assert len(set(now.values())) == len(now), "a number used twice"


def test_records_of_a_released_schema_keep_their_layout() -> None:
    """Another layout is another schema, and a field once there is there in every later one."""
    now = vocabulary()
    for part in ("records", "frames"):
        for version, layout in now[part].items():
            assert RELEASED[part].get(version, layout) == layout, version
    last: dict[str, list[str]] = {}
    for layouts in RELEASED["records"].values():
        for record, fields in layouts.items():
            assert set(last.get(record, [])) <= set(fields[1:])
            last[record] = fields[1:]


def test_what_is_new_is_written_down() -> None:
    assert extended(RELEASED, vocabulary()) == RELEASED, "see tests/golden/README.md"


def test_the_rule_catches_a_changed_number() -> None:
    changed = vocabulary()
    changed["numbers"]["CommandKind"]["ENTER"] = 99
    assert extended(RELEASED, changed) == RELEASED != changed


def columns_of(store: Store) -> Iterator[tuple[object, ...]]:
    """Every column of the ledger, and what else its file has by name."""
    for row in store.rows("select type, name, tbl_name from sqlite_master order by type, name"):
        yield tuple(row.values())
    columns = (
        'select m.name, c.name as field, c.type, c."notnull", c.pk from sqlite_master m'
        " join pragma_table_xinfo(m.name) c order by m.name, c.cid"
    )
    for row in store.rows(columns):
        yield tuple(row.values())


def without_words(schema: Any) -> Any:
    """A JSON schema without what is for reading alone."""
    if isinstance(schema, list | tuple):
        return [without_words(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    words = ("title", "description")
    return {
        key: without_words(value)
        for key, value in schema.items()
        if key not in words or not isinstance(value, str)  # a field may have such a name
    }


def test_another_layout_of_the_ledger_is_another_version(tmp_path: Path) -> None:
    """If this fails, raise STORE_VERSION and write the new layout here: a start rebuilds the ledger
    of another version, and takes one of its own version for readable."""
    with closing(Store(tmp_path / "ledger.db")) as store:
        tables = list(columns_of(store))
    matters = without_words(msgspec.json.schema_components(MATTERS))
    layout = digest(msgspec.json.encode((tables, matters), order="deterministic")).hex()[:16]
    assert (STORE_VERSION, layout) == (17, "d08efff298f6c3bd")
