"""The public side of a connection: channels joined, books kept, and what to send to repair them."""

from collections.abc import Callable, Iterable

from clients.book import Book, Step
from clients.decimals import PriceScale
from clients.errors import ProtocolError
from exchange.messages.wire import (
    AnyRequest,
    DepthDelta,
    DepthSnapshot,
    InstrumentData,
    Instruments,
    InstrumentState,
    Subscribe,
    Subscribed,
    Unsubscribed,
)


class Feed:
    """Instruments known, their last state, the channels joined, and a book per depth channel."""

    def __init__(self, next_id: Callable[[], str]) -> None:
        self.instruments: dict[str, InstrumentData] = {}
        self.scales: dict[str, PriceScale] = {}
        self.states: dict[str, InstrumentState] = {}
        self.books: dict[str, Book] = {}
        self.channels: set[str] = set()
        self._next_id = next_id
        self._repairing: set[str] = set()

    def adopt(self, answer: Instruments) -> None:
        """Take the exchange's list of instruments."""
        for data in answer.instruments:
            self.instruments[data.code] = data
            if data.code not in self.scales:
                self.scales[data.code] = PriceScale(data.tick, data.decimals)

    def book(self, instrument: str) -> Book:
        """The book of a listed instrument, WAITING until its depth channel is joined."""
        book = self.books.get(instrument)
        if book is None:
            if instrument not in self.scales:
                raise ProtocolError(f"depth of {instrument}, which no list of instruments named")
            book = self.books[instrument] = Book(instrument, self.scales[instrument])
        return book

    def joined(self, answer: Subscribed) -> None:
        """The exchange confirmed a subscription."""
        self.channels.update(answer.channels)
        self._repairing.difference_update(answer.channels)

    def left(self, answer: Unsubscribed) -> None:
        """The exchange confirmed that channels are left."""
        for channel in answer.channels:
            self.channels.discard(channel)
            kind, _, code = channel.partition(".")
            if kind == "depth" and code in self.books:
                self.books[code].forget()

    def depth(self, message: DepthSnapshot | DepthDelta) -> list[AnyRequest]:
        """Take depth in; return what to send, which is nothing unless the book is broken.

        Joining a channel again brings a snapshot in band.
        """
        channel = f"depth.{message.instrument}"
        if self.book(message.instrument).apply(message) is not Step.REPAIR:
            return []
        if channel in self._repairing:
            return []
        self._repairing.add(channel)
        return [Subscribe(request_id=self._next_id(), channels=[channel])]

    def lost(self) -> None:
        """The connection is gone: no book is current."""
        self._repairing.clear()
        for book in self.books.values():
            book.forget()

    def rejoin(self, except_for: Iterable[str]) -> list[AnyRequest]:
        """What to send on a new connection to be in the channels of the old one."""
        channels = sorted(self.channels.difference(except_for))
        return [Subscribe(request_id=self._next_id(), channels=channels)] if channels else []
