"""Limits on the connections of an address and on the logged-on connections of a key."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

from exchange.gateway.access import is_loopback
from exchange.gateway.decode import Refused
from exchange.messages.access import GatewayReason

ADDRESS_CONNECTIONS: Final = 32
LOOPBACK_CONNECTIONS: Final = 4_096
KEY_CONNECTIONS: Final = 16  # logged on with one key at a time
Owner = tuple[Literal["address", "key"], str]


def connections_allowed(address: str) -> int:
    """Return how many connections an address may have; loopback is shared by many programs."""
    return LOOPBACK_CONNECTIONS if is_loopback(address) else ADDRESS_CONNECTIONS


def seats_of(owner: Owner, of_address: Callable[[str], int] = connections_allowed) -> int:
    """Return how many connections an owner may have."""
    return KEY_CONNECTIONS if owner[0] == "key" else of_address(owner[1])


class Seats:
    """Counts the connections of one gateway; several gateways of a market share one count."""

    def __init__(self, of_address: Callable[[str], int] = connections_allowed) -> None:
        self._of_address = of_address
        self._taken: Counter[Owner] = Counter()

    def take(self, owner: Owner, told: Callable[[int], None]) -> None:
        """Count a connection if its owner may have it; call ``told`` with the count including it.

        Pass that count to ``check``. A subclass may call ``told`` later.
        """
        now = self._taken[owner] + 1
        if now <= seats_of(owner, self._of_address):
            self._taken[owner] = now
        told(now)

    def leave(self, owner: Owner) -> None:
        """Stop counting a connection."""
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]

    def check(self, owner: Owner, now: int) -> None:
        """Raise Refused CONNECTIONS_FULL if ``now`` is more than the owner may have."""
        most = seats_of(owner, self._of_address)
        if now > most:
            field = "key_id" if owner[0] == "key" else None
            limit, observed = str(most), str(now)
            raise Refused(GatewayReason.CONNECTIONS_FULL, field, limit=limit, observed=observed)

    async def admit(self, address: str) -> Owner:
        """Count a connection of an address; raises Refused CONNECTIONS_FULL."""
        owner: Owner = ("address", address)
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.take(owner, told.set_result)
        self.check(owner, await told)
        return owner
