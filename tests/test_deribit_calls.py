"""What the dialect's calls do and cost: mass cancels, tokens, lists of trades, marks."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from dialect import Rpc, Venue, signature
from msgspec.structs import astuple

from exchange.app.requests import Deposit
from exchange.app.requests_market import ListContract, SetImplied
from exchange.gateway import tokens
from exchange.gateway.auth import Keys, create_key, revoke_key
from exchange.gateway.dialects.deribit import methods
from exchange.gateway.dialects.deribit.answers import pick
from exchange.gateway.dialects.deribit.gate import TOKEN_MS, Gate
from exchange.gateway.dialects.deribit.params import COUNT_MAX, OFFSET_MAX, Auth, Slice
from exchange.gateway.dialects.deribit.rpc import Failure
from exchange.gateway.hub import Hub
from exchange.messages import COMMAND, Command, CommandKind

NEAR, FAR, SPREAD = "H100Z26", "H100F27", "H100Z26-H100F27"


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    async with asyncio.timeout(60), Venue.open(tmp_path) as opened:
        await opened.market.operations.perform(ListContract(code=SPREAD))
        yield opened


async def marks(rpc: Rpc, *codes: str) -> list[Decimal]:
    told = [await rpc.call("public/ticker", instrument_name=code) for code in codes]
    return [Decimal(str(one["mark_price"])) for one in told]


async def post(venue: Venue, source: str, call: dict[str, Any], **headers: str) -> Any:
    """Return the answer to a call over HTTP from an address of this machine."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"{venue.http}/api/v2", json=call, headers=headers) as answer,
    ):
        return await answer.json()


async def test_a_token_is_good_where_its_key_is(venue: Venue) -> None:
    await venue.market.operations.perform(Deposit(account=1, amount="1000"))
    key = create_key(venue.market.directory, 1, "trade", addresses=("127.0.0.1/32",))
    logon = {"method": "public/auth", "params": signature(*key, venue.market.hub.now_ms())}
    granted = (await post(venue, "127.0.0.1", logon))["result"]
    bearer = {"Authorization": f"Bearer {granted['access_token']}"}
    positions = {"method": "private/get_positions", "params": {}}
    refresh = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
    again = {"method": "public/auth", "params": refresh}
    for call, headers in ((positions, bearer), (again, {})):
        told = await post(venue, "127.0.0.2", call, **headers)
        assert (told["error"]["code"], told["error"]["data"]["reason"]) == (13004, "ADDRESS")
    assert (await post(venue, "127.0.0.1", positions, **bearer))["result"] == []
    assert "access_token" in (await post(venue, "127.0.0.1", again))["result"], "not spent"


def test_a_token_is_known_to_every_gateway_and_spent_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two gateways of one market, and one that starts anew: the key file is what they share."""
    monkeypatch.setattr(tokens, "TOKENS_KEPT", 6)
    now = [1_000_000]
    gates = [
        Gate(cast(Hub, SimpleNamespace(keys=Keys(tmp_path), now_ms=lambda: now[0])))
        for _ in range(2)
    ]
    key_id, secret = create_key(tmp_path, 1, "trade")

    def enters(gate: Gate, granted: dict[str, Any]) -> bool:
        try:
            held = gate.admit(f"Bearer {granted['access_token']}", "GET\n/", b"", "127.0.0.1")
        except Failure:
            return False
        return (held.key_id, held.account) == (key_id, 1)

    def refreshed(gate: Gate, granted: dict[str, Any]) -> bool:
        auth = Auth(grant_type="refresh_token", refresh_token=granted["refresh_token"])
        try:
            gate.issue(gate.grant(auth, "127.0.0.1"))
        except Failure:
            return False
        return True

    by_secret = Auth(grant_type="client_credentials", client_id=key_id, client_secret=secret)
    key = gates[0].grant(by_secret, "127.0.0.1")
    first = gates[0].issue(key)
    assert all(enters(gate, first) for gate in gates)
    assert not enters(gates[0], {"access_token": first["refresh_token"]})
    assert refreshed(gates[1], first) and not refreshed(gates[0], first)
    second, third = gates[1].issue(key), gates[1].issue(key)
    assert not enters(gates[0], first), "six of a key are kept"
    assert enters(gates[0], second) and enters(gates[0], third)
    now[0] += TOKEN_MS
    assert not enters(gates[0], third) and refreshed(gates[0], third)
    assert sqlite3.connect(tmp_path / "keys.db").execute(
        "SELECT count(*) FROM tokens WHERE until_ms <= ?", now
    ).fetchone() == (0,)
    last = gates[1].issue(key)
    revoke_key(tmp_path, key_id)
    assert not any(enters(gate, last) or refreshed(gate, last) for gate in gates)


@pytest.mark.parametrize(
    ("params", "left"),
    [
        ({"currency": "H100"}, []),
        ({"currency": "H100", "kind": "any"}, []),
        ({"currency": "H100", "kind": "future"}, [SPREAD]),
        ({"currency": "any", "kind": "future"}, [SPREAD]),
        ({"currency": "H100", "kind": "future_combo"}, [NEAR, FAR]),
        ({"kind": "combo"}, [NEAR, FAR]),
    ],
)
@pytest.mark.parametrize("over_http", [False, True])
async def test_a_mass_cancel_takes_what_its_list_shows(
    venue: Venue, params: dict[str, str], left: list[str], over_http: bool
) -> None:
    key = await venue.key(1)
    rpc = await venue.rpc(key)
    for code in (NEAR, FAR, SPREAD):
        low = (await rpc.call("public/ticker", instrument_name=code))["min_price"]
        await rpc.call("private/buy", instrument_name=code, amount=1, price=str(low))
    method = "private/cancel_all_by_currency"
    if over_http:
        basic = aiohttp.encode_basic_auth(*key)
        call = {"method": method, "params": params}
        done = (await post(venue, "127.0.0.1", call, Authorization=basic))["result"]
    else:
        done = await rpc.call(method, **params)
    working = await rpc.call("private/get_open_orders")
    assert (done, [one["instrument_name"] for one in working]) == (3 - len(left), left)


async def test_a_mass_cancel_of_one_book_says_which(venue: Venue) -> None:
    rpc = await venue.rpc(await venue.key(1))
    (mark,) = await marks(rpc, NEAR)
    await rpc.call("private/buy", instrument_name=NEAR, amount=1, price=str(mark))
    method = "private/cancel_all_by_instrument"
    for wrong, reason in (
        ({}, "MISSING_FIELD"),
        ({"instrument_name": NEAR, "kind": "future_combo"}, "COMBINATION"),
        ({"instrument_name": NEAR, "currency": "GOLD"}, "NOT_FOUND"),
    ):
        assert (await rpc.fail(method, **wrong))["data"]["reason"] == reason
    assert await rpc.call(method, instrument_name=SPREAD) == 0
    assert await rpc.call(method, instrument_name=NEAR, currency="H100", kind="future") == 1


async def test_the_mark_of_a_combination_is_the_native_one(venue: Venue) -> None:
    rpc, hub = await venue.rpc(), venue.market.hub
    for code in (NEAR, FAR):
        one, before = hub.feed.instruments.by_code[code], hub.sequence
        up = Command(kind=CommandKind.MARK, instrument=one.id, price=one.mark + 100_000)
        venue.market.sequencer.submit(0, COMMAND.pack(*astuple(up)))
        while hub.sequence == before:
            await asyncio.sleep(0.01)
    near, far, spread = await marks(rpc, NEAR, FAR, SPREAD)
    assert spread == near - far


async def test_trades_at_implied_prices_are_in_every_list(venue: Venue) -> None:
    await venue.market.operations.perform(SetImplied(code=SPREAD, on=True))
    one, two, three = [await venue.rpc(await venue.key(account)) for account in (1, 2, 3)]
    near, far = await marks(one, NEAR, FAR)
    codes = (NEAR, FAR, SPREAD)
    await three.call("public/subscribe", channels=[f"trades.{code}.raw" for code in codes])
    await one.call("private/sell", instrument_name=SPREAD, amount=1, price=str(near - far))
    await two.call("private/sell", instrument_name=FAR, amount=1, price=str(far))
    bought = await three.call("private/buy", instrument_name=NEAR, amount=1, price=str(near))
    assert bought["order"]["order_state"] == "filled"
    for code in codes:
        told = await three.data(f"trades.{code}.raw")
        listed = await one.call("public/get_last_trades_by_instrument", instrument_name=code)
        assert listed["trades"] == told and len(told) == 1
        ticker = await one.call("public/ticker", instrument_name=code)
        assert ticker["stats"]["volume"] == 0


def taken(runs: list[deque[int]], **query: Any) -> tuple[list[int], bool]:
    return pick(runs, Slice(**query), lambda one: one * 1_000_000, lambda one: one)


def test_a_part_of_many_lists_is_that_of_one() -> None:
    runs = [deque(range(start, 300, 3)) for start in range(3)] + [deque[int]()]
    whole = list(range(300))
    for query in (
        {},
        {"sorting": "asc", "count": 7, "offset": 290},
        {"sorting": "asc", "count": 10, "offset": 290},
        {"start_timestamp": 50, "count": 3},
        {"start_timestamp": 50, "end_timestamp": 60, "sorting": "desc", "offset": 4},
        {"end_timestamp": 5},
        {"start_timestamp": 400},
        {"start_timestamp": 60, "end_timestamp": 50},
    ):
        asked = Slice(**query)
        inside = [n for n in whole if asked.start_timestamp <= n <= asked.end_timestamp]
        rising = asked.sorting == "asc" or (asked.sorting == "default" and asked.start_timestamp)
        inside = inside if rising else inside[::-1]
        end = asked.offset + asked.count
        assert taken(runs, **query) == (inside[asked.offset : end], len(inside) > end), query
    with pytest.raises(Failure):
        taken(runs, offset=OFFSET_MAX + 1)


def test_the_newest_of_many_trades_costs_little() -> None:
    """The work is that of what is taken: of a hundred thousand, one."""
    looked = 0

    def stamp(one: int) -> int:
        nonlocal looked
        looked += 1
        return one * 1_000_000

    runs = [deque(range(start, 48_000, 48)) for start in range(48)]
    assert pick(runs, Slice(count=1), stamp, lambda one: one) == ([47_999], True)
    assert looked <= 4 * len(runs)
    assert len(pick(runs, Slice(count=COUNT_MAX), stamp, lambda one: one)[0]) == COUNT_MAX


async def test_reading_is_counted_over_all_connections_and_cancels_are_not(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    rpcs = [await venue.rpc(await venue.key(1)) for _ in range(2)]
    monkeypatch.setattr(methods, "requests_allowed", lambda address: 5)
    refused: list[dict[str, Any]] = []
    while len(refused) < 2:  # a second may begin between two calls
        told = [await rpc.ask({"method": "public/test"}) for _ in range(6) for rpc in rpcs]
        refused += [one["error"] for one in told if "error" in one]
    assert {(one["code"], one["data"]["reason"]) for one in refused} == {(10028, "REQUESTS_FULL")}
    assert all(one["data"]["retry_after_ms"] for one in refused)
    assert [await rpc.call("private/cancel_all") for rpc in rpcs for _ in range(6)] == [0] * 12


async def test_calls_that_lie_there_let_others_in_between(venue: Venue) -> None:
    greedy, other = await venue.rpc(), await venue.rpc()
    for number in range(300):
        call = f'{{"jsonrpc":"2.0","id":{number},"method":"public/get_instruments","params":{{}}}}'
        await greedy.socket.send_str(call)
    await other.call("public/test")
    last = asyncio.ensure_future(greedy.answer(lambda message: message["id"] == 299))
    await other.call("public/test")
    assert not last.done()
    await last
