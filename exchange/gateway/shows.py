"""Long snapshots, sent one message per turn, so that no other reader waits for a whole one.

All messages of a snapshot have one sequence; later messages of its channel are held until it is
complete.
"""

from collections.abc import Sequence

from exchange.messages.wire import Response


class _Show:
    def __init__(self, messages: Sequence[Response]) -> None:
        self.messages = messages
        self.told = 0
        self.behind: list[bytes] = []


class Shows:
    """One connection's unfinished snapshots, by channel."""

    def __init__(self) -> None:
        self.behind_bytes = 0  # encoded bytes of all held messages
        self.channels: dict[str, _Show] = {}

    def begin(self, channel: str, messages: Sequence[Response]) -> None:
        """Start a snapshot; each of its messages is built when it is taken."""
        self.forget(channel)
        self.channels[channel] = _Show(messages)

    def hold(self, channel: str, encoded: bytes) -> None:
        """Hold a message of a channel until its snapshot is complete."""
        show = self.channels[channel]
        show.behind.append(encoded)
        self.behind_bytes += len(encoded)

    def tell(self) -> tuple[Response, list[bytes]]:
        """Return the oldest snapshot's next message, and with its last one the held messages."""
        channel, show = next(iter(self.channels.items()))
        message = show.messages[show.told]
        show.told += 1
        if show.told < len(show.messages):
            return message, []
        self.forget(channel)
        return message, show.behind

    def forget(self, channel: str) -> None:
        """Drop a channel's snapshot and held messages."""
        show = self.channels.pop(channel, None)
        if show is not None:
            self.behind_bytes -= sum(map(len, show.behind))

    def clear(self) -> None:
        """Drop all snapshots and held messages."""
        self.channels.clear()
        self.behind_bytes = 0
