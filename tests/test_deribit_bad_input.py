"""What the Deribit dialect cannot use: a named error each, over both transports, and no change."""

import base64
import hashlib
import hmac
import json
import random
from collections.abc import AsyncIterator
from secrets import token_hex
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio
from dialect import Rpc, Venue, no_candles, signature

from exchange.gateway.access import Key
from exchange.gateway.dialects.deribit import rpc as grammar
from exchange.gateway.dialects.deribit.blotter import Blotter
from exchange.gateway.dialects.deribit.calls import Wish
from exchange.gateway.dialects.deribit.methods import PRIVATE, Methods
from exchange.gateway.session import MALFORMED_LIMIT
from exchange.messages import Reason
from exchange.messages.access import GatewayReason
from exchange.messages.wire import encode_msgpack

CODE: Final = "CODE"  # stands for the code of a listed instrument
pytestmark = pytest.mark.asyncio(loop_scope="module")
BUY: Final = {"instrument_name": CODE, "amount": 1, "price": 3.2}
FOREIGN: Final = "FOREIGN"  # stands for the id of another account's order
OWN: Final = "OWN"

# method, parameters, code, native reason
CALLS: Final[list[tuple[str, dict[str, Any], int, str]]] = [
    ("private/nothing", {}, -32601, "UNKNOWN_COMMAND"),
    ("buy", BUY, -32601, "UNKNOWN_COMMAND"),
    ("", {}, -32601, "UNKNOWN_COMMAND"),
    ("private/buy", {}, -32602, "MISSING_FIELD"),
    ("private/buy", BUY | {"amount": None}, -32602, "MISSING_FIELD"),
    ("private/buy", BUY | {"price": None}, -32602, "MISSING_FIELD"),
    ("private/buy", BUY | {"instrument_name": "BTC-PERPETUAL"}, 13020, "UNKNOWN_INSTRUMENT"),
    ("private/buy", BUY | {"instrument_name": 7}, -32602, "SYNTAX"),
    ("private/buy", BUY | {"otoco_config": []}, -32602, "UNKNOWN_FIELD"),
    ("private/buy", BUY | {"amount": 0}, 10021, "QUANTITY_RANGE"),
    ("private/buy", BUY | {"amount": -1}, 10021, "QUANTITY_RANGE"),
    ("private/buy", BUY | {"amount": 1.5}, 10021, "LOT"),
    ("private/buy", BUY | {"amount": 10**30}, 10021, "QUANTITY_RANGE"),
    ("private/buy", BUY | {"max_show": 0.5}, 10021, "LOT"),
    ("private/buy", BUY | {"amount": "1e999999999"}, -32602, "SYNTAX"),
    ("private/buy", BUY | {"amount": "NaN"}, -32602, "SYNTAX"),
    ("private/buy", BUY | {"amount": "1_0"}, -32602, "SYNTAX"),
    ("private/buy", BUY | {"amount": True}, -32602, "SYNTAX"),
    ("private/buy", BUY | {"amount": [1]}, -32602, "SYNTAX"),
    ("private/buy", BUY | {"amount": 2, "contracts": 3}, -32602, "COMBINATION"),
    ("private/buy", BUY | {"price": "1e-999999999"}, -32602, "SYNTAX"),
    ("private/buy", BUY | {"price": 3.2001}, 10043, "TICK"),
    ("private/buy", BUY | {"price": 900}, 10007, "PRICE_LIMIT"),
    ("private/buy", BUY | {"price": 0.001}, 10005, "PRICE_LIMIT"),
    ("private/buy", BUY | {"label": "naïve"}, -32602, "ID_FORMAT"),
    ("private/buy", BUY | {"label": "x" * 21}, -32602, "ID_FORMAT"),
    ("private/buy", BUY | {"type": "trailing_stop"}, -32602, "SYNTAX"),
    ("private/buy", BUY | {"type": "market"}, -32602, "COMBINATION"),
    ("private/buy", BUY | {"type": "stop_limit"}, -32602, "COMBINATION"),
    ("private/buy", BUY | {"trigger_price": 2.6}, -32602, "COMBINATION"),
    ("private/buy", BUY | {"time_in_force": "good_for_ever"}, -32602, "SYNTAX"),
    ("private/buy", BUY | {"valid_until": 1}, 13888, "LATE"),
    ("private/buy", BUY | {"amount": 900}, 10009, "MARGIN"),
    ("private/edit", {"order_id": OWN, "amount": 1, "price": 3.20001}, 10043, "TICK"),
    ("private/edit", {"order_id": FOREIGN, "amount": 1, "price": 2.6}, 10004, "NOT_FOUND"),
    ("private/cancel", {"order_id": FOREIGN}, 10004, "NOT_FOUND"),
    ("private/get_order_state", {"order_id": FOREIGN}, 10004, "NOT_FOUND"),
    ("private/get_user_trades_by_order", {"order_id": FOREIGN}, 10004, "NOT_FOUND"),
    ("private/cancel", {"order_id": "9" * 400}, 10004, "NOT_FOUND"),
    ("private/get_user_trades_by_order", {"order_id": f"0{OWN}"}, 10004, "NOT_FOUND"),
    ("private/cancel", {"order_id": "٣"}, 10004, "NOT_FOUND"),
    ("private/cancel", {}, -32602, "MISSING_FIELD"),
    ("private/cancel_all", {"type": "stop"}, -32602, "SYNTAX"),
    ("private/cancel_all", {"detailed": True}, -32602, "SYNTAX"),
    ("private/cancel_all_by_currency", {"detailed": 1}, -32602, "SYNTAX"),
    ("private/cancel_all_by_currency", {"currency": "BTC"}, -32602, "NOT_FOUND"),
    ("private/cancel_all_by_instrument", {"instrument_name": "X"}, 13020, "UNKNOWN_INSTRUMENT"),
    ("private/get_positions", {"currency": "BTC"}, -32602, "NOT_FOUND"),
    ("private/get_positions", {"kind": "bond"}, -32602, "PARAMETER_RANGE"),
    ("private/get_account_summary", {"currency": "BTC"}, -32602, "NOT_FOUND"),
    ("public/get_order_book", {"instrument_name": CODE, "depth": 0}, -32602, "PARAMETER_RANGE"),
    (
        "public/get_order_book",
        {"instrument_name": CODE, "depth": 10**30},
        -32602,
        "PARAMETER_RANGE",
    ),
    ("public/get_last_trades_by_currency", {"count": -1}, -32602, "PARAMETER_RANGE"),
    ("public/get_last_trades_by_currency", {"offset": -1}, -32602, "PARAMETER_RANGE"),
    ("public/get_last_trades_by_currency", {"count": "many"}, -32602, "SYNTAX"),
    *(
        (f"{name}_by_{what}", {"currency": "USD"}, -32602, "MISSING_FIELD")
        for name, what in (
            ("public/get_last_trades", "instrument"),
            ("public/get_last_trades", "instrument_and_time"),
            ("public/get_book_summary", "instrument"),
            ("private/get_open_orders", "instrument"),
            ("private/get_order_history", "instrument"),
            ("private/get_user_trades", "instrument"),
            ("private/get_user_trades", "instrument_and_time"),
            ("private/get_user_trades", "order"),
        )
    ),
    ("private/get_open_orders_by_label", {"label": "", "currency": "X"}, -32602, "NOT_FOUND"),
    ("public/auth", {"grant_type": "password"}, -32602, "SYNTAX"),
    ("public/auth", {"grant_type": "client_credentials"}, 13004, "BAD_SIGNATURE"),
    ("public/auth", {"grant_type": "refresh_token", "refresh_token": "x"}, 13009, "AUTH_REQUIRED"),
]
# Of a connection alone.
CONNECTION_CALLS: Final[list[tuple[str, dict[str, Any], int, str]]] = [
    ("public/set_heartbeat", {"interval": 1}, -32602, "PARAMETER_RANGE"),
    ("public/subscribe", {}, -32602, "MISSING_FIELD"),
    ("public/subscribe", {"channels": "book"}, -32602, "SYNTAX"),
    ("public/subscribe", {"channels": [7]}, -32602, "SYNTAX"),
    *(
        ("public/subscribe", {"channels": [name]}, -32602, "NOT_FOUND")
        for name in (
            "", ".", "user", "user.", "user.orders", "user.orders.any.any.1ms", "book",
            f"book.{CODE}.1ms", f"book.{CODE}.5.20.100ms", f"book.{CODE}.none.7.raw",
            "trades.bond.any.raw", "user.portfolio.btc", "x" * 5_000,
            "trades.future.GOLD.raw", "user.orders.any.GOLD.raw",
        )
    ),
    ("public/subscribe", {"channels": ["quote.X"]}, 13020, "UNKNOWN_INSTRUMENT"),
    ("public/subscribe", {"channels": [f"x{n}" for n in range(257)]}, 13017, "SUBSCRIPTIONS_FULL"),
]  # fmt: skip
# Text that is no call, and its reason.
TEXTS: Final[list[tuple[str, int, str]]] = [
    ("", -32700, "SYNTAX"),
    ("{", -32700, "SYNTAX"),
    ("[" * 5_000, -32700, "SYNTAX"),
    ("nul", -32700, "SYNTAX"),
    ('{"id":1,"method":"public/test","params":{"a":NaN}}', -32700, "SYNTAX"),
    ('{"id":1,"method":"public/test","params":{"a":1e99999999999999999999}}', -32700, "SYNTAX"),
    ('{"id":1,"method":"public/test","params":{"a":"\\ud800"}}', -32700, "SYNTAX"),
    ('{"id":1,"id":2,"method":"public/test"}', -32700, "DUPLICATE_FIELD"),
    ('{"method":"private/buy","params":{"amount":1,"amount":2}}', -32700, "DUPLICATE_FIELD"),
    ("[]", -32600, "SYNTAX"),
    ("7", -32600, "SYNTAX"),
    ("null", -32600, "SYNTAX"),
    ("{}", -32600, "MISSING_FIELD"),
    ('{"method":7}', -32600, "SYNTAX"),
    ('{"method":"public/test","params":[1]}', -32600, "SYNTAX"),
]


REASONS: Final = {reason.name: int(reason) for kind in (Reason, GatewayReason) for reason in kind}


class Bench:
    """A market with an order of the caller's own and one of another's, and what may not change."""

    def __init__(self, venue: Venue, key: tuple[str, str], rpc: Rpc) -> None:
        self.venue, self.key, self.rpc = venue, key, rpc
        self.names: dict[str, str] = {}

    def hash(self) -> bytes:
        """The state without what a reject may spend."""
        return self.venue.market.engine.state_bytes(False)

    def filled(self, value: Any) -> Any:
        """A parameter with what its placeholders stand for."""
        if isinstance(value, dict):
            return {name: self.filled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.filled(one) for one in value]
        for name, stands_for in self.names.items():
            value = value.replace(name, stands_for) if isinstance(value, str) else value
        return value

    async def post(self, body: str, **headers: str) -> tuple[int, Any]:
        """Send a body, signed unless a header says who calls; return status and error."""
        if "Authorization" not in headers:
            headers["Authorization"] = self.signed("POST", "/api/v2", body)
        async with aiohttp.ClientSession() as session:
            url = f"{self.venue.http}/api/v2"
            async with session.post(url, data=body.encode(), headers=headers) as answer:
                return answer.status, (await answer.json()).get("error")

    def signed(self, method: str, path: str, body: str) -> str:
        """An Authorization header."""
        now, nonce = self.venue.market.hub.now_ms(), token_hex(8)
        text = f"{now}\n{nonce}\n{method}\n{path}\n{body}\n".encode()
        mark = hmac.new(self.key[1].encode(), text, "sha256").hexdigest()
        return f"deri-hmac-sha256 id={self.key[0]},ts={now},sig={mark},nonce={nonce}"


def named(error: Any, code: int, reason: str) -> None:
    """Assert that an error has a code and names a native reject."""
    assert (error["code"], error["data"]["reason"]) == (code, reason), error
    assert error["data"].get("number", REASONS[reason]) == REASONS[reason]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with Venue.open(tmp_path_factory.mktemp("market")) as venue:
        key, other = await venue.key(1), await venue.key(2)
        made = Bench(venue, key, await venue.rpc(key))
        listed = await made.rpc.call("public/get_instruments", currency="H100")
        made.names[CODE] = listed[0]["instrument_name"]
        for name, rpc in ((OWN, made.rpc), (FOREIGN, await venue.rpc(other))):
            entered = await rpc.call("private/buy", **made.filled(BUY))
            made.names[name] = entered["order"]["order_id"]
        status, error = await made.post(json.dumps({"method": "private/get_positions"}))
        assert (status, error) == (200, None)
        cancel = {"method": "private/cancel", "params": {"order_id": made.names[OWN]}}
        entered = await made.rpc.call("private/buy", **made.filled(BUY))
        cancel["params"] = {"order_id": entered["order"]["order_id"]}
        assert await made.post(json.dumps(cancel)) == (200, None)  # the key's HTTP session is open
        yield made


@pytest.mark.parametrize(("method", "params", "code", "reason"), CALLS)
async def test_a_call_that_cannot_be_done_is_refused_by_name(
    bench: Bench, method: str, params: dict[str, Any], code: int, reason: str
) -> None:
    before, call = bench.hash(), {"method": method, "params": bench.filled(params)}
    rpc = bench.rpc if not method.startswith("public/auth") else await bench.venue.rpc()
    named((await rpc.ask(call))["error"], code, reason)
    status, error = await bench.post(json.dumps(call))
    named(error, code, reason)
    assert 400 <= status < 600 and bench.hash() == before


@pytest.mark.parametrize(("method", "params", "code", "reason"), CONNECTION_CALLS)
async def test_a_connections_own_call_is_refused_by_name(
    bench: Bench, method: str, params: dict[str, Any], code: int, reason: str
) -> None:
    before, call = bench.hash(), {"method": method, "params": bench.filled(params)}
    named((await bench.rpc.ask(call))["error"], code, reason)
    assert (await bench.post(json.dumps(call)))[1]["code"] == 10030
    assert bench.hash() == before


@pytest.mark.parametrize("name", ["quote.X", "ticker.X.raw", "book.X.raw", "trades.X.raw"])
async def test_a_channel_of_no_instrument_names_its_own_parameter(bench: Bench, name: str) -> None:
    error = await bench.rpc.fail("public/subscribe", channels=[name])
    named(error, 13020, "UNKNOWN_INSTRUMENT")
    assert error["data"]["param"] == "channels"


@pytest.mark.parametrize(("text", "code", "reason"), TEXTS)
async def test_text_that_is_no_call_is_refused_by_name(
    bench: Bench, text: str, code: int, reason: str
) -> None:
    before = bench.hash()
    await bench.rpc.socket.send_str(text)
    named((await bench.rpc.answer(lambda message: "error" in message))["error"], code, reason)
    status, error = await bench.post(text)
    named(error, code, reason)
    assert status == 400 and bench.hash() == before


@pytest.mark.parametrize(
    "wrong", [{"max_show": 0.5}, {"price": 0.1 + 0.2 - 0.3}, {"price": 1e35}, {"amount": 1.5}]
)
async def test_a_number_of_no_use_is_no_malformed_frame(
    bench: Bench, wrong: dict[str, float]
) -> None:
    """A program that computes one again and again keeps its connection, and with it its orders."""
    rpc = await bench.venue.rpc(bench.key)
    for _ in range(MALFORMED_LIMIT + 1):
        error = await rpc.fail("private/buy", **bench.filled(BUY) | wrong)
        assert error["data"]["param"] in wrong
    assert await rpc.call("public/test")


async def test_bytes_are_no_text(bench: Bench) -> None:
    await bench.rpc.socket.send_bytes(b'{"id":1,"method":"public/test"}')
    named((await bench.rpc.answer(lambda message: "error" in message))["error"], -32700, "SYNTAX")


async def test_what_is_too_large_is_refused_whole(bench: Bench) -> None:
    before, text = bench.hash(), json.dumps({"method": "public/test", "id": "x" * 16_384})
    rpc = await bench.venue.rpc()
    await rpc.socket.send_str(text)
    await rpc.socket.receive()
    assert rpc.socket.close_code == 1009
    status, error = await bench.post(text)
    assert status == 413
    named(error, -32700, "BODY_TOO_LARGE")
    assert bench.hash() == before


async def test_nothing_private_without_a_key(bench: Bench) -> None:
    before, rpc = bench.hash(), await bench.venue.rpc()
    methods = Methods(bench.venue.market.hub, Blotter(bench.venue.market.hub), no_candles)
    for method in filter(lambda name: name.startswith(PRIVATE), methods.known):
        named(await rpc.fail(method), 13009, "AUTH_REQUIRED")
        status, error = await bench.post(json.dumps({"method": method}), Authorization="")
        assert status == 401
        named(error, 13009, "AUTH_REQUIRED")
    assert (await rpc.fail("private/subscribe", channels=["user.orders.any.any.raw"]))[
        "code"
    ] == 13009
    assert bench.hash() == before


@pytest.mark.parametrize(
    ("header", "code", "reason"),
    [
        ("nonsense", 13009, "AUTH_REQUIRED"),
        ("Bearer nonsense", 13009, "AUTH_REQUIRED"),
        ("Basic !", -32602, "SYNTAX"),
        ("Basic " + base64.b64encode(b"\xff").decode(), -32602, "SYNTAX"),
        ("Basic " + base64.b64encode(b"who:what").decode(), 13004, "BAD_SIGNATURE"),
        ("deri-hmac-sha256", -32602, "SYNTAX"),
        ("deri-hmac-sha256 id=a,ts=1,sig=b", -32602, "SYNTAX"),
        ("deri-hmac-sha256 id=a,ts=-1,sig=b,nonce=c", -32602, "SYNTAX"),
        ("deri-hmac-sha256 id=a,ts=" + "9" * 400 + ",sig=b,nonce=c", -32602, "SYNTAX"),
        ("deri-hmac-sha256 id=a,ts=1,sig=b,nonce=c", 13004, "BAD_SIGNATURE"),
    ],
)
async def test_a_header_that_proves_nothing(
    bench: Bench, header: str, code: int, reason: str
) -> None:
    body = json.dumps({"method": "private/get_positions"})
    named((await bench.post(body, Authorization=header))[1], code, reason)


async def test_a_signature_is_of_its_own_request_and_time(bench: Bench) -> None:
    body = json.dumps({"method": "private/get_positions"})
    other = bench.signed("POST", "/api/v2", body + " ")
    named((await bench.post(body, Authorization=other))[1], 13004, "BAD_SIGNATURE")
    rpc, now = await bench.venue.rpc(), bench.venue.market.hub.now_ms()
    for off_ms in (-5_100, 2_000):
        late = signature(*bench.key, now + off_ms)
        named(await rpc.fail("public/auth", **late), 13004, "TIMESTAMP")
    first, second = (signature(*bench.key, now - later) for later in (0, 1_000))
    await rpc.call("public/auth", **first)
    await (await bench.venue.rpc()).call("public/auth", **second)  # no nonce need rise


async def test_a_signature_is_good_once(bench: Bench) -> None:
    """Who sends again what he saw enters nothing, and opens no session."""
    before = len(await bench.rpc.call("private/get_open_orders"))
    order = {**bench.filled(BUY), "label": "once"}
    body = json.dumps({"method": "private/buy", "params": order})
    header = bench.signed("POST", "/api/v2", body)
    assert (await bench.post(body, Authorization=header))[0] == 200
    for _ in range(2):
        named((await bench.post(body, Authorization=header))[1], 13004, "NONCE")
    orders = await bench.rpc.call("private/get_open_orders")
    assert len(orders) == before + 1
    await bench.rpc.call("private/cancel", order_id=orders[-1]["order_id"])
    logon = signature(*bench.key, bench.venue.market.hub.now_ms())
    rpc = await bench.venue.rpc()
    await rpc.call("public/auth", **logon)
    shouted = logon | {"signature": logon["signature"].upper()}
    for again in (logon, shouted):
        named(await (await bench.venue.rpc()).fail("public/auth", **again), 13004, "NONCE")


async def test_no_other_signature_opens_a_session(bench: Bench) -> None:
    """Not that of a native request or logon, nor that of another call."""
    key_id, now = bench.key[0], bench.venue.market.hub.now_ms()
    read = f"{key_id}\nGET\n/api/v1/account\n{hashlib.sha256(b'').hexdigest()}"
    call = 'POST\n/api/v2\n{"method": "private/get_positions"}\n'
    rpc = await bench.venue.rpc()
    for data in (f"{key_id}\n0", read, call):
        named(await rpc.fail("public/auth", **signature(*bench.key, now, data)), -32602, "SYNTAX")
    await rpc.call("public/auth", **signature(*bench.key, now, "what I like"))


async def test_who_is_refused_keeps_the_refresh_token(bench: Bench) -> None:
    rpc = await bench.venue.rpc()
    now = bench.venue.market.hub.now_ms()
    granted = await rpc.call("public/auth", **signature(*bench.key, now))
    other = await bench.venue.rpc(await bench.venue.key(2))
    again = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
    named(await other.fail("public/auth", **again), 11030, "SESSION_LIVE")
    await rpc.call("public/auth", **again)
    named(await rpc.fail("public/auth", **again), 13009, "AUTH_REQUIRED")


async def test_five_bad_logons_end_a_connection(bench: Bench) -> None:
    rpc = await bench.venue.rpc()
    for number in range(5):
        who = {"grant_type": "client_credentials", "client_id": f"who{number}"}
        named(await rpc.fail("public/auth", **who), 13004, "BAD_SIGNATURE")
    await rpc.socket.receive()
    assert rpc.socket.close_code == 1008


async def test_a_key_may_do_what_its_scope_says(bench: Bench) -> None:
    before = bench.hash()
    reader = await bench.venue.rpc(await bench.venue.key(1, "read"))
    before = bench.hash()
    for method in ("private/buy", "private/cancel", "private/cancel_all"):
        named(await reader.fail(method), 13021, "SCOPE")
    orders = await reader.call("private/get_open_orders")
    assert [order["order_id"] for order in orders] == [bench.names[OWN]]
    assert bench.hash() == before


async def test_a_parameter_twice_in_a_query(bench: Bench) -> None:
    query = urlencode([("instrument_name", "A"), ("instrument_name", "B")])
    url = f"{bench.venue.http}/api/v2/public/ticker?{query}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 400
        named((await answer.json())["error"], -32602, "DUPLICATE_FIELD")


async def test_mutations_of_good_calls_are_done_or_refused(bench: Bench) -> None:
    hub, rng, before = bench.venue.market.hub, random.Random(7), bench.hash()
    methods, key = Methods(hub, Blotter(hub), no_candles), Key("k", 1, "trade")
    good = [
        json.dumps({"id": 1, "method": method, "params": bench.filled(params)}).encode()
        for method, params, *_ in CALLS
        if method != "public/auth"
    ]
    refused = 0
    for _ in range(3_000):
        text = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 3)):
            text[rng.randrange(len(text))] = rng.choice(b'0123456789.-e"{}[]:,truefalsn\\\xff ')
        try:
            outcome = methods.answer(grammar.call_of(grammar.read(bytes(text)), 0), key)
            if isinstance(outcome, Wish) and outcome.request is not None:
                encode_msgpack(outcome.request)
        except grammar.Failure as failure:
            grammar.error(1, 0, failure)
            refused += 1
    assert refused > 2_000 and bench.hash() == before
