"""Which field a MessagePack object has twice: msgspec reads such an object and keeps the last.

A map is laid out as an array of its keys and values, so it is read as one.
"""

from collections.abc import Callable
from typing import Final

import msgspec

_ARRAY: Final = b"\xdd"  # of as many elements as the four bytes behind it say
_MAPS: Final = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))
_ARRAYS: Final = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
_DEPTH_MAX: Final = 16  # levels searched: each is read once more, and no request has as many
_SIZES: Final = {0xDE: 3, 0xDF: 5}  # of a map's head; one byte otherwise
_parts: Final[Callable[[bytes], list[msgspec.Raw]]] = msgspec.msgpack.Decoder(
    list[msgspec.Raw]
).decode
_key: Final[Callable[[bytes], str]] = msgspec.msgpack.Decoder(str).decode


def map_length(data: bytes) -> int:
    """Return the number of pairs that a MessagePack map announces."""
    if data[0] == 0xDE:
        return int.from_bytes(data[1:3], "big")
    return int.from_bytes(data[1:5], "big") if data[0] == 0xDF else data[0] & 0x0F


def twice_in(data: bytes) -> str | None:
    """Return the first key given twice in one object, of the objects in the order of their ends;
    None if there is none, or if the bytes cannot be read."""
    try:
        return _twice(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _twice(data: bytes, depth: int = 0) -> str | None:
    head = data[0] if data and depth < _DEPTH_MAX else 0
    if head not in _MAPS:
        values, keys = _parts(data) if head in _ARRAYS else [], []
    else:
        count = 2 * map_length(data)
        if count > len(data):
            return None
        found = _parts(_ARRAY + count.to_bytes(4, "big") + data[_SIZES.get(head, 1) :])
        values, keys = found[1::2], found[::2]
    for value in values:
        inside = _twice(bytes(value), depth + 1)
        if inside is not None:
            return inside
    seen: set[str] = set()
    for key in keys:
        text = _key(bytes(key))
        if text in seen:
            return text
        seen.add(text)
    return None
