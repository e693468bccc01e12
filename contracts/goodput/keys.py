"""Ed25519 keys of nodes and of the exchange, and the purposes of their signatures.

A signature covers a purpose followed by the content, so that one made for a log never verifies as
one of a report or a table.
"""

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.refusals import Refusal, Refused

SEGMENT: Final = b"hourbook attestation segment 1\n"
REPORT: Final = b"hourbook probe report 1\n"
TABLE: Final = b"hourbook factor table 1\n"
SEED_BYTES: Final = 32


class SigningKey:
    """A private key; ``public`` is the public key in hex."""

    def __init__(self, seed: bytes) -> None:
        """``seed`` is 32 secret bytes; ValueError for any other length."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a key is {SEED_BYTES} bytes, not {len(seed)}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw().hex()

    def sign(self, purpose: bytes, content: bytes) -> str:
        """Return the signature of the purpose and content, in hex."""
        return self._key.sign(purpose + content).hex()


def verify(public: str, purpose: bytes, content: bytes, signature: str) -> bool:
    """Whether the holder of the key signed the content for that purpose; False if malformed."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), purpose + content)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_key(path: Path) -> SigningKey:
    """Return the key in a file of 64 hex digits. An absent file is created with a new key, readable
    only by its owner.

    Raises Refused SYNTAX if the file holds anything else.
    """
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(os.urandom(SEED_BYTES).hex() + "\n")
    try:
        return SigningKey(bytes.fromhex(path.read_text("ascii").strip()))
    except ValueError as error:
        what = f"not a key of {2 * SEED_BYTES} hex digits; move it away to have one made"
        raise Refused(Refusal.SYNTAX, what, where=str(path)) from error
