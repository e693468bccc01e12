"""The parameters of each method.

Methods that only read ignore unknown parameters, as the venue does. Methods that change orders
refuse them: an order without one of its terms would be another order.
"""

import re
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from exchange.gateway.dialects.deribit.rpc import Failure, wrong_param
from exchange.messages import Reason

COUNT: Final = 10  # default length of a list
COUNT_MAX: Final = 1_000
OFFSET_MAX: Final = 1_000
DEPTH_MAX: Final = 10_000
CANDLES_MAX: Final = 5_000

TimeInForceName: TypeAlias = Literal[
    "good_til_cancelled", "good_til_day", "immediate_or_cancel", "fill_or_kill"
]
OrderTypeName: TypeAlias = Literal["limit", "market", "market_limit", "stop_limit", "stop_market"]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a method that changes no order; unknown ones are ignored."""


class Act(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a method that changes orders; unknown ones are refused."""


class Nothing(Query, frozen=True):
    """No parameters."""


class Auth(Query, frozen=True, kw_only=True):
    """Credentials of one of the three grant types."""

    grant_type: Literal["client_credentials", "client_signature", "refresh_token"]
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""
    timestamp: int = 0
    signature: str = ""
    nonce: str = ""
    data: str = ""


class Heartbeat(Query, frozen=True, kw_only=True):
    """The interval of heartbeats in seconds."""

    interval: int


class Channels(Query, frozen=True, kw_only=True):
    """Names of channels."""

    channels: list[str]


class OneInstrument(Query, frozen=True, kw_only=True):
    """An instrument by its code."""

    instrument_name: str


class Book(OneInstrument, frozen=True, kw_only=True):
    """An instrument and the number of levels per side."""

    depth: int = 20


class Listed(Query, frozen=True, kw_only=True):
    """Instruments by currency and kind, or one by its code."""

    currency: str = "any"
    kind: str = "any"
    instrument_name: str = ""


class Directory(Listed, frozen=True, kw_only=True):
    """Instruments that have expired, or those that have not."""

    expired: bool = False


class ListedOf(Listed, frozen=True, kw_only=True):
    """One instrument, by its code."""

    instrument_name: str


class Slice(Query, frozen=True, kw_only=True):
    """A part of a list of trades or orders, newest first unless ``sorting`` says otherwise."""

    instrument_name: str = ""
    currency: str = "any"
    kind: str = "any"
    order_id: str = ""
    count: int = COUNT
    offset: int = 0
    start_timestamp: int = 0
    end_timestamp: int = (1 << 63) - 1
    sorting: Literal["asc", "desc", "default"] = "default"


class OfBook(Slice, frozen=True, kw_only=True):
    """A part of the list of one instrument."""

    instrument_name: str


class OfOrder(Slice, frozen=True, kw_only=True):
    """The trades of one order: by default all, since the answer cannot say that there are more."""

    order_id: str
    count: int = COUNT_MAX


class Chart(OneInstrument, frozen=True, kw_only=True):
    """A period of candles, ends included, in milliseconds since the epoch.

    ccxt's pages are ``CANDLES_MAX`` intervals long and begin a millisecond early, so they touch one
    interval more.
    """

    start_timestamp: int
    end_timestamp: int
    resolution: str


class Loss(Query, frozen=True, kw_only=True):
    """The scope of cancel on disconnect."""

    scope: Literal["connection"] = "connection"


class OneOrder(Query, frozen=True, kw_only=True):
    """An order by its id."""

    order_id: str


class Labelled(Query, frozen=True, kw_only=True):
    """Orders by their label."""

    label: str
    currency: str = "any"


class Order(Act, frozen=True, kw_only=True):
    """A new order; its numbers are read by ``numbers.plain``."""

    instrument_name: str
    amount: Any = None
    contracts: Any = None
    type: OrderTypeName = "limit"
    price: Any = None
    label: str = ""
    time_in_force: TimeInForceName = "good_til_cancelled"
    max_show: Any = None
    post_only: bool = False
    reject_post_only: bool = True
    reduce_only: bool = False
    trigger_price: Any = None
    trigger: Literal["last_price"] = "last_price"
    valid_until: int = 0


class Edit(Act, frozen=True, kw_only=True):
    """The new terms of an order."""

    order_id: str
    amount: Any = None
    contracts: Any = None
    price: Any = None
    post_only: bool = False
    reject_post_only: bool = True
    valid_until: int = 0


class CancelOne(Act, frozen=True, kw_only=True):
    """The order to cancel."""

    order_id: str


_T = TypeVar("_T", bound=msgspec.Struct)
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`.*", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`.*", re.DOTALL)
_PLACE: Final = re.compile(r"- at `\$\.(\w+)")


def convert(params: dict[str, Any], kind: type[_T]) -> _T:
    """Convert parameters to the type of their method. Numbers may be text, as in a URL's query.

    Raises Failure with the name of the parameter.
    """
    try:
        return msgspec.convert(params, kind, strict=False)
    except (msgspec.ValidationError, OverflowError) as error:
        raise _explained(str(error)) from None


def _explained(message: str) -> Failure:
    for pattern, reason in ((_MISSING, Reason.MISSING_FIELD), (_UNKNOWN, Reason.UNKNOWN_FIELD)):
        match = pattern.fullmatch(message)
        if match:
            return wrong_param(ascii(match[1][:40])[1:-1], reason)
    place = _PLACE.search(message)
    detail = ascii(message.partition(" - at ")[0][:100])[1:-1]
    return wrong_param(place[1] if place else None, Reason.SYNTAX, detail)


def limited(value: int, most: int, param: str) -> int:
    """Return ``value`` if it is from 1 to ``most``; raises Failure otherwise."""
    if not 0 < value <= most:
        raise wrong_param(param, Reason.PARAMETER_RANGE, f"1 to {most}", str(value))
    return value
