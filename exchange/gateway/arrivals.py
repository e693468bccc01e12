"""Connections as they come, while nothing is known of them but their address.

So many of an address, and each makes its requests in time: the first one's head, and every body
behind its head. What takes longer is cut off, so that nobody holds a socket by being slow.
"""

import asyncio
from collections import Counter
from functools import partial
from typing import Any, Final

from aiohttp import web

from exchange.gateway.seats import connections_allowed

HANDSHAKE_SECONDS: Final = 5.0  # for the first request's headers, TLS included
BODY_SECONDS: Final = 10.0  # for a request's body, behind its headers
KEEPALIVE_SECONDS: Final = 15.0  # between two HTTP requests of a connection
SOCKETS_PER_SEAT: Final = 2  # of an address, HTTP's included, for each WebSocket that it may have


class Arrivals:
    """The connections of one gateway and what each still owes."""

    def __init__(self) -> None:
        self._of_address: Counter[str] = Counter()
        self._due: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    def greet(self, server: web.Server) -> web.RequestHandler:
        """Take a connection in; it goes unless the head of a request is there in time."""
        protocol = _Arrival(self, server)
        self._expect(protocol, HANDSHAKE_SECONDS)
        return protocol

    def head(self, request: web.Request) -> None:
        """A request's head is there; its body is due, if it has one."""
        protocol = request.protocol
        self.settle(protocol)
        if not request.content.is_eof():
            self._expect(protocol, BODY_SECONDS)
            request.content.on_eof(partial(self.settle, protocol))

    def settle(self, protocol: web.RequestHandler) -> None:
        """Nothing is due of a connection."""
        due = self._due.pop(protocol, None)
        if due is not None:
            due.cancel()

    def admit(self, address: str) -> bool:
        """Count a connection; return whether its address may have it."""
        self._of_address[address] += 1
        return self._of_address[address] <= SOCKETS_PER_SEAT * connections_allowed(address)

    def leave(self, address: str) -> None:
        """Count a connection no longer."""
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    def close(self) -> None:
        """Wait for nothing any more."""
        for due in self._due.values():
            due.cancel()
        self._due.clear()

    def _expect(self, protocol: web.RequestHandler, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._due[protocol] = loop.call_later(seconds, self._give_up, protocol)

    def _give_up(self, protocol: web.RequestHandler) -> None:
        del self._due[protocol]
        if protocol.transport is not None:
            protocol.transport.abort()


class _Arrival(web.RequestHandler):
    """One connection; one of an address that has too many ends at once."""

    __slots__ = ("_address", "_arrivals")

    def __init__(self, arrivals: Arrivals, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        kept: Any = {"keepalive_timeout": KEEPALIVE_SECONDS, "access_log": None}
        super().__init__(server, loop=loop, **kept)
        self._arrivals = arrivals
        self._address: str | None = None  # counted under; None: not

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):  # else a Unix socket's, which only its owner opens
            self._address = str(peer[0])
            if not self._arrivals.admit(self._address) and self.transport is not None:
                self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._arrivals.settle(self)
        if self._address is not None:
            self._arrivals.leave(self._address)
            self._address = None
        super().connection_lost(exc)
        self._data_received_cb = None  # of a WebSocket, which leads back here
