"""HTTP: signatures, pages of history, candles and statements of a real market; bad requests."""

import asyncio
import gzip
import io
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from live import market_in

from clients.aio import AsyncClient
from exchange.app import Market
from exchange.app.requests import Deposit, Settle
from exchange.gateway import access, archive, auth, http, openapi, rest
from exchange.gateway.server import BODY_BYTES
from exchange.journal.tape import Released
from exchange.messages import EVENT, Reason, TradingState
from exchange.messages.access import (
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    signed_request,
)
from exchange.messages.rest import OfHistory
from exchange.messages.wire import Accepted

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "openapi.json"
START_NS: Final = 1_795_176_000 * 1_000_000_000  # 20 November 2026, noon
CODE: Final = "H100Z26"
TRADES: Final = 25
MINUTE_MS: Final = 60_000


class Clock:
    """The market's and its clients': it runs, and a test sets it forward."""

    def __init__(self) -> None:
        self.ahead = START_NS - time.time_ns()

    def __call__(self) -> int:
        return time.time_ns() + self.ahead


class House:
    """A served market with 25 trades, one every 25 seconds, and a caller's key."""

    def __init__(self, market: Market, clock: Clock, base: str) -> None:
        self.market, self.clock, self.base = market, clock, base
        self.http = aiohttp.ClientSession()
        self.trades: list[tuple[int, int, int]] = []  # ms, ticks, lots
        self.key = ("", "")

    def headers(
        self, target: str, key: tuple[str, str], *, method: str = "GET", late_ms: int = 0
    ) -> dict[str, str]:
        nonce = self.clock()
        stamp = nonce // 1_000_000 - late_ms
        text = signed_request(stamp, nonce, key[0], method, target, b"")
        return {
            KEY_HEADER: key[0],
            TIMESTAMP_HEADER: str(stamp),
            NONCE_HEADER: str(nonce),
            SIGNATURE_HEADER: access.sign(key[1], text),
        }

    async def get(
        self, path: str, key: tuple[str, str] | None = None, **changed: str
    ) -> tuple[int, Any]:
        target = f"/api/v1/{path}"
        headers = {**self.headers(target, key or self.key), **changed}
        async with self.http.get(self.base + target, headers=headers) as answer:
            return answer.status, await answer.json()

    async def pages(self, path: str, items: str, cursor: str = "after") -> list[Any]:
        found: list[Any] = []
        more = ""
        while True:
            status, told = await self.get(path + more)
            assert status == 200, told
            found += told[items]
            if told["next"] is None:
                return found
            more = f"{'&' if '?' in path else '?'}{cursor}={told['next']}"

    async def fund(self, account: int) -> AsyncClient:
        await self.market.operations.perform(Deposit(account=account, amount="50000000"))
        key = auth.create_key(self.market.directory, account, "trade")
        ahead = self.clock.ahead  # a jump of the clock is no silence of the market
        return AsyncClient(f"{self.base}/ws", *key, clock_ns=lambda: time.time_ns() + ahead)

    async def trade(self) -> None:
        instrument = self.market.hub.feed.instruments.by_code[CODE]
        middle = (instrument.low_ticks + instrument.high_ticks) // 2
        async with await self.fund(1) as seller, await self.fund(2) as buyer:
            for number in range(TRADES):
                self.clock.ahead += 25_000_000_000
                ticks, lots = middle + number * 7 % 5, 1 + number % 3
                await seller.enter(CODE, "sell", lots, ticks)
                bought = await buyer.enter(CODE, "buy", lots, ticks, client_order_id=f"b{number}")
                assert isinstance(bought, Accepted)
                self.trades.append((bought.time // 1_000_000, ticks, lots))
            await seller.enter(CODE, "sell", 3, middle + 9, client_order_id="rests")
        async with asyncio.timeout(10):
            while self.market.engine.counts()["sessions"] or self.market.hub.sessions:
                await asyncio.sleep(0.001)
        while self.market.hub.sequence < self.market.sequencer.durable_upto:  # nothing follows
            await asyncio.sleep(0.001)
        self.key = auth.create_key(self.market.directory, 1, "read")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = Clock()
    async with market_in(tmp_path, clock=clock) as market:
        base = (await market.listen("127.0.0.1", 0)).http.removesuffix("/api/v1")
        opened = House(market, clock, base)
        async with opened.http:
            await opened.trade()
            yield opened


def text(ticks: int) -> str:
    return f"{ticks / 1000:.3f}"


def candles_of(trades: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """Candles of a minute, made the slow way."""
    made: dict[int, list[tuple[int, int, int]]] = {}
    for trade in trades:
        made.setdefault(trade[0] // MINUTE_MS * MINUTE_MS, []).append(trade)
    return [
        {
            "start_ms": start, "open": text(of[0][1]), "high": text(max(t[1] for t in of)),
            "low": text(min(t[1] for t in of)), "close": text(of[-1][1]),
            "volume": str(sum(t[2] for t in of)), "trades": len(of),
        }
        for start, of in made.items()
    ]  # fmt: skip


async def test_history_page_by_page(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await house.pages(f"trades/{CODE}?limit=4", "trades")
    seen = [(t["time"] // 1_000_000, t["price"], t["quantity"]) for t in told]
    assert seen == [(ms, text(ticks), str(lots)) for ms, ticks, lots in house.trades]
    assert {t["aggressor"] for t in told} == {"buy"}
    fills = await house.pages("fills?limit=4", "fills")
    assert [f["match_number"] for f in fills] == [t["match_number"] for t in told]
    assert {(f["type"], f["side"], f["liquidity"]) for f in fills} == {
        ("execution", "sell", "maker")
    }
    begin, end = house.trades[10][0], house.trades[15][0]
    part = await house.pages(f"trades/{CODE}?from_ms={begin}&to_ms={end}&limit=2", "trades")
    assert part == told[10:15]
    monkeypatch.setattr(archive, "SCAN_EVENTS", 3)  # pages with nothing in them, and none lost
    assert await house.pages("fills", "fills") == fills


async def test_candles_are_those_of_the_trades(house: House) -> None:
    await house.market.operations.cleared()
    wanted = candles_of(house.trades)
    for limit in (500, 3, 1):
        path = f"candles/{CODE}?interval=1m&limit={limit}"
        assert await house.pages(path, "candles", "from_ms") == wanted
    late = await house.pages(
        f"candles/{CODE}?interval=1m&from_ms={wanted[4]['start_ms'] + 1}", "candles", "from_ms"
    )
    assert late == wanted[4:]  # the candle that it falls into is whole
    (whole,) = await house.pages(f"candles/{CODE}?interval=1d", "candles", "from_ms")
    assert whole["trades"] == TRADES


async def test_what_is_at_hand_and_what_clearing_booked(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.market.operations.perform(Settle())
    _, account = await house.get("account")
    _, positions = await house.get("positions")
    assert positions["positions"] == account["positions"] and account["account"] == 1
    assert positions["positions"][0]["net"] == str(-sum(lots for _, _, lots in house.trades))
    _, orders = await house.get("orders")
    assert [order["client_order_id"] for order in orders["orders"]] == ["rests"]
    _, statement = await house.get("statement")
    assert (statement["closing"], statement["deposits"]) == (account["cash"], "50000000.000000")
    day = house.market.hub.feed.instruments.business_date
    _, of_day = await house.get(f"statement?date={day}")
    assert (of_day["business_date"], of_day["closing"]) == (day, statement["closing"])
    every = await house.pages("settlement-prices?limit=5", "prices")
    (one,) = await house.pages(f"settlement-prices?code={CODE}", "prices")
    assert one in every and one["business_date"] == day
    _, listed = await house.get("instruments")
    assert {price["instrument"] for price in every} <= {i["code"] for i in listed["instruments"]}
    one = house.market.hub.feed.instruments.by_code[CODE]
    with monkeypatch.context() as ended:
        ended.setattr(one, "state", TradingState.EXPIRED)
        _, live = await house.get("instruments")
        _, every = await house.get("instruments?state=all")
    codes = [i["code"] for i in every["instruments"]]
    assert codes == [i["code"] for i in listed["instruments"]]
    assert [i["code"] for i in live["instruments"]] == [c for c in codes if c != CODE]
    _, keys = await house.get("keys")
    assert [key["scope"] for key in keys["keys"]] == ["trade", "read"]
    assert not {"secret", "signature"} & set(keys["keys"][0])
    _, contracts = await house.get("contracts")
    assert {"H100", "H100P"} <= {product["code"] for product in contracts["contracts"]}
    before = house.market.hub.sequence
    _, health = await house.get("health")
    assert before <= health["sequence"] <= house.market.hub.sequence


async def test_a_request_that_is_not_signed_well(house: House) -> None:
    """Status and body agree, and the reasons are those of a logon."""
    closed = auth.create_key(house.market.directory, 1, "read", addresses=("192.0.2.1",))
    admin = auth.create_key(house.market.directory, 77, "read")
    good = house.headers("/api/v1/orders", house.key)
    cases: list[tuple[int, str, tuple[str, str], dict[str, str]]] = [
        (401, "AUTH_REQUIRED", house.key, {NONCE_HEADER: "-1"}),
        (401, "AUTH_REQUIRED", house.key, {NONCE_HEADER: "1" * 21}),
        (401, "AUTH_REQUIRED", house.key, {TIMESTAMP_HEADER: "\u0661"}),
        (401, "AUTH_REQUIRED", ("a b", ""), {}),
        (401, "BAD_SIGNATURE", ("0" * 16, "no"), {}),
        (401, "BAD_SIGNATURE", house.key, {SIGNATURE_HEADER: "\u00e9"}),
        (401, "BAD_SIGNATURE", house.key, good),  # another request's
        (401, "TIMESTAMP", house.key, house.headers("/api/v1/account", house.key, late_ms=5_100)),
        (401, "NONCE", house.key, {}),
        (403, "ADDRESS", closed, {}),
        (404, "UNKNOWN_ACCOUNT", admin, {}),
    ]
    before = house.headers("/api/v1/account", house.key)
    assert (await house.get("account"))[0] == 200
    for status, name, key, changed in cases:
        told = await house.get("account", key, **(before if name == "NONCE" else changed))
        assert (told[0], told[1]["name"]) == (status, name)
        assert told[1]["number"] and told[1]["type"] == "rejected"
    assert (await house.get("account"))[0] == 200


QUERIES: Final[list[tuple[str, int, str, str | None]]] = [
    ("trades/NONE", 404, "UNKNOWN_INSTRUMENT", "code"),
    ("trades/a%20b", 400, "ID_FORMAT", "code"),
    ("trades/..%2F..%2Fetc", 400, "ID_FORMAT", "code"),
    ("candles/NONE", 404, "UNKNOWN_INSTRUMENT", "code"),
    (f"trades/{CODE}?limit=0", 400, "SYNTAX", "limit"),
    (f"trades/{CODE}?limit=501", 400, "SYNTAX", "limit"),
    (f"trades/{CODE}?limit=1.5", 400, "SYNTAX", "limit"),
    (f"trades/{CODE}?limit=1&limit=2", 400, "DUPLICATE_FIELD", "limit"),
    (f"trades/{CODE}?colour=red", 400, "UNKNOWN_FIELD", "colour"),
    (f"trades/{CODE}?from_ms=-1", 400, "SYNTAX", "from_ms"),
    (f"trades/{CODE}?after=1.2", 400, "SYNTAX", "after"),
    ("settlement-prices?after=0.270390442685057590.7", 400, "SYNTAX", "after"),
    (f"trades/{CODE}?after=1.999999999999.0", 404, "NOT_FOUND", "after"),
    (f"trades/{CODE}?after=9999999999.1.9999999", 404, "NOT_FOUND", "after"),
    (f"candles/{CODE}?interval=2h", 400, "SYNTAX", "interval"),
    ("settlement-prices?code=NONE", 404, "UNKNOWN_INSTRUMENT", "code"),
    ("statement?date=1", 400, "SYNTAX", "date"),
    ("statement?date=20261301", 404, "NOT_FOUND", "date"),
    ("statement?date=20260229", 404, "NOT_FOUND", "date"),
    ("nothing", 404, "NOT_FOUND", None),
]


async def test_a_query_that_is_not_one(house: House) -> None:
    for path, status, name, field in QUERIES:
        told = await house.get(path)
        assert (told[0], told[1]["name"], told[1].get("field")) == (status, name, field), path


async def test_who_has_lost_his_way_is_told_where_the_paths_are(house: House) -> None:
    for path in ("/", "/favicon.ico", "/api/v1", "/api/v1/nothing"):
        async with house.http.get(house.base + path) as answer:
            told = await answer.json()
            assert (answer.status, told["name"]) == (404, "NOT_FOUND"), path
            assert "/openapi.json" in told["detail"]
    _, told = await house.get("candles/H100Z26?interval=2m")
    assert told["detail"] == "Invalid enum value '2m'; it is one of 1m, 5m, 1h, 1d"


async def test_verbs_and_bodies_b104(house: House) -> None:
    for verb in ("POST", "DELETE", "TRACE", "PROPFIND", "HEAD"):
        async with house.http.request(verb, f"{house.base}/api/v1/account") as answer:
            assert answer.status == 405 and answer.headers["Allow"] == "GET"
            if verb != "HEAD":
                assert (await answer.json())["name"] == "UNKNOWN_COMMAND"
    bomb = gzip.compress(bytes(50 << 20), 1)
    assert len(bomb) < BODY_BYTES
    headers = {"Content-Encoding": "gzip"}
    for target, body, sent in (("admin", bomb, headers), ("admin", bytes(BODY_BYTES + 1), {})):
        async with house.http.post(
            f"{house.base}/api/v1/{target}", data=io.BytesIO(body), headers=sent
        ) as answer:
            assert (answer.status, (await answer.json())["name"]) == (413, "BODY_TOO_LARGE")


async def test_reading_never_holds_the_market_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is slow, orders are answered; too many who wait for it are told so."""
    whole, gate = archive.scan, asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*arguments: Any) -> Any:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return whole(*arguments)

    monkeypatch.setattr(archive, "scan", slow)
    waiting = [
        asyncio.create_task(house.get(f"trades/{CODE}")) for _ in range(rest.ADDRESS_READS + 1)
    ]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    async with await house.fund(5) as client:
        for number in range(20):
            await client.enter(CODE, "buy", 1, house.trades[0][1] - 9 - number)
    (full,) = [task.result() for task in done]
    assert sum(task.done() for task in waiting) == 1
    gate.set()
    assert (full[0], full[1]["name"], full[1]["retryable"]) == (429, "REQUESTS_FULL", True)
    assert full[1]["retry_after_ms"] == 1_000 and full[1]["limit"] == str(rest.ADDRESS_READS)
    told = await asyncio.gather(*waiting)
    assert sorted(status for status, _ in told) == [200] * rest.ADDRESS_READS + [429]


async def test_a_flood_of_requests_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "LOOPBACK_REQUESTS_A_SECOND", 20)
    seconds = 1_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: seconds * 1_000_000_000)
    told = await asyncio.gather(*(house.get("instruments") for _ in range(60)))
    assert sorted(status for status, _ in told) == [200] * 20 + [429] * 40
    seconds += 1
    assert (await house.get("instruments"))[0] == 200


async def test_the_document_is_served_and_checked_in(house: House) -> None:
    async with house.http.get(f"{house.base}{openapi.OPENAPI_PATH}") as answer:
        served = await answer.read()
    assert served == openapi.encoded() == PAGE.read_bytes()


async def test_what_a_full_disk_or_a_long_body_is_answered_is_in_the_document(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = {}
    target = f"{house.base}/api/v1/account"
    async with house.http.get(target, data=io.BytesIO(bytes(BODY_BYTES + 1))) as answer:
        statuses[answer.status] = (await answer.json())["name"]
    monkeypatch.setattr(house.market.hub.keys, "check", lambda *_: Reason.LOG_FULL)
    status, told = await house.get("account")
    statuses[status] = told["name"]
    assert statuses == {413: "BODY_TOO_LARGE", 503: "LOG_FULL"}
    answers = openapi.document()["paths"]["/api/v1/account"]["get"]["responses"]
    for status, name in statuses.items():
        assert name in answers[str(status)]["description"]


def test_the_page_has_every_route_and_status() -> None:
    page = (PAGE.parent / "rest.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| (PUBLIC|READ) \|(.*?)\|", page, re.MULTILINE)
    wanted = [
        (
            route.path,
            str(route.right.name),
            " ".join(f"`{n}`" for n in route.query.__struct_fields__),
        )
        for route in rest.ROUTES
    ]
    assert [(path, right, query.strip()) for path, right, query in rows] == wanted
    told = dict(re.findall(r"^\| (\d{3}) \| ([A-Z_ ]+)\b", page, re.MULTILINE))
    for reason, status in http.STATUS.items():
        assert reason.name in told[str(status)].split()
    assert f"{BODY_BYTES:,}" in page and f"{archive.SCAN_EVENTS:,}" in page


class Tape:
    """Batches of one event each, a second apart; it counts those that were read."""

    def __init__(self) -> None:
        self.read_batches = 0

    def read(self, epoch: int, sequence: int, index: int) -> Iterator[Released]:
        return self._from(sequence + 1)

    def since(self, stamp: int) -> Iterator[Released]:
        return self._from(stamp // 10**9)

    def _from(self, first: int) -> Iterator[Released]:
        for sequence in range(max(1, first), 1_001):
            self.read_batches += 1
            event = sequence.to_bytes(8, "little") + bytes(EVENT.size - 8)
            yield Released(1, sequence, 1, sequence * 10**9, event, [])


@pytest.mark.parametrize(("after", "first"), [(1, 900), (899, 900), (900, 901), (950, 951)])
def test_a_page_behind_a_place_reads_nothing_of_before_its_time(after: int, first: int) -> None:
    tape = Tape()
    query = OfHistory(from_ms=900_000, after=f"1.{after}.0", limit=5)
    found = archive.scan(tape, query, (1, after, 0), lambda row: True)
    assert [row[0] for row, _, _ in found.rows] == list(range(first, first + 5))
    assert tape.read_batches <= 6
