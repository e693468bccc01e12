"""A market served by several gateways, and clients that choose theirs and may be cut off."""

import asyncio
import contextlib
import hmac
import json
import time
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from exchange.app import admin
from exchange.app.gateway_process import OWN_NAME
from exchange.app.requests import AnyRequest
from exchange.messages.wire import signed_text

CODE: Final = "H100Z26"
SECONDS: Final = 20.0
Place = tuple[int, int]  # sequence, index


async def ask(directory: Path, request: AnyRequest) -> dict[str, Any]:
    """Put an operator's request to the market of a directory."""
    answer = await admin.ask(directory, request)
    assert answer is not None and answer.ok, answer
    return answer.result


def gateway_pid(directory: Path, number: int) -> int:
    """The process of one gateway."""
    end = f"\0{directory}\0{number}\0".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if b"gateway_process" in line and line.endswith(end):
                return int(entry.name)
    raise AssertionError(f"no gateway {number}")


class LogonRefused(Exception):
    """The name of the reject is its argument."""


class Peer:
    """One client of one gateway. ``reports`` are its account's, in the order in which they came."""

    def __init__(self, directory: Path, key: tuple[str, str], gateway: int) -> None:
        self._path = directory / OWN_NAME.format(gateway)
        self._key = key
        self.reports: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []  # to this connection alone
        self.logged_on: dict[str, Any] = {}
        self.epoch = 0
        self.socket: Any = None  # aiohttp.ClientWebSocketResponse, once connected

    async def connect(self, **options: Any) -> Self:
        """Connect and log on."""
        self._client = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._path)))
        self.socket = await self._client.ws_connect("http://gateway/ws")
        await self.say(**_logon(*self._key, options))
        await self.until(lambda: self.logged_on or self.answers or self.of("rejected"))
        if not self.logged_on:
            raise LogonRefused([*self.answers, *self.reports][0]["name"])
        self.epoch = self.logged_on["epoch"]
        return self

    async def say(self, **fields: Any) -> None:
        await self.socket.send_str(json.dumps(fields))

    async def enter(self, order_id: str, side: str, price: str, quantity: int = 1) -> None:
        """Send an order; its answer comes when it comes."""
        await self.say(
            op="enter", client_order_id=order_id, instrument=CODE, side=side,
            quantity=str(quantity), price=price,
        )  # fmt: skip

    async def until(self, done: Any) -> None:
        """Take what comes until a condition holds."""
        try:
            async with asyncio.timeout(SECONDS):
                while not done():
                    self._take(await self.socket.receive_json())
        except TimeoutError:
            raise AssertionError(f"the last of {len(self.reports)}: {self.reports[-3:]}") from None

    async def drain(self) -> int:
        """Take what comes until the connection ends; return the close code."""
        async with asyncio.timeout(SECONDS):
            while (message := await self.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                self._take(json.loads(message.data))
        return self.socket.close_code or 0

    def _take(self, frame: list[dict[str, Any]]) -> None:
        for message in frame:
            if message["type"] == "logged_on":
                self.logged_on = message
            elif "index" in message:
                self.reports.append(message)
            elif message["type"] != "heartbeat":
                self.answers.append(message)

    @property
    def places(self) -> list[Place]:
        """Of the reports so far."""
        return [(report["sequence"], report["index"]) for report in self.reports]

    @property
    def last(self) -> tuple[int, int, int]:
        """The place to resume behind."""
        return (self.epoch, *self.places[-1])

    def of(self, kind: str) -> list[str]:
        """The client order ids of the reports of a kind."""
        return [
            report.get("client_order_id") or "" for report in self.reports if report["type"] == kind
        ]

    async def cut(self) -> None:
        """Break the connection, without a close."""
        connection = self.socket._conn
        assert connection is not None and connection.transport is not None
        connection.transport.abort()

    async def close(self) -> None:
        """Close what is open."""
        if self.socket is not None:
            with contextlib.suppress(ConnectionError):
                await self.socket.close()
        await self._client.close()


class Crowd:
    """Peers of one market, closed together."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._peers: list[Peer] = []

    async def join(self, key: tuple[str, str], gateway: int, **options: Any) -> Peer:
        """Connect one more. Raises LogonRefused."""
        peer = Peer(self._directory, key, gateway)
        self._peers.append(peer)
        return await peer.connect(**options)

    async def close(self) -> None:
        """Close them all."""
        for peer in self._peers:
            await peer.close()


def _logon(key_id: str, secret: str, options: dict[str, Any]) -> dict[str, Any]:
    stamp, nonce = time.time_ns() // 1_000_000, time.time_ns()
    text = signed_text(stamp, nonce, key_id, options.get("resume_session", 0))
    signature = hmac.new(secret.encode(), text, "sha256").hexdigest()
    return dict(
        op="logon", key_id=key_id, timestamp_ms=stamp, nonce=nonce, signature=signature, **options
    )
