"""The part of a market that clients meet: a gateway in the market's own process, or several
processes."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from exchange.app.door import Door
from exchange.gateway.hub import Hub
from exchange.gateway.metrics import Metrics
from exchange.gateway.session import Stage
from exchange.journal.tape import Tape

POLL_SECONDS: Final = 0.001
STAGES: Final = tuple(stage.name.lower() for stage in Stage if stage is not Stage.CLOSED)


class Front(Protocol):
    """The front of a market: ``prepare``, ``run`` in a task, ``caught_up``, ``listen``; then
    ``drain``, ``close``."""

    name: str  # of its task in the market
    restarts: int  # of gateway processes that died

    @property
    def processes(self) -> int:
        """Number of processes that serve clients; 0 if the market's own does."""
        ...

    @property
    def sequence(self) -> int:
        """The last command reported by the slowest gateway."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """Bytes waiting for slow readers."""
        ...

    def connections(self) -> Mapping[str, int]:
        """Number of connections, by stage."""
        ...

    def drop_revoked(self) -> None:
        """Close the connections whose key was revoked."""
        ...

    def prepare(self) -> None:
        """Check the settings before anything runs. Raises RequestRefused."""
        ...

    async def run(self) -> None:
        """Serve until the stream ends, or raise the failure."""
        ...

    async def caught_up(self) -> None:
        """Wait until the serving gateways have read all that was released."""
        ...

    async def listen(self, host: str, port: int) -> int:
        """Listen for clients; return the port."""
        ...

    def drain(self) -> None:
        """Accept no more orders."""
        ...

    def has_told(self, sequence: int) -> bool:
        """Whether every connection was sent everything up to that command."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class Inside:
    """The gateway of the market's own process."""

    name = "gateway"
    processes = restarts = 0

    def __init__(
        self, hub: Hub, tape: Tape, metrics: Metrics, open_door: Callable[[], Door]
    ) -> None:
        self.hub = hub
        self._tape = tape
        self._metrics = metrics
        self._open_door = open_door
        self._door: Door | None = None

    @property
    def sequence(self) -> int:
        """The last command reported."""
        return self.hub.sequence

    @property
    def unsent_bytes(self) -> int:
        """Bytes waiting for slow readers."""
        return unsent_bytes(self.hub)

    def connections(self) -> Mapping[str, int]:
        """Number of connections, by stage."""
        return connections(self.hub)

    def drop_revoked(self) -> None:
        """Close the connections whose key was revoked."""
        self.hub.drop_revoked()

    def prepare(self) -> None:
        """Create the gateway, which checks its settings."""
        self._door = self._open_door()

    async def run(self) -> None:
        """Follow the stream."""
        assert self._door is not None, "prepared"
        await self._door.gateway.run()

    async def caught_up(self) -> None:
        """Wait until the hub has read what was released."""
        while self.hub.sequence < self._tape.last[1]:
            await asyncio.sleep(POLL_SECONDS)
        self.hub.metrics = self._metrics

    async def listen(self, host: str, port: int) -> int:
        """Listen for clients; return the port."""
        assert self._door is not None, "prepared"
        return await self._door.listen(host, port)

    def drain(self) -> None:
        """Accept no more orders."""
        self.hub.drain()

    def has_told(self, sequence: int) -> bool:
        """Whether every connection was sent everything up to that command."""
        assert self._door is not None, "prepared"
        return self.hub.sequence == sequence and self._door.gateway.idle

    async def close(self) -> None:
        """Close every connection."""
        if self._door is not None:
            await self._door.close()


def unsent_bytes(hub: Hub) -> int:
    """Return the bytes waiting for the connections of a hub."""
    return sum(session.backlog_bytes for session in hub.sessions.values())


def connections(hub: Hub) -> Counter[str]:
    """Return a hub's number of connections, by stage."""
    return Counter(session.stage.name.lower() for session in hub.sessions.values())
