"""API keys: where they are read from, and how they sign.

``hourbook keys create ACCOUNT`` prints a key with a secret (HMAC-SHA256); with ``--public-key`` the
owner keeps an Ed25519 private key in a PEM file. The secret is stored in no attribute, so that no
``repr``, pickle or traceback of a ``Key`` shows it.
"""

import hmac
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from clients.errors import ValueRefused

Algorithm: TypeAlias = Literal["hmac-sha256", "ed25519"]
FILE_VARIABLE: Final = "HOURBOOK_KEY"  # a file with the output of `hourbook keys create`
ID_VARIABLE: Final = "HOURBOOK_KEY_ID"  # or the key's id
SECRET_VARIABLE: Final = "HOURBOOK_SECRET"  # and one of these two
PRIVATE_KEY_VARIABLE: Final = "HOURBOOK_PRIVATE_KEY"  # a PEM file
_NONCES: Final = threading.Lock()  # of all keys: in a key it could not be copied


class _File(msgspec.Struct):
    key_id: str
    secret: str = ""
    private_key: str = ""  # path of a PEM file, relative to this one

    def __repr__(self) -> str:
        return f"_File({self.key_id!r})"


class Key:
    """One API key. Its nonces rise over all that it signs, logons and HTTP requests alike."""

    def __init__(self, key_id: str, algorithm: Algorithm, sign: Callable[[bytes], str]) -> None:
        """``sign`` returns a text's signature in hexadecimal, for example from a key held
        elsewhere."""
        self.key_id = key_id
        self.algorithm = algorithm
        self.sign = sign
        self._nonce = 0

    def __repr__(self) -> str:
        return f"Key({self.key_id!r}, {self.algorithm!r})"

    def next_nonce(self, now_ns: int) -> int:
        """Return a nonce: the time in ns, or the last nonce plus one if that is more. Any thread
        may call it: blocking clients with one key have a loop each."""
        with _NONCES:
            self._nonce = max(self._nonce + 1, now_ns)
            return self._nonce

    @classmethod
    def hmac(cls, key_id: str, secret: str) -> "Key":
        """Return a key with a secret."""
        secret_bytes = secret.encode()
        return cls(
            key_id, "hmac-sha256", lambda text: hmac.new(secret_bytes, text, "sha256").hexdigest()
        )

    @classmethod
    def ed25519(cls, key_id: str, pem: bytes) -> "Key":
        """Return a key with a private key in PEM, without a password. ValueRefused if it is
        invalid."""
        private = _private_key(pem)
        del pem
        if private is None:
            raise ValueRefused(f"key {key_id}: no Ed25519 private key without a password in PEM")
        return cls(key_id, "ed25519", lambda text: private.sign(text).hex())

    @classmethod
    def from_file(cls, path: str | Path, private_key: str | Path = "") -> "Key":
        """Return a key from the output of ``hourbook keys create``. Raises ValueRefused.

        An Ed25519 key also needs a PEM file: ``private_key``, or the file's own ``private_key``,
        relative to it.
        """
        found = _read(Path(path))
        if found is None:
            raise ValueRefused(
                f"{path} is no key file that can be read; `hourbook keys create` prints one"
            )
        if private_key or found.private_key:
            pem = Path(private_key) if private_key else Path(path).parent / found.private_key
            return cls._from_pem(found.key_id, pem)
        if not found.secret:
            raise ValueRefused(f"{path} has no secret: name the PEM file of its private key")
        return cls.hmac(found.key_id, found.secret)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Key":
        """Return a key from ``HOURBOOK_KEY`` (a file) or ``HOURBOOK_KEY_ID``, with
        ``HOURBOOK_SECRET`` or ``HOURBOOK_PRIVATE_KEY`` (a PEM file). An empty variable counts as
        none. Raises ValueRefused if there is none."""
        pem = environment.get(PRIVATE_KEY_VARIABLE, "")
        if environment.get(FILE_VARIABLE):
            return cls.from_file(environment[FILE_VARIABLE], pem)
        # A line feed is often left at the end of a variable, and would be a bad signature
        key_id = environment.get(ID_VARIABLE, "").strip()
        if key_id and pem:
            return cls._from_pem(key_id, Path(pem))
        if key_id and (secret := environment.get(SECRET_VARIABLE, "").strip()):
            return cls.hmac(key_id, secret)
        raise ValueRefused(
            f"no key: set {FILE_VARIABLE} to a key file, or {ID_VARIABLE} with {SECRET_VARIABLE}"
            f" or {PRIVATE_KEY_VARIABLE}"
        )

    @classmethod
    def _from_pem(cls, key_id: str, path: Path) -> "Key":
        try:
            return cls.ed25519(key_id, path.read_bytes())
        except OSError as error:
            raise ValueRefused(f"key {key_id}: {path} cannot be read: {error.strerror}") from None


def key_of(key: Key | str, secret: str) -> Key | None:
    """Return the key from a client's arguments: a Key, or id and secret; None without either.
    ValueRefused for one of the two: public data alone is not meant, nor a bad signature."""
    if isinstance(key, Key):
        return key
    if bool(key) != bool(secret):
        raise ValueRefused(f"the {'secret' if key else 'id'} of the key is empty")
    return Key.hmac(key, secret) if key else None


# These return None and their callers raise, so that no frame of a traceback holds a secret.


def _private_key(pem: bytes) -> Ed25519PrivateKey | None:
    try:
        found = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return found if isinstance(found, Ed25519PrivateKey) else None


def _read(path: Path) -> _File | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError):
        return None
