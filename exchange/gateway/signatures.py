"""Signatures that were used, in the key file: of a protocol whose nonces need not rise each is good
once, at all gateways together and over a restart.
"""

import sqlite3
from hashlib import sha256
from typing import Final

SCHEMA: Final = (
    """
CREATE TABLE IF NOT EXISTS signatures (digest BLOB PRIMARY KEY, until_ms INTEGER NOT NULL) STRICT
""",
    "CREATE INDEX IF NOT EXISTS signatures_until ON signatures (until_ms)",
)
KEPT_MS: Final = 60_000  # behind its time: longer than any window, however a clock is set


class Signatures:
    """What was signed and used, until its time is over by far."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """``database``: with what ``SCHEMA`` makes; each statement commits."""
        self._database = database

    def use(self, key_id: str, text: bytes, timestamp_ms: int, now_ms: int) -> bool:
        """Note that a text was signed under a key; return whether it is the first time."""
        execute = self._database.execute
        execute("DELETE FROM signatures WHERE until_ms <= ?", (now_ms,))
        digest = sha256(key_id.encode() + b"\n" + text).digest()
        noted = execute(
            "INSERT OR IGNORE INTO signatures VALUES (?, ?)", (digest, timestamp_ms + KEPT_MS)
        )
        return noted.rowcount == 1
