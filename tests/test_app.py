"""The wiring: a market starts, restarts, settles its day, and stops trusting what differs."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from live import Running, market_in
from overrides import override, people
from yarl import URL

from exchange.app import Market, admin, asking, market, requests
from exchange.app.desk import WishRejected
from exchange.app.door import at
from exchange.app.settings import Limits, Settings
from exchange.app.wishes import RequestRefused, close_day
from exchange.clearing import Clearing
from exchange.clearing.store import OtherVersion
from exchange.engine import Engine
from exchange.gateway.auth import create_key, find_key, list_keys, revoke_key, rotate_key
from exchange.journal.errors import DirectoryLocked
from exchange.journal.replay import replay
from exchange.messages import Mode, Reason
from exchange.sequencer import LogFull

NOON_NS = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()) * 10**9


def running(directory: Path, at_ns: int = NOON_NS, **limits: Any) -> Running:
    """A market whose clock stands still."""
    return market_in(directory, clock=lambda: at_ns, settings=Settings(limits=Limits(**limits)))


async def perform(running_market: Market, request: requests.AnyRequest) -> dict[str, Any]:
    return await running_market.operations.perform(request)


def states(running_market: Market) -> dict[str, str]:
    return {i["code"]: i["state"] for i in running_market.operations.state()["instruments"]}


async def test_an_empty_directory_lists_and_opens_everything(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        assert len(states(m)) == 48
        assert set(states(m).values()) == {"CONTINUOUS"}
        assert m.operations.state()["business_date"] == 20261120
        assert m.desk.terms["H100Z26"].multiplier == 744


async def test_a_restart_reopens_all_but_what_an_operator_halted(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        await perform(m, requests.Halt(code="H100Z26"))
    async with running(tmp_path) as m:
        assert [code for code, state in states(m).items() if state != "CONTINUOUS"] == ["H100Z26"]
        await perform(m, requests.Resume(code="H100Z26"))
        assert states(m)["H100Z26"] == "CONTINUOUS"


async def test_a_deposit_opens_its_account_and_is_booked_once(tmp_path: Path) -> None:
    deposit = requests.Deposit(account=7, amount="1000.5", request_id="wire-1")
    async with running(tmp_path) as m:
        assert (await perform(m, deposit))["cash"] == "1000.500000"
        await perform(m, deposit)
        assert m.engine.account(7)["cash"] == 1_000_500_000
        with pytest.raises(WishRejected) as rejected:
            await perform(m, requests.Withdraw(account=7, amount="1000.500001"))
        assert rejected.value.reason is Reason.FUNDS


@pytest.mark.parametrize(
    "request_",
    [
        requests.Halt(code="H100Z99"),
        requests.Deposit(account=7, amount="1e6"),
        requests.Deposit(account=7, amount="-1"),
        requests.OpenAccount(account=5000),
        requests.OpenDay(date=20261121),
        requests.ProposePrice(code="H100Z26", price="cheap", reason="of no key"),
        requests.PutRecord(record="[]"),
        requests.PutRecord(record='{"operation": "dance"}'),
        requests.CreateKey(account=8, addresses=("nowhere",)),
        requests.CreateKey(account=8, public_key="00"),
        requests.CreateKey(account=5000),
        requests.CreateKey(account=-1),
        requests.Deposit(account=8, amount="0"),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_a_senseless_request_is_refused_and_changes_nothing(
    tmp_path: Path, request_: requests.AnyRequest
) -> None:
    async with running(tmp_path) as m:
        await perform(m, requests.OpenAccount(account=7))
        before = m.engine.state_bytes()
        with pytest.raises(RequestRefused):
            await perform(m, request_)
        assert m.engine.state_bytes() == before
        assert list_keys(tmp_path) == []


async def test_the_day_is_settled_once_and_the_next_one_opens(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        people(tmp_path, "ann", "bob")
        late = requests.ProposePrice(code="A100Z26", price="2.4", reason="of the first day")
        waits = requests.Approve(proposal=(await m.operations.perform(late, "ann"))["proposal"])
        await override(m.operations, "H100Z26", "3.1")
        settled = await perform(m, requests.Settle())
        assert settled["settlement_prices"]["H100Z26"] == "3.100000"
        price = requests.ProposePrice(code="H100Z26", price="3.2", reason="a test")
        with pytest.raises(RequestRefused, match="each under an admin key of their own"):
            await perform(m, price)
        with pytest.raises(RequestRefused, match="settled"):  # without saying that it corrects
            await m.operations.perform(price, "ann")
        with pytest.raises(RequestRefused, match="set_price takes two people"):
            await perform(m, requests.PutRecord(record='{"operation": "set_price"}'))
        assert set(states(m).values()) == {"CLOSED"}
        with pytest.raises(RequestRefused, match="settled already"):
            await perform(m, requests.Settle())
        await override(m.operations, "H100Z26", "3.2", correction=True)
        corrected = await perform(m, requests.Settle())
        assert corrected["settlement_prices"] == {"H100Z26": "3.200000"}
        assert corrected["inputs"][0]["rule"] == "approved by two"
        with pytest.raises(RequestRefused, match="0 is not a date"):
            await perform(m, requests.OpenDay(date=0))
        assert (await perform(m, requests.OpenDay()))["business_date"] == 20261121
        with pytest.raises(RequestRefused, match="date 20261120, and 20261121 has begun"):
            await m.operations.perform(waits, "bob")
        low, high = m.desk.instruments.by_code["H100Z26"].low_ticks, 3_520
        assert (low, m.desk.instruments.by_code["H100Z26"].high_ticks) == (2_880, high)


async def test_a_price_without_room_for_limits_keeps_the_day_closed_until_it_is_corrected(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as m:
        await override(m.operations, "H100Z26", "0.0005")
        settled = (await perform(m, requests.Settle()))["settlement_prices"]
        assert (settled["H100Z26"], settled["H100F27"]) == ("0.000500", "0.001000")
        refused = await admin.answer(requests.OpenDay(), m.operations)
        assert not refused.ok and "no price within limits of 500 micros" in (refused.error or "")
    async with running(tmp_path, NOON_NS + 24 * 3_600 * 10**9) as m:
        assert m.operations.state()["business_date"] == 20261120
        await override(m.operations, "H100Z26", "0.001", correction=True)
        await perform(m, requests.Settle())
        assert (await perform(m, requests.OpenDay()))["business_date"] == 20261121
        listed = m.desk.instruments.by_code["H100Z26"]
        assert (listed.low_ticks, listed.high_ticks) == (1, 1)


async def test_a_day_that_was_closed_and_not_settled_is_settled_after_a_restart(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as m:
        await m.desk.perform([close_day(20261120)])
    async with running(tmp_path) as m:
        assert len((await perform(m, requests.Settle()))["settlement_prices"]) == 48


def test_the_operators_key_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(source: object, target: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            market.admin_key(tmp_path, 0)
    assert not (tmp_path / market.ADMIN_KEY_NAME).exists()
    path = market.admin_key(tmp_path, 0)
    assert set(msgspec.json.decode(path.read_bytes())) == {"key_id", "secret"}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("end", ["lost", "revoked", "expired"])
def test_an_operators_key_that_is_good_no_longer_is_made_again(
    tmp_path: Path, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = market.admin_key(tmp_path, 0).read_bytes()
    assert market.admin_key(tmp_path, 0).read_bytes() == first and not caplog.records
    key_id = msgspec.json.decode(first)["key_id"]
    if end == "lost":
        for file in tmp_path.glob("keys.db*"):
            file.unlink()
    elif end == "revoked":
        revoke_key(tmp_path, key_id)
    else:
        rotate_key(tmp_path, key_id, 1_000)
        assert market.admin_key(tmp_path, 999).read_bytes() == first
    path = market.admin_key(tmp_path, 1_000)
    made = msgspec.json.decode(path.read_bytes())["key_id"]
    assert path.stat().st_mode & 0o777 == 0o600 and find_key(tmp_path, made, 1_000)
    (record,) = caplog.records
    assert key_id in record.getMessage() and str(path) in record.getMessage()


def test_a_file_in_the_place_of_the_operators_key_is_left_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / market.ADMIN_KEY_NAME
    for text in (b"", b"\xff", b"[1]", b"{}"):
        path.write_bytes(text)
        assert market.admin_key(tmp_path, 0).read_bytes() == text
        assert f"{path} holds no key" in caplog.messages[-1] and "delete it" in caplog.messages[-1]


async def test_the_next_morning_opens_a_new_day_and_lists_the_new_month(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        await perform(m, requests.Settle())
    december = int(datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()) * 10**9
    async with running(tmp_path, december) as m:
        assert m.operations.state()["business_date"] == 20261201
        assert states(m)["H100X27"] == "CONTINUOUS"


async def test_a_stop_and_a_replay_reach_the_same_state(tmp_path: Path) -> None:
    started = await Market.start(tmp_path, clock=lambda: NOON_NS)
    await perform(started, requests.Deposit(account=1, amount="5"))
    final = await started.stop()
    report = replay(tmp_path, Engine)
    assert report.divergence is None
    assert report.state_hash.hex() == final


async def test_a_second_market_on_the_directory_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(DirectoryLocked):
            await Market.start(tmp_path, clock=lambda: NOON_NS)


async def test_a_deleted_ledger_is_rebuilt_to_the_same_balances(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        await perform(m, requests.Deposit(account=1, amount="5"))
        await m.operations.cleared()
        before = m.clearing.trial_balance().accounts
    for path in tmp_path.glob(f"{market.LEDGER_NAME}*"):
        path.unlink()
    async with running(tmp_path) as m:
        await m.operations.cleared()
        assert m.clearing.trial_balance().accounts == before


async def test_a_ledger_of_another_log_is_rebuilt(tmp_path: Path) -> None:
    async with running(tmp_path / "other") as m:
        for account in range(1, 40):
            await perform(m, requests.Deposit(account=account, amount="5"))
        await m.operations.cleared()
    async with running(tmp_path / "own"):
        pass
    foreign = (tmp_path / "other" / market.LEDGER_NAME).read_bytes()
    (tmp_path / "own" / market.LEDGER_NAME).write_bytes(foreign)
    async with running(tmp_path / "own") as m:
        await m.operations.cleared()
        assert m.clearing.trial_balance().accounts == []


async def test_a_ledger_of_another_layout_is_rebuilt(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        await perform(m, requests.Deposit(account=1, amount="5"))
        await m.operations.cleared()
        before, head = m.clearing.trial_balance().accounts, m.clearing.ledger_hash
    path = tmp_path / market.LEDGER_NAME
    with sqlite3.connect(path) as ledger:
        ledger.execute("update progress set version = version - 1")
        ledger.execute("drop table matters")
    ledger.close()
    with pytest.raises(OtherVersion, match="the market rebuilds it when it starts"):
        Clearing.open(path, read_only=True)
    async with running(tmp_path) as m:
        assert m.clearing.trial_balance().accounts == before  # before anything else is booked
        assert m.clearing.ledger_hash == head


async def test_clearing_that_differs_makes_the_market_cancel_only(tmp_path: Path) -> None:
    async with running(tmp_path) as m:
        await perform(m, requests.Deposit(account=1, amount="5"))
        await m.operations.cleared()
    with sqlite3.connect(tmp_path / market.LEDGER_NAME) as ledger:
        ledger.execute("update balances set balance = balance - 1 where balance < 0")
    ledger.close()
    async with running(tmp_path, watch_seconds=0.01) as m:
        await m.operations.checkpoint()
        await eventually(lambda: m.desk.mode == Mode.CANCEL_ONLY)
        await eventually(lambda: m.clearing.divergences)


async def test_clearing_that_lags_makes_the_market_cancel_only(tmp_path: Path) -> None:
    async with running(tmp_path, watch_seconds=0.01, clearing_lag_commands_max=-1) as m:
        await eventually(lambda: m.desk.mode == Mode.CANCEL_ONLY)


async def test_what_cannot_be_paid_is_asked_for_again_once_the_log_goes_on(tmp_path: Path) -> None:
    """An idle market writes nothing for it."""
    interest = '{"operation":"accrue_interest","credit_bp":300,"debit_bp":0,"days":30}'
    async with running(tmp_path, watch_seconds=0.01, checkpoint_seconds=0.01) as m:
        await perform(m, requests.Deposit(account=1, amount="1000000"))
        await perform(m, requests.Settle())
        answer = await perform(m, requests.PutRecord(record=interest))
        assert "FUNDS" in next(iter(answer["dues_refused"].values()))
        await eventually(lambda: m.clearing_lag == 0)
        before = 0
        async with asyncio.timeout(10):
            while m.desk.sequence != before:  # until it has tried what it may, however slowly
                before = m.desk.sequence
                await asyncio.sleep(0.3)
        assert m.clearing.dues()
        await perform(m, requests.Deposit(account=0, amount="1000000"))
        await eventually(lambda: not m.clearing.dues())


async def test_what_keeps_the_watch_from_its_work_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And again if it comes back. A disk that is full for an hour fills no log of its own."""
    tries = 0

    async def checkpoint() -> int | None:
        nonlocal tries
        tries += 1
        if tries == 5:
            return None
        raise LogFull(tries)

    async with running(tmp_path, watch_seconds=0.001, checkpoint_seconds=0.001) as m:
        with monkeypatch.context() as patch:
            patch.setattr(m.operations, "checkpoint", checkpoint)
            for most in (5, 9):
                await perform(m, requests.Deposit(account=1, amount="1"))
                await eventually(lambda least=most: tries >= least)
    lines = [one.getMessage() for one in caplog.records if "too busy" in one.getMessage()]
    assert len(lines) == 2 and all("LOG_FULL" in line for line in lines)


async def test_a_part_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(clearing: Clearing, frames: object) -> None:
        raise OSError("the ledger's disk is gone")

    async with running(tmp_path) as m:
        await m.operations.cleared()
        monkeypatch.setattr(Clearing, "apply", broken)
        await perform(m, requests.Deposit(account=1, amount="5"))
        with pytest.raises(OSError, match="disk is gone"):
            await asyncio.wait_for(m.failed(), 20)


async def eventually(true: Any, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


# The admin socket and its HTTP twin


async def test_the_admin_socket_answers_and_is_the_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # it is so from the first: none is late
    async with running(tmp_path) as m:
        await m.listen("127.0.0.1", 0)
        assert (tmp_path / asking.SOCKET_NAME).stat().st_mode & 0o777 == 0o600
        assert (tmp_path / market.ADMIN_KEY_NAME).stat().st_mode & 0o777 == 0o600
        answer = await asking.ask(tmp_path, requests.Deposit(account=1, amount="5"))
        assert answer is not None
        assert answer.result["cash"] == "5.000000"
    assert await asking.ask(tmp_path, requests.State()) is None


async def test_an_address_of_ipv6_is_one_that_clients_read(tmp_path: Path) -> None:
    assert at("127.0.0.1", 80) == "127.0.0.1:80"
    async with running(tmp_path) as m:
        try:
            addresses = await m.listen("::1", 0)
        except OSError:
            pytest.skip("this machine has no IPv6")
        for address in (addresses.ws, addresses.http):
            assert URL(address).host == "::1" and URL(address).port


async def test_an_answer_may_be_long_and_a_request_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as m:
        await m.listen("127.0.0.1", 0)
        long = "x" * 2 * asking.LINE_BYTES_MAX
        monkeypatch.setattr(m.operations, "state", lambda **_: {"long": long})
        answer = await asking.ask(tmp_path, requests.State())
        assert answer is not None and answer.result["long"] == long
        assert await asking.ask(tmp_path, requests.PutRecord(record=long)) == asking.TOO_LONG
        reader, writer = await asyncio.open_unix_connection(tmp_path / asking.SOCKET_NAME)
        writer.write(b"x" * asking.LINE_BYTES_MAX + b"x\n")
        assert b"at most 1048576 bytes" in await reader.readline()
        writer.close()


async def test_a_directory_with_too_long_a_path_is_asked_and_not_served(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 25)
    with pytest.raises(RequestRefused, match="too long for its sockets"):
        await Market.start(directory)
    assert not directory.exists()
    assert await asking.ask(directory, requests.State()) is None


def test_who_only_asks_loads_nothing_of_a_market() -> None:
    names = ["exchange.app.market", "exchange.sequencer", "exchange.clearing", "aiohttp", "numpy"]
    code = f"import exchange.app.asking, sys; print([n for n in {names} if n in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


@pytest.mark.parametrize(
    "line",
    [b"not json", b"{}", b'{"operation":"nuke"}', b'{"operation":"halt","code":1}', b"[]",
     b'{"operation":"halt","code":"H100Z26","extra":1}'],
)  # fmt: skip
async def test_a_line_that_is_no_request_is_answered_as_such(tmp_path: Path, line: bytes) -> None:
    async with running(tmp_path) as m:
        answer = await admin.answer_line(line, m.operations, "socket")
        assert not answer.ok
        assert answer.error.startswith("not a request")


@pytest.mark.parametrize(
    ("key", "told"), [(b"no JSON", "holds no admin key"), (b'{"key_id":"k"}', "holds no admin key")]
)
def test_what_makes_no_request_over_http_is_told_so(tmp_path: Path, key: bytes, told: str) -> None:
    (tmp_path / "key").write_bytes(key)
    url = "http://127.0.0.1:1"
    assert told in asking.ask_url(url, tmp_path / "key", requests.State()).error


async def test_what_is_signed_for_one_market_is_sent_to_no_other(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    (tmp_path / "key").write_bytes(b'{"key_id":"k","secret":"s"}')
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    told = await asyncio.to_thread(asking.ask_url, url, tmp_path / "key", requests.State())
    server.close()
    assert not told.ok and "302" in told.error and len(asked) == 1


@pytest.mark.parametrize("reply", [b"\x15\x03\x01", b"HTTP/1.0 200 OK\r\n\r\n<html>", None])
async def test_what_is_no_market_is_told_from_one_that_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes | None
) -> None:
    asked_of, closed = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        if reply is None:
            await asked_of.wait()
        writer.write(reply or b"")
        writer.close()
        closed.set()

    (tmp_path / "key").write_bytes(b'{"key_id":"k","secret":"s"}')
    monkeypatch.setattr(asking, "URL_SECONDS", 0.2 if reply is None else 20.0)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    late, other = (TimeoutError, "no answer within 0.2 s"), (ConnectionError, "is no market")
    error, words = late if reply is None else other
    with pytest.raises(error, match=words):
        await asyncio.to_thread(asking.ask_url, url, tmp_path / "key", requests.State())
    asked_of.set()
    await closed.wait()
    server.close()


async def test_http_takes_admin_keys_and_no_others(tmp_path: Path) -> None:
    async with market_in(tmp_path) as started:
        addresses = await started.listen("127.0.0.1", 0)
        url, state = addresses.http, requests.State()
        own = tmp_path / market.ADMIN_KEY_NAME
        assert (await asyncio.to_thread(asking.ask_url, url, own, state)).ok
        trader = tmp_path / "trader.json"
        key_id, secret = create_key(tmp_path, 1, "trade")
        trader.write_bytes(msgspec.json.encode({"key_id": key_id, "secret": secret}))
        refused = await asyncio.to_thread(asking.ask_url, url, trader, state)
        assert "SCOPE" in refused.error
        trader.write_bytes(msgspec.json.encode({"key_id": key_id, "secret": "guess"}))
        refused = await asyncio.to_thread(asking.ask_url, url, trader, state)
        assert "BAD_SIGNATURE" in refused.error
