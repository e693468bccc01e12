"""Subscriptions: notifications made from native messages.

A channel takes native messages and returns the notifications to send, at most once per interval;
with ``raw`` after every native frame.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from exchange.gateway.dialects.deribit.instruments import CURRENCY, chosen, find, is_expired, is_of
from exchange.gateway.dialects.deribit.numbers import exact, milliseconds
from exchange.gateway.dialects.deribit.portray import Portrayer
from exchange.gateway.dialects.deribit.rpc import Failure, wrong_param
from exchange.gateway.hub import Hub
from exchange.marketdata.instruments import Instrument
from exchange.messages import Reason
from exchange.messages.wire import (
    DepthDelta,
    DepthSnapshot,
    Execution,
    InstrumentState,
    InstrumentStatistics,
    OrderReport,
    PublicTrade,
    Response,
)

RAW: Final = "raw"
PERIODS: Final = {RAW: 0.0, "100ms": 0.1, "agg2": 1.0}  # seconds
DEPTHS: Final = ("1", "10", "20")  # levels of a grouped book
_PICTURES: Final = DepthSnapshot | DepthDelta | InstrumentState | InstrumentStatistics


class Channel(ABC):
    """One subscription. ``feeds`` are the native channels that it needs."""

    def __init__(self, name: str, feeds: Iterable[str], interval: str = RAW) -> None:
        self.name = name
        self.feeds = tuple(feeds)
        self.period = PERIODS[interval]
        self.due = 0.0  # earliest next notification, on the loop's clock

    def widen(self) -> None:  # noqa: B027 - most have the same feeds always
        """Add the feeds of newly listed instruments."""

    @abstractmethod
    def take(self, message: Response) -> None:
        """Take a native message."""

    @abstractmethod
    def tell(self) -> list[Any]:
        """Return the data of the pending notifications, and clear them."""


class Book(Channel):
    """The whole book as changes, each with the ``change_id`` of the one before.

    A later native snapshot, which a slow reader gets, becomes the change that leads to it, so that
    the chain of ``change_id`` never breaks.
    """

    def __init__(self, name: str, instrument: Instrument, interval: str) -> None:
        super().__init__(name, (f"depth.{instrument.code}",), interval)
        self._code = instrument.code
        self._now: tuple[dict[str, str], dict[str, str]] = ({}, {})  # bids, asks: price, amount
        self._told: tuple[dict[str, str], dict[str, str]] | None = None  # the client's book
        self._touched: tuple[set[str], set[str]] = (set(), set())
        self._change = self._told_change = self._time = 0
        self._begun = False

    def take(self, message: Response) -> None:
        if not isinstance(message, DepthSnapshot | DepthDelta) or message.instrument != self._code:
            return
        fresh = isinstance(message, DepthSnapshot)
        if not fresh and not self._begun:
            return  # from before the subscription
        self._begun = True
        self._change, self._time = message.sequence, message.time
        for place, levels in enumerate((message.bids, message.asks)):
            now, touched = self._now[place], self._touched[place]
            if fresh:
                touched.update(now)
                now.clear()
            for price, quantity in levels:
                touched.add(price)
                if quantity == "0":
                    now.pop(price, None)
                else:
                    now[price] = quantity

    def tell(self) -> list[Any]:
        if not self._begun or (self._change == self._told_change and self._told is not None):
            return []
        data: dict[str, Any] = {
            "type": "snapshot" if self._told is None else "change",
            "timestamp": milliseconds(self._time),
            "instrument_name": self._code,
            "change_id": self._change,
        }
        if self._told is None:
            self._told = ({}, {})
        else:
            data["prev_change_id"] = self._told_change
        data["bids"], data["asks"] = self._difference(0), self._difference(1)
        self._told_change = self._change
        return [data]

    def _difference(self, place: int) -> list[Any]:
        """Return one side's changes since the last notification, and update the client's book."""
        assert self._told is not None, "told from here on"
        now, told, touched = self._now[place], self._told[place], self._touched[place]
        changes: list[Any] = []
        for price in sorted(touched, key=Decimal, reverse=place == 0):
            amount, before = now.get(price), told.get(price)
            if amount == before:
                continue
            if amount is None:
                del told[price]
                changes.append(("delete", exact(price), 0))
            else:
                told[price] = amount
                action = "new" if before is None else "change"
                changes.append((action, exact(price), exact(amount)))
        touched.clear()
        return changes


class State(Channel):
    """A channel that is sent whole when it may have changed: ticker, quote, grouped book."""

    def __init__(
        self, name: str, instrument: Instrument, portrayer: Portrayer, interval: str, depth: int
    ) -> None:
        """``depth`` is the levels of a grouped book, 0 for a quote, -1 for a ticker."""
        kinds = ("depth", "statistics", "state") if depth < 0 else ("depth",)
        super().__init__(name, [f"{kind}.{instrument.code}" for kind in kinds], interval)
        self._instrument = instrument
        self._portrayer = portrayer
        self._depth = depth
        self._due = True

    def take(self, message: Response) -> None:
        if isinstance(message, _PICTURES):
            self._due |= message.instrument == self._instrument.code

    def tell(self) -> list[Any]:
        if not self._due:
            return []
        self._due = False
        instrument, shown = self._instrument, self._portrayer
        ticker = shown.ticker(instrument)
        if self._depth < 0:
            return [ticker]
        whose = {"instrument_name": instrument.code, "timestamp": ticker["timestamp"]}
        if not self._depth:
            return [whose | shown.top(instrument)]
        levels = shown.levels(instrument, self._depth)
        return [whose | {"change_id": shown.change_id(instrument)} | levels]


class Trades(Channel):
    """Public trades of the chosen instruments."""

    def __init__(self, name: str, choice: "Choice", portrayer: Portrayer, interval: str) -> None:
        super().__init__(name, (), interval)
        self._choice = choice
        self._portrayer = portrayer
        self._waiting: list[Any] = []
        self.widen()

    def widen(self) -> None:
        self.feeds = tuple(f"trades.{code}" for code in self._choice.codes())

    def take(self, message: Response) -> None:
        if isinstance(message, PublicTrade) and self._choice.wants(message.instrument):
            self._waiting.append(self._portrayer.told(message))

    def tell(self) -> list[Any]:
        waiting, self._waiting = self._waiting, []
        return [waiting] if waiting else []


class Own(Channel):
    """An account's own orders, trades, or changes (both, with the resulting positions)."""

    def __init__(self, name: str, chooser: "Chooser", what: str, interval: str) -> None:
        super().__init__(name, (), interval)
        self._what = what
        self._chooser = chooser
        self._orders: dict[str, str] = {}  # order id -> code, in the order of their last changes
        self._fills: list[Execution] = []

    def take(self, message: Response) -> None:
        if isinstance(message, OrderReport) and self._chooser.wants(message.instrument):
            self._orders.pop(message.order_id, None)
            self._orders[message.order_id] = message.instrument
            if isinstance(message, Execution):
                self._fills.append(message)

    def tell(self) -> list[Any]:
        orders, self._orders = self._orders, {}
        fills, self._fills = self._fills, []
        found = (self._chooser.portray(order_id) for order_id in orders)
        told = [] if self._what == "trades" else [order for order in found if order is not None]
        traded = [] if self._what == "orders" else [self._chooser.fill(fill) for fill in fills]
        if self._what == "orders":
            return told if not self.period else [told] if told else []
        if self._what == "trades":
            return [traded] if traded else []
        return self._changes(orders, told, traded)

    def _changes(self, orders: dict[str, str], told: list[Any], traded: list[Any]) -> list[Any]:
        """Return orders, trades and positions by instrument."""
        data = []
        for code in dict.fromkeys(orders.values()):
            mine = [one for one in traded if one["instrument_name"] == code]
            data.append(
                {
                    "instrument_name": code,
                    "orders": [one for one in told if one["instrument_name"] == code],
                    "trades": mine,
                    "positions": [self._chooser.position(code)] if mine else [],
                }
            )
        return data


class Portfolio(Channel):
    """An account's money, sent after any of its reports and whenever a mark or a rate changes."""

    def __init__(self, name: str, portrayer: Portrayer, account: int) -> None:
        super().__init__(name, (), "100ms")
        self._portrayer = portrayer
        self._account = account
        self._due = True
        self._revalued = 0  # the portrayer's, when it was last sent

    def take(self, message: Response) -> None:
        self._due |= not isinstance(message, _PICTURES | PublicTrade)

    def tell(self) -> list[Any]:
        revalued = self._portrayer.revalued
        if not self._due and revalued == self._revalued:
            return []
        self._due, self._revalued = False, revalued
        return [self._portrayer.account(self._account)]


class Choice:
    """The instruments of ``CODE`` or of ``KIND.CURRENCY``, including ones listed later."""

    def __init__(self, name: str, hub: Hub, parts: list[str]) -> None:
        """``parts`` are those of the channel ``name``. Raises Failure if there are none such."""
        self._instruments = hub.feed.instruments
        self._kind, self._currency = parts if len(parts) == 2 else ("", "")
        self._known: dict[str, bool] = {}  # by code; cached
        if len(parts) == 1:
            self._known[_find(hub, parts[0]).code] = True
            return
        try:
            chosen(self._instruments, self._currency, self._kind)
        except Failure:
            raise _no_channel(name) from None

    def wants(self, code: str) -> bool:
        """Whether an instrument is chosen."""
        known = self._known.get(code)
        if known is None:
            known = self._known[code] = bool(self._kind) and is_of(
                self._instruments.by_code[code], self._instruments, self._currency, self._kind
            )
        return known

    def codes(self) -> list[str]:
        """Return the codes of the chosen instruments that may still trade, or of the one named."""
        known = self._instruments.by_code
        return [
            code
            for code in known
            if self.wants(code) and not (self._kind and is_expired(known[code]))
        ]


class Chooser:
    """The instruments and account of a private channel, and its orders, fills and positions."""

    def __init__(self, hub: Hub, portrayer: Portrayer, account: int, choice: Choice) -> None:
        self._hub = hub
        self._portrayer = portrayer
        self._account = account
        self.wants = choice.wants

    def portray(self, order_id: str) -> Any:
        """Return an order as it is now; None if it is no longer kept."""
        return self._portrayer.known_order(int(order_id))

    def fill(self, execution: Execution) -> Any:
        """Return the account's side of a trade."""
        return self._portrayer.told_fill(execution, self._account)

    def position(self, code: str) -> Any:
        """Return the account's position in an instrument."""
        instrument = self._hub.feed.instruments.by_code[code]
        return self._portrayer.position_in(instrument, self._account)


def open_channel(name: str, hub: Hub, portrayer: Portrayer, account: int | None) -> Channel:
    """Return the channel of a name; raises Failure. ``account`` is the caller's, None before it
    has logged on."""
    kind, *parts = name.split(".")
    if kind == "user" and parts:
        if account is None:
            raise Failure(13009, "unauthorized", {"reason": Reason.AUTH_REQUIRED.name})
        return _own(name, parts, hub, portrayer, account)
    if kind == "quote" and len(parts) == 1:
        return State(name, _find(hub, parts[0]), portrayer, RAW, 0)
    if kind == "trades" and len(parts) in (2, 3):
        interval = _interval(name, parts[-1])
        return Trades(name, Choice(name, hub, parts[:-1]), portrayer, interval)
    if kind == "ticker" and len(parts) == 2:
        return State(name, _find(hub, parts[0]), portrayer, _interval(name, parts[1]), -1)
    if kind == "book" and len(parts) == 2:
        return Book(name, _find(hub, parts[0]), _interval(name, parts[1]))
    if kind == "book" and len(parts) == 4 and parts[1] == "none" and parts[2] in DEPTHS:
        interval, depth = _interval(name, parts[3]), int(parts[2])
        return State(name, _find(hub, parts[0]), portrayer, interval, depth)
    raise _no_channel(name)


def _own(name: str, parts: list[str], hub: Hub, portrayer: Portrayer, account: int) -> Channel:
    what, *rest = parts
    if what == "portfolio" and rest in (["any"], [CURRENCY], [CURRENCY.lower()]):
        return Portfolio(name, portrayer, account)
    if what not in ("orders", "trades", "changes") or len(rest) not in (2, 3):
        raise _no_channel(name)
    interval = _interval(name, rest[-1])
    choice = Choice(name, hub, rest[:-1])
    return Own(name, Chooser(hub, portrayer, account, choice), what, interval)


def _find(hub: Hub, code: str) -> Instrument:
    return find(hub.feed.instruments, code, "channels")


def _interval(name: str, text: str) -> str:
    if text not in PERIODS:
        raise _no_channel(name)
    return text


def _no_channel(name: str) -> Failure:
    return wrong_param("channels", Reason.NOT_FOUND, "no such channel", ascii(name[:80])[1:-1])
