"""Bugs that can be injected on purpose, to prove that the simulator finds them."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any, Final
from unittest.mock import patch

import msgspec

from exchange.app import wishes
from exchange.app.requests import Deposit
from exchange.gateway.deadlines import Deadlines, Switch, cancel_session
from exchange.gateway.resume import Resume
from exchange.journal.syncer import Done
from exchange.sim.disk import SimFile
from exchange.sim.host import SimSyncer

NEAR_COMMANDS: Final = 2
EARLY_MS: Final = 500


def _early_release() -> Any:
    """Events are released when a sync begins instead of when it has ended."""
    honest = SimSyncer.begin

    def begin(self: SimSyncer, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        honest(self, loop, lambda failure: None)
        loop.call_soon(done, None)

    return patch.object(SimSyncer, "begin", begin)


def _ignored_sync_failure() -> Any:
    """A failed sync is retried, and the second result is believed."""
    honest = SimFile.sync

    def sync(self: SimFile) -> None:
        try:
            honest(self)
        except OSError:
            honest(self)

    return patch.object(SimFile, "sync", sync)


def _skipped_report() -> Any:
    """A connection that resumes misses a report right after its position."""
    honest = Resume._reports_of

    def reports_of(self: Any, row: Any, *arguments: Any) -> Iterator[Any]:
        begun_at = self.__dict__.setdefault("begun_at", self._at[1])
        for message in honest(self, row, *arguments):
            if row[0] > begun_at + NEAR_COMMANDS:
                yield message

    return patch.object(Resume, "_reports_of", reports_of)


def _doubled_deposit() -> Any:
    """A repeated deposit is booked twice."""
    honest = wishes.move_cash

    def move_cash(request: Any) -> Any:
        if isinstance(request, Deposit):
            request = msgspec.structs.replace(request, request_id=secrets.token_hex(8))
        return honest(request)

    return patch.object(wishes, "move_cash", move_cash)


def _early_switch() -> Any:
    """A dead man's switch fires half a second early."""
    honest = Deadlines.advance
    return patch.object(Deadlines, "advance", lambda self, now_ms: honest(self, now_ms + EARLY_MS))


def _blunt_switch() -> Any:
    """A dead man's switch cancels the orders of another session than its own."""
    blunt = property(lambda self: cancel_session(self.account, self.session + 1))
    return patch.object(Switch, "record", blunt)


BUGS: Final[dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]] = {
    "early-release": _early_release,
    "ignored-sync-failure": _ignored_sync_failure,
    "skipped-report": _skipped_report,
    "doubled-deposit": _doubled_deposit,
    "early-switch": _early_switch,
    "blunt-switch": _blunt_switch,
}
