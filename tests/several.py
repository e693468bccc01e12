"""A market served by several gateways, and clients that choose theirs and may be cut off; and a
gateway's end of the wire in the hands of a test.
"""

import asyncio
import contextlib
import hmac
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import today

from exchange.app import asking
from exchange.app.bookkeeping import STREAM_NAME
from exchange.app.gateway_link import SOCKET_NAME, Beat, Hello, Seat, Told, Welcome, Wire
from exchange.app.gateway_process import OWN_NAME
from exchange.app.gateways import LIFE_BITS
from exchange.app.requests import AnyRequest
from exchange.gateway.decode import NO_ID, RECORD
from exchange.gateway.resume import LOGON_MARK
from exchange.gateway.seats import Owner
from exchange.journal import stream
from exchange.messages import EVENT, CommandFlag, CommandKind, EventKind, Side
from exchange.messages.wire import signed_text

CODE: Final = today.code()
SECONDS: Final = 20.0
RESTARTS: Final = "hourbook_gateway_restarts"
AGAIN: Final = ", started again"
LATE: Final = "came no nearer to serving"
Place = tuple[int, int]  # sequence, index


async def ask(directory: Path, request: AnyRequest) -> dict[str, Any]:
    """Put an operator's request to the market of a directory."""
    answer = await asking.ask(directory, request)
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


@dataclass
class House:
    """A served market; ``at`` is a price that trades, ``away`` one at which buyers wait, ``log``
    the file of its log."""

    data: Path
    ready: dict[str, str]
    at: str
    away: str
    log: Path


async def figures(house: House) -> dict[str, float]:
    """What ``/metrics`` says, at whichever gateway."""
    url = house.ready["http"].replace("/api/v1", "/metrics")
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        lines = (await answer.text()).splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


class Restarts:
    """The restarts of gateways from now on, as they are counted and as they are logged."""

    def __init__(self, house: House, counted: float) -> None:
        self._house, self._counted = house, counted
        self._logged = len(self._lines())

    @classmethod
    async def begin(cls, house: House) -> Self:
        return cls(house, (await figures(house))[RESTARTS])

    def _lines(self) -> list[str]:
        return [one for one in self._house.log.read_text().splitlines() if AGAIN in one]

    async def causes(self) -> list[str]:
        """Return why each was, without what is due to a machine so slow that a gateway came no
        nearer to serving within its time. All serve now, and each of them is counted once."""
        now, lines = await figures(self._house), self._lines()[self._logged :]
        assert now["hourbook_gateways"] == 2
        assert now[RESTARTS] == self._counted + len(lines), lines
        causes = [line.partition(": gateway ")[2].removesuffix(AGAIN) for line in lines]
        return [cause for cause in causes if LATE not in cause]

    def late(self) -> int:
        """Return how many came no nearer to serving within their time."""
        return sum(LATE in line for line in self._lines()[self._logged :])


async def reborn(crowd: Crowd, key: tuple[str, str]) -> Peer:
    """A client of gateway 0, once that serves again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await crowd.join(key, 0)
            except (OSError, aiohttp.ClientError):
                await asyncio.sleep(0.1)


async def stopped_before_it_serves(data: Path, which: int, but: int = 0) -> int:
    """Stop a gateway's process, another than ``but``, as soon as there is one; return its id."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(AssertionError):
                if (pid := gateway_pid(data, which)) != but:
                    break
            await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGSTOP)
    assert not (data / OWN_NAME.format(which)).exists()
    return pid


class Gateway:
    """A gateway's end of the wire, which says what a test wants and dies on its own terms."""

    def __init__(self, data: Path, account: int) -> None:
        self._data = data
        self._account = account
        self._welcomed: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self.before_beat: Callable[[], None] = lambda: None
        self._counts: list[int] = []

    async def open(self) -> Self:
        loop, path = asyncio.get_running_loop(), str(self._data / SOCKET_NAME)
        transport, self.wire = await loop.create_unix_connection(lambda: Wire(self), path)
        connection = transport.get_extra_info("socket")  # so much that it takes several reads
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.wire.say(Hello(9))
        self.welcome = await self._welcomed
        return self

    def heard(self, wire: Wire, message: Any) -> None:
        if isinstance(message, Welcome):
            self._welcomed.set_result(message)
        elif isinstance(message, Told):
            self._counts.append(message.count)
        elif isinstance(message, Beat):
            self.before_beat()
            wire.say(message)

    def put(self, wire: Wire, source: int, record: bytes, ingress: int, text: str | None) -> None:
        raise AssertionError("the market sends no commands")

    def lost(self, wire: Wire) -> None:
        pass

    async def seat(self, owner: Owner) -> int:
        """Ask whether a connection may be let in; return how many there are with it."""
        self.wire.say(Seat(0, owner))
        async with asyncio.timeout(10):
            while not self._counts:
                await asyncio.sleep(0.001)
        return self._counts.pop()

    def log_on(self) -> int:
        """Ask for a session; return the number by which its answer is known."""
        number = self.welcome.life << LIFE_BITS | 7
        mark = number.to_bytes(8, "little") + LOGON_MARK.to_bytes(8, "little")
        flags = CommandFlag.CANCEL_ON_DISCONNECT
        self._send(CommandKind.LOGON, flags=flags, key=mark)
        return number

    def cancel(self, session: int, count: int, seed: int) -> None:
        """Send cancels of orders that there are not: each is rejected in its turn."""
        for number in range(count):
            key = number.to_bytes(8, "little") + seed.to_bytes(8, "little")
            self._send(CommandKind.CANCEL, session=session, key=key)

    def _send(
        self, kind: CommandKind, *, session: int = 0, flags: int = 0, key: bytes = NO_ID
    ) -> None:
        side = Side.UNSTATED if kind == CommandKind.CANCEL else 0
        record = RECORD.pack(
            kind, side, 0, flags, 0, self._account, session, 0, 0, 0, 0, 0, NO_ID, key
        )  # fmt: skip
        self.wire.put(self._account, record, 0, None)

    async def events(self) -> AsyncIterator[tuple[int, ...]]:
        """The market's events from the moment when this gateway was let in."""
        async for released in stream.subscribe(
            self._data / STREAM_NAME, self.welcome.standing.last
        ):
            for row in EVENT.iter_unpack(released.events):
                yield row

    async def opened(self, number: int) -> int:
        """The session that came of a logon."""
        async for row in self.events():
            if row[2] == EventKind.SESSION_OPENED and row[11] == number:
                return row[7]
        raise AssertionError("the market has ended")
