"""The simulated disk: what a sync promises, what a failed one does not, and what the log does."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from recorded import (
    EXCHANGE_ID,
    append,
    deposit,
    deposits,
    journal_at,
    open_sequencer,
    say,
    until,
)

from exchange.journal.errors import DamagedLog, SyncFailed
from exchange.journal.reader import LogReader, Recovered
from exchange.journal.syncer import Done
from exchange.sim.disk import SECTOR_BYTES, DiskFaults, SimDisk
from exchange.sim.loop import PROCESS, Killed, Process

NAME = "log/a"
ALL_LOST = DiskFaults(torn_percent=100)


def read_log(disk: SimDisk) -> Recovered:
    reader = LogReader(disk, EXCHANGE_ID)
    for _ in reader.chunks():
        pass
    return reader.finish()


def reopened(disk: SimDisk, *, power_cut: bool) -> None:
    if power_cut:
        disk.power_cut()
    disk.settle()


def test_a_restart_after_a_failed_sync_writes_again_what_only_memory_has() -> None:
    """The page cache still shows the frame and calls it written: one more sync does nothing."""
    disk = SimDisk(Random(1))
    journal = journal_at(disk, read_log(disk))
    append(journal, deposits(3))
    journal.sync()
    append(journal, deposits(2, 10))
    disk.faults = DiskFaults(sync_ppm=1_000_000)
    with pytest.raises(SyncFailed):
        journal.sync()
    disk.faults = ALL_LOST
    reopened(disk, power_cut=False)
    found = read_log(disk)
    assert (found.last_sequence, found.proven < found.offset) == (5, True)
    journal_at(disk, found).abandon()  # from here on sequence 5 may be released
    reopened(disk, power_cut=True)
    assert read_log(disk).last_sequence == 5


class Once:
    """A syncer that does one sync, and never gets to the next."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync: Callable[[], None] | None = sync

    def begin(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        sync, self._sync = self._sync, None
        if sync is not None:
            sync()
            loop.call_soon(done, None)

    def stop(self) -> None:
        """Nothing to end."""


async def test_what_a_start_read_and_could_not_sync_was_never_released(tmp_path: Path) -> None:
    """A killed market leaves a frame in memory; a start reads it, fails, and the power goes.

    Nobody was told of that frame, so the next start may do without it.
    """
    disk = SimDisk(Random(1))
    sequencer = open_sequencer(tmp_path, storage=disk, syncer=lambda log: Once(log.sync))
    run = asyncio.create_task(sequencer.run())
    await say(sequencer, deposits(3))
    sequencer.submit(1, deposit(10))
    await until(lambda: sequencer.sequence == 4)
    run.cancel()
    reopened(disk, power_cut=False)
    disk.faults = DiskFaults(sync_ppm=1_000_000)
    with pytest.raises(SyncFailed):
        open_sequencer(tmp_path, storage=disk)
    disk.faults = ALL_LOST
    reopened(disk, power_cut=True)
    again = open_sequencer(tmp_path, storage=disk)
    assert again.recovered.last_sequence == 3
    await again.close()


def test_a_power_cut_takes_what_was_not_synced_in_sectors() -> None:
    """Any of them may go, first or last; what was synced stays."""
    left = set()
    for seed in range(40):
        disk = SimDisk(Random(seed))
        file = disk.open(NAME, write=True)
        file.append(b"s" * SECTOR_BYTES)
        file.sync()
        file.append(b"n" * 3 * SECTOR_BYTES)
        disk.faults = DiskFaults(torn_percent=50)
        disk.power_cut()
        data = disk.read(NAME)
        assert data[:SECTOR_BYTES] == b"s" * SECTOR_BYTES
        left.add(bytes(data[at] for at in range(SECTOR_BYTES, len(data), SECTOR_BYTES)))
    assert left == {b"", b"n", b"\0n", b"nn", b"\0\0n", b"\0nn", b"n\0n", b"nnn"}


def test_a_killed_process_leaves_what_it_wrote() -> None:
    disk = SimDisk(Random(1))
    disk.open(NAME, write=True).append(b"written")
    reopened(disk, power_cut=False)
    assert disk.read(NAME) == b"written"


def test_the_dead_write_no_more() -> None:
    disk = SimDisk(Random(1))
    process = Process("dead")
    context = process.context()
    file = context.run(disk.open, NAME, write=True)
    process.kill()
    assert PROCESS.get() is None
    with pytest.raises(Killed):
        context.run(file.append, b"late")
    assert disk.read(NAME) == b""


def test_a_read_that_lands_elsewhere_stops_the_start() -> None:
    """Mid-log damage is never skipped, and a second look at a sound disk finds nothing wrong."""
    disk = SimDisk(Random(1))
    journal = journal_at(disk, read_log(disk))
    for number in range(8):
        append(journal, deposits(4, 1 + 10 * number))
        journal.sync()
    journal.close()
    disk.faults = DiskFaults(misdirect_ppm=1_000_000)
    with pytest.raises(DamagedLog):
        read_log(disk)
    disk.heal()
    assert read_log(disk).last_sequence == 32


def test_a_write_that_goes_astray_is_found_and_comes_back_from_a_copy() -> None:
    """It destroys two places, and neither is skipped: the start refuses until both are restored."""
    disk = SimDisk(Random(3))
    journal = journal_at(disk, read_log(disk))
    for number in range(10):
        disk.faults = DiskFaults(astray_ppm=1_000_000 if number == 4 else 0)
        append(journal, deposits(4, 1 + 10 * number))
        journal.sync()
    journal.close()
    reopened(disk, power_cut=True)
    assert disk.damaged and disk.trouble["write went astray"] == 1
    with pytest.raises(DamagedLog):
        read_log(disk)
    disk.restore()
    assert not disk.damaged
    assert read_log(disk).last_sequence == 40
