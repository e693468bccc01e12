"""exchange.journal.syncer: what the thread does of itself, what it calls, and how each ends."""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorded import append, deposits, journal_at, read_log

from exchange.journal.errors import JournalStopped, SyncFailed
from exchange.journal.handover import Handover
from exchange.journal.storage import LocalFile, LocalStorage
from exchange.journal.syncer import SyncThread


class Log:
    """A log that notes what is asked of it. ``file`` is its handle."""

    def __init__(self) -> None:
        self.file = -1
        self.calls: list[str] = []
        self.work: Callable[[], None] = lambda: None

    def sync(self) -> None:
        self.calls.append("sync")
        self.work()

    def handle(self) -> int:
        return self.file

    def sync_failed(self, error: OSError) -> Exception:
        self.calls.append("failed")
        return error


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def thread(log: Log) -> Iterator[SyncThread]:
    started = SyncThread(log)
    yield started
    started.stop()
    assert not started._thread.is_alive()


async def ended(thread: SyncThread) -> Exception | None:
    """Begin a sync, and return what failed."""
    loop = asyncio.get_running_loop()
    told = loop.create_future()
    thread.begin(loop, told.set_result)
    assert not told.done(), "never before begin has returned"
    failure: Exception | None = await asyncio.wait_for(told, 10)
    return failure


async def test_a_file_is_synced_without_a_call(
    log: Log, thread: SyncThread, tmp_path: Path
) -> None:
    with open(tmp_path / "file", "wb", buffering=0) as file:
        log.file = file.fileno()
        for _ in range(50):
            file.write(b"frame")
            assert await ended(thread) is None
    assert log.calls == []


async def test_a_handle_that_is_none_has_the_log_called(log: Log, thread: SyncThread) -> None:
    assert await ended(thread) is None
    broken = ValueError("broken")

    def fail() -> None:
        raise broken

    log.work = fail
    assert await ended(thread) is broken
    log.work = lambda: None
    assert await ended(thread) is None, "a failure is told once"
    assert log.calls == ["sync"] * 3


async def test_a_failed_sync_of_a_file_is_told_with_its_errno(log: Log, thread: SyncThread) -> None:
    reading, log.file = os.pipe()  # which nothing makes durable
    try:
        failure = await ended(thread)
    finally:
        os.close(reading)
        os.close(log.file)
    assert isinstance(failure, OSError) and failure.errno == errno.EINVAL
    assert log.calls == ["failed"]


def test_each_loop_hears_of_its_own(log: Log, thread: SyncThread) -> None:
    for _ in range(3):
        assert asyncio.run(ended(thread)) is None
    assert log.calls == ["sync"] * 3


async def test_what_was_begun_ends_before_the_thread_does(log: Log) -> None:
    log.work = lambda: time.sleep(0.05)
    seconds: list[float] = []
    thread = SyncThread(log, seconds.append)
    assert await ended(thread) is None
    assert 0.05 <= seconds[0] < 10
    thread.begin(asyncio.get_running_loop(), seconds.append)  # type: ignore[arg-type]
    thread.stop()
    assert log.calls == ["sync"] * 2 and len(seconds) == 1


def test_a_file_has_no_handle_while_its_sync_has_more_to_do(tmp_path: Path) -> None:
    file = LocalFile(tmp_path / "file", write=True)
    assert file.handle == -1, "what was found may never have been synced"
    file.sync()
    file.append(b"frame")
    assert file.handle == file._handle
    file.truncate(2)
    assert file.handle == -1, "it has shrunk"
    file.close()


async def test_a_failure_found_by_the_thread_stops_the_journal(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    journal = journal_at(storage, read_log(storage))
    append(journal, deposits(3))
    thread = SyncThread(journal)
    assert journal.handle() >= 0 and await ended(thread) is None
    reading, writing = os.pipe()
    assert isinstance(journal._file, LocalFile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal._file, "_handle", writing)
        assert isinstance(await ended(thread), SyncFailed)
    assert journal.handle() == -1
    assert isinstance(await ended(thread), JournalStopped)
    thread.stop()
    journal.abandon()
    os.close(reading)
    os.close(writing)


def test_nothing_is_said_where_a_descriptor_was() -> None:
    """Its number may be another file's by then."""
    hand = Handover()
    hand.close()
    taken = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        hand.ask(-1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        hand.end()
    for file in taken:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(file)
        os.close(file)
