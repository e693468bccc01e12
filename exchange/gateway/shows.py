"""Long snapshots: one message of them a turn, so that nobody waits until a whole one is made.

What a channel says meanwhile waits behind its snapshot, whose messages are all of one sequence.
"""

from collections.abc import Sequence

from exchange.messages.wire import Response


class _Show:
    def __init__(self, messages: Sequence[Response]) -> None:
        self.messages = messages
        self.told = 0
        self.behind: list[bytes] = []


class Shows:
    """One connection's snapshots of which messages are still to be made, by channel."""

    def __init__(self) -> None:
        self.behind_bytes = 0  # of all that waits
        self.channels: dict[str, _Show] = {}

    def begin(self, channel: str, messages: Sequence[Response]) -> None:
        """Have a snapshot's messages told, each made when it is asked for."""
        self.forget(channel)
        self.channels[channel] = _Show(messages)

    def hold(self, channel: str, encoded: bytes) -> None:
        """Keep what a channel says behind its snapshot."""
        show = self.channels[channel]
        show.behind.append(encoded)
        self.behind_bytes += len(encoded)

    def tell(self) -> tuple[Response, list[bytes]]:
        """Return the next message of the first, and, with its last, what waits behind it."""
        channel, show = next(iter(self.channels.items()))
        message = show.messages[show.told]
        show.told += 1
        if show.told < len(show.messages):
            return message, []
        self.forget(channel)
        return message, show.behind

    def forget(self, channel: str) -> None:
        """Tell no more of a channel."""
        show = self.channels.pop(channel, None)
        if show is not None:
            self.behind_bytes -= sum(map(len, show.behind))

    def clear(self) -> None:
        """Tell no more of any."""
        self.channels.clear()
        self.behind_bytes = 0
