"""Who is in which public channel, and what each channel has said lately.

A message is encoded once per codec, whoever gets it. A channel that everybody has left is followed
for ``LINGER_BEATS`` more, so that one whose connection broke can go on where it was.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from exchange.gateway.decode import Refused
from exchange.gateway.session import ENCODERS, Session
from exchange.marketdata.feed import Feed
from exchange.marketdata.picture import Name
from exchange.marketdata.pictures import is_pictured
from exchange.messages import Reason
from exchange.messages.access import GatewayReason
from exchange.messages.wire import Response
from exchange.messages.wire_market import PICTURES, QUEUE_ORDERS, RESUME_MESSAGES

LINGER_BEATS: Final = 6  # heartbeats for which a channel without members is followed


class Recent:
    """The last messages of a channel. ``floor``: all that came after that sequence are here."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._messages: deque[Response] = deque()

    def note(self, message: Response) -> None:
        """Remember one more."""
        self._messages.append(message)
        if len(self._messages) > RESUME_MESSAGES:
            self.floor = _sequence(self._messages.popleft())

    def since(self, after: int) -> list[Response] | None:
        """Return what came after a sequence; None if some of it is forgotten."""
        if after < self.floor:
            return None
        return [message for message in self._messages if _sequence(message) > after]


class Channels:
    """The public channels that connections have joined. ``in`` tells whether one is followed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._members: dict[str, dict[int, Session]] = {}  # by connection number
        self._recent: dict[str, Recent] = {}
        self._lingering: dict[str, int] = {}  # beats left, of channels without members
        self._looks = 0
        self._shown: dict[str, Sequence[Response]] = {}  # queues as of ``_shown_at``, a sequence
        self._shown_at = -1

    def __contains__(self, channel: object) -> bool:
        return channel in self._members

    def check(self, names: Iterable[str]) -> None:
        """Refuse names that are no channels', and more pictures than there may be."""
        feed = self._feed
        found: dict[str, Name] = {}
        for name in names:
            try:
                found[name] = feed.named(name)
            except KeyError:
                why, observed = "no such channel", ascii(name[:80])[1:-1]
                raise Refused(Reason.NOT_FOUND, "channels", why, observed=observed) from None
        wanted = sum(name not in feed.pictures and is_pictured(one) for name, one in found.items())
        if wanted and len(feed.pictures) + wanted > PICTURES:
            now = str(len(feed.pictures) + wanted)
            whose = "of all connections"
            raise Refused(
                Reason.SUBSCRIPTIONS_FULL, "channels", whose, limit=str(PICTURES), observed=now
            )
        for name, one in found.items():
            self._check_queue(name, one)

    def join(self, session: Session, names: list[str], after: int | None) -> list[str]:
        """Add a connection to channels that exist; return those that go on after the sequence."""
        resumed = []
        for name in names:
            if name not in self._members:
                self._feed.join(name)
                self._members[name] = {}
                self._recent[name] = Recent(_sequence(self._feed.heartbeat(name)))
            if after is not None and self._goes_on(name, after):
                resumed.append(name)
            self._members[name][session.number] = session
            self._lingering.pop(name, None)
        session.channels.update(names)
        session.forget(names)
        return resumed

    def _goes_on(self, name: str, after: int) -> bool:
        """Whether all that came after a sequence is remembered; what a conflated channel has still
        to say may be of before it."""
        return not self._feed.named(name).period and self._recent[name].since(after) is not None

    def missed(self, name: str, after: int) -> list[Response]:
        """Return what a channel that was resumed said after the sequence, and where it stands."""
        missed = self._recent[name].since(after)
        assert missed is not None, "resumed"
        return [*missed, self._feed.heartbeat(name)]

    def snapshot(self, name: str, sequence: int) -> Sequence[Response]:
        """Return a channel's first messages; raises Refused of a queue that is too long.

        A queue's is made once for all who ask before the next batch.
        """
        found = self._feed.named(name)
        self._check_queue(name, found)
        if found.kind != "queue":
            return self._feed.snapshot(name, sequence)
        if sequence != self._shown_at:
            self._shown_at = sequence
            self._shown.clear()
        if name not in self._shown:
            self._shown[name] = self._feed.snapshot(name, sequence)
        return self._shown[name]

    def _check_queue(self, name: str, found: Name) -> None:
        if found.kind == "queue":
            orders = len(self._feed.queues[self._feed.instruments.by_code[found.code].id])
            if orders > QUEUE_ORDERS:
                limit, now = str(QUEUE_ORDERS), str(orders)
                raise Refused(
                    GatewayReason.QUEUE_TOO_LONG, "channels", name, limit=limit, observed=now
                )

    def leave(self, session: Session, names: list[str]) -> None:
        """Take a connection from channels that it has."""
        for name in names:
            members = self._members[name]
            del members[session.number]
            if not members:
                self._lingering[name] = LINGER_BEATS
        session.channels.difference_update(names)
        session.forget(names)

    def publish(self, name: str, message: Response, *, news: bool = True) -> dict[int, Session]:
        """Queue a message, encoded once per codec; return the channel's members."""
        members = self._members[name]
        if news:
            self._recent[name].note(message)
        encoded: list[bytes | None] = [None, None]
        conflates = self._feed.pictured(name)
        for session in list(members.values()):
            data = encoded[session.codec]
            if data is None:
                data = encoded[session.codec] = ENCODERS[session.codec](message)
            if conflates:
                session.push_picture(name, data)
            else:
                session.push(data)
        return members

    def beat(self) -> None:
        """Send every channel's heartbeat; forget those that nobody has come back to."""
        for name in list(self._lingering):
            self._lingering[name] -= 1
            if not self._lingering[name]:
                del self._lingering[name], self._members[name], self._recent[name]
                self._feed.leave(name)
        for name, members in self._members.items():
            message = self._feed.heartbeat(name)
            news = _sequence(message) != getattr(message, "previous_sequence", None)
            if members or news:
                self.publish(name, message, news=news)

    def tick(self) -> dict[int, Session]:
        """Send what the conflated channels have to say; return who is told."""
        self._looks += 1
        told: dict[int, Session] = {}
        for name, message in self._feed.tick(self._looks):
            told.update(self.publish(name, message))
        return told


def _sequence(message: Any) -> int:
    """Return the sequence that every public message has."""
    sequence: int = message.sequence
    return sequence
