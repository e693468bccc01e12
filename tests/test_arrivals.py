"""Strangers' connections: those slow over a request, those too many, bytes that are none.

Budget: 10 seconds.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import resource
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from bad_wire import TEXT, Wire, frame
from dialect import Venue
from live import until

from exchange.gateway import arrivals, frames, pace, rest

SIGNED = (
    b"Hourbook-Key: a\r\nHourbook-Timestamp: 1\r\nHourbook-Nonce: 1\r\nHourbook-Signature: aa\r\n"
)
OWED = b"Content-Length: 1000\r\n\r\n"  # of which nothing comes
DERIBIT = b"GET /api/v2/private/get_positions HTTP/1.1\r\nAuthorization: deri-hmac-sha256 "
SQUASHED = b"Content-Encoding: %s\r\nContent-Length: 5\r\n\r\nabcde"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \xff\r\n\r\n"
)
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    async with Venue.open(tmp_path) as opened:
        yield opened


async def dial(venue: Venue, data: bytes = b"") -> Ends:
    """A connection that has sent that."""
    url = urlsplit(venue.http)
    assert url.hostname is not None and url.port is not None
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(data.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nHost: x\r\n", 1))
    return reader, writer


async def answer(ends: Ends) -> tuple[int, bytes]:
    """The first answer's status and its body."""
    body, wanted = b"", 0
    async with asyncio.timeout(20):
        head = await ends[0].readuntil(b"\r\n\r\n")
        for line in head.lower().splitlines():
            if line.startswith(b"content-length:"):
                wanted = int(line.split(b":")[1])
        while len(body) < wanted and (data := await ends[0].read(65_536)):
            body += data
    ends[1].close()
    return int(head.split()[1]), body


async def test_who_is_slow_over_a_request_goes_and_is_told_of_nowhere(
    venue: Venue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arrivals, "HANDSHAKE_SECONDS", 0.4)
    monkeypatch.setattr(arrivals, "BODY_SECONDS", 0.4)
    whole = b"GET /api/v1/health HTTP/1.1\r\n\r\n"
    post = b"POST /api/v1/admin HTTP/1.1\r\n" + SIGNED + OWED
    slow = [
        b"GET /api/v1/health HTTP/1.1\r\n",
        b"GET /api/v1/account HTTP/1.1\r\n" + SIGNED + OWED,
        b"POST /api/v2 HTTP/1.1\r\n" + OWED,
        post,
        whole + post.replace(b"\r\n", b"\r\nHost: x\r\n", 1),  # a later request
    ]
    prompt = await dial(venue, whole)
    opened = [await dial(venue, data) for data in slow]
    async with asyncio.timeout(20):
        for reader, writer in opened:
            with contextlib.suppress(ConnectionError):  # it may end by a reset
                while await reader.read(65_536):
                    pass
            writer.close()
    assert (await answer(prompt))[0] == 200
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


async def test_who_has_said_all_is_answered_before_the_connection_ends(venue: Venue) -> None:
    first, get = (b"GET /api/v1/health HTTP/1.1\r\n%s\r\n" % host for host in (b"", b"Host: x\r\n"))
    call = b'{"method": "public/test"}'
    post = b"POST /api/v2 HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(call), call)
    upgrade = UPGRADE.replace(b"\xff", b"AAAAAAAAAAAAAAAAAAAAAA==")
    owing = b"POST /api/v2 HTTP/1.1\r\n" + OWED
    for asked, answers in (
        (first, [b"200"]),
        (first + get * 19, [b"200"] * 20),
        (post + get, [b"200", b"200"]),
        (b"bytes that are none\r\n\r\n", [b"400"]),
        (first + b"GET /half", [b"200"]),
        (owing, []),  # its body is never whole
        (b"", []),
    ):
        reader, writer = await dial(venue, asked)
        writer.write_eof()
        async with asyncio.timeout(20):
            told = await reader.read()
        assert re.findall(rb"HTTP/1.[01] (\d+)", told) == answers, asked
        writer.close()
    reader, writer = await dial(venue, upgrade)
    async with asyncio.timeout(20):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        await reader.read()
    writer.close()
    await until(lambda: not venue.market.hub.sessions)


async def test_who_goes_before_being_told_to_continue_is_told_of_nowhere(
    venue: Venue, caplog: pytest.LogCaptureFixture
) -> None:
    get = b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
    post = b"POST /api/v2 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + OWED
    for before in range(6):  # the connection ends while one of these is answered
        reader, writer = await dial(venue)
        writer.write(get * before + post)
        writer.write_eof()
        async with asyncio.timeout(20):
            await reader.read()
        writer.close()
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of connections that have ended, where answers must be taken soon."""
    monkeypatch.setattr(arrivals, "SEND_SECONDS", 0.3)
    ended: list[str] = []
    leave = arrivals.Arrivals.leave

    def noted(self: arrivals.Arrivals, address: str) -> None:
        ended.append(address)
        leave(self, address)

    monkeypatch.setattr(arrivals.Arrivals, "leave", noted)
    return ended


async def test_who_takes_no_answer_goes(venue: Venue, gone: list[str]) -> None:
    ask = b"GET /asyncapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    (reader, writer), heard = await dial(venue), 0
    transport: Any = writer.transport
    transport.pause_reading()
    writer.write(ask * 300)
    await until(lambda: bool(gone))
    transport.resume_reading()
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                heard += data.count(b"HTTP/1.1 200")
    assert heard < 300
    writer.close()


@pytest.mark.parametrize("ends", ["", "Connection: close\r\n"])
async def test_who_takes_no_short_answer_goes(
    venue: Venue, gone: list[str], monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    begin = arrivals._Arrival.connection_made

    def narrow(self: arrivals._Arrival, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        begin(self, transport)

    monkeypatch.setattr(arrivals._Arrival, "connection_made", narrow)
    url = urlsplit(venue.http)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        client.connect((url.hostname, url.port))
        client.send(f"GET /api/v1/instruments HTTP/1.1\r\nHost: x\r\n{ends}\r\n".encode())
        await until(lambda: bool(gone))


async def test_an_address_has_so_many_connections(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "connections_allowed", lambda address: 2)
    ask = b"GET /api/v1/health HTTP/1.1\r\n\r\n"
    held = [await dial(venue) for _ in range(4)]
    await asyncio.sleep(0.05)
    over = await dial(venue, ask)
    with contextlib.suppress(ConnectionError):
        assert await over[0].read() == b""
    over[1].close()
    for ends in held:
        ends[1].write(ask.replace(b"\r\n", b"\r\nHost: x\r\n", 1))
        assert (await answer(ends))[0] == 200
    await asyncio.sleep(0.05)
    assert (await answer(await dial(venue, ask)))[0] == 200


async def test_connections_leave_open_files_to_the_process(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = b"GET /api/v1/health HTTP/1.1\r\n\r\n"
    allowed = sys.maxsize  # which files are free is up to all tests before
    monkeypatch.setattr(arrivals, "files_allowed", lambda: allowed)
    held = [await dial(venue) for _ in range(3)]
    assert (await answer(await dial(venue, ask)))[0] == 200  # they came before it
    allowed = 0
    over = await dial(venue, ask)
    with contextlib.suppress(ConnectionError):
        assert await over[0].read() == b""
    over[1].close()
    for ends in held:
        ends[1].write(ask.replace(b"\r\n", b"\r\nHost: x\r\n", 1))
        assert (await answer(ends))[0] == 200
    allowed = sys.maxsize
    assert (await answer(await dial(venue, ask)))[0] == 200


def test_what_connections_leave_of_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, allowed in ((1_024, 768), (100, 50), (resource.RLIM_INFINITY, sys.maxsize)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=most: (most, most))
        assert arrivals.files_allowed() == allowed


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (DERIBIT + b"id=a,ts=1,sig=b,nonce=\xff\r\n\r\n", 400, b"SYNTAX"),
        (DERIBIT + b"id=\xff,ts=1,sig=b,nonce=1\r\n\r\n", 400, b"SYNTAX"),
        (b"GET /api/v1/account HTTP/1.1\r\n" + SIGNED + SQUASHED % b"gzip", 400, b"SYNTAX"),
        (b"POST /api/v1/admin HTTP/1.1\r\n" + SIGNED + SQUASHED % b"deflate", 400, b"SYNTAX"),
        (b"POST /api/v2 HTTP/1.1\r\n" + SQUASHED % b"gzip", 400, b"encoded"),
        (UPGRADE, 400, b"Sec-WebSocket-Key"),
        (
            UPGRADE.replace(b"\xff", b"AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: hush"),
            400,
            b"subpro",
        ),
        (b"GET /api/v2/public/auth?client_secret=hush\x01 HTTP/1.1\r\n\r\n", 400, b"SYNTAX"),
        (b"GET /health HTTP/1.1\r\nAuthorization : Basic hush\r\n\r\n", 400, b"SYNTAX"),
        (b"GET /health HTTP/1.1\r\nHourbook-Signature: hush" + b"h" * 9_000, 400, b"SYNTAX"),
        (b"hush hush\r\n\r\n", 400, b"SYNTAX"),
    ],
)
async def test_bytes_that_are_none_are_refused(
    venue: Venue, caplog: pytest.LogCaptureFixture, request_: bytes, status: int, said: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    found, body = await answer(await dial(venue, request_))
    assert found == status and said in body, body
    assert b"hush" not in body and "hush" not in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


async def test_no_answer_is_kept_guessed_at_or_tells_a_version(venue: Venue) -> None:
    for path in ("/api/v1/account", "/api/v1/health", "/metrics", "/nowhere", "/ws", "/\x01"):
        ends = await dial(venue, f"GET {path} HTTP/1.1\r\n\r\n".encode())
        async with asyncio.timeout(20):
            head = (await ends[0].readuntil(b"\r\n\r\n")).decode().split("\r\n")
        ends[1].close()
        kept = {"Cache-Control: no-store", "X-Content-Type-Options: nosniff", "Server: hourbook"}
        assert kept <= set(head), head


async def test_who_asks_too_much_is_read_later_and_holds_nobody_up(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address has its share of the time, over HTTP and WebSockets; what it asked is answered."""
    spent: list[int] = []
    spend = pace.Pace.spend

    def watched(self: pace.Pace, owner: pace.Owner, spent_ns: int, one_in: int) -> float:
        spent.append(spent_ns)
        return spend(self, owner, spent_ns, one_in)

    monkeypatch.setattr(pace.Pace, "spend", watched)
    monkeypatch.setattr(pace, "IN_HAND_NS", 0)
    monkeypatch.setattr(arrivals, "LOOPBACK_ONE_IN", 10)
    begun = time.perf_counter_ns()
    wire = await Wire.open(urlsplit(venue.http).port or 0)
    await wire.shake()
    await wire.send(b"".join(frame(TEXT, b'{"op":"heartbeat"}') for _ in range(2_000)))
    assert await counted(wire.reader, b'"heartbeat"', 2_000) == 2_000
    wire.writer.close()
    ends = await dial(venue)
    ends[1].write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    assert await counted(ends[0], b"HTTP/1.1 404", 20) == 20
    ends[1].close()
    assert len(spent) > 22 and sum(spent) * 10 <= 1.5 * (time.perf_counter_ns() - begun)


async def test_an_answer_is_charged_what_it_takes(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own steps, before a wait and behind it, but not what others do meanwhile."""
    spent: list[int] = []
    owners: set[pace.Owner] = set()

    def noted(self: pace.Pace, owner: pace.Owner, spent_ns: int, one_in: int) -> float:
        spent.append(spent_ns)
        owners.add(owner)
        return 0.0

    monkeypatch.setattr(pace.Pace, "spend", noted)
    handler, work_ns, begun = rest.Rest.contracts, 20_000_000, asyncio.Event()

    def work() -> None:
        end = time.thread_time_ns() + work_ns
        while time.thread_time_ns() < end:
            pass

    async def costly(served: rest.Rest, asked: rest.Asked) -> Any:
        begun.set()
        work()
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.01) for _ in range(2)))
        asyncio.get_running_loop().call_soon(work)  # somebody else's
        await asyncio.sleep(0.01)
        work()
        return await handler(served, asked)

    routes = [r._replace(handler=costly) if r.handler is handler else r for r in rest.ROUTES]
    monkeypatch.setattr(rest, "ROUTES", tuple(routes))
    async with Venue.open(venue.market.directory.parent / "other") as other:
        found, body = await answer(await dial(other, b"GET /api/v1/contracts HTTP/1.1\r\n\r\n"))
        assert found == 200 and b"H100" in body
        assert 2 * work_ns - arrivals.REQUEST_NS <= max(spent) < 3 * work_ns
        assert sorted(spent)[-2] <= arrivals.REQUEST_NS + work_ns // 2  # all else is flat
        spent.clear()
        begun.clear()
        _, hasty = await dial(other, b"GET /api/v1/contracts HTTP/1.1\r\n\r\n")
        await begun.wait()
        linger = struct.pack("ii", 1, 0)  # a reset, not an end after which it is still answered
        hasty.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        hasty.transport.abort()  # the work is done all the same
        await until(lambda: max(spent, default=0) >= 2 * work_ns - arrivals.REQUEST_NS)
        assert owners == {("address", "127.0.0.1")}
        spent.clear()
        post = b"POST /api/v1/admin HTTP/1.1\r\n" + SIGNED + b"Content-Length: 0\r\n\r\n"
        await answer(await dial(other, post))
        assert arrivals.REQUEST_NS in spent


async def test_a_connection_that_ended_keeps_nothing_of_what_it_sent(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[frames.MaskedSocket] = []
    release = frames.MaskedSocket.release

    def noted(socket: frames.MaskedSocket) -> None:
        release(socket)
        ended.append(socket)

    monkeypatch.setattr(frames.MaskedSocket, "release", noted)
    call = b'{"jsonrpc":"2.0","id":1,"method":"public/test"}'
    wire = await Wire.open(urlsplit(venue.http).port or 0)
    await wire.shake(path="/ws/api/v2")
    wire.writer.write(frame(TEXT, call) * 5_000)
    await wire.reader.read(1)
    wire.writer.transport.abort()
    await until(lambda: bool(ended))
    reader = ended[0]._reader
    assert reader is not None and not reader._buffer and ended[0]._parser is None


async def counted(reader: asyncio.StreamReader, what: bytes, most: int) -> int:
    """How often that comes, until it came so often or the connection ends."""
    found, heard = 0, b""
    async with asyncio.timeout(20):
        while found < most and (data := await reader.read(1 << 16)):
            heard += data
            found = heard.count(what)
    return found


async def test_operators_are_counted_like_everybody(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "LOOPBACK_REQUESTS_A_SECOND", 3)
    post = b"POST /api/v1/admin HTTP/1.1\r\n" + SIGNED + b"Content-Length: 0\r\n\r\n"
    said = [await answer(await dial(venue, post)) for _ in range(9)]
    assert {status for status, _ in said} == {401, 429}
    assert any(b"REQUESTS_FULL" in body for _, body in said)


@pytest.mark.parametrize("target", ["/api/v1/account?", "/api/v1/account", "/api/v1/%61ccount"])
async def test_what_is_signed_is_the_target_as_sent(venue: Venue, target: str) -> None:
    key_id, secret = await venue.key(1)
    nonce = time.time_ns()
    stamp = nonce // 1_000_000
    parts = (str(stamp), str(nonce), key_id, "GET", target, hashlib.sha256(b"").hexdigest())
    signature = hmac.new(secret.encode(), "\n".join(parts).encode(), "sha256").hexdigest()
    head = (
        f"GET {target} HTTP/1.1\r\nHourbook-Key: {key_id}\r\nHourbook-Timestamp: {stamp}\r\n"
        f"Hourbook-Nonce: {nonce}\r\nHourbook-Signature: {signature}\r\n\r\n"
    )
    status, body = await answer(await dial(venue, head.encode()))
    assert status == 200, body


async def test_a_page_of_elsewhere_is_let_in_nowhere(venue: Venue) -> None:
    for path in (b"/api/v1/health", b"/api/v1/instruments", b"/openapi.json"):
        head = b"GET " + path + b" HTTP/1.1\r\nOrigin: https://elsewhere.example\r\n\r\n"
        assert (await answer(await dial(venue, head)))[0] == 403


async def test_who_hangs_up_within_the_handshake_is_told_of_nowhere(
    venue: Venue, caplog: pytest.LogCaptureFixture
) -> None:
    url = urlsplit(venue.http)
    whole = UPGRADE.replace(b"\xff", b"dGhlIHNhbXBsZSBub25jZQ==").replace(b"1.1", b"1.1\r\nHost: x")
    for _ in range(5):
        with socket.create_connection((url.hostname, url.port)) as blocking:
            blocking.sendall(whole)
        await asyncio.sleep(0.02)
    assert await answer(await dial(venue, b"GET /api/v1/health HTTP/1.1\r\n\r\n"))
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]
