"""Used signatures, in the key file, for protocols whose nonces need not increase.

Each signed text is accepted once, over all gateways and restarts.
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
KEPT_MS: Final = 60_000  # after its timestamp: far longer than the window of accepted times


class Signatures:
    """The signed texts that were used, kept until ``KEPT_MS`` after their timestamps."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """``database`` has what ``SCHEMA`` creates, in autocommit mode."""
        self._database = database

    def use(self, key_id: str, text: bytes, timestamp_ms: int, now_ms: int) -> bool:
        """Note a text that was signed with a key; return whether it was used for the first time."""
        execute = self._database.execute
        execute("DELETE FROM signatures WHERE until_ms <= ?", (now_ms,))
        digest = sha256(key_id.encode() + b"\n" + text).digest()
        noted = execute(
            "INSERT OR IGNORE INTO signatures VALUES (?, ?)", (digest, timestamp_ms + KEPT_MS)
        )
        return noted.rowcount == 1
