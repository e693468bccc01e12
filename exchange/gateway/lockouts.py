"""Failures in a row of each (key id, address), in the key file: one count for all gateways."""

import sqlite3
from typing import Final

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS failures (
    key_id TEXT, address TEXT, count INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    PRIMARY KEY (key_id, address)
) STRICT
"""
BAD_LIMIT: Final = 5  # bad signatures in a row that lock a key for an address
LOCK_MS: Final = 15 * 60 * 1_000
FAILURES_COUNTED: Final = 65_536  # the latest, of all pairs
KEY_ID_CHARS: Final = 64  # of a name in the count; no key has a longer one
_COUNT: Final = "SELECT count, last_ms FROM failures WHERE key_id = ? AND address = ?"
# Each failure takes the next number of a row, and its pair's earlier one with it.
_FAIL: Final = """
INSERT OR REPLACE INTO failures SELECT ?1, ?2, 1 + coalesce(
    (SELECT count FROM failures WHERE key_id = ?1 AND address = ?2
     AND NOT (count >= ?4 AND ?3 - last_ms >= ?5)), 0), ?3
RETURNING count, rowid
"""


class Lockouts:
    """A lock is its pair's alone and ends by itself, so nobody locks an owner out from elsewhere;
    a live session is never touched."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """``database``: with the table of ``SCHEMA``; each statement commits."""
        self._database = database

    def count(self, who: tuple[str, str], now_ms: int) -> int:
        """Return the failures in a row of a pair; none where its lock has ended."""
        found = self._database.execute(_COUNT, _named(who)).fetchone()
        count, last_ms = found or (0, 0)
        return 0 if count >= BAD_LIMIT and now_ms - last_ms >= LOCK_MS else count

    def fail(self, who: tuple[str, str], now_ms: int) -> bool:
        """Count a failure; return whether it locks the pair."""
        values = (*_named(who), now_ms, BAD_LIMIT, LOCK_MS)
        ((count, row),) = self._database.execute(_FAIL, values).fetchall()
        self._database.execute("DELETE FROM failures WHERE rowid <= ?", (row - FAILURES_COUNTED,))
        return bool(count == BAD_LIMIT)

    def clear(self, who: tuple[str, str]) -> None:
        """Forget the failures of a pair: a good signature came."""
        delete = "DELETE FROM failures WHERE key_id = ? AND address = ?"
        self._database.execute(delete, _named(who))


def _named(who: tuple[str, str]) -> tuple[str, str]:
    key_id, address = who
    return key_id[:KEY_ID_CHARS], address
