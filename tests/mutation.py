"""Valid frames made wrong byte by byte, and field by field, from a seed."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import msgspec
from venue import CODE, OTHER, RICH, enter, listing

from exchange.gateway.decode import Recorder
from exchange.gateway.mass import MassRecorder
from exchange.marketdata.instruments import Instruments
from exchange.messages import EVENT_FIELDS, EventKind, wire
from exchange.messages.wire_mass import Kill, MassCancel, Protect, Quote

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
    {"op": "order", "request_id": "q", "client_order_id": "x"},
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


NAMES: Final = sorted({name for request in REQUESTS for name in request})
# What a field may be given in place of its own: sense, edges and nonsense.
IDS: Final = [f"i{number}" for number in range(50)]
LOTS: Final = ["1", "2", "5", "10", "1000", "1001", "0", "4294967295", "4294967296", "-1", "1.0"]
PRICES: Final = ["2.650", "2.6", "2.651", "2", "3.3", "3.301", "0", "-2.650", "2.6505", "1e3"]
SENSE: Final[dict[str, list[Any]]] = {
    "client_order_id": [*IDS, "x", "", "a b"],
    "request_id": [*IDS, "r"],
    "order_id": ["4294967297", "1", "0", "18446744073709551616"],
    "quantity": LOTS, "bid_quantity": LOTS, "ask_quantity": LOTS, "display_quantity": LOTS,
    "minimum_quantity": LOTS, "price": PRICES, "bid_price": PRICES, "ask_price": PRICES,
    "stop_price": PRICES, "protection": PRICES, "side": ["buy", "sell"],
    "instrument": [CODE, OTHER, "H100X26"], "type": ["limit", "market"],
    "time_in_force": ["GTC", "DAY", "IOC", "FOK", "GTD", "GFA"],
    "self_trade": ["cancel_newest", "cancel_oldest", "cancel_both", "decrement"],
}  # fmt: skip
NONSENSE: Final[list[Any]] = [
    None, True, False, 0, 1, -1, 1 << 53, 1 << 63, 1.5, "", "0", "9" * 18, "9" * 40, [], {}, [[]],
]  # fmt: skip

LISTED: Final = {
    "kind": EventKind.INSTRUMENT_LISTED, "price": 2_500_000, "quantity": 744, "leaves": 1_000,
    "reason": 1, "order_id": 1, "a": 2_000, "b": 3_000,
}  # fmt: skip


class Records:
    """The records that requests of one account become, in a market of one instrument."""

    def __init__(self) -> None:
        instruments = Instruments()
        row: Any = tuple(int(LISTED.get(name, 0)) for name in EVENT_FIELDS)
        instruments.apply(row, listing("H100Z26"))
        self._orders = Recorder(instruments)
        self._mass = MassRecorder(instruments, self._orders)

    def record(self, request: wire.AnyRequest, session: int) -> bytes | None:
        """Return the record of a command, None of what is none; raises Refused."""
        if isinstance(request, wire.Enter):
            return self._orders.enter(request, RICH, session)
        if isinstance(request, wire.Cancel):
            return self._orders.cancel(request, RICH, session)
        if isinstance(request, wire.Reduce):
            return self._orders.reduce(request, RICH, session)
        if isinstance(request, wire.Replace):
            return self._orders.replace(request, RICH, session, None)
        if isinstance(request, MassCancel | Kill | Quote | Protect):
            return self._mass.record(request, RICH, session)
        return None


def encoded(request: dict[str, Any], packed: bool) -> bytes:
    """A request as a frame."""
    return msgspec.msgpack.encode(request) if packed else json.dumps(request).encode()


def valid(packed: bool) -> list[bytes]:
    """The frames to begin with."""
    told = [{k: v for k, v in request.items() if v is not None} for request in REQUESTS]
    return [encoded(request, packed) for request in told]


def altered(chance: Random) -> dict[str, Any]:
    """A request with a few of its fields changed, taken away or given."""
    request = {k: v for k, v in chance.choice(REQUESTS).items() if v is not None}
    for _ in range(chance.randrange(1, 4)):
        name = chance.choice([*request] * 20 + NAMES)
        if chance.random() < 0.15 and name != "op":
            request.pop(name, None)
        elif name in SENSE and chance.random() < 0.8:
            request[name] = chance.choice(SENSE[name])
        elif name != "op":
            request[name] = chance.choice(NONSENSE)
    return request


def mutated(seed: int, count: int, *, packed: bool) -> Iterator[bytes]:
    """Yield ``count`` frames: half of them with one to four changes of bytes, half with changes of
    fields."""
    chance, frames = Random(f"{seed} {packed}"), valid(packed)
    for _ in range(count):
        if chance.random() < 0.5:
            yield encoded(altered(chance), packed)
            continue
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
