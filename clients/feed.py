"""The public side of a connection: subscriptions, local copies, and their repair."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, Final, TypeAlias, TypeVar

from clients.book import Book, QueueBook, TopBook
from clients.decimals import PriceScale
from clients.errors import ProtocolError, ValueRefused
from clients.local import BookState, Local, Step
from clients.marks import AnyOnce, AnyPrint, Marked, Missed, channel_of
from exchange.messages.wire import (
    AnyRequest,
    ChannelMark,
    DepthDelta,
    DepthSnapshot,
    FactorsPublished,
    IndexFixing,
    InstrumentData,
    Instruments,
    InstrumentState,
    InstrumentStatistics,
    Ping,
    QueueDelta,
    QueueSnapshot,
    Rejected,
    SettlementPrice,
    Subscribe,
    Subscribed,
    TopOfBook,
    Unsubscribed,
)

AnyPicture: TypeAlias = (
    DepthSnapshot | DepthDelta | QueueSnapshot | QueueDelta | TopOfBook | InstrumentStatistics
)
AnyPublic: TypeAlias = AnyPicture | AnyOnce | ChannelMark
Told: TypeAlias = AnyPicture | AnyOnce | Missed
_Copy = TypeVar("_Copy", Book, QueueBook, TopBook)
_COPIED: Final = frozenset({"depth", "queue", "top"})  # channels with a local copy


class States(dict[str, InstrumentState]):
    """The last state of each instrument whose state channel is subscribed."""

    def __missing__(self, code: str) -> InstrumentState:
        raise KeyError(f"nothing is known of {code}: subscribe to state.{code} first")


class Feed:
    """The known instruments, the subscribed channels, a local copy per channel of a book, and the
    last states, statistics, settlement prices, fixings and factor tables."""

    def __init__(self, next_id: Callable[[], str]) -> None:
        self.instruments: dict[str, InstrumentData] = {}
        self.scales: dict[str, PriceScale] = {}
        self.states = States()
        self.statistics: dict[str, InstrumentStatistics] = {}
        self.settlements: dict[str, SettlementPrice] = {}
        self.fixings: dict[str, IndexFixing] = {}
        self.factors: dict[tuple[str, str], FactorsPublished] = {}  # by grade and expiry
        self.copies: dict[str, Local] = {}  # by channel
        self.marks: dict[str, Marked] = {}  # by channel
        self.channels: set[str] = set()
        self.sequence = 0  # all channels are complete up to here
        self._next_id = next_id
        self._is_behind = False  # channels are being subscribed again, from ``sequence`` on
        self._repairing: set[str] = set()
        # Subscriptions made by the feed itself, by request id
        self._asked: dict[str, Subscribe] = {}
        self._later: list[Subscribe] = []  # refused for now: repeated at the next heartbeat

    def adopt(self, answer: Instruments) -> None:
        """Apply the exchange's list of instruments."""
        for data in answer.instruments:
            self.instruments[data.code] = data
            if data.code not in self.scales:
                self.scales[data.code] = PriceScale(data.tick, data.decimals)

    def book(self, instrument: str, cut: str = "") -> Book:
        """Return the book of a listed instrument, WAITING until its depth channel is subscribed.
        ``cut`` is the rest of the channel's name, such as ``top10.100ms``. Raises ValueRefused."""
        return self._copy(Book, _channel("depth", self._listed(instrument), cut), instrument)

    def queue(self, instrument: str, cut: str = "") -> QueueBook:
        """Return every order of a listed instrument's book; likewise for its queue channel."""
        return self._copy(QueueBook, _channel("queue", self._listed(instrument), cut), instrument)

    def top(self, instrument: str, cut: str = "") -> TopBook:
        """Return the best levels of a listed instrument; likewise for its top channel."""
        return self._copy(TopBook, _channel("top", self._listed(instrument), cut), instrument)

    def _listed(self, instrument: str) -> str:
        """Return the code if the exchange has listed it. Raises ValueRefused."""
        if instrument not in self.scales:
            near = ", ".join(get_close_matches(instrument, self.scales)) or "nothing like it"
            raise ValueRefused(f"no instrument is called {instrument!r}; there is {near}")
        return instrument

    def _copy(self, kind: type[_Copy], channel: str, instrument: str) -> _Copy:
        copy = self.copies.get(channel)
        if copy is None:
            if instrument not in self.scales:
                raise ProtocolError(f"{channel}, but no list of instruments named {instrument}")
            copy = self.copies[channel] = kind(instrument, self.scales[instrument], channel)
        if not isinstance(copy, kind):
            raise ProtocolError(f"a message of another kind on {channel}")
        return copy

    def can_show(self, channels: Iterable[str]) -> bool:
        """Whether the instruments of all channels with a copy are known, since a copy needs their
        tick. If not, query the instruments before subscribing."""
        named = (channel.split(".") for channel in channels)
        return all(rest[0] in self.scales for kind, *rest in named if kind in _COPIED and rest)

    def joined(self, answer: Subscribed) -> None:
        """Note that the exchange confirmed a subscription."""
        self._asked.pop(answer.request_id, None)
        self.channels.update(answer.channels)
        self._repairing.difference_update(answer.channels)
        for channel in answer.resumed:
            if channel in self.copies:
                self.copies[channel].resume()

    def left(self, answer: Unsubscribed) -> None:
        """Note that the exchange confirmed the end of subscriptions."""
        for channel in answer.channels:
            self._leave(channel)

    def _leave(self, channel: str) -> None:
        self.channels.discard(channel)
        self.marks.pop(channel, None)
        if channel in self.copies:
            self.copies[channel].forget()
        self._forget(*channel.split("."))

    def _forget(self, kind: str, code: str = "", *_: str) -> None:
        """Drop what a channel that was left has shown: it would stay as it is, and look current."""
        if kind == "state":
            self.states.pop(code, None)
        elif kind == "statistics":
            if not any(one.split(".")[:2] == [kind, code] for one in self.channels):
                self.statistics.pop(code, None)
        elif kind in ("settlements", "fixings", "factors"):
            shown: dict[str, dict[Any, Any]] = {
                "settlements": self.settlements, "fixings": self.fixings, "factors": self.factors
            }  # fmt: skip
            shown[kind].clear()

    def beat(self, sequence: int) -> list[AnyRequest]:
        """Handle a heartbeat of a ready connection, and return the requests to send. The channels
        are complete up to its sequence, unless a subscription is still under way."""
        if not self._asked and not self._later:
            self._is_behind = False
            self._advance(sequence)
        later, self._later = self._later, []
        return [again for one in later for again in self._subscribe(one.channels, one.after)]

    def _advance(self, sequence: int) -> None:
        if not self._is_behind:
            self.sequence = max(self.sequence, sequence)

    def take(self, message: AnyPublic) -> tuple[Told | None, list[AnyRequest]]:
        """Handle public data; return the event to deliver and the requests to send.

        Requests are needed only if a copy is wrong or a message missing: subscribing again repairs
        both.
        """
        if isinstance(message, ChannelMark):
            return self._mark(message)
        if isinstance(message, AnyOnce):
            channel = channel_of(message)
            if not self._marked(channel).take(message):
                return None, []
            self._keep(message)
            return message, []
        self._advance(message.sequence)
        if isinstance(message, InstrumentStatistics):
            self.statistics[message.instrument] = message
            return message, []
        return message, self._show(message)

    def _show(
        self, message: DepthSnapshot | DepthDelta | QueueSnapshot | QueueDelta | TopOfBook
    ) -> list[AnyRequest]:
        code = message.instrument
        channel = message.channel or f"depth.{code}"
        if isinstance(message, DepthSnapshot | DepthDelta):
            step = self._copy(Book, channel, code).apply(message)
        elif isinstance(message, TopOfBook):
            step = self._copy(TopBook, channel, code).apply(message)
        else:
            step = self._copy(QueueBook, channel, code).apply(message)
        return self._repair(channel) if step is Step.REPAIR else []

    def _mark(self, mark: ChannelMark) -> tuple[Missed | None, list[AnyRequest]]:
        known = self._marked(mark.channel)
        before = known.sequence
        outcome = known.close(mark)
        self._advance(mark.sequence)
        if isinstance(outcome, Missed):
            return outcome, []
        return None, [] if outcome else self._repair(mark.channel, before)

    def _marked(self, channel: str) -> Marked:
        found = self.marks.get(channel)
        if found is None:
            found = self.marks[channel] = Marked(channel)
        return found

    def _keep(self, message: AnyOnce) -> None:
        if isinstance(message, InstrumentState):
            self.states[message.instrument] = message
        elif isinstance(message, AnyPrint):
            self._print(message)

    def _print(self, message: AnyPrint) -> None:
        if isinstance(message, SettlementPrice):
            self.settlements[message.instrument] = message
        elif isinstance(message, FactorsPublished):
            self.factors[message.grade, message.expiry] = message
        else:
            known = self.fixings.get(message.name)
            if known is None or (known.date, known.revision) <= (message.date, message.revision):
                self.fixings[message.name] = message

    def _repair(self, channel: str, after: int | None = None) -> list[AnyRequest]:
        if channel in self._repairing:
            return []
        self._repairing.add(channel)
        return self._subscribe([channel], after)

    def _subscribe(self, channels: list[str], after: int | None) -> list[AnyRequest]:
        request = Subscribe(request_id=self._next_id(), channels=channels, after=after)
        self._asked[request.request_id] = request
        self._is_behind = True
        return [request]

    def refused(self, rejected: Rejected) -> list[AnyRequest]:
        """Return the requests to send after a subscription of the feed itself was rejected.

        If the exchange cannot continue from the given sequence, the channels are subscribed from
        the start. A retryable reject is repeated at the next heartbeat. Otherwise one of the
        channels cannot be subscribed: each half is tried, and so on, until that channel is alone;
        it is then given up.
        """
        request = self._asked.pop(rejected.request_id or "", None)
        if request is None:
            return []
        channels = request.channels
        self._repairing.difference_update(channels)
        if rejected.retryable:
            self._later.append(request)
            return []
        if rejected.field == "after" and request.after is not None:
            return self._subscribe(channels, None)
        if len(channels) == 1:
            self._leave(channels[0])
            return []
        middle = len(channels) // 2
        first, second = channels[:middle], channels[middle:]
        return self._subscribe(first, request.after) + self._subscribe(second, request.after)

    def lost(self) -> None:
        """Note that the connection is gone: no copy is current."""
        self._is_behind = True
        self._repairing.clear()
        self._asked.clear()
        self._later.clear()
        for copy in self.copies.values():
            copy.pause()

    def rejoin(self, except_for: Iterable[str]) -> list[AnyRequest]:
        """Return the requests that continue the channels of the old connection on a new one.

        A copy that was not live cannot be continued: its channel starts anew.
        """
        channels = sorted(self.channels.difference(except_for))
        anew = [channel for channel in channels if self._begins_anew(channel)]
        going_on = [channel for channel in channels if channel not in anew]
        asked = [
            request
            for some, after in ((going_on, self.sequence or None), (anew, None))
            if some
            for request in self._subscribe(some, after)
        ]
        return [*asked, Ping()] if asked else []  # its answer comes after all that was missed

    def _begins_anew(self, channel: str) -> bool:
        if channel.partition(".")[0] not in _COPIED:
            return False
        copy = self.copies.get(channel)
        return copy is None or copy.state is not BookState.PAUSED


def _channel(kind: str, instrument: str, cut: str) -> str:
    return f"{kind}.{instrument}.{cut}" if cut else f"{kind}.{instrument}"
