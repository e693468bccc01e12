"""The gateways' processes as the market sees them: which are alive, and which logons wait for them.

The market sends each gateway numbered beats, and a gateway sends them back among its commands. One
that stops sending them back hangs, and so does one that was started and makes no progress towards
serving. Once a beat is back, everything that the gateway had sent before has been read. A logon
waits for that from every other gateway through which its account has logged on, so that none of the
account's earlier commands can come after it. A gateway that is gone sends nothing more, and nothing
waits for it.
"""

from collections import Counter
from collections.abc import Collection
from typing import Final, NamedTuple

from exchange.app.gateway_link import Beat, Status, Wire
from exchange.gateway.seats import Owner, seats_of

BEAT_SECONDS: Final = 0.5


class Command(NamedTuple):
    """A client's command as it came from a gateway."""

    account: int
    record: bytes
    ingress: int
    text: str | None


class Life:
    """One process of a gateway: the ``number``-th of all, for gateway ``which``."""

    def __init__(self, number: int, which: int) -> None:
        self.number = number
        self.which = which
        self.listening = self.drained = False
        self.status = Status(0, 0, {}, {}, {})
        self.accounts: set[int] = set()  # accounts that asked to log on through it
        self.seats: Counter[Owner] = Counter()  # its connections, by address and by key
        self.unanswered = 0  # beats sent since it last returned one


class _Waiting(NamedTuple):
    """A logon that waits for commands of other gateways."""

    wire: Wire
    logon: Command
    beat: int
    others: set[Wire]  # gateways that have not returned the beat


class Lives(dict[Wire, Life]):
    """The connected gateways, and the logons that wait for some of them."""

    def __init__(self) -> None:
        super().__init__()
        self._known = 0
        self._beat = 0
        self._waiting: list[_Waiting] = []
        # Gateways started but not serving yet: beats since the last progress of each.
        self._starting: dict[int, int] = {}

    def start(self, which: int) -> None:
        """Note that a gateway's process was started."""
        self._starting[which] = 0

    def begin(self, wire: Wire, which: int) -> Life:
        """Note that a gateway has connected."""
        self._known += 1
        life = self[wire] = Life(self._known, which)
        self._come_nearer(which)
        return life

    def stand(self, life: Life, status: Status) -> None:
        """Note a gateway's status; a higher sequence is progress towards serving."""
        if status.sequence > life.status.sequence:
            self._come_nearer(life.which)
        life.status = status

    def serve(self, life: Life) -> None:
        """Note that a gateway serves clients."""
        life.listening = True
        self._starting.pop(life.which, None)

    def _come_nearer(self, which: int) -> None:
        if which in self._starting:
            self._starting[which] = 0

    def end(self, wire: Wire) -> Life | None:
        """Remove a gateway that is gone, and the waiting logons that came from it."""
        self._waiting = [one for one in self._waiting if one.wire is not wire]
        for one in self._waiting:
            one.others.discard(wire)
        return self.pop(wire, None)

    def beat(self, most: int) -> list[Wire]:
        """Send a beat to every gateway; return those with more than ``most`` unanswered.

        Beats are counted, not seconds, so that a pause of the market itself makes no gateway look
        silent.
        """
        serving = [wire for wire, life in self.items() if life.listening]
        for wire in serving:
            self[wire].unanswered += 1
        self._say(serving)
        return [wire for wire in serving if self[wire].unanswered > most]

    def stuck(self, most: int) -> list[int]:
        """Return the starting gateways without progress for more than ``most`` calls."""
        for which in self._starting:
            self._starting[which] += 1
        return [which for which, turns in self._starting.items() if turns > most]

    def heard(self, wire: Wire, number: int) -> None:
        """Note a beat that came back."""
        self[wire].unanswered = 0
        for one in self._waiting:
            if number >= one.beat:
                one.others.discard(wire)

    def must_wait(self, wire: Wire, logon: Command) -> bool:
        """Keep a logon for ``due`` if its account may have commands under way elsewhere; return
        whether it waits."""
        account = logon.account
        others = {
            other for other, life in self.items() if other is not wire and account in life.accounts
        }
        self[wire].accounts.add(account)
        if others:
            self._say(others)
            self._waiting.append(_Waiting(wire, logon, self._beat, others))
        return bool(others)

    def due(self) -> list[tuple[Wire, Command]]:
        """Return the logons that need not wait any longer, with the gateways that they came
        from."""
        found = [(one.wire, one.logon) for one in self._waiting if not one.others]
        self._waiting = [one for one in self._waiting if one.others]
        return found

    def seat(self, wire: Wire, owner: Owner) -> int:
        """Count a connection if its owner may have it; return the owner's number including it."""
        now = 1 + sum(life.seats[owner] for life in self.values())
        if now <= seats_of(owner):
            self[wire].seats[owner] += 1
        return now

    def leave(self, wire: Wire, owner: Owner) -> None:
        """Remove a connection from the count."""
        self[wire].seats[owner] -= 1
        self[wire].seats += Counter()  # removes zero counts

    def _say(self, wires: Collection[Wire]) -> None:
        self._beat += 1
        for wire in wires:
            wire.say(Beat(self._beat))
