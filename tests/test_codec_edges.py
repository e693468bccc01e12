"""Edges of every field of every request, in both codecs on real sockets: the same reject by name,
no exception, and nothing changes. Budget: 4 seconds."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import aiohttp
import msgspec
import pytest
import sockets
from sockets import House, Socket, hear
from venue import CODE, open_account

from exchange.gateway import repeats, server, session
from exchange.messages import Reason, wire

pack = msgspec.msgpack.encode


class Value(NamedTuple):
    """One value as each codec says it; None: it cannot."""

    text: str | None
    packed: bytes | None
    alike: bool = True  # its reject is the same to the letter, not by name alone


def both(value: Any) -> Value:
    return Value(json.dumps(value), pack(value))


INTEGERS: Final = (-(1 << 63), -1, 0, 1, 1 << 31, 1 << 32, 1 << 53, (1 << 63) - 1, 1 << 63,
                   (1 << 64) - 1)  # fmt: skip
VALUES: Final = [
    *map(both, INTEGERS),
    *(both(value) for value in (0.0, 1.5, 2.0**53, 1e308, True)),
    *(both(value) for value in ("-1", "", str(1 << 63), str(1 << 64), "1" * 15_000, "é", "a\0")),
    *(both(value) for value in ({}, {"a": 1}, [1], [[0, 0, 0]], [1 << 63, (1 << 64) - 1, -1])),
    Value("NaN", pack(math.nan), False),
    Value("-Infinity", pack(-math.inf), False),
    Value('{"a":1,"a":2}', b"\x82\xa1a\x01\xd9\x01a\x02"),
    Value("[" * 3_000 + "]" * 3_000, b"\x91" * 2_999 + b"\x90", False),
    Value(str(1 << 64), None),
    Value("1" * 5_000, None),
    *(
        Value(None, packed)
        for packed in (
            b"\xc1",  # never used
            b"\xc4\x02ab",  # bytes
            b"\xd4\x05a",  # an extension, and time stamps of 32, 64 and 96 bits
            b"\xd6\xff" + bytes(4),
            b"\xd7\xff" + b"\xff" * 8,
            b"\xc7\x0c\xff" + b"\xff" * 12,
            b"\xa2\xff\xfe",  # no UTF-8
            b"\xd9",  # ends too soon
            *(head + b"\xff" * 4 for head in (b"\xdb", b"\xc6", b"\xdd", b"\xdf", b"\xc9")),
        )
    ),
]
ORDER: Final = {"client_order_id": "a", "instrument": CODE, "side": "buy", "quantity": "1000",
                "price": "2.650"}  # fmt: skip
BY_ID: Final = {"request_id": "r", "order_id": "77"}
# Each is refused by its last check, or only asks: whatever one field says, nothing changes.
REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "enter": ORDER,
    "cancel": BY_ID,
    "reduce": {**BY_ID, "quantity": "1"},
    "replace": {**BY_ID, "instrument": CODE, "price": "2.6", "quantity": "1"},
    "mass_cancel": {"request_id": "r", "instrument": CODE, "product": "H100"},
    "kill": {"request_id": "r", "scope": "nobody"},
    "quote": {"request_id": "r", "instrument": CODE, "bid_price": "2.6", "bid_quantity": "1000"},
    "protect": {"request_id": "r", "product": "NONE", "quantity": "1", "window_ms": 10},
    "cancel_after": {"request_id": "r", "timeout_ms": 1},
    "preview": {"request_id": "r", "order": {"op": "enter", **ORDER, "instrument": "NONE"}},
    "subscribe": {"request_id": "r", "channels": ["none"]},
    "unsubscribe": {"request_id": "r", "channels": ["none"]},
    "instruments": {"request_id": "r"},
    "account": {"request_id": "r"},
    "orders": {"request_id": "r"},
    "order": {**BY_ID, "client_order_id": "a"},
    "heartbeat": {},
    "logon": {"key_id": "0" * 16, "timestamp_ms": 0, "nonce": 1, "signature": "00"},
}
ACCOUNTS: Final = (4, 5)  # of no money: one for each codec
DONE: Final = {("cancel_after", "timeout_ms", "0")}  # fields whose value is a wish to be fulfilled
FIELDS: Final = {
    str(kind.__struct_config__.tag): kind.__struct_fields__ for kind in get_args(wire.AnyRequest)
}


def frames(
    op: str, field: str, value: Value, batched: bool = False
) -> tuple[str | None, bytes | None]:
    """A request with that value of a field, in each codec; in a batch of its own."""
    rest = {"op": op, **{key: said for key, said in REQUESTS[op].items() if key != field}}
    text = packed = None
    if value.text is not None:
        text = f'{json.dumps(rest)[:-1]}, "{field}": {value.text}}}'
    if value.packed is not None:
        if "key_id" in rest:
            rest["key_id"] = "1" * 16  # each is locked by its own failures
        pairs = b"".join(pack(key) + pack(said) for key, said in rest.items())
        packed = bytes([0x81 + len(rest)]) + pairs + pack(field) + value.packed
    if batched:
        return text and f"[{text}]", packed and b"\x91" + packed
    return text, packed


def brief(message: dict[str, Any], alike: bool) -> tuple[Any, ...]:
    """What of an answer is the same in both codecs."""
    told: tuple[Any, ...] = (message["type"], message.get("name"))
    if alike:
        told += tuple(message.get(key) for key in ("field", "limit", "observed"))
    return told


async def say(socket: Socket, burst: list[str] | list[bytes]) -> list[dict[str, Any]]:
    """Send frames, one after the other; return as many answers."""
    for frame in burst:
        await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
    told: list[dict[str, Any]] = []
    while len(told) < len(burst):
        frame = await hear(socket)
        assert not isinstance(frame, aiohttp.WSMessage), (frame, socket.close_code)
        told += frame
    return told


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    for limit in ("MALFORMED_LIMIT", "LOGON_LIMIT"):
        monkeypatch.setattr(session, limit, 1 << 30)
    monkeypatch.setattr(server, "SILENT_SECONDS", 600.0)
    async with sockets.running(tmp_path) as opened:
        for account in ACCOUNTS:
            await opened.venue.order(open_account(account))
        yield opened


def bursts(op: str, batched: bool) -> Iterator[tuple[str, bool, list[str], list[bytes]]]:
    """What to send of each field, in each codec: where both can say it, or one alone."""
    for field in (*FIELDS[op], "colour"):
        fitting = [one for one in VALUES if (op, field, one.text) not in DONE]
        for alike in (True, False):
            pairs = [
                frames(op, field, one, batched)
                for one in fitting
                if one.alike is alike and one.text is not None and one.packed is not None
                if alike or field in FIELDS[op]  # of a text that is no JSON no field is named
            ]
            yield (
                field,
                alike,
                [text for text, _ in pairs if text],
                [one for _, one in pairs if one],
            )


async def joined(house: House, *, logged_on: bool) -> tuple[Socket, Socket]:
    """A connection in each codec, each of an account of its own."""
    text = await house.connect(wire.JSON_PROTOCOL)
    packed = await house.connect(wire.MSGPACK_PROTOCOL)
    if logged_on:
        for socket, account in zip((text, packed), ACCOUNTS, strict=True):
            assert (await house.say(socket, house.venue.logon(account)))[0]["type"] == "logged_on"
    return text, packed


@pytest.mark.parametrize("batched", [False, True])
async def test_a_value_out_of_place_is_refused_alike_in_both_codecs(
    house: House, batched: bool
) -> None:
    for op in ("enter", "quote") if batched else REQUESTS:
        text, packed = await joined(house, logged_on=op != "logon")
        before = house.venue.hash()
        for field, alike, texts, packs in bursts(op, batched):
            told = await asyncio.gather(say(text, texts), say(packed, packs))
            first, second = [Counter(brief(one, alike) for one in answers) for answers in told]
            assert first == second, (op, field)
        for field in FIELDS[op]:
            alone = [frames(op, field, one, batched) for one in VALUES if None in one[:2]]
            big = await say(text, [said for said, _ in alone if said])  # so large a number
            odd = await say(packed, [said for _, said in alone if said])
            assert {one["type"] for one in big + odd} == {"rejected"}, (op, field)
            assert {one["name"] for one in odd} == {"SYNTAX"}, (op, field)
        for socket in (text, packed):
            assert (await house.say(socket, {"op": "heartbeat"}))[0]["type"] == "heartbeat"
        assert house.venue.hash() == before, op
        await text.close()
        await packed.close()


BEAT: Final = b"\xa2op\xa9heartbeat"
KEYS: Final[list[tuple[bytes, Reason, str | None]]] = [
    (b"\x82" + BEAT + b"\xa2\xff\xfe\x01", Reason.SYNTAX, None),  # no UTF-8
    *(
        (b"\x82" + BEAT + key + b"\x01", Reason.SYNTAX, None)
        for key in (b"\x00", b"\xff", b"\xc0", b"\xc3", b"\xcb" + bytes(8), b"\xc4\x02op",
                    b"\xd4\x05a", b"\x91\x00", b"\x80", b"\xcf" + b"\xff" * 8)
    ),
    (b"\x82" + BEAT + b"\xd9\x02op\xa9heartbeat", Reason.DUPLICATE_FIELD, "op"),
    (b"\xdf\x00\x00\x00\x02" + BEAT + BEAT, Reason.DUPLICATE_FIELD, "op"),
    (b"\x83" + BEAT + b"\xa1x\x01\xa1x\x02", Reason.DUPLICATE_FIELD, "x"),
    (b"\x83" + BEAT + b"\xa2op\x01\xa2op\x02", Reason.DUPLICATE_FIELD, "op"),
    (b"\x82" + BEAT + b"\xa1x\x92\x00\x82\xa1y\x01\xa1y\x02", Reason.DUPLICATE_FIELD, "y"),
    (b"\x83" + BEAT + b"\xa1x\x01\xa1x", Reason.UNKNOWN_FIELD, "x"),  # the rest cannot be read
    (b"\x84" + BEAT + BEAT, Reason.SYNTAX, None),
    (b"\xdf\xff\xff\xff\xff" + BEAT, Reason.SYNTAX, None),
    (b"\xdf\x80\x00\x00\x01" + BEAT, Reason.SYNTAX, None),
    (b"\x82" + BEAT + b"\xda\x3a\x98" + b"k" * 15_000 + b"\x01", Reason.UNKNOWN_FIELD, "k" * 40),
    (b"\x81\xa2op" + b"\x81\xa1x" * 5_000 + b"\x01", Reason.SYNTAX, "op"),
]  # fmt: skip


async def test_keys_of_messagepack_that_are_none(house: House) -> None:
    _, packed = await joined(house, logged_on=True)
    before = house.venue.hash()
    for data, reason, field in KEYS:
        for frame in (data, b"\x91" + data):
            (told,) = await say(packed, [frame])
            assert told["type"] == "rejected", told
            if frame is data or told["name"] != "SYNTAX":
                assert (told["name"], told.get("field")) == (reason.name, field), data[:40]
    assert house.venue.hash() == before


def test_a_deep_frame_is_read_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level is read once more, so a bad frame of many levels would take its square."""
    parts, reads = repeats._parts, list[int]()

    def read(data: bytes) -> list[msgspec.Raw]:
        reads.append(len(data))
        return parts(data)

    monkeypatch.setattr(repeats, "_parts", read)
    assert repeats.twice_in(b"\x91" * 900 + b"\x82\xa1a\x01\xa1a\x02") is None
    assert len(reads) == repeats._DEPTH_MAX
    assert repeats.twice_in(b"\x91\x82\xa1a\x01\xa1a\x02") == "a"
