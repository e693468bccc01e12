"""Valid frames made wrong byte by byte, from a seed."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import msgspec
from venue import CODE, enter

REQUESTS: Final[list[dict[str, Any]]] = [
    enter("x", time_in_force="GTC", post_only=True, self_trade="decrement", manual=True),
    enter("y", type="market", price=None, protection="0.010"),
    enter("z", time_in_force="GTD", expires_ms=1_900_000_000_000, stop_price="2.7"),
    {"op": "cancel", "request_id": "r", "client_order_id": "x", "side": "buy"},
    {"op": "replace", "request_id": "r", "order_id": "4294967297", "instrument": CODE,
     "price": "2.6", "quantity": "1"},
    {"op": "reduce", "request_id": "r", "order_id": "4294967297", "quantity": "1"},
    {"op": "mass_cancel", "request_id": "r", "instrument": CODE, "side": "sell", "session": 7},
    {"op": "kill", "request_id": "r", "scope": "account"},
    {"op": "quote", "request_id": "r", "instrument": CODE, "bid_price": "2.6", "bid_quantity": "5"},
    {"op": "protect", "request_id": "r", "product": "H100", "quantity": "9", "window_ms": 1000},
    {"op": "subscribe", "request_id": "s", "channels": [f"depth.{CODE}", f"state.{CODE}"]},
    {"op": "unsubscribe", "request_id": "s", "channels": [f"depth.{CODE}"]},
    {"op": "account", "request_id": "q"},
    {"op": "heartbeat"},
    {"op": "cancel_after", "request_id": "r", "timeout_ms": 5000},
    {"op": "preview", "request_id": "r", "order": enter("p")},
    {"op": "logon", "key_id": "k", "timestamp_ms": 1, "nonce": 1, "signature": "s",
     "after": [1, 2, 3], "grace_ms": 1, "resume_session": 1, "cancel_on_disconnect": True},
]  # fmt: skip
TOKENS: Final = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u0000", b"\\ud800", b"null", b"-0", b"1e9",
    b"\x00", b"\xff", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x7f" * 40,
    b"9" * 400, b'"op":"enter"', b"\xef\xbb\xbf", b"\xe2\x80\xae",
)  # fmt: skip


def valid(packed: bool) -> list[bytes]:
    """The frames to begin with."""
    told = [{k: v for k, v in request.items() if v is not None} for request in REQUESTS]
    if packed:
        return [msgspec.msgpack.encode(request) for request in told]
    return [json.dumps(request).encode() for request in told]


def mutated(seed: int, count: int, *, packed: bool) -> Iterator[bytes]:
    """Yield ``count`` frames, each with one to four changes."""
    chance, frames = Random(f"{seed} {packed}"), valid(packed)
    for _ in range(count):
        data = bytearray(chance.choice(frames))
        for _ in range(chance.randrange(1, 5)):
            change(chance, data, frames)
        yield bytes(data)


def change(chance: Random, data: bytearray, frames: list[bytes]) -> None:
    """One change: a bit, a byte, a token, a piece gone, doubled or of another frame, or the end."""
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.randrange(1, 12))
    match chance.randrange(7):
        case 0 if data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        case 1 if data:
            data[at % len(data)] = chance.randrange(256)
        case 2:
            data[at:at] = chance.choice(TOKENS)
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end]
        case 5:
            other = chance.choice(frames)
            data[at:] = other[chance.randrange(len(other)) :]
        case _:
            del data[at:]
