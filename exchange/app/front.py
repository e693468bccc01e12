"""What of a market its clients meet: a gateway of the market's own process, or several apart."""

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
    """What serves the clients: ``prepare``, ``run`` in a task, ``caught_up``, ``listen``; then
    ``drain``, ``close``.
    """

    name: str  # of its part of the market
    restarts: int  # of processes that died

    @property
    def processes(self) -> int:
        """How many let clients in; 0: the market's own does."""
        ...

    @property
    def sequence(self) -> int:
        """The last command reported, by the slowest gateway."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """What waits for slow readers."""
        ...

    def connections(self) -> Mapping[str, int]:
        """How many connections there are, by stage."""
        ...

    def drop_revoked(self) -> None:
        """Close the connections whose key is gone."""
        ...

    def prepare(self) -> None:
        """Find what is wrong with the settings before anything runs. Raises RequestRefused."""
        ...

    async def run(self) -> None:
        """Serve until the stream ends, or raise why not."""
        ...

    async def caught_up(self) -> None:
        """Wait until all that was released is known to who will serve."""
        ...

    async def listen(self, host: str, port: int) -> int:
        """Let clients in; return the port."""
        ...

    def drain(self) -> None:
        """Take no more orders."""
        ...

    def has_told(self, sequence: int) -> bool:
        """Whether every connection was sent all there is to tell, up to that command."""
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
        """What waits for slow readers."""
        return unsent_bytes(self.hub)

    def connections(self) -> Mapping[str, int]:
        """How many connections there are, by stage."""
        return connections(self.hub)

    def drop_revoked(self) -> None:
        """Close the connections whose key is gone."""
        self.hub.drop_revoked()

    def prepare(self) -> None:
        """Make the gateway, and find what is wrong with its settings."""
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
        """Let clients in; return the port."""
        assert self._door is not None, "prepared"
        return await self._door.listen(host, port)

    def drain(self) -> None:
        """Take no more orders."""
        self.hub.drain()

    def has_told(self, sequence: int) -> bool:
        """Whether every connection was sent all there is to tell, up to that command."""
        assert self._door is not None, "prepared"
        return self.hub.sequence == sequence and self._door.gateway.idle

    async def close(self) -> None:
        """Close every connection."""
        if self._door is not None:
            await self._door.close()


def unsent_bytes(hub: Hub) -> int:
    """Return what waits for the connections of a hub."""
    return sum(session.backlog_bytes for session in hub.sessions.values())


def connections(hub: Hub) -> Counter[str]:
    """Return how many connections a hub has, by stage."""
    return Counter(session.stage.name.lower() for session in hub.sessions.values())
