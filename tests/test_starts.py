"""A market that starts after a crash, and one that crashes while it stops. Budget: 20 seconds."""

import errno
import os
from asyncio import AbstractEventLoop
from pathlib import Path

import pytest
from test_app import NOON_NS, running

from exchange.app import Market, wishes
from exchange.journal.errors import SyncFailed
from exchange.journal.syncer import Done, Log


class BadDisk:
    """Syncs at once; with ``bad`` set none is good any more."""

    def __init__(self) -> None:
        self.bad = False
        self.log: Log | None = None

    def __call__(self, log: Log) -> "BadDisk":
        self.log = log
        return self

    def begin(self, loop: AbstractEventLoop, done: Done) -> None:
        assert self.log is not None
        failed = None
        if self.bad:
            failed = self.log.sync_failed(OSError(errno.EIO, os.strerror(errno.EIO)))
        else:
            self.log.sync()
        loop.call_soon(done, failed)

    def stop(self) -> None:
        """Nothing is left to end."""


# Stops


async def test_a_sync_that_fails_during_a_stop_is_raised(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    disk = BadDisk()
    market = await Market.start(tmp_path, clock=lambda: NOON_NS, syncer=disk)
    disk.bad = True
    market.sequencer.submit(0, wishes.checkpoint().record)
    with pytest.raises(SyncFailed, match="mend the disk"):
        await market.stop()
    assert await market.stop() == ""  # the head on disk is an earlier run's
