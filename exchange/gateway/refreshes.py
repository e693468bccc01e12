"""Limits the snapshots for readers that were behind: a number of bytes per tick, in turns.

A reader that is behind gets no updates of conflated channels, which costs nothing. When it has
caught up it needs a new snapshot, as large as the book and made for it alone. This limits the time
that such snapshots take from other readers, however many readers fall behind and however often.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exchange.gateway.session import Session

REFRESH_BYTES: Final = 1 << 18  # encoded bytes per tick


class Refreshes:
    """The readers waiting for snapshots. Bytes used beyond a tick's limit reduce later ticks'."""

    def __init__(self) -> None:
        self._left = REFRESH_BYTES
        self._waiting: dict[int, Session] = {}  # by connection number

    def admits(self, session: "Session") -> bool:
        """Return whether a snapshot may be made for a session now; otherwise it waits for a tick.

        Waiting sessions keep their order. One with unsent data cannot use a snapshot yet and does
        not hold up the others.
        """
        waiting = self._waiting
        ahead = (one for one in waiting.values() if not one.backlog_bytes)
        if self._left > 0 and next(ahead, session) is session:
            waiting.pop(session.number, None)
            return True
        waiting[session.number] = session
        return False

    def spend(self, size: int) -> None:
        """Note the encoded bytes of a snapshot."""
        self._left -= size

    def leave(self, session: "Session") -> None:
        """Remove a connection that has ended."""
        self._waiting.pop(session.number, None)

    def tick(self) -> None:
        """Renew the limit and let the waiting sessions ask again, in order."""
        self._left = min(self._left + REFRESH_BYTES, REFRESH_BYTES)
        self._waiting = {number: one for number, one in self._waiting.items() if one.stale}
        for session in list(self._waiting.values()):
            session.flush()
