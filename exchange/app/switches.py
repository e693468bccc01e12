"""Fires dead man's switches when ``exchange.gateway.deadlines`` says that they are due."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from exchange.gateway.deadlines import NS_PER_MS, Deadlines
from exchange.gateway.hub import Submit
from exchange.marketdata.stream import Released
from exchange.messages import COMMAND, CommandKind
from exchange.sequencer import Closed, LogFull, QueueFull

SOURCE: Final = 0  # the house's source; connections count from 1
RETRY_SECONDS: Final = 0.05  # retry after a full queue
_TICK: Final = COMMAND.pack(int(CommandKind.ADVANCE_TIME), *bytes(15))


class Switches:
    """Advances the log's time past due switches, and then submits the cancels of those that fired.

    The clock alone decides nothing: the sequencer may have received a renewal that is not known
    here.
    """

    def __init__(self, submit: Submit, deadlines: Deadlines, clock: Callable[[], int]) -> None:
        self._submit = submit
        self._deadlines = deadlines
        self._clock = clock
        self._ticked_ms = 0  # due time for which an ADVANCE_TIME is under way
        self._sent: set[str] = set()  # names of cancels under way to the log
        self._changed = asyncio.Event()

    def take(self, released: Released) -> None:
        """Apply a released batch."""
        known = self._deadlines
        before = known.first_ms, len(known.thrown)
        known.take(released.stamp, released.events, released.texts)
        if self._ticked_ms or before != (known.first_ms, len(known.thrown)):
            self._ticked_ms = 0
            self._changed.set()

    async def run(self) -> None:
        """Fire switches until cancelled, or until the market accepts no more commands."""
        with contextlib.suppress(Closed):
            while True:
                self._changed.clear()
                seconds = self.look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()

    def look(self) -> float | None:
        """Do what is due; return the seconds until more may be, or None to wait for the log. Raises
        Closed."""
        known, now_ms = self._deadlines, self._clock() // NS_PER_MS
        try:
            if known.first_ms and known.first_ms <= now_ms and self._ticked_ms != known.first_ms:
                self._tick(now_ms)
            self._sent.intersection_update(one.name for one in known.thrown)
            for one in known.thrown:
                if one.name not in self._sent:
                    self._submit(SOURCE, one.record, text=one.name)
                    self._sent.add(one.name)
        except QueueFull:
            return RETRY_SECONDS
        if not known.first_ms or self._ticked_ms == known.first_ms:
            return None
        return max(known.first_ms - now_ms, 1) / 1_000

    def _tick(self, now_ms: int) -> None:
        due_ms = self._deadlines.first_ms
        try:
            self._submit(SOURCE, _TICK)
        except LogFull:  # no renewal can be accepted now, but cancels can
            self._deadlines.advance(now_ms)
        else:
            self._ticked_ms = due_ms
