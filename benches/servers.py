"""The servers for benches/path.py and access.py, each in a process that runs until stdin closes.

    python -m benches.servers echo [BYTES]
    python -m benches.servers market DIR ACCOUNTS [SETTING=VALUE ...]

``market`` is the whole market as ``hourbook serve`` runs it with these settings, with accounts that
can trade; its sessions are also served by picows if that is installed and there are no separate
gateways. ``echo`` is a minimal aiohttp server: it answers every WebSocket message with itself, or
with BYTES bytes; what comes over ``/send`` goes to everybody connected to ``/take``. Each prints
one JSON line with its address and what its clients need.
"""

import asyncio
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from aiohttp import WSMsgType, web

from exchange.app import Market, processors
from exchange.app.collector import calm_collector, short_turns
from exchange.app.requests import Deposit, OpenAccount
from exchange.app.settings import Settings, load, variable
from exchange.gateway.auth import create_key

HOST: Final = "127.0.0.1"
CASH_DOLLARS: Final = "1000000000"
OPEN_ORDERS: Final = 100_000


class Echo:
    """The bare server."""

    def __init__(self, reply_bytes: int) -> None:
        self._reply = "x" * reply_bytes
        self._takers: list[web.WebSocketResponse] = []

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = await self._open(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(self._reply or message.data)
        return socket

    async def take(self, request: web.Request) -> web.WebSocketResponse:
        socket = await self._open(request)
        self._takers.append(socket)
        async for _ in socket:
            pass
        return socket

    async def send(self, request: web.Request) -> web.WebSocketResponse:
        socket = await self._open(request)
        async for message in socket:
            data = message.data.encode()
            for taker in self._takers:
                await taker.send_frame(data, WSMsgType.TEXT)
        return socket

    async def _open(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        return socket


async def serve_echo(reply_bytes: int) -> None:
    app, server = web.Application(), Echo(reply_bytes)
    app.router.add_get("/ws", server.echo)
    app.router.add_get("/take", server.take)
    app.router.add_get("/send", server.send)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    announce({"ws": f"ws://{HOST}:{runner.addresses[0][1]}/ws"})
    await until_input_closes()
    await runner.cleanup()


async def open_market(
    directory: Path, accounts: int, settings: Settings
) -> tuple[Market, dict[str, object]]:
    """Return a market with accounts that can trade, and what their clients need."""
    market = await Market.start(directory, settings=settings)
    calm_collector()
    short_turns()
    keys = []
    for account in range(1, accounts + 1):
        opening = OpenAccount(
            account=account,
            max_open_orders=OPEN_ORDERS,
            throttle_interval_ns=1,
            throttle_burst=1 << 30,
        )
        await market.operations.perform(opening)
        await market.operations.perform(Deposit(account=account, amount=CASH_DOLLARS))
        keys.append(create_key(directory, account, "trade"))
    instrument = market.desk.instruments.by_id[0]
    dollars, mills = divmod(instrument.mark // instrument.tick_scale, 1000)
    price = f"{dollars}.{mills:03}"  # a tick is a mill
    return market, {"keys": keys, "instrument": instrument.code, "price": price}


async def serve_market(directory: Path, accounts: int, settings: Settings) -> None:
    market, facts = await open_market(directory, accounts, settings)
    addresses = await market.listen(HOST, 0)
    facts["ws"] = addresses.ws
    if not settings.serve.gateways and find_spec("picows"):
        from benches import picows_server  # noqa: PLC0415

        facts["picows"] = await picows_server.serve(market.hub)
    announce(facts)
    await until_input_closes()
    await market.stop()


def announce(facts: dict[str, object]) -> None:
    print(json.dumps({"pid": os.getpid(), **facts}), flush=True)


async def until_input_closes() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        asyncio.run(serve_echo(int(sys.argv[2]) if sys.argv[2:] else 0))
    else:
        given = dict(one.split("=", 1) for one in sys.argv[4:])
        chosen = load(environment={variable(name): value for name, value in given.items()}).settings
        processors.keep_to(chosen.serve.processor)
        asyncio.run(serve_market(Path(sys.argv[2]), int(sys.argv[3]), chosen))
