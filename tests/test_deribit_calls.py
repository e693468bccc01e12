"""What the dialect's calls do and cost: mass cancels, tokens, lists of trades, marks."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator
from contextlib import closing
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from secrets import token_hex
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from dialect import Rpc, Venue, signature
from msgspec.structs import astuple
from overrides import people

from exchange.app import wishes
from exchange.app.requests import Adjust, Approve, Bust, Deposit
from exchange.app.requests_market import ListContract, SetImplied
from exchange.gateway import channels, tokens
from exchange.gateway.auth import Keys, create_key, revoke_key
from exchange.gateway.dialects.deribit import methods
from exchange.gateway.dialects.deribit.answers import pick
from exchange.gateway.dialects.deribit.calls import Wish
from exchange.gateway.dialects.deribit.gate import TOKEN_MS, Gate
from exchange.gateway.dialects.deribit.lines import Lines
from exchange.gateway.dialects.deribit.params import COUNT_MAX, OFFSET_MAX, Auth, Slice
from exchange.gateway.dialects.deribit.rpc import Failure
from exchange.gateway.hub import Hub
from exchange.messages import COMMAND, Command, CommandKind, Limit, TradingState
from exchange.messages.wire_mass import MassCancel

NEAR, FAR, SPREAD = "H100Z26", "H100F27", "H100Z26-H100F27"
LATER = "H100F27-H100G27"


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
            gate.issue(gate.grant(auth, "127.0.0.1"), auth)
        except Failure:
            return False
        return True

    by_secret = Auth(grant_type="client_credentials", client_id=key_id, client_secret=secret)
    key = gates[0].grant(by_secret, "127.0.0.1")
    first = gates[0].issue(key, by_secret)
    assert all(enters(gate, first) for gate in gates)
    assert not enters(gates[0], {"access_token": first["refresh_token"]})
    assert refreshed(gates[1], first) and not refreshed(gates[0], first)
    second, third = (gates[1].issue(key, by_secret) for _ in range(2))
    assert not enters(gates[0], first), "six of a key are kept"
    assert enters(gates[0], second) and enters(gates[0], third)
    now[0] += TOKEN_MS
    assert not enters(gates[0], third) and refreshed(gates[0], third)
    with closing(sqlite3.connect(tmp_path / "keys.db")) as rows:
        over = rows.execute("SELECT count(*) FROM tokens WHERE until_ms <= ?", now)
        assert over.fetchone() == (0,)
    last = gates[1].issue(key, by_secret)
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


async def test_marks_are_the_native_ones_and_those_of_a_trade_stay(venue: Venue) -> None:
    one, two = [await venue.rpc(await venue.key(account)) for account in (1, 2)]
    (before,), hub = await marks(one, SPREAD), venue.market.hub
    await one.call("private/buy", instrument_name=SPREAD, amount=1, price=str(before))
    await two.call("private/sell", instrument_name=SPREAD, amount=1, type="market")
    for code, up in ((NEAR, 100_000), (FAR, 70_000)):
        listed = hub.feed.instruments.by_code[code]
        wanted = listed.mark + up
        mark = Command(kind=CommandKind.MARK, instrument=listed.id, price=wanted)
        venue.market.sequencer.submit(0, COMMAND.pack(*astuple(mark)))
        while listed.mark != wanted:
            await asyncio.sleep(0.01)
    near, far, spread = await marks(one, NEAR, FAR, SPREAD)
    assert spread == near - far != before
    for method in ("public/get_last_trades_by_instrument", "private/get_user_trades_by_instrument"):
        (trade,) = (await one.call(method, instrument_name=SPREAD))["trades"]
        assert (trade["mark_price"], trade["tick_direction"]) == (float(before), 1)


async def test_a_corrected_trade_is_listed_as_it_is_now(venue: Venue) -> None:
    people(venue.market.directory, "anne", "bert")
    one, two = [await venue.rpc(await venue.key(account)) for account in (1, 2)]
    (mark,) = await marks(one, NEAR)
    lists = ("public/get_last_trades_by_instrument", "private/get_user_trades_by_instrument")
    ids, tick = [], Decimal("0.001")
    for _ in range(2):
        bought = await one.call("private/buy", instrument_name=NEAR, amount=2, price=str(mark))
        sold = await two.call("private/sell", instrument_name=NEAR, amount=2, type="market")
        ids.append(sold["trades"][0]["trade_id"])
    what: dict[str, Any] = {"reason": "a test", "malfunction": True}
    for request in (
        Bust(match_number=int(ids[0]), **what),
        Adjust(match_number=int(ids[1]), price=str(mark + tick), **what),
    ):
        proposed = await venue.market.operations.perform(request, "anne")
        await venue.market.operations.perform(Approve(proposal=proposed["proposal"]), "bert")
    for rpc, order in ((one, bought["order"]), (two, sold["order"])):
        for method in lists:
            (trade,) = (await rpc.call(method, instrument_name=NEAR))["trades"]
            assert (trade["trade_id"], trade["price"]) == (ids[1], float(mark + tick))
        state = await rpc.call("private/get_order_state", order_id=order["order_id"])
        assert (state["filled_amount"], state["average_price"]) == (2, float(mark + tick))


async def test_the_trades_of_an_order_are_all_there(venue: Venue) -> None:
    one, two = [await venue.rpc(await venue.key(account)) for account in (1, 2)]
    (mark,) = await marks(one, NEAR)
    bought = await one.call("private/buy", instrument_name=NEAR, amount=12, price=str(mark))
    for _ in range(12):
        await two.call("private/sell", instrument_name=NEAR, amount=1, type="market")
    which = {"order_id": bought["order"]["order_id"]}
    assert len(await one.call("private/get_user_trades_by_order", **which)) == 12
    assert len(await one.call("private/get_user_trades_by_order", **which, count=10)) == 10


async def test_what_is_listed_later_is_in_the_channels_of_its_kind(venue: Venue) -> None:
    one, two = [await venue.rpc(await venue.key(account)) for account in (1, 2)]
    names = [f"{what}.{kind}.H100.raw" for kind in ("combo", "future_combo", "any")
             for what in ("trades", "user.orders", "user.trades", "user.changes")]  # fmt: skip
    assert await one.call("private/subscribe", channels=[*names, "trades.future.any.raw"])
    await venue.market.operations.perform(ListContract(code=LATER))
    (mark,) = await marks(one, LATER)
    await one.call("private/buy", instrument_name=LATER, amount=1, price=str(mark))
    await two.call("private/sell", instrument_name=LATER, amount=1, type="market")
    async with asyncio.timeout(20):
        for name in names:
            told = await one.data(name)
            (told, *_) = told if isinstance(told, list) else [told]
            assert told["instrument_name"] == LATER
    assert not any(
        message["params"]["channel"].startswith("trades.future.") for message in one.told
    )


async def test_a_ticker_tells_of_lots_that_trades_elsewhere_moved(venue: Venue) -> None:
    one, two = [await venue.rpc(await venue.key(account)) for account in (1, 2)]
    await one.call("public/subscribe", channels=[name := f"ticker.{FAR}.raw"])
    assert (await one.data(name))["open_interest"] == 0
    await one.call("private/buy", instrument_name=SPREAD, amount=3, price="0.03")
    await two.call("private/sell", instrument_name=SPREAD, amount=3, type="market")
    async with asyncio.timeout(20):
        while (await one.data(name))["open_interest"] != 3:
            pass


async def test_what_has_expired_takes_no_place_among_the_channels(venue: Venue) -> None:
    """Otherwise a channel of a kind would be refused once 256 instruments had ever been listed."""
    market = venue.market
    gone = market.desk.instruments.by_code[NEAR]
    await market.desk.perform([
        wishes.set_state(NEAR, gone.id, TradingState.CLOSED),
        wishes.expire(NEAR, gone.id, gone.mark),
    ])  # fmt: skip
    rpc = await venue.rpc()
    await rpc.call("public/subscribe", channels=["trades.any.any.raw"])
    (session,) = market.hub.sessions.values()
    codes = {one.code for one in market.hub.feed.instruments.by_id.values()}
    assert session.channels == {f"trades.{code}" for code in codes - {NEAR, SPREAD}}
    await rpc.call("public/subscribe", channels=[name := f"trades.{NEAR}.raw"])
    assert f"trades.{NEAR}" in session.channels
    await rpc.call("public/unsubscribe", channels=[name])
    assert f"trades.{NEAR}" not in session.channels


async def test_a_subscription_that_was_refused_can_be_made_later(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    rpc, name = await venue.rpc(await venue.key(1)), f"ticker.{NEAR}.raw"
    monkeypatch.setattr(channels, "PICTURES", 0)
    error = await rpc.fail("public/subscribe", channels=[name, f"book.{NEAR}.raw"])
    assert error["data"]["reason"] == "SUBSCRIPTIONS_FULL"
    assert await rpc.call("public/unsubscribe", channels=[name]) == []
    monkeypatch.undo()
    assert await rpc.call("public/subscribe", channels=[name]) == [name]
    mark = (await rpc.data(name))["mark_price"]
    await rpc.call("private/buy", instrument_name=NEAR, amount=1, price=str(mark))
    async with asyncio.timeout(20):
        while (await rpc.data(name))["best_bid_price"] != mark:
            pass


async def test_calls_behind_a_logon_wait_for_it(venue: Venue) -> None:
    rpc, key = await venue.rpc(), await venue.key(1)
    logon, again = (signature(*key, venue.market.hub.now_ms()) for _ in range(2))
    for number, call in enumerate((
        {"method": "public/auth", "params": {**logon, "signature": "00"}},
        {"method": "public/auth", "params": logon},
        {"method": "private/get_positions", "params": {}},
        {"method": "public/auth", "params": again},
    )):  # fmt: skip
        await rpc.socket.send_json({"jsonrpc": "2.0", "id": number, **call})
    told = [await rpc.answer(lambda message: "id" in message) for _ in range(4)]
    assert [(one["id"], "result" in one) for one in told] == [
        (0, False), (1, True), (2, True), (3, True),
    ]  # fmt: skip


async def test_who_waits_no_longer_takes_nothing_from_others(venue: Venue) -> None:
    lines, hub = Lines(venue.market.hub), venue.market.hub
    key = hub.keys.find((await venue.key(1))[0], hub.now_ms())
    assert key is not None

    def asked() -> asyncio.Task[Any]:
        number = token_hex(8)
        wish = Wish(number, MassCancel(request_id=number), lambda done: done.orders)
        return asyncio.ensure_future(lines.carry_out(wish, key, "127.0.0.1"))

    assert await asked() == 0  # there is a session
    gone, stays = asked(), asked()
    await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(20):
        assert await stays == 0
    lines.close()


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


async def test_what_is_listed_takes_the_room_of_what_has_expired(venue: Venue) -> None:
    """A connection with as many native channels as it may have goes on when the months roll."""
    rpc, market, perform = await venue.rpc(), venue.market, venue.market.operations.perform
    known, most = market.hub.feed.instruments, Limit.SUBSCRIPTIONS
    months = [code for code in known.by_code if code.startswith("A100")]
    pairs = [f"{near}-{far}" for near, far in combinations(months, 2)]
    needed = most // 4 - len(known.by_code)  # a ticker has three native channels
    later = [pair for pair in pairs if pair not in known.by_code][: needed + 1]
    for code in later[:needed]:
        await perform(ListContract(code=code))
    tickers = [f"ticker.{code}.raw" for code in known.by_code]
    await rpc.call("public/subscribe", channels=[*tickers, "trades.any.any.raw"])
    (session,) = market.hub.sessions.values()
    assert len(session.channels) == most
    expired = known.by_code["H200Z26"]
    halted = Command(kind=CommandKind.SET_STATE, instrument=expired.id, tif=TradingState.HALTED)
    ended = Command(kind=CommandKind.EXPIRE, instrument=expired.id, price=expired.mark)
    await market.desk.perform([wishes.Wish(one, str(one.kind)) for one in (halted, ended)])
    await perform(ListContract(code=later[-1]))
    assert f"trades.{later[-1]}" in session.channels and session.closing is None
    assert len(session.channels) == most
