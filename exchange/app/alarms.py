"""Alarms: conditions that an operator must know of before they become failures: of the disk, of the
clock, of the engine's capacity, and dues that the engine refuses to clearing again and again."""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from exchange.app.capacity import USED_MAX, Taken
from exchange.sequencer import Sequencer

DISK_USED_MAX: Final = 0.95
STALL_SECONDS_MAX: Final = 2.0  # of one sync; only acknowledgements wait for it
BEHIND_SECONDS_MAX: Final = 2.0  # of the clock, behind the log; a clock that is slewed stays below
_log = logging.getLogger(__name__)


class Alarms:
    """The alarms of one market. ``look`` logs each when it begins and when it ends."""

    def __init__(
        self,
        directory: Path,
        sequencer: Sequencer,
        taken: Callable[[], Mapping[str, Taken]] = dict,
        stubborn: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Watch the disk of ``directory``, the clock, the engine's capacity, which ``taken``
        returns, and the dues refused again and again: the reasons, by id."""
        self._directory = directory
        self._sequencer = sequencer
        self._taken = taken
        self._stubborn = stubborn
        self.raised: dict[str, str] = {}

    def disk_used(self) -> float:
        """Return the used part of the disk, 0 to 1, of the space available to this user; 0 if the
        file system states no sizes, as some over a network do not."""
        usage = shutil.disk_usage(self._directory)
        room = usage.used + usage.free
        return 1 - usage.free / room if room else 0.0

    def look(self) -> dict[str, str]:
        """Check all conditions; return the active alarms as text, by name."""
        now: dict[str, str] = {}
        used, stalled = self.disk_used(), self._sequencer.stalled_seconds
        if used >= DISK_USED_MAX:
            now["disk"] = (
                f"the disk of {self._directory} is {used:.0%} full: archive old segments or "
                "give it room; orders are refused when it is full"
            )
        if stalled >= STALL_SECONDS_MAX:
            now["sync"] = f"a sync of the log takes {stalled:.0f} seconds: no order is acknowledged"
        behind = self._sequencer.clock_behind_seconds
        if behind >= BEHIND_SECONDS_MAX:
            now["clock"] = (
                f"the clock is {behind:,.0f} seconds behind the log, whose time stands still until "
                "then: no throttle refills, no order expires, no halt ends, no switch fires: check "
                "the clock"
            )
        if self._sequencer.full:
            now["log"] = "the log's disk is full: orders are refused, cancels taken"
        now.update((name, one.text()) for name, one in self._taken().items() if one.used > USED_MAX)
        if stubborn := self._stubborn():
            id, why = next(iter(stubborn.items()))
            now["dues"] = (
                f"what clearing asks for stays refused, {len(stubborn):,} in all, {id} first: {why}"
            )
        for name in now.keys() - self.raised.keys():
            _log.error("alarm: %s", now[name])
        for name in self.raised.keys() - now.keys():
            _log.warning("alarm over: %s", self.raised[name])
        self.raised = now
        return now
