"""Who may do what, as clients meet it: scopes, rights, the rejects of the gateway alone.

A key has one scope, and a scope some rights; every request needs one right, or none. The gateway
asks in one place (``exchange.gateway.access``); this table is also the documentation's.
"""

from enum import IntEnum, IntFlag
from hashlib import sha256
from typing import Final, Literal, TypeAlias

from exchange.messages import RETRYABLE, Reason

Scope: TypeAlias = Literal["read", "trade", "cancel_only", "clear", "admin"]


class Right(IntFlag):
    """What a request may need. None of them: the request is public."""

    PUBLIC = 0
    READ = 1  # one's own account
    CANCEL = 2  # to take lots out of the market
    TRADE = 4  # to put lots in
    CLEAR = 8  # the clearing house's desk
    ADMIN = 16  # every other act of an operator


SCOPES: Final[dict[Scope, Right]] = {
    "read": Right.READ,
    "trade": Right.READ | Right.CANCEL | Right.TRADE,
    "cancel_only": Right.READ | Right.CANCEL,
    "clear": Right.READ | Right.CLEAR,
    "admin": Right.READ | Right.CLEAR | Right.ADMIN,
}


# Tokens of the account's throttle that a request spends, by ``op``; one that is not named is free.
# A quote that only takes back is free, too.
COSTS: Final = {"enter": 1, "replace": 1, "quote": 1}


class GatewayReason(IntEnum):
    """Rejects that the gateway alone gives; the engine's vocabulary has none of them. In the bands
    of ``Reason``, whose numbers they never repeat."""

    ADDRESS = 120
    LATE = 590
    CONNECTIONS_FULL = 720
    REQUESTS_FULL = 721
    BODY_TOO_LARGE = 722
    BATCH_TOO_LARGE = 723
    QUEUE_TOO_LONG = 724
    STATE_TOO_LARGE = 725


KEY_HEADER: Final = "Hourbook-Key"  # of a signed HTTP request
TIMESTAMP_HEADER: Final = "Hourbook-Timestamp"
NONCE_HEADER: Final = "Hourbook-Nonce"
SIGNATURE_HEADER: Final = "Hourbook-Signature"
ADMIN_PATH: Final = "/api/v1/admin"  # where operators' requests go

AnyReason: TypeAlias = Reason | GatewayReason
RETRYABLES: Final[frozenset[AnyReason]] = RETRYABLE | {GatewayReason.REQUESTS_FULL}


def signed_request(
    timestamp_ms: int, nonce: int, key_id: str, method: str, target: str, body: bytes
) -> bytes:
    """Return the exact bytes that the signature of an HTTP request covers.

    ``target`` is the path with its query as sent.
    """
    digest = sha256(body).hexdigest()
    return f"{timestamp_ms}\n{nonce}\n{key_id}\n{method}\n{target}\n{digest}".encode()
