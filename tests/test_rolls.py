"""A segment that is full: the next one begins when all is durable, or not at all."""

import asyncio
import errno
import os
from pathlib import Path

import pytest
from recorded import deposit, deposits, open_sequencer, read_log, record, running, say, until

from exchange.engine import Engine
from exchange.journal import storage
from exchange.journal.errors import SyncFailed, WriteFailed
from exchange.journal.head import read_head
from exchange.journal.storage import LocalStorage
from exchange.journal.syncer import Done
from exchange.sequencer import replay


class ByHand:
    """A syncer whose disk is ready when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Done] = []

    def begin(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        self.begun.append(done)

    def stop(self) -> None:
        """Nothing to end."""


def segments(directory: Path) -> list[int]:
    return sorted(int(path.stem) for path in (directory / "log").iterdir())


async def quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_segment_begins_when_no_sync_is_under_way(tmp_path: Path) -> None:
    """The roll would sync the same file, and be told that all is well if the other was told not."""
    disk = ByHand()
    sequencer = open_sequencer(tmp_path, syncer=lambda log: disk, segment_bytes=1)
    run = asyncio.create_task(sequencer.run())
    sequencer.submit(1, deposit(1))
    await until(lambda: len(disk.begun) == 1)
    sequencer.submit(1, deposit(2))
    await quiet()
    assert (sequencer.sequence, segments(tmp_path)) == (1, [1])
    disk.begun[0](None)
    await until(lambda: len(disk.begun) == 2)
    assert (sequencer.sequence, sequencer.durable_upto) == (2, 1)
    sequencer.submit(1, deposit(3))
    await quiet()
    disk.begun[1](SyncFailed("the disk is gone"))
    with pytest.raises(SyncFailed):
        await run
    await sequencer.close()
    head = read_head(tmp_path)
    assert head is not None and (head.sequence, segments(tmp_path)) == (1, [1, 2])
    found = read_log(tmp_path)
    assert (found.last_sequence, found.durable_upto, found.proven) == (2, 1, 0)


def test_rolls_at_every_frame_lose_nothing(tmp_path: Path) -> None:
    record(tmp_path, [deposits(2, 10 * at) for at in range(1, 9)], segment_bytes=1)
    assert segments(tmp_path) == list(range(1, 17, 2))
    assert replay(tmp_path, Engine).last_sequence == 16


class Refusing:
    """A folder of which some syncs are refused, once the next segment has its name there."""

    def __init__(self, name: Path, times: int) -> None:
        self._name, self._left, self._sync = name, times, storage.sync_directory
        self._begun = False

    def __call__(self, folder: Path) -> None:
        begun = self._begun = self._begun or self._name.exists()
        if self._left and begun and folder == self._name.parent:
            self._left -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._sync(folder)


async def test_a_segment_whose_name_has_no_room_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = LocalStorage(tmp_path).where("log/00000000000000000009.hbl")
    async with running(tmp_path, segment_bytes=700) as sequencer:
        await say(sequencer, deposits(4))
        await say(sequencer, deposits(4, 10))
        open_files = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr(storage, "sync_directory", Refusing(name, 1))
        await say(sequencer, deposits(4, 20))
        assert segments(tmp_path) == [1] and len(os.listdir("/proc/self/fd")) == open_files
        await say(sequencer, deposits(4, 30))
    assert read_log(tmp_path).last_sequence == 16
    assert replay(tmp_path, Engine).divergence is None


async def test_nothing_goes_on_past_a_name_that_may_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be taken back durably: the market stops, and starts again where it was."""
    name = LocalStorage(tmp_path).where("log/00000000000000000009.hbl")
    sequencer = open_sequencer(tmp_path, segment_bytes=700)
    run = asyncio.create_task(sequencer.run())
    await say(sequencer, deposits(4))
    await say(sequencer, deposits(4, 10))
    monkeypatch.setattr(storage, "sync_directory", Refusing(name, 2))
    sequencer.submit(1, deposit(20))
    with pytest.raises(WriteFailed, match="mend the disk"):
        await asyncio.wait_for(run, 10)
    await sequencer.close()
    name.touch()
    async with running(tmp_path) as again:
        assert again.recovered.last_sequence == 8
