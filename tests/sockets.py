"""A market of the venue's size behind real sockets, and a client that sends whatever it likes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp
import msgspec
import venue as market
from msgspec.structs import astuple
from venue import Venue

from exchange.gateway import server
from exchange.gateway.server import Gateway
from exchange.messages import COMMAND, wire

Socket = aiohttp.ClientWebSocketResponse
ORIGIN = "https://desk.example"


class House:
    """A venue behind a listening gateway, and a client to reach it."""

    def __init__(self, venue: Venue, gateway: Gateway, url: str) -> None:
        self.venue, self.gateway, self.url = venue, gateway, url
        self.client = aiohttp.ClientSession()
        self.sockets: list[Socket] = []

    async def connect(self, *protocols: str, **options: Any) -> Socket:
        url = f"{self.url}/ws"
        socket: Socket = await self.client.ws_connect(url, protocols=protocols, **options)
        self.sockets.append(socket)
        return socket

    async def close(self) -> None:
        for socket in self.sockets:
            await socket.close()
        await self.client.close()

    async def trader(self, account: int, *protocols: str) -> Socket:
        socket = await self.connect(*protocols)
        told = await self.say(socket, self.venue.logon(account))
        assert told[-1]["type"] == "logged_on"
        return socket

    async def say(self, socket: Socket, request: Any) -> Any:
        packed = socket.protocol == wire.MSGPACK_PROTOCOL
        if packed:
            await socket.send_bytes(msgspec.msgpack.encode(request))
        else:
            await socket.send_str(request if isinstance(request, str) else json.dumps(request))
        return await hear(socket)


async def hear(socket: Socket) -> Any:
    message = await socket.receive(timeout=10)
    if message.type is aiohttp.WSMsgType.TEXT:
        return json.loads(message.data)
    if message.type is aiohttp.WSMsgType.BINARY:
        return msgspec.msgpack.decode(message.data)
    return message


@asynccontextmanager
async def running(directory: Path, **options: Any) -> AsyncIterator[House]:
    """An open market that listens on loopback and says nothing unasked: its heartbeats, which
    would come among the answers of a slow machine, are a test's to send. ``options`` are the
    gateway's."""
    venue = Venue(directory)
    gateway = Gateway(venue.hub, origins=frozenset({ORIGIN}), **options)
    port = await gateway.start("127.0.0.1", 0)
    house = House(venue, gateway, f"http://127.0.0.1:{port}")
    still = mock.patch.object(server, "HEARTBEAT_MS", 10**9)
    still.start()
    tasks = [asyncio.create_task(venue.sequencer.run()), asyncio.create_task(gateway.run())]
    try:
        for command, text in market.opening():
            venue.submit(0, COMMAND.pack(*astuple(command)), text=text)
        await venue.settle()
        yield house
    finally:
        still.stop()
        await house.close()
        await gateway.close()
        await venue.sequencer.close()
        await asyncio.gather(*tasks)
