"""JSON-RPC 2.0 in Deribit's form: requests from text to ``Call``, answers to bytes."""

import json
import time
from decimal import Decimal
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from exchange.messages import Limit, Reason
from exchange.messages.access import AnyReason, GatewayReason

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS: Final = -32602
METHOD_CHARS: Final = 64
ID_CHARS: Final = 64
_encode: Final = msgspec.json.Encoder().encode

RequestId = int | str | msgspec.Raw | None  # Raw: the digits of a number that is no 64-bit integer


class Failure(Exception):
    """The error that answers a call; ``data`` names the native reject."""

    def __init__(self, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(code, message)
        self.code, self.message, self.data = code, message, data


class Call(NamedTuple):
    """One request; ``taken_us`` is when it was received, which the answer repeats."""

    id: RequestId
    method: str
    params: dict[str, Any]
    taken_us: int


def wrong_param(
    param: str | None, reason: AnyReason, detail: str = "", observed: str | None = None
) -> Failure:
    """Return the failure of a call with an invalid parameter."""
    data: dict[str, Any] = {"reason": reason.name, "number": int(reason)}
    told = {"param": param, "detail": detail or None, "observed": observed}
    data |= {key: value for key, value in told.items() if value is not None}
    return Failure(INVALID_PARAMS, "Invalid params", data)


def now_us() -> int:
    """Return the wall clock in microseconds, for the ``usIn`` and ``usOut`` of an answer."""
    return time.time_ns() // 1_000


def read(text: str | bytes) -> Any:
    """Decode a JSON text, with fractional numbers as Decimal; raises Failure."""
    if len(text) > Limit.FRAME_BYTES:
        raise too_large()
    try:
        msgspec.json.decode(text)  # refuses lone surrogates, which ``json`` accepts
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=Decimal,
            parse_constant=_constant,
        )
    except _Twice as twice:
        raise _unparsed(Reason.DUPLICATE_FIELD, twice.args[0]) from None
    except (ValueError, ArithmeticError, RecursionError):
        raise _unparsed(Reason.SYNTAX, "not JSON") from None


def call_of(value: Any, taken_us: int) -> Call:
    """Return a JSON value as a call; raises Failure."""
    if not isinstance(value, dict):
        raise Failure(INVALID_REQUEST, "Invalid Request", _named(Reason.SYNTAX, "not an object"))
    method, params = value.get("method"), value.get("params", {})
    if "method" not in value:
        missing = _named(Reason.MISSING_FIELD, "method")
        raise Failure(INVALID_REQUEST, "Invalid Request", missing)
    if not isinstance(method, str) or not isinstance(params, dict | None):
        wrong = _named(Reason.SYNTAX, "method is text and params an object")
        raise Failure(INVALID_REQUEST, "Invalid Request", wrong)
    found = id_of(value)
    if found is None and value.get("id") is not None:  # its answer could not be told from others
        told = f"id is a number or text of at most {ID_CHARS} characters"
        raise Failure(INVALID_REQUEST, "Invalid Request", _named(Reason.SYNTAX, told))
    return Call(found, method, params or {}, taken_us)


def id_of(value: Any) -> RequestId:
    """Return a request's id as its answer repeats it; None if it has none, or an unusable one."""
    found = value.get("id") if isinstance(value, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | str | Decimal):
        return None
    if isinstance(found, int) and abs(found) < 1 << 63:
        return found
    text = str(found)
    if len(text) > ID_CHARS:
        return None
    return text if isinstance(found, str) else msgspec.Raw(text.encode())


def unknown_method(method: str) -> Failure:
    """Return the failure of a call of an unknown method."""
    data = _named(Reason.UNKNOWN_COMMAND, ascii(method[:METHOD_CHARS])[1:-1])
    return Failure(METHOD_NOT_FOUND, "Method not found", data)


def answer(id_: RequestId, taken_us: int, result: Any) -> bytes:
    """Return the answer of a call that succeeded."""
    return _envelope({"jsonrpc": "2.0", "id": id_, "result": result}, taken_us)


def error(id_: RequestId, taken_us: int, failure: Failure) -> bytes:
    """Return the answer of a call that failed."""
    told: dict[str, Any] = {"code": failure.code, "message": failure.message}
    if failure.data is not None:
        told["data"] = failure.data
    return _envelope({"jsonrpc": "2.0", "id": id_, "error": told}, taken_us)


def notification(channel: str, data: Any) -> bytes:
    """Return a notification of a channel."""
    params = {"channel": channel, "data": data}
    return _encode({"jsonrpc": "2.0", "method": "subscription", "params": params})


def heartbeat(kind: str) -> bytes:
    """Return a heartbeat: ``heartbeat``, or ``test_request``, which the client must answer."""
    return _encode({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": kind}})


def _envelope(told: dict[str, Any], taken_us: int) -> bytes:
    done = now_us()
    return _encode(
        told | {"usIn": taken_us, "usOut": done, "usDiff": done - taken_us, "testnet": False}
    )


def too_large() -> Failure:
    """Return the failure of a request that is too large."""
    told = f"more than {Limit.FRAME_BYTES.value} bytes"
    return _unparsed(GatewayReason.BODY_TOO_LARGE, told)


def not_text() -> Failure:
    """Return the failure of a binary frame."""
    return _unparsed(Reason.SYNTAX, "text frames alone")


def _named(reason: AnyReason, detail: str) -> dict[str, Any]:
    return {"reason": reason.name, "number": int(reason), "detail": detail}


def _unparsed(reason: AnyReason, detail: str) -> Failure:
    return Failure(PARSE_ERROR, "Parse error", _named(reason, detail))


class _Twice(Exception):
    """A key occurs twice in one object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Twice(f"the key {ascii(twice[:METHOD_CHARS])[1:-1]} twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(name)
