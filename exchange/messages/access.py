"""Access rights as clients see them: scopes, rights, and the rejects that only the gateway gives.

A key has one scope, and a scope some rights; every request needs one right, or none. The gateway
checks them in one place (``exchange.gateway.access``); the documentation's table is this one.
"""

from enum import IntEnum, IntFlag
from hashlib import sha256
from typing import Final, Literal, TypeAlias

from exchange.messages import RETRYABLE, Reason

Scope: TypeAlias = Literal["read", "trade", "cancel_only", "clear", "admin"]


class Right(IntFlag):
    """The right that a request needs. PUBLIC: none."""

    PUBLIC = 0
    READ = 1  # read one's own account
    CANCEL = 2  # remove lots from the market
    TRADE = 4  # bring lots to the market
    CLEAR = 8  # the clearing house's requests
    ADMIN = 16  # every other request of an operator


SCOPES: Final[dict[Scope, Right]] = {
    "read": Right.READ,
    "trade": Right.READ | Right.CANCEL | Right.TRADE,
    "cancel_only": Right.READ | Right.CANCEL,
    "clear": Right.READ | Right.CLEAR,
    "admin": Right.READ | Right.CLEAR | Right.ADMIN,
}


# Tokens of the account's throttle that a request costs, by ``op``; one that is not listed is free.
# A quote that only withdraws is free as well.
COSTS: Final = {"enter": 1, "replace": 1, "quote": 1}


class GatewayReason(IntEnum):
    """Rejects that only the gateway gives. They are in the bands of ``Reason``, whose numbers they
    never repeat."""

    ADDRESS = 120
    LATE = 590
    CONNECTIONS_FULL = 720
    REQUESTS_FULL = 721
    BODY_TOO_LARGE = 722
    BATCH_TOO_LARGE = 723
    QUEUE_TOO_LONG = 724
    STATE_TOO_LARGE = 725


KEY_HEADER: Final = "Hourbook-Key"  # headers of a signed HTTP request
TIMESTAMP_HEADER: Final = "Hourbook-Timestamp"
NONCE_HEADER: Final = "Hourbook-Nonce"
SIGNATURE_HEADER: Final = "Hourbook-Signature"
ADMIN_PATH: Final = "/api/v1/admin"  # path of operators' requests

AnyReason: TypeAlias = Reason | GatewayReason
RETRYABLES: Final[frozenset[AnyReason]] = RETRYABLE | {GatewayReason.REQUESTS_FULL}


def signed_request(
    timestamp_ms: int, nonce: int, key_id: str, method: str, target: str, body: bytes
) -> bytes:
    """Return the exact bytes that the signature of an HTTP request covers.

    ``target`` is the path with its query, as sent.
    """
    digest = sha256(body).hexdigest()
    return f"{timestamp_ms}\n{nonce}\n{key_id}\n{method}\n{target}\n{digest}".encode()
