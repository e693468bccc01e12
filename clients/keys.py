"""API keys: where they are read from, and what they sign.

``hourbook keys create ACCOUNT`` prints a key with a secret (HMAC-SHA256); with ``--public-key`` its
owner keeps an Ed25519 private key in a PEM file. What signs is kept in no attribute: no ``repr``,
pickle or traceback of a ``Key`` shows it.
"""

import hmac
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from clients.errors import ValueRefused

Algorithm: TypeAlias = Literal["hmac-sha256", "ed25519"]
FILE_VARIABLE: Final = "HOURBOOK_KEY"  # a file, as `hourbook keys create` printed it
ID_VARIABLE: Final = "HOURBOOK_KEY_ID"  # or the id alone
SECRET_VARIABLE: Final = "HOURBOOK_SECRET"  # with one of these
PRIVATE_KEY_VARIABLE: Final = "HOURBOOK_PRIVATE_KEY"  # a PEM file


class _File(msgspec.Struct):
    key_id: str
    secret: str = ""
    private_key: str = ""  # a PEM file, beside this one

    def __repr__(self) -> str:
        return f"_File({self.key_id!r})"


class Key:
    """One API key. Its nonces rise over all that is signed with it, logons and HTTP alike."""

    def __init__(self, key_id: str, algorithm: Algorithm, sign: Callable[[bytes], str]) -> None:
        """``sign`` gives a text's signature in hexadecimal: of a key held elsewhere, say."""
        self.key_id = key_id
        self.algorithm = algorithm
        self.sign = sign
        self._nonce = 0

    def __repr__(self) -> str:
        return f"Key({self.key_id!r}, {self.algorithm!r})"

    def next_nonce(self, now_ns: int) -> int:
        """The time, or what follows the last nonce if that is more."""
        self._nonce = max(self._nonce + 1, now_ns)
        return self._nonce

    @classmethod
    def hmac(cls, key_id: str, secret: str) -> "Key":
        """A key with a secret."""
        secret_bytes = secret.encode()
        return cls(
            key_id, "hmac-sha256", lambda text: hmac.new(secret_bytes, text, "sha256").hexdigest()
        )

    @classmethod
    def ed25519(cls, key_id: str, pem: bytes) -> "Key":
        """A key whose private half is PEM, without a password. ValueRefused if it is none."""
        private = _private_key(pem)
        del pem
        if private is None:
            raise ValueRefused(f"key {key_id}: no Ed25519 private key without a password in PEM")
        return cls(key_id, "ed25519", lambda text: private.sign(text).hex())

    @classmethod
    def from_file(cls, path: str | Path, private_key: str | Path = "") -> "Key":
        """A key from what ``hourbook keys create`` printed. An Ed25519 one has a PEM file too:
        ``private_key``, or as the file's own ``private_key`` names it from beside itself.
        Raises ValueRefused.
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
        """A key from ``HOURBOOK_KEY`` (a file) or ``HOURBOOK_KEY_ID``, with ``HOURBOOK_SECRET`` or
        ``HOURBOOK_PRIVATE_KEY`` (a PEM file). Raises ValueRefused if none is there.
        """
        pem = environment.get(PRIVATE_KEY_VARIABLE, "")
        if FILE_VARIABLE in environment:
            return cls.from_file(environment[FILE_VARIABLE], pem)
        key_id = environment.get(ID_VARIABLE, "")
        if key_id and pem:
            return cls._from_pem(key_id, Path(pem))
        if key_id and SECRET_VARIABLE in environment:
            return cls.hmac(key_id, environment[SECRET_VARIABLE])
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
    """A key as a client is given it: whole, or as id and secret; None for no id."""
    if isinstance(key, Key):
        return key
    return Key.hmac(key, secret) if key else None


# These answer None, and their callers raise, so that no frame of a traceback has held a secret.


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
