"""The writing end: segments, the head, one writer, and a disk that fails."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import recorded
from recorded import (
    FIRST_SEGMENT,
    SIZES,
    append,
    crashed_copy,
    deposits,
    frame_bounds,
    journal_at,
    open_sequencer,
    read_log,
    record,
)

from exchange.engine import Engine
from exchange.journal.errors import (
    BrokenChain,
    DamagedHead,
    DamagedLog,
    DirectoryLocked,
    DiskFull,
    JournalStopped,
    NewerVersion,
    WriteFailed,
)
from exchange.journal.head import Head, write_head
from exchange.journal.storage import DirectoryLock, LocalFile, LocalStorage
from exchange.sequencer import replay

market, log = recorded.market, recorded.log  # fixtures


class Writing(LocalStorage):
    """Local files whose every write may be shorter than asked, or fail: ``pwrite`` decides."""

    def __init__(self, directory: Path, pwrite: Callable[[int, memoryview, int], int]) -> None:
        super().__init__(directory)
        self._pwrite = pwrite

    def open(self, name: str, *, write: bool = False) -> LocalFile:
        file = super().open(name, write=write)
        file._pwrite = lambda data, at: self._pwrite(file._handle, data, at)  # type: ignore[method-assign]
        return file


def test_short_writes_give_the_same_bytes(log: Path, tmp_path: Path) -> None:
    def seven(handle: int, data: memoryview, at: int) -> int:
        return os.pwrite(handle, data[:7], at)

    twin = crashed_copy(log, tmp_path / "twin")
    for directory, storage in ((log, LocalStorage(log)), (twin, Writing(twin, seven))):
        journal = journal_at(storage, read_log(directory))
        append(journal, deposits(5))
        journal.close()
    assert (log / FIRST_SEGMENT).read_bytes() == (twin / FIRST_SEGMENT).read_bytes()


class HalfWritten:
    """A disk that takes a hundred bytes of what comes, then fails for as long as it is told to."""

    def __init__(self, code: int) -> None:
        self.code, self.left = code, 100

    def __call__(self, handle: int, data: memoryview, at: int) -> int:
        if not self.left:
            raise OSError(self.code, os.strerror(self.code))
        size = os.pwrite(handle, data[: self.left], at)
        self.left -= size
        return size


@pytest.mark.parametrize(
    ("code", "todo"), [(errno.EIO, "mend the disk"), (errno.EACCES, "give this user the right")]
)
def test_a_failed_write_has_a_name_and_is_the_end(log: Path, code: int, todo: str) -> None:
    journal = journal_at(Writing(log, HalfWritten(code)), read_log(log))
    with pytest.raises(WriteFailed, match=todo):
        append(journal, deposits(5))
    with pytest.raises(JournalStopped, match="stopped before"):
        append(journal, deposits(1))
    with pytest.raises(JournalStopped, match="stopped before"):
        journal.sync()
    journal.close()
    assert not (log / "head").exists()
    recovered = read_log(log)
    assert (recovered.last_sequence, recovered.tail_dropped) == (sum(SIZES), None)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_of_a_frame_and_is_not_the_end(log: Path, code: int) -> None:
    disk = HalfWritten(code)
    journal = journal_at(Writing(log, disk), read_log(log))
    for _ in range(3):
        with pytest.raises(DiskFull, match="free some space"):
            append(journal, deposits(5))
        assert read_log(log).last_sequence == sum(SIZES)
        assert read_log(log).tail_dropped is None
        disk.left = 0
    disk.left = 1 << 20
    append(journal, deposits(2))
    journal.close()
    assert read_log(log).last_sequence == sum(SIZES) + 2


def test_a_second_writer_is_refused(market: Path) -> None:
    lock = DirectoryLock(market)
    try:
        with pytest.raises(DirectoryLocked) as caught:
            open_sequencer(market)
        assert caught.value.holder == str(os.getpid())
        code = (
            "import sys; from pathlib import Path\n"
            "from exchange.journal.storage import DirectoryLock\n"
            "DirectoryLock(Path(sys.argv[1]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(market)],
            capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False,
        )  # fmt: skip
        assert done.returncode != 0 and "DirectoryLocked" in done.stderr
    finally:
        lock.close()
    DirectoryLock(market).close()


@pytest.fixture
def rolled(tmp_path: Path) -> Path:
    """A market whose segments hold two frames each."""
    directory = tmp_path / "rolled"
    record(directory, [deposits(4, 10 * at) for at in range(1, 8)], segment_bytes=700)
    return directory


def test_segments_are_named_by_their_first_sequence(rolled: Path) -> None:
    names = sorted(path.name for path in (rolled / "log").iterdir())
    assert names == [f"{first:020}.hbl" for first in (1, 9, 17, 25)]
    assert read_log(rolled).last_sequence == 28
    record(rolled, [deposits(1, 900)], segment_bytes=700)
    report = replay(rolled, Engine)
    assert (report.last_sequence, report.epoch, report.divergence) == (30, 2, None)


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_a_missing_segment_is_damage(rolled: Path, gone: int) -> None:
    sorted((rolled / "log").iterdir())[gone].unlink()
    with pytest.raises(DamagedLog):
        read_log(rolled)


@pytest.mark.parametrize("keep_head", [True, False])
def test_a_segment_cut_before_the_last_is_damage(rolled: Path, keep_head: bool) -> None:
    """The next segment's name says that all before it was durable; no head is needed."""
    first = rolled / FIRST_SEGMENT
    os.truncate(first, first.stat().st_size - 1)
    if not keep_head:
        (rolled / "head").unlink()
    with pytest.raises(DamagedLog) as caught:
        read_log(rolled)
    assert caught.value.path == first


def test_the_head_notices_frames_cut_off_whole(market: Path, tmp_path: Path) -> None:
    log = crashed_copy(market, tmp_path / "headed")
    (log / "head").write_bytes((market / "head").read_bytes())
    assert read_log(log).last_sequence == sum(SIZES)
    start = frame_bounds(log)[-1][0]
    os.truncate(log / FIRST_SEGMENT, start)
    with pytest.raises(DamagedLog, match="cut short") as caught:
        read_log(log)
    assert caught.value.offset == start
    (log / "log" / Path(FIRST_SEGMENT).name).unlink()
    with pytest.raises(DamagedLog):
        read_log(log)


def test_a_head_of_another_log_is_refused(market: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    record(other, [deposits(size, 7_000 * at) for at, size in enumerate(SIZES, 1)])
    (other / "head").write_bytes((market / "head").read_bytes())
    with pytest.raises(BrokenChain, match="head"):
        read_log(other)


@pytest.mark.parametrize("field", ["frame_hash", "events_digest", "state_hash"])
@pytest.mark.parametrize("value", ["zz" * 32, "ab" * 31])
def test_a_head_with_a_damaged_hash_is_refused(log: Path, field: str, value: str) -> None:
    head = Head(1, bytes(16).hex(), 1, 1, bytes(32).hex())
    write_head(LocalStorage(log), msgspec.structs.replace(head, **{field: value}))
    with pytest.raises(DamagedHead):
        read_log(log)


def test_a_head_of_a_later_build_is_refused_by_name(log: Path) -> None:
    (log / "head").write_bytes(b'{"format":2,"root":"ab"}')
    with pytest.raises(NewerVersion, match="format version 2 is newer than this build's 1: use"):
        read_log(log)


@pytest.mark.parametrize("text", [b"", b"{}", b'{"format":2', b"\x00" * 40])
def test_a_damaged_head_is_refused(log: Path, text: bytes) -> None:
    (log / "head").write_bytes(text)
    with pytest.raises(DamagedHead):
        read_log(log)
