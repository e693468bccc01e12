"""How many connections a peer's address may have, and has."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from exchange.gateway.access import peer
from exchange.gateway.decode import Refused
from exchange.messages.access import GatewayReason

ADDRESS_CONNECTIONS: Final = 32
LOOPBACK_CONNECTIONS: Final = 4_096


def connections_allowed(address: str) -> int:
    """Return how many connections an address may have: this machine's own are many programs'."""
    found = peer(address)
    return LOOPBACK_CONNECTIONS if found is not None and found.is_loopback else ADDRESS_CONNECTIONS


class Seats:
    """The connections of one gateway. Where there are several, one count is kept for them all."""

    def __init__(self, allowed: Callable[[str], int] = connections_allowed) -> None:
        self._allowed = allowed
        self._taken: Counter[str] = Counter()

    async def take(self, address: str) -> None:
        """Count a connection; raises Refused if its address has as many as it may."""
        now = self._taken[address] + 1
        self.check(address, now)
        self._taken[address] = now

    def leave(self, address: str) -> None:
        """Count a connection no longer."""
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]

    def check(self, address: str, now: int) -> None:
        """Raise Refused if a connection would be one too many."""
        most = self._allowed(address)
        if now > most:
            raise Refused(GatewayReason.CONNECTIONS_FULL, limit=str(most), observed=str(now))
