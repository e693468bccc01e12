"""Many commands in one frame: the same as one by one, and a bad one spoils itself alone."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import venue as market
from mutation import change, valid
from venue import CODE, RICH, THIRD, Venue, enter

from exchange.gateway.batches import is_batch, read_batch
from exchange.gateway.decode import Refused
from exchange.gateway.session import JSON, MALFORMED_LIMIT, MSGPACK, Session
from exchange.messages import Limit, wire

NOW_MS: Final = market.START_NS // 1_000_000


venue = market.venue  # a fixture


def packed(session: Session, requests: Any) -> str | bytes:
    """A frame of what is given."""
    return msgspec.msgpack.encode(requests) if session.codec == MSGPACK else json.dumps(requests)


def told(messages: list[wire.AnyResponse]) -> list[str]:
    """Each answer as its type, or the name of its reject, and the id that it answers."""
    return [
        f"{getattr(one, 'name', '') or one.__struct_config__.tag}"
        f" {getattr(one, 'request_id', None) or getattr(one, 'client_order_id', None)}"
        for one in messages
    ]


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
async def test_each_command_of_a_frame_has_its_answer_in_order(venue: Venue, codec: int) -> None:
    trader = await venue.trader(RICH, codec)
    batch = [
        enter("a"),
        enter("b", price="2.6505"),
        {"op": "replace", "request_id": "r", "client_order_id": "a", "price": "2.640",
         "quantity": "5", "instrument": CODE},
        enter("c", quantity="0"),
        {"op": "cancel", "request_id": "x", "client_order_id": "a"},
        {"op": "mass_cancel", "request_id": "m"},
    ]  # fmt: skip
    before = venue.submitted
    answers = await venue.say(trader, packed(trader, batch))
    assert told(answers) == [
        "TICK b", "accepted a", "replaced r", "QUANTITY_RANGE c", "cancelled x", "mass_cancelled m",
    ]  # fmt: skip
    stamps = {getattr(one, "time", None) for one in answers[1:]}
    assert len(stamps) == 1 and venue.submitted - before == 5


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
async def test_a_bad_one_spoils_itself_alone(venue: Venue, codec: int) -> None:
    trader = await venue.trader(RICH, codec)
    bad: list[Any] = [
        {**enter("u"), "colour": "red"},
        {"op": "cancel", "request_id": "n"},
        {"op": "enter", "client_order_id": "m"},
        {"op": "halt", "request_id": "h"},
        {"op": "orders", "request_id": "q"},
        {"op": "heartbeat"},
        enter("caf\u00e9"),
    ]
    batch = [enter("a"), *bad, enter("z")]
    answers = await venue.say(trader, packed(trader, batch))
    assert told(answers) == [
        "UNKNOWN_FIELD u", "MISSING_FIELD n", "MISSING_FIELD m", "UNKNOWN_COMMAND h",
        "COMBINATION q", "COMBINATION None", "ID_FORMAT caf\u00e9", "accepted a", "accepted z",
    ]  # fmt: skip


async def test_a_field_given_twice_is_that_ones_fault(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    twice = json.dumps(enter("b"))[:-1] + ',"quantity":"9"}'
    texts = [json.dumps(enter("a", reduce_only=False, manual=True)), twice, json.dumps(enter("c"))]
    answers = await venue.say(trader, f" [{','.join(texts)}] ")
    assert told(answers) == ["DUPLICATE_FIELD b", "accepted a", "accepted c"]
    packer = await venue.trader(RICH, MSGPACK)
    good = msgspec.msgpack.encode(enter("d"))
    bad = bytes([good[0] + 1]) + good[1:] + msgspec.msgpack.encode("op")[:] + b"\xa5enter"
    answers = await venue.say(packer, b"\x93" + good + bad + msgspec.msgpack.encode(enter("e")))
    assert told(answers) == ["DUPLICATE_FIELD d", "accepted d", "accepted e"]


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
async def test_a_frame_that_is_refused_whole(venue: Venue, codec: int) -> None:
    trader = await venue.trader(RICH, codec)
    before = venue.hash(), venue.submitted
    most = [{"op": "cancel", "request_id": str(n), "order_id": "1"} for n in range(101)]
    (refused,) = await venue.say(trader, packed(trader, most))
    assert isinstance(refused, wire.Rejected)
    assert (refused.name, refused.limit, refused.observed) == ("BATCH_TOO_LARGE", "100", "101")
    assert len(await venue.say(trader, packed(trader, most[:100]))) == wire.BATCH_REQUESTS
    odds: list[Any] = [[], [7], [enter("a"), None], [[enter("a")]], [[]]]
    for odd in odds:
        (refused,) = await venue.say(trader, packed(trader, odd))
        assert isinstance(refused, wire.Rejected) and refused.name == "SYNTAX", odd
    assert venue.hash() == before[0] and venue.submitted == before[1] + 100


async def test_a_frame_counts_once_as_malformed(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    for _ in range(MALFORMED_LIMIT - 1):
        await venue.say(trader, json.dumps([{"op": "x"}] * 50))
    assert trader.closing is None
    await venue.say(trader, json.dumps([{"op": "x"}]))
    assert trader.closing is not None


async def test_before_the_logon_and_beyond_the_scope(venue: Venue) -> None:
    stranger = venue.connect()
    assert told(await venue.say(stranger, json.dumps([enter("a"), enter("b")]))) == [
        "AUTH_REQUIRED a", "AUTH_REQUIRED b",
    ]  # fmt: skip
    guard = venue.connect()
    await venue.say(guard, venue.logon(RICH, "cancel_only"))
    mixed = [enter("c"), {"op": "mass_cancel", "request_id": "m"}]
    assert told(await venue.say(guard, json.dumps(mixed))) == ["SCOPE c", "mass_cancelled m"]


async def test_no_room_is_told_to_each(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    venue.full = True
    answers = await venue.say(trader, json.dumps([enter("a"), enter("b")]))
    assert told(answers) == ["QUEUE_FULL a", "QUEUE_FULL b"]
    assert all(one.retry_after_ms for one in answers if isinstance(one, wire.Rejected))


@pytest.mark.parametrize("seed", range(4))
async def test_in_frames_or_one_by_one_the_market_is_the_same(tmp_path: Path, seed: int) -> None:
    """Random commands of two traders, in batches of any size and singly: same log, same state."""
    ends = []
    for sizes in ([1], [1, 3, 50, 100]):
        chance, cut = random.Random(seed), random.Random(seed + 100)
        async with market.running(tmp_path / str(len(sizes))) as venue:
            traders = [await venue.trader(account) for account in (RICH, THIRD)]
            for trader in traders:
                requests = [drawn(chance, number) for number in range(300)]
                while requests:
                    size = cut.choice(sizes)
                    batch, requests = requests[:size], requests[size:]
                    alone = len(sizes) == 1
                    await venue.say(trader, json.dumps(batch[0] if alone else batch))
            venue.engine.check()
            ends.append((venue.hash(), venue.submitted))
    assert ends[0] == ends[1]


def drawn(chance: random.Random, number: int) -> dict[str, Any]:
    """A command that may be good or not."""
    name = f"d{chance.randrange(number + 1)}"
    request = {"request_id": f"r{number}", "client_order_id": name}
    price = chance.choice(["2.640", "2.650", "2.651", "2.660", "9.000"])
    pick = chance.randrange(8)
    if pick == 0:
        return {"op": "cancel", **request}
    if pick == 1:
        return {"op": "reduce", **request, "quantity": "2"}
    if pick == 2:
        return {"op": "replace", **request, "quantity": "7", "price": price, "instrument": CODE}
    fields: dict[str, Any] = chance.choice([{}, {}, {"time_in_force": "IOC"}, {"manual": True}])
    return enter(name, price=price, side=chance.choice(["buy", "sell"]), **fields)


async def test_a_late_command_is_dropped_and_named(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    await venue.say(trader, enter("a", valid_until_ms=NOW_MS))
    replace = {"op": "replace", "request_id": "r", "client_order_id": "a", "price": "2.640"}
    quote = {"op": "quote", "request_id": "q", "instrument": CODE, "bid_price": "2.600"}
    before = venue.hash(), venue.submitted
    venue.now_ns += 1_000_000
    for late in (
        enter("b", valid_until_ms=NOW_MS),
        {**replace, "quantity": "5", "valid_until_ms": NOW_MS},
        {**quote, "bid_quantity": "5", "valid_until_ms": NOW_MS},
        enter("b", valid_until_ms=-1),
    ):
        (refused,) = await venue.say(trader, late)
        assert isinstance(refused, wire.Rejected)
        assert (refused.name, refused.field, refused.limit, refused.observed) == (
            "LATE", "valid_until_ms", str(late["valid_until_ms"]), str(NOW_MS + 1),
        )  # fmt: skip
        assert not refused.retryable and refused.sequence is None
    assert (venue.hash(), venue.submitted) == before
    (accepted,) = await venue.say(trader, enter("b", valid_until_ms=NOW_MS + 1))
    assert isinstance(accepted, wire.Accepted), "the id of a dropped order was not spent"


def mutants(seed: int, count: int, *, packed: bool) -> Iterator[str | bytes]:
    """Batches made wrong byte by byte; text that is none closes a socket before it comes here."""
    chance = random.Random(f"{seed} {packed}")
    singles = valid(packed)
    for _ in range(count):
        parts = chance.choices(singles, k=chance.randrange(1, 6))
        head = bytes([0x90 + len(parts)])
        data = bytearray(head + b"".join(parts) if packed else b"[" + b",".join(parts) + b"]")
        for _ in range(chance.randrange(1, 4)):
            change(chance, data, singles)
        if packed:
            yield bytes(data)
        else:
            with suppress(UnicodeDecodeError):
                yield data.decode()


@pytest.mark.parametrize("packed", [False, True])
def test_mutated_batches_are_read_or_refused(packed: bool) -> None:
    outcomes: Counter[str] = Counter()
    for data in mutants(5, 15_000, packed=packed):
        if not is_batch(data):
            continue
        try:
            found = read_batch(data)
        except Refused as refused:
            outcomes[f"whole {refused.reason.name}"] += 1
            continue
        assert 0 < len(found) <= wire.BATCH_REQUESTS
        for one in found:
            name = one.reason.name if isinstance(one, Refused) else "read"
            outcomes[name] += 1
    wanted = {"read", "UNKNOWN_FIELD", "MISSING_FIELD", "SYNTAX", "UNKNOWN_COMMAND", "whole SYNTAX"}
    assert wanted <= set(outcomes), outcomes


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
async def test_whatever_comes_in_a_frame_is_answered(venue: Venue, codec: int) -> None:
    trader = await venue.trader(RICH, codec)
    for data in mutants(6, 400, packed=codec == MSGPACK):
        if len(data) > Limit.FRAME_BYTES:
            continue
        before = venue.hash(), venue.submitted
        answers = await venue.say(trader, data)
        assert answers, data
        if venue.submitted == before[1]:
            assert venue.hash() == before[0]
        if trader.closing is not None:
            venue.hub.disconnect(trader)
            trader = await venue.trader(RICH, codec)
    venue.engine.check()
