"""Reads frames that are arrays of commands. Each command succeeds or fails by itself."""

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from exchange.gateway.decode import (
    UNREADABLE,
    Refused,
    any_json,
    any_msgpack,
    explain,
    fields_of,
    map_length,
    read_json,
    read_msgpack,
)
from exchange.messages import Reason
from exchange.messages.access import GatewayReason
from exchange.messages.wire import BATCH_REQUESTS, AnyCommand, AnyRequest

Parts: TypeAlias = list[msgspec.Raw]
_ARRAYS: Final = frozenset(bytes([head]) for head in (*range(0x90, 0xA0), 0xDC, 0xDD))
_OBJECTS: Final = frozenset(bytes([head]) for head in (*b"{", *range(0x80, 0x90), 0xDE, 0xDF))
_typed_json: Final[Callable[[str], list[AnyCommand]]] = msgspec.json.Decoder(
    list[AnyCommand]
).decode
_typed_msgpack: Final[Callable[[bytes], list[AnyCommand]]] = msgspec.msgpack.Decoder(
    list[AnyCommand]
).decode
_parts_json: Final[Callable[[str], Parts]] = msgspec.json.Decoder(Parts).decode
_parts_msgpack: Final[Callable[[bytes], Parts]] = msgspec.msgpack.Decoder(Parts).decode


def is_batch(data: str | bytes) -> bool:
    """Return whether a frame is an array."""
    return _opens_array(data) if isinstance(data, str) else data[:1] in _ARRAYS


def _opens_array(text: str) -> bool:
    for char in text:
        if char not in " \t\r\n":
            return char == "["
    return False


def read_batch(data: str | bytes) -> list[AnyRequest | Refused]:
    """Return a frame's requests in order, with the Refused of each that is malformed.

    The whole array is decoded at once. Only if that fails is each element decoded by itself, to
    find the faulty ones. Raises Refused for a frame that is no array of objects, is empty, or has
    more than ``BATCH_REQUESTS``.
    """
    try:
        commands = _typed_json(data) if isinstance(data, str) else _typed_msgpack(data)
    except UNREADABLE:
        return _read_apart(data)
    _check_count(len(commands))
    return [*commands] if _is_single(data, commands) else _read_apart(data)


def _is_single(data: str | bytes, commands: list[AnyCommand]) -> bool:
    """Whether certainly no object has a field twice: see ``decode.read_json``."""
    if isinstance(data, bytes):
        announced = sum(map_length(bytes(part)) for part in _parts_msgpack(data))
        return announced == sum(map(len, any_msgpack(data)))
    colons = data.count(":")
    return colons == sum(map(fields_of, commands)) or colons == sum(map(len, any_json(data)))


def _read_apart(data: str | bytes) -> list[AnyRequest | Refused]:
    try:
        parts = _parts_json(data) if isinstance(data, str) else _parts_msgpack(data)
    except UNREADABLE as error:
        raise explain(error) from None
    _check_count(len(parts))
    found: list[AnyRequest | Refused] = []
    texts = [bytes(part) for part in parts]
    if not all(text[:1] in _OBJECTS for text in texts):
        raise Refused(Reason.SYNTAX, None, "an array of commands and nothing else")
    for part in texts:
        try:
            found.append(read_json(part.decode()) if isinstance(data, str) else read_msgpack(part))
        except Refused as refused:
            found.append(refused)
    return found


def _check_count(count: int) -> None:
    if not count:
        raise Refused(Reason.SYNTAX, None, "a batch of nothing")
    if count > BATCH_REQUESTS:
        limit, observed = str(BATCH_REQUESTS), str(count)
        raise Refused(GatewayReason.BATCH_TOO_LARGE, None, limit=limit, observed=observed)
