"""docs/verify_log.py: an auditor's script that shares no line with the project.

Budget: 8 seconds on two cores.
"""

import ast
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from history_market import two_days
from recorded import FIRST_SEGMENT, crashed_copy, deposits, frame_bounds, record

from exchange.history import walk

CHECKOUT = Path(__file__).parents[1]
SCRIPTS = ("verify_log.py", "verify_audit.py")


def verify(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(CHECKOUT / "docs/verify_log.py"), str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def verified(directory: Path) -> dict[str, Any]:
    done = verify(directory)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_days(batches=60).write(tmp_path_factory.mktemp("verify") / "market")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_import_nothing_of_the_project(name: str) -> None:
    tree = ast.parse((CHECKOUT / "docs" / name).read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names}  # fmt: skip
    named |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}  # type: ignore[misc]
    foreign = {module.split(".")[0] for module in named} - set(sys.stdlib_module_names)
    assert foreign <= {"blake3"}
    statements = [n for n in ast.walk(tree) if isinstance(n, ast.stmt)]
    assert len(statements) <= 65, "short enough to write again"


def test_a_recorded_log_is_verified_and_counted(market: Path) -> None:
    found = verified(market)
    replayed = walk.replay(market)
    assert found["commands"] == replayed.replayer.commands
    assert found["frames"] == replayed.replayer.frames
    assert found["torn_end"] == []
    kinds: dict[str, int] = {}
    for frame, _ in walk.batches(market):
        for kind in frame.commands[::64]:
            kinds[str(kind)] = kinds.get(str(kind), 0) + 1
    assert found["by_kind"] == kinds


@pytest.mark.parametrize(
    "log", sorted((CHECKOUT / "tests/golden").glob("*/log")), ids=lambda log: str(log.parent.name)
)
def test_logs_kept_from_older_versions_are_verified(log: Path) -> None:
    expected = json.loads((log.parent / "expected.json").read_text())
    found = verified(log.parent)
    assert (found["commands"], found["last_hash"]) == (
        expected["last_sequence"], expected["last_hash"],
    )  # fmt: skip


def test_segments_restarts_and_archives_are_followed(tmp_path: Path) -> None:
    for start in (0, 1_000):
        batches = [deposits(40, start + 100 * n) for n in range(1, 6)]
        record(tmp_path, batches, segment_bytes=4_000)
    whole = verified(tmp_path)
    segments = sorted((tmp_path / "log").glob("*.hbl"))
    assert len(segments) > 3
    for segment in segments[:2]:
        segment.with_name(f"{segment.name}.gz").write_bytes(gzip.compress(segment.read_bytes()))
        segment.unlink()
    assert verified(tmp_path) == whole
    segments[2].unlink()
    assert "was to come next" in verify(tmp_path).stderr


def test_what_an_archiving_left_when_it_was_killed_is_read_as_by_a_start(tmp_path: Path) -> None:
    """A segment beside its archive, and an archive that was not complete."""
    record(tmp_path, [deposits(40, 100 * n) for n in range(1, 6)], segment_bytes=4_000)
    whole = verified(tmp_path)
    first, second, *_ = sorted((tmp_path / "log").glob("*.hbl"))
    packed = gzip.compress(first.read_bytes())
    first.with_name(f"{first.name}.gz").write_bytes(packed)
    second.with_name(f"{second.name}.gz.new").write_bytes(packed[:100])
    assert verified(tmp_path) == whole
    assert walk.replay(tmp_path).replayer.commands == whole["commands"]


@pytest.mark.parametrize("kept", [2, 4, 100, 300, 0.5, -1])
def test_a_torn_end_in_space_that_was_reserved_is_named(
    market: Path, tmp_path: Path, kept: float
) -> None:
    """A power cut leaves a part of the last frame, and zeros up to where space was reserved."""
    copy = crashed_copy(market, tmp_path / "copy")
    start, end = frame_bounds(market)[-1]
    keep = int(kept * (end - start)) if 0 < kept < 1 else int(kept) % (end - start)
    path = copy / FIRST_SEGMENT
    whole = path.read_bytes()
    path.write_bytes(whole[: start + keep] + bytes(end - start - keep + 4_096))
    found = verified(copy)
    assert found["torn_end"] == [f"{path.name} at byte {start}"]
    replayed = walk.replay(copy)
    assert replayed.tail_dropped is not None
    assert found["commands"] == replayed.replayer.commands
    shutil.copy(market / "head", copy / "head")
    assert f"at byte {start}" in verify(copy).stderr


def test_damage_below_what_was_durable_is_no_torn_end(market: Path, tmp_path: Path) -> None:
    """Frames beyond the damage say so, without a head."""
    copy = crashed_copy(market, tmp_path / "copy")
    start, _ = frame_bounds(market)[10]
    path = copy / FIRST_SEGMENT
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + bytes(60) + whole[start + 60 :])
    done = verify(copy)
    assert (done.returncode, f"at byte {start}: no frame" in done.stderr) == (1, True)


def test_zeros_behind_the_last_frame_are_the_end(market: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(market, tmp_path / "copy")
    with open(copy / FIRST_SEGMENT, "ab") as file:
        file.write(bytes(4_096))
    assert verified(copy) == verified(market)


def test_where_there_is_no_log_nothing_is_verified(market: Path, tmp_path: Path) -> None:
    """A directory that does not exist, and a log that was emptied with its head."""
    copy = shutil.copytree(market, tmp_path / "copy")
    (copy / FIRST_SEGMENT).unlink()
    (copy / "head").unlink()
    for directory in (copy, tmp_path / "misspelt"):
        done = verify(directory)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"NOT VERIFIED: {directory / 'log'}: another frame, or none" in done.stderr


def test_a_torn_end_that_nobody_was_told_of_is_named(market: Path, tmp_path: Path) -> None:
    copy = crashed_copy(market, tmp_path / "copy")
    start, end = frame_bounds(market)[-1]
    path = copy / FIRST_SEGMENT
    path.write_bytes(path.read_bytes()[: end - 3])
    found = verified(copy)
    assert found["torn_end"] == [f"{path.name} at byte {start}"]
    shutil.copy(market / "head", copy / "head")
    assert verify(copy).returncode == 1


Damage = Callable[[bytes, list[tuple[int, int]]], bytes]


def flipped(offset: int) -> Damage:
    """One bit of the tenth frame."""

    def damage(data: bytes, bounds: list[tuple[int, int]]) -> bytes:
        at = bounds[10][0] + offset
        return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

    return damage


def without(data: bytes, bounds: list[tuple[int, int]]) -> bytes:
    return data[: bounds[10][0]] + data[bounds[10][1] :]


def doubled(data: bytes, bounds: list[tuple[int, int]]) -> bytes:
    return data[: bounds[10][1]] + data[bounds[10][0] :]


def swapped(data: bytes, bounds: list[tuple[int, int]]) -> bytes:
    (a, b), (_, c) = bounds[10], bounds[11]
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def shortened(data: bytes, bounds: list[tuple[int, int]]) -> bytes:
    return data[: bounds[-2][1]]


def emptied(data: bytes, bounds: list[tuple[int, int]]) -> bytes:
    return data[: bounds[10][0]] + bytes(len(data) - bounds[10][0])


@pytest.mark.parametrize(
    ("damage", "says"),
    [(flipped(2), "format"), (flipped(9), "CRC"), (flipped(40), "CRC"), (flipped(105), "CRC"),
     (flipped(168), "CRC"), (flipped(180), "hash"), (flipped(212), "CRC"), (without, "chained"),
     (doubled, "chained"), (swapped, "chained"), (shortened, "head"), (emptied, "head")],
    ids=["format", "exchange", "stamp", "chain", "crc", "hash", "command", "without", "doubled",
         "swapped", "shortened", "emptied"],
)  # fmt: skip
def test_damage_is_named_with_its_place(
    market: Path, tmp_path: Path, damage: Damage, says: str
) -> None:
    copy = shutil.copytree(market, tmp_path / "copy")
    path, bounds = copy / FIRST_SEGMENT, frame_bounds(market)
    path.write_bytes(damage(path.read_bytes(), bounds))
    done = verify(copy)
    assert done.returncode == 1
    assert done.stderr.startswith("NOT VERIFIED")
    assert says in done.stderr
    if says != "head":
        place = bounds[11][0] if damage is doubled else bounds[10][0]
        assert f"at byte {place}" in done.stderr
