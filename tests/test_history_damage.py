"""A log that lost what was durable answers nothing, wherever a question ends. Budget: 5 seconds."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from recorded import BUSY, FIRST_SEGMENT, frame_bounds, read_log, record

from exchange.history import walk
from exchange.history.audit import Trail
from exchange.history.differ import compare
from exchange.journal import frame as frames
from exchange.journal.errors import DamagedLog, JournalError
from exchange.journal.tapecheck import check_tape

LATER = 4_102_444_800 * 10**9  # 2100


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, int]:
    """A log with one flipped bit below its durable mark, and its last sequence."""
    directory = tmp_path / "market"
    record(directory, BUSY)
    last = read_log(directory).last_sequence
    (segment,) = (directory / "log").iterdir()
    data = bytearray(segment.read_bytes())
    data[frame_bounds(directory)[-3][0] + 200] ^= 1
    segment.write_bytes(data)
    return directory, last


@pytest.mark.parametrize(
    "ask",
    [
        lambda directory, last: walk.replay(directory),
        lambda directory, last: walk.replay(directory, until=last),
        lambda directory, last: walk.replay(directory, until=last + 100),
        lambda directory, last: walk.visit(directory, [last], lambda engine, sequence: None),
        lambda directory, last: walk.log_end(directory),
        lambda directory, last: walk.last_sequence_at(directory, LATER),
        lambda directory, last: list(walk.batches(directory)),
        lambda directory, last: compare(directory, directory),
        lambda directory, last: check_tape(directory),
    ],
    ids=["all", "until", "beyond", "visit", "end", "time", "batches", "diff", "tape"],
)
def test_a_question_to_a_damaged_log_is_refused(
    damaged: tuple[Path, int], ask: Callable[[Path, int], object]
) -> None:
    with pytest.raises(DamagedLog, match="restore the log from a copy"):
        ask(*damaged)


@pytest.mark.parametrize(
    ("forged", "refused"),
    [
        ({"texts": b"\xc1"}, "the texts of a batch cannot be read"),
        ({"texts": b"\x91\x92\x01\xa1\xff"}, "the texts of a batch cannot be read"),
        ({"notes": b"\x90"}, "the notes of a batch cannot be read"),
        ({"stamp": 1 << 63}, "stamp: expected 9223372036854775807, found 9223372036854775808"),
        ({"epoch": (1 << 32) - 1}, "epoch: expected 4294967294, found 4294967295"),
    ],
)
def test_a_sealed_frame_that_no_market_writes_is_refused_by_name(
    tmp_path: Path, forged: dict[str, Any], refused: str
) -> None:
    """Checksum, hash and chain are right: they say who wrote it last, not what."""
    directory = tmp_path / "market"
    record(directory, BUSY)
    segment, (start, _) = directory / FIRST_SEGMENT, frame_bounds(directory)[-1]
    data = segment.read_bytes()
    frame = frames.decode(memoryview(data), start)
    parts = {"texts": frame.texts, "notes": frame.notes}
    parts |= {name: part for name, part in forged.items() if name in parts}
    fields = {f"{name}_bytes": len(part) for name, part in parts.items()}
    fields |= {name: value for name, value in forged.items() if name not in parts}
    opening = msgspec.structs.replace(frame.opening, **fields)
    sealed, _ = frames.encode(opening, frame.commands, frame.ingress, **parts)
    segment.write_bytes(data[:start] + sealed)
    (directory / "head").unlink()
    with pytest.raises(JournalError) as caught:
        walk.walk(directory, Trail(lambda row: None).take)
    assert refused in str(caught.value)


def test_what_lies_before_the_damage_can_be_asked(damaged: tuple[Path, int]) -> None:
    directory, last = damaged
    assert walk.replay(directory, until=1).divergence is None
    assert walk.replay(directory, until=last // 2).tail_dropped is None


def test_a_tape_that_reaches_beyond_its_log_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "market"
    record(directory, BUSY)
    (segment,) = (directory / "log").iterdir()
    (directory / "head").unlink()
    last = read_log(directory).last_sequence
    assert check_tape(directory).last_sequence == last
    os.truncate(segment, frame_bounds(directory)[-1][0])
    with pytest.raises(DamagedLog, match=f"durable up to {last}"):
        check_tape(directory)
