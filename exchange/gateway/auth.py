"""API keys and the logon check.

Keys live in ``DIR/keys.db``, outside the log: a secret never enters it. A key belongs to one
account and has one scope. An unknown key is answered exactly as a bad signature is, down to the
arithmetic done and the lockout, so the answer does not tell which keys exist.
"""

import hmac
import os
import secrets
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterator, Set
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from exchange.messages import Reason
from exchange.messages.wire import Logon, signed_text

FILE: Final = "keys.db"
SCOPES: Final = ("read", "trade", "admin")
AHEAD_MS: Final = 1_000  # a timestamp must be less than this ahead of the gateway's clock
WINDOW_MS: Final = 5_000  # and at most this behind it
BAD_LIMIT: Final = 5  # bad signatures in a row that lock a key
NONCE_MAX: Final = (1 << 64) - 1
STRANGERS: Final = 4_096  # unknown key ids whose failures are counted
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS keys (
    key_id TEXT PRIMARY KEY, secret TEXT NOT NULL, account INTEGER NOT NULL,
    scope TEXT NOT NULL, created INTEGER NOT NULL,
    nonce TEXT NOT NULL DEFAULT '-1', failures INTEGER NOT NULL DEFAULT 0
) STRICT
"""  # a nonce may pass SQLite's signed 64 bits, so it is kept as text


class Key(msgspec.Struct, frozen=True):
    """Whose key it is and what it may do."""

    key_id: str
    account: int
    scope: str


def sign(secret: str, logon_text: bytes) -> str:
    """Return the signature of a logon's text: lower-case hex HMAC-SHA256 under the secret."""
    return hmac.new(secret.encode(), logon_text, "sha256").hexdigest()


def create_key(directory: Path, account: int, scope: str) -> tuple[str, str]:
    """Make a key and return (key_id, secret); the secret is shown this once.

    Raises ValueError for a scope outside SCOPES.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}")
    key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    with _database(directory) as database:
        database.execute(
            "INSERT INTO keys (key_id, secret, account, scope, created) VALUES (?, ?, ?, ?, ?)",
            (key_id, secret, account, scope, int(time.time())),
        )
    return key_id, secret


def revoke_key(directory: Path, key_id: str) -> None:
    """Delete a key. Raises LookupError if there is none of that id."""
    with _database(directory) as database:
        if database.execute("DELETE FROM keys WHERE key_id = ?", (key_id,)).rowcount == 0:
            raise LookupError(f"no key {key_id}")


def list_keys(directory: Path) -> list[Key]:
    """Return every key, without its secret, oldest first."""
    with _database(directory) as database:
        rows = database.execute("SELECT key_id, account, scope FROM keys ORDER BY created, rowid")
        return [Key(*row) for row in rows]


@contextmanager
def _database(directory: Path) -> Iterator[sqlite3.Connection]:
    """Open the key file, made with mode 0600 before SQLite writes to it; commit at the end."""
    path = directory / FILE
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(_SCHEMA)
        yield database


class Keys:
    """Judges logons. Every call reads the file, so a revoked key fails at its next logon; the
    gateway asks with every beat which keys of its connections are gone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._strangers: OrderedDict[str, int] = OrderedDict()  # key id -> failures

    def check(self, logon: Logon, now_ms: int) -> Key | Reason:
        """Return the key that signed the logon, or why it is refused.

        Order: signature (or lockout), time window, nonce. A good signature clears the count of
        bad ones and an accepted nonce is spent, whatever becomes of the logon afterwards.
        """
        with _database(self._directory) as database:
            row = database.execute(
                "SELECT secret, account, scope, nonce, failures FROM keys WHERE key_id = ?",
                (logon.key_id,),
            ).fetchone()
            if row is None:
                return self._refuse_stranger(logon)
            secret, account, scope, nonce, failures = row
            good = _is_signed(secret, logon)
            if failures >= BAD_LIMIT:
                return Reason.KEY_LOCKED
            if not good:
                self._update(database, logon.key_id, "failures", failures + 1)
                return Reason.BAD_SIGNATURE
            if failures:
                self._update(database, logon.key_id, "failures", 0)
            if not (-WINDOW_MS <= logon.timestamp_ms - now_ms < AHEAD_MS):
                return Reason.TIMESTAMP
            if not int(nonce) < logon.nonce <= NONCE_MAX:
                return Reason.NONCE
            self._update(database, logon.key_id, "nonce", str(logon.nonce))
        return Key(logon.key_id, account, scope)

    def revoked(self, key_ids: Set[str]) -> Set[str]:
        """Return those of the keys that are there no longer."""
        return key_ids - {key.key_id for key in list_keys(self._directory)}

    def _update(
        self, database: sqlite3.Connection, key_id: str, column: str, value: int | str
    ) -> None:
        database.execute(f"UPDATE keys SET {column} = ? WHERE key_id = ?", (value, key_id))

    def _refuse_stranger(self, logon: Logon) -> Reason:
        """Answer an unknown key as a known one with a bad signature would be."""
        _is_signed(secrets.token_hex(32), logon)
        failures = self._strangers.pop(logon.key_id, 0)
        self._strangers[logon.key_id] = min(failures + 1, BAD_LIMIT)
        if len(self._strangers) > STRANGERS:
            self._strangers.popitem(last=False)
        return Reason.KEY_LOCKED if failures >= BAD_LIMIT else Reason.BAD_SIGNATURE


def _is_signed(secret: str, logon: Logon) -> bool:
    text = signed_text(logon.timestamp_ms, logon.nonce, logon.key_id, logon.resume_session)
    return hmac.compare_digest(sign(secret, text).encode(), logon.signature.encode())
