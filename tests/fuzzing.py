"""Coverage-guided fuzzing of the way from a frame's bytes to a command's record.

    python tests/fuzzing.py [-max_total_time=60] [-runs=N] [-seed=N] [CORPUS]

The first byte chooses the codec. Whatever comes, a request, or each of a batch, is read or refused
by name; what is read holds under a reading of its own, and reads the same in the other codec; a
record has its 64 bytes.
libFuzzer keeps what reaches new code in CORPUS, and writes an input that fails to crash-*.
"""

import json
import sys
from contextlib import suppress
from typing import Any, Final

import atheris
import interpreted
import msgspec

# first, since what is loaded already cannot be instrumented, nor what is compiled
with (
    interpreted.sources(),
    atheris.instrument_imports(
        include=["exchange.gateway.decode", "exchange.gateway.batches", "contracts.decimal_text"]
    ),
):
    from venue import CODE, enter, listing

    from exchange.gateway import batches, decode
    from exchange.marketdata.instruments import Instruments
    from exchange.messages import COMMAND, COMMAND_BYTES, EVENT_FIELDS, EventKind, Reason, wire
    from exchange.messages.access import GatewayReason

REASONS: Final = frozenset([*Reason, *GatewayReason])
LISTED: Final = {
    "kind": EventKind.INSTRUMENT_LISTED, "price": 2_500_000, "quantity": 744, "leaves": 1_000,
    "reason": 1, "order_id": 1, "a": 2_000, "b": 3_000,
}  # fmt: skip


def recorder() -> decode.Recorder:
    """The builder of records, knowing one instrument."""
    instruments = Instruments()
    row = tuple(int(LISTED.get(name, 0)) for name in EVENT_FIELDS)
    instruments.apply(row, listing(CODE))  # type: ignore[arg-type]
    return decode.Recorder(instruments)


RECORDER: Final = recorder()


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields; AssertionError if one comes twice."""
    found = dict(pairs)
    assert len(found) == len(pairs), "a duplicate field was let through"
    return found


def whole(value: Any, fields: Any) -> Any:
    """What was read, as far as it was said: an encoder leaves out what is as by default."""
    if not isinstance(value, wire.Request):
        return msgspec.to_builtins(value)
    said = {name: whole(getattr(value, name), fields[name]) for name in fields.keys() - {"op"}}
    return said | {"op": value.__struct_config__.tag}


def read(data: bytes) -> wire.AnyRequest:
    """Read a frame, and hold it against other readings. Raises Refused."""
    if data[0] & 1:
        request = decode.read_msgpack(data[1:])
        # an announced length beyond what was read would be a field twice
        assert isinstance(msgspec.msgpack.decode(data[1:]), dict)
    else:
        text = data[1:].decode("utf-8", "surrogatepass")
        request = decode.read_json(text)
        fields = json.loads(text, object_pairs_hook=distinct)
        told = whole(request, fields)
        assert told == fields, "another request than was sent"
    try:
        packed = msgspec.msgpack.encode(request)
    except OverflowError:  # JSON alone can say so large a number
        return request
    assert decode.read_msgpack(packed) == request
    assert decode.read_json(msgspec.json.encode(request).decode()) == request
    return request


def record(request: wire.AnyRequest) -> bytes | None:
    """The record of an order's request. Raises Refused."""
    if isinstance(request, wire.Enter):
        return RECORDER.enter(request, 1, 1 << 16 | 1)
    if isinstance(request, wire.Cancel):
        return RECORDER.cancel(request, 1, 1 << 16 | 1)
    if isinstance(request, wire.Reduce):
        return RECORDER.reduce(request, 1, 1 << 16 | 1)
    if isinstance(request, wire.Replace):
        return RECORDER.replace(request, 1, 1 << 16 | 1, None)
    return None


def batch(data: bytes) -> None:
    """A frame of many: each is what it is alone. Raises Refused, of the whole or of one."""
    frame = data[1:] if data[0] & 1 else data[1:].decode("utf-8", "surrogatepass")
    found = batches.read_batch(frame)
    assert 0 < len(found) <= wire.BATCH_REQUESTS
    for item in found:
        if isinstance(item, decode.Refused):
            raise item
    assert [msgspec.convert(msgspec.to_builtins(item), wire.AnyRequest) for item in found] == found


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    try:
        if batches.is_batch(data[1:] if data[0] & 1 else data[1:].decode("utf-8", "replace")):
            return batch(data)
        made = record(read(data))
    except decode.Refused as refused:
        assert refused.reason in REASONS and all(map(str.isascii, refused.seen.values()))
        return
    except UnicodeDecodeError:  # the socket closes on text that is no UTF-8
        assert not data[0] & 1
        return
    assert made is None or len(made) == COMMAND_BYTES == len(COMMAND.pack(*COMMAND.unpack(made)))


def seeds() -> list[bytes]:
    """A frame of every kind in both codecs, to begin with."""
    requests = [
        enter("a"), enter("b", type="market"), enter("c", time_in_force="GTD", expires_ms=1),
        {"op": "cancel", "request_id": "r", "client_order_id": "x"},
        {"op": "reduce", "request_id": "r", "order_id": "7", "quantity": "1"},
        {"op": "replace", "request_id": "r", "order_id": "7", "price": "2.6", "quantity": "1"},
        {"op": "logon", "key_id": "k", "timestamp_ms": 1, "nonce": 1, "signature": "00"},
        {"op": "subscribe", "request_id": "r", "channels": ["depth.H100Z26"]},
        {"op": "cancel_after", "request_id": "r", "timeout_ms": 1000},
        {"op": "preview", "request_id": "r", "order": enter("p", post_only=False)},
        [enter("a"), {"op": "cancel", "request_id": "r", "client_order_id": "a"}],
    ]  # fmt: skip
    texts = [b"\0" + json.dumps(request).encode() for request in requests]
    return texts + [b"\1" + msgspec.msgpack.encode(request) for request in requests]


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Now and then a whole frame to begin with, else libFuzzer's own change."""
    if seed % 16 == 0:
        kinds = seeds()
        data = kinds[seed // 16 % len(kinds)]
    return bytes(atheris.Mutate(data, max(size, len(data))))


if __name__ == "__main__":
    for frame in seeds():
        with suppress(decode.Refused):
            read(frame)
        one(frame)
    atheris.Setup(sys.argv, one, custom_mutator=mutate)
    atheris.Fuzz()
