"""Consecutive bad signatures of each (key id, address), in the key file: shared by all gateways."""

import sqlite3
from typing import Final

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS failures (
    key_id TEXT, address TEXT, count INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    PRIMARY KEY (key_id, address)
) STRICT
"""
BAD_LIMIT: Final = 5  # consecutive bad signatures that lock a key for an address
LOCK_MS: Final = 15 * 60 * 1_000
FAILURES_COUNTED: Final = 65_536  # the latest failures kept, of all pairs
KEY_ID_CHARS: Final = 64  # stored of a key id; no key has a longer one
_COUNT: Final = "SELECT count, last_ms FROM failures WHERE key_id = ? AND address = ?"
# A failure replaces its pair's row by one with the next row number, so the oldest have the least.
_FAIL: Final = """
INSERT OR REPLACE INTO failures SELECT ?1, ?2, 1 + coalesce(
    (SELECT count FROM failures WHERE key_id = ?1 AND address = ?2
     AND NOT (count >= ?4 AND ?3 - last_ms >= ?5)), 0), ?3
RETURNING count, rowid
"""


class Lockouts:
    """Counts failures and locks pairs of (key id, address).

    A lock holds for one pair only and ends by itself, so that nobody can lock a key's owner out
    from another address. Sessions that are logged on are not affected.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        """``database`` has the table of ``SCHEMA``, in autocommit mode."""
        self._database = database

    def count(self, who: tuple[str, str], now_ms: int) -> int:
        """Return a pair's consecutive failures; 0 if its lock has ended."""
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
        """Delete the failures of a pair, after a good signature."""
        delete = "DELETE FROM failures WHERE key_id = ? AND address = ?"
        self._database.execute(delete, _named(who))


def _named(who: tuple[str, str]) -> tuple[str, str]:
    key_id, address = who
    return key_id[:KEY_ID_CHARS], address
