"""Checks of a client's proof: signature, time window, nonce, lockout, address list. Sans-IO.

Nothing here uses a file, socket or clock: ``Judge`` is given the stored key, the address and the
time, and every protocol of the gateway uses it. An unknown key id is checked in the same steps as a
known one, against a decoy secret, so that neither the answer nor its timing tells which keys exist.
"""

import hmac
import secrets
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from exchange.gateway.lockouts import BAD_LIMIT
from exchange.messages import Reason
from exchange.messages.access import SCOPES, AnyReason, GatewayReason, Right, Scope
from exchange.messages.wire import (
    Cancel,
    CancelAfter,
    Enter,
    ListInstruments,
    Logon,
    Ping,
    Preview,
    QueryAccount,
    QueryOrder,
    QueryOrders,
    Reduce,
    Replace,
    Subscribe,
    Unsubscribe,
)
from exchange.messages.wire_mass import Kill, MassCancel, Protect, Quote

AHEAD_MS: Final = 1_000  # a timestamp must be less than this ahead of the gateway's clock
WINDOW_MS: Final = 5_000  # a timestamp may be at most this behind it
NONCE_MAX: Final = (1 << 64) - 1
ED25519_DIGITS: Final = 128  # hexadecimal digits of a signature; HMAC-SHA256 has 64

# The right that each request of a session needs; a test covers every request.
NEEDS: Final[dict[type, Right]] = {
    Logon: Right.PUBLIC, Subscribe: Right.PUBLIC, Unsubscribe: Right.PUBLIC,
    ListInstruments: Right.PUBLIC, Ping: Right.PUBLIC,
    QueryAccount: Right.READ, QueryOrders: Right.READ, QueryOrder: Right.READ,
    Preview: Right.READ,
    Cancel: Right.CANCEL, Reduce: Right.CANCEL, MassCancel: Right.CANCEL, Kill: Right.CANCEL,
    CancelAfter: Right.CANCEL,
    Enter: Right.TRADE, Replace: Right.TRADE, Quote: Right.TRADE, Protect: Right.TRADE,
}  # fmt: skip

Algorithm: TypeAlias = Literal["hmac-sha256", "ed25519"]


class Key(msgspec.Struct, frozen=True):
    """An API key without its secret: its account, scope, and the limits on its use."""

    key_id: str
    account: int
    scope: Scope
    algorithm: Algorithm = "hmac-sha256"
    addresses: tuple[str, ...] = ()  # networks that it may be used from; empty: any
    expires_ms: int | None = None  # milliseconds since the epoch
    person: str = ""  # its holder: the key id of the first key of its chain of rotations

    def is_good(self, now_ms: int) -> bool:
        """Whether the key has not expired."""
        return self.expires_ms is None or self.expires_ms > now_ms

    def may(self, right: Right) -> bool:
        """Whether the key's scope has a right. Scopes are interpreted only here."""
        return right in SCOPES[self.scope]


NOBODY: Final = Key("", 0, "read")  # stands for an unknown key: it has no id


class Stored(msgspec.Struct, frozen=True):
    """A key with its verification material: an HMAC secret or a public key; not in ``repr``."""

    key: Key
    material: str
    nonce: int = -1  # the last nonce used

    def __repr__(self) -> str:
        return f"Stored({self.key!r})"


class Proof(msgspec.Struct, frozen=True):
    """A client's evidence that it holds a key: ``text`` with its signature in hexadecimal.

    With ``nonce`` None only the time window is checked, and with ``once`` also that this text was
    not used before. A protocol in which clients present the secret itself signs a text with it to
    make its proof.
    """

    key_id: str
    text: bytes
    signature: str
    timestamp_ms: int
    nonce: int | None
    address: str = ""
    once: bool = False

    def __repr__(self) -> str:
        return f"Proof({self.key_id!r}, {self.address!r})"


def sign(secret: str, text: bytes) -> str:
    """Return a text's signature under a secret: lower-case hexadecimal HMAC-SHA256."""
    return hmac.new(secret.encode(), text, "sha256").hexdigest()


def is_signed(algorithm: Algorithm, material: str, text: bytes, signature: str) -> bool:
    """Return whether a signature is valid; an HMAC is compared in constant time."""
    given = signature.encode("utf-8", "replace")
    if algorithm == "hmac-sha256":
        return hmac.compare_digest(sign(material, text).encode(), given)
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(material))
        raw = bytes.fromhex(signature)
        key.verify(raw, text)
    except (InvalidSignature, ValueError):
        return False
    return raw.hex().encode() == given  # lower case only, as for an HMAC


def is_timely(timestamp_ms: int, now_ms: int) -> bool:
    """Return whether a timestamp is inside the window around the gateway's clock."""
    return -WINDOW_MS <= timestamp_ms - now_ms < AHEAD_MS


def is_fresh(nonce: int, last: int) -> bool:
    """Return whether a nonce is above the last one and at most ``NONCE_MAX``."""
    return last < nonce <= NONCE_MAX


def networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return addresses and networks in canonical form. ValueError for anything else."""
    return tuple(str(ip_network(text)) for text in texts)


def peer(address: str) -> IPv4Address | IPv6Address | None:
    """Return a peer's address, None if malformed. An IPv4-mapped IPv6 address becomes IPv4."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return found if mapped is None else mapped


def is_loopback(address: str) -> bool:
    """Return whether a peer's address is this machine's own."""
    found = peer(address)
    return found is not None and found.is_loopback


def is_allowed(address: str, allowed: tuple[str, ...]) -> bool:
    """Return whether a peer's address is in one of the networks; True if there are none."""
    if not allowed:
        return True
    found = peer(address)
    return found is not None and any(found in ip_network(network) for network in allowed)


class Failures(Protocol):
    """Counts consecutive bad signatures of each (key id, address); see ``Lockouts``."""

    def count(self, who: tuple[str, str], now_ms: int) -> int: ...
    def fail(self, who: tuple[str, str], now_ms: int) -> bool: ...
    def clear(self, who: tuple[str, str]) -> None: ...


class Judge:
    """Judges proofs against stored keys."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        public = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
        self._decoys: dict[Algorithm, Stored] = {
            "hmac-sha256": Stored(NOBODY, secrets.token_hex(32)),
            "ed25519": Stored(NOBODY, public),
        }

    def judge(self, proof: Proof, stored: Stored, now_ms: int) -> tuple[AnyReason | None, bool]:
        """Return why the proof is refused, None if it is good; and whether it locked the key.

        ``stored`` is the key that the proof names, or ``NOBODY`` with a decoy secret. Checked in
        order: lockout, signature, address, time window, nonce. Failures of a locked (key id,
        address) are not counted, so a lock ends ``LOCK_MS`` after it began.
        """
        algorithm: Algorithm = (
            "ed25519" if len(proof.signature) == ED25519_DIGITS else "hmac-sha256"
        )
        held = stored if stored.key.algorithm == algorithm else self._decoys[algorithm]
        good = is_signed(algorithm, held.material, proof.text, proof.signature)
        who = (proof.key_id, proof.address)
        failures = self._failures.count(who, now_ms)
        if failures >= BAD_LIMIT:
            return Reason.KEY_LOCKED, False
        if not good or not held.key.key_id:
            return Reason.BAD_SIGNATURE, self._failures.fail(who, now_ms)
        if failures:
            self._failures.clear(who)
        if not is_allowed(proof.address, held.key.addresses):
            return GatewayReason.ADDRESS, False
        if not is_timely(proof.timestamp_ms, now_ms):
            return Reason.TIMESTAMP, False
        if proof.nonce is not None and not is_fresh(proof.nonce, held.nonce):
            return Reason.NONCE, False
        return None, False
