"""The methods that only read: market data, and an account's orders, trades and money."""

from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Any, Final, TypeVar

from exchange.gateway.archive import CandleRow
from exchange.gateway.dialects.deribit import instruments as names
from exchange.gateway.dialects.deribit.blotter import Blotter, Fill, Ticket
from exchange.gateway.dialects.deribit.calls import Later
from exchange.gateway.dialects.deribit.numbers import exact, milliseconds
from exchange.gateway.dialects.deribit.params import (
    CANDLES_MAX,
    COUNT_MAX,
    DEPTH_MAX,
    OFFSET_MAX,
    Book,
    Chart,
    Directory,
    Labelled,
    Listed,
    Nothing,
    OneInstrument,
    OneOrder,
    Slice,
    limited,
)
from exchange.gateway.dialects.deribit.portray import Portrayer, label_of
from exchange.gateway.dialects.deribit.rpc import wrong_param
from exchange.gateway.dialects.deribit.trading import Trading
from exchange.gateway.hub import Hub
from exchange.marketdata.instruments import Instrument
from exchange.messages import Reason
from exchange.messages.rest import MS_MAX

_T = TypeVar("_T")
Candles = Callable[
    [str, Instrument, int, int, int], Awaitable[tuple[Sequence[CandleRow], int | None]]
]
RESOLUTIONS: Final = {
    **{str(minutes): 60 * minutes for minutes in (1, 3, 5, 10, 15, 30, 60, 120, 180, 360, 720)},
    "1D": 86_400,
}  # seconds


class Market:
    """The public methods."""

    def __init__(self, hub: Hub, blotter: Blotter, portrayer: Portrayer, candles: Candles) -> None:
        self._hub = hub
        self._blotter = blotter
        self._portrayer = portrayer
        self._candles = candles

    def time(self, query: Nothing) -> int:
        """Return the gateway's clock in ms since the epoch."""
        return self._hub.now_ms()

    def test(self, query: Nothing) -> dict[str, str]:
        """Return the version; shows that the gateway works."""
        return {"version": "hourbook"}

    def status(self, query: Nothing) -> dict[str, Any]:
        """Return that nothing is locked: an instrument's state tells whether it trades."""
        return {"locked": "false", "locked_indices": []}

    def currencies(self, query: Nothing) -> list[dict[str, Any]]:
        """Return USD, the currency of all money, and the base currencies of the futures."""
        return [
            {"currency": name, "currency_long": name, "coin_type": name, "withdrawal_fee": 0}
            for name in names.currencies(self._hub.feed.instruments)
        ]

    def instruments(self, query: Directory) -> list[dict[str, Any]]:
        """Return the instruments of a currency and kind that have expired, or have not."""
        return [
            self._describe(one)
            for one in self._chosen(query)
            if names.is_expired(one) == query.expired
        ]

    def instrument(self, query: OneInstrument) -> dict[str, Any]:
        """Return one instrument."""
        return self._describe(self._find(query.instrument_name))

    def book(self, query: Book) -> dict[str, Any]:
        """Return an instrument's best levels and its ticker."""
        depth = limited(query.depth, DEPTH_MAX, "depth")
        instrument = self._find(query.instrument_name)
        shown = self._portrayer
        return {
            **shown.ticker(instrument),
            **shown.levels(instrument, depth),
            "change_id": shown.change_id(instrument),
        }

    def ticker(self, query: OneInstrument) -> dict[str, Any]:
        """Return an instrument's ticker."""
        return self._portrayer.ticker(self._find(query.instrument_name))

    def contract_size(self, query: OneInstrument) -> dict[str, int]:
        """Return the GPU-hours of one contract."""
        return {"contract_size": self._find(query.instrument_name).multiplier}

    def summaries(self, query: Listed) -> list[dict[str, Any]]:
        """Return the summary of one instrument, or of those of a currency and kind that have not
        expired."""
        return [
            self._portrayer.summary(one)
            for one in self._chosen(query)
            if query.instrument_name or not names.is_expired(one)
        ]

    def trades(self, query: Slice) -> dict[str, Any]:
        """Return public trades of an instrument, or of all instruments of a currency and kind."""
        if query.instrument_name:
            wanted = [self._find(query.instrument_name)]
        else:
            wanted = names.chosen(self._hub.feed.instruments, query.currency, query.kind)
        prints = [self._blotter.prints.get(one.id, ()) for one in wanted]
        taken, more = pick(
            prints,
            query,
            lambda shown: shown.trade.time,
            lambda shown: (shown.trade.sequence, shown.trade.index),
        )
        return {"trades": [self._portrayer.print(shown) for shown in taken], "has_more": more}

    def chart(self, query: Chart) -> Later:
        """Return an instrument's candles; intervals without a trade have none."""
        instrument = self._find(query.instrument_name)
        seconds = RESOLUTIONS.get(query.resolution)
        if seconds is None:
            raise wrong_param("resolution", Reason.PARAMETER_RANGE, " ".join(RESOLUTIONS))
        begin, end = query.start_timestamp, query.end_timestamp
        if begin < 0:
            raise wrong_param("start_timestamp", Reason.PARAMETER_RANGE, "0 or later")
        if not begin <= end <= MS_MAX:
            raise wrong_param("end_timestamp", Reason.PARAMETER_RANGE, "after the start")
        length = seconds * 1_000
        limited(max(1, -(-(end - begin) // length)), CANDLES_MAX, "start_timestamp")
        count = end // length - begin // length + 1

        async def read(address: str) -> dict[str, Any]:
            rows, _ = await self._candles(address, instrument, seconds, begin, count)
            inside = [row for row in rows if milliseconds(row[0]) <= end]
            return _chart(instrument, inside)

        return Later(read)

    def _chosen(self, query: Listed) -> list[Instrument]:
        if query.instrument_name:
            return [self._find(query.instrument_name)]
        return names.chosen(self._hub.feed.instruments, query.currency, query.kind)

    def _find(self, name: str) -> Instrument:
        return names.find(self._hub.feed.instruments, name)

    def _describe(self, instrument: Instrument) -> dict[str, Any]:
        listed = milliseconds(self._blotter.listed.get(instrument.id, 0))
        return names.describe(instrument, self._hub.feed.instruments, listed)


class Own:
    """The private methods that only read."""

    def __init__(self, hub: Hub, blotter: Blotter, portrayer: Portrayer, trading: Trading) -> None:
        self._hub = hub
        self._blotter = blotter
        self._portrayer = portrayer
        self._trading = trading

    def order(self, account: int, query: OneOrder) -> dict[str, Any]:
        """Return one order, working or ended."""
        return self._portrayer.order(self._trading.own(account, query.order_id))

    def open_orders(self, account: int, query: Listed) -> list[dict[str, Any]]:
        """Return the working orders."""
        wanted = self._wanted(query.instrument_name, query.currency, query.kind)
        working = self._blotter.working(account)
        return [self._portrayer.order(one) for one in working if one.instrument in wanted]

    def open_labelled(self, account: int, query: Labelled) -> list[dict[str, Any]]:
        """Return the working orders with a label, of all instruments or of a currency."""
        wanted = self._wanted("", query.currency, "any")
        labelled = (
            one for one in self._blotter.working(account) if label_of(one.text) == query.label
        )
        return [self._portrayer.order(one) for one in labelled if one.instrument in wanted]

    def history(self, account: int, query: Slice) -> list[dict[str, Any]]:
        """Return ended orders, by default the newest first."""
        wanted = self._wanted(query.instrument_name, query.currency, query.kind)
        ended: Mapping[int, Sequence[Ticket]] = self._blotter.ended.get(account, {})
        runs = [ended[number] for number in sorted(wanted & ended.keys())]
        taken, _ = pick(runs, query, lambda ticket: ticket.updated, lambda ticket: ticket.updated)
        return [self._portrayer.order(ticket) for ticket in taken]

    def trades(self, account: int, query: Slice) -> dict[str, Any]:
        """Return the account's trades, by default the newest first."""
        taken, more = self._fills(account, query)
        return {"trades": taken, "has_more": more}

    def trades_of_order(self, account: int, query: Slice) -> list[dict[str, Any]]:
        """Return the trades of one order."""
        self._trading.own(account, query.order_id)
        return self._fills(account, query)[0]

    def _fills(self, account: int, query: Slice) -> tuple[list[dict[str, Any]], bool]:
        wanted = {
            self._hub.feed.instruments.by_id[number].code
            for number in self._wanted(query.instrument_name, query.currency, query.kind)
        }
        fills = [
            fill
            for fill in self._blotter.fills.get(account, ())
            if fill.trade.instrument in wanted and query.order_id in ("", fill.trade.order_id)
        ]
        taken, more = pick([fills], query, _time_of, _time_of)
        return [self._portrayer.fill(fill) for fill in taken], more

    def positions(self, account: int, query: Listed) -> list[dict[str, Any]]:
        """Return the positions that are not zero."""
        wanted = self._wanted(query.instrument_name, query.currency, query.kind)
        exposures = self._portrayer.exposures(account)
        return [
            self._portrayer.position(self._hub.feed.instruments.by_id[number], exposure)
            for number, exposure in sorted(exposures.items())
            if exposure.net and number in wanted
        ]

    def position(self, account: int, query: OneInstrument) -> dict[str, Any]:
        """Return the position in an instrument, also if it is zero."""
        instrument = names.find(self._hub.feed.instruments, query.instrument_name)
        return self._portrayer.position_in(instrument, account)

    def summary(self, account: int, query: Listed) -> dict[str, Any]:
        """Return the account's money."""
        if query.currency not in ("any", names.CURRENCY):
            raise wrong_param("currency", Reason.NOT_FOUND, "all money is in USD")
        return self._portrayer.account(account)

    def summaries(self, account: int, query: Nothing) -> dict[str, Any]:
        """Return the account's money as a list with its only currency."""
        return {"id": account, "type": "main", "summaries": [self.summary(account, Listed())]}

    def _wanted(self, name: str, currency: str, kind: str) -> set[int]:
        if name:
            return {names.find(self._hub.feed.instruments, name).id}
        return {one.id for one in names.chosen(self._hub.feed.instruments, currency, kind)}


def _time_of(fill: Fill) -> int:
    return fill.trade.time


def _chart(instrument: Instrument, rows: Sequence[CandleRow]) -> dict[str, Any]:
    """Return candles in columns."""
    prices = {
        name: [exact(instrument.price_text(row[place])) for row in rows]
        for place, name in enumerate(("open", "high", "low", "close"), 1)
    }
    return {
        "status": "ok" if rows else "no_data",
        "ticks": [milliseconds(row[0]) for row in rows],
        **prices,
        "volume": [row[5] for row in rows],
    }


def pick(
    runs: Sequence[Sequence[_T]],
    query: Slice,
    time_of: Callable[[_T], int],
    place_of: Callable[[_T], Any],
) -> tuple[list[_T], bool]:
    """Return the part of a list that a query selects, and whether there is more.

    The newest come first, unless the query has a start time or says how to sort. The list consists
    of runs, each in ascending order of time and place. The cost depends on the entries skipped and
    returned, not on the length of the list. Raises Failure for a count or offset out of range.
    """
    count = limited(query.count, COUNT_MAX, "count")
    if not 0 <= query.offset <= OFFSET_MAX:
        told, observed = f"0 to {OFFSET_MAX}", str(query.offset)
        raise wrong_param("offset", Reason.PARAMETER_RANGE, told, observed)
    rising = query.sorting == "asc" or (query.sorting == "default" and query.start_timestamp > 0)
    inside, parts = 0, []

    def stamp(one: _T) -> int:
        return milliseconds(time_of(one))

    for run in filter(None, runs):
        begins, ends_before = query.start_timestamp, stamp(run[-1]) > query.end_timestamp
        first = bisect_left(run, begins, key=stamp) if stamp(run[0]) < begins else 0
        last = bisect_right(run, query.end_timestamp, key=stamp) if ends_before else len(run)
        if first < last:
            inside += last - first
            ends = (first, last) if rising else (len(run) - last, len(run) - first)
            parts.append(islice(run if rising else reversed(run), *ends))
    merged = merge(*parts, key=place_of, reverse=not rising)
    chosen = list(islice(merged, query.offset, query.offset + count))
    return chosen, inside > query.offset + count
