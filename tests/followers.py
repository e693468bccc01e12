"""The client's own copies, fed by the exchange's own messages without a wire between them."""

import itertools
from collections.abc import Iterable

from clients.errors import ProtocolError
from clients.feed import AnyPublic
from clients.feed import Feed as Copies
from exchange.marketdata.feed import Feed
from exchange.messages import wire


class Follower:
    """One subscriber of some channels, which repairs itself as a client does."""

    def __init__(self, feed: Feed, channels: Iterable[str] = ()) -> None:
        self.feed = feed
        ids = itertools.count()
        self.copies = Copies(lambda: f"f{next(ids)}")
        self.heard: list[object] = []  # what a user is told
        self.repairs = 0
        self.sequence = 0
        self.adopt()
        self.join(channels)

    def adopt(self) -> None:
        """Learn what is listed."""
        listed = [one.describe() for one in self.feed.instruments.by_id.values()]
        self.copies.adopt(wire.Instruments(sequence=0, instruments=listed))

    def join(self, channels: Iterable[str]) -> None:
        """Join channels, and take their snapshots."""
        for channel in channels:
            self.feed.join(channel)
            self.copies.joined(wire.Subscribed(request_id="s", channels=[channel]))
            self.take(self.feed.snapshot(channel, self.sequence))

    def take(self, messages: Iterable[wire.Response]) -> None:
        """Take messages of one's channels; what is asked for comes at once."""
        asked = []
        for message in messages:
            if not isinstance(message, AnyPublic):
                raise ProtocolError(f"{type(message).__name__} is no public data")
            told, send = self.copies.take(message)
            self.heard.append(told)
            asked += [request for request in send if isinstance(request, wire.Subscribe)]
        self.repairs += len(asked)
        for request in asked:
            self.join(request.channels)

    def told(self, batch: Iterable[tuple[str, wire.Response]]) -> None:
        """Take what a released batch says, as far as it is of one's channels."""
        self.take([message for name, message in batch if name in self.copies.channels])
