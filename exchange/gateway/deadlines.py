"""Dead man's switches: sessions whose orders are cancelled unless their client is heard again.

A switch lives in the market's own process and outlives its connection, not that process; what it
does when it is due is a command of the log like any other.
"""

from typing import Final, NamedTuple

from exchange.gateway.decode import (
    RECORD,
    REQUEST,
    UNSTATED,
    Refused,
    checked_id,
    digest,
)
from exchange.messages import CommandKind, Limit, Reason, Selection
from exchange.messages.wire import CancelAfter, CancelAfterSet

TIMEOUT_MS_LEAST: Final = 1_000
TIMEOUT_MS_MOST: Final = 3_600_000
SWITCHES: Final = int(Limit.SESSIONS)


class Due(NamedTuple):
    """A switch that nobody has held: the mass cancel that it becomes."""

    session: int
    account: int
    due_ms: int
    text: str
    record: bytes


class Deadlines:
    """Every switch, by engine session."""

    def __init__(self) -> None:
        self._due: dict[int, tuple[int, int]] = {}  # session -> due in ms, account
        self._first = 0  # none is due before; 0: there is none

    def hold(self, request: CancelAfter, account: int, session: int, now_ms: int) -> CancelAfterSet:
        """Set a session's switch anew, or take it back; raises Refused."""
        checked_id(request.request_id, "request_id")
        timeout_ms = request.timeout_ms
        if timeout_ms == 0:
            self.put(session, 0, account)
            return CancelAfterSet(request_id=request.request_id)
        if not TIMEOUT_MS_LEAST <= timeout_ms <= TIMEOUT_MS_MOST:
            limit = TIMEOUT_MS_LEAST if timeout_ms < TIMEOUT_MS_LEAST else TIMEOUT_MS_MOST
            observed = str(timeout_ms)
            raise Refused(Reason.PARAMETER_RANGE, "timeout_ms", limit=str(limit), observed=observed)
        if session not in self._due and len(self._due) >= SWITCHES:
            raise Refused(Reason.SESSIONS_FULL, limit=str(SWITCHES), observed=str(SWITCHES))
        due_ms = now_ms + timeout_ms
        self.put(session, due_ms, account)
        return CancelAfterSet(request_id=request.request_id, due_ms=due_ms)

    def put(self, session: int, due_ms: int, account: int) -> None:
        """Have a session's switch due at a time; 0: never."""
        if due_ms == 0:
            self._due.pop(session, None)
        else:
            self._due[session] = due_ms, account
            self._first = min(self._first or due_ms, due_ms)

    def take_due(self, now_ms: int) -> list[Due]:
        """Return the switches that are due, oldest first, and forget them."""
        if not self._first or now_ms < self._first:
            return []
        ripe = sorted((due, session) for session, (due, _) in self._due.items() if due <= now_ms)
        found = [_mass_cancel(session, *self._due.pop(session)) for _, session in ripe]
        self._first = min((due for due, _ in self._due.values()), default=0)
        return found

    def put_back(self, one: Due) -> None:
        """Have a switch due again that could not be thrown: there was no room."""
        self._due.setdefault(one.session, (one.due_ms, one.account))
        self._first = min(self._first or one.due_ms, one.due_ms)


def _mass_cancel(session: int, due_ms: int, account: int) -> Due:
    text = f"after.{session}.{due_ms}"
    record = RECORD.pack(
        CommandKind.MASS_CANCEL, UNSTATED, Selection.SESSION, 0, 0, account, 0, 0, 0, 0, 0, 0,
        session.to_bytes(16, "little"), digest(text, REQUEST),
    )  # fmt: skip
    return Due(session, account, due_ms, text, record)
