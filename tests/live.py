"""A whole market on loopback, clients of it, and a wire between them that a test can cut."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from clients.aio import AsyncClient
from clients.backoff import Backoff
from exchange.app import Addresses, Market
from exchange.app.requests import Deposit
from exchange.gateway.auth import create_key
from exchange.messages.access import Scope

CODE = "H100Z26"
START_NS = 1_795_176_000 * 1_000_000_000  # 20 November 2026, noon: the codes here are listed
_OFFSET_NS = START_NS - time.time_ns()
CASH = "50000000"
Running = contextlib.AbstractAsyncContextManager[Market]
QUICK = Backoff(first_s=0.01, most_s=0.05)


def clock_ns() -> int:
    """A clock that runs as usual, from START_NS on; market and clients share it."""
    return time.time_ns() + _OFFSET_NS


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait until a callable is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Cable:
    """A TCP relay to the market. ``cut`` breaks every connection, ``cut_after`` in the middle of
    what is under way; while ``silent`` it swallows answers. ``hold`` keeps what clients send from
    the market, as a proxy might, until ``deliver``, even if they are gone by then.
    """

    def __init__(self, port: int) -> None:
        self.port = port  # of the market; one that restarted has another
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.silent = False  # answers are swallowed, requests pass
        self.connections = 0
        self._left: int | None = None  # bytes that still pass, both ways
        self._near: set[asyncio.StreamWriter] = set()  # to clients
        self._delivers = asyncio.Event()  # of the connections there are now, and of later ones
        self._delivers.set()
        self._held = self._delivers

    async def open(self) -> str:
        """Start relaying; return the address to connect to."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"ws://{host}:{port}/ws"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections += 1
        self._writers |= {writer, far_writer}
        self._near.add(writer)
        for source, sink, is_answer in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, is_answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        delivers = self._delivers
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                if not is_answer:
                    await delivers.wait()
                if self.silent and is_answer:
                    continue
                if self._left is None:
                    sink.write(data)
                    continue
                sink.write(data[: self._left])
                self._left -= len(data)
                if self._left <= 0:
                    self._end()
        sink.close()

    def hold(self) -> None:
        """Keep what the clients of now send, and let go of them; later ones are served."""
        self._held, self._delivers = self._delivers, asyncio.Event()
        self._delivers.set()
        self._held.clear()

    def hang_up(self) -> None:
        """Break every connection on the clients' side alone."""
        for writer in self._near:
            writer.transport.abort()
        self._near.clear()

    def deliver(self) -> None:
        """Let the market have what was kept from it."""
        self._held.set()

    def cut_after(self, size: int) -> None:
        """Let so many bytes more through, both ways together, then end every connection."""
        self._left = size

    def _end(self) -> None:
        self._left = None
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    def cut(self) -> None:
        """Break every connection at once, both ways, whatever is under way."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self.silent = False

    async def close(self) -> None:
        self.cut()
        self.deliver()
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def market_in(directory: Path, **options: Any) -> AsyncIterator[Market]:
    """A market that is stopped at the end; ``options`` are those of ``Market.start``."""
    market = await Market.start(directory, **options)
    try:
        yield market
    finally:
        await market.stop()


class Live:
    """A serving market and what a test needs of it."""

    def __init__(self, market: Market, addresses: Addresses) -> None:
        self.market = market
        self.addresses = addresses
        self._clients = contextlib.AsyncExitStack()

    @property
    def port(self) -> int:
        """The TCP port that the market listens on."""
        return urlsplit(self.addresses.ws).port or 0

    async def fund(self, account: int, scope: Scope = "trade") -> tuple[str, str]:
        """Open and fund an account; return (key_id, secret)."""
        await self.market.operations.perform(Deposit(account=account, amount=CASH))
        return create_key(self.market.directory, account, scope)

    async def client(self, account: int, *, url: str = "", **options: Any) -> AsyncClient:
        """A connected client of a funded account; closed with the market."""
        key_id, secret = await self.fund(account)
        options = {"backoff": QUICK, "clock_ns": clock_ns, **options}
        client = AsyncClient(url or self.addresses.ws, key_id, secret, **options)
        return await self._clients.enter_async_context(client)

    async def cable(self) -> tuple[Cable, str]:
        """A cable to the market and the address at its end; closed with the market."""
        cable = Cable(self.port)
        url = await cable.open()
        self._clients.push_async_callback(cable.close)
        return cable, url

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, directory: Path, **sequencing: Any) -> AsyncIterator[Self]:
        """A market in a directory, new or used before; options are those of its sequencer."""
        async with market_in(directory, clock=clock_ns, **sequencing) as market:
            live = cls(market, await market.listen("127.0.0.1", 0))
            async with live._clients:
                yield live


@pytest.fixture
async def opened_live(tmp_path: Path) -> AsyncIterator[Live]:
    """A market of a test's own, which has a minute."""
    async with asyncio.timeout(60), Live.open(tmp_path) as opened:
        yield opened
