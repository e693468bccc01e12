"""Snapshots for readers that were behind: so many bytes of them between two ticks, in turns.

A reader that is behind costs an update nothing: its pictures are left out. What costs is the
snapshot that it gets when it has caught up, as long as a book is, made for it alone. However many
such readers there are, and however often they fall behind, others meet no more of that work.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exchange.gateway.session import Session

REFRESH_BYTES: Final = 1 << 18  # encoded, a tick


class Refreshes:
    """Whose turn it is. What a long snapshot takes beyond the bytes of a tick, later ticks lack."""

    def __init__(self) -> None:
        self._left = REFRESH_BYTES
        self._waiting: dict[int, Session] = {}  # by connection number

    def admits(self, session: "Session") -> bool:
        """Return whether a snapshot may be made for it now; else it waits for a tick, and keeps its
        place. Who has something to send cannot ask meanwhile, and nobody waits for him.
        """
        waiting = self._waiting
        ahead = (one for one in waiting.values() if not one.backlog_bytes)
        if self._left > 0 and next(ahead, session) is session:
            waiting.pop(session.number, None)
            return True
        waiting[session.number] = session
        return False

    def spend(self, size: int) -> None:
        """Note the bytes of one that was made."""
        self._left -= size

    def leave(self, session: "Session") -> None:
        """A connection has ended."""
        self._waiting.pop(session.number, None)

    def tick(self) -> None:
        """Let those who wait ask again, in order."""
        self._left = min(self._left + REFRESH_BYTES, REFRESH_BYTES)
        self._waiting = {number: one for number, one in self._waiting.items() if one.stale}
        for session in list(self._waiting.values()):
            session.flush()
