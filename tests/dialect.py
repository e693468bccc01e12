"""A market that speaks the Deribit dialect, and a bare client of it, for tests."""

import asyncio
import hmac
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, Self

import aiohttp

from exchange.app import Addresses, Market
from exchange.app.requests import Deposit
from exchange.app.settings import Serve, Settings
from exchange.gateway.archive import CandleRow
from exchange.gateway.auth import create_key
from exchange.messages.access import Scope

CASH = "50000"
SECONDS = 10.0


class Rpc:
    """One WebSocket: calls and their answers, and what channels say meanwhile."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.told: list[dict[str, Any]] = []  # notifications and heartbeats, as they came
        self._ids = itertools.count(1)

    async def call(self, method: str, **params: Any) -> Any:
        """Return a call's result; AssertionError with the error if it failed."""
        answer = await self.ask({"method": method, "params": params})
        assert "result" in answer, answer
        return answer["result"]

    async def fail(self, method: str, **params: Any) -> dict[str, Any]:
        """Return a call's error."""
        answer = await self.ask({"method": method, "params": params})
        error: dict[str, Any] = answer["error"]
        return error

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its whole answer."""
        number = next(self._ids)
        await self.socket.send_str(json.dumps({"jsonrpc": "2.0", "id": number, **request}))
        return await self.answer(lambda message: message.get("id") == number)

    async def answer(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the next message that is wanted; what comes before it is kept in ``told``."""
        async with asyncio.timeout(SECONDS):
            while True:
                message: dict[str, Any] = await self.socket.receive_json()
                if wanted(message):
                    return message
                self.told.append(message)

    async def data(self, channel: str) -> Any:
        """Return what a channel says next, or said before and was not asked for."""
        for place, message in enumerate(self.told):
            if message.get("params", {}).get("channel") == channel:
                return self.told.pop(place)["params"]["data"]
        message = await self.answer(lambda one: one.get("params", {}).get("channel") == channel)
        return message["params"]["data"]


class Venue:
    """A serving market, its accounts' keys, and connections to it."""

    def __init__(
        self, market: Market, addresses: Addresses, exits: AsyncExitStack, trusted: Path | None
    ) -> None:
        self.market = market
        self._tls: Any = ssl.create_default_context(cafile=trusted) if trusted else True
        self.ws = addresses.ws.removesuffix("/ws")
        self.http = addresses.http.removesuffix("/api/v1")
        self._exits = exits

    async def key(self, account: int, scope: Scope = "trade") -> tuple[str, str]:
        """Fund an account; return the (key_id, secret) of a key of it."""
        await self.market.operations.perform(Deposit(account=account, amount=CASH))
        return create_key(self.market.directory, account, scope)

    async def rpc(self, key: tuple[str, str] | None = None) -> Rpc:
        """Return a connection, logged on if there is a key."""
        session = await self._exits.enter_async_context(aiohttp.ClientSession())
        made = session.ws_connect(f"{self.ws}/ws/api/v2", ssl=self._tls)
        rpc = Rpc(await self._exits.enter_async_context(made))
        if key is not None:
            await rpc.call("public/auth", **signature(*key, self.market.hub.now_ms()))
        return rpc

    async def closing(self, opened: Any) -> None:
        """Close a client of a library's when the market stops."""
        self._exits.push_async_callback(opened.close)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: Path, trusted: Path | None = None, **serve: Any
    ) -> AsyncIterator[Self]:
        """A market on loopback, by the machine's own clock, which clients sign with.

        ``trusted`` is the certificate of one that serves TLS.
        """
        settings = Settings(serve=Serve(**{"deribit": True, **serve}))
        market = await Market.start(directory, settings=settings)
        try:
            async with AsyncExitStack() as exits:
                yield cls(market, await market.listen("127.0.0.1", 0), exits, trusted)
        finally:
            await market.stop()


async def no_candles(*asked: Any) -> tuple[list[CandleRow], int | None]:
    """What a market has booked in which nobody trades."""
    return [], None


def signature(key_id: str, secret: str, now_ms: int, data: str = "") -> dict[str, Any]:
    """The parameters of a ``public/auth`` by signature, with a nonce of its own."""
    nonce = token_hex(8)
    text = f"{now_ms}\n{nonce}\n{data}".encode()
    return {
        "grant_type": "client_signature",
        "client_id": key_id,
        "timestamp": now_ms,
        "nonce": nonce,
        "data": data,
        "signature": hmac.new(secret.encode(), text, "sha256").hexdigest(),
    }
