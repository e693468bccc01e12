"""Deribit's error codes for native rejects; the reject's own name is in the error's ``data``."""

from decimal import Decimal
from typing import Any, Final

from exchange.gateway.decode import Refused
from exchange.gateway.dialects.deribit.rpc import INVALID_PARAMS, Failure
from exchange.gateway.rejects import from_refused
from exchange.messages import Reason
from exchange.messages.access import GatewayReason
from exchange.messages.wire import Rejected

OTHER: Final = (11030, "other_reject")
TIMED_OUT: Final = (13888, "timed_out")
UNKNOWN, NOT_DONE = "unknown", "not_done"  # ``outcome`` of a call that timed out
_PRICE_TOO_LOW: Final = (10005, "price_too_low")
_INVALID: Final = (INVALID_PARAMS, "Invalid params")
_LOCKED: Final = (10019, "locked_by_admin")
_CREDENTIALS: Final = (13004, "invalid_credentials")
_TOO_MANY: Final = (10028, "too_many_requests")
_FUNDS: Final = (10009, "not_enough_funds")

CODES: Final[dict[str, tuple[int, str]]] = {
    reason.name: told
    for reasons, told in (
        ((Reason.AUTH_REQUIRED,), (13009, "unauthorized")),
        (
            (Reason.BAD_SIGNATURE, Reason.TIMESTAMP, Reason.NONCE, Reason.KEY_LOCKED),
            _CREDENTIALS,
        ),
        ((GatewayReason.ADDRESS,), _CREDENTIALS),
        ((Reason.SCOPE, Reason.HOUSE_ACCOUNT), (13021, "forbidden")),
        (
            (Reason.ACCOUNT_KILLED, Reason.SESSION_KILLED, Reason.MEMBER_KILLED,
             Reason.EXCHANGE_KILLED),
            _LOCKED,
        ),
        (
            (Reason.SYNTAX, Reason.DUPLICATE_FIELD, Reason.UNKNOWN_FIELD, Reason.MISSING_FIELD,
             Reason.ID_FORMAT, Reason.PARAMETER_RANGE),
            _INVALID,
        ),
        ((Reason.COMBINATION,), (11047, "unsupported_arg_combination")),
        ((Reason.NOT_FOUND,), (10004, "order_not_found")),
        ((Reason.TOO_LATE,), (10010, "already_closed")),
        ((Reason.UNKNOWN_INSTRUMENT,), (13020, "not_found")),
        ((Reason.NOT_TRADING, Reason.STATE), (10012, "book_closed")),
        ((Reason.CANCEL_ONLY,), (11051, "system_maintenance")),
        ((Reason.THROTTLED, GatewayReason.REQUESTS_FULL, GatewayReason.CONNECTIONS_FULL),
         _TOO_MANY),
        ((Reason.QUANTITY_RANGE, Reason.LOT, Reason.ACCOUNT_MAX_QUANTITY),
         (10021, "invalid_amount")),
        ((Reason.TICK,), (10043, "price_wrong_tick")),
        ((Reason.PRICE_LIMIT, Reason.PRICE_BAND), (10007, "price_too_high")),
        ((Reason.POST_ONLY,), (11054, "post_only_reject")),
        ((Reason.TRIGGER,), (11036, "invalid_stoppx_for_index_or_last")),
        ((Reason.DISPLAY,), (10036, "invalid_max_show_amount")),
        ((Reason.OPEN_ORDERS,), (10013, "pme_max_total_open_orders")),
        ((Reason.POSITION_LIMIT, Reason.ALL_MONTHS_LIMIT),
         (10018, "non_pme_max_future_position_size")),
        (
            (Reason.MARGIN, Reason.MEMBER_MARGIN, Reason.FUNDS, Reason.LOSS_LIMIT,
             Reason.NOTIONAL, Reason.ORDER_VALUE),
            _FUNDS,
        ),
        ((Reason.QUEUE_FULL,), (10047, "matching_engine_queue_full")),
        ((Reason.LOG_FULL,), (10040, "retry")),
        ((Reason.SUBSCRIPTIONS_FULL,), (13017, "subscription_failed")),
    )
    for reason in reasons
}  # fmt: skip

# Native fields, with the names of the parameters that they came from.
_PARAMS: Final = {
    "quantity": "amount",
    "instrument": "instrument_name",
    "client_order_id": "label",
    "stop_price": "trigger_price",
    "display_quantity": "max_show",
}


def failure(rejected: Rejected) -> Failure:
    """Return a native reject as the error of its call."""
    code, message = CODES.get(rejected.name, OTHER)
    if code == CODES["PRICE_LIMIT"][0] and _is_low(rejected):
        code, message = _PRICE_TOO_LOW
    told: dict[str, Any] = {
        "reason": rejected.name,
        "number": rejected.number,
        "param": _PARAMS.get(rejected.field or "", rejected.field),
        "detail": rejected.detail,
        "limit": rejected.limit,
        "observed": rejected.observed,
        "retryable": rejected.retryable,
        "retry_after_ms": rejected.retry_after_ms,
    }
    return Failure(code, message, {key: value for key, value in told.items() if value is not None})


def refusal(reason: Reason | GatewayReason, detail: str | None = None) -> Failure:
    """Return the error of a call that the dialect refuses itself."""
    return refused_by(Refused(reason, None, detail))


def refused_by(refused: Refused) -> Failure:
    """Return a refusal of the gateway as the error of its call."""
    return failure(from_refused(refused))


def _is_low(rejected: Rejected) -> bool:
    if rejected.limit is None or rejected.observed is None:
        return False
    return Decimal(rejected.observed) < Decimal(rejected.limit)
