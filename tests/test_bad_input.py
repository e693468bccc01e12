"""Bad input: each case gets its named reject or a closed session, and changes no state.

Without sockets, and with what the vectors leave out; test_bad_inputs.py has every case of theirs.
"""

import random
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
import venue as market
from bad_frames import CANCEL, ENGINE, FRAMES, REPLACE, text
from venue import CODE, OTHER, POOR, RICH, THIRD, Venue, enter, reject

from exchange.gateway.decode import Refused, read_json, read_msgpack
from exchange.gateway.session import JSON, MSGPACK
from exchange.messages import Command, CommandKind, Limit, Mode, Reason, TradingState, wire

R: Final = Reason


venue = market.venue  # a fixture


async def test_frames_that_are_no_command(venue: Venue) -> None:
    """One market for the whole table; each frame on a connection of its own."""
    for number, (case, frame, reason, field) in enumerate(FRAMES):
        shown = f"{case} {str(frame)[:80]!r}"
        trader = await venue.trader(RICH)
        before, sequence = venue.hash(), venue.hub.sequence
        (told,) = await venue.say(trader, frame)
        assert isinstance(told, wire.Rejected), shown
        assert (told.name, told.number, told.field) == (reason.name, reason.value, field), shown
        assert told.sequence is None and venue.hub.sequence == sequence, shown
        assert venue.hash() == before, shown
        (next_one,) = await venue.say(trader, enter(f"next{number}", quantity="1"))
        assert isinstance(next_one, wire.Accepted), shown
        venue.hub.disconnect(trader)


@pytest.mark.parametrize(("case", "fields", "reason", "limit", "observed"), ENGINE)
async def test_an_order_that_the_engine_rejects(
    venue: Venue, case: str, fields: Any, reason: Reason, limit: str | None, observed: str | None
) -> None:
    trader = await venue.trader(RICH)
    before = venue.hash()
    (told,) = await venue.say(trader, enter("x", **fields))
    assert isinstance(told, wire.Rejected)
    assert (told.name, told.client_order_id) == (reason.name, "x")
    if limit is not None:
        assert (told.limit, told.observed) == (limit, observed)
    assert told.sequence == venue.hub.sequence
    assert venue.hash() == before


# Subscriptions


async def test_channels_that_do_not_exist_or_are_too_many_b31_b32(venue: Venue) -> None:
    session = venue.connect()

    def subscribe(*channels: str) -> dict[str, Any]:
        return {"op": "subscribe", "request_id": "s", "channels": channels}

    for channel in ("depth.NONE", f"account.{RICH}", "", "depth", "nothing.H100Z26"):
        told = await reject(venue, session, subscribe(f"depth.{CODE}", channel))
        assert (told.name, told.field, told.request_id) == ("NOT_FOUND", "channels", "s")
    many = [f"depth.X{number}" for number in range(Limit.SUBSCRIPTIONS + 1)]
    assert (await reject(venue, session, subscribe(*many))).name == "SUBSCRIPTIONS_FULL"
    assert session.channels == set()
    leave = {"op": "unsubscribe", "request_id": "u", "channels": [f"depth.{CODE}"]}
    assert (await reject(venue, session, leave)).name == "NOT_FOUND"


# Identity and ownership


async def test_a_foreign_order_is_not_found_b73(venue: Venue) -> None:
    owner, thief = await venue.trader(RICH), await venue.trader(THIRD)
    accepted = (await venue.say(owner, enter("mine")))[0]
    assert isinstance(accepted, wire.Accepted)
    for name, value in (("order_id", accepted.order_id), ("client_order_id", "mine")):
        cancel = {"op": "cancel", "request_id": "r", name: value}
        assert (await reject(venue, thief, cancel)).name == "NOT_FOUND"
        replace = {**REPLACE, "instrument": CODE, name: value}
        assert (await reject(venue, thief, replace)).name == "NOT_FOUND"
        reduce = {"op": "reduce", "request_id": "r", "quantity": "1", name: value}
        told = await reject(venue, thief, reduce)
        assert (told.name, told.request_id) == ("NOT_FOUND", "r")
    assert venue.heard(owner) == []


async def test_cancels_that_cannot_be_b77(venue: Venue) -> None:
    trader, other = await venue.trader(RICH), await venue.trader(THIRD)
    assert (await reject(venue, trader, CANCEL)).name == "NOT_FOUND"
    await venue.say(trader, enter("x"))
    wrong = await reject(venue, trader, {**CANCEL, "side": "sell"})
    assert (wrong.name, wrong.field) == ("SIDE_MISMATCH", "side")
    await venue.say(trader, CANCEL)
    assert (await reject(venue, trader, {**CANCEL, "request_id": "q"})).name == "NOT_FOUND"
    await venue.say(trader, enter("y"))
    await venue.say(other, enter("s", side="sell"))
    venue.heard(trader)
    late = await reject(venue, trader, {**CANCEL, "request_id": "z", "client_order_id": "y"})
    assert late.name == "TOO_LATE"
    named = {**REPLACE, "client_order_id": "y", "instrument": OTHER, "request_id": "w"}
    assert (await reject(venue, trader, named)).name == "COMBINATION"


# State, risk, capacity


async def test_states_and_modes_b62(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    await venue.order(market.state(0, TradingState.HALTED))
    told = await reject(venue, trader, enter("x"))
    assert (told.name, told.limit, told.observed) == ("NOT_TRADING", "CONTINUOUS", "HALTED")
    assert told.retryable and told.instrument == CODE
    await venue.order(market.state(0, TradingState.CONTINUOUS))
    await venue.order(Command(kind=CommandKind.SET_MODE, tif=Mode.CANCEL_ONLY))
    told = await reject(venue, trader, enter("y"))
    assert told.name == "CANCEL_ONLY" and told.retryable


async def test_limits_of_an_account_b53(venue: Venue) -> None:
    poor, trader = await venue.trader(POOR), await venue.trader(RICH)
    told = await reject(venue, poor, enter("x", quantity="1000"))
    assert told.name == "MARGIN" and told.limit == "2000.000000"
    await venue.order(Command(kind=CommandKind.SET_ACCOUNT, account=RICH, quantity=5))
    told = await reject(venue, trader, enter("y"))
    assert (told.name, told.limit, told.observed) == ("ACCOUNT_MAX_QUANTITY", "5", "10")
    await venue.order(Command(kind=CommandKind.SET_ACCOUNT, account=RICH, flags=64))
    assert (await reject(venue, trader, enter("z"))).name == "ACCOUNT_KILLED"


async def test_post_only_and_the_account_stream(venue: Venue) -> None:
    trader, other = await venue.trader(RICH), await venue.trader(THIRD)
    await venue.say(other, enter("s", side="sell", price="2.640"))
    told = await reject(venue, trader, enter("p", post_only=True))
    assert (told.name, told.limit, told.observed) == ("POST_ONLY", "2.640", "2.650")


async def test_a_throttle_says_how_long_to_wait_and_lets_cancels_pass_b85(venue: Venue) -> None:
    slow = 9
    await venue.order(market.open_account(slow, burst=1, interval=2_500_000))
    deposit = Command(kind=CommandKind.DEPOSIT, account=slow, price=10**12, key_lo=9)
    await venue.order(deposit)
    trader = await venue.trader(slow)
    await venue.say(trader, enter("a"))
    told = await reject(venue, trader, enter("b"))
    assert (told.name, told.retryable, told.retry_after_ms) == ("THROTTLED", True, 3)
    cancelled = (await venue.say(trader, {**CANCEL, "client_order_id": "a"}))[0]
    assert isinstance(cancelled, wire.Cancelled)


async def test_a_full_queue_is_a_named_reject(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    venue.full = True
    told = await reject(venue, trader, enter("a"))
    assert (told.name, told.retryable, told.client_order_id) == ("QUEUE_FULL", True, "a")
    told = await reject(venue, venue.connect(), venue.logon(RICH))
    assert told.name == "QUEUE_FULL"


# MessagePack

TWICE_INSIDE: Final = (
    msgspec.msgpack.encode({"op": "preview", "request_id": "p", "order": enter("x", quantity="1")})
    .replace(b"\xa5order\x86", b"\xa5order\x87")
    .replace(b"\xa8quantity\xa11", b"\xa8quantity\xa11\xa8quantity\xa12")
)
PACKED: Final[list[tuple[bytes, Reason, str | None]]] = [
    (b"", R.SYNTAX, None),
    (b"\xc1", R.SYNTAX, None),
    (b"\x93\x01\x02\x03", R.SYNTAX, None),
    (b"\x82\xa2op\xa9heartbeat\xa2op\xa9heartbeat", R.DUPLICATE_FIELD, "op"),
    (b"\xde\x00\x02\xa2op\xa9heartbeat\xa2op\xa9heartbeat", R.DUPLICATE_FIELD, "op"),
    (TWICE_INSIDE, R.DUPLICATE_FIELD, "quantity"),
    (b"\x81\xa2op\xa9heartbeat\x00", R.SYNTAX, None),
    (b"\x82\xa2op\xa9heartbeat\xa1x\x01", R.UNKNOWN_FIELD, "x"),
    (b"\x81\xa1x\x01", R.MISSING_FIELD, "op"),
    (b"\x81\x90\x01", R.SYNTAX, None),
    (b"\x91" * 9_000 + b"\x00", R.SYNTAX, None),
    (b"\x81\xa2op\xa2\xff\xff", R.SYNTAX, None),
    (msgspec.msgpack.encode(enter("x", quantity=10)), R.SYNTAX, "quantity"),
]


@pytest.mark.parametrize(("data", "reason", "field"), PACKED)
async def test_bad_messagepack(
    venue: Venue, data: bytes, reason: Reason, field: str | None
) -> None:
    trader = await venue.trader(RICH, MSGPACK)
    told = await reject(venue, trader, data)
    assert (told.name, told.field) == (reason.name, field)
    assert (await reject(venue, trader, "text")).name == "SYNTAX"


def test_random_bytes_are_refused_and_never_raise_otherwise() -> None:
    chance = random.Random(7)
    whole = text()
    for _ in range(4_000):
        cut = list(whole)
        for _ in range(chance.randrange(1, 4)):
            cut[chance.randrange(len(cut))] = chance.choice('{}[]",:\\0aé\x00 ')
        is_read_or_refused(read_json, "".join(cut))
        is_read_or_refused(read_msgpack, chance.randbytes(30))


def is_read_or_refused(read: Callable[[Any], object], data: Any) -> None:
    try:
        read(data)
    except Refused as refused:
        assert refused.reason in Reason


VALID: Final[list[dict[str, Any]]] = [
    enter("x", time_in_force="GTC", post_only=True, self_trade="decrement", manual=True),
    {**CANCEL, "side": "buy"},
    {**REPLACE, "order_id": "4294967297", "instrument": CODE},
    {"op": "reduce", "request_id": "r", "order_id": "4294967297", "quantity": "1"},
    {"op": "subscribe", "request_id": "s", "channels": [f"depth.{CODE}", f"state.{CODE}"]},
    {"op": "unsubscribe", "request_id": "s", "channels": [f"depth.{CODE}"]},
    {"op": "instruments", "request_id": "q"},
    {"op": "account", "request_id": "q"},
    {"op": "orders", "request_id": "q"},
    {"op": "heartbeat"},
    {"op": "logon", "key_id": "k", "timestamp_ms": 1, "nonce": 1, "signature": "s",
     "after": [1, 2, 3], "grace_ms": 1, "resume_session": 1, "cancel_on_disconnect": True},
]  # fmt: skip
ODD: Final[list[Any]] = [
    None, True, 0, -1, 1.5, 2**63, 2**64, "", "0", "-1", "x" * 50, "1" * 5_000, "\u0661", [], ["x"],
    [[]], {}, {"op": 1}, "depth.", "\ud800", [1, 2, 3], [2**80] * 3,
]  # fmt: skip


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
async def test_every_frame_is_answered_whatever_is_in_it(venue: Venue, codec: int) -> None:
    """Fields made odd, one or two at a time: an answer each, no exception, a sound market."""
    chance = random.Random(codec)
    # MessagePack has no lone surrogates and no whole numbers beyond 64 bits.
    odd = ODD if codec == JSON else [v for v in ODD if v not in ("\ud800", 2**64, [2**80] * 3)]
    trader = await venue.trader(RICH, codec)
    for _ in range(600):
        if trader.closing is not None:
            venue.hub.disconnect(trader)
            trader = await venue.trader(RICH, codec)
        request = dict(chance.choice(VALID))
        for field in chance.sample(sorted(request), min(len(request), chance.randrange(1, 3))):
            request[field] = chance.choice(odd)
        assert await venue.say(trader, request), request
    venue.engine.check()
