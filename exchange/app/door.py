"""A gateway with all its routes, as a serving process opens it to clients."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from exchange.app import admin, asking
from exchange.app.bookkeeping import LEDGER_NAME
from exchange.app.reads import Books
from exchange.app.requests import AnyRequest
from exchange.app.settings import Serve
from exchange.app.wishes import RequestRefused
from exchange.clearing import Clearing
from exchange.gateway import observe
from exchange.gateway.access import Key
from exchange.gateway.dialects.deribit.room import Room
from exchange.gateway.hub import Hub
from exchange.gateway.operator import add_route
from exchange.gateway.rest import Rest
from exchange.gateway.server import Gateway
from exchange.journal.tape import Reel


class House(Protocol):
    """What a gateway needs of its market, in the same process or another."""

    async def healthy(self) -> Mapping[str, bool]:
        """Whether each part of the market runs."""
        ...

    async def ready(self) -> Mapping[str, bool]:
        """Whether each condition for processing orders holds."""
        ...

    async def metrics(self) -> bytes:
        """The market's figures in Prometheus' text format."""
        ...

    async def perform(self, request: AnyRequest, person: str) -> asking.Answer:
        """Perform an operator's request."""
        ...


class Door:
    """The gateway of a hub with its routes: ``gateway.run``, ``listen``, ``close``."""

    def __init__(
        self,
        hub: Hub,
        stream: Reel,
        clearing: Clearing,
        directory: Path,
        house: House,
        serve: Serve,
        *,
        apart: bool = False,
    ) -> None:
        """Build it without listening; ``apart`` as one of several gateways of the market. Raises
        RequestRefused if the settings' TLS files are unusable."""
        self._tls = tls_context(serve)
        self.gateway = Gateway(hub, origins=frozenset(serve.origins))
        self._rest = Rest(hub, stream, Books(clearing, directory / LEDGER_NAME))
        application = self.gateway.app

        async def answer(body: bytes, key: Key) -> bytes:
            return msgspec.json.encode(await admin.answer_signed(body, house.perform, key))

        add_route(application, hub.keys, hub.now_ms, answer, self._rest.count)
        self._rest.add_routes(application)
        observe.add_routes(
            application,
            house.metrics,
            healthy=house.healthy,
            ready=house.ready,
            metrics_for=serve.metrics,
        )
        if serve.deribit:
            Room(self.gateway, hub, self._rest, apart=apart)

    async def listen(self, host: str, port: int, *, shared: bool = False) -> int:
        """Listen for clients over TCP or TLS; return the port. ``shared``: other processes listen
        on it as well."""
        return await self.gateway.start(host, port, self._tls, shared=shared)

    async def close(self) -> None:
        """Stop HTTP reads, then the gateway with its connections."""
        self._rest.close()
        await self.gateway.close()


def tls_context(serve: Serve) -> ssl.SSLContext | None:
    """Return a context for TLS 1.2 and later with the settings' two PEM files; None without files.

    Raises RequestRefused, saying what is wrong with them.
    """
    certificate, key = serve.tls_certificate, serve.tls_key
    if not (certificate or key):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # SSLError is a subclass
        raise RequestRefused(f"no TLS with {certificate!r} and {key!r}: {error}") from error
    return context


def at(host: str, port: int) -> str:
    """Return host and port as an address has them: an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
