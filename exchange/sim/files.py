"""The real files beside the simulated disk, and what a power cut leaves of them.

The tape lies in a real folder. While ``tracked`` is active, a sync of a file there does nothing but
record its size as safe; a power cut loses a random choice of the sectors behind that. SQLite's
files are left alone: SQLite syncs by itself and is trusted.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from unittest.mock import patch

from exchange.journal.tape import TAPE_NAME
from exchange.sim.disk import SECTOR_BYTES


class RealFiles:
    """The files of one market's directory that are not on the simulated disk."""

    def __init__(self, directory: Path, random: Random) -> None:
        self._folder = directory / TAPE_NAME
        self._random = random
        self._safe: dict[str, int] = {}  # bytes, by path

    @contextlib.contextmanager
    def tracked(self) -> Iterator[None]:
        """Record the syncs of these files inside the block."""
        with contextlib.ExitStack() as stack:
            for name in ("fsync", "fdatasync"):
                tracking = self._tracking(getattr(os, name))
                stack.enter_context(patch.object(os, name, tracking))
            yield

    def _tracking(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def track(handle: int) -> None:
            path = os.readlink(f"/proc/self/fd/{handle}")
            if Path(path).parent == self._folder:
                self._safe[path] = os.fstat(handle).st_size
            else:
                sync(handle)

        return track

    def power_cut(self, torn_percent: int) -> None:
        """Lose a random choice of the unsynced sectors."""
        for path in sorted(self._folder.glob("*")):
            safe = min(self._safe.get(str(path), 0), path.stat().st_size)
            data = bytearray(path.read_bytes())
            at, left = safe, safe
            while at < len(data):
                stop = min(len(data), (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
                if self._random.randrange(100) < torn_percent:
                    data[at:stop] = bytes(stop - at)
                else:
                    left = stop
                at = stop
            path.write_bytes(data[:left])
