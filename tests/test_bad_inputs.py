"""The bad inputs of the vectors, each against a gateway that listens: the reject or the close that
is due, no change of state, and a market that goes on.

``CASES`` has a test of every case that meets the gateway, ``ELSEWHERE`` names the tests of those
that do not, and of those that another file tries harder; a case of the file that is in neither
fails. Budget: 20 seconds.
"""

import asyncio
import json
import re
import resource
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

import aiohttp
import msgspec
import pytest
import venue as market
from bad_frames import CANCEL, ENGINE, FRAMES
from bad_wire import PING, TEXT, Wire, frame
from live import Live, clock_ns, market_in
from sockets import House, hear, running
from venue import CODE, OTHER, POOR, RICH, THIRD, enter

from exchange.app import requests
from exchange.app.wishes import RequestRefused
from exchange.gateway import arrivals, auth, server, session
from exchange.gateway.seats import Seats
from exchange.messages import Command, CommandKind, Limit, TradingState, wire

Case = Callable[[House], Awaitable[None]]
CASES: Final[dict[str, Case]] = {}
HERE: Final = Path(__file__).parent
ELSEWHERE: Final = {  # case -> file and test, and why not here
    "B13": ("test_access.py", "test_an_address_list_holds_at_a_session_b13", "other addresses"),
    "B16": ("test_gateway_sockets.py", "test_browsers_need_a_known_origin_b16", "headers"),
    "B17": ("test_access.py", "test_tls_and_nothing_else_b17", "it needs TLS"),
    "B28": ("test_access.py", "test_ten_thousand_pings_b28", "it counts the pongs"),
    "B30": (
        "test_gateway_sockets.py",
        "test_a_reader_that_stops_is_evicted_and_others_are_not_b30",
        "it waits for the eviction",
    ),
    "B69": ("test_bad_inputs.py", "test_combinations_that_are_none_b69", "an operator lists them"),
    "B72": ("test_bad_clearing.py", "test_b72_money_of_another_asset", "no client names an asset"),
    "B86": ("test_surveillance.py", "test_stuffing", "found in the log, afterwards"),
    "B87": ("test_surveillance.py", "test_spoofing_is_found", "found in the log, afterwards"),
    "B102": ("test_auth.py", "test_a_key_id_in_the_log_is_inert_b102", "what is logged"),
    "B103": ("test_index_input.py", "test_a_stamp_far_in_the_future_moves_no_clock", "a file"),
    "B104": ("test_rest.py", "test_verbs_and_bodies_b104", "HTTP"),
}
REACHED: Final = {f"B{number:02}" for number in (*range(1, 80), *range(84, 89), *range(101, 105))}


def case(*names: str) -> Callable[[Case], Case]:
    """Register the test of one or more cases."""

    def register(test: Case) -> Case:
        CASES.update(dict.fromkeys(names, test))
        return test

    return register


async def refused(house: House, socket: Any, request: Any, name: str) -> dict[str, Any]:
    """Send a request, expect one reject of that name, the same again, and no change of state."""
    before = house.venue.hash()
    for _ in range(2):
        (told,) = await house.say(socket, request)
        assert (told["type"], told["name"]) == ("rejected", name), (request, told)
    assert house.venue.hash() == before
    found: dict[str, Any] = told
    return found


async def goes_on(house: House, socket: Any) -> None:
    (told,) = await house.say(socket, enter(f"on{house.venue.submitted}", quantity="1"))
    assert told["type"] == "accepted", told


def port(house: House) -> int:
    return int(house.url.rsplit(":", 1)[1])


# Logons


@case("B01")
async def before_a_logon(house: House) -> None:
    socket = await house.connect()
    queries = ({"op": "account", "request_id": "q"}, {"op": "orders", "request_id": "q"})
    for request in (enter("x"), CANCEL, *queries):
        await refused(house, socket, request, "AUTH_REQUIRED")


@case("B02", "B03")
async def wrong_signatures(house: House) -> None:
    """The answers alone; the path and the log entry are test_auth.py's."""
    good = house.venue.logon(RICH)
    answers = []
    for key_id in (good["key_id"], "0123456789abcdef"):
        told = []
        for _ in range(7):
            socket = await house.connect()
            bad = {**house.venue.logon(RICH), "key_id": key_id, "signature": "00"}
            told += await house.say(socket, bad)
        answers.append(told)
    assert answers[0] == answers[1]
    assert [told["name"] for told in answers[0]] == ["BAD_SIGNATURE"] * 5 + ["KEY_LOCKED"] * 2
    (told,) = await house.say(await house.connect(), house.venue.logon(RICH))
    assert told["name"] == "KEY_LOCKED"


@case("B04", "B05")
async def signatures_of_something_else(house: House) -> None:
    for field in ("timestamp_ms", "nonce", "resume_session"):
        logon = house.venue.logon(RICH)
        logon[field] = logon.get(field, 0) + 1
        (told,) = await house.say(await house.connect(), logon)
        assert told["name"] == "BAD_SIGNATURE"
        await house.trader(RICH)  # and the count begins anew
    for change in (str.upper, lambda s: s + " ", lambda s: " " + s, lambda s: "", lambda s: "é"):
        logon = house.venue.logon(RICH)
        logon["signature"] = change(logon["signature"])
        (told,) = await house.say(await house.connect(), logon)
        assert told["name"] == "BAD_SIGNATURE"
        await house.trader(RICH)


@case("B06", "B07")
async def the_time_window(house: House) -> None:
    now = house.venue.now_ns // 1_000_000
    late = [(shift, "TIMESTAMP") for shift in (1_001, 1_000, -5_001)]
    for shift, name in (*late, (-5_000, None), (999, None)):
        logon = house.venue.logon(RICH, timestamp_ms=now + shift)
        (told,) = await house.say(await house.connect(), logon)
        assert told.get("name") == name, shift


@case("B08", "B09", "B10")
async def nonces(house: House) -> None:
    cases = [(7, None), (7, "NONCE"), (6, "NONCE"), (2**64 - 1, None), (2**64 - 1, "NONCE")]
    for nonce, name in [*cases, (2**64, "NONCE"), (-1, "SYNTAX"), (1.5, "SYNTAX"), ("7", "SYNTAX")]:
        logon = house.venue.logon(RICH, nonce=nonce)
        (told,) = await house.say(await house.connect(), logon)
        assert told.get("name") == name, nonce


@case("B11")
async def a_key_that_may_only_read(house: House) -> None:
    socket = await house.connect()
    await house.say(socket, house.venue.logon(RICH, "read"))
    for request in (enter("x"), CANCEL):
        await refused(house, socket, request, "SCOPE")


@case("B14")
async def a_key_revoked_while_it_is_used(house: House) -> None:
    socket = await house.trader(RICH)
    (live,) = house.venue.hub.sessions.values()
    assert live.key is not None
    auth.revoke_key(house.venue.directory, live.key.key_id)
    house.venue.hub.drop_revoked()  # as an operator's act does at once, and every beat
    before = house.venue.submitted
    await socket.send_str(json.dumps(enter("late")))
    closed = await hear(socket)
    assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, session.CLOSE_REVOKED)
    assert house.venue.submitted - before <= 1, "an order was taken"  # its logoff alone


@case("B15")
async def what_belongs_to_another_connection(house: House) -> None:
    socket = await house.trader(RICH)
    number = next(iter(house.venue.hub.sessions.values())).engine_session
    await refused(house, await house.connect(), enter("x"), "AUTH_REQUIRED")
    stolen = house.venue.logon(THIRD, resume_session=number)
    (told,) = await house.say(await house.connect(), stolen)
    assert told["name"] == "SESSION_UNKNOWN"
    await goes_on(house, socket)


@case("B18", "B19")
async def too_many_from_one_address(house: House) -> None:
    house.gateway._seats = Seats(lambda address: 32)
    held = [await house.connect() for _ in range(32)]
    one = await Wire.open(port(house))
    assert b"429" in await one.shake("X-Forwarded-For: 203.0.113.9")
    assert b"CONNECTIONS_FULL" in await one.reader.read(4_096)
    one.writer.close()
    (beat,) = await house.say(held[0], {"op": "heartbeat"})
    assert beat["type"] == "heartbeat"


@case("B20")
async def silence(house: House) -> None:
    public = await house.connect()
    channels = [f"trades.{CODE}"]
    await house.say(public, {"op": "subscribe", "request_id": "s", "channels": channels})
    with mock.patch.object(server, "SILENT_SECONDS", 0.5):  # for who connects now
        closed = await hear(await house.connect())
    assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, server.CLOSE_IDLE)
    assert (await house.say(public, {"op": "heartbeat"}))[0]["type"] == "heartbeat"


# Framing


@case("B21", "B22", "B23", "B24", "B25")
async def frames_that_are_none(house: House) -> None:
    """Each closes its connection with the code that is due, and memory stays as it was."""
    trader = await house.trader(RICH)
    bomb = zlib.compress(bytes(10 << 20))
    part = frame(TEXT, bytes(8_000), final=False)
    rest = frame(0, bytes(8_000), final=False)
    cases = [
        (1009, frame(TEXT, b"x" * (Limit.FRAME_BYTES + 1))),
        (1002, frame(TEXT, bomb, reserved=4)),
        (1009, part + rest * 2),
        (1009, frame(TEXT, b"drip", size=1 << 63)),
        (1009, frame(TEXT, b"drip", size=(1 << 63) - 1)),
        (1002, frame(TEXT, b"{}", reserved=1)),
        (1002, frame(3, b"x")),
        (1002, frame(11, b"x")),
        (1002, frame(PING, bytes(126))),
        (1002, frame(PING, b"x", final=False)),
        (1002, frame(0, b"x")),
        (1002, b"\x81\x02{}"),
        (1002, frame(TEXT, b'{"op":"heartbeat"}') + b"\x81\x02{}"),
        (1002, b"\x81\x7e\x00\x80" + bytes(128)),
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for code, data in cases:
        one = await Wire.open(port(house))
        assert b"101" in await one.shake()
        await one.send(data)
        assert await one.close_code() == code, data[:16]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    await goes_on(house, trader)


@case("B26", "B27")
async def text_and_bytes(house: House) -> None:
    one = await Wire.open(port(house))
    await one.shake()
    await one.send(frame(TEXT, b'{"op":"\xff"}'))
    assert await one.close_code() == 1007
    text, packed = await house.connect(), await house.connect(wire.MSGPACK_PROTOCOL)
    await text.send_bytes(msgspec.msgpack.encode({"op": "heartbeat"}))
    await packed.send_str('{"op":"heartbeat"}')
    assert [(await hear(socket))[0]["name"] for socket in (text, packed)] == ["SYNTAX"] * 2


@case("B29")
async def handshakes_without_end(house: House) -> None:
    slow = await Wire.open(port(house))
    await slow.send(b"GET /ws HTT")
    wide = await Wire.open(port(house))
    await wide.send(b"GET /ws HTTP/1.1\r\nX: " + bytes(b"a" * 100_000) + b"\r\n\r\n")
    assert b"400" in await wide.reader.readline()
    wide.writer.close()
    assert await asyncio.wait_for(slow.reader.read(), 20) == b""
    slow.writer.close()


@case("B31", "B32")
async def channels(house: House) -> None:
    socket = await house.trader(RICH)
    many = [f"depth.X{number}" for number in range(10_000)]
    for names, name in ((many[: Limit.SUBSCRIPTIONS + 1], "SUBSCRIPTIONS_FULL"),
                        ([f"account.{THIRD}"], "NOT_FOUND")):  # fmt: skip
        request = {"op": "subscribe", "request_id": "s", "channels": names}
        await refused(house, socket, request, name)
    await socket.send_str(json.dumps({"op": "subscribe", "request_id": "s", "channels": many}))
    assert (await hear(socket)).data == 1009  # ten thousand names are more than a frame takes


# Frames and orders, by the tables


TABLED: Final = (
    "B12", *(f"B{number}" for number in range(33, 53)), *(f"B{number}" for number in range(54, 62)),
    "B63", "B64", "B70", "B71",
)  # fmt: skip


@case(*TABLED)
async def tables(house: House) -> None:
    """Each frame of the tables on a connection of its own."""
    sent = set()
    for name, data, reason, field in FRAMES:
        if name not in TABLED or not isinstance(data, str):
            continue
        socket = await house.trader(RICH)
        if reason is not None and len(data.encode("utf-8", "replace")) <= Limit.FRAME_BYTES:
            told = await refused(house, socket, data, reason.name)
            assert told.get("field") == field, data[:80]
            sent.add(name)
        await socket.close()
    for name, fields, reason, limit, observed in ENGINE:
        if name in TABLED:
            socket = await house.trader(RICH)
            told = await refused(house, socket, enter("e", **fields), reason.name)
            assert limit is None or (told["limit"], told["observed"]) == (limit, observed)
            sent.add(name)
            await socket.close()
    assert sent == set(TABLED)
    await goes_on(house, await house.trader(THIRD))


@case("B53", "B62", "B68")
async def limits_and_states(house: House) -> None:
    venue, socket = house.venue, await house.trader(RICH)
    await venue.order(Command(kind=CommandKind.SET_ACCOUNT, account=RICH, quantity=5))
    await refused(house, socket, enter("x"), "ACCOUNT_MAX_QUANTITY")
    await venue.order(Command(kind=CommandKind.SET_ACCOUNT, account=RICH, quantity=0))
    for code in ("NONE", CODE.lower()):
        await refused(house, socket, enter("x", instrument=code), "UNKNOWN_INSTRUMENT")
    for state in (TradingState.HALTED, TradingState.CLOSED):
        await venue.order(market.state(0, state))
        await refused(house, socket, enter("x"), "NOT_TRADING")
    await venue.order(market.state(0, TradingState.PRE_OPEN))
    for fields in ({"post_only": True}, {"time_in_force": "IOC"}):
        await refused(house, socket, enter("x", **fields), "NOT_IN_AUCTION")


@case("B65", "B66", "B67")
async def conditions(house: House) -> None:
    socket = await house.trader(RICH)
    await refused(house, socket, enter("x", type="stop"), "SYNTAX")
    await refused(house, socket, enter("x", stop_price="9.000"), "TRIGGER")
    await refused(house, socket, enter("x", minimum_quantity="11"), "MINIMUM")
    await refused(house, socket, enter("x", reduce_only=True), "REDUCE_ONLY")


@case("B73", "B77", "B79")
async def orders_of_somebody_else(house: House) -> None:
    owner, thief = await house.trader(RICH), await house.trader(THIRD)
    (accepted,) = await house.say(owner, enter("mine"))
    for order_id in (accepted["order_id"], "1", str(2**63)):
        replace = {"op": "replace", "quantity": "1", "price": "2.6", "instrument": CODE}
        for op in ({"op": "cancel"}, {"op": "reduce", "quantity": "1"}, replace):
            request = {**op, "request_id": "r", "order_id": order_id}
            await refused(house, thief, request, "NOT_FOUND")
    wrong = {**CANCEL, "client_order_id": "mine", "side": "sell"}
    await refused(house, owner, wrong, "SIDE_MISMATCH")
    (trade, *_) = await house.say(thief, enter("s", side="sell"))
    assert trade["type"] == "accepted"
    await hear(owner)  # its execution
    await refused(house, owner, {**CANCEL, "client_order_id": "mine"}, "TOO_LATE")
    guess = house.venue.logon(POOR, after=[1, trade["sequence"], 7])
    (told,) = await house.say(await house.connect(), guess)
    assert told["name"] == "NOT_FOUND"
    own = house.venue.logon(POOR, after=[0, 0, 0])  # and of what it may see nothing is another's
    heard = await house.say(await house.connect(), own)
    assert all("order_id" not in report for report in heard)


@case("B74", "B75", "B76")
async def one_id_one_order(house: House) -> None:
    one, other = await house.trader(RICH), await house.trader(THIRD)
    first = await house.say(one, enter("a"))
    await refused(house, one, enter("a", quantity="11"), "DUPLICATE_DIFFERENT")
    await house.say(other, enter("s", side="sell"))
    await hear(one)
    before = house.venue.hash()
    (again,) = await house.say(one, enter("a"))  # filled, and the same answer
    assert again["duplicate"] and again["order_id"] == first[0]["order_id"]
    assert again["leaves_quantity"] == "0"
    assert house.venue.hash() == before


@case("B78")
async def replaces(house: House) -> None:
    one, other = await house.trader(RICH), await house.trader(THIRD)
    await house.say(one, enter("a"))
    replace = {"op": "replace", "client_order_id": "a", "instrument": CODE}
    larger = {**replace, "request_id": "1", "price": "2.650", "quantity": "20"}
    assert not (await house.say(one, larger))[0]["priority_kept"]
    await house.say(other, enter("s", side="sell", quantity="5"))
    await hear(one)
    ended = {**replace, "request_id": "2", "price": "2.650", "quantity": "5"}
    assert (await house.say(one, ended))[0]["type"] == "cancelled"
    await house.say(other, enter("t", side="sell", price="2.700"))
    await house.say(one, enter("b"))
    crossing = {**replace, "client_order_id": "b", "request_id": "3", "price": "2.700",
                "quantity": "10"}  # fmt: skip
    kinds = [report["type"] for report in await house.say(one, crossing)]
    assert kinds == ["replaced", "execution"]


# Abuse


@case("B84", "B85")
async def more_orders_than_one_may_have(house: House) -> None:
    opened = market.open_account(9, burst=60, interval=10**9)
    await house.venue.order(msgspec.structs.replace(opened, quantity=50))
    deposit = Command(kind=CommandKind.DEPOSIT, account=9, price=10**14, key_lo=9)
    await house.venue.order(deposit)
    socket = await house.trader(9)
    for number in range(50):
        (told,) = await house.say(socket, enter(f"o{number}", price="2.000", quantity="1"))
        assert told["type"] == "accepted"
    full = (await house.say(socket, enter("x", price="2.000")))[0]
    assert (full["name"], full["limit"]) == ("OPEN_ORDERS", "50")
    while (told := (await house.say(socket, enter("y")))[0])["name"] == "OPEN_ORDERS":
        pass
    assert (told["name"], told["retry_after_ms"], told["tokens"]) == ("THROTTLED", 1_000, 0)
    for number in range(50):  # and every cancel passes
        request = {"op": "cancel", "request_id": f"c{number}", "client_order_id": f"o{number}"}
        assert (await house.say(socket, request))[0]["type"] == "cancelled"


@case("B88")
async def a_flood_of_one_instrument(house: House) -> None:
    """Commands of one connection are served in turn with those of the others, whatever waits."""
    flooder, other = await house.trader(RICH), await house.trader(THIRD)
    numbers = list(house.venue.hub.sessions)
    flood, calm = (house.venue.hub.sessions[number] for number in numbers)
    begun = house.venue.hub.sequence
    for number in range(3_000):  # all queued before the sequencer has its turn
        flood.receive(json.dumps(enter(f"f{number}", quantity="1")), 0)
    calm.receive(json.dumps(enter("calm", instrument=OTHER, quantity="5")), 0)
    (told,) = await hear(other)
    assert told["client_order_id"] == "calm" and told["sequence"] <= begun + 2
    await house.venue.settle()
    assert not flooder.closed


# Files


@case("B101")
async def names_that_climb(house: House) -> None:
    async with Live.open(house.venue.directory / "live") as live:
        base, before = live.addresses.http, sorted(house.venue.directory.rglob("*"))
        for path in ("trades/..%2F..%2Fx", "trades/%2e%2e", "candles/..%5Cx", "..%2f..%2fkeys.db"):
            async with house.client.get(f"{base}/{path}") as answer:
                assert answer.status in (400, 404) and (await answer.json())["name"]
        assert sorted(house.venue.directory.rglob("*")) == before
    socket = await house.trader(RICH)
    await refused(house, socket, enter("x", instrument="../x"), "ID_FORMAT")


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(server, "SILENT_SECONDS", 60.0)
    monkeypatch.setattr(arrivals, "HANDSHAKE_SECONDS", 1.5)
    monkeypatch.setattr(server, "CLOSE_SECONDS", 0.2)
    async with running(tmp_path) as opened:
        yield opened


def together() -> list[Any]:
    """Every test once, named by its cases."""
    return [
        pytest.param(test, id=" ".join(name for name, found in CASES.items() if found is test))
        for test in dict.fromkeys(CASES.values())
    ]


@pytest.mark.parametrize("test", together())
async def test_bad_inputs(test: Case, house: House) -> None:
    await test(house)


async def test_combinations_that_are_none_b69(tmp_path: Path) -> None:
    async with market_in(tmp_path, clock=clock_ns) as opened:
        for code in ("H100Z26-H100Z26", "H100Z26-", "-", "H100Z26-H100Z26-H100Z26"):
            wish = requests.ListContract(code=code, price="0.010")
            with pytest.raises(RequestRefused):
                await opened.operations.perform(wish)


def test_no_case_of_the_vectors_is_left_out(shared: Path) -> None:
    cases = msgspec.json.decode((shared / "vectors" / "bad_inputs.json").read_bytes())["cases"]
    known = {one["id"] for one in cases}
    assert known >= REACHED
    assert set(CASES) | set(ELSEWHERE) == REACHED and not set(CASES) & set(ELSEWHERE)
    for name, (file, test, _) in ELSEWHERE.items():
        assert re.search(rf"def {test}", (HERE / file).read_text()), name
