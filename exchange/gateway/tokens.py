"""Temporary tokens of keys, in the key file, which all gateways of a market share.

The file holds only their hashes, so that reading it gives nobody a token.
"""

import secrets
import sqlite3
from hashlib import sha256
from typing import Final

SCHEMA: Final = (
    """
CREATE TABLE IF NOT EXISTS tokens (
    number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, key_id TEXT NOT NULL,
    until_ms INTEGER NOT NULL, refreshes INTEGER NOT NULL
) STRICT
""",
    "CREATE INDEX IF NOT EXISTS tokens_of_key ON tokens (key_id, number)",
    "CREATE INDEX IF NOT EXISTS tokens_until ON tokens (until_ms)",
)
TOKENS_KEPT: Final = 1_024  # per key, of both kinds together; the oldest beyond are deleted
_SURPLUS: Final = """
DELETE FROM tokens WHERE key_id = ?1 AND number <= (
    SELECT number FROM tokens WHERE key_id = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)
"""


class Tokens:
    """Access tokens authorize requests of their key; refresh tokens can be exchanged, once, for
    new tokens. ``refreshes`` tells the kinds apart."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """``database`` has what ``SCHEMA`` creates, in autocommit mode."""
        self._database = database

    def give(self, key_id: str, until_ms: int, now_ms: int, *, refreshes: bool) -> str:
        """Return a new token of a key, valid until ``until_ms``.

        Deletes expired tokens, and the key's oldest beyond ``TOKENS_KEPT``.
        """
        text = secrets.token_urlsafe(32)
        execute = self._database.execute
        execute("DELETE FROM tokens WHERE until_ms <= ?", (now_ms,))
        execute(
            "INSERT INTO tokens (digest, key_id, until_ms, refreshes) VALUES (?, ?, ?, ?)",
            (_digest(text), key_id, until_ms, refreshes),
        )
        execute(_SURPLUS, (key_id, TOKENS_KEPT))
        return text

    def owner(self, text: str, now_ms: int, *, refreshes: bool) -> str | None:
        """Return the key id of a valid token of that kind; None if it is unknown or expired."""
        query = "SELECT key_id FROM tokens WHERE digest = ? AND until_ms > ? AND refreshes = ?"
        found = self._database.execute(query, (_digest(text), now_ms, refreshes)).fetchone()
        return None if found is None else str(found[0])

    def spend(self, text: str) -> bool:
        """Delete a token; return whether it existed, so that only one gateway can use it."""
        spent = self._database.execute("DELETE FROM tokens WHERE digest = ?", (_digest(text),))
        return spent.rowcount == 1


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
