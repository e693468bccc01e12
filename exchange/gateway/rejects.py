"""Rejects as a client reads them: the field at fault, the limit and what was observed."""

from typing import Final

from exchange.gateway.decode import ORDER, Refused, digest
from exchange.marketdata.instruments import Instrument, micros_text
from exchange.marketdata.stream import Row
from exchange.messages import RETRYABLE, Reason, TradingState
from exchange.messages.access import RETRYABLES, GatewayReason
from exchange.messages.wire import Rejected

NANOSECONDS_PER_MS: Final = 1_000_000
_PRICES: Final = frozenset(
    {
        Reason.TICK,
        Reason.PRICE_LIMIT,
        Reason.POST_ONLY,
        Reason.CROSSED,
        Reason.TRIGGER,
        Reason.PRICE_BAND,
    }
)
_MONEY: Final = frozenset(
    {
        Reason.MARGIN,
        Reason.MEMBER_MARGIN,
        Reason.FUNDS,
        Reason.NOTIONAL,
        Reason.ORDER_VALUE,
        Reason.LOSS_LIMIT,
    }
)
_PLAIN: Final = frozenset(
    {
        Reason.QUANTITY_RANGE,
        Reason.ACCOUNT_MAX_QUANTITY,
        Reason.LOT,
        Reason.MINIMUM,
        Reason.OPEN_ORDERS,
        Reason.POSITION_LIMIT,
        Reason.BOOK_FULL,
        Reason.REDUCE_ONLY,
        Reason.QUOTES_BLOCKED,
        Reason.DISPLAY,
        Reason.ICEBERGS_FULL,
    }
)
# A queue is emptied within a batch; a disk by a person, and looked at once a second.
RETRY_MS: Final[dict[int, int]] = {
    Reason.QUEUE_FULL: 1,
    Reason.LOG_FULL: 1_000,
    GatewayReason.REQUESTS_FULL: 1_000,
}
FIELD: Final[dict[int, str]] = {
    Reason.SESSION_UNKNOWN: "resume_session",
    Reason.SESSION_LIVE: "resume_session",
    Reason.SIDE_MISMATCH: "side",
    Reason.UNKNOWN_INSTRUMENT: "instrument",
    Reason.NOT_TRADING: "instrument",
    Reason.QUANTITY_RANGE: "quantity",
    Reason.ACCOUNT_MAX_QUANTITY: "quantity",
    Reason.NOTIONAL: "quantity",
    Reason.LOT: "quantity",
    Reason.POSITION_LIMIT: "quantity",
    Reason.TICK: "price",
    Reason.PRICE_LIMIT: "price",
    Reason.PRICE_BAND: "price",
    Reason.ORDER_VALUE: "quantity",
    Reason.ALL_MONTHS_LIMIT: "quantity",
    Reason.POST_ONLY: "price",
    Reason.MINIMUM: "minimum_quantity",
    Reason.EXPIRY: "expires_ms",
    Reason.TRIGGER: "stop_price",
    Reason.DISPLAY: "display_quantity",
    Reason.ICEBERGS_FULL: "display_quantity",
    Reason.REDUCE_ONLY: "quantity",
    Reason.GROUP: "group_with",
    Reason.CROSSED: "bid_price",
}


def full_reason(error: Exception) -> Reason:
    """Return the reason that an error of the sequencer's ``submit`` names."""
    reason = getattr(error, "reason", Reason.QUEUE_FULL)
    assert isinstance(reason, Reason)
    return reason


def from_refused(refused: Refused, op: str | None = None) -> Rejected:
    """Return the reject of a request that the gateway itself refused."""
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


def from_event(
    row: Row, time: int, text: str | None, instrument: Instrument | None, tokens: int | None
) -> Rejected:
    """Return the reject that a REJECTED event tells of; ``text`` came with its command."""
    reason = Reason(row[4])
    key = row[11].to_bytes(8, "little") + row[12].to_bytes(8, "little")
    is_order = text is not None and key == digest(text, ORDER)
    limit, observed = _figures(reason, row[13], row[14], instrument)
    wait_ns = row[14] if reason == Reason.THROTTLED else 0
    return Rejected(
        number=int(reason),
        name=reason.name,
        client_order_id=text if is_order else None,
        request_id=None if is_order else text,
        order_id=str(row[7]) if row[7] else None,
        instrument=instrument.code if instrument is not None else None,
        field=FIELD.get(reason),
        limit=limit,
        observed=observed,
        retryable=reason in RETRYABLE,
        retry_after_ms=-(-wait_ns // NANOSECONDS_PER_MS) if wait_ns else None,
        sequence=row[0],
        index=row[1],
        time=time,
        tokens=tokens,
    )


def _figures(
    reason: Reason, limit: int, observed: int, instrument: Instrument | None
) -> tuple[str | None, str | None]:
    """Return a reject's limit and observed value in the units of the field they are about."""
    if reason in _PRICES and instrument is not None:
        return instrument.price_text(limit), instrument.price_text(observed)
    if reason in _MONEY:
        return micros_text(limit), micros_text(observed)
    if reason in _PLAIN:
        return str(limit), str(observed)
    if reason == Reason.EXPIRY:
        return str(limit // NANOSECONDS_PER_MS), str(observed // NANOSECONDS_PER_MS)
    if reason == Reason.NOT_TRADING:
        return TradingState(limit).name, TradingState(observed).name
    if reason == Reason.THROTTLED:
        return str(limit), None
    return None, None
