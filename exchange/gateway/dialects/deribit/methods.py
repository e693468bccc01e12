"""The table of methods: parameters, required right and handler of each."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from exchange.gateway.access import Key
from exchange.gateway.decode import Refused
from exchange.gateway.dialects.deribit import params as take
from exchange.gateway.dialects.deribit.answers import Candles, Market, Own
from exchange.gateway.dialects.deribit.blotter import Blotter
from exchange.gateway.dialects.deribit.calls import Later
from exchange.gateway.dialects.deribit.codes import refusal, refused_by
from exchange.gateway.dialects.deribit.gate import Gate
from exchange.gateway.dialects.deribit.portray import Portrayer
from exchange.gateway.dialects.deribit.rpc import Call, Failure, unknown_method
from exchange.gateway.dialects.deribit.trading import (
    CancelAll,
    CancelBook,
    Trading,
    number_of,
)
from exchange.gateway.http import Flood
from exchange.gateway.hub import Hub
from exchange.gateway.rest import requests_allowed
from exchange.messages import Reason
from exchange.messages.access import Right

PUBLIC, PRIVATE = "public/", "private/"
# Methods of WebSocket connections only, implemented in ``peer``.
CONNECTION_METHODS: Final = frozenset(
    {
        "public/subscribe",
        "public/unsubscribe",
        "public/unsubscribe_all",
        "public/set_heartbeat",
        "public/disable_heartbeat",
        "private/subscribe",
        "private/unsubscribe",
        "private/unsubscribe_all",
        "private/logout",
        "private/enable_cancel_on_disconnect",
        "private/disable_cancel_on_disconnect",
        "private/get_cancel_on_disconnect",
    }
)


class Method(NamedTuple):
    """One method. ``answer`` takes the caller's account, if ``right`` is not PUBLIC, and the
    parameters of type ``takes``."""

    takes: type[msgspec.Struct]
    answer: Callable[..., Any]
    right: Right = Right.PUBLIC


class Methods:
    """The methods that any caller may use, over HTTP or a WebSocket."""

    def __init__(
        self, hub: Hub, blotter: Blotter, candles: Candles, *, apart: bool = False
    ) -> None:
        """``apart``: other gateways may answer for an order before this one knows it."""
        self.hub = hub
        self._apart = apart
        self.blotter = blotter
        self.portrayer = Portrayer(hub, blotter)
        self.gate = Gate(hub)
        self._flood = Flood()
        trading = Trading(hub, blotter, self.portrayer)
        market = Market(hub, blotter, self.portrayer, candles)
        own = Own(hub, blotter, self.portrayer, trading)
        read, trade, cancel = Right.READ, Right.TRADE, Right.CANCEL
        self.known: dict[str, Method] = {
            "public/get_time": Method(take.Nothing, market.time),
            "public/test": Method(take.Nothing, market.test),
            "public/hello": Method(take.Nothing, market.test),
            "public/status": Method(take.Nothing, market.status),
            "public/get_currencies": Method(take.Nothing, market.currencies),
            "public/get_instruments": Method(take.Directory, market.instruments),
            "public/get_instrument": Method(take.OneInstrument, market.instrument),
            "public/get_contract_size": Method(take.OneInstrument, market.contract_size),
            "public/get_order_book": Method(take.Book, market.book),
            "public/ticker": Method(take.OneInstrument, market.ticker),
            "public/get_book_summary_by_currency": Method(take.Listed, market.summaries),
            "public/get_book_summary_by_instrument": Method(take.ListedOf, market.summaries),
            "public/get_last_trades_by_instrument": Method(take.OfBook, market.trades),
            "public/get_last_trades_by_instrument_and_time": Method(take.OfBook, market.trades),
            "public/get_last_trades_by_currency": Method(take.Slice, market.trades),
            "public/get_last_trades_by_currency_and_time": Method(take.Slice, market.trades),
            "public/get_tradingview_chart_data": Method(take.Chart, market.chart),
            "private/buy": Method(take.Order, trading.buy, trade),
            "private/sell": Method(take.Order, trading.sell, trade),
            "private/edit": Method(take.Edit, trading.edit, trade),
            "private/cancel": Method(take.CancelOne, trading.cancel, cancel),
            "private/cancel_all": Method(CancelAll, trading.cancel_all, cancel),
            "private/cancel_all_by_instrument": Method(CancelBook, trading.cancel_book, cancel),
            "private/cancel_all_by_currency": Method(CancelAll, trading.cancel_all, cancel),
            "private/get_order_state": Method(take.OneOrder, own.order, read),
            "private/get_open_orders": Method(take.Listed, own.open_orders, read),
            "private/get_open_orders_by_currency": Method(take.Listed, own.open_orders, read),
            "private/get_open_orders_by_instrument": Method(take.ListedOf, own.open_orders, read),
            "private/get_open_orders_by_label": Method(take.Labelled, own.open_labelled, read),
            "private/get_order_history_by_currency": Method(take.Slice, own.history, read),
            "private/get_order_history_by_instrument": Method(take.OfBook, own.history, read),
            "private/get_user_trades_by_currency": Method(take.Slice, own.trades, read),
            "private/get_user_trades_by_currency_and_time": Method(take.Slice, own.trades, read),
            "private/get_user_trades_by_instrument": Method(take.OfBook, own.trades, read),
            "private/get_user_trades_by_instrument_and_time": Method(take.OfBook, own.trades, read),
            "private/get_user_trades_by_order": Method(take.OfOrder, own.trades_of_order, read),
            "private/get_positions": Method(take.Listed, own.positions, read),
            "private/get_position": Method(take.OneInstrument, own.position, read),
            "private/get_account_summary": Method(take.Listed, own.summary, read),
            "private/get_account_summaries": Method(take.Nothing, own.summaries, read),
        }  # fmt: skip

    def answer(self, call: Call, key: Key | None) -> Any:
        """Return a call's result, or the Later or Wish that will give it; raises Failure."""
        method = self.known.get(call.method)
        if method is None:
            if call.method in CONNECTION_METHODS:
                raise Failure(10030, "must_be_websocket_request")
            raise unknown_method(call.method)
        if method.right is Right.PUBLIC:
            return method.answer(take.convert(call.params, method.takes))
        account = self.permitted(key, method.right).account
        params = take.convert(call.params, method.takes)
        if self._apart and isinstance(params, take.OneOrder | take.OfOrder | take.Edit):
            number = number_of(params.order_id)
            if number is not None and number not in self.blotter.orders:
                return self._once_seen(number, partial(method.answer, account, params))
        return method.answer(account, params)

    def _once_seen(self, order_id: int, answer: Callable[[], Any]) -> Later:
        async def wait(address: str) -> Any:
            await self.blotter.seen(order_id)
            return answer()

        return Later(wait)

    def only_reads(self, call: Call) -> bool:
        """Whether a call changes nothing, and so is answered by the gateway alone."""
        method = self.known.get(call.method)
        return method is None or method.right in (Right.PUBLIC, Right.READ)

    def count(self, address: str) -> None:
        """Count a call of an address; raises Failure if it has made too many this second, over all
        its connections."""
        try:
            self._flood.count(address, requests_allowed(address))
        except Refused as refused:
            raise refused_by(refused) from None

    def permitted(self, key: Key | None, right: Right) -> Key:
        """Return the caller's key if it has the right; raises Failure."""
        if key is None:
            raise refusal(Reason.AUTH_REQUIRED, "public/auth first, or sign the request")
        if not key.may(right):
            raise refusal(Reason.SCOPE, f"the key's scope is {key.scope}")
        if key.account not in self.hub.accounts.by_id:
            raise refusal(Reason.UNKNOWN_ACCOUNT)
        return key
