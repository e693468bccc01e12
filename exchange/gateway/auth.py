"""API keys: their file, and the check of proofs against it.

Keys are stored in ``DIR/keys.db``, outside the log, which never contains a secret. A key belongs to
one account and has one scope; the rules of a proof are in ``exchange.gateway.access``. A rotated
key has the same person as the first key of its chain of rotations.
"""

import logging
import os
import secrets
import shutil
import sqlite3
import time
import weakref
from collections.abc import Set
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from exchange.gateway import lockouts, signatures, tokens
from exchange.gateway.access import Algorithm, Judge, Key, Proof, Stored, networks
from exchange.gateway.access import sign as sign
from exchange.gateway.lockouts import Lockouts
from exchange.gateway.signatures import Signatures
from exchange.gateway.tokens import Tokens
from exchange.messages import Reason
from exchange.messages.access import SCOPES, AnyReason, Scope
from exchange.messages.wire import Logon, signed_text

FILE: Final = "keys.db"
KEYS_VERSION: Final = 1  # SQLite's user_version of the file; higher with every change of its tables
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS keys (
    key_id TEXT PRIMARY KEY, secret TEXT NOT NULL, account INTEGER NOT NULL,
    scope TEXT NOT NULL, created INTEGER NOT NULL, nonce TEXT NOT NULL DEFAULT '-1',
    algorithm TEXT NOT NULL DEFAULT 'hmac-sha256', addresses TEXT NOT NULL DEFAULT '',
    expires_ms INTEGER
) STRICT
"""  # nonces are text, since they may exceed SQLite's signed 64 bits; ``secret`` or a public key
_FOLLOWERS: Final = """
CREATE TABLE IF NOT EXISTS followers (key_id TEXT PRIMARY KEY, person TEXT NOT NULL) STRICT
"""  # rotated keys, with the first key of their chain
_COLUMNS: Final = (
    "key_id, account, scope, algorithm, addresses, expires_ms, coalesce(person, key_id)"
)
_NAMES: Final = {
    "key_id", "secret", "account", "scope", "created", "nonce", "algorithm", "addresses",
    "expires_ms",
}  # fmt: skip
_KEYS: Final = "keys LEFT JOIN followers USING (key_id)"
ROOM_BYTES: Final = 1 << 19  # set aside in the file, and in its write-ahead log
PLENTY_BYTES: Final = 16 * ROOM_BYTES  # on a disk with less free nothing is set aside
CHECKPOINT_PAGES: Final = 100  # of that log, before it begins anew; ROOM_BYTES holds more
_log = logging.getLogger(__name__)


class OtherKeys(sqlite3.DatabaseError):
    """Another build wrote the key file, and lays it out differently."""


def create_key(
    directory: Path,
    account: int,
    scope: Scope,
    *,
    addresses: tuple[str, ...] = (),
    public_key: str = "",
) -> tuple[str, str]:
    """Create a key and return (key_id, secret); the secret cannot be read again.

    With ``public_key``, an Ed25519 one in hexadecimal, the owner has the private key and the secret
    returned is "". Raises ValueError for an unknown scope or an invalid address or public key.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}")
    with closing(_open(directory)) as database:
        return _insert(database, account, scope, networks(addresses), public_key)


def _insert(
    database: sqlite3.Connection,
    account: int,
    scope: str,
    addresses: tuple[str, ...],
    public_key: str,
) -> tuple[str, str]:
    algorithm: Algorithm = "ed25519" if public_key else "hmac-sha256"
    if public_key:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
    key_id = secrets.token_hex(8)
    secret = "" if public_key else secrets.token_hex(32)
    database.execute(
        "INSERT INTO keys (key_id, secret, account, scope, created, algorithm, addresses)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            key_id, public_key or secret, account, scope, int(time.time()), algorithm,
            " ".join(addresses),
        ),
    )  # fmt: skip
    return key_id, secret


def read_public_key(pem: bytes) -> str:
    """Return the Ed25519 public key of a PEM file in hexadecimal; ValueError if it has none."""
    found = load_pem_public_key(pem)
    if not isinstance(found, Ed25519PublicKey):
        raise ValueError("it is a key of another kind")
    return found.public_bytes_raw().hex()


def rotate_key(
    directory: Path, key_id: str, until_ms: int, *, public_key: str = ""
) -> tuple[str, str]:
    """Create a key like another, which then expires at ``until_ms`` or before; both are valid until
    then.

    Returns (key_id, secret) of the new key, as ``create_key`` does. Raises LookupError for an
    unknown key, ValueError for an invalid public key or for an Ed25519 key without one for the new
    key.
    """
    with closing(_open(directory)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        query = f"SELECT {_COLUMNS} FROM {_KEYS} WHERE key_id = ?"
        row = database.execute(query, (key_id,)).fetchone()
        if row is None:
            raise LookupError(f"no key {key_id}")
        key = _key(row)
        if key.algorithm == "ed25519" and not public_key:
            raise ValueError("an Ed25519 key is followed by another: name its public key")
        made = _insert(database, key.account, key.scope, key.addresses, public_key)
        database.execute("INSERT INTO followers VALUES (?, ?)", (made[0], key.person))
        database.execute(
            "UPDATE keys SET expires_ms = min(coalesce(expires_ms, ?1), ?1) WHERE key_id = ?2",
            (until_ms, key_id),
        )
    return made


def revoke_key(directory: Path, key_id: str) -> None:
    """Delete a key. Raises LookupError if there is none of that id."""
    with closing(_open(directory)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        if database.execute("DELETE FROM keys WHERE key_id = ?", (key_id,)).rowcount == 0:
            raise LookupError(f"no key {key_id}")
        database.execute("DELETE FROM followers WHERE key_id = ?", (key_id,))


def list_keys(directory: Path) -> list[Key]:
    """Return every key, also expired ones, without secrets, the oldest first."""
    with closing(_open(directory)) as database:
        rows = database.execute(f"SELECT {_COLUMNS} FROM {_KEYS} ORDER BY created, keys.rowid")
        return [_key(row) for row in rows]


def _key(row: tuple[Any, ...]) -> Key:
    key_id, account, scope, algorithm, addresses, expires_ms, person = row
    return Key(key_id, account, scope, algorithm, tuple(addresses.split()), expires_ms, person)


def find_key(directory: Path, key_id: str, now_ms: int) -> Key | None:
    """Return the key of that id; None if there is none, or it has expired."""
    return next((k for k in list_keys(directory) if k.key_id == key_id and k.is_good(now_ms)), None)


def _open(directory: Path) -> sqlite3.Connection:
    """Open the key file, created with mode 0600 before SQLite writes to it; autocommit.

    With a write-ahead log and synchronous NORMAL, spending a nonce does not wait for the disk.
    Nonces lost in a power failure are outside the time window before anybody can log on again.

    An existing file is not opened except by SQLite: closing it would release the POSIX locks of all
    connections of this process, and another process that closes the file could then delete the
    write-ahead log. Raises OtherKeys.
    """
    path = directory / FILE
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        path.chmod(0o600)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    with ExitStack() as unless_whole:
        unless_whole.callback(database.close)
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found > KEYS_VERSION:
            raise OtherKeys(
                f"{path} has the layout {found} of a later build, and this one knows"
                f" {KEYS_VERSION}: use the build that wrote it, or a later one"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        for statement in (_SCHEMA, _FOLLOWERS, lockouts.SCHEMA, *tokens.SCHEMA, *signatures.SCHEMA):
            database.execute(statement)
        if not found:
            _number(database, path)
        unless_whole.pop_all()
    return database


def _number(database: sqlite3.Connection, path: Path) -> None:
    """Give the file its version: it is new, or of a build before there were versions. Raises
    OtherKeys."""
    columns = {row[1] for row in database.execute("PRAGMA table_info(keys)")}
    if columns != _NAMES:
        raise OtherKeys(
            f"{path} has the layout of another build: use the build that wrote it, or, while nobody"
            " serves the directory, delete the file and make new keys"
        )
    database.execute(f"PRAGMA user_version = {KEYS_VERSION}")


def _set_room_aside(database: sqlite3.Connection, directory: Path) -> None:
    """Give the file and its write-ahead log the room that they will need, so that neither has to
    grow once the disk is full: clients must be able to log on then, to cancel.

    On a disk with little room both stay as they are: a start needs it for other files.
    """
    database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    if shutil.disk_usage(directory).free < PLENTY_BYTES:
        return
    with suppress(sqlite3.OperationalError):  # full or busy: it was an attempt
        with database:  # two transactions: what is written and freed in one is not written at all
            database.execute("BEGIN IMMEDIATE")
            database.execute("CREATE TABLE IF NOT EXISTS room (bytes BLOB) STRICT")
            database.execute("INSERT INTO room VALUES (zeroblob(?))", (ROOM_BYTES,))
        database.execute("DROP TABLE IF EXISTS room")
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _is_full(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode == sqlite3.SQLITE_FULL


def logon_proof(logon: Logon, address: str) -> Proof:
    """Return the proof of a logon of the native protocol."""
    text = signed_text(logon.timestamp_ms, logon.nonce, logon.key_id, logon.resume_session)
    return Proof(logon.key_id, text, logon.signature, logon.timestamp_ms, logon.nonce, address)


class Keys:
    """Checks proofs against the key file. Every call reads the file, so a revoked key fails at its
    next use; the gateway checks the keys of its open connections with every heartbeat."""

    def __init__(self, directory: Path) -> None:
        self._database = _open(directory)
        weakref.finalize(self, self._database.close)
        _set_room_aside(self._database, directory)
        self._judge = Judge(Lockouts(self._database))
        self.tokens = Tokens(self._database)
        self._signatures = Signatures(self._database)
        # Used for an unknown key, so that it takes the same work as a known one.
        self._nobody = ("", 0, "read", "hmac-sha256", "", None, "", secrets.token_hex(32), "-1")

    def check(self, proof: Proof, now_ms: int) -> Key | AnyReason:
        """Return the key of a valid proof, or why it is refused.

        A good signature clears the count of bad ones. The nonce of an accepted proof, or with
        ``once`` its text, is spent, whatever happens to the request afterwards. LOG_FULL if a full
        disk does not take that.
        """
        try:
            return self._check(proof, now_ms)
        except sqlite3.OperationalError as error:
            if not _is_full(error):
                raise
        try:  # behind a checkpoint the write-ahead log begins anew, in the room that it has
            self._database.execute("PRAGMA wal_checkpoint(RESTART)")
            return self._check(proof, now_ms)
        except sqlite3.OperationalError as error:
            if not _is_full(error):
                raise
            return Reason.LOG_FULL

    def _check(self, proof: Proof, now_ms: int) -> Key | AnyReason:
        stored = self._stored(proof.key_id, now_ms)
        reason, locked = self._judge.judge(proof, stored, now_ms)
        if locked:
            _log.warning("key %r is locked for address %r", proof.key_id[:40], proof.address)
        if reason is not None:
            return reason
        if proof.once and not self._signatures.use(
            proof.key_id, proof.text, proof.timestamp_ms, now_ms
        ):
            return Reason.NONCE
        if proof.nonce is not None:
            spent = self._database.execute(
                "UPDATE keys SET nonce = ? WHERE key_id = ? AND nonce = ?",
                (str(proof.nonce), proof.key_id, str(stored.nonce)),
            )
            if not spent.rowcount:  # another gateway spent a nonce of this key meanwhile
                return self._check(proof, now_ms)
        return stored.key

    def find(self, key_id: str, now_ms: int) -> Key | None:
        """Return the key of that id; None if there is none, or it has expired."""
        found = self._stored(key_id, now_ms).key
        return found if found.key_id else None

    def revoked(self, key_ids: Set[str], now_ms: int) -> Set[str]:
        """Return those of the keys that were deleted or have expired."""
        query = "SELECT key_id FROM keys WHERE expires_ms IS NULL OR expires_ms > ?"
        return key_ids - {key_id for (key_id,) in self._database.execute(query, (now_ms,))}

    def of_account(self, account: int) -> list[Key]:
        """Return the account's keys, also expired ones, the oldest first."""
        query = f"SELECT {_COLUMNS} FROM {_KEYS} WHERE account = ? ORDER BY created, keys.rowid"
        return [_key(row) for row in self._database.execute(query, (account,))]

    def _stored(self, key_id: str, now_ms: int) -> Stored:
        """Return the key of that id; a decoy without id if there is none or it has expired."""
        row = self._database.execute(
            f"SELECT {_COLUMNS}, secret, nonce FROM {_KEYS} WHERE key_id = ?1"
            " AND (expires_ms IS NULL OR expires_ms > ?2)",
            (key_id, now_ms),
        ).fetchone()
        found = row or self._nobody
        return Stored(_key(found[:7]), found[7], int(found[8]))
