"""Decodes frames into checked requests, and requests into command records.

A request that cannot become a command is refused here: text outside the grammar, an unknown,
missing or repeated field, an id or a number of the wrong form. Everything that a record can hold
goes to the engine, which applies its own rules.
"""

import json
import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from struct import Struct as Layout
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import astuple

from contracts.decimal_text import DecimalTextError, OffTickError, parse_price, parse_quantity
from exchange.gateway.records import pack_command
from exchange.gateway.repeats import map_length as map_length
from exchange.gateway.repeats import twice_in
from exchange.marketdata.instruments import Instrument, Instruments
from exchange.messages import (
    CommandFlag,
    CommandKind,
    Limit,
    OrderFeature,
    Reason,
    Side,
    TimeInForce,
)
from exchange.messages.access import AnyReason
from exchange.messages.wire import (
    SELF_TRADES,
    SIDES,
    TIMES_IN_FORCE,
    AnyRequest,
    Cancel,
    Enter,
    Preview,
    QueryOrder,
    Reduce,
    Replace,
)

ID: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{Limit.CLIENT_ID_CHARS}}}")
_ID_CHARS: Final = int(Limit.CLIENT_ID_CHARS)
ORDER_ID: Final = re.compile(r"[0-9]{1,20}")
U32_MAX: Final = (1 << 32) - 1
U64_MAX: Final = (1 << 64) - 1
# messages.COMMAND with its two 128-bit ids as bytes, as digests are.
RECORD: Final = Layout("<BBBBIIIqIHBB16s16s")
NO_ID: Final = bytes(16)
ORDER: Final = b"order"
REQUEST: Final = b"request"
# Plain integers: operators and members of enumerations are slow.
ENTER: Final = int(CommandKind.ENTER)
CANCEL: Final = int(CommandKind.CANCEL)
UNSTATED: Final = int(Side.UNSTATED)
MARKET: Final = int(CommandFlag.MARKET)
POST_ONLY: Final = int(CommandFlag.POST_ONLY)
PROTECTED: Final = int(CommandFlag.PROTECTED)
GTC, IOC, GTD = int(TimeInForce.GTC), int(TimeInForce.IOC), int(TimeInForce.GTD)
REDUCE_ONLY: Final = int(OrderFeature.REDUCE_ONLY)
GROUPED: Final = int(OrderFeature.GROUPED)
EXTENT: Final = Layout("<QQ")  # target of an ENTER: expiry; minimum, display, trigger or partner
STOP, ICEBERG = int(OrderFeature.STOP), int(OrderFeature.ICEBERG)
NANOSECONDS_PER_MS: Final = 1_000_000
EXPIRES_MS_MAX: Final = (1 << 63) // NANOSECONDS_PER_MS - 1
MANUAL: Final = int(CommandFlag.MANUAL)
BY_CLIENT_ID: Final = int(CommandFlag.BY_CLIENT_ID)
PRICES_REMEMBERED: Final = 65_536
_FEW: Final = {str(lots): lots for lots in range(1, 1025)}  # quantities that need no parsing

_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`.*", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`.*", re.DOTALL)
_PLACE: Final = re.compile(r"- at `\$\.(\w+)")
_ID_FIELDS: Final = ("client_order_id", "request_id", "order_id", "instrument", "channels")
# ValueError: msgspec raises Python's own error for text that is not UTF-8.
UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
_NO_MAP: Final = (*UNREADABLE, TypeError)  # TypeError: a key that is a list
_typed_json: Final[Callable[[str], AnyRequest]] = msgspec.json.Decoder(AnyRequest).decode
any_json: Final[Callable[[str], Any]] = msgspec.json.Decoder().decode
_typed_msgpack: Final[Callable[[bytes], AnyRequest]] = msgspec.msgpack.Decoder(AnyRequest).decode
_parts_msgpack: Final[Callable[[bytes], dict[str, msgspec.Raw]]] = msgspec.msgpack.Decoder(
    dict[str, msgspec.Raw]
).decode
any_msgpack: Final[Callable[[bytes], Any]] = msgspec.msgpack.Decoder().decode
_KINDS: Final = {kind.__struct_config__.tag: kind for kind in get_args(AnyRequest)}


class Refused(Exception):
    """A request that the gateway itself rejects; ``seen`` has its ids and operation, if known."""

    def __init__(
        self,
        reason: AnyReason,
        field: str | None = None,
        detail: str | None = None,
        *,
        limit: str | None = None,
        observed: str | None = None,
    ) -> None:
        super().__init__(reason.name, field, detail)
        self.reason, self.field, self.detail = reason, field, detail
        self.limit, self.observed = limit, observed
        self.seen: dict[str, str] = {}


# Copying a hash state takes half the time of creating one.
_FRESH: Final = {p: blake2b(digest_size=16, person=p).copy for p in (ORDER, REQUEST)}


def digest(text: str, person: bytes) -> bytes:
    """Return the 128-bit key of a client order id (ORDER) or a request id (REQUEST)."""
    state = _FRESH[person]()
    state.update(text.encode("ascii"))
    return state.digest()


def read_json(text: str) -> AnyRequest:
    """Return the request in a text frame; raises Refused."""
    try:
        request = _typed_json(text)
    except UNREADABLE as error:
        raise _explain_json(text, error) from None
    # Each key has a colon, so if there are as many distinct keys as colons, none is repeated.
    colons = text.count(":")
    if colons != fields_of(request) and colons != len(any_json(text)):
        twice, value = _pairs(text)
        if twice is not None:
            refused = Refused(Reason.DUPLICATE_FIELD, twice)
            refused.seen = _seen(value)
            raise refused
    return request


def fields_of(request: AnyRequest) -> int:
    """Return the minimum number of distinct fields of an enter or cancel, with ``op``; else 0."""
    if type(request) is Enter:
        return 5 + (request.price is not None) + (request.time_in_force is not None)
    if type(request) is Cancel:
        return 2 + (request.order_id is not None) + (request.client_order_id is not None)
    return 0


def read_msgpack(data: bytes) -> AnyRequest:
    """Return the request in a binary frame; raises Refused."""
    try:
        request = _typed_msgpack(data)
    except UNREADABLE as error:
        twice, fields = twice_in(data), _lenient_msgpack(data)
        if twice is None:
            raise _explained(error, fields) from None
        raise _given_twice(twice, fields) from None
    fields = any_msgpack(data)
    if len(fields) != map_length(data) or (type(request) is Preview and _twice_inside(data)):
        raise _given_twice(twice_in(data), fields)
    return request


def _given_twice(key: str | None, fields: object) -> Refused:
    refused = Refused(Reason.DUPLICATE_FIELD, None if key is None else _plain(key))
    refused.seen = _seen(fields)
    return refused


def _twice_inside(data: bytes) -> bool:
    """Whether the order of a preview has a repeated field."""
    order = bytes(_parts_msgpack(data)["order"])
    return len(any_msgpack(order)) != map_length(order)


def _lenient_msgpack(data: bytes) -> object:
    try:
        return any_msgpack(data)
    except _NO_MAP:
        return None


def _pairs(text: str) -> tuple[str | None, object]:
    """Return the first repeated key of an object, if any, and the text's value."""
    twice: list[str] = []

    def gather(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                twice.append(key)
            found[key] = value
        return found

    try:
        value = json.loads(text, object_pairs_hook=gather)
    except (ValueError, RecursionError):
        return None, None
    return (_plain(twice[0]) if twice else None), value


def _plain(text: str) -> str:
    """Return a client's text shortened and escaped, so that it is safe to show anywhere."""
    return ascii(text[:40])[1:-1]


def _seen(value: object) -> dict[str, str]:
    """Return the well-formed ids and the operation of a refused request, for its reject."""
    if not isinstance(value, dict):
        return {}
    named = ((key, value.get(key)) for key in ("op", "client_order_id", "request_id", "order_id"))
    return {key: text for key, text in named if isinstance(text, str) and ID.fullmatch(text)}


def _explain_json(text: str, error: Exception) -> Refused:
    twice, value = _pairs(text)
    if twice is not None:
        refused = Refused(Reason.DUPLICATE_FIELD, twice)
    elif isinstance(value, dict) and not isinstance(error, msgspec.ValidationError):
        # Valid except for a lone surrogate, which is allowed in no id and cannot be UTF-8.
        field = next((key for key in _ID_FIELDS if not _is_text(value.get(key, ""))), None)
        refused = Refused(Reason.ID_FORMAT if field else Reason.SYNTAX, field)
    else:
        return _explained(error, value)
    refused.seen = _seen(value)
    return refused


def _explained(error: Exception, value: object) -> Refused:
    """Return the refusal for an error in a request with this value."""
    seen = _seen(value)
    refused = explain(error, _KINDS.get(seen.get("op", "")))
    refused.seen = seen
    return refused


def _is_text(value: object) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def explain(error: Exception, kind: type | None = None) -> Refused:
    """Return the refusal for an error of msgspec: a reason, the field and, if ``kind`` is the
    request's type, the allowed words of the field."""
    message = str(error)
    for pattern, reason in ((_MISSING, Reason.MISSING_FIELD), (_UNKNOWN, Reason.UNKNOWN_FIELD)):
        match = pattern.fullmatch(message)
        if match:
            return Refused(reason, _plain(match[1]))
    place = _PLACE.search(message)
    field = place[1] if place else None
    if field == "op" and message.startswith("Invalid value"):
        return Refused(Reason.UNKNOWN_COMMAND, "op")
    detail = _plain(message.partition(" - at ")[0])
    if kind is not None and detail.startswith("Invalid enum value"):
        words = ", ".join(_words(kind, field))
        detail += f"; it is one of {words}" if words else ""
    return Refused(Reason.SYNTAX, field, detail)


def _words(kind: type, field: str | None) -> Iterator[str]:
    """Yield the allowed words of a field; none if it is not an enumeration."""
    hint = get_type_hints(kind).get(field or "")
    for one in (hint, *get_args(hint)):
        if get_origin(one) is Literal:
            yield from get_args(one)


class Recorder:
    """Builds command records; caches parsed prices by instrument and text."""

    def __init__(self, instruments: Instruments) -> None:
        self._by_code = instruments.by_code
        self._ticks: dict[tuple[int, str], int] = {}

    def enter(self, request: Enter, account: int, session: int) -> bytes:
        """Return the record of an ENTER; raises Refused."""
        # All at once: in compiled code each access to a field by name costs a search.
        (
            order_id, code, side, quantity, limit_price, order_type, time_in_force, post_only,
            self_trade, manual, expires, minimum, protection, stop, display, reduce_only, group, _,
        ) = astuple(request)  # fmt: skip
        key = id_key(order_id, "client_order_id", ORDER)
        instrument = self._by_code.get(code)
        if instrument is None:
            raise _unknown(code, "instrument")
        market, text = order_type == "market", limit_price
        if market and protection is not None:
            text = protection
        elif protection is not None:
            raise Refused(Reason.COMBINATION, "protection", "only a market order has one")
        if market != (limit_price is None):
            told = "has no price" if market else "needs a price"
            raise Refused(Reason.SYNTAX, "price", f"a {order_type} order {told}")
        lots = _FEW.get(quantity) or self.lots(quantity)
        price = 0 if text is None else self.price(instrument, text)
        flags = MARKET if market else 0
        if protection is not None:
            flags |= PROTECTED
        if post_only:
            flags |= POST_ONLY
        if manual:
            flags |= MANUAL
        tif = (IOC if market else GTC) if time_in_force is None else TIMES_IN_FORCE[time_in_force]
        if (tif == GTD) != (expires is not None):
            if tif == GTD:
                raise Refused(Reason.MISSING_FIELD, "expires_ms", "GTD needs it")
            raise Refused(Reason.COMBINATION, "expires_ms", "only GTD has one")
        features, extent = 0, NO_ID
        if not (
            expires is None and minimum is None and stop is None and display is None
            and group is None
        ):  # fmt: skip
            features, extent = self._extent(request, instrument)
        if reduce_only:
            features |= REDUCE_ONLY
        return pack_command(
            ENTER, SIDES[side], tif, flags, instrument.id, account, session,
            price, lots, SELF_TRADES[self_trade], features, extent, key,
        )  # fmt: skip

    def _extent(self, request: Enter, instrument: Instrument) -> tuple[int, bytes]:
        """Return an order's features and the target of its record: its expiry in nanoseconds, and
        one of minimum (lots), display (lots), trigger (ticks) and partner (order id); raises
        Refused."""
        expires, stop, display = request.expires_ms, request.stop_price, request.display_quantity
        minimum, group, second = request.minimum_quantity, request.group_with, 0
        if expires is not None and not 0 <= expires <= EXPIRES_MS_MAX:
            told = f"milliseconds since the epoch, up to {EXPIRES_MS_MAX}"
            raise Refused(Reason.SYNTAX, "expires_ms", told)
        if [stop, display, minimum, group].count(None) < 3:
            field = "display_quantity" if stop is None else "stop_price"
            if stop is None and display is None:
                field = "group_with"
            told = "one of stop_price, display_quantity, minimum_quantity and group_with"
            raise Refused(Reason.COMBINATION, field, told)
        features = 0
        if minimum is not None:
            second = self.lots(minimum, "minimum_quantity")
        elif display is not None:
            features, second = ICEBERG, self.lots(display, "display_quantity")
        elif stop is not None:
            features, second = STOP, self._price(instrument, stop, "stop_price") & U64_MAX
        elif group is not None:
            features, second = GROUPED, read_order_id(group, "group_with")
        return features, EXTENT.pack((expires or 0) * NANOSECONDS_PER_MS, second)

    def cancel(self, request: Cancel, account: int, session: int) -> bytes:
        """Return the record of a CANCEL; raises Refused."""
        return self._target(CANCEL, request, account, session, 0, 0, 0)

    def reduce(self, request: Reduce, account: int, session: int) -> bytes:
        """Return the record of a REDUCE; raises Refused."""
        lots = self.lots(request.quantity)
        return self._target(CommandKind.REDUCE, request, account, session, 0, lots, 0)

    def replace(
        self, request: Replace, account: int, session: int, instrument: Instrument | None
    ) -> bytes:
        """Return the record of a REPLACE; raises Refused.

        ``instrument`` is that of the target. If it is None, no such order is known yet, and the
        request must name the instrument, whose tick is needed to parse the price.
        """
        lots = self.lots(request.quantity)
        if request.instrument is not None:
            named = self.instrument(request.instrument)
            if instrument is not None and named is not instrument:
                raise Refused(Reason.COMBINATION, "instrument", "the order is in another")
            instrument = named
        if instrument is None:
            checked_id(request.request_id, "request_id")
            target_of(request)
            raise Refused(Reason.NOT_FOUND, "order_id", "name the instrument of a new order")
        price = self.price(instrument, request.price)
        flags = POST_ONLY if request.post_only else 0
        return self._target(CommandKind.REPLACE, request, account, session, price, lots, flags)

    def _target(
        self,
        kind: int,
        request: Cancel | Reduce | Replace,
        account: int,
        session: int,
        price: int,
        lots: int,
        flags: int,
    ) -> bytes:
        key = id_key(request.request_id, "request_id", REQUEST)
        target, by_client_id = target_of(request)
        side = UNSTATED if request.side is None else SIDES[request.side]
        if by_client_id:
            flags |= BY_CLIENT_ID
        if request.manual:
            flags |= MANUAL
        return pack_command(
            kind, side, 0, flags, 0, account, session, price, lots, 0, 0, target, key
        )

    def instrument(self, code: str, field: str = "instrument") -> Instrument:
        """Return a listed instrument by its code; raises Refused, which names the ``field``."""
        instrument = self._by_code.get(code)
        if instrument is None:
            raise _unknown(code, field)
        return instrument

    def lots(self, text: str, field: str = "quantity") -> int:
        try:
            lots = parse_quantity(text)
        except DecimalTextError as error:
            raise Refused(Reason.SYNTAX, field, str(error)) from None
        if not 0 <= lots <= U32_MAX:
            limit = str(Limit.QUANTITY.value)
            raise Refused(Reason.QUANTITY_RANGE, field, limit=limit, observed=text)
        return lots

    def price(self, instrument: Instrument, text: str, field: str = "price") -> int:
        """Return a price in ticks; raises Refused."""
        known = self._ticks.get((instrument.id, text))
        return self._price(instrument, text, field) if known is None else known

    def _price(self, instrument: Instrument, text: str, field: str) -> int:
        """Return a price in ticks and add it to ``_ticks``; raises Refused."""
        try:
            units = parse_price(text, instrument.decimals)
        except OffTickError as error:
            tick = instrument.data.tick
            raise Refused(Reason.TICK, field, str(error), limit=tick, observed=text) from None
        except DecimalTextError as error:
            raise Refused(Reason.SYNTAX, field, str(error)) from None
        ticks, rest = divmod(units, instrument.tick_units)
        if rest:
            raise Refused(Reason.TICK, field, limit=instrument.data.tick, observed=text)
        if abs(ticks) > Limit.PRICE:
            beyond = instrument.low_ticks if ticks < 0 else instrument.high_ticks
            limit = instrument.price_text(beyond)
            raise Refused(Reason.PRICE_LIMIT, field, limit=limit, observed=text)
        if len(self._ticks) >= PRICES_REMEMBERED:
            self._ticks.clear()
        self._ticks[instrument.id, text] = ticks
        return ticks


def _unknown(code: str, field: str) -> Refused:
    """Return the refusal for an unknown instrument code; raises Refused if it is not a code."""
    checked_id(code, field)
    return Refused(Reason.UNKNOWN_INSTRUMENT, field, observed=code)


def is_id(text: str) -> bool:
    """Whether a text has the form of ``ID``."""
    if not 0 < len(text) <= _ID_CHARS:
        return False
    for char in text:
        known = "a" <= char <= "z" or "0" <= char <= "9" or "A" <= char <= "Z" or char in "._-"
        if not known:
            return False
    return True


def checked_id(text: str, field: str) -> str:
    """Return an id of the documented form; raises Refused."""
    if not is_id(text):
        raise Refused(Reason.ID_FORMAT, field, f"not {ID.pattern}")
    return text


def id_key(text: str, field: str, person: bytes) -> bytes:
    """Return the 128-bit key of a ``checked_id``; raises Refused."""
    return digest(checked_id(text, field), person)


def target_of(request: Cancel | Reduce | Replace | QueryOrder) -> tuple[bytes, bool]:
    """Return a target's 16 bytes, and whether they are of a client order id; raises Refused."""
    order_id, client_order_id = request.order_id, request.client_order_id
    if order_id is not None and client_order_id is not None:
        raise Refused(Reason.COMBINATION, "order_id", "order_id or client_order_id, not both")
    if client_order_id is not None:
        return id_key(client_order_id, "client_order_id", ORDER), True
    if order_id is None:
        raise Refused(Reason.MISSING_FIELD, "order_id", "order_id or client_order_id")
    return read_order_id(order_id, "order_id").to_bytes(16, "little"), False


def read_order_id(text: str, field: str) -> int:
    """Return an order id; raises Refused."""
    if ORDER_ID.fullmatch(text) is None:
        raise Refused(Reason.ID_FORMAT, field, "not an order id")
    order_id = int(text)
    if order_id > U64_MAX:
        raise Refused(Reason.NOT_FOUND, field, observed=text)
    return order_id
