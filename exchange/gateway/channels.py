"""The subscribers of each public channel, and its recent messages.

A message is encoded once per codec for all subscribers. A channel without subscribers is kept for
``LINGER_BEATS`` heartbeats, so that a client whose connection broke can resume it.
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

LINGER_BEATS: Final = 6  # heartbeats for which a channel without subscribers is kept


class Recent:
    """The last messages of a channel: all after the sequence ``floor``."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._messages: deque[Response] = deque()

    def note(self, message: Response) -> None:
        """Add a message; the oldest beyond ``RESUME_MESSAGES`` is dropped."""
        self._messages.append(message)
        if len(self._messages) > RESUME_MESSAGES:
            self.floor = _sequence(self._messages.popleft())

    def since(self, after: int) -> list[Response] | None:
        """Return the messages after a sequence; None if some of them were dropped."""
        if after < self.floor:
            return None
        return [message for message in self._messages if _sequence(message) > after]


class Channels:
    """The subscribed public channels. ``name in channels`` tells whether one is followed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._members: dict[str, dict[int, Session]] = {}  # by connection number
        self._recent: dict[str, Recent] = {}
        self._lingering: dict[str, int] = {}  # heartbeats left of channels without subscribers
        self._looks = 0  # ticks counted, for the conflated channels
        self._shown: dict[str, Sequence[Response]] = {}  # queue snapshots at sequence ``_shown_at``
        self._shown_at = -1

    def __contains__(self, channel: object) -> bool:
        return channel in self._members

    def check(self, names: Iterable[str]) -> None:
        """Check the names of a subscription.

        Raises Refused NOT_FOUND for an unknown channel, SUBSCRIPTIONS_FULL beyond ``PICTURES``
        conflated or limited channels of all connections, QUEUE_TOO_LONG.
        """
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
        """Add a connection to channels that ``check`` accepted; return those that resume after the
        sequence ``after``."""
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
        """Whether a channel can resume after a sequence: all messages since are kept.

        A conflated channel cannot: its pending message may cover changes before the sequence.
        """
        return not self._feed.named(name).period and self._recent[name].since(after) is not None

    def missed(self, name: str, after: int) -> list[Response]:
        """Return a resumed channel's messages after the sequence, and its heartbeat."""
        missed = self._recent[name].since(after)
        assert missed is not None, "resumed"
        return [*missed, self._feed.heartbeat(name)]

    def snapshot(self, name: str, sequence: int) -> Sequence[Response]:
        """Return a channel's first messages; raises Refused QUEUE_TOO_LONG.

        A queue's snapshot is made once for all subscriptions before the next batch.
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
        """Remove a connection from channels that it is subscribed to."""
        for name in names:
            members = self._members[name]
            del members[session.number]
            if not members:
                self._lingering[name] = LINGER_BEATS
        session.channels.difference_update(names)
        session.forget(names)

    def publish(self, name: str, message: Response, *, news: bool = True) -> dict[int, Session]:
        """Queue a message for the subscribers, encoded once per codec; return the subscribers.

        ``news`` keeps it for resumption.
        """
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
        """Publish every channel's heartbeat; drop channels without subscribers for too long."""
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
        """Publish the pending messages of conflated channels; return their subscribers."""
        self._looks += 1
        told: dict[int, Session] = {}
        for name, message in self._feed.tick(self._looks):
            told.update(self.publish(name, message))
        return told


def _sequence(message: Any) -> int:
    """Return a public message's sequence."""
    sequence: int = message.sequence
    return sequence
