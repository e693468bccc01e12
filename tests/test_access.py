"""Keys in use: scopes and addresses at a session, operators' keys over HTTP, TLS, and that no
secret is ever written anywhere."""

import asyncio
import contextlib
import ipaddress
import json
import logging
import resource
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import venue as market
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from live import clock_ns, market_in
from served import serving
from several import gateway_pid
from sockets import House, hear, running
from typer.testing import CliRunner
from venue import CODE, RICH, Venue, enter, reject

from exchange.app import admin, requests
from exchange.app.logs import JsonLines
from exchange.app.market import Within
from exchange.app.settings import Serve, Settings
from exchange.app.wishes import RequestRefused
from exchange.cli.root import app
from exchange.gateway import access, arrivals, auth, lockouts, seats, server, session
from exchange.gateway.decode import Refused
from exchange.messages import Reason, wire
from exchange.messages.access import Scope

CANCEL = {"op": "cancel", "request_id": "r", "client_order_id": "x"}
HALT = requests.Halt(code=CODE)


venue = market.venue  # a fixture


async def test_a_key_of_scope_cancel_only_takes_lots_out_and_puts_none_in(venue: Venue) -> None:
    trader, guard = await venue.trader(RICH), venue.connect()
    await venue.say(trader, enter("x"), enter("y"))
    (told,) = await venue.say(guard, venue.logon(RICH, "cancel_only"))
    assert isinstance(told, wire.LoggedOn) and told.scope == "cancel_only" and told.session
    quote = {"op": "quote", "request_id": "q", "instrument": CODE}
    replace = {**CANCEL, "op": "replace", "price": "2.6", "quantity": "1"}
    for refused in (enter("z"), quote, replace):
        told = await reject(venue, guard, refused)
        assert (told.name, told.detail) == ("SCOPE", "the key's scope is cancel_only")
    done = await venue.say(guard, CANCEL, {"op": "mass_cancel", "request_id": "m"})
    assert [report.client_order_id for report in done if isinstance(report, wire.Cancelled)] == [
        "x", "y",
    ]  # fmt: skip


async def test_an_address_list_holds_at_a_session_b13(venue: Venue) -> None:
    key = auth.create_key(venue.directory, RICH, "trade", addresses=("192.0.2.0/24",))
    venue._secrets[RICH, "trade"] = key
    inside, outside = (
        venue.hub.connect(session.JSON, lambda: None, address)
        for address in ("192.0.2.9", "198.51.100.1")
    )
    assert (await reject(venue, outside, venue.logon(RICH))).name == "ADDRESS"
    (told,) = await venue.say(inside, venue.logon(RICH))
    assert isinstance(told, wire.LoggedOn)


async def test_a_key_has_so_many_connections_b19(venue: Venue) -> None:
    first = await venue.trader(RICH)
    for _ in range(seats.KEY_CONNECTIONS - 1):
        await venue.trader(RICH)
    told = await reject(venue, venue.connect(), venue.logon(RICH))
    assert (told.name, told.limit, told.observed) == ("CONNECTIONS_FULL", "16", "17")
    assert isinstance((await venue.say(first, enter("a")))[0], wire.Accepted)
    venue.hub.disconnect(first)
    await venue.trader(RICH)


async def test_a_second_logon_of_a_connection_is_refused_and_takes_nothing(venue: Venue) -> None:
    """While the first is under way, and once it is done: its session goes on, and ends with it."""
    other, one = await venue.trader(RICH), venue.connect()
    logons = [venue.logon(RICH, cancel_on_disconnect=True) for _ in range(2)]
    refused, told = await venue.say(one, *logons)
    assert isinstance(refused, wire.Rejected) and refused.name == "SESSION_LIVE"
    assert isinstance(told, wire.LoggedOn)
    assert (await reject(venue, one, venue.logon(RICH))).name == "SESSION_LIVE"
    await venue.say(one, enter("a"))
    (orders,) = (await venue.say(one, {"op": "orders", "request_id": "q"}))[-1:]
    assert isinstance(orders, wire.Orders) and len(orders.orders) == 1
    venue.heard(other)
    venue.hub.disconnect(one)
    await venue.settle()
    venue.now_ns += 1
    venue.sequencer.wake()
    async with asyncio.timeout(10):
        while not (heard := venue.heard(other)):
            await asyncio.sleep(0.001)
    (gone,) = heard
    assert isinstance(gone, wire.Cancelled) and gone.reason == "DISCONNECTED"


class _Far(seats.Seats):
    """A count that is kept elsewhere: what it comes to is told when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Callable[[], None]] = []

    def take(self, owner: seats.Owner, told: Callable[[int], None]) -> None:
        self.asked.append(partial(super().take, owner, told))


async def test_a_logon_waits_for_the_count_of_its_key(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "KEY_CONNECTIONS", 1)
    venue.hub.seats = far = _Far()
    gone, first, second = (venue.connect() for _ in range(3))
    for one in (gone, first, second):
        assert await venue.say(one, venue.logon(RICH)) == []
    assert (await reject(venue, first, venue.logon(RICH))).name == "SESSION_LIVE"
    venue.hub.disconnect(gone)
    for answer in far.asked:
        answer()
    await venue.settle()
    (told,) = venue.heard(first)
    assert isinstance(told, wire.LoggedOn)
    (told,) = venue.heard(second)
    assert isinstance(told, wire.Rejected) and (told.name, told.op) == ("CONNECTIONS_FULL", "logon")
    venue.hub.disconnect(first)
    assert await venue.say(second, venue.logon(RICH)) == []
    far.asked[-1]()
    await venue.settle()
    assert isinstance(venue.heard(second)[-1], wire.LoggedOn)


async def test_a_lockout_leaves_a_good_session_alone(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    for _ in range(lockouts.BAD_LIMIT + 1):
        await reject(venue, venue.connect(), {**venue.logon(RICH), "signature": "00"})
    assert isinstance((await venue.say(trader, enter("a")))[0], wire.Accepted)
    elsewhere = venue.hub.connect(session.JSON, lambda: None, "192.0.2.9")
    (told,) = await venue.say(elsewhere, venue.logon(RICH))
    assert isinstance(told, wire.LoggedOn)


async def test_an_expired_key_closes_its_connection(venue: Venue) -> None:
    trader = await venue.trader(RICH)
    assert trader.key is not None
    auth.rotate_key(venue.directory, trader.key.key_id, venue.now_ns // 1_000_000 + 50)
    venue.hub.beat()
    assert trader.closing is None
    venue.now_ns += 50_000_000
    venue.hub.beat()
    assert trader.closing == (session.CLOSE_REVOKED, "the key was revoked")


@pytest.mark.parametrize(
    ("scope", "settles", "halts"),
    [("admin", True, True), ("clear", True, False), ("trade", False, False)],
)
async def test_operators_requests_by_scope_b12(
    scope: Scope, settles: bool, halts: bool, tmp_path: Path
) -> None:
    async with market_in(tmp_path, clock=clock_ns) as opened:
        key = access.Key("k", 0, scope)
        perform = Within(opened).perform
        for request, may in ((requests.State(), settles), (HALT, halts)):
            body = msgspec.json.encode(request)
            if may:
                assert (await admin.answer_signed(body, perform, key)).ok
                continue
            with pytest.raises(Refused) as refused:
                await admin.answer_signed(body, perform, key)
            assert refused.value.reason is Reason.SCOPE


# Sockets


async def test_the_peers_address_counts_and_no_header_b18_b19(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SILENT_SECONDS", 600.0)
    async with running(tmp_path, seats=seats.Seats(lambda address: 32)) as house:
        held = [await house.connect() for _ in range(32)]
        forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await house.connect(headers=forged)
        assert refused.value.status == 429
        assert (await house.say(held[0], {"op": "heartbeat"}))[0]["type"] == "heartbeat"
        assert {one.address for one in house.venue.hub.sessions.values()} == {"127.0.0.1"}
        await held[1].close()
        async with asyncio.timeout(10):
            while len(house.venue.hub.sessions) == 32:
                await asyncio.sleep(0.001)
        await house.connect()
    assert seats.connections_allowed("203.0.113.9") == seats.ADDRESS_CONNECTIONS == 32
    assert seats.connections_allowed("::1") == seats.LOOPBACK_CONNECTIONS


async def test_ten_thousand_pings_b28(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SILENT_SECONDS", 600.0)
    async with running(tmp_path) as house:
        calm, socket = await house.connect(), await house.connect(autoping=False)
        await calm.ping(b"one")
        for _ in range(10_000):
            try:
                await socket.ping(b"x")
            except ConnectionError:
                break
        pongs = 0
        while (message := await socket.receive(timeout=10)).type is aiohttp.WSMsgType.PONG:
            pongs += 1
        assert pongs <= 2 * server.PINGS_A_SECOND  # a second may have passed
        assert (message.data, message.extra) == (1008, "too many pings")
        assert (await house.say(calm, {"op": "heartbeat"}))[0]["type"] == "heartbeat"


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "market")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files[1].write_bytes(private)
    return str(files[0]), str(files[1])


async def test_tls_and_nothing_else_b17(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    settings = Settings(serve=Serve(tls_certificate=chain, tls_key=key))
    async with market_in(tmp_path / "market", settings=settings) as opened:
        addresses = await opened.listen("127.0.0.1", 0)
        assert addresses.ws.startswith("wss://") and addresses.http.startswith("https://")
        trusted = ssl.create_default_context(cafile=chain)
        async with aiohttp.ClientSession() as client:
            socket = await client.ws_connect(addresses.ws, ssl=trusted)
            await socket.send_str('{"op":"heartbeat"}')
            assert (await hear(socket))[0]["type"] == "heartbeat"
            await socket.close()
            plain = addresses.ws.replace("wss://", "ws://")
            with pytest.raises(aiohttp.ClientError):
                await client.ws_connect(plain)
            assert opened.hub.sessions == {}
        old = ssl.create_default_context(cafile=chain)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
        async with aiohttp.ClientSession() as client:
            await (await client.ws_connect(addresses.ws, ssl=old)).close()
    for wrong in (Serve(tls_certificate=chain), Serve(tls_certificate=key, tls_key=chain)):
        async with market_in(tmp_path / "market", settings=Settings(serve=wrong)) as broken:
            with pytest.raises(RequestRefused, match="no TLS with"):
                await broken.listen("127.0.0.1", 0)


async def test_an_address_has_so_many_connections_within_the_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio calls the gateway only once it is over, seconds later if the client likes."""
    monkeypatch.setattr(arrivals, "connections_allowed", lambda address: 2)
    chain, key = certificate(tmp_path)
    settings = Settings(serve=Serve(tls_certificate=chain, tls_key=key))
    async with market_in(tmp_path / "market", settings=settings) as opened:
        host, port = "127.0.0.1", int((await opened.listen("127.0.0.1", 0)).ws.split(":")[2][:-3])
        held = [await asyncio.open_connection(host, port) for _ in range(4)]
        over, its = await asyncio.open_connection(host, port)
        async with asyncio.timeout(3):  # less than a handshake may take
            with contextlib.suppress(ConnectionError):
                assert await over.read() == b""
        its.close()
        assert not any(reader.at_eof() for reader, _ in held)
        held[0][1].transport.abort()
        trusted = ssl.create_default_context(cafile=chain)
        async with aiohttp.ClientSession() as client, asyncio.timeout(10):
            while True:
                try:
                    url = f"https://{host}:{port}/api/v1/health"
                    async with client.get(url, ssl=trusted) as answer:
                        assert answer.status == 200
                    break
                except aiohttp.ClientError:  # the end of the other is not known yet
                    await asyncio.sleep(0.01)
        for _, writer in held:
            writer.transport.abort()


# Secrets


async def converse(house: House, key: tuple[str, str]) -> None:
    """Good and bad logons, and one that the gateway fails at with an exception of its own."""
    house.venue._secrets[RICH, "trade"] = key
    socket = await house.trader(RICH)
    await house.say(socket, enter("a"))
    for broken in ({**house.venue.logon(RICH), "signature": key[1]}, "{" + key[0]):
        await house.say(await house.connect(), broken)
    fails = await house.connect()
    await fails.send_str(json.dumps(house.venue.logon(RICH)))
    await fails.receive(timeout=10)


async def test_no_secret_is_in_a_log_a_traceback_or_an_address(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that fails in the midst of judging a signature, with everything logged."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    key = auth.create_key(tmp_path, RICH, "trade")
    judged = 0
    whole = access.Judge.judge

    def fail(self: Any, *arguments: Any) -> Any:
        nonlocal judged
        judged += 1
        if judged in (2, 3):  # one brings the secret itself
            raise RuntimeError(f"judging {arguments!r}")
        return whole(self, *arguments)

    monkeypatch.setattr(access.Judge, "judge", fail)
    async with running(tmp_path) as house:
        await converse(house, key)
        assert key[1] not in str(house.venue.hub.sessions) + str(house.url)
    text, lines = logging.Formatter(), JsonLines()
    logged = "\n".join(text.format(r) + lines.format(r) for r in caplog.records)
    said = capfd.readouterr()
    everything = logged + said.out + said.err
    assert "RuntimeError: judging" in logged and "Traceback" in logged and key[0] in logged
    assert key[1] not in everything
    for path in tmp_path.rglob("*"):  # the log and the tape, too: it is in its own file alone
        if path.is_file() and not path.name.startswith(auth.FILE):
            assert key[1].encode() not in path.read_bytes(), path


# The command line


def test_keys_are_made_listed_and_rotated_by_hand(tmp_path: Path) -> None:
    data, pem = ["--data", str(tmp_path / "market")], tmp_path / "public.pem"
    public = Ed25519PrivateKey.generate().public_key()
    pem.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def hourbook(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*arguments, *data])
        return done.exit_code, done.output

    guard = ["keys", "create", "1", "--scope", "cancel_only", "--address", "10.0.0.0/8"]
    made = json.loads(hourbook(*guard, "--address", "::1")[1])
    signed = json.loads(hourbook("keys", "create", "2", "--public-key", str(pem))[1])
    assert set(made) == {"key_id", "secret"} and set(signed) == {"key_id"}
    code, told = hourbook("keys", "rotate", made["key_id"], "--overlap", "60")
    follower = json.loads(told)
    assert code == 0 and follower["replaces"] == made["key_id"] and follower["secret"]
    listed = json.loads(hourbook("keys", "list", "--json")[1])["keys"]
    assert [key["algorithm"] for key in listed] == ["hmac-sha256", "ed25519", "hmac-sha256"]
    assert listed[0]["addresses"] == listed[2]["addresses"] == ["10.0.0.0/8", "::1/128"]
    assert listed[0]["expires_ms"] == follower["replaced_until_ms"]
    table = hourbook("keys", "list")[1]
    assert made["secret"] not in table and table.count(made["key_id"]) == 3  # both are one person's
    for wrong in (
        ["keys", "rotate", signed["key_id"]],
        ["keys", "rotate", "none"],
        ["keys", "create", "1", "--address", "10.0.0.0/99"],
        ["keys", "create", "1", "--public-key", str(tmp_path / "none.pem")],
    ):
        assert hourbook(*wrong)[0] != 0, wrong


def test_tls_is_one_flag(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--tls", "chain.pem", "key.pem", "--show-config"])
    assert done.exit_code == 0
    for name, value in (("serve.tls_certificate", "chain.pem"), ("serve.tls_key", "key.pem")):
        assert any(name in line and value in line for line in done.output.splitlines())


def test_a_server_may_have_as_many_open_files_as_the_system_allows(tmp_path: Path) -> None:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))  # a child's is the same
    try:
        with serving(tmp_path, "--gateways", "1") as server:
            market = server.process.pid
            for process in (market, gateway_pid(tmp_path, 0)):
                most, _ = resource.prlimit(process, resource.RLIMIT_NOFILE)
                assert most == min(hard, 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
