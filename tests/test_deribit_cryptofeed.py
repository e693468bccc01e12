"""cryptofeed's Deribit feed follows a book over TLS, finds a gap and begins anew."""

import asyncio
import datetime
import ipaddress
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dialect import Venue

CODE: Final = "H100"
SECONDS: Final = 30.0
pytestmark = pytest.mark.skipif(
    find_spec("cryptofeed") is None, reason="no cryptofeed: `.[dev]` has it before Python 3.12"
)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that signs itself; return its file and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


class Relay:
    """Passes WebSocket frames on, both ways, and loses a book notification when told to."""

    def __init__(self, target: str, files: tuple[Path, Path]) -> None:
        self._target = target
        self._serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._serving.load_cert_chain(*files)
        self._trusting = ssl.create_default_context(cafile=files[0])
        self.lose = 0  # so many of the next changes
        self.connections = 0

    async def _relay(self, request: web.Request) -> web.WebSocketResponse:
        self.connections += 1
        near = web.WebSocketResponse()
        await near.prepare(request)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._target, ssl=self._trusting) as far,
        ):
            up = asyncio.create_task(self._up(near, far))
            async for message in far:
                if self.lose and '"type":"change"' in message.data:
                    self.lose -= 1
                elif not near.closed:
                    await near.send_str(message.data)
            up.cancel()
        return near

    async def _up(self, near: web.WebSocketResponse, far: Any) -> None:
        async for message in near:
            await far.send_str(message.data)
        await far.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Listen; yield the address."""
        application = web.Application()
        application.router.add_get("/ws/api/v2", self._relay)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._serving)
        await site.start()
        yield f"wss://127.0.0.1:{runner.addresses[0][1]}/ws/api/v2"
        await runner.cleanup()


@asynccontextmanager
async def follower(*arguments: str, trusted: Path) -> AsyncIterator[asyncio.StreamReader]:
    """cryptofeed in a process of its own; yields what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("cryptofeed_follower.py")),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"SSL_CERT_FILE": str(trusted), "REQUESTS_CA_BUNDLE": str(trusted)},
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def book_at(said: asyncio.StreamReader, change: int) -> tuple[list[Any], list[Any]]:
    """Return every book said up to one of a change, or a later one, and that one's sides."""
    books = []
    async with asyncio.timeout(SECONDS):
        while line := await said.readline():
            books.append(json.loads(line))
            if books[-1]["change_id"] >= change:
                return books, [books[-1]["bids"], books[-1]["asks"]]
    raise AssertionError(f"cryptofeed ended after {books[-3:]}")


async def test_the_feed_follows_finds_a_gap_and_begins_anew(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    serve = {"tls_certificate": str(files[0]), "tls_key": str(files[1])}
    async with Venue.open(tmp_path / "market", trusted=files[0], **serve) as venue:
        maker = await venue.rpc(await venue.key(1))
        code = (await maker.call("public/get_instruments", currency=CODE))[0]["instrument_name"]
        price = (await maker.call("public/ticker", instrument_name=code))["mark_price"]
        order = {"instrument_name": code, "amount": 1, "post_only": True}

        async def enter(places: list[int]) -> int:
            for place in places:
                await maker.call("private/buy", price=round(price - place / 1000, 3), **order)
            change: int = (await truth())["change_id"]
            return change

        async def truth() -> Any:
            return await maker.call("public/get_order_book", instrument_name=code, depth=100)

        first = await enter([1, 2, 3])
        relay = Relay(f"{venue.ws}/ws/api/v2", files)
        key = await venue.key(2, "read")
        async with (
            relay.open() as address,
            follower(venue.http, address, *key, code, trusted=files[0]) as said,
        ):
            books, _ = await book_at(said, first)
            assert [book["snapshot"] for book in books] == [True]
            followed, sides = await book_at(said, await enter([4, 2]))
            assert [book["snapshot"] for book in followed] == [False, False]
            assert sides == shown(await truth())

            relay.lose = 1
            lost = await enter([5])
            after = await enter([6])
            books, sides = await book_at(said, after)
            assert relay.connections == 2, "it reconnected"
            assert books[0]["snapshot"] and lost not in [book["change_id"] for book in books]
            assert sides == shown(await truth())
            await book_at(said, await enter([7]))


def shown(book: Any) -> list[Any]:
    """A book of the dialect's as the follower prints it."""
    return [[[f"{p:.3f}", str(amount)] for p, amount in book[side]] for side in ("bids", "asks")]
