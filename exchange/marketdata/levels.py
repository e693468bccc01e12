"""Pictures of depth: the best levels, grouped levels, or conflated full depth."""

from abc import abstractmethod

from exchange.marketdata.depth import BUY, SELL, levels_checksum
from exchange.marketdata.instruments import Instrument
from exchange.marketdata.picture import Levels, Name, Picture, Sides, Source
from exchange.marketdata.queues import Entry
from exchange.messages.wire_base import Level, Response
from exchange.messages.wire_market import CHECKSUM_LEVELS, DepthDelta, DepthSnapshot


class _Levels(Picture):
    """What all pictures of depth share: their messages."""

    @abstractmethod
    def now(self) -> Sides:
        """Return the levels that the channel has been sent."""

    def snapshot(self) -> list[Response]:
        bids, asks = self.now()
        made = DepthSnapshot(
            instrument=self.instrument.code,
            sequence=self.sequence,
            time=self.source.time,
            bids=level_texts(self.instrument, bids),
            asks=level_texts(self.instrument, asks),
            checksum=levels_checksum(bids, asks),
            channel=self.channel,
        )
        return [made]

    def heartbeat(self) -> Response:
        return self.delta(self.sequence, ([], []), self.now())

    def delta(self, previous: int, changed: Sides, now: Sides) -> DepthDelta:
        """Return the message of changed levels; the checksum is of the levels ``now``."""
        return DepthDelta(
            instrument=self.instrument.code,
            sequence=self.sequence,
            previous_sequence=previous,
            time=self.source.time,
            checksum=levels_checksum(*now),
            bids=level_texts(self.instrument, changed[BUY]),
            asks=level_texts(self.instrument, changed[SELL]),
            channel=self.channel,
        )


class Window(_Levels):
    """The best levels of both sides, each level covering one or several ticks."""

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        super().__init__(channel, name, source)
        self._top, self._group = name.top, name.group
        self._told = self._look()

    def now(self) -> Sides:
        return self._told

    def _look(self) -> Sides:
        if self._group == 1:
            return self.depth.bids(self._top), self.depth.asks(self._top)
        return self._grouped(BUY), self._grouped(SELL)

    def _grouped(self, side: int) -> Levels:
        """Return the grouped levels of a side: bids are rounded down to a multiple, asks up."""
        prices, group = self.depth.prices(side), self._group
        made: Levels = []
        for price in reversed(prices) if side == BUY else prices:
            at = price // group * group if side == BUY else -(-price // group) * group
            if made and made[-1][0] == at:
                made[-1] = at, made[-1][1] + self.depth.lots(side, price)
            elif len(made) < self._top:
                made.append((at, self.depth.lots(side, price)))
            else:
                break
        return made

    def tell(self) -> Response | None:
        if not self._is_news(self.depth.sequence):
            return None
        seen = self._look()
        if seen == self._told:
            return None
        changed = tuple(_difference(*pair) for pair in zip(self._told, seen, strict=True))
        self._told = seen
        return self.delta(self._advance(self.depth.sequence), (changed[BUY], changed[SELL]), seen)


class Full(_Levels):
    """The full depth, conflated."""

    def __init__(self, channel: str, name: Name, source: Source) -> None:
        super().__init__(channel, name, source)
        self._pending: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def now(self) -> Sides:
        return self.depth.bids(), self.depth.asks()

    def note(self, levels: Sides, entries: tuple[list[Entry], list[Entry]]) -> None:
        for pending, changed in zip(self._pending, levels, strict=True):
            pending.update(changed)

    def tell(self) -> Response | None:
        bids, asks = (sorted(pending.items()) for pending in self._pending)
        if not bids and not asks:
            return None
        for pending in self._pending:
            pending.clear()
        best = self.depth.bids(CHECKSUM_LEVELS), self.depth.asks(CHECKSUM_LEVELS)
        return self.delta(self._advance(self.depth.sequence), (bids[::-1], asks), best)

    def snapshot(self) -> list[Response]:
        """Return the present depth, which may lie between two deltas."""
        told, self.sequence = self.sequence, self.depth.sequence
        made = super().snapshot()
        self.sequence = told
        return made

    def heartbeat(self) -> Response:
        best = self.depth.bids(CHECKSUM_LEVELS), self.depth.asks(CHECKSUM_LEVELS)
        return self.delta(self.sequence, ([], []), best)


def _difference(told: Levels, seen: Levels) -> Levels:
    """Return the levels that differ from those sent; a level that is gone has zero lots."""
    before, now = dict(told), dict(seen)
    gone = [(price, 0) for price in before if price not in now]
    return [level for level in seen if before.get(level[0]) != level[1]] + gone


def level_texts(instrument: Instrument, levels: Levels) -> list[Level]:
    """Return levels in their wire form."""
    return [(instrument.price_text(price), str(lots)) for price, lots in levels]
