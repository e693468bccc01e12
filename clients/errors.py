"""Every exception the clients raise.

    HourbookError
    ├── ValueRefused         a price, quantity or id you passed cannot be meant (also a ValueError)
    ├── NotConnected         the client is closed or was never connected
    ├── ConnectionLost       the connection broke and the client has stopped trying
    ├── LogonRefused         the server refused the key, signature, nonce or session; has a reason
    ├── RequestRefused       a subscription, a query or an HTTP request was refused; has a reason
    ├── TooMany              a named limit of the client is reached
    ├── OutcomeUnknown       no answer in time: the order may live; retry with the same id
    ├── ProtocolError        the server sent what this client cannot understand
    └── Corrupt
        ├── Gap              a message of a channel is missing
        └── BadChecksum      the book differs from the exchange's

A reject of an order is not an exception but an outcome (``exchange.messages.wire.Rejected``): a bot
must expect it. An answer that never came is not a reject either: that is ``OutcomeUnknown``.
"""

from typing import Any, Final, Self

from exchange.messages.wire_base import Rejected

# What is signed states the time of this machine
WRONG_CLOCK: Final = "this machine's clock may be 5 s behind the exchange's, or 1 s ahead"


class HourbookError(Exception):
    """Root of everything this package raises. Copied or pickled it stays what it is: an exception
    of a worker process reaches its parent so."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is made again by a call with its text, which not all take.
        return self._restored, (self.args, self.__dict__)

    @classmethod
    def _restored(cls, args: tuple[Any, ...], fields: dict[str, Any]) -> Self:
        made = cls.__new__(cls, *args)
        made.__dict__.update(fields)
        return made


class ValueRefused(HourbookError, ValueError):
    """A price, quantity or id that is not valid, refused before anything was sent."""


class NotConnected(HourbookError):
    """The client is not connected, or is closed."""


class ConnectionLost(HourbookError):
    """The connection broke and no more attempts will be made."""


class LogonRefused(HourbookError):
    """The server refused the logon. ``reason`` is the reject reason's name; ``retryable`` means
    that another attempt may succeed."""

    def __init__(self, reason: str, text: str = "", *, retryable: bool = False) -> None:
        super().__init__(f"logon refused: {reason} {text}".rstrip())
        self.reason = reason
        self.retryable = retryable


class RequestRefused(HourbookError):
    """The server refused a subscription, a query or an HTTP request. ``reason`` is the reject
    reason's name; ``retryable`` means that the same may succeed later, after ``retry_after_ms``."""

    def __init__(
        self,
        reason: str,
        text: str = "",
        *,
        retryable: bool = False,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(f"request refused: {reason} {text}".rstrip())
        self.reason = reason
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms


def detail_of(rejected: Rejected) -> str:
    """Return a reject's text for a person; empty if there is nothing to say."""
    return rejected.detail or (WRONG_CLOCK if rejected.name == "TIMESTAMP" else "")


def refusal(rejected: Rejected) -> RequestRefused:
    """Return the exception for a reject, with all its fields in the text."""
    said = [f"{rejected.field}:" if rejected.field else "", detail_of(rejected)]
    said += [f"({rejected.observed})" if rejected.observed else ""]
    said += [f"limit {rejected.limit}" if rejected.limit else ""]
    return RequestRefused(
        rejected.name,
        " ".join(filter(None, said)),
        retryable=rejected.retryable,
        retry_after_ms=rejected.retry_after_ms,
    )


class TooMany(HourbookError):
    """A limit of the client is reached: ``what`` would exceed ``limit``."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what}: the limit is {limit}")
        self.what = what
        self.limit = limit


class OutcomeUnknown(HourbookError):
    """No answer came in time. The command may have been performed: retry with the same id."""

    def __init__(self, request: str) -> None:
        super().__init__(f"no answer to {request!r} yet; retry with the same id, never a new one")
        self.request = request


class ProtocolError(HourbookError):
    """The server sent a message that this client cannot understand."""


class Corrupt(HourbookError):
    """Received data is incomplete or wrong."""


class Gap(Corrupt):
    """A message is missing: the previous sequence should be ``expected``, but is ``found``."""

    def __init__(self, channel: str, expected: int, found: int) -> None:
        super().__init__(f"{channel}: expected previous sequence {expected}, found {found}")
        self.channel = channel
        self.expected = expected
        self.found = found


class BadChecksum(Corrupt):
    """The book's checksum is not the exchange's."""

    def __init__(self, channel: str, sequence: int) -> None:
        super().__init__(f"{channel}: checksum differs at sequence {sequence}")
        self.channel = channel
        self.sequence = sequence
