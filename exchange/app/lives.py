"""The lives of the gateways, as the market's process sees them: who lives, and who waits for whom.

A gateway gives every beat back in the stream of its commands. One that gives none back hangs, and
so does one that was started and comes no nearer to letting clients in. And once a beat is back, all
that the gateway had sent before has been read: a logon waits for that at every other gateway that
its account has logged on through, so that none of the account's earlier commands comes behind it. A
gateway that is gone has nothing more to say, and nobody waits for it.
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
    """One run of one gateway: the ``number``-th of all, of the gateway ``which``."""

    def __init__(self, number: int, which: int) -> None:
        self.number = number
        self.which = which
        self.listening = self.drained = False
        self.status = Status(0, 0, {}, {}, {})
        self.accounts: set[int] = set()  # that asked to log on through it
        self.seats: Counter[Owner] = Counter()  # its connections, by address and by key
        self.unanswered = 0  # beats said since it last gave one back


class _Waiting(NamedTuple):
    """A logon behind the commands of other gateways."""

    wire: Wire
    logon: Command
    beat: int
    others: set[Wire]  # that have not given the beat back


class Lives(dict[Wire, Life]):
    """The gateways that are connected, and the logons that wait for some of them."""

    def __init__(self) -> None:
        super().__init__()
        self._known = 0
        self._beat = 0
        self._waiting: list[_Waiting] = []
        # Of gateways that were started and let nobody in yet: beats since each last came nearer.
        self._starting: dict[int, int] = {}

    def start(self, which: int) -> None:
        """Expect a gateway whose process was begun."""
        self._starting[which] = 0

    def begin(self, wire: Wire, which: int) -> Life:
        """Take in a gateway that has connected."""
        self._known += 1
        life = self[wire] = Life(self._known, which)
        self._come_nearer(which)
        return life

    def stand(self, life: Life, status: Status) -> None:
        """Take how a gateway stands: further in the stream is nearer to letting clients in."""
        if status.sequence > life.status.sequence:
            self._come_nearer(life.which)
        life.status = status

    def serve(self, life: Life) -> None:
        """Take that a gateway lets clients in."""
        life.listening = True
        self._starting.pop(life.which, None)

    def _come_nearer(self, which: int) -> None:
        if which in self._starting:
            self._starting[which] = 0

    def end(self, wire: Wire) -> Life | None:
        """Forget a gateway that is gone, with the logons that came from it."""
        self._waiting = [one for one in self._waiting if one.wire is not wire]
        for one in self._waiting:
            one.others.discard(wire)
        return self.pop(wire, None)

    def beat(self, most: int) -> list[Wire]:
        """Say a beat to every gateway; return those that have left more than ``most`` unanswered.

        Turns of the market are counted, not seconds: one that stood still finds nobody silent.
        """
        serving = [wire for wire, life in self.items() if life.listening]
        for wire in serving:
            self[wire].unanswered += 1
        self._say(serving)
        return [wire for wire in serving if self[wire].unanswered > most]

    def stuck(self, most: int) -> list[int]:
        """Return the gateways that came no nearer to letting clients in for more than ``most`` of
        these turns."""
        for which in self._starting:
            self._starting[which] += 1
        return [which for which, turns in self._starting.items() if turns > most]

    def heard(self, wire: Wire, number: int) -> None:
        """Take a beat that came back."""
        self[wire].unanswered = 0
        for one in self._waiting:
            if number >= one.beat:
                one.others.discard(wire)

    def must_wait(self, wire: Wire, logon: Command) -> bool:
        """Keep a logon for ``due`` where its account may have commands under way elsewhere."""
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
        """Return the logons that need wait no longer, and the gateways that they came from."""
        found = [(one.wire, one.logon) for one in self._waiting if not one.others]
        self._waiting = [one for one in self._waiting if one.others]
        return found

    def seat(self, wire: Wire, owner: Owner) -> int:
        """Count a connection if its owner may have it; return how many there are with it."""
        now = 1 + sum(life.seats[owner] for life in self.values())
        if now <= seats_of(owner):
            self[wire].seats[owner] += 1
        return now

    def leave(self, wire: Wire, owner: Owner) -> None:
        """Count a connection no longer."""
        self[wire].seats[owner] -= 1
        self[wire].seats += Counter()  # keeps what is above zero

    def _say(self, wires: Collection[Wire]) -> None:
        self._beat += 1
        for wire in wires:
            wire.say(Beat(self._beat))
