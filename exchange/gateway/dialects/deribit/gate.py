"""Authentication: the native key of a caller's credentials, signature or token.

Proofs are checked by the native rules: lockout, signature, address, time window. Nonces need not
increase, unlike at a native logon, since the venue's clients do not make them so; instead each
signed text is accepted once. The text signed for ``public/auth`` has three lines, unlike every
other text that a key signs, so that no signature seen elsewhere opens a session.
"""

from base64 import b64decode
from binascii import Error as NotBase64
from typing import Any, Final

from exchange.gateway.access import Key, Proof, is_allowed, sign
from exchange.gateway.dialects.deribit.codes import refusal
from exchange.gateway.dialects.deribit.params import Auth
from exchange.gateway.dialects.deribit.rpc import wrong_param
from exchange.gateway.hub import Hub
from exchange.messages import Reason
from exchange.messages.access import GatewayReason, Right

TOKEN_MS: Final = 900_000  # validity of an access token
REFRESH_MS: Final = 86_400_000  # validity of a refresh token
SIGNED_SCHEME, BEARER, BASIC = "deri-hmac-sha256", "bearer", "basic"
DIGITS_MAX: Final = 16  # of a timestamp
SCOPE_TEXT: Final = "account:{0} trade:{1} wallet:none block_trade:none custody:none"


class Gate:
    """Authenticates callers and issues tokens, which all gateways of the market accept."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def grant(self, auth: Auth, address: str) -> Key:
        """Return the key of a ``public/auth`` call; raises Failure.

        A refresh token is spent only by ``issue``, so that it survives another refusal.
        """
        if auth.grant_type == "client_credentials":
            return self._by_secret(auth.client_id, auth.client_secret, address)
        if auth.grant_type == "refresh_token":
            return self._by_token(auth.refresh_token, address, refreshes=True)
        for name in ("nonce", "data"):
            if "\n" in getattr(auth, name):
                raise wrong_param(name, Reason.SYNTAX, "no line feed may be signed")
        text = f"{auth.timestamp}\n{auth.nonce}\n{auth.data}".encode()
        return self._signed(auth.client_id, text, auth.signature, auth.timestamp, address)

    def admit(self, header: str, signed: str, body: bytes, address: str) -> Key:
        """Return the key of an HTTP request by its Authorization header; raises Failure.

        ``signed`` is the request's method and target, a line each.
        """
        if not (header.isascii() and signed.isascii()):
            raise refusal(Reason.SYNTAX, "a header or a target that is not ASCII")
        scheme, _, rest = header.partition(" ")
        scheme = scheme.lower()
        if scheme == SIGNED_SCHEME:
            return self._by_header(rest, signed, body, address)
        if scheme == BEARER:
            return self._by_token(rest.strip(), address, refreshes=False)
        if scheme == BASIC:
            try:
                key_id, _, secret = b64decode(rest, validate=True).decode().partition(":")
            except (NotBase64, ValueError):
                raise refusal(Reason.SYNTAX, "not Base64") from None
            return self._by_secret(key_id, secret, address)
        raise refusal(Reason.AUTH_REQUIRED, f"schemes: {SIGNED_SCHEME}, {BEARER}, {BASIC}")

    def issue(self, key: Key, auth: Auth) -> dict[str, Any]:
        """Return new tokens of a granted key, in the form of the answer to ``public/auth``.

        Raises Failure if its refresh token was spent in the meantime.
        """
        if auth.grant_type == "refresh_token" and not self._hub.keys.tokens.spend(
            auth.refresh_token
        ):
            raise refusal(Reason.AUTH_REQUIRED, "the token was spent just now")
        now, give = self._hub.now_ms(), self._hub.keys.tokens.give
        write = "read_write" if key.may(Right.TRADE) else "read"
        return {
            "access_token": give(key.key_id, now + TOKEN_MS, now, refreshes=False),
            "refresh_token": give(key.key_id, now + REFRESH_MS, now, refreshes=True),
            "expires_in": TOKEN_MS // 1_000,
            "token_type": BEARER,
            "scope": SCOPE_TEXT.format("read", write),
        }

    def _by_token(self, text: str, address: str, *, refreshes: bool) -> Key:
        keys, now = self._hub.keys, self._hub.now_ms()
        owner = keys.tokens.owner(text, now, refreshes=refreshes)
        if owner is None:
            raise refusal(Reason.AUTH_REQUIRED, "no such token, or it has ended")
        key = keys.find(owner, now)
        if key is None:
            raise refusal(Reason.AUTH_REQUIRED, "the key is gone")
        if not is_allowed(address, key.addresses):
            raise refusal(GatewayReason.ADDRESS)
        return key

    def _by_secret(self, key_id: str, secret: str, address: str) -> Key:
        now = self._hub.now_ms()
        text = f"{now}\n{key_id}".encode()
        return self._judged(Proof(key_id, text, sign(secret, text), now, None, address))

    def _by_header(self, parts: str, signed: str, body: bytes, address: str) -> Key:
        pairs = (part.strip().partition("=") for part in parts.split(","))
        said = {name: value for name, _, value in pairs}
        stamp = said.get("ts", "")
        if not {"id", "ts", "sig", "nonce"} <= said.keys() or not is_time(stamp):
            raise refusal(Reason.SYNTAX, f"{SIGNED_SCHEME} id=,ts=,sig=,nonce=")
        text = f"{stamp}\n{said['nonce']}\n{signed}\n".encode() + body + b"\n"
        return self._signed(said["id"], text, said["sig"], int(stamp), address)

    def _signed(
        self, key_id: str, text: bytes, signature: str, timestamp_ms: int, address: str
    ) -> Key:
        """Return the key of a signed text, whose timestamp is recent and which is new."""
        proof = Proof(key_id, text, signature.lower(), timestamp_ms, None, address, once=True)
        return self._judged(proof)

    def _judged(self, proof: Proof) -> Key:
        judged = self._hub.keys.check(proof, self._hub.now_ms())
        if isinstance(judged, Key):
            return judged
        raise refusal(judged)


def is_time(text: str) -> bool:
    """Whether text is a number of milliseconds."""
    return len(text) <= DIGITS_MAX and text.isascii() and text.isdigit()
