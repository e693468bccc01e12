"""Builds the rejects that clients get: the field at fault, the limit and the observed value."""

from typing import Final, NamedTuple

from exchange.gateway.decode import ORDER, Refused, digest, is_id
from exchange.marketdata.instruments import Instrument, micros_text
from exchange.marketdata.stream import Row
from exchange.messages import RETRYABLE, Reason, Side, TradingState
from exchange.messages.access import RETRYABLES, GatewayReason
from exchange.messages.wire import Rejected

NANOSECONDS_PER_MS: Final = 1_000_000


class Told(NamedTuple):
    """The field at fault in a reject of the engine, and the units of limit and observed value."""

    field: str | None = None
    limit: str | None = None
    observed: str | None = None


# For the reasons that clients can get. Meaning of each figure: docs/reference/rejects.md.
TOLD: Final[dict[int, Told]] = {
    Reason.SESSION_LIVE: Told("resume_session", None, "count"),
    Reason.SESSION_UNKNOWN: Told("resume_session", None, "count"),
    Reason.SESSION_KILLED: Told(None, None, "count"),
    Reason.MEMBER_KILLED: Told(None, None, "count"),
    Reason.SIDE_MISMATCH: Told("side", "side", "side"),
    Reason.GROUP: Told("group_with"),
    Reason.UNKNOWN_INSTRUMENT: Told("instrument"),
    Reason.NOT_TRADING: Told("instrument", "state", "state"),
    Reason.NOT_OUTRIGHT: Told("instrument", "count", "count"),
    Reason.THROTTLED: Told(None, "count", None),
    Reason.QUANTITY_RANGE: Told("quantity", "count", "count"),
    Reason.ACCOUNT_MAX_QUANTITY: Told("quantity", "count", "count"),
    Reason.NOTIONAL: Told("quantity", "money", "money"),
    Reason.ORDER_VALUE: Told("quantity", "money", "money"),
    Reason.TICK: Told("price", "price", "price"),
    Reason.LOT: Told("quantity", "count", "count"),
    Reason.PRICE_LIMIT: Told("price", "price", "price"),
    Reason.PRICE_BAND: Told("price", "price", "price"),
    Reason.POST_ONLY: Told("price", "price", "price"),
    Reason.MINIMUM: Told("minimum_quantity", "count", "count"),
    Reason.EXPIRY: Told("expires_ms", "ms", "ms"),
    Reason.REDUCE_ONLY: Told("quantity", "count", "count"),
    Reason.QUOTES_BLOCKED: Told(None, "count", "count"),
    Reason.PROTECTIONS_FULL: Told("product", "count", "count"),
    Reason.CROSSED: Told("bid_price", "price", "price"),
    Reason.TRIGGER: Told("stop_price", "price", "price"),
    Reason.DISPLAY: Told("display_quantity", "count", "count"),
    Reason.AUCTION_ONLY: Told("time_in_force", "state", "state"),
    Reason.NOT_IN_AUCTION: Told(None, None, "state"),
    Reason.FEATURE_OFF: Told(None, None, "count"),
    Reason.OPEN_ORDERS: Told(None, "count", "count"),
    Reason.POSITION_LIMIT: Told("quantity", "count", "count"),
    Reason.ALL_MONTHS_LIMIT: Told("quantity", "count", "count"),
    Reason.MARGIN: Told("quantity", "money", "money"),
    Reason.MEMBER_MARGIN: Told("quantity", "money", "money"),
    Reason.LOSS_LIMIT: Told(None, "money", "money"),
    Reason.FUNDS: Told("amount", "money", "money"),
    Reason.ORDERS_FULL: Told(None, "count", "count"),
    Reason.POSITIONS_FULL: Told(None, "count", "count"),
    Reason.SESSIONS_FULL: Told(None, "count", "count"),
    Reason.BOOK_FULL: Told(None, "count", "count"),
    Reason.ICEBERGS_FULL: Told("display_quantity", "count", "count"),
    Reason.REDUCING_FULL: Told("reduce_only", "count", "count"),
    Reason.GROUPS_FULL: Told("group_with", "count", "count"),
}
_UNSAID: Final = Told()
# Rejects of commands that name an order, a session or, for a protection, a product: the record's
# instrument means nothing, or another one.
_NAMELESS: Final = frozenset(
    (Reason.NOT_FOUND, Reason.SESSION_LIVE, Reason.SESSION_UNKNOWN, Reason.PARAMETER_RANGE,
     Reason.PROTECTIONS_FULL)
)  # fmt: skip
# A queue empties within a batch. A full disk needs a person, so clients retry once a second.
RETRY_MS: Final[dict[int, int]] = {
    Reason.QUEUE_FULL: 1,
    Reason.LOG_FULL: 1_000,
    GatewayReason.REQUESTS_FULL: 1_000,
}


def full_reason(error: Exception) -> Reason:
    """Return the reason of an error of ``submit``; QUEUE_FULL if it names none."""
    reason = getattr(error, "reason", Reason.QUEUE_FULL)
    assert isinstance(reason, Reason)
    return reason


def from_refused(refused: Refused, op: str | None = None) -> Rejected:
    """Return the reject of a request that the gateway refused itself."""
    reason, seen = refused.reason, refused.seen
    return Rejected(
        number=int(reason),
        name=reason.name,
        op=op or seen.get("op"),
        client_order_id=seen.get("client_order_id"),
        request_id=seen.get("request_id"),
        order_id=seen.get("order_id"),
        field=refused.field,
        detail=refused.detail,
        limit=refused.limit,
        observed=refused.observed,
        retryable=reason in RETRYABLES,
        retry_after_ms=RETRY_MS.get(reason),
    )


def is_of_entry(row: Row, text: str | None) -> bool:
    """Whether a REJECTED event is of a client's new order, whose client order id is ``text``."""
    key = row[11].to_bytes(8, "little") + row[12].to_bytes(8, "little")
    return text is not None and is_id(text) and key == digest(text, ORDER)


def from_event(
    row: Row,
    time: int,
    text: str | None,
    instrument: Instrument | None,
    tokens: int | None,
    *,
    is_guess: bool = False,
) -> Rejected:
    """Return the reject of a REJECTED event.

    ``text`` came with its command: the request's id if that was a client's. ``time`` is the batch's
    stamp in ns, ``tokens`` what the account's throttle has left. ``is_guess``: ``instrument`` is
    good for the ticks of its prices, but may not be the one concerned.
    """
    is_order = is_of_entry(row, text)
    text = text if text is not None and is_id(text) else None
    reason = Reason(row[4])
    told = TOLD.get(reason, _UNSAID)
    nameless = is_guess or reason in _NAMELESS
    nameless |= reason == Reason.DUPLICATE_DIFFERENT and not is_order
    wait_ns = row[14] if reason == Reason.THROTTLED else 0
    return Rejected(
        number=int(reason),
        name=reason.name,
        client_order_id=text if is_order else None,
        request_id=None if is_order else text,
        order_id=str(row[7]) if row[7] else None,
        instrument=None if instrument is None or nameless else instrument.code,
        field=told.field,
        limit=_figure(told.limit, row[13], instrument),
        observed=_figure(told.observed, row[14], instrument),
        retryable=reason in RETRYABLE,
        retry_after_ms=-(-wait_ns // NANOSECONDS_PER_MS) if wait_ns else None,
        sequence=row[0],
        index=row[1],
        time=time,
        tokens=tokens,
    )


def _figure(unit: str | None, value: int, instrument: Instrument | None) -> str | None:
    """Return a limit or an observed value as text in its unit."""
    match unit:
        case "price":
            return None if instrument is None else instrument.price_text(value)
        case "money":
            return micros_text(value)
        case "state":
            return TradingState(value).name
        case "side":
            return Side(value).name.lower()
        case "ms":
            return str(value // NANOSECONDS_PER_MS)
        case "count":
            return str(value)
    return None
